//! What the kernel and `fsck.erofs` find in our images.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use ctk_erofs::{Attributes, ErofsError, Kind, NodeId, Time, Tree};
use proptest::prelude::*;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

/// A tree by paths: kinds, attributes, bytes; or another name of a path.
#[derive(Clone, Debug, Default)]
struct Model {
    root: Attributes,
    nodes: BTreeMap<Vec<u8>, Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    Node(Kind, Attributes, Vec<u8>),
    Link(Vec<u8>),
}

/// What can be seen of one path: kind, attributes, bytes, and all names of the same inode.
type Seen = BTreeMap<Vec<u8>, (Kind, Attributes, Vec<u8>, BTreeSet<Vec<u8>>, u64)>;

impl Model {
    fn node(mut self, path: &str, kind: Kind, attributes: Attributes) -> Model {
        self.nodes.insert(path.into(), Entry::Node(kind, attributes, Vec::new()));
        self
    }

    fn file(mut self, path: &str, bytes: &[u8], attributes: Attributes) -> Model {
        let kind = Kind::File(bytes.len() as u64);
        self.nodes.insert(path.into(), Entry::Node(kind, attributes, bytes.to_vec()));
        self
    }

    fn link(mut self, path: &str, target: &str) -> Model {
        self.nodes.insert(path.into(), Entry::Link(target.into()));
        self
    }

    /// The image, and what should be seen in it.
    fn write(&self, image: &Path) -> Seen {
        let mut tree = Tree::new(self.root.clone()).unwrap();
        let mut ids: BTreeMap<Vec<u8>, NodeId> = [(Vec::new(), Tree::ROOT)].into();
        let mut bytes: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
        let mut names: BTreeMap<NodeId, BTreeSet<Vec<u8>>> = BTreeMap::new();
        let mut add = |path: &Vec<u8>, entry: &Entry, ids: &mut BTreeMap<Vec<u8>, NodeId>| {
            let (parent, name) = split(path);
            let id = match entry {
                Entry::Node(kind, attributes, data) => {
                    let id = tree.add(ids[parent], name, kind.clone(), attributes.clone()).unwrap();
                    bytes.insert(id, data.clone());
                    id
                }
                Entry::Link(target) => {
                    tree.link(ids[parent], name, ids[target]).unwrap();
                    ids[target]
                }
            };
            ids.insert(path.clone(), id);
            names.entry(id).or_default().insert(path.clone());
        };
        for links in [false, true] {
            for (path, entry) in &self.nodes {
                if matches!(entry, Entry::Link(_)) == links {
                    add(path, entry, &mut ids);
                }
            }
        }
        let mut file = File::create(image).unwrap();
        let mut open = |id: NodeId| Ok(&bytes[&id][..]);
        let written = tree.write([7; 16], &mut file, &mut open).unwrap();
        assert_eq!(file.metadata().unwrap().len(), written.bytes);
        let mut expected = Seen::new();
        let directories = |path: &[u8]| {
            let child =
                |(p, e): &(&Vec<u8>, &Entry)| split(p).0 == path && matches!(e, Entry::Node(Kind::Directory, ..));
            2 + self.nodes.iter().filter(child).count() as u64
        };
        let all = BTreeSet::from([Vec::new()]);
        expected.insert(Vec::new(), (Kind::Directory, self.root.clone(), Vec::new(), all, directories(b"")));
        for path in self.nodes.keys() {
            let id = ids[path];
            let first = names[&id].iter().find_map(|name| match &self.nodes[name] {
                Entry::Node(kind, attributes, _) => Some((kind.clone(), attributes.clone())),
                Entry::Link(_) => None,
            });
            let (kind, attributes) = first.unwrap();
            let links = if kind == Kind::Directory { directories(path) } else { names[&id].len() as u64 };
            expected.insert(path.clone(), (kind, attributes, bytes[&id].clone(), names[&id].clone(), links));
        }
        expected
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Whether this machine can mount images from files: root, linux 6.12.
fn able() -> bool {
    let able = rustix::process::geteuid().is_root();
    if !able {
        assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs root, and CTK_TEST_REQUIRE is set");
        eprintln!("skipped: needs root");
    }
    able
}

fn mount(image: &Path) -> Result<OwnedFd, Errno> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", image)?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn see(root: &Path) -> Seen {
    let mut seen = Seen::new();
    let mut inodes: BTreeMap<u64, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let mut waiting: Vec<Vec<u8>> = vec![Vec::new()];
    let place = |path: &[u8]| match path.is_empty() {
        true => root.join("."),
        false => root.join(std::ffi::OsStr::from_bytes(path)),
    };
    let mut numbers = BTreeMap::new();
    while let Some(path) = waiting.pop() {
        let place = place(&path);
        let stat = fs::symlink_metadata(&place).unwrap();
        let (major, minor) = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
        let file_type = stat.file_type();
        let (kind, bytes) = if file_type.is_dir() {
            for entry in fs::read_dir(&place).unwrap() {
                let name = entry.unwrap().file_name().into_vec();
                waiting.push(if path.is_empty() { name } else { [&path[..], b"/", &name].concat() });
            }
            (Kind::Directory, Vec::new())
        } else if file_type.is_file() {
            (Kind::File(stat.len()), fs::read(&place).unwrap())
        } else if file_type.is_symlink() {
            (Kind::Symlink(fs::read_link(&place).unwrap().into_os_string().into_vec()), Vec::new())
        } else if file_type.is_char_device() {
            (Kind::Character(major, minor), Vec::new())
        } else if file_type.is_block_device() {
            (Kind::Block(major, minor), Vec::new())
        } else if file_type.is_fifo() {
            (Kind::Fifo, Vec::new())
        } else {
            (Kind::Socket, Vec::new())
        };
        let mtime = Time { seconds: stat.mtime(), nanos: stat.mtime_nsec() as u32 };
        let (mode, uid, gid) = (stat.mode() & 0o7777, stat.uid(), stat.gid());
        let attributes = Attributes { mode, uid, gid, mtime, xattrs: xattrs(&place) };
        inodes.entry(stat.ino()).or_default().insert(path.clone());
        numbers.insert(path.clone(), stat.ino());
        seen.insert(path, (kind, attributes, bytes, BTreeSet::new(), stat.nlink()));
    }
    for (path, node) in &mut seen {
        node.3 = inodes[&numbers[path]].clone();
    }
    seen
}

fn xattrs(place: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 64 << 10];
    let n = rustix::fs::llistxattr(place, &mut list[..]).unwrap();
    let mut found = BTreeMap::new();
    for name in list[..n].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let n = rustix::fs::lgetxattr(place, name, &mut value[..]).unwrap();
        found.insert(name.to_vec(), value[..n].to_vec());
    }
    found
}

