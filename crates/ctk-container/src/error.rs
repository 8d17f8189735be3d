//! What can go wrong around a container.

use std::io;
use std::path::PathBuf;

/// Why a container did not start, or could not be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime refused or failed; its message says at which step.
    #[error(transparent)]
    Runtime(#[from] ctk_runtime::Error),
    /// There is no command: neither in the image's config nor given.
    #[error("the image has no command to run, and none was given")]
    NoCommand,
    /// An environment entry is not `NAME=value`.
    #[error("invalid environment entry `{entry}`; expected NAME=value")]
    InvalidEnv {
        /// The entry.
        entry: String,
    },
    /// The user or group cannot be found in the image, or is no number.
    #[error("no {what} `{name}` in the image's {file}{near}")]
    UnknownUser {
        /// `user` or `group`.
        what: &'static str,
        /// As it was given.
        name: String,
        /// Where we looked.
        file: &'static str,
        /// `; did you mean …?`, if something like it is there.
        near: String,
    },
    /// A number that no user or group can have.
    #[error("{name} is no number of a {what}: the largest is 4294967294")]
    UserTooLarge {
        /// `user` or `group`.
        what: &'static str,
        /// As it was given.
        name: String,
    },
    /// A capability has no such name.
    #[error("no capability `{name}`")]
    UnknownCapability {
        /// As it was given.
        name: String,
    },
    /// The working directory is not absolute.
    #[error("the working directory `{path}` is not an absolute path")]
    RelativeWorkdir {
        /// As it was given.
        path: String,
    },
    /// One of the container's own files could not be written.
    #[error("failed to write the container's `{path}`")]
    WriteFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Pipes or threads for input and output could not be made.
    #[error("failed to set up the container's input and output")]
    SetUpStreams(#[source] io::Error),
    /// A terminal was asked for where there is none.
    #[error("the container has no terminal")]
    NoTerminal,
    /// The terminal could not be relayed.
    #[error("failed to relay the terminal")]
    RelayTerminal(#[source] io::Error),
    /// The private network could not be set up.
    #[error("failed to set up the private network ({what})")]
    SetUpNetwork {
        /// Which part.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The private network is full.
    #[error("the private network has no address left (limit: {limit} members)")]
    NetworkFull {
        /// The limit.
        limit: usize,
    },
    /// A name is taken on the private network.
    #[error("the name `{name}` is already taken on the private network")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// Nobody on the private network has this name.
    #[error("no member `{name}` on the private network")]
    UnknownMember {
        /// The name.
        name: String,
    },
    /// A connection into the private network failed.
    #[error("failed to connect to {host}:{port} on the private network")]
    Connect {
        /// Where to.
        host: String,
        /// Where to.
        port: u16,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// Whether everything was ready but the program, or what it is loaded by, is not there.
    pub fn is_missing_program(&self) -> bool {
        matches!(self, Error::Runtime(ctk_runtime::Error::Execute { source, .. }) if source.kind() == io::ErrorKind::NotFound)
    }
}
