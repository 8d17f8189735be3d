//! A tree copied file by file. One thread walks and makes directories, links and devices; files are made in batches, and
//! when there are many of them, by several threads.
//!
//! A directory's attributes are set when nothing in it is made any more: by whoever lets go of it last.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::Scope;

use ctk_layer::Time;
use ctk_plan::Cancel;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Uid, chownat, copy_file_range, ftruncate, ioctl_ficlone,
    linkat, mkdirat, mknodat, openat, readlinkat, seek, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::SnapshotError;
use crate::copy::{CopiedXattrs, CopyOptions, CopyStats, Mtime, Verdict};
use crate::dir::{
    DIRECTORY, Place, Xattrs, join, kind_of, mtime_of, open_in_root, own, remove_all, set_xattrs, sorted_names, split,
    stat_if_there, timestamps, xattrs,
};
use crate::error::{Context, display};
use crate::limits::{COPIED_AT_ONCE, COPY_ALONE, DEPTH_MAX, LINKS_MAX, READ_WHOLE_BYTES, WRITERS_MAX};
use crate::tree::kind_word;

/// What `st_blocks` counts, whatever the filesystem's blocks are (inode(7)).
const STAT_BLOCK_BYTES: u64 = 512;

/// What a file, link or device is copied from.
pub enum Source {
    Open(OwnedFd),
    Link(Vec<u8>),
    Node,
}

/// Of each file that has several names, the path to link to and how many names that has.
type Links = HashMap<(u64, u64), (Vec<u8>, u32)>;

/// A copy into one tree.
pub struct Copier<'a> {
    dest_root: BorrowedFd<'a>,
    links: Links,
    hands: Hands<'a>,
}

impl<'a> Copier<'a> {
    pub fn new(dest_root: BorrowedFd<'a>, options: &'a CopyOptions<'a>, cancel: &'a Cancel) -> Copier<'a> {
        let hands = Hands {
            options,
            cancel,
            clone: AtomicBool::new(true),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failure: Mutex::new(None),
            over: AtomicBool::new(false),
        };
        Copier { dest_root, links: HashMap::new(), hands }
    }

    /// What was made so far.
    pub fn stats(&self) -> CopyStats {
        let (entries, bytes) = (&self.hands.entries, &self.hands.bytes);
        CopyStats { entries: entries.load(Ordering::Relaxed), bytes: bytes.load(Ordering::Relaxed) }
    }

    /// What is in `from` into the directory `to`, whose path is `path`.
    pub fn tree(mut self, from: OwnedFd, to: OwnedFd, path: Vec<u8>) -> Result<CopyStats, SnapshotError> {
        let first = Made { fd: to, path: path.clone(), pending: None };
        let (dest_root, links, hands) = (self.dest_root, &mut self.links, &self.hands);
        let walked = std::thread::scope(|scope| {
            let mut walk = Walk {
                dest_root,
                links,
                hands,
                scope,
                chain: vec![Level { path, made: Some(Arc::new(first)), pending: None, files: Vec::new() }],
                crew: None,
                alone: 0,
                buffer: Vec::new(),
            };
            let walked = walk.contents(Arc::new(from), b"", 0);
            if walked.is_err() {
                hands.over.store(true, Ordering::Relaxed);
            }
            walk.end();
            walked
        });
        match self.hands.failure.lock().expect("no panic while locked").take() {
            Some(failure) => Err(failure),
            None => walked,
        }?;
        Ok(self.stats())
    }

    /// One file, link or device.
    pub fn leaf(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        source: Source,
        named: Option<Place<'_>>,
        stat: &Stat,
    ) -> Result<(), SnapshotError> {
        leaf(&self.hands, &mut self.links, self.dest_root, (parent, name, path), (source, named), stat)
    }
}

/// A directory that files are made in.
struct Made {
    fd: OwnedFd,
    path: Vec<u8>,
    /// What it gets once complete.
    pending: Option<(Stat, Xattrs)>,
}

/// One directory of the way down; made when something is put into it.
struct Level {
    path: Vec<u8>,
    made: Option<Arc<Made>>,
    pending: Option<(Stat, Xattrs)>,
    /// Files that are still to be made in it.
    files: Vec<(Vec<u8>, Stat)>,
}

/// Files of one directory.
struct Batch {
    from: Arc<OwnedFd>,
    /// The source directory, for messages.
    relative: Vec<u8>,
    to: Arc<Made>,
    files: Vec<(Vec<u8>, Stat)>,
}

