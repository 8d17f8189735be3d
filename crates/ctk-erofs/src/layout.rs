//! Where everything goes, before a byte is written.

use std::collections::BTreeMap;

use crate::Time;
use crate::limits::{BLOCKS_MAX, GAPS_MAX, WINDOW_BYTES};
use crate::tree::{Kind, NodeId, Tree};
use crate::xattrs::Shared;
use crate::{BLOCK_BYTES, ErofsError, directory};

/// Bytes of a compact inode; what inodes are counted by.
pub const COMPACT_BYTES: u64 = 32;
/// Bytes of an extended inode.
pub const EXTENDED_BYTES: u64 = 64;

/// Where the parts of an image are.
#[derive(Debug)]
pub struct Layout {
    /// Of each node.
    pub places: Vec<Place>,
    /// The nodes in the order of their inodes and files.
    pub order: Vec<NodeId>,
    /// The time of compact inodes.
    pub time: Time,
    /// Byte where the metadata ends and the shared attributes begin; a whole block.
    pub shared_at: u64,
    /// Byte where the files begin; a whole block.
    pub files_at: u64,
    /// Blocks of all.
    pub blocks: u64,
}

/// Where a node is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// Byte of the inode.
    pub at: u64,
    pub compact: bool,
    /// Bytes of its content: of a file, a directory or a link's target.
    pub size: u64,
    /// Whether the tail stands behind the inode.
    pub inline: bool,
    /// First block of its content, if that has any.
    pub block: u32,
}

impl Place {
    pub fn inode_bytes(&self) -> u64 {
        if self.compact { COMPACT_BYTES } else { EXTENDED_BYTES }
    }

    /// How the inode is found.
    pub fn number(&self) -> u64 {
        self.at / COMPACT_BYTES
    }

    /// Bytes of the content that stand behind the inode.
    pub fn tail(&self) -> u64 {
        if self.inline { self.size % BLOCK_BYTES } else { 0 }
    }

    /// Blocks of the content elsewhere.
    fn blocks(&self) -> u64 {
        (self.size - self.tail()).div_ceil(BLOCK_BYTES)
    }
}

/// Decides. Depends on the tree only.
pub fn layout(tree: &Tree, shared: &Shared<'_>) -> Result<Layout, ErofsError> {
    let time = common_time(tree);
    let order = order(tree);
    let mut places = vec![Place::default(); tree.nodes.len()];
    let mut metadata = Metadata { end: BLOCK_BYTES, gaps: Vec::new() };
    for id in &order {
        let node = &tree.nodes[id.index()];
        let size = match &node.kind {
            Kind::Directory => directory::size(*id, node),
            Kind::File(size) => *size,
            Kind::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        let a = &node.attributes;
        let small = |number: u32| number <= u32::from(u16::MAX);
        let compact =
            a.mtime == time && small(a.uid) && small(a.gid) && small(node.link_count()) && size <= u64::from(u32::MAX);
        let xattr_bytes = shared.beside(&a.xattrs).len() as u64;
        let mut place = Place { compact, size, inline: true, ..Place::default() };
        let alone = place.inode_bytes() + xattr_bytes;
        // A tail with its inode stays in one block: some readers look for a link's target in the inode's block only.
        place.inline = place.tail() > 0 && alone + place.tail() <= BLOCK_BYTES;
        place.at = metadata.place(alone + place.tail());
        places[id.index()] = place;
    }
    let shared_at = metadata.end;
    let directories_at = shared_at + (shared.bytes.len() as u64).next_multiple_of(BLOCK_BYTES);
    let mut block = directories_at / BLOCK_BYTES;
    let mut files_at = directories_at;
    for files in [false, true] {
        for id in &order {
            let is_directory = tree.nodes[id.index()].kind == Kind::Directory;
            if is_directory == files {
                continue;
            }
            let place = &mut places[id.index()];
            if place.blocks() > 0 {
                place.block = block.min(BLOCKS_MAX) as u32;
            }
            block = block.saturating_add(place.blocks());
        }
        if !files {
            files_at = block.saturating_mul(BLOCK_BYTES);
        }
    }
    // Behind the last inode is something: `fsck.erofs` 1.5 looks there for attributes before it knows that there are none.
    block += u64::from(block == shared_at / BLOCK_BYTES);
    if block > BLOCKS_MAX {
        return Err(ErofsError::TooLarge { what: "blocks of 4096 bytes", found: block, limit: BLOCKS_MAX });
    }
    Ok(Layout { places, order, time, shared_at, files_at, blocks: block })
}

/// The time that most nodes have, the earliest of several.
fn common_time(tree: &Tree) -> Time {
    let mut counts: BTreeMap<Time, usize> = BTreeMap::new();
    for node in &tree.nodes {
        *counts.entry(node.attributes.mtime).or_default() += 1;
    }
    let most = counts.into_iter().rev().max_by_key(|(_, count)| *count);
    most.expect("there is a root").0
}

/// The root, then the children of each directory together, directories in the order of a walk.
fn order(tree: &Tree) -> Vec<NodeId> {
    let mut order = vec![Tree::ROOT];
    let mut seen = vec![false; tree.nodes.len()];
    let mut waiting = vec![Tree::ROOT];
    while let Some(directory) = waiting.pop() {
        let first = waiting.len();
        for child in tree.nodes[directory.index()].children.values() {
            if std::mem::replace(&mut seen[child.index()], true) {
                continue;
            }
            order.push(*child);
            if tree.nodes[child.index()].kind == Kind::Directory {
                waiting.push(*child);
            }
        }
        waiting[first..].reverse();
    }
    order
}

/// The area of inodes while it grows.
struct Metadata {
    /// Byte behind the last block of it.
    end: u64,
    /// Where there is room, and how much.
    gaps: Vec<(u64, u64)>,
}

impl Metadata {
    /// A place for so many bytes: the tightest one there is, else a new block. What fits into a block stays in one.
    fn place(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.next_multiple_of(COMPACT_BYTES);
        let end = self.end;
        // Older places may be written already.
        self.gaps.retain(|(at, _)| at + WINDOW_BYTES > end);
        let fitting = self.gaps.iter().enumerate().filter(|(_, gap)| gap.1 >= bytes);
        if let Some(index) = fitting.min_by_key(|(_, gap)| (gap.1, gap.0)).map(|(index, _)| index) {
            let (at, room) = self.gaps[index];
            match room - bytes {
                0 => drop(self.gaps.swap_remove(index)),
                rest => self.gaps[index] = (at + bytes, rest),
            }
            return at;
        }
        self.end += bytes.next_multiple_of(BLOCK_BYTES);
        if self.end > end + bytes {
            self.gaps.push((end + bytes, self.end - end - bytes));
        }
        if self.gaps.len() > GAPS_MAX {
            let smallest = self.gaps.iter().enumerate().min_by_key(|(_, gap)| (gap.1, gap.0));
            let index = smallest.expect("there are several").0;
            self.gaps.swap_remove(index);
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_inodes_go_where_large_ones_left_room() {
        let mut metadata = Metadata { end: 4096, gaps: Vec::new() };
        assert_eq!(metadata.place(4000), 4096);
        assert_eq!(metadata.place(3000), 8192);
        assert_eq!(metadata.place(60), 4096 + 4000);
        assert_eq!(metadata.place(60), 8192 + 3008);
        // More than a block begins one.
        assert_eq!(metadata.place(5000), 12288);
        assert_eq!(metadata.end, 12288 + 8192);
    }
}
