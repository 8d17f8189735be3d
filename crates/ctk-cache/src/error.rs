//! Why a cache could not be read or written.

use std::path::PathBuf;

use ctk_client::ClientError;
use ctk_oci::Digest;
use ctk_store::StoreError;

/// Why a cache could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// There is none.
    #[error("there is no cache in `{place}`")]
    Missing {
        /// Where.
        place: String,
    },
    /// A blob of it was removed.
    #[error("`{place}` has no {digest} any more")]
    Gone {
        /// Where.
        place: String,
        /// Which.
        digest: Digest,
    },
    /// Somebody else's, or of another version.
    #[error("`{place}` holds no cache of ours: {reason}")]
    Format {
        /// Where.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// The registry.
    #[error("the registry of `{place}` failed")]
    Registry {
        /// Where.
        place: String,
        /// How.
        #[source]
        source: Box<ClientError>,
    },
    /// The bucket.
    #[error("the bucket of `{place}` failed: {error}")]
    Bucket {
        /// Where.
        place: String,
        /// How. It tells its own causes.
        error: Box<object_store::Error>,
    },
    /// The folder.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// Our own store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}

impl CacheError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> CacheError {
        let path = path.into();
        move |source| CacheError::Io { action, path, source }
    }

    /// The whole story in one line.
    pub fn line(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            source = error.source();
        }
        text
    }
}
