//! The first process of a container with `--init`: `ctk-init PROGRAM [ARGUMENT…]`. It starts the program, passes signals
//! on, collects processes that lost their parents, and ends as the program does.
//!
//! It has to run in any image, whatever `ctk` itself is linked with: a program of its own, without a library, that talks
//! to the kernel alone. `build.rs` compiles it; [`INIT`](../ctk_sys/static.INIT.html) is the file.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::mem::MaybeUninit;

// The kernel leaves the arguments on the stack; a call wants it aligned.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {main}", main = sym main);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, xzr", "mov x0, sp", "bl {main}", main = sym main);

#[cfg(target_arch = "x86_64")]
mod number {
    pub const WRITE: usize = 1;
    pub const IOCTL: usize = 16;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const EXIT: usize = 60;
    pub const GETPID: usize = 39;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const SETPGID: usize = 109;
    pub const SIGPROCMASK: usize = 14;
    pub const SIGTIMEDWAIT: usize = 128;
    pub const PRCTL: usize = 157;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const WRITE: usize = 64;
    pub const IOCTL: usize = 29;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const EXIT: usize = 93;
    pub const GETPID: usize = 172;
    pub const WAIT4: usize = 260;
    pub const KILL: usize = 129;
    pub const SETPGID: usize = 154;
    pub const SIGPROCMASK: usize = 135;
    pub const SIGTIMEDWAIT: usize = 137;
    pub const PRCTL: usize = 167;
}

use number::*;

const SIGCHLD: usize = 17;
const SIG_BLOCK: usize = 0;
const SIG_SETMASK: usize = 2;
/// The kernel's set of signals, in bytes.
const SET_BYTES: usize = 8;
const WNOHANG: usize = 1;
const TIOCSPGRP: usize = 0x5410;
const PR_SET_CHILD_SUBREAPER: usize = 36;
const ENOENT: isize = -2;
const EACCES: isize = -13;
const ENOTDIR: isize = -20;
/// Where programs are looked for without a `PATH`.
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Of a path, as the kernel has it (`PATH_MAX`).
const PATH_BYTES: usize = 4096;

/// # Safety
/// As the system call with these words wants it.
#[cfg(target_arch = "x86_64")]
unsafe fn call(number: usize, [a, b, c, d, e]: [usize; 5]) -> isize {
    let result;
    // SAFETY: the caller's; the kernel changes no other registers than these.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// # Safety
/// As the system call with these words wants it.
#[cfg(target_arch = "aarch64")]
unsafe fn call(number: usize, [a, b, c, d, e]: [usize; 5]) -> isize {
    let result;
    // SAFETY: the caller's; the kernel changes no other registers than this.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a as isize => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            options(nostack)
        );
    }
    result
}

fn exit(code: usize) -> ! {
    loop {
        // SAFETY: takes no pointer, and does not come back.
        unsafe { call(EXIT, [code, 0, 0, 0, 0]) };
    }
}

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(126)
}

fn say(text: &[u8]) {
    // SAFETY: the text outlives the call, and is as long as it says.
    unsafe { call(WRITE, [2, text.as_ptr() as usize, text.len(), 0, 0]) };
}

/// The text at a pointer that the kernel gave us.
///
/// # Safety
/// It points to bytes that end with a zero, and stay.
unsafe fn text<'a>(at: *const u8) -> &'a [u8] {
    let mut length = 0;
    // SAFETY: the caller's: up to the zero there are bytes. Read as they are, or the compiler calls a library for it.
    unsafe {
        while at.add(length).read_volatile() != 0 {
            length += 1;
        }
        core::slice::from_raw_parts(at, length)
    }
}

/// Our arguments and our environment as the kernel laid them out: a count, the arguments, a zero, the environment, a zero.
unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the count is the first word, and the arguments are behind it.
    let (count, arguments) = unsafe { (*stack, stack.add(1)) };
    if count < 2 {
        say(b"ctk-init: there is no program to run\n");
        exit(127);
    }
    // SAFETY: behind the arguments and their zero.
    let (program, environment) = unsafe { (arguments.add(1), arguments.add(count + 1)) };
    let all = u64::MAX;
    let mut before = 0_u64;
    // SAFETY: both sets are eight bytes long and outlive the call; the others take no pointers.
    let child = unsafe {
        call(SIGPROCMASK, [SIG_BLOCK, &raw const all as usize, &raw mut before as usize, SET_BYTES, 0]);
        // Orphans come to us also where others are before us.
        call(PRCTL, [PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0]);
        call(CLONE, [SIGCHLD, 0, 0, 0, 0])
    };
    match child {
        0 => become_program(program, environment, before),
        child if child > 0 => look_after(child as usize, &all),
        _ => {
            say(b"ctk-init: cannot make a process\n");
            exit(126)
        }
    }
}

