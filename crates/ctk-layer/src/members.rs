//! gzip members decompressed side by side, when they look like ours: small, each with its size in its last bytes.
//!
//! The stream is cut where a member's header seems to begin. A cut is right when what lies before it is exactly one
//! member; at the first that is not (the bytes may occur in a file, or the members are somebody else's), the rest of
//! the stream is decompressed in one piece. So what comes out never depends on the cuts.

use std::io::{self, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use flate2::bufread::MultiGzDecoder;
use libdeflater::Decompressor;

use crate::limits::{GZIP_MEMBER_BYTES, GZIP_MEMBER_READ_MAX_BYTES};

/// What each of our members begins with: no flags, no time. Two bytes more follow, of the level and the system.
pub const HEADER: [u8; 8] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0];
/// How much is read at once.
const READ_BYTES: usize = 256 << 10;

struct Piece {
    raw: Arc<Vec<u8>>,
    /// The piece decompressed, if it is one whole member.
    out: Receiver<Option<Vec<u8>>>,
}

struct Job {
    raw: Arc<Vec<u8>>,
    reply: SyncSender<Option<Vec<u8>>>,
}

/// `stream`, decompressed by `workers` threads; another one reads it. They end when the reader is dropped.
pub fn decompress(stream: impl Read + Send + 'static, workers: usize) -> io::Result<impl Read + Send> {
    let workers = workers.max(1);
    let (jobs, queue) = sync_channel::<Job>(workers);
    let (pieces, ordered) = sync_channel::<io::Result<Piece>>(2 * workers);
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..workers {
        let queue = queue.clone();
        std::thread::Builder::new().name("inflate".into()).spawn(move || {
            let mut decompressor = Decompressor::new();
            loop {
                let job = match queue.lock() {
                    Ok(queue) => queue.recv(),
                    Err(_) => return,
                };
                let Ok(job) = job else { return };
                // Nobody waits for it when the reader is gone.
                let _ = job.reply.send(member(&mut decompressor, &job.raw));
            }
        })?;
    }
    std::thread::Builder::new().name("cut".into()).spawn(move || {
        // An error means that the reader is gone.
        let _ = cut(stream, &jobs, &pieces);
    })?;
    Ok(Members { out: Vec::new(), at: 0, source: Source::Members(ordered) })
}

/// Sends the pieces of `stream`; `None` when nobody takes them any more.
fn cut(mut stream: impl Read, jobs: &SyncSender<Job>, pieces: &SyncSender<io::Result<Piece>>) -> Option<()> {
    let mut buffer: Vec<u8> = Vec::with_capacity(2 * GZIP_MEMBER_BYTES);
    let mut searched = 1;
    loop {
        let before = buffer.len();
        let read = stream.by_ref().take(READ_BYTES as u64).read_to_end(&mut buffer);
        if let Err(error) = read {
            return pieces.send(Err(error)).ok();
        }
        let ended = buffer.len() == before;
        while let Some(end) = next_header(&buffer, searched) {
            let rest = buffer.split_off(end);
            send(std::mem::replace(&mut buffer, rest), jobs, pieces)?;
            searched = 1;
        }
        searched = buffer.len().saturating_sub(HEADER.len() + 1).max(1);
        if ended || buffer.len() > 2 * GZIP_MEMBER_BYTES {
            if !buffer.is_empty() {
                send(std::mem::take(&mut buffer), jobs, pieces)?;
            }
            searched = 1;
        }
        if ended {
            return Some(());
        }
    }
}

fn send(raw: Vec<u8>, jobs: &SyncSender<Job>, pieces: &SyncSender<io::Result<Piece>>) -> Option<()> {
    let raw = Arc::new(raw);
    let (reply, out) = sync_channel(1);
    pieces.send(Ok(Piece { raw: raw.clone(), out })).ok()?;
    jobs.send(Job { raw, reply }).ok()
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

struct Members {
    out: Vec<u8>,
    at: usize,
    source: Source,
}

enum Source {
    Members(Receiver<io::Result<Piece>>),
    /// After a piece that was no member.
    Whole(Box<dyn Read + Send>),
    Ended,
}

impl Read for Members {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.out.len() {
            let piece = match &mut self.source {
                Source::Whole(whole) => return whole.read(buffer),
                Source::Ended => return Ok(0),
                Source::Members(ordered) => ordered.recv(),
            };
            let Ok(piece) = piece else {
                self.source = Source::Ended;
                continue;
            };
            let piece = piece?;
            match piece.out.recv().map_err(|_| io::Error::other("a decompressing thread ended unexpectedly"))? {
                Some(out) => (self.out, self.at) = (out, 0),
                None => {
                    if let Source::Members(ordered) = std::mem::replace(&mut self.source, Source::Ended) {
                        let raw = BufReader::with_capacity(READ_BYTES, Raw { ordered, raw: piece.raw, at: 0 });
                        self.source = Source::Whole(Box::new(MultiGzDecoder::new(raw)));
                    }
                }
            }
        }
        let n = buffer.len().min(self.out.len() - self.at);
        buffer[..n].copy_from_slice(&self.out[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// The pieces as they came.
struct Raw {
    ordered: Receiver<io::Result<Piece>>,
    raw: Arc<Vec<u8>>,
    at: usize,
}

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.raw.len() {
            let Ok(piece) = self.ordered.recv() else { return Ok(0) };
            (self.raw, self.at) = (piece?.raw, 0);
        }
        let n = buffer.len().min(self.raw.len() - self.at);
        buffer[..n].copy_from_slice(&self.raw[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
