//! Carrying out a plan: what its tasks need is opened, they become steps, one `clone3` makes the process that walks
//! them, and what the process tells is understood.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use ctk_sys::{Child, CopyLimits, Failure, MountKind, NotWithin, Pointer, Start, Step, Within};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::Error;
use crate::action::{Action, Bind, PreparedHook, Task};
use crate::cgroup::{Cgroups, Membership};
use crate::limits::{COPY_UP_DEPTH, COPY_UP_ENTRIES};
use crate::open::{self, Opened};
use crate::process::Program;
use crate::seccomp::Compiled;

/// Files that the process needs, beside those of single tasks.
#[derive(Default)]
pub(crate) struct Files {
    /// The root, detached; none if the process has to make that of the directory.
    pub(crate) root: Option<OwnedFd>,
    /// The root's directory.
    pub(crate) directory: CString,
    /// Read and write end of what the process waits for while it is made.
    pub(crate) go: Option<(OwnedFd, OwnedFd)>,
    /// The pipes that a created container waits at and reports through.
    pub(crate) start: Option<(OwnedFd, OwnedFd)>,
    /// The connected socket that gets the terminal.
    pub(crate) console: Option<OwnedFd>,
    /// The connected socket that gets the seccomp listener, and the file with what is sent along.
    pub(crate) listener: Option<(OwnedFd, OwnedFd)>,
    /// The files with the state that hooks read: while it is being created, and once it is.
    pub(crate) state: Option<[OwnedFd; 2]>,
    /// The container's lock: the process must not hold it when we let go of it, or are killed.
    pub(crate) lock: std::os::fd::RawFd,
    /// Whether systemd moves the process into its cgroup, if it cannot be born there.
    pub(crate) moved: bool,
    /// The first process of the container to join, and the namespaces that are not ours already.
    pub(crate) container: Option<(OwnedFd, u32)>,
}

/// A plan with everything opened.
pub(crate) struct Launch<'a> {
    pub(crate) tasks: &'a [Task],
    opened: Vec<Opened>,
    pub(crate) files: Files,
    membership: Membership,
    /// Where the version 2 cgroup is, for errors.
    unified: Option<PathBuf>,
    program: Option<&'a Program>,
    seccomp: Option<&'a Compiled>,
    /// Whether the process was born where we are, and is to be moved.
    pub(crate) outside: std::cell::Cell<bool>,
}