/// What `fsck.erofs` and `dump.erofs` of the package erofs-utils say, where it is installed.
fn judged_by_tools(image: &Path, expected: &Seen) {
    let fsck = match Command::new("fsck.erofs").arg("--extract").arg(image).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs erofs-utils, and CTK_TEST_REQUIRE is set");
            return eprintln!("skipped: needs erofs-utils");
        }
        output => output.unwrap(),
    };
    let told = String::from_utf8_lossy(&fsck.stderr).into_owned() + &String::from_utf8_lossy(&fsck.stdout);
    assert!(fsck.status.success(), "{told}");
    let dump = Command::new("dump.erofs").arg("-s").arg(image).output().unwrap();
    let told = String::from_utf8_lossy(&dump.stdout);
    let inodes = expected.values().map(|node| &node.3).collect::<BTreeSet<_>>().len();
    let count = told.lines().find_map(|line| line.strip_prefix("Filesystem inode count:"));
    assert_eq!(count.map(str::trim), Some(&*inodes.to_string()), "{told}");
}

/// The kernel sees the model in the image, the tools have no complaint, and the same tree gives the same bytes.
fn check(model: &Model) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image.erofs");
    let expected = model.write(&image);
    let again = folder.path().join("again.erofs");
    model.write(&again);
    assert!(fs::read(&image).unwrap() == fs::read(&again).unwrap(), "the same tree gave other bytes");
    judged_by_tools(&image, &expected);
    if !able() {
        return;
    }
    let root = mount(&image).unwrap();
    let seen = see(&PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd())));
    for (path, node) in &expected {
        let name = String::from_utf8_lossy(path);
        let found = seen.get(path).unwrap_or_else(|| panic!("`{name}` is missing"));
        assert_eq!((&found.0, &found.1), (&node.0, &node.1), "{name}");
        assert!(found.2 == node.2, "other bytes in `{name}`");
        assert_eq!((&found.3, found.4), (&node.3, node.4), "names of `{name}`");
    }
    assert_eq!(seen.len(), expected.len());
}

fn plain(mode: u32) -> Attributes {
    Attributes { mode, mtime: Time { seconds: 1_700_000_000, nanos: 0 }, ..Attributes::default() }
}

fn with(xattrs: &[(&str, &[u8])]) -> Attributes {
    let xattrs = xattrs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect();
    Attributes { xattrs, ..plain(0o755) }
}

