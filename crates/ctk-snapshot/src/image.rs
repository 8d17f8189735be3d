//! Layers as EROFS images beside their trees: one file, mounted as it is.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use ctk_erofs::{Attributes, Kind, NodeId, Time, Tree};
use ctk_oci::Algorithm;
use ctk_plan::Cancel;
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, major, minor, openat, readlinkat};

use crate::dir::{
    DIRECTORY, Place, is_opaque, join, kind_of, mtime_of, open_in_root, sorted_names, stat_if_there, xattrs,
};
use crate::error::Context;
use crate::extract::open_directory;
use crate::limits::DEPTH_MAX;
use crate::pack::cancelled;
use crate::{LayerKey, SnapshotError, Snapshots};

/// In what form layers are mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayerForm {
    /// Their unpacked trees.
    #[default]
    Tree,
    /// An EROFS image of each, made of its tree when it is mounted first. The kernel mounts files since linux 6.12, and
    /// in no user namespace; there it is the trees all the same.
    Image,
}

/// Its name beside the layer's tree.
pub const IMAGE: &str = "image.erofs";
/// Bytes that are written to an image at once.
const WRITE_BYTES: usize = 256 << 10;

impl Snapshots {
    /// The layer's image, made if it is not there yet. Safe to repeat, also by several processes at once.
    pub fn image(&self, key: &LayerKey) -> Result<PathBuf, SnapshotError> {
        let tree = self.tree_path(key)?;
        let image = tree.with_file_name(IMAGE);
        if image.exists() {
            return Ok(image);
        }
        let _lock = self.store().lock(&format!("image {key}"), &Cancel::new()).map_err(cancelled)?;
        if image.exists() {
            return Ok(image);
        }
        let scratch = self.store().scratch()?;
        let path = scratch.path().join(IMAGE);
        let name = path.as_os_str().as_encoded_bytes();
        let file = File::create_new(&path).context("create", name)?;
        let failed = |source| SnapshotError::Image { key: key.to_string(), source };
        let root = open_directory(&tree)?;
        // The directory's own time, and perhaps more, is no part of the layer.
        let top = self.info(key)?.root.clone().unwrap_or_default();
        let (mode, uid, gid) = (top.mode, top.uid, top.gid);
        let mtime = Time { seconds: top.mtime.0, nanos: top.mtime.1 };
        let top = Attributes { mode, uid, gid, mtime, xattrs: top.xattrs.into_iter().collect() };
        let mut walk = Walk { tree: Tree::new(top).map_err(failed)?, paths: vec![vec![]], links: HashMap::new() };
        walk.below(root.as_fd(), Tree::ROOT, 0, &failed)?;
        let mut open = |id: NodeId| -> io::Result<File> {
            Ok(open_in_root(&root, &walk.paths[id.index()], OFlags::RDONLY | OFlags::NOFOLLOW)?.into())
        };
        let mut out = BufWriter::with_capacity(WRITE_BYTES, &file);
        walk.tree.write(uuid(key), &mut out, &mut open).map_err(failed)?;
        drop(out);
        // The layer may be on the disk already and believed: so must be what lies beside it.
        file.sync_data().context("sync", name)?;
        std::fs::rename(&path, &image).context("rename", image.as_os_str().as_encoded_bytes())?;
        Ok(image)
    }
}

/// Images of different layers are told apart by overlay.
fn uuid(key: &LayerKey) -> [u8; 16] {
    let mut digester = Algorithm::Sha256.digester();
    digester.update(key.to_string().as_bytes());
    let hex = digester.finish();
    std::array::from_fn(|i| u8::from_str_radix(&hex.hex()[2 * i..2 * i + 2], 16).expect("a digest is hexadecimal"))
}

struct Walk {
    tree: Tree,
    /// Of each node, below the root.
    paths: Vec<Vec<u8>>,
    /// Files with several names, by inode.
    links: HashMap<u64, NodeId>,
}

impl Walk {
    fn below(
        &mut self,
        directory: BorrowedFd<'_>,
        id: NodeId,
        depth: usize,
        failed: &dyn Fn(ctk_erofs::ErofsError) -> SnapshotError,
    ) -> Result<(), SnapshotError> {
        let here = self.paths[id.index()].clone();
        if depth > DEPTH_MAX {
            let reason = "directories are nested too deeply";
            return Err(SnapshotError::Refused { path: crate::error::display(&here), reason });
        }
        for name in sorted_names(directory).context("list", &here)? {
            let path = join(&here, &name);
            let Some(stat) = stat_if_there(directory, &name).context("stat", &path)? else { continue };
            let kind = kind(directory, &name, &stat).context("read link", &path)?;
            if kind == Kind::Directory {
                let flags = DIRECTORY | OFlags::NOFOLLOW;
                let child = openat(directory, &name[..], flags, Mode::empty()).context("open", &path)?;
                let added = self.tree.add(id, &name, kind, attributes(&child)?).map_err(failed)?;
                self.paths.push(path);
                self.below(child.as_fd(), added, depth + 1, failed)?;
                continue;
            }
            if let Some(known) = self.links.get(&stat.st_ino) {
                self.tree.link(id, &name, *known).map_err(failed)?;
                continue;
            }
            let xattrs = xattrs(Place::Named(directory, &name)).context("read attributes of", &path)?;
            let attributes = Attributes { xattrs, ..plain(&stat) };
            let added = self.tree.add(id, &name, kind, attributes).map_err(failed)?;
            self.paths.push(path);
            if stat.st_nlink > 1 {
                self.links.insert(stat.st_ino, added);
            }
        }
        Ok(())
    }
}

fn kind(directory: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> io::Result<Kind> {
    Ok(match kind_of(stat) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File(stat.st_size as u64),
        FileType::Symlink => Kind::Symlink(readlinkat(directory, name, Vec::new())?.into_bytes()),
        FileType::CharacterDevice => Kind::Character(major(stat.st_rdev), minor(stat.st_rdev)),
        FileType::BlockDevice => Kind::Block(major(stat.st_rdev), minor(stat.st_rdev)),
        FileType::Fifo => Kind::Fifo,
        _ => Kind::Socket,
    })
}

/// Of a directory, with overlay's note that it is opaque.
fn attributes(directory: &OwnedFd) -> Result<Attributes, SnapshotError> {
    let stat = fstat(directory).context("stat", b"")?;
    let mut xattrs = xattrs(Place::Open(directory.as_fd())).context("read attributes of", b"")?;
    if is_opaque(directory).context("read attributes of", b"")? {
        xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
    }
    Ok(Attributes { xattrs, ..plain(&stat) })
}

fn plain(stat: &Stat) -> Attributes {
    let mtime = mtime_of(stat);
    Attributes { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, ..Attributes::default() }
}
