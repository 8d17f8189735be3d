//! Roots, mounts, nodes and settings.

use core::ffi::CStr;
use core::mem::size_of;

use syscalls::{Errno, Sysno, syscall};

use super::{CWD, Done, EMPTY, OpenHow, attach, clone_tree, close, fill, open_at, write};
use crate::host::MountAttributes;
use crate::step::RawFd;

const PROC_MAGIC: u64 = 0x9fa0;
const RESOLVE_STRICT: u64 = 0x01 | 0x02 | 0x04 | 0x08; // NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH
const MOVE_FROM_EMPTY: u32 = 0x04;
const MOVE_TO_FOLLOW: u32 = 0x10;

pub(super) fn propagation(at: &CStr, flags: u64) -> Done {
    // SAFETY: NUL-terminated path; source, type and data may be null for a change of propagation.
    unsafe { syscall!(Sysno::mount, 0_usize, at.as_ptr(), 0_usize, flags, 0_usize) }.map(drop)
}

pub(super) fn place_root(mount: RawFd, at: &CStr) -> Done {
    // SAFETY: NUL-terminated constants and path.
    unsafe {
        syscall!(Sysno::move_mount, mount, EMPTY.as_ptr(), CWD, at.as_ptr(), MOVE_FROM_EMPTY | MOVE_TO_FOLLOW)?;
        syscall!(Sysno::fchdir, mount)?;
    }
    Ok(())
}

pub(super) fn place_directory(path: &CStr, at: &CStr) -> Done {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: NUL-terminated path.
    let directory = unsafe { syscall!(Sysno::openat, CWD, path.as_ptr(), flags, 0) }? as RawFd;
    let tree = clone_tree(directory, true)?;
    close(directory);
    set_attributes(tree, true, 0, 0, libc::MS_SLAVE)?;
    place_root(tree, at)
}

pub(super) fn enter_placed(pivot: bool) -> Done {
    // SAFETY: NUL-terminated constants.
    unsafe {
        if pivot {
            // pivot_root(".", "."): the old root ends up stacked on the new one, from where it is let go.
            syscall!(Sysno::pivot_root, c".".as_ptr(), c".".as_ptr())?;
            // All of it was made a slave of the host's, so nothing is unmounted there.
            syscall!(Sysno::umount2, c".".as_ptr(), libc::MNT_DETACH)?;
        } else {
            syscall!(Sysno::chroot, c".".as_ptr())?;
        }
        syscall!(Sysno::chdir, c"/".as_ptr())?;
    }
    Ok(())
}

