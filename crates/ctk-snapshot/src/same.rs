//! Whether two layers hold the same.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ctk_plan::Cancel;
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};

use crate::dir::{DIRECTORY, Place, is_opaque, join, kind_of, mtime_of, sorted_names, stat_if_there, xattrs};
use crate::error::Context;
use crate::extract::open_directory;
use crate::limits::DEPTH_MAX;
use crate::{LayerKey, Made, SnapshotError, Snapshots};

/// Bytes of two files that are compared at once.
const BLOCK_BYTES: usize = 1 << 16;

impl Snapshots {
    /// Whether packing either layer gives the same tar: the same entries, owners, permissions, attributes and bytes,
    /// whatever the image's date is. Stops at the first difference; bytes are read last.
    pub fn same(&self, a: &LayerKey, b: &LayerKey, cancel: &Cancel) -> Result<bool, SnapshotError> {
        if a == b {
            return Ok(true);
        }
        let (tree_a, tree_b) = (open_directory(&self.tree_path(a)?)?, open_directory(&self.tree_path(b)?)?);
        let (info_a, info_b) = (self.info(a)?, self.info(b)?);
        let made = (&info_a.made, &info_b.made);
        let mut pair = Pair { made, cancel, links: HashMap::new(), files: Vec::new() };
        let has_root = info_a.root.is_some();
        if has_root != info_b.root.is_some() || has_root && !pair.same_root(&tree_a, &tree_b)? {
            return Ok(false);
        }
        if !pair.walk(tree_a.as_fd(), tree_b.as_fd(), b"", 0)? {
            return Ok(false);
        }
        for path in &pair.files {
            if !same_bytes(open_file(tree_a.as_fd(), path)?, open_file(tree_b.as_fd(), path)?, path, cancel)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

struct Pair<'a> {
    /// When the files of either were made.
    made: (&'a Made, &'a Made),
    cancel: &'a Cancel,
    /// Files with several names: which one of `b` belongs to which one of `a`.
    links: HashMap<(u64, u64), (u64, u64)>,
    /// Files whose bytes are still to be compared.
    files: Vec<Vec<u8>>,
}

impl Pair<'_> {
    fn same_root(&mut self, a: &OwnedFd, b: &OwnedFd) -> Result<bool, SnapshotError> {
        let stat = |root| fstat(root).context("stat", b"/");
        let attributes = |root: &OwnedFd| xattrs(Place::Open(root.as_fd())).context("read attributes of", b"/");
        Ok(self.same_stat(&stat(a)?, &stat(b)?) && attributes(a)? == attributes(b)?)
    }

    fn walk(&mut self, a: BorrowedFd<'_>, b: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<bool, SnapshotError> {
        if depth > DEPTH_MAX {
            return Ok(false);
        }
        let opaque = |directory| is_opaque(directory).context("read attributes of", path);
        let names = |directory| sorted_names(directory).context("list", path);
        let all = names(a)?;
        if opaque(a)? != opaque(b)? || all != names(b)? {
            return Ok(false);
        }
        for name in all {
            if self.cancel.is_cancelled() {
                return Err(SnapshotError::Cancelled);
            }
            let path = join(path, &name);
            let stat = |directory| stat_if_there(directory, &name).context("stat", &path);
            let (Some(stat_a), Some(stat_b)) = (stat(a)?, stat(b)?) else { return Ok(false) };
            if !self.same_stat(&stat_a, &stat_b) {
                return Ok(false);
            }
            let attributes = |directory| xattrs(Place::Named(directory, &name)).context("read attributes of", &path);
            if attributes(a)? != attributes(b)? {
                return Ok(false);
            }
            match kind_of(&stat_a) {
                FileType::Directory => {
                    let open = |directory| openat(directory, &name[..], DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
                    let (child_a, child_b) = (open(a).context("open", &path)?, open(b).context("open", &path)?);
                    if !self.walk(child_a.as_fd(), child_b.as_fd(), &path, depth + 1)? {
                        return Ok(false);
                    }
                }
                FileType::Symlink => {
                    let target = |directory| readlinkat(directory, &name[..], Vec::new()).context("read link", &path);
                    if target(a)? != target(b)? {
                        return Ok(false);
                    }
                }
                FileType::RegularFile if stat_a.st_size > 0 => self.files.push(path),
                _ => {}
            }
        }
        Ok(true)
    }

    fn same_stat(&mut self, a: &Stat, b: &Stat) -> bool {
        let plain = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
        let is_directory = kind_of(a) == FileType::Directory;
        if plain(a) != plain(b) || self.made.0.content(mtime_of(a)) != self.made.1.content(mtime_of(b)) {
            return false;
        }
        if is_directory {
            return true;
        }
        let (id_a, id_b) = ((a.st_dev, a.st_ino), (b.st_dev, b.st_ino));
        let together = a.st_nlink == b.st_nlink && (a.st_nlink < 2 || *self.links.entry(id_a).or_insert(id_b) == id_b);
        together && a.st_size == b.st_size
    }
}

fn open_file(root: BorrowedFd<'_>, path: &[u8]) -> Result<File, SnapshotError> {
    crate::dir::open_in_root(root, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC)
        .map(File::from)
        .context("open", path)
}

fn same_bytes(mut a: File, mut b: File, path: &[u8], cancel: &Cancel) -> Result<bool, SnapshotError> {
    let (mut block_a, mut block_b) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    loop {
        if cancel.is_cancelled() {
            return Err(SnapshotError::Cancelled);
        }
        let count = a.read(&mut block_a).context("read", path)?;
        if count == 0 {
            return Ok(b.read(&mut block_b).context("read", path)? == 0);
        }
        if b.read_exact(&mut block_b[..count]).is_err() || block_a[..count] != block_b[..count] {
            return Ok(false);
        }
    }
}
