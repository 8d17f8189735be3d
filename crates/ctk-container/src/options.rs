//! What a caller says about a container before it starts.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ctk_oci::{ContainerConfig, Mount};
use ctk_plan::Stream;
use ctk_runtime::{Limits, Rlimit};

use crate::Switch;

/// Everything that makes an image a running process. [`RunOptions::new`] gives the usual, confined container;
/// change the fields that should differ.
pub struct RunOptions<'a> {
    /// The root file system: an overlay (`lowerdir=`, `upperdir=`, `workdir=` options) or a bind of a directory.
    pub root: Mount,
    /// The image's config: entrypoint, cmd, env, user, working directory.
    pub config: &'a ContainerConfig,
    /// Replaces the image's CMD when given. `RUN` passes the whole command here with an empty `entrypoint`.
    pub args: Option<Vec<String>>,
    /// Replaces the image's ENTRYPOINT when given; then the image's CMD is ignored too, as `docker run` does.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value` on top of the image's environment; entries without `=` are refused.
    pub env: Vec<String>,
    /// Replaces the image's USER: `name`, `uid`, `name:group`, `uid:gid`, resolved by the image's own files.
    pub user: Option<String>,
    /// Replaces the image's WORKDIR; made if missing.
    pub workdir: Option<String>,
    /// Further mounts, in order. Binds: kind `bind`, source an absolute host path, options `ro`, `rbind`, `nosuid`…;
    /// tmpfs: kind `tmpfs`, options `size=…`, `mode=…`. Missing mount points are made, and removed afterwards if
    /// still empty.
    pub mounts: Vec<Mount>,
    /// What the container may reach.
    pub network: Network<'a>,
    /// Extra lines of `/etc/hosts`.
    pub hosts: Vec<(String, IpAddr)>,
    /// The file that becomes `/etc/resolv.conf`; not used with [`Network::None`] and [`Network::Private`].
    pub resolv_conf: Option<PathBuf>,
    /// The file whose lines `/etc/hosts` begins with; only with [`Network::Host`].
    pub hosts_file: Option<PathBuf>,
    /// Limits of memory, cpu and processes.
    pub limits: Limits,
    /// Resource limits by name.
    pub rlimits: Vec<Rlimit>,
    /// Where output goes.
    pub stdio: Stdio,
    /// Where input comes from; ignored with [`Stdio::Terminal`].
    pub stdin: Stdin,
    /// The host name; the container's id if `None`.
    pub hostname: Option<String>,
    /// Whether it is a step of a build, as BuildKit runs them: no `/etc/hostname` and no `HOSTNAME`, `/etc/hosts` and
    /// `/etc/resolv.conf` read-only, and the first with nothing of the host's.
    pub build_step: bool,
    /// Mounts the root read-only; `/dev`, `/dev/shm` and given mounts stay as they are.
    pub read_only: bool,
    /// How far it is confined.
    pub security: Security,
    /// Kills it after this long; the result is [`ExitStatus::TimedOut`].
    pub timeout: Option<Duration>,
    /// Where running containers are written down, so that leftovers of killed processes are found, e.g. `/run/ctk`.
    pub state_dir: PathBuf,
    /// The cgroup below which the container's is made, relative to the hierarchy's root; `None`: below our own.
    pub cgroup_parent: Option<String>,
}

impl<'a> RunOptions<'a> {
    /// A confined container without network, input or terminal, whose output is inherited.
    pub fn new(root: Mount, config: &'a ContainerConfig, state_dir: impl Into<PathBuf>) -> RunOptions<'a> {
        RunOptions {
            root,
            config,
            args: None,
            entrypoint: None,
            env: Vec::new(),
            user: None,
            workdir: None,
            mounts: Vec::new(),
            network: Network::None,
            hosts: Vec::new(),
            resolv_conf: Some("/etc/resolv.conf".into()),
            hosts_file: Some("/etc/hosts".into()),
            limits: Limits::default(),
            rlimits: Vec::new(),
            stdio: Stdio::Inherit,
            stdin: Stdin::Null,
            hostname: None,
            build_step: false,
            read_only: false,
            security: Security::default(),
            timeout: None,
            state_dir: state_dir.into(),
            cgroup_parent: None,
        }
    }
}

/// What a container may reach.
#[derive(Clone, Default)]
pub enum Network<'a> {
    /// Its own loopback only.
    #[default]
    None,
    /// The host's network, as `RUN` needs it to download.
    Host,
    /// A place on a private network.
    Private {
        /// The network.
        switch: &'a Switch,
        /// Names by which the other members find it; the first is its main name.
        names: Vec<String>,
    },
}

