//! Steps inside a tree, by held fds: nothing here follows a link out of the root.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use ctk_layer::Time;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, mkdirat,
    openat, openat2, readlinkat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::limits::{DEPTH_MAX, RESOLVE_TRIES, SYMLINKS_MAX, XATTR_MAX_BYTES};

/// How directories are opened to be read.
pub const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens `path` as the kernel resolves it inside `root`; absolute links begin at `root`, `..` stops there.
pub fn open_in_root(root: impl AsFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RESOLVE_TRIES {
        match openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename somewhere on the system made the kernel unsure about a `..`.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// Owner, mode and time of directories that are made on the way.
#[derive(Clone, Copy)]
pub struct NewDirectory {
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: Option<Time>,
}

impl NewDirectory {
    pub const PLAIN: NewDirectory = NewDirectory { mode: 0o755, owner: (0, 0), mtime: None };
}

/// Opens the directory `path` in `root`, making what is missing.
pub fn make_directories(root: BorrowedFd<'_>, path: &[u8], new: NewDirectory) -> io::Result<OwnedFd> {
    make_directories_at(root, path, new, 0)
}

fn make_directories_at(root: BorrowedFd<'_>, path: &[u8], new: NewDirectory, links: usize) -> io::Result<OwnedFd> {
    match open_in_root(root, path, DIRECTORY) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let (parent_path, name) = split(path);
    let parent = make_directories_at(root, parent_path, new, links)?;
    match mkdirat(&parent, name, Mode::from_raw_mode(new.mode)) {
        Ok(()) => {
            let made = openat(&parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
            own(&made, new.owner)?;
            rustix::fs::fchmod(&made, Mode::from_raw_mode(new.mode))?;
            if let Some(mtime) = new.mtime {
                rustix::fs::futimens(&made, &timestamps(mtime))?;
            }
            Ok(made)
        }
        Err(Errno::EXIST) if links < SYMLINKS_MAX => {
            // Somebody was faster, or it is a link to what is missing.
            let Ok(target) = readlinkat(&parent, name, Vec::new()) else { return open_in_root(root, path, DIRECTORY) };
            make_directories_at(root, &follow(parent_path, target.as_bytes()), new, links + 1)
        }
        Err(e) => Err(e.into()),
    }
}

/// Where the link target leads from a link in directory `parent`.
fn follow(parent: &[u8], target: &[u8]) -> Vec<u8> {
    if target.starts_with(b"/") { target.to_vec() } else { [parent, b"/", target].concat() }
}

/// The directory and the name that `path` means in `root`, following links also in its last component; the directory
/// is made if `new` says so. What the name stands for need not exist.
pub fn resolve_leaf(root: BorrowedFd<'_>, path: &[u8], new: Option<NewDirectory>) -> io::Result<(OwnedFd, Vec<u8>)> {
    let mut path = path.to_vec();
    for _ in 0..SYMLINKS_MAX {
        let (parent_path, name) = split(&path);
        if matches!(name, b"" | b"." | b"..") {
            return Err(Errno::ISDIR.into());
        }
        let parent = match new {
            Some(new) => make_directories(root, parent_path, new)?,
            None => open_in_root(root, parent_path, DIRECTORY)?,
        };
        match readlinkat(&parent, name, Vec::new()) {
            Ok(target) => path = follow(parent_path, target.as_bytes()),
            Err(_) => return Ok((parent, name.to_vec())),
        }
    }
    Err(Errno::LOOP.into())
}

/// `a/b/c/` → `a/b`, `c`.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let mut end = path.len();
    while end > 0 && path[end - 1] == b'/' {
        end -= 1;
    }
    let path = &path[..end];
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

pub fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// The names in a directory, sorted as bytes.
pub fn sorted_names(directory: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes `name` and all below it; nothing is followed. That it isn't there is no error.
pub fn remove_all(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    remove_all_at(parent, name, 0)
}

fn remove_all_at(parent: BorrowedFd<'_>, name: &[u8], depth: usize) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) if depth < DEPTH_MAX => {}
        Err(e) => return Err(e.into()),
    }
    {
        let directory = openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        for child in sorted_names(&directory)? {
            remove_all_at(directory.as_fd(), &child, depth + 1)?;
        }
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// What `name` is, itself, or `None`.
pub fn stat_if_there(parent: impl AsFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

pub fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Overlay's whiteout: a character device 0:0.
pub fn is_whiteout(stat: &Stat) -> bool {
    kind_of(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub fn mtime_of(stat: &Stat) -> Time {
    Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 }
}

pub fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

pub fn own(fd: impl AsFd, (uid, gid): (u32, u32)) -> io::Result<()> {
    Ok(rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

/// The path of `name` in `parent` for calls that take no directory fd. `/proc/self/fd` leads to the held directory,
/// whatever its path is by now.
fn proc_path(parent: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), name].concat()
}

/// Extended attributes by name.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Where extended attributes are: on an open file, or on a link or device that cannot be opened.
pub enum Place<'a> {
    Open(BorrowedFd<'a>),
    Named(BorrowedFd<'a>, &'a [u8]),
}

/// All extended attributes that belong to an image: not overlay's own, not those of the host's security modules.
pub fn xattrs(place: Place<'_>) -> io::Result<Xattrs> {
    let mut small = [0u8; 256];
    let path = match place {
        Place::Named(parent, name) => proc_path(parent, name),
        Place::Open(_) => Vec::new(),
    };
    let list_into = |buffer: &mut [u8]| match place {
        Place::Open(fd) => rustix::fs::flistxattr(fd, buffer),
        Place::Named(..) => rustix::fs::llistxattr(&path[..], buffer),
    };
    let list = match list_into(&mut small) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Ok(n) => small[..n].to_vec(),
        Err(Errno::RANGE) => {
            let mut large = vec![0; XATTR_MAX_BYTES];
            let n = list_into(&mut large)?;
            large.truncate(n);
            large
        }
        Err(e) => return Err(e.into()),
    };
    let mut found = BTreeMap::new();
    for name in list.split(|b| *b == 0).filter(|name| !name.is_empty() && travels(name)) {
        let mut value = vec![0; XATTR_MAX_BYTES];
        let n = match place {
            Place::Open(fd) => rustix::fs::fgetxattr(fd, name, &mut value[..]),
            Place::Named(..) => rustix::fs::lgetxattr(&path[..], name, &mut value[..]),
        };
        match n {
            Ok(n) => value.truncate(n),
            // It went away since it was listed.
            Err(Errno::NODATA) => continue,
            Err(e) => return Err(e.into()),
        }
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

/// Whether an attribute is part of an image. Overlay's attributes in a layer would redirect its lookups.
pub fn travels(name: &[u8]) -> bool {
    let ours = [&b"trusted.overlay."[..], b"user.overlay."];
    let host = [&b"security.selinux"[..], b"security.ima", b"security.evm", b"security.apparmor"];
    !ours.iter().any(|prefix| name.starts_with(prefix)) && !host.contains(&name)
}

pub fn set_xattrs(place: &Place<'_>, xattrs: &Xattrs) -> io::Result<()> {
    for (name, value) in xattrs.iter().filter(|(name, _)| travels(name)) {
        match place {
            Place::Open(fd) => rustix::fs::fsetxattr(fd, &name[..], value, XattrFlags::empty())?,
            Place::Named(parent, leaf) => {
                rustix::fs::lsetxattr(proc_path(*parent, leaf), &name[..], value, XattrFlags::empty())?
            }
        }
    }
    Ok(())
}

/// Overlay's note that nothing of lower layers shows in a directory; another one in a user namespace, where nobody may
/// write the first.
fn opaque() -> &'static str {
    if ctk_runtime::in_user_namespace() { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
}

pub fn set_opaque(directory: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(directory, opaque(), b"y", XattrFlags::empty())?)
}

pub fn is_opaque(directory: impl AsFd) -> io::Result<bool> {
    let mut value = [0u8; 4];
    match rustix::fs::fgetxattr(directory, opaque(), &mut value[..]) {
        Ok(n) => Ok(&value[..n] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_at_their_last_name() {
        let check = |path: &str, parent: &str, name: &str| {
            assert_eq!(split(path.as_bytes()), (parent.as_bytes(), name.as_bytes()), "{path}");
        };
        check("a/b/c", "a/b", "c");
        check("a/b/", "a", "b");
        check("/a", "", "a");
        check("a", "", "a");
        check("/", "", "");
        check("", "", "");
    }
}
