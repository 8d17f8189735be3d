//! Changes of a tree by file operations: what COPY, ADD, mkdir, mkfile and rm are made of.
//!
//! Paths in a tree are resolved inside its root. A path that does not begin with `/` counts from the root too.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ctk_layer::{LayerError, TarReader, Time, decode};
use ctk_plan::Cancel;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, mkdirat, openat, readlinkat, symlinkat, utimensat,
};

use crate::SnapshotError;
use crate::copier::{Copier, Source};
use crate::dir::{
    DIRECTORY, NewDirectory, Place, join, kind_of, make_directories, mtime_of, open_in_root, own, remove_all,
    resolve_leaf, set_xattrs, sorted_names, split, stat_if_there, timestamps, xattrs,
};
use crate::error::{Context, display};
use crate::extract::{Extractor, Heard, Overrides, Style};
use crate::limits::DEPTH_MAX;

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
    let mut copier = Copier::new(dest_root, options, cancel);
    if kind_of(&stat) == FileType::Directory {
        let from = openat(&found, ".", DIRECTORY, Mode::empty()).context("open", source)?;
        let to = make_directories(dest_root, dest, new).context("create directory", dest)?;
        let path = dest[..dest.iter().rposition(|b| *b != b'/').map_or(0, |last| last + 1)].to_vec();
        return copier.tree(from, to, path);
    }
    let (parent, name) = resolve_leaf(dest_root, dest, Some(new)).context("create", dest)?;
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
    Ok(copier.stats())
}

/// Makes the empty directory `dest` what the directory `source` of `source_root` is: what is in it, owners, modes, times
/// and extended attributes, its own among them. `false`, and nothing done, if there is no such directory.
pub fn fill(
    dest: BorrowedFd<'_>,
    source_root: BorrowedFd<'_>,
    source: &[u8],
    cancel: &Cancel,
) -> Result<bool, SnapshotError> {
    let from = match open_in_root(source_root, source, DIRECTORY) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(false),
        found => found.context("copy", source)?,
    };
    let options = CopyOptions {
        owner: None,
        mode: None,
        parents_mode: 0o755,
        mtime: Mtime::Keep,
        follow: true,
        xattrs: CopiedXattrs::All,
        filter: None,
    };
    copy_into(dest, b"", source_root, source, &options, cancel)?;
    let stat = rustix::fs::fstat(&from).context("stat", source)?;
    own(dest, (stat.st_uid, stat.st_gid)).context("chown", source)?;
    let attributes = xattrs(Place::Open(from.as_fd())).context("read attributes of", source)?;
    set_xattrs(&Place::Open(dest), &attributes).context("set attributes of", source)?;
    rustix::fs::fchmod(dest, Mode::from_raw_mode(stat.st_mode & 0o7777)).context("chmod", source)?;
    rustix::fs::futimens(dest, &timestamps(mtime_of(&stat))).context("set the time of", source)?;
    Ok(true)
}

/// Makes the directory or file `root` and all below it that user's and group's. Links are not followed.
pub fn give(root: BorrowedFd<'_>, owner: (u32, u32), cancel: &Cancel) -> Result<(), SnapshotError> {
    let stat = rustix::fs::fstat(root).context("stat", b"/")?;
    if kind_of(&stat) == FileType::Directory {
        let open = openat(root, ".", DIRECTORY, Mode::empty()).context("open", b"/")?;
        give_below(&open, b"", owner, cancel, 0)?;
    }
    let owner = (Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)));
    chownat(root, "", owner.0, owner.1, AtFlags::EMPTY_PATH).context("chown", b"/")
}

fn give_below(
    directory: &OwnedFd,
    path: &[u8],
    owner: (u32, u32),
    cancel: &Cancel,
    depth: usize,
) -> Result<(), SnapshotError> {
    if depth > DEPTH_MAX {
        let reason = "directories are nested deeper than 2048 levels";
        return Err(SnapshotError::Refused { path: display(path), reason });
    }
    for name in sorted_names(directory).context("list", path)? {
        if cancel.is_cancelled() {
            return Err(SnapshotError::Cancelled);
        }
        let inside = join(path, &name);
        let Some(stat) = stat_if_there(directory, &name).context("stat", &inside)? else { continue };
        if kind_of(&stat) == FileType::Directory {
            let child = openat(directory, &name[..], DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
            give_below(&child.context("open", &inside)?, &inside, owner, cancel, depth + 1)?;
        }
        let (uid, gid) = (Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)));
        chownat(directory, &name[..], uid, gid, AtFlags::SYMLINK_NOFOLLOW).context("chown", &inside)?;
    }
    Ok(())
}

fn set_time(mtime: Mtime) -> Option<Time> {
    match mtime {
        Mtime::Set(time) => Some(time),
        Mtime::Clamp(epoch) => Some(Time::seconds(epoch)),
        Mtime::Keep => None,
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
    let stopped = || cancel.is_cancelled();
    // What follows the archive's end is nobody's: signatures, or a disk's rest.
    let mut tar = TarReader::new(Heard { stream, stopped: &stopped }).with_resolved_paths();
    let run = extractor.run(what, &mut tar, &mut |_| {}, &stopped);
    run.map_err(|error| if stopped() { SnapshotError::Cancelled } else { error })?;
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
