//! gzip members decompressed side by side, when they look like ours: small, each with its size in its last bytes.
//!
//! The stream is cut where a member's header seems to begin; the same bytes may occur in a file, or the members be
//! somebody else's.

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;
use libdeflater::Decompressor;

use crate::limits::{GZIP_MEMBER_BYTES, GZIP_MEMBER_READ_MAX_BYTES};
use crate::pieces::{self, Cutter, Format, READ_BYTES};

/// What each of our members begins with: no flags, no time. Two bytes more follow, of the level and the system.
pub const HEADER: [u8; 8] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0];

const FORMAT: Format = Format {
    worker: || {
        let mut decompressor = Decompressor::new();
        Ok(Box::new(move |raw: &[u8]| member(&mut decompressor, raw)))
    },
    rest: |raw| Ok(Box::new(MultiGzDecoder::new(raw))),
};

/// `stream`, decompressed by `workers` threads; another one reads it. They end when the reader is dropped.
pub fn decompress(stream: impl Read + Send + 'static, workers: usize) -> io::Result<impl Read + Send> {
    pieces::decompress(FORMAT, workers, |cutter| cut(stream, cutter))
}

/// Hands over the pieces of `stream`; `None` when nobody takes them any more.
fn cut(mut stream: impl Read, cutter: &Cutter) -> Option<()> {
    let mut buffer: Vec<u8> = Vec::with_capacity(2 * GZIP_MEMBER_BYTES);
    let mut searched = 1;
    loop {
        let before = buffer.len();
        let read = stream.by_ref().take(READ_BYTES as u64).read_to_end(&mut buffer);
        if let Err(error) = read {
            return cutter.failed(error);
        }
        let ended = buffer.len() == before;
        while let Some(end) = next_header(&buffer, searched) {
            let rest = buffer.split_off(end);
            cutter.whole(std::mem::replace(&mut buffer, rest))?;
            searched = 1;
        }
        searched = buffer.len().saturating_sub(HEADER.len() + 1).max(1);
        if ended || buffer.len() > 2 * GZIP_MEMBER_BYTES {
            if !buffer.is_empty() {
                cutter.whole(std::mem::take(&mut buffer))?;
            }
            searched = 1;
        }
        if ended {
            return Some(());
        }
    }
}

/// Where the next header begins at or after `from`.
fn next_header(bytes: &[u8], from: usize) -> Option<usize> {
    let mut from = from;
    while let Some(found) = memchr::memmem::find(bytes.get(from..)?, &HEADER) {
        let at = from + found;
        match bytes.get(at + 8..at + 10) {
            Some([0 | 2 | 4, 0xff]) => return Some(at),
            Some(_) => from = at + 1,
            None => return None,
        }
    }
    None
}

/// `raw` decompressed, if it is exactly one member of moderate size.
fn member(decompressor: &mut Decompressor, raw: &[u8]) -> Option<Vec<u8>> {
    let (checksum, size) = raw.last_chunk::<8>()?.split_at(4);
    let size = u32::from_le_bytes(size.try_into().ok()?) as usize;
    if !raw.starts_with(&HEADER) || size > GZIP_MEMBER_READ_MAX_BYTES {
        return None;
    }
    let mut out = vec![0; size];
    let written = decompressor.gzip_decompress(raw, &mut out).ok()?;
    // The decompressor is content with a member that ends before `raw` does.
    let whole = written == size && libdeflater::crc32(&out).to_le_bytes() == checksum;
    whole.then_some(out)
}
