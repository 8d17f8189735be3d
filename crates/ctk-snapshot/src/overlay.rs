//! Overlay mounts as values, for whoever mounts them.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ctk_oci::Mount;

use crate::SnapshotError;
use crate::image::IMAGE;
use crate::limits::LAYERS_MAX;

/// The directories of one overlay.
pub struct Overlay<'a> {
    /// Lower directories, top first.
    pub lower: Vec<PathBuf>,
    /// Upper and work directory; without them it is read-only.
    pub upper: Option<(&'a Path, &'a Path)>,
}

/// Without these, what a lower layer holds would depend on options that the host's kernel was built with, and an upper
/// directory could not be a layer by itself: a renamed directory would be a redirect, a chmod a metacopy.
const PLAIN: [&str; 3] = ["index=off", "metacopy=off", "redirect_dir=off"];

impl Overlay<'_> {
    /// For the runtime: one `lowerdir=` a layer, top first.
    pub fn mount(&self) -> Result<Mount, SnapshotError> {
        let mut mount = Mount::new("overlay", "overlay", "/", &[]);
        mount.options = self.options()?;
        Ok(mount)
    }

    fn options(&self) -> Result<Vec<String>, SnapshotError> {
        if self.lower.len() > LAYERS_MAX {
            return Err(SnapshotError::TooManyLayers { found: self.lower.len(), limit: LAYERS_MAX });
        }
        let text = |path: &Path| {
            let refused = || SnapshotError::Refused {
                path: path.display().to_string(),
                reason: "the store's path must be UTF-8 to be mounted",
            };
            path.to_str().map(str::to_owned).ok_or_else(refused)
        };
        let mut options = Vec::with_capacity(self.lower.len() + 6);
        for lower in &self.lower {
            options.push(format!("lowerdir={}", text(lower)?));
        }
        if let Some((upper, work)) = self.upper {
            options.push(format!("upperdir={}", text(upper)?));
            options.push(format!("workdir={}", text(work)?));
            // Durability comes from one syncfs when a layer is committed; fsyncs inside would only wait.
            options.push("volatile".into());
        }
        options.extend(PLAIN.map(str::to_owned));
        if self.lower.iter().any(|lower| lower.ends_with(IMAGE)) {
            // Each image is a file system. Without this, files would be on other devices than their directories, and get
            // another number when they are changed.
            options.push("xino=on".into());
        }
        Ok(options)
    }

    /// Mounts it, attached nowhere: paths below the fd work as long as the fd is open.
    pub fn open(&self) -> Result<OwnedFd, SnapshotError> {
        let mounted = ctk_runtime::Root::mount(&self.mount()?, true);
        mounted
            .map(ctk_runtime::Root::into_fd)
            .map_err(|source| SnapshotError::Overlay { layers: self.lower.len(), source })
    }
}
