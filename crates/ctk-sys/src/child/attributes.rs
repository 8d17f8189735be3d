//! What a process is: capabilities, filters, priorities.

use core::ffi::CStr;

use syscalls::{Errno, Sysno, syscall};

use super::{Done, close, open_at, terminal};
use crate::step::{Filter, RawFd};

pub(super) fn keyring(name: &CStr) -> Done {
    const JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: NUL-terminated name.
    match unsafe { syscall!(Sysno::keyctl, JOIN_SESSION_KEYRING, name.as_ptr(), 0, 0, 0) } {
        // None in this kernel, or forbidden by whoever runs us: as if it had none.
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

pub(super) fn landlock(files: u64, scoped: u64) -> Done {
    if files == 0 {
        return crate::landlock::restrict(files, 0, scoped, core::iter::empty());
    }
    let root = open_at(c"/".as_ptr(), libc::O_PATH | libc::O_DIRECTORY, false)?;
    let result = crate::landlock::restrict(files, 0, scoped, core::iter::once((root, files)));
    close(root);
    result
}

pub(super) fn scheduler(attributes: &[u8]) -> Done {
    // `size` of the structure comes first; the kernel reads that much.
    let Some(size) = attributes.first_chunk::<4>().map(|size| u32::from_ne_bytes(*size)) else {
        return Err(Errno::EINVAL);
    };
    if size as usize > attributes.len() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the buffer is as long as it says.
    unsafe { syscall!(Sysno::sched_setattr, 0, attributes.as_ptr(), 0) }.map(drop)
}

pub(super) fn memory_policy(mode: u32, nodes: &[u64]) -> Done {
    // The kernel counts one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let start = if nodes.is_empty() { core::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads as many whole words as there are.
    unsafe { syscall!(Sysno::set_mempolicy, mode, start, bits) }.map(drop)
}

pub(super) fn capability_sets(effective: u64, permitted: u64, inheritable: u64, ambient: u64) -> Done {
    const AMBIENT_RAISE: i32 = 2;
    const AMBIENT_CLEAR_ALL: i32 = 4;
    // SAFETY: takes numbers. A kernel without ambient capabilities has none to clear.
    match unsafe { syscall!(Sysno::prctl, libc::PR_CAP_AMBIENT, AMBIENT_CLEAR_ALL, 0, 0, 0) } {
        Ok(_) | Err(Errno::EINVAL) => {}
        Err(errno) => return Err(errno),
    }
    // _LINUX_CAPABILITY_VERSION_3, this process; then (effective, permitted, inheritable) twice, low words first.
    let header: [u32; 2] = [0x2008_0522, 0];
    let (low, high) = (|set: u64| set as u32, |set: u64| (set >> 32) as u32);
    let data: [u32; 6] =
        [low(effective), low(permitted), low(inheritable), high(effective), high(permitted), high(inheritable)];
    // SAFETY: version 3 reads a header of two and data of six words.
    unsafe { syscall!(Sysno::capset, header.as_ptr(), data.as_ptr()) }?;
    for capability in 0..64_u32 {
        if ambient & permitted & inheritable & 1 << capability == 0 {
            continue;
        }
        // SAFETY: takes numbers.
        match unsafe { syscall!(Sysno::prctl, libc::PR_CAP_AMBIENT, AMBIENT_RAISE, capability, 0, 0) } {
            Ok(_) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

pub(super) fn filter(program: &[Filter], flags: u32, listener: RawFd, state: RawFd) -> Done {
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const Filter,
    }
    const SET_MODE_FILTER: u32 = 1;
    const NEW_LISTENER: u32 = 8;
    let Ok(length) = u16::try_from(program.len()) else { return Err(Errno::E2BIG) };
    let program = Program { length, filter: program.as_ptr() };
    let mut flags = flags;
    if listener >= 0 {
        flags |= NEW_LISTENER;
        // Sending is a system call, which the filter may hold up until the listener allows it: a process beside this
        // one, without the filter but with the same files, waits for the listener's number to appear, and sends it.
        // SAFETY: takes a number; a copy at the lowest free number shows which one comes next.
        let next = unsafe { syscall!(Sysno::dup, listener) }? as RawFd;
        close(next);
        if crate::clone::beside()? {
            send_when_there(next, listener, state);
        }
    }
    // SAFETY: `Program` is `struct sock_fprog`, pointing to `length` instructions that outlive the call.
    unsafe { syscall!(Sysno::seccomp, SET_MODE_FILTER, flags, &raw const program) }.map(drop)
}

/// What the process beside does; it never comes back.
fn send_when_there(number: RawFd, socket: RawFd, state: RawFd) -> ! {
    // SAFETY: takes nothing. Whose child this is changes when the filtered process ends.
    let parent = unsafe { syscall!(Sysno::getppid) };
    // A listener appears within microseconds; ten seconds say that the kernel refused the filter.
    for _ in 0..100_000 {
        // SAFETY: takes numbers.
        let there = unsafe { syscall!(Sysno::fcntl, number, libc::F_GETFD, 0) }.is_ok();
        if there {
            let done = send_with(number, socket, state);
            super::exit(i32::from(done.is_err()));
        }
        let pause = libc::timespec { tv_sec: 0, tv_nsec: 100_000 };
        // SAFETY: a timespec that outlives the call.
        let _ = unsafe { syscall!(Sysno::nanosleep, &raw const pause, 0_usize) };
        // SAFETY: takes nothing.
        if unsafe { syscall!(Sysno::getppid) } != parent {
            break;
        }
    }
    super::exit(1)
}

/// Sends a file with everything that another holds.
fn send_with(number: RawFd, socket: RawFd, state: RawFd) -> Done {
    let mut text = [0_u8; 4096];
    let mut sent = 0;
    loop {
        // SAFETY: pointer and length of one buffer.
        let length = unsafe { syscall!(Sysno::pread64, state, text.as_mut_ptr(), text.len(), sent) }?;
        let part = text.get(..length).unwrap_or(&[]);
        match sent {
            // A file comes with some bytes or not at all.
            0 if part.is_empty() => return Err(Errno::ENODATA),
            0 => terminal::send(socket, number, part)?,
            _ if part.is_empty() => return Ok(()),
            _ => super::write(socket, part)?,
        }
        sent += length;
    }
}
