//! What a statically linked `ctk-runtime` does before its C library begins: it goes on from a read-only view of its own
//! file (CVE-2019-5736; the same as `seal` of ctk-bundle, which finds it done).
//!
//! The program starts twice for that, and most of a start is the C library's: it asks the processor about its caches,
//! which a virtual machine answers slowly, and touches its pages. The first of the two starts needs nothing of it. In
//! effect where the linker was told that [`ctk_start`] is the entry point; otherwise nobody calls it.

use core::arch::naked_asm;

use syscalls::{Sysno, syscall};

/// The entry point, in place of `_start`, which it calls with everything as the kernel left it.
///
/// # Safety
/// Only the kernel may begin here.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ctk_start() -> ! {
    // rdx is for the C library; pushed twice, so that the stack is aligned as calls want it.
    naked_asm!("mov rdi, rsp", "push rdx", "push rdx", "call {early}", "pop rdx", "pop rdx", "jmp _start", early = sym early)
}

/// The entry point, in place of `_start`, which it calls with everything as the kernel left it.
///
/// # Safety
/// Only the kernel may begin here.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ctk_start() -> ! {
    // x0 is for the C library.
    naked_asm!(
        "str x0, [sp, #-16]!",
        "add x0, sp, #16",
        "bl {early}",
        "ldr x0, [sp], #16",
        "b _start",
        early = sym early
    )
}

const READ_ONLY: usize = 1;
const MOUNT_ATTR_RDONLY: u64 = 1;
const OPEN_TREE_CLONE: usize = 1;
const OWN: &core::ffi::CStr = c"/proc/self/exe";

/// `struct mount_attr` (linux 5.12).
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// `struct statfs` of 64-bit processors: its eleventh word holds the flags.
const STATFS_WORDS: usize = 15;
const STATFS_FLAGS: usize = 10;

/// Executes this file anew from a read-only view, if a container may be made. Comes back whenever something is in the
/// way: the program proper tries again, and can say what it is.
///
/// Nothing of the C library may be used here, which compilers do for loops over bytes; and no panic can be told.
///
/// # Safety
/// `stack` is what the kernel put there: a count, that many pointers, a null, the environment's pointers, a null.
unsafe extern "C" fn early(stack: *const usize) {
    // SAFETY: as above.
    let (arguments, count) = unsafe { (stack.add(1), *stack) };
    // SAFETY: so many are there, each a C string.
    if !(1..count).any(|index| unsafe { makes_containers(*arguments.add(index) as *const u8) }) {
        return;
    }
    // SAFETY: takes no pointer.
    if !matches!(unsafe { syscall!(Sysno::geteuid) }, Ok(0)) {
        return;
    }
    let mut status = [0_usize; STATFS_WORDS];
    // SAFETY: the path ends with a null, and the array is as large as the structure.
    let known = unsafe { syscall!(Sysno::statfs, OWN.as_ptr(), status.as_mut_ptr()) };
    if known.is_err() || status[STATFS_FLAGS] & READ_ONLY != 0 {
        return;
    }
    // Not closed by what comes: that would wait until every processor has seen that the mount is gone, while nothing else
    // goes on. See `take_executed_file`.
    // SAFETY: the path ends with a null.
    let Ok(view) = (unsafe { syscall!(Sysno::open_tree, libc::AT_FDCWD, OWN.as_ptr(), OPEN_TREE_CLONE) }) else {
        return;
    };
    let attributes =
        MountAttributes { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: libc::MS_PRIVATE, user_namespace: 0 };
    let (size, empty) = (size_of::<MountAttributes>(), c"".as_ptr());
    // SAFETY: the structure is of that size; strings end with a null; the vectors are the kernel's own.
    unsafe {
        let sealed =
            syscall!(Sysno::mount_setattr, view, empty, libc::AT_EMPTY_PATH, &raw const attributes, size).is_ok();
        if sealed {
            let environment = arguments.add(count + 1);
            let _ = syscall!(Sysno::execveat, view, empty, arguments, environment, libc::AT_EMPTY_PATH);
        }
        let _ = syscall!(Sysno::close, view);
    }
}

/// Whether a word is one of those after which a container's process is made.
///
/// # Safety
/// `word` is a C string.
unsafe fn makes_containers(word: *const u8) -> bool {
    // Volatile: or compilers make it a call of the C library.
    // SAFETY: reads up to the first difference, so never past the null.
    let is = |verb: &[u8]| verb.iter().enumerate().all(|(at, byte)| unsafe { word.add(at).read_volatile() } == *byte);
    is(b"create\0") || is(b"run\0") || is(b"exec\0") || is(b"monitor\0")
}
