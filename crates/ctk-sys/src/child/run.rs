//! Running another program to its end, between clone and exec: the hooks of a container.

use core::ffi::CStr;

use syscalls::{Errno, Sysno, syscall};

use super::{Done, close, duplicate, execute, exit, reset_signals};
use crate::step::{Pointer, RawFd};

/// An errno from here on is this and the exit code of a program that was run.
pub const ENDED: i32 = 0x1000;

/// An errno from here on is this and the signal that killed a program that was run.
pub const KILLED: i32 = 0x2000;

pub(super) fn to_its_end(
    program: &CStr,
    arguments: &[Pointer<'_>],
    environment: &[Pointer<'_>],
    input: RawFd,
    timeout_ms: i64,
) -> Done {
    let ended = |vector: &[Pointer<'_>]| vector.last().is_some_and(|end| end.0.is_null());
    if !ended(arguments) || !ended(environment) {
        return Err(Errno::EINVAL);
    }
    // SAFETY: takes numbers.
    unsafe { syscall!(Sysno::lseek, input, 0, libc::SEEK_SET) }?;
    let Some(pidfd) = crate::clone::copy()? else {
        let _ = duplicate(input, 0);
        let _ = reset_signals();
        let _ = execute(&[program], arguments.as_ptr().cast(), environment.as_ptr().cast());
        exit(127);
    };
    let result = wait(pidfd, timeout_ms);
    close(pidfd);
    result
}

fn wait(pidfd: RawFd, timeout_ms: i64) -> Done {
    let mut poll = libc::pollfd { fd: pidfd, events: libc::POLLIN, revents: 0 };
    let limit = libc::timespec { tv_sec: timeout_ms / 1000, tv_nsec: timeout_ms % 1000 * 1_000_000 };
    let limit = if timeout_ms < 0 { core::ptr::null() } else { &raw const limit };
    let in_time = loop {
        // SAFETY: one pollfd, a timespec or null, no mask; all outlive the call.
        match unsafe { syscall!(Sysno::ppoll, &raw mut poll, 1, limit, 0_usize, 8) } {
            Ok(0) => break false,
            Ok(_) => break true,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    };
    if !in_time {
        // SAFETY: takes numbers and a null.
        let _ = unsafe { syscall!(Sysno::pidfd_send_signal, pidfd, libc::SIGKILL, 0_usize, 0) };
    }
    const BY_PIDFD: u32 = 3;
    let mut information = core::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the buffer is a `siginfo_t`, all-zero a valid value of it; for an ended child the status is set.
    let (code, status) = unsafe {
        syscall!(Sysno::waitid, BY_PIDFD, pidfd, information.as_mut_ptr(), libc::WEXITED, 0_usize)?;
        let information = information.assume_init();
        (information.si_code, information.si_status())
    };
    match (in_time, code, status) {
        (false, _, _) => Err(Errno::ETIMEDOUT),
        (true, libc::CLD_EXITED, 0) => Ok(()),
        (true, libc::CLD_EXITED, code) => Err(Errno::new(ENDED + code)),
        (true, _, signal) => Err(Errno::new(KILLED + signal)),
    }
}
