//! Build caches that travel: what a build made, found again by another store through a registry, a folder or a bucket.
//!
//! A cache is an OCI manifest: its config blob is the [`Records`], small JSON that says which operation gave which
//! layers; its layers are the layers. An importer reads the records alone; layers come one by one, when somebody needs
//! them. An image may carry its own records ("inline"): then they are a field of its config.
//!
//! ```text
//! spec.rs      `type=registry,ref=…,mode=max` → Export, Import        pure
//! format.rs    the records                                            pure
//! transfer.rs  records and layers in and out of any place
//! local.rs registry.rs s3.rs                                          one place each
//! ```
//! Nothing here knows what keys mean; `ctk-build` does.

mod error;
mod format;
pub mod limits;
mod local;
mod registry;
mod s3;
mod spec;
mod transfer;

pub use error::CacheError;
pub use format::{INLINE_FIELD, LayerRecord, MountRecord, Piece, Records};
pub use spec::{BadSetting, Export, Import, KINDS, Mode, Mounts, Place, S3, masked};
pub use transfer::{Cache, Env, Sent, Source, export, import};
