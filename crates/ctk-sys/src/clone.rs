//! Starting a child by one `clone3`.

use core::convert::Infallible;
use core::mem::size_of;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use syscalls::{Sysno, syscall};

use crate::child::{self, Context};
use crate::errno;
use crate::step::{RawFd, Step};

/// How to start a child.
pub struct Start<'a> {
    /// `CLONE_NEW…` flags.
    pub namespaces: u64,
    /// A v2 cgroup directory to be born in.
    pub cgroup: Option<RawFd>,
    /// What it does; the last step should be [`Step::Execute`], a child that runs out of steps exits with 0.
    pub steps: &'a [Step<'a>],
}

/// A started child.
pub struct Child {
    /// Its process id.
    pub pid: i32,
    pidfd: OwnedFd,
    report: OwnedFd,
}

/// Which step failed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Index in [`Start::steps`].
    pub step: usize,
    /// Why.
    pub errno: i32,
}

/// The user namespace in which a child is made, and with it all of its new namespaces.
pub struct Within<'a> {
    /// Its file, or a pidfd of a process in it.
    pub user: RawFd,
    /// Namespaces to join before the child is made, as [`Step::Join`] has them: those that can be joined from here are
    /// joined from here, the others as a member of the user namespace.
    pub others: &'a [(RawFd, u32)],
}

/// Why there is no child in a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWithin {
    /// The user namespace could not be joined.
    User(Errno),
    /// One of the others could not be joined: its index in [`Within::others`].
    Other(usize, Errno),
    /// The child could not be made.
    Clone(Errno),
}

