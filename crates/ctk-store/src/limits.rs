//! Limits of the store; crossing one is an ordinary error.

/// Largest manifest or index, in bytes: what registries take (distribution-spec 1.1, `PUT` manifests).
pub const MANIFEST_MAX_BYTES: u64 = 4 << 20;
/// Largest image config, in bytes: generous against real ones (tens of KiB), small against a memory bomb.
pub const CONFIG_MAX_BYTES: u64 = 8 << 20;
/// Deepest nesting of indexes that is followed, in levels: real ones have one or two.
pub const INDEX_DEPTH_MAX: usize = 8;
/// Longest file name made of a ref or a key, in bytes; longer ones are named by their digest (`NAME_MAX` is 255).
pub const FILE_NAME_MAX_BYTES: usize = 200;
/// Largest `index.json` or `manifest.json` of an archive that is loaded, in bytes.
pub const ARCHIVE_INDEX_MAX_BYTES: u64 = 16 << 20;
/// How fresh a record's time of last use is kept, in seconds: a write per hour instead of per read.
pub const USE_GRANULARITY_SECONDS: u64 = 3600;
/// How often a wait for a lock looks for a cancellation, in milliseconds.
pub const LOCK_POLL_MILLISECONDS: u64 = 20;
/// Blobs that may wait for the disk, each an open file: who makes more waits for them.
pub const UNSYNCED_BLOBS: usize = 64;
