//! Changes of a tree by file operations: what COPY, ADD, mkdir, mkfile and rm are made of.
//!
//! Paths in a tree are resolved inside its root. A path that does not begin with `/` counts from the root too.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ctk_layer::{LayerError, TarReader, Time, decode};
use ctk_plan::Cancel;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, copy_file_range, ioctl_ficlone, linkat, mkdirat, mknodat,
    openat, readlinkat, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::SnapshotError;
use crate::dir::{
    DIRECTORY, NewDirectory, Place, Xattrs, join, kind_of, make_directories, mtime_of, open_in_root, own, remove_all,
    resolve_leaf, set_xattrs, sorted_names, split, stat_if_there, timestamps, xattrs,
};
use crate::error::{Context, display};
use crate::extract::{Extractor, Overrides, Style};
use crate::limits::DEPTH_MAX;
use crate::tree::kind_word;

/// What becomes of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mtime {
    /// As in the source.
    Keep,
    /// As in the source, but not after this second.
    Clamp(i64),
    /// This one.
    Set(Time),
}

/// What a filter says of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Copied.
    Take,
    /// Left out, a directory with all that is in it.
    Skip,
    /// A directory that is left out itself, but something in it may be taken: then it is made after all.
    Descend,
}

/// Decides about each path below a copied directory, relative to it; the `bool` says whether it is a directory.
pub type Filter<'a> = &'a (dyn Fn(&[u8], bool) -> Verdict + Sync);

/// New permission bits from a source's; the `bool` says whether it is a directory.
pub type ModeOf<'a> = &'a (dyn Fn(u32, bool) -> u32 + Sync);

/// Which extended attributes a copy keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopiedXattrs {
    /// All that belong to an image.
    All,
    /// Those of the `user.` namespace.
    User,
}

/// How to copy. There is no default: each caller knows all of it.
#[derive(Clone, Copy)]
pub struct CopyOptions<'a> {
    /// Owner of everything; `None` keeps the source's.
    pub owner: Option<(u32, u32)>,
    /// Permission bits of files and directories from those of the source; `None` keeps them.
    pub mode: Option<ModeOf<'a>>,
    /// Permission bits of directories that are made on the way to the destination.
    pub parents_mode: u32,
    /// Times.
    pub mtime: Mtime,
    /// Whether a source that is itself a link stands for what it leads to. Links below it are always kept.
    pub follow: bool,
    /// Which extended attributes come along.
    pub xattrs: CopiedXattrs,
    /// What is left out.
    pub filter: Option<Filter<'a>>,
}

/// What a copy did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyStats {
    /// Files, links, devices and directories made.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// Copies `source` of the tree `source_root` to `dest` of `dest_root`. A file becomes the file `dest`, replacing one