impl<'a> Launch<'a> {
    /// Opens what tasks need.
    pub(crate) fn open(
        tasks: &'a [Task],
        files: Files,
        cgroups: &Cgroups,
        program: Option<&'a Program>,
        seccomp: Option<&'a Compiled>,
    ) -> Result<Launch<'a>, Error> {
        let mut opened = Vec::with_capacity(tasks.len());
        for Task { field, action } in tasks {
            opened.push(match action {
                Action::Bind(bind) => open::bind(bind, field)?,
                Action::CgroupDirectory { name, .. } => {
                    match cgroups.directories.iter().find(|directory| directory.name == *name) {
                        Some(directory) => Opened::Tree(open::cgroup(&directory.path, field)?, true),
                        None => Opened::Nothing,
                    }
                }
                _ => Opened::Nothing,
            });
        }
        Ok(Launch {
            tasks,
            opened,
            files,
            membership: cgroups.membership()?,
            unified: cgroups.unified().map(|directory| directory.path.clone()),
            program,
            seccomp,
            outside: std::cell::Cell::default(),
        })
    }

    /// Makes the process. Its steps may still fail.
    pub(crate) fn start(&self, namespaces: u32) -> Result<Child, Error> {
        let result = self.with_steps(|steps, _| {
            let start = |cgroup| ctk_sys::start(&Start { namespaces: u64::from(namespaces), cgroup, steps });
            match start(self.membership.unified.as_ref().map(AsRawFd::as_raw_fd)) {
                // A way on which there is somebody else's cgroup.
                Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) if self.files.moved => {
                    self.outside.set(true);
                    start(None)
                }
                other => other,
            }
        });
        result.map_err(|errno| self.clone_failed(errno))
    }

    /// Why there is no process.
    fn clone_failed(&self, errno: rustix::io::Errno) -> Error {
        match &self.unified {
            // Nothing else of what a clone does is a matter of the rights to a file.
            Some(path) if errno == rustix::io::Errno::ACCESS => Error::Step {
                step: format!("start a process in the cgroup `{}`{}", path.display(), crate::cgroup::no_way_to(path)),
                field: String::new(),
                source: errno.into(),
            },
            // Outside of it, a process would have none of the container's limits and rules of devices.
            Some(path) if matches!(errno, rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::BUSY) => Error::Step {
                step: format!(
                    "start a process in the cgroup `{}`, {}",
                    path.display(),
                    crate::cgroup::takes_nobody(path, errno)
                ),
                field: "linux.cgroupsPath".into(),
                source: errno.into(),
            },
            _ => Error::Clone(errno.into()),
        }
    }

    /// The same in a user namespace that is there already. Files of namespaces come with the words for an error and the
    /// field of `config.json`.
    pub(crate) fn start_within(&self, namespaces: u32, user: &Joined, others: &[Other]) -> Result<Child, Error> {
        let failed = |(words, field): (&String, &String), errno: rustix::io::Errno| Error::Step {
            step: words.clone(),
            field: field.clone(),
            source: errno.into(),
        };
        let files: Vec<_> = others.iter().map(|(file, flag, ..)| (file.as_raw_fd(), *flag)).collect();
        let within = Within { user: user.0.as_raw_fd(), others: &files };
        let result = self.with_steps(|steps, _| {
            let start =
                |cgroup| ctk_sys::start_within(&Start { namespaces: u64::from(namespaces), cgroup, steps }, &within);
            match start(self.membership.unified.as_ref().map(AsRawFd::as_raw_fd)) {
                Err(NotWithin::Clone(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM)) if self.files.moved => {
                    self.outside.set(true);
                    start(None)
                }
                other => other,
            }
        });
        result.map_err(|error| match error {
            NotWithin::User(errno) => failed((&user.1, &user.2), errno),
            NotWithin::Other(index, errno) => match others.get(index) {
                Some((_, _, words, field)) => failed((words, field), errno),
                None => Error::Clone(errno.into()),
            },
            NotWithin::Clone(errno) => self.clone_failed(errno),
        })
    }

    /// The task that a record of the process is about.
    pub(crate) fn task_of(&self, record: Failure) -> Option<usize> {
        self.with_steps(|_, of| of.get(record.step).copied())
    }

    /// The error of a record.
    pub(crate) fn explain(&self, failure: Failure) -> Error {
        match self.task_of(failure).and_then(|index| self.tasks.get(index)) {
            Some(task) => explain(&task.action, &task.field, failure.errno, self.program),
            None => Error::Clone(std::io::Error::from_raw_os_error(failure.errno)),
        }
    }

    /// What a later process must know to explain records of this one: from step to words.
    pub(crate) fn later_steps(&self) -> Vec<(usize, String, String)> {
        let started = self.tasks.iter().position(|task| task.action == Action::Started).unwrap_or(0);
        self.with_steps(|_, of| {
            let later = of.iter().enumerate().filter(|(_, task)| **task > started);
            later
                .filter_map(|(step, task)| {
                    let task = self.tasks.get(*task)?;
                    Some((step, words(&task.action, self.program), task.field.clone()))
                })
                .collect()
        })
    }

    fn with_steps<T>(&self, then: impl FnOnce(&[Step<'_>], &[usize]) -> T) -> T {
        let empty = Program { candidates: Vec::new(), args: Vec::new(), env: Vec::new() };
        let program = self.program.unwrap_or(&empty);
        let candidates: Vec<&CStr> = program.candidates.iter().map(CString::as_c_str).collect();
        let (arguments, environment) = (pointers(&program.args), pointers(&program.env));
        // What steps borrow and nobody owns yet: options of mounts, arguments of hooks.
        let mut options: Vec<Vec<(&CStr, &CStr)>> = Vec::with_capacity(self.tasks.len());
        let mut vectors: Vec<(Vec<Pointer<'_>>, Vec<Pointer<'_>>)> = Vec::with_capacity(self.tasks.len());
        for task in self.tasks {
            options.push(match &task.action {
                Action::Fresh(fresh) | Action::CopyUp(fresh) => {
                    fresh.options.iter().map(|(k, v)| (k.as_c_str(), v.as_c_str())).collect()
                }
                _ => Vec::new(),
            });
            vectors.push(match &task.action {
                Action::Hook(PreparedHook { args, env, .. }) => (pointers(args), pointers(env)),
                _ => (Vec::new(), Vec::new()),
            });
        }
        let words = Words { candidates: &candidates, arguments: &arguments, environment: &environment };
        let mut steps = Vec::with_capacity(self.tasks.len() * 2);
        let mut of = Vec::with_capacity(self.tasks.len() * 2);
        if self.files.lock > 2 {
            steps.push(Step::Close { file: self.files.lock });
        }
        for (index, (task, (options, vectors))) in self.tasks.iter().zip(options.iter().zip(&vectors)).enumerate() {
            let opened = self.opened.get(index).unwrap_or(&Opened::Nothing);
            self.steps_of(&task.action, opened, options, vectors, &words, &mut steps);
            of.resize(steps.len(), index);
        }
        then(&steps, &of)
    }

    fn steps_of<'b>(
        &'b self,
        action: &'b Action,
        opened: &'b Opened,
        options: &'b [(&'b CStr, &'b CStr)],
        vectors: &'b (Vec<Pointer<'b>>, Vec<Pointer<'b>>),
        words: &Words<'b>,
        steps: &mut Vec<Step<'b>>,
    ) {
        let files = &self.files;
        let number = |file: &Option<OwnedFd>| file.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let (go, go_other) = files.go.as_ref().map_or((-1, -1), |(read, write)| (read.as_raw_fd(), write.as_raw_fd()));
        let make = |at: &'b CStr, directory: bool| Step::Make {
            path: at,
            kind: if directory { MountKind::Directory } else { MountKind::File },
            mode: if directory { 0o755 } else { 0o644 },
        };
        let first_wait =
            |steps: &[Step<'b>]| if steps.iter().any(|s| matches!(s, Step::Await { .. })) { -1 } else { go_other };
        match action {
            Action::Hide => steps.push(Step::Hide),
            Action::AwaitMappings | Action::AwaitMove => {
                let other = first_wait(steps);
                steps.push(Step::Await { file: go, other });
            }
            Action::BecomeRoot { groups } => {
                steps.push(Step::Groups { groups: &[], optional: !groups });
                steps.extend([Step::Gid { gid: 0 }, Step::Uid { uid: 0 }]);
            }
            Action::JoinCgroups => {
                let write = |file: &OwnedFd| Step::Write { file: file.as_raw_fd(), bytes: b"0" };
                steps.extend(self.membership.legacy.iter().map(write));
            }
            Action::Unshare { namespaces } => steps.push(Step::Unshare { namespaces: *namespaces }),
            // Opened by the runtime beforehand: see `Join` of the plan.
            Action::Join { namespace, .. } => {
                if let Opened::Tree(file, _) = opened {
                    steps.push(Step::Join { of: file.as_raw_fd(), namespaces: *namespace });
                }
            }
            Action::JoinContainer => {
                if let Some((pidfd, namespaces)) = &files.container
                    && *namespaces != 0
                {
                    steps.extend([Step::Join { of: pidfd.as_raw_fd(), namespaces: *namespaces }, Step::NullStreams]);
                }
            }
            Action::Keyring(name) => steps.push(Step::Keyring { name }),
            Action::Loopback => steps.push(Step::LoopbackUp),
            Action::HostName(name) => steps.push(Step::HostName { name: name.as_bytes() }),
            Action::DomainName(name) => steps.push(Step::DomainName { name: name.as_bytes() }),
            Action::Setting { path, value } => steps.push(Step::Setting { path, value: value.as_bytes() }),
            Action::Propagation(flags) => steps.push(Step::Propagation { at: c"/", flags: *flags }),
            Action::PlaceRoot { at } => steps.push(match &files.root {
                Some(root) => Step::PlaceRoot { mount: root.as_raw_fd(), at },
                None => Step::PlaceDirectory { path: &files.directory, at },
            }),
            Action::Bind(bind) => bind_steps(bind, opened, make, steps),
            Action::Fresh(fresh) | Action::CopyUp(fresh) => {
                steps.push(make(&fresh.at, true));
                let limits = CopyLimits { entries: COPY_UP_ENTRIES, depth: COPY_UP_DEPTH };
                steps.push(Step::NewMount {
                    kind: &fresh.kind,
                    options,
                    attributes: fresh.attributes,
                    propagation: fresh.propagation & !libc::MS_REC,
                    at: &fresh.at,
                    no_links: fresh.no_links,
                    copy: matches!(action, Action::CopyUp(_)).then_some(limits),
                });
            }
            Action::CgroupDirectory { at, .. } => {
                if let Opened::Tree(tree, _) = opened {
                    steps.push(make(at, true));
                    steps.push(Step::Attach { mount: tree.as_raw_fd(), at, no_links: true });
                }
            }
            Action::Remount { at, recursive, set, propagation } => {
                let (recursive, propagation) = (*recursive, *propagation & !libc::MS_REC);
                steps.push(Step::Remount { at, recursive, set: *set, clear: 0, propagation });
            }
            Action::Directory { at } => steps.push(make(at, true)),
            Action::Node { at, mode, device, owner } => {
                if let Some(parent) = parents(at) {
                    steps.push(Step::Make { path: parent, kind: MountKind::Directory, mode: 0o755 });
                }
                let device = rustix::fs::makedev(device.0, device.1);
                steps.push(Step::Node { path: at, mode: *mode, device, uid: owner.0, gid: owner.1 });
            }
            Action::Link { target, at } => {
                if at.to_bytes().starts_with(b"/dev/") {
                    steps.push(Step::Make { path: c"/dev", kind: MountKind::Directory, mode: 0o755 });
                }
                steps.push(Step::Link { target, path: at });
            }
            Action::HostHooks => {
                steps.push(Step::Reached { next: -1 });
                let other = first_wait(steps);
                steps.push(Step::Await { file: go, other });
            }
            Action::Hook(hook) => {
                // Hooks before the root is entered are part of its creation.
                let entered = steps.iter().any(|step| matches!(step, Step::EnterPlaced { .. }));
                let state = files.state.as_ref().map(|[creating, created]| if entered { created } else { creating });
                let timeout_ms = if hook.timeout < 0 { -1 } else { hook.timeout.saturating_mul(1000) };
                steps.push(Step::Run {
                    program: &hook.path,
                    arguments: &vectors.0,
                    environment: &vectors.1,
                    input: state.map_or(-1, AsRawFd::as_raw_fd),
                    timeout_ms,
                });
            }
            Action::Enter { pivot } => steps.extend([Step::EnterPlaced { pivot: *pivot }, Step::NullStreams]),
            Action::Terminal { owner, size, console } => {
                let (socket, size, console) = (number(&files.console), *size, *console);
                steps.push(Step::Terminal { socket, uid: owner.0, gid: owner.1, size, console });
            }
            Action::Mask(path) => steps.push(Step::Mask { path }),
            Action::ReadOnly(path) => steps.push(Step::ReadOnly { path }),
            Action::Session => steps.push(Step::NewSession),
            Action::TakeTerminal => steps.push(Step::TakeTerminal),
            Action::Rlimit { resource, soft, hard, .. } => {
                steps.push(Step::Rlimit { resource: *resource, soft: *soft, hard: *hard });
            }
            Action::Personality(persona) => steps.push(Step::Personality { persona: *persona }),
            Action::IoPriority(value) => steps.push(Step::IoPriority { value: *value }),
            Action::Scheduler(attributes) => steps.push(Step::Scheduler { attributes }),
            Action::Affinity(mask) => steps.push(Step::Affinity { mask }),
            Action::MemoryPolicy { mode, nodes } => steps.push(Step::MemoryPolicy { mode: *mode, nodes }),
            Action::BoundingSet(keep) => steps.push(Step::BoundingSet { keep: *keep }),
            Action::CloseFrom(from) => steps.push(Step::CloseFrom { from: *from }),
            Action::Umask(mask) => steps.push(Step::Umask { mask: *mask }),
            Action::WorkingDirectory(path) => steps.push(Step::WorkingDirectory { path }),
            Action::Landlock { files, scoped } => steps.push(Step::Landlock { files: *files, scoped: *scoped }),
            Action::ResetSignals => steps.push(Step::ResetSignals),
            Action::Seccomp => {
                if let Some(Compiled { program, flags, notifies }) = self.seccomp {
                    let listener = files.listener.as_ref().filter(|_| *notifies);
                    let (socket, state) = listener.map_or((-1, -1), |(a, b)| (a.as_raw_fd(), b.as_raw_fd()));
                    steps.push(Step::Filter { program, flags: *flags, listener: socket, state });
                }
            }
            Action::KeepCapabilities => steps.push(Step::KeepCapabilities),
            Action::Groups { groups, optional } => steps.push(Step::Groups { groups, optional: *optional }),
            Action::Gid(gid) => steps.push(Step::Gid { gid: *gid }),
            Action::Uid(uid) => steps.push(Step::Uid { uid: *uid }),
            Action::Capabilities([effective, permitted, inheritable, ambient]) => steps.push(Step::CapabilitySets {
                effective: *effective,
                permitted: *permitted,
                inheritable: *inheritable,
                ambient: *ambient,
            }),
            Action::NoNewPrivileges => steps.push(Step::NoNewPrivileges),
            Action::Label { path, text } => steps.push(Step::WriteTo { path, bytes: text.as_bytes() }),
            Action::Look => steps.push(Step::Look { candidates: words.candidates }),
            Action::Started => {
                let (start, report) =
                    files.start.as_ref().map_or((-1, -1), |(start, report)| (start.as_raw_fd(), report.as_raw_fd()));
                steps.push(Step::Reached { next: report });
                steps.push(Step::Await { file: start, other: -1 });
            }
            Action::Execute => steps.push(Step::Execute {
                candidates: words.candidates,
                arguments: words.arguments,
                environment: words.environment,
            }),
        }
    }

    /// Opens namespaces by path, each for its task.
    pub(crate) fn open_namespaces(&mut self) -> Result<(), Error> {
        for (task, opened) in self.tasks.iter().zip(&mut self.opened) {
            if let Action::Join { path, .. } = &task.action {
                *opened = Opened::Tree(namespace(path, &task.field)?, false);
            }
        }
        Ok(())
    }
}

