//! The artifact registry: an OCI distribution 1.1 server inside the process, over a directory.
//!
//! [`serve`] answers `docker`, `podman`, `skopeo` and `ctk` over HTTP; [`Storage`] is the directory behind it, for
//! those in the same process who need no HTTP. Several processes may serve and use one directory at once.
//!
//! ```text
//! server.rs    sockets, connections, shutdown
//! api/         a request → a route → an answer; one file a noun (blobs, uploads, manifests, lists)
//! access.rs    who may
//! storage/     the directory: blobs, manifests, tags, uploads; all blocking, all durable
//! ```

mod access;
mod api;
mod error;
mod limits;
mod server;
mod storage;

pub use access::Access;
pub use error::RegistryError;
pub use limits::*;
pub use server::{ServeOptions, Server, serve};
pub use storage::{Storage, Stored};
