//! What can go wrong with volumes.

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
    /// The description of a volume is not as we write it.
    #[error("`{path}` cannot be understood")]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A name is not usable.
    #[error("`{name}` cannot be a volume's name: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// Somebody else has the name.
    #[error("there is a volume `{name}` already")]
    Taken {
        /// The name.
        name: String,
    },
    /// There is no such volume.
    #[error("there is no volume `{name}`{}", near.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    Missing {
        /// What was asked for.
        name: String,
        /// One that is called almost so.
        near: Option<String>,
    },
    /// Several names begin so.
    #[error("`{name}` is the beginning of several volumes' names: {names}")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Which are meant, maybe.
        names: String,
    },
    /// Containers use it.
    #[error("volume {name} is used by {users}")]
    InUse {
        /// Which.
        name: String,
        /// By whom.
        users: String,
    },
    /// Somebody else works with it for longer than we wait.
    #[error("somebody else works with volume {name}")]
    Busy {
        /// Which.
        name: String,
    },
    /// An option of a volume is none, or says what cannot be.
    #[error("option `{option}`: {reason}")]
    Option {
        /// As it was given.
        option: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}

impl Error {
    /// For `map_err`: what was tried on which file.
    pub(crate) fn file<E: Into<io::Error>>(attempt: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::File { attempt, path, source: source.into() }
    }
}
