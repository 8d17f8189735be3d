//! One file of the index.
//!
//! ```text
//! header    magic, number of records, BLAKE3 of the table
//! table     a record for each directory, sorted by name; read at once
//! blocks    for each directory the keys and digests of its files, sorted; read when it changed
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::Stat;

use super::{ContentDigest, stamps};
use crate::limits::{INDEX_FOLDERS, INDEX_STALE_FOLDERS};

const MAGIC: &[u8; 16] = b"ctk stat index 2";
const HEADER_BYTES: usize = 64;
const RECORD_BYTES: usize = 96;
const FILE_BYTES: usize = 48;

/// Which directory: device and inode, and a hash of the patterns under which it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FolderName {
    pub device: u64,
    pub inode: u64,
    pub patterns: u64,
}

/// Hash of the stats of all files in a directory.
pub(crate) type FolderKey = [u8; 16];

/// Hash of a file's stat.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileKey([u8; 16]);

impl FileKey {
    pub fn of(stat: &Stat) -> FileKey {
        let mut bytes = [0; 40];
        for (place, word) in bytes.chunks_exact_mut(8).zip(stamps(stat)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        FileKey(blake3::hash(&bytes).as_bytes()[..16].try_into().expect("16 bytes"))
    }
}

/// Digests of a directory's files, by their keys.
pub(crate) struct Block(Vec<u8>);

impl Block {
    pub fn get(&self, key: &FileKey) -> Option<ContentDigest> {
        let (files, _) = self.0.as_chunks::<FILE_BYTES>();
        let at = files.binary_search_by(|file| file[..16].cmp(&key.0)).ok()?;
        Some(files[at][16..].try_into().expect("32 bytes"))
    }
}

/// A record of the table.
#[derive(Clone, Copy)]
struct Record {
    name: FolderName,
    /// None if a file was too fresh.
    key: Option<FolderKey>,
    digest: ContentDigest,
    offset: u64,
    files: u32,
    /// Of the block.
    check: u64,
}

struct Fresh {
    key: Option<FolderKey>,
    digest: ContentDigest,
    block: Vec<u8>,
}

/// What is known of one context.
pub(crate) struct Shelf {
    path: Option<PathBuf>,
    file: Option<File>,
    table: Vec<u8>,
    /// Which records of the table were asked for.
    used: Vec<AtomicBool>,
    fresh: Mutex<HashMap<FolderName, Fresh>>,
    /// Whether something came since the last time it was written.
    dirty: AtomicBool,
}

impl Shelf {
    /// The shelf kept in the file `path`; empty if there is none or it cannot be understood.
    pub fn open(path: Option<PathBuf>) -> Shelf {
        let file = path.as_ref().and_then(|path| File::open(path).ok());
        let table = file.as_ref().and_then(read_table).unwrap_or_default();
        let used = std::iter::repeat_with(AtomicBool::default).take(table.len() / RECORD_BYTES).collect();
        Shelf { path, file, table, used, fresh: Mutex::default(), dirty: AtomicBool::new(false) }
    }

    /// Directories that are known.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// The digest of the directory's files, if their stats are as they were.
    pub fn folder(&self, name: &FolderName, key: &FolderKey) -> Option<ContentDigest> {
        if let Some(at) = self.find(name) {
            self.used[at].store(true, Ordering::Relaxed);
            let record = self.record(at);
            if record.key.as_ref() == Some(key) {
                return Some(record.digest);
            }
        }
        let fresh = self.fresh.lock().expect("no panic while locked");
        fresh.get(name).filter(|fresh| fresh.key.as_ref() == Some(key)).map(|fresh| fresh.digest)
    }

    /// What is known of a directory's single files; if need be of what other patterns took of it.
    pub fn block(&self, name: &FolderName) -> Block {
        if let Some(fresh) = self.fresh.lock().expect("no panic while locked").get(name) {
            return Block(fresh.block.clone());
        }
        let at = self.find(name).or_else(|| {
            let at = self.lower_bound(&FolderName { patterns: 0, ..*name });
            let near = (at < self.len()).then(|| self.record(at).name);
            near.is_some_and(|near| (near.device, near.inode) == (name.device, name.inode)).then_some(at)
        });
        let Some(at) = at else { return Block(Vec::new()) };
        self.used[at].store(true, Ordering::Relaxed);
        Block(self.read_block(&self.record(at)).unwrap_or_default())
    }

    /// Notes a directory: the digest of its files, if all of them had settled, and of those that had each by itself.
    pub fn put(
        &self,
        name: FolderName,
        key: Option<FolderKey>,
        digest: ContentDigest,
        files: &mut Vec<(FileKey, ContentDigest)>,
    ) {
        files.sort_unstable();
        files.dedup();
        let mut block = Vec::with_capacity(files.len() * FILE_BYTES);
        for (key, digest) in files {
            block.extend_from_slice(&key.0);
            block.extend_from_slice(digest);
        }
        let mut fresh = self.fresh.lock().expect("no panic while locked");
        if fresh.len() < INDEX_FOLDERS {
            fresh.insert(name, Fresh { key, digest, block });
            self.dirty.store(true, Ordering::Relaxed);
        }
    }

