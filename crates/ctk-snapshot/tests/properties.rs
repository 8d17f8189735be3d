//! What must hold for all trees and all archives: a layer carries every change, and threads change nothing.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::*;
use ctk_layer::{Compression, Entry, EntryKind, Time};
use ctk_oci::Manifest;
use ctk_plan::Cancel;
use ctk_snapshot::copy::{Mtime, extract};
use ctk_snapshot::{LayerKey, Packed, Snapshots};
use ctk_store::Store;
use proptest::prelude::*;

/// Everything that a layer carries, by path: kind, attributes, content; hard links name the first of their paths.
fn listing(root: &Path, times: bool) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    list_into(root, Path::new(""), times, &mut HashMap::new(), &mut found);
    found
}

fn list_into(
    root: &Path,
    path: &Path,
    times: bool,
    inodes: &mut HashMap<u64, PathBuf>,
    found: &mut BTreeMap<String, String>,
) {
    let mut names: Vec<_> = fs::read_dir(root.join(path)).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let path = path.join(name);
        let full = root.join(&path);
        let stat = full.symlink_metadata().unwrap();
        let kind = stat.file_type();
        let what = if kind.is_symlink() {
            format!("-> {}", fs::read_link(&full).unwrap().display())
        } else if kind.is_file() {
            let first = inodes.entry(stat.ino()).or_insert_with(|| path.clone());
            format!("file of {}: {:?}", first.display(), fs::read(&full).unwrap())
        } else if kind.is_dir() {
            "directory".into()
        } else if kind.is_fifo() {
            "fifo".into()
        } else {
            format!("device {:#x}", stat.rdev())
        };
        let mut note = [0u8; 64];
        let read = rustix::fs::lgetxattr(&full, "user.note", &mut note[..]);
        let note = &note[..read.unwrap_or(0)];
        let time = if times { format!("{}.{:09}", stat.mtime(), stat.mtime_nsec()) } else { String::new() };
        let owner = (stat.uid(), stat.gid());
        found.insert(path.display().to_string(), format!("{what} {:o} {owner:?} {note:?} {time}", stat.mode()));
        if kind.is_dir() {
            list_into(root, &path, times, inodes, found);
        }
    }
}

fn path_of(fd: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

/// One change of a tree; names are chosen by number among few, so that they meet.
#[derive(Clone, Debug)]
struct Op {
    act: u8,
    at: [u8; 2],
    other: [u8; 2],
    seed: u16,
}

fn ops(most: usize) -> impl Strategy<Value = Vec<Op>> {
    let op = (0u8..13, any::<[u8; 2]>(), any::<[u8; 2]>(), any::<u16>());
    proptest::collection::vec(op.prop_map(|(act, at, other, seed)| Op { act, at, other, seed }), 0..most)
}

fn place(at: [u8; 2]) -> String {
    let directory = ["", "d/", "e/", "d/f/"][usize::from(at[0] % 4)];
    format!("{directory}{}", ["a", "b", "c", "d", "f", "n\u{fc}"][usize::from(at[1] % 6)])
}

/// Does what can be done; what the kernel refuses is no change.
fn change(root: &Path, op: &Op) {
    let (at, other) = (root.join(place(op.at)), root.join(place(op.other)));
    let remove = || {
        let _ = fs::remove_file(&at);
        let _ = fs::remove_dir_all(&at);
    };
    let _ = match op.act {
        // Opening a pipe would wait for its other end.
        0 | 1 if !at.metadata().is_ok_and(|stat| stat.file_type().is_fifo()) => {
            fs::write(&at, vec![op.seed as u8; usize::from(op.seed % 9000)])
        }
        2 => fs::create_dir_all(&at),
        3 => {
            remove();
            Ok(())
        }
        4 => {
            // What was a directory comes back as another one: opaque over a lower layer.
            remove();
            fs::create_dir_all(&at).and_then(|()| fs::write(at.join("new"), "new"))
        }
        5 => symlink(place(op.other), &at),
        6 => fs::hard_link(&other, &at),
        7 => fs::rename(&other, &at),
        8 if !at.is_symlink() => {
            fs::set_permissions(&at, fs::Permissions::from_mode(u32::from(op.seed) & 0o7777 | 0o700))
        }
        9 => std::os::unix::fs::lchown(&at, Some(op.seed.into()), Some(3_000_000)),
        10 => rustix::fs::setxattr(&at, "user.note", &op.seed.to_le_bytes(), rustix::fs::XattrFlags::empty())
            .map_err(Into::into),
        11 => {
            remove();
            let mode = rustix::fs::Mode::from_raw_mode(0o640);
            rustix::fs::mknodat(rustix::fs::CWD, &at, rustix::fs::FileType::Fifo, mode, 0).map_err(Into::into)
        }
        0..=11 => Ok(()),
        _ => {
            let time = rustix::fs::Timespec { tv_sec: i64::from(op.seed) - 30_000, tv_nsec: 123_456_789 };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(rustix::fs::CWD, &at, &times, flags).map_err(Into::into)
        }
    };
}

fn layer(
    snapshots: &Snapshots,
    parents: &[LayerKey],
    key: &LayerKey,
    ops: &[Op],
) -> (BTreeMap<String, String>, Packed) {
    let workspace = snapshots.begin(parents).unwrap();
    let root = workspace.open_root().unwrap();
    ops.iter().for_each(|op| change(&path_of(&root), op));
    drop(root);
    workspace.commit(key).unwrap();
    let all: Vec<LayerKey> = parents.iter().chain([key]).cloned().collect();
    let tree = snapshots.tree(&all).unwrap();
    let packed = snapshots.pack(key, Compression::Gzip { level: 1 }, None, &Cancel::new()).unwrap();
    (listing(&path_of(&tree.root()), true), packed)
}

/// The tars of an image on their way to a store that has never seen the trees.
fn travel(from: &Store, layers: &[Packed]) -> BTreeMap<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let there = Snapshots::open(&Store::open(directory.path()).unwrap());
    let tars = layers.iter().map(|packed| {
        let mut tar = Vec::new();
        let blob = from.open_blob(&packed.descriptor).unwrap();
        ctk_layer::decode(blob).unwrap().1.read_to_end(&mut tar).unwrap();
        tar
    });
    let manifest: Manifest = image(there.store(), &tars.collect::<Vec<_>>(), Compression::Gzip { level: 1 });
    let keys = there.unpack_image(&manifest, None, &Cancel::new()).unwrap();
    let tree = there.tree(&keys).unwrap();
    listing(&path_of(&tree.root()), true)
}

