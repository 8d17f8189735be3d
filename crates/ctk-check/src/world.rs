//! What an assertion may look at: the image's files and config, programs run in it, containers on the test's network.

use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ctk_container::{Container, Error, ExitStatus, Network, RunOptions, Stdin, Stdio, Switch};
use ctk_plan::Cancel;

use crate::error::CheckError;
use crate::image::Image;
use crate::limits;
use crate::output::{TailBuffer, drain};
use crate::tree::Tree;

/// Everything that an assertion may ask.
pub struct World<'a> {
    pub(crate) image: &'a Image,
    pub(crate) tree: &'a Tree,
    pub(crate) switch: Option<&'a Switch>,
    pub(crate) running: &'a [Running],
    pub(crate) state_dir: &'a Path,
    pub(crate) cancel: &'a Cancel,
    pub(crate) commands: AtomicU32,
}

/// A container that serves.
pub(crate) struct Running {
    pub name: String,
    pub container: Container,
    pub tail: TailBuffer,
}

/// A program to run in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// The whole command line.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub user: Option<String>,
    pub workdir: Option<String>,
    pub stdin: Option<String>,
    pub timeout: Duration,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl World<'_> {
    /// The tested image.
    pub(crate) fn image(&self) -> &Image {
        self.image
    }

    /// Its files.
    pub(crate) fn tree(&self) -> &Tree {
        self.tree
    }

    /// What stops the test.
    pub(crate) fn cancel(&self) -> &Cancel {
        self.cancel
    }

    /// Bytes of the files of all layers, unpacked.
    pub(crate) fn unpacked_bytes(&self) -> Result<u64, CheckError> {
        self.image.unpacked_bytes()
    }

    /// Runs a program in a fresh container over the unchanged image, on the test's network if there is one. The inner
    /// error says why it did not start.
    pub(crate) fn run(&self, command: &Command) -> Result<Result<Ended, String>, CheckError> {
        let io = |source| CheckError::Io { action: "make a pipe for a container", source };
        let root = self.image.fresh_root()?;
        let (out_reader, out) = std::io::pipe().map_err(io)?;
        let (err_reader, err) = std::io::pipe().map_err(io)?;
        let mut options = RunOptions::new(root.mount(), &self.image.config.config, self.state_dir);
        options.entrypoint = Some(command.args.clone());
        options.env = command.env.clone();
        options.user = command.user.clone();
        options.workdir = command.workdir.clone();
        options.timeout = Some(command.timeout);
        options.stdio = Stdio::Files { out: out.into(), err: err.into() };
        if let Some(text) = &command.stdin {
            options.stdin = Stdin::Bytes(text.clone().into_bytes());
        }
        if let Some(switch) = self.switch {
            let number = self.commands.fetch_add(1, Ordering::Relaxed) + 1;
            options.network = Network::Private { switch, names: vec![format!("command-{number}")] };
        }
        let container = match ctk_container::run(options) {
            Ok(container) => container,
            Err(error) if blames_the_image(&error) => return Ok(Err(crate::chain(&error))),
            Err(source) => return Err(CheckError::Start { what: "a command".into(), source }),
        };
        std::thread::scope(|scope| {
            let out = scope.spawn(|| drain(out_reader));
            let err = scope.spawn(|| drain(err_reader));
            let status = container.wait(self.cancel);
            // Whoever still holds the pipes goes with the container.
            drop(container);
            let stdout = out.join().unwrap_or_default();
            let stderr = err.join().unwrap_or_default();
            let what = || format!("command `{}`", command.args.join(" "));
            match status.map_err(|source| CheckError::Control { what: what(), source })? {
                ExitStatus::Cancelled => Err(CheckError::Cancelled),
                status => Ok(Ok(Ended { status, stdout, stderr })),
            }
        })
    }

    /// Opens a connection to a container of the test; the inner error says why there is none.
    pub(crate) fn connect(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
    ) -> Result<Result<TcpStream, String>, CheckError> {
        if self.cancel.is_cancelled() {
            return Err(CheckError::Cancelled);
        }
        let Some(switch) = self.switch else { return Ok(Err("the test has no network".into())) };
        Ok(switch.connect(host, port, timeout.max(limits::RETRY_PAUSE)).map_err(|error| crate::chain(&error)))
    }

    /// How the container of that name ended, if it has.
    pub(crate) fn ended(&self, host: &str) -> Result<Option<String>, CheckError> {
        match self.running.iter().find(|running| running.name == host) {
            Some(running) => Ok(running.ended()?.map(|status| status.to_string())),
            None => Ok(None),
        }
    }

    /// Waits, unless somebody says stop.
    pub(crate) fn pause(&self, duration: Duration) -> Result<(), CheckError> {
        pause(duration, self.cancel)
    }
}

impl Running {
    /// How it ended, if it has.
    pub fn ended(&self) -> Result<Option<ExitStatus>, CheckError> {
        let what = || format!("`{}`", self.name);
        self.container.try_wait().map_err(|source| CheckError::Control { what: what(), source })
    }
}

/// Whether a container did not start because of what it is, not because of this machine.
pub(crate) fn blames_the_image(error: &Error) -> bool {
    match error {
        Error::Runtime(ctk_runtime::Error::Execute { .. } | ctk_runtime::Error::InvalidLaunch(_)) => true,
        Error::Runtime(_) => false,
        Error::NoCommand | Error::InvalidEnv { .. } | Error::UnknownUser { .. } | Error::RelativeWorkdir { .. } => true,
        _ => false,
    }
}

/// Waits, unless somebody says stop.
pub(crate) fn pause(duration: Duration, cancel: &Cancel) -> Result<(), CheckError> {
    let until = Instant::now() + duration;
    loop {
        if cancel.is_cancelled() {
            return Err(CheckError::Cancelled);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(limits::CANCEL_POLL));
    }
}
