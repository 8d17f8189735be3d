//! `RUN`.

use super::Walk;
use crate::pattern::literal;
use crate::stage::{Stage, clean};
use crate::{
    Access, Command, Exec, ExecMount, ExecSettings, From, MountKind, MountOption, Run, RunMount, RunMountKind,
    Selection, Statement, VertexId, WrittenMount, codes, mount_of,
};

impl Walk<'_> {
    pub(super) fn run(&mut self, stage: &mut Stage, run: &Run, statement: &Statement, index: usize) {
        let mut inputs = Vec::new();
        let mut mounts = Vec::new();
        for written in &run.mounts {
            let (mount, unset) = match written {
                WrittenMount::Plain(mount) => (Some(mount.clone()), false),
                WrittenMount::Options(options) => self.expanded(stage, options, statement),
            };
            mounts.extend(mount.and_then(|m| self.mount(stage, &m, unset, statement, index, &mut inputs)));
        }
        let mut env = stage.process_env();
        if let Some(socket) = name_sockets(&mut mounts)
            && !env.iter().any(|entry| entry.starts_with("SSH_AUTH_SOCK="))
        {
            env.push(format!("SSH_AUTH_SOCK={socket}"));
        }
        let (argv, shown) = self.command(stage, run, &mut mounts);
        let exec = Exec {
            platform: stage.platform.clone(),
            argv,
            stdin: None,
            env,
            unkeyed_env: self.proxies(),
            cwd: clean("/", stage.cwd()),
            user: stage.config.user.clone(),
            mounts,
            network: run.network,
            security: run.security,
            devices: run.devices.clone(),
            settings: ExecSettings { hostname: hostname(&self.request.args), ..ExecSettings::default() },
            timeout_seconds: run.timeout_seconds,
        };
        stage.exec(&mut self.graph, exec, inputs, &shown, &statement.text, statement.origin);
    }

    /// Words to run and words to show. A document alone on the line is a script: for the shell, or for the
    /// interpreter that its first line names.
    fn command(&mut self, stage: &Stage, run: &Run, mounts: &mut Vec<ExecMount>) -> (Vec<String>, String) {
        let line = match (&run.command, run.heredocs.as_slice()) {
            (Command::Exec(words), _) => return (words.clone(), words.join(" ")),
            (Command::Shell(line), []) => line.clone(),
            (Command::Shell(line), [only]) if line.trim() == only.word => {
                if only.document.content.starts_with("#!") {
                    let path = format!("/dev/pipes/{}", only.document.name);
                    let kind = MountKind::Inline { content: only.document.content.clone(), mode: 0o755 };
                    mounts.push(ExecMount { target: Some(path.clone()), access: Access::ReadOnly, kind });
                    let words = stage.words(&Command::Shell(path));
                    let shown = words.join(" ");
                    return (words, shown);
                }
                only.document.content.clone()
            }
            (Command::Shell(line), documents) => {
                let mut text = line.clone();
                for document in documents {
                    text.push('\n');
                    text.push_str(&document.raw);
                    text.push_str(&document.document.name);
                }
                text
            }
        };
        let words = stage.words(&Command::Shell(line));
        let shown = words.join(" ");
        (words, shown)
    }

    /// Options with their variables replaced, read; and whether a variable had no value.
    fn expanded(&mut self, stage: &Stage, options: &[MountOption], statement: &Statement) -> (Option<RunMount>, bool) {
        let mut any_unset = false;
        let mut expanded = options.to_vec();
        for value in expanded.iter_mut().filter_map(|option| option.value.as_mut()) {
            let unset;
            (*value, unset) = self.word(stage, value, statement.origin);
            any_unset |= unset;
        }
        match mount_of(&expanded) {
            Ok(read) => (Some(read.mount), any_unset),
            // Only the base knows what was meant; all of the context may be.
            Err(_) if any_unset && !stage.known => {
                let kind = RunMountKind::Bind { from: From::Context, source: String::new() };
                (Some(RunMount { target: Some("/mnt".into()), access: Access::ReadOnly, kind }), true)
            }
            Err(faults) => {
                for fault in faults {
                    self.error(codes::BAD_MOUNT, fault.message, statement.origin, &fault.label);
                }
                (None, false)
            }
        }
    }

    fn mount(
        &mut self,
        stage: &Stage,
        mount: &RunMount,
        unset: bool,
        statement: &Statement,
        index: usize,
        inputs: &mut Vec<VertexId>,
    ) -> Option<ExecMount> {
        let origin = statement.origin;
        let target = mount.target.as_ref().map(|t| clean(stage.cwd(), t));
        if target.as_deref() == Some("/") && (stage.known || !unset) {
            let message = "a mount cannot cover the whole root `/`";
            let label = match mount.target.as_deref() {
                Some(".") => "expected `target=/path`: without one it is the working directory",
                _ => "expected `target=/path`",
            };
            self.error(codes::BAD_MOUNT, message, origin, label);
            return None;
        }
        let mut files = |walk: &mut Self, from: &From, source: &str| {
            let source = clean("/", source).trim_start_matches('/').to_owned();
            // A mount's source is a path, not a pattern as a copy's.
            let literal = literal(&source);
            if let From::Text(name) = from
                && name.parse::<usize>().is_ok_and(|number| number < walk.recipe.stages.len())
            {
                let message = format!("a mount takes a stage by its name, not by its number {name}");
                walk.error(codes::BAD_MOUNT, message, origin, "give the stage a name: `FROM … AS name`");
                return None;
            }
            let (vertex, context) = walk.tree(from, &stage.platform.clone(), index, origin)?;
            inputs.push(vertex);
            let selection = context.map(|context| match unset && !stage.known {
                true => Walk::whole(&context),
                false => Selection { context, paths: vec![literal.clone()], exclude: Vec::new(), parents: false },
            });
            Some((inputs.len(), source, selection))
        };
        let kind = match mount.kind.clone() {
            RunMountKind::Bind { from, source } => {
                let (input, source, selection) = files(self, &from, &source)?;
                MountKind::Bind { input, source, selection }
            }
            RunMountKind::Cache { id, sharing, from, source, mode, uid, gid } => {
                let mut id = id.or_else(|| target.clone()).unwrap_or_default();
                if let Some(space) = self.request.args.get("BUILDKIT_CACHE_MOUNT_NS").filter(|s| !s.is_empty()) {
                    id = format!("{space}/{id}");
                }
                let (input, source, selection) = match from {
                    Some(from) => {
                        let (input, source, selection) = files(self, &from, &source)?;
                        (Some(input), source, selection)
                    }
                    None => (None, clean("/", &source).trim_start_matches('/').to_owned(), None),
                };
                MountKind::Cache { id, sharing, input, source, selection, mode, uid, gid }
            }
            RunMountKind::Tmpfs { size_bytes } => MountKind::Tmpfs { size_bytes },
            RunMountKind::Secret { id, env, required, mode, uid, gid } => {
                MountKind::Secret { id, env, required, mode, uid, gid }
            }
            RunMountKind::Ssh { id, required, mode, uid, gid } => MountKind::Ssh { id, required, mode, uid, gid },
        };
        Some(ExecMount { target, access: mount.access, kind })
    }
}

/// Agents' sockets that say no target get one by their number. Gives the first one's.
fn name_sockets(mounts: &mut [ExecMount]) -> Option<String> {
    let sockets = mounts.iter_mut().filter(|mount| matches!(mount.kind, MountKind::Ssh { .. }));
    let mut first = None;
    for (number, mount) in sockets.enumerate() {
        let target = mount.target.get_or_insert_with(|| format!("/run/buildkit/ssh_agent.{number}"));
        first.get_or_insert_with(|| target.clone());
    }
    first
}

fn hostname(args: &std::collections::BTreeMap<String, String>) -> Option<String> {
    args.get(super::arguments::HOSTNAME).filter(|name| !name.is_empty()).cloned()
}
