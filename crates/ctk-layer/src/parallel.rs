//! Blocks compressed side by side, given back in order. What a block becomes depends on the stream alone, never on
//! how many workers there are.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

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
    workers: Vec<JoinHandle<()>>,
    inline: Option<Worker>,
    waiting: VecDeque<Receiver<io::Result<Vec<u8>>>>,
}

impl Blocks {
    /// With one worker or none, blocks are compressed by the caller's thread.
    pub fn new(codec: Codec, workers: usize) -> io::Result<Blocks> {
        let mut blocks = Blocks { jobs: None, workers: vec![], inline: None, waiting: VecDeque::new() };
        if workers <= 1 {
            blocks.inline = Some(Worker::new(codec)?);
            return Ok(blocks);
        }
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        blocks.jobs = Some(jobs);
        for _ in 0..workers {
            let (queue, mut worker) = (queue.clone(), Worker::new(codec)?);
            blocks.workers.push(std::thread::Builder::new().name("compress".into()).spawn(move || {
                loop {
                    let job = match queue.lock() {
                        Ok(queue) => queue.recv(),
                        Err(_) => return,
                    };
                    let Ok(job) = job else { return };
                    // The other end is gone when the stream was given up.
                    let _ = job.reply.send(worker.run(&job.block));
                }
            })?);
        }
        Ok(blocks)
    }

    /// Takes the next block; `give` gets compressed ones as they become ready, in order.
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
        let keep = if last { 0 } else { 2 * self.workers.len() };
        while self.waiting.len() > keep {
            let oldest = self.waiting.pop_front().expect("longer than keep");
            give(&oldest.recv().map_err(|_| gone())??)?;
        }
        Ok(())
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.jobs = None;
        self.waiting.clear();
        for worker in self.workers.drain(..) {
            // A panic of a worker was already reported as a missing reply.
            let _ = worker.join();
        }
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
