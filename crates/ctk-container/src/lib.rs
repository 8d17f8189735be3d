//! Image and overrides in, running process out.

pub mod limits;
mod options;

use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use ctk_plan::Cancel;

pub use ctk_runtime::{Limits, Rlimit};
pub use options::{
    ExecOptions, ExitStatus, LineSink, Network, RunOptions, Security, Stdin, Stdio,
};

/// Why a container did not start, or could not be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Draft of the API: nothing behind it yet.
    #[error("failed to start: the runtime is not linked in")]
    Absent,
}

/// A running container. Dropping it kills it and removes what it left.
pub struct Container {
    _private: (),
}

impl Container {
    /// Its id, also its default host name.
    pub fn id(&self) -> &str {
        ""
    }

    /// The process id of its first process, as we see it.
    pub fn pid(&self) -> i32 {
        0
    }

    /// Its address on the private network.
    pub fn ip(&self) -> Option<Ipv4Addr> {
        None
    }

    /// Our end of its terminal, with [`Stdio::Terminal`].
    pub fn terminal(&self) -> Option<&OwnedFd> {
        None
    }

    /// Waits for its end; cancelled or out of time, kills it. All output lines were passed on when this returns.
    /// Safe to repeat, from any thread.
    pub fn wait(&self, _cancel: &Cancel) -> Result<ExitStatus, Error> {
        Err(Error::Absent)
    }

    /// How it ended, if it has.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>, Error> {
        Err(Error::Absent)
    }

    /// Sends a signal to its first process. No error if it has ended.
    pub fn signal(&self, _signal: i32) -> Result<(), Error> {
        Err(Error::Absent)
    }

    /// Asks it to stop by the image's stop signal, and kills it after `grace`.
    pub fn stop(&self, _grace: Duration) -> Result<ExitStatus, Error> {
        Err(Error::Absent)
    }

    /// Runs a command inside and waits for its end.
    pub fn exec(&self, _options: ExecOptions, _cancel: &Cancel) -> Result<ExitStatus, Error> {
        Err(Error::Absent)
    }
}

/// Starts a container: returns once its program was executed, or says which step failed.
pub fn run(_options: RunOptions<'_>) -> Result<Container, Error> {
    Err(Error::Absent)
}

/// Kills and removes what containers of killed `ctk` processes left behind. Gives back how many there were.
pub fn cleanup_stale(_state_dir: &Path) -> Result<usize, Error> {
    Ok(0)
}

/// Connects our terminal with the container's until it ends: raw mode, window size, input and output.
pub fn relay_terminal(_container: &Container, _cancel: &Cancel) -> Result<ExitStatus, Error> {
    Err(Error::Absent)
}

/// A private network: a bridge in a network namespace of its own, on which containers find each other by name. The
/// host's network is not touched. Dropping it removes it.
pub struct Switch {
    _private: (),
}

impl Switch {
    /// A new, empty network.
    pub fn new() -> Result<Switch, Error> {
        Err(Error::Absent)
    }

    /// The address behind a name.
    pub fn address(&self, _name: &str) -> Option<Ipv4Addr> {
        None
    }

    /// Opens a connection from inside the network to a member, by name or address.
    pub fn connect(&self, _host: &str, _port: u16, _timeout: Duration) -> Result<TcpStream, Error> {
        Err(Error::Absent)
    }
}
