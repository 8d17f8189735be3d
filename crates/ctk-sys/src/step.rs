//! What a child can be told to do.

use core::ffi::{CStr, c_char};
use core::marker::PhantomData;

/// A file descriptor by number: the child has the same ones as its parent. A wrong one gives `EBADF`.
pub type RawFd = i32;

/// One instruction of classic BPF (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if true.
    pub jump_true: u8,
    /// Instructions to skip if false.
    pub jump_false: u8,
    /// Operand.
    pub k: u32,
}

/// A C string in an argument or environment vector, or the null that ends it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Pointer<'a>(pub(crate) *const c_char, PhantomData<&'a CStr>);

impl<'a> Pointer<'a> {
    /// The end of a vector.
    pub const END: Pointer<'static> = Pointer(core::ptr::null(), PhantomData);

    /// An element of a vector.
    pub fn new(text: &'a CStr) -> Pointer<'a> {
        Pointer(text.as_ptr(), PhantomData)
    }
}

/// What a mount point must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A directory.
    Directory,
    /// Anything else.
    File,
}

/// One thing a child does. Paths are absolute and resolved inside the current root (`RESOLVE_IN_ROOT`) unless said
/// otherwise, so that links in an image cannot lead outside or, with `no_links`, anywhere else.
#[derive(Clone, Copy)]
pub enum Step<'a> {
    /// Dies by SIGKILL when the thread that started it ends; ends at once if its parent is gone already. A change of
    /// the user id forgets this, so it is repeated after one.
    DieWithParent,
    /// Lets nobody look into this process until it executes a program: its `/proc` entries lead to files of the host.
    Hide,
    /// Writes bytes to a file, e.g. `0` to a `cgroup.procs`.
    Write {
        /// The file.
        file: RawFd,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Leaves namespaces for new ones (`CLONE_NEW…`).
    Unshare {
        /// Which.
        namespaces: u32,
    },
    /// Joins namespaces: those of a process if `of` is a pidfd, else that of the namespace file.
    Join {
        /// A pidfd or a namespace file.
        of: RawFd,
        /// Which (`CLONE_NEW…`).
        namespaces: u32,
    },
    /// Closes all files from this number on, now.
    Release {
        /// The first that goes.
        from: RawFd,
    },
    /// Goes on in a child of its own, which nobody waits for, and ends itself. Only what this process owns alone is
    /// closed by that: [`Step::Release`] the parent's files before.
    Detach,
    /// Waits until everything written to the file's filesystem is on its disk (`syncfs`).
    SyncFilesystem {
        /// Any file or directory there.
        file: RawFd,
    },
    /// Renames within a directory, replacing what is there. That `from` is missing is no error. Relative paths, not
    /// resolved inside any root.
    Rename {
        /// The directory.
        directory: RawFd,
        /// The old path.
        from: &'a CStr,
        /// The new path.
        to: &'a CStr,
    },
    /// Brings the loopback interface up.
    LoopbackUp,
    /// Sets the host name.
    HostName {
        /// Without NUL.
        name: &'a [u8],
    },
    /// Makes all mounts private, so that nothing reaches the host.
    PrivateMounts,
    /// Makes a detached mount the root, and lets go of the old one.
    EnterRoot {
        /// From `fsmount` or `open_tree`.
        mount: RawFd,
    },
    /// Makes a directory and its parents where missing; an empty file with [`MountKind::File`].
    Make {
        /// Where.
        path: &'a CStr,
        /// What.
        kind: MountKind,
        /// Permissions of what is made.
        mode: u32,
    },
    /// Attaches a detached mount.
    Attach {
        /// From `fsmount` or `open_tree`.
        mount: RawFd,
        /// Where.
        at: &'a CStr,
        /// Whether a symbolic link on the way is an error.
        no_links: bool,
    },
    /// Makes a file system in the child's own namespaces and attaches it.
    Mount {
        /// Its type: `proc`, `sysfs`, `mqueue`, …
        kind: &'a CStr,
        /// Its options; an empty value stands for a flag.
        options: &'a [(&'a CStr, &'a CStr)],
        /// `MOUNT_ATTR_…`.
        attributes: u64,
        /// Where.
        at: &'a CStr,
        /// Whether failing to make it is passed over.
        optional: bool,
    },
    /// Shows one path at another place too.
    Bind {
        /// What.
        from: &'a CStr,
        /// Where.
        at: &'a CStr,
    },
    /// Hides a path: a directory becomes empty and read-only, anything else becomes `/dev/null`. Skips a missing one.
    Mask {
        /// What.
        path: &'a CStr,
    },
    /// Makes a path and all below read-only. Skips a missing one.
    ReadOnly {
        /// What.
        path: &'a CStr,
    },
    /// Starts a session of its own.
    NewSession,
    /// Makes a terminal the controlling one of this session.
    ControllingTerminal {
        /// The terminal.
        file: RawFd,
    },
    /// Puts a file at another number.
    Duplicate {
        /// What.
        from: RawFd,
        /// Where.
        to: RawFd,
    },
    /// Lets no file from number `from` on survive `execve`.
    CloseFrom {
        /// First number.
        from: u32,
    },
    /// Sets a resource limit.
    Rlimit {
        /// `RLIMIT_…`.
        resource: u32,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
    },
    /// Drops everything else from the capability bounding set.
    BoundingSet {
        /// What stays.
        keep: u64,
    },
    /// Sets effective and permitted capabilities; inheritable and ambient ones become none.
    Capabilities {
        /// The set.
        set: u64,
    },
    /// Sets the supplementary groups.
    Groups {
        /// The groups.
        groups: &'a [u32],
    },
    /// Sets real, effective and saved group id.
    Gid {
        /// The group.
        gid: u32,
    },
    /// Sets real, effective and saved user id.
    Uid {
        /// The user.
        uid: u32,
    },
    /// Lets no `execve` raise privileges from here on.
    NoNewPrivileges,
    /// Confines system calls. Needs [`Step::NoNewPrivileges`] or CAP_SYS_ADMIN.
    Seccomp {
        /// The program; at most 4096 instructions.
        program: &'a [Filter],
    },
    /// Changes the working directory, and makes sure that it is inside the root.
    WorkingDirectory {
        /// Where.
        path: &'a CStr,
    },
    /// Sets the file mode creation mask.
    Umask {
        /// The mask.
        mask: u32,
    },
    /// Default actions for all signals, none blocked.
    ResetSignals,
    /// Becomes a program: the first candidate that can be executed, as `execvp` chooses. The last step.
    Execute {
        /// Paths in order.
        candidates: &'a [&'a CStr],
        /// Arguments, ended by [`Pointer::END`].
        arguments: &'a [Pointer<'a>],
        /// Environment, ended by [`Pointer::END`].
        environment: &'a [Pointer<'a>],
    },
}
