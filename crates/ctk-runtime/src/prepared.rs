//! A launch with everything opened, as the list of steps that its process will walk.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use ctk_sys::{Child, Filter, MountKind, Pointer, Start, Step};
use rustix::io::Errno;

use crate::mounts::{Prepared, PreparedKind, text};
use crate::{Capabilities, Error, Process, Rlimit};

pub(crate) const NEW_MOUNT: u32 = libc::CLONE_NEWNS as u32;
pub(crate) const NEW_CGROUP: u32 = libc::CLONE_NEWCGROUP as u32;
pub(crate) const NEW_UTS: u32 = libc::CLONE_NEWUTS as u32;
pub(crate) const NEW_IPC: u32 = libc::CLONE_NEWIPC as u32;
pub(crate) const NEW_PID: u32 = libc::CLONE_NEWPID as u32;
pub(crate) const NEW_NETWORK: u32 = libc::CLONE_NEWNET as u32;

/// Where a process of a container comes to be.
pub(crate) enum Place {
    /// In a container of its own.
    New(Box<NewPlace>),
    /// In the one whose first process this pidfd is.
    Existing(OwnedFd),
}

pub(crate) struct NewPlace {
    pub(crate) new_network: bool,
    pub(crate) network: Option<OwnedFd>,
    pub(crate) hostname: String,
    pub(crate) root: OwnedFd,
    pub(crate) mounts: Vec<Prepared>,
    pub(crate) masked: Vec<CString>,
    pub(crate) read_only: Vec<CString>,
    pub(crate) cwd: CString,
    pub(crate) console: bool,
}

/// The process itself, in C strings.
pub(crate) struct PreparedProcess {
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
    cwd: CString,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    capabilities: Capabilities,
    rlimits: Vec<Rlimit>,
    no_new_privileges: bool,
    seccomp: Option<Arc<[Filter]>>,
    umask: u32,
    files: [OwnedFd; 3],
    terminal: bool,
}

/// All of it. Steps borrow from here.
pub(crate) struct Plan {
    pub(crate) place: Place,
    pub(crate) process: PreparedProcess,
    pub(crate) unified: Option<OwnedFd>,
    /// Whether it has limits that were asked for; else it is a convenience.
    pub(crate) limits_by_unified: bool,
    pub(crate) procs: Vec<OwnedFd>,
    pub(crate) die_with_parent: bool,
}

impl PreparedProcess {
    pub(crate) fn new(process: &Process, files: [OwnedFd; 3], terminal: bool) -> Result<PreparedProcess, Error> {
        let Some(program) = process.args.first() else {
            return Err(Error::InvalidLaunch("there is no command to run".into()));
        };
        let all = |list: &[String]| list.iter().map(|one| text(one)).collect::<Result<Vec<_>, _>>();
        let mut candidates = Vec::new();
        if program.contains('/') {
            candidates.push(text(program)?);
        } else if !program.is_empty() {
            let path = process.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
            for directory in path.unwrap_or(DEFAULT_PATH).split(':').filter(|d| !d.is_empty()) {
                candidates.push(text(&format!("{}/{program}", directory.trim_end_matches('/')))?);
            }
        }
        let own = own_capabilities();
        crate::give_pipes(files.iter().map(AsFd::as_fd), process.uid);
        Ok(PreparedProcess {
            candidates,
            args: all(&process.args)?,
            env: all(&process.env)?,
            cwd: text(&process.cwd)?,
            uid: process.uid,
            gid: process.gid,
            groups: process.groups.clone(),
            capabilities: process.capabilities.common(own),
            rlimits: process.rlimits.clone(),
            no_new_privileges: process.no_new_privileges,
            seccomp: process.seccomp.clone(),
            umask: process.umask,
            files: lift(files)?,
            terminal,
        })
    }
}

