//! A directory for secrets and sockets: in the state directory (memory on usual hosts), readable by nobody else, gone
//! when dropped.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::BuildError;

/// A dot in front: no container's id begins so, and whoever removes directories of dead containers leaves it alone.
const PREFIX: &str = ".secrets-";

pub(super) struct PrivateDirectory {
    path: PathBuf,
    count: usize,
}

impl PrivateDirectory {
    pub fn new(state: &Path) -> Result<PrivateDirectory, BuildError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(state).map_err(BuildError::read("create", state))?;
        clear_dead(state);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = state.join(format!("{PREFIX}{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).map_err(BuildError::read("create", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(BuildError::read("chmod", &path))?;
        Ok(PrivateDirectory { path, count: 0 })
    }

    /// A path where nothing is.
    pub fn place(&mut self) -> PathBuf {
        self.count += 1;
        self.path.join(self.count.to_string())
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next build.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what killed processes left.
fn clear_dead(state: &Path) {
    for entry in fs::read_dir(state).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
