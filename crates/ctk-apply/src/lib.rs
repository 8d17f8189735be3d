//! The conductor: a project file opened, planned and applied. What the binary does is this, with a terminal around it.
//!
//! ```no_run
//! use std::sync::Arc;
//! use ctk_apply::{Options, Request, Session};
//! use ctk_plan::{Cancel, Silent};
//!
//! # fn main() -> Result<(), ctk_apply::ApplyError> {
//! let options = Options::from_environment(std::env::vars(), true);
//! let session = Session::open("containers.kdl".as_ref(), options)?;
//! let request = Request::default();
//! println!("{}", session.plan(&request)?);
//! let applied = session.apply(&request, Arc::new(Silent), &Cancel::new())?;
//! assert!(!session.plan(&request)?.has_changes());
//! # drop(applied); Ok(()) }
//! ```
//!
//! Everything is read first and decided as values; only [`Session::apply`] and [`Session::update`] change anything.

pub mod adhoc;
mod apply;
mod besides;
pub mod codes;
mod error;
mod files;
mod git;
mod ground;
mod lock;
mod observe;
mod options;
mod records;
mod registries;
mod secrets;
mod services;
mod session;
mod update;

pub use apply::Applied;
pub use besides::Besides;
pub use codes::CODES;
pub use ctk_build::{Advice, Advised, Cause, Debugger, Explained, Explanations, FileChange, Shell, StepOutlook};
pub use error::{ApplyError, UnitFailure, explain};
pub use lock::LOCK_FILE;
pub use observe::Request;
pub use options::Options;
pub use registries::RegistryDecl;
pub use session::{Session, local_name};
pub use update::LockChange;
