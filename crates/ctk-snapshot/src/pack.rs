//! A layer's tree as a tar: walked in sorted order, compressed and hashed in the same pass.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ctk_layer::{Compression, Entry, EntryKind, LayerError, LayerWriter, TarWriter, opaque_name, whiteout_name};
use ctk_oci::{Descriptor, DiffId};
use ctk_plan::Cancel;
use ctk_store::{Links, StoreError};
use rustix::fs::{FileType, Mode, OFlags, Stat, major, minor, openat, readlinkat};
use serde::{Deserialize, Serialize};

use crate::copier::open_source;
use crate::dir::{
    DIRECTORY, Place, is_opaque, is_whiteout, join, kind_of, mtime_of, open_in_root, resolve_leaf, sorted_names, split,
    stat_if_there, xattrs,
};
use crate::error::{Context, display};
use crate::extract::open_directory;
use crate::limits::DEPTH_MAX;
use crate::{LayerKey, Made, SnapshotError, Snapshots};

/// A layer as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// The compressed tar, a blob of the store.
    pub descriptor: Descriptor,
    /// Digest of the plain tar.
    pub diff_id: DiffId,
    /// Size of the plain tar, in bytes.
    pub uncompressed_size: u64,
    /// Whether times that a program chose were cut, or are just the date: for a later date it is another layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// The namespace of the records that remember packed layers.
pub(crate) const RECORDS: &str = "packed";

/// The name of such a record.
pub(crate) fn packed_record(key: &LayerKey, compression: Compression, epoch: Option<i64>) -> String {
    let epoch = epoch.map_or_else(|| "none".to_owned(), |e| e.to_string());
    format!("{key} {} {epoch}", compression.key())
}

impl Snapshots {
    /// The layer `key` as a blob: packed now, or remembered from the last time. Times after `epoch` (seconds), and those
    /// at which its files were [made](Made), become `epoch`, so that the same files give the same digest whenever that was.
    ///
    /// For layers that were built here. A pulled layer has its blob; packing its tree would give another one.
    pub fn pack(
        &self,
        key: &LayerKey,
        compression: Compression,
        epoch: Option<i64>,
        cancel: &Cancel,
    ) -> Result<Packed, SnapshotError> {
        let record = packed_record(key, compression, epoch);
        let cached = || -> Result<Option<Packed>, SnapshotError> {
            let Some(packed) = self.store().record::<Packed>(RECORDS, &record)? else { return Ok(None) };
            Ok(self.store().contains(&packed.descriptor.digest)?.then_some(packed))
        };
        if let Some(packed) = cached()? {
            return Ok(packed);
        }
        let _lock = self.store().lock(&format!("pack {record}"), cancel).map_err(cancelled)?;
        if let Some(packed) = cached()? {
            return Ok(packed);
        }
        let packed = self.pack_now(key, compression, epoch, cancel)?;
        let links = Links { blobs: vec![packed.descriptor.digest.clone()], layers: vec![key.to_string()], root: false };
        self.store().put_record(RECORDS, &record, &packed, &links)?;
        self.alias(key, &packed.diff_id)?;
        Ok(packed)
    }

    fn pack_now(
        &self,
        key: &LayerKey,
        compression: Compression,
        epoch: Option<i64>,
        cancel: &Cancel,
    ) -> Result<Packed, SnapshotError> {
        let tree = open_directory(&self.tree_path(key)?)?;
        let info = self.info(key)?;
        let made = (epoch, &info.made);
        let packed = self.pack_tree(&key.to_string(), &tree, info.root.is_some(), compression, made, None, cancel)?;
        Ok(Packed { cut: packed.cut || info.cut.is_some(), ..packed })
    }

    /// A directory of its own, with its owner and mode and all times as they are, as a blob. For cache mounts.
    pub fn pack_directory(
        &self,
        directory: &std::path::Path,
        compression: Compression,
        cancel: &Cancel,
    ) -> Result<Packed, SnapshotError> {
        let tree = open_directory(directory)?;
        self.pack_tree(
            &directory.display().to_string(),
            &tree,
            true,
            compression,
            (None, &Made::default()),
            None,
            cancel,
        )
    }

