//! What each verb does.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ctk_bundle::attend;
use ctk_bundle::container::{self, Made, Options};
use ctk_bundle::equipment;
use ctk_bundle::exec;
use ctk_bundle::landlock;
use ctk_bundle::plan::{self, Switches};
use ctk_bundle::spec::{BlockIo, Cpu, Memory, Pids, Resources};
use ctk_bundle::state::{self, Kept};
use ctk_bundle::systemd::Manager;

use super::arguments::Arguments;
use super::log::{self, Log};
use super::{Failure, checkpoint, process};

/// Runs a verb; gives back the exit code. `view` is this program's own, to let go of while others work.
pub fn run(verb: &str, arguments: &Arguments, log: &Log, view: Option<OwnedFd>) -> Result<u8, Failure> {
    let only_looks = match verb {
        "state" | "list" | "events" | "features" => true,
        "ps" => arguments.value("format") == Some("json"),
        _ => false,
    };
    if only_looks {
        told(log, landlock::look_on(&root(arguments)));
    }
    match verb {
        "create" => create(arguments, log),
        "run" => foreground(arguments, log, view),
        "start" => container::start(&root(arguments), id(arguments)?).map(|()| 0).map_err(Failure::from),
        "state" => {
            let kept = Kept::open(&root(arguments), id(arguments)?)?;
            print(&format!("{}\n", serde_json::to_string_pretty(&kept.state()).unwrap_or_default()))
        }
        "kill" => kill(arguments),
        "delete" => delete(arguments, log),
        "exec" if arguments.is_on("exit-codes") => further(arguments, log, view),
        "exec" => further(arguments, log, view).map_err(|failure| Failure { code: 255, ..failure }),
        "ps" => ps(arguments),
        "list" => list(arguments),
        "pause" | "resume" => {
            container::freeze(&root(arguments), id(arguments)?, verb == "pause")?;
            Ok(0)
        }
        "update" => update(arguments),
        "events" => events(arguments),
        "spec" => spec(arguments),
        "features" => {
            let version = env!("CARGO_PKG_VERSION");
            let features = ctk_bundle::features::features(version, &ctk_bundle::features::capabilities());
            print(&format!("{}\n", serde_json::to_string_pretty(&features).unwrap_or_default()))
        }
        "checkpoint" => checkpoint::checkpoint(arguments, log),
        _ => checkpoint::restore(arguments, log, view),
    }
}

fn print(text: &str) -> Result<u8, Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| format!("cannot write to standard output: {e}"))?;
    Ok(0)
}

/// Where containers are written down.
pub(super) fn root(arguments: &Arguments) -> PathBuf {
    if let Some(root) = arguments.value("root").filter(|root| !root.is_empty()) {
        return root.into();
    }
    let is_root = rustix::process::geteuid().is_root();
    // The root of a user namespace, as podman's users are, has no right to the machine's `/run`.
    match (is_root && !ctk_runtime::in_user_namespace(), std::env::var_os("XDG_RUNTIME_DIR")) {
        (false, Some(directory)) if !directory.is_empty() => Path::new(&directory).join("ctk-runtime"),
        (false, _) if !is_root => format!("/tmp/ctk-runtime-{}", rustix::process::geteuid().as_raw()).into(),
        _ => "/run/ctk-runtime".into(),
    }
}

fn id(arguments: &Arguments) -> Result<&str, Failure> {
    match arguments.operands.as_slice() {
        [id, ..] => Ok(id),
        [] => Err("the container's id is needed".to_owned().into()),
    }
}

pub(super) fn only_id(arguments: &Arguments) -> Result<&str, Failure> {
    match arguments.operands.as_slice() {
        [id] => Ok(id),
        [_, more, ..] => Err(format!("`{more}` is one word too many").into()),
        [] => Err("the container's id is needed".to_owned().into()),
    }
}

fn number(arguments: &Arguments, name: &str) -> Result<Option<i64>, Failure> {
    let Some(text) = arguments.value(name) else { return Ok(None) };
    let number = text.parse().map_err(|_| format!("--{name} `{text}` is no number"))?;
    Ok(Some(number))
}

fn preserve_fds(arguments: &Arguments) -> Result<u32, Failure> {
    match number(arguments, "preserve-fds")? {
        None => Ok(0),
        Some(count) => u32::try_from(count)
            .ok()
            .filter(|count| *count < 1 << 20)
            .ok_or_else(|| Failure::from(format!("--preserve-fds `{count}` is no number of files"))),
    }
}

