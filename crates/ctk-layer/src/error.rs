//! What can go wrong with a layer stream.

/// Why a layer could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The stream under the tar failed: I/O, a corrupt compression, a verifying reader's word.
    #[error("cannot read the layer stream")]
    Read(#[source] std::io::Error),
    /// The stream ends inside an entry or without the end-of-archive blocks.
    #[error("the tar stream is cut short at byte {offset}")]
    Truncated {
        /// Bytes read so far.
        offset: u64,
    },
    /// 512 bytes that are no tar header.
    #[error("no tar header at byte {offset}: {reason}")]
    Header {
        /// Where the header begins in the uncompressed stream.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that leaves the root or is no name.
    #[error("tar entry at byte {offset} has an unsafe path `{path}`: {reason}")]
    Path {
        /// Where its header begins.
        offset: u64,
        /// The path, invalid UTF-8 replaced.
        path: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A limit of [`crate::limits`] was crossed.
    #[error("tar entry at byte {offset}: {what} is larger than {limit} bytes")]
    Limit {
        /// Where its header begins.
        offset: u64,
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A kind of entry that layers do not hold, e.g. a part of a file that goes on in another archive.
    #[error("tar entry `{path}` is of the unsupported kind {kind}")]
    Kind {
        /// The entry.
        path: String,
        /// Its kind.
        kind: String,
    },
    /// A layer that is to be divided has too many entries.
    #[error("the layer has more than {limit} entries, too many to divide it")]
    Entries {
        /// The limit.
        limit: usize,
    },
    /// Writing the stream failed.
    #[error("cannot write the layer stream")]
    Write(#[source] std::io::Error),
    /// An entry's bytes did not have the promised length.
    #[error("`{path}` changed its size while it was read: {expected} bytes promised, {found} found")]
    SizeChanged {
        /// The entry.
        path: String,
        /// Bytes promised by its header.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
}
