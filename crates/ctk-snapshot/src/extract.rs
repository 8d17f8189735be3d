//! Tar entries become files. Parents are resolved inside the root by the kernel; the last name is only ever created,
//! opened or removed against its parent's fd, and never followed.
//!
//! Files of a layer may be written by other threads ([`Writers`]). The outcome is that of writing one entry after the
//! other, whatever the archive holds: only a path that no entry named before, below directories that are no links,
//! is left to them; everything else waits until they are done. Hard links are made at the next such barrier.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ctk_layer::{Change, Entry, EntryKind, LayerError, TarReader, Time, change_of};
use ctk_plan::Cancel;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, linkat, makedev, mknodat, openat, openat2, utimensat,
};
use rustix::io::Errno;

use crate::SnapshotError;
use crate::copy::{CopiedXattrs, CopyOptions, Mtime, copy_into};
use crate::dir::{
    DIRECTORY, NewDirectory, Place, is_whiteout, join, kind_of, make_directories, open_in_root, own, remove_all,
    set_opaque, set_xattrs, split, stat_if_there, timestamps,
};
use crate::error::{Context, display};
use crate::limits::{ENTRIES_MAX, LINKS_MAX};
use crate::writers::{Job, NewFile, Writers, piece_bytes, pieces};

/// What a tar stream is taken for.
#[derive(Clone, Copy, PartialEq)]
pub enum Style {
    /// A layer: whiteouts become overlay's.
    Layer,
    /// An archive: every name is a file.
    Archive,
}

/// Overrides for what the archive says.
#[derive(Clone, Copy, Default)]
pub struct Overrides {
    pub owner: Option<(u32, u32)>,
    pub mtime: Option<Time>,
    /// Times that are the first become the second.
    pub renewed: Option<(Time, Time)>,
}

/// Device and inode of a file.
type Identity = (u64, u64);

/// Writes entries below `base` in `root`.
pub struct Extractor<'a> {
    root: BorrowedFd<'a>,
    base: Vec<u8>,
    style: Style,
    overrides: Overrides,
    writers: Option<Writers>,
    names: Names,
    /// The last parent, since neighbours in a tar share it.
    parent: Option<(Vec<u8>, Parent)>,
    /// Hard links to files that may not be complete.
    links: Vec<Link>,
    /// Of a file with as many names as one may have, the copy that takes further ones, and what that copy is.
    copies: HashMap<Identity, (Vec<u8>, Identity)>,
    /// Times of directories, set when nothing is written into them any more.
    times: Vec<(Vec<u8>, Time)>,
    buffer: Vec<u8>,
    /// Bytes of files written.
    pub bytes: u64,
    /// Entries written.
    pub entries: u64,
    /// The entry for the root itself, if there was one.
    pub root_entry: Option<Entry>,
}

/// A stream that ends with an error once somebody says stop: what is only skipped may be long, too.
pub struct Heard<'a, R> {
    pub stream: R,
    pub stopped: &'a dyn Fn() -> bool,
}

impl<R: Read> Read for Heard<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.stopped)() {
            return Err(io::Error::other("cancelled"));
        }
        self.stream.read(buffer)
    }
}

#[derive(Clone)]
struct Parent {
    fd: Arc<OwnedFd>,
    /// Whether its path is a known directory's, without links in it.
    plain: bool,
}

struct Link {
    parent: Arc<OwnedFd>,
    name: Vec<u8>,
    path: Vec<u8>,
    target: Vec<u8>,
    entry: Entry,
}

/// Hashes of paths: two paths that share one cost a barrier too many.
#[derive(Default)]
struct Names {
    hasher: RandomState,
    seen: HashSet<u64>,
    /// Those that are directories, reached without links.
    directories: HashSet<u64>,
}

impl Names {
    /// Whether nobody named this path before.
    fn is_new(&mut self, path: &[u8]) -> bool {
        self.seen.insert(self.hasher.hash_one(path))
    }

    fn is_known(&self, path: &[u8]) -> bool {
        self.seen.contains(&self.hasher.hash_one(path))
    }

    fn is_directory(&self, path: &[u8]) -> bool {
        path.is_empty() || self.directories.contains(&self.hasher.hash_one(path))
    }

