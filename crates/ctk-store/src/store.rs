//! The store itself: opening it, and the things that need no module of their own.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ctk_oci::{Descriptor, Digest, Document, media_type};
use ctk_plan::Cancel;
use serde::de::DeserializeOwned;

use crate::blobs::remove_damaged;
use crate::error::Context;
use crate::fsutil::{file_name, make_directory, make_private, read_if_there, replace, scatter, take_named};
use crate::lease::{CONTAINER_LEASE, CONTAINERS, FORMAT_PART, Held, Session, clear_dead};
use crate::limits::{CONFIG_MAX_BYTES, MANIFEST_MAX_BYTES};
use crate::owners::{check_ids, check_owner};
use crate::syncer::Syncer;
use crate::{BlobReader, Lock, Scratch, StoreError};

const FORMAT: &str = "ctk-store 1\n";
const DIRECTORIES: [&str; 9] = ["blobs", "partial", "refs", "records", "leases", "layers", "locks", "tmp", "cache"];
/// Where trees of images lie. They hold programs that are setuid, and files that are nobody else's business: no other
/// user of the machine is let in.
const PRIVATE: [&str; 3] = ["layers", "tmp", "cache"];

/// A file for something small that is about to be renamed into its place.
fn temporary(root: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    root.join("tmp").join(format!("{FORMAT_PART}{}-{number}", std::process::id()))
}

/// A store on disk. Clones share one lease; see the [crate] page.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    session: Session,
    syncer: Arc<Syncer>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody asked, so nobody is told; but a process that ends takes the thread with it.
        let _ = self.syncer.wait();
    }
}

impl Store {
    /// Opens the store under `root`, making it if it isn't there, and removes what killed processes left in `tmp/`.
    /// Reads two small files; nothing is scanned. [`StoreError::NotOurs`] if another user made it,
    /// [`StoreError::OtherIds`] if its files have owners that are other ones now.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let root = std::path::absolute(root).context("find", root)?;
        let format = root.join("format");
        match read_if_there(&format)? {
            Some(found) if found == FORMAT.as_bytes() => check_owner(&root, PRIVATE[0])?,
            Some(found) => {
                let found = String::from_utf8_lossy(&found).trim().to_owned();
                return Err(StoreError::Format { path: root, found, expected: FORMAT.trim_end() });
            }
            None => {
                make_directory(&root)?;
                for directory in DIRECTORIES {
                    make_directory(&root.join(directory))?;
                }
                match replace(&format, &temporary(&root), FORMAT.as_bytes()) {
                    // Another thread or process is making the same store right now.
                    Err(_) if format.exists() => {}
                    result => result?,
                }
            }
        }
        for directory in PRIVATE {
            make_private(&root.join(directory))?;
        }
        check_ids(&root, &temporary(&root))?;
        scatter(&root.join("tmp"));
        clear_dead(&root)?;
        Ok(Store { inner: Arc::new(Inner { session: Session::new(&root), root, syncer: Arc::default() }) })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    pub(crate) fn session(&self) -> &Session {
        &self.inner.session
    }

    pub(crate) fn syncer(&self) -> &Arc<Syncer> {
        &self.inner.syncer
    }

    pub(crate) fn path(&self, parts: &str) -> PathBuf {
        self.inner.root.join(parts)
    }

