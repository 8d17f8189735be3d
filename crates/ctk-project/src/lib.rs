//! `containers.kdl`: text in, resources out.
//!
//! [`parse`] gives a [`Project`] and every mistake of every file at once. Names, variables, templates, matrices and
//! needs are resolved here; what stands inside a resource is decoded by the stage crate that owns it, from
//! [`Resource::node`], with [`Project::resolve_from`] and [`stages`] so that both sides agree on names.
//!
//! Nothing here touches a file, a clock or the environment: [`Files`] and [`Inputs`] bring them.

mod caches;
pub mod codes;
mod declare;
mod evaluate;
mod files;
mod format;
mod graph;
mod infer;
pub mod limits;
mod load;
mod lock;
mod model;
mod scope;
mod select;
mod service;
mod stages;
mod starter;

pub use caches::{CACHE_NODES, CacheNode};
pub use codes::CODES;
pub use files::{Files, Inputs, MemoryFiles, no_git};
pub use format::format;
pub use graph::{Format, graph};
pub use load::parse;
pub use lock::{Change, Lock, LockError, LockKey};
pub use model::{From, Image, Project, Resource};
pub use select::SelectError;
pub use service::{HealthProbe, HealthWords, ServiceWords, service_words};
pub use stages::{IMAGE_SETTINGS, StageKind, StageRef, stages};
pub use starter::{Facts, starter};
