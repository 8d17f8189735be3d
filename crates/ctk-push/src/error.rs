//! Why a push failed: always which place, and what was tried.

use std::path::PathBuf;

use ctk_plan::Address;

/// Why a push failed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry did not take it.
    #[error("failed to {action} `{push}` to `{place}`")]
    Registry {
        /// The push.
        push: Address,
        /// Where to.
        place: String,
        /// `upload`, `publish`.
        action: &'static str,
        /// What the registry said.
        #[source]
        source: Box<ctk_client::ClientError>,
    },
    /// The image could not be read from the store, or not written to a layout or archive.
    #[error("failed to {action} `{push}` to `{place}`")]
    Store {
        /// The push.
        push: Address,
        /// Where to.
        place: String,
        /// `upload`, `publish`.
        action: &'static str,
        /// Why.
        #[source]
        source: Box<ctk_store::StoreError>,
    },
    /// The filesystem refused.
    #[error("failed to write `{push}` to `{place}`: cannot {action} `{}`", path.display())]
    File {
        /// The push.
        push: Address,
        /// Where to.
        place: String,
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The layers could not be packed as the push wants them.
    #[error("failed to pack the layers of `{push}`")]
    Pack {
        /// The push.
        push: Address,
        /// Why.
        #[source]
        source: Box<crate::PackingError>,
    },
    /// The image has nothing for the platform of an archive that can hold only one.
    #[error("`{place}` holds one platform, and the image of `{push}` has none for {platform}")]
    NoPlatform {
        /// The push.
        push: Address,
        /// Where to.
        place: String,
        /// For what.
        platform: Box<ctk_oci::Platform>,
    },
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}

impl PushError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            PushError::Registry { source, .. } => source.hint(),
            PushError::Store { source, .. } if matches!(**source, ctk_store::StoreError::Full { .. }) => {
                Some("free some space there, then apply again: what is uploaded stays".into())
            }
            _ => None,
        }
    }
}
