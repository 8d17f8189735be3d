//! Landlock (`landlock(7)`): a thread gives up rights for good, for itself and for everything that comes from it.

use core::mem::size_of;

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;
use syscalls::{Sysno, syscall};

use crate::errno;
use crate::step::RawFd;

/// What is given up. Rights that this kernel does not know are an error (`EINVAL`): see [`landlock_version`].
#[derive(Clone, Copy, Default)]
pub struct Restriction<'a> {
    /// `LANDLOCK_ACCESS_FS_…`: had only below directories of `kept`.
    pub files: u64,
    /// `LANDLOCK_ACCESS_NET_…`.
    pub network: u64,
    /// `LANDLOCK_SCOPE_…`.
    pub scoped: u64,
    /// What stays: a directory or a file, and the rights below it.
    pub kept: &'a [(BorrowedFd<'a>, u64)],
}

/// `struct landlock_ruleset_attr` of version 6.
#[repr(C)]
struct Ruleset {
    files: u64,
    network: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    access: u64,
    parent: RawFd,
}

/// The version of Landlock that this kernel has; 0: none, or not in use.
pub fn landlock_version() -> u32 {
    const VERSION: u32 = 1;
    // SAFETY: asks for the version by no attributes.
    unsafe { syscall!(Sysno::landlock_create_ruleset, 0_usize, 0_usize, VERSION) }.map_or(0, |version| version as u32)
}

/// Gives rights up for the calling thread, and with them privileges of programs that it executes (`no_new_privs`).
pub fn landlock_restrict(restriction: &Restriction<'_>) -> Result<(), Errno> {
    // SAFETY: takes numbers.
    unsafe { syscall!(Sysno::prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.map_err(errno)?;
    let Restriction { files, network, scoped, kept } = *restriction;
    restrict(files, network, scoped, kept.iter().map(|(file, access)| (file.as_raw_fd(), *access))).map_err(errno)
}

/// The same without a word about privileges, which needs CAP_SYS_ADMIN.
pub(crate) fn restrict(
    files: u64,
    network: u64,
    scoped: u64,
    kept: impl Iterator<Item = (RawFd, u64)>,
) -> Result<(), syscalls::Errno> {
    const PATH_BENEATH: i32 = 1;
    let attributes = Ruleset { files, network, scoped };
    // SAFETY: attributes of the size given, which outlive the call. An older kernel takes what is zero beyond its own.
    let ruleset =
        unsafe { syscall!(Sysno::landlock_create_ruleset, &raw const attributes, size_of::<Ruleset>(), 0) }? as RawFd;
    let mut result = Ok(());
    for (parent, access) in kept {
        let rule = Beneath { access, parent };
        // SAFETY: the rule is of the type that is named, and outlives the call.
        result = unsafe { syscall!(Sysno::landlock_add_rule, ruleset, PATH_BENEATH, &raw const rule, 0) }.map(drop);
        if result.is_err() {
            break;
        }
    }
    // SAFETY: takes numbers.
    result = result.and_then(|()| unsafe { syscall!(Sysno::landlock_restrict_self, ruleset, 0) }.map(drop));
    crate::child::close(ruleset);
    result
}
