//! Names of images. A change of several names is one step, for readers and for crashes: it is written to a journal
//! first, and whoever finds a journal carries it out.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use ctk_oci::Descriptor;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::Context;
use crate::fsutil::{file_name, names, open_lock_file, read_if_there, remove_if_there, replace, sync_directory};
use crate::{Store, StoreError};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ref {
    /// An index or a manifest.
    pub descriptor: Descriptor,
    /// Whatever its owner wants to remember.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Ref {
    /// Without annotations.
    pub fn new(descriptor: Descriptor) -> Ref {
        Ref { descriptor, annotations: BTreeMap::new() }
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    name: String,
    #[serde(flatten)]
    value: Ref,
}

type Changes = Vec<(String, Option<Ref>)>;

impl Store {
    /// What `name` stands for. A damaged entry stands for nothing, so that it is set again.
    pub fn reference(&self, name: &str) -> Result<Option<Ref>, StoreError> {
        let _lock = self.lock_refs_to_read()?;
        let path = self.ref_path(name);
        Ok(read_if_there(&path)?.and_then(|bytes| parse(&path, &bytes).ok()).map(|stored| stored.value))
    }

    /// All names, sorted, with what they stand for. A damaged entry is an error: who collects must not take what it
    /// held for forgotten.
    pub fn references(&self) -> Result<Vec<(String, Ref)>, StoreError> {
        let _lock = self.lock_refs_to_read()?;
        self.read_refs()
    }

    /// Sets a name, durably. What it names stays from now on.
    pub fn set_reference(&self, name: &str, value: &Ref) -> Result<(), StoreError> {
        self.update_references(&[(name.to_owned(), Some(value.clone()))])
    }

    /// Removes a name; [`StoreError::NoSuchRef`] if it isn't there. Content goes with the next [`Store::gc`].
    pub fn remove_reference(&self, name: &str) -> Result<(), StoreError> {
        if self.reference(name)?.is_none() {
            return Err(StoreError::NoSuchRef { name: name.to_owned() });
        }
        self.update_references(&[(name.to_owned(), None)])
    }

    /// Removes the entry of a name that cannot be read any more; `false` if there is none, or if it can be read.
    pub fn remove_damaged_reference(&self, name: &str) -> Result<bool, StoreError> {
        let _lock = self.lock_refs(FlockOperation::LockExclusive)?;
        let path = self.ref_path(name);
        match read_if_there(&path)? {
            Some(bytes) if parse(&path, &bytes).is_err() => {
                remove_if_there(&path)?;
                sync_directory(&self.path("refs"))?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Sets and removes names, all or none. Removing what isn't there is no error.
    pub fn update_references(&self, changes: &[(String, Option<Ref>)]) -> Result<(), StoreError> {
        self.sync_blobs()?;
        let _lock = self.lock_refs(FlockOperation::LockExclusive)?;
        self.replay()?;
        if let [(name, value)] = changes {
            return self.apply(name, value.as_ref());
        }
        let bytes = serde_json::to_vec(changes).expect("plain data serialises");
        replace(&self.journal(), &self.session().temporary()?, &bytes)?;
        self.replay()
    }

    pub(crate) fn lock_refs_to_read(&self) -> Result<File, StoreError> {
        let lock = self.lock_refs(FlockOperation::LockShared)?;
        if !self.journal().exists() {
            return Ok(lock);
        }
        drop(lock);
        let lock = self.lock_refs(FlockOperation::LockExclusive)?;
        self.replay()?;
        Ok(lock)
    }

    pub(crate) fn read_refs(&self) -> Result<Vec<(String, Ref)>, StoreError> {
        let directory = self.path("refs");
        let mut refs = Vec::new();
        for file in names(&directory)? {
            let path = directory.join(file);
            if let Some(bytes) = read_if_there(&path)? {
                let stored = parse(&path, &bytes)?;
                refs.push((stored.name, stored.value));
            }
        }
        refs.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(refs)
    }

    fn lock_refs(&self, how: FlockOperation) -> Result<File, StoreError> {
        let path = self.path("refs.lock");
        let file = open_lock_file(&path)?;
        flock(&file, how).context("lock", &path)?;
        Ok(file)
    }

    fn replay(&self) -> Result<(), StoreError> {
        let path = self.journal();
        let Some(bytes) = read_if_there(&path)? else { return Ok(()) };
        let changes: Changes =
            serde_json::from_slice(&bytes).map_err(|source| StoreError::Json { path: path.clone(), source })?;
        for (name, value) in &changes {
            self.apply(name, value.as_ref())?;
        }
        remove_if_there(&path)?;
        sync_directory(self.root())
    }

    fn apply(&self, name: &str, value: Option<&Ref>) -> Result<(), StoreError> {
        let path = self.ref_path(name);
        let Some(value) = value else {
            remove_if_there(&path)?;
            return sync_directory(&self.path("refs"));
        };
        let stored = Stored { name: name.to_owned(), value: value.clone() };
        let bytes = serde_json::to_vec(&stored).expect("plain data serialises");
        replace(&path, &self.session().temporary()?, &bytes)
    }

    fn journal(&self) -> PathBuf {
        self.path("refs.journal")
    }

    fn ref_path(&self, name: &str) -> PathBuf {
        self.path("refs").join(file_name(name))
    }
}

fn parse(path: &std::path::Path, bytes: &[u8]) -> Result<Stored, StoreError> {
    serde_json::from_slice(bytes).map_err(|source| StoreError::DamagedRef { path: path.to_owned(), source })
}