/// that is there; the contents of a directory are merged into the directory `dest`. Missing parents are made, with
/// `options.owner` and `options.parents_mode`. `dest` itself keeps its attributes if it is there, directories below it
/// take those of the source. Files and links are replaced; a directory takes no place but a directory's, nor anything
/// else a directory's: that is [`SnapshotError::WrongKind`].
pub fn copy_into(
    dest_root: BorrowedFd<'_>,
    dest: &[u8],
    source_root: BorrowedFd<'_>,
    source: &[u8],
    options: &CopyOptions<'_>,
    cancel: &Cancel,
) -> Result<CopyStats, SnapshotError> {
    let flags = if options.follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    let found = open_in_root(source_root, source, flags).context("copy", source)?;
    let stat = rustix::fs::fstat(&found).context("stat", source)?;
    let new = NewDirectory {
        owner: options.owner.unwrap_or((0, 0)),
        mtime: set_time(options.mtime),
        mode: options.parents_mode,
    };
    let mut copier = Copier {
        dest_root,
        options,
        cancel,
        links: HashMap::new(),
        stats: CopyStats::default(),
        clone: true,
        chain: Vec::new(),
    };
    if kind_of(&stat) == FileType::Directory {
        let from = openat(&found, ".", DIRECTORY, Mode::empty()).context("open", source)?;
        let to = make_directories(dest_root, dest, new).context("create directory", dest)?;
        let path = dest[..dest.iter().rposition(|b| *b != b'/').map_or(0, |last| last + 1)].to_vec();
        copier.chain.push(Level { path, made: Some(to), pending: None });
        copier.contents(&from, b"", 0)?;
        return Ok(copier.stats);
    }
    let (parent, name) = resolve_leaf(dest_root, dest, Some(new)).context("create", dest)?;
    let there = stat_if_there(&parent, &name).context("stat", dest)?;
    if there.is_some_and(|stat| kind_of(&stat) == FileType::Directory) {
        let path = display(dest);
        return Err(SnapshotError::WrongKind { path, found: "a directory", expected: "a file or nothing" });
    }
    let from = match kind_of(&stat) {
        // What the kernel resolved is opened again through its own fd; a link cannot come between.
        FileType::RegularFile => {
            Source::Open(open_in_root(source_root, source, OFlags::RDONLY).context("open", source)?)
        }
        FileType::Symlink => {
            Source::Link(readlinkat(&found, "", Vec::new()).context("read link", source)?.into_bytes())
        }
        _ => Source::Node,
    };
    copier.leaf(&parent, &name, dest, from, None, &stat)?;
    Ok(copier.stats)
}

fn set_time(mtime: Mtime) -> Option<Time> {
    match mtime {
        Mtime::Set(time) => Some(time),
        Mtime::Clamp(epoch) => Some(Time::seconds(epoch)),
        Mtime::Keep => None,
    }
}

enum Source {
    Open(OwnedFd),
    Link(Vec<u8>),
    Node,
}

/// One directory of the way down; made when something is put into it.
struct Level {
    path: Vec<u8>,
    made: Option<OwnedFd>,
    /// What it gets once complete, if it is new.
    pending: Option<(Stat, Xattrs)>,
}

struct Copier<'a> {
    dest_root: BorrowedFd<'a>,
    options: &'a CopyOptions<'a>,
    cancel: &'a Cancel,
    links: HashMap<(u64, u64), Vec<u8>>,
    stats: CopyStats,
    /// Whether the filesystem can still be asked for reflinks.
    clone: bool,
    chain: Vec<Level>,
}

