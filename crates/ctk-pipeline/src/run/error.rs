//! Why a run could not be made. A step that fails is none of these: it is how the run ended.

use std::io;
use std::path::PathBuf;

/// Why a run could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The run's own files.
    #[error("failed to {action} `{}`", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no such run.
    #[error("there is no run `{id}`")]
    NoRun {
        /// As it was given.
        id: String,
    },
    /// Several runs begin so.
    #[error("several runs begin with `{id}`: {}", found.join(", "))]
    ManyRuns {
        /// As it was given.
        id: String,
        /// Which.
        found: Vec<String>,
    },
    /// Another process runs it.
    #[error("run `{id}` is running")]
    Running {
        /// Which.
        id: String,
    },
    /// A record that no version of us wrote.
    #[error("the record of run `{id}` cannot be read: {why}")]
    Record {
        /// Which.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// The workspace is gone or was never there.
    #[error("run `{id}` has no workspace any more")]
    NoWorkspace {
        /// Which.
        id: String,
    },
    /// A secret has no value here.
    #[error("secret `{env}` has no value here: it is `{name}` in the cloud")]
    NoSecret {
        /// The variable.
        env: String,
        /// Its name in the cloud.
        name: String,
    },
    /// A secret's value could not be had.
    #[error("cannot get secret `{env}` from {from}: {why}")]
    Secret {
        /// The variable.
        env: String,
        /// Where it should be.
        from: String,
        /// Why it cannot be had.
        why: String,
    },
    /// The places that steps know could not be made.
    #[error("failed to set up /workspace and /builder for the steps ({action})")]
    Places {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Something that we need would be hidden by the places that steps know.
    #[error("`{}` is below `{place}`, which steps see something else at", path.display())]
    Hidden {
        /// What would be hidden.
        path: PathBuf,
        /// By what.
        place: String,
    },
    /// What a build depends on could not be fetched.
    #[error("failed to fetch {what}: {why}")]
    Dependency {
        /// What.
        what: String,
        /// Why it failed.
        why: String,
    },
    /// Steps wait for each other.
    #[error("steps wait for each other: {0}")]
    Cycle(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] ctk_store::StoreError),
    /// Containers of killed runs could not be cleaned up.
    #[error("failed to clean up after killed runs")]
    Cleanup(#[source] ctk_container::Error),
}

/// Says what was tried when an input or output error is passed up.
pub(crate) fn on(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> RunError {
    let path = path.into();
    move |source| RunError::File { action, path, source }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
