//! Takes out of a root what differs between two runs over the same packages: logs, caches, backups, times.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};

use crate::install::rootfs::Root;

/// Files that scripts leave behind and nobody needs.
const LEFTOVERS: [&str; 14] = [
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/subuid-",
    "etc/subgid-",
    "etc/.pwd.lock",
    "var/cache/ldconfig/aux-cache",
    "var/cache/apt/pkgcache.bin",
    "var/cache/apt/srcpkgcache.bin",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/cache/debconf/passwords.dat-old",
    "usr/sbin/policy-rc.d",
];

/// Makes the tree a function of its packages. No file has a time after `epoch_seconds`.
pub(crate) fn normalise(root: &Root, epoch_seconds: i64) -> Result<(), (String, io::Error)> {
    let at = |path: &str| {
        let path = format!("/{path}");
        move |e: io::Error| (path, e)
    };
    for path in LEFTOVERS {
        root.remove(path).map_err(at(path))?;
    }
    for name in root.list("var/lib/dpkg").map_err(at("var/lib/dpkg"))? {
        if name.ends_with("-old") {
            let path = format!("var/lib/dpkg/{name}");
            root.remove(&path).map_err(at(&path))?;
        }
    }
    for directory in ["tmp", "var/tmp", "run/lock"] {
        for name in root.list(directory).map_err(at(directory))? {
            let path = format!("{directory}/{name}");
            // Directories of packages stay; scripts leave plain files only.
            if is_file(root, &path) {
                root.remove(&path).map_err(at(&path))?;
            }
        }
    }
    remove_logs(root, "var/log").map_err(at("var/log"))?;
    // The machine that boots the image makes its own.
    if is_file(root, "etc/machine-id") {
        root.write("etc/machine-id", b"", 0o444).map_err(at("etc/machine-id"))?;
    }
    last_change(root, "etc/shadow", epoch_seconds).map_err(at("etc/shadow"))?;
    let top = fs::openat(root.fd(), ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let top = top.map_err(|e| ("/".to_string(), e.into()))?;
    clamp(&top, epoch_seconds, &mut String::new())?;
    Ok(())
}

fn is_file(root: &Root, path: &str) -> bool {
    root.stat(path).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile)
}

/// Log files with content go; empty ones belong to packages (`wtmp`, `btmp`).
fn remove_logs(root: &Root, directory: &str) -> io::Result<()> {
    for name in root.list(directory)? {
        let path = format!("{directory}/{name}");
        let stat = root.stat(&path)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => remove_logs(root, &path)?,
            FileType::RegularFile if stat.st_size > 0 => root.remove(&path)?,
            _ => {}
        }
    }
    Ok(())
}

/// The day of the last password change is the day of the packages, not of the build.
fn last_change(root: &Root, path: &str, epoch_seconds: i64) -> io::Result<()> {
    let Ok(stat) = root.stat(path) else { return Ok(()) };
    let text = String::from_utf8_lossy(&root.read(path)?).into_owned();
    let day = (epoch_seconds / 86_400).to_string();
    let mut fixed = String::with_capacity(text.len());
    for line in text.lines() {
        let mut fields: Vec<&str> = line.split(':').collect();
        if fields.get(2).is_some_and(|f| f.parse::<u64>().is_ok_and(|n| n > 0)) {
            fields[2] = &day;
        }
        fixed.push_str(&fields.join(":"));
        fixed.push('\n');
    }
    if fixed == text {
        return Ok(());
    }
    root.write(path, fixed.as_bytes(), stat.st_mode & 0o7777)?;
    let (parent, name) = crate::install::rootfs::split(path);
    let parent = root.directory(parent)?;
    let (uid, gid) = (fs::Uid::from_raw(stat.st_uid), fs::Gid::from_raw(stat.st_gid));
    fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    fs::chmodat(&parent, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    Ok(())
}

/// No time after the epoch, no fractions of seconds, in the whole tree.
fn clamp(directory: &OwnedFd, epoch_seconds: i64, path: &mut String) -> Result<(), (String, io::Error)> {
    let failed = |path: &str, e: rustix::io::Errno| (format!("/{path}"), io::Error::from(e));
    let mut below = Vec::new();
    for entry in fs::Dir::read_from(directory).map_err(|e| failed(path, e))? {
        let entry = entry.map_err(|e| failed(path, e))?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            below.push(name.to_owned());
            continue;
        }
        let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(path, e))?;
        if let Some(times) = clamped(&stat, epoch_seconds) {
            fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(path, e))?;
        }
    }
    for name in below {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let child = fs::openat(directory, &name, flags, Mode::empty()).map_err(|e| failed(path, e))?;
        let length = path.len();
        if length > 0 {
            path.push('/');
        }
        path.push_str(&name.to_string_lossy());
        clamp(&child, epoch_seconds, path)?;
        path.truncate(length);
    }
    let stat = fs::fstat(directory.as_fd()).map_err(|e| failed(path, e))?;
    if let Some(times) = clamped(&stat, epoch_seconds) {
        fs::futimens(directory.as_fd(), &times).map_err(|e| failed(path, e))?;
    }
    Ok(())
}

fn clamped(stat: &fs::Stat, epoch_seconds: i64) -> Option<Timestamps> {
    if stat.st_mtime <= epoch_seconds && stat.st_mtime_nsec == 0 {
        return None;
    }
    // Package files have whole seconds up to the epoch: this one was made just now, by whatever clock the host has.
    let time = Timespec { tv_sec: epoch_seconds, tv_nsec: 0 };
    Some(Timestamps { last_access: time, last_modification: time })
}
