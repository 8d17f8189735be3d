//! Directories that survive builds: `cache/` of the store, a lock file beside each.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ctk_buildgraph::{Exec, KeyHasher, MountKind, Op, Selection, Sharing};
use ctk_plan::Cancel;
use ctk_snapshot::copy::{CopiedXattrs, CopyOptions, Mtime, Verdict, copy_into};
use ctk_store::Store;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, flock, openat2};
use rustix::io::Errno;

use super::bind::missing;
use crate::BuildError;
use crate::context::{below, digest_of};
use crate::ops::Work;

/// The caches that one process uses, by their names; locked until dropped.
#[derive(Default)]
pub(super) struct Caches {
    held: BTreeMap<String, (PathBuf, File)>,
}

/// Private caches of one name: as many as a machine would ever run side by side.
const PRIVATE_MAX: usize = 1000;
/// How often a waiting build looks whether a locked cache is free.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

impl Caches {
    /// Locks all caches of `exec`, in the order of their names: two processes never wait for each other. One that is
    /// mounted twice is locked once.
    pub fn lock(work: &Work<'_>, exec: &Exec) -> Result<Caches, BuildError> {
        let mut wanted: BTreeMap<String, (&str, Sharing)> = BTreeMap::new();
        for mount in &exec.mounts {
            if let MountKind::Cache { id, sharing, .. } = &mount.kind {
                wanted.insert(name(work, &mount.kind)?, (id, *sharing));
            }
        }
        let mut caches = Caches::default();
        if wanted.is_empty() {
            return Ok(caches);
        }
        let root = work.job.request.world.store.root().join("cache");
        fs::create_dir_all(&root).map_err(BuildError::read("create", &root))?;
        for (name, (id, sharing)) in wanted {
            let held = lock(work, &root, &name, id, sharing)?;
            caches.held.insert(name, held);
        }
        Ok(caches)
    }

    /// What is to be mounted for `kind`; made, and filled, if it is not there.
    pub fn directory(&self, work: &Work<'_>, kind: &MountKind) -> Result<OwnedFd, BuildError> {
        let MountKind::Cache { id, input, source, selection, mode, uid, gid, .. } = kind else {
            unreachable!("asked for caches only")
        };
        let (directory, _) = &self.held[&name(work, kind)?];
        if !directory.exists() {
            let scratch = work.job.request.world.store.scratch()?;
            let new = scratch.path().join("cache");
            fs::create_dir(&new).map_err(BuildError::read("create", &new))?;
            let imported = work.job.imports.mount(&name(work, kind)?, id, &new, work.cancel)?;
            match input {
                _ if imported => {}
                Some(input) => fill(work, *input, source, selection.as_ref(), &new)?,
                None => {
                    chown(&new, Some(*uid), Some(*gid)).map_err(BuildError::read("chown", &new))?;
                    fs::set_permissions(&new, Permissions::from_mode(*mode))
                        .map_err(BuildError::read("chmod", &new))?;
                }
            }
            // Somebody with whom it is shared may have been faster: then this one goes. Theirs must not, though it may
            // still be empty.
            match rustix::fs::renameat_with(CWD, &new, CWD, directory, RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(BuildError::read("create", directory)(e.into())),
            }
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory, flags | OFlags::DIRECTORY, Mode::empty());
        let opened = opened.map_err(|e| BuildError::read("open", directory)(e.into()))?;
        if source.is_empty() {
            return Ok(opened);
        }
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&opened, source.as_str(), flags, Mode::empty(), resolve).map_err(|_| missing(source, "the cache"))
    }
}

/// The file name of a cache. Attributes that are not the usual ones and first content make another cache, as with
/// BuildKit.
fn name(work: &Work<'_>, kind: &MountKind) -> Result<String, BuildError> {
    let MountKind::Cache { id, input, source, selection, mode, uid, gid, .. } = kind else {
        unreachable!("asked for caches only")
    };
    let Some(input) = input else { return Ok(empty_name(id, *mode, *uid, *gid)) };
    let plain = plain_name(id);
    let content = match local(work, *input, selection.as_ref()) {
        Some((_, selection)) => digest_of(&work.job.contexts.find(selection)?).into_bytes(),
        None => work.inputs[*input].describe(),
    };
    let mut hasher = KeyHasher::new("cache");
    hasher.part(&content).part(source.as_bytes());
    Ok(format!("{plain}-{}", &hasher.finish().as_str()[..32]))
}

fn plain_name(id: &str) -> String {
    blake3::hash(id.as_bytes()).to_hex()[..32].to_owned()
}

