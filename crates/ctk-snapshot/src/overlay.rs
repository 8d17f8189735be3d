//! Overlay mounts: options for the runtime, and detached mounts by the new mount API.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ctk_oci::Mount;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use crate::SnapshotError;
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
    /// For the runtime: one `lowerdir=` a layer, top first, each to be given to the kernel as `lowerdir+`.
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
        Ok(options)
    }

    /// Mounts it, attached nowhere: paths below the fd work as long as the fd is open.
    pub fn open(&self) -> Result<OwnedFd, SnapshotError> {
        let options = self.options()?;
        let mounted = || -> Result<OwnedFd, (rustix::io::Errno, String)> {
            let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| (e, String::new()))?;
            let with_log = |e| (e, kernel_log(&context));
            for option in &options {
                match option.split_once('=') {
                    Some(("lowerdir", path)) => fsconfig_set_string(&context, "lowerdir+", path),
                    Some((key, value)) => fsconfig_set_string(&context, key, value),
                    None => fsconfig_set_flag(&context, option.as_str()),
                }
                .map_err(with_log)?;
            }
            fsconfig_create(&context).map_err(with_log)?;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(with_log)
        };
        mounted().map_err(|(errno, detail)| SnapshotError::Overlay {
            layers: self.lower.len(),
            detail,
            source: errno.into(),
        })
    }
}

/// What the kernel says about a mount under construction: messages are read from its fd, one a read.
fn kernel_log(context: &OwnedFd) -> String {
    let mut text = String::new();
    let mut message = [0u8; 512];
    while let Ok(n) = rustix::io::read(context, &mut message[..]) {
        if n == 0 {
            break;
        }
        text.push_str(": ");
        text.push_str(String::from_utf8_lossy(&message[..n]).trim());
    }
    text
}