    /// A tree in overlay's format (a container's own layer, or all of it as it is seen) as a blob, with all times as they
    /// are, but for what `skip` leaves out. There is an entry for its root if `with_root`.
    pub fn pack_changes(
        &self,
        tree: BorrowedFd<'_>,
        with_root: bool,
        compression: Compression,
        skip: Skip<'_>,
        cancel: &Cancel,
    ) -> Result<Packed, SnapshotError> {
        let tree = openat(tree, ".", DIRECTORY, Mode::empty()).context("open", b"/")?;
        let made = (None, &Made::default());
        self.pack_tree("of the container", &tree, with_root, compression, made, Some(skip), cancel)
    }

    #[expect(clippy::too_many_arguments, reason = "one layer in all its parts")]
    fn pack_tree(
        &self,
        name: &str,
        tree: &OwnedFd,
        with_root: bool,
        compression: Compression,
        (epoch, made): (Option<i64>, &Made),
        skip: Option<Skip<'_>>,
        cancel: &Cancel,
    ) -> Result<Packed, SnapshotError> {
        let failed = |source: LayerError| match cancel.is_cancelled() {
            true => SnapshotError::Cancelled,
            false => SnapshotError::Pack { key: name.into(), source },
        };
        let failed_to_write = |error: io::Error| failed(LayerError::Write(error));
        let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
        let ingest = self.store().ingest(None)?;
        let mut tar = TarWriter::new(
            LayerWriter::new(ingest, compression, workers).map_err(failed_to_write)?.cancelled_by(cancel),
        );
        let links = HashMap::new();
        let mut packer = Packer {
            name,
            tar: &mut tar,
            merged: None,
            epoch,
            made,
            cut: false,
            links,
            form: Form::Layer(skip),
            cancel,
        };
        if with_root {
            let stat = rustix::fs::fstat(tree).context("stat", b"/")?;
            packer.directory_entry(b"", tree, &stat)?;
        }
        packer.walk(tree.as_fd(), b"", 0)?;
        let cut = packer.cut;
        let writer = tar.finish().map_err(failed)?;
        let (ingest, summary) = writer.finish().map_err(failed_to_write)?;
        let (digest, _) = ingest.commit()?;
        debug_assert_eq!(digest, summary.digest);
        Ok(Packed {
            descriptor: summary.descriptor(),
            diff_id: summary.diff_id,
            uncompressed_size: summary.uncompressed_size,
            cut,
        })
    }

    /// Appends the files of the image with these layers (base first) to `tar`, below the directory `prefix`: what is
    /// seen through all layers, without an entry for the root. Times are those that [`Snapshots::pack`] gives. Hard links
    /// are kept. With `merged`, directories that an earlier call wrote are not written again, and what else is there
    /// already is [`SnapshotError::Taken`].
    pub fn flatten<W: Write>(
        &self,
        parents: &[LayerKey],
        prefix: &str,
        epoch: Option<i64>,
        (tar, merged): (&mut TarWriter<W>, Option<&mut Merged>),
        cancel: &Cancel,
    ) -> Result<(), SnapshotError> {
        let view = self.view(parents)?;
        // What was opened as a path only cannot be read.
        let root = openat(view.open_root()?, ".", DIRECTORY, Mode::empty()).context("open", b"/")?;
        let made = &self.made(parents)?;
        let mut packer = Packer {
            name: "the image's files",
            tar,
            merged,
            epoch,
            made,
            cut: false,
            links: HashMap::new(),
            form: Form::Plain,
            cancel,
        };
        packer.walk(root.as_fd(), prefix.as_bytes(), 0)
    }
}

