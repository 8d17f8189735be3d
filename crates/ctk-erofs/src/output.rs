//! Two places of one file that are written side by side.

use std::io::{self, Seek, SeekFrom, Write};

use crate::BLOCK_BYTES;
use crate::limits::WINDOW_BYTES;

/// Bytes of content that are written at once. Where as many are zeros, nothing is: the image keeps the holes of sparse
/// files.
const PIECE_BYTES: usize = 64 << 10;

/// Metadata: written in any order inside of a window that moves on.
pub struct Window {
    /// Byte of the image where `bytes` begin.
    from: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub fn new(from: u64) -> Window {
        Window { from, bytes: Vec::new() }
    }

    pub fn put(&mut self, out: &mut (impl Write + Seek), at: u64, bytes: &[u8]) -> io::Result<()> {
        let start = (at - self.from) as usize;
        let end = start + bytes.len();
        if end > self.bytes.len() {
            self.bytes.resize(end.next_multiple_of(BLOCK_BYTES as usize), 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        if self.bytes.len() as u64 > 2 * WINDOW_BYTES {
            let done = self.bytes.len() - WINDOW_BYTES as usize;
            self.write(out, done)?;
        }
        Ok(())
    }

    pub fn finish(mut self, out: &mut (impl Write + Seek)) -> io::Result<()> {
        self.write(out, self.bytes.len())
    }

    fn write(&mut self, out: &mut (impl Write + Seek), bytes: usize) -> io::Result<()> {
        out.seek(SeekFrom::Start(self.from))?;
        out.write_all(&self.bytes[..bytes])?;
        self.bytes.drain(..bytes);
        self.from += bytes as u64;
        Ok(())
    }
}

/// Content: one file behind the other, each from a whole block on.
pub struct Contents {
    /// Byte of the image where `bytes` begin.
    from: u64,
    bytes: Vec<u8>,
    /// Whether what came last was left out.
    hole: bool,
}

impl Contents {
    pub fn new(from: u64) -> Contents {
        Contents { from, bytes: Vec::with_capacity(PIECE_BYTES), hole: false }
    }

    /// More bytes of the file.
    pub fn put(&mut self, out: &mut (impl Write + Seek), mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.bytes.len()));
            self.bytes.extend(now);
            if self.bytes.len() == PIECE_BYTES {
                self.write(out)?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Ends a file.
    pub fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK_BYTES as usize), 0);
    }

    /// Writes what is left, and sees to it that the image has its whole length, `end` bytes.
    pub fn finish(mut self, out: &mut (impl Write + Seek), end: u64) -> io::Result<()> {
        self.write(out)?;
        debug_assert!(self.from <= end, "files take the blocks that were laid out for them");
        if self.hole || self.from < end {
            out.seek(SeekFrom::Start(end - 1))?;
            out.write_all(&[0])?;
        }
        out.flush()
    }

    fn write(&mut self, out: &mut (impl Write + Seek)) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        self.hole = self.bytes.iter().all(|byte| *byte == 0);
        if !self.hole {
            out.seek(SeekFrom::Start(self.from))?;
            out.write_all(&self.bytes)?;
        }
        self.from += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}
