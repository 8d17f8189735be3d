//! Blobs in memory, for tests and for small things that need no disk.

use std::collections::HashMap;
use std::io::{Cursor, Read, Write};
use std::sync::{Arc, Mutex};

use ctk_oci::{Descriptor, Digest};

use crate::{BlobReader, BlobWriter, Blobs, Sink, StoreError};

/// Blobs that end with the process. Clones share them.
#[derive(Clone, Default)]
pub struct MemoryBlobs(Arc<Mutex<HashMap<Digest, Arc<[u8]>>>>);

impl MemoryBlobs {
    /// No blobs.
    pub fn new() -> MemoryBlobs {
        MemoryBlobs::default()
    }
}

struct Bytes(Arc<[u8]>);

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Blobs for MemoryBlobs {
    fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.0.lock().expect("no panic while locked").get(digest).map(|bytes| bytes.len() as u64))
    }

    fn open(&self, descriptor: &Descriptor) -> Result<BlobReader<Box<dyn Read + Send>>, StoreError> {
        let digest = &descriptor.digest;
        let found = self.0.lock().expect("no panic while locked").get(digest).cloned();
        let bytes = found.ok_or_else(|| StoreError::Missing { digest: digest.clone() })?;
        Ok(BlobReader::new(Box::new(Cursor::new(Bytes(bytes))), descriptor))
    }

    fn create<'a>(&'a self, expected: Option<&Descriptor>) -> Result<Box<dyn Sink + 'a>, StoreError> {
        Ok(Box::new(MemorySink { blobs: self, writer: BlobWriter::new(Vec::new(), expected) }))
    }
}

struct MemorySink<'a> {
    blobs: &'a MemoryBlobs,
    writer: BlobWriter<Vec<u8>>,
}

impl Write for MemorySink<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink for MemorySink<'_> {
    fn commit(self: Box<Self>) -> Result<(Digest, u64), StoreError> {
        let (bytes, digest, size) = self.writer.finish()?;
        self.blobs.0.lock().expect("no panic while locked").insert(digest.clone(), bytes.into());
        Ok((digest, size))
    }
}