/// The `PATH` of a process that has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Files at numbers above the standard ones, so that none overwrites another when they are put there.
fn lift(files: [OwnedFd; 3]) -> Result<[OwnedFd; 3], Error> {
    let [input, output, error] = files;
    let lift = |file: OwnedFd| match file.as_raw_fd() {
        0..=2 => rustix::io::fcntl_dupfd_cloexec(&file, 3).map_err(|e| Error::Clone(e.into())),
        _ => Ok(file),
    };
    Ok([lift(input)?, lift(output)?, lift(error)?])
}

/// What we may give: nobody can pass on more than he has.
fn own_capabilities() -> Capabilities {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapPrm:")?.trim(), 16).ok());
    Capabilities::from_bits(bits.unwrap_or(u64::MAX))
}

impl Plan {
    /// Starts the process. Its steps may still fail: see [`Child::executed`].
    pub(crate) fn start(&self) -> Result<Child, Error> {
        let namespaces = match &self.place {
            Place::New(place) => {
                let network = if place.new_network { NEW_NETWORK } else { 0 };
                NEW_MOUNT | NEW_UTS | NEW_IPC | NEW_PID | network
            }
            Place::Existing(_) => 0,
        };
        let result = self.with_steps(|steps| {
            let start = |cgroup| ctk_sys::start(&Start { namespaces: u64::from(namespaces), cgroup, steps });
            match start(self.unified.as_ref().map(AsRawFd::as_raw_fd)) {
                // A cgroup that takes no processes.
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::BUSY)
                    if self.unified.is_some() && !self.limits_by_unified =>
                {
                    start(None)
                }
                other => other,
            }
        });
        result.map_err(|errno| match errno {
            rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::BUSY if self.limits_by_unified => Error::Limit {
                what: "the container",
                reason: format!(
                    "its cgroup takes no processes ({}): it is below a threaded one, or gives controllers to others below \
                     it; start it from another cgroup",
                    std::io::Error::from(errno)
                ),
            },
            _ => Error::Clone(errno.into()),
        })
    }

    /// The error of a step.
    pub(crate) fn explain(&self, failure: ctk_sys::Failure) -> Error {
        let source = std::io::Error::from_raw_os_error(failure.errno);
        self.with_steps(|steps| match steps.get(failure.step) {
            Some(step @ Step::Execute { .. }) => Error::Execute { step: self.describe(step), source },
            Some(step) => {
                let why = self.misfit(step, &source).unwrap_or_default();
                Error::Step { step: self.describe(step) + why, source }
            }
            None => Error::Step { step: "start the container".into(), source },
        })
    }

    fn with_steps<T>(&self, then: impl FnOnce(&[Step<'_>]) -> T) -> T {
        let process = &self.process;
        let candidates: Vec<&CStr> = process.candidates.iter().map(CString::as_c_str).collect();
        let arguments = pointers(&process.args);
        let environment = pointers(&process.env);
        let fresh = self.fresh_options();
        let mut steps = Vec::with_capacity(96);
        // Before it is where other processes of the container can see it (CVE-2019-5736).
        steps.push(Step::Hide);
        if self.die_with_parent {
            steps.push(Step::DieWithParent);
        }
        steps.extend(self.procs.iter().map(|file| Step::Write { file: file.as_raw_fd(), bytes: b"0" }));
        match &self.place {
            Place::New(place) => place.steps(&fresh, &mut steps),
            Place::Existing(of) => {
                let namespaces = NEW_MOUNT | NEW_UTS | NEW_IPC | NEW_NETWORK | NEW_CGROUP;
                steps.push(Step::Join { of: of.as_raw_fd(), namespaces });
            }
        }
        steps.push(Step::NewSession);
        for (from, to) in process.files.iter().zip(0..) {
            steps.push(Step::Duplicate { from: from.as_raw_fd(), to });
        }
        if process.terminal {
            steps.push(Step::ControllingTerminal { file: 0 });
        }
        for Rlimit { resource, soft, hard } in &process.rlimits {
            steps.push(Step::Rlimit { resource: *resource, soft: *soft, hard: *hard });
        }
        steps.push(Step::BoundingSet { keep: process.capabilities.bits() });
        steps.push(Step::Umask { mask: process.umask });
        steps.push(Step::WorkingDirectory { path: &process.cwd });
        steps.push(Step::ResetSignals);
        steps.push(Step::CloseFrom { from: 3 });
        let seccomp = process.seccomp.as_deref().map(|program| Step::Seccomp { program });
        if !process.no_new_privileges {
            // Needs CAP_SYS_ADMIN, so before capabilities go.
            steps.extend(seccomp);
        }
        steps.push(Step::Groups { groups: &process.groups, optional: crate::in_user_namespace() });
        steps.push(Step::Gid { gid: process.gid });
        steps.push(Step::Uid { uid: process.uid });
        let effective = if process.uid == 0 { process.capabilities.bits() } else { 0 };
        steps.push(Step::Capabilities { set: effective });
        if self.die_with_parent {
            steps.push(Step::DieWithParent);
        }
        if process.no_new_privileges {
            steps.push(Step::NoNewPrivileges);
            steps.extend(seccomp);
        }
        steps.push(Step::Execute { candidates: &candidates, arguments: &arguments, environment: &environment });
        then(&steps)
    }

    fn fresh_options(&self) -> Vec<Vec<(&CStr, &CStr)>> {
        let Place::New(place) = &self.place else { return Vec::new() };
        let options = place.mounts.iter().map(|mount| match &mount.what {
            PreparedKind::Fresh { options, .. } => {
                options.iter().map(|(key, value)| (key.as_c_str(), value.as_c_str())).collect()
            }
            PreparedKind::Tree(_) => Vec::new(),
        });
        options.collect()
    }

    /// What the kernel's error means where a file and a directory meet.
    fn misfit(&self, step: &Step<'_>, source: &std::io::Error) -> Option<&'static str> {
        let errno = Errno::from_io_error(source)?;
        let Place::New(place) = &self.place else { return None };
        let mounted = |at: &CStr, directory| {
            place.mounts.iter().any(|mount| mount.at.as_c_str() == at && mount.directory == directory)
        };
        match step {
            Step::Attach { at, .. } if errno == Errno::INVAL && mounted(at, false) => {
                Some(", a directory on which a file is to be mounted")
            }
            Step::Make { path, .. } if matches!(errno, Errno::NOTDIR | Errno::EXIST) && mounted(path, true) => {
                Some(", on which a directory is to be mounted: a file is there, or on the way")
            }
            _ => None,
        }
    }

    fn describe(&self, step: &Step<'_>) -> String {
        let show = |text: &CStr| text.to_string_lossy().into_owned();
        match step {
            Step::Hide => "hide from other processes".into(),
            Step::DieWithParent => "tie the container to this process".into(),
            Step::Write { .. } => "join the container's cgroup".into(),
            Step::Unshare { .. } => "make a cgroup namespace".into(),
            Step::Join { .. } => "join the container's namespaces".into(),
            Step::LoopbackUp => "bring up the loopback interface".into(),
            Step::HostName { name } => format!("set the host name `{}`", String::from_utf8_lossy(name)),
            Step::PrivateMounts => "make mounts private".into(),
            Step::EnterRoot { .. } | Step::PlaceRoot { .. } | Step::EnterPlaced { .. } => {
                "enter the root file system".into()
            }
            Step::Make { path, .. } => format!("make `{}` in the container", show(path)),
            Step::Attach { at, .. } => format!("mount on `{}` in the container", show(at)),
            Step::Mount { kind, at, .. } => format!("mount {} on `{}` in the container", show(kind), show(at)),
            Step::Bind { from, at } => format!("bind `{}` to `{}` in the container", show(from), show(at)),
            Step::Mask { path } => format!("mask `{}`", show(path)),
            Step::ReadOnly { path } => format!("make `{}` read-only", show(path)),
            Step::NewSession => "start a session".into(),
            Step::ControllingTerminal { .. } => "take the terminal".into(),
            Step::Duplicate { .. } => "set up standard streams".into(),
            Step::CloseFrom { .. } | Step::Release { .. } => "close files".into(),
            Step::Rlimit { resource, soft, hard } => format!("set resource limit {resource} to {soft}:{hard}"),
            Step::BoundingSet { .. } => "drop capabilities from the bounding set".into(),
            Step::Capabilities { .. } => "drop capabilities".into(),
            Step::Groups { .. } => "set supplementary groups".into(),
            Step::Gid { gid } => format!("become group {gid}"),
            Step::Uid { uid } => format!("become user {uid}"),
            Step::NoNewPrivileges => "give up new privileges".into(),
            Step::Seccomp { .. } => "confine system calls".into(),
            Step::WorkingDirectory { path } => format!("change to the working directory `{}`", show(path)),
            Step::Umask { .. } => "set the file mode mask".into(),
            Step::ResetSignals => "reset signals".into(),
            Step::Execute { candidates, .. } => {
                let program = self.process.args.first().map(|a| show(a)).unwrap_or_default();
                match candidates {
                    [only] if show(only) == program => format!("execute `{program}` in the container"),
                    _ => {
                        let places: Vec<_> = candidates
                            .iter()
                            .filter_map(|c| show(c).rsplit_once('/').map(|(directory, _)| directory.to_string()))
                            .collect();
                        format!("execute `{program}` in the container (looked in {})", places.join(", "))
                    }
                }
            }
            // No container of a launch does the others.
            _ => "leave a process behind".into(),
        }
    }
}

impl NewPlace {
    fn steps<'a>(&'a self, options: &'a [Vec<(&'a CStr, &'a CStr)>], steps: &mut Vec<Step<'a>>) {
        if let Some(network) = &self.network {
            steps.push(Step::Join { of: network.as_raw_fd(), namespaces: NEW_NETWORK });
        }
        // After the cgroups were joined, so that they are the root that the container sees.
        steps.push(Step::Unshare { namespaces: NEW_CGROUP });
        if self.new_network {
            steps.push(Step::LoopbackUp);
        }
        steps.push(Step::HostName { name: self.hostname.as_bytes() });
        steps.push(Step::PrivateMounts);
        // In a user namespace the kernel makes a new /proc or /sys only for who still sees an old one.
        let late = crate::in_user_namespace();
        let mount = self.root.as_raw_fd();
        steps.push(if late { Step::PlaceRoot { mount, at: c"/" } } else { Step::EnterRoot { mount } });
        for (mount, options) in self.mounts.iter().zip(options) {
            let kind = if mount.directory { MountKind::Directory } else { MountKind::File };
            steps.push(Step::Make { path: &mount.at, kind, mode: 0o755 });
            let at = mount.at.as_c_str();
            steps.push(match &mount.what {
                PreparedKind::Tree(tree) => Step::Attach { mount: tree.as_raw_fd(), at, no_links: mount.no_links },
                PreparedKind::Fresh { kind, attributes, optional, .. } => {
                    Step::Mount { kind, options, attributes: *attributes, at, optional: *optional }
                }
            });
        }
        if self.console {
            steps.push(Step::Make { path: c"/dev/console", kind: MountKind::File, mode: 0o600 });
            steps.push(Step::Bind { from: c"/dev/pts/0", at: c"/dev/console" });
        }
        if late {
            steps.push(Step::EnterPlaced { pivot: true });
        }
        steps.push(Step::Make { path: &self.cwd, kind: MountKind::Directory, mode: 0o755 });
        steps.extend(self.read_only.iter().map(|path| Step::ReadOnly { path }));
        steps.extend(self.masked.iter().map(|path| Step::Mask { path }));
    }
}

fn pointers(strings: &[CString]) -> Vec<Pointer<'_>> {
    strings.iter().map(|string| Pointer::new(string)).chain(std::iter::once(Pointer::END)).collect()
}
