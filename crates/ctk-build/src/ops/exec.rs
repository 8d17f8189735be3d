//! RUN: a container whose changes are the layer.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ctk_buildgraph::{Exec, NetworkMode, SecurityMode};
use ctk_container::{ExitStatus, Limits, LineSink, Network, Rlimit, RunOptions, Stdio};
use ctk_oci::{ContainerConfig, Mount, Platform};
use ctk_plan::Stream;
use ctk_snapshot::{LayerKey, Workspace};

use super::Work;
use crate::limits::ERROR_LINES;
use crate::mounts::Mounts;
use crate::{BuildError, HostAddress, RunSettings, Ulimit, emulation};

/// The host name of a RUN, as BuildKit's.
const HOST_NAME: &str = "buildkitsandbox";
/// What docker gives besides podman's list, and a RUN with it.
const MORE_CAPABILITIES: [&str; 3] = ["MKNOD", "NET_RAW", "AUDIT_WRITE"];
/// Devices that an insecure RUN finds in its /dev, where the host has them.
const INSECURE_DEVICES: [&str; 10] = [
    "/dev/loop-control",
    "/dev/loop0",
    "/dev/loop1",
    "/dev/loop2",
    "/dev/loop3",
    "/dev/loop4",
    "/dev/loop5",
    "/dev/loop6",
    "/dev/loop7",
    "/dev/fuse",
];

/// Runs the process.
pub(super) fn run(work: &Work<'_>, exec: &Exec, key: &LayerKey) -> Result<Option<LayerKey>, BuildError> {
    work.exec(exec, key)
}

