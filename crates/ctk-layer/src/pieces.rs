//! A compressed stream cut into pieces that are decompressed side by side, and given back in order.
//!
//! Who knows the format cuts ([`Cutter`]). A cut is right when what lies before it decompresses by itself; at the first
//! piece that does not, or that was not meant to, the rest of the stream is decompressed in one piece. So what comes out
//! never depends on the cuts.

use std::io::{self, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

/// How much is read at once.
pub const READ_BYTES: usize = 256 << 10;

/// A format that can be cut.
pub struct Format {
    /// What makes the decompressor of one thread: it gives a piece decompressed, or `None` if it is not whole.
    pub worker: fn() -> io::Result<Box<Worker>>,
    /// Decompresses the rest as a stream.
    pub rest: fn(BufReader<Raw>) -> io::Result<Box<dyn Read + Send>>,
}

/// The decompressor of one thread.
pub type Worker = dyn FnMut(&[u8]) -> Option<Vec<u8>> + Send;

struct Piece {
    raw: Arc<Vec<u8>>,
    /// The piece decompressed, if it is whole; none if it is only to be read as part of the rest.
    out: Option<Receiver<Option<Vec<u8>>>>,
}

struct Job {
    raw: Arc<Vec<u8>>,
    reply: SyncSender<Option<Vec<u8>>>,
}

/// Where the one who cuts puts the pieces. All methods give `None` when nobody takes them any more.
pub struct Cutter {
    jobs: SyncSender<Job>,
    pieces: SyncSender<io::Result<Piece>>,
}

impl Cutter {
    /// A piece that should decompress by itself.
    pub fn whole(&self, raw: Vec<u8>) -> Option<()> {
        let raw = Arc::new(raw);
        let (reply, out) = sync_channel(1);
        self.pieces.send(Ok(Piece { raw: raw.clone(), out: Some(out) })).ok()?;
        self.jobs.send(Job { raw, reply }).ok()
    }

    /// A piece of the rest; only such may follow.
    pub fn rest(&self, raw: Vec<u8>) -> Option<()> {
        self.pieces.send(Ok(Piece { raw: Arc::new(raw), out: None })).ok()
    }

    /// The stream failed.
    pub fn failed(&self, error: io::Error) -> Option<()> {
        self.pieces.send(Err(error)).ok()
    }
}

/// What `cut` cuts, decompressed by `workers` threads; another one cuts. They end when the reader is dropped.
pub fn decompress(
    format: Format,
    workers: usize,
    cut: impl FnOnce(&Cutter) -> Option<()> + Send + 'static,
) -> io::Result<impl Read + Send> {
    let workers = workers.max(1);
    let (jobs, queue) = sync_channel::<Job>(workers);
    let (pieces, ordered) = sync_channel::<io::Result<Piece>>(2 * workers);
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..workers {
        let (queue, mut worker) = (queue.clone(), (format.worker)()?);
        std::thread::Builder::new().name("inflate".into()).spawn(move || {
            loop {
                let job = match queue.lock() {
                    Ok(queue) => queue.recv(),
                    Err(_) => return,
                };
                let Ok(job) = job else { return };
                // Nobody waits for it when the reader is gone.
                let _ = job.reply.send(worker(&job.raw));
            }
        })?;
    }
    std::thread::Builder::new().name("cut".into()).spawn(move || {
        // None means that the reader is gone.
        let _ = cut(&Cutter { jobs, pieces });
    })?;
    Ok(Pieces { out: Vec::new(), at: 0, source: Source::Pieces(ordered), rest: format.rest })
}

struct Pieces {
    out: Vec<u8>,
    at: usize,
    source: Source,
    rest: fn(BufReader<Raw>) -> io::Result<Box<dyn Read + Send>>,
}

enum Source {
    Pieces(Receiver<io::Result<Piece>>),
    /// From a piece on that was not whole.
    Rest(Box<dyn Read + Send>),
    Ended,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.out.len() {
            let piece = match &mut self.source {
                Source::Rest(rest) => return rest.read(buffer),
                Source::Ended => return Ok(0),
                Source::Pieces(ordered) => ordered.recv(),
            };
            let Ok(piece) = piece else {
                self.source = Source::Ended;
                continue;
            };
            let Piece { raw, out } = piece?;
            let out = match out {
                Some(out) => out.recv().map_err(|_| io::Error::other("a decompressing thread ended unexpectedly"))?,
                None => None,
            };
            match out {
                Some(out) => (self.out, self.at) = (out, 0),
                None => {
                    if let Source::Pieces(ordered) = std::mem::replace(&mut self.source, Source::Ended) {
                        let raw = BufReader::with_capacity(READ_BYTES, Raw { ordered, raw, at: 0 });
                        self.source = Source::Rest((self.rest)(raw)?);
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
pub struct Raw {
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