/// Passes signals on and collects what ended, until our own child has.
fn look_after(child: usize, all: &u64) -> ! {
    loop {
        // Before the first wait, too: what ended before is told once only.
        loop {
            let mut status = 0_u32;
            // SAFETY: the status outlives the call.
            let pid = unsafe { call(WAIT4, [usize::MAX, &raw mut status as usize, WNOHANG, 0, 0]) };
            if pid == child as isize {
                let signal = (status & 0x7f) as usize;
                exit(if signal == 0 { (status >> 8 & 0xff) as usize } else { 128 + signal });
            }
            if pid <= 0 {
                break;
            }
        }
        // SAFETY: the set outlives the call; nothing else is asked.
        let signal = unsafe { call(SIGTIMEDWAIT, [&raw const *all as usize, 0, 0, SET_BYTES, 0]) };
        if signal > 0 && signal as usize != SIGCHLD {
            // SAFETY: takes no pointer.
            unsafe { call(KILL, [child, signal as usize, 0, 0, 0]) };
        }
    }
}

/// In the child: its own process group, in front at a terminal; signals as they were; the program.
fn become_program(program: *const usize, environment: *const usize, before: u64) -> ! {
    // SAFETY: the first argument is there.
    let name = unsafe { text(*program as *const u8) };
    // SAFETY: the words outlive their calls.
    unsafe {
        call(SETPGID, [0; 5]);
        let group = call(GETPID, [0; 5]) as u32;
        call(IOCTL, [0, TIOCSPGRP, &raw const group as usize, 0, 0]);
        call(SIGPROCMASK, [SIG_SETMASK, &raw const before as usize, 0, SET_BYTES, 0]);
    }
    // SAFETY: both lists end with a zero, as the kernel made them.
    let execute =
        |path: *const u8| unsafe { call(EXECVE, [path as usize, program as usize, environment as usize, 0, 0]) };
    let failed =
        if name.iter().any(|byte| *byte == b'/') { execute(name.as_ptr()) } else { search(name, environment, execute) };
    say(b"ctk-init: cannot run ");
    say(name);
    say(match failed {
        ENOENT | ENOTDIR => b": there is no such program\n".as_slice(),
        EACCES => b": it may not be executed\n",
        _ => b": the kernel cannot execute it\n",
    });
    exit(if failed == ENOENT || failed == ENOTDIR { 127 } else { 126 })
}

/// As `execvp` does it.
fn search(name: &[u8], environment: *const usize, execute: impl Fn(*const u8) -> isize) -> isize {
    let mut path = PATH;
    let mut index = 0;
    // SAFETY: the list of texts ends with a zero.
    while let Some(at) = unsafe { environment.add(index).as_ref() }.filter(|at| **at != 0) {
        // SAFETY: an entry of the environment ends with a zero.
        let entry = unsafe { text(*at as *const u8) };
        if let Some(value) = entry.strip_prefix(b"PATH=") {
            path = value;
        }
        index += 1;
    }
    let mut failed = ENOENT;
    for folder in path.split(|byte| *byte == b':') {
        let folder = if folder.is_empty() { b".".as_slice() } else { folder };
        if folder.len() + 1 + name.len() >= PATH_BYTES {
            continue;
        }
        let mut buffer = MaybeUninit::<[u8; PATH_BYTES]>::uninit();
        let mut at: *mut u8 = buffer.as_mut_ptr().cast();
        for byte in folder.iter().chain(b"/").chain(name).chain(b"\0") {
            // SAFETY: there is room for all of them, by the comparison above.
            at = unsafe {
                at.write_volatile(*byte);
                at.add(1)
            };
        }
        match execute(buffer.as_ptr().cast()) {
            ENOENT | ENOTDIR => {}
            other => failed = other,
        }
    }
    failed
}
