//! What nobody will finish or ask for again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Storage;
use crate::RegistryError;

impl Storage {
    /// Removes uploads and temporary files untouched for `upload_life`, and content that no repository holds and
    /// that is older than `orphan_life`. Safe beside running servers. Returns how many things it removed.
    pub fn sweep(&self, now: SystemTime, upload_life: Duration, orphan_life: Duration) -> Result<usize, RegistryError> {
        let mut removed = 0;
        for (part, is_dir) in [("uploads", true), ("tmp", false)] {
            each(&self.root.join(part), &mut |path| {
                let touched = [path.to_owned(), path.join("data")].iter().filter_map(|p| modified(p)).max();
                if touched.is_some_and(|t| older(t, now, upload_life)) {
                    removed += 1;
                    super::uploads::forget(path);
                    return if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
                }
                Ok(())
            })?;
        }
        each(&self.root.join("blobs"), &mut |algorithm| {
            for fan in fs::read_dir(algorithm)? {
                for content in fs::read_dir(fan?.path())? {
                    let path = content?.path();
                    let metadata = fs::metadata(&path)?;
                    // A last link made between this look and the removal keeps the bytes; see the module's note.
                    if metadata.nlink() == 1 && metadata.modified().is_ok_and(|t| older(t, now, orphan_life)) {
                        removed += 1;
                        fs::remove_file(&path)?;
                    }
                }
            }
            Ok(())
        })?;
        Ok(removed)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}

fn older(touched: SystemTime, now: SystemTime, life: Duration) -> bool {
    now.duration_since(touched).is_ok_and(|age| age > life)
}

/// Runs `action` on every entry; one that another process removed meanwhile is fine.
fn each(directory: &Path, action: &mut dyn FnMut(&Path) -> io::Result<()>) -> Result<(), RegistryError> {
    let entries = fs::read_dir(directory).map_err(RegistryError::storage("list", directory))?;
    for entry in entries {
        let path = entry.map_err(RegistryError::storage("list", directory))?.path();
        match action(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(RegistryError::storage("sweep", path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}
