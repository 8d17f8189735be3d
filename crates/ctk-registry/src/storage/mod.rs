//! A registry without its protocol: metadata and blobs, put together.
//!
//! ```text
//! <root>/registry.db        who holds what: see `meta`
//! <root>/blobs/<aa>/<place> bytes
//! ```

mod check;
mod collect;
mod import;
mod manifests;
mod trees;
mod uploads;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use ctk_distribution::ByteRange;
use ctk_oci::{Descriptor, Digest, Reference};

use crate::blobs::{Blobs, Bucket, Files, Objects, Reading, durable_dir};
use crate::meta::{Database, Held, Meta, Place, Postgres, Seconds, Seen, Sqlite};
use crate::{RegistryError, SEEN_LIMIT};
pub use check::{Checked, Fault};
pub use collect::Collected;
pub(crate) use manifests::PutRules;
pub use manifests::check_manifest;
pub use trees::Imported;
pub(crate) use uploads::{Append, Session};

/// A registry's content. Cheap to clone; any number of processes may hold the same directory.
#[derive(Clone, Debug)]
pub struct Storage {
    meta: Arc<dyn Meta>,
    blobs: Arc<dyn Blobs>,
    seen: Arc<Mutex<std::collections::HashSet<Seen>>>,
}

impl Storage {
    /// The storage in the directory `root`, made if it does not exist. Nothing is scanned.
    pub fn open(root: impl Into<PathBuf>) -> Result<Storage, RegistryError> {
        let root = root.into();
        let database = root.join("registry.db");
        if !database.exists() && root.join("repositories").is_dir() {
            return Err(RegistryError::EarlierLayout { root });
        }
        let blobs = Files::open(root.join("blobs"))?;
        Ok(Storage::new(Arc::new(Sqlite::open(database)?), Arc::new(blobs)))
    }

    /// The storage whose metadata is in the directory `root` and whose bytes are in a bucket.
    pub fn open_bucket(root: impl Into<PathBuf>, bucket: &Bucket) -> Result<Storage, RegistryError> {
        let root = root.into();
        durable_dir(&root)?;
        let meta = Sqlite::open(root.join("registry.db"))?;
        Ok(Storage::new(Arc::new(meta), Arc::new(Objects::open(bucket)?)))
    }

    /// The storage whose metadata is in a database, and whose bytes are in a bucket or in the directory `root`. Any
    /// number of servers may share both.
    pub fn open_database(
        root: impl Into<PathBuf>,
        database: &Database,
        bucket: Option<&Bucket>,
    ) -> Result<Storage, RegistryError> {
        let blobs: Arc<dyn Blobs> = match bucket {
            Some(bucket) => Arc::new(Objects::open(bucket)?),
            None => Arc::new(Files::open(root.into().join("blobs"))?),
        };
        Ok(Storage::new(Arc::new(Postgres::open(database)?), blobs))
    }

    /// A storage of these parts.
    pub fn new(meta: Arc<dyn Meta>, blobs: Arc<dyn Blobs>) -> Storage {
        Storage { meta, blobs, seen: Arc::default() }
    }

    /// What it knows.
    pub fn meta(&self) -> &dyn Meta {
        &*self.meta
    }

    /// A blob of a repository. `None` when the repository does not hold it.
    pub(crate) fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<Held>, RegistryError> {
        self.meta.blob(repository, digest)
    }

    /// Whether the bytes of a blob are where they should be: a disk may have lost them.
    pub(crate) fn is_there(&self, held: &Held) -> Result<bool, RegistryError> {
        Ok(self.blobs.size(&held.place)? == Some(held.size))
    }

    /// Bytes of a blob, `None` when it was removed since it was looked up.
    pub(crate) fn read(&self, held: &Held, range: ByteRange) -> Result<Option<Reading>, RegistryError> {
        self.blobs.read(&held.place, range)
    }

    /// The size of a blob in bytes, `None` when the repository does not hold it.
    pub fn blob_size(&self, repository: &str, digest: &Digest) -> Result<Option<u64>, RegistryError> {
        Ok(self.meta.blob(repository, digest)?.map(|held| held.size))
    }

    /// Puts the file at `path` into a repository as the blob `descriptor`, by a hard link where the file system
    /// allows, else by a copy. A linked file must be one that nobody changes any more and whose digest was verified
    /// when it was written, like a content store's; only its size is compared. A copy is verified. Repeating is free.
    pub fn import_blob(&self, repository: &str, path: &Path, descriptor: &Descriptor) -> Result<(), RegistryError> {
        Reference::new("localhost", repository, None, None)?;
        let Descriptor { digest, size, .. } = descriptor;
        if self.blob_size(repository, digest)? == Some(*size) {
            return Ok(());
        }
        let found_size = std::fs::metadata(path).map_err(RegistryError::storage("stat", path))?.len();
        if found_size != *size {
            let (expected, found) = (digest.clone(), digest.clone());
            return Err(RegistryError::Mismatch { expected, expected_size: *size, found, found_size });
        }
        // What another repository holds needs no second place.
        for holder in self.meta.holders(digest, 1)? {
            if self.meta.mount(repository, &holder, digest, now())? {
                return Ok(());
            }
        }
        let session = self.start_upload(repository, digest.algorithm())?;
        let place = session.place();
        self.blobs.adopt(&place, path, descriptor)?;
        self.meta.finish_upload(repository, &place, digest, *size, None, now())?;
        Ok(())
    }

    /// Takes a blob of the repository `from` into `repository`; `false` when `from` does not hold it.
    pub fn mount(&self, repository: &str, from: &str, digest: &Digest) -> Result<bool, RegistryError> {
        Reference::new("localhost", repository, None, None)?;
        self.meta.mount(repository, from, digest, now())
    }

    /// Removes a blob from a repository; `false` when it was not there.
    pub fn delete_blob(&self, repository: &str, digest: &Digest) -> Result<bool, RegistryError> {
        self.meta.delete_blob(repository, digest, now())
    }

    /// Notes that somebody counts on something, for [`Storage::write_seen`].
    pub(crate) fn note(&self, seen: Seen) {
        let mut noted = self.seen.lock().expect("no holder panics");
        if noted.len() < SEEN_LIMIT {
            noted.insert(seen);
        }
    }

    /// Writes down what was noted. A caller that is killed loses notes of pulls, nothing else.
    pub(crate) fn write_seen(&self) -> Result<(), RegistryError> {
        let noted = std::mem::take(&mut *self.seen.lock().expect("no holder panics"));
        if noted.is_empty() {
            return Ok(());
        }
        self.meta.seen(noted.into_iter().collect(), now())
    }
}

/// The clock of the metadata. Libraries take time as an argument; here it only orders what this machine does itself.
pub(crate) fn now() -> Seconds {
    seconds(SystemTime::now())
}

pub(crate) fn seconds(time: SystemTime) -> Seconds {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

/// 32 random hex digits.
pub(crate) fn random_name() -> Result<String, RegistryError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0u8; 16];
    File::open(path).and_then(|mut f| f.read_exact(&mut bytes)).map_err(RegistryError::storage("read", path))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

impl Session {
    pub(crate) fn place(&self) -> Place {
        Place(self.id.clone())
    }
}
