//! What can go wrong between `config.json` and a container.

use std::io;
use std::path::PathBuf;

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of `config.json` (or of what `exec --process` and `update --resources` read) makes no sense here.
    #[error("config.json: {}{reason}", if field.is_empty() { String::new() } else { format!("{field}: ") })]
    Config {
        /// The field: `process.args[0]`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file could not be read, written or made.
    #[error("failed to {attempt} `{path}`")]
    File {
        /// What we tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The name is not usable.
    #[error("invalid container id `{id}`: {reason}")]
    Id {
        /// The name.
        id: String,
        /// Why not.
        reason: &'static str,
    },
    /// There is one already.
    #[error("container with given ID already exists: `{id}`")]
    Exists {
        /// The name.
        id: String,
    },
    /// There is none.
    #[error("container `{id}` does not exist")]
    Missing {
        /// The name.
        id: String,
    },
    /// The container is not in a state in which that can be done.
    #[error("cannot {attempt} a container that is {status}")]
    Status {
        /// What was wanted.
        attempt: &'static str,
        /// What it is.
        status: &'static str,
    },
    /// A cgroup could not be made, written or removed.
    #[error("failed to set up cgroup `{path}`{}", if field.is_empty() { String::new() } else { format!(" ({field})") })]
    Cgroup {
        /// The directory or file.
        path: PathBuf,
        /// The field that wants it; may be empty.
        field: String,
        /// Why it failed.
        source: io::Error,
    },
    /// This machine or this runtime does not have it.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// What.
        what: String,
        /// Why, and what helps.
        reason: String,
    },
    /// The process could not be made.
    #[error("failed to start a process in new namespaces")]
    Clone(#[source] io::Error),
    /// The process was made, but one of its steps failed.
    #[error("failed to {step}{}", if field.is_empty() { String::new() } else { format!(" ({field})") })]
    Step {
        /// What it tried.
        step: String,
        /// The field of `config.json` that asks for it; may be empty.
        field: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The program of a hook ended badly.
    #[error("hook `{path}` ({field}) {how}")]
    Hook {
        /// The program.
        path: String,
        /// Where it stands.
        field: String,
        /// What it did.
        how: String,
    },
    /// A process could not be waited for or signalled.
    #[error("failed to {attempt} process {pid}")]
    Control {
        /// What we tried.
        attempt: &'static str,
        /// The process.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// Systemd does not do what it was asked.
    #[error("failed to {attempt}: {reason}")]
    Systemd {
        /// What we tried.
        attempt: String,
        /// What it said, or why it could not be asked.
        reason: String,
    },
    /// CRIU failed.
    #[error("failed to {attempt} the container: {reason} (see `{}`)", log.display())]
    Criu {
        /// What we tried.
        attempt: &'static str,
        /// What it said.
        reason: String,
        /// Its log.
        log: PathBuf,
    },
    /// The end came before the beginning.
    #[error("the container ended before it was started")]
    Ended,
}

impl Error {
    /// About a field of `config.json`.
    pub fn config(field: &str, reason: impl Into<String>) -> Error {
        Error::Config { field: field.into(), reason: reason.into() }
    }

    /// About a file.
    pub fn file(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { attempt, path, source }
    }

    /// The whole story in one line, causes behind colons.
    pub fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }
}
