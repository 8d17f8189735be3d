//! What keeps things alive while a process needs them, and finds the leftovers of those that died.
//!
//! Every store handle has at most one session: a file `leases/<id>` with a line for each thing it needs, and a
//! directory `tmp/<id>/`, both guarded by one locked file `tmp/<id>.lock`. The kernel drops the lock with the process;
//! whoever then takes it may clean up.
//!
//! Against the race "found it, then somebody collected it": a thing is written into the lease while holding
//! `gc.lock` shared, and looked for after that; the collector holds `gc.lock` exclusively while it reads leases and
//! takes things away.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ctk_oci::Digest;
use rustix::fs::{FlockOperation, flock};

use crate::error::Context;
use crate::fsutil::{names, open_lock_file, remove_if_there, remove_tree, still_there, try_lock};
use crate::{Store, StoreError};

/// The part of a store handle that other processes must respect.
pub struct Session {
    root: PathBuf,
    state: Mutex<Option<Active>>,
    counter: AtomicU64,
}

struct Active {
    id: String,
    lease: File,
    held: HashSet<String>,
    /// Locked; dropped last.
    guard: File,
}

/// One thing a lease holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    Blob(Digest),
    Layer(String),
}

impl Held {
    pub fn line(&self) -> String {
        match self {
            Held::Blob(digest) => format!("blob {digest}\n"),
            Held::Layer(name) => format!("layer {name}\n"),
        }
    }

    fn parse(line: &str) -> Option<Held> {
        match line.split_once(' ')? {
            ("blob", digest) => digest.parse().ok().map(Held::Blob),
            ("layer", name) => Some(Held::Layer(name.into())),
            _ => None,
        }
    }
}

impl Session {
    pub fn new(root: &Path) -> Session {
        Session { root: root.to_owned(), state: Mutex::new(None), counter: AtomicU64::new(0) }
    }

    /// Shuts the collector out until dropped. Short: a file opened for each time, because locks of one open file
    /// are not counted.
    pub fn adding(&self) -> Result<File, StoreError> {
        let path = self.root.join("gc.lock");
        let file = open_lock_file(&path)?;
        flock(&file, FlockOperation::LockShared).context("lock", &path)?;
        Ok(file)
    }

    /// Writes `things` into the lease. Hold [`Session::adding`] until they are known to be there.
    pub fn hold(&self, things: &[Held]) -> Result<(), StoreError> {
        self.with(|active, root| {
            let mut lines = String::new();
            for thing in things {
                let line = thing.line();
                if !active.held.contains(&line) {
                    lines.push_str(&line);
                }
            }
            if !lines.is_empty() {
                let path = root.join("leases").join(&active.id);
                active.lease.write_all(lines.as_bytes()).context("write", &path)?;
                active.held.extend(lines.split_inclusive('\n').map(str::to_owned));
            }
            Ok(())
        })
    }

    /// Whether this handle holds it already; then it cannot go away.
    pub fn holds(&self, thing: &Held) -> bool {
        let state = self.state.lock().expect("no panic while locked");
        state.as_ref().is_some_and(|active| active.held.contains(&thing.line()))
    }

    /// A new path in this session's part of `tmp/`.
    pub fn temporary(&self) -> Result<PathBuf, StoreError> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        self.with(|active, root| Ok(root.join("tmp").join(&active.id).join(number.to_string())))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Active, &Path) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut state = self.state.lock().expect("no panic while locked");
        if state.is_none() {
            *state = Some(Active::begin(&self.root)?);
        }
        work(state.as_mut().expect("just begun"), &self.root)
    }
}

