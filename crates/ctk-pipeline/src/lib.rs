//! Pipelines: a Cloud Build file becomes a plan of steps, each with what it waits for and what it is carried out by.
//!
//! ```text
//! text ──yaml──▶ nodes ──schema──▶ records ──substitute──▶ records ──decode──▶ Build ──plan──▶ Plan
//!                 every mistake of the file is found on the way, each with its place
//! ```
//! All of that is pure: no file, clock or environment. Substitutions that come from elsewhere (the commit, the
//! command line) are arguments. [`run`] carries a plan out.
//!
//! The images that nearly every such file uses (`gcr.io/cloud-builders/docker`, kaniko, git, curl, gsutil) are read by
//! [`builders`]: their arguments become data, so that no step needs a Docker daemon.

pub mod bash;
pub mod builders;
pub mod cloudbuild;
pub mod codes;
mod glob;
mod graph;
pub mod limits;
pub mod plan;
pub mod project;
pub mod run;
mod text;
mod yaml;

pub use cloudbuild::{Build, Inputs, read};
pub use codes::CODES;
pub use graph::{Format, graph, job_graph};
pub use plan::{Plan, plan};
pub use text::text;