/// What `create` and `run` have in common.
pub(super) fn options(arguments: &Arguments, waits: bool) -> Result<Options, Failure> {
    let console = match arguments.value("console-socket").filter(|path| !path.is_empty()) {
        None => None,
        Some(path) => Some(container::connect(Path::new(path), "--console-socket")?),
    };
    Ok(Options {
        root: root(arguments),
        id: only_id(arguments)?.into(),
        bundle: arguments.value("bundle").unwrap_or(".").into(),
        configuration: None,
        switches: Switches {
            no_pivot: arguments.is_on("no-pivot"),
            no_new_keyring: arguments.is_on("no-new-keyring"),
            preserve_fds: preserve_fds(arguments)?,
            waits,
            moved: false,
        },
        console,
        pid_file: arguments.value("pid-file").filter(|path| !path.is_empty()).map(PathBuf::from),
        now: log::now(),
        owner: owner(),
        systemd: systemd(arguments)?,
        mounted: None,
    })
}

/// The systemd that is to make cgroups: the machine's for root, the user's own for everybody else, and for who is root
/// in a user namespace only.
fn systemd(arguments: &Arguments) -> Result<Option<Manager>, Failure> {
    let wanted = match arguments.value("cgroup-manager") {
        Some("systemd") => true,
        // What podman says with `--cgroups disabled`.
        None | Some("cgroupfs" | "disabled") => arguments.is_on("systemd-cgroup"),
        Some(other) => return Err(format!("--cgroup-manager `{other}` is neither cgroupfs nor systemd").into()),
    };
    if !wanted {
        return Ok(None);
    }
    if rustix::process::geteuid().is_root() && !ctk_runtime::in_user_namespace() {
        return Ok(Some(Manager::System));
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()).map(PathBuf::from);
    Ok(Some(Manager::User { runtime, bus: std::env::var("DBUS_SESSION_BUS_ADDRESS").ok() }))
}

/// The user's name, as `list` shows it.
fn owner() -> String {
    match rustix::process::getuid() {
        uid if uid.is_root() => "root".into(),
        uid => std::env::var("USER").unwrap_or_else(|_| uid.as_raw().to_string()),
    }
}

fn show_plan(options: &Options, log: &Log) {
    if !log.is_debug() {
        return;
    }
    let hierarchies = ctk_bundle::cgroup::hierarchies();
    let plan = container::read_bundle(&options.bundle).and_then(|(spec, _)| {
        plan::plan(&spec, &container::host(&options.bundle, &options.id, &hierarchies, options.switches))
    });
    if let Ok(plan) = plan {
        plan.to_string().lines().for_each(|line| log.debug(line));
    }
    if let Ok(Some(scope)) = container::scope(options) {
        log.debug(&format!("scope {} in {}", scope.unit, scope.slice));
        return;
    }
    let cgroups = container::cgroups(options).unwrap_or_default().directories;
    for directory in &cgroups {
        log.debug(&format!("cgroup {} {}", directory.name, directory.path.display()));
    }
    for hierarchy in hierarchies.iter().filter(|one| !cgroups.iter().any(|d| d.controllers == one.controllers)) {
        log.debug(&format!("cgroup {}: none, nothing of it was delegated to this user", hierarchy.name()));
    }
}

fn hand_over(arguments: &Arguments, pidfd: &OwnedFd) -> Result<(), Failure> {
    if let Some(path) = arguments.value("pidfd-socket").filter(|path| !path.is_empty()) {
        let socket = container::connect(Path::new(path), "--pidfd-socket")?;
        attend::send_file(&socket, pidfd.as_fd())?;
    }
    Ok(())
}

fn create(arguments: &Arguments, log: &Log) -> Result<u8, Failure> {
    let options = options(arguments, true)?;
    show_plan(&options, log);
    let made = container::create(options)?;
    made.warnings.iter().for_each(|warning| log.warning(warning));
    hand_over(arguments, &made.pidfd)?;
    Ok(0)
}

fn foreground(arguments: &Arguments, log: &Log, view: Option<OwnedFd>) -> Result<u8, Failure> {
    let mut options = options(arguments, false)?;
    show_plan(&options, log);
    let ours = own_terminal(arguments, &mut options)?;
    let state_root = options.root.clone();
    stay(arguments, log, (ours, view), state_root, || container::create(options))
}