    fn add_directory(&mut self, path: &[u8]) {
        let mut path = path;
        while !path.is_empty() {
            let hash = self.hasher.hash_one(path);
            self.seen.insert(hash);
            if !self.directories.insert(hash) {
                break;
            }
            path = split(path).0;
        }
    }
}

impl<'a> Extractor<'a> {
    pub fn new(root: BorrowedFd<'a>, base: &[u8], style: Style, overrides: Overrides) -> Extractor<'a> {
        Extractor {
            root,
            base: base.to_vec(),
            style,
            overrides,
            writers: None,
            names: Names::default(),
            parent: None,
            links: Vec::new(),
            copies: HashMap::new(),
            times: Vec::new(),
            buffer: vec![0; piece_bytes(u64::MAX)],
            bytes: 0,
            entries: 0,
            root_entry: None,
        }
    }

    /// Lets other threads write the files. For roots that begin empty and that nobody else writes to.
    pub fn with_writers(self, writers: Writers) -> Extractor<'a> {
        Extractor { writers: Some(writers), ..self }
    }

    /// Writes everything in `tar`. `what` names the stream in errors; `progress` hears the bytes written so far;
    /// `stopped` is asked between entries and pieces of files.
    pub fn run<R: Read>(
        &mut self,
        what: &str,
        tar: &mut TarReader<R>,
        progress: &mut dyn FnMut(u64),
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), SnapshotError> {
        let unpack = |source| SnapshotError::Unpack { layer: what.to_owned(), source };
        while let Some(mut entry) = tar.next_entry().map_err(unpack)? {
            if stopped() {
                return Err(SnapshotError::Cancelled);
            }
            if let Some((uid, gid)) = self.overrides.owner {
                (entry.uid, entry.gid) = (uid, gid);
            }
            if let Some(mtime) = self.overrides.mtime {
                entry.mtime = mtime;
            }
            if let Some((old, new)) = self.overrides.renewed
                && entry.mtime == old
            {
                entry.mtime = new;
            }
            let change = if self.style == Style::Layer { change_of(&entry.path) } else { Change::Put };
            match change {
                Change::Put => self.put(what, &entry, tar, stopped)?,
                Change::Whiteout(path) => self.whiteout(&join(&self.base, &path))?,
                Change::Opaque(path) => {
                    let path = join(&self.base, &path);
                    let directory = self.reach(&path)?;
                    set_opaque(&directory.fd).context("mark as opaque", &path)?;
                }
                Change::Nothing => {}
            }
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Err(SnapshotError::TooManyEntries { layer: what.to_owned(), limit: ENTRIES_MAX });
            }
            progress(self.bytes);
        }
        self.barrier()?;
        for (path, time) in std::mem::take(&mut self.times).into_iter().rev() {
            // It may have been replaced by a later entry; then its time does not matter.
            if let Ok(directory) = open_in_root(self.root, &path, DIRECTORY | OFlags::NOFOLLOW) {
                rustix::fs::futimens(&directory, &timestamps(time)).context("set the time of", &path)?;
            }
        }
        Ok(())
    }

    fn make(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let owner = self.overrides.owner.unwrap_or((0, 0));
        make_directories(self.root, path, NewDirectory { owner, mtime: self.overrides.mtime, ..NewDirectory::PLAIN })
    }

    fn take_parent(&mut self, path: &[u8]) -> Result<Parent, SnapshotError> {
        match self.parent.take() {
            Some((cached, parent)) if cached == path => Ok(parent),
            _ => self.reach(path),
        }
    }

    /// Opens the directory `path`, made if it is missing.
    fn reach(&mut self, path: &[u8]) -> Result<Parent, SnapshotError> {
        let known = self.names.is_directory(path);
        if !known {
            self.barrier()?;
        }
        let fd = self.make(path).context("create directory", path)?;
        let plain = known || self.writers.is_some() && is_plain(self.root, path);
        if plain {
            self.names.add_directory(path);
        }
        Ok(Parent { fd: Arc::new(fd), plain })
    }

    /// Waits until everything so far is there.
    fn barrier(&mut self) -> Result<(), SnapshotError> {
        let Some(writers) = &self.writers else { return Ok(()) };
        writers.wait()?;
        for link in std::mem::take(&mut self.links) {
            self.link(&link.parent, &link.name, &link.path, &link.target, &link.entry)?;
        }
        Ok(())
    }

    /// A further name of a file. What its own header says of the file counts, as it does for others who unpack.
    fn link(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        target: &[u8],
        entry: &Entry,
    ) -> Result<(), SnapshotError> {
        let (target_parent, target_name) = split(target);
        let from = open_in_root(self.root, target_parent, OFlags::PATH | OFlags::DIRECTORY);
        let both = [path, b"` to `/", target].concat();
        let from = from.context("make a hard link", &both)?;
        if self.style == Style::Layer
            && stat_if_there(&from, target_name).is_ok_and(|s| s.as_ref().is_some_and(is_whiteout))
        {
            let reason = "it is a hard link to what this layer removes";
            return Err(SnapshotError::Refused { path: display(path), reason });
        }
        if let Some(target) = self.with_room(target, path)? {
            let (target_parent, target_name) = split(&target);
            let linked = open_in_root(self.root, target_parent, OFlags::PATH | OFlags::DIRECTORY)
                .and_then(|from| Ok(linkat(&from, target_name, parent, name, AtFlags::empty())?));
            linked.context("make a hard link", &both)?;
        }
        let Some(there) = stat_if_there(parent, name).context("stat", path)? else { return Ok(()) };
        set_attributes(parent, name, path, entry, Some(&there))
    }

    /// The file to link to for one more name of `target`: it, or a copy of it once it has as many names as one may have.
    /// None if `path` just became the next copy.
    fn with_room(&mut self, target: &[u8], path: &[u8]) -> Result<Option<Vec<u8>>, SnapshotError> {
        let look = |path: &[u8]| -> Result<Option<Stat>, SnapshotError> {
            let (parent, name) = split(path);
            let parent = open_in_root(self.root, parent, OFlags::PATH | OFlags::DIRECTORY).context("stat", path)?;
            stat_if_there(&parent, name).context("stat", path)
        };
        let has_room = |stat: &Stat| kind_of(stat) != FileType::RegularFile || stat.st_nlink < LINKS_MAX.into();
        let identity = |stat: &Stat| (stat.st_dev, stat.st_ino);
        let Some(first) = look(target)?.filter(|stat| !has_room(stat)) else { return Ok(Some(target.to_vec())) };
        if let Some((copy, same)) = self.copies.get(&identity(&first))
            && look(copy)?.is_some_and(|stat| identity(&stat) == *same && has_room(&stat))
        {
            return Ok(Some(copy.clone()));
        }
        let options = CopyOptions {
            owner: None,
            mode: None,
            parents_mode: 0o755,
            mtime: Mtime::Keep,
            follow: false,
            xattrs: CopiedXattrs::All,
            filter: None,
        };
        copy_into(self.root, path, self.root, target, &options, &Cancel::new())?;
        if let Some(made) = look(path)? {
            self.copies.insert(identity(&first), (path.to_vec(), identity(&made)));
        }
        Ok(None)
    }

    fn put(
        &mut self,
        what: &str,
        entry: &Entry,
        data: &mut impl Read,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), SnapshotError> {
        let path = join(&self.base, &entry.path);
        if entry.path.is_empty() {
            if entry.kind == EntryKind::Directory {
                self.root_entry = Some(entry.clone());
                if self.style == Style::Layer {
                    let root = self.make(&path).context("open", &path)?;
                    self.finish_directory(&root, &path, entry)?;
                }
            }
            return Ok(());
        }
        let (parent_path, name) = split(&path);
        let new = self.names.is_new(&path);
        if !new {
            self.barrier()?;
        }
        let parent = self.take_parent(parent_path)?;
        // Nothing is there, and nothing that is still being written can lead there.
        let apart = new && parent.plain && self.writers.is_some();
        match &entry.kind {
            EntryKind::File { size } if apart => {
                self.hand_over(what, &parent, name, &path, entry, *size, data, stopped)?
            }
            EntryKind::HardLink { target } if apart && self.names.is_known(&join(&self.base, target)) => {
                let (parent, target) = (parent.fd.clone(), join(&self.base, target));
                let (name, path, entry) = (name.to_vec(), path.clone(), entry.clone());
                self.links.push(Link { parent, name, path, target, entry });
            }
            kind => {
                if matches!(kind, EntryKind::HardLink { .. }) {
                    self.barrier()?;
                }
                let there = stat_if_there(&parent.fd, name).context("stat", &path)?;
                let was_directory = there.as_ref().map(kind_of) == Some(FileType::Directory);
                if *kind == EntryKind::Directory {
                    let hid = self.style == Style::Layer && there.as_ref().is_some_and(is_whiteout);
                    self.directory(&parent.fd, name, &path, there, hid, entry)?;
                    if parent.plain {
                        self.names.add_directory(&path);
                    }
                } else {
                    if there.is_some() {
                        remove_all(parent.fd.as_fd(), name).context("replace", &path)?;
                    }
                    if was_directory {
                        // What was known of the directories below is void.
                        self.names.directories.clear();
                    }
                    self.leaf(what, &parent.fd, name, &path, entry, data, stopped)?;
                }
            }
        }
        self.parent = Some((parent_path.to_vec(), parent));
        Ok(())
    }

    /// Leaves a file to the writers.
    #[allow(clippy::too_many_arguments)]
    fn hand_over(
        &mut self,
        what: &str,
        parent: &Parent,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        size: u64,
        data: &mut impl Read,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), SnapshotError> {
        let mut take = |left: u64| {
            let mut piece = vec![0; piece_bytes(left)];
            let read = data.read_exact(&mut piece).map_err(LayerError::Read);
            read.map_err(|source| SnapshotError::Unpack { layer: what.to_owned(), source }).map(|()| piece)
        };
        let writers = self.writers.as_ref().expect("only called with writers");
        let first = take(size)?;
        let mut left = size - first.len() as u64;
        let (sender, rest) = if left > 0 { Some(pieces()).unzip() } else { (None, None) };
        let (name, path) = (name.to_vec(), path.to_vec());
        writers.push(Job { parent: parent.fd.clone(), name, path, entry: entry.clone(), first, rest })?;
        while let Some(sender) = &sender
            && left > 0
        {
            if stopped() {
                return Err(SnapshotError::Cancelled);
            }
            let piece = take(left)?;
            left -= piece.len() as u64;
            if sender.send(piece).is_err() {
                // The writer failed; its reason comes out of `wait`.
                return writers.wait();
            }
        }
        self.bytes += size;
        Ok(())
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        there: Option<Stat>,
        hid: bool,
        entry: &Entry,
    ) -> Result<(), SnapshotError> {
        let kind = there.as_ref().map(kind_of);
        if kind != Some(FileType::Directory) {
            if kind.is_some() {
                remove_all(parent.as_fd(), name).context("replace", path)?;
            }
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)).context("create directory", path)?;
        }
        let made = openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).context("open", path)?;
        if hid {
            set_opaque(&made).context("mark as opaque", path)?;
        }
        self.finish_directory(&made, path, entry)
    }

    fn finish_directory(&mut self, made: &OwnedFd, path: &[u8], entry: &Entry) -> Result<(), SnapshotError> {
        own(made, (entry.uid, entry.gid)).context("chown", path)?;
        set_xattrs(&Place::Open(made.as_fd()), &entry.xattrs).context("set attributes of", path)?;
        rustix::fs::fchmod(made, Mode::from_raw_mode(entry.mode)).context("chmod", path)?;
        self.times.push((path.to_vec(), entry.mtime));
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn leaf(
        &mut self,
        what: &str,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        data: &mut impl Read,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), SnapshotError> {
        let device = |kind, major, minor| {
            if (kind, major, minor) == (FileType::CharacterDevice, 0, 0) {
                let reason = "a character device 0:0 is overlay's whiteout, not a device";
                return Err(SnapshotError::Refused { path: display(path), reason });
            }
            match mknodat(parent, name, kind, Mode::from_raw_mode(0o600), makedev(major, minor)) {
                // In a user namespace nobody makes devices, and nobody could open one: the tree does without.
                Err(Errno::PERM) if ctk_runtime::in_user_namespace() => Ok(false),
                made => made.map(|()| true).context("create", path),
            }
        };
        match &entry.kind {
            EntryKind::File { .. } => {
                let mut file = NewFile::create(parent, name, path)?;
                self.fill(what, &mut file, path, data, stopped)?;
                return file.finish(entry, path);
            }
            EntryKind::HardLink { target } => {
                return self.link(parent, name, path, &join(&self.base, target), entry);
            }
            EntryKind::Symlink { target } => {
                rustix::fs::symlinkat(&target[..], parent, name).context("create link", path)?;
            }
            EntryKind::CharDevice { major, minor } => {
                if !device(FileType::CharacterDevice, *major, *minor)? {
                    return Ok(());
                }
            }
            EntryKind::BlockDevice { major, minor } => {
                if !device(FileType::BlockDevice, *major, *minor)? {
                    return Ok(());
                }
            }
            EntryKind::Fifo => {
                mknodat(parent, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0).context("create", path)?;
            }
            EntryKind::Directory => unreachable!("directories are made by `directory`"),
        }
        set_attributes(parent, name, path, entry, None)
    }

    fn fill(
        &mut self,
        what: &str,
        file: &mut NewFile,
        path: &[u8],
        data: &mut impl Read,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), SnapshotError> {
        loop {
            let n = match data.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    let source = LayerError::Read(e);
                    return Err(SnapshotError::Unpack { layer: what.to_owned(), source });
                }
            };
            file.write(&self.buffer[..n], path)?;
            self.bytes += n as u64;
            if stopped() {
                return Err(SnapshotError::Cancelled);
            }
        }
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), SnapshotError> {
        let (parent_path, name) = split(path);
        if !self.names.is_new(path) {
            self.barrier()?;
        }
        let parent = self.take_parent(parent_path)?;
        match mknodat(&parent.fd, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)) {
            Ok(()) => {}
            // Whiteouts speak of lower layers only: what this layer put there stays, and hides a lower directory.
            Err(Errno::EXIST) => {
                if let Ok(directory) = openat(&parent.fd, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
                    set_opaque(&directory).context("mark as opaque", path)?;
                }
            }
            Err(e) => return Err(e).context("create a whiteout", path),
        }
        self.parent = Some((parent_path.to_vec(), parent));
        Ok(())
    }
}

