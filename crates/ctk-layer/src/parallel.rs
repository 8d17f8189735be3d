//! Blocks compressed side by side, given back in order. What a block becomes depends on the stream alone, never on
//! how many workers there are.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ctk_plan::Cancel;

/// How often who waits for a block looks whether somebody said stop.
const LOOK: Duration = Duration::from_millis(50);

/// How one block is compressed.
#[derive(Clone, Copy, Debug)]
pub enum Codec {
    /// A gzip member of its own, by libdeflate: twice zlib's speed at its ratio.
    Gzip(u32),
    /// A zstd frame of its own.
    Zstd(i32),
}

struct Job {
    block: Vec<u8>,
    reply: SyncSender<io::Result<Vec<u8>>>,
}

pub struct Blocks {
    jobs: Option<Sender<Job>>,
    workers: usize,
    inline: Option<Worker>,
    waiting: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    /// Nobody takes the blocks any more.
    over: Arc<AtomicBool>,
    /// Who may say stop.
    pub cancel: Cancel,
}

impl Blocks {
    /// With one worker or none, blocks are compressed by the caller's thread.
    pub fn new(codec: Codec, workers: usize) -> io::Result<Blocks> {
        let mut blocks = Blocks {
            jobs: None,
            workers,
            inline: None,
            waiting: VecDeque::new(),
            over: Arc::default(),
            cancel: Cancel::new(),
        };
        if workers <= 1 {
            blocks.inline = Some(Worker::new(codec)?);
            return Ok(blocks);
        }
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        blocks.jobs = Some(jobs);
        for _ in 0..workers {
            let (queue, over, mut worker) = (queue.clone(), blocks.over.clone(), Worker::new(codec)?);
            std::thread::Builder::new().name("compress".into()).spawn(move || {
                loop {
                    let job = match queue.lock() {
                        Ok(queue) => queue.recv(),
                        Err(_) => return,
                    };
                    let Ok(job) = job else { return };
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    // The other end is gone when the stream was given up.
                    let _ = job.reply.send(worker.run(&job.block));
                }
            })?;
        }
        Ok(blocks)
    }

    /// Takes the next block; `give` gets compressed ones as they become ready, in order. Once somebody said stop, that is
    /// an error within [`LOOK`].
    pub fn push(
        &mut self,
        block: Vec<u8>,
        last: bool,
        mut give: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(jobs) = &self.jobs else {
            let worker = self.inline.as_mut().expect("without workers there is an inline one");
            return give(&worker.run(&block)?);
        };
        let (reply, result) = sync_channel(1);
        jobs.send(Job { block, reply }).map_err(|_| gone())?;
        self.waiting.push_back(result);
        let keep = if last { 0 } else { 2 * self.workers };
        while self.waiting.len() > keep {
            let oldest = self.waiting.pop_front().expect("longer than keep");
            give(&self.wait(&oldest)?)?;
        }
        Ok(())
    }

    fn wait(&self, block: &Receiver<io::Result<Vec<u8>>>) -> io::Result<Vec<u8>> {
        loop {
            match block.recv_timeout(LOOK) {
                Ok(compressed) => return compressed,
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                Err(RecvTimeoutError::Timeout) if self.cancel.is_cancelled() => {
                    return Err(io::Error::other("cancelled"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// Workers end by themselves. Nobody waits for them: at a high level a block takes seconds, which would be for nothing.
impl Drop for Blocks {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn gone() -> io::Error {
    io::Error::other("a compression thread ended unexpectedly")
}

enum Worker {
    Gzip(libdeflater::Compressor),
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

impl Worker {
    fn new(codec: Codec) -> io::Result<Worker> {
        Ok(match codec {
            Codec::Gzip(level) => {
                let level = libdeflater::CompressionLvl::new(level as i32);
                Worker::Gzip(libdeflater::Compressor::new(level.map_err(|_| io::Error::other("no such gzip level"))?))
            }
            Codec::Zstd(level) => {
                let mut compressor = zstd::bulk::Compressor::new(level)?;
                compressor.include_checksum(true)?;
                Worker::Zstd(Box::new(compressor))
            }
        })
    }

    fn run(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Worker::Zstd(compressor) => compressor.compress(block),
            Worker::Gzip(compressor) => {
                let mut out = vec![0; compressor.gzip_compress_bound(block.len())];
                let written = compressor.gzip_compress(block, &mut out);
                out.truncate(written.map_err(|_| io::Error::other("libdeflate broke its own bound"))?);
                Ok(out)
            }
        }
    }
}