/// A socket that gets the terminal, where the container has one and nobody else wants it.
pub(super) fn own_terminal(arguments: &Arguments, options: &mut Options) -> Result<Option<OwnedFd>, Failure> {
    if arguments.is_on("detach") || options.console.is_some() {
        return Ok(None);
    }
    let read = container::read_bundle(&options.bundle)?;
    let has_terminal = read.0.process.as_ref().is_some_and(|process| process.terminal);
    options.configuration = Some(read);
    if !has_terminal {
        return Ok(None);
    }
    let (mine, theirs) = attend::console_pair()?;
    options.console = Some(theirs);
    Ok(Some(mine))
}

/// Makes a container, and stays with it unless `--detach` says no. `ours` is where its terminal comes from, `view` the
/// one of this program.
pub(super) fn stay(
    arguments: &Arguments,
    log: &Log,
    (ours, view): (Option<OwnedFd>, Option<OwnedFd>),
    state_root: PathBuf,
    make: impl FnOnce() -> Result<Made, ctk_bundle::Error>,
) -> Result<u8, Failure> {
    // Before the process is made: its end and every signal are found again, however early they come.
    let signals = attend::hold_signals()?;
    let Made { kept, pidfd, spec, warnings } = make()?;
    warnings.iter().for_each(|warning| log.warning(warning));
    let result = hand_over(arguments, &pidfd).and_then(|()| Ok(container::poststart(&kept, &spec)?));
    if let Err(failure) = result {
        let id = kept.record.id.clone();
        drop(kept);
        let _ = container::delete(&state_root, &id, true);
        return Err(failure);
    }
    if arguments.is_on("detach") {
        return Ok(0);
    }
    let terminal = ours.map(|socket| attend::receive_terminal(&socket)).transpose()?;
    let (id, keep) = (kept.record.id.clone(), arguments.is_on("keep"));
    // Terminals and files of containers are read from here on.
    told(log, landlock::wait_for(&state_root, &kept.record, &spec, !keep));
    // Others may look at it, and stop it, meanwhile.
    drop(kept);
    drop(view);
    let (input, output) = (std::io::stdin(), std::io::stdout());
    let exit = attend::attend(&pidfd, &signals, terminal.as_ref(), input.as_fd(), output.as_fd())?;
    if !keep {
        // Somebody may have deleted it already.
        match container::delete(&state_root, &id, true) {
            Ok(complaints) => complaints.iter().for_each(|error| log.warning(&error.line())),
            Err(ctk_bundle::Error::Missing { .. }) => {}
            Err(error) => log.warning(&error.line()),
        }
    }
    Ok(exit.code() as u8)
}

fn further(arguments: &Arguments, log: &Log, view: Option<OwnedFd>) -> Result<u8, Failure> {
    let id = id(arguments)?.to_owned();
    let detach = arguments.is_on("detach");
    let mut ours = None;
    let mut console = match arguments.value("console-socket").filter(|path| !path.is_empty()) {
        None => None,
        Some(path) => Some(container::connect(Path::new(path), "--console-socket")?),
    };
    let root = root(arguments);
    let config = {
        let kept = Kept::open(&root, &id)?;
        kept.config()?
    };
    let wanted = process::process(arguments, &config)?;
    if wanted.terminal && console.is_none() && !detach {
        let (mine, theirs) = attend::console_pair()?;
        ours = Some(mine);
        console = Some(theirs);
    }
    let signals = attend::hold_signals()?;
    let options = exec::Options {
        root,
        id,
        preserve_fds: preserve_fds(arguments)?,
        console,
        pid_file: arguments.value("pid-file").filter(|path| !path.is_empty()).map(PathBuf::from),
        ignore_paused: arguments.is_on("ignore-paused"),
        cgroups: arguments.values("cgroup").filter(|path| !path.is_empty()).map(String::from).collect(),
    };
    let (_, pidfd, warnings) =
        exec::exec(options, |_| Ok(wanted)).map_err(|error| Failure { code: exit_code(&error), ..error.into() })?;
    warnings.iter().for_each(|warning| log.warning(warning));
    hand_over(arguments, &pidfd)?;
    if detach {
        return Ok(0);
    }
    let terminal = ours.map(|socket| attend::receive_terminal(&socket)).transpose()?;
    told(log, landlock::relay());
    drop(view);
    let (input, output) = (std::io::stdin(), std::io::stdout());
    let exit = attend::attend(&pidfd, &signals, terminal.as_ref(), input.as_fd(), output.as_fd())?;
    Ok(exit.code() as u8)
}

