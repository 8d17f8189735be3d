//! The ends of what a push may read.

/// Bytes of an `index.json` or `manifest.json` of a layout or archive; thousands of images fit.
pub const INDEX_BYTES: u64 = 16 << 20;

/// Entries of an archive that are looked at for its index; an image has at most a few hundred.
pub const ARCHIVE_ENTRIES: usize = 100_000;

/// Indexes in indexes that are followed. Real ones are one deep.
pub const INDEX_DEPTH: usize = 4;

/// Tags of one target.
pub const TAGS: usize = 100;

/// Smallest `layer-size`, in bytes: below it, requests cost more than what they carry.
pub const LAYER_SIZE_MIN_BYTES: u64 = 1 << 20;

/// Layers of an image whose layers are divided: docker mounts no more (`maxLayerDepth` of its layer store).
pub const LAYERS: usize = 125;
/// Most entries of a file of copies; each is a request at least.
pub const SYNC_ENTRIES_LIMIT: usize = 100_000;
/// Largest compiled regular expression for tags, in bytes: real ones take some kilobytes.
pub const SYNC_REGEX_LIMIT_BYTES: usize = 1024 * 1024;