/// Appends what is at `source` of the tree `root`, a link itself unless `follow`, to `tar`: under the name `name`, or the
/// contents of a directory by themselves if that is empty. Owners, modes and times are as they are, and every file is what
/// it is: nothing is taken for a sign of a layer.
pub fn archive<W: Write>(
    root: BorrowedFd<'_>,
    (source, follow): (&[u8], bool),
    name: &[u8],
    tar: &mut TarWriter<W>,
    cancel: &Cancel,
) -> Result<(), SnapshotError> {
    let made = &Made::default();
    let what = "of the files";
    let links = HashMap::new();
    let mut packer =
        Packer { name: what, tar, merged: None, epoch: None, made, cut: false, links, form: Form::Plain, cancel };
    let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    let found = open_in_root(root, source, flags).context("read", source)?;
    let stat = rustix::fs::fstat(&found).context("stat", source)?;
    if kind_of(&stat) == FileType::Directory {
        let open = openat(&found, ".", DIRECTORY, Mode::empty()).context("open", source)?;
        packer.directory_entry(name, &open, &stat)?;
        return packer.walk(open.as_fd(), name, 0);
    }
    // By the directory that it was found in: its name is the last that the kernel came to.
    let (parent, leaf) = match follow {
        true => resolve_leaf(root, source, None).context("read", source)?,
        false => {
            let (parent, leaf) = split(source);
            (open_in_root(root, parent, DIRECTORY).context("open", parent)?, leaf.to_vec())
        }
    };
    let stat = stat_if_there(&parent, &leaf).context("stat", source)?.unwrap_or(stat);
    if kind_of(&stat) == FileType::Socket {
        let reason = "a socket is no file that could be copied";
        return Err(SnapshotError::Refused { path: display(source), reason });
    }
    packer.leaf(parent.as_fd(), &leaf, name.to_vec(), kind_of(&stat), &stat)
}

pub(crate) fn cancelled(error: StoreError) -> SnapshotError {
    match error {
        StoreError::Cancelled => SnapshotError::Cancelled,
        other => other.into(),
    }
}

/// Paths that images which are merged in one tar have so far, and which of them are directories.
#[derive(Debug, Default)]
pub struct Merged(HashMap<Vec<u8>, bool>);

impl Merged {
    /// Whether the entry has to be written.
    fn add(&mut self, entry: &Entry) -> Result<bool, SnapshotError> {
        let directory = entry.kind == EntryKind::Directory;
        match self.0.insert(entry.path.clone(), directory) {
            None => Ok(true),
            Some(true) if directory => Ok(false),
            Some(_) => Err(SnapshotError::Taken { path: display(&entry.path) }),
        }
    }
}

/// Which paths of a layer are left out, with what is below them; asked with what each is.
pub type Skip<'a> = &'a dyn Fn(&[u8], &Stat) -> bool;

/// What files of a tree are taken for.
#[derive(Clone, Copy)]
enum Form<'a> {
    /// A layer's: some are overlay's signs of what is gone.
    Layer(Option<Skip<'a>>),
    /// Nothing but what they are.
    Plain,
}

struct Packer<'a, W> {
    /// For messages.
    name: &'a str,
    tar: &'a mut TarWriter<W>,
    merged: Option<&'a mut Merged>,
    epoch: Option<i64>,
    made: &'a Made,
    /// See [`Packed::cut`].
    cut: bool,
    /// The first path of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    form: Form<'a>,
    cancel: &'a Cancel,
}