/// A user namespace to join: its file or a pidfd, words, field.
pub(crate) type Joined = (OwnedFd, String, String);

/// Another namespace: its file or a pidfd, which, words, field.
pub(crate) type Other = (OwnedFd, u32, String, String);

struct Words<'a> {
    candidates: &'a [&'a CStr],
    arguments: &'a [Pointer<'a>],
    environment: &'a [Pointer<'a>],
}

/// The file of a namespace.
pub(crate) fn namespace(path: &CStr, field: &str) -> Result<OwnedFd, Error> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| Error::Step {
        step: format!("open the namespace `{}`", path.to_string_lossy()),
        field: field.into(),
        source: e.into(),
    })
}

/// The directory of a node that is not directly below `/dev`, which always is there.
fn parents(at: &CStr) -> Option<&CStr> {
    // Nodes elsewhere are rare, and their directories are the image's: `/dev` is all that is made.
    at.to_bytes().starts_with(b"/dev/").then_some(c"/dev")
}

fn bind_steps<'b>(
    bind: &'b Bind,
    opened: &'b Opened,
    make: impl Fn(&'b CStr, bool) -> Step<'b>,
    steps: &mut Vec<Step<'b>>,
) {
    let at = bind.at.as_c_str();
    match opened {
        Opened::Nothing => {}
        Opened::Tree(tree, directory) => {
            steps.push(make(at, *directory));
            steps.push(Step::Attach { mount: tree.as_raw_fd(), at, no_links: false });
        }
        Opened::ByChild(directory) => {
            steps.push(make(at, *directory));
            steps.push(Step::BindHost { from: &bind.source, recursive: bind.recursive, at });
            let propagation = if bind.propagation == 0 { libc::MS_SLAVE | libc::MS_REC } else { bind.propagation };
            let (kind, deep) = (propagation & !libc::MS_REC, propagation & libc::MS_REC != 0);
            steps.push(Step::Remount { at, recursive: deep, set: 0, clear: 0, propagation: kind });
            if bind.set_all | bind.clear_all != 0 {
                let (set, clear) = (bind.set_all, bind.clear_all);
                steps.push(Step::Remount { at, recursive: true, set, clear, propagation: 0 });
            }
            if bind.set | bind.clear != 0 {
                let (set, clear) = (bind.set, bind.clear);
                steps.push(Step::Remount { at, recursive: false, set, clear, propagation: 0 });
            }
        }
    }
}

