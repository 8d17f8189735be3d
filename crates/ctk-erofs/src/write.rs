//! The image, byte for byte.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::checksum::crc32c;
use crate::layout::{Layout, Place, layout};
use crate::output::{Contents, Window};
use crate::tree::{Kind, Node, NodeId, Tree};
use crate::xattrs::{self, Shared};
use crate::{BLOCK_BYTES, ErofsError, directory};

/// `EROFS_SUPER_OFFSET`.
const SUPERBLOCK_AT: usize = 1024;
/// `EROFS_SUPER_MAGIC_V1`.
const MAGIC: u32 = 0xe0f5_e1e2;
/// `SB_CHKSUM`: the superblock has a checksum; `MTIME`: times are those of content.
const FEATURES: u32 = 1 | 2;
/// Data layouts: all content in blocks elsewhere, or the tail behind the inode.
const PLAIN: u16 = 0;
const INLINE: u16 = 2;
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// What an image weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its length, a whole number of blocks.
    pub bytes: u64,
    /// Its inodes.
    pub inodes: u64,
}

impl Tree {
    /// Writes the image into `out`, which must be empty: holes of files are left out. `uuid` tells images apart for
    /// whoever asks; the same one for the same tree gives the same bytes. `open` gives the bytes of each file once, in
    /// the order of the image.
    ///
    /// [`ErofsError::Read`] and [`ErofsError::SizeChanged`] if a file is not what it was said to be;
    /// [`ErofsError::TooLarge`] before anything is written. Half an image is none: its superblock comes last.
    pub fn write<R: Read>(
        &self,
        uuid: [u8; 16],
        out: &mut (impl Write + Seek),
        open: &mut dyn FnMut(NodeId) -> io::Result<R>,
    ) -> Result<Written, ErofsError> {
        let shared = Shared::of(&self.nodes);
        let layout = layout(self, &shared)?;
        let mut window = Window::new(BLOCK_BYTES);
        let mut contents = Contents::new(layout.files_at);
        let mut buffer = vec![0; READ_BYTES];
        for id in &layout.order {
            let (node, place) = (&self.nodes[id.index()], &layout.places[id.index()]);
            let beside = shared.beside(&node.attributes.xattrs);
            let mut bytes = inode(node, place, xattrs::count(&beside), id.0 + 1);
            bytes.extend(beside);
            let body = place.size - place.tail();
            match &node.kind {
                Kind::Directory if place.tail() > 0 => {
                    let whole = directory::bytes(*id, &self.nodes, |id| layout.places[id.index()].number());
                    bytes.extend(&whole[body as usize..]);
                }
                Kind::Symlink(target) => match place.inline {
                    true => bytes.extend(target),
                    false => contents.put(out, target).map_err(ErofsError::Write)?,
                },
                Kind::File(_) if place.size > 0 => {
                    let read = |source| ErofsError::Read { path: self.display(*id), source };
                    let changed = || ErofsError::SizeChanged { path: self.display(*id), expected: place.size };
                    let mut file = open(*id).map_err(read)?;
                    let mut left = place.size;
                    // One byte more than promised shows that there are more.
                    while let n @ 1.. = read_some(&mut file, &mut buffer).map_err(read)? {
                        let some = &buffer[..n];
                        let (before, after) = some.split_at((n as u64).min(left.saturating_sub(place.tail())) as usize);
                        left = left.checked_sub(n as u64).ok_or_else(changed)?;
                        contents.put(out, before).map_err(ErofsError::Write)?;
                        bytes.extend(after);
                    }
                    if left > 0 {
                        return Err(changed());
                    }
                }
                _ => {}
            }
            contents.pad();
            window.put(out, place.at, &bytes).map_err(ErofsError::Write)?;
        }
        self.finish(uuid, out, &layout, &shared, window, contents).map_err(ErofsError::Write)?;
        Ok(Written { bytes: layout.blocks * BLOCK_BYTES, inodes: self.nodes.len() as u64 })
    }