/// What docker and podman give back when a command cannot be run.
fn exit_code(error: &ctk_bundle::Error) -> u8 {
    match error {
        ctk_bundle::Error::Step { field, source, .. } if field == "process.args" => {
            if source.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }
        }
        _ => 125,
    }
}

/// Says whether this process is confined.
fn told(log: &Log, confined: bool) {
    log.debug(if confined {
        "this process is confined by landlock"
    } else {
        "this process is not confined by landlock"
    });
}

fn kill(arguments: &Arguments) -> Result<u8, Failure> {
    let (id, signal) = match arguments.operands.as_slice() {
        [id] => (id, "SIGTERM"),
        [id, signal] => (id, signal.as_str()),
        _ => return Err("the container's id is needed, and maybe a signal".to_owned().into()),
    };
    container::kill(&root(arguments), id, process::signal(signal)?, arguments.is_on("all"))?;
    Ok(0)
}

fn delete(arguments: &Arguments, log: &Log) -> Result<u8, Failure> {
    id(arguments)?;
    for id in &arguments.operands {
        let complaints = container::delete(&root(arguments), id, arguments.is_on("force"))?;
        complaints.iter().for_each(|error| log.warning(&error.line()));
    }
    Ok(0)
}

fn ps(arguments: &Arguments) -> Result<u8, Failure> {
    let kept = Kept::open(&root(arguments), id(arguments)?)?;
    let pids = kept.record.cgroups.pids();
    drop(kept);
    if arguments.value("format") == Some("json") {
        return print(&format!("{}\n", serde_json::to_string(&pids).unwrap_or_default()));
    }
    let own = arguments.operands.get(1..).unwrap_or_default();
    let words = if own.is_empty() { vec!["-ef".to_owned()] } else { own.to_vec() };
    let output = std::process::Command::new("ps").args(&words).output();
    let output = output.map_err(|e| format!("cannot run ps: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|word| word == "PID");
    let column = column.ok_or_else(|| "ps shows no column PID".to_owned())?;
    let mut shown = format!("{head}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            shown.push_str(line);
            shown.push('\n');
        }
    }
    print(&shown)
}

fn list(arguments: &Arguments) -> Result<u8, Failure> {
    let records = state::list(&root(arguments))?;
    let states: Vec<_> = records.iter().map(state::Record::state).collect();
    if arguments.is_on("quiet") {
        return print(&states.iter().map(|state| format!("{}\n", state.id)).collect::<String>());
    }
    match arguments.value("format").unwrap_or("table") {
        "json" => {
            // Numbers are there even when there is no process, as runc has it.
            let all: Vec<serde_json::Value> = states
                .iter()
                .map(|state| {
                    let mut value = serde_json::to_value(state).unwrap_or_default();
                    if let Some(object) = value.as_object_mut() {
                        object.entry("pid").or_insert(0.into());
                    }
                    value
                })
                .collect();
            print(&format!("{}\n", serde_json::Value::from(all)))
        }
        "table" => {
            let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from);
            let rows = states.iter().map(|s| {
                let pid = s.pid.to_string();
                [s.id.clone(), pid, s.status.word().into(), s.bundle.clone(), s.created.clone(), s.owner.clone()]
            });
            let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
            let mut widths = [0; 6];
            for row in &rows {
                for (width, cell) in widths.iter_mut().zip(row) {
                    *width = cell.len().max(*width);
                }
            }
            let line = |row: &[String; 6]| {
                let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
                format!("{}\n", cells.collect::<Vec<_>>().join("   ").trim_end())
            };
            print(&rows.iter().map(line).collect::<String>())
        }
        other => Err(format!("--format `{other}` is neither table nor json").into()),
    }
}

fn update(arguments: &Arguments) -> Result<u8, Failure> {
    let kept = Kept::open(&root(arguments), only_id(arguments)?)?;
    let resources = match arguments.value("resources") {
        Some(path) => {
            let mut text = String::new();
            let read = match path {
                "-" => std::io::stdin().read_to_string(&mut text).map(drop),
                path => fs::read_to_string(path).map(|read| text = read),
            };
            read.map_err(|e| format!("cannot read `{path}`: {e}"))?;
            ctk_bundle::spec::read(&text).map_err(|wrong| format!("{path}: {}: {}", wrong.field, wrong.reason))?
        }
        None => resources(arguments)?,
    };
    equipment::update(&kept, &resources)?;
    Ok(0)
}

