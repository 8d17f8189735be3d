//! Undoes compressions, recognised by their first bytes.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, sync_channel};

use crate::{frames, members};

/// A compression, as the first bytes of a stream tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// None that we know.
    Plain,
    /// gzip (RFC 1952), one member or more.
    Gzip,
    /// zstd (RFC 8878), one frame or more.
    Zstd,
    /// xz.
    Xz,
    /// bzip2.
    Bzip2,
}

impl Encoding {
    /// What the first bytes (at least 6, if there are so many) say.
    pub fn sniff(first: &[u8]) -> Encoding {
        match first {
            [0x1f, 0x8b, ..] => Encoding::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Encoding::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Encoding::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Encoding::Bzip2,
            _ => Encoding::Plain,
        }
    }
}

/// The decompressed stream under `stream`, and what it was.
pub fn decode<'a>(stream: impl Read + Send + 'a) -> io::Result<(Encoding, Box<dyn Read + Send + 'a>)> {
    let (encoding, stream) = sniff(stream)?;
    Ok((encoding, wrap(encoding, BufReader::with_capacity(128 << 10, stream))?))
}

/// Like [`decode`], a little ahead of the caller and on threads of its own: one for most compressions, `workers` for
/// gzip as [`LayerWriter`](crate::LayerWriter) writes it, and for zstd in frames of moderate size. They end when the reader is dropped.
pub fn decode_ahead(
    stream: impl Read + Send + 'static,
    workers: usize,
) -> io::Result<(Encoding, impl Read + Send + 'static)> {
    let (encoding, stream) = sniff(stream)?;
    let decoded: Box<dyn Read + Send> = match encoding {
        Encoding::Gzip => Box::new(members::decompress(stream, workers)?),
        Encoding::Zstd => Box::new(frames::decompress(stream, workers)?),
        _ => wrap(encoding, BufReader::with_capacity(128 << 10, stream))?,
    };
    Ok((encoding, pipelined(decoded)?))
}

/// A stream after its first bytes were read.
type Whole<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

/// What the first bytes say, and the stream with them.
fn sniff<R: Read>(mut stream: R) -> io::Result<(Encoding, Whole<R>)> {
    let mut first = Vec::with_capacity(6);
    stream.by_ref().take(6).read_to_end(&mut first)?;
    Ok((Encoding::sniff(&first), io::Cursor::new(first).chain(stream)))
}

fn wrap<'a>(encoding: Encoding, stream: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match encoding {
        Encoding::Plain => Box::new(stream),
        Encoding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        Encoding::Zstd => Box::new(frames::stream(stream)?),
        Encoding::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(stream)),
        Encoding::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(stream)),
    })
}

/// Bytes handed over at once, and how many such pieces may wait: 2 MiB ahead keep both sides busy.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 8;

/// `stream`, read by a thread of its own, a little ahead of the caller. Dropping it ends that thread.
fn pipelined(stream: impl Read + Send + 'static) -> io::Result<impl Read + Send + 'static> {
    let (sender, receiver) = sync_channel::<io::Result<Vec<u8>>>(PIECES);
    let mut stream = stream;
    std::thread::Builder::new().name("decode".into()).spawn(move || {
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let result = stream.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
            let ended = matches!(result, Ok(0) | Err(_));
            // The reader is gone when it gave up: nothing to tell anybody.
            if sender.send(result.map(|_| piece)).is_err() || ended {
                return;
            }
        }
    })?;
    Ok(Pipe { pieces: receiver, piece: Vec::new(), at: 0, ended: false })
}

struct Pipe {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() && !self.ended {
            self.at = 0;
            self.piece = match self.pieces.recv() {
                Ok(Ok(piece)) => piece,
                Ok(Err(error)) => {
                    self.ended = true;
                    return Err(error);
                }
                Err(_) => return Err(io::Error::other("the decoding thread ended unexpectedly")),
            };
            self.ended = self.piece.is_empty();
        }
        let n = buffer.len().min(self.piece.len() - self.at);
        buffer[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
