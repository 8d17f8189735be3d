//! A stage under construction: what every instruction does to tree, config and history.
//!
//! Values come in expanded; nothing here knows who wrote them.

use ctk_oci::{ContainerConfig, Empty, Healthcheck, Platform};
use ctk_syntax::Span;

use crate::history::{healthcheck, quoted};
use crate::{Command, Exec, FileAction, Graph, Health, ImageHistory, Op, Owner, UserEntry, Vertex, VertexId};

/// `PATH` where the base says nothing, as BuildKit and Docker have it.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Tree, config and history so far.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) label: String,
    pub(crate) vertex: VertexId,
    pub(crate) base: Option<VertexId>,
    pub(crate) config: ContainerConfig,
    pub(crate) history: Vec<ImageHistory>,
    pub(crate) author: Option<String>,
    /// What its processes run on.
    pub(crate) platform: Platform,
    /// What the base says it is for.
    pub(crate) base_platform: Option<Platform>,
    /// What a process of the stage sees: the base's environment, and ENV and ARG as they came.
    pub(crate) env: Vec<(String, String)>,
    /// Declared build arguments, each once, in order of declaration, with the value of its last declaration.
    pub(crate) args: Vec<(String, String)>,
    /// Whether the base's config is known.
    pub(crate) known: bool,
    pub(crate) step: usize,
    pub(crate) steps: usize,
    cmd_set: bool,
    /// Whether there was a WORKDIR since the base image.
    pub(crate) workdir_set: bool,
}

impl Stage {
    pub(crate) fn new(label: String, vertex: VertexId, platform: Platform) -> Stage {
        Stage {
            label,
            vertex,
            base: None,
            config: ContainerConfig::default(),
            history: Vec::new(),
            author: None,
            platform,
            base_platform: None,
            env: Vec::new(),
            args: Vec::new(),
            known: true,
            step: 1,
            steps: 1,
            cmd_set: false,
            workdir_set: false,
        }
    }

    /// A stage that goes on from this one. The config's environment comes again over build arguments of the same name.
    pub(crate) fn child(&self, label: String) -> Stage {
        let mut stage = Stage { label, step: 1, steps: 1, cmd_set: false, ..self.clone() };
        stage.start();
        stage
    }

    /// Goes on from a base's config.
    pub(crate) fn start(&mut self) {
        let windows = self.platform.os == "windows";
        if self.known && !windows && self.config.env_value("PATH").is_none() {
            self.config.env.push(DEFAULT_PATH.into());
        }
        for pair in self.config.env.clone() {
            let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
            self.set(name, value);
        }
        if !self.config.working_dir.is_empty() && !self.config.working_dir.starts_with('/') && !windows {
            self.config.working_dir = clean("/", &self.config.working_dir);
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        match self.env.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value.to_owned(),
            None => self.env.push((name.to_owned(), value.to_owned())),
        }
    }

