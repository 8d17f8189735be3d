//! The content store: blobs, refs, records, leases, collection. Plain files and `flock`, no database, no daemon.
//!
//! Several processes may use one store at once. What a process found or made through a [`Store`] stays until the
//! last clone of that handle is dropped: the handle is a lease. What should outlive it needs a ref
//! ([`Store::set_reference`]) or a record that says so ([`Links::root`]); [`Store::gc`] takes the rest.
//!
//! ```text
//! format                       the layout's version
//! ids                          an ordinary user's: which id of a file stands for which
//! blobs/<algorithm>/<2 hex>/<hex>
//! partial/<algorithm>-<hex>    downloads that can be resumed; locked by who writes
//! refs/<name>                  JSON: descriptor and annotations
//! records/<namespace>/<key>    JSON: caches and results
//! leases/<id>                  what a process needs, a line each; locked while it lives
//! layers/<key>/                unpacked layers (ctk-snapshot)
//! locks/<name>                 named locks
//! packages/, cache/, git/      package files, cache mounts and mirrors of repositories (ctk-packages, ctk-build);
//!                              `caches.lock` is shared by who uses them
//! tmp/<id>/                    scratch of a process; `tmp/<id>.lock` is locked while it lives
//! ```

mod archive;
mod aside;
mod blobs;
mod caches;
pub mod conformance;
mod disk;
mod error;
mod export;
mod fetch;
mod fsutil;
mod gc;
mod given;
mod layout;
mod lease;
pub mod limits;
mod memory;
mod owners;
mod partial;
mod records;
mod refs;
mod store;
mod syncer;

pub use archive::{Imported, import_archive, import_from_layout, import_layout};
pub use aside::Aside;
pub use blobs::{BlobReader, BlobWriter, Blobs, Sink};
pub use caches::CacheUse;
pub use disk::Ingest;
pub use error::StoreError;
pub use export::{Export, Name, export_docker_archive, export_layout, export_layout_archive};
pub use fetch::{Depth, Fetch, FetchError};
pub use gc::{GcOptions, GcReport, Usage};
pub use given::{open_given, read_given, read_given_text};
pub use layout::Layout;
pub use lease::{Lock, Scratch};
pub use memory::MemoryBlobs;
pub use partial::{Partial, Resume};
pub use records::Links;
pub use refs::Ref;
pub use store::{Store, layer_name};
