//! The blob trait: what the disk, the memory and other homes of content have in common.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ctk_oci::{Algorithm, Descriptor, Digest, Digester};

use crate::StoreError;
use crate::error::Context;

/// A home of blobs. Implementations pass [`crate::conformance`].
pub trait Blobs: Send + Sync {
    /// The size of a blob in bytes, if it is there.
    fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError>;

    /// Reads a blob, verified: its end is only reached when digest and size agree.
    fn open(&self, descriptor: &Descriptor) -> Result<BlobReader<Box<dyn Read + Send>>, StoreError>;

    /// Takes new content. Nothing is visible before [`Sink::commit`]; dropping it leaves nothing.
    fn create<'a>(&'a self, expected: Option<&Descriptor>) -> Result<Box<dyn Sink + 'a>, StoreError>;
}

/// Takes the bytes of one blob.
pub trait Sink: Write + Send {
    /// Makes the blob visible. Fails with [`StoreError::Mismatch`] when other content was expected, and is
    /// no error when the blob is already there.
    fn commit(self: Box<Self>) -> Result<(Digest, u64), StoreError>;
}

/// A reader whose end is an error unless digest and size are as promised (invariant 2).
pub struct BlobReader<R> {
    inner: R,
    expected: Digest,
    expected_size: u64,
    size: u64,
    digester: Option<Digester>,
    /// The blob's own file, to be removed if it is damaged.
    file: Option<PathBuf>,
}

impl<R: Read> BlobReader<R> {
    /// Reads `inner`, which should give the bytes that `descriptor` names.
    pub fn new(inner: R, descriptor: &Descriptor) -> BlobReader<R> {
        let digester = Some(descriptor.digest.algorithm().digester());
        BlobReader {
            inner,
            expected: descriptor.digest.clone(),
            expected_size: descriptor.size,
            size: 0,
            digester,
            file: None,
        }
    }

    /// The bytes come from `file`, which goes if it turns out to be damaged.
    pub(crate) fn removing(self, file: PathBuf) -> BlobReader<R> {
        BlobReader { file: Some(file), ..self }
    }
}

/// Removes the file of a blob if its bytes are not those of its digest. It is read once more and as a whole: what
/// somebody else just put there anew is left alone, and so is a blob of which only the size was said wrongly.
pub(crate) fn remove_damaged(path: &Path, digest: &Digest) -> Result<bool, StoreError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file.context("open", path)?,
    };
    let mut digester = digest.algorithm().digester();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).context("read", path)? {
            0 => break,
            n => digester.update(&buffer[..n]),
        }
    }
    if digester.finish() == *digest {
        return Ok(false);
    }
    fs::remove_file(path).context("remove", path)?;
    Ok(true)
}

impl<R: Read> Read for BlobReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let n = self.inner.read(buffer)?;
        let Some(digester) = &mut self.digester else { return Ok(0) };
        digester.update(&buffer[..n]);
        self.size += n as u64;
        if n > 0 && self.size <= self.expected_size {
            return Ok(n);
        }
        let digester = self.digester.take().expect("checked above");
        let found = digester.finish();
        if found == self.expected && self.size == self.expected_size {
            return Ok(0);
        }
        if let Some(file) = self.file.take()
            && remove_damaged(&file, &self.expected).map_err(StoreError::into_io)?
        {
            return Err(StoreError::Damaged { digest: self.expected.clone() }.into_io());
        }
        let (expected, expected_size, found_size) = (self.expected.clone(), self.expected_size, self.size);
        let error = StoreError::Mismatch { expected, expected_size, found, found_size };
        Err(error.into_io())
    }
}

/// Hashes what it passes on: the common part of [`Sink`]s.
pub struct BlobWriter<W> {
    inner: W,
    expected: Option<(Digest, u64)>,
    digester: Box<Digester>,
    size: u64,
}

impl<W: Write> BlobWriter<W> {
    /// Writes to `inner`; `expected` is checked by [`BlobWriter::finish`], and too many bytes at once.
    pub fn new(inner: W, expected: Option<&Descriptor>) -> BlobWriter<W> {
        let algorithm = expected.map_or(Algorithm::Sha256, |d| d.digest.algorithm());
        let expected = expected.map(|d| (d.digest.clone(), d.size));
        BlobWriter { inner, expected, digester: Box::new(algorithm.digester()), size: 0 }
    }

    /// Counts bytes that are already in `inner`.
    pub(crate) fn count(&mut self, bytes: &[u8]) {
        self.digester.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// The stream alone, unchecked.
    pub(crate) fn into_inner(self) -> W {
        self.inner
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The stream, digest and size, if they are what was expected.
    pub fn finish(self) -> Result<(W, Digest, u64), StoreError> {
        let (found, found_size) = (self.digester.finish(), self.size);
        match self.expected {
            Some((expected, expected_size)) if expected != found || expected_size != found_size => {
                Err(StoreError::Mismatch { expected, expected_size, found, found_size })
            }
            _ => Ok((self.inner, found, found_size)),
        }
    }
}

impl<W: Write> Write for BlobWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some((digest, size)) = &self.expected
            && self.size + bytes.len() as u64 > *size
        {
            let text = format!("more than the {size} bytes that {digest} should have");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let n = self.inner.write(bytes)?;
        self.digester.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
