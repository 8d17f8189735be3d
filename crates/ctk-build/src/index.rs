//! The stat index: what a file's content is, without reading it, as long as its stat says that nobody touched it.
//!
//! One small binary file: a header, then an entry for each file with (device, inode) and, as of the last reading, size,
//! mtime, ctime and BLAKE3. An entry counts only if all agree. Losing the file costs time, never correctness.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::Stat;

use crate::limits::{INDEX_ENTRIES, RACY_NANOSECONDS};

const HEADER: &[u8; 16] = b"ctk stat index 1";
const ENTRY_BYTES: usize = 72;

/// BLAKE3 of a file's content.
pub type ContentDigest = [u8; 32];

/// Digests by stat. Shared by threads; saved by [`StatIndex::save`].
pub struct StatIndex {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<(u64, u64), Known>,
    dirty: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    size: u64,
    mtime: i64,
    ctime: i64,
    digest: ContentDigest,
}

impl StatIndex {
    /// The index kept in the file `path`; empty if there is none or it cannot be understood.
    pub fn open(path: &Path) -> StatIndex {
        let bytes = std::fs::read(path).unwrap_or_default();
        let entries = decode(&bytes).unwrap_or_default();
        StatIndex { path: Some(path.to_owned()), state: Mutex::new(State { entries, dirty: false }) }
    }

    /// An index that is never saved.
    pub fn in_memory() -> StatIndex {
        StatIndex { path: None, state: Mutex::default() }
    }

    /// The digest of the file with this stat, if it is known.
    pub fn get(&self, stat: &Stat) -> Option<ContentDigest> {
        let state = self.state.lock().expect("no panic while locked");
        let known = state.entries.get(&(stat.st_dev, stat.st_ino))?;
        let same = known.size == stat.st_size as u64 && known.mtime == mtime(stat) && known.ctime == ctime(stat);
        same.then_some(known.digest)
    }

    /// Notes a digest. `now` is nanoseconds since 1970: a file changed so recently that another change could leave the
    /// same time stamps is not noted.
    pub fn put(&self, stat: &Stat, digest: ContentDigest, now: i64) {
        if now.saturating_sub(ctime(stat)) < RACY_NANOSECONDS {
            return;
        }
        let mut state = self.state.lock().expect("no panic while locked");
        let known = Known { size: stat.st_size as u64, mtime: mtime(stat), ctime: ctime(stat), digest };
        state.entries.insert((stat.st_dev, stat.st_ino), known);
        state.dirty = true;
    }

    /// Writes the index, if anything is new, in one rename. Failing to is no error: it is a cache.
    pub fn save(&self) {
        let (Some(path), mut state) = (&self.path, self.state.lock().expect("no panic while locked")) else { return };
        if !state.dirty {
            return;
        }
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let write = || -> std::io::Result<()> {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            File::create(&temporary)?.write_all(&encode(&state.entries))?;
            std::fs::rename(&temporary, path)
        };
        if write().is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        state.dirty = false;
    }
}

fn mtime(stat: &Stat) -> i64 {
    stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64)
}

fn ctime(stat: &Stat) -> i64 {
    stat.st_ctime.saturating_mul(1_000_000_000).saturating_add(stat.st_ctime_nsec as i64)
}

fn encode(entries: &HashMap<(u64, u64), Known>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER.len() + entries.len() * ENTRY_BYTES);
    bytes.extend_from_slice(HEADER);
    for ((device, inode), known) in entries.iter().take(INDEX_ENTRIES) {
        bytes.extend_from_slice(&device.to_le_bytes());
        bytes.extend_from_slice(&inode.to_le_bytes());
        bytes.extend_from_slice(&known.size.to_le_bytes());
        bytes.extend_from_slice(&known.mtime.to_le_bytes());
        bytes.extend_from_slice(&known.ctime.to_le_bytes());
        bytes.extend_from_slice(&known.digest);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<HashMap<(u64, u64), Known>> {
    let body = bytes.strip_prefix(HEADER)?;
    let (entries, rest) = body.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() {
        return None;
    }
    let entry = |entry: &[u8; ENTRY_BYTES]| {
        let word = |at: usize| u64::from_le_bytes(entry[at * 8..][..8].try_into().expect("8 bytes"));
        let digest = entry[40..].try_into().expect("32 bytes");
        let known = Known { size: word(2), mtime: word(3) as i64, ctime: word(4) as i64, digest };
        ((word(0), word(1)), known)
    };
    Some(entries.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_known_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (file, saved) = (folder.path().join("file"), folder.path().join("index"));
        std::fs::write(&file, "x").unwrap();
        let stat = rustix::fs::stat(&file).unwrap();
        let index = StatIndex::open(&saved);
        index.put(&stat, [7; 32], ctime(&stat) + 1);
        assert_eq!(index.get(&stat), None, "too fresh to be trusted");
        index.put(&stat, [7; 32], i64::MAX);
        index.save();
        assert_eq!(StatIndex::open(&saved).get(&stat), Some([7; 32]));
        std::fs::write(&file, "yy").unwrap();
        assert_eq!(StatIndex::open(&saved).get(&rustix::fs::stat(&file).unwrap()), None);
        std::fs::write(&saved, "garbage").unwrap();
        assert_eq!(StatIndex::open(&saved).get(&stat), None);
    }
}
