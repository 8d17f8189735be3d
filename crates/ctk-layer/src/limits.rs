//! Limits of layer streams; crossing one is an ordinary error.

/// Longest path or link target, in bytes: Linux's `PATH_MAX`; nothing longer can be created.
pub const PATH_MAX_BYTES: usize = 4096;
/// Largest PAX or GNU long-name record block of one entry, in bytes: what Go's `archive/tar` takes.
pub const EXTENDED_HEADER_MAX_BYTES: u64 = 1 << 20;
/// Uncompressed bytes per gzip member: large enough that the window's fresh start costs little (loss < 0.5 %),
/// small enough that a layer of a few MiB keeps every core busy. Changing it changes digests of gzip layers.
pub const GZIP_MEMBER_BYTES: usize = 1 << 20;
/// Largest gzip member that is decompressed by itself, in uncompressed bytes; larger ones are read as a stream.
pub const GZIP_MEMBER_READ_MAX_BYTES: usize = 4 << 20;
/// Uncompressed bytes per zstd frame. Changing it changes digests of zstd layers.
pub const ZSTD_FRAME_BYTES: usize = 2 << 20;
/// Largest zstd frame that is decompressed by itself, in uncompressed bytes; larger ones are read as a stream.
pub const ZSTD_FRAME_READ_MAX_BYTES: u64 = 8 << 20;
/// Largest window a zstd frame may ask a reader for, as a power of two: 128 MiB, what `zstd -d` grants.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Most entries of a layer that is divided: their names are held in memory, some 200 bytes each.
pub const SPLIT_ENTRIES_MAX: usize = 5_000_000;
/// Most segments of a sparse file: as many as 4 GiB have whose every other block is a hole; 16 MiB of memory.
pub const SPARSE_SEGMENTS_MAX: usize = 1 << 20;
/// Largest sparse file, in bytes with its holes: a few hundred bytes of an archive must not keep a reader busy for days.
pub const SPARSE_SIZE_MAX_BYTES: u64 = 1 << 40;
