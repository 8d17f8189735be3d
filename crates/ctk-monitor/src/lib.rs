//! Containers that outlive their maker: each has a directory and a monitor, a small process that keeps its streams, its
//! log, its end, its restarts and its health. No daemon, no database, no lock for all.
//!
//! [`Containers`] finds and makes directories; [`monitor`] is what the monitor does, in a process that [`start`] makes;
//! [`Client`] talks to it. Everything else (what is in `config.json`, networks, volumes) is decided by who makes the
//! container.

use serde::Deserialize;

mod client;
pub mod config;
mod containers;
mod error;
pub mod events;
mod foreign;
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
pub use settle::{look, settle};

/// Has all processes of a container stand still, or go on.
pub fn freeze(container: &Container, frozen: bool) -> Result<(), Error> {
    if let Some(runtime) = container.config()?.runtime {
        let mut command = foreign::command(&runtime, container, &[if frozen { "pause" } else { "resume" }]);
        command.arg(container.id());
        return foreign::run(command, &runtime, container).map(drop);
    }
    Ok(ctk_bundle::container::freeze(&container.runtime_root(), container.id(), frozen)?)
}

/// What a running container uses, as `runc events` tells it; none if it does not run.
pub fn usage(container: &Container) -> Option<serde_json::Value> {
    let records = ctk_bundle::state::list(&container.runtime_root()).ok()?;
    match records.first() {
        Some(record) => Some(ctk_bundle::stats::stats(&record.cgroups)),
        None => foreign::cgroups(container).ok().map(|cgroups| ctk_bundle::stats::stats(&cgroups)),
    }
}

/// Changes the limits of a running container: `resources` as `linux.resources` of the specification.
pub fn set_resources(container: &Container, resources: &serde_json::Value) -> Result<(), Error> {
    let resources = ctk_bundle::spec::Resources::deserialize(resources)
        .map_err(|source| Error::Document { path: container.bundle().join("config.json"), source })?;
    let cgroups = match container.config()?.runtime {
        Some(_) => foreign::cgroups(container)?,
        None => container.kept()?.record.cgroups.clone(),
    };
    Ok(cgroups.apply(&resources)?)
}