/// An entry of an archive that somebody hostile wrote.
fn entry((act, at, other, seed): (u8, [u8; 2], [u8; 2], u16)) -> (Entry, Vec<u8>) {
    let data = vec![seed as u8; usize::from(seed) * 5];
    let target = place(other).into_bytes();
    let kind = match act {
        0..4 => EntryKind::File { size: data.len() as u64 },
        4 | 5 => EntryKind::Directory,
        6 => EntryKind::Symlink { target: [&b"/"[..], &target].concat() },
        7 => EntryKind::Symlink { target: b"../d".to_vec() },
        8 | 9 => EntryKind::HardLink { target },
        _ => EntryKind::Fifo,
    };
    let mut entry = Entry::new(place(at), kind, 0o600 | u32::from(seed & 0o77));
    entry.mtime = Time::seconds(seed.into());
    (entry.uid, entry.gid) = (seed.into(), 7);
    let data = if entry.size() > 0 { data } else { vec![] };
    (entry, data)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// `apply(diff(a, b), a) = b`, twice in a row.
    #[test]
    fn a_layer_carries_every_change(base in ops(25), middle in ops(25), top in ops(25)) {
        let Some(home) = home() else { return Ok(()) };
        let (keys, mut packed) = ([key("a1"), key("a2"), key("a3")], Vec::new());
        for (number, ops) in [base, middle, top].iter().enumerate() {
            let (expected, layer) = layer(&home.snapshots, &keys[..number], &keys[number], ops);
            packed.push(layer);
            prop_assert_eq!(travel(home.snapshots.store(), &packed), expected);
        }
    }

    /// Files are written by several threads; the tree is the one that a single thread makes.
    #[test]
    fn threads_do_not_change_what_an_archive_means(
        entries in proptest::collection::vec((0u8..11, any::<[u8; 2]>(), any::<[u8; 2]>(), any::<u16>()), 0..40)
    ) {
        let Some(home) = home() else { return Ok(()) };
        let tar = tar(&entries.into_iter().map(entry).collect::<Vec<_>>());
        let one = home.directory.path().join("one");
        fs::create_dir(&one).unwrap();
        let fd = open(&one);
        let alone = extract(root(&fd), b"", "archive", &tar[..], None, Mtime::Keep, &Cancel::new());
        let manifest = image(home.snapshots.store(), &[tar], Compression::None);
        match home.snapshots.unpack_image(&manifest, None, &Cancel::new()) {
            Ok(keys) => {
                alone.unwrap();
                let tree = home.snapshots.tree(&keys).unwrap();
                // Times of directories that are only made on the way are those of the clock.
                let without_times = |root: &Path| {
                    let mut all = listing(root, true);
                    for (path, line) in listing(root, false).into_iter().filter(|(_, l)| l.starts_with("directory")) {
                        all.insert(path, line);
                    }
                    all
                };
                prop_assert_eq!(without_times(&path_of(&tree.root())), without_times(&one));
            }
            Err(error) => {
                let alone = alone.expect_err(&format!("with threads: {error}"));
                prop_assert_eq!(alone.to_string(), error.to_string());
            }
        }
    }
}
