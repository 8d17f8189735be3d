//! System calls for the parent that no safe crate offers.

use core::ffi::CStr;
use core::mem::size_of;

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;
use syscalls::{Sysno, syscall};

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
    result.map(drop).map_err(|e| Errno::from_raw_os_error(e.into_raw()))
}

/// Moves the calling thread into a namespace (of a process, if `of` is a pidfd). For `CLONE_NEWPID` it is the
/// namespace of the children it will start. Other threads stay where they are.
pub fn set_controlling_namespace(of: BorrowedFd<'_>, namespaces: u32) -> Result<(), Errno> {
    // SAFETY: takes two numbers and touches no memory.
    let result = unsafe { syscall!(Sysno::setns, of.as_raw_fd(), namespaces) };
    result.map(drop).map_err(|e| Errno::from_raw_os_error(e.into_raw()))
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
    result.map(drop).map_err(|e| Errno::from_raw_os_error(e.into_raw()))
}