fn resources(arguments: &Arguments) -> Result<Resources, Failure> {
    let signed = |name: &str| number(arguments, name);
    let positive = |name: &str| -> Result<Option<u64>, Failure> {
        match number(arguments, name)? {
            None => Ok(None),
            Some(number) => u64::try_from(number).map(Some).map_err(|_| format!("--{name} is negative").into()),
        }
    };
    let bytes =
        |name: &str| -> Result<Option<i64>, Failure> { arguments.value(name).map(|text| size(name, text)).transpose() };
    let memory = Memory {
        limit: bytes("memory")?,
        reservation: bytes("memory-reservation")?,
        swap: bytes("memory-swap")?,
        kernel_tcp: bytes("kernel-memory-tcp")?,
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: positive("cpu-share")?.or(positive("cpu-shares")?),
        quota: signed("cpu-quota")?,
        burst: positive("cpu-burst")?,
        period: positive("cpu-period")?,
        realtime_runtime: signed("cpu-rt-runtime")?,
        realtime_period: positive("cpu-rt-period")?,
        cpus: arguments.value("cpuset-cpus").map(String::from),
        mems: arguments.value("cpuset-mems").map(String::from),
        idle: signed("cpu-idle")?,
    };
    let weight = match positive("blkio-weight")? {
        None => None,
        Some(weight) => Some(u16::try_from(weight).map_err(|_| "--blkio-weight is more than 1000".to_owned())?),
    };
    Ok(Resources {
        memory: (memory != Memory::default()).then_some(memory),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        pids: signed("pids-limit")?.map(|limit| Pids { limit: Some(limit) }),
        block_io: weight.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..Resources::default()
    })
}

/// Bytes, maybe with a unit of 1024.
fn size(name: &str, text: &str) -> Result<i64, Failure> {
    let lower = text.to_ascii_lowercase();
    let bare = lower.trim_end_matches("ib").trim_end_matches('b');
    let (digits, factor) = match bare.chars().last() {
        Some('k') => (bare.trim_end_matches('k'), 1 << 10),
        Some('m') => (bare.trim_end_matches('m'), 1 << 20),
        Some('g') => (bare.trim_end_matches('g'), 1 << 30),
        Some('t') => (bare.trim_end_matches('t'), 1_i64 << 40),
        _ => (bare, 1),
    };
    let number = digits.parse::<i64>().ok().and_then(|number| number.checked_mul(factor));
    number.ok_or_else(|| format!("--{name} `{text}` is no number of bytes").into())
}

fn events(arguments: &Arguments) -> Result<u8, Failure> {
    let id = only_id(arguments)?;
    let event = |record: &state::Record| {
        let data = ctk_bundle::stats::stats(&record.cgroups);
        format!("{}\n", serde_json::json!({ "type": "stats", "id": id, "data": data }))
    };
    let kept = Kept::open(&root(arguments), id)?;
    let status = kept.status();
    if status == state::Status::Stopped {
        return Err(Failure::from(ctk_bundle::Error::Status { attempt: "watch", status: status.word() }));
    }
    if arguments.is_on("stats") {
        return print(&event(&kept.record));
    }
    let seconds = match arguments.value("interval").map(|text| text.trim_end_matches('s').parse::<u64>()) {
        None => 5,
        Some(Ok(seconds)) if seconds > 0 => seconds,
        Some(_) => return Err("--interval needs a number of seconds".to_owned().into()),
    };
    let record = kept.record.clone();
    // Nobody waits for us.
    drop(kept);
    let mut kills = record.cgroups.oom_kills();
    loop {
        let now = record.cgroups.oom_kills();
        if now > kills {
            kills = now;
            print(&format!("{}\n", serde_json::json!({ "type": "oom", "id": id })))?;
        }
        let Some(process) = record.process() else { return Ok(0) };
        print(&event(&record))?;
        let limit = rustix::event::Timespec { tv_sec: seconds as i64, tv_nsec: 0 };
        let mut files = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut files, Some(&limit));
        // Its end is an event too, for those who wait for an OOM.
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn spec(arguments: &Arguments) -> Result<u8, Failure> {
    let path = Path::new(arguments.value("bundle").unwrap_or(".")).join("config.json");
    let text = ctk_bundle::features::example(
        arguments.is_on("rootless"),
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let made = fs::File::options().write(true).create_new(true).open(&path);
    let written = made.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|e| format!("cannot make `{}`: {e}", path.display()))?;
    Ok(0)
}
