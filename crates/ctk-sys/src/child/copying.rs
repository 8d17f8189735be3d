//! Copying what a directory holds into another file system: a tmpfs that begins with it.

use core::ffi::CStr;

use syscalls::{Errno, Sysno, syscall};

use super::{Done, EMPTY, attach_to, close, mounting, new_mount, open};
use crate::step::{CopyLimits, RawFd};

/// One call's worth of directory entries.
#[repr(align(8))]
struct Entries([u8; 1024]);

/// `struct linux_dirent64` before the name: inode, offset, length of the record, type.
const LENGTH_AT: usize = 16;
const NAME_AT: usize = 19;

type Options<'a> = &'a [(&'a CStr, &'a CStr)];

/// A new file system with a copy of the directory that it will hide.
pub(super) fn new_mount_with(
    kind: &CStr,
    options: Options<'_>,
    attributes: u64,
    propagation: u64,
    at: &CStr,
    no_links: bool,
    limits: &CopyLimits,
) -> Done {
    let read_only = attributes & super::ATTRIBUTE_READ_ONLY;
    let mount = new_mount(kind, options, attributes & !read_only)?;
    let from = open(at, libc::O_RDONLY | libc::O_DIRECTORY, no_links)?;
    // What `fsmount` gives is only a path.
    let to = directory(mount, c".")?;
    let mut left = limits.entries;
    copy(from, to, limits.depth, &mut left)?;
    let mode_given = options.iter().any(|(key, _)| *key == c"mode");
    let status = status(from, EMPTY)?;
    owner(to, EMPTY, &status)?;
    if !mode_given {
        mode(to, &status)?;
    }
    close(to);
    mounting::set_attributes(mount, false, read_only, 0, propagation)?;
    let result = attach_to(mount, from);
    close(from);
    close(mount);
    result
}

fn directory(at: RawFd, name: &CStr) -> Result<RawFd, Errno> {
    open_file(at, name, libc::O_RDONLY | libc::O_DIRECTORY)
}

fn open_file(at: RawFd, name: &CStr, flags: i32) -> Result<RawFd, Errno> {
    let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: NUL-terminated name.
    unsafe { syscall!(Sysno::openat, at, name.as_ptr(), flags, 0o600) }.map(|file| file as RawFd)
}

fn copy(from: RawFd, to: RawFd, depth: u32, left: &mut u32) -> Done {
    if depth == 0 {
        return Err(Errno::ELOOP);
    }
    let mut entries = Entries([0; 1024]);
    loop {
        // SAFETY: pointer and length of one buffer.
        let length = unsafe { syscall!(Sysno::getdents64, from, entries.0.as_mut_ptr(), entries.0.len()) }?;
        if length == 0 {
            return Ok(());
        }
        let mut rest = entries.0.get(..length).unwrap_or(&[]);
        while let Some(&[low, high]) = rest.get(LENGTH_AT..NAME_AT - 1) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            let name = rest.get(NAME_AT..length).and_then(|name| CStr::from_bytes_until_nul(name).ok());
            let Some(name) = name else { return Err(Errno::EIO) };
            rest = rest.get(length..).unwrap_or(&[]);
            if name == c"." || name == c".." {
                continue;
            }
            *left = left.checked_sub(1).ok_or(Errno::EFBIG)?;
            copy_one(from, to, name, depth, left)?;
        }
    }
}

fn copy_one(from: RawFd, to: RawFd, name: &CStr, depth: u32, left: &mut u32) -> Done {
    let status = status(from, name)?;
    let kind = u32::from(status.stx_mode) & libc::S_IFMT;
    match kind {
        libc::S_IFDIR => {
            // SAFETY: NUL-terminated name.
            unsafe { syscall!(Sysno::mkdirat, to, name.as_ptr(), 0o700) }?;
            let (inner, outer) = (directory(from, name)?, directory(to, name)?);
            copy(inner, outer, depth - 1, left)?;
            owner(outer, EMPTY, &status)?;
            mode(outer, &status)?;
            close(inner);
            close(outer);
            Ok(())
        }
        libc::S_IFREG => {
            let source = open_file(from, name, libc::O_RDONLY | libc::O_NONBLOCK)?;
            let target = open_file(to, name, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL)?;
            // SAFETY: takes numbers; without an offset the files' own count.
            while unsafe { syscall!(Sysno::sendfile, target, source, 0_usize, 0x7fff_f000_usize) }? > 0 {}
            owner(target, EMPTY, &status)?;
            mode(target, &status)?;
            close(source);
            close(target);
            Ok(())
        }
        libc::S_IFLNK => link(from, to, name, &status),
        _ => {
            let device = u64::from(status.stx_rdev_minor & 0xff)
                | u64::from(status.stx_rdev_major & 0xfff) << 8
                | u64::from(status.stx_rdev_minor & !0xff) << 12;
            // SAFETY: NUL-terminated names.
            unsafe {
                syscall!(Sysno::mknodat, to, name.as_ptr(), u32::from(status.stx_mode), device)?;
                // The mask of file modes applied. It is no link: it was made just now, in a directory of our own.
                syscall!(Sysno::fchmodat, to, name.as_ptr(), u32::from(status.stx_mode) & 0o7777)?;
            }
            owner(to, name, &status)
        }
    }
}

/// On its own, so that its buffer is not on the stack once for each directory.
#[inline(never)]
fn link(from: RawFd, to: RawFd, name: &CStr, status: &libc::statx) -> Done {
    let mut target = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: NUL-terminated name; pointer and length of one buffer, the last byte of which stays a NUL.
    unsafe {
        syscall!(Sysno::readlinkat, from, name.as_ptr(), target.as_mut_ptr(), target.len() - 1)?;
        syscall!(Sysno::symlinkat, target.as_ptr(), to, name.as_ptr())?;
    }
    owner(to, name, status)
}

fn status(at: RawFd, name: &CStr) -> Result<libc::statx, Errno> {
    let mut status = core::mem::MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: NUL-terminated name; the buffer is a `struct statx`, and all-zero is a valid value of it.
    unsafe {
        syscall!(Sysno::statx, at, name.as_ptr(), flags, libc::STATX_BASIC_STATS, status.as_mut_ptr())?;
        Ok(status.assume_init())
    }
}

fn owner(at: RawFd, name: &CStr, status: &libc::statx) -> Done {
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: NUL-terminated name.
    match unsafe { syscall!(Sysno::fchownat, at, name.as_ptr(), status.stx_uid, status.stx_gid, flags) } {
        // An id that the user namespace does not have: the copy is the container's own.
        Ok(_) | Err(Errno::EINVAL | Errno::EPERM | Errno::EOVERFLOW) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn mode(file: RawFd, status: &libc::statx) -> Done {
    // SAFETY: takes numbers.
    unsafe { syscall!(Sysno::fchmod, file, u32::from(status.stx_mode) & 0o7777) }.map(drop)
}