impl<W: Write> Packer<'_, W> {
    fn walk(&mut self, directory: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<(), SnapshotError> {
        if depth > DEPTH_MAX {
            let reason = "directories are nested deeper than 2048 levels";
            return Err(SnapshotError::Refused { path: display(path), reason });
        }
        let layer = matches!(self.form, Form::Layer(_));
        if layer && is_opaque(directory).context("read attributes of", path)? {
            let marker = Entry::new(opaque_name(path), EntryKind::File { size: 0 }, 0o644);
            self.append(&marker, io::empty())?;
        }
        for name in sorted_names(directory).context("list", path)? {
            if self.cancel.is_cancelled() {
                return Err(SnapshotError::Cancelled);
            }
            let path = join(path, &name);
            // Without a parent that changes under us, what was listed is there.
            let Some(stat) = stat_if_there(directory, &name).context("stat", &path)? else { continue };
            if matches!(self.form, Form::Layer(Some(skip)) if skip(&path, &stat)) {
                continue;
            }
            match kind_of(&stat) {
                FileType::Directory => {
                    let child = openat(directory, &name[..], DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
                    let child = child.context("open", &path)?;
                    self.directory_entry(&path, &child, &stat)?;
                    self.walk(child.as_fd(), &path, depth + 1)?;
                }
                _ if layer && is_whiteout(&stat) => {
                    let whiteout = Entry::new(whiteout_name(&path), EntryKind::File { size: 0 }, 0o644);
                    self.append(&whiteout, io::empty())?;
                }
                // A socket is somebody's open door, not content; no tar holds one.
                FileType::Socket => {}
                kind => self.leaf(directory, &name, path, kind, &stat)?,
            }
        }
        Ok(())
    }

    fn directory_entry(&mut self, path: &[u8], open: &OwnedFd, stat: &Stat) -> Result<(), SnapshotError> {
        let mut entry = self.entry(path, EntryKind::Directory, stat);
        entry.xattrs = xattrs(Place::Open(open.as_fd())).context("read attributes of", path)?;
        self.append(&entry, io::empty())
    }

    fn leaf(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        path: Vec<u8>,
        kind: FileType,
        stat: &Stat,
    ) -> Result<(), SnapshotError> {
        if stat.st_nlink > 1 {
            let identity = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&identity) {
                let entry = self.entry(&path, EntryKind::HardLink { target: first.clone() }, stat);
                return self.append(&entry, io::empty());
            }
            self.links.insert(identity, path.clone());
        }
        let device = (major(stat.st_rdev), minor(stat.st_rdev));
        let kind = match kind {
            FileType::RegularFile => {
                let file = open_source(directory, name).context("open", &path)?;
                let file = File::from(file);
                let mut entry = self.entry(&path, EntryKind::File { size: stat.st_size as u64 }, stat);
                entry.xattrs = xattrs(Place::Open(file.as_fd())).context("read attributes of", &path)?;
                return self.append(&entry, file);
            }
            FileType::Symlink => {
                let target = readlinkat(directory, name, Vec::new()).context("read link", &path)?;
                EntryKind::Symlink { target: target.into_bytes() }
            }
            FileType::CharacterDevice => EntryKind::CharDevice { major: device.0, minor: device.1 },
            FileType::BlockDevice => EntryKind::BlockDevice { major: device.0, minor: device.1 },
            _ => EntryKind::Fifo,
        };
        let mut entry = self.entry(&path, kind, stat);
        entry.xattrs = xattrs(Place::Named(directory, name)).context("read attributes of", &path)?;
        self.append(&entry, io::empty())
    }

    fn entry(&mut self, path: &[u8], kind: EntryKind, stat: &Stat) -> Entry {
        let mut entry = Entry::new(path, kind, stat.st_mode & 0o7777);
        (entry.uid, entry.gid) = (stat.st_uid, stat.st_gid);
        let time = mtime_of(stat);
        entry.mtime = self.made.dated(time, self.epoch);
        self.cut |= self.epoch.is_some_and(|epoch| time.seconds >= epoch) && !self.made.holds(time);
        entry
    }

    fn append(&mut self, entry: &Entry, data: impl io::Read) -> Result<(), SnapshotError> {
        if let Some(merged) = &mut self.merged
            && !merged.add(entry)?
        {
            return Ok(());
        }
        let appended = self.tar.append(entry, data);
        appended.map_err(|source| match source {
            _ if self.cancel.is_cancelled() => SnapshotError::Cancelled,
            LayerError::Write(error) if error.kind() == io::ErrorKind::StorageFull => {
                SnapshotError::Full { action: "pack", path: self.name.to_owned(), source: error }
            }
            source => SnapshotError::Pack { key: self.name.to_owned(), source },
        })
    }
}
