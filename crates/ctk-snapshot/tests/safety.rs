//! Tars that try to reach outside, and processes that die in the middle.

mod common;

use std::path::Path;

use common::*;
use ctk_layer::{Compression, EntryKind};
use ctk_plan::Cancel;
use ctk_snapshot::copy::{Mtime, extract};
use ctk_snapshot::{SnapshotError, Snapshots};
use ctk_store::Store;

/// Unpacks `entries` as a layer and as an archive; whatever happens, nothing outside may change.
fn attack(home: &Home, name: &str, entries: &[(ctk_layer::Entry, Vec<u8>)]) {
    let outside = home.directory.path().join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("victim"), "untouched").unwrap();
    let before = listing(home.directory.path());
    let manifest = image(home.snapshots.store(), &[tar(entries)], Compression::None);
    let _ = home.snapshots.unpack_image(&manifest, None, &Cancel::new());
    let into = home.directory.path().join(format!("into-{name}"));
    std::fs::create_dir(&into).unwrap();
    let fd = open(&into);
    let _ = extract(root(&fd), b"", name, &tar(entries)[..], None, Mtime::Keep, &Cancel::new());
    std::fs::remove_dir_all(&into).unwrap();
    assert_eq!(std::fs::read_to_string(outside.join("victim")).unwrap(), "untouched", "{name}");
    assert_eq!(listing(home.directory.path()), before, "{name}");
    assert!(!Path::new("/ctk-test-escaped").exists(), "{name}");
}

/// Everything beside the store.
fn listing(directory: &Path) -> String {
    run("find", &[directory.to_str().unwrap(), "-path", "*/store", "-prune", "-o", "-printf", "%P %m %U %l\n"])
}

#[test]
fn nothing_escapes() {
    let Some(home) = home() else { return };
    let outside = home.directory.path().join("outside");
    let outside = outside.to_str().unwrap();
    let hard = |path: &str, target: &str| node(path, EntryKind::HardLink { target: target.into() }, 0o777);
    attack(&home, "dotdot", &[file("../outside/victim", "owned")]);
    attack(&home, "dotdot-deep", &[file("a/../../../../ctk-test-escaped", "owned")]);
    attack(&home, "absolute", &[file("/ctk-test-escaped", "inside only")]);
    attack(&home, "link-then-file", &[symlink("l", outside), file("l/victim", "owned")]);
    attack(&home, "relative-link", &[symlink("l", "../../../../../../../../.."), file("l/ctk-test-escaped", "owned")]);
    attack(&home, "file-over-link", &[symlink("l", &format!("{outside}/victim")), file("l", "owned")]);
    attack(&home, "chmod-through-link", &[symlink("l", outside), node("l", EntryKind::Directory, 0o777)]);
    attack(&home, "hard-link-out", &[hard("h", &format!("{outside}/victim")), file("h", "owned")]);
    attack(&home, "hard-link-through", &[symlink("l", outside), hard("h", "l/victim"), file("h", "owned")]);
    attack(&home, "swap", &[directory("d"), file("d/x", "1"), symlink("d", outside), file("d/victim", "owned")]);
    attack(&home, "whiteout", &[symlink("l", outside), file("l/.wh.victim", "")]);
    attack(&home, "opaque", &[symlink("l", outside), file("l/.wh..wh..opq", "")]);
    attack(&home, "fifo-over-link", &[symlink("l", outside), node("l/pipe", EntryKind::Fifo, 0o666)]);
}

#[test]
fn overlay_attributes_and_fake_whiteouts_are_not_taken() {
    let Some(home) = home() else { return };
    let base = tar(&[file("secret", "s"), directory("d"), file("d/x", "x")]);
    let mut redirect = directory("d");
    redirect.0.xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
    redirect.0.xattrs.insert(b"trusted.overlay.redirect".to_vec(), b"/secret".to_vec());
    let keys = unpack(&home, &[base.clone(), tar(&[redirect])]);
    assert_eq!(home.snapshots.tree(&keys).unwrap().list("d").unwrap(), [b"x"]);
    let fake = tar(&[node("secret", EntryKind::CharDevice { major: 0, minor: 0 }, 0o600)]);
    let manifest = image(home.snapshots.store(), &[base, fake], Compression::None);
    let refused = home.snapshots.unpack_image(&manifest, None, &Cancel::new());
    assert!(matches!(refused, Err(SnapshotError::Refused { .. })));
}

