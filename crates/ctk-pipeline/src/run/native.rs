//! A step that our own programs do: each command is a child of our own binary.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ctk_container::LineReader;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::execute::{Ended, Run};
use super::job::{Task, command_line};
use super::stop::Handle;
use super::storage::Mapping;
use crate::builders::{self, Action};

/// The label of containers that a step of a run started in the background: `ctk.pipeline=<run>`.
pub const LABEL: &str = "ctk.pipeline";

/// How our own binary is started for a step.
#[derive(Clone, Debug)]
pub struct Program {
    /// The binary.
    pub path: PathBuf,
    /// Words before those of [`Order`].
    pub words: Vec<String>,
    /// Variables, besides those that we have.
    pub env: Vec<(String, String)>,
}

/// What the child does, as JSON on its command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum Order {
    /// Become this program; `ctk` is the binary itself.
    Become {
        /// The program and its arguments.
        words: Vec<String>,
    },
    /// Fetch a URL.
    Fetch(Box<builders::Fetch>),
    /// Copy from and to buckets.
    Storage {
        /// What.
        storage: builders::Storage,
        /// Where buckets are here.
        mapping: Mapping,
    },
}

/// Variables of a step that would change who carries it out rather than what is done.
const OURS: &[&str] =
    &["PATH", "HOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "CTK_ROOT", "CTK_PROGRESS", "REGISTRY_AUTH_FILE"];

/// Does a step's commands, one after the other.
pub(crate) fn run(run: &Run<'_>, task: &Task, commands: &[builders::Command]) -> Ended {
    let deadline = task.timeout.map(|timeout| Instant::now() + timeout);
    for command in commands {
        if let Some(reason) = run.stops.ends(task) {
            return Ended::broken(format!("stopped: {reason:?}"));
        }
        let ended = match filled(run, task, command) {
            Ok(action) => carry_out(run, task, &action, deadline),
            Err(message) => Ended::failed(1, message),
        };
        match ended.is_good() {
            true => {}
            false if ended.late || run.stops.ends(task).is_some() => return ended,
            false if command.ends_if_it_fails => return Ended::with_code(0),
            false if command.may_fail => {}
            false => {
                let line = command_line(&command.action);
                let what = ended.message.clone().unwrap_or_default();
                return Ended { message: Some(format!("{what}: {line}")), ..ended };
            }
        }
    }
    Ended::with_code(0)
}

fn carry_out(run: &Run<'_>, task: &Task, action: &Action, deadline: Option<Instant>) -> Ended {
    if let Action::Tag { from, to } = action
        && let Err(message) = run.tag(from, to)
    {
        return Ended::failed(1, message);
    }
    for order in orders(run, action) {
        let ended = one(run, task, action, order, deadline);
        if !ended.is_good() {
            return ended;
        }
    }
    Ended::with_code(0)
}

/// The action with the step's variables in place of `${NAME}`.
fn filled<'a>(run: &Run<'_>, task: &Task, command: &'a builders::Command) -> Result<Cow<'a, Action>, String> {
    if command.variables.is_empty() {
        return Ok(Cow::Borrowed(&command.action));
    }
    let mut values = Vec::new();
    for (name, quoted) in &command.variables {
        let secret = || run.request.secrets.get(task.secret_env.get(name)?).cloned();
        let own = || (name == "HOME").then(|| "/builder/home".to_owned());
        let value = task.env.get(name).cloned().or_else(secret).or_else(own);
        let value = value.ok_or_else(|| format!("`${name}` is no variable of this step"))?;
        if !quoted && value.contains(|c: char| c.is_whitespace() || "*?[".contains(c)) {
            return Err(format!("`${name}` would be several words; write it as `\"${name}\"`"));
        }
        values.push((format!("${{{name}}}"), value));
    }
    let fill = |text: &mut String| {
        // One pass: a value that looks like a variable is none.
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find("${") {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            match values.iter().find(|(mark, _)| rest.starts_with(mark.as_str())) {
                Some((mark, value)) => {
                    out.push_str(value);
                    rest = &rest[mark.len()..];
                }
                None => {
                    out.push_str("${");
                    rest = &rest[2..];
                }
            }
        }
        out.push_str(rest);
        *text = out;
    };
    let mut action = command.action.clone();
    action.texts(&mut |text| fill(text));
    Ok(Cow::Owned(action))
}

/// What children are told for an action.
fn orders(run: &Run<'_>, action: &Action) -> Vec<Order> {
    let become_ = |words: Vec<String>| vec![Order::Become { words }];
    match action {
        Action::Nothing { .. } | Action::Tag { .. } => Vec::new(),
        Action::Fetch(fetch) => vec![Order::Fetch(fetch.clone())],
        Action::Storage(storage) => {
            vec![Order::Storage { storage: storage.clone(), mapping: run.request.settings.mapping.clone() }]
        }
        Action::Push { image, all_tags: true } => {
            let all = run.tags_of(image);
            all.into_iter().map(|image| Order::Become { words: vec!["ctk".into(), "push".into(), image] }).collect()
        }
        Action::Run { image, command, options } => {
            let label = format!("{LABEL}={}", run.request.journal.header.id);
            let mut words = vec!["ctk".to_owned(), "run".into(), "--label".into(), label];
            words.extend(cloud_network(run, options));
            words.push(image.clone());
            words.extend(command.iter().cloned());
            run.started_containers();
            become_(words)
        }
        action => become_(action.words()),
    }
}

/// Steps are on the machine's network, and so is what they start on the network that Cloud Build has for that:
/// `--network=cloudbuild`. Its name is known to the steps that follow.
fn cloud_network(run: &Run<'_>, options: &[String]) -> Vec<String> {
    let is_cloud = |word: &str| word == "cloudbuild";
    let mut out: Vec<String> = Vec::new();
    let (mut found, mut name) = (false, None);
    for (at, word) in options.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| options.get(at)).map(String::as_str);
        match word.split_once('=') {
            Some((option @ ("--network" | "--net"), value)) if is_cloud(value) => {
                found = true;
                out.push(format!("{option}=host"));
                continue;
            }
            Some(("--name", value)) => name = Some(value.to_owned()),
            _ => {}
        }
        match before {
            Some("--network" | "--net") if is_cloud(word) => {
                found = true;
                out.push("host".into());
                continue;
            }
            Some("--name") => name = Some(word.clone()),
            _ => {}
        }
        out.push(word.clone());
    }
    if let (true, Some(name)) = (found, name) {
        run.add_host(name, IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    out
}

fn one(run: &Run<'_>, task: &Task, action: &Action, order: Order, deadline: Option<Instant>) -> Ended {
    let password = match action {
        Action::Login { secret, .. } => secret.clone(),
        _ => None,
    };
    let mut command = match run.child(&order) {
        Ok(command) => command,
        Err(message) => return Ended::broken(message),
    };
    let folder = run.folder(&task.directory);
    if let Err(error) = std::fs::create_dir_all(&folder) {
        return Ended::broken(format!("cannot make {}: {error}", folder.display()));
    }
    command.current_dir(folder);
    for (variable, secret) in &task.secret_env {
        if let Some(value) = run.request.secrets.get(secret) {
            command.env(variable, value);
        }
    }
    let own = |name: &&String| !OURS.contains(&name.as_str());
    command.envs(task.env.iter().filter(|(name, _)| own(name)));
    // In the background it keeps what it is given, so what it is given must be nothing that we wait for.
    let sink = run.sink(task);
    spawn(run, task, command, password, sink, deadline)
}

/// Runs a child to its end, its lines going to `sink`.
fn spawn(
    run: &Run<'_>,
    task: &Task,
    mut command: Command,
    input: Option<String>,
    sink: ctk_container::LineSink,
    deadline: Option<Instant>,
) -> Ended {
    use std::io::Write;
    use std::os::unix::process::CommandExt;
    let failed = |what: &str, error: std::io::Error| Ended::broken(format!("cannot {what}: {error}"));
    let (mut lines, out, err) = match LineReader::start(sink) {
        Ok(made) => made,
        Err(error) => return failed("make pipes", error),
    };
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() }).stdout(out).stderr(err);
    let child = command.process_group(0).spawn();
    // Our copies of the pipes' ends go with it.
    drop(command);
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return failed("start our own program", error),
    };
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        let _ = stdin.write_all(input.as_bytes());
    }
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return Ended::broken("the child has no number".into());
    };
    let handle = Handle::Child(pid);
    run.stops.began(task, handle);
    let late = wait(pid, deadline).is_err();
    if late {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    // What it left in its group ends with it. It is not reaped yet: the number is still its own.
    let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    let status = child.wait();
    run.stops.ended(task);
    lines.finish();
    use std::os::unix::process::ExitStatusExt;
    match status {
        _ if late => Ended::late(format!("it took longer than its timeout, {:?}", task.timeout.unwrap_or_default())),
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Ended::with_code(code),
            (None, signal) => {
                let signal = signal.unwrap_or(0);
                Ended::failed(128 + signal, format!("ended by signal {signal}"))
            }
        },
        Err(error) => failed("wait for our own program", error),
    }
}

/// Waits until a process has ended; an error when the deadline is earlier.
fn wait(pid: Pid, deadline: Option<Instant>) -> Result<(), ()> {
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    loop {
        let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if rest.is_some_and(|rest| rest.is_zero()) {
            return Err(());
        }
        let pause = rest.unwrap_or(Duration::from_secs(60)).min(Duration::from_secs(60));
        let timeout = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: i64::from(pause.subsec_nanos()) };
        if let Ok(1..) = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            return Ok(());
        }
    }
}

/// Runs words of our own binary, and gives what they printed with how they ended.
pub(crate) fn quietly(run: &Run<'_>, words: &[&str]) -> (bool, String) {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    let Ok(mut command) = run.child(&Order::Become { words }) else { return (false, String::new()) };
    match command.stdin(Stdio::null()).output() {
        Ok(output) => {
            let text =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            (output.status.success(), text)
        }
        Err(error) => (false, error.to_string()),
    }
}