    /// Whether some directory has the file's digest.
    #[cfg(test)]
    pub fn knows_file(&self, key: &FileKey) -> bool {
        let fresh = self.fresh.lock().expect("no panic while locked");
        fresh.values().any(|fresh| Block(fresh.block.clone()).get(key).is_some())
    }

    /// Writes what is new, with what is old and was not forgotten, to a new file that takes the old one's place.
    pub fn save(&self) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let fresh = self.fresh.lock().expect("no panic while locked");
        let Some(path) = &self.path else { return };
        if !self.dirty.swap(false, Ordering::Relaxed) {
            return;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = written.and_then(|()| self.write(&temporary, &fresh));
        if written.and_then(|()| std::fs::rename(&temporary, path)).is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
    }

    fn write(&self, path: &std::path::Path, fresh: &HashMap<FolderName, Fresh>) -> std::io::Result<()> {
        enum From<'a> {
            Old(Record),
            New(FolderName, &'a Fresh),
        }
        let used = self.used.iter().filter(|used| used.load(Ordering::Relaxed)).count();
        // What nobody asks for any more is dropped when it is the larger part.
        let keep_all = self.len() - used <= used + fresh.len() + INDEX_STALE_FOLDERS;
        let kept = (0..self.len()).filter(|at| keep_all || self.used[*at].load(Ordering::Relaxed));
        let kept = kept.map(|at| self.record(at)).filter(|record| !fresh.contains_key(&record.name)).map(From::Old);
        let mut all: Vec<(FolderName, From<'_>)> = kept
            .chain(fresh.iter().map(|(name, fresh)| From::New(*name, fresh)))
            .map(|from| match &from {
                From::Old(record) => (record.name, from),
                From::New(name, _) => (*name, from),
            })
            .take(INDEX_FOLDERS)
            .collect();
        all.sort_unstable_by_key(|(name, _)| *name);

        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let mut offset = (HEADER_BYTES + all.len() * RECORD_BYTES) as u64;
        out.seek(SeekFrom::Start(offset))?;
        let mut table = Vec::with_capacity(all.len() * RECORD_BYTES);
        for (name, from) in &all {
            let record = match from {
                From::Old(old) => {
                    let block = self.read_block(old).unwrap_or_default();
                    out.write_all(&block)?;
                    Record { offset, files: (block.len() / FILE_BYTES) as u32, check: check(&block), ..*old }
                }
                From::New(_, Fresh { key, digest, block }) => {
                    out.write_all(block)?;
                    let files = (block.len() / FILE_BYTES) as u32;
                    Record { name: *name, key: *key, digest: *digest, offset, files, check: check(block) }
                }
            };
            offset += u64::from(record.files) * FILE_BYTES as u64;
            record.encode(&mut table);
        }
        out.seek(SeekFrom::Start(0))?;
        out.write_all(MAGIC)?;
        out.write_all(&(all.len() as u64).to_le_bytes())?;
        out.write_all(&[0; 8])?;
        out.write_all(blake3::hash(&table).as_bytes())?;
        out.write_all(&table)?;
        out.into_inner().map_err(|error| error.into_error()).map(drop)
    }

    fn read_block(&self, record: &Record) -> Option<Vec<u8>> {
        let mut block = vec![0; record.files as usize * FILE_BYTES];
        self.file.as_ref()?.read_exact_at(&mut block, record.offset).ok()?;
        (check(&block) == record.check).then_some(block)
    }

    fn record(&self, at: usize) -> Record {
        Record::decode(self.table[at * RECORD_BYTES..][..RECORD_BYTES].try_into().expect("a whole record"))
    }

    fn name(&self, at: usize) -> FolderName {
        Record::name(self.table[at * RECORD_BYTES..][..RECORD_BYTES].try_into().expect("a whole record"))
    }

    fn lower_bound(&self, name: &FolderName) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.name(middle) < *name { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn find(&self, name: &FolderName) -> Option<usize> {
        let at = self.lower_bound(name);
        (at < self.len() && self.name(at) == *name).then_some(at)
    }
}

impl Record {
    fn encode(&self, into: &mut Vec<u8>) {
        for word in [self.name.device, self.name.inode, self.name.patterns, self.offset, self.check] {
            into.extend_from_slice(&word.to_le_bytes());
        }
        into.extend_from_slice(&self.files.to_le_bytes());
        into.extend_from_slice(&u32::from(self.key.is_some()).to_le_bytes());
        into.extend_from_slice(&self.key.unwrap_or_default());
        into.extend_from_slice(&self.digest);
    }

    fn name(bytes: &[u8; RECORD_BYTES]) -> FolderName {
        FolderName { device: word(bytes, 0), inode: word(bytes, 1), patterns: word(bytes, 2) }
    }

    fn decode(bytes: &[u8; RECORD_BYTES]) -> Record {
        let (files, keyed) = (word(bytes, 5) as u32, word(bytes, 5) >> 32 == 1);
        Record {
            name: Record::name(bytes),
            offset: word(bytes, 3),
            check: word(bytes, 4),
            files,
            key: keyed.then(|| bytes[48..64].try_into().expect("16 bytes")),
            digest: bytes[64..].try_into().expect("32 bytes"),
        }
    }
}

fn word(bytes: &[u8; RECORD_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at * 8..][..8].try_into().expect("8 bytes"))
}

fn read_table(file: &File) -> Option<Vec<u8>> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).ok()?;
    let count = u64::from_le_bytes(header[16..24].try_into().expect("8 bytes"));
    let bytes = usize::try_from(count).ok()?.checked_mul(RECORD_BYTES)?;
    if header[..16] != MAGIC[..] || bytes as u64 > file.metadata().ok()?.len() || count > INDEX_FOLDERS as u64 {
        return None;
    }
    let mut table = vec![0; bytes];
    file.read_exact_at(&mut table, HEADER_BYTES as u64).ok()?;
    (blake3::hash(&table).as_bytes()[..] == header[32..]).then_some(table)
}

