//! The operations of the specification (`runtime.md#operations`) on one container.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::Error;
use crate::action::Action;
use crate::cgroup::{self, Cgroups};
use crate::equipment;
use crate::launch::{self, Files, Launch};
use crate::limits::{CONFIG_BYTES, KILL};
use crate::open;
use crate::plan::{self, Host, Plan, Switches};
use crate::process::{self, Program};
use crate::resources;
use crate::seccomp::{self, Compiled};
use crate::spec::{IdMapping, Spec};
use crate::state::{self, Kept, REPORT, Record, START, Status};
use crate::systemd::{Manager, Scope};

const NEW_TIME: u32 = 0x80;

/// What the caller of `create` and `run` decides.
pub struct Options {
    /// The state root.
    pub root: PathBuf,
    /// The container's name.
    pub id: String,
    /// The bundle.
    pub bundle: PathBuf,
    /// Its configuration, where the caller read it already: what [`read_bundle`] gave.
    pub configuration: Option<(Spec, String)>,
    /// Switches that change the plan; `waits` is set by the verb.
    pub switches: Switches,
    /// A connected socket that gets the terminal.
    pub console: Option<OwnedFd>,
    /// Where the process id is written.
    pub pid_file: Option<PathBuf>,
    /// Now, as RFC 3339.
    pub now: String,
    /// Who makes it.
    pub owner: String,
    /// The systemd that is to make its cgroups; none if we do.
    pub systemd: Option<Manager>,
    /// The root, mounted already, instead of the directory that `root.path` names.
    pub mounted: Option<ctk_runtime::Root>,
}