    /// The value of a variable: the last ENV or ARG of that name counts.
    pub(crate) fn lookup(&self, name: &str) -> Option<String> {
        self.env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone())
    }

    /// The current directory, absolute.
    pub(crate) fn cwd(&self) -> &str {
        if self.config.working_dir.is_empty() { "/" } else { &self.config.working_dir }
    }

    /// `path` as an absolute one; a trailing slash, or a `.` at the end, stays as a slash.
    pub(crate) fn absolute(&self, path: &str) -> String {
        let directory = path.is_empty() || path.ends_with('/') || path == "." || path.ends_with("/.");
        let clean = clean(self.cwd(), path);
        if directory && clean != "/" { clean + "/" } else { clean }
    }

    fn push(
        &mut self,
        graph: &mut Graph,
        op: Op,
        more: Vec<VertexId>,
        text: &str,
        created_by: String,
        origin: Option<Span>,
    ) {
        self.step += 1;
        let name = format!("[{} {}/{}] {}", self.label, self.step, self.steps.max(self.step), one_line(text));
        let mut inputs = vec![self.vertex];
        inputs.extend(more);
        let variables = if matches!(op, Op::Exec(_)) { Vec::new() } else { self.env.clone() };
        self.vertex = graph.add(Vertex { op, inputs, name, origin, variables });
        self.history.push(ImageHistory::Layer { created_by, vertex: self.vertex });
    }

    fn note(&mut self, created_by: String) {
        self.history.push(ImageHistory::Empty { created_by });
    }

    pub(crate) fn exec(
        &mut self,
        graph: &mut Graph,
        exec: Exec,
        inputs: Vec<VertexId>,
        shown: &str,
        text: &str,
        origin: Option<Span>,
    ) {
        // What ENV says counts more than the declaration, and of what no process sees only the declaration is there.
        let shown_arg = |(name, declared): &(String, String)| {
            format!("{name}={}", self.lookup(name).unwrap_or_else(|| declared.clone()))
        };
        let args: Vec<String> = self.args.iter().map(shown_arg).collect();
        let created_by = match args.len() {
            0 => format!("RUN {shown}"),
            n => format!("RUN |{n} {} {shown}", args.join(" ")),
        };
        self.push(graph, Op::Exec(Box::new(exec)), inputs, text, created_by, origin);
    }

    /// The environment of a process.
    pub(crate) fn process_env(&self) -> Vec<String> {
        let mut env: Vec<String> = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if self.lookup("PATH").is_none() {
            env.push(DEFAULT_PATH.into());
        }
        env
    }

    #[allow(clippy::too_many_arguments)]
    pub(crate) fn files(
        &mut self,
        graph: &mut Graph,
        actions: Vec<FileAction>,
        link: bool,
        inputs: Vec<VertexId>,
        text: &str,
        created_by: String,
        origin: Option<Span>,
    ) {
        self.push(graph, Op::File { actions, link }, inputs, text, created_by, origin);
    }

    pub(crate) fn packages(&mut self, graph: &mut Graph, op: Op, text: &str, origin: Option<Span>) {
        let created_by = text.to_owned();
        self.push(graph, op, Vec::new(), text, created_by, origin);
    }

    pub(crate) fn workdir(&mut self, graph: &mut Graph, path: &str, text: &str, origin: Option<Span>) {
        self.workdir_set = true;
        // An absolute path stays as it is written, a relative one is resolved.
        let written = if path.starts_with('/') { path.to_owned() } else { clean(self.cwd(), path) };
        let created_by = format!("WORKDIR {written}");
        let path = clean("/", &written);
        self.config.working_dir = written;
        if path == "/" {
            return self.note(created_by);
        }
        // As BuildKit does: who works there owns it.
        let owner = (!self.config.user.is_empty()).then(|| Owner(self.config.user.clone()));
        let action = FileAction::Mkdir { path, mode: 0o755, owner };
        self.files(graph, vec![action], false, Vec::new(), text, created_by, origin);
    }

    pub(crate) fn add_user(&mut self, graph: &mut Graph, entry: &UserEntry, text: &str, origin: Option<Span>) {
        let UserEntry { name, uid, gid, home, shell } = entry.clone();
        let created_by = format!("USER {name} uid={uid} gid={gid}");
        self.config.user = name.clone();
        let action = FileAction::AddUser { name, uid, gid, home, shell };
        self.files(graph, vec![action], false, Vec::new(), text, created_by, origin);
    }

    pub(crate) fn env(&mut self, pairs: &[(String, String)]) {
        for (name, value) in pairs {
            self.config.set_env(name, value);
            self.set(name, value);
        }
        let shown: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
        self.note(format!("ENV {}", shown.join(" ")));
    }

    /// Declares a build argument, which processes see unless it is `hidden`; gives its line for [`Stage::arg_history`].
    pub(crate) fn arg(&mut self, name: &str, value: Option<&str>, hidden: bool) -> String {
        let declared = value.unwrap_or_default().to_owned();
        match self.args.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = declared,
            None => self.args.push((name.to_owned(), declared)),
        }
        let Some(value) = value else { return name.to_owned() };
        if !hidden {
            self.set(name, value);
        }
        format!("{name}={value}")
    }

    pub(crate) fn arg_history(&mut self, args: &[String]) {
        self.note(format!("ARG {}", args.join(" ")));
    }

    pub(crate) fn label(&mut self, pairs: &[(String, String)]) {
        self.config.labels.extend(pairs.iter().cloned());
        let shown: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
        self.note(format!("LABEL {}", shown.join(" ")));
    }

    pub(crate) fn expose(&mut self, ports: &[String]) {
        self.config.exposed_ports.extend(ports.iter().map(|p| (p.clone(), Empty)));
        self.note(format!("EXPOSE [{}]", ports.join(" ")));
    }

    pub(crate) fn volume(&mut self, paths: &[String]) {
        self.config.volumes.extend(paths.iter().map(|p| (p.clone(), Empty)));
        self.note(format!("VOLUME [{}]", paths.join(" ")));
    }

    pub(crate) fn user(&mut self, user: &str) {
        self.config.user = user.to_owned();
        self.note(format!("USER {user}"));
    }

    pub(crate) fn shell(&mut self, shell: &[String]) {
        self.config.shell = Some(shell.to_vec());
        self.note(format!("SHELL [{}]", shell.join(" ")));
    }

    pub(crate) fn stop_signal(&mut self, signal: &str) {
        self.config.stop_signal = Some(signal.to_owned());
        self.note(format!("STOPSIGNAL {signal}"));
    }

    pub(crate) fn maintainer(&mut self, author: &str) {
        self.author = Some(author.to_owned());
        self.note(format!("MAINTAINER {author}"));
    }

    pub(crate) fn on_build(&mut self, trigger: &str) {
        self.config.on_build.push(trigger.to_owned());
    }

    /// The command's words: a shell form goes to the stage's shell.
    pub(crate) fn words(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(line) => {
                let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
                let mut words = self.config.shell.clone().filter(|s| !s.is_empty()).unwrap_or_else(default);
                words.push(line.clone());
                words
            }
        }
    }

    pub(crate) fn cmd(&mut self, command: &Command) {
        let words = self.words(command);
        self.note(format!("CMD {}", quoted(&words)));
        self.config.cmd = Some(words).filter(|words| !words.is_empty());
        self.cmd_set = true;
    }

    /// The base's command was meant for the base's entrypoint; one of this stage stays.
    pub(crate) fn entrypoint(&mut self, command: &Command) {
        let words = self.words(command);
        self.note(format!("ENTRYPOINT {}", quoted(&words)));
        self.config.entrypoint = Some(words).filter(|words| !words.is_empty());
        if !self.cmd_set {
            self.config.cmd = None;
        }
    }

    pub(crate) fn healthcheck(&mut self, health: &Health) {
        let check = match health {
            Health::None => Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() },
            Health::Check { command, interval, timeout, start_period, start_interval, retries } => {
                let test = match command {
                    Command::Shell(line) => vec!["CMD-SHELL".into(), line.clone()],
                    Command::Exec(words) => std::iter::once("CMD".into()).chain(words.iter().cloned()).collect(),
                };
                Healthcheck {
                    test,
                    interval: *interval,
                    timeout: *timeout,
                    start_period: *start_period,
                    start_interval: *start_interval,
                    retries: *retries,
                }
            }
        };
        self.note(format!("HEALTHCHECK {}", healthcheck(&check)));
        self.config.healthcheck = Some(check);
    }
}

impl Owner {
    /// Whether it needs no `/etc/passwd` to be understood.
    pub fn is_numeric(&self) -> bool {
        let number = |part: &str| part.strip_prefix('+').unwrap_or(part).bytes().all(|b| b.is_ascii_digit());
        self.0.split(':').all(|part| part == "root" || number(part))
    }
}

fn one_line(text: &str) -> String {
    /// Characters of a progress line: more would wrap on every terminal.
    const WIDTH_CHARS: usize = 120;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WIDTH_CHARS) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// `path` below `base`, absolute, without `.`, `..` and doubled slashes.
pub(crate) fn clean(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{base}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_clean_and_absolute() {
        for (base, path, expected) in [
            ("/", "a/./b//c", "/a/b/c"),
            ("/x", "../../a", "/a"),
            ("/x", "/y/..", "/"),
            ("/x", ".", "/x"),
            ("/", "", "/"),
        ] {
            assert_eq!(clean(base, path), expected, "{base} {path}");
        }
    }
}