fn check(block: &[u8]) -> u64 {
    u64::from_le_bytes(blake3::hash(block).as_bytes()[..8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(inode: u64) -> FolderName {
        FolderName { device: 1, inode, patterns: 0 }
    }

    fn files(numbers: std::ops::Range<u8>) -> Vec<(FileKey, ContentDigest)> {
        numbers.rev().map(|n| (FileKey([n; 16]), [n; 32])).collect()
    }

    #[test]
    fn what_was_saved_is_found_again_and_added_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = Some(folder.path().join("deep/shelf"));
        for inode in 0..50 {
            let shelf = Shelf::open(path.clone());
            assert_eq!(shelf.len() as u64, inode);
            shelf.put(name(inode), Some([inode as u8; 16]), [inode as u8; 32], &mut files(0..inode as u8));
            shelf.save();
        }
        let shelf = Shelf::open(path);
        for inode in 0..50 {
            assert_eq!(shelf.folder(&name(inode), &[inode as u8; 16]), Some([inode as u8; 32]));
            assert_eq!(shelf.folder(&name(inode), &[99; 16]), None);
            let block = shelf.block(&name(inode));
            for n in 0..60 {
                let known = (u64::from(n) < inode).then_some([n; 32]);
                assert_eq!(block.get(&FileKey([n; 16])), known, "{n} in {inode}");
            }
        }
        let other = FolderName { patterns: 7, ..name(9) };
        assert_eq!(shelf.folder(&other, &[9; 16]), None, "other patterns");
        assert!(shelf.block(&other).get(&FileKey([3; 16])).is_some(), "its files are still known");
        assert!(std::fs::read_dir(folder.path().join("deep")).unwrap().count() == 1, "no litter");
    }

    #[test]
    fn a_damaged_shelf_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shelf");
        let shelf = Shelf::open(Some(path.clone()));
        for inode in 0..20 {
            shelf.put(name(inode), Some([1; 16]), [2; 32], &mut files(0..10));
        }
        shelf.save();
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            let shelf = Shelf::open(Some(path.clone()));
            for inode in 0..20 {
                assert!(shelf.folder(&name(inode), &[1; 16]).is_none_or(|digest| digest == [2; 32]));
                let block = shelf.block(&name(inode));
                for n in 0..10 {
                    assert!(block.get(&FileKey([n; 16])).is_none_or(|digest| digest == [n; 32]));
                }
            }
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(Shelf::open(Some(path.clone())).folder(&name(3), &[1; 16]).is_none_or(|digest| digest == [2; 32]));
        }
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = Some(folder.path().join("shelf"));
        let shelf = Shelf::open(path.clone());
        let many = INDEX_STALE_FOLDERS as u64 + 100;
        for inode in 0..many {
            shelf.put(name(inode), Some([1; 16]), [2; 32], &mut files(0..1));
        }
        shelf.save();
        let shelf = Shelf::open(path.clone());
        assert_eq!(shelf.len() as u64, many);
        assert!(shelf.folder(&name(5), &[1; 16]).is_some());
        shelf.put(name(many), Some([1; 16]), [2; 32], &mut files(0..1));
        shelf.save();
        let shelf = Shelf::open(path);
        assert_eq!(shelf.len(), 2);
        assert!(shelf.folder(&name(5), &[1; 16]).is_some());
    }

    #[test]
    fn many_writers_leave_a_whole_shelf() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shelf");
        std::thread::scope(|scope| {
            for writer in 0..8u64 {
                let path = path.clone();
                scope.spawn(move || {
                    for inode in 0..20 {
                        let shelf = Shelf::open(Some(path.clone()));
                        shelf.put(name(writer * 100 + inode), Some([1; 16]), [2; 32], &mut files(0..9));
                        shelf.save();
                        assert!(Shelf::open(Some(path.clone())).len() > 0);
                    }
                });
            }
        });
    }
}
