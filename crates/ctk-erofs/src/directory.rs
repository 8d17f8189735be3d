//! Directories as blocks of entries.

use crate::BLOCK_BYTES;
use crate::tree::{Kind, Node, NodeId};

/// Bytes of an entry without its name.
const ENTRY_BYTES: usize = 12;

/// The names of a directory in order, `.` and `..` among them.
fn names(id: NodeId, node: &Node) -> Vec<(&[u8], NodeId)> {
    let mut names: Vec<(&[u8], NodeId)> = vec![(b".", id), (b"..", node.parent)];
    names.extend(node.children.iter().map(|(name, child)| (name.as_slice(), *child)));
    names.sort_unstable();
    names
}

/// Which names go into one block, block by block.
fn blocks<'a, 'b>(names: &'b [(&'a [u8], NodeId)]) -> impl Iterator<Item = &'b [(&'a [u8], NodeId)]> {
    let mut rest = names;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |(name, _): &&(&[u8], NodeId)| {
            bytes += ENTRY_BYTES + name.len();
            bytes <= BLOCK_BYTES as usize
        };
        let count = rest.iter().take_while(fits).count();
        let (block, after) = rest.split_at(count);
        rest = after;
        (!block.is_empty()).then_some(block)
    })
}

fn block_bytes(block: &[(&[u8], NodeId)]) -> usize {
    block.iter().map(|(name, _)| ENTRY_BYTES + name.len()).sum()
}

/// Bytes of a directory: full blocks, and what is used of the last one.
pub fn size(id: NodeId, node: &Node) -> u64 {
    let names = names(id, node);
    let (mut count, mut last) = (0, 0);
    for block in blocks(&names) {
        count += 1;
        last = block_bytes(block) as u64;
    }
    (count - 1) * BLOCK_BYTES + last
}

/// The bytes of a directory, [`size`] of them. `number` says how an inode is found.
pub fn bytes(id: NodeId, nodes: &[Node], number: impl Fn(NodeId) -> u64) -> Vec<u8> {
    let names = names(id, &nodes[id.index()]);
    let mut bytes = Vec::new();
    for block in blocks(&names) {
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES as usize), 0);
        let mut offset = block.len() * ENTRY_BYTES;
        for (name, child) in block {
            bytes.extend(number(*child).to_le_bytes());
            bytes.extend((offset as u16).to_le_bytes());
            bytes.extend([file_type(&nodes[child.index()].kind), 0]);
            offset += name.len();
        }
        block.iter().for_each(|(name, _)| bytes.extend(*name));
    }
    bytes
}

/// The kernel's `FT_*`.
fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => 1,
        Kind::Directory => 2,
        Kind::Character(..) => 3,
        Kind::Block(..) => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => 7,
    }
}
