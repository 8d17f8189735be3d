//! `RUN`.

use super::Walk;
use crate::stage::{Stage, clean};
use crate::{Access, Command, Exec, ExecMount, MountKind, Run, RunMount, RunMountKind, Selection, Statement, VertexId};

impl Walk<'_> {
    pub(super) fn run(&mut self, stage: &mut Stage, run: &Run, statement: &Statement, index: usize) {
        let mut inputs = Vec::new();
        let mut mounts = Vec::new();
        for mount in &run.mounts {
            mounts.extend(self.mount(stage, mount, statement, index, &mut inputs));
        }
        let (argv, shown) = self.command(stage, run, &mut mounts);
        let exec = Exec {
            platform: stage.platform.clone(),
            argv,
            stdin: None,
            env: stage.process_env(),
            unkeyed_env: self.proxies(),
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
