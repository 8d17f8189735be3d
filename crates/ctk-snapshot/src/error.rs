//! What can go wrong with trees and mounts.

use std::io;

use ctk_layer::LayerError;
use ctk_oci::DiffId;
use ctk_store::StoreError;

/// Why a tree could not be made, mounted, changed or packed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The kernel refused.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what, as a path in the tree.
        path: String,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// No space is left on the store's filesystem.
    #[error("no space left to {action} `{path}`; `ctk gc` may free some")]
    Full {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// The overlay could not be mounted.
    #[error("cannot mount {layers} layers as an overlay")]
    Overlay {
        /// How many.
        layers: usize,
        /// Which part of it, and the kernel's word.
        #[source]
        source: ctk_runtime::Error,
    },
    /// More layers than an overlay takes.
    #[error("{found} layers are more than the {limit} that an overlay can have")]
    TooManyLayers {
        /// How many.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// A layer that is not in the store.
    #[error("layer {key} is not unpacked in the store")]
    NoLayer {
        /// Which.
        key: String,
    },
    /// A layer's tar stream is malformed, or its blob is not what its digest says.
    #[error("cannot unpack layer {layer}")]
    Unpack {
        /// The blob's digest, or the archive's name.
        layer: String,
        /// What is wrong.
        #[source]
        source: LayerError,
    },
    /// A layer is not the one that the config names.
    #[error("layer {layer} unpacks to {found}, but the image config says {expected}")]
    DiffId {
        /// The blob's digest.
        layer: String,
        /// The config's diffID.
        expected: DiffId,
        /// What it is.
        found: DiffId,
    },
    /// Config and manifest disagree about the number of layers.
    #[error("the manifest has {layers} layers, but the image config {diff_ids} diffIDs")]
    LayerCount {
        /// Layers in the manifest.
        layers: usize,
        /// diffIDs in the config.
        diff_ids: usize,
    },
    /// An entry that a tree cannot hold or that would reach outside of it.
    #[error("refused `{path}`: {reason}")]
    Refused {
        /// The entry.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// Images that are merged both have the file.
    #[error("`{path}` is there already")]
    Taken {
        /// Its path.
        path: String,
    },
    /// A layer or archive has more entries than a tree is made of.
    #[error("layer {layer} has more than {limit} entries")]
    TooManyEntries {
        /// Which.
        layer: String,
        /// The limit.
        limit: u64,
    },
    /// Packing failed.
    #[error("cannot pack layer {key}")]
    Pack {
        /// Which.
        key: String,
        /// What is wrong.
        #[source]
        source: LayerError,
    },
    /// No image could be made of a layer.
    #[error("cannot make an image of layer {key}")]
    Image {
        /// Which.
        key: String,
        /// What is wrong.
        #[source]
        source: ctk_erofs::ErofsError,
    },
    /// A directory where a file should be, or the other way round.
    #[error("`{path}` is {found}; expected {expected}")]
    WrongKind {
        /// The path in the tree.
        path: String,
        /// What it is.
        found: &'static str,
        /// What was needed.
        expected: &'static str,
    },
    /// A file too large to be read whole.
    #[error("`{path}` has {size} bytes; at most {limit} are read")]
    TooLarge {
        /// The path in the tree.
        path: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A user or group that the image does not know.
    #[error("no {what} `{name}` in the image's `{file}`{}", near.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    NoSuchUser {
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
        /// Where it was looked for.
        file: &'static str,
        /// One that is there and called almost so.
        near: Option<String>,
    },
    /// The store's word.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}

impl SnapshotError {
    /// Whether it says that something does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, SnapshotError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Puts what was tried and on which path around an I/O error.
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: &[u8]) -> Result<T, SnapshotError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, action: &'static str, path: &[u8]) -> Result<T, SnapshotError> {
        self.map_err(|error| {
            let (source, path) = (error.into(), display(path));
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    SnapshotError::Full { action, path, source }
                }
                _ => SnapshotError::Io { action, path, source },
            }
        })
    }
}

pub(crate) fn display(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    if text.starts_with('/') { text.into_owned() } else { format!("/{text}") }
}