impl Work<'_> {
    fn exec(&self, exec: &Exec, key: &LayerKey) -> Result<Option<LayerKey>, BuildError> {
        let has_file = |path: &str| self.tree(0).is_ok_and(|tree| tree.stat(path).is_ok_and(|found| found.is_some()));
        emulation::can_run(&exec.platform, has_file).map_err(|reason| BuildError::ForeignPlatform {
            platform: exec.platform.to_string(),
            host: Platform::host().to_string(),
            reason,
        })?;
        let workspace = self.workspace()?;
        let mut mounts = Mounts::prepare(self, exec)?;
        let config = ContainerConfig::default();
        let options = self.options(exec, &workspace, &mut mounts, &config)?;
        let status = self.watched(options).map_err(|error| self.without_shell(exec, error))?;
        drop(mounts);
        match status {
            (ExitStatus::Code(0), _) => self.commit(workspace, key),
            (ExitStatus::Cancelled, _) => Err(BuildError::Cancelled),
            (status, last_lines) => Err(BuildError::Command {
                command: self.vertex.name.clone(),
                status,
                last_lines,
                place: self.job.loaded.place(self.vertex.origin, self.job.request.world.sources),
            }),
        }
    }

    /// The container of a process: its files, mounts, environment, user, network and limits.
    pub fn options<'o>(
        &self,
        exec: &Exec,
        workspace: &Workspace,
        mounts: &mut Mounts,
        config: &'o ContainerConfig,
    ) -> Result<RunOptions<'o>, BuildError> {
        let settings = self.job.request.run;
        if exec.network != NetworkMode::None {
            mounts.list.extend(self.package_mounts()?);
        }
        mounts.list.extend(shm(exec, &mounts.list));
        mounts.list.extend(devices(exec)?);
        let mut options = RunOptions::new(workspace.root_mount()?, config, &self.job.request.state_directory);
        options.args = Some(exec.argv.clone());
        options.entrypoint = Some(Vec::new());
        options.env = exec.env.iter().chain(&exec.unkeyed_env).chain(&mounts.env).cloned().collect();
        options.user = Some(exec.user.clone()).filter(|u| !u.is_empty());
        options.workdir = Some(exec.cwd.clone());
        options.mounts = std::mem::take(&mut mounts.list);
        options.network = match exec.network {
            NetworkMode::None => Network::None,
            NetworkMode::Default | NetworkMode::Host => Network::Host,
        };
        options.build_step = true;
        options.hostname = Some(exec.settings.hostname.clone().unwrap_or_else(|| HOST_NAME.into()));
        options.hosts = hosts(settings);
        // sudo and the like work in a build, as with every other builder.
        options.security.no_new_privileges = false;
        options.security.add_capabilities = MORE_CAPABILITIES.map(str::to_owned).into();
        if exec.security == SecurityMode::Insecure {
            options.security.add_capabilities = vec!["ALL".into()];
            options.security.seccomp = false;
            options.security.mask_paths = false;
            options.security.devices = true;
        }
        options.rlimits = rlimits(&settings.ulimits)?;
        options.limits = limits(settings);
        options.cgroup_parent = settings.cgroup_parent.clone();
        options.timeout = exec.timeout_seconds.map(Duration::from_secs);
        Ok(options)
    }

    /// A container that did not start.
    pub fn cannot_start(&self, source: ctk_container::Error) -> BuildError {
        BuildError::Start {
            command: self.vertex.name.clone(),
            place: self.job.loaded.place(self.vertex.origin, self.job.request.world.sources),
            source: Box::new(source),
        }
    }

    /// Runs a container to its end; its lines go to the step's log, the last ones are given back.
    fn watched(&self, mut options: RunOptions<'_>) -> Result<(ExitStatus, Vec<String>), BuildError> {
        let start = |source| self.cannot_start(source);
        let last: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let (sender, receiver) = std::sync::mpsc::channel::<(Stream, String)>();
        let kept = last.clone();
        let sink: LineSink = Arc::new(move |stream, line: &str| {
            let mut kept = kept.lock().expect("no panic while locked");
            if kept.len() == ERROR_LINES {
                kept.pop_front();
            }
            kept.push_back(line.to_owned());
            drop(kept);
            // The receiver lives as long as the container does.
            let _ = sender.send((stream, line.to_owned()));
        });
        options.stdio = Stdio::Lines(sink);
        let status = std::thread::scope(|scope| {
            scope.spawn(move || {
                for (stream, line) in receiver {
                    self.step.log(stream, line);
                }
            });
            let container = ctk_container::run(options).map_err(start)?;
            let status = container.wait(self.cancel).map_err(start);
            drop(container);
            status
        })?;
        let lines = last.lock().expect("no panic while locked").iter().cloned().collect();
        Ok((status, lines))
    }

    /// A start that failed for want of a shell says so.
    fn without_shell(&self, exec: &Exec, error: BuildError) -> BuildError {
        let BuildError::Start { source, place, .. } = &error else { return error };
        let [shell, .., _] = exec.argv.as_slice() else { return error };
        let name = shell.rsplit('/').next().unwrap_or_default();
        let is_shell = ["sh", "bash", "ash", "dash", "zsh", "ksh", "busybox"].contains(&name);
        if !source.is_missing_program() || !shell.starts_with('/') || !is_shell {
            return error;
        }
        let reason = match self.tree(0).ok().and_then(|tree| tree.stat(shell).ok()).flatten() {
            None => {
                "write the command as a JSON array, `RUN [\"program\", \"argument\"]`, name another shell by SHELL, or \
                 begin with a base that has one"
            }
            Some(_) => "it is there, but not the program loader or the libraries that it wants",
        };
        BuildError::NoShell { shell: shell.clone(), reason, place: place.clone() }
    }

    /// The host's package sources, so that the image's own package manager works where mirrors are private.
    fn package_mounts(&self) -> Result<Vec<Mount>, BuildError> {
        let tree = self.tree(0)?;
        if tree.stat("/usr/bin/apt-get")?.is_none() {
            return Ok(Vec::new());
        }
        let Ok(host) = (self.job.request.world.host_packages)() else { return Ok(Vec::new()) };
        let mount = |source: &std::path::Path, destination: &std::path::Path| {
            Mount::new("bind", &source.to_string_lossy(), &destination.to_string_lossy(), &["rbind", "ro"])
        };
        Ok(host.mounts.iter().map(|m| mount(&m.source, &m.destination)).collect())
    }
}

