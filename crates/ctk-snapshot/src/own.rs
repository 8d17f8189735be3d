//! The layer of a container that outlives its maker: in a directory of the container's own.

use std::fs;
use std::path::{Path, PathBuf};

use ctk_oci::Mount;

use crate::error::Context;
use crate::extract::open_directory;
use crate::overlay::Overlay;
use crate::{LayerForm, LayerKey, SnapshotError, Snapshots};

impl Snapshots {
    /// The root of a container on top of `parents` (base first), which writes into `directory/fs`. The first time, that
    /// is made; later it goes on from what is there. `directory/work`, which overlay needs, is for who mounts it to make
    /// anew. With `lasting`, what it writes is brought to the disk when it asks for that.
    pub fn own_layer(&self, parents: &[LayerKey], directory: &Path, lasting: bool) -> Result<Mount, SnapshotError> {
        let (upper, work, none) = (directory.join("fs"), directory.join("work"), directory.join("none"));
        let make = |path: &Path| match fs::create_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            other => other.map(|()| true).context("create directory", path.as_os_str().as_encoded_bytes()),
        };
        make(directory)?;
        if make(&upper)? {
            self.root_attributes(parents)?.apply(&open_directory(&upper)?).context("set attributes of", b"/")?;
        }
        let mut lower = self.lower(parents)?;
        if lower.is_empty() {
            // An overlay wants a lower directory.
            make(&none)?;
            lower.push(none);
        }
        let mut mount = Overlay { lower, upper: Some((&upper, &work)) }.mount()?;
        if lasting {
            mount.options.retain(|option| option != "volatile");
        }
        Ok(mount)
    }

    /// The names of the directories of these layers, for who keeps them.
    pub fn directories(&self, layers: &[LayerKey]) -> Vec<String> {
        layers.iter().map(LayerKey::directory).collect()
    }

    /// Where these layers' trees are, base first.
    pub fn trees(&self, layers: &[LayerKey]) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut trees = self.lower_as(layers, LayerForm::Tree)?;
        trees.reverse();
        Ok(trees)
    }
}
