//! The next layer, while it is being made.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ctk_layer::Time;
use ctk_oci::Mount;
use ctk_store::Scratch;
use rustix::fs::FileType;

use crate::dir::{DIRECTORY, Place, kind_of, mtime_of, sorted_names, stat_if_there, timestamps, xattrs};
use crate::error::Context;
use crate::extract::open_directory;
use crate::overlay::Overlay;
use crate::snapshots::{Info, RootAttributes};
use crate::{LayerKey, Made, SnapshotError, Snapshots};

/// A writable tree over parents; what changes becomes a layer by [`Workspace::commit`], or nothing when dropped.
///
/// It may be mounted several times, one after the other (a RUN, then file operations): close or end one mount before
/// the next, and all before committing.
pub struct Workspace {
    snapshots: Snapshots,
    lower: Vec<PathBuf>,
    root: RootAttributes,
    upper: PathBuf,
    mounts: AtomicU32,
    scratch: Scratch,
    made: Made,
    /// Whether programs may have run in it.
    programs: bool,
    /// When it was begun, by the file system's clock.
    begun: Time,
}

impl Workspace {
    pub(crate) fn new(snapshots: &Snapshots, parents: &[LayerKey]) -> Result<Workspace, SnapshotError> {
        let lower = snapshots.lower(parents)?;
        let attributes = snapshots.root_attributes(parents)?;
        let scratch = snapshots.store().scratch()?;
        let upper = scratch.path().join("fs");
        fs::create_dir(&upper).context("create directory", upper.as_os_str().as_encoded_bytes())?;
        attributes.apply(&open_directory(&upper)?).context("set attributes of", b"/")?;
        let root = attributes;
        let (mounts, made, begun) = (AtomicU32::new(0), snapshots.made(parents)?, changed(&upper)?);
        let snapshots = snapshots.clone();
        Ok(Workspace { snapshots, lower, root, upper, mounts, scratch, made, programs: true, begun })
    }

    /// A writable tree over a directory of the host, which itself stays as it is.
    pub(crate) fn over(snapshots: &Snapshots, directory: &Path) -> Result<Workspace, SnapshotError> {
        let name = directory.as_os_str().as_encoded_bytes();
        let stat = rustix::fs::stat(directory).context("stat", name)?;
        let scratch = snapshots.store().scratch()?;
        let upper = scratch.path().join("fs");
        fs::create_dir(&upper).context("create directory", upper.as_os_str().as_encoded_bytes())?;
        let mtime = mtime_of(&stat);
        let root = RootAttributes {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (mtime.seconds, mtime.nanos),
            xattrs: Vec::new(),
        };
        root.apply(&open_directory(&upper)?).context("set attributes of", b"/")?;
        let lower = vec![directory.to_owned()];
        let (mounts, made, begun) = (AtomicU32::new(0), Made::default(), changed(&upper)?);
        let snapshots = snapshots.clone();
        Ok(Workspace { snapshots, lower, root, upper, mounts, scratch, made, programs: true, begun })
    }

    /// The root of a container over this workspace, for the runtime. Each call makes a mount of its own.
    pub fn root_mount(&self) -> Result<Mount, SnapshotError> {
        let work = self.work()?;
        self.overlay(&work).mount()
    }

    /// The root as a detached mount, for file operations from outside. It lasts as long as the fd.
    ///
    /// Over no parents at all there is nothing to overlay; the fd is the layer's own directory then.
    pub fn open_root(&self) -> Result<OwnedFd, SnapshotError> {
        if self.lower.is_empty() {
            return open_directory(&self.upper);
        }
        let work = self.work()?;
        self.overlay(&work).open()
    }

    /// The directory that becomes the layer, in overlay's format.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// Whether nothing was changed so far.
    pub fn is_empty(&self) -> Result<bool, SnapshotError> {
        Ok(self.look()?.empty)
    }

    /// Says that files may come from these layers, too, or have the [stamp](Made::stamp) of `now_seconds`.
    pub fn made_from(&mut self, layers: &[LayerKey], now_seconds: i64) -> Result<(), SnapshotError> {
        self.made.merge(&self.snapshots.made(layers)?);
        self.made.add_stamp(now_seconds);
        Ok(())
    }

    /// Says that no program runs in it: all times are those that it is told to set, but for directories that change.
    /// Then a time is only taken for the step's own if it is that exactly ([`Made`]).
    pub fn without_programs(&mut self) {
        self.programs = false;
    }

    /// Makes it the layer `key`, at once. A layer of that key that is already there wins: the key says
    /// how it was made, so it is the same.
    pub fn commit(self, key: &LayerKey) -> Result<(), SnapshotError> {
        let end = self.scratch.path().join("end");
        fs::create_dir(&end).context("create directory", end.as_os_str().as_encoded_bytes())?;
        let ended = changed(&end)?;
        fs::remove_dir(&end).context("remove", end.as_os_str().as_encoded_bytes())?;
        let mut look = Look { bytes: 0, stamped: (!self.programs).then_some((self.begun, ended)) };
        look.below(&open_directory(&self.upper)?)?;
        let mut info = Info { bytes: look.bytes, ..self.look()? };
        match self.programs {
            true => info.made.add_program(self.begun.seconds, ended.seconds),
            false => info.made.add_stamp(self.begun.seconds),
        }
        for number in 0..self.mounts.load(Ordering::Relaxed) {
            let work = self.scratch.path().join(format!("work-{number}"));
            fs::remove_dir_all(&work).context("remove", work.as_os_str().as_encoded_bytes())?;
        }
        let none = self.scratch.path().join("none");
        if none.exists() {
            fs::remove_dir(&none).context("remove", none.as_os_str().as_encoded_bytes())?;
        }
        self.snapshots.adopt(&self.scratch, key, &info)
    }