/// A container that was made, and its first process.
pub struct Made {
    /// Its state, locked.
    pub kept: Kept,
    /// Its first process.
    pub pidfd: OwnedFd,
    /// Its configuration.
    pub spec: Spec,
    /// What it asks for and was not given, in words.
    pub warnings: Vec<String>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// As a shell tells it: signals are 128 and their number.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// Reads the configuration of a bundle.
pub fn read_bundle(bundle: &Path) -> Result<(Spec, String), Error> {
    let path = bundle.join("config.json");
    let text = cgroup::read_limited(&path, CONFIG_BYTES).map_err(Error::file("read", &path))?;
    Ok((state::parse(&text)?, text))
}

/// Where the cgroups of a container will be, as far as this user may make them.
pub fn cgroups(options: &Options) -> Result<Cgroups, Error> {
    let (spec, _) = read_bundle(&options.bundle)?;
    let path = spec.linux.as_ref().and_then(|linux| linux.cgroups_path.as_deref());
    Cgroups::place(&cgroup::hierarchies(), path, &options.id)
}

/// The scope of a container whose cgroups systemd makes.
pub fn scope(options: &Options) -> Result<Option<Scope>, Error> {
    let (spec, _) = read_bundle(&options.bundle)?;
    let path = spec.linux.as_ref().and_then(|linux| linux.cgroups_path.as_deref());
    options.systemd.as_ref().map(|manager| Scope::place(path, &options.id, manager)).transpose()
}

/// What plans depend on, of this machine and process.
pub fn host(bundle: &Path, id: &str, hierarchies: &[ctk_runtime::Hierarchy], switches: Switches) -> Host {
    Host {
        bundle: bundle.display().to_string(),
        id: id.into(),
        cgroups: cgroup::describe(hierarchies),
        makes_nodes: !ctk_runtime::is_ordinary(),
        capabilities: own_capabilities(),
        apparmor: Path::new("/sys/kernel/security/apparmor").exists(),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        landlock: ctk_sys::landlock_version(),
        switches,
    }
}

/// What we may give: nobody can pass on more than he has.
fn own_capabilities() -> u64 {
    if !rustix::process::geteuid().is_root() {
        // In a user namespace of its own a process has all.
        return u64::MAX;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapPrm:")?.trim(), 16).ok());
    bits.unwrap_or(u64::MAX)
}

/// Makes a container. With `switches.waits` it waits for [`start`]; else its program runs when this comes back. Nothing
/// is left of one that fails.
pub fn create(mut options: Options) -> Result<Made, Error> {
    state::check_id(&options.id)?;
    let bundle = fs::canonicalize(&options.bundle).map_err(Error::file("find the bundle", &options.bundle))?;
    let (spec, text) = options.configuration.take().map_or_else(|| read_bundle(&bundle), Ok)?;
    let hierarchies = cgroup::hierarchies();
    options.switches.moved = matches!(options.systemd, Some(Manager::User { .. }));
    let host = host(&bundle, &options.id, &hierarchies, options.switches);
    plan::check_hooks(&spec)?;
    let plan = plan::plan(&spec, &host)?;
    let linux = spec.linux.as_ref();
    let compiled = linux.and_then(|linux| linux.seccomp.as_ref()).map(seccomp::compile).transpose()?;
    let rules = device_rules(&spec)?;
    let home = spec.process.as_ref().map(|p| open::home(Path::new(&plan.rootfs), p.user.uid)).unwrap_or_default();
    let program = match &spec.process {
        Some(process) => Some(process::program(process, Some(&home))?),
        None if !options.switches.waits => return Err(Error::config("process", "is needed")),
        None => None,
    };
    let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
    match (terminal, options.console.is_some()) {
        (true, false) => {
            return Err(Error::config("process.terminal", "needs --console-socket, or `run` in the foreground"));
        }
        (false, true) => {
            return Err(Error::config("process.terminal", "is false, and --console-socket has no use then"));
        }
        _ => {}
    }
    let record = record(&spec, &plan, &bundle, &options);
    let mut kept = Kept::create(&options.root, record, &text)?;
    let made = (|| {
        let held = equipment::make(&mut kept, &spec, &plan, &rules, &options, &hierarchies)?;
        let parts = Parts { spec: &spec, plan: &plan, program: program.as_ref(), compiled: compiled.as_ref() };
        let process = launch(&parts, &mut kept, &mut options)?;
        drop(held);
        Ok(process)
    })();
    match made {
        Ok(pidfd) => {
            let left_out = spec.process.as_ref().map(|process| process::left_out(process, host.capabilities));
            Ok(Made { kept, pidfd, warnings: left_out.unwrap_or_default(), spec })
        }
        Err(error) => {
            undo(&mut kept, &spec);
            Err(error)
        }
    }
}

/// What is written down about a container that is being made.
pub(crate) fn record(spec: &Spec, plan: &Plan, bundle: &Path, options: &Options) -> Record {
    Record {
        oci_version: spec.oci_version.clone(),
        id: options.id.clone(),
        status: Status::Creating,
        pid: 0,
        start_time: 0,
        bundle: bundle.display().to_string(),
        rootfs: plan.rootfs.clone(),
        created: options.now.clone(),
        owner: options.owner.clone(),
        annotations: spec.annotations.clone().unwrap_or_default(),
        cgroups: Cgroups::default(),
        scope: None,
        rdt_class: None,
        rdt_own: Vec::new(),
        steps: Vec::new(),
    }
}

/// Removes what there is of a container that could not be made.
pub(crate) fn undo(kept: &mut Kept, spec: &Spec) {
    equipment::remove(&kept.record);
    remove_classes(&kept.record);
    if let Some(hooks) = &spec.hooks {
        kept.record.pid = 0;
        crate::hooks::run_all(&hooks.poststop, "poststop", &stopped(&kept.record));
    }
    kept.remove();
}

fn stopped(record: &Record) -> state::State {
    let mut state = record.state();
    state.status = Status::Stopped;
    state.pid = 0;
    state
}

pub(crate) fn device_rules(spec: &Spec) -> Result<Vec<resources::Rule>, Error> {
    let linux = spec.linux.as_ref();
    let given = linux.and_then(|linux| linux.resources.as_ref()).map(|r| r.devices.as_slice()).unwrap_or_default();
    // Without a word about devices, nothing is taken from what the machine's own cgroup has; but the container gets no
    // more than the usual ones.
    let mut rules = vec![resources::Rule { kind: 'a', major: None, minor: None, access: 7, allow: false }];
    rules.extend(resources::device_rules(given, true)?);
    if given.is_empty() {
        rules.extend(linux.into_iter().flat_map(|linux| linux.devices.iter()).filter_map(resources::rule_for));
    }
    Ok(rules)
}

/// What is known of a container before it is made.
struct Parts<'a> {
    spec: &'a Spec,
    plan: &'a Plan,
    program: Option<&'a Program>,
    compiled: Option<&'a Compiled>,
}

fn memory_file(name: &str) -> Result<OwnedFd, Error> {
    rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).map_err(|e| Error::file("make", name)(e.into()))
}

