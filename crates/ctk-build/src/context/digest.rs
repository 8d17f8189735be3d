//! What files are, in few bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ctk_buildgraph::KeyHasher;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::{Context, Entry, EntryKind, Found, Unread, shown};
use crate::index::ContentDigest;
use crate::{BuildError, StatIndex};

impl Context {
    /// Reads the files whose digest the index does not know, several at once.
    pub(super) fn read_all(
        &self,
        found: &mut [Found],
        unread: Unread,
        index: &StatIndex,
        now: i64,
    ) -> Result<(), BuildError> {
        if unread.is_empty() {
            return Ok(());
        }
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<(usize, usize, ContentDigest)>> = Mutex::new(Vec::with_capacity(unread.len()));
        let failed: Mutex<Option<BuildError>> = Mutex::new(None);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(unread.len()).min(8);
        let shared: &[Found] = found;
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((source, at, stat)) = unread.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let path = &shared[*source].entries[*at].path;
                        match self.digest(path) {
                            Ok(digest) => {
                                index.put(stat, digest, now);
                                results.lock().expect("no panic while locked").push((*source, *at, digest));
                            }
                            Err(error) => {
                                failed.lock().expect("no panic while locked").get_or_insert(error);
                                return;
                            }
                        }
                    }
                });
            }
        });
        if let Some(error) = failed.into_inner().expect("no panic while locked") {
            return Err(error);
        }
        for (source, at, digest) in results.into_inner().expect("no panic while locked") {
            found[source].entries[at].kind = EntryKind::File(digest);
        }
        Ok(())
    }

    fn digest(&self, path: &[u8]) -> Result<ContentDigest, BuildError> {
        let read = |e: std::io::Error| BuildError::read("read", self.at(path))(e);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let fd = openat2(&self.root, path, flags, Mode::empty(), resolve).map_err(|e| read(e.into()))?;
        let mut hasher = blake3::Hasher::new();
        let attributes = if self.details_until.is_none() { attributes(&fd, false) } else { Ok(String::new()) };
        hash(File::from(fd), &mut hasher).map_err(read)?;
        let content = hasher.finalize();
        match attributes.map_err(|e| read(e.into()))? {
            none if none.is_empty() => Ok(*content.as_bytes()),
            attributes => {
                let mut both = blake3::Hasher::new();
                both.update(content.as_bytes()).update(attributes.as_bytes());
                Ok(*both.finalize().as_bytes())
            }
        }
    }
}

fn hash(mut file: File, hasher: &mut blake3::Hasher) -> std::io::Result<()> {
    let mut buffer = vec![0u8; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => hasher.update(&buffer[..n]),
        };
    }
}

/// Names and values of a file's extended attributes: all, or the user's.
pub(super) fn attributes(file: &OwnedFd, all: bool) -> rustix::io::Result<String> {
    let mut small = [0u8; 256];
    let mut large = Vec::new();
    let names = match rustix::fs::flistxattr(file.as_fd(), &mut small[..]) {
        Ok(length) => &small[..length],
        Err(Errno::RANGE) => {
            large.reserve(64 << 10);
            rustix::fs::flistxattr(file.as_fd(), rustix::buffer::spare_capacity(&mut large))?;
            &large[..]
        }
        Err(Errno::OPNOTSUPP) => return Ok(String::new()),
        Err(e) => return Err(e),
    };
    let mut text = String::new();
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty() && (all || name.starts_with(b"user."))) {
        let mut value = Vec::with_capacity(64 << 10);
        rustix::fs::fgetxattr(file.as_fd(), name, rustix::buffer::spare_capacity(&mut value))?;
        text.push_str(&format!(" {}={}", String::from_utf8_lossy(name), blake3::hash(&value).to_hex()));
    }
    Ok(text)
}

impl Entry {
    fn describe(&self) -> String {
        let same = self.same_as.map(|first| format!(" ={first}")).unwrap_or_default();
        match &self.kind {
            EntryKind::Directory => format!("d{:o}", self.mode),
            EntryKind::File(digest) => format!("f{:o} {}{same}", self.mode, blake3::Hash::from_bytes(*digest).to_hex()),
            EntryKind::Link(target) => format!("l {}", shown(target)),
            EntryKind::Special(kind, device) => format!("s{:o} {device}{same}", kind | self.mode),
        }
    }
}

/// Digest of what a selection gives.
pub(crate) fn digest_of(found: &[Found]) -> String {
    let mut hasher = KeyHasher::new("selection");
    for source in found {
        // The name decides what the copy is called, the path where it is.
        hasher.part(&source.named).part(&source.path);
        for entry in &source.entries {
            hasher.part(&entry.path).part(entry.describe().as_bytes());
            hasher.part(entry.detail.as_deref().unwrap_or_default().as_bytes());
        }
    }
    hasher.finish().to_string()
}

/// A short word for each file, for a fingerprint that can tell which one changed.
pub(crate) fn file_words(found: &[Found], into: &mut BTreeMap<String, String>) {
    for source in found.iter().filter(|source| source.named != source.path) {
        into.insert(shown(&source.named), format!("l {}", shown(&source.path)));
    }
    for entry in found.iter().flat_map(|f| &f.entries) {
        if entry.path.is_empty() {
            continue;
        }
        let same = entry.same_as.map(|first| format!("={first}")).unwrap_or_default();
        let detail = entry.detail.as_deref().unwrap_or_default();
        let word = match &entry.kind {
            EntryKind::File(digest) => {
                format!("{:o}:{}{same}", entry.mode, &blake3::Hash::from_bytes(*digest).to_hex()[..32])
            }
            _ => format!("{}{detail}", entry.describe()),
        };
        into.insert(shown(&entry.path), word);
    }
}