/// What `entry` says, onto what is at `name` and was just made by us: nobody else writes to its directory. `there` is
/// what it is already, if it is another name of a file: a needless chown would take its capabilities.
fn set_attributes(
    parent: &OwnedFd,
    name: &[u8],
    path: &[u8],
    entry: &Entry,
    there: Option<&Stat>,
) -> Result<(), SnapshotError> {
    let owner = (rustix::fs::Uid::from_raw(entry.uid), rustix::fs::Gid::from_raw(entry.gid));
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    let is_symlink = match there {
        Some(there) => kind_of(there) == FileType::Symlink,
        None => matches!(entry.kind, EntryKind::Symlink { .. }),
    };
    if there.is_none_or(|there| (there.st_uid, there.st_gid) != (entry.uid, entry.gid)) {
        rustix::fs::chownat(parent, name, Some(owner.0), Some(owner.1), nofollow).context("chown", path)?;
    }
    let place = Place::Named(parent.as_fd(), name);
    set_xattrs(&place, &entry.xattrs).context("set attributes of", path)?;
    if !is_symlink {
        rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).context("chmod", path)?;
    }
    utimensat(parent, name, &timestamps(entry.mtime), nofollow).context("set the time of", path)
}

/// Whether `path` leads to a directory without any link.
fn is_plain(root: BorrowedFd<'_>, path: &[u8]) -> bool {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve).is_ok()
}

/// Opens a directory by its host path, for trees of the store.
pub fn open_directory(path: &std::path::Path) -> Result<OwnedFd, SnapshotError> {
    use std::os::unix::ffi::OsStrExt;
    openat(CWD, path, DIRECTORY, Mode::empty()).context("open", path.as_os_str().as_bytes())
}
