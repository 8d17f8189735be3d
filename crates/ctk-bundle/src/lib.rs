//! The OCI runtime specification: `config.json` becomes a launch plan, a plan a container, as podman, docker and
//! containerd drive a runtime.
//!
//! [`spec`] reads the text, [`plan`] decides (values in, values out: a plan is a list of tasks that prints as text), and
//! [`container`] obeys: it opens what tasks need, makes the process by one `clone3`, and lets it walk the steps. A
//! container lives without its maker: what is known of it stands in a directory of the state root ([`state`]).

pub mod action;
pub mod attend;
pub mod bus;
pub mod cgroup;
pub mod checkpoint;
pub mod container;
pub mod criu;
mod devices;
pub mod equipment;
mod error;
pub mod exec;
pub mod features;
mod hooks;
pub mod landlock;
mod launch;
pub mod limits;
mod open;
pub mod options;
pub mod plan;
pub mod process;
pub mod rdt;
pub mod resources;
pub mod seal;
pub mod seccomp;
pub mod spec;
pub mod state;
pub mod stats;
pub mod systemd;

pub use error::Error;
pub use open::user_namespace;