/// Those who make files beside the one that walks.
struct Crew {
    batches: SyncSender<Batch>,
    queue: Arc<Mutex<Receiver<Batch>>>,
}

/// The way through a tree.
struct Walk<'scope, 'env> {
    dest_root: BorrowedFd<'env>,
    links: &'env mut Links,
    hands: &'env Hands<'env>,
    scope: &'scope Scope<'scope, 'env>,
    chain: Vec<Level>,
    crew: Option<Crew>,
    /// Files made without a crew.
    alone: usize,
    buffer: Vec<u8>,
}

impl Walk<'_, '_> {
    fn contents(&mut self, from: Arc<OwnedFd>, relative: &[u8], depth: usize) -> Result<(), SnapshotError> {
        if depth > DEPTH_MAX {
            let reason = "directories are nested deeper than 2048 levels";
            return Err(SnapshotError::Refused { path: display(relative), reason });
        }
        for name in sorted_names(&*from).context("list", relative)? {
            if self.hands.stopped() {
                return Err(SnapshotError::Cancelled);
            }
            let inside = join(relative, &name);
            let Some(stat) = stat_if_there(&*from, &name).context("stat", &inside)? else { continue };
            let directory = kind_of(&stat) == FileType::Directory;
            let verdict = self.hands.options.filter.map_or(Verdict::Take, |filter| filter(&inside, directory));
            match (directory, verdict) {
                (_, Verdict::Skip) | (false, Verdict::Descend) => {}
                (true, verdict) => {
                    let child = openat(&*from, &name[..], DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
                    let child = child.context("open", &inside)?;
                    let attributes = self.hands.attributes(Place::Open(child.as_fd()), &inside)?;
                    let path = join(&self.level().path, &name);
                    let pending = Some((stat, attributes));
                    self.chain.push(Level { path, made: None, pending, files: Vec::new() });
                    if verdict == Verdict::Take {
                        self.reach()?;
                    }
                    self.contents(Arc::new(child), &inside, depth + 1)?;
                    self.leave()?;
                }
                (false, Verdict::Take) => {
                    let source = match kind_of(&stat) {
                        FileType::Socket => continue,
                        FileType::RegularFile if stat.st_nlink == 1 => {
                            self.reach()?;
                            self.level().files.push((name, stat));
                            if self.level().files.len() >= COPIED_AT_ONCE {
                                self.files(&from, relative)?;
                            }
                            continue;
                        }
                        FileType::RegularFile => Source::Open(open_source(&*from, &name).context("open", &inside)?),
                        FileType::Symlink => {
                            let target = readlinkat(&*from, &name[..], Vec::new()).context("read link", &inside)?;
                            Source::Link(target.into_bytes())
                        }
                        _ => Source::Node,
                    };
                    self.reach()?;
                    let level = self.chain.last().expect("begun with one");
                    let made = level.made.clone().expect("reached");
                    let (path, named) = (join(&level.path, &name), Some(Place::Named(from.as_fd(), &name)));
                    let place = (&made.fd, &name[..], &path[..]);
                    leaf(self.hands, self.links, self.dest_root, place, (source, named), &stat)?;
                    self.hands.release(made)?;
                }
            }
        }
        self.files(&from, relative)
    }

    fn level(&mut self) -> &mut Level {
        self.chain.last_mut().expect("begun with one")
    }

    /// Makes the directories down to where we are.
    fn reach(&mut self) -> Result<(), SnapshotError> {
        for at in 1..self.chain.len() {
            if self.chain[at].made.is_some() {
                continue;
            }
            let path = self.chain[at].path.clone();
            let (_, name) = split(&path);
            let parent = self.chain[at - 1].made.as_ref().expect("made from the top down");
            let fd = match mkdirat(&parent.fd, name, Mode::from_raw_mode(0o700)) {
                Ok(()) => {
                    self.hands.entries.fetch_add(1, Ordering::Relaxed);
                    openat(&parent.fd, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).context("open", &path)?
                }
                Err(Errno::EXIST) => match openat(&parent.fd, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
                    Ok(there) => there,
                    Err(_) => {
                        let there = stat_if_there(&parent.fd, name).context("stat", &path)?;
                        let found = there.map_or("gone", |stat| kind_word(kind_of(&stat)));
                        let path = display(&path);
                        return Err(SnapshotError::WrongKind { path, found, expected: "a directory or nothing" });
                    }
                },
                Err(e) => return Err(e).context("create directory", &path),
            };
            let pending = self.chain[at].pending.take();
            self.chain[at].made = Some(Arc::new(Made { fd, path, pending }));
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), SnapshotError> {
        let level = self.chain.pop().expect("entered before");
        level.made.map_or(Ok(()), |made| self.hands.release(made))
    }

    /// Has the files that wait in the deepest directory made: by the crew, or here if there is none or it is busy.
    fn files(&mut self, from: &Arc<OwnedFd>, relative: &[u8]) -> Result<(), SnapshotError> {
        let level = self.chain.last_mut().expect("begun with one");
        let files = std::mem::take(&mut level.files);
        let Some(to) = level.made.clone().filter(|_| !files.is_empty()) else { return Ok(()) };
        let batch = Batch { from: from.clone(), relative: relative.to_vec(), to, files };
        if self.crew.is_none() && self.alone >= COPY_ALONE {
            self.crew = self.hire();
        }
        let batch = match &self.crew {
            None => {
                self.alone += batch.files.len();
                batch
            }
            Some(crew) => match crew.batches.try_send(batch) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => batch,
            },
        };
        self.hands.batch(batch, &mut self.buffer)
    }

    /// As many threads as there are cores, the walking one counted; none where that is the only one.
    fn hire(&self) -> Option<Crew> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = cores.min(WRITERS_MAX) - 1;
        let (batches, queue) = sync_channel(2 * threads.max(1));
        let queue = Arc::new(Mutex::new(queue));
        let mut hired = 0;
        for _ in 0..threads {
            let (hands, queue) = (self.hands, queue.clone());
            let work = move || hands.work(&queue, &mut Vec::new());
            // Without a thread the walking one does it.
            hired +=
                usize::from(std::thread::Builder::new().name("copy".into()).spawn_scoped(self.scope, work).is_ok());
        }
        (hired > 0).then_some(Crew { batches, queue })
    }

