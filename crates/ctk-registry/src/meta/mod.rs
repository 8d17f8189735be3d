//! What the registry knows: repositories, who holds which blob, manifests, tags, uploads. Each call is one transaction.
//!
//! Bytes of blobs are elsewhere, each at a [`Place`]: a name that is used once. A place is written down before a byte
//! is stored there, and it is always named by exactly one row, of an upload, a blob or the trash. So nothing is ever
//! orphaned, whenever a process dies, and what is thrown away can be removed without asking who is writing meanwhile:
//! the same content pushed again has another place.
//!
//! ```text
//! upload ──finish──▶ blob ──last holder gone──▶ trash ──removed──▶ ·
//!    └──cancelled, expired, or the content is there already──▶ trash
//! ```
//!
//! [`conformance`] is the exam of every implementation.

pub mod conformance;
mod postgres;
mod postgres_tls;
pub(crate) mod retention;
mod sql;
mod sqlite;
mod tables;

use std::fmt;
use std::sync::Arc;

use ctk_oci::{Algorithm, Descriptor, Digest};

use crate::RegistryError;
pub use postgres::{Database, Postgres};
pub use retention::{Retention, TagState};
pub use sqlite::Sqlite;
pub use tables::Tables;

/// Seconds since 1970.
pub type Seconds = u64;

/// Where bytes are: 32 hex digits, never used twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(pub String);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An upload as it was last saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Where its bytes go. Also its name in the protocol.
    pub place: Place,
    /// The repository that it belongs to; it is reached through no other.
    pub repository: String,
    /// What its bytes are hashed with.
    pub algorithm: Algorithm,
    /// Bytes that `state` has seen.
    pub size: u64,
    /// [`ctk_oci::Digester::save`] after `size` bytes.
    pub state: Vec<u8>,
    /// What the store of bytes wants back when the upload goes on; empty at first.
    pub parts: String,
}

/// A blob that a repository holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Where its bytes are.
    pub place: Place,
    /// How many.
    pub size: u64,
}

/// A place that nobody needs any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trash {
    /// Where.
    pub place: Place,
    /// What the store of bytes saved of an upload that was not finished.
    pub parts: String,
}

/// A manifest to be stored.
#[derive(Clone)]
pub struct ManifestPut {
    /// Where to.
    pub repository: String,
    /// Its media type, digest and size.
    pub descriptor: Descriptor,
    /// The exact bytes.
    pub bytes: Vec<u8>,
    /// Blobs that it names and the repository must hold.
    pub blobs: Vec<Descriptor>,
    /// Manifests that it names.
    pub manifests: Vec<Descriptor>,
    /// Whether manifests that it names may be missing.
    pub sparse: bool,
    /// What it refers to, which may be missing.
    pub subject: Option<Digest>,
    /// Its type in lists of referrers.
    pub artifact_type: Option<String>,
    /// Its annotations, for the same lists.
    pub annotations: std::collections::BTreeMap<String, String>,
    /// Tags that will name it.
    pub tags: Vec<String>,
    /// Asked for each of the tags inside the transaction that writes it.
    pub rule: TagRule,
    /// Bytes of different blobs and manifests that the repository may hold with this one; `None` for any number.
    pub quota_bytes: Option<u64>,
    /// Now.
    pub now: Seconds,
}

/// What is about to happen to a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagChange {
    /// The repository.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// What it names now.
    pub old: Option<Digest>,
    /// What it will name; `None` when it is removed.
    pub new: Option<Digest>,
}

/// Decides about a change; the text says why not. It must not call the [`Meta`] that asks.
pub type TagRule = Arc<dyn Fn(&TagChange) -> Result<(), String> + Send + Sync>;

/// A rule that allows everything.
pub fn any_change() -> TagRule {
    Arc::new(|_| Ok(()))
}

/// A manifest, or the tag of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// By what it is.
    Digest(Digest),
    /// By what it is called.
    Tag(String),
}

/// A manifest as it was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// The exact bytes.
    pub bytes: Vec<u8>,
}

/// What a repository holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Different blobs.
    pub blobs: u64,
    /// Manifests.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Bytes of blobs and manifests.
    pub bytes: u64,
}

/// What all repositories hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Uploads that are open.
    pub uploads: u64,
    /// Repositories that ever held a manifest.
    pub repositories: u64,
    /// Different blobs.
    pub blobs: u64,
    /// Bytes of different blobs.
    pub blob_bytes: u64,
    /// Manifests.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Places that wait to be removed.
    pub trash: u64,
}

/// A pull that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// A manifest was read by this name.
    Manifest(String, Name),
    /// Somebody asked whether this blob is there, and will count on it.
    Blob(String, Digest),
}

/// Where a sweep has come to: the last repository and blob it looked at.
pub type Cursor = (i64, i64);

