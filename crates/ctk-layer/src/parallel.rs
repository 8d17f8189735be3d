//! Blocks compressed side by side, given back in order. What a block becomes depends on the stream alone, never on
//! how many workers there are.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use flate2::{Compress, Compression as Level, FlushCompress, Status};

/// How one block is compressed.
#[derive(Clone, Copy, Debug)]
pub enum Codec {
    /// Raw deflate, each block primed with the 32 KiB before it and ended by a sync flush: one stream in the end.
    Deflate(u32),
    /// A zstd frame of its own.
    Zstd(i32),
}

const DICTIONARY_BYTES: usize = 32 << 10;

struct Job {
    block: Arc<Vec<u8>>,
    before: Option<Arc<Vec<u8>>>,
    last: bool,
    reply: SyncSender<io::Result<Vec<u8>>>,
}

pub struct Blocks {
    jobs: Option<Sender<Job>>,
    workers: Vec<JoinHandle<()>>,
    inline: Option<Worker>,
    waiting: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    before: Option<Arc<Vec<u8>>>,
}

impl Blocks {
    /// With one worker or none, blocks are compressed by the caller's thread.
    pub fn new(codec: Codec, workers: usize) -> io::Result<Blocks> {
        let mut blocks = Blocks { jobs: None, workers: vec![], inline: None, waiting: VecDeque::new(), before: None };
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
                    let _ = job.reply.send(worker.run(&job.block, job.before.as_deref(), job.last));
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
        let block = Arc::new(block);
        let before = self.before.replace(block.clone());
        let Some(jobs) = &self.jobs else {
            let worker = self.inline.as_mut().expect("without workers there is an inline one");
            return give(&worker.run(&block, before.as_deref(), last)?);
        };
        let (reply, result) = sync_channel(1);
        jobs.send(Job { block, before, last, reply }).map_err(|_| gone())?;
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
    Deflate(u32),
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

impl Worker {
    fn new(codec: Codec) -> io::Result<Worker> {
        Ok(match codec {
            Codec::Deflate(level) => Worker::Deflate(level),
            Codec::Zstd(level) => {
                let mut compressor = zstd::bulk::Compressor::new(level)?;
                compressor.include_checksum(true)?;
                Worker::Zstd(Box::new(compressor))
            }
        })
    }

    fn run(&mut self, block: &[u8], before: Option<&Vec<u8>>, last: bool) -> io::Result<Vec<u8>> {
        match self {
            Worker::Zstd(compressor) => compressor.compress(block),
            Worker::Deflate(level) => {
                // A new one for each block: zlib-rs's `reset` lets earlier blocks shine through into later matches, and
                // which blocks those were would depend on the workers. It costs some 20 µs in 3 ms.
                let mut compress = Compress::new(Level::new(*level), false);
                if let Some(before) = before {
                    compress.set_dictionary(&before[before.len().saturating_sub(DICTIONARY_BYTES)..])?;
                }
                deflate(&mut compress, block, if last { FlushCompress::Finish } else { FlushCompress::Sync })
            }
        }
    }
}

fn deflate(compress: &mut Compress, block: &[u8], flush: FlushCompress) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(block.len() / 2 + 1024);
    loop {
        let done = compress.total_in() as usize;
        let status = compress.compress_vec(&block[done..], &mut out, flush)?;
        let room = out.capacity() > out.len();
        match (flush, status) {
            (_, Status::StreamEnd) => return Ok(out),
            // A sync flush is complete when all input is taken and the output did not fill up.
            (FlushCompress::Sync, _) if room && compress.total_in() as usize == block.len() => return Ok(out),
            _ => out.reserve(out.capacity().max(1024)),
        }
    }
}
