//! Limits of caches.

/// Bytes of a cache's records: some 100,000 operations. More is no cache of ours.
pub const RECORDS_MAX_BYTES: u64 = 32 << 20;
/// Bytes of a manifest, as registries have it.
pub const MANIFEST_MAX_BYTES: u64 = 4 << 20;
/// Bytes of one part of an upload to a bucket: S3 takes 10,000 parts, so blobs of up to 80 GB.
pub const PART_BYTES: usize = 8 << 20;
/// Parts of one blob under way at once.
pub const PARTS_PARALLEL: usize = 4;
