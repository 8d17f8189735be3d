//! Caches that others keep beside the store's own: package files and cache mounts. The store only knows how old they
//! are, and whether anybody uses any.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

use crate::error::Context;
use crate::fsutil::{names, open_lock_file, try_lock};
use crate::{GcOptions, Store, StoreError};

/// While it lives, [`Store::gc`] leaves package files and cache mounts alone.
pub struct CacheUse(#[allow(dead_code)] File);

/// One package file or cache mount.
struct Cached {
    path: PathBuf,
    used: SystemTime,
    bytes: u64,
}

impl Store {
    /// Says that this process uses package files and cache mounts from now on. Waits while a collection removes some.
    pub fn use_caches(&self) -> Result<CacheUse, StoreError> {
        let path = self.path("caches.lock");
        let file = open_lock_file(&path)?;
        flock(&file, FlockOperation::LockShared).context("lock", &path)?;
        Ok(CacheUse(file))
    }

    /// Removes package files and cache mounts beyond the limits; nothing while a process uses any. Gives how many and
    /// how many bytes, the files that only lock them not counted.
    pub(crate) fn trim_caches(&self, options: &GcOptions) -> Result<(usize, u64), StoreError> {
        let path = self.path("caches.lock");
        let lock = open_lock_file(&path)?;
        if !try_lock(&lock, &path)? {
            return Ok((0, 0));
        }
        let mut cached = Vec::new();
        for place in names(&self.path("packages/sha256"))? {
            collect(&self.path("packages/sha256").join(place), &mut cached)?;
        }
        collect(&self.path("packages/partial"), &mut cached)?;
        collect(&self.path("cache"), &mut cached)?;
        collect(&self.path("git"), &mut cached)?;
        cached.sort_by_key(|cached| std::cmp::Reverse(cached.used));
        let now = SystemTime::now();
        let (mut kept_bytes, mut count, mut freed) = (0u64, 0, 0);
        for cached in cached {
            let young = options.cache_age.is_none_or(|age| cached.used + age >= now);
            let room = options.cache_bytes.is_none_or(|limit| limit > 0 && kept_bytes + cached.bytes <= limit);
            if young && room {
                kept_bytes += cached.bytes;
                continue;
            }
            count += usize::from(cached.bytes > 0);
            freed += cached.bytes;
            if !options.dry_run {
                let removed =
                    if cached.path.is_dir() { fs::remove_dir_all(&cached.path) } else { fs::remove_file(&cached.path) };
                removed.context("remove", &cached.path)?;
            }
        }
        Ok((count, freed))
    }
}

fn collect(directory: &Path, into: &mut Vec<Cached>) -> Result<(), StoreError> {
    for name in names(directory)? {
        let path = directory.join(name);
        let meta = fs::symlink_metadata(&path).context("stat", &path)?;
        // Reading moves the access time at least once a day (relatime), writing the other.
        let seconds = meta.atime().max(meta.mtime()).max(0) as u64;
        let bytes = if meta.is_dir() { tree_bytes(&path) } else { meta.len() };
        into.push(Cached { path, used: UNIX_EPOCH + Duration::from_secs(seconds), bytes });
    }
    Ok(())
}

/// Bytes of the files below `directory`; what cannot be read counts nothing.
fn tree_bytes(directory: &Path) -> u64 {
    let mut bytes = 0;
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => waiting.push(entry.path()),
                Ok(meta) => bytes += meta.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use ctk_plan::Cancel;

    use super::*;

    #[test]
    fn caches_go_only_when_nobody_uses_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let package = folder.path().join("packages/sha256/ab/abcd");
        let mount = folder.path().join("cache/name/file");
        for path in [&package, &mount] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"12345").unwrap();
        }
        let all = GcOptions { cache_bytes: Some(0), ..GcOptions::default() };
        let used = store.use_caches().unwrap();
        assert_eq!(store.gc(&all, &Cancel::new()).unwrap().caches, 0);
        drop(used);
        let young = GcOptions { cache_age: Some(Duration::from_secs(3600)), ..GcOptions::default() };
        assert_eq!(store.gc(&young, &Cancel::new()).unwrap().caches, 0);
        let report = store.gc(&all, &Cancel::new()).unwrap();
        assert_eq!((report.caches, report.bytes), (2, 10));
        assert!(!package.exists() && !mount.exists());
    }
}
