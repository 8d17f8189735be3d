//! The unpacked layers of a store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ctk_oci::DiffId;
use ctk_plan::Cancel;
use ctk_store::{Scratch, Store};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use crate::dir::{Place, own, set_xattrs, timestamps};
use crate::error::Context;
use crate::settle;
use crate::{Ephemeral, LayerForm, LayerKey, Made, SnapshotError, TreeView, Workspace};

/// Unpacked layers, and what is made of them. Clones share everything.
#[derive(Clone)]
pub struct Snapshots {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    form: LayerForm,
    /// `info.json` by directory name; a complete layer never changes.
    infos: Mutex<HashMap<String, Arc<Info>>>,
    /// Directories of layers that may not be on the disk.
    unsettled: Mutex<BTreeSet<String>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let names = self.unsettled.get_mut().expect("no panic while locked");
        if !names.is_empty() {
            settle::settle(&self.store, names);
        }
    }
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
    /// When its files and those that it was made from were made; none of a pulled layer.
    #[serde(default, skip_serializing_if = "Made::is_empty")]
    pub made: Made,
    /// The date at which times that a program chose were cut elsewhere: for later ones it is another layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<i64>,
    /// The boot of the machine in which it was made, until it is on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The file beside it that takes its place then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<String>,
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
        Snapshots::open_as(store, LayerForm::default())
    }

    /// The same, with layers mounted in this form.
    pub fn open_as(store: &Store, form: LayerForm) -> Snapshots {
        let form = if ctk_runtime::in_user_namespace() { LayerForm::Tree } else { form };
        let inner = Inner { store: store.clone(), form, infos: Mutex::default(), unsettled: Mutex::default() };
        Snapshots { inner: Arc::new(inner) }
    }

    /// The store under it.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Whether the layer is here; if so, it stays as long as the store's handle lives. One that was not on the disk
    /// when the machine went down is removed.
    pub fn has(&self, key: &LayerKey) -> Result<bool, SnapshotError> {
        Ok(self.store().hold_layer(&key.directory())? && self.look(key)?.is_some())
    }

    /// Whether the layer is here and may be in an image of the date `epoch`: times that were cut where it came from cannot
    /// be told from others for a later one.
    pub fn serves(&self, key: &LayerKey, epoch: i64) -> Result<bool, SnapshotError> {
        Ok(self.has(key)? && self.info(key)?.cut.is_none_or(|cut| epoch <= cut))
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
        self.look(key)?.ok_or_else(|| SnapshotError::NoLayer { key: key.to_string() })
    }

    fn look(&self, key: &LayerKey) -> Result<Option<Arc<Info>>, SnapshotError> {
        let name = key.directory();
        if let Some(info) = self.inner.infos.lock().expect("no panic while locked").get(&name) {
            return Ok(Some(info.clone()));
        }
        let info = match self.read_info(&name)? {
            Read::Info(info) => Arc::new(info),
            Read::Nothing => return Ok(None),
            Read::Lost => {
                self.remove_lost(&name)?;
                return Ok(None);
            }
        };
        if info.boot.is_some() {
            self.unsettled(&name);
        }
        self.inner.infos.lock().expect("no panic while locked").insert(name, info.clone());
        Ok(Some(info))
    }

    fn read_info(&self, name: &str) -> Result<Read, SnapshotError> {
        let layer = self.store().layers().join(name);
        let path = layer.join(settle::INFO);
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(if layer.exists() { Read::Lost } else { Read::Nothing });
            }
            bytes => bytes.context("read", path.as_os_str().as_encoded_bytes())?,
        };
        Ok(match serde_json::from_slice::<Info>(&bytes) {
            Ok(info) if settle::is_trusted(&info) => Read::Info(info),
            _ => Read::Lost,
        })
    }

    /// An alias is a link to the layer itself.
    fn target(&self, name: &str) -> String {
        let target = std::fs::read_link(self.store().layers().join(name)).ok();
        target.and_then(|target| target.into_os_string().into_string().ok()).unwrap_or_else(|| name.to_owned())
    }

    fn unsettled(&self, name: &str) {
        self.inner.unsettled.lock().expect("no panic while locked").insert(self.target(name));
    }

    fn remove_lost(&self, name: &str) -> Result<(), SnapshotError> {
        // Another process may have done it, and made the layer anew.
        let _lock = self.store().lock(&format!("lost {name}"), &Cancel::new())?;
        if !matches!(self.read_info(name)?, Read::Lost) {
            return Ok(());
        }
        let scratch = self.store().scratch()?;
        let path = self.store().layers().join(self.target(name));
        match std::fs::rename(&path, scratch.path().join("lost")) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.context("remove", path.as_os_str().as_encoded_bytes()),
        }
    }

    /// When the files of these layers were made.
    pub fn made(&self, layers: &[LayerKey]) -> Result<Made, SnapshotError> {
        let mut made = Made::default();
        for layer in layers {
            made.merge(&self.info(layer)?.made);
        }
        Ok(made)
    }

    /// The layer's tree; it must be here.
    pub(crate) fn tree_path(&self, key: &LayerKey) -> Result<PathBuf, SnapshotError> {
        let name = key.directory();
        if !self.store().hold_layer(&name)? {
            return Err(SnapshotError::NoLayer { key: key.to_string() });
        }
        // An alias is a link: mounts name the layer itself, so that nobody sees one directory twice.
        Ok(self.store().layers().join(self.target(&name)).join("fs"))
    }

    /// The trees of `parents`, or images of them, top first, each once: overlay refuses a directory given twice, and whatever a layer
    /// holds is already there, and on top, by its upper occurrence.
    pub(crate) fn lower(&self, parents: &[LayerKey]) -> Result<Vec<PathBuf>, SnapshotError> {
        self.lower_as(parents, self.inner.form)
    }

    pub(crate) fn lower_as(&self, parents: &[LayerKey], form: LayerForm) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut lower: Vec<PathBuf> = Vec::with_capacity(parents.len());
        for key in parents.iter().rev() {
            if self.info(key)?.empty {
                continue;
            }
            let path = match form {
                LayerForm::Tree => self.tree_path(key)?,
                LayerForm::Image => self.image(key)?,
            };
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

    /// Makes the tree `scratch/fs` the layer `key`: renamed into place, and believed until it is on the disk as long as
    /// the machine runs.
    pub(crate) fn adopt(&self, scratch: &Scratch, key: &LayerKey, info: &Info) -> Result<(), SnapshotError> {
        let unsettled = settle::write_info(scratch.path(), info)?;
        let name = key.directory();
        // What is there already and can't be believed goes first.
        while !self.store().adopt_layer(scratch.path(), &name)? {
            if self.has(key)? {
                return Ok(());
            }
        }
        if unsettled {
            self.unsettled(&name);
        }
        Ok(())
    }
}

/// What a layer's directory says of itself.
enum Read {
    Info(Info),
    /// There is no such layer.
    Nothing,
    /// It was not on the disk when the machine went down.
    Lost,
}
