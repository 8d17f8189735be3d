//! What can go wrong with an image.

use std::io;

/// Why a tree cannot be an image, or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ErofsError {
    /// A name that no directory can hold.
    #[error("`{path}` cannot be in an EROFS image: {reason}")]
    Name {
        /// Directory and name, invalid UTF-8 replaced.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// An attribute or number that the format has no room for.
    #[error("`{path}` cannot be in an EROFS image: its {what} has {found}, more than {limit}")]
    Limit {
        /// The node.
        path: String,
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: u64,
        /// The limit of [`crate::limits`].
        limit: u64,
    },
    /// An extended attribute of a namespace that the format does not know.
    #[error(
        "`{path}` cannot be in an EROFS image: no extended attribute `{name}`, only `user.`, `trusted.`, `security.` and POSIX ACLs"
    )]
    XattrNamespace {
        /// The node.
        path: String,
        /// The attribute.
        name: String,
    },
    /// More nodes, or larger files, than an image takes.
    #[error("the tree is too large for an EROFS image: {what} {found}, more than {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: u64,
        /// The limit of [`crate::limits`].
        limit: u64,
    },
    /// A file could not be read.
    #[error("cannot read `{path}` for an EROFS image")]
    Read {
        /// The file.
        path: String,
        /// The reader's word.
        #[source]
        source: io::Error,
    },
    /// A file did not have the promised length.
    #[error("`{path}` changed its size while it was read: {expected} bytes promised")]
    SizeChanged {
        /// The file.
        path: String,
        /// Bytes promised.
        expected: u64,
    },
    /// The image could not be written.
    #[error("cannot write the EROFS image")]
    Write(#[source] io::Error),
}
