//! Limits of file trees; crossing one is an ordinary error.

/// Most layers under one mount: what overlayfs takes (`OVL_MAX_STACK`).
pub const LAYERS_MAX: usize = 500;
/// Most symbolic links followed in one path: the kernel's `MAXSYMLINKS`.
pub const SYMLINKS_MAX: usize = 40;
/// Deepest directory nesting that is walked, in levels: each level holds an open directory, and `PATH_MAX` allows
/// no more than 2048 anyway.
pub const DEPTH_MAX: usize = 2048;
/// Largest list or value of extended attributes, in bytes: the kernel's `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`.
pub const XATTR_MAX_BYTES: usize = 64 << 10;
/// Layers unpacked side by side: each has a thread that decodes and one that writes.
pub const UNPACK_PARALLEL: usize = 3;
/// Most names of one file in one layer: what ext4 takes. A file with more is copied anew for the next ones, on every
/// filesystem: the same files make the same layer anywhere.
pub const LINKS_MAX: u32 = 65_000;
/// Largest `/etc/passwd` or `/etc/group` of an image that is searched, in bytes.
pub const USERS_MAX_BYTES: u64 = 4 << 20;
/// Threads that write the files of one layer while another reads it: more of them wait for each other's directories.
pub const WRITERS_MAX: usize = 4;
/// Bytes of a file that go to such a thread at once; a multiple of the filesystem's block size.
pub const FILE_PIECE_BYTES: usize = 128 << 10;
/// Files that may wait for a thread: with their first pieces at most 8 MiB a layer.
pub const FILES_WAITING: usize = 64;
/// Pieces of one large file that may wait: 2 MiB.
pub const PIECES_WAITING: usize = 16;
/// Files of a copy that one thread makes in a row: waking another costs as much as a few of them.
pub const COPIED_AT_ONCE: usize = 64;
/// Files that a copy makes before it starts threads for the others.
pub const COPY_ALONE: usize = 192;
/// Largest file that is copied by one read and one write, in bytes: for these `copy_file_range` costs more.
pub const READ_WHOLE_BYTES: usize = 64 << 10;
/// Most entries of one layer or archive: some twenty times what the largest real ones have. Their names are held in
/// memory, and each takes an inode.
pub const ENTRIES_MAX: u64 = 20_000_000;
/// How often a path is resolved again because of renames elsewhere on the system.
pub const RESOLVE_TRIES: usize = 10_000;