    /// Where the blob is or would be: a read-only file, for hard links and reflinks by those who keep its bytes.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
        self.path(&format!("blobs/{algorithm}/{}/{hex}", &hex[..2]))
    }

    /// Whether the blob is here; if so, it stays as long as this handle lives.
    pub fn contains(&self, digest: &Digest) -> Result<bool, StoreError> {
        let held = Held::Blob(digest.clone());
        if self.session().holds(&held) && self.size(digest)?.is_some() {
            return Ok(true);
        }
        if self.size(digest)?.is_none() {
            return Ok(false);
        }
        let _adding = self.session().adding()?;
        self.session().hold(&[held])?;
        Ok(self.size(digest)?.is_some())
    }

    /// The blob's size in bytes if it is here. Holds nothing: for looking, not for relying on it.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let path = self.blob_path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).context("stat", &path),
        }
    }

    /// The blob's file, unverified: for ranges, `sendfile` and the like.
    pub fn open_raw(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(StoreError::Missing { digest: digest.clone() }),
            file => file.context("open", &path),
        }
    }

    /// Reads a blob, verified: its end is only reached when digest and size agree. A blob whose bytes are not those of
    /// its digest is removed then, so that it is made or fetched again: [`StoreError::Damaged`].
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<BlobReader<File>, StoreError> {
        let file = self.open_raw(&descriptor.digest)?;
        Ok(BlobReader::new(file, descriptor).removing(self.blob_path(&descriptor.digest)))
    }

    /// Reads a blob that could not be understood as a whole, and removes it if it is damaged: then the fault was here,
    /// and [`StoreError::Damaged`] says so.
    pub fn examine(&self, digest: &Digest) -> Result<(), StoreError> {
        match remove_damaged(&self.blob_path(digest), digest)? {
            true => Err(StoreError::Damaged { digest: digest.clone() }),
            false => Ok(()),
        }
    }

    /// A whole blob, verified; [`StoreError::TooLarge`] above `limit` bytes.
    pub fn read(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, StoreError> {
        let Descriptor { digest, size, .. } = descriptor;
        if *size > limit {
            return Err(StoreError::TooLarge { digest: digest.clone(), size: *size, limit });
        }
        let mut bytes = Vec::with_capacity(*size as usize);
        match self.open_blob(descriptor)?.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<StoreError>()) => {
                let inner = error.into_inner().expect("checked above");
                Err(*inner.downcast::<StoreError>().expect("checked above"))
            }
            Err(error) => Err(error).context("read", &self.blob_path(digest)),
        }
    }

    /// A manifest, index or config, parsed; `what` names it in errors. Limits: 4 MiB, configs 8 MiB.
    pub fn document<T: DeserializeOwned>(&self, what: &'static str, d: &Descriptor) -> Result<Document<T>, StoreError> {
        let index_or_manifest = media_type::is_index(&d.media_type) || media_type::is_manifest(&d.media_type);
        let limit = if index_or_manifest { MANIFEST_MAX_BYTES } else { CONFIG_MAX_BYTES };
        Ok(Document::parse(what, self.read(d, limit)?)?)
    }

    /// Writes a small blob.
    pub fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, StoreError> {
        let descriptor = Descriptor::of(media_type, bytes);
        if !self.contains(&descriptor.digest)? {
            let mut ingest = self.ingest(Some(&descriptor))?;
            ingest.write_bytes(bytes)?;
            ingest.commit()?;
        }
        Ok(descriptor)
    }

    /// A directory of its own on the store's filesystem.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        Scratch::new(self.session().temporary()?, self.clone())
    }

    /// Waits for the named lock, which excludes other handles and processes; [`StoreError::Cancelled`] if `cancel`
    /// says so meanwhile.
    pub fn lock(&self, name: &str, cancel: &Cancel) -> Result<Lock, StoreError> {
        let path = self.path("locks").join(file_name(name));
        let file = take_named(&path, cancel)?;
        Ok(Lock::new(path, file))
    }

    /// Where unpacked layers are; `ctk-snapshot` owns what is inside.
    pub fn layers(&self) -> PathBuf {
        self.path("layers")
    }

    /// Where containers are that outlive their maker; `ctk-monitor` owns what is inside, but for the leases.
    pub fn containers(&self) -> PathBuf {
        self.path(CONTAINERS)
    }

    /// Keeps blobs, with what they lead to, and layers (by the names of their directories) as long as the container in
    /// `directory` is there. They have to be held by this handle already.
    pub fn hold_for_container(&self, directory: &Path, blobs: &[Digest], layers: &[String]) -> Result<(), StoreError> {
        let blobs = blobs.iter().map(|digest| Held::Blob(digest.clone()));
        let layers = layers.iter().map(|name| Held::Layer(name.clone()));
        let text: String = blobs.chain(layers).map(|held| held.line()).collect();
        let path = directory.join(CONTAINER_LEASE);
        std::fs::write(&path, text).context("write", &path)
    }

    /// Whether the layer directory `name` is complete and here; if so, it stays as long as this handle lives.
    pub fn hold_layer(&self, name: &str) -> Result<bool, StoreError> {
        let path = self.layers().join(name);
        let held = Held::Layer(name.to_owned());
        if !path.exists() {
            return Ok(false);
        }
        if self.session().holds(&held) {
            return Ok(true);
        }
        let _adding = self.session().adding()?;
        self.session().hold(&[held])?;
        Ok(path.exists())
    }

    /// Makes the directory `from` (on the store's filesystem) the layer `name`, atomically; whether it is on the disk
    /// already is the caller's matter. `false` when that layer was there already; `from` is then left alone.
    pub fn adopt_layer(&self, from: &Path, name: &str) -> Result<bool, StoreError> {
        let to = self.layers().join(name);
        let _adding = self.session().adding()?;
        self.session().hold(&[Held::Layer(name.to_owned())])?;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, &to, flags) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(e) => Err(e).context("rename into place", &to),
        }
    }

    /// Makes `name` another name of the layer `target`. Safe to repeat; a layer that is already there wins.
    pub fn alias_layer(&self, target: &str, name: &str) -> Result<(), StoreError> {
        let path = self.layers().join(name);
        let _adding = self.session().adding()?;
        self.session().hold(&[Held::Layer(name.to_owned()), Held::Layer(target.to_owned())])?;
        match std::os::unix::fs::symlink(target, &path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && path.exists() => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                // It points to a layer that was collected.
                crate::fsutil::remove_if_there(&path)?;
                std::os::unix::fs::symlink(target, &path).context("link", &path)
            }
            result => result.context("link", &path),
        }
    }
}

/// The file name of the layer with key `key` (`diff:<hex>`, `op:<hex>`).
pub fn layer_name(key: &str) -> String {
    // A colon would need escaping in mount options.
    file_name(&key.replacen(':', "-", 1))
}