/// Puts a text into a file, from its beginning.
fn fill(file: &OwnedFd, text: &str) -> Result<(), Error> {
    let failed = |e: Errno| Error::file("write", "the state for hooks")(e.into());
    rustix::fs::ftruncate(file, 0).map_err(failed)?;
    let mut rest = text.as_bytes();
    let mut at = 0;
    while !rest.is_empty() {
        let count = rustix::io::pwrite(file, rest, at).map_err(failed)?;
        at += count as u64;
        rest = rest.get(count..).unwrap_or_default();
    }
    Ok(())
}

fn launch(parts: &Parts<'_>, kept: &mut Kept, options: &mut Options) -> Result<OwnedFd, Error> {
    let Parts { spec, plan, program, compiled } = *parts;
    let has = |wanted: fn(&Action) -> bool| plan.tasks.iter().any(|task| wanted(&task.action));
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| Error::Clone(e.into()));
    let root = match options.mounted.take() {
        Some(root) => Some(root.into_fd()),
        None => open::root(
            &plan.rootfs,
            has(|a| matches!(a, Action::Remount { propagation, .. } if propagation & libc::MS_SHARED != 0)),
        )?,
    };
    let mut files = Files {
        root,
        directory: crate::action::text(&plan.rootfs, "root.path")?,
        console: options.console.take(),
        lock: kept.lock_number(),
        moved: kept.record.scope.is_some(),
        ..Files::default()
    };
    if has(|action| matches!(action, Action::HostHooks | Action::AwaitMappings | Action::AwaitMove)) {
        files.go = Some(pipe()?);
    }
    if options.switches.waits {
        files.start = Some(kept.make_pipes()?);
    }
    if has(|action| matches!(action, Action::Hook(_))) {
        files.state = Some([memory_file("state")?, memory_file("state")?]);
    }
    if let Some(seccomp) = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref())
        && compiled.is_some_and(|compiled| compiled.notifies)
    {
        let path = seccomp.listener_path.as_deref().unwrap_or_default();
        files.listener = Some((connect(Path::new(path), "linux.seccomp.listenerPath")?, memory_file("listener")?));
    }
    if let Some(process) = spec.process.as_ref().filter(|process| !process.terminal) {
        let of_container: &[IdMapping] = plan.mappings.as_ref().map_or(&[], |(uid, _)| uid);
        give_streams(process.user.uid, of_container);
    }
    let mut launch = Launch::open(&plan.tasks, files, &kept.record.cgroups, program, compiled)?;
    launch.open_namespaces()?;
    let child = {
        let adjustment = spec.process.as_ref().and_then(|process| process.oom_score_adj);
        let _own = adjustment.map(OomScore::give).transpose()?;
        let _back = enter(plan)?;
        match &plan.user {
            None => launch.start(plan.namespaces & !NEW_TIME)?,
            Some((path, field)) => {
                let open = |path: &str, field: &str| launch::namespace(&crate::action::text(path, field)?, field);
                let words = |flag| format!("join the {} namespace", crate::action::namespace_words(flag));
                let mut others = Vec::with_capacity(plan.joined.len());
                for (flag, path, field) in &plan.joined {
                    others.push((open(path, field)?, *flag, format!("{} `{path}`", words(*flag)), field.clone()));
                }
                let user = (open(path, field)?, format!("join the user namespace `{path}`"), field.clone());
                launch.start_within(plan.namespaces & !NEW_TIME, &user, &others)?
            }
        }
    };
    kept.record.pid = child.pid;
    kept.record.start_time = state::start_time(child.pid).unwrap_or(0);
    let result = bring_up(parts, kept, &launch, &child);
    let pidfd = child.into_pidfd();
    let result = result.and_then(|()| {
        kept.record.status = if options.switches.waits { Status::Created } else { Status::Running };
        kept.record.steps = if options.switches.waits { launch.later_steps() } else { Vec::new() };
        kept.write()?;
        options.pid_file.as_deref().map_or(Ok(()), |path| write_pid(path, kept.record.pid))
    });
    match result {
        Ok(()) => Ok(pidfd),
        Err(error) => {
            launch::discard(&pidfd);
            Err(error)
        }
    }
}

