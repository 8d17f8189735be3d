//! A directory that will be a root: every path is taken relative to it and never leads out of it, whatever links packages
//! ship (`openat2` with `RESOLVE_IN_ROOT`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps};

/// The new root.
pub(crate) struct Root {
    fd: OwnedFd,
}

/// What every entry has besides its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime_seconds: i64,
}

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        Ok(Root { fd: fs::open(path, flags, Mode::empty())? })
    }

    fn resolve(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), how)?)
    }

    /// A directory; missing ones on the way are made.
    pub(crate) fn directory(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.resolve(path, flags) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !path.is_empty() => {
                let (parent, name) = split(path);
                let parent = self.directory(parent)?;
                let mode = Mode::from_raw_mode(0o755);
                match fs::mkdirat(&parent, name, mode) {
                    // Whatever umask the caller has.
                    Ok(()) => fs::chmodat(&parent, name, mode, AtFlags::empty())?,
                    Err(rustix::io::Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                self.resolve(path, flags)
            }
            other => other,
        }
    }

    pub(crate) fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut file = std::fs::File::from(self.resolve(path, OFlags::RDONLY)?);
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes a whole file, owned by root; an existing one is replaced.
    pub(crate) fn write(&self, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let (parent, name) = split(path);
        let parent = self.directory(parent)?;
        let mut file = create(&parent, name)?;
        io::Write::write_all(&mut file, bytes)?;
        fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        Ok(())
    }

    /// Removes a file or link; nothing there is fine.
    pub(crate) fn remove(&self, path: &str) -> io::Result<()> {
        let (parent, name) = split(path);
        let Ok(parent) = self.resolve(parent, OFlags::PATH | OFlags::DIRECTORY) else { return Ok(()) };
        match fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes an empty directory; nothing there is fine.
    pub(crate) fn remove_directory(&self, path: &str) -> io::Result<()> {
        let (parent, name) = split(path);
        let parent = self.resolve(parent, OFlags::PATH | OFlags::DIRECTORY)?;
        match fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Sets what a directory has.
    pub(crate) fn set_directory(&self, path: &str, meta: &Meta) -> io::Result<()> {
        let fd = self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        fs::fchown(&fd, Some(fs::Uid::from_raw(meta.uid)), Some(fs::Gid::from_raw(meta.gid)))?;
        fs::fchmod(&fd, Mode::from_raw_mode(meta.mode))?;
        fs::futimens(&fd, &times(meta.mtime_seconds))?;
        Ok(())
    }

    /// Names in a directory, sorted.
    pub(crate) fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let fd = match self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&fd)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    pub(crate) fn stat(&self, path: &str) -> io::Result<fs::Stat> {
        let (parent, name) = split(path);
        let parent = self.resolve(parent, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub(crate) fn fd(&self) -> impl AsFd + '_ {
        self.fd.as_fd()
    }
}

/// A new, empty file of mode 0600; what bears the name goes away.
pub(crate) fn create(parent: &OwnedFd, name: &str) -> io::Result<std::fs::File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || fs::openat(parent, name, flags, Mode::from_raw_mode(0o600));
    let fd = match open() {
        Err(rustix::io::Errno::EXIST) => {
            fs::unlinkat(parent, name, AtFlags::empty())?;
            open()?
        }
        other => other?,
    };
    Ok(fd.into())
}

/// Parent and last name of a relative path.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Access and modification time, whole seconds.
pub(crate) fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// Remembers the directory used last: files of a package come grouped.
#[derive(Default)]
pub(crate) struct LastDirectory {
    last: Option<(String, Arc<OwnedFd>)>,
}

impl LastDirectory {
    pub(crate) fn get(&mut self, root: &Root, path: &str) -> io::Result<Arc<OwnedFd>> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(fd.clone());
        }
        let fd = Arc::new(root.directory(path)?);
        self.last = Some((path.into(), fd.clone()));
        Ok(fd)
    }
}
