//! Files that nobody sees until they are renamed into place, in folders that may belong to others.
//!
//! A writer holds a lock on its file; what a killed process left is not locked, and is removed by the next one.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const PREFIX: &str = ".ctk-push-";

/// A new file beside its final place; removed on drop unless it was kept.
pub(crate) struct Scratch {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl Scratch {
    /// An empty file in `folder`, which must exist.
    pub fn new(folder: &Path) -> io::Result<Scratch> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{PREFIX}{}-{number}", std::process::id()));
            let file = match File::create_new(&path) {
                // Another process of this number in another namespace, or one that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            file.lock()?;
            // Between the two calls somebody may have taken it for a leftover.
            if file.metadata()?.nlink() > 0 {
                return Ok(Scratch { file, path, kept: false });
            }
        }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it `to`, once it is on disk.
    pub fn keep(mut self, to: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, to)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing more can be done about it here; the next push tries again.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes what killed processes left in `folder`. What cannot be removed stays: it harms nobody.
pub(crate) fn clean(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        if let Ok(file) = File::open(entry.path())
            && !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Makes the names in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leftovers_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (busy, kept) = (Scratch::new(folder.path()).unwrap(), Scratch::new(folder.path()).unwrap());
        std::fs::write(folder.path().join(format!("{PREFIX}1-1")), "left").unwrap();
        std::fs::write(folder.path().join("theirs"), "x").unwrap();
        kept.keep(&folder.path().join("kept")).unwrap();
        clean(folder.path());
        let names = || {
            let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(), [busy.path().file_name().unwrap(), "kept".as_ref(), "theirs".as_ref()]);
        drop(busy);
        assert_eq!(names(), ["kept", "theirs"]);
    }
}
