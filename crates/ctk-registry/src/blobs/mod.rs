//! Where the bytes of blobs are. A [`Blobs`] knows places and bytes, nothing of digests and repositories; which place
//! is what is in [`Meta`](crate::meta::Meta). Bytes are written once, where they stay: nothing is copied or renamed.
//!
//! [`conformance`] is the exam of every implementation.

pub mod conformance;
mod files;
mod objects;

use std::fmt;
use std::io;
use std::path::Path;

use bytes::Bytes;
use ctk_distribution::ByteRange;
use ctk_oci::Descriptor;
use futures_util::stream::BoxStream;

use crate::RegistryError;
use crate::meta::Place;
pub use files::Files;
pub(crate) use files::durable_dir;
pub use objects::{Bucket, Objects, Store};

/// Bytes on their way out.
pub type Reading = BoxStream<'static, io::Result<Bytes>>;

/// A home of bytes. Methods block, except the stream that [`Blobs::read`] gives.
pub trait Blobs: Send + Sync + fmt::Debug {
    /// Opens a place for more bytes; `parts` is what [`Writing::save`] gave last, or empty. Nobody else writes there
    /// while what it gives lives: `UploadBusy`.
    fn append(&self, place: &Place, parts: &str) -> Result<Box<dyn Writing>, RegistryError>;
    /// Bytes of a finished place; `None` when it is gone. Bytes that a stream began to give are given to the end, also
    /// when the place is removed meanwhile.
    fn read(&self, place: &Place, range: ByteRange) -> Result<Option<Reading>, RegistryError>;
    /// Bytes in a finished place; `None` when it is gone.
    fn size(&self, place: &Place) -> Result<Option<u64>, RegistryError>;
    /// Removes a place, finished or not. One that is gone is fine.
    fn remove(&self, place: &Place, parts: &str) -> Result<(), RegistryError>;
    /// Makes the file at `path` a finished and durable place, by a link where that can be: then it is a file that
    /// nobody changes any more. A copy is compared with `descriptor`.
    fn adopt(&self, place: &Place, path: &Path, descriptor: &Descriptor) -> Result<(), RegistryError>;
    /// Every place that holds bytes, finished or not, in any order, until `visit` fails. Slow: for checks.
    fn places(&self, visit: &mut dyn FnMut(Place) -> Result<(), RegistryError>) -> Result<(), RegistryError>;
}

/// A place open for more bytes. Dropped, it keeps what it has.
pub trait Writing: Send {
    /// Bytes that are there.
    fn held(&self) -> u64;
    /// Reads the bytes from `from` to the end, piece by piece. `from` is what was held when it was saved last: what
    /// came later may still be there, or not.
    fn unsaved(&mut self, from: u64, each: &mut dyn FnMut(&[u8])) -> Result<(), RegistryError>;
    /// Adds bytes. After an error those that [`Writing::held`] counts are there, and no others.
    fn write(&mut self, pieces: &[Bytes]) -> Result<(), RegistryError>;
    /// What must be remembered so that somebody else can go on.
    fn save(&mut self) -> Result<String, RegistryError>;
    /// Makes the bytes durable and readable. Nothing can be added afterwards.
    fn finish(&mut self) -> Result<(), RegistryError>;
}

#[cfg(test)]
#[path = "../../tests/common/s3.rs"]
mod testing;
