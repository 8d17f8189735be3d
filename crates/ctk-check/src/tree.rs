//! The files of an image, looked at from outside: every path is resolved by the kernel inside the image's root.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::CheckError;
use crate::limits;

/// An image's root directory.
pub(crate) struct Tree {
    root: OwnedFd,
}

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    File,
    Directory,
    Symlink,
    Device,
    Pipe,
    Socket,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::File => "file",
            FileKind::Directory => "directory",
            FileKind::Symlink => "symlink",
            FileKind::Device => "device",
            FileKind::Pipe => "pipe",
            FileKind::Socket => "socket",
        })
    }
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub kind: FileKind,
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
}

impl Tree {
    /// The tree below `root`.
    pub fn new(root: OwnedFd) -> Tree {
        Tree { root }
    }

    /// What is at `path`, itself not followed; `None` when nothing is.
    pub fn stat(&self, path: &str) -> Result<Option<Stat>, CheckError> {
        let Some(file) = self.open(path, OFlags::PATH | OFlags::NOFOLLOW)? else { return Ok(None) };
        let stat = rustix::fs::fstat(&file).map_err(|e| failed("look at a file of the image", e))?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            FileType::Fifo => FileKind::Pipe,
            FileType::Socket => FileKind::Socket,
            _ => FileKind::Device,
        };
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        Ok(Some(Stat { kind, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, size }))
    }

    /// The first `limit` bytes of the file at `path`, links followed inside the image; `None` when there is no file.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, CheckError> {
        // First without opening it: opening a device or a pipe has effects.
        let Some(place) = self.open(path, OFlags::PATH)? else { return Ok(None) };
        let stat = rustix::fs::fstat(&place).map_err(|e| failed("look at a file of the image", e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let Some(file) = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = File::from(file).take(limit).read_to_end(&mut bytes);
        read.map_err(|source| CheckError::Io { action: "read a file of the image", source })?;
        Ok(Some(bytes))
    }

    /// Where the link at `path` points; `None` when it is no link.
    pub fn read_link(&self, path: &str) -> Result<Option<String>, CheckError> {
        let Some(link) = self.open(path, OFlags::PATH | OFlags::NOFOLLOW)? else { return Ok(None) };
        match rustix::fs::readlinkat(&link, c"", Vec::new()) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(error) => Err(failed("read a link of the image", error)),
        }
    }

    /// The names in the directory at `path`, sorted; empty when there is none.
    pub fn list(&self, path: &str) -> Result<Vec<String>, CheckError> {
        let Some(directory) = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)? else { return Ok(Vec::new()) };
        let entries = rustix::fs::Dir::read_from(&directory).map_err(|e| failed("list a directory of the image", e))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| failed("list a directory of the image", e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// `uid[:gid]` of an owner by numbers or by the names in the image's own files; or what is unknown there.
    #[allow(clippy::type_complexity)]
    pub fn owner(&self, owner: &str) -> Result<Result<(u32, Option<u32>), String>, CheckError> {
        let (user, group) = match owner.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (owner, None),
        };
        let Some(uid) = self.id(user, "/etc/passwd")? else { return Ok(Err(format!("user `{user}`"))) };
        let gid = match group {
            None => None,
            Some(group) => match self.id(group, "/etc/group")? {
                Some(gid) => Some(gid),
                None => return Ok(Err(format!("group `{group}`"))),
            },
        };
        Ok(Ok((uid, gid)))
    }

    fn id(&self, name: &str, file: &str) -> Result<Option<u32>, CheckError> {
        if let Ok(number) = name.parse() {
            return Ok(Some(number));
        }
        let bytes = self.read(file, limits::FILE_CONTENT_BYTES)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1))??.parse().ok()
        }))
    }

    fn open(&self, path: &str, flags: OFlags) -> Result<Option<OwnedFd>, CheckError> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(failed("open a file of the image", error)),
        }
    }
}

fn failed(action: &'static str, error: Errno) -> CheckError {
    CheckError::Io { action, source: error.into() }
}

/// Bytes of all files below `directory` on this filesystem; a file with several names counts once.
pub(crate) fn bytes_below(directory: BorrowedFd<'_>) -> Result<u64, CheckError> {
    let action = "measure a layer of the image";
    let mut seen = std::collections::HashSet::new();
    let mut total = 0u64;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // A mount's own fd is a path only; what is read needs to be opened.
    let top = rustix::fs::openat(directory, c".", flags, Mode::empty());
    let mut open = vec![top.map_err(|e| failed(action, e))?];
    while let Some(current) = open.pop() {
        for entry in rustix::fs::Dir::read_from(&current).map_err(|e| failed(action, e))? {
            let entry = entry.map_err(|e| failed(action, e))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = rustix::fs::statat(&current, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(action, e))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let inner = rustix::fs::openat(&current, name, flags, Mode::empty());
                    open.push(inner.map_err(|e| failed(action, e))?);
                }
                FileType::RegularFile if stat.st_nlink == 1 || seen.insert((stat.st_dev, stat.st_ino)) => {
                    total += u64::try_from(stat.st_size).unwrap_or_default();
                }
                _ => {}
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn paths_stay_inside() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(place.path().join("secret"), "outside").unwrap();
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nwww-data:x:33:34::/:/bin/sh\n").unwrap();
        std::fs::write(root.join("etc/group"), "www:x:35:\n").unwrap();
        std::fs::set_permissions(root.join("etc/group"), PermissionsExt::from_mode(0o4711)).unwrap();
        symlink("../../../secret", root.join("out")).unwrap();
        symlink("/etc/passwd", root.join("in")).unwrap();
        let tree = Tree::new(File::open(&root).unwrap().into());

        assert_eq!(tree.read("/out", 100).unwrap(), None);
        assert_eq!(tree.read("/in", 7).unwrap().unwrap(), b"root:x:");
        assert_eq!(tree.stat("/in").unwrap().unwrap().kind, FileKind::Symlink);
        assert_eq!(tree.read_link("/in").unwrap().as_deref(), Some("/etc/passwd"));
        assert_eq!(tree.read_link("/etc/passwd").unwrap(), None);
        assert_eq!(tree.stat("/etc/group").unwrap().unwrap().mode, 0o4711);
        assert_eq!(tree.stat("/etc/none/x").unwrap(), None);
        assert_eq!(tree.list("/").unwrap(), ["etc", "in", "out"]);
        assert!(tree.list("/nowhere").unwrap().is_empty());
        assert_eq!(tree.owner("www-data:www").unwrap(), Ok((33, Some(35))));
        assert_eq!(tree.owner("7:8").unwrap(), Ok((7, Some(8))));
        assert_eq!(tree.owner("nobody").unwrap(), Err("user `nobody`".into()));
    }
}
