//! Programs that decide about devices in a cgroup of version 2 (`bpf(2)`, `BPF_PROG_TYPE_CGROUP_DEVICE`).

use core::ffi::CStr;
use core::mem::size_of;
use core::ptr::from_ref;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use syscalls::{Sysno, syscall};

use crate::errno;

const LOAD: u32 = 5;
const ATTACH: u32 = 8;
const DETACH: u32 = 9;
const BY_ID: u32 = 13;
const QUERY: u32 = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
/// How many programs one cgroup can have (`BPF_CGROUP_MAX_PROGS`).
const PROGRAMS: usize = 64;

/// The start of `union bpf_attr` for loading.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
}

/// The start of `union bpf_attr` for attaching and detaching.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// The start of `union bpf_attr` for asking what is attached.
#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// The start of `union bpf_attr` for opening a program.
#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// Makes a program the one that decides about devices in a cgroup, in place of those that are attached to it; those of
/// cgroups above have their say as before. An instruction is `struct bpf_insn`, eight bytes.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, instructions: &[[u8; 8]]) -> Result<(), Errno> {
    let mut ids = [0_u32; PROGRAMS];
    let before = attached(cgroup, &mut ids)?;
    let program = load(instructions)?;
    let attach = |command, program: BorrowedFd<'_>, flags| {
        let (target, program) = (cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32);
        // SAFETY: `Attach` is what both commands read, and points to nothing.
        unsafe { bpf(command, &Attach { target, program, kind: ATTACH_CGROUP_DEVICE, flags }) }.map(drop)
    };
    // All that are attached must agree: with both, no moment is more permissive than before and after.
    attach(ATTACH, program.as_fd(), ALLOW_MULTI)?;
    for id in before {
        // SAFETY: `ById` is what the command reads, and points to nothing; the descriptor that comes back is nobody
        // else's.
        let old = unsafe {
            let file = bpf(BY_ID, &ById { id: *id, next: 0, flags: 0 })?;
            OwnedFd::from_raw_fd(file as i32)
        };
        attach(DETACH, old.as_fd(), 0)?;
    }
    Ok(())
}

/// The programs attached to a cgroup itself.
fn attached<'a>(cgroup: BorrowedFd<'_>, ids: &'a mut [u32; PROGRAMS]) -> Result<&'a [u32], Errno> {
    let mut query = Query {
        target: cgroup.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: PROGRAMS as u32,
        padding: 0,
    };
    // SAFETY: `Query` is what the command reads and writes; the kernel writes as many ids as there is room for.
    unsafe { bpf_mut(QUERY, &mut query)? };
    Ok(ids.get(..query.count as usize).unwrap_or_default())
}

fn load(instructions: &[[u8; 8]]) -> Result<OwnedFd, Errno> {
    let license: &CStr = c"Apache";
    let load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel: 0,
        flags: 0,
        name: *b"devices\0\0\0\0\0\0\0\0\0",
    };
    // SAFETY: `Load` is what the command reads, and what it points to outlives the call; the descriptor that comes back
    // is nobody else's.
    unsafe { bpf(LOAD, &load).map(|file| OwnedFd::from_raw_fd(file as i32)) }
}

/// # Safety
/// `attributes` begins like `union bpf_attr` does for the command, which does not write there, and what it points to is
/// as the command has it.
unsafe fn bpf<T>(command: u32, attributes: &T) -> Result<usize, Errno> {
    // SAFETY: see above; the size is its own.
    let result = unsafe { syscall!(Sysno::bpf, command, from_ref(attributes), size_of::<T>()) };
    result.map_err(errno)
}

/// # Safety
/// As for [`bpf`], of a command that writes there.
unsafe fn bpf_mut<T>(command: u32, attributes: &mut T) -> Result<usize, Errno> {
    // SAFETY: see above; the size is its own.
    let result = unsafe { syscall!(Sysno::bpf, command, core::ptr::from_mut(attributes), size_of::<T>()) };
    result.map_err(errno)
}