#[test]
fn a_layer_with_everything() {
    let acl =
        [2u8, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255];
    let far = Attributes { uid: 70_000, gid: 4_000_000_000, mtime: Time { seconds: -5, nanos: 7 }, ..plain(0o4755) };
    let mut model = Model { root: plain(0o711), ..Model::default() }
        .node("dev", Kind::Directory, plain(0o755))
        .node("dev/null", Kind::Character(1, 3), plain(0o666))
        .node("dev/disk", Kind::Block(259, 70_000), plain(0o660))
        .node("dev/pipe", Kind::Fifo, plain(0o600))
        .node("dev/socket", Kind::Socket, plain(0o777))
        .node("gone", Kind::Character(0, 0), Attributes::default())
        .node("opaque", Kind::Directory, with(&[("trusted.overlay.opaque", b"y")]))
        .node("other", Kind::Directory, with(&[("trusted.overlay.opaque", b"y"), ("user.own", b"")]))
        .node("short", Kind::Symlink(b"/etc/x".to_vec()), plain(0o777))
        .node("long", Kind::Symlink(vec![b'l'; 4090]), plain(0o777))
        .node("longest", Kind::Symlink(vec![b'm'; 4095]), far.clone())
        .file("far", b"set user id", far)
        .file(
            "ping",
            &[9; 5000],
            with(&[("security.capability", &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])]),
        )
        .file("acl", b"", with(&[("system.posix_acl_access", &acl)]))
        .file("large-xattr", &[3; 100], with(&[("user.large", &[5; 60_000]), ("user.other", &[6; 4000])]))
        .node("large-link", Kind::Symlink(b"there".to_vec()), with(&[("trusted.large", &[5; 5000])]))
        .node("link-by-a-block", Kind::Symlink(vec![b'k'; 3000]), with(&[("trusted.some", &[5; 1200])]))
        .link("dev/hard", "ping")
        .link("dev/fifo-too", "dev/pipe")
        .link("short-too", "short");
    for size in [0usize, 1, 4031, 4032, 4033, 4063, 4064, 4065, 4095, 4096, 4097, 65_536, 70_001, 200_000] {
        let bytes: Vec<u8> = (0..size).map(|i| (i * 7 + size) as u8).collect();
        model = model.file(&format!("size-{size}"), &bytes, plain(0o644));
        // With another time than most it is an extended inode.
        let other = Attributes { mtime: Time { seconds: 1, nanos: 999_999_999 }, ..plain(0o600) };
        model = model.file(&format!("extended-{size}"), &bytes, other);
    }
    let zeros = [vec![1; 10], vec![0; 300_000], vec![2; 10], vec![0; 163_000]].concat();
    model = model.file("zzz-holes", &zeros, plain(0o644));
    check(&model);
}

#[test]
fn an_empty_tree() {
    check(&Model { root: plain(0o755), ..Model::default() });
    check(&Model::default());
}

/// Names before, between and behind `.` and `..`; several blocks of them; a block that is full to the byte.
#[test]
fn large_directories() {
    let mut model = Model { root: plain(0o755), ..Model::default() }.node("d", Kind::Directory, plain(0o755));
    for name in ["!", "-", "+", ".a", "..a", ".-", "...", "a", "~"] {
        model = model.file(&format!("d/{name}"), name.as_bytes(), plain(0o644));
    }
    for number in 0..3000 {
        model = model.node(&format!("d/{number:0width$}", width = 4 + number % 200), Kind::Fifo, plain(0o644));
    }
    // `.` and `..` with entries take 27 bytes; 4096 - 27 = 37 × 107 + 110.
    model = model.node("full", Kind::Directory, plain(0o755));
    for number in 0..37 {
        model = model.node(&format!("full/{number:095}"), Kind::Fifo, plain(0o644));
    }
    model = model.node(&format!("full/{:098}", 99), Kind::Fifo, plain(0o644));
    model = model.node("sub", Kind::Directory, plain(0o755));
    for number in 0..300 {
        model = model.node(&format!("sub/{number}"), Kind::Directory, plain(0o755));
    }
    check(&model);
}

/// More metadata than is held at once, tails of all sizes.
#[test]
fn many_small_files() {
    let mut model = Model { root: plain(0o755), ..Model::default() };
    for directory in 0..40 {
        model = model.node(&format!("{directory}"), Kind::Directory, plain(0o755));
        for number in 0..150usize {
            let size = (number * 7919 + directory * 104_729) % 4096;
            model = model.file(&format!("{directory}/{number}"), &vec![number as u8; size], plain(0o644));
        }
    }
    check(&model);
}

/// Its holes take no room, and it has its whole length all the same.
#[test]
fn a_sparse_file_makes_a_sparse_image() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let image = folder.path().join("image.erofs");
    let model = Model::default().file("sparse", &vec![0; 8 << 20], plain(0o600));
    model.write(&image);
    let stat = image.metadata().unwrap();
    assert_eq!(stat.len(), (8 << 20) + 8192);
    assert!(stat.blocks() * 512 < 1 << 20, "{} blocks", stat.blocks());
    check(&model);
}