    /// Makes what still waits.
    fn end(mut self) {
        let Some(Crew { batches, queue }) = self.crew.take() else { return };
        drop(batches);
        self.hands.work(&queue, &mut self.buffer);
    }
}

/// Makes files; any number of threads at once.
struct Hands<'a> {
    options: &'a CopyOptions<'a>,
    cancel: &'a Cancel,
    /// Whether the filesystem can still be asked for reflinks.
    clone: AtomicBool,
    entries: AtomicU64,
    bytes: AtomicU64,
    /// What the first of them that failed met.
    failure: Mutex<Option<SnapshotError>>,
    /// Whether anything failed.
    over: AtomicBool,
}

impl Hands<'_> {
    fn stopped(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.cancel.is_cancelled()
    }

    /// Makes files until no more come.
    fn work(&self, queue: &Mutex<Receiver<Batch>>, buffer: &mut Vec<u8>) {
        loop {
            let batch = match queue.lock() {
                Ok(queue) => queue.recv(),
                Err(_) => return,
            };
            let Ok(batch) = batch else { return };
            // Those that stop because something failed have nothing to tell.
            if let Err(error) = self.batch(batch, buffer)
                && !self.over.swap(true, Ordering::Relaxed)
            {
                *self.failure.lock().expect("no panic while locked") = Some(error);
            }
        }
    }

    fn batch(&self, batch: Batch, buffer: &mut Vec<u8>) -> Result<(), SnapshotError> {
        for (name, stat) in &batch.files {
            if self.stopped() {
                return Err(SnapshotError::Cancelled);
            }
            let inside = join(&batch.relative, name);
            let from = open_source(&*batch.from, name).context("open", &inside)?;
            let path = join(&batch.to.path, name);
            let attributes = self.attributes(Place::Open(from.as_fd()), &path)?;
            self.entries.fetch_add(1, Ordering::Relaxed);
            self.file(&from, (&batch.to.fd, name, &path), &attributes, stat, buffer)?;
        }
        self.release(batch.to)
    }

    /// Lets go of a directory. Who does so last sets its attributes: nothing changes its time any more.
    fn release(&self, made: Arc<Made>) -> Result<(), SnapshotError> {
        let Some(Made { fd, path, pending: Some((stat, attributes)) }) = Arc::into_inner(made) else { return Ok(()) };
        own(&fd, self.owner(&stat)).context("chown", &path)?;
        set_xattrs(&Place::Open(fd.as_fd()), &attributes).context("set attributes of", &path)?;
        rustix::fs::fchmod(&fd, self.mode(&stat)).context("chmod", &path)?;
        rustix::fs::futimens(&fd, &timestamps(self.time(&stat))).context("set the time of", &path)
    }

    /// The file `path`, in place of a file or link that is there.
    fn file(
        &self,
        from: &OwnedFd,
        (parent, name, path): (&OwnedFd, &[u8], &[u8]),
        attributes: &Xattrs,
        stat: &Stat,
        buffer: &mut Vec<u8>,
    ) -> Result<(), SnapshotError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || openat(parent, name, flags, Mode::from_raw_mode(0o600));
        let to = match create() {
            Err(Errno::EXIST) => {
                make_room(parent, name, path)?;
                create()
            }
            result => result,
        };
        let to = to.context("create", path)?;
        let copied = self.content(from, &to, stat, buffer);
        if self.cancel.is_cancelled() {
            return Err(SnapshotError::Cancelled);
        }
        self.bytes.fetch_add(copied.context("copy to", path)?, Ordering::Relaxed);
        own(&to, self.owner(stat)).context("chown", path)?;
        set_xattrs(&Place::Open(to.as_fd()), attributes).context("set attributes of", path)?;
        rustix::fs::fchmod(&to, self.mode(stat)).context("chmod", path)?;
        rustix::fs::futimens(&to, &timestamps(self.time(stat))).context("set the time of", path)
    }

    /// By reflink where the filesystem can, else its data, and its holes as holes.
    fn content(&self, from: &OwnedFd, to: &OwnedFd, stat: &Stat, buffer: &mut Vec<u8>) -> io::Result<u64> {
        let size = stat.st_size as u64;
        if size > 0 && self.clone.load(Ordering::Relaxed) {
            match ioctl_ficlone(to, from) {
                Ok(()) => return Ok(size),
                Err(_) => self.clone.store(false, Ordering::Relaxed),
            }
        }
        let stored = stat.st_blocks as u64 * STAT_BLOCK_BYTES;
        match if stored < size { self.sparse(from, to, size, buffer)? } else { None } {
            Some(copied) => Ok(copied),
            None => self.data(from, to, size, buffer),
        }
    }

    /// A file of which not all is stored. None, and nothing is done, where the filesystem does not tell data from holes.
    fn sparse(&self, from: &OwnedFd, to: &OwnedFd, size: u64, buffer: &mut Vec<u8>) -> io::Result<Option<u64>> {
        let mut end = 0;
        while end < size {
            let start = match seek(from, SeekFrom::Data(end)) {
                Ok(start) if start < size => start,
                // Only a hole follows.
                Ok(_) | Err(Errno::NXIO) => break,
                Err(Errno::INVAL | Errno::OPNOTSUPP) if end == 0 => return Ok(None),
                Err(e) => return Err(e.into()),
            };
            end = seek(from, SeekFrom::Hole(start))?.min(size);
            for file in [from, to] {
                seek(file, SeekFrom::Start(start))?;
            }
            let copied = self.data(from, to, end - start, buffer)?;
            if start + copied < end {
                // It became shorter meanwhile.
                return Ok(Some(start + copied));
            }
        }
        ftruncate(to, size)?;
        Ok(Some(size))
    }

    /// The next `size` bytes: few by one read and one write, others inside the kernel, or by reading and writing where it
    /// cannot.
    fn data(&self, from: &OwnedFd, to: &OwnedFd, size: u64, buffer: &mut Vec<u8>) -> io::Result<u64> {
        let mut copied = 0;
        if size <= READ_WHOLE_BYTES as u64 {
            buffer.resize(READ_WHOLE_BYTES, 0);
            while copied < size {
                let read = match rustix::io::read(from, &mut buffer[..(size - copied) as usize]) {
                    Ok(0) => break,
                    Ok(read) => read,
                    Err(Errno::INTR) => continue,
                    Err(e) => return Err(e.into()),
                };
                let mut left = &buffer[..read];
                while !left.is_empty() {
                    match rustix::io::write(to, left) {
                        Ok(written) => left = &left[written..],
                        Err(Errno::INTR) => {}
                        Err(e) => return Err(e.into()),
                    }
                }
                copied += read as u64;
            }
            return Ok(copied);
        }
        while copied < size {
            match copy_file_range(from, None, to, None, (size - copied).min(1 << 30) as usize) {
                Ok(0) => return Ok(copied),
                Ok(n) => copied += n as u64,
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) if copied == 0 => {
                    let (from, to) = (from.try_clone()?, to.try_clone()?);
                    return io::copy(&mut File::from(from).take(size), &mut File::from(to));
                }
                Err(e) => return Err(e.into()),
            }
            if self.cancel.is_cancelled() {
                return Err(io::Error::other("cancelled"));
            }
        }
        Ok(copied)
    }

    fn attributes(&self, place: Place<'_>, path: &[u8]) -> Result<Xattrs, SnapshotError> {
        let mut found = xattrs(place).context("read attributes of", path)?;
        if self.options.xattrs == CopiedXattrs::User {
            found.retain(|name, _| name.starts_with(b"user."));
        }
        Ok(found)
    }

    fn owner(&self, stat: &Stat) -> (u32, u32) {
        self.options.owner.unwrap_or((stat.st_uid, stat.st_gid))
    }

    fn mode(&self, stat: &Stat) -> Mode {
        let (mode, directory) = (stat.st_mode & 0o7777, kind_of(stat) == FileType::Directory);
        Mode::from_raw_mode(self.options.mode.map_or(mode, |change| change(mode, directory)))
    }

    fn time(&self, stat: &Stat) -> Time {
        match self.options.mtime {
            Mtime::Keep => mtime_of(stat),
            Mtime::Clamp(epoch) => mtime_of(stat).clamp_to(Some(epoch)),
            Mtime::Set(time) => time,
        }
    }
}

