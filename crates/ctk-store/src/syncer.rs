//! Blobs that are complete and visible, but perhaps not on the disk yet.
//!
//! Waiting for the disk three times for each blob (its bytes, its name, its new directory) is most of the time that
//! small blobs take. So a thread does that, in the order in which they came, while their makers go on; whoever is about
//! to write down durably that an image is here waits for it first. Should the machine lose its power before, a blob may
//! be damaged and nothing names it: reading it verifies it, and removes it then.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use crate::StoreError;
use crate::error::Context;
use crate::limits::UNSYNCED_BLOBS;

/// What is to be synced: a file, and the directories that name it.
pub(crate) struct Unsynced {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) directories: Vec<PathBuf>,
}

/// Brings blobs to the disk, one handle's.
#[derive(Default)]
pub(crate) struct Syncer {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Unsynced>,
    /// Whether there is a thread; it ends when there is nothing to do.
    running: bool,
    /// What the kernel refused first. It may have let go of the bytes, so nothing of this handle counts as durable
    /// from then on.
    failed: Option<Failure>,
}

#[derive(Clone)]
struct Failure {
    path: PathBuf,
    errno: i32,
}

impl Syncer {
    /// Has it synced soon. Waits only when too much is waiting already.
    pub(crate) fn add(self: &Arc<Self>, unsynced: Unsynced) {
        let mut state = self.state.lock().expect("no panic while locked");
        while state.running && state.waiting.len() >= UNSYNCED_BLOBS {
            state = self.changed.wait(state).expect("no panic while locked");
        }
        state.waiting.push(unsynced);
        if state.running {
            return;
        }
        state.running = true;
        drop(state);
        let syncer = Arc::clone(self);
        if std::thread::Builder::new().name("ctk-sync".into()).spawn(move || syncer.work()).is_err() {
            // No thread to be had: whoever adds does it.
            self.work();
        }
    }

    /// Waits until everything that was added is on the disk; the error is that of the first which could not be, for all
    /// who wait from then on.
    pub(crate) fn wait(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock().expect("no panic while locked");
        while state.running {
            state = self.changed.wait(state).expect("no panic while locked");
        }
        match &state.failed {
            None => Ok(()),
            Some(Failure { path, errno }) => Err(io::Error::from_raw_os_error(*errno)).context("sync", path),
        }
    }

    fn work(&self) {
        loop {
            let batch = {
                let mut state = self.state.lock().expect("no panic while locked");
                if state.waiting.is_empty() {
                    state.running = false;
                    self.changed.notify_all();
                    return;
                }
                std::mem::take(&mut state.waiting)
            };
            self.changed.notify_all();
            if let Some(failure) = sync(batch) {
                self.state.lock().expect("no panic while locked").failed.get_or_insert(failure);
            }
        }
    }
}

/// Syncs all of it, whatever fails on the way; gives the first failure.
fn sync(batch: Vec<Unsynced>) -> Option<Failure> {
    let mut first = None;
    let mut heed = |path: PathBuf, result: io::Result<()>| {
        if let Err(error) = result {
            first.get_or_insert(Failure {
                path,
                errno: error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error()),
            });
        }
    };
    let mut directories = BTreeSet::new();
    for Unsynced { file, path, directories: names } in batch {
        heed(path, file.sync_data());
        directories.extend(names);
    }
    for directory in directories {
        let synced = File::open(&directory).and_then(|open| open.sync_all());
        heed(directory, synced);
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsynced(folder: &std::path::Path, name: &str, directory: &str) -> Unsynced {
        let path = folder.join(name);
        let file = File::create(&path).unwrap();
        Unsynced { file, path, directories: vec![folder.join(directory)] }
    }

    #[test]
    fn whoever_waits_hears_of_the_first_failure() {
        let folder = tempfile::tempdir().unwrap();
        let syncer = Arc::new(Syncer::default());
        syncer.wait().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (folder, syncer) = (folder.path(), &syncer);
                scope.spawn(move || {
                    (0..UNSYNCED_BLOBS).for_each(|n| syncer.add(unsynced(folder, &format!("{thread}-{n}"), "")));
                });
            }
        });
        syncer.wait().unwrap();
        syncer.add(unsynced(folder.path(), "one", "gone"));
        syncer.add(unsynced(folder.path(), "two", ""));
        // Another image's name must not be written down as if nothing had been.
        for _ in 0..2 {
            let error = syncer.wait().unwrap_err().to_string();
            assert!(error.starts_with("cannot sync") && error.contains("gone"), "{error}");
        }
        assert!(syncer.state.lock().unwrap().waiting.is_empty());
    }
}