/// Gives pipes among our standard streams to the user that a process will be; by which number he goes here, these
/// mappings say, if there are any.
pub(crate) fn give_streams(uid: u32, mappings: &[IdMapping]) {
    let found = mappings.iter().find_map(|mapping| {
        let offset = uid.checked_sub(mapping.container_id).filter(|offset| *offset < mapping.size)?;
        mapping.host_id.checked_add(offset)
    });
    if let Some(uid) = found.or(mappings.is_empty().then_some(uid)) {
        let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
        ctk_runtime::give_pipes([input.as_fd(), output.as_fd(), error.as_fd()], uid);
    }
}

/// From the first to the last word of the process.
fn bring_up(parts: &Parts<'_>, kept: &mut Kept, launch: &Launch<'_>, child: &ctk_sys::Child) -> Result<(), Error> {
    let Parts { spec, plan, .. } = *parts;
    let pid = child.pid;
    if let Some(scope) = kept.record.scope.as_ref().filter(|_| launch.outside.get()) {
        scope.attach(pid)?;
    }
    let own = |status| {
        let mut state = kept.record.state();
        state.status = status;
        state.pid = pid;
        state
    };
    for (file, status) in launch.files.state.iter().flatten().zip([Status::Creating, Status::Created]) {
        // For createContainer and startContainer: both run where the container's own numbers count.
        let mut state = own(status);
        state.pid = inner_pid(pid);
        fill(file, &serde_json::to_string(&state).unwrap_or_default())?;
    }
    if let Some((_, file)) = &launch.files.listener {
        fill(file, &listener_state(spec, &own(Status::Creating), pid))?;
    }
    let go = |launch: &Launch<'_>| {
        let Some((_, write)) = &launch.files.go else { return Ok(()) };
        rustix::io::write(write, b"1").map(drop).map_err(|e| Error::Clone(e.into()))
    };
    if let Some((uid, gid)) = &plan.mappings {
        match &plan.user {
            None => open::write_mappings(pid, uid, gid)?,
            Some((path, _)) => open::check_mappings(pid, path, uid, gid)?,
        }
    }
    if plan.mappings.is_some() || plan.tasks.iter().any(|task| task.action == Action::AwaitMove) {
        go(launch)?;
    }
    loop {
        let Some(record) = child.told() else {
            // Executed, or killed on the way; the latter counts as a process that ended early.
            return Ok(());
        };
        if record.errno != 0 {
            return Err(launch.explain(record));
        }
        match launch.task_of(record).and_then(|index| plan.tasks.get(index)).map(|task| &task.action) {
            Some(Action::HostHooks) => {
                if let (Some(rdt), Some(class)) = (&plan.rdt, &kept.record.rdt_class) {
                    rdt.join(class, &kept.record.rdt_own, pid)?;
                }
                crate::devices::move_all(&plan.net_devices, pid)?;
                if let Some(hooks) = &spec.hooks {
                    crate::hooks::run(&hooks.prestart, "prestart", &own(Status::Creating))?;
                    crate::hooks::run(&hooks.create_runtime, "createRuntime", &own(Status::Creating))?;
                }
                go(launch)?;
            }
            // Started: it waits.
            _ => return Ok(()),
        }
    }
}

/// The process id inside its own namespace.
fn inner_pid(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.and_then(|line| line.split_whitespace().next_back()?.parse().ok()).unwrap_or(pid)
}

/// What the listener of `SCMP_ACT_NOTIFY` gets (`config-linux.md#containerprocessstate`).
fn listener_state(spec: &Spec, state: &state::State, pid: i32) -> String {
    let metadata = spec.linux.as_ref().and_then(|l| l.seccomp.as_ref()).and_then(|s| s.listener_metadata.clone());
    let mut all = serde_json::json!({
        "ociVersion": crate::spec::VERSION,
        "fds": ["seccompFd"],
        "pid": pid,
        "state": state,
    });
    if let (Some(metadata), Some(object)) = (metadata, all.as_object_mut()) {
        object.insert("metadata".into(), metadata.into());
    }
    all.to_string()
}

