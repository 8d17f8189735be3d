//! Layers as tar changesets (image-spec 1.1, `layer.md`): entries, whiteouts, deterministic tar, compression.
//!
//! Everything works over [`std::io::Read`] and [`std::io::Write`]; files and mounts are `ctk-snapshot`'s.
//!
//! - [`TarReader`] gives [`Entry`]s and then their bytes; [`Change`] says what an entry means in a layer.
//! - [`TarWriter`] writes them back, the same bytes for the same entries on every machine.
//! - [`LayerWriter`] compresses on several threads and gives diffID, digest and sizes in the same pass.
//! - [`divide`] makes several layers of a large one.
//! - [`decode`] undoes any compression, recognised by its first bytes; [`decode_ahead`] does it on other threads.

mod compress;
mod decode;
mod entry;
mod error;
mod frames;
pub mod limits;
mod members;
mod parallel;
mod pax;
mod pieces;
mod read;
mod sparse;
mod split;
mod write;

pub use compress::{Compression, LayerSummary, LayerWriter};
pub use decode::{Encoding, decode, decode_ahead};
pub use entry::{Change, Entry, EntryKind, Time, change_of, clean_path, opaque_name, whiteout_name};
pub use error::LayerError;
pub use read::TarReader;
pub use split::{Division, Split, divide};
pub use write::TarWriter;