fn words(action: &Action, program: Option<&Program>) -> String {
    match (action, program) {
        (Action::Look | Action::Execute, Some(program)) => {
            let show = |text: &CStr| text.to_string_lossy().into_owned();
            let name = program.args.first().map(|name| show(name)).unwrap_or_default();
            match program.candidates.as_slice() {
                [only] if show(only) == name => format!("execute `{name}`"),
                candidates => {
                    let places = candidates.iter().filter_map(|c| Some(show(c).rsplit_once('/')?.0.to_owned()));
                    format!("find the executable file `{name}` in $PATH ({})", places.collect::<Vec<_>>().join(":"))
                }
            }
        }
        _ => action.to_string(),
    }
}

/// The error of an action, from what the process reported.
fn explain(action: &Action, field: &str, errno: i32, program: Option<&Program>) -> Error {
    explained(&words(action, program), field, errno)
}

/// The same from words that were written down.
pub(crate) fn explained(words: &str, field: &str, errno: i32) -> Error {
    let hook = |how: String| {
        let path = words.strip_prefix("run the hook `").and_then(|rest| rest.strip_suffix('`')).unwrap_or(words);
        Error::Hook { path: path.into(), field: field.into(), how }
    };
    match errno {
        libc::ETIMEDOUT if words.starts_with("run the hook") => hook("did not end in time".into()),
        ended if ended >= ctk_sys::KILLED => hook(format!("was killed by signal {}", ended - ctk_sys::KILLED)),
        ended if ended >= ctk_sys::ENDED => hook(format!("ended with exit status {}", ended - ctk_sys::ENDED)),
        _ => {
            let source = std::io::Error::from_raw_os_error(errno);
            Error::Step { step: start_words(words, errno), field: field.into(), source }
        }
    }
}

