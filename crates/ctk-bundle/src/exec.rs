//! A further process in a running container.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::action::{Action, NAMESPACES, Task};
use crate::container;
use crate::launch::{self, Files, Launch};
use crate::open;
use crate::plan::{Switches, Tasks};
use crate::process;
use crate::seccomp;
use crate::spec::{Process, Spec};
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
    /// Whether there may be seccomp and the like only as the process says; see [`container`].
    pub cgroup: Option<String>,
}

/// Starts a process as `process` makes it of the container's own; comes back once its program was executed.
pub fn exec(
    mut options: Options,
    process: impl FnOnce(&Spec) -> Result<Process, Error>,
) -> Result<(i32, OwnedFd), Error> {
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
    let namespaces = foreign_namespaces(pid);
    if namespaces & NEW_USER != 0 && !rustix::process::geteuid().is_root() {
        return Err(Error::Unsupported {
            what: "exec by an ordinary user in a container with a user namespace".into(),
            reason: "its process ids cannot be joined from outside; root can".into(),
        });
    }
    let switches = Switches { preserve_fds: options.preserve_fds, ..Switches::default() };
    let host = container::host(Path::new(&kept.record.bundle), &options.id, &[], switches);
    let mut tasks = Tasks(Vec::with_capacity(40));
    tasks.add("", Action::Hide);
    tasks.add("", Action::JoinCgroups);
    if let Some(list) = process.exec_cpu_affinity.as_ref().and_then(|affinity| affinity.initial.as_deref()) {
        let field = "process.execCPUAffinity.initial";
        tasks.add(field, Action::Affinity(process::bits(list, field)?));
    }
    crate::plan::labels(&process, &host, &mut tasks)?;
    tasks.add("", Action::JoinContainer);
    if namespaces & NEW_USER != 0 {
        tasks.add("", Action::BecomeRoot { groups: host.makes_nodes });
    }
    if process.terminal {
        tasks.add("process.terminal", process::terminal(&process, false));
    }
    process::tasks(&process, &spec, &host, &mut tasks)?;
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
    let copy = pidfd.try_clone().map_err(Error::Clone)?;
    let files = Files {
        console: options.console.take(),
        container: Some((copy, namespaces & !NEW_PID)),
        lock: kept.lock_number(),
        ..Files::default()
    };
    let mut cgroups = kept.record.cgroups.clone();
    if let Some(below) = &options.cgroup {
        for directory in &mut cgroups.directories {
            directory.path.push(below.trim_start_matches('/'));
        }
    }
    let launch = Launch::open(&tasks, files, &cgroups, Some(&program), compiled.as_ref())?;
    if namespaces & NEW_PID != 0 {
        ctk_sys::set_controlling_namespace(pidfd.as_fd(), NEW_PID).map_err(|e| Error::Step {
            step: "join the container's process ids (has it ended?)".into(),
            field: String::new(),
            source: e.into(),
        })?;
    }
    let child = launch.start(0)?;
    let joined = child.pid;
    if let Some(adjustment) = process.oom_score_adj {
        let _ = fs::write(format!("/proc/{joined}/oom_score_adj"), adjustment.to_string());
    }
    let record = child.told();
    let pidfd = child.into_pidfd();
    let result = match record {
        Some(failure) => Err(launch.explain(failure)),
        None => options.pid_file.as_deref().map_or(Ok(()), |path| container::write_pid(path, joined)),
    };
    match result {
        Ok(()) => Ok((joined, pidfd)),
        Err(error) => {
            launch::discard(&pidfd);
            Err(error)
        }
    }
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
