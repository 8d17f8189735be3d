//! What can go wrong with containers that are written down.

use std::io;
use std::path::{Path, PathBuf};

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read, written, made or removed.
    #[error("failed to {attempt} `{path}`")]
    File {
        /// What we tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A document of a container is not as we write it.
    #[error("`{path}` cannot be understood")]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A name is not usable.
    #[error("`{name}` cannot be a container's name: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// Somebody else has the name.
    #[error("the name `{name}` is taken by container {id}")]
    Taken {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// There is no such container.
    #[error("there is no container `{name}`")]
    Missing {
        /// What was asked for.
        name: String,
    },
    /// Several ids begin so.
    #[error("`{name}` is the beginning of several containers' ids: {ids}")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Who is meant, maybe.
        ids: String,
    },
    /// The container is not in a state in which that can be done.
    #[error("cannot {attempt} container {name}: it is {status}")]
    Status {
        /// What was wanted.
        attempt: &'static str,
        /// Which.
        name: String,
        /// What it is.
        status: &'static str,
    },
    /// The monitor could not be started.
    #[error("failed to start the monitor `{program}`")]
    Monitor {
        /// The program.
        program: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The monitor went away, or said what nobody can understand.
    #[error("the monitor of container {name} {what}")]
    Conversation {
        /// Which.
        name: String,
        /// What it did.
        what: &'static str,
    },
    /// The monitor says that it did not work.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
        /// As a shell tells it: 127 for a program that is not there, 126 for one that cannot be executed, else 125.
        code: u8,
    },
    /// Waiting took too long.
    #[error("container {name} did not {what} within {seconds} s")]
    Late {
        /// Which.
        name: String,
        /// What it should have done.
        what: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// The runtime says no.
    #[error(transparent)]
    Bundle(#[from] ctk_bundle::Error),
    /// Something is wrong with a volume.
    #[error(transparent)]
    Volume(#[from] ctk_volume::Error),
    /// The root file system could not be mounted.
    #[error(transparent)]
    Root(#[from] ctk_runtime::Error),
}

impl Error {
    /// For `map_err`: what was tried on which file.
    pub(crate) fn file<E: Into<io::Error>>(attempt: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::File { attempt, path, source: source.into() }
    }

    /// The error and its causes in one line.
    pub fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(next) = cause {
            line.push_str(&format!(": {next}"));
            cause = next.source();
        }
        line
    }
}
