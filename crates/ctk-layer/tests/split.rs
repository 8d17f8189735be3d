//! Layers divided: what is where, and that nothing else changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use ctk_layer::{
    Change, Division, Entry, EntryKind, LayerError, TarReader, TarWriter, change_of, divide, opaque_name, whiteout_name,
};
use proptest::prelude::*;

type Entries = Vec<(Entry, Vec<u8>)>;

fn file(path: &str, size: usize) -> (Entry, Vec<u8>) {
    (Entry::new(path, EntryKind::File { size: size as u64 }, 0o644), vec![path.len() as u8; size])
}

fn directory(path: &str) -> (Entry, Vec<u8>) {
    let mut entry = Entry::new(path, EntryKind::Directory, 0o1750);
    entry.mtime.seconds = 1_000 + path.len() as i64;
    (entry, vec![])
}

fn link(path: &str, target: &str) -> (Entry, Vec<u8>) {
    (Entry::new(path, EntryKind::HardLink { target: target.into() }, 0o644), vec![])
}

fn marker(path: Vec<u8>) -> (Entry, Vec<u8>) {
    (Entry::new(path, EntryKind::File { size: 0 }, 0o644), vec![])
}

fn tar(entries: &Entries) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (entry, data) in entries {
        tar.append(entry, &data[..]).unwrap();
    }
    tar.finish().unwrap()
}

fn read(tar: &[u8]) -> Entries {
    let mut reader = TarReader::new(tar);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut data = Vec::new();
        reader.read_to_end(&mut data).unwrap();
        found.push((entry, data));
    }
    found
}

/// The tars of the pieces; none when the layer stays whole.
fn pieces(layer: &[u8], limit: u64) -> Vec<Vec<u8>> {
    match divide(&mut TarReader::new(layer), limit).unwrap() {
        Division::Pieces(split) => {
            let mut reader = TarReader::new(layer);
            (0..split.pieces()).map(|piece| split.write(piece, &mut reader, Vec::new()).unwrap()).collect()
        }
        Division::Whole => vec![],
        Division::Entangled { path, reason } => panic!("{path}: {reason}"),
    }
}

