//! Metadata in one SQLite file beside the blobs. Readers never wait for writers (write-ahead log); writers of a
//! process are gathered by one thread, which commits whatever arrived meanwhile at once: the disk is waited for once
//! a round and not once a request. Several processes may use one file.

mod blobs;
mod keep;
mod manifests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc};

use ctk_oci::Digest;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::Usage;
use super::{Cursor, Held, ManifestPut, Meta, Name, Place, Retention, Seconds, Seen, Stored, TagRule, Trash, Upload};
use crate::{GATHERED_WRITES_LIMIT, METADATA_BUSY_TIMEOUT, RegistryError};

/// The version of the tables, in the file's `user_version`. A file of a later one is refused.
const SCHEMA: i64 = 1;

type Reply = Box<dyn FnOnce(Result<(), &rusqlite::Error>) + Send>;
type Job = Box<dyn FnOnce(Result<&Connection, &rusqlite::Error>) -> Option<Reply> + Send>;

/// Metadata in a file.
pub struct Sqlite {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    jobs: mpsc::Sender<Job>,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sqlite({})", self.path.display())
    }
}

impl Sqlite {
    /// Opens the file `path`, made if it does not exist; its directory must. Nothing is scanned.
    pub fn open(path: impl Into<PathBuf>) -> Result<Sqlite, RegistryError> {
        let path = path.into();
        let failed = |cause| RegistryError::Metadata { action: "open", cause: Box::new(cause) };
        let connection = connect(&path, true).map_err(failed)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        if version > SCHEMA {
            return Err(RegistryError::MetadataVersion { path, found: version, known: SCHEMA });
        }
        if version < SCHEMA {
            let make =
                format!("BEGIN IMMEDIATE; {} PRAGMA user_version = {SCHEMA}; COMMIT;", include_str!("../schema.sql"));
            connection.execute_batch(&make).map_err(failed)?;
        }
        let (jobs, queue) = mpsc::channel();
        let spawned =
            std::thread::Builder::new().name("ctk-metadata".into()).spawn(move || write_all(&connection, &queue));
        spawned.map_err(RegistryError::storage("start a thread for", &path))?;
        Ok(Sqlite { path, idle: Mutex::default(), jobs })
    }

    /// Runs `work` on a connection that only reads.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        let idle = self.idle.lock().expect("no holder panics").pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path, false).map_err(RegistryError::metadata("open"))?,
        };
        let result = work(&connection);
        let mut idle = self.idle.lock().expect("no holder panics");
        if idle.len() < crate::METADATA_READERS_LIMIT {
            idle.push(connection);
        }
        result
    }

    /// Runs `work` in a transaction with those of other threads; what it does is durable, or undone, when this returns.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, RegistryError> + Send + 'static,
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
fn unwritten(error: &rusqlite::Error) -> RegistryError {
    let code = error.sqlite_error().copied().unwrap_or(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR));
    let cause = rusqlite::Error::SqliteFailure(code, Some(error.to_string()));
    RegistryError::Metadata { action: "write", cause: Box::new(cause) }
}

fn connect(path: &Path, write: bool) -> Result<Connection, rusqlite::Error> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if write {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(METADATA_BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    if write {
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 2000;")?;
    } else {
        connection.execute_batch("PRAGMA query_only = 1;")?;
    }
    Ok(connection)
}

/// The thread that writes: takes a job, then all that wait behind it, and commits them together.
fn write_all(connection: &Connection, queue: &mpsc::Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let begun = connection.execute_batch("BEGIN IMMEDIATE");
        let mut replies: Vec<Reply> = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            replies.extend(job(begun.as_ref().map(|()| connection)));
            next = if replies.len() < GATHERED_WRITES_LIMIT { queue.try_recv().ok() } else { None };
        }
        let committed = begun.and_then(|()| connection.execute_batch("COMMIT"));
        if committed.is_err() && !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        for reply in replies {
            reply(committed.as_ref().copied());
        }
    }
}

