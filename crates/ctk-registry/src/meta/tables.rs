//! Metadata in the tables of a database, whichever it is. Readers wait for nobody; writers of a process are gathered by
//! one thread, which commits whatever arrived meanwhile at once: the disk is waited for once a round and not once a
//! request. Several processes may use one database: their rounds take turns.

use std::fmt;
use std::sync::{Arc, Mutex, mpsc};

use ctk_oci::Digest;

use super::sql::{Row, Sql, blobs, keep, manifests, values};
use super::{
    Cursor, Held, ManifestPut, Meta, Name, Place, Retention, Seconds, Seen, Stored, TagRule, Totals, Trash, Upload,
    Usage,
};
use crate::{GATHERED_WRITES_LIMIT, RegistryError};

type Connection = Box<dyn Sql>;
type Reply = Box<dyn FnOnce(Result<(), &RegistryError>) + Send>;
type Job = Box<dyn FnOnce(Result<&dyn Sql, &RegistryError>) -> Option<Reply> + Send>;

/// Opens a connection: one that writes, or one that only reads.
pub(super) type Connect = Arc<dyn Fn(bool) -> Result<Connection, RegistryError> + Send + Sync>;

/// Metadata in a database.
pub struct Tables {
    name: String,
    connect: Connect,
    readers_limit: usize,
    readers: Mutex<Readers>,
    returned: std::sync::Condvar,
    jobs: mpsc::Sender<Job>,
}

#[derive(Default)]
struct Readers {
    idle: Vec<Connection>,
    /// Those that are in use.
    lent: usize,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tables({})", self.name)
    }
}

impl Tables {
    /// Metadata behind `connect`, with at most `readers_limit` connections besides the one that writes; its tables are
    /// there. `name` is for people and holds no password.
    pub(super) fn new(name: String, connect: Connect, readers_limit: usize) -> Result<Tables, RegistryError> {
        let (jobs, queue) = mpsc::channel();
        let (first, again) = (connect(true)?, connect.clone());
        let spawned = std::thread::Builder::new().name("ctk-metadata".into());
        let spawned = spawned.spawn(move || write_all(first, &again, &queue));
        spawned.map_err(RegistryError::storage("start a thread for", &name))?;
        let (readers, returned) = (Mutex::default(), std::sync::Condvar::new());
        Ok(Tables { name, connect, readers_limit, readers, returned, jobs })
    }

    fn reader(&self) -> Result<Connection, RegistryError> {
        let mut readers = self.readers.lock().expect("no holder panics");
        while readers.lent >= self.readers_limit {
            readers = self.returned.wait(readers).expect("no holder panics");
        }
        readers.lent += 1;
        if let Some(connection) = readers.idle.pop() {
            return Ok(connection);
        }
        drop(readers);
        (self.connect)(false).inspect_err(|_| self.give_back(None))
    }

    fn give_back(&self, connection: Option<Connection>) {
        let mut readers = self.readers.lock().expect("no holder panics");
        readers.lent -= 1;
        readers.idle.extend(connection.filter(|connection| !connection.is_broken()));
        self.returned.notify_one();
    }

    /// Runs `work` on a connection that only reads; once more if the connection was broken.
    fn read<T>(&self, work: impl Fn(&dyn Sql) -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        let once = || {
            let connection = self.reader()?;
            let result = work(&*connection);
            let broken = connection.is_broken();
            self.give_back(Some(connection));
            Ok::<_, RegistryError>((result, broken))
        };
        let (result, broken) = once()?;
        if !broken || result.is_ok() {
            return result;
        }
        // The server was started again: every idle connection is as broken. A new one tells.
        self.readers.lock().expect("no holder panics").idle.clear();
        once()?.0
    }

    /// Runs `work` in a transaction with those of other threads; what it does is durable, or undone, when this returns.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Sql) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let (sender, receiver) = mpsc::sync_channel::<Result<T, RegistryError>>(1);
        let job: Job = Box::new(move |connection| {
            let result = match connection {
                Ok(connection) => within_savepoint(connection, work),
                Err(error) => {
                    let _ = sender.send(Err(unwritten(error)));
                    return None;
                }
            };
            Some(Box::new(move |committed| {
                let _ = sender.send(match committed {
                    Ok(()) => result,
                    Err(error) => result.and(Err(unwritten(error))),
                });
            }))
        });
        let stopped = || RegistryError::MetadataStopped;
        self.jobs.send(job).map_err(|_| stopped())?;
        receiver.recv().map_err(|_| stopped())?
    }
}