#[test]
fn a_file_that_changes_its_size_is_an_error() {
    for found in [0usize, 9, 11, 5000] {
        let mut tree = Tree::new(Attributes::default()).unwrap();
        tree.add(Tree::ROOT, b"file", Kind::File(10), Attributes::default()).unwrap();
        let bytes = vec![1; found];
        let mut image = std::io::Cursor::new(Vec::new());
        let error = tree.write([0; 16], &mut image, &mut |_| Ok(&bytes[..])).unwrap_err();
        assert!(matches!(&error, ErofsError::SizeChanged { path, expected: 10 } if path == "file"), "{found}: {error}");
        assert!(image.get_ref().get(..1028).is_none_or(|start| start[1024..] == [0; 4]), "half an image looks whole");
    }
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let number = prop_oneof![0..3u32, Just(65_535), Just(65_536), Just(u32::MAX - 1)];
    let time = prop_oneof![4 => Just((1_700_000_000i64, 0u32)), 1 => (-10i64..1 << 33, 0u32..1_000_000_000)];
    let name =
        prop_oneof![Just("trusted.overlay.opaque".to_owned()), "(user|trusted)\\.[a-z.]{1,20}".prop_map(|name| name),];
    let value = proptest::collection::vec(any::<u8>(), 0..40);
    let value = prop_oneof![3 => Just(b"y".to_vec()), 2 => value, 1 => (0..3000usize).prop_map(|n| vec![8; n])];
    // The kernel lets only files and directories have `user.` attributes, ours has no opinion.
    let xattrs = prop_oneof![3 => Just(BTreeMap::new()), 1 => proptest::collection::btree_map(name, value, 0..4)];
    (0..0o10000u32, number.clone(), number, time, xattrs).prop_map(|(mode, uid, gid, (seconds, nanos), xattrs)| {
        let xattrs = xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        Attributes { mode, uid, gid, mtime: Time { seconds, nanos }, xattrs }
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let bytes = prop_oneof![
        3 => proptest::collection::vec(any::<u8>(), 0..200),
        2 => (0..20_000usize, any::<u8>()).prop_map(|(size, byte)| vec![byte; size]),
        1 => (0..4usize).prop_map(|blocks| vec![1; blocks * 4096]),
    ];
    let kind = prop_oneof![
        3 => Just(Kind::Directory),
        2 => proptest::collection::vec(1..=255u8, 1..4096).prop_map(Kind::Symlink),
        1 => (0..4096u32, 0..1u32 << 20).prop_map(|(major, minor)| Kind::Character(major, minor)),
        1 => (0..4096u32, 0..1u32 << 20).prop_map(|(major, minor)| Kind::Block(major, minor)),
        1 => Just(Kind::Character(0, 0)),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Socket),
    ];
    let node = (kind, attributes()).prop_map(|(kind, attributes)| {
        // `user.` attributes of anything but files and directories are listed by nobody.
        let attributes = match kind {
            Kind::Directory => attributes,
            _ => without_user(attributes),
        };
        Entry::Node(kind, attributes, Vec::new())
    });
    let file = (bytes, attributes())
        .prop_map(|(bytes, attributes)| Entry::Node(Kind::File(bytes.len() as u64), attributes, bytes));
    prop_oneof![3 => node, 3 => file, 1 => Just(Entry::Link(Vec::new()))]
}

fn without_user(mut attributes: Attributes) -> Attributes {
    attributes.xattrs.retain(|name, _| !name.starts_with(b"user."));
    attributes
}

fn model() -> impl Strategy<Value = Model> {
    let name = proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'-'), b'a'..=b'c', 128..=255u8], 1..60);
    let one = (any::<prop::sample::Index>(), name, entry());
    (attributes(), proptest::collection::vec(one, 0..120)).prop_map(|(root, all)| {
        let mut model = Model { root, nodes: BTreeMap::new() };
        let mut directories: Vec<Vec<u8>> = vec![Vec::new()];
        let mut others: Vec<Vec<u8>> = Vec::new();
        for (index, name, entry) in all {
            if name == b"." || name == b".." {
                continue;
            }
            let parent = index.get(&directories).clone();
            let path = if parent.is_empty() { name } else { [&parent[..], b"/", &name].concat() };
            if model.nodes.contains_key(&path) {
                continue;
            }
            let entry = match entry {
                Entry::Link(_) if others.is_empty() => continue,
                Entry::Link(_) => Entry::Link(index.get(&others).clone()),
                Entry::Node(kind, attributes, bytes) => {
                    match kind {
                        Kind::Directory => directories.push(path.clone()),
                        _ => others.push(path.clone()),
                    }
                    Entry::Node(kind, attributes, bytes)
                }
            };
            model.nodes.insert(path, entry);
        }
        model
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree(model in model()) {
        check(&model);
    }
}
