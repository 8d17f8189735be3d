//! System calls for the parent that no safe crate offers.

use core::ffi::CStr;
use core::mem::size_of;

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use syscalls::{Sysno, syscall};

use crate::errno;
use crate::step::Pointer;

/// `struct mount_attr`.
#[repr(C)]
pub(crate) struct MountAttributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) user_namespace: u64,
}

/// Sets `MOUNT_ATTR_…` of a mount and makes it private, so that nothing mounted below shows elsewhere; with `recursive`
/// also all mounts below it.
pub fn mount_set_attributes(mount: BorrowedFd<'_>, recursive: bool, set: u64) -> Result<(), Errno> {
    let attributes = MountAttributes { set, clear: 0, propagation: libc::MS_PRIVATE, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let empty: &CStr = c"";
    // SAFETY: the path is NUL-terminated, the attributes are of the size given, and both outlive the call.
    let result = unsafe {
        syscall!(
            Sysno::mount_setattr,
            mount.as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>()
        )
    };
    result.map(drop).map_err(errno)
}

/// Moves the calling thread into a namespace (of a process, if `of` is a pidfd). For `CLONE_NEWPID` it is the
/// namespace of the children it will start. Other threads stay where they are.
pub fn set_controlling_namespace(of: BorrowedFd<'_>, namespaces: u32) -> Result<(), Errno> {
    // SAFETY: takes two numbers and touches no memory.
    let result = unsafe { syscall!(Sysno::setns, of.as_raw_fd(), namespaces) };
    result.map(drop).map_err(errno)
}

/// Gives the calling thread new namespaces. Only for those that threads need not share: network, mount, uts, ipc,
/// cgroup.
pub fn unshare(namespaces: u32) -> Result<(), Errno> {
    let files = libc::CLONE_FILES as u32;
    // CLONE_FILES would change which descriptors this thread owns, under the feet of safe code.
    if namespaces & files != 0 {
        return Err(Errno::INVAL);
    }
    // SAFETY: takes one number and touches no memory; the file table stays shared.
    let result = unsafe { syscall!(Sysno::unshare, namespaces) };
    result.map(drop).map_err(errno)
}

/// Shows other user and group ids on a detached mount: those of a user namespace. With `recursive`, also on all mounts
/// below it.
pub fn mount_map_ids(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    const MAP_IDS: u64 = 0x10_0000;
    let user_namespace = user_namespace.as_raw_fd() as u64;
    change_mount(mount, recursive, &MountAttributes { set: MAP_IDS, clear: 0, propagation: 0, user_namespace })
}

/// Sets and clears `MOUNT_ATTR_…` of a mount and, unless it is 0, its `MS_…` propagation; with `recursive` also of all
/// mounts below it.
pub fn mount_change(
    mount: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
) -> Result<(), Errno> {
    change_mount(mount, recursive, &MountAttributes { set, clear, propagation, user_namespace: 0 })
}

fn change_mount(mount: BorrowedFd<'_>, recursive: bool, attributes: &MountAttributes) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let empty: &CStr = c"";
    let attributes: *const MountAttributes = attributes;
    // SAFETY: the path is NUL-terminated, the attributes are of the size given, and both outlive the call.
    let result = unsafe {
        syscall!(
            Sysno::mount_setattr,
            mount.as_raw_fd(),
            empty.as_ptr(),
            flags,
            attributes,
            size_of::<MountAttributes>()
        )
    };
    result.map(drop).map_err(errno)
}

/// Holds all signals back from this thread and gives a file that tells of them (`signalfd(2)`): records of 128 bytes
/// that begin with the number. Threads and processes made before go on as they were.
pub fn signal_file() -> Result<OwnedFd, Errno> {
    let all = u64::MAX;
    // SAFETY: a mask of the size given; the old one is not asked for. The descriptor that comes back is nobody else's.
    unsafe {
        syscall!(Sysno::rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0_usize, size_of::<u64>()).map_err(errno)?;
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        let file = syscall!(Sysno::signalfd4, -1_isize, &raw const all, size_of::<u64>(), flags).map_err(errno)?;
        Ok(OwnedFd::from_raw_fd(file as i32))
    }
}

/// Closes every file from this number on (`close_range(2)`): what a process inherited and nobody meant it to have. To be
/// called before anything is opened: whoever owns a file that is closed here is deceived.
pub fn close_files_from(first: u32) -> Result<(), Errno> {
    // SAFETY: takes no pointer.
    let result = unsafe { syscall!(Sysno::close_range, first, u32::MAX, 0_usize) };
    result.map(drop).map_err(|e| Errno::from_raw_os_error(e.into_raw()))
}

/// The file by whose number this process was executed (`execveat` with an empty path), if it is open still and its own
/// program; from now on it is closed by `execve`. To be called once, and before anything is opened: nobody else owns the
/// number then.
pub fn take_executed_file() -> Option<OwnedFd> {
    // The kernel's name for it.
    let number = rustix::param::linux_execfn().to_bytes().strip_prefix(b"/dev/fd/")?;
    let number = core::str::from_utf8(number).ok()?.parse::<i32>().ok().filter(|number| *number > 2)?;
    // SAFETY: no more than looked at, and left alone unless it is what was said above.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    let (found, own) = (rustix::fs::fstat(file).ok()?, rustix::fs::stat(c"/proc/self/exe").ok()?);
    if (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino) {
        return None;
    }
    // SAFETY: open, and inherited by this process for itself alone.
    let file = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(file)
}

/// Sends a signal to the process of a pidfd; any number that there is, also those of real-time signals, which have no
/// names. 0 only asks whether it may be sent.
pub fn signal_process(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes no pointer but a null one.
    let result = unsafe { syscall!(Sysno::pidfd_send_signal, pidfd.as_raw_fd(), signal, 0_usize, 0_usize) };
    result.map(drop).map_err(|e| Errno::from_raw_os_error(e.into_raw()))
}

/// `struct pidfd_info` of `linux/pidfd.h`, as its first version was.
#[repr(C)]
#[derive(Default)]
struct ProcessInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT` (linux 6.15).
const INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`: `_IOWR(0xff, 11, struct pidfd_info)`.
const GET_INFO: u64 = 3 << 30 | (size_of::<ProcessInfo>() as u64) << 16 | 0xff << 8 | 11;

/// How a process ended that is not our child, as wait(2) would have told its parent: once the parent has collected it, and
/// by a pidfd that was open before that. None where the kernel does not tell (before linux 6.15), or not yet.
pub fn exit_status_of_other(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = ProcessInfo { mask: INFO_EXIT, ..ProcessInfo::default() };
    // SAFETY: the kernel reads and writes the information, which is of the size that the request says.
    let result = unsafe { syscall!(Sysno::ioctl, pidfd.as_raw_fd(), GET_INFO, &raw mut info) };
    (result.is_ok() && info.mask & INFO_EXIT != 0).then_some(info.exit_code)
}

/// Becomes the program of an open file, with these arguments and this environment, both ended by [`Pointer::END`].
/// Comes back only with an error.
pub fn execute_file(file: BorrowedFd<'_>, arguments: &[Pointer<'_>], environment: &[Pointer<'_>]) -> Errno {
    let ended = |vector: &[Pointer<'_>]| vector.last().is_some_and(|end| end.0.is_null());
    if !ended(arguments) || !ended(environment) {
        return Errno::INVAL;
    }
    let empty: &CStr = c"";
    // SAFETY: the path is NUL-terminated and both vectors end with null; all outlive the call.
    let result = unsafe {
        syscall!(
            Sysno::execveat,
            file.as_raw_fd(),
            empty.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH
        )
    };
    result.map_or_else(errno, |_| Errno::INVAL)
}

/// Puts a new file in the place of another: others see the old one or the new one, whole. For what nobody needs after a
/// power cut, when it may be empty: `rename` over another file has ext4 send the new one to the disk at once
/// (`auto_da_alloc`), some 150 µs each time.
pub fn put_in_place<P: rustix::path::Arg + Copy>(new: P, path: P) -> Result<(), Errno> {
    use rustix::fs::{CWD, RenameFlags, rename, renameat_with, unlink};
    match renameat_with(CWD, new, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => unlink(new),
        // There is no other yet, or this filesystem cannot.
        Err(_) => rename(new, path),
    }
}

/// Gives memory back that this process does not need while it waits: what the arena has no more use for, and the pages
/// of its program, which come back from the file one by one. For one of many processes that sleep most of the time.
pub fn give_memory_back() {
    crate::arena::give_back();
    forget_program();
}

/// `Elf64_Phdr`.
#[repr(C)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical: u64,
    file_bytes: u64,
    memory_bytes: u64,
    alignment: u64,
}

/// What nobody may write is as it is in the file.
fn forget_program() {
    const LOADED: u32 = 1;
    const WRITABLE: u32 = 2;
    const PAGE: usize = 4096;
    // SAFETY: asks the C library for numbers.
    let (table, count) = unsafe { (libc::getauxval(libc::AT_PHDR) as usize, libc::getauxval(libc::AT_PHNUM) as usize) };
    // The table is in the first page of the file, behind its head.
    let head = table & !(PAGE - 1);
    if table == 0 || table - head != 64 || count > 64 {
        return;
    }
    // SAFETY: the kernel says that so many are there, and they are as long as the process lives.
    let segments = unsafe { core::slice::from_raw_parts(table as *const Segment, count) };
    let Some(first) = segments.iter().find(|one| one.kind == LOADED && one.offset == 0) else { return };
    let base = head.wrapping_sub(first.address as usize);
    for segment in segments.iter().filter(|one| one.kind == LOADED && one.flags & WRITABLE == 0) {
        let begin = base.wrapping_add(segment.address as usize) & !(PAGE - 1);
        let end = base.wrapping_add((segment.address + segment.file_bytes) as usize);
        forget_pages(begin, end.next_multiple_of(PAGE) - begin);
    }
}

/// Pages that are then as if they had never been touched: zero, or as in their file.
pub(crate) fn forget_pages(begin: usize, bytes: usize) {
    // SAFETY: the callers' promise: nobody has anything there that is not in the file.
    let _ = unsafe { syscall!(Sysno::madvise, begin, bytes, libc::MADV_DONTNEED) };
}