pub fn open_source(directory: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = openat(directory, name, flags, Mode::empty())?;
    // A running container may have put a device in its place, which would be read as we, and not as it, may.
    match kind_of(&rustix::fs::fstat(&file)?) {
        FileType::RegularFile => Ok(file),
        _ => Err(Errno::STALE),
    }
}

/// Removes a file or link; a directory stays, and is an error.
fn make_room(parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), SnapshotError> {
    let Some(there) = stat_if_there(parent, name).context("stat", path)? else { return Ok(()) };
    if kind_of(&there) == FileType::Directory {
        let path = display(path);
        return Err(SnapshotError::WrongKind { path, found: "a directory", expected: "a file or nothing" });
    }
    remove_all(parent.as_fd(), name).context("replace", path)
}

/// One file, link or device, in place of a file or link that is there; what has several names once, and then links.
fn leaf(
    hands: &Hands<'_>,
    links: &mut Links,
    dest_root: BorrowedFd<'_>,
    (parent, name, path): (&OwnedFd, &[u8], &[u8]),
    (source, named): (Source, Option<Place<'_>>),
    stat: &Stat,
) -> Result<(), SnapshotError> {
    make_room(parent, name, path)?;
    hands.entries.fetch_add(1, Ordering::Relaxed);
    let identity = (stat.st_dev, stat.st_ino);
    if stat.st_nlink > 1 {
        if let Some((first, names)) = links.get_mut(&identity).filter(|(_, names)| *names < LINKS_MAX) {
            *names += 1;
            let (first_parent, first_name) = split(first);
            let linked = open_in_root(dest_root, first_parent, OFlags::PATH | OFlags::DIRECTORY)
                .and_then(|from| Ok(linkat(&from, first_name, parent, name, AtFlags::empty())?));
            return linked.context("make a hard link", path);
        }
        links.insert(identity, (path.to_vec(), 1));
    }
    let attributes = match (&source, named) {
        (Source::Open(file), _) => hands.attributes(Place::Open(file.as_fd()), path)?,
        (_, Some(named)) => hands.attributes(named, path)?,
        _ => Default::default(),
    };
    match source {
        Source::Open(from) => return hands.file(&from, (parent, name, path), &attributes, stat, &mut Vec::new()),
        Source::Link(target) => symlinkat(&target[..], parent, name).context("create link", path)?,
        Source::Node => {
            let mode = Mode::from_raw_mode(0o600);
            mknodat(parent, name, kind_of(stat), mode, stat.st_rdev).context("create", path)?;
        }
    }
    let (uid, gid) = hands.owner(stat);
    let (uid, gid, nofollow) = (Uid::from_raw(uid), Gid::from_raw(gid), AtFlags::SYMLINK_NOFOLLOW);
    chownat(parent, name, Some(uid), Some(gid), nofollow).context("chown", path)?;
    set_xattrs(&Place::Named(parent.as_fd(), name), &attributes).context("set attributes of", path)?;
    if kind_of(stat) != FileType::Symlink {
        rustix::fs::chmodat(parent, name, hands.mode(stat), AtFlags::empty()).context("chmod", path)?;
    }
    utimensat(parent, name, &timestamps(hands.time(stat)), nofollow).context("set the time of", path)
}
