//! What a container is to be: values only, prepared by the caller, carried out by [`crate::start`].

use std::os::fd::OwnedFd;

use ctk_oci::Mount;

use crate::{Capabilities, Filter, Root};

/// Everything about one container.
pub struct Launch<'a> {
    /// Unique among the containers of the state directory; a file name.
    pub id: String,
    /// The root file system.
    pub root: Root,
    /// Whether the root is mounted read-only.
    pub root_read_only: bool,
    /// Mounted in order after the root. Kinds: `bind`, `tmpfs`, `proc`, `sysfs`, `devpts`, `mqueue`, `cgroup2`, or
    /// `dev` for a fresh `/dev` with the usual nodes and links.
    pub mounts: Vec<Mount>,
    /// Paths that must not be read: files become empty, directories empty and read-only. Missing ones are skipped.
    pub masked_paths: Vec<String>,
    /// Paths that must not be written. Missing ones are skipped.
    pub read_only_paths: Vec<String>,
    /// The host name.
    pub hostname: String,
    /// Its network.
    pub network: NetworkNamespace<'a>,
    /// What runs in it.
    pub process: Process,
    /// Limits by cgroups.
    pub limits: Limits,
    /// The parent of its cgroups below each hierarchy's root; `None`: below the cgroup we are in.
    pub cgroup_parent: Option<String>,
    /// Its standard streams.
    pub stdio: ProcessStdio,
}

/// The network namespace of a container.
pub enum NetworkNamespace<'a> {
    /// The one we are in.
    Host,
    /// A new one with only loopback.
    New,
    /// This one.
    Join(&'a OwnedFd),
}

/// The process that a container runs.
#[derive(Clone, Debug)]
pub struct Process {
    /// Program and arguments; a program without `/` is looked up in the `PATH` of `env`.
    pub args: Vec<String>,
    /// The whole environment as `NAME=value`.
    pub env: Vec<String>,
    /// Absolute working directory; made if missing.
    pub cwd: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities: the bounding set; also effective and permitted for uid 0.
    pub capabilities: Capabilities,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// Whether exec may not raise privileges.
    pub no_new_privileges: bool,
    /// System calls it may do; all if `None`.
    pub seccomp: Option<std::sync::Arc<[Filter]>>,
    /// The file mode creation mask.
    pub umask: u32,
}

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// Limits by cgroups; `None` means unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Bytes of memory and swap together, -1 for as much swap as there is; `None` with a limit of memory: no swap.
    pub memory_swap_bytes: Option<i64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// Relative weight of its processor time, 2 to 262144; the usual is 1024.
    pub cpu_shares: Option<u64>,
    /// Microseconds of a period of processor time.
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time in each period; -1 is unlimited. Wins over `cpu_millis`.
    pub cpu_quota: Option<i64>,
    /// Processors that may be used: `0-3,5`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used: `0-3,5`.
    pub cpuset_mems: Option<String>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Limits {
    /// Whether anything is limited.
    pub fn any(&self) -> bool {
        *self != Limits::default()
    }
}

/// The standard streams of a container's process.
pub enum ProcessStdio {
    /// These three files.
    Files {
        /// Standard input.
        input: OwnedFd,
        /// Standard output.
        output: OwnedFd,
        /// Standard error.
        error: OwnedFd,
    },
    /// A new terminal in the container's own `/dev/pts`: [`crate::Running::terminal`] is its other end. Needs a
    /// `devpts` mount at `/dev/pts`.
    Terminal,
}

impl ProcessStdio {
    /// The three streams.
    pub fn files(input: OwnedFd, output: OwnedFd, error: OwnedFd) -> ProcessStdio {
        ProcessStdio::Files { input, output, error }
    }
}
