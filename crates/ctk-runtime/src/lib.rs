//! The OCI runtime: launch plans, namespaces, cgroups, seccomp.

mod capability;
mod launch;

pub use capability::Capabilities;
pub use ctk_sys::Filter;
pub use launch::{Launch, Limits, NetworkNamespace, Process, ProcessStdio, Rlimit};
