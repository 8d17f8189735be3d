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

/// How much a copy may be. Crossing it is `EFBIG` or, for the depth, `ELOOP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyLimits {
    /// Files, directories and everything else.
    pub entries: u32,
    /// Directories inside of each other; each takes 2 KiB of the stack.
    pub depth: u32,
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
    /// Closes a file, now: what the parent holds by it is not held by this process too.
    Close {
        /// The file.
        file: RawFd,
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
        /// Whether it is as good that they may not be changed: in a user namespace whose ids nobody vouched for.
        optional: bool,
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
    /// Waits for one byte. The end of the file instead is the error `EPIPE`: whoever should have written is gone.
    Await {
        /// The file.
        file: RawFd,
        /// This process's own copy of the other end, which is closed first: else the end would never come. Negative:
        /// there is none.
        other: RawFd,
    },
    /// Tells the parent, by a record without an error, that everything before is done. Later failures go to `next`.
    Reached {
        /// Where the report goes on; negative: to the same pipe.
        next: RawFd,
    },
    /// Changes the propagation of the mount at a path and of all below it. The path is an ordinary one.
    Propagation {
        /// Where.
        at: &'a CStr,
        /// `MS_…` flags.
        flags: u64,
    },
    /// Attaches a detached mount, from now on the root in which paths are resolved; see [`Step::EnterPlaced`].
    PlaceRoot {
        /// From `fsmount` or `open_tree`.
        mount: RawFd,
        /// Where; an ordinary path. `/` hides the old root.
        at: &'a CStr,
    },
    /// The same for a directory by its ordinary path, which the parent may not mount but the child may, in its user
    /// namespace.
    PlaceDirectory {
        /// The directory.
        path: &'a CStr,
        /// Where; an ordinary path.
        at: &'a CStr,
    },
    /// Makes the placed root the only one.
    EnterPlaced {
        /// Whether by `pivot_root`; else by `chroot`, for an initial ramdisk.
        pivot: bool,
    },
    /// Standard streams that are the host's `/dev/null` become the root's own: the host's cannot be checkpointed. Where
    /// the root has none, they stay.
    NullStreams,
    /// Sets the NIS domain name.
    DomainName {
        /// Without NUL.
        name: &'a [u8],
    },
    /// Joins a session keyring of its own. That the kernel has no keyrings is no error.
    Keyring {
        /// Its name.
        name: &'a CStr,
    },
    /// Writes a kernel setting through the host's `/proc`; before the root is entered.
    Setting {
        /// Below `/proc/sys`.
        path: &'a CStr,
        /// The value.
        value: &'a [u8],
    },
    /// Makes a device node, a pipe or nothing if there is one already; its mode and owner are set either way.
    Node {
        /// Where.
        path: &'a CStr,
        /// With the type.
        mode: u32,
        /// As `makedev` gives it.
        device: u64,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Makes a symbolic link, if nothing is there.
    Link {
        /// Where it leads.
        target: &'a CStr,
        /// Where it is.
        path: &'a CStr,
    },
    /// Makes a file system in the child's own namespaces and attaches it.
    NewMount {
        /// Its type.
        kind: &'a CStr,
        /// Its options; an empty value stands for a flag.
        options: &'a [(&'a CStr, &'a CStr)],
        /// `MOUNT_ATTR_…`.
        attributes: u64,
        /// `MS_…` propagation flag, or 0.
        propagation: u64,
        /// Where.
        at: &'a CStr,
        /// Whether a symbolic link on the way is an error.
        no_links: bool,
        /// Whether it begins with a copy of what the directory held, owners and modes included; and how much is copied
        /// before it is an error.
        copy: Option<CopyLimits>,
    },
    /// Shows a path of the host, seen from the old root, inside the placed one.
    BindHost {
        /// What; an ordinary path.
        from: &'a CStr,
        /// With the mounts below it.
        recursive: bool,
        /// Where.
        at: &'a CStr,
    },
    /// Changes attributes of the mount that a path leads to.
    Remount {
        /// Where.
        at: &'a CStr,
        /// With the mounts below it.
        recursive: bool,
        /// `MOUNT_ATTR_…` to set.
        set: u64,
        /// `MOUNT_ATTR_…` to clear.
        clear: u64,
        /// `MS_…` propagation flag, or 0.
        propagation: u64,
    },
    /// Opens a new terminal of `/dev/pts`, sends its other end through a socket, shows it as `/dev/console`, and makes
    /// it the three standard streams.
    Terminal {
        /// A connected unix socket.
        socket: RawFd,
        /// Its owner.
        uid: u32,
        /// Its group, if not the one that the file system gives.
        gid: u32,
        /// Lines and columns; 0 and 0 leave them unset.
        size: (u16, u16),
        /// Whether `/dev/console` shows it.
        console: bool,
    },
    /// Takes standard input as the controlling terminal.
    TakeTerminal,
    /// Sets the execution domain (`personality(2)`).
    Personality {
        /// The domain and its flags.
        persona: u64,
    },
    /// Sets the priority of input and output (`ioprio_set(2)`).
    IoPriority {
        /// Class and level.
        value: u32,
    },
    /// Sets the scheduling policy.
    Scheduler {
        /// `struct sched_attr`.
        attributes: &'a [u8],
    },
    /// Sets the processors it may run on.
    Affinity {
        /// One bit each, in native words.
        mask: &'a [u64],
    },
    /// Sets the policy by which memory comes from nodes (`set_mempolicy(2)`).
    MemoryPolicy {
        /// Mode with flags.
        mode: u32,
        /// One bit each.
        nodes: &'a [u64],
    },
    /// Keeps capabilities over the change of the user id that follows.
    KeepCapabilities,
    /// Sets all capability sets but the bounding one.
    CapabilitySets {
        /// In force.
        effective: u64,
        /// May be put in force.
        permitted: u64,
        /// Kept by programs with inheritable file capabilities.
        inheritable: u64,
        /// Kept by every program. What is not permitted and inheritable is passed over.
        ambient: u64,
    },
    /// Confines system calls, with flags and, maybe, somebody who is asked.
    Filter {
        /// The program; at most 4096 instructions.
        program: &'a [Filter],
        /// `SECCOMP_FILTER_FLAG_…`.
        flags: u32,
        /// A connected socket that gets the listener and what `state` holds; negative: nobody.
        listener: RawFd,
        /// A file with the state to send.
        state: RawFd,
    },
    /// Gives up, by Landlock, rights on files outside of the root, which with any of them are those to change mounts, and
    /// to reach others. Needs CAP_SYS_ADMIN or [`Step::NoNewPrivileges`].
    Landlock {
        /// `LANDLOCK_ACCESS_FS_…`.
        files: u64,
        /// `LANDLOCK_SCOPE_…`.
        scoped: u64,
    },
    /// Runs a program to its end and fails unless it succeeds. The error of one that ended badly is [`crate::ENDED`] and
    /// its code, or [`crate::KILLED`] and the signal; that of one that took too long is `ETIMEDOUT`.
    Run {
        /// An ordinary path.
        program: &'a CStr,
        /// Arguments, ended by [`Pointer::END`].
        arguments: &'a [Pointer<'a>],
        /// Environment, ended by [`Pointer::END`].
        environment: &'a [Pointer<'a>],
        /// What it reads, from its beginning.
        input: RawFd,
        /// Milliseconds; negative: for ever.
        timeout_ms: i64,
    },
    /// Fails as [`Step::Execute`] would if none of these is there and may be executed.
    Look {
        /// Paths in order.
        candidates: &'a [&'a CStr],
    },
    /// Writes to a file by its ordinary path.
    WriteTo {
        /// The file.
        path: &'a CStr,
        /// The bytes.
        bytes: &'a [u8],
    },
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
