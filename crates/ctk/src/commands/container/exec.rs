//! `ctk exec`: a further command in a container. This process becomes the small runtime, which does it: so nothing of
//! ours is left that a container could reach, and the command's streams are ours.

use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use clap::Args;
use ctk_monitor::state::Status;

use super::{Desk, image};
use crate::context::Context;
use crate::failure::{Failure, code};

/// Run a command in a running container
#[derive(Args)]
pub struct Exec {
    /// Let it run, and come back at once
    #[arg(short, long)]
    detach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable; a name alone takes our value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file, one NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Run in this folder
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// With all capabilities
    #[arg(long)]
    privileged: bool,
    /// Which container, by name or id; then the command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_names = ["CONTAINER", "COMMAND"])]
    words: Vec<String>,
}

impl Exec {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let refused = |failure: Failure| {
            eprint!("{}", failure.text());
            Failure::Exit(code::RUN_FAILED)
        };
        let error = self.become_runtime(context).map_err(refused)?;
        Err(refused(error))
    }

    fn become_runtime(&self, context: &Context) -> Result<Failure, Failure> {
        let desk = Desk::open(context);
        let (name, command) = self.words.split_first().expect("clap requires two");
        let container = desk.find(name)?;
        let state = desk.settle(&container)?;
        if !matches!(state.status, Status::Running | Status::Stopping) {
            let what = format!("container {name} is {}, so nothing can run in it", state.status.word());
            let hint = match state.status {
                Status::Paused => format!("`ctk unpause {name}`"),
                _ => format!("`ctk start {name}`"),
            };
            return Err(Failure::sentence(what, Some(&hint)));
        }
        let process = self.process(context, &container, command, state.pid)?;
        // In memory, and open in what this process becomes: a full disk is no reason not to look into a container.
        let file = rustix::fs::memfd_create("process", rustix::fs::MemfdFlags::empty())
            .map_err(Failure::during("cannot make a file in memory"))?;
        let mut file = std::fs::File::from(file);
        std::io::Write::write_all(&mut file, &serde_json::to_vec(&process)?)
            .map_err(Failure::during("cannot write a file in memory"))?;
        let config = container.config()?;
        let program = config.runtime.as_ref().unwrap_or(&desk.program);
        let mut command = std::process::Command::new(program);
        if config.runtime.is_none() {
            command.arg0("ctk-runtime");
        }
        command.arg("--root").arg(container.runtime_root()).arg("exec");
        command.arg("--process").arg(format!("/proc/self/fd/{}", file.as_raw_fd()));
        match config.runtime.is_none() {
            true => drop(command.arg("--exit-codes")),
            false if self.tty => drop(command.arg("--tty")),
            false => {}
        }
        if self.detach {
            command.arg("--detach");
        }
        if !self.interactive && !self.tty {
            command.stdin(std::process::Stdio::null());
        }
        command.arg(container.id());
        let error = command.exec();
        Ok(Failure::during(format!("cannot run {}", program.display()))(error))
    }

    /// The process: the container's own, with what was given.
    fn process(
        &self,
        context: &Context,
        container: &ctk_monitor::Container,
        command: &[String],
        pid: i32,
    ) -> Result<serde_json::Value, Failure> {
        use serde_json::{Value, json};
        let path = container.bundle().join("config.json");
        let text = std::fs::read(&path).map_err(Failure::during(format!("cannot read {}", path.display())))?;
        let config: Value = serde_json::from_slice(&text)?;
        let mut process = config.get("process").cloned().unwrap_or_default();
        let Some(object) = process.as_object_mut() else { return Ok(process) };
        object.insert("args".into(), json!(command));
        object.insert("terminal".into(), json!(self.tty));
        if let Some(workdir) = &self.workdir {
            object.insert("cwd".into(), json!(workdir));
        }
        let mut env: Vec<String> =
            object.get("env").and_then(|env| serde_json::from_value(env.clone()).ok()).unwrap_or_default();
        if let Some(user) = &self.user {
            let root = ctk_runtime::Root::of_process(pid);
            let read = |path: &str| root.as_ref()?.read_file(path, ctk_container::limits::ACCOUNT_FILE_BYTES);
            let account = ctk_container::account_of(user, &read)?;
            let user = json!({ "uid": account.uid, "gid": account.gid, "additionalGids": account.groups });
            object.insert("user".into(), user);
            env.retain(|entry| !entry.starts_with("HOME="));
            env.push(format!("HOME={}", account.home));
            if account.uid != 0 && !self.privileged {
                for set in ["effective", "permitted", "ambient", "inheritable"] {
                    if let Some(set) = object.get_mut("capabilities").and_then(|all| all.get_mut(set)) {
                        *set = json!([]);
                    }
                }
            } else if let Some(all) = object.get_mut("capabilities").and_then(Value::as_object_mut) {
                let bounding = all.get("bounding").cloned().unwrap_or_default();
                all.insert("effective".into(), bounding.clone());
                all.insert("permitted".into(), bounding);
            }
        }
        if self.privileged {
            let names: Vec<String> = ctk_container::all_capabilities();
            let sets = json!({ "bounding": names, "effective": names, "permitted": names });
            object.insert("capabilities".into(), sets);
            object.insert("noNewPrivileges".into(), json!(false));
        }
        if self.tty && !env.iter().any(|entry| entry.starts_with("TERM=")) {
            env.push("TERM=xterm".into());
        }
        for entry in image::environment(context, &self.env, &self.env_file)? {
            let name = entry.split('=').next().unwrap_or_default().to_owned();
            env.retain(|old| old.split('=').next() != Some(&name));
            env.push(entry);
        }
        object.insert("env".into(), json!(env));
        Ok(process)
    }
}