/// The name of one that begins empty.
fn empty_name(id: &str, mode: u32, uid: u32, gid: u32) -> String {
    let plain = plain_name(id);
    match (mode, uid, gid) {
        (0o755, 0, 0) => plain,
        (mode, uid, gid) => format!("{plain}-{mode:o}-{uid}-{gid}"),
    }
}

/// A cache that nobody writes to while this lives.
pub(crate) struct SharedCache {
    path: PathBuf,
    _lock: File,
}

impl SharedCache {
    /// The file name of a cache that begins empty; those with first content stay on their machine.
    pub fn name(kind: &MountKind) -> Option<String> {
        match kind {
            MountKind::Cache { id, input: None, mode, uid, gid, .. } => Some(empty_name(id, *mode, *uid, *gid)),
            _ => None,
        }
    }

    /// Waits until nobody uses it. Nothing if there is no such cache.
    pub fn lock(store: &Store, name: &str, cancel: &Cancel) -> Result<Option<SharedCache>, BuildError> {
        let root = store.root().join("cache");
        let path = root.join(name);
        if !path.is_dir() {
            return Ok(None);
        }
        let lock = root.join(format!("{name}.lock"));
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
        let file = open.map_err(BuildError::read("open", &lock))?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(SharedCache { path, _lock: file })),
                Err(Errno::WOULDBLOCK) if cancel.is_cancelled() => return Err(BuildError::Cancelled),
                Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
                Err(e) => return Err(BuildError::read("lock", &lock)(e.into())),
            }
        }
    }

    /// Its files.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn local<'w>(work: &'w Work<'_>, input: usize, selection: Option<&'w Selection>) -> Option<(&'w str, &'w Selection)> {
    match (&work.job.plan.lowered.graph.get(work.vertex.inputs[input]).op, selection) {
        (Op::Local { context }, Some(selection)) => Some((context, selection)),
        _ => None,
    }
}

/// Copies the first content to the place that it has in its tree.
fn fill(
    work: &Work<'_>,
    input: usize,
    source: &str,
    selection: Option<&Selection>,
    into: &Path,
) -> Result<(), BuildError> {
    let root = rustix::fs::open(into, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(|e| BuildError::read("open", into)(e.into()))?;
    let mut options = CopyOptions {
        owner: None,
        mode: None,
        parents_mode: 0o755,
        mtime: Mtime::Keep,
        follow: true,
        xattrs: CopiedXattrs::All,
        filter: None,
    };
    let dest = format!("/{source}");
    if let Some((name, selection)) = local(work, input, selection) {
        let context = work.job.contexts.get(name)?;
        let found = work.job.contexts.find_all(selection)?;
        let found = found.first().ok_or_else(|| missing(source, "the context"))?;
        let allowed: std::collections::HashSet<Vec<u8>> =
            found.all().iter().map(|e| below(&found.path, &e.path).to_vec()).collect();
        let filter = |path: &[u8], _: bool| if allowed.contains(path) { Verdict::Take } else { Verdict::Skip };
        (options.owner, options.xattrs) = (Some((0, 0)), CopiedXattrs::User);
        let options = CopyOptions { filter: Some(&filter), ..options };
        copy_into(root.as_fd(), dest.as_bytes(), context.root(), &found.path, &options, work.cancel)?;
        return Ok(());
    }
    let tree = work.tree(input)?;
    if tree.stat(source)?.is_none() {
        let name = &work.job.plan.lowered.graph.get(work.vertex.inputs[input]).name;
        return Err(missing(source, &format!("the result of `{name}`")));
    }
    copy_into(root.as_fd(), dest.as_bytes(), tree.root(), source.as_bytes(), &options, work.cancel)?;
    Ok(())
}

/// The cache's directory and the lock that says who uses it.
fn lock(work: &Work<'_>, root: &Path, name: &str, id: &str, sharing: Sharing) -> Result<(PathBuf, File), BuildError> {
    let open = |name: &str| {
        let path = root.join(format!("{name}.lock"));
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(BuildError::read("open", path))
    };
    let try_lock = |file: &File, operation| match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(BuildError::read("lock", root)(e.into())),
    };
    if sharing == Sharing::Private {
        for number in 0..PRIVATE_MAX {
            let name = if number == 0 { name.to_owned() } else { format!("{name}-{number}") };
            let file = open(&name)?;
            if try_lock(&file, FlockOperation::NonBlockingLockExclusive)? {
                return Ok((root.join(name), file));
            }
        }
        return Err(BuildError::BadOption(format!("cache `{id}` is used {PRIVATE_MAX} times at once")));
    }
    let operation = match sharing {
        Sharing::Locked => FlockOperation::NonBlockingLockExclusive,
        _ => FlockOperation::NonBlockingLockShared,
    };
    let file = open(name)?;
    while !try_lock(&file, operation)? {
        if work.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Ok((root.join(name), file))
}
