//! Blobs on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ctk_oci::{Descriptor, Digest};

use crate::error::Context;
use crate::fsutil::make_directory;
use crate::lease::Held;
use crate::syncer::Unsynced;
use crate::{BlobReader, BlobWriter, Blobs, Sink, Store, StoreError};

/// A blob being written. Nothing is visible before [`Ingest::commit`]; dropping it leaves nothing.
pub struct Ingest {
    store: Store,
    path: PathBuf,
    writer: Option<BlobWriter<File>>,
}

impl Store {
    /// Takes new content; with `expected`, commit checks digest and size.
    pub fn ingest(&self, expected: Option<&Descriptor>) -> Result<Ingest, StoreError> {
        let path = self.session().temporary()?;
        let file = OpenOptions::new().write(true).create_new(true).open(&path).context("create", &path)?;
        Ok(Ingest { store: self.clone(), path, writer: Some(BlobWriter::new(file, expected)) })
    }

    /// Makes the complete file `from` the blob `digest`, by a rename. It is on the disk a little later: see
    /// [`Store::sync_blobs`].
    pub(crate) fn adopt_blob(&self, from: &Path, file: &File, digest: &Digest) -> Result<(), StoreError> {
        let to = self.blob_path(digest);
        let directory = to.parent().expect("blobs have a directory");
        let _adding = self.session().adding()?;
        self.session().hold(&[Held::Blob(digest.clone())])?;
        if to.exists() {
            return fs::remove_file(from).context("remove", from);
        }
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o444);
        file.set_permissions(permissions).context("chmod", from)?;
        let mut directories = vec![directory.to_owned()];
        if !directory.exists() {
            make_directory(directory)?;
            directories.extend(directory.parent().map(Path::to_owned));
        }
        let file = file.try_clone().context("keep open", from)?;
        fs::rename(from, &to).context("rename into place", &to)?;
        self.syncer().add(Unsynced { file, path: to, directories });
        Ok(())
    }

    /// Waits until all blobs that came by this handle are on the disk. Names of images and records of what is in force
    /// do that by themselves; whoever gives a blob's file another name has to.
    pub fn sync_blobs(&self) -> Result<(), StoreError> {
        self.syncer().wait()
    }
}

impl Ingest {
    /// Writes all of `bytes`; unlike [`Write`], its error names the store's file and a full disk.
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.write_all(bytes);
        written.context("write", &self.path)
    }

    /// Copies all of `from`; `what` names it in errors. Gives the number of bytes.
    pub fn fill(&mut self, what: &str, mut from: impl Read) -> Result<u64, StoreError> {
        let mut buffer = vec![0; 128 << 10];
        let mut total = 0;
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(total),
                Ok(n) => {
                    self.write_bytes(&buffer[..n])?;
                    total += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(StoreError::Input { what: what.to_owned(), source }),
            }
        }
    }

    /// Makes it visible; gives digest and size. It stays as long as the store's handle lives.
    pub fn commit(mut self) -> Result<(Digest, u64), StoreError> {
        let writer = self.writer.take().expect("taken only here");
        let (file, digest, size) = writer.finish()?;
        self.store.adopt_blob(&self.path, &file, &digest)?;
        self.path.clear();
        Ok((digest, size))
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // What stays is removed with the session.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.as_mut().expect("taken only by commit").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Ingest {
    fn commit(self: Box<Self>) -> Result<(Digest, u64), StoreError> {
        Ingest::commit(*self)
    }
}

impl Blobs for Store {
    fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        Store::size(self, digest)
    }

    fn open(&self, descriptor: &Descriptor) -> Result<BlobReader<Box<dyn Read + Send>>, StoreError> {
        let file = Box::new(self.open_raw(&descriptor.digest)?);
        Ok(BlobReader::<Box<dyn Read + Send>>::new(file, descriptor).removing(self.blob_path(&descriptor.digest)))
    }

    fn create<'a>(&'a self, expected: Option<&Descriptor>) -> Result<Box<dyn Sink + 'a>, StoreError> {
        Ok(Box::new(self.ingest(expected)?))
    }
}
