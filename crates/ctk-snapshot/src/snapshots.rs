//! The unpacked layers of a store.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ctk_oci::DiffId;
use ctk_store::{Scratch, Store};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use crate::dir::{Place, own, set_xattrs, timestamps};
use crate::error::Context;
use crate::{Ephemeral, LayerKey, SnapshotError, TreeView, Workspace};

/// Unpacked layers, and what is made of them. Clones share everything.
#[derive(Clone)]
pub struct Snapshots {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    /// `info.json` by directory name; a complete layer never changes.
    infos: Mutex<HashMap<String, Arc<Info>>>,
}

/// `info.json` of a layer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Info {
    /// Bytes of its files, for the collector.
    pub bytes: u64,
    /// Whether it changes nothing.
    pub empty: bool,
    /// Attributes of `/`, if the layer sets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootAttributes>,
}

/// Owner, mode and the like of a tree's root. Overlay takes them from the upper directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootAttributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    /// Names and values as bytes; names are ASCII in practice, values are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Default for RootAttributes {
    fn default() -> RootAttributes {
        RootAttributes { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), xattrs: Vec::new() }
    }
}

impl RootAttributes {
    pub fn apply(&self, root: &OwnedFd) -> std::io::Result<()> {
        own(root, (self.uid, self.gid))?;
        let xattrs: BTreeMap<Vec<u8>, Vec<u8>> = self.xattrs.iter().cloned().collect();
        set_xattrs(&Place::Open(root.as_fd()), &xattrs)?;
        rustix::fs::fchmod(root, Mode::from_raw_mode(self.mode))?;
        let time = ctk_layer::Time { seconds: self.mtime.0, nanos: self.mtime.1 };
        Ok(rustix::fs::futimens(root, &timestamps(time))?)
    }
}

impl Snapshots {
    /// The unpacked layers of `store`. Opens nothing yet.
    pub fn open(store: &Store) -> Snapshots {
        Snapshots { inner: Arc::new(Inner { store: store.clone(), infos: Mutex::default() }) }
    }

    /// The store under it.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Whether the layer is here; if so, it stays as long as the store's handle lives.
    pub fn has(&self, key: &LayerKey) -> Result<bool, SnapshotError> {
        Ok(self.store().hold_layer(&key.directory())?)
    }

    /// Whether the layer changes nothing, so that an image can do without it.
    pub fn is_empty(&self, key: &LayerKey) -> Result<bool, SnapshotError> {
        Ok(self.info(key)?.empty)
    }

    /// Makes the built layer `key` also known by the diffID of its tar, so that nobody unpacks that again. Safe to
    /// repeat. [`Snapshots::pack`] does it by itself.
    pub fn alias(&self, key: &LayerKey, diff_id: &DiffId) -> Result<(), SnapshotError> {
        let alias = LayerKey::diff(diff_id);
        if alias != *key {
            self.store().alias_layer(&key.directory(), &alias.directory())?;
        }
        Ok(())
    }

    /// A new layer on top of `parents` (base first), to be changed by mounts and then committed.
    pub fn begin(&self, parents: &[LayerKey]) -> Result<Workspace, SnapshotError> {
        Workspace::new(self, parents)
    }

    /// A container's root on top of `parents` (base first): writable, and gone when dropped.
    pub fn view(&self, parents: &[LayerKey]) -> Result<Ephemeral, SnapshotError> {
        Ok(Ephemeral::new(self.begin(parents)?))
    }

    /// A directory of the host, not to be changed meanwhile, as a tree whose changes are gone when dropped.
    pub fn view_of(&self, directory: &std::path::Path) -> Result<Ephemeral, SnapshotError> {
        Ok(Ephemeral::new(Workspace::over(self, directory)?))
    }

    /// The files of the image with these layers (base first), for reading.
    pub fn tree(&self, parents: &[LayerKey]) -> Result<TreeView, SnapshotError> {
        TreeView::open(self, parents)
    }

    pub(crate) fn info(&self, key: &LayerKey) -> Result<Arc<Info>, SnapshotError> {
        let name = key.directory();
        if let Some(info) = self.inner.infos.lock().expect("no panic while locked").get(&name) {
            return Ok(info.clone());
        }
        let path = self.store().layers().join(&name).join("info.json");
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(SnapshotError::NoLayer { key: key.to_string() });
            }
            bytes => bytes.context("read", path.as_os_str().as_encoded_bytes())?,
        };
        let info: Info =
            serde_json::from_slice(&bytes).map_err(|source| ctk_store::StoreError::Json { path, source })?;
        let info = Arc::new(info);
        self.inner.infos.lock().expect("no panic while locked").insert(name, info.clone());
        Ok(info)
    }

    /// The layer's tree; it must be here.
    pub(crate) fn tree_path(&self, key: &LayerKey) -> Result<PathBuf, SnapshotError> {
        let name = key.directory();
        if !self.store().hold_layer(&name)? {
            return Err(SnapshotError::NoLayer { key: key.to_string() });
        }
        // An alias is a link: mounts name the layer itself, so that nobody sees one directory twice.
        let path = self.store().layers().join(&name);
        let target = std::fs::read_link(&path).map(|target| self.store().layers().join(target));
        Ok(target.unwrap_or(path).join("fs"))
    }

    /// The trees of `parents`, top first, each once: overlay refuses a directory given twice, and whatever a layer
    /// holds is already there, and on top, by its upper occurrence.
    pub(crate) fn lower(&self, parents: &[LayerKey]) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut lower: Vec<PathBuf> = Vec::with_capacity(parents.len());
        for key in parents.iter().rev() {
            if self.info(key)?.empty {
                continue;
            }
            let path = self.tree_path(key)?;
            if !lower.contains(&path) {
                lower.push(path);
            }
        }
        Ok(lower)
    }

    /// What `/` looks like on top of `parents`.
    pub(crate) fn root_attributes(&self, parents: &[LayerKey]) -> Result<RootAttributes, SnapshotError> {
        for key in parents.iter().rev() {
            if let Some(root) = &self.info(key)?.root {
                return Ok(root.clone());
            }
        }
        Ok(RootAttributes::default())
    }

    /// Makes the tree `scratch/fs` the layer `key`: weighed, synced, renamed into place.
    pub(crate) fn adopt(&self, scratch: &Scratch, key: &LayerKey, info: &Info) -> Result<(), SnapshotError> {
        let path = scratch.path().join("info.json");
        let name = path.as_os_str().as_encoded_bytes();
        let bytes = serde_json::to_vec(info).expect("plain data serialises");
        std::fs::write(&path, bytes).context("write", name)?;
        let directory = crate::extract::open_directory(scratch.path())?;
        rustix::fs::syncfs(&directory).context("sync", scratch.path().as_os_str().as_encoded_bytes())?;
        self.store().adopt_layer(scratch.path(), &key.directory())?;
        Ok(())
    }
}
