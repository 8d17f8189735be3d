//! A terminal of the container, and sending files.

use core::mem::{size_of, size_of_val};

use syscalls::{Errno, Sysno, syscall};

use super::{Done, attach_to, clone_tree, close, duplicate, make};
use crate::step::{MountKind, RawFd};

const DEVPTS_MAGIC: u64 = 0x1cd1;

pub(super) fn open(socket: RawFd, owner: (u32, u32), size: (u16, u16), console: bool) -> Done {
    // Not by a link, and of no other file system: what an image put there is no terminal.
    let master = open_at_pts()?;
    let unlock: i32 = 0;
    // SAFETY: TIOCSPTLCK reads an int.
    unsafe { syscall!(Sysno::ioctl, master, libc::TIOCSPTLCK, &raw const unlock) }?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // The other end by the descriptor, not by its name (CVE-2025-52565).
    // SAFETY: TIOCGPTPEER takes flags and gives a descriptor.
    let slave = unsafe { syscall!(Sysno::ioctl, master, libc::TIOCGPTPEER, flags) }? as RawFd;
    if size != (0, 0) {
        let size: [u16; 4] = [size.0, size.1, 0, 0];
        // SAFETY: TIOCSWINSZ reads `struct winsize`, four u16.
        unsafe { syscall!(Sysno::ioctl, slave, libc::TIOCSWINSZ, size.as_ptr()) }?;
    }
    // SAFETY: takes numbers. Where the file system's owner cannot be changed it is right already.
    let _ = unsafe { syscall!(Sysno::fchown, slave, owner.0, owner.1) };
    if console {
        make(c"/dev/console", MountKind::File, 0o600)?;
        // Not through a link: it would show the terminal where nobody asked for it.
        let at = super::open(c"/dev/console", libc::O_PATH, true)?;
        let tree = clone_tree(slave, false)?;
        let result = attach_to(tree, at);
        close(tree);
        close(at);
        result?;
    }
    send(socket, master, b"/dev/ptmx")?;
    close(master);
    for number in 0..3 {
        duplicate(slave, number)?;
    }
    if slave > 2 {
        close(slave);
    }
    Ok(())
}

fn open_at_pts() -> Result<RawFd, Errno> {
    let file = super::open(c"/dev/pts/ptmx", libc::O_RDWR | libc::O_NOCTTY, true)?;
    let mut status = core::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the buffer is a `struct statfs`; all-zero is a valid value of it.
    let kind = unsafe {
        syscall!(Sysno::fstatfs, file, status.as_mut_ptr())?;
        status.assume_init().f_type
    };
    if kind as u64 == DEVPTS_MAGIC { Ok(file) } else { Err(Errno::ENODEV) }
}

/// Sends a file with some bytes through a connected unix socket.
pub(super) fn send(socket: RawFd, file: RawFd, text: &[u8]) -> Done {
    /// `struct cmsghdr` with one descriptor, padded to whole words.
    #[repr(C)]
    struct Control {
        length: usize,
        level: i32,
        kind: i32,
        file: i32,
        padding: i32,
    }
    let control = Control {
        length: size_of::<usize>() + 2 * size_of::<i32>() + size_of::<i32>(),
        level: libc::SOL_SOCKET,
        kind: libc::SCM_RIGHTS,
        file,
        padding: 0,
    };
    let part: [usize; 2] = [text.as_ptr() as usize, text.len()];
    let mut message = core::mem::MaybeUninit::<libc::msghdr>::zeroed();
    // SAFETY: all-zero is a valid `struct msghdr`; its parts outlive the call, and their lengths are their own.
    unsafe {
        let header = message.assume_init_mut();
        header.msg_iov = part.as_ptr() as *mut libc::iovec;
        header.msg_iovlen = 1;
        header.msg_control = (&raw const control).cast_mut().cast();
        header.msg_controllen = size_of_val(&control) as _;
        syscall!(Sysno::sendmsg, socket, message.as_ptr(), libc::MSG_NOSIGNAL)
    }
    .map(drop)
}