/// What failed; of a program that cannot be executed also why, in the words that docker's client looks for when it
/// chooses between the exit codes 125, 126 and 127.
fn start_words(words: &str, errno: i32) -> String {
    let searched = words.strip_prefix("find the executable file ").and_then(|rest| rest.split_once(" in $PATH "));
    match (errno, searched) {
        (libc::ENOENT, Some((name, places))) => format!("execute {name}: executable file not found in $PATH {places}"),
        (libc::ENOENT, None) if words.starts_with("execute ") => format!("{words}: executable file not found"),
        (libc::EACCES, _) if searched.is_some() || words.starts_with("execute ") => {
            format!("{words}: permission denied")
        }
        _ => words.to_owned(),
    }
}

fn pointers(strings: &[CString]) -> Vec<Pointer<'_>> {
    strings.iter().map(|string| Pointer::new(string)).chain(std::iter::once(Pointer::END)).collect()
}

/// Kills a child that did not become what it should, and waits for its end.
pub(crate) fn discard(pidfd: &OwnedFd) {
    use std::os::fd::AsFd;
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_cannot_run_are_told_in_dockers_words() {
        let told = |words: &str, errno| explained(words, "process.args", errno).line();
        let missing = "failed to execute `x`: executable file not found in $PATH (/bin) (process.args): \
                       No such file or directory (os error 2)";
        assert_eq!(told("find the executable file `x` in $PATH (/bin)", libc::ENOENT), missing);
        assert!(told("execute `/x`", libc::ENOENT).contains("executable file not found"));
        assert!(told("execute `/x`", libc::EACCES).contains("permission denied"));
        assert_eq!(
            told("mount proc", libc::EACCES),
            "failed to mount proc (process.args): Permission denied (os error 13)"
        );
    }
}
