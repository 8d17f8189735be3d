//! An image's config and the caller's overrides become a launch; a launch becomes a container.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ctk_oci::{ContainerConfig, Mount};
use ctk_plan::Cancel;
use ctk_runtime::{Capabilities, Exit, Launch, NetworkNamespace, Process, Root, Running, Waited};

use crate::files::{self, LOCALHOST};
use crate::limits::ACCOUNT_FILE_BYTES;
use crate::options::{ExecOptions, ExitStatus, Network, RunOptions, Security, Stdio};
use crate::streams::Streams;
use crate::switch::Port;
use crate::{Error, user};

/// `PATH` where the image sets none, as docker's.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Kernel settings and secrets that no container reads (docker's list).
pub(crate) const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Kernel settings that no container writes (docker's list).
pub(crate) const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// A running container. Dropping it kills it and removes what it left.
pub struct Container {
    id: String,
    // Before the port: the process goes before its network.
    running: Running,
    process: Process,
    config_user: String,
    stop_signal: i32,
    security: Security,
    deadline: Option<Instant>,
    streams: Mutex<Streams>,
    status: Mutex<Option<ExitStatus>>,
    port: Option<Port>,
}

/// Starts a container: returns once its program was executed, or says which step failed.
pub fn run(options: RunOptions<'_>) -> Result<Container, Error> {
    let id = new_id();
    let config = options.config;
    let security = options.security.clone();
    let capabilities = capabilities(&security)?;
    let args = command(config, options.entrypoint.as_deref(), options.args.as_deref())?;
    let cwd = workdir(options.workdir.as_deref().unwrap_or(&config.working_dir))?;
    let root = Root::mount(&options.root, security.devices)?;
    let config_user = options.user.clone().unwrap_or_else(|| config.user.clone());
    let account = account(&config_user, &|path| root.read_file(path, ACCOUNT_FILE_BYTES))?;
    let hostname = options.hostname.clone().unwrap_or_else(|| id.clone());
    let terminal = matches!(options.stdio, Stdio::Terminal);
    let named = (!options.build_step).then_some(hostname.as_str());
    let env = environment(config, &options.env, &account.home, named, terminal)?;
    let reservation = ctk_runtime::reserve(&options.state_dir, &id)?;
    let directory = reservation.directory();
    let port = match &options.network {
        Network::Private { switch, names } => Some(switch.plug(names)?),
        Network::None | Network::Host => None,
    };
    let mut mounts = system_mounts(&security, capabilities);
    let hosts = hosts_text(&options, &hostname, port.as_ref())?;
    let own = mounts.len();
    mounts.push(files::place(directory, "/etc/hosts", hosts.as_bytes())?);
    if !options.build_step {
        mounts.push(files::place(directory, "/etc/hostname", format!("{hostname}\n").as_bytes())?);
    }
    let resolver = match (&options.network, &options.resolv_conf) {
        (Network::Host, Some(path)) => std::fs::read(path).unwrap_or_default(),
        _ => Vec::new(),
    };
    mounts.push(files::place(directory, "/etc/resolv.conf", &resolver)?);
    if options.build_step {
        mounts[own..].iter_mut().for_each(|mount| mount.options.push("ro".into()));
    }
    if let Some(port) = &port {
        port.keep_hosts_in(&directory.join("hosts"), &hosts)?;
    }
    // What the caller mounts wins over ours.
    mounts.retain(|ours| !options.mounts.iter().any(|theirs| theirs.destination == ours.destination));
    mounts.extend(options.mounts.iter().cloned());
    let process = Process {
        args,
        env,
        cwd,
        uid: account.uid,
        gid: account.gid,
        groups: account.groups,
        capabilities,
        rlimits: options.rlimits.clone(),
        no_new_privileges: security.no_new_privileges,
        seccomp: security.seccomp.then(|| ctk_runtime::default_profile(capabilities)),
        umask: 0o022,
    };
    let paths = |list: &[&str]| match security.mask_paths {
        true => list.iter().map(|path| (*path).to_string()).collect(),
        false => Vec::new(),
    };
    let (streams, stdio) = Streams::open(options.stdio, options.stdin)?;
    let launch = Launch {
        id: id.clone(),
        root,
        root_read_only: options.read_only,
        mounts,
        masked_paths: paths(&MASKED),
        read_only_paths: paths(&READ_ONLY),
        hostname,
        network: match (&options.network, &port) {
            (Network::Host, _) => NetworkNamespace::Host,
            (_, Some(port)) => NetworkNamespace::Join(port.namespace()),
            (_, None) => NetworkNamespace::New,
        },
        process: process.clone(),
        limits: options.limits,
        cgroup_parent: options.cgroup_parent.clone(),
        stdio,
    };
    let running = ctk_runtime::start(launch, reservation)?;
    Ok(Container {
        id,
        running,
        process,
        config_user,
        stop_signal: stop_signal(config.stop_signal.as_deref()),
        security,
        deadline: options.timeout.map(|timeout| Instant::now() + timeout),
        streams: Mutex::new(streams),
        status: Mutex::new(None),
        port,
    })
}

impl Container {
    /// Its id, also its default host name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The process id of its first process, as we see it.
    pub fn pid(&self) -> i32 {
        self.running.pid()
    }

    /// Its address on the private network.
    pub fn ip(&self) -> Option<Ipv4Addr> {
        self.port.as_ref().map(Port::address)
    }

    /// Our end of its terminal, with [`Stdio::Terminal`].
    pub fn terminal(&self) -> Option<&OwnedFd> {
        self.running.terminal()
    }

    /// How it was confined.
    pub fn security(&self) -> &Security {
        &self.security
    }

    /// Waits for its end; cancelled or out of time, kills it. All output lines were passed on when this returns.
    /// Safe to repeat, from any thread.
    pub fn wait(&self, cancel: &Cancel) -> Result<ExitStatus, Error> {
        let status = match self.running.wait(cancel, self.deadline)? {
            Waited::Ended(exit) => exit.into(),
            Waited::Cancelled => self.end_as(ExitStatus::Cancelled)?,
            Waited::OutOfTime => self.end_as(ExitStatus::TimedOut)?,
        };
        Ok(self.settle(status))
    }

    /// How it ended, if it has. Does not look at the timeout; [`Container::wait`] does.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>, Error> {
        let exit = self.running.try_wait()?;
        Ok(exit.map(|exit| self.settle(exit.into())))
    }

    fn end_as(&self, status: ExitStatus) -> Result<ExitStatus, Error> {
        self.running.kill();
        self.running.wait(&Cancel::new(), None)?;
        Ok(status)
    }

    /// The first answer stays the answer.
    fn settle(&self, status: ExitStatus) -> ExitStatus {
        let status = *lock(&self.status).get_or_insert(status);
        lock(&self.streams).finish();
        status
    }

    /// Sends a signal to its first process. No error if it has ended. As the first process of its process ids, it
    /// hears only signals that it handles, and SIGKILL.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        Ok(self.running.signal(signal)?)
    }

    /// Asks it to stop by the image's stop signal, and kills it after `grace`.
    pub fn stop(&self, grace: Duration) -> Result<ExitStatus, Error> {
        self.running.signal(self.stop_signal)?;
        let status = match self.running.wait(&Cancel::new(), Some(Instant::now() + grace))? {
            Waited::Ended(exit) => exit.into(),
            Waited::Cancelled | Waited::OutOfTime => {
                self.running.kill();
                match self.running.wait(&Cancel::new(), None)? {
                    Waited::Ended(exit) => exit.into(),
                    Waited::Cancelled | Waited::OutOfTime => ExitStatus::Signal(SIGKILL),
                }
            }
        };
        Ok(self.settle(status))
    }

    /// Runs a command inside, with the container's confinement, and waits for its end. Cancelled or out of time, kills
    /// that command only.
    pub fn exec(&self, options: ExecOptions, cancel: &Cancel) -> Result<ExitStatus, Error> {
        let mut process = self.process.clone();
        process.args = options.args;
        for entry in &options.env {
            set_env(&mut process.env, entry)?;
        }
        if let Some(path) = &options.workdir {
            process.cwd = workdir(path)?;
        }
        if let Some(wanted) = &options.user {
            let account = account(wanted, &|path| self.running.read_file(path, ACCOUNT_FILE_BYTES))?;
            (process.uid, process.gid, process.groups) = (account.uid, account.gid, account.groups);
            if *wanted != self.config_user {
                set_env(&mut process.env, &format!("HOME={}", account.home))?;
            }
        }
        let (mut streams, stdio) = Streams::open(options.stdio, options.stdin)?;
        let joined = self.running.join(&process, stdio)?;
        let deadline = options.timeout.map(|timeout| Instant::now() + timeout);
        let kill_as = |status| {
            joined.signal(SIGKILL)?;
            joined.wait(&Cancel::new(), None)?;
            Ok::<_, Error>(status)
        };
        let status = match joined.wait(cancel, deadline)? {
            Waited::Ended(exit) => exit.into(),
            Waited::Cancelled => kill_as(ExitStatus::Cancelled)?,
            Waited::OutOfTime => kill_as(ExitStatus::TimedOut)?,
        };
        streams.finish();
        Ok(status)
    }
}

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

