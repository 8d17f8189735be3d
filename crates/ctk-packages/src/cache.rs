//! Downloaded files by their SHA256. A file is there whole or not at all; processes need no lock.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::PackagesError;

/// A directory of files named by their digest.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache in `root`, which is made when missing.
    pub(crate) fn open(root: &Path) -> Result<Cache, PackagesError> {
        let partial = root.join("partial");
        fs::create_dir_all(&partial).map_err(|source| PackagesError::Cache { path: partial, source })?;
        Ok(Cache { root: root.into() })
    }

    /// Where the file with that digest is, or will be.
    pub(crate) fn path(&self, sha256: &str) -> PathBuf {
        self.root.join("sha256").join(sha256.get(..2).unwrap_or("xx")).join(sha256)
    }

    /// The file if it is there and still what its name says; a damaged one is removed.
    ///
    /// Hashing runs at about 1.8 GB/s, so this needs no `fsync` at writing time to be safe after a power cut.
    pub(crate) fn find(&self, sha256: &str, size: Option<u64>) -> Option<PathBuf> {
        let path = self.path(sha256);
        let mut file = File::open(&path).ok()?;
        let right_size = size.is_none_or(|s| file.metadata().is_ok_and(|m| m.len() == s));
        if right_size && hash(&mut file).is_ok_and(|(found, _)| found == sha256) {
            return Some(path);
        }
        let _ = fs::remove_file(&path);
        None
    }

    /// A new file on the same filesystem, gone unless [`Cache::keep`] takes it.
    pub(crate) fn partial(&self) -> Result<tempfile::NamedTempFile, PackagesError> {
        let partial = self.root.join("partial");
        tempfile::Builder::new()
            .prefix("download-")
            .tempfile_in(&partial)
            .map_err(|source| PackagesError::Cache { path: partial, source })
    }

    /// Gives a verified file its name.
    pub(crate) fn keep(&self, file: tempfile::NamedTempFile, sha256: &str) -> Result<PathBuf, PackagesError> {
        let path = self.path(sha256);
        let failed = |source| PackagesError::Cache { path: path.clone(), source };
        fs::create_dir_all(path.parent().unwrap_or(&self.root)).map_err(failed)?;
        file.persist(&path).map_err(|e| failed(e.error))?;
        Ok(path)
    }

    /// Leaves a file whose digest nobody announced where it is; the caller reads and removes it.
    pub(crate) fn keep_unnamed(&self, file: tempfile::NamedTempFile) -> Result<PathBuf, PackagesError> {
        let path = file.path().to_path_buf();
        file.keep().map(|(_, path)| path).map_err(|e| PackagesError::Cache { path, source: e.error })
    }
}

/// SHA256 in lower-case hex, and the size.
pub(crate) fn hash(reader: &mut impl Read) -> io::Result<(String, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok((hex(&hasher.finalize()), size)),
            n => {
                size += n as u64;
                hasher.update(&buffer[..n]);
            }
        }
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|n| char::from(b"0123456789abcdef"[usize::from(n)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_not_found_and_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        let mut file = cache.partial().unwrap();
        io::Write::write_all(&mut file, b"abc").unwrap();
        let (digest, size) = hash(&mut &b"abc"[..]).unwrap();
        let path = cache.keep(file, &digest).unwrap();
        assert_eq!(cache.find(&digest, Some(size)), Some(path.clone()));
        fs::write(&path, b"abd").unwrap();
        assert_eq!(cache.find(&digest, Some(size)), None);
        assert!(!path.exists());
    }
}
