//! Whether a layer that was made over one tree would be the same over another.
//!
//! A layer of copied files depends on what is below it only where the two meet: how the destination is found, which of
//! its paths are taken, and what directories that it went through look like. Nothing else is looked at.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ctk_plan::Cancel;
use rustix::fs::{FileType, Mode, OFlags, Stat, openat, readlinkat};

use crate::dir::{
    DIRECTORY, Place, is_opaque, join, kind_of, mtime_of, open_in_root, sorted_names, stat_if_there, xattrs,
};
use crate::error::Context;
use crate::extract::open_directory;
use crate::limits::{DEPTH_MAX, SYMLINKS_MAX};
use crate::{LayerKey, Made, SnapshotError, Snapshots};

/// What a layer was made by, as far as what is below it matters.
pub struct Footing<'a> {
    /// Paths that its files were put at or below, as they were written: links in them are followed.
    pub destinations: &'a [&'a [u8]],
    /// Files of the tree that were read for it.
    pub reads: &'a [&'a str],
}

/// Bytes of a file that was read: accounts are small.
const READ_BYTES: u64 = 1 << 20;

impl Snapshots {
    /// Whether `layer`, made over the layers `old`, would be the same over `new` (both base first): `false` as well
    /// when that is not certain. All layers must be here.
    pub fn stands_on(
        &self,
        layer: &LayerKey,
        (old, new): (&[LayerKey], &[LayerKey]),
        footing: &Footing<'_>,
        cancel: &Cancel,
    ) -> Result<bool, SnapshotError> {
        if self.info(layer)?.root.is_some() && self.root_attributes(old)? != self.root_attributes(new)? {
            return Ok(false);
        }
        let made = (self.made(old)?, self.made(new)?);
        let (old, new) = (self.tree(old)?, self.tree(new)?);
        for path in footing.reads {
            // What cannot be read counts as nothing, on both sides.
            if old.read(path, READ_BYTES).ok() != new.read(path, READ_BYTES).ok() {
                return Ok(false);
            }
        }
        let mut places = Vec::new();
        for path in footing.destinations {
            let (way, place) = resolve(old.root(), path)?;
            if resolve(new.root(), path)?.0 != way {
                return Ok(false);
            }
            places.push(place);
        }
        let tree = open_directory(&self.tree_path(layer)?)?;
        let meeting = Meeting { places, made, cancel };
        let roots = (open_readable(old.root())?, open_readable(new.root())?);
        meeting.walk(tree.as_fd(), (roots.0.as_fd(), roots.1.as_fd()), b"", 0)
    }
}

fn open_readable(root: BorrowedFd<'_>) -> Result<OwnedFd, SnapshotError> {
    openat(root, ".", DIRECTORY, Mode::empty()).context("open", b"/")
}

/// What was met on the way to `path`: each name's place, kind and, of a link, target, up to the first that is missing;
/// and where it ends.
type Way = Vec<(Vec<u8>, Option<(FileType, Vec<u8>)>)>;

fn resolve(root: BorrowedFd<'_>, path: &[u8]) -> Result<(Way, Vec<u8>), SnapshotError> {
    let mut way = Way::new();
    let mut names: Vec<Vec<u8>> = path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect();
    let (mut at, mut links, mut missing) = (Vec::new(), 0, false);
    while let Some(name) = names.pop() {
        if name.is_empty() || name == b"." {
            continue;
        }
        if name == b".." {
            at = crate::dir::split(&at).0.to_vec();
            continue;
        }
        let next = join(&at, &name);
        if missing {
            at = next;
            continue;
        }
        let parent = open_in_root(root, &at, OFlags::PATH | OFlags::DIRECTORY);
        let found = parent.as_ref().ok().map(|parent| stat_if_there(parent, &name)).transpose();
        let Some(stat) = found.context("stat", &next)?.flatten() else {
            way.push((next.clone(), None));
            (at, missing) = (next, true);
            continue;
        };
        let kind = kind_of(&stat);
        let mut target = Vec::new();
        if kind == FileType::Symlink && links < SYMLINKS_MAX {
            let parent = parent.context("open", &at)?;
            target = readlinkat(&parent, &name[..], Vec::new()).context("read link", &next)?.into_bytes();
            links += 1;
            if target.starts_with(b"/") {
                at.clear();
            }
            names.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
        } else {
            at = next.clone();
        }
        way.push((next, Some((kind, target))));
    }
    Ok((way, at))
}

struct Meeting<'a> {
    /// Where files were put.
    places: Vec<Vec<u8>>,
    /// When the files below were made, then and now.
    made: (Made, Made),
    cancel: &'a Cancel,
}

impl Meeting<'_> {
    fn walk(
        &self,
        layer: BorrowedFd<'_>,
        (old, new): (BorrowedFd<'_>, BorrowedFd<'_>),
        path: &[u8],
        depth: usize,
    ) -> Result<bool, SnapshotError> {
        if depth > DEPTH_MAX || is_opaque(layer).context("read attributes of", path)? {
            return Ok(false);
        }
        for name in sorted_names(layer).context("list", path)? {
            if self.cancel.is_cancelled() {
                return Err(SnapshotError::Cancelled);
            }
            let path = join(path, &name);
            let stat = |directory| stat_if_there(directory, &name).context("stat", &path);
            let Some(own) = stat(layer)? else { return Ok(false) };
            let is_directory = kind_of(&own) == FileType::Directory;
            // What lies elsewhere was written through a link.
            if !is_directory && !self.places.iter().any(|place| is_below(&path, place)) {
                return Ok(false);
            }
            match (stat(old)?, stat(new)?) {
                // Nothing below it can meet anything.
                (None, None) if !is_directory || self.places.iter().any(|place| is_below(&path, place)) => {}
                (None, None) => {
                    // A directory that was made on the way: what is in it may still lie elsewhere.
                    if !self.places.iter().any(|place| is_below(place, &path)) {
                        return Ok(false);
                    }
                }
                (Some(a), Some(b)) if kind_of(&a) == kind_of(&b) => {
                    if !is_directory {
                        continue;
                    }
                    if kind_of(&a) != FileType::Directory || !self.same(&a, &b) {
                        return Ok(false);
                    }
                    let attributes = |directory| xattrs(Place::Named(directory, &name));
                    let attributes = |directory| attributes(directory).context("read attributes of", &path);
                    let open = |directory| openat(directory, &name[..], DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
                    let open = |directory| open(directory).context("open", &path);
                    if attributes(old)? != attributes(new)? {
                        return Ok(false);
                    }
                    let (own, a, b) = (open(layer)?, open(old)?, open(new)?);
                    if !self.walk(own.as_fd(), (a.as_fd(), b.as_fd()), &path, depth + 1)? {
                        return Ok(false);
                    }
                }
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    fn same(&self, a: &Stat, b: &Stat) -> bool {
        let plain = |stat: &Stat, made: &Made| (stat.st_mode, stat.st_uid, stat.st_gid, made.content(mtime_of(stat)));
        plain(a, &self.made.0) == plain(b, &self.made.1)
    }
}

/// Whether `path` is `place` or lies below it.
fn is_below(path: &[u8], place: &[u8]) -> bool {
    place.is_empty() || path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}
