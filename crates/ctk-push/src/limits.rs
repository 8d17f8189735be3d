//! The ends of what a push may read.

/// Bytes of an `index.json` or `manifest.json` of a layout or archive; thousands of images fit.
pub const INDEX_BYTES: u64 = 16 << 20;

/// Entries of an archive that are looked at for its index; an image has at most a few hundred.
pub const ARCHIVE_ENTRIES: usize = 100_000;

/// Indexes in indexes that are followed. Real ones are one deep.
pub const INDEX_DEPTH: usize = 4;

/// Tags of one target.
pub const TAGS: usize = 100;
