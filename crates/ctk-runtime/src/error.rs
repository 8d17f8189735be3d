//! What can go wrong between a launch and a running container.

use std::io;
use std::path::PathBuf;

/// Why a container did not start, or could not be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The launch itself makes no sense.
    #[error("invalid container: {0}")]
    InvalidLaunch(String),
    /// The root could not be mounted.
    #[error("failed to mount the root file system ({what})")]
    MountRoot {
        /// Which part: a path or an option.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A mount could not be prepared.
    #[error("failed to prepare the mount `{destination}` ({what})")]
    PrepareMount {
        /// Where it should appear.
        destination: String,
        /// Which part: a path or an option.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A limit was asked for that this machine cannot give.
    #[error("failed to limit {what}: {reason}")]
    Limit {
        /// What was to be limited.
        what: &'static str,
        /// Why it cannot be.
        reason: String,
    },
    /// A cgroup could not be made or written.
    #[error("failed to set up the cgroup `{path}`")]
    SetUpCgroup {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The container could not be written down.
    #[error("failed to keep the container's state in `{path}`")]
    KeepState {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A container of this id runs already.
    #[error("a container `{id}` is already running")]
    Busy {
        /// The id.
        id: String,
    },
    /// The process could not be made.
    #[error("failed to start a process in new namespaces")]
    Clone(#[source] io::Error),
    /// A user namespace could not be made, or given ids.
    #[error("failed to make a user namespace")]
    UserNamespace(#[source] io::Error),
    /// The process was made, but could not become the container.
    #[error("failed to {step}")]
    Step {
        /// What it tried.
        step: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Everything was ready, but the program is not there or cannot be executed.
    #[error("failed to {step}")]
    Execute {
        /// What it tried: the program, and where it was looked for.
        step: String,
        /// Why it failed; `NotFound` if there is no such program.
        source: io::Error,
    },
    /// A terminal could not be opened.
    #[error("failed to open a terminal ({what})")]
    OpenTerminal {
        /// Which part.
        what: &'static str,
        /// Why.
        source: io::Error,
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
}
