//! The OCI runtime: launch plans, namespaces, cgroups, seccomp.
//!
//! A [`Launch`] says what a container is to be. [`start`] opens everything that can be opened beforehand (the root, bind
//! mounts, `/dev`, cgroups), writes the rest down as steps, and makes the container's first process by one `clone3` that
//! walks them. The container dies with our process; what a killed process leaves in the state directory and the cgroup
//! hierarchies, [`cleanup_stale`] removes.

mod capability;
mod cgroup;
mod error;
mod launch;
mod launcher;
pub mod limits;
mod mounts;
mod overlay;
mod prepared;
pub mod rootless;
mod running;
mod seccomp;
mod signal;
mod state;

pub use capability::Capabilities;
pub use cgroup::Hierarchy;
pub use ctk_sys::{Filter, set_controlling_namespace, unshare};
pub use error::Error;
pub use launch::{Launch, Limits, NetworkNamespace, Process, ProcessStdio, Rlimit};
pub use mounts::Root;
pub use rootless::{in_user_namespace, is_ordinary};
pub use running::{Exit, Joined, Reservation, Running, Waited, give_pipes, null_file, reserve, start};
pub use seccomp::{default_profile, default_profile_document, program};
pub use signal::{signal_name, signal_number};
pub use state::cleanup_stale;
