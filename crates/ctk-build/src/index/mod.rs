//! The stat index: what files hold, without reading them, as long as their stats say that nobody touched them.
//!
//! Each context has a file of its own, named after its directory's device and inode, and read when the context is first
//! looked at. It has a record for each directory: a hash of what its files' stats were, and the digest that came of
//! them. If the hash is the same, so is the digest, and nothing of the directory's files is looked up one by one. For a
//! directory that changed, the record leads to the digests of its single files, again by their stats.
//!
//! Device, inode, size, mtime and ctime all count. Nothing is noted of a file that changed so shortly before it was
//! read that another change could have left the same stamps: it is read again next time, as git does it. Losing the
//! index costs time, never correctness; damaged parts count as absent.

mod shelf;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::Stat;

use crate::limits::{COARSE_NANOSECONDS, RACY_NANOSECONDS};

pub(crate) use shelf::{FileKey, FolderKey, FolderName, Shelf};

/// BLAKE3 of a file's content.
pub type ContentDigest = [u8; 32];

/// Digests by stat. Shared by threads; saved by [`StatIndex::save`].
pub struct StatIndex {
    folder: Option<PathBuf>,
    shelves: Mutex<HashMap<(u64, u64), Arc<Shelf>>>,
}

impl StatIndex {
    /// The index kept in the directory `folder`, which need not exist.
    pub fn open(folder: &Path) -> StatIndex {
        StatIndex { folder: Some(folder.to_owned()), shelves: Mutex::default() }
    }

    /// An index that is never saved.
    pub fn in_memory() -> StatIndex {
        StatIndex { folder: None, shelves: Mutex::default() }
    }

    /// What is known of the context whose directory has this stat.
    pub(crate) fn shelf(&self, root: &Stat) -> Arc<Shelf> {
        let mut shelves = self.shelves.lock().expect("no panic while locked");
        let shelf = shelves.entry((root.st_dev, root.st_ino)).or_insert_with(|| {
            let name = format!("{:x}-{:x}", root.st_dev, root.st_ino);
            Arc::new(Shelf::open(self.folder.as_ref().map(|folder| folder.join(name))))
        });
        shelf.clone()
    }

    /// Writes what is new, each file in one rename. Failing to is no error: it is a cache.
    pub fn save(&self) {
        for shelf in self.shelves.lock().expect("no panic while locked").values() {
            shelf.save();
        }
    }
}

/// Whether a file with this stat, read at `now` (nanoseconds since 1970) or later, could not have changed since without
/// its stat telling.
pub(crate) fn settled(stat: &Stat, now: i64) -> bool {
    // Only file systems that count whole seconds, or two of them, have such stamps on all their files.
    let coarse = stat.st_ctime_nsec == 0 && stat.st_mtime_nsec == 0;
    now.saturating_sub(ctime(stat)) >= if coarse { COARSE_NANOSECONDS } else { RACY_NANOSECONDS }
}

/// Whether nobody wrote to a file between two stats of it.
pub(crate) fn untouched(before: &Stat, after: &Stat) -> bool {
    stamps(before) == stamps(after)
}

/// All of a stat that changes when a file does.
pub(crate) fn stamps(stat: &Stat) -> [u64; 5] {
    let mtime = nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64);
    [stat.st_dev, stat.st_ino, stat.st_size as u64, mtime as u64, ctime(stat) as u64]
}

fn ctime(stat: &Stat) -> i64 {
    nanoseconds(stat.st_ctime, stat.st_ctime_nsec as i64)
}

fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}
