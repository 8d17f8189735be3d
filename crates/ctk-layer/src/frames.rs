//! zstd frames decompressed side by side, when they are of moderate size.
//!
//! A frame's end is known without decompressing it: its blocks have their sizes in front (RFC 8878, section 3.1.1). Our
//! own layers are made of many frames; those of most others are a single one, which is read as a stream.

use std::io::{self, BufRead, Read};

use crate::limits::{ZSTD_FRAME_READ_MAX_BYTES, ZSTD_WINDOW_LOG_MAX};
use crate::pieces::{self, Cutter, Format, READ_BYTES};

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Largest block (RFC 8878, section 3.1.1.2.4).
const BLOCK_MAX_BYTES: usize = 128 << 10;

const FORMAT: Format = Format {
    worker: || {
        let mut decompressor = zstd::bulk::Decompressor::new()?;
        Ok(Box::new(move |raw: &[u8]| {
            let size = Head::parse(raw)?.size;
            let most = size.unwrap_or(ZSTD_FRAME_READ_MAX_BYTES);
            let out = decompressor.decompress(raw, usize::try_from(most).ok()?).ok()?;
            size.is_none_or(|size| out.len() as u64 == size).then_some(out)
        }))
    },
    rest: |raw| Ok(Box::new(stream(raw)?)),
};

/// `stream`, decompressed by `workers` threads; another one reads it. They end when the reader is dropped.
pub fn decompress(stream: impl Read + Send + 'static, workers: usize) -> io::Result<impl Read + Send> {
    pieces::decompress(FORMAT, workers, |cutter| {
        let mut cut = Cut { stream, ahead: Vec::new(), cutter };
        match cut.run() {
            Err(error) => cutter.failed(error),
            Ok(taken) => taken,
        }
    })
}

/// `stream`, decompressed as it comes.
pub fn stream<R: BufRead>(stream: R) -> io::Result<zstd::stream::read::Decoder<'static, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(stream)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// What a frame says in front.
struct Head {
    /// Its own bytes, with the magic number.
    bytes: usize,
    /// Uncompressed bytes of the frame, if it says so.
    size: Option<u64>,
    window_bytes: u64,
    has_checksum: bool,
}

impl Head {
    /// Most bytes it can have.
    const MAX_BYTES: usize = 18;

    /// The head at the start of `raw`; `None` when there is none, or not all of it.
    fn parse(raw: &[u8]) -> Option<Head> {
        let descriptor = *raw.strip_prefix(&MAGIC)?.first()?;
        let is_single_segment = descriptor & 0x20 != 0;
        let window = usize::from(!is_single_segment);
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let size_bytes = match descriptor >> 6 {
            0 => usize::from(is_single_segment),
            flag => 1 << flag,
        };
        let size_at = 5 + window + dictionary;
        let bytes = size_at + size_bytes;
        let field = raw.get(size_at..bytes)?;
        let number = field.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let size = match size_bytes {
            0 => None,
            2 => Some(number + 256),
            _ => Some(number),
        };
        let window_bytes = match is_single_segment {
            true => size?,
            false => {
                let (exponent, mantissa) = (raw[5] >> 3, raw[5] & 7);
                let base = 1u64 << (10 + exponent);
                base + base / 8 * u64::from(mantissa)
            }
        };
        Some(Head { bytes, size, window_bytes, has_checksum: descriptor & 4 != 0 })
    }

    /// Whether the frame is to be decompressed by itself. What [`stream`] refuses must come to it.
    fn is_moderate(&self) -> bool {
        self.size.is_none_or(|size| size <= ZSTD_FRAME_READ_MAX_BYTES) && self.window_bytes <= 1 << ZSTD_WINDOW_LOG_MAX
    }
}

struct Cut<'a, R> {
    stream: R,
    /// What was read of the next frame.
    ahead: Vec<u8>,
    cutter: &'a Cutter,
}

impl<R: Read> Cut<'_, R> {
    /// Reads until `ahead` has so many bytes; `false` when the stream ends before.
    fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        while self.ahead.len() < bytes {
            let more = READ_BYTES.max(bytes - self.ahead.len()) as u64;
            if self.stream.by_ref().take(more).read_to_end(&mut self.ahead)? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hands over frame after frame; `None` when nobody takes them any more.
    fn run(&mut self) -> io::Result<Option<()>> {
        while self.fill(1)? {
            let Some(end) = self.frame_end()? else { return self.rest() };
            let next = self.ahead.split_off(end);
            if self.cutter.whole(std::mem::replace(&mut self.ahead, next)).is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// Where the frame at the start of `ahead` ends, all of it read; `None` when it is for the stream.
    fn frame_end(&mut self) -> io::Result<Option<usize>> {
        // A short frame may be shorter than the longest head.
        self.fill(Head::MAX_BYTES)?;
        let Some(head) = Head::parse(&self.ahead).filter(Head::is_moderate) else { return Ok(None) };
        let mut at = head.bytes;
        // A frame that does not say its size has no more than its blocks can hold.
        let most = ZSTD_FRAME_READ_MAX_BYTES as usize;
        let blocks_max = if head.size.is_some() { usize::MAX } else { most / BLOCK_MAX_BYTES };
        let mut blocks = 0;
        loop {
            blocks += 1;
            // Blocks that hold nothing could go on for ever.
            if blocks > blocks_max || at > 2 * most || !self.fill(at + 3)? {
                return Ok(None);
            }
            let block = &self.ahead[at..at + 3];
            let block = u32::from_le_bytes([block[0], block[1], block[2], 0]);
            let (is_last, kind, size) = (block & 1 != 0, block >> 1 & 3, (block >> 3) as usize);
            if kind == 3 || size > BLOCK_MAX_BYTES {
                return Ok(None);
            }
            // A block of kind 1 is one byte that is repeated.
            at += 3 + if kind == 1 { 1 } else { size };
            if is_last {
                at += if head.has_checksum { 4 } else { 0 };
                return Ok(self.fill(at)?.then_some(at));
            }
        }
    }

    /// Hands over all that is left as it is.
    fn rest(&mut self) -> io::Result<Option<()>> {
        loop {
            let raw = std::mem::take(&mut self.ahead);
            if self.cutter.rest(raw).is_none() {
                return Ok(None);
            }
            if !self.fill(1)? {
                return Ok(Some(()));
            }
        }
    }
}
