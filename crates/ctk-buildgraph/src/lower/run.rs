//! `RUN`.

use super::Walk;
use crate::stage::{Stage, clean, json};
use crate::{Access, Command, Exec, ExecMount, MountKind, Run, RunMount, RunMountKind, Selection, Statement, VertexId};

/// Build arguments that every `RUN` sees when they are given, and that no key and no history holds.
pub(crate) const PROXY_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

impl Walk<'_> {
    pub(super) fn run(&mut self, stage: &mut Stage, run: &Run, statement: &Statement, index: usize) {
        let mut inputs = Vec::new();
        let mut mounts = Vec::new();
        for mount in &run.mounts {
            mounts.extend(self.mount(stage, mount, statement, index, &mut inputs));
        }
        let (argv, shown) = self.command(stage, run, &mut mounts);
        let mut env = stage.config.env.clone();
        env.extend(stage.run_args().map(|(name, value)| format!("{name}={value}")));
        if !env.iter().any(|e| e.starts_with("PATH=")) {
            env.push(crate::stage::DEFAULT_PATH.into());
        }
        let undeclared = |name: &&str| stage.lookup(name).is_none();
        let given = |name: &str| self.request.args.get(name).map(|value| format!("{name}={value}"));
        let exec = Exec {
            platform: stage.platform.clone(),
            argv,
            stdin: None,
            env,
            unkeyed_env: PROXY_ARGS.iter().copied().filter(undeclared).filter_map(given).collect(),
            cwd: stage.cwd().to_owned(),
            user: stage.config.user.clone(),
            mounts,
            network: run.network,
            timeout_seconds: run.timeout_seconds,
        };
        stage.exec(&mut self.graph, exec, inputs, &shown, &statement.text, statement.origin);
    }

    /// Words to run and words to show. A document alone on the line is a script: for the shell, or for the
    /// interpreter that its first line names.
    fn command(&mut self, stage: &Stage, run: &Run, mounts: &mut Vec<ExecMount>) -> (Vec<String>, String) {
        let line = match (&run.command, run.heredocs.as_slice()) {
            (Command::Exec(words), _) => return (words.clone(), json(words)),
            (Command::Shell(line), []) => line.clone(),
            (Command::Shell(line), [only]) if line.trim() == only.word => {
                if only.document.content.starts_with("#!") {
                    let path = format!("/dev/pipes/{}", only.document.name);
                    let kind = MountKind::Inline { content: only.document.content.clone(), mode: 0o755 };
                    mounts.push(ExecMount { target: Some(path.clone()), access: Access::ReadOnly, kind });
                    let words = stage.words(&Command::Shell(path));
                    return (words, format!("<<{}", only.document.name));
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
                text.push('\n');
                text
            }
        };
        let words = stage.words(&Command::Shell(line));
        let shown = words.join(" ");
        (words, shown)
    }

    fn mount(
        &mut self,
        stage: &Stage,
        mount: &RunMount,
        statement: &Statement,
        index: usize,
        inputs: &mut Vec<VertexId>,
    ) -> Option<ExecMount> {
        let origin = statement.origin;
        let target = mount.target.as_ref().map(|t| self.text(stage, t, origin)).map(|t| clean(stage.cwd(), &t));
        let kind = match &mount.kind {
            RunMountKind::Bind { from, source } => {
                let (source, unset) = self.expand(source, &|n| stage.lookup(n), stage.known, origin);
                let source = clean("/", &source).trim_start_matches('/').to_owned();
                let (vertex, context) = self.tree(from, &stage.platform.clone(), index, origin)?;
                inputs.push(vertex);
                let selection = context.map(|context| match unset && !stage.known {
                    true => Walk::whole(&context),
                    false => Selection { context, paths: vec![source.clone()], exclude: Vec::new() },
                });
                MountKind::Bind { input: inputs.len(), source, selection }
            }
            RunMountKind::Cache { id, sharing, mode, uid, gid } => {
                let id = match id {
                    Some(id) => self.text(stage, id, origin),
                    None => target.clone().unwrap_or_default(),
                };
                MountKind::Cache { id, sharing: *sharing, mode: *mode, uid: *uid, gid: *gid }
            }
            RunMountKind::Tmpfs { size_bytes } => MountKind::Tmpfs { size_bytes: *size_bytes },
            RunMountKind::Secret { id, env, required, mode, uid, gid } => {
                let id = self.text(stage, id, origin);
                MountKind::Secret { id, env: env.clone(), required: *required, mode: *mode, uid: *uid, gid: *gid }
            }
        };
        Some(ExecMount { target, access: mount.access, kind })
    }
}
