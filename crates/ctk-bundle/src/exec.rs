//! A further process in a running container.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::action::{Action, NAMESPACES, Task};
use crate::container::{self, OomScore};
use crate::launch::{self, Files, Launch};
use crate::open;
use crate::plan::{Switches, Tasks};
use crate::process;
use crate::seccomp;
use crate::spec::{IdMapping, Process, Spec};
use crate::state::{Kept, Status};

const NEW_PID: u32 = libc::CLONE_NEWPID as u32;
const NEW_USER: u32 = libc::CLONE_NEWUSER as u32;

/// What the caller of `exec` decides.
pub struct Options {
    /// The state root.
    pub root: PathBuf,
    /// The container's name.
    pub id: String,
    /// Files that stay open.
    pub preserve_fds: u32,
    /// A connected socket that gets the terminal.
    pub console: Option<OwnedFd>,
    /// Where the process id is written.
    pub pid_file: Option<PathBuf>,
    /// Whether a container whose processes are frozen is joined all the same.
    pub ignore_paused: bool,
    /// Cgroups below the container's: `PATH` for all hierarchies, `CONTROLLER:PATH` for one.
    pub cgroups: Vec<String>,
}

/// Starts a process as `process` makes it of the container's own; comes back once its program was executed. Its process
/// id, its pidfd, and what it asks for and was not given, in words.
pub fn exec(
    mut options: Options,
    process: impl FnOnce(&Spec) -> Result<Process, Error>,
) -> Result<(i32, OwnedFd, Vec<String>), Error> {
    let kept = Kept::open(&options.root, &options.id)?;
    match kept.status() {
        Status::Running | Status::Created => {}
        Status::Paused if options.ignore_paused => {}
        status => return Err(Error::Status { attempt: "exec in", status: status.word() }),
    }
    let spec = kept.config()?;
    let process = process(&spec)?;
    if process.terminal != options.console.is_some() {
        return Err(Error::config("process.terminal", "and --console-socket go together"));
    }
    let pidfd = kept.process().ok_or(Error::Ended)?;
    let pid = kept.record.pid;
    let mut namespaces = foreign_namespaces(pid);
    // Who is not root has the rights to join the others only as a member of the user namespace.
    let as_member = namespaces & NEW_USER != 0 && !rustix::process::geteuid().is_root();
    let becomes_root = namespaces & NEW_USER != 0 && has_root(pid);
    let switches = Switches { preserve_fds: options.preserve_fds, ..Switches::default() };
    let host = container::host(Path::new(&kept.record.bundle), &options.id, &[], switches);
    let mut tasks = Tasks(Vec::with_capacity(40));
    tasks.add("", Action::Hide);
    tasks.add("", Action::JoinCgroups);
    // Who is not root may have to ask systemd to move the process.
    let waits = kept.record.scope.is_some() && !host.makes_nodes;
    if waits {
        tasks.add("", Action::AwaitMove);
    }
    if let Some(list) = process.exec_cpu_affinity.as_ref().and_then(|affinity| affinity.initial.as_deref()) {
        let field = "process.execCPUAffinity.initial";
        tasks.add(field, Action::Affinity(process::bits(list, field)?));
    }
    crate::plan::labels(&process, &host, &mut tasks)?;
    tasks.add("", Action::JoinContainer);
    if becomes_root {
        tasks.add("", Action::BecomeRoot { groups: host.makes_nodes });
    }
    if process.terminal {
        tasks.add("process.terminal", process::terminal(&process, false));
    }
    process::tasks(&process, &spec, &host, true, &mut tasks)?;
    if let Some(list) = process.exec_cpu_affinity.as_ref().and_then(|affinity| affinity.last.as_deref()) {
        let field = "process.execCPUAffinity.final";
        tasks.add(field, Action::Affinity(process::bits(list, field)?));
    }
    let none = crate::spec::Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&none);
    process::last(&process, linux, &mut tasks);
    let tasks: Vec<Task> = tasks.0;
    let home = open::home(Path::new(&format!("/proc/{pid}/root")), process.user.uid);
    let program = process::program(&process, Some(&home))?;
    let compiled = linux.seccomp.as_ref().map(seccomp::compile).transpose()?;
    let copy = || pidfd.try_clone().map_err(Error::Clone);
    let first = if as_member { namespaces & (NEW_USER | NEW_PID) } else { namespaces & NEW_PID };
    namespaces &= !first;
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| Error::Clone(e.into()));
    let files = Files {
        go: waits.then(pipe).transpose()?,
        console: options.console.take(),
        container: Some((copy()?, namespaces)),
        lock: kept.lock_number(),
        moved: kept.record.scope.is_some(),
        ..Files::default()
    };
    let mut cgroups = kept.record.cgroups.clone();
    options.cgroups.iter().try_for_each(|below| cgroups.descend(below))?;
    if options.cgroups.is_empty() {
        cgroups.follow(pid);
    }
    if !process.terminal {
        container::give_streams(process.user.uid, &mappings_of(pid));
    }
    let launch = Launch::open(&tasks, files, &cgroups, Some(&program), compiled.as_ref())?;
    let words = |what: &str| format!("join the container's {what} (has it ended?)");
    let child = {
        // What others see of a process that is hidden already is not ours to change.
        let _own = process.oom_score_adj.map(OomScore::give).transpose().ok();
        if as_member {
            let user = (copy()?, words("user namespace"), String::new());
            let mut others = Vec::new();
            if first & NEW_PID != 0 {
                others.push((copy()?, NEW_PID, words("process ids"), String::new()));
            }
            launch.start_within(0, &user, &others)?
        } else {
            // Whoever goes on after this makes its next children where it made them before.
            let _back = if first & NEW_PID == 0 {
                None
            } else {
                Some(container::join_for_children(pidfd.as_fd()).map_err(|e| Error::Step {
                    step: words("process ids"),
                    field: String::new(),
                    source: e.into(),
                })?)
            };
            launch.start(0)?
        }
    };
    let joined = child.pid;
    let moved = match kept.record.scope.as_ref().filter(|_| launch.outside.get()) {
        Some(scope) => scope.attach(joined),
        None => Ok(()),
    };
    // In a cgroup that is frozen, the process goes on when somebody resumes the container: who does must get through.
    kept.unlock();
    let record = match (&moved, &launch.files.go) {
        (Err(_), _) => None,
        (Ok(()), Some((_, go))) => {
            rustix::io::write(go, b"1").map_err(|e| Error::Clone(e.into()))?;
            child.told()
        }
        (Ok(()), None) => child.told(),
    };
    let pidfd = child.into_pidfd();
    let result = match record {
        Some(failure) => Err(launch.explain(failure)),
        None if moved.is_err() => moved,
        None => options.pid_file.as_deref().map_or(Ok(()), |path| container::write_pid(path, joined)),
    };
    match result {
        Ok(()) => Ok((joined, pidfd, process::left_out(&process, host.capabilities))),
        Err(error) => {
            launch::discard(&pidfd);
            Err(error)
        }
    }
}

/// The user ids of a process's namespace, by their numbers here; none of the one that we are in.
fn mappings_of(pid: i32) -> Vec<IdMapping> {
    let text = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default();
    let one = |line: &str| {
        let mut numbers = line.split_whitespace().map(|word| word.parse().ok());
        let (container_id, host_id, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(IdMapping { container_id, host_id, size })
    };
    text.lines().filter_map(one).collect()
}

/// Whether the user namespace of a process has a root.
fn has_root(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default();
    text.lines().any(|line| line.split_whitespace().next() == Some("0"))
}

/// The namespaces of a process that are not ours.
fn foreign_namespaces(pid: i32) -> u32 {
    let mut flags = 0;
    for (name, flag) in NAMESPACES {
        let file = match name {
            "mount" => "mnt",
            "network" => "net",
            other => other,
        };
        let inode = |of: &str| fs::metadata(format!("/proc/{of}/ns/{file}")).map(|m| m.ino()).ok();
        let theirs = inode(&pid.to_string());
        if theirs.is_some() && theirs != inode("self") {
            flags |= flag;
        }
    }
    flags
}
