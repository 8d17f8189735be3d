//! File trees as EROFS images, which the kernel mounts straight from a file (linux 6.12), without unpacking.
//!
//! A [`Tree`] is told what there is; [`Tree::write`] asks for the bytes of each file once and writes the image: the same
//! bytes for the same tree on every machine. Images are not compressed, so that the kernel maps their files as they are.
//!
//! # The format in short
//! All numbers are little-endian, blocks have 4096 bytes (`Documentation/filesystems/erofs.rst`,
//! `fs/erofs/erofs_fs.h` of linux).
//! - The superblock is at byte 1024. Its checksum is the CRC32C, not inverted at the end, of the rest of that block.
//! - Inodes are found by their place: number × 32 from the beginning of the metadata. A *compact* inode has 32 bytes, 16
//!   bits for owner and links, and the time of the superblock; any other is *extended* and has 64.
//! - Behind an inode are its extended attributes: a header, the numbers of *shared* attributes (which stand once, in an
//!   area of their own, found by number × 4), then those that nobody else has.
//! - Behind these may be the *tail*, the last part of a file that fills no block; it may not cross the end of a block.
//!   The blocks before the tail lie elsewhere in one piece.
//! - A directory is a file of blocks, each a table of entries, then their names. Names are sorted over all blocks, `.`
//!   and `..` among them: a lookup is two binary searches.
//!
//! Here the order is: superblock, inodes with their tails, shared attributes, directories, files. What a walk reads is
//! thus close together. Inodes of one directory follow each other.
//!
//! Overlay's whiteouts (character devices 0:0) and `trusted.overlay.*` are written like everything else.

mod checksum;
mod directory;
mod error;
mod layout;
pub mod limits;
mod output;
mod tree;
mod write;
mod xattrs;

pub use ctk_layer::Time;
pub use error::ErofsError;
pub use tree::{Attributes, Kind, NodeId, Tree};
pub use write::Written;

/// Bytes of a block: what every kernel that mounts files takes.
pub const BLOCK_BYTES: u64 = 4096;