impl From<Exit> for ExitStatus {
    fn from(exit: Exit) -> ExitStatus {
        match exit {
            Exit::Code(code) => ExitStatus::Code(code),
            Exit::Signal(signal) => ExitStatus::Signal(signal),
            Exit::Oom => ExitStatus::Oom,
        }
    }
}

/// Kills and removes what containers of killed `ctk` processes left behind. Gives back how many there were.
pub fn cleanup_stale(state_dir: &Path) -> Result<usize, Error> {
    Ok(ctk_runtime::cleanup_stale(state_dir)?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Twelve hexadecimal digits that no other container has: the standard library's hasher is seeded at random.
fn new_id() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    format!("{:012x}", hasher.finish() & 0xffff_ffff_ffff)
}

pub(crate) fn capabilities(security: &Security) -> Result<Capabilities, Error> {
    let parse =
        |name: &String| Capabilities::parse(name).ok_or_else(|| Error::UnknownCapability { name: name.clone() });
    let mut set = Capabilities::usual();
    for name in &security.drop_capabilities {
        set = set.without(parse(name)?);
    }
    for name in &security.add_capabilities {
        set = set.with(parse(name)?);
    }
    Ok(set)
}

/// Entrypoint and command, as docker joins them: a new entrypoint makes the image's command meaningless.
pub(crate) fn command(
    config: &ContainerConfig,
    entrypoint: Option<&[String]>,
    args: Option<&[String]>,
) -> Result<Vec<String>, Error> {
    let none: &[String] = &[];
    let image_args = if entrypoint.is_some() { none } else { config.cmd.as_deref().unwrap_or(none) };
    let entrypoint = entrypoint.or(config.entrypoint.as_deref()).unwrap_or(none);
    let all: Vec<String> = entrypoint.iter().chain(args.unwrap_or(image_args)).cloned().collect();
    if all.is_empty() { Err(Error::NoCommand) } else { Ok(all) }
}

/// An absolute path without `.` and `..`, as docker has it.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

pub(crate) fn workdir(path: &str) -> Result<String, Error> {
    match path {
        "" => Ok("/".into()),
        path if path.starts_with('/') => Ok(clean(path)),
        path => Err(Error::RelativeWorkdir { path: path.into() }),
    }
}

/// Who a user is by the files of an image, which `read` gives.
pub fn account(wanted: &str, read: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<user::User, Error> {
    let passwd = read("/etc/passwd").unwrap_or_default();
    let group = read("/etc/group").unwrap_or_default();
    user::resolve(wanted, &passwd, &group)
}

/// The whole environment. Entries of the image that are not `NAME=value` are dropped; those of the caller are errors.
pub(crate) fn environment(
    config: &ContainerConfig,
    extra: &[String],
    home: &str,
    hostname: Option<&str>,
    terminal: bool,
) -> Result<Vec<String>, Error> {
    let mut env = vec![PATH.to_string()];
    env.extend(hostname.map(|hostname| format!("HOSTNAME={hostname}")));
    if terminal {
        env.push("TERM=xterm".into());
    }
    env.push(format!("HOME={home}"));
    for entry in config.env.iter().filter(|entry| entry.find('=').is_some_and(|at| at > 0)) {
        set_env(&mut env, entry)?;
    }
    for entry in extra {
        set_env(&mut env, entry)?;
    }
    // As with runc, an empty one is as good as none.
    if env.iter().any(|entry| entry == "HOME=") {
        set_env(&mut env, &format!("HOME={home}"))?;
    }
    Ok(env)
}

fn set_env(env: &mut Vec<String>, entry: &str) -> Result<(), Error> {
    let invalid = || Error::InvalidEnv { entry: entry.into() };
    let (name, _) = entry.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(invalid)?;
    let same = |old: &String| old.split_once('=').is_some_and(|(old, _)| old == name);
    match env.iter_mut().find(|old| same(old)) {
        Some(old) => *old = entry.into(),
        None => env.push(entry.into()),
    }
    Ok(())
}

/// What every container has mounted (runtime specification, `config-linux.md`: default filesystems).
fn system_mounts(security: &Security, capabilities: Capabilities) -> Vec<Mount> {
    let makes_nodes = Capabilities::parse("MKNOD").is_some_and(|mknod| capabilities.has(mknod));
    let guard: &[&str] = if makes_nodes && !security.devices { &["nodev"] } else { &[] };
    let system = if security.devices { "rw" } else { "ro" };
    let mut mounts = vec![
        Mount::new("proc", "proc", "/proc", &["nosuid", "nodev", "noexec"]),
        Mount::new("dev", "dev", "/dev", guard),
        Mount::new("devpts", "devpts", "/dev/pts", &["nosuid", "noexec", "ptmxmode=0666", "mode=0620", "gid=5"]),
        Mount::new("tmpfs", "shm", "/dev/shm", &["nosuid", "nodev", "noexec", "mode=1777", "size=67108864"]),
        Mount::new("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "nodev", "noexec"]),
        Mount::new("sysfs", "sysfs", "/sys", &["nosuid", "nodev", "noexec", system]),
    ];
    let unified = rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|found| found.f_type as u64 == CGROUP2_MAGIC);
    if unified {
        let options = ["nosuid", "nodev", "noexec", system, "optional"];
        mounts.push(Mount::new("cgroup2", "cgroup", "/sys/fs/cgroup", &options));
    }
    mounts
}

fn hosts_text(options: &RunOptions<'_>, hostname: &str, port: Option<&Port>) -> Result<String, Error> {
    if options.build_step {
        let usual = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        return Ok(usual + &files::host_lines(&options.hosts));
    }
    let mut text = match (&options.network, &options.hosts_file) {
        (Network::Host, Some(path)) => std::fs::read_to_string(path).unwrap_or_else(|_| LOCALHOST.into()),
        _ => LOCALHOST.into(),
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let own = port.map_or_else(|| "127.0.1.1".to_string(), |port| port.address().to_string());
    text.push_str(&format!("{own}\t{hostname}\n"));
    text.push_str(&files::host_lines(&options.hosts));
    Ok(text)
}

/// What asks an image's program to end; SIGTERM if it does not say.
fn stop_signal(text: Option<&str>) -> i32 {
    text.and_then(ctk_runtime::signal_number).unwrap_or(SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(entrypoint: Option<&[&str]>, args: Option<&[&str]>, expected: &str) {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_string()).collect::<Vec<_>>();
        let config =
            ContainerConfig { entrypoint: Some(own(&["e"])), cmd: Some(own(&["c"])), ..ContainerConfig::default() };
        let (entrypoint, args) = (entrypoint.map(own), args.map(own));
        let found = command(&config, entrypoint.as_deref(), args.as_deref());
        assert_eq!(found.map_or("-".into(), |all| all.join(" ")), expected);
    }

    #[test]
    fn commands_join_as_in_docker() {
        check(None, None, "e c");
        check(None, Some(&["a", "b"]), "e a b");
        check(Some(&["x"]), None, "x");
        check(Some(&["x"]), Some(&["a"]), "x a");
        check(Some(&[]), Some(&["a"]), "a");
        check(Some(&[]), None, "-");
    }
}
