//! A shell in the state before a step that failed.

use std::os::fd::BorrowedFd;

use ctk_buildgraph::{Exec, ExecSettings, NetworkMode, Op, SecurityMode};
use ctk_container::{Stdio, relay_terminal};
use ctk_oci::{ContainerConfig, Platform};
use ctk_plan::Cancel;

use crate::mounts::Mounts;
use crate::ops::{Work, unpacked};
use crate::solve::{Job, Tree};
use crate::{BuildError, Place};

/// Somebody at a terminal.
pub trait Debugger: Sync {
    /// A step failed, nothing else of this build runs any more. `failure` says what failed, in lines. `shell` opens a
    /// shell before the step on a terminal, as often as it is called, and returns when it ends.
    fn failed(&self, failure: &str, shell: &mut Shell<'_>);
}

/// Opens a shell on the terminal that two open files are: input, output.
pub type Shell<'a> = dyn FnMut(BorrowedFd<'_>, BorrowedFd<'_>) -> Result<(), BuildError> + 'a;

/// The shells that are looked for in an image.
const SHELLS: [&str; 5] = ["/bin/bash", "/bin/sh", "/usr/bin/bash", "/usr/bin/sh", "/bin/busybox"];

/// What failed, with its last lines.
pub(crate) fn told(error: &BuildError) -> String {
    let mut text = String::new();
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        text += &format!("{}{error}\n", if text.is_empty() { "" } else { "  caused by: " });
        next = error.source();
    }
    if let Some(Place { excerpt, .. }) = error.place() {
        text += excerpt;
    }
    if let BuildError::Command { last_lines, .. } = error {
        text += &last_lines.iter().map(|line| format!("  │ {line}\n")).collect::<String>();
    }
    text
}

/// Whether the files have a shell that can be opened.
pub(crate) fn has_shell(job: &Job<'_>, files: &Tree, cancel: &Cancel) -> bool {
    let keys = unpacked(job, files, cancel);
    let tree = keys.ok().and_then(|keys| job.request.world.snapshots.tree(&keys).ok());
    tree.is_some_and(|tree| SHELLS.iter().any(|shell| tree.stat(shell).is_ok_and(|found| found.is_some())))
}

impl Work<'_> {
    /// Opens a shell where the step would have run: its files, mounts, environment, user and network. What it changes
    /// is thrown away. Steps that run no process have the files that they work on, and root.
    pub fn shell(&self, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<(), BuildError> {
        let plain;
        let exec = match &self.vertex.op {
            Op::Exec(exec) => exec,
            _ => {
                plain = self.plain();
                &plain
            }
        };
        let base = self.inputs.first().cloned().unwrap_or_else(Tree::default);
        let shell = self.find_shell(&base, exec)?;
        let workspace = self.workspace()?;
        let mut mounts = Mounts::prepare(self, exec)?;
        let config = ContainerConfig::default();
        let mut options = self.options(exec, &workspace, &mut mounts, &config)?;
        options.args = Some(shell);
        options.env.push("TERM=xterm".into());
        options.timeout = None;
        options.stdio = Stdio::Terminal;
        let failed = |source| self.cannot_start(source);
        let container = ctk_container::run(options).map_err(failed)?;
        relay_terminal(&container, input, output, self.cancel).map_err(failed)?;
        Ok(())
    }

    /// A process that says nothing about where it runs.
    fn plain(&self) -> Exec {
        Exec {
            platform: Platform::host(),
            argv: Vec::new(),
            stdin: None,
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
            unkeyed_env: Vec::new(),
            cwd: "/".into(),
            user: String::new(),
            mounts: Vec::new(),
            network: NetworkMode::Default,
            security: SecurityMode::Sandbox,
            devices: Vec::new(),
            settings: ExecSettings::default(),
            timeout_seconds: None,
        }
    }

    /// The step's own shell, else one that the image has.
    fn find_shell(&self, base: &Tree, exec: &Exec) -> Result<Vec<String>, BuildError> {
        let tree = self.job.request.world.snapshots.tree(&self.unpacked(base)?)?;
        let own = exec.argv.first().filter(|program| program.ends_with("sh") && program.starts_with('/'));
        for shell in own.map(String::as_str).into_iter().chain(SHELLS) {
            if tree.stat(shell)?.is_some() {
                let mut words = vec![shell.to_owned()];
                words.extend(shell.ends_with("busybox").then(|| "sh".to_owned()));
                return Ok(words);
            }
        }
        Err(BuildError::NoShell {
            shell: "/bin/sh".into(),
            reason: "there is none to open before the step; debug a stage on a base that has one",
            place: None,
        })
    }
}