/// What `work` did is undone when it fails, and only that.
fn within_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    let run = |sql| connection.execute_batch(sql).map_err(RegistryError::metadata("write"));
    run("SAVEPOINT job")?;
    let result = work(connection);
    match &result {
        Ok(_) => run("RELEASE job")?,
        Err(_) => run("ROLLBACK TO job; RELEASE job")?,
    }
    result
}

fn failed(cause: rusqlite::Error) -> RegistryError {
    RegistryError::Metadata { action: "read or write", cause: Box::new(cause) }
}

/// A statement, run; gives the number of rows that it changed.
fn run(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<usize, RegistryError> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map_err(failed)
}

/// The first row of a query.
fn one<T>(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, RegistryError> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row(values, read).optional())
        .map_err(failed)
}

/// Every row of a query.
fn all<T>(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, RegistryError> {
    let rows = |mut statement: rusqlite::CachedStatement<'_>| statement.query_map(values, read)?.collect();
    connection.prepare_cached(sql).and_then(rows).map_err(failed)
}

/// A text of the database that we wrote ourselves.
fn digest(text: &str) -> Result<Digest, RegistryError> {
    text.parse().map_err(|_| RegistryError::MetadataDamaged { what: "a digest", text: text.into() })
}

fn repository_id(connection: &Connection, name: &str) -> Result<Option<i64>, RegistryError> {
    one(connection, "SELECT id FROM repositories WHERE name = ?1", [name], |row| row.get(0))
}

fn make_repository(connection: &Connection, name: &str) -> Result<i64, RegistryError> {
    if let Some(id) = repository_id(connection, name)? {
        return Ok(id);
    }
    run(connection, "INSERT INTO repositories (name) VALUES (?1)", [name])?;
    Ok(connection.last_insert_rowid())
}

impl Meta for Sqlite {
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
        let sql = "SELECT name FROM repositories WHERE listed AND name > ?1 ORDER BY name LIMIT ?2";
        self.read(|c| all(c, sql, (after, limit as i64), |row| row.get(0)))
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
        let sql = "SELECT place, parts FROM trash ORDER BY since LIMIT ?1";
        let read = |row: &rusqlite::Row<'_>| Ok(Trash { place: Place(row.get(0)?), parts: row.get(1)? });
        self.read(|c| all(c, sql, [limit as i64], read))
    }

    fn forget(&self, places: Vec<Place>) -> Result<(), RegistryError> {
        self.write(move |c| {
            for place in &places {
                run(c, "DELETE FROM trash WHERE place = ?1", [&place.0])?;
            }
            Ok(())
        })
    }

    fn all_blobs(&self, after: &str, limit: usize) -> Result<Vec<(Digest, Held)>, RegistryError> {
        let sql = "SELECT digest, place, size FROM blobs WHERE digest > ?1 ORDER BY digest LIMIT ?2";
        let rows = self.read(|c| {
            all(c, sql, (after, limit as i64), |row| {
                Ok((row.get::<_, String>(0)?, Held { place: Place(row.get(1)?), size: row.get::<_, i64>(2)? as u64 }))
            })
        })?;
        rows.into_iter().map(|(text, held)| Ok((digest(&text)?, held))).collect()
    }

    fn knows(&self, place: &Place) -> Result<bool, RegistryError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM blobs WHERE place = ?1) \
                   OR EXISTS (SELECT 1 FROM uploads WHERE place = ?1) OR EXISTS (SELECT 1 FROM trash WHERE place = ?1)";
        Ok(self.read(|c| one(c, sql, [&place.0], |row| row.get(0)))?.unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_exam() {
        let folder = tempfile::tempdir().unwrap();
        let mut number = 0;
        super::super::conformance::run(&mut || {
            number += 1;
            let path = folder.path().join(format!("{number}.db"));
            (Box::new(Sqlite::open(&path).unwrap()), Box::new(Sqlite::open(&path).unwrap()))
        });
    }

    #[test]
    fn a_file_of_a_later_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
        let error = Sqlite::open(&path).unwrap_err();
        assert!(matches!(error, RegistryError::MetadataVersion { found: 99, .. }), "{error}");
        std::fs::write(&path, "this is no database, this is a text of some length").unwrap();
        assert!(Sqlite::open(&path).is_err());
    }

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
