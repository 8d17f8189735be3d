//! Containers that outlive their maker: each has a directory and a monitor, a small process that keeps its streams, its
//! log, its end, its restarts and its health. No daemon, no database, no lock for all.
//!
//! [`Containers`] finds and makes directories; [`monitor`] is what the monitor does, in a process that [`start`] makes;
//! [`Client`] talks to it. Everything else (what is in `config.json`, networks, volumes) is decided by who makes the
//! container.

mod client;
pub mod config;
mod containers;
mod error;
pub mod limits;
pub mod log;
mod monitor;
pub mod protocol;
mod settle;
pub mod state;
pub mod time;
mod volumes;

pub use client::{Attached, Client, Ending, start, window};
pub use config::Config;
pub use containers::{Container, Containers, Locked, check_name};
pub use ctk_bundle::attend::hold_signals;
pub use error::Error;
pub use monitor::{Networking, monitor};
pub use settle::settle;

/// Has all processes of a container stand still, or go on.
pub fn freeze(container: &Container, frozen: bool) -> Result<(), Error> {
    Ok(ctk_bundle::container::freeze(&container.runtime_root(), container.id(), frozen)?)
}
