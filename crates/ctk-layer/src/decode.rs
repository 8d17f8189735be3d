//! Undoes compressions, recognised by their first bytes.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, sync_channel};

use crate::limits::ZSTD_WINDOW_LOG_MAX;

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
    let mut first = Vec::with_capacity(6);
    let mut stream = stream;
    stream.by_ref().take(6).read_to_end(&mut first)?;
    let encoding = Encoding::sniff(&first);
    let stream = BufReader::with_capacity(128 << 10, io::Cursor::new(first).chain(stream));
    Ok((encoding, wrap(encoding, stream)?))
}

fn wrap<'a>(encoding: Encoding, stream: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match encoding {
        Encoding::Plain => Box::new(stream),
        Encoding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(stream)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Encoding::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(stream)),
        Encoding::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(stream)),
    })
}

/// Bytes handed over at once, and how many such pieces may wait: 2 MiB ahead keep both sides busy.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 8;

/// `stream`, read by a thread of its own, a little ahead of the caller. Dropping it ends that thread.
pub fn pipelined(stream: impl Read + Send + 'static) -> io::Result<impl Read + Send> {
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