/// `/dev/shm` of another size than the usual one, unless a mount says something else of it.
fn shm(exec: &Exec, mounts: &[Mount]) -> Option<Mount> {
    let size = format!("size={}", exec.settings.shm_size_bytes.filter(|bytes| *bytes > 0)?);
    let own = mounts.iter().any(|mount| mount.destination == "/dev/shm");
    (!own).then(|| Mount::new("tmpfs", "shm", "/dev/shm", &["nosuid", "nodev", "noexec", "mode=1777", &size]))
}

/// Devices of the host that the process sees at their own places.
fn devices(exec: &Exec) -> Result<Vec<Mount>, BuildError> {
    let mount = |path: &str| Mount::new("bind", path, path, &["bind", "nosuid", "noexec"]);
    let exists = |path: &str| std::path::Path::new(path).exists();
    let mut list = Vec::new();
    for device in &exec.devices {
        let known = device.name.starts_with("/dev/") && !device.name.split('/').any(|part| part == "..");
        if known && exists(&device.name) {
            list.push(mount(&device.name));
        } else if device.required || !known {
            return Err(BuildError::DeviceMissing { name: device.name.clone() });
        }
    }
    if exec.security == SecurityMode::Insecure {
        list.extend(INSECURE_DEVICES.into_iter().filter(|path| exists(path)).map(mount));
    }
    Ok(list)
}

/// Added lines of `/etc/hosts`. The network is the host's, so its gateway is the host itself.
fn hosts(settings: &RunSettings) -> Vec<(String, IpAddr)> {
    let address = |address: &HostAddress| match address {
        HostAddress::Address(address) => *address,
        HostAddress::Gateway => IpAddr::from([127, 0, 0, 1]),
    };
    settings.add_hosts.iter().map(|(name, to)| (name.clone(), address(to))).collect()
}

fn limits(settings: &RunSettings) -> Limits {
    let asked = &settings.resources;
    Limits {
        memory_bytes: asked.memory_bytes,
        memory_swap_bytes: asked.memory_swap_bytes,
        cpu_shares: asked.cpu_shares,
        cpu_period: asked.cpu_period,
        cpu_quota: asked.cpu_quota,
        cpuset_cpus: asked.cpuset_cpus.clone(),
        cpuset_mems: asked.cpuset_mems.clone(),
        ..Limits::default()
    }
}

/// `RLIMIT_*` by the names that docker knows (getrlimit(2)).
const RLIMITS: [(&str, u32); 16] = [
    ("cpu", 0),
    ("fsize", 1),
    ("data", 2),
    ("stack", 3),
    ("core", 4),
    ("rss", 5),
    ("nproc", 6),
    ("nofile", 7),
    ("memlock", 8),
    ("as", 9),
    ("locks", 10),
    ("sigpending", 11),
    ("msgqueue", 12),
    ("nice", 13),
    ("rtprio", 14),
    ("rttime", 15),
];

fn rlimits(ulimits: &[Ulimit]) -> Result<Vec<Rlimit>, BuildError> {
    let rlimit = |ulimit: &Ulimit| {
        let Some((_, resource)) = RLIMITS.iter().find(|(name, _)| *name == ulimit.name) else {
            let near = ctk_syntax::nearest(&ulimit.name, RLIMITS.map(|(name, _)| name));
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return Err(BuildError::BadOption(format!("there is no ulimit `{}`{near}", ulimit.name)));
        };
        let side = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        Ok(Rlimit { resource: *resource, soft: side(ulimit.soft), hard: side(ulimit.hard) })
    };
    ulimits.iter().map(rlimit).collect()
}