    fn overlay<'a>(&'a self, work: &'a Path) -> Overlay<'a> {
        let mut lower = self.lower.clone();
        if lower.is_empty() {
            // An overlay wants a lower directory; the work directory's neighbour is empty for good.
            lower.push(work.with_file_name("none"));
        }
        Overlay { lower, upper: Some((&self.upper, work)) }
    }

    /// A work directory of its own for each mount: a volatile overlay refuses one that was used.
    fn work(&self) -> Result<PathBuf, SnapshotError> {
        let none = self.scratch.path().join("none");
        if self.lower.is_empty() && !none.exists() {
            fs::create_dir(&none).context("create directory", none.as_os_str().as_encoded_bytes())?;
        }
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        let work = self.scratch.path().join(format!("work-{number}"));
        fs::create_dir(&work).context("create directory", work.as_os_str().as_encoded_bytes())?;
        Ok(work)
    }

    /// What the layer would be, but for its weight.
    fn look(&self) -> Result<Info, SnapshotError> {
        let root = open_directory(&self.upper)?;
        let stat = rustix::fs::fstat(&root).context("stat", b"/")?;
        let attributes = RootAttributes {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: self.root.mtime,
            xattrs: xattrs(Place::Open(root.as_fd())).context("read attributes of", b"/")?.into_iter().collect(),
        };
        let changed = attributes != self.root;
        let names = sorted_names(&root).context("list", b"/")?;
        let mtime = mtime_of(&stat);
        let attributes = RootAttributes { mtime: (mtime.seconds, mtime.nanos), ..attributes };
        let empty = names.is_empty() && !changed;
        Ok(Info { empty, root: changed.then_some(attributes), made: self.made.clone(), ..Info::default() })
    }
}

/// When a directory was changed last, by the file system's clock.
fn changed(directory: &Path) -> Result<Time, SnapshotError> {
    let stat = rustix::fs::stat(directory).context("stat", directory.as_os_str().as_encoded_bytes())?;
    Ok(Time { seconds: stat.st_ctime, nanos: stat.st_ctime_nsec as u32 })
}

/// A last look at the files of a layer.
struct Look {
    /// Of its files, for the collector's accounts.
    bytes: u64,
    /// Directories whose time lies between these got it from the file system, when something was put into them. They get
    /// the first one's stamp.
    stamped: Option<(Time, Time)>,
}

impl Look {
    fn below(&mut self, directory: &OwnedFd) -> Result<(), SnapshotError> {
        for name in sorted_names(directory).context("list", b"")? {
            let Some(stat) = stat_if_there(directory, &name).context("stat", &name)? else { continue };
            match kind_of(&stat) {
                FileType::Directory => {
                    let flags = DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
                    let child = rustix::fs::openat(directory, &name[..], flags, rustix::fs::Mode::empty());
                    self.below(&child.context("open", &name)?)?;
                }
                FileType::RegularFile => self.bytes += stat.st_size as u64,
                _ => {}
            }
        }
        let stat = rustix::fs::fstat(directory).context("stat", b"")?;
        if let Some((begun, ended)) = self.stamped
            && (begun..=ended).contains(&mtime_of(&stat))
        {
            let stamp = timestamps(Made::stamp(begun.seconds));
            rustix::fs::futimens(directory, &stamp).context("set the time of", b"")?;
        }
        Ok(())
    }
}

/// A container's root: writable, deleted on drop, never a layer.
pub struct Ephemeral {
    workspace: Workspace,
}

impl Ephemeral {
    pub(crate) fn new(workspace: Workspace) -> Ephemeral {
        Ephemeral { workspace }
    }

    /// See [`Workspace::root_mount`].
    pub fn root_mount(&self) -> Result<Mount, SnapshotError> {
        self.workspace.root_mount()
    }

    /// See [`Workspace::open_root`].
    pub fn open_root(&self) -> Result<OwnedFd, SnapshotError> {
        self.workspace.open_root()
    }

    /// A path of it, resolved inside, as a mount of a container at `destination`. Each call makes a mount of its own.
    pub fn part_mount(&self, path: &str, destination: &str, writable: bool) -> Result<Mount, SnapshotError> {
        let mut mount = self.workspace.root_mount()?;
        mount.destination = destination.to_owned();
        mount.options.extend([format!("subpath={path}"), "nodev".into()]);
        if !writable {
            mount.options.push("ro".into());
        }
        Ok(mount)
    }

    /// What was written, in overlay's format.
    pub fn upper(&self) -> &Path {
        self.workspace.upper()
    }
}