/// Connects to somebody's unix socket.
pub fn connect(path: &Path, field: &str) -> Result<OwnedFd, Error> {
    let stream = std::os::unix::net::UnixStream::connect(path);
    stream.map(OwnedFd::from).map_err(|source| Error::Step {
        step: format!("connect to `{}`", path.display()),
        field: field.into(),
        source,
    })
}

/// Writes a process id, whole or not at all: others wait for the file to appear.
pub fn write_pid(path: &Path, pid: i32) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    fs::write(&new, pid.to_string()).map_err(Error::file("write", &new))?;
    fs::rename(&new, path).map_err(Error::file("write", path))
}

/// Namespaces to go back to.
pub(crate) struct Back(Vec<(OwnedFd, u32)>);

/// Has children be made among the process ids of a container, until the guard is dropped.
pub(crate) fn join_for_children(container: std::os::fd::BorrowedFd<'_>) -> Result<Back, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let ours = rustix::fs::open("/proc/self/ns/pid_for_children", flags, Mode::empty())?;
    let namespace = libc::CLONE_NEWPID as u32;
    ctk_sys::set_controlling_namespace(container, namespace)?;
    Ok(Back(vec![(ours, namespace)]))
}

impl Drop for Back {
    fn drop(&mut self) {
        for (file, namespace) in &self.0 {
            let _ = ctk_sys::set_controlling_namespace(file.as_fd(), *namespace);
        }
    }
}

/// How likely the kernel is to kill this process for want of memory: what a child inherits, until the guard is dropped.
/// An ordinary user may not change it of a process that is hidden already.
pub(crate) struct OomScore(String);

const OWN_OOM_SCORE: &str = "/proc/self/oom_score_adj";

impl OomScore {
    pub(crate) fn give(adjustment: i32) -> Result<OomScore, Error> {
        let change = || {
            let before = fs::read_to_string(OWN_OOM_SCORE)?;
            fs::write(OWN_OOM_SCORE, adjustment.to_string())?;
            Ok(OomScore(before))
        };
        change().map_err(|source| Error::Step {
            step: format!("set the OOM score adjustment to {adjustment}"),
            field: "process.oomScoreAdj".into(),
            source,
        })
    }
}

impl Drop for OomScore {
    fn drop(&mut self) {
        let _ = fs::write(OWN_OOM_SCORE, self.0.trim());
    }
}

/// Goes into the namespaces that a child inherits, until the guard is dropped. Only for a process of one thread.
fn enter(plan: &Plan) -> Result<Back, Error> {
    let mut back = Back(Vec::new());
    let own = |name: &str| {
        launch::namespace(&std::ffi::CString::new(format!("/proc/self/ns/{name}")).unwrap_or_default(), "")
    };
    // In a user namespace that is there already, some can be joined only as a member of it.
    for (namespace, path, field) in plan.joined.iter().filter(|_| plan.user.is_none()) {
        let file = launch::namespace(&crate::action::text(path, field)?, field)?;
        let name = match *namespace as i32 {
            libc::CLONE_NEWPID => "pid_for_children",
            libc::CLONE_NEWNET => "net",
            libc::CLONE_NEWUTS => "uts",
            libc::CLONE_NEWIPC => "ipc",
            libc::CLONE_NEWCGROUP => "cgroup",
            _ => "time_for_children",
        };
        let ours = own(name)?;
        ctk_sys::set_controlling_namespace(file.as_fd(), *namespace).map_err(|e| Error::Step {
            step: format!("join the {} namespace `{path}`", crate::action::namespace_words(*namespace)),
            field: field.clone(),
            source: e.into(),
        })?;
        back.0.push((ours, *namespace));
    }
    if plan.namespaces & NEW_TIME != 0 {
        // Offsets count only as long as nobody lives in it: made here, for the child.
        let failed = |source| Error::Step { step: "set clocks".into(), field: "linux.timeOffsets".into(), source };
        let ours = own("time")?;
        ctk_sys::unshare(NEW_TIME).map_err(|e| failed(e.into()))?;
        back.0.push((ours, NEW_TIME));
        for line in &plan.time_offsets {
            fs::write("/proc/self/timens_offsets", line).map_err(failed)?;
        }
    }
    Ok(back)
}