/// Metadata of a registry. All methods block; each is one transaction, durable when it returns; all are safe beside
/// other threads and other processes on the same data.
pub trait Meta: Send + Sync + fmt::Debug {
    /// Writes an upload down before its first byte. `UploadsLimit` when `limit` are open.
    fn start_upload(&self, upload: Upload, limit: usize, now: Seconds) -> Result<(), RegistryError>;
    /// An upload of a repository.
    fn upload(&self, repository: &str, place: &Place) -> Result<Option<Upload>, RegistryError>;
    /// Saves how far an upload is. `false` when it is gone.
    fn save_upload(&self, upload: Upload, now: Seconds) -> Result<bool, RegistryError>;
    /// Makes an upload the blob `digest` of its repository; its bytes are durable and were verified. Its place goes to
    /// the trash when the content is there already, unless that is at the place `lost`: then it is now at the new one
    /// for every repository. `false` when the upload is gone.
    fn finish_upload(
        &self,
        repository: &str,
        place: &Place,
        digest: &Digest,
        size: u64,
        lost: Option<&Place>,
        now: Seconds,
    ) -> Result<bool, RegistryError>;
    /// Throws an upload away. `false` when it is gone.
    fn cancel_upload(&self, repository: &str, place: &Place, now: Seconds) -> Result<bool, RegistryError>;
    /// Throws uploads away that nobody touched since `before`; gives their number.
    fn expire_uploads(&self, before: Seconds, now: Seconds) -> Result<usize, RegistryError>;

    /// A blob that a repository holds.
    fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<Held>, RegistryError>;
    /// Whether any repository holds content, and which do, at most `limit`, in the order of their names.
    fn holders(&self, digest: &Digest, limit: usize) -> Result<Vec<String>, RegistryError>;
    /// Lets `repository` hold a blob of `from`, too. `false` when `from` does not hold it.
    fn mount(&self, repository: &str, from: &str, digest: &Digest, now: Seconds) -> Result<bool, RegistryError>;
    /// Takes a blob from a repository. `false` when it does not hold it.
    fn delete_blob(&self, repository: &str, digest: &Digest, now: Seconds) -> Result<bool, RegistryError>;

    /// Stores a manifest and its tags, or nothing: `Manifest` when something that it names is missing or has another
    /// size, `Refused` when the rule says no, `Quota` when it is too much. Safe to repeat.
    fn put_manifest(&self, put: ManifestPut) -> Result<(), RegistryError>;
    /// A manifest with its bytes.
    fn manifest(&self, repository: &str, name: &Name) -> Result<Option<Stored>, RegistryError>;
    /// What a tag or digest names, without the bytes.
    fn descriptor(&self, repository: &str, name: &Name) -> Result<Option<Descriptor>, RegistryError>;
    /// Removes a tag, or a manifest and every tag of it. `false` when it was not there; `Refused` by the rule.
    fn delete_manifest(
        &self,
        repository: &str,
        name: &Name,
        rule: TagRule,
        now: Seconds,
    ) -> Result<bool, RegistryError>;
    /// Tags after `after` in the order of their bytes, at most `limit`. `None` when there never was a manifest.
    fn tags(&self, repository: &str, after: &str, limit: usize) -> Result<Option<Vec<String>>, RegistryError>;
    /// Repositories that ever held a manifest, after `after` in the order of their bytes, at most `limit`.
    fn repositories(&self, after: &str, limit: usize) -> Result<Vec<String>, RegistryError>;
    /// Manifests of a repository with this subject, of this type if given, after the digest `after` in the order of
    /// their digests, at most `limit`; with artifact type and annotations.
    fn referrers(
        &self,
        repository: &str,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Descriptor>, RegistryError>;
    /// What a repository holds.
    fn usage(&self, repository: &str) -> Result<Usage, RegistryError>;

    /// What all repositories hold together. Counts, so it takes some milliseconds for each hundred thousand.
    fn totals(&self) -> Result<Totals, RegistryError>;

    /// Notes pulls and questions, the last of each. What is gone is left out.
    fn seen(&self, seen: Vec<Seen>, now: Seconds) -> Result<(), RegistryError>;
    /// Takes blobs from repositories in which no manifest names them and nobody asked since `before`. Looks at no more
    /// than `limit` blobs after `from`; gives how many it took, and where to go on, `None` at the end.
    fn sweep(
        &self,
        from: Option<Cursor>,
        before: Seconds,
        limit: usize,
        now: Seconds,
    ) -> Result<(usize, Option<Cursor>), RegistryError>;
    /// Removes the tags of a repository that `retention` does not keep, and then the manifests that it does not keep;
    /// gives their names. With `dry`, removes nothing.
    fn retain(
        &self,
        repository: &str,
        retention: &Retention,
        now: Seconds,
        dry: bool,
    ) -> Result<Vec<Name>, RegistryError>;
    /// Places to be removed, at most `limit`, the oldest first.
    fn trash(&self, limit: usize) -> Result<Vec<Trash>, RegistryError>;
    /// Forgets places that were removed.
    fn forget(&self, places: Vec<Place>) -> Result<(), RegistryError>;
    /// Blobs after `after` in the order of their digests with their places, at most `limit`: what a check reads.
    fn all_blobs(&self, after: &str, limit: usize) -> Result<Vec<(Digest, Held)>, RegistryError>;
    /// Whether a place is named by anything.
    fn knows(&self, place: &Place) -> Result<bool, RegistryError>;
}

#[cfg(test)]
#[path = "../../tests/common/postgres.rs"]
pub(crate) mod testing;
