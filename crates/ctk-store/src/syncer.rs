//! Blobs that are complete and visible, but perhaps not on the disk yet.
//!
//! Waiting for the disk three times for each blob (its bytes, its name, its new directory) is most of the time that
//! small blobs take. So a thread does that, in the order in which they came, while their makers go on; whoever is about
//! to write down durably that an image is here waits for it first. Should the machine lose its power before, a blob may
//! be damaged and nothing names it: reading it verifies it, and removes it then.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use crate::StoreError;
use crate::error::Context;
use crate::fsutil::sync_directory;
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
    failed: Option<StoreError>,
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

    /// Waits until everything that was added is on the disk; the error is that of the first which could not be.
    pub(crate) fn wait(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock().expect("no panic while locked");
        while state.running {
            state = self.changed.wait(state).expect("no panic while locked");
        }
        state.failed.take().map_or(Ok(()), Err)
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
            if let Err(error) = sync(batch) {
                self.state.lock().expect("no panic while locked").failed.get_or_insert(error);
            }
        }
    }
}

fn sync(batch: Vec<Unsynced>) -> Result<(), StoreError> {
    let mut directories = BTreeSet::new();
    for Unsynced { file, path, directories: names } in batch {
        file.sync_data().context("sync", &path)?;
        directories.extend(names);
    }
    directories.iter().try_for_each(|directory| sync_directory(directory))
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
    fn whoever_waits_hears_of_the_first_failure_once() {
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
        let error = syncer.wait().unwrap_err().to_string();
        assert!(error.starts_with("cannot sync") && error.contains("gone"), "{error}");
        syncer.wait().unwrap();
        assert!(syncer.state.lock().unwrap().waiting.is_empty());
    }
}
