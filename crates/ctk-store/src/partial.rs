//! Downloads that go on where they stopped, also in another process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

use ctk_oci::{Descriptor, Digest};
use ctk_plan::Cancel;

use crate::error::Context;
use crate::fsutil::{still_there, wait_lock};
use crate::{BlobWriter, Store, StoreError};

/// What [`Store::resume`] found.
pub enum Resume {
    /// The blob is already here, and held.
    Present,
    /// Write the bytes from [`Partial::offset`] on.
    Partial(Partial),
}

/// A blob of known digest being written; what is there stays when it is dropped, for the next try.
pub struct Partial {
    store: Store,
    path: PathBuf,
    writer: BlobWriter<File>,
    descriptor: Box<Descriptor>,
}

impl Store {
    /// Begins or goes on with the blob `descriptor`. When another process is writing it, waits for that one.
    pub fn resume(&self, descriptor: &Descriptor, cancel: &Cancel) -> Result<Resume, StoreError> {
        let digest = &descriptor.digest;
        let path = self.path(&format!("partial/{}-{}", digest.algorithm().name(), digest.hex()));
        loop {
            if self.contains(digest)? {
                return Ok(Resume::Present);
            }
            let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = open.context("open", &path)?;
            wait_lock(&file, &path, cancel)?;
            if !still_there(&file, &path) {
                continue;
            }
            let length = file.metadata().context("stat", &path)?.len();
            let mut writer = BlobWriter::new(file.try_clone().context("open", &path)?, Some(descriptor));
            if length > descriptor.size {
                file.set_len(0).context("truncate", &path)?;
            } else if length > 0 {
                let mut buffer = vec![0; 256 << 10];
                loop {
                    let n = file.read(&mut buffer).context("read", &path)?;
                    if n == 0 {
                        break;
                    }
                    writer.count(&buffer[..n]);
                }
            }
            let (store, descriptor) = (self.clone(), Box::new(descriptor.clone()));
            return Ok(Resume::Partial(Partial { store, path, writer, descriptor }));
        }
    }
}

impl Partial {
    /// Bytes that are already there: ask for the rest.
    pub fn offset(&self) -> u64 {
        self.writer.size()
    }

    /// Throws away what is there, e.g. because the source cannot give ranges.
    pub fn restart(self) -> Result<Partial, StoreError> {
        let Partial { store, path, writer, descriptor } = self;
        let mut file = writer.into_inner();
        file.set_len(0).context("truncate", &path)?;
        file.rewind().context("seek", &path)?;
        let writer = BlobWriter::new(file, Some(&descriptor));
        Ok(Partial { store, path, writer, descriptor })
    }

    /// Verifies it and makes it visible. On [`StoreError::Mismatch`] the bytes are thrown away: they would spoil
    /// every later try.
    pub fn commit(self) -> Result<(Digest, u64), StoreError> {
        let complete = self.writer.size() >= self.descriptor.size;
        match self.writer.finish() {
            Ok((file, digest, size)) => {
                self.store.adopt_blob(&self.path, &file, &digest)?;
                Ok((digest, size))
            }
            Err(error) => {
                if complete {
                    // The mismatch matters more than that of cleaning up after it.
                    let _ = fs::remove_file(&self.path);
                }
                Err(error)
            }
        }
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