/// The cause of a failed commit is told to everybody whose work it was; only its text can be.
fn unwritten(error: &RegistryError) -> RegistryError {
    match error {
        RegistryError::Metadata { full, cause, .. } => {
            RegistryError::Metadata { action: "write", full: *full, cause: cause.to_string().into() }
        }
        other => RegistryError::Metadata { action: "write", full: false, cause: other.to_string().into() },
    }
}

/// The thread that writes: takes a job, then all that wait behind it, and commits them together.
fn write_all(mut connection: Connection, connect: &Connect, queue: &mpsc::Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut begun = connection.begin();
        if begun.is_err() && connection.is_broken() {
            begun = connect(true).and_then(|fresh| {
                connection = fresh;
                connection.begin()
            });
        }
        let mut replies: Vec<Reply> = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            replies.extend(job(begun.as_ref().map(|()| &*connection)));
            next = if replies.len() < GATHERED_WRITES_LIMIT { queue.try_recv().ok() } else { None };
        }
        let committed = begun.and_then(|()| connection.batch("COMMIT"));
        if committed.is_err() {
            // There may be nothing to take back.
            let _ = connection.batch("ROLLBACK");
        }
        for reply in replies {
            reply(committed.as_ref().copied());
        }
    }
}

/// What `work` did is undone when it fails, and only that.
fn within_savepoint<T>(
    connection: &dyn Sql,
    work: impl FnOnce(&dyn Sql) -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    connection.batch("SAVEPOINT job")?;
    let result = work(connection);
    match &result {
        Ok(_) => connection.batch("RELEASE job")?,
        Err(_) => connection.batch("ROLLBACK TO job; RELEASE job")?,
    }
    result
}

impl Meta for Tables {
    fn start_upload(&self, upload: Upload, limit: usize, now: Seconds) -> Result<(), RegistryError> {
        self.write(move |c| blobs::start_upload(c, &upload, limit, now))
    }

    fn upload(&self, repository: &str, place: &Place) -> Result<Option<Upload>, RegistryError> {
        self.read(|c| blobs::upload(c, repository, place))
    }

    fn save_upload(&self, upload: Upload, now: Seconds) -> Result<bool, RegistryError> {
        self.write(move |c| blobs::save_upload(c, &upload, now))
    }

    fn finish_upload(
        &self,
        repository: &str,
        place: &Place,
        digest: &Digest,
        size: u64,
        lost: Option<&Place>,
        now: Seconds,
    ) -> Result<bool, RegistryError> {
        let (repository, place, digest, lost) = (repository.to_owned(), place.clone(), digest.clone(), lost.cloned());
        self.write(move |c| blobs::finish_upload(c, &repository, &place, &digest, size, lost.as_ref(), now))
    }

    fn cancel_upload(&self, repository: &str, place: &Place, now: Seconds) -> Result<bool, RegistryError> {
        let (repository, place) = (repository.to_owned(), place.clone());
        self.write(move |c| blobs::cancel_upload(c, &repository, &place, now))
    }

    fn expire_uploads(&self, before: Seconds, now: Seconds) -> Result<usize, RegistryError> {
        self.write(move |c| blobs::expire_uploads(c, before, now))
    }

    fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<Held>, RegistryError> {
        self.read(|c| blobs::blob(c, repository, digest))
    }

    fn holders(&self, digest: &Digest, limit: usize) -> Result<Vec<String>, RegistryError> {
        self.read(|c| blobs::holders(c, digest, limit))
    }

    fn mount(&self, repository: &str, from: &str, digest: &Digest, now: Seconds) -> Result<bool, RegistryError> {
        let (repository, from, digest) = (repository.to_owned(), from.to_owned(), digest.clone());
        self.write(move |c| blobs::mount(c, &repository, &from, &digest, now))
    }

    fn delete_blob(&self, repository: &str, digest: &Digest, now: Seconds) -> Result<bool, RegistryError> {
        let (repository, digest) = (repository.to_owned(), digest.clone());
        self.write(move |c| blobs::delete_blob(c, &repository, &digest, now))
    }

    fn put_manifest(&self, put: ManifestPut) -> Result<(), RegistryError> {
        self.write(move |c| manifests::put(c, &put))
    }

    fn manifest(&self, repository: &str, name: &Name) -> Result<Option<Stored>, RegistryError> {
        self.read(|c| manifests::get(c, repository, name))
    }

    fn descriptor(&self, repository: &str, name: &Name) -> Result<Option<ctk_oci::Descriptor>, RegistryError> {
        self.read(|c| manifests::descriptor(c, repository, name))
    }