/// Not in `libc` at its full width.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args`, version 2 (linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Starts a child that walks `start.steps`. Call from a thread that lives as long as the process if a step is
/// [`Step::DieWithParent`]. The error is that of `clone3` itself; see [`Child::executed`] for the steps.
pub fn start(start: &Start<'_>) -> Result<Child, Errno> {
    let (report_read, report_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut pidfd: RawFd = -1;
    let mut flags = start.namespaces | libc::CLONE_PIDFD as u64;
    let mut cgroup = 0;
    if let Some(fd) = start.cgroup {
        flags |= CLONE_INTO_CGROUP;
        cgroup = fd as u64;
    }
    let arguments = CloneArgs {
        flags,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        cgroup,
        ..CloneArgs::default()
    };
    let mut context = Context::new(report_write.as_raw_fd());
    let read_end = report_read.as_raw_fd();
    let pid = copied(&arguments, || {
        child::close(read_end);
        child::run(&mut context, start.steps)
    })?;
    // SAFETY: the kernel stored a new descriptor in `pidfd` because of CLONE_PIDFD; nobody else knows it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid, pidfd, report: report_read })
}

/// Makes a copy of this process that does `then` and never comes back; its process id. Handlers of this process must not
/// run in the copy: until it resets them, it hears nothing.
fn copied(arguments: &CloneArgs, then: impl FnOnce() -> Infallible) -> Result<i32, Errno> {
    let all = u64::MAX;
    let mut before: u64 = 0;
    // SAFETY: both masks are 8 bytes, the size the kernel is told, and outlive the call.
    let blocked = unsafe {
        syscall!(Sysno::rt_sigprocmask, libc::SIG_SETMASK, &raw const all, &raw mut before, size_of::<u64>())
    };
    // SAFETY: without CLONE_VM the child gets a copy of this memory and stack, so returning twice is like `fork`; the
    // arguments are a valid clone_args of the size given. The child branch below never returns.
    let result = unsafe { syscall!(Sysno::clone3, core::ptr::from_ref(arguments), size_of::<CloneArgs>()) };
    if let Ok(0) = result {
        then();
    }
    if blocked.is_ok() {
        // SAFETY: as above; a null old mask is allowed.
        let _ =
            unsafe { syscall!(Sysno::rt_sigprocmask, libc::SIG_SETMASK, &raw const before, 0_usize, size_of::<u64>()) };
    }
    result.map(|pid| pid as i32).map_err(errno)
}

/// The same in a user namespace that is there already. Who joins one cannot go back, so this is done by a process in
/// between: it has our files, joins, makes the child as a child of ours, says its pidfd, and is gone.
pub fn start_within(start: &Start<'_>, within: &Within<'_>) -> Result<Child, NotWithin> {
    let failed = NotWithin::Clone;
    let (report_read, report_write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let (word_read, word_write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArgs {
        flags: (libc::CLONE_FILES | libc::CLONE_PIDFD) as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(fd) = start.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = fd as u64;
    }
    let mut context = Context::new(report_write.as_raw_fd());
    let (read_end, word) = (report_read.as_raw_fd(), word_write.as_raw_fd());
    // The files are shared, and the copy closes none of them.
    copied(&arguments, || between(&mut context, start, within, read_end, word)).map_err(failed)?;
    // SAFETY: the kernel stored a new descriptor in `pidfd` because of CLONE_PIDFD; nobody else knows it.
    let one_between = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let by = rustix::process::WaitId::PidFd(one_between.as_fd());
    while let Err(Errno::INTR) = rustix::process::waitid(by.clone(), rustix::process::WaitIdOptions::EXITED) {}
    // Not before: it was its file as well.
    drop(word_write);
    let told = read_record(word_read.as_fd()).ok_or(failed(Errno::CHILD))?;
    let why = Errno::from_raw_os_error(told.errno);
    match told.step {
        MADE => {
            let pid = read_record(word_read.as_fd()).ok_or(failed(Errno::CHILD))?.errno;
            // SAFETY: the one in between had the kernel put the child's pidfd into the files that we share, and is gone.
            let pidfd = unsafe { OwnedFd::from_raw_fd(told.errno) };
            Ok(Child { pid, pidfd, report: report_read })
        }
        NOT_MADE => Err(failed(why)),
        index if index == within.others.len() => Err(NotWithin::User(why)),
        index => Err(NotWithin::Other(index, why)),
    }
}

/// What the one in between says instead of the index of a namespace.
const MADE: usize = u32::MAX as usize;
const NOT_MADE: usize = u32::MAX as usize - 1;

/// What the process in between does; it never comes back.
fn between(context: &mut Context, start: &Start<'_>, within: &Within<'_>, read_end: RawFd, word: RawFd) -> ! {
    let say = |step: usize, value: i32| {
        if child::report(word, step, value).is_err() {
            child::exit(127);
        }
    };
    // SAFETY: takes numbers.
    let join = |(of, namespaces): (RawFd, u32)| unsafe { syscall!(Sysno::setns, of, namespaces) };
    // Nobody of the user namespace may look into a copy of the runtime.
    // SAFETY: takes numbers. The memory is this process's own copy, so the parent stays as it is.
    let hidden = unsafe { syscall!(Sysno::prctl, libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    if let Err(errno) = hidden {
        say(NOT_MADE, errno.into_raw());
        child::exit(127);
    }
    // Bits of those that are to be joined as a member.
    let mut later: u64 = 0;
    for (index, other) in within.others.iter().enumerate() {
        if join(*other).is_err() {
            later |= 1_u64 << (index & 63);
        }
    }
    if let Err(errno) = join((within.user, libc::CLONE_NEWUSER as u32)) {
        say(within.others.len(), errno.into_raw());
        child::exit(127);
    }
    for (index, other) in within.others.iter().enumerate() {
        if later >> (index & 63) & 1 == 1
            && let Err(errno) = join(*other)
        {
            say(index, errno.into_raw());
            child::exit(127);
        }
    }
    let mut pidfd: RawFd = -1;
    let arguments = CloneArgs {
        // A sibling of this process, with the signal of its end that this one has.
        flags: start.namespaces | (libc::CLONE_PARENT | libc::CLONE_PIDFD) as u64,
        pidfd: &raw mut pidfd as u64,
        ..CloneArgs::default()
    };
    // SAFETY: as in `start`. The copy has files of its own.
    match unsafe { syscall!(Sysno::clone3, &raw const arguments, size_of::<CloneArgs>()) } {
        Ok(0) => {
            child::close(read_end);
            child::close(word);
            child::run(context, start.steps)
        }
        Ok(pid) => {
            say(MADE, pidfd);
            say(MADE, pid as i32);
            child::exit(0)
        }
        Err(errno) => {
            say(NOT_MADE, errno.into_raw());
            child::exit(127)
        }
    }
}

/// Copies a process of one thread, without a signal when the copy ends; whether this is the copy.
pub(crate) fn detach() -> Result<bool, syscalls::Errno> {
    let arguments = CloneArgs::default();
    // SAFETY: without CLONE_VM the child gets a copy of this memory and stack, so returning twice is like `fork`; the
    // arguments are a valid clone_args of the size given.
    let result = unsafe { syscall!(Sysno::clone3, &raw const arguments, size_of::<CloneArgs>()) };
    result.map(|pid| pid == 0)
}

/// Copies a process of one thread, with a signal when the copy ends: the copy's pidfd, or none in the copy.
pub(crate) fn copy() -> Result<Option<RawFd>, syscalls::Errno> {
    let mut pidfd: RawFd = -1;
    let arguments = CloneArgs {
        flags: libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    // SAFETY: as in `detach`.
    let result = unsafe { syscall!(Sysno::clone3, &raw const arguments, size_of::<CloneArgs>()) };
    result.map(|pid| (pid != 0).then_some(pidfd))
}

/// Copies a process of one thread into one that has the same files, without a signal when the copy ends; whether this
/// is the copy. It is a sibling, so that nobody finds a child that he did not make; the first process of a process id
/// namespace has none, and its copy is a child.
pub(crate) fn beside() -> Result<bool, syscalls::Errno> {
    let copy = |flags: i32| {
        let arguments = CloneArgs { flags: flags as u64, ..CloneArgs::default() };
        // SAFETY: as in `detach`.
        unsafe { syscall!(Sysno::clone3, &raw const arguments, size_of::<CloneArgs>()) }.map(|pid| pid == 0)
    };
    match copy(libc::CLONE_FILES | libc::CLONE_PARENT) {
        Err(syscalls::Errno::EINVAL) => copy(libc::CLONE_FILES),
        other => other,
    }
}

impl Child {
    /// Its pidfd.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits until the child tells something: the number of a [`Step::Reached`] with an errno of 0, a step that failed,
    /// or nothing once it became its program or was killed.
    pub fn told(&self) -> Option<Failure> {
        read_record(self.report.as_fd())
    }

    /// The pidfd alone: no more is heard of the steps.
    pub fn into_pidfd(self) -> OwnedFd {
        self.pidfd
    }

    /// Waits until the child became its program, or gives the step that failed; and its pidfd. A child that was killed
    /// on the way counts as started: its end tells.
    pub fn executed(self) -> (OwnedFd, Result<(), Failure>) {
        match read_record(self.report.as_fd()) {
            None => (self.pidfd, Ok(())),
            Some(failure) => (self.pidfd, Err(failure)),
        }
    }
}

/// One record of a child's report: none at its end.
pub fn read_record(report: BorrowedFd<'_>) -> Option<Failure> {
    let mut record = [0_u8; 8];
    let mut have = 0;
    while let Some(rest) = record.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(report, rest) {
            Ok(0) => return None,
            Ok(count) => have += count,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    let [s0, s1, s2, s3, e0, e1, e2, e3] = record;
    let step = u32::from_ne_bytes([s0, s1, s2, s3]) as usize;
    let errno = i32::from_ne_bytes([e0, e1, e2, e3]);
    Some(Failure { step, errno })
}
