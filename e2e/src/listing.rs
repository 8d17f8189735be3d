//! Everything that a tree of files holds and an archive may lose, a line a path.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A line for each path below a root: kind, size, content, first of its hard links, mode,
/// owner, time; then, after a tab, extended attributes.
pub type Listing = BTreeMap<String, String>;

/// What is in the folder `root`, without itself.
pub fn listing(root: &Path) -> Listing {
    let mut found = Listing::new();
    list(root, Path::new(""), &mut HashMap::new(), &mut found);
    found
}

/// The lines that are different, for a failed assertion; empty when all are the same.
pub fn differences(ours: &Listing, theirs: &Listing) -> String {
    let paths: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let shown = |line: Option<&String>| line.map_or("nothing", String::as_str).to_owned();
    let line = |path: &&String| format!("{path}\n  {}\n  {}\n", shown(ours.get(*path)), shown(theirs.get(*path)));
    paths.iter().filter(|path| ours.get(**path) != theirs.get(**path)).map(line).collect()
}

fn list(root: &Path, path: &Path, inodes: &mut HashMap<u64, PathBuf>, found: &mut Listing) {
    let read = fs::read_dir(root.join(path)).unwrap_or_else(|error| panic!("{}: {error}", root.join(path).display()));
    let mut names: Vec<_> = read.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    for name in names {
        let path = path.join(name);
        let full = root.join(&path);
        let stat = full.symlink_metadata().expect("what was listed");
        let kind = stat.file_type();
        let what = if kind.is_symlink() {
            format!("link to {:?}", fs::read_link(&full).expect("a link"))
        } else if kind.is_dir() {
            "directory".to_owned()
        } else if kind.is_fifo() {
            "pipe".to_owned()
        } else if kind.is_char_device() || kind.is_block_device() {
            let letter = if kind.is_char_device() { 'c' } else { 'b' };
            let (major, minor) = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
            format!("{letter} {major}:{minor}")
        } else {
            format!("file of {} bytes {:016x}", stat.len(), content(&full))
        };
        let first = inodes.entry(stat.ino()).or_insert_with(|| path.clone());
        let same = if *first == path { String::new() } else { format!(" = {first:?}") };
        let (mode, owner) = (stat.mode() & 0o7777, (stat.uid(), stat.gid()));
        let time = format!("{}.{:09}", stat.mtime(), stat.mtime_nsec());
        let line = format!("{what}{same} {mode:o} {owner:?} {time}\t{}", attributes(&full));
        found.insert(format!("{path:?}"), line);
        if kind.is_dir() {
            list(root, &path, inodes, found);
        }
    }
}

/// A hash of a file's bytes; of a large sparse one, of its first and last ones.
fn content(path: &Path) -> u64 {
    const LARGE_BYTES: u64 = 1 << 30;
    let mut file = fs::File::open(path).expect("a file");
    let length = file.metadata().expect("its length").len();
    let mut hasher = DefaultHasher::new();
    let mut hash = |bytes: u64, file: &mut fs::File| {
        let mut all = Vec::new();
        file.take(bytes).read_to_end(&mut all).expect("its bytes");
        hasher.write(&all);
    };
    if length > LARGE_BYTES {
        hash(1 << 20, &mut file);
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(-(1 << 20))).expect("its end");
    }
    hash(LARGE_BYTES, &mut file);
    hasher.finish()
}

/// Extended attributes without those of the filesystem itself.
fn attributes(path: &Path) -> String {
    let mut names = vec![0u8; 64 << 10];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else { return String::new() };
    let mut found = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = OsStr::from_bytes(name);
        let mut value = vec![0u8; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("an attribute");
        value.truncate(length);
        let shown = name.to_string_lossy().into_owned();
        if !shown.starts_with("trusted.overlay.") && !shown.starts_with("security.selinux") {
            found.insert(shown, value);
        }
    }
    if found.is_empty() { String::new() } else { format!("{found:?}") }
}
