//! Tar entries become files. Parents are resolved inside the root by the kernel; the last name is only ever created,
//! opened or removed against its parent's fd, and never followed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ctk_layer::{Change, Entry, EntryKind, LayerError, TarReader, Time, change_of};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, makedev, mknodat, openat, utimensat};
use rustix::io::Errno;

use crate::SnapshotError;
use crate::dir::{
    DIRECTORY, NewDirectory, Place, is_whiteout, join, kind_of, make_directories, open_in_root, own, remove_all,
    set_opaque, set_xattrs, split, stat_if_there, timestamps,
};
use crate::error::{Context, display};

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

/// Writes entries below `base` in `root`.
pub struct Extractor<'a> {
    root: BorrowedFd<'a>,
    base: Vec<u8>,
    style: Style,
    overrides: Overrides,
    /// The last parent, since neighbours in a tar share it.
    parent: Option<(Vec<u8>, OwnedFd)>,
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

impl<'a> Extractor<'a> {
    pub fn new(root: BorrowedFd<'a>, base: &[u8], style: Style, overrides: Overrides) -> Extractor<'a> {
        Extractor {
            root,
            base: base.to_vec(),
            style,
            overrides,
            parent: None,
            times: Vec::new(),
            buffer: vec![0; 256 << 10],
            bytes: 0,
            entries: 0,
            root_entry: None,
        }
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
                    let directory = self.make(&path).context("create directory", &path)?;
                    set_opaque(&directory).context("mark as opaque", &path)?;
                }
                Change::Nothing => {}
            }
            self.entries += 1;
            progress(self.bytes);
        }
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

    fn take_parent(&mut self, path: &[u8]) -> Result<OwnedFd, SnapshotError> {
        match self.parent.take() {
            Some((cached, fd)) if cached == path => Ok(fd),
            _ => self.make(path).context("create directory", path),
        }
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
        let parent = self.take_parent(parent_path)?;
        let there = stat_if_there(&parent, name).context("stat", &path)?;
        let hid = self.style == Style::Layer && there.as_ref().is_some_and(is_whiteout);
        if entry.kind == EntryKind::Directory {
            self.directory(&parent, name, &path, there, hid, entry)?;
        } else {
            if there.is_some() {
                remove_all(parent.as_fd(), name).context("replace", &path)?;
            }
            self.leaf(what, &parent, name, &path, entry, data, stopped)?;
        }
        self.parent = Some((parent_path.to_vec(), parent));
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
            mknodat(parent, name, kind, Mode::from_raw_mode(0o600), makedev(major, minor)).context("create", path)
        };
        match &entry.kind {
            EntryKind::File { .. } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(parent, name, flags, Mode::from_raw_mode(0o600)).context("create", path)?;
                let mut file = File::from(file);
                self.fill(what, &mut file, path, data, stopped)?;
                own(&file, (entry.uid, entry.gid)).context("chown", path)?;
                set_xattrs(&Place::Open(file.as_fd()), &entry.xattrs).context("set attributes of", path)?;
                rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode)).context("chmod", path)?;
                return rustix::fs::futimens(&file, &timestamps(entry.mtime)).context("set the time of", path);
            }
            EntryKind::HardLink { target } => {
                let target = join(&self.base, target);
                let (target_parent, target_name) = split(&target);
                let from = open_in_root(self.root, target_parent, OFlags::PATH | OFlags::DIRECTORY);
                let linked =
                    from.and_then(|from| Ok(rustix::fs::linkat(&from, target_name, parent, name, AtFlags::empty())?));
                return linked.context("make a hard link", path);
            }
            EntryKind::Symlink { target } => {
                rustix::fs::symlinkat(&target[..], parent, name).context("create link", path)?;
            }
            EntryKind::CharDevice { major, minor } => device(FileType::CharacterDevice, *major, *minor)?,
            EntryKind::BlockDevice { major, minor } => device(FileType::BlockDevice, *major, *minor)?,
            EntryKind::Fifo => {
                mknodat(parent, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0).context("create", path)?;
            }
            EntryKind::Directory => unreachable!("directories are made by `directory`"),
        }
        let owner = (rustix::fs::Uid::from_raw(entry.uid), rustix::fs::Gid::from_raw(entry.gid));
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(parent, name, Some(owner.0), Some(owner.1), nofollow).context("chown", path)?;
        let place = Place::Named(parent.as_fd(), name);
        set_xattrs(&place, &entry.xattrs).context("set attributes of", path)?;
        if !matches!(entry.kind, EntryKind::Symlink { .. }) {
            // Just made by us in a directory that nobody else writes to; a device is not a link.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .context("chmod", path)?;
        }
        utimensat(parent, name, &timestamps(entry.mtime), nofollow).context("set the time of", path)
    }

    fn fill(
        &mut self,
        what: &str,
        file: &mut File,
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
            file.write_all(&self.buffer[..n]).context("write", path)?;
            self.bytes += n as u64;
            if stopped() {
                return Err(SnapshotError::Cancelled);
            }
        }
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), SnapshotError> {
        let (parent_path, name) = split(path);
        let parent = self.take_parent(parent_path)?;
        match mknodat(&parent, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)) {
            Ok(()) => {}
            // Whiteouts speak of lower layers only: what this layer put there stays, and hides a lower directory.
            Err(Errno::EXIST) => {
                if let Ok(directory) = openat(&parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
                    set_opaque(&directory).context("mark as opaque", path)?;
                }
            }
            Err(e) => return Err(e).context("create a whiteout", path),
        }
        self.parent = Some((parent_path.to_vec(), parent));
        Ok(())
    }
}

/// Opens a directory by its host path, for trees of the store.
pub fn open_directory(path: &std::path::Path) -> Result<OwnedFd, SnapshotError> {
    use std::os::unix::ffi::OsStrExt;
    openat(CWD, path, DIRECTORY, Mode::empty()).context("open", path.as_os_str().as_bytes())
}
