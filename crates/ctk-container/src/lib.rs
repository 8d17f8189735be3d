//! Image and overrides in, running process out.
//!
//! [`run`] takes an image's config, a mounted-to-be root and [`RunOptions`], and gives a [`Container`]. [`Switch`] is a
//! private network on which containers find each other by name.

pub mod cdi;
mod container;
mod error;
mod files;
pub mod limits;
mod options;
mod specification;
mod streams;
mod switch;
mod terminal;
mod user;

pub use container::{Container, account as account_of, cleanup_stale, run};
pub use ctk_runtime::{Limits, Rlimit};
pub use error::Error;
pub use files::LOCALHOST;
pub use options::{ExecOptions, ExitStatus, LineSink, Network, RunOptions, Security, Stdin, Stdio};
pub use specification::{Device, INIT, Namespace, Namespaces, Specified, Wanted, all_capabilities, ids, specify};
pub use streams::LineReader;
pub use switch::Switch;
pub use terminal::relay_terminal;
pub use user::User;