/// Starts a container that was made by `create`.
pub fn start(root: &Path, id: &str) -> Result<(), Error> {
    let mut kept = Kept::open(root, id)?;
    let status = kept.status();
    if status != Status::Created {
        return Err(Error::Status { attempt: "start", status: status.word() });
    }
    let spec = kept.config()?;
    plan::process(&spec)?;
    let pidfd = kept.process().ok_or(Error::Ended)?;
    let report = kept.open_pipe(REPORT, OFlags::RDONLY)?;
    let start = kept.open_pipe(START, OFlags::WRONLY)?;
    rustix::io::write(&start, b"1").map_err(|e| Error::file("write", "the start pipe")(e.into()))?;
    drop(start);
    if let Some(record) = wait_for_record(&report, &pidfd) {
        let found = kept.record.steps.iter().find(|(step, _, _)| *step == record.step);
        let (words, field) = found.map_or(("start", ""), |(_, words, field)| (words.as_str(), field.as_str()));
        return Err(launch::explained(words, field, record.errno));
    }
    kept.record.status = Status::Running;
    kept.record.steps.clear();
    kept.remove_pipes();
    kept.write()?;
    poststart(&kept, &spec)
}

/// Runs the hooks after the start; a container whose hooks fail is killed.
pub fn poststart(kept: &Kept, spec: &Spec) -> Result<(), Error> {
    let Some(hooks) = spec.hooks.as_ref().filter(|hooks| !hooks.poststart.is_empty()) else { return Ok(()) };
    let mut state = kept.state();
    state.status = Status::Running;
    state.pid = kept.record.pid;
    let result = crate::hooks::run(&hooks.poststart, "poststart", &state);
    if result.is_err()
        && let Some(pidfd) = kept.process()
    {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
    result
}

/// The record of a failure, or none once the program was executed or the process has ended.
fn wait_for_record(report: &OwnedFd, pidfd: &OwnedFd) -> Option<ctk_sys::Failure> {
    loop {
        let mut files = [PollFd::new(report, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
        match poll(&mut files, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return None,
        }
        let ([first, second], mut record) = (files.map(|file| file.revents()), [0_u8; 8]);
        if !first.is_empty() {
            return match rustix::io::read(report, &mut record) {
                Ok(8) => {
                    let [s0, s1, s2, s3, e0, e1, e2, e3] = record;
                    let step = u32::from_ne_bytes([s0, s1, s2, s3]) as usize;
                    Some(ctk_sys::Failure { step, errno: i32::from_ne_bytes([e0, e1, e2, e3]) })
                }
                _ => None,
            };
        }
        if !second.is_empty() {
            return None;
        }
    }
}

/// Sends a signal to a container: its first process, or all of them.
pub fn kill(root: &Path, id: &str, signal: i32, all: bool) -> Result<(), Error> {
    let kept = Kept::open(root, id)?;
    // With version 1, not even SIGKILL gets through to who is frozen.
    let thaw = || match signal == libc::SIGKILL && kept.record.cgroups.is_frozen() {
        true => kept.record.cgroups.freeze(false),
        false => Ok(()),
    };
    if all {
        kept.record.cgroups.signal(signal);
        return thaw();
    }
    let Some(pidfd) = kept.process() else {
        return Err(Error::Status { attempt: "kill", status: Status::Stopped.word() });
    };
    send(&pidfd, signal, kept.record.pid)?;
    thaw()?;
    // Without process ids of its own, the others live on when the first is gone.
    if signal == libc::SIGKILL && kept.config().is_ok_and(|spec| shares_pids(&spec)) {
        kept.record.cgroups.signal(signal);
    }
    Ok(())
}

fn shares_pids(spec: &Spec) -> bool {
    let own = |linux: &crate::spec::Linux| {
        linux.namespaces.iter().any(|n| n.kind == "pid" && n.path.as_deref().unwrap_or_default().is_empty())
    };
    !spec.linux.as_ref().is_some_and(own)
}

fn send(pidfd: &OwnedFd, signal: i32, pid: i32) -> Result<(), Error> {
    let failed = |e: Errno| Error::Control { attempt: "signal", pid, source: e.into() };
    ctk_sys::signal_process(pidfd.as_fd(), signal).map_err(failed)
}

/// Deletes a container that has stopped or waits for its start; with `force` whatever it does. What poststop hooks
/// complain about is given back.
pub fn delete(root: &Path, id: &str, force: bool) -> Result<Vec<Error>, Error> {
    let kept = match Kept::open(root, id) {
        Err(Error::Missing { .. }) if force => {
            // One whose making was interrupted before there was a state.
            remove_unfinished(root, id);
            return Ok(Vec::new());
        }
        other => other?,
    };
    match kept.status() {
        Status::Stopped | Status::Created | Status::Creating => {}
        _ if force => {}
        status => return Err(Error::Status { attempt: "delete", status: status.word() }),
    }
    if let Some(pidfd) = kept.process() {
        if kept.record.cgroups.is_frozen() {
            let _ = kept.record.cgroups.freeze(false);
        }
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        wait_for_end(&pidfd, kept.record.pid)?;
    }
    let spec = kept.config();
    Ok(remove(&kept, spec.as_ref().ok()))
}

fn remove_unfinished(root: &Path, id: &str) {
    let directory = root.join(id);
    if state::check_id(id).is_ok() && directory.join("lock").exists() && !directory.join("state.json").exists() {
        for name in ["config.json", "state.json.new", "lock"] {
            let _ = fs::remove_file(directory.join(name));
        }
    }
    let _ = fs::remove_dir(directory);
}

/// Removes what a stopped container left.
pub fn remove(kept: &Kept, spec: Option<&Spec>) -> Vec<Error> {
    let mut errors = equipment::remove(&kept.record);
    remove_classes(&kept.record);
    if let Some(hooks) = spec.and_then(|spec| spec.hooks.as_ref()) {
        errors.extend(crate::hooks::run_all(&hooks.poststop, "poststop", &stopped(&kept.record)));
    }
    kept.remove();
    errors
}

/// Classes of service and groups that were made for a container. A directory that is gone is as good.
fn remove_classes(record: &Record) {
    for path in &record.rdt_own {
        let _ = fs::remove_dir(path);
    }
}

fn wait_for_end(pidfd: &OwnedFd, pid: i32) -> Result<(), Error> {
    let deadline = Instant::now() + KILL;
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => {
                return Err(Error::Control {
                    attempt: "wait for the end of",
                    pid,
                    source: io::ErrorKind::TimedOut.into(),
                });
            }
            Ok(_) => return Ok(()),
            Err(Errno::INTR) if !rest.is_zero() => {}
            Err(e) => return Err(Error::Control { attempt: "wait for the end of", pid, source: e.into() }),
        }
    }
}

/// How our own child ended; waits for that.
pub fn reap(pidfd: &OwnedFd) -> Result<Exit, Error> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return Ok(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Exit::Code(code),
                    (_, signal) => Exit::Signal(signal.unwrap_or(0)),
                });
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(e) => return Err(Error::Control { attempt: "wait for", pid: pidfd.as_raw_fd(), source: e.into() }),
        }
    }
}

/// Stops all processes of a container where they are, or lets them go on.
pub fn freeze(root: &Path, id: &str, frozen: bool) -> Result<(), Error> {
    let kept = Kept::open(root, id)?;
    match (kept.status(), frozen) {
        (Status::Running | Status::Created, true) | (Status::Paused, false) => kept.record.cgroups.freeze(frozen),
        (status, true) => Err(Error::Status { attempt: "pause", status: status.word() }),
        (status, false) => Err(Error::Status { attempt: "resume", status: status.word() }),
    }
}

/// A file of the host for the container's `/dev/null` as standard stream.
pub fn null_file() -> Result<OwnedFd, Error> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::file("open", "/dev/null")(e.into()))
}
