//! What a tree in overlay's format changes of the tree below it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ctk_plan::Cancel;
use rustix::fs::{FileType, Mode, OFlags, Stat, openat};

use crate::SnapshotError;
use crate::dir::{DIRECTORY, Place, is_opaque, is_whiteout, join, kind_of, sorted_names, stat_if_there, xattrs};
use crate::error::{Context, display};
use crate::limits::DEPTH_MAX;

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Added,
    /// It is another one, or something in it is.
    Changed,
    /// It is not there any more.
    Deleted,
}

/// The paths that `upper` changes of `lower`, each after the directory that it is in, relative to the root; but for those
/// that `skip` leaves out, with all below. A directory in which nothing changed and that is as before is none of them,
/// whatever its time is.
pub fn changes(
    upper: BorrowedFd<'_>,
    lower: BorrowedFd<'_>,
    skip: &dyn Fn(&[u8]) -> bool,
    cancel: &Cancel,
) -> Result<Vec<(Change, Vec<u8>)>, SnapshotError> {
    let open = |root: BorrowedFd<'_>| openat(root, ".", DIRECTORY, Mode::empty()).context("open", b"/");
    let mut walk = Walk { found: Vec::new(), skip, cancel };
    walk.directory(&open(upper)?, Some(&open(lower)?), b"", 0)?;
    Ok(walk.found)
}

struct Walk<'a> {
    found: Vec<(Change, Vec<u8>)>,
    skip: &'a dyn Fn(&[u8]) -> bool,
    cancel: &'a Cancel,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        upper: &OwnedFd,
        lower: Option<&OwnedFd>,
        path: &[u8],
        depth: usize,
    ) -> Result<(), SnapshotError> {
        if depth > DEPTH_MAX {
            let reason = "directories are nested deeper than 2048 levels";
            return Err(SnapshotError::Refused { path: display(path), reason });
        }
        let mut names = sorted_names(upper).context("list", path)?;
        if let Some(lower) = lower
            && is_opaque(upper).context("read attributes of", path)?
        {
            names.extend(sorted_names(lower).context("list", path)?);
            names.sort_unstable();
            names.dedup();
        }
        for name in names {
            if self.cancel.is_cancelled() {
                return Err(SnapshotError::Cancelled);
            }
            let path = join(path, &name);
            if (self.skip)(&path) {
                continue;
            }
            let above = stat_if_there(upper, &name).context("stat", &path)?;
            let below = lower.map(|lower| stat_if_there(lower, &name)).transpose().context("stat", &path)?.flatten();
            match (above, below) {
                (None, None) => {}
                (None, Some(_)) => self.found.push((Change::Deleted, path)),
                (Some(above), below) if is_whiteout(&above) => {
                    self.found.extend(below.map(|_| (Change::Deleted, path)));
                }
                (Some(above), below) => self.one((upper, &above), (lower, below), &name, path, depth)?,
            }
        }
        Ok(())
    }

    fn one(
        &mut self,
        (upper, above): (&OwnedFd, &Stat),
        (lower, below): (Option<&OwnedFd>, Option<Stat>),
        name: &[u8],
        path: Vec<u8>,
        depth: usize,
    ) -> Result<(), SnapshotError> {
        let change = if below.is_some() { Change::Changed } else { Change::Added };
        let at = self.found.len();
        self.found.push((change, path.clone()));
        if kind_of(above) != FileType::Directory {
            return Ok(());
        }
        let open =
            |parent: &OwnedFd| openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).context("open", &path);
        let child = open(upper)?;
        let was = below.filter(|below| kind_of(below) == FileType::Directory);
        let under = was.and(lower).map(open).transpose()?;
        self.directory(&child, under.as_ref(), &path, depth + 1)?;
        if let (Some(under), Some(was), true) = (&under, was, self.found.len() == at + 1) {
            let attributes =
                |directory: &OwnedFd| xattrs(Place::Open(directory.as_fd())).context("read attributes of", &path);
            let as_before = (was.st_mode, was.st_uid, was.st_gid) == (above.st_mode, above.st_uid, above.st_gid)
                && attributes(&child)? == attributes(under)?;
            if as_before {
                self.found.pop();
            }
        }
        Ok(())
    }
}