    fn finish(
        &self,
        uuid: [u8; 16],
        out: &mut (impl Write + Seek),
        layout: &Layout,
        shared: &Shared<'_>,
        window: Window,
        contents: Contents,
    ) -> io::Result<()> {
        window.finish(out)?;
        write_padded(out, layout.shared_at, &shared.bytes)?;
        for id in &layout.order {
            let (node, place) = (&self.nodes[id.index()], &layout.places[id.index()]);
            let body = (place.size - place.tail()) as usize;
            if node.kind == Kind::Directory && body > 0 {
                let whole = directory::bytes(*id, &self.nodes, |id| layout.places[id.index()].number());
                write_padded(out, u64::from(place.block) * BLOCK_BYTES, &whole[..body])?;
            }
        }
        contents.finish(out, layout.blocks * BLOCK_BYTES)?;
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&self.superblock(uuid, layout))?;
        out.flush()
    }

    fn superblock(&self, uuid: [u8; 16], layout: &Layout) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES as usize];
        let mut put = |at: usize, bytes: &[u8]| block[SUPERBLOCK_AT + at..][..bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC.to_le_bytes());
        put(8, &FEATURES.to_le_bytes());
        put(12, &[BLOCK_BYTES.ilog2() as u8]);
        // The root is the first inode: the number fits.
        put(14, &(layout.places[0].number() as u16).to_le_bytes());
        put(16, &(self.nodes.len() as u64).to_le_bytes());
        put(24, &layout.time.seconds.to_le_bytes());
        put(32, &layout.time.nanos.to_le_bytes());
        put(36, &(layout.blocks as u32).to_le_bytes());
        // Metadata is counted from the beginning of the image: no inode is number 0, which `readdir` takes for nothing.
        put(40, &0u32.to_le_bytes());
        put(44, &((layout.shared_at / BLOCK_BYTES) as u32).to_le_bytes());
        put(48, &uuid);
        let checksum = crc32c(&block[SUPERBLOCK_AT..]);
        block[SUPERBLOCK_AT + 4..][..4].copy_from_slice(&checksum.to_le_bytes());
        block
    }
}

/// The inode itself. `serial` is for programs whose inode numbers have 32 bits.
fn inode(node: &Node, place: &Place, xattr_count: u16, serial: u32) -> Vec<u8> {
    let a = &node.attributes;
    let (file_type, special) = match node.kind {
        Kind::Fifo => (0o010_000, Some(0)),
        Kind::Character(major, minor) => (0o020_000, Some(device(major, minor))),
        Kind::Directory => (0o040_000, None),
        Kind::Block(major, minor) => (0o060_000, Some(device(major, minor))),
        Kind::File(_) => (0o100_000, None),
        Kind::Symlink(_) => (0o120_000, None),
        Kind::Socket => (0o140_000, Some(0)),
    };
    let layout = if place.inline { INLINE } else { PLAIN };
    let mut bytes = Vec::with_capacity(place.inode_bytes() as usize);
    bytes.extend((u16::from(!place.compact) | layout << 1).to_le_bytes());
    bytes.extend(xattr_count.to_le_bytes());
    bytes.extend((file_type | (a.mode & 0o7777) as u16).to_le_bytes());
    let where_or_which = special.unwrap_or(place.block).to_le_bytes();
    if place.compact {
        bytes.extend((node.link_count() as u16).to_le_bytes());
        bytes.extend((place.size as u32).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(where_or_which);
        bytes.extend(serial.to_le_bytes());
        bytes.extend((a.uid as u16).to_le_bytes());
        bytes.extend((a.gid as u16).to_le_bytes());
        bytes.extend([0; 4]);
    } else {
        bytes.extend([0; 2]);
        bytes.extend(place.size.to_le_bytes());
        bytes.extend(where_or_which);
        bytes.extend(serial.to_le_bytes());
        bytes.extend(a.uid.to_le_bytes());
        bytes.extend(a.gid.to_le_bytes());
        bytes.extend(a.mtime.seconds.to_le_bytes());
        bytes.extend(a.mtime.nanos.to_le_bytes());
        bytes.extend(node.link_count().to_le_bytes());
        bytes.extend([0; 16]);
    }
    bytes
}

/// The kernel's `new_encode_dev`.
fn device(major: u32, minor: u32) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

fn write_padded(out: &mut (impl Write + Seek), at: u64, bytes: &[u8]) -> io::Result<()> {
    out.seek(SeekFrom::Start(at))?;
    out.write_all(bytes)?;
    let padding = bytes.len().next_multiple_of(BLOCK_BYTES as usize) - bytes.len();
    out.write_all(&vec![0; padding])
}

fn read_some(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