impl Copier<'_> {
    fn contents(&mut self, from: &OwnedFd, relative: &[u8], depth: usize) -> Result<(), SnapshotError> {
        if depth > DEPTH_MAX {
            let reason = "directories are nested deeper than 2048 levels";
            return Err(SnapshotError::Refused { path: display(relative), reason });
        }
        for name in sorted_names(from).context("list", relative)? {
            if self.cancel.is_cancelled() {
                return Err(SnapshotError::Cancelled);
            }
            let inside = join(relative, &name);
            let Some(stat) = stat_if_there(from, &name).context("stat", &inside)? else { continue };
            let directory = kind_of(&stat) == FileType::Directory;
            let verdict = self.options.filter.map_or(Verdict::Take, |filter| filter(&inside, directory));
            match (directory, verdict) {
                (_, Verdict::Skip) | (false, Verdict::Descend) => {}
                (true, verdict) => {
                    let child = openat(from, &name[..], DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
                    let child = child.context("open", &inside)?;
                    let attributes = self.attributes(Place::Open(child.as_fd()), &inside)?;
                    let path = join(&self.chain.last().expect("begun with one").path, &name);
                    self.chain.push(Level { path, made: None, pending: Some((stat, attributes)) });
                    if verdict == Verdict::Take {
                        self.reach()?;
                    }
                    self.contents(&child, &inside, depth + 1)?;
                    self.leave()?;
                }
                (false, Verdict::Take) => {
                    let source = match kind_of(&stat) {
                        FileType::RegularFile => {
                            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                            Source::Open(openat(from, &name[..], flags, Mode::empty()).context("open", &inside)?)
                        }
                        FileType::Symlink => {
                            let target = readlinkat(from, &name[..], Vec::new()).context("read link", &inside)?;
                            Source::Link(target.into_bytes())
                        }
                        FileType::Socket => continue,
                        _ => Source::Node,
                    };
                    self.reach()?;
                    let level = self.chain.last_mut().expect("begun with one");
                    let parent = level.made.take().expect("reached");
                    let path = join(&level.path, &name);
                    let named = Some(Place::Named(from.as_fd(), &name));
                    let done = self.leaf(&parent, &name, &path, source, named, &stat);
                    self.chain.last_mut().expect("begun with one").made = Some(parent);
                    done?;
                }
            }
        }
        Ok(())
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
            let made = match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
                Ok(()) => {
                    self.stats.entries += 1;
                    openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).context("open", &path)?
                }
                Err(Errno::EXIST) => match openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
                    Ok(there) => there,
                    Err(_) => {
                        let there = stat_if_there(parent, name).context("stat", &path)?;
                        let found = there.map_or("gone", |stat| kind_word(kind_of(&stat)));
                        let path = display(&path);
                        return Err(SnapshotError::WrongKind { path, found, expected: "a directory or nothing" });
                    }
                },
                Err(e) => return Err(e).context("create directory", &path),
            };
            self.chain[at].made = Some(made);
        }
        Ok(())
    }

    /// Ends the deepest directory: its attributes are set now, when nothing changes its time any more.
    fn leave(&mut self) -> Result<(), SnapshotError> {
        let level = self.chain.pop().expect("entered before");
        let (Some(made), Some((stat, attributes))) = (level.made, level.pending) else { return Ok(()) };
        own(&made, self.owner(&stat)).context("chown", &level.path)?;
        set_xattrs(&Place::Open(made.as_fd()), &attributes).context("set attributes of", &level.path)?;
        rustix::fs::fchmod(&made, self.mode(&stat)).context("chmod", &level.path)?;
        rustix::fs::futimens(&made, &timestamps(self.time(&stat))).context("set the time of", &level.path)
    }

    fn leaf(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        source: Source,
        named: Option<Place<'_>>,
        stat: &Stat,
    ) -> Result<(), SnapshotError> {
        let there = stat_if_there(parent, name).context("stat", path)?;
        if let Some(there) = there {
            if kind_of(&there) == FileType::Directory {
                let path = display(path);
                return Err(SnapshotError::WrongKind { path, found: "a directory", expected: "a file or nothing" });
            }
            remove_all(parent.as_fd(), name).context("replace", path)?;
        }
        self.stats.entries += 1;
        let identity = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&identity) {
                let (first_parent, first_name) = split(first);
                let linked = open_in_root(self.dest_root, first_parent, OFlags::PATH | OFlags::DIRECTORY)
                    .and_then(|from| Ok(linkat(&from, first_name, parent, name, AtFlags::empty())?));
                return linked.context("make a hard link", path);
            }
            self.links.insert(identity, path.to_vec());
        }
        let attributes = match (&source, named) {
            (Source::Open(file), _) => self.attributes(Place::Open(file.as_fd()), path)?,
            (_, Some(named)) => self.attributes(named, path)?,
            _ => Default::default(),
        };
        match source {
            Source::Open(from) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let to = openat(parent, name, flags, Mode::from_raw_mode(0o600)).context("create", path)?;
                let copied = self.file(&from, &to, stat.st_size as u64);
                if self.cancel.is_cancelled() {
                    return Err(SnapshotError::Cancelled);
                }
                self.stats.bytes += copied.context("copy to", path)?;
                own(&to, self.owner(stat)).context("chown", path)?;
                set_xattrs(&Place::Open(to.as_fd()), &attributes).context("set attributes of", path)?;
                rustix::fs::fchmod(&to, self.mode(stat)).context("chmod", path)?;
                return rustix::fs::futimens(&to, &timestamps(self.time(stat))).context("set the time of", path);
            }
            Source::Link(target) => symlinkat(&target[..], parent, name).context("create link", path)?,
            Source::Node => {
                let mode = Mode::from_raw_mode(0o600);
                mknodat(parent, name, kind_of(stat), mode, stat.st_rdev).context("create", path)?;
            }
        }
        let (uid, gid) = self.owner(stat);
        let (uid, gid, nofollow) = (Uid::from_raw(uid), Gid::from_raw(gid), AtFlags::SYMLINK_NOFOLLOW);
        chownat(parent, name, Some(uid), Some(gid), nofollow).context("chown", path)?;
        set_xattrs(&Place::Named(parent.as_fd(), name), &attributes).context("set attributes of", path)?;
        if kind_of(stat) != FileType::Symlink {
            rustix::fs::chmodat(parent, name, self.mode(stat), AtFlags::empty()).context("chmod", path)?;
        }
        utimensat(parent, name, &timestamps(self.time(stat)), nofollow).context("set the time of", path)
    }

    /// By reflink where the filesystem can, else inside the kernel, else by reading and writing.
    fn file(&mut self, from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<u64> {
        if self.clone && size > 0 {
            match ioctl_ficlone(to, from) {
                Ok(()) => return Ok(size),
                Err(_) => self.clone = false,
            }
        }
        let mut copied = 0;
        while copied < size {
            match copy_file_range(from, None, to, None, (size - copied).min(1 << 30) as usize) {
                Ok(0) => return Ok(copied),
                Ok(n) => copied += n as u64,
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) if copied == 0 => {
                    let (from, to) = (from.try_clone()?, to.try_clone()?);
                    return io::copy(&mut File::from(from), &mut File::from(to));
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

/// Owner, mode and time of something made.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// Owner and group.
    pub owner: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// Time; `None` is now.
    pub mtime: Option<Time>,
}

/// Makes the directory `path`, with `parents` if that is asked for. One that is there is left as it is, and is an
/// error unless `parents`.
pub fn mkdir(root: BorrowedFd<'_>, path: &[u8], new: &Attributes, parents: bool) -> Result<(), SnapshotError> {
    let directory = NewDirectory { mode: new.mode, owner: new.owner, mtime: new.mtime };
    if parents {
        make_directories(root, path, directory).context("create directory", path)?;
        return Ok(());
    }
    let (parent, name) = resolve_leaf(root, path, None).context("create directory", path)?;
    mkdirat(&parent, &name[..], Mode::from_raw_mode(0o700)).context("create directory", path)?;
    let made = openat(&parent, &name[..], DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).context("open", path)?;
    finish(&made, path, new)
}

/// Writes `content` to the file `path`, making missing parents (mode `parents_mode`, same owner) and replacing a file.
pub fn mkfile(
    root: BorrowedFd<'_>,
    path: &[u8],
    content: &[u8],
    new: &Attributes,
    parents_mode: u32,
) -> Result<(), SnapshotError> {
    let directories = NewDirectory { mode: parents_mode, owner: new.owner, mtime: new.mtime };
    let (parent, name) = resolve_leaf(root, path, Some(directories)).context("create", path)?;
    if let Some(there) = stat_if_there(&parent, &name).context("stat", path)? {
        if kind_of(&there) == FileType::Directory {
            let path = display(path);
            return Err(SnapshotError::WrongKind { path, found: "a directory", expected: "a file or nothing" });
        }
        remove_all(parent.as_fd(), &name).context("replace", path)?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(&parent, &name[..], flags, Mode::from_raw_mode(0o600)).context("create", path)?;
    let mut file = File::from(made);
    file.write_all(content).context("write", path)?;
    finish(&file.into(), path, new)
}

fn finish(made: &OwnedFd, path: &[u8], new: &Attributes) -> Result<(), SnapshotError> {
    own(made, new.owner).context("chown", path)?;
    rustix::fs::fchmod(made, Mode::from_raw_mode(new.mode)).context("chmod", path)?;
    if let Some(mtime) = new.mtime {
        rustix::fs::futimens(made, &timestamps(mtime)).context("set the time of", path)?;
    }
    Ok(())
}

/// Makes the link `path` to `target`, replacing a file or link, with missing parents.
pub fn symlink(root: BorrowedFd<'_>, path: &[u8], target: &[u8], new: &Attributes) -> Result<(), SnapshotError> {
    let directories = NewDirectory { mode: 0o755, owner: new.owner, mtime: new.mtime };
    let (parent_path, name) = split(path);
    let parent = make_directories(root, parent_path, directories).context("create directory", parent_path)?;
    remove_all(parent.as_fd(), name).context("replace", path)?;
    symlinkat(target, &parent, name).context("create link", path)?;
    let (uid, gid) = (Uid::from_raw(new.owner.0), Gid::from_raw(new.owner.1));
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    chownat(&parent, name, Some(uid), Some(gid), nofollow).context("chown", path)?;
    if let Some(mtime) = new.mtime {
        utimensat(&parent, name, &timestamps(mtime), nofollow).context("set the time of", path)?;
    }
    Ok(())
}

/// Removes `path` and all below it; a link is removed, not followed. Gives whether there was anything.
pub fn remove(root: BorrowedFd<'_>, path: &[u8]) -> Result<bool, SnapshotError> {
    let (parent_path, name) = split(path);
    if matches!(name, b"" | b"." | b"..") {
        return Err(SnapshotError::Refused {
            path: display(path),
            reason: "it does not name something in a directory",
        });
    }
    let parent = match open_in_root(root, parent_path, DIRECTORY) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(false),
        parent => parent.context("open", parent_path)?,
    };
    let there = stat_if_there(&parent, name).context("stat", path)?.is_some();
    remove_all(parent.as_fd(), name).context("remove", path)?;
    Ok(there)
}

/// Unpacks a tar stream (plain, gzip, xz, bzip2 or zstd) into the directory `dest`, as ADD does: owners and modes from
/// the archive unless `owner` is given, times from the archive unless `mtime` is [`Mtime::Set`]. `what` names it in
/// errors. Nothing in it can reach outside of `dest`: links in it are resolved as if `dest` were the root, and a `..` that
/// leads out is refused. What is there is replaced; only directories are merged.
pub fn extract(
    root: BorrowedFd<'_>,
    dest: &[u8],
    what: &str,
    archive: impl Read + Send,
    owner: Option<(u32, u32)>,
    mtime: Mtime,
    cancel: &Cancel,
) -> Result<CopyStats, SnapshotError> {
    let unpack = |source| SnapshotError::Unpack { layer: what.to_owned(), source };
    let (_, stream) = decode(archive).map_err(|e| unpack(LayerError::Read(e)))?;
    let new = NewDirectory { mode: 0o755, owner: owner.unwrap_or((0, 0)), mtime: set_time(mtime) };
    // The archive's world ends at `dest`: its links are resolved in there.
    let inside = make_directories(root, dest, new).context("create directory", dest)?;
    let mtime = if let Mtime::Set(time) = mtime { Some(time) } else { None };
    let mut extractor = Extractor::new(inside.as_fd(), b"", Style::Archive, Overrides { owner, mtime, renewed: None });
    // What follows the archive's end is nobody's: signatures, or a disk's rest.
    let mut tar = TarReader::new(stream).with_resolved_paths();
    extractor.run(what, &mut tar, &mut |_| {}, &|| cancel.is_cancelled())?;
    Ok(CopyStats { entries: extractor.entries, bytes: extractor.bytes })
}

/// Whether a stream with these first bytes (512 are enough) is an archive that [`extract`] takes: a compression it
/// knows, or a tar header. ADD asks before it decides to unpack or to copy.
pub fn is_archive(stream: impl Read + Send) -> bool {
    let Ok((_, stream)) = decode(stream) else { return false };
    match TarReader::new(stream).next_entry() {
        Ok(entry) => entry.is_some(),
        // A header it is; what it asks for is refused when it is unpacked.
        Err(error) => matches!(error, LayerError::Path { .. } | LayerError::Kind { .. } | LayerError::Limit { .. }),
    }
}
