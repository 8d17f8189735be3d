//! The lock file of a session: shared by the stages, written once at the end of resolving.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ctk_build::LockView;
use ctk_oci::{Digest, Platform, Reference};
use ctk_packages::Locked;
use ctk_plan::Address;
use ctk_project::Lock;

use crate::ApplyError;

/// The lock file's name, beside the project file.
pub const LOCK_FILE: &str = "containers.lock";

/// A lock file that several threads read and add to.
pub struct LockBook {
    path: PathBuf,
    lock: Mutex<Lock>,
    /// Add nothing.
    frozen: bool,
}

impl LockBook {
    /// Reads the lock file beside the project file in `directory`; there need be none.
    pub fn read(directory: &Path, frozen: bool) -> Result<LockBook, ApplyError> {
        let path = directory.join(LOCK_FILE);
        let lock = match ctk_store::read_given_text(&path) {
            Ok(text) => Lock::parse(&text)
                .map_err(|cause| ApplyError::ReadLock { path: path.clone(), source: Box::new(cause) })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Lock::new(),
            Err(cause) => return Err(ApplyError::ReadLock { path, source: Box::new(cause) }),
        };
        Ok(LockBook { path, lock: Mutex::new(lock), frozen })
    }

    /// A book with the same entries except those that `drop` says, for resolving them anew.
    pub fn without(&self, mut drop: impl FnMut(&ctk_project::LockKey) -> bool) -> LockBook {
        let mut lock = self.with(|lock| lock.clone());
        lock.retain(|key| !drop(key));
        LockBook { path: self.path.clone(), lock: Mutex::new(lock), frozen: self.frozen }
    }

    /// Looks at the entries.
    pub fn with<T>(&self, look: impl FnOnce(&mut Lock) -> T) -> T {
        look(&mut self.lock.lock().expect("no holder panics"))
    }

    /// Writes the file if anything was added: whole, durable, by one rename.
    pub fn write(&self) -> Result<(), ApplyError> {
        let (changed, text) = self.with(|lock| (lock.changed(), lock.to_text()));
        if !changed {
            return Ok(());
        }
        let failed = |cause: io::Error| ApplyError::WriteLock { path: self.path.clone(), source: cause };
        let part = self.path.with_extension(format!("lock.part-{}", std::process::id()));
        fs::write(&part, text).map_err(failed)?;
        fs::File::open(&part).and_then(|file| file.sync_all()).map_err(failed)?;
        fs::rename(&part, &self.path).map_err(failed)
    }

    fn add(&self, add: impl FnOnce(&mut Lock)) -> Result<(), String> {
        self.may_add()?;
        self.with(add);
        Ok(())
    }
}

impl LockView for LockBook {
    fn may_add(&self) -> Result<(), String> {
        match self.frozen {
            true => Err(format!("{LOCK_FILE} has no entry for it, and --locked forbids adding one")),
            false => Ok(()),
        }
    }

    fn image(&self, reference: &Reference, platform: &Platform) -> Option<Digest> {
        self.with(|lock| lock.image(reference, platform))
    }

    fn set_image(&self, reference: &Reference, platform: &Platform, digest: &Digest) -> Result<(), String> {
        self.add(|lock| lock.insert_image(reference, platform, digest))
    }

    fn packages(&self, image: &Address, stage: &str, platform: &Platform) -> Option<Locked> {
        self.with(|lock| {
            lock.packages(image, stage, platform).and_then(|value| serde_json::from_value(value.clone()).ok())
        })
    }

    fn git(&self, url: &str, reference: &str) -> Option<String> {
        self.with(|lock| lock.git(url, reference).map(str::to_owned))
    }

    fn set_git(&self, url: &str, reference: &str, commit: &str) -> Result<(), String> {
        self.add(|lock| lock.insert_git(url, reference, commit))
    }

    fn http(&self, url: &str) -> Option<Digest> {
        self.with(|lock| lock.http(url))
    }

    fn set_http(&self, url: &str, digest: &Digest) -> Result<(), String> {
        self.add(|lock| lock.insert_http(url, digest))
    }

    fn set_packages(&self, image: &Address, stage: &str, platform: &Platform, locked: &Locked) -> Result<(), String> {
        let value = serde_json::to_value(locked).map_err(|error| error.to_string())?;
        self.add(|lock| lock.insert_packages(image, stage, platform, value))
    }
}
