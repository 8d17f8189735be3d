//! Files written side by side by a few threads, while the caller reads on.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use ctk_layer::Entry;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::SnapshotError;
use crate::dir::{Place, own, remove_all, set_xattrs, timestamps};
use crate::error::Context;
use crate::limits::{FILE_PIECE_BYTES, FILES_WAITING, PIECES_WAITING};

/// A file to be made.
pub struct Job {
    pub parent: Arc<OwnedFd>,
    pub name: Vec<u8>,
    /// For messages.
    pub path: Vec<u8>,
    pub entry: Entry,
    /// Its first bytes.
    pub first: Vec<u8>,
    /// The others.
    pub rest: Option<Receiver<Vec<u8>>>,
}

/// The threads. Jobs may be done in any order; [`Writers::wait`] is the barrier between those where order matters.
pub struct Writers {
    jobs: Option<SyncSender<Job>>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<usize>,
    idle: Condvar,
    failed: AtomicBool,
    failure: Mutex<Option<SnapshotError>>,
}

impl Writers {
    pub fn new(threads: usize) -> io::Result<Writers> {
        let (jobs, queue) = sync_channel::<Job>(FILES_WAITING);
        let queue = Arc::new(Mutex::new(queue));
        let mut writers = Writers { jobs: Some(jobs), shared: Arc::default(), threads: Vec::new() };
        for _ in 0..threads.max(1) {
            let (queue, shared) = (queue.clone(), writers.shared.clone());
            writers.threads.push(std::thread::Builder::new().name("write".into()).spawn(move || {
                loop {
                    let job = match queue.lock() {
                        Ok(queue) => queue.recv(),
                        Err(_) => return,
                    };
                    let Ok(job) = job else { return };
                    let _done = Done(&shared);
                    if !shared.failed.load(Ordering::Relaxed)
                        && let Err(error) = run(job)
                    {
                        shared.fail(error);
                    }
                }
            })?);
        }
        Ok(writers)
    }

    /// Gives a file to the threads; fails with what one of them met before.
    pub fn push(&self, job: Job) -> Result<(), SnapshotError> {
        self.check()?;
        *self.shared.pending.lock().expect("no panic while locked") += 1;
        let jobs = self.jobs.as_ref().expect("there until dropped");
        jobs.send(job).expect("the threads end only when the sender is gone");
        Ok(())
    }

    /// Waits until all files given so far are complete.
    pub fn wait(&self) -> Result<(), SnapshotError> {
        let pending = self.shared.pending.lock().expect("no panic while locked");
        drop(self.shared.idle.wait_while(pending, |pending| *pending > 0).expect("no panic while locked"));
        self.check()
    }

    fn check(&self) -> Result<(), SnapshotError> {
        if !self.shared.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.shared.failure.lock().expect("no panic while locked").take().map_or(Ok(()), Err)
    }
}

impl Shared {
    fn fail(&self, error: SnapshotError) {
        self.failure.lock().expect("no panic while locked").get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }
}

/// Counts a job as done however it ends: who waits must not wait for ever.
struct Done<'a>(&'a Shared);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let source = io::Error::other("the writing thread ended unexpectedly");
            self.0.fail(SnapshotError::Io { action: "write", path: "/".into(), source });
        }
        let mut pending = self.0.pending.lock().expect("no panic while locked");
        *pending -= 1;
        if *pending == 0 {
            self.0.idle.notify_all();
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic was told by `Done`.
            let _ = thread.join();
        }
    }
}

/// The sending end of [`Job::rest`].
pub fn pieces() -> (SyncSender<Vec<u8>>, Receiver<Vec<u8>>) {
    sync_channel(PIECES_WAITING)
}

fn run(job: Job) -> Result<(), SnapshotError> {
    let mut file = NewFile::create(&job.parent, &job.name, &job.path)?;
    file.write(&job.first, &job.path)?;
    if let Some(rest) = job.rest {
        for piece in rest {
            file.write(&piece, &job.path)?;
        }
        if file.written < job.entry.size() {
            // The reader gave up and says why.
            return Ok(());
        }
    }
    file.finish(&job.entry, &job.path)
}

/// A file that is being made. Blocks of zeros become holes.
pub struct NewFile {
    file: File,
    written: u64,
    hole: bool,
}

/// What a hole is made of: the block size of most filesystems.
const BLOCK: usize = 4096;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

impl NewFile {
    /// Creates `name`, in place of what is there.
    pub fn create(parent: impl AsFd, name: &[u8], path: &[u8]) -> Result<NewFile, SnapshotError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || openat(parent.as_fd(), name, flags, Mode::from_raw_mode(0o600));
        let file = match create() {
            Err(Errno::EXIST) => {
                remove_all(parent.as_fd(), name).context("replace", path)?;
                create()
            }
            result => result,
        };
        Ok(NewFile { file: File::from(file.context("create", path)?), written: 0, hole: false })
    }

    /// Appends. Pieces should be multiples of the block size, else holes in later ones are missed.
    pub fn write(&mut self, bytes: &[u8], path: &[u8]) -> Result<(), SnapshotError> {
        self.append(bytes).context("write", path)
    }

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let zeros = leading(bytes, true);
            if zeros > 0 {
                self.file.seek(SeekFrom::Current(zeros as i64))?;
                self.hole = true;
            }
            let data = leading(&bytes[zeros..], false);
            if data > 0 {
                self.file.write_all(&bytes[zeros..zeros + data])?;
                self.hole = false;
            }
            self.written += (zeros + data) as u64;
            bytes = &bytes[zeros + data..];
        }
        Ok(())
    }

    /// Sets all that the entry says.
    pub fn finish(self, entry: &Entry, path: &[u8]) -> Result<(), SnapshotError> {
        let file = &self.file;
        if self.hole {
            file.set_len(self.written).context("write", path)?;
        }
        own(file, (entry.uid, entry.gid)).context("chown", path)?;
        set_xattrs(&Place::Open(file.as_fd()), &entry.xattrs).context("set attributes of", path)?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).context("chmod", path)?;
        rustix::fs::futimens(file, &timestamps(entry.mtime)).context("set the time of", path)
    }
}

/// Bytes at the start that are whole blocks of zeros, or that are not.
fn leading(bytes: &[u8], zeros: bool) -> usize {
    let blocks = bytes.chunks(BLOCK).take_while(|block| (**block == ZEROS) == zeros);
    blocks.map(<[u8]>::len).sum()
}

/// How much of a file travels at once.
pub const fn piece_bytes(left: u64) -> usize {
    if left < FILE_PIECE_BYTES as u64 { left as usize } else { FILE_PIECE_BYTES }
}
