//! Tar bytes in; compressed bytes, digest, diffID and sizes out: one pass, several threads.

use std::fmt;
use std::io::{self, Write};

use ctk_oci::media_type::LayerCompression;
use ctk_oci::{Algorithm, Descriptor, DiffId, Digest, Digester};
use ctk_plan::Cancel;

use crate::limits::{GZIP_MEMBER_BYTES, ZSTD_FRAME_BYTES};
use crate::parallel::{Blocks, Codec};

/// How a layer is stored. The same bytes and the same value give the same digest on any machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip members of 1 MiB, one after the other (RFC 1952, section 2.2), as eStargz writes them too; levels 1 to 12.
    Gzip {
        /// libdeflate's level; its 4 compresses as well as zlib's 6.
        level: u32,
    },
    /// zstd frames of 2 MiB; levels 1 to 19.
    Zstd {
        /// zstd's level; 3 is its default.
        level: i32,
    },
}

impl Compression {
    /// gzip at libdeflate's level 4: zlib's usual ratio in half its time.
    pub const GZIP: Compression = Compression::Gzip { level: 4 };
    /// zstd at level 3.
    pub const ZSTD: Compression = Compression::Zstd { level: 3 };

    /// What a media type can say of it.
    pub fn layer_compression(self) -> LayerCompression {
        match self {
            Compression::None => LayerCompression::None,
            Compression::Gzip { .. } => LayerCompression::Gzip,
            Compression::Zstd { .. } => LayerCompression::Zstd,
        }
    }

    /// A short word that changes whenever the compressed bytes may: part of cache keys. Raise the number after the
    /// codec's name when an upgrade of a compression library changes what it writes.
    pub fn key(self) -> String {
        match self {
            Compression::None => "none".into(),
            Compression::Gzip { level } => format!("gzip2-{level}"),
            Compression::Zstd { level } => format!("zstd1-{level}"),
        }
    }
}

impl fmt::Display for Compression {
    /// As people say it: `zstd level 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::None => f.write_str("none"),
            Compression::Gzip { level } => write!(f, "gzip level {level}"),
            Compression::Zstd { level } => write!(f, "zstd level {level}"),
        }
    }
}

/// What one pass over a layer found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerSummary {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Digest of the bytes as stored.
    pub digest: Digest,
    /// Size as stored, in bytes.
    pub size: u64,
    /// Size of the tar, in bytes.
    pub uncompressed_size: u64,
    /// How it is stored.
    pub compression: Compression,
}

impl LayerSummary {
    /// The layer's descriptor, with OCI's media type.
    pub fn descriptor(&self) -> Descriptor {
        let media_type = self.compression.layer_compression().media_type();
        Descriptor::new(media_type, self.digest.clone(), self.size)
    }
}

/// Takes tar bytes by [`Write`] and writes the compressed layer to `W`.
///
/// [`LayerWriter::finish`] must be called, else the stream has no end. Errors of `W` come out of `write` or `finish`.
pub struct LayerWriter<W: Write> {
    out: Hashed<W>,
    diff: Digester,
    taken: u64,
    compression: Compression,
    state: State,
}

enum State {
    Plain,
    Blocks { blocks: Blocks, block: Vec<u8>, block_bytes: usize },
}

struct Hashed<W> {
    out: W,
    digester: Digester,
    size: u64,
}

impl<W: Write> Hashed<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digester.update(bytes);
        self.size += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

impl<W: Write> LayerWriter<W> {
    /// Compresses on `workers` threads, or on the caller's when at most 1; the bytes are the same either way.
    pub fn new(out: W, compression: Compression, workers: usize) -> io::Result<LayerWriter<W>> {
        let out = Hashed { out, digester: Algorithm::Sha256.digester(), size: 0 };
        let blocks = |codec, block_bytes| -> io::Result<State> {
            let blocks = Blocks::new(codec, workers)?;
            Ok(State::Blocks { blocks, block: Vec::with_capacity(block_bytes), block_bytes })
        };
        let state = match compression {
            Compression::None => State::Plain,
            Compression::Gzip { level } => blocks(Codec::Gzip(level.clamp(1, 12)), GZIP_MEMBER_BYTES)?,
            Compression::Zstd { level } => blocks(Codec::Zstd(level.clamp(1, 19)), ZSTD_FRAME_BYTES)?,
        };
        Ok(LayerWriter { out, diff: Algorithm::Sha256.digester(), taken: 0, compression, state })
    }

    /// Once `cancel` says so, writing is an error within 100 ms, however long a block takes to compress.
    pub fn cancelled_by(mut self, cancel: &Cancel) -> LayerWriter<W> {
        if let State::Blocks { blocks, .. } = &mut self.state {
            blocks.cancel = cancel.clone();
        }
        self
    }

    /// Writes what is left and gives the stream back with what was found.
    pub fn finish(mut self) -> io::Result<(W, LayerSummary)> {
        if let State::Blocks { blocks, block, .. } = &mut self.state {
            blocks.push(std::mem::take(block), true, |bytes| self.out.put(bytes))?;
        }
        self.out.out.flush()?;
        let summary = LayerSummary {
            diff_id: DiffId(self.diff.finish()),
            digest: self.out.digester.finish(),
            size: self.out.size,
            uncompressed_size: self.taken,
            compression: self.compression,
        };
        Ok((self.out.out, summary))
    }
}

impl<W: Write> Write for LayerWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = match &mut self.state {
            State::Plain => {
                self.out.put(bytes)?;
                bytes
            }
            State::Blocks { blocks, block, block_bytes } => {
                if block.len() == *block_bytes {
                    let full = std::mem::replace(block, Vec::with_capacity(*block_bytes));
                    blocks.push(full, false, |bytes| self.out.put(bytes))?;
                }
                let bytes = &bytes[..bytes.len().min(*block_bytes - block.len())];
                block.extend_from_slice(bytes);
                bytes
            }
        };
        self.diff.update(bytes);
        self.taken += bytes.len() as u64;
        Ok(bytes.len())
    }

    /// Does nothing: flushing in the middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
