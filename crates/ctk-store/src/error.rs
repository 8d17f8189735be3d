//! What can go wrong in the store.

use std::io;
use std::path::{Path, PathBuf};

use ctk_layer::LayerError;
use ctk_oci::{Digest, DocumentError};

/// Why the store could not do what was asked. Nothing half-done is ever visible.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The kernel refused.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// No space is left on the store's filesystem (or the quota is used up).
    #[error("no space left to {action} `{path}`; `ctk gc` may free some")]
    Full {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// A store that another user of the machine made.
    #[error(
        "the store `{path}` belongs to another user; a store has one owner: run this as him, or choose another folder by \
         CTK_ROOT or --root"
    )]
    NotOurs {
        /// Where it is.
        path: PathBuf,
    },
    /// A store with files of subordinate ids that this user does not have any more, or has for others.
    #[error(
        "the store `{path}` has files of the ids {ids}, which stand for others now or for nobody: give them back to this user \
         in /etc/subuid and /etc/subgid, or choose another folder by CTK_ROOT or --root"
    )]
    OtherIds {
        /// Where it is.
        path: PathBuf,
        /// The first range that is missing.
        ids: String,
    },
    /// A blob that is not there.
    #[error("blob {digest} is not in the store")]
    Missing {
        /// Which.
        digest: Digest,
    },
    /// A ref that is not there.
    #[error("no image `{name}` in the store")]
    NoSuchRef {
        /// Its name.
        name: String,
    },
    /// Bytes are not what their digest or size promised.
    #[error("content does not match: expected {expected} ({expected_size} bytes), found {found} ({found_size} bytes)")]
    Mismatch {
        /// The digest promised.
        expected: Digest,
        /// The size promised.
        expected_size: u64,
        /// The digest found.
        found: Digest,
        /// The size found.
        found_size: u64,
    },
    /// A blob of the store that is no longer what was put there. It has been removed.
    #[error("blob {digest} was damaged on this disk and has been removed; the next time it is fetched or made again")]
    Damaged {
        /// Which.
        digest: Digest,
    },
    /// A blob too large for what it should be.
    #[error("blob {digest} has {size} bytes; at most {limit} are read")]
    TooLarge {
        /// Which.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A name whose entry cannot be read any more.
    #[error("the name kept in `{path}` is damaged; `ctk rmi NAME` takes it away, applying or pulling sets it again")]
    DamagedRef {
        /// Its file, which is called after the name.
        path: PathBuf,
        /// The parser's word.
        #[source]
        source: serde_json::Error,
    },
    /// A file of the store or of an archive that is not the JSON it should be.
    #[error("`{path}` is malformed")]
    Json {
        /// Which file.
        path: PathBuf,
        /// The parser's word.
        #[source]
        source: serde_json::Error,
    },
    /// A manifest, index or config that does not parse.
    #[error("malformed document")]
    Document(#[from] DocumentError),
    /// A store of another version.
    #[error("`{path}` has the store format `{found}`; this ctk understands `{expected}`")]
    Format {
        /// The store.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What we read and write.
        expected: &'static str,
    },
    /// An archive or layout that cannot be loaded.
    #[error("cannot load {what}: {reason}")]
    Archive {
        /// The archive.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// The tar stream of an archive or a layer is malformed.
    #[error("malformed tar stream")]
    Layer(#[source] LayerError),
    /// Reading the caller's stream failed.
    #[error("cannot read {what}")]
    Input {
        /// The stream.
        what: String,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// Writing the caller's stream failed.
    #[error("cannot write {what}")]
    Output {
        /// The stream.
        what: String,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}

impl From<LayerError> for StoreError {
    fn from(error: LayerError) -> StoreError {
        match error {
            LayerError::Write(source) => StoreError::Output { what: "the tar stream".into(), source },
            error => StoreError::Layer(error),
        }
    }
}

/// Puts what was tried and on which path around an I/O error.
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|error| {
            let (source, path) = (error.into(), path.to_owned());
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { action, path, source },
                _ => StoreError::Io { action, path, source },
            }
        })
    }
}

impl StoreError {
    /// As an I/O error, for code that can only pass those on; the cause chain is kept.
    pub fn into_io(self) -> io::Error {
        let kind = match &self {
            StoreError::Io { source, .. } | StoreError::Full { source, .. } => source.kind(),
            StoreError::Missing { .. } | StoreError::NoSuchRef { .. } => io::ErrorKind::NotFound,
            StoreError::Cancelled => io::ErrorKind::Interrupted,
            _ => io::ErrorKind::InvalidData,
        };
        // `Interrupted` would be retried by std's helpers, forever.
        let kind = if kind == io::ErrorKind::Interrupted { io::ErrorKind::ConnectionAborted } else { kind };
        io::Error::new(kind, self)
    }
}
