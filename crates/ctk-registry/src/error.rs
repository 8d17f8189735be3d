//! Why the registry cannot serve or store.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use ctk_oci::Digest;

/// What the registry could not do.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The kernel's word.
        #[source]
        cause: io::Error,
    },
    /// A file of the storage cannot be read, written or linked.
    #[error("cannot {action} `{}` in the registry's storage", path.display())]
    Storage {
        /// What was tried, e.g. `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        cause: io::Error,
    },
    /// The metadata cannot be read or written.
    #[error("cannot {action} the registry's metadata")]
    Metadata {
        /// What was tried.
        action: &'static str,
        /// Whether the disk is full.
        full: bool,
        /// The database's word.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The metadata was written by a later version.
    #[error("`{}` is of version {found}, this program knows {known}; use the program that wrote it", path.display())]
    MetadataVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The database of the metadata cannot be used as it is described.
    #[error("cannot use the database: {reason}")]
    Database {
        /// What is wrong; no password.
        reason: String,
    },
    /// Something in the metadata that nobody writes.
    #[error("the registry's metadata holds `{text}` where {what} should be; restore it from a copy")]
    MetadataDamaged {
        /// What was expected.
        what: &'static str,
        /// What is there.
        text: String,
    },
    /// The thread that writes is gone.
    #[error("the registry's metadata is closed")]
    MetadataStopped,
    /// A directory of the layout before this one.
    #[error("`{}` holds a registry of an earlier layout; serve another folder and push to it again", root.display())]
    EarlierLayout {
        /// The directory.
        root: PathBuf,
    },
    /// A rule of the repository says no.
    #[error("{reason}")]
    Refused {
        /// Which, in words.
        reason: String,
    },
    /// A repository would hold too much.
    #[error("`{repository}` may hold {limit} bytes and would hold {needed}")]
    Quota {
        /// The repository.
        repository: String,
        /// What it may hold, in bytes.
        limit: u64,
        /// What it would.
        needed: u64,
    },
    /// The object store did not do what it was asked.
    #[error("cannot {action} the object {place}")]
    Object {
        /// What was tried.
        action: &'static str,
        /// Which place.
        place: String,
        /// The store's word.
        #[source]
        cause: Box<object_store::Error>,
    },
    /// The bucket cannot be used as it is described.
    #[error("cannot use the bucket `{bucket}`: {reason}")]
    Bucket {
        /// Its name.
        bucket: String,
        /// What is wrong.
        reason: String,
    },
    /// Bytes that should be there cannot be read.
    #[error("cannot read the bytes at {place}")]
    Unreadable {
        /// Where.
        place: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot use the certificate file `{}`: {reason}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The htpasswd file cannot be read, or holds something other than bcrypt hashes.
    #[error("cannot use the password file `{}`: {reason}", path.display())]
    Passwords {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A folder of signing keys cannot be read or written, or holds something else.
    #[error("cannot use the keys in `{}`: {reason}", path.display())]
    Keys {
        /// The folder or the key's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes are not what their descriptor says.
    #[error("content given as {expected} ({expected_size} bytes) is {found} ({found_size} bytes)")]
    Mismatch {
        /// The digest promised.
        expected: Digest,
        /// The size promised.
        expected_size: u64,
        /// The digest found; the promised one when only the size was compared.
        found: Digest,
        /// The size found.
        found_size: u64,
    },
    /// A repository or tag that the grammar refuses.
    #[error(transparent)]
    Name(#[from] ctk_oci::ReferenceError),
    /// A manifest that the registry refuses.
    #[error("manifest refused: {reason}")]
    Manifest {
        /// What is wrong with it.
        reason: String,
        /// Whether it names content that the repository does not hold.
        unknown: Option<Digest>,
    },
    /// The content store that an image is imported from failed.
    #[error(transparent)]
    Store(#[from] ctk_store::StoreError),
    /// Too many uploads are open.
    #[error("{limit} uploads are open already")]
    UploadsLimit {
        /// `UPLOADS_LIMIT`.
        limit: usize,
    },
    /// Another request or process is writing to the upload.
    #[error("the upload is busy")]
    UploadBusy,
    /// No such upload.
    #[error("no such upload")]
    UploadUnknown,
    /// The chunk does not start where the upload ends.
    #[error("the chunk starts at byte {found}, the upload is at byte {expected}")]
    UploadOrder {
        /// Bytes held.
        expected: u64,
        /// First byte of the chunk.
        found: u64,
    },
    /// A blob beyond the limit.
    #[error("the blob is larger than the limit of {limit} bytes")]
    BlobLimit {
        /// The limit.
        limit: u64,
    },
}

impl RegistryError {
    pub(crate) fn storage(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> RegistryError {
        let path = path.into();
        move |cause| RegistryError::Storage { action, path, cause }
    }
}
