//! The directory behind a registry.
//!
//! ```text
//! blobs/<algorithm>/<aa>/<hex>                         content, once
//! repositories/<name>/_blobs/<algorithm>/<hex>         a hard link to it: this repository holds it
//! repositories/<name>/_manifests/<algorithm>/<hex>     a manifest's exact bytes
//! repositories/<name>/_types/<algorithm>/<hex>         its media type as pushed
//! repositories/<name>/_tags/<tag>                      a descriptor in JSON
//! repositories/<name>/_referrers/<alg>/<hex>/<alg>-<hex>   a descriptor in JSON: the second refers to the first
//! repositories/<name>/_lock                            held while manifests and tags change
//! uploads/<session>/{repository,data}                  unfinished
//! tmp/                                                 files not yet renamed
//! ```
//!
//! A repository's link *is* its membership: content is never served through a repository that does not hold it, and
//! no collection in another process can take it away. `blobs/` only finds content to link; when it forgets
//! something, a copy is stored twice and nothing breaks. Parts of names never start with `_`, so the directories of
//! a repository cannot clash with repositories below it.

mod files;
mod import;
mod manifests;
mod sweep;
mod uploads;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ctk_oci::{Descriptor, Digest, Reference};

use crate::RegistryError;
use files::{copy_verified, durable_dir, link_or_copy, random_name, sync_dir};
pub(crate) use manifests::Deleted;
pub(crate) use uploads::{Append, Session};

/// A registry's directory. Cheap to clone; any number of processes may hold one.
#[derive(Clone, Debug)]
pub struct Storage {
    root: Arc<PathBuf>,
}

/// A manifest as it was pushed.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// The exact bytes.
    pub bytes: Vec<u8>,
}

impl Storage {
    /// The storage at `root`, made if it does not exist.
    pub fn open(root: impl Into<PathBuf>) -> Result<Storage, RegistryError> {
        let storage = Storage { root: Arc::new(root.into()) };
        for part in ["blobs", "repositories", "uploads", "tmp"] {
            let path = storage.root.join(part);
            durable_dir(&path)?;
        }
        Ok(storage)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens a blob of a repository. `None` when the repository does not hold it.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<(File, u64)>, RegistryError> {
        let path = self.membership(repository, digest)?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RegistryError::storage("open", path)(error)),
        };
        let size = file.metadata().map_err(RegistryError::storage("stat", path))?.len();
        Ok(Some((file, size)))
    }

    /// The size of a blob, `None` when the repository does not hold it.
    pub fn blob_size(&self, repository: &str, digest: &Digest) -> Result<Option<u64>, RegistryError> {
        let path = self.membership(repository, digest)?;
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RegistryError::storage("stat", path)(error)),
        }
    }

    /// Puts the file at `path` into a repository as the blob `descriptor`, by a hard link where the file system
    /// allows, else by a copy. A linked file must be one that nobody changes any more and whose digest was verified
    /// when it was written, like a content store's; only its size is compared. A copy is verified. Repeating is free.
    pub fn import_blob(&self, repository: &str, path: &Path, descriptor: &Descriptor) -> Result<(), RegistryError> {
        if self.blob_size(repository, &descriptor.digest)? == Some(descriptor.size) {
            return Ok(());
        }
        let size = fs::metadata(path).map_err(RegistryError::storage("stat", path))?.len();
        if size != descriptor.size {
            return Err(RegistryError::Mismatch {
                expected: descriptor.digest.clone(),
                expected_size: descriptor.size,
                found: descriptor.digest.clone(),
                found_size: size,
            });
        }
        let content = self.content(&descriptor.digest);
        if !content.exists() {
            let parent = content.parent().expect("content has a parent");
            durable_dir(parent)?;
            match fs::hard_link(path, &content) {
                Ok(()) => sync_dir(parent)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => {
                    let temporary = self.temporary()?;
                    copy_verified(path, &temporary, descriptor)?;
                    fs::rename(&temporary, &content).map_err(RegistryError::storage("rename", &content))?;
                    sync_dir(parent)?;
                }
            }
        }
        self.adopt(repository, &descriptor.digest, &content)
    }

    /// Takes a blob of the repository `from` into `repository`; `false` when `from` does not hold it.
    pub fn mount(&self, repository: &str, from: &str, digest: &Digest) -> Result<bool, RegistryError> {
        let source = self.membership(from, digest)?;
        if !source.exists() {
            return Ok(false);
        }
        self.adopt(repository, digest, &source)?;
        Ok(true)
    }

    /// Removes a blob from a repository; `false` when it was not there.
    pub fn delete_blob(&self, repository: &str, digest: &Digest) -> Result<bool, RegistryError> {
        let path = self.membership(repository, digest)?;
        let _lock = self.lock(repository)?;
        match fs::remove_file(&path) {
            Ok(()) => {
                sync_dir(path.parent().expect("membership has a parent"))?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(RegistryError::storage("remove", path)(error)),
        }
    }

    /// Links `source` into the repository.
    fn adopt(&self, repository: &str, digest: &Digest, source: &Path) -> Result<(), RegistryError> {
        let path = self.membership(repository, digest)?;
        let parent = path.parent().expect("membership has a parent");
        durable_dir(parent)?;
        link_or_copy(source, &path, &self.temporary()?)?;
        sync_dir(parent)
    }

    fn repository(&self, name: &str) -> Result<PathBuf, RegistryError> {
        Reference::new("localhost", name, None, None)?;
        Ok(self.root.join("repositories").join(name))
    }

    fn membership(&self, repository: &str, digest: &Digest) -> Result<PathBuf, RegistryError> {
        Ok(self.repository(repository)?.join("_blobs").join(digest.algorithm().name()).join(digest.hex()))
    }

    fn content(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().name()).join(&digest.hex()[..2]).join(digest.hex())
    }

    fn temporary(&self) -> Result<PathBuf, RegistryError> {
        Ok(self.root.join("tmp").join(random_name()?))
    }

    /// Held while the manifests and tags of a repository change; freed when dropped, also by a kill.
    fn lock(&self, repository: &str) -> Result<File, RegistryError> {
        let directory = self.repository(repository)?;
        durable_dir(&directory)?;
        let path = directory.join("_lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(RegistryError::storage("open", &path))?;
        file.lock().map_err(RegistryError::storage("lock", &path))?;
        Ok(file)
    }
}