#[test]
fn hard_links_to_what_is_removed_make_no_whiteouts() {
    let Some(home) = home() else { return };
    let base = tar(&[file("x", "x"), file("y", "y")]);
    for entries in [
        vec![file(".wh.x", ""), node("y", EntryKind::HardLink { target: b"x".to_vec() }, 0o644)],
        // Written by others, and linked when they are done.
        vec![
            file("a", "a"),
            file(".wh.x", ""),
            node("b", EntryKind::HardLink { target: b"a".to_vec() }, 0o644),
            node("y", EntryKind::HardLink { target: b"x".to_vec() }, 0o644),
        ],
    ] {
        let manifest = image(home.snapshots.store(), &[base.clone(), tar(&entries)], Compression::None);
        let refused = home.snapshots.unpack_image(&manifest, None, &Cancel::new());
        assert!(matches!(refused, Err(SnapshotError::Refused { ref path, .. }) if path == "/y"), "{refused:?}");
    }
}

#[test]
fn an_interrupt_is_heard_in_what_is_skipped() {
    let Some(home) = home() else { return };
    let into = home.directory.path().join("into");
    std::fs::create_dir(&into).unwrap();
    let fd = open(&into);
    // A link with data, of which there is no end.
    let mut head = tar(&[symlink("a", "b")])[..512].to_vec();
    head[124..136].copy_from_slice(b"77777777777\0");
    head[148..156].fill(b' ');
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let archive = std::io::Read::chain(std::io::Cursor::new(head), std::io::repeat(0));
    let cancel = Cancel::new();
    std::thread::scope(|scope| {
        let cancel = &cancel;
        let ended = scope.spawn(move || extract(root(&fd), b"", "endless", archive, None, Mtime::Keep, cancel));
        std::thread::sleep(std::time::Duration::from_millis(100));
        cancel.cancel();
        assert!(matches!(ended.join().unwrap(), Err(SnapshotError::Cancelled)));
    });
}

#[test]
fn nobody_else_gets_at_setuid_programs() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let Some(home) = home() else { return };
    let store = home.snapshots.store();
    let mode = |name: &str| std::fs::metadata(store.root().join(name)).unwrap().mode() & 0o7777;
    for name in ["layers", "tmp", "cache"] {
        assert_eq!(mode(name), 0o700, "{name}");
        // As older stores have it.
        std::fs::set_permissions(store.root().join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    Store::open(store.root()).unwrap();
    assert_eq!(mode("layers"), 0o700);
}

/// What the second process does; nothing in the first.
#[test]
fn child() {
    let Ok(path) = std::env::var("CTK_SNAPSHOT_TEST_ROOT") else { return };
    let store = Store::open(Path::new(&path)).unwrap();
    let snapshots = Snapshots::open(&store);
    let entries: Vec<_> = (0..20_000).map(|n| file(&format!("d{}/{n}", n % 50), "some content")).collect();
    let manifest = image(&store, &[tar(&entries)], Compression::ZSTD);
    println!("ready");
    let _ = snapshots.unpack_image(&manifest, None, &Cancel::new());
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn a_killed_unpack_leaves_no_layer_and_no_garbage() {
    use std::io::{BufRead, BufReader};
    let Some(home) = home() else { return };
    let path = home.snapshots.store().root().to_owned();
    drop(home.snapshots);
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env("CTK_SNAPSHOT_TEST_ROOT", &path)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("ready")));
    // Until it has made some files.
    let started = |path: &Path| run("find", &[path.join("tmp").to_str().unwrap(), "-name", "1*"]).lines().count() > 50;
    for _ in 0..1000 {
        if started(&path) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let layers = || std::fs::read_dir(path.join("layers")).unwrap().count();
    let (before, garbage) = (layers(), std::fs::read_dir(path.join("tmp")).unwrap().count());
    assert!(before <= 2 && garbage > 0, "{before} layers, {garbage} in tmp");
    Store::open(&path).unwrap();
    assert_eq!(std::fs::read_dir(path.join("tmp")).unwrap().count(), 0);
    assert_eq!(layers(), before);
}
