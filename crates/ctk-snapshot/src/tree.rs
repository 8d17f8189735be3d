//! The files of an image, for reading.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ctk_layer::Time;
use ctk_store::Scratch;
use rustix::fs::{AtFlags, FileType, OFlags, Stat, fstat, readlinkat};

use crate::dir::{DIRECTORY, kind_of, mtime_of, open_in_root, sorted_names};
use crate::error::{Context, display};
use crate::extract::open_directory;
use crate::overlay::Overlay;
use crate::{LayerKey, SnapshotError, Snapshots};

/// An image's file tree by a detached read-only mount; gone when dropped. Paths are resolved inside the image.
pub struct TreeView {
    root: OwnedFd,
    _scratch: Scratch,
}

/// What a path of an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its kind.
    pub kind: NodeKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file.
    pub size: u64,
    /// Time of the last change of content.
    pub mtime: Time,
}

/// The kinds of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A device, pipe or socket.
    Special,
}

impl TreeView {
    pub(crate) fn open(snapshots: &Snapshots, parents: &[LayerKey]) -> Result<TreeView, SnapshotError> {
        let scratch = snapshots.store().scratch()?;
        let mut lower = snapshots.lower(parents)?;
        let root = if lower.is_empty() {
            open_directory(scratch.path())?
        } else {
            // A read-only overlay wants two directories at least.
            lower.push(scratch.path().to_owned());
            Overlay { lower, upper: None }.open()?
        };
        Ok(TreeView { root, _scratch: scratch })
    }

    /// The root directory, e.g. as the source of a copy.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What `path` is; a link as its last component is followed. `None` when there is nothing.
    pub fn stat(&self, path: &str) -> Result<Option<Node>, SnapshotError> {
        self.stat_with(path, OFlags::PATH)
    }

    /// What `path` is itself, also if it is a link. `None` when there is nothing.
    pub fn stat_link(&self, path: &str) -> Result<Option<Node>, SnapshotError> {
        self.stat_with(path, OFlags::PATH | OFlags::NOFOLLOW)
    }

    /// Opens the file `path`, links followed.
    pub fn open_file(&self, path: &str) -> Result<File, SnapshotError> {
        // A pipe or a device would block or act; only what is known to be a file is opened for reading.
        let node = open_in_root(&self.root, path.as_bytes(), OFlags::PATH).context("open", path.as_bytes())?;
        let stat = fstat(&node).context("stat", path.as_bytes())?;
        match kind_of(&stat) {
            FileType::RegularFile => {}
            other => {
                let (path, found) = (display(path.as_bytes()), kind_word(other));
                return Err(SnapshotError::WrongKind { path, found, expected: "a file" });
            }
        }
        let file = open_in_root(&self.root, path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK);
        Ok(File::from(file.context("open", path.as_bytes())?))
    }

    /// The bytes of the file `path`, links followed; [`SnapshotError::TooLarge`] above `limit`.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, SnapshotError> {
        let file = self.open_file(path)?;
        let size = file.metadata().context("stat", path.as_bytes())?.len();
        if size > limit {
            return Err(SnapshotError::TooLarge { path: display(path.as_bytes()), size, limit });
        }
        let mut bytes = Vec::with_capacity(size as usize);
        file.take(limit).read_to_end(&mut bytes).context("read", path.as_bytes())?;
        Ok(bytes)
    }

    /// The names in the directory `path`, sorted as bytes.
    pub fn list(&self, path: &str) -> Result<Vec<Vec<u8>>, SnapshotError> {
        let directory = open_in_root(&self.root, path.as_bytes(), DIRECTORY).context("open", path.as_bytes())?;
        sorted_names(&directory).context("list", path.as_bytes())
    }

    fn stat_with(&self, path: &str, flags: OFlags) -> Result<Option<Node>, SnapshotError> {
        let opened = match open_in_root(&self.root, path.as_bytes(), flags) {
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            opened => opened.context("open", path.as_bytes())?,
        };
        let stat = rustix::fs::statat(&opened, "", AtFlags::EMPTY_PATH).context("stat", path.as_bytes())?;
        let kind = match kind_of(&stat) {
            FileType::RegularFile => NodeKind::File,
            FileType::Directory => NodeKind::Directory,
            FileType::Symlink => {
                let target = readlinkat(&opened, "", Vec::new()).context("read link", path.as_bytes())?;
                NodeKind::Symlink(target.into_bytes())
            }
            _ => NodeKind::Special,
        };
        Ok(Some(node(kind, &stat)))
    }
}

fn node(kind: NodeKind, stat: &Stat) -> Node {
    let size = if kind == NodeKind::File { stat.st_size as u64 } else { 0 };
    Node { kind, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, size, mtime: mtime_of(stat) }
}

pub(crate) fn kind_word(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        _ => "a device, pipe or socket",
    }
}