/// Changes attributes of the mount of an open file.
pub(super) fn set_attributes(file: RawFd, recursive: bool, set: u64, clear: u64, propagation: u64) -> Done {
    let attributes = MountAttributes { set, clear, propagation, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: a NUL-terminated constant and attributes of the size given.
    unsafe {
        syscall!(Sysno::mount_setattr, file, EMPTY.as_ptr(), flags, &raw const attributes, size_of::<MountAttributes>())
    }
    .map(drop)
}

pub(super) fn bind_host(from: &CStr, recursive: bool, at: &CStr) -> Done {
    // SAFETY: NUL-terminated path.
    let file = unsafe { syscall!(Sysno::openat, CWD, from.as_ptr(), libc::O_PATH | libc::O_CLOEXEC, 0) }? as RawFd;
    let tree = clone_tree(file, recursive);
    close(file);
    let tree = tree?;
    let result = attach(tree, at, false);
    close(tree);
    result
}

/// Writes below `/proc/sys` of a file system that is checked to be `proc`, through no link and no other mount.
pub(super) fn setting(path: &CStr, value: &[u8]) -> Done {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: a NUL-terminated constant.
    let root = unsafe { syscall!(Sysno::openat, CWD, c"/proc".as_ptr(), flags, 0) }? as RawFd;
    let mut status = core::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the buffer is a `struct statfs`; all-zero is a valid value of it.
    let kind = unsafe {
        syscall!(Sysno::fstatfs, root, status.as_mut_ptr())?;
        status.assume_init().f_type
    };
    if kind as u64 != PROC_MAGIC {
        return Err(Errno::EXDEV);
    }
    let how = OpenHow {
        flags: (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64,
        mode: 0,
        resolve: RESOLVE_STRICT,
    };
    // SAFETY: NUL-terminated constant and path; `how` is of the size given.
    let file = unsafe {
        let below = syscall!(Sysno::openat2, root, c"sys".as_ptr(), &raw const how, size_of::<OpenHow>())? as RawFd;
        close(root);
        let how = OpenHow { flags: (libc::O_WRONLY | libc::O_CLOEXEC) as u64, mode: 0, resolve: RESOLVE_STRICT };
        let file = syscall!(Sysno::openat2, below, path.as_ptr(), &raw const how, size_of::<OpenHow>());
        close(below);
        file? as RawFd
    };
    let result = write(file, value);
    close(file);
    result
}

/// Opens the directory of a path inside the root and gives the last name, NUL-terminated, in the buffer.
fn parent_of(path: &CStr, buffer: &mut [u8]) -> Result<RawFd, Errno> {
    let bytes = path.to_bytes();
    let end = bytes.iter().rposition(|byte| *byte == b'/').ok_or(Errno::EINVAL)?;
    let name = bytes.get(end + 1..).unwrap_or(&[]);
    if name.is_empty() || name == b"." || name == b".." || bytes.len() >= buffer.len() {
        return Err(Errno::EINVAL);
    }
    fill(buffer, if end == 0 { b"/" } else { bytes.get(..end).unwrap_or(b"/") });
    let parent = open_at(buffer.as_ptr().cast(), libc::O_PATH | libc::O_DIRECTORY, false)?;
    fill(buffer, name);
    Ok(parent)
}

pub(super) fn node(path: &CStr, mode: u32, device: u64, owner: (u32, u32)) -> Done {
    let mut name = [0_u8; libc::PATH_MAX as usize];
    let parent = parent_of(path, &mut name)?;
    // SAFETY: `parent_of` NUL-terminated the name.
    let result = unsafe {
        match syscall!(Sysno::mknodat, parent, name.as_ptr(), mode, device) {
            Err(Errno::EEXIST) => {
                let kept = same_node(parent, &name, mode, device);
                close(parent);
                return kept;
            }
            Ok(_) => Ok(()),
            Err(errno) => Err(errno),
        }
        // The umask applied, and the node is ours: nobody else is here yet.
        .and_then(|()| syscall!(Sysno::fchmodat, parent, name.as_ptr(), mode & 0o7777).map(drop))
        .and_then(|()| {
            let flags = libc::AT_SYMLINK_NOFOLLOW;
            syscall!(Sysno::fchownat, parent, name.as_ptr(), owner.0, owner.1, flags).map(drop)
        })
    };
    close(parent);
    result
}

/// Whether what is there is the node that was to be made; an image's own `/dev/null` may be anything else.
fn same_node(parent: RawFd, name: &[u8], mode: u32, device: u64) -> Done {
    let mut status = core::mem::MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the name is NUL-terminated, the buffer a `struct statx`; all-zero is a valid value of it.
    let status = unsafe {
        syscall!(Sysno::statx, parent, name.as_ptr(), flags, libc::STATX_TYPE, status.as_mut_ptr())?;
        status.assume_init()
    };
    let there = (u64::from(status.stx_rdev_major), u64::from(status.stx_rdev_minor));
    let wanted = (device >> 8 & 0xfff | device >> 32 & 0xffff_f000, device & 0xff | device >> 12 & 0xffff_ff00);
    let same_kind = u32::from(status.stx_mode) & libc::S_IFMT == mode & libc::S_IFMT;
    if same_kind && there == wanted { Ok(()) } else { Err(Errno::EEXIST) }
}

pub(super) fn link(target: &CStr, path: &CStr) -> Done {
    let mut name = [0_u8; libc::PATH_MAX as usize];
    let parent = parent_of(path, &mut name)?;
    // SAFETY: both are NUL-terminated.
    let result = unsafe { syscall!(Sysno::symlinkat, target.as_ptr(), parent, name.as_ptr()) };
    close(parent);
    match result {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}
