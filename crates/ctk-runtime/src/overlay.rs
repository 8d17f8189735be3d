//! Overlay mounts, attached nowhere yet.
//!
//! Since linux 6.7 the new mount API takes the lower directories one by one. Before, overlay spoke only to mount(2),
//! whose options share a page, and needs a place to be mounted at: a thread in a mount namespace of its own lends one,
//! and takes a copy of the mount along when it ends.
//!
//! A lower "directory" may be an EROFS image: a file that is mounted from itself (linux 6.12), attached nowhere; what
//! overlay is told is a path through its descriptor.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change, move_mount,
    open_tree,
};

use crate::limits::FSCONFIG_STRING_BYTES;

/// `CLONE_NEWNS`: what a thread unshares to mount unseen.
const NEW_MOUNTS: u32 = 0x0002_0000;

/// What failed, for people, and the kernel's word.
pub(crate) type Failed = (String, Errno);

/// Mounts the overlay of `lowers` (top first) with its other options; an option without a value is a flag.
pub(crate) fn overlay(lowers: &[String], rest: &[(&str, &str)], attributes: u64) -> Result<OwnedFd, Failed> {
    // Held until the overlay, which has clones of its own, exists.
    let mut images = Vec::new();
    let mut directories = Vec::with_capacity(lowers.len());
    for lower in lowers {
        let failed = |e: Errno| match e {
            Errno::NOTBLK | Errno::NODEV => (format!("the EROFS image {lower}: linux mounts such files since 6.12"), e),
            _ => (format!("lowerdir={lower}"), e),
        };
        directories.push(match image(lower).map_err(failed)? {
            Some(mount) => {
                let shown = format!("/proc/self/fd/{}", mount.as_raw_fd());
                images.push(mount);
                shown
            }
            None => lower.clone(),
        });
    }
    let lowers = &directories[..];
    match one_by_one(lowers, rest, attributes) {
        Err(first) if first.1 == Errno::INVAL => match in_a_page(lowers, rest, attributes) {
            // Wrong in itself, whichever way it is said; the first answer names the option.
            Err((_, Errno::INVAL)) => Err(first),
            result => result,
        },
        result => result,
    }
}

/// The EROFS image `path` as a mount, attached nowhere; `None` if it is no file. EPERM in a user namespace, ENOTBLK
/// before linux 6.12.
pub(crate) fn image(path: &str) -> Result<Option<OwnedFd>, Errno> {
    let status = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", path)?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map(Some)
}

fn one_by_one(lowers: &[String], rest: &[(&str, &str)], attributes: u64) -> Result<OwnedFd, Failed> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| ("overlay".to_string(), e))?;
    let mut short = ShortPaths::default();
    for lower in lowers {
        let set = short.of(lower).and_then(|path| fsconfig_set_string(context.as_fd(), "lowerdir+", path));
        set.map_err(|e| (format!("lowerdir={lower}"), e))?;
    }
    for (key, value) in rest {
        let result = match (*key, *value) {
            ("upperdir" | "workdir", path) => {
                short.of(path).and_then(|path| fsconfig_set_string(context.as_fd(), *key, path))
            }
            (key, "") => fsconfig_set_flag(context.as_fd(), key),
            (key, value) => fsconfig_set_string(context.as_fd(), key, value),
        };
        result.map_err(|e| (format!("{key}={value}"), e))?;
    }
    fsconfig_create(context.as_fd()).map_err(|e| (what(), e))?;
    let flags = MountAttrFlags::from_bits_retain(attributes as u32);
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(|e| (what(), e))
}

fn in_a_page(lowers: &[String], rest: &[(&str, &str)], attributes: u64) -> Result<OwnedFd, Failed> {
    let failed = |e: Errno| (what(), e);
    let Some(place) = lowers.first() else { return Err(failed(Errno::INVAL)) };
    let made = std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> Result<OwnedFd, Errno> {
            ctk_sys::unshare(NEW_MOUNTS)?;
            mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
            // Opened in here: overlay takes no directory of another mount namespace.
            let mut short = ShortPaths::default();
            let names = lowers.iter().map(|lower| short.always(lower)).collect::<Result<Vec<_>, _>>()?;
            let mut options = format!("lowerdir={}", names.join(":"));
            for (key, value) in rest {
                let value = match *key {
                    "upperdir" | "workdir" => short.always(value)?,
                    _ => (*value).to_owned(),
                };
                options += &if value.is_empty() { format!(",{key}") } else { format!(",{key}={value}") };
            }
            let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
            mount("overlay", Path::new(place), "overlay", MountFlags::empty(), Some(options.as_c_str()))?;
            open_tree(CWD, Path::new(place), OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
        });
        thread.join().unwrap_or(Err(Errno::IO))
    });
    let tree = made.map_err(failed)?;
    ctk_sys::mount_set_attributes(tree.as_fd(), false, attributes).map_err(failed)?;
    Ok(tree)
}

/// Does something with a detached mount while it is attached in a mount namespace of its own.
pub(crate) fn attached<T: Send>(
    mount: OwnedFd,
    then: impl FnOnce(&OwnedFd) -> Result<T, Errno> + Send,
) -> Result<T, Errno> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            ctk_sys::unshare(NEW_MOUNTS)?;
            mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
            move_mount(&mount, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            then(&mount)
        });
        thread.join().unwrap_or(Err(Errno::IO))
    })
}

fn what() -> String {
    "overlay of the image's layers".into()
}

/// Names of at most [`FSCONFIG_STRING_BYTES`] for longer paths: `/proc/self/fd/N`. Held until the mount exists.
#[derive(Default)]
struct ShortPaths(Vec<OwnedFd>);

impl ShortPaths {
    fn of(&mut self, path: &str) -> Result<String, Errno> {
        if path.len() <= FSCONFIG_STRING_BYTES { Ok(path.to_owned()) } else { self.always(path) }
    }

    fn always(&mut self, path: &str) -> Result<String, Errno> {
        let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let short = format!("/proc/self/fd/{}", file.as_raw_fd());
        self.0.push(file);
        Ok(short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways give the same tree, whichever this kernel would choose; many layers fit the old one, too.
    #[test]
    fn the_old_way_mounts_the_same() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs root, and CTK_TEST_REQUIRE is set");
            eprintln!("skipped: needs root");
            return;
        }
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let mut lowers = Vec::new();
        for number in 0..100 {
            let lower = path(&format!("a-rather-long-name-of-a-layer-as-digests-are-{number}"));
            std::fs::create_dir(&lower).unwrap();
            std::fs::write(format!("{lower}/{number}"), number.to_string()).unwrap();
            lowers.push(lower);
        }
        for (index, mount) in [one_by_one, in_a_page].into_iter().enumerate() {
            let (upper, work) = (path(&format!("upper{index}")), path(&format!("work{index}")));
            std::fs::create_dir(&upper).unwrap();
            std::fs::create_dir(&work).unwrap();
            let rest = [("upperdir", upper.as_str()), ("workdir", work.as_str()), ("volatile", "")];
            let tree = mount(&lowers, &rest, 0).unwrap();
            let flags = OFlags::CREATE | OFlags::WRONLY;
            rustix::fs::openat(&tree, "new", flags, Mode::from_raw_mode(0o644)).unwrap();
            for number in [0, 99] {
                rustix::fs::openat(&tree, number.to_string(), OFlags::RDONLY, Mode::empty()).unwrap();
            }
            drop(tree);
            assert!(Path::new(&upper).join("new").exists());
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(folder.path().to_str().unwrap()), "a mount is left");
    }
}
