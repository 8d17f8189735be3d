//! Layers that are mounted as EROFS images look like their trees.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::{Home, directory, file, home, node, symlink, tar, unpack};
use ctk_layer::{Entry, EntryKind, opaque_name, whiteout_name};
use ctk_snapshot::{LayerForm, LayerKey, Snapshots};

/// Three layers with everything that layers say of each other.
fn layers(home: &Home) -> Vec<LayerKey> {
    let with = |mut entry: (Entry, Vec<u8>), name: &str, value: &[u8]| {
        entry.0.xattrs.insert(name.into(), value.to_vec());
        entry
    };
    let owned = |mut entry: (Entry, Vec<u8>), uid, gid, mode| {
        (entry.0.uid, entry.0.gid, entry.0.mode) = (uid, gid, mode);
        entry
    };
    let path = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let base = tar(&[
        directory("etc"),
        file("etc/kept", "kept"),
        file("etc/gone", "gone"),
        file("etc/changed", "old"),
        directory("opt"),
        file("opt/hidden", "hidden"),
        file("opt/other", "other"),
        owned(file("su", "set user id"), 1000, 70_000, 0o4755),
        with(file("attributes", "with"), "user.some", b"value"),
        with(directory("kept"), "user.on-a-directory", b"value"),
        file("kept/large", &"some bytes, again and again. ".repeat(10_000)),
        symlink("link", "etc/kept"),
        node("hard", EntryKind::HardLink { target: b"etc/kept".to_vec() }, 0o644),
        node("null", EntryKind::CharDevice { major: 1, minor: 3 }, 0o666),
        node("pipe", EntryKind::Fifo, 0o600),
    ]);
    let second = tar(&[
        file(&path(whiteout_name(b"etc/gone")), ""),
        file("etc/changed", "new"),
        directory("opt"),
        file(&path(opaque_name(b"opt")), ""),
        file("opt/shown", "shown"),
    ]);
    let third = tar(&[file("etc/gone", "back again"), file("top", "top")]);
    unpack(home, &[base, second, third])
}

type Seen = BTreeMap<String, String>;

fn see(root: &OwnedFd) -> Seen {
    let root = format!("/proc/self/fd/{}", root.as_raw_fd());
    let mut seen = Seen::new();
    let mut waiting = vec![".".to_owned()];
    let mut names: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    while let Some(path) = waiting.pop() {
        let place = format!("{root}/{path}");
        let stat = fs::symlink_metadata(&place).unwrap();
        let content = if stat.is_dir() {
            waiting.extend(
                fs::read_dir(&place)
                    .unwrap()
                    .map(|entry| format!("{path}/{}", entry.unwrap().file_name().to_str().unwrap())),
            );
            String::new()
        } else if stat.is_symlink() {
            fs::read_link(&place).unwrap().display().to_string()
        } else if stat.is_file() {
            String::from_utf8(fs::read(&place).unwrap()).unwrap()
        } else {
            format!("device {}", stat.rdev())
        };
        let mut xattrs = vec![0; 4096];
        let n = rustix::fs::llistxattr(&*place, &mut xattrs[..]).unwrap();
        xattrs.truncate(n);
        let numbers = (stat.mode(), stat.uid(), stat.gid(), stat.mtime(), stat.mtime_nsec(), stat.nlink());
        if stat.nlink() > 1 && !stat.is_dir() {
            names.entry(stat.ino()).or_default().push(path.clone());
        }
        let size = if stat.is_dir() { 0 } else { stat.len() };
        let numbers = if stat.is_dir() { (numbers.0, numbers.1, numbers.2, numbers.3, numbers.4, 0) } else { numbers };
        seen.insert(path, format!("{numbers:?} {size} {content} {}", String::from_utf8_lossy(&xattrs)));
    }
    for mut names in names.into_values() {
        names.sort();
        seen.insert(format!("names of {}", names[0]), names.join(" "));
    }
    seen
}

/// The store with layers as images, where this machine mounts files.
fn images(home: &Home) -> Snapshots {
    Snapshots::open_as(home.snapshots.store(), LayerForm::Image)
}

#[test]
fn an_image_of_layers_looks_like_their_trees() {
    let Some(home) = home() else { return };
    let keys = layers(&home);
    let images = images(&home);
    for count in 1..=keys.len() {
        let (trees, images) = (home.snapshots.view(&keys[..count]).unwrap(), images.view(&keys[..count]).unwrap());
        let (expected, seen) = (see(&trees.open_root().unwrap()), see(&images.open_root().unwrap()));
        assert!(expected.len() > 10 && expected.contains_key("names of ./etc/kept"), "{expected:#?}");
        assert_eq!(seen, expected);
    }
    let image = images.image(&keys[0]).unwrap();
    assert!(image.ends_with("image.erofs"));
    // For reading only it is an overlay without an upper directory.
    let view = images.tree(&keys).unwrap();
    assert_eq!(view.read("etc/gone", 100).unwrap(), b"back again");
    assert_eq!(view.stat("opt/hidden").unwrap(), None);
}

/// What is changed over images becomes a layer as over trees, and files have one device and keep their numbers.
#[test]
fn a_container_writes_over_images() {
    let Some(home) = home() else { return };
    let keys = layers(&home);
    let snapshots = images(&home);
    let view = snapshots.view(&keys).unwrap();
    let root = view.open_root().unwrap();
    let place = format!("/proc/self/fd/{}", root.as_raw_fd());
    let at = |path: &str| format!("{place}/{path}");
    let device = fs::metadata(&place).unwrap().dev();
    let before = fs::metadata(at("top")).unwrap();
    for path in ["etc", "top", "su", "kept/large"] {
        assert_eq!(fs::symlink_metadata(at(path)).unwrap().dev(), device, "{path}");
    }
    fs::write(at("top"), "changed").unwrap();
    assert_eq!(fs::metadata(at("top")).unwrap().ino(), before.ino());
    fs::remove_file(at("su")).unwrap();
    fs::rename(at("hard"), at("moved")).unwrap();
    assert_eq!(fs::read_to_string(at("moved")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(view.upper().join("top")).unwrap(), "changed");
    assert_eq!(fs::symlink_metadata(view.upper().join("su")).unwrap().rdev(), 0);
}

#[test]
fn an_image_is_made_once() {
    let Some(home) = home() else { return };
    let keys = layers(&home);
    let snapshots = images(&home);
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let made: Vec<u64> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..4).map(|_| scope.spawn(|| inode(&images(&home).image(&keys[0]).unwrap()))).collect();
        makers.into_iter().map(|maker| maker.join().unwrap()).collect()
    });
    assert!(made.iter().all(|one| *one == made[0]), "{made:?}");
    // Another store makes the same bytes.
    let bytes = fs::read(snapshots.image(&keys[0]).unwrap()).unwrap();
    let other = common::home().unwrap();
    let keys = layers(&other);
    assert!(fs::read(images(&other).image(&keys[0]).unwrap()).unwrap() == bytes);
}
