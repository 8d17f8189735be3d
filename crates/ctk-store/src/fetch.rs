//! How images come in without the store knowing registries.

use std::error::Error;

use ctk_oci::{Descriptor, Platform, Reference};
use ctk_plan::{Cancel, Reporter};

use crate::Store;

/// How much of an image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Manifests only.
    Manifest,
    /// Manifests and configs.
    Config,
    /// Everything.
    Layers,
}

/// Brings images into a store.
// At most one error an image: its size costs nothing, and boxes would be in everybody's way.
#[allow(clippy::result_large_err)]
pub trait Fetch: Send + Sync {
    /// What `reference` names now: an index or a manifest. Changes nothing.
    fn resolve(&self, reference: &Reference, cancel: &Cancel) -> Result<Descriptor, FetchError>;

    /// Brings `reference` into `into`, down to `depth`, for `platform` only or for all; blobs that are there are not
    /// fetched again. Gives what the reference names (an index stays an index). Sets no ref.
    fn fetch(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        depth: Depth,
        into: &Store,
        reporter: &Reporter,
        cancel: &Cancel,
    ) -> Result<Descriptor, FetchError>;
}

/// Why an image could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody has it.
    #[error("`{reference}` does not exist")]
    NotFound {
        /// What was asked for.
        reference: Reference,
    },
    /// It is there, but not for this platform.
    #[error("`{reference}` has no image for {platform}; it has {offered}")]
    Platform {
        /// What was asked for.
        reference: Reference,
        /// For what.
        platform: Platform,
        /// What there is, for people.
        offered: String,
    },
    /// We may not.
    #[error("not allowed to pull `{reference}`")]
    Denied {
        /// What was asked for.
        reference: Reference,
        /// The registry's word.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The conversation failed.
    #[error("failed to pull `{reference}`")]
    Transfer {
        /// What was asked for.
        reference: Reference,
        /// How.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store could not take it.
    #[error("cannot store `{reference}`")]
    Store {
        /// What was asked for.
        reference: Reference,
        /// The store's word.
        #[source]
        source: crate::StoreError,
    },
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}
