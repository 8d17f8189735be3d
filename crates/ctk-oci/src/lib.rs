//! OCI vocabulary: the nouns that every other crate speaks.
//!
//! Pure values after the OCI image and distribution specifications 1.1: no I/O, no clock.
//! Documents that were received keep their bytes ([`Document`]); maps are ordered, unknown
//! fields survive a round trip, and Docker's config extensions are typed.

mod config;
mod descriptor;
mod digest;
mod document;
mod manifest;
pub mod media_type;
mod mount;
mod platform;
mod reference;

pub use config::{ContainerConfig, Empty, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, DiffId, Digest, DigestError, Digester, chain_ids};
pub use document::{Document, DocumentError};
pub use manifest::{Index, Manifest};
pub use mount::{IdMapping, Mount};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};

/// The last second that a date of an image can be, since 1970: dates in a config have four digits for the year (RFC 3339).
pub const EPOCH_MAX_SECONDS: i64 = 253_402_300_799;

/// What a date may be, where `context` may be one: for messages.
pub const EPOCH_EXPECTED: &str = "expected seconds since 1970, before the year 10000, or `context`";