impl Active {
    fn begin(root: &Path) -> Result<Active, StoreError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = root.join("tmp").join(format!("{id}.lock"));
            // A process id comes back some day, and containers see the same ones: taken names are skipped.
            let guard = match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                guard => guard.context("create", &path)?,
            };
            if !try_lock(&guard, &path)? || !still_there(&guard, &path) {
                continue;
            }
            let (directory, lease_path) = (root.join("tmp").join(&id), root.join("leases").join(&id));
            fs::create_dir(&directory).context("create directory", &directory)?;
            let lease =
                OpenOptions::new().append(true).create(true).open(&lease_path).context("create", &lease_path)?;
            return Ok(Active { id, lease, held: HashSet::new(), guard });
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(active) = self.state.get_mut().ok().and_then(Option::take) else { return };
        // What cannot be removed now is removed by the next open or collection.
        let _ = clear(&self.root, &active.id);
        drop(active.guard);
    }
}

/// Removes what session `id` left; its guard must be locked by the caller. The guard's file goes last.
fn clear(root: &Path, id: &str) -> Result<(), StoreError> {
    remove_tree(&root.join("tmp").join(id))?;
    remove_if_there(&root.join("leases").join(id))?;
    remove_if_there(&root.join("tmp").join(format!("{id}.lock")))
}

/// How the temporary names of the file begin that says the store's format.
pub const FORMAT_PART: &str = "format-";

/// Removes what sessions of dead processes left, and locks that nobody holds. The store has its format: who still writes that is too late.
pub fn clear_dead(root: &Path) -> Result<(), StoreError> {
    for name in names(&root.join("tmp"))? {
        if name.starts_with(FORMAT_PART) {
            remove_if_there(&root.join("tmp").join(&name))?;
        }
        let Some(id) = name.strip_suffix(".lock") else { continue };
        let path = root.join("tmp").join(&name);
        let Ok(guard) = File::open(&path) else { continue };
        if try_lock(&guard, &path)? && still_there(&guard, &path) {
            clear(root, id)?;
        }
    }
    for name in names(&root.join("locks"))? {
        let path = root.join("locks").join(&name);
        let Ok(file) = File::open(&path) else { continue };
        if try_lock(&file, &path)? && still_there(&file, &path) {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

/// The directory of containers, below the root.
pub const CONTAINERS: &str = "containers";
/// What a container needs: a file in its directory, with the lines of a session's lease.
pub const CONTAINER_LEASE: &str = "lease";

/// What living sessions and containers hold. Call it with `gc.lock` held exclusively, after [`clear_dead`].
pub fn held_by_all(root: &Path) -> Result<Vec<Held>, StoreError> {
    let mut held = Vec::new();
    for name in names(&root.join("leases"))? {
        let path = root.join("leases").join(&name);
        // A session may end meanwhile; then it needs nothing.
        let lines = crate::fsutil::read_if_there(&path)?.unwrap_or_default();
        held.extend(String::from_utf8_lossy(&lines).lines().filter_map(Held::parse));
    }
    // After the sessions: whoever makes a container holds what it needs until its lease is written.
    let containers = root.join(CONTAINERS);
    for name in if containers.exists() { names(&containers)? } else { Vec::new() } {
        // Beside them are files of all containers together.
        if name.starts_with('.') {
            continue;
        }
        let path = containers.join(&name).join(CONTAINER_LEASE);
        let lines = crate::fsutil::read_if_there(&path)?.unwrap_or_default();
        held.extend(String::from_utf8_lossy(&lines).lines().filter_map(Held::parse));
    }
    Ok(held)
}

/// A directory of its own in the store's filesystem; removed on drop, or by the next process if this one is killed.
///
/// It keeps the store's handle alive, and so what that holds.
pub struct Scratch {
    path: PathBuf,
    _store: Store,
}

impl Scratch {
    pub(crate) fn new(path: PathBuf, store: Store) -> Result<Scratch, StoreError> {
        fs::create_dir(&path).context("create directory", &path)?;
        Ok(Scratch { path, _store: store })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed with the session.
        let _ = remove_tree(&self.path);
    }
}

/// A named lock, held until dropped. Different handles and processes exclude each other.
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    pub(crate) fn new(path: PathBuf, file: File) -> Lock {
        Lock { path, _file: file }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while locked; those who wait for it notice and make it anew.
        let _ = fs::remove_file(&self.path);
    }
}