    fn delete_manifest(
        &self,
        repository: &str,
        name: &Name,
        rule: TagRule,
        now: Seconds,
    ) -> Result<bool, RegistryError> {
        let (repository, name) = (repository.to_owned(), name.clone());
        self.write(move |c| manifests::delete(c, &repository, &name, &rule, now))
    }

    fn tags(&self, repository: &str, after: &str, limit: usize) -> Result<Option<Vec<String>>, RegistryError> {
        self.read(|c| manifests::tags(c, repository, after, limit))
    }

    fn repositories(&self, after: &str, limit: usize) -> Result<Vec<String>, RegistryError> {
        let query = "SELECT name FROM repositories WHERE listed AND name > ?1 ORDER BY name LIMIT ?2";
        let rows = self.read(|c| c.rows(query, values![after, limit]))?;
        rows.into_iter().map(|mut row| row.text(0)).collect()
    }

    fn referrers(
        &self,
        repository: &str,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<ctk_oci::Descriptor>, RegistryError> {
        self.read(|c| manifests::referrers(c, repository, subject, artifact_type, after, limit))
    }

    fn usage(&self, repository: &str) -> Result<Usage, RegistryError> {
        self.read(|c| keep::usage(c, repository))
    }

    fn totals(&self) -> Result<Totals, RegistryError> {
        self.read(keep::totals)
    }

    fn seen(&self, seen: Vec<Seen>, now: Seconds) -> Result<(), RegistryError> {
        self.write(move |c| keep::seen(c, &seen, now))
    }

    fn sweep(
        &self,
        from: Option<Cursor>,
        before: Seconds,
        limit: usize,
        now: Seconds,
    ) -> Result<(usize, Option<Cursor>), RegistryError> {
        self.write(move |c| keep::sweep(c, from, before, limit, now))
    }

    fn retain(
        &self,
        repository: &str,
        retention: &Retention,
        now: Seconds,
        dry: bool,
    ) -> Result<Vec<Name>, RegistryError> {
        let (repository, retention) = (repository.to_owned(), retention.clone());
        self.write(move |c| keep::retain(c, &repository, &retention, now, dry))
    }

    fn trash(&self, limit: usize) -> Result<Vec<Trash>, RegistryError> {
        let query = "SELECT place, parts FROM trash ORDER BY since LIMIT ?1";
        let rows = self.read(|c| c.rows(query, values![limit]))?;
        rows.into_iter().map(|mut row| Ok(Trash { place: Place(row.text(0)?), parts: row.text(1)? })).collect()
    }

    fn forget(&self, places: Vec<Place>) -> Result<(), RegistryError> {
        self.write(move |c| {
            for place in &places {
                c.run("DELETE FROM trash WHERE place = ?1", values![&place.0])?;
            }
            Ok(())
        })
    }

    fn all_blobs(&self, after: &str, limit: usize) -> Result<Vec<(Digest, Held)>, RegistryError> {
        let query = "SELECT digest, place, size FROM blobs WHERE digest > ?1 ORDER BY digest LIMIT ?2";
        let rows = self.read(|c| c.rows(query, values![after, limit]))?;
        let held = |mut row: Row| Ok((row.digest(0)?, Held { place: Place(row.text(1)?), size: row.count(2)? }));
        rows.into_iter().map(held).collect()
    }

    fn knows(&self, place: &Place) -> Result<bool, RegistryError> {
        let query = "SELECT EXISTS (SELECT 1 FROM blobs WHERE place = ?1) \
                   OR EXISTS (SELECT 1 FROM uploads WHERE place = ?1) OR EXISTS (SELECT 1 FROM trash WHERE place = ?1)";
        Ok(self.read(|c| c.id(query, values![&place.0]))?.is_some_and(|known| known != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sql::{make_repository, repository_id};
    use crate::meta::Sqlite;

    use super::*;

    #[test]
    fn a_job_that_fails_undoes_its_own_work_only() {
        let folder = tempfile::tempdir().unwrap();
        let meta = Sqlite::open(folder.path().join("x.db")).unwrap();
        let failed: Result<(), _> = meta.write(|c| {
            make_repository(c, "gone")?;
            Err(RegistryError::UploadBusy)
        });
        assert!(failed.is_err());
        meta.write(|c| make_repository(c, "kept")).unwrap();
        assert!(meta.read(|c| repository_id(c, "gone")).unwrap().is_none());
        assert!(meta.read(|c| repository_id(c, "kept")).unwrap().is_some());
    }
}