/// The names in each piece.
fn names(entries: &Entries, limit: u64) -> Vec<String> {
    let all = pieces(&tar(entries), limit);
    all.iter().map(|piece| read(piece).iter().map(|(e, _)| e.display()).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn pieces_end_between_files_and_begin_their_directories_anew() {
    let layer =
        vec![directory(""), directory("a"), file("a/1", 3000), directory("a/b"), file("a/b/2", 3000), file("c", 1)];
    assert_eq!(names(&layer, 6 << 10), ["/ a a/1", "/ a a/b a/b/2", "/ c"]);
    assert_eq!(names(&layer, 7 << 10), ["/ a a/1", "/ a a/b a/b/2 c"]);
    assert_eq!(names(&layer, 64 << 10), [""; 0]);
    // What is larger than the limit is alone.
    assert_eq!(names(&layer, 1), ["/ a a/1", "/ a a/b a/b/2", "/ c"]);
}

#[test]
fn hard_links_follow_their_file_and_whiteouts_come_first() {
    let layer = vec![
        directory("a"),
        file("a/1", 600),
        directory("b"),
        marker(opaque_name(b"b")),
        file("b/2", 600),
        directory("e"),
        link("e/again", "a/1"),
        directory("empty"),
        marker(whiteout_name(b"gone")),
        link("z", "e/again"),
    ];
    assert_eq!(names(&layer, 1), ["b b/.wh..wh..opq .wh.gone", "a e a/1 e/again z", "b b/2", "empty"]);
}

#[test]
fn layers_that_no_sequence_can_say_stay_whole() {
    let check = |entries: Entries, expected: &str| {
        let layer = tar(&entries);
        match divide(&mut TarReader::new(&layer[..]), 1).unwrap() {
            Division::Entangled { path, reason } => assert_eq!(format!("{path}: {reason}"), expected),
            other => panic!("{other:?} instead of {expected}"),
        }
    };
    let symlink = (Entry::new("l", EntryKind::Symlink { target: b"d".to_vec() }, 0o777), vec![]);
    check(vec![file("a", 1), file("a", 2)], "a: it is there twice");
    check(vec![symlink, file("l/x", 1)], "l/x: it is below something that is no directory");
    check(vec![link("a", "b"), file("b", 1)], "a: it is a hard link to no file before it in its layer");
    check(vec![file("d/x", 1), directory("d")], "d: it is a directory that comes after what is in it");
    check(vec![file("d/x", 1), file("d", 1)], "d: it takes the place of a directory before it");
    check(vec![marker(b".wh..wh.plnk".to_vec())], ".wh..wh.plnk: it is bookkeeping of AUFS");
}

#[test]
fn another_layer_than_the_divided_one_is_noticed() {
    let layer = tar(&vec![file("a", 600), file("b", 600)]);
    let Division::Pieces(split) = divide(&mut TarReader::new(&layer[..]), 1).unwrap() else { panic!() };
    let other = tar(&vec![file("a", 600)]);
    let mut reader = TarReader::new(&other[..]);
    split.write(0, &mut reader, Vec::new()).unwrap();
    assert!(matches!(split.write(1, &mut reader, Vec::new()), Err(LayerError::Read(_))));
}

/// What a path is, after layers were applied; hard links share an identity.
#[derive(Clone, Debug, PartialEq)]
struct Node {
    entry: Entry,
    data: Vec<u8>,
    identity: Vec<u8>,
}

/// Image-spec's rules in the plainest way: whiteouts speak of lower layers, directories merge.
fn apply(tree: &mut BTreeMap<Vec<u8>, Node>, layer: &[u8]) {
    let entries = read(layer);
    let below = |path: &[u8]| [path, b"/"].concat();
    for (entry, _) in &entries {
        match change_of(&entry.path) {
            Change::Whiteout(path) => tree.retain(|p, _| *p != path && !p.starts_with(&below(&path))),
            Change::Opaque(path) => tree.retain(|p, _| !p.starts_with(&below(&path))),
            Change::Put | Change::Nothing => {}
        }
    }
    for (entry, data) in entries {
        if change_of(&entry.path) != Change::Put {
            continue;
        }
        let node = match &entry.kind {
            EntryKind::HardLink { target } => tree[target].clone(),
            _ => Node { identity: entry.path.clone(), entry: entry.clone(), data },
        };
        if entry.kind != EntryKind::Directory {
            tree.retain(|p, _| !p.starts_with(&below(&entry.path)));
        }
        tree.insert(entry.path, node);
    }
}

/// A layer as a packer writes it: sorted, each directory with an entry, hard links to what is before them.
fn layer() -> impl Strategy<Value = Entries> {
    let one = (0u8..9, 0u8..4, 0u8..6, 0usize..5000);
    proptest::collection::vec(one, 1..40).prop_map(|all| {
        let (mut paths, mut made) = (BTreeSet::new(), Entries::new());
        let mut files: Vec<String> = Vec::new();
        let mut wanted: Vec<_> = all
            .into_iter()
            .map(|(act, at, name, size)| (format!("{}{}", ["", "d/", "d/e/", "f/"][usize::from(at)], name), act, size))
            .collect();
        wanted.sort();
        for (path, act, size) in wanted {
            for (slash, _) in path.match_indices('/') {
                if paths.insert(path[..slash].to_owned()) {
                    made.push(directory(&path[..slash]));
                }
            }
            if !paths.insert(path.clone()) {
                continue;
            }
            match act {
                0 => made.push(marker(whiteout_name(path.as_bytes()))),
                1 => made.push(directory(&path)),
                2 => {
                    made.push(directory(&path));
                    made.push(marker(opaque_name(path.as_bytes())));
                }
                3 | 4 if !files.is_empty() => {
                    made.push(link(&path, &files[size % files.len()]));
                    files.push(path);
                }
                5 => made.push((Entry::new(path, EntryKind::Symlink { target: b"d".to_vec() }, 0o777), vec![])),
                _ => {
                    made.push(file(&path, size));
                    files.push(path);
                }
            }
        }
        made
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_pieces_are_the_layer(base in layer(), top in layer(), limit in 1u64..20_000) {
        let (base, top) = (tar(&base), tar(&top));
        let mut whole = BTreeMap::new();
        apply(&mut whole, &base);
        let mut divided = whole.clone();
        apply(&mut whole, &top);
        let all = pieces(&top, limit);
        for piece in &all {
            apply(&mut divided, piece);
            let noted = |e: &Entry| matches!(e.kind, EntryKind::Directory | EntryKind::HardLink { .. });
            let leaves = read(piece).iter().filter(|(e, _)| !noted(e) && change_of(&e.path) == Change::Put).count();
            prop_assert!(piece.len() as u64 <= limit || leaves <= 1);
        }
        if all.is_empty() {
            apply(&mut divided, &top);
        }
        prop_assert_eq!(divided, whole);
        prop_assert_eq!(pieces(&top, limit), all);
    }
}
