//! The artifact registry: an OCI distribution server inside the process, over a directory.
//!
//! [`serve`] answers `docker`, `podman`, `skopeo` and `ctk` over HTTP; [`Storage`] is what it serves, for those in the
//! same process who need no HTTP. Several processes may serve and use one directory at once.
//!
//! ```text
//! server.rs    sockets, connections, shutdown; tls.rs certificates; audit.rs who changed what
//! api/         a request → a route → an answer; one file a noun (blobs, uploads, manifests, lists)
//! gate/        who asks, and what they may
//! storage/     uploads, manifests, import, collection, check: metadata and blobs put together
//! meta/        trait Meta: who holds what, which tag names what; in a file, or in PostgreSQL
//! blobs/       trait Blobs: places and bytes
//! ```

mod api;
mod audit;
pub mod blobs;
mod error;
mod gate;
mod glob;
mod limits;
pub mod meta;
mod metrics;
mod server;
mod storage;
mod tls;

pub use error::RegistryError;
pub use gate::{
    Access, Action, Gate, Grant, Identity, Rights, Role, SigningKey, TokenOptions, Who, add_password, new_key,
    retire_key, signing_keys,
};
pub use glob::{GLOB_LIMIT_BYTES, Glob, GlobError};
pub use limits::*;
pub use meta::{Database, Name, Retention, Stored};
pub use metrics::{Log, RequestLog};
pub use server::{InRepositories, ServeOptions, Server, serve};
pub use storage::{Checked, Collected, Fault, Imported, Storage, check_manifest};
pub use tls::TlsFiles;
