//! Limits of images; crossing one is an ordinary error. All but [`NODES_MAX`] are the format's own.

/// Longest name, in bytes: `EROFS_NAME_LEN`.
pub const NAME_MAX_BYTES: usize = 255;
/// Longest target of a symbolic link, in bytes: one less than `PATH_MAX`, and than a block, in which readers look for it.
pub const TARGET_MAX_BYTES: usize = 4095;
/// Largest value of an extended attribute, in bytes: its size has 16 bits.
pub const XATTR_VALUE_MAX_BYTES: usize = u16::MAX as usize;
/// Longest name of an extended attribute without its prefix, in bytes: its length has 8 bits.
pub const XATTR_NAME_MAX_BYTES: usize = u8::MAX as usize;
/// Largest extended attributes of one inode, in bytes: they are counted by four in 16 bits.
pub const XATTRS_MAX_BYTES: usize = 4 * (u16::MAX as usize - 1);
/// Most shared extended attributes of one inode; further ones are written beside it.
pub const XATTRS_SHARED_MAX: usize = 128;
/// Largest major and minor number of a device: 12 and 20 bits.
pub const DEVICE_MAX: (u32, u32) = (0xfff, 0xf_ffff);
/// Largest image, in blocks: their numbers have 32 bits. 16 TiB.
pub const BLOCKS_MAX: u64 = u32::MAX as u64;
/// Most nodes of a tree: each takes some 200 bytes of memory until the image is written.
pub const NODES_MAX: usize = 20_000_000;
/// Bytes of metadata that are held while they are written, so that small inodes can go where larger ones left room.
/// Changing it changes images.
pub const WINDOW_BYTES: u64 = 1 << 20;
/// Places with room that are remembered at once. Changing it changes images.
pub const GAPS_MAX: usize = 32;
