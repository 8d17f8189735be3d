//! The places that steps know: `/workspace`, `/builder/home`, and volumes.
//!
//! A run has a view of the machine's files of its own, in which these are folders of its record and everything else is
//! as it was. So programs of this machine and containers see the same paths, and no argument has to be rewritten. The
//! view goes with the process, however that ends.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::RunError;

/// Where logins of steps are: in memory, and gone with the view. Steps see it as `.docker` in their home.
pub(crate) const LOGINS: &str = "/builder/.docker";

const NEW_MOUNTS: u32 = 0x0002_0000;

/// A folder and where steps see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder.
    pub folder: PathBuf,
    /// Absolute.
    pub path: String,
}

/// Gives this process its view. Must be called before there are threads: those that are there keep the old one.
///
/// `mount_point` is an empty folder; `needed` are paths that must be the same afterwards. A volume whose parent is a
/// folder of the machine is only seen by containers: nothing is made in the machine's own folders.
pub fn enter(mount_point: &Path, places: &[Place], needed: &[&Path]) -> Result<(), RunError> {
    for top in ["/workspace", "/builder"] {
        if let Some(hidden) = needed.iter().find(|path| path.starts_with(top)) {
            return Err(RunError::Hidden { path: (*hidden).into(), place: top.into() });
        }
    }
    let failed = |action: &str| {
        let action = action.to_owned();
        move |source: io::Error| RunError::Places { action, source }
    };
    ctk_sys::unshare(NEW_MOUNTS).map_err(|error| failed("a mount namespace")(error.into()))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(|error| failed("private mounts")(error.into()))?;
    rustix::mount::mount("tmpfs", mount_point, "tmpfs", MountFlags::empty(), Some(c"mode=0755"))
        .map_err(|error| failed("a new root")(error.into()))?;
    for entry in fs::read_dir("/").map_err(failed("the old root"))? {
        let entry = entry.map_err(failed("the old root"))?;
        let path = entry.path();
        if is_ours(&path) {
            continue;
        }
        show(&path, mount_point).map_err(failed(&format!("`{}`", path.display())))?;
    }
    for place in places {
        if is_of_machine(&place.path) {
            continue;
        }
        let target = mount_point.join(place.path.trim_start_matches('/'));
        let made = fs::create_dir_all(&target).and_then(|()| bind(&place.folder, &target));
        made.map_err(failed(&format!("`{}`", place.path)))?;
    }
    let logins = mount_point.join(LOGINS.trim_start_matches('/'));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&logins).map_err(failed(LOGINS))?;
    std::env::set_current_dir(mount_point).map_err(failed("the new root"))?;
    rustix::process::pivot_root(".", ".").map_err(|error| failed("the change of the root")(error.into()))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(|error| failed("leaving the old root")(error.into()))?;
    std::env::set_current_dir("/").map_err(failed("the new root"))
}

/// `/workspace` and `/builder` are always ours; another folder of the machine stays what it is.
fn is_ours(path: &Path) -> bool {
    matches!(path.to_str(), Some("/workspace" | "/builder"))
}

fn is_of_machine(path: &str) -> bool {
    let top = top(path);
    !is_ours(Path::new(&top)) && fs::symlink_metadata(&top).is_ok()
}

/// `/builder` of `/builder/home`.
fn top(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/').split('/').next().unwrap_or_default())
}

/// Shows an entry of the root in the new one.
fn show(path: &Path, root: &Path) -> io::Result<()> {
    let target = root.join(path.strip_prefix("/").unwrap_or(path));
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(path)?, target);
    }
    if kind.is_dir() {
        fs::create_dir(&target)?;
    } else {
        fs::write(&target, "")?;
    }
    bind(path, &target)
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_bind_recursive(from, to)?)
}
