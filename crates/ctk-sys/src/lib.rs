//! The only unsafe code: clone3, child steps, raw system calls.
//!
//! A process with threads may be copied, but the copy has one thread, and every lock another thread held stays locked
//! in it forever. So between [`start`] and `execve` the child does nothing but walk a list of [`Step`]s that the parent
//! prepared: system calls on borrowed slices and numbers, no allocation, no shared state. It ends by executing a
//! program or by reporting `(step, errno)` through a pipe; the parent, which knows the list, explains.
#![no_std]

mod arena;
mod child;
mod clone;
mod devices;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod early;
mod host;
mod landlock;
mod quota;
mod step;

pub use arena::Arena;
pub use child::{ENDED, KILLED};
pub use clone::{Child, Failure, NotWithin, Start, Within, read_record, start, start_within};
pub use devices::attach_device_program;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub use early::ctk_start;
pub use host::{
    close_files_from, execute_file, exit_status_of_other, give_memory_back, mount_change, mount_map_ids,
    mount_set_attributes, put_in_place, set_controlling_namespace, signal_file, signal_process, take_executed_file,
    unshare,
};
pub use landlock::{Restriction, landlock_restrict, landlock_version};
pub use quota::limit_directory;
pub use step::{CopyLimits, Filter, MountKind, Pointer, RawFd, Step};

/// The program that is first in containers with `--init`, for any image: a static ELF file of a few kilobytes that starts
/// its arguments, passes signals on, and collects orphans. Empty on processors that nobody wrote it for.
pub static INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ctk-init"));

/// The kernel's word as callers know it.
fn errno(error: syscalls::Errno) -> rustix::io::Errno {
    rustix::io::Errno::from_raw_os_error(error.into_raw())
}