/// Hears one line of output at a time, without its end of line and with invalid UTF-8 replaced. Called from threads.
pub type LineSink = Arc<dyn Fn(Stream, &str) + Send + Sync>;

/// Where output goes.
pub enum Stdio {
    /// To our own standard output and error.
    Inherit,
    /// Nowhere.
    Null,
    /// To a callback, line by line; an unfinished last line is passed too. Lines beyond
    /// [`crate::limits::LINE_BYTES`] are split.
    Lines(LineSink),
    /// To these files.
    Files {
        /// Standard output.
        out: OwnedFd,
        /// Standard error.
        err: OwnedFd,
    },
    /// To a new terminal, which [`crate::relay_terminal`] connects to ours.
    Terminal,
}

/// Where input comes from.
pub enum Stdin {
    /// Always at its end.
    Null,
    /// Our own standard input.
    Inherit,
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// This file.
    File(OwnedFd),
}

/// How far a container is confined. The default is what podman does: a short list of capabilities, no new
/// privileges, a seccomp allow-list, masked and read-only paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// Capabilities to add, e.g. `NET_ADMIN` or `CAP_NET_ADMIN`; `ALL` for all.
    pub add_capabilities: Vec<String>,
    /// Capabilities to drop; `ALL` drops the default set before `add_capabilities` counts.
    pub drop_capabilities: Vec<String>,
    /// Whether set-uid programs inside stay powerless.
    pub no_new_privileges: bool,
    /// Whether the seccomp allow-list applies.
    pub seccomp: bool,
    /// Whether kernel settings in /proc and /sys are masked or read-only.
    pub mask_paths: bool,
    /// Whether device nodes of any kind can be opened, and /sys with its cgroups can be written.
    pub devices: bool,
}

impl Default for Security {
    fn default() -> Security {
        Security {
            add_capabilities: Vec::new(),
            drop_capabilities: Vec::new(),
            no_new_privileges: true,
            seccomp: true,
            mask_paths: true,
            devices: false,
        }
    }
}

/// How a container, or a command in it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// The kernel killed one of its processes for want of memory, and it ended by that.
    Oom,
    /// It ran longer than it was given.
    TimedOut,
    /// We were told to stop.
    Cancelled,
}

impl ExitStatus {
    /// Whether it ended with code 0.
    pub fn success(self) -> bool {
        self == ExitStatus::Code(0)
    }

    /// The code a shell would show: 128 + signal, 137 for out of memory, 124 for too long, 130 for cancelled.
    pub fn shell_code(self) -> i32 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => 128 + signal,
            ExitStatus::Oom => 137,
            ExitStatus::TimedOut => 124,
            ExitStatus::Cancelled => 130,
        }
    }
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ExitStatus::Code(code) => write!(f, "exit code {code}"),
            ExitStatus::Signal(signal) => write!(f, "ended by signal {signal}"),
            ExitStatus::Oom => write!(f, "out of memory"),
            ExitStatus::TimedOut => write!(f, "timed out"),
            ExitStatus::Cancelled => write!(f, "cancelled"),
        }
    }
}

/// A command inside a running container.
pub struct ExecOptions {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `NAME=value` on top of the container's environment.
    pub env: Vec<String>,
    /// Replaces the container's user.
    pub user: Option<String>,
    /// Replaces the container's working directory.
    pub workdir: Option<String>,
    /// Where output goes; [`Stdio::Terminal`] is refused.
    pub stdio: Stdio,
    /// Where input comes from.
    pub stdin: Stdin,
    /// Kills it after this long.
    pub timeout: Option<Duration>,
}

impl ExecOptions {
    /// A command with the container's own environment and user, without input, whose output is inherited.
    pub fn new(args: Vec<String>) -> ExecOptions {
        ExecOptions {
            args,
            env: Vec::new(),
            user: None,
            workdir: None,
            stdio: Stdio::Inherit,
            stdin: Stdin::Null,
            timeout: None,
        }
    }
}
