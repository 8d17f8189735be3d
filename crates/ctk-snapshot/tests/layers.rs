//! Unpacking, mounting, committing and packing.

mod common;

use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use common::*;
use ctk_layer::{Compression, EntryKind, TarReader, Time, decode};
use ctk_oci::{DiffId, Digest, Document, ImageConfig, media_type};
use ctk_plan::Cancel;
use ctk_snapshot::copy::{mkdir, mkfile, remove};
use ctk_snapshot::{LayerKey, NodeKind, SnapshotError, Snapshots};
use ctk_store::{GcOptions, Store};

fn here(fd: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

#[test]
fn layers_stack_with_whiteouts_and_opaque_directories() {
    let Some(home) = home() else { return };
    let empty = |path: &str| file(path, "");
    let keys = unpack(
        &home,
        &[
            tar(&[
                directory("etc"),
                file("etc/a", "base a"),
                file("etc/b", "base b"),
                directory("var/cache"),
                file("var/cache/x", "x"),
                directory("opt/app"),
                file("opt/app/old", "old"),
            ]),
            tar(&[
                file("etc/a", "top a"),
                empty("etc/.wh.b"),
                directory("var/cache"),
                empty("var/cache/.wh..wh..opq"),
                file("var/cache/y", "y"),
                empty("opt/.wh.app"),
                directory("opt/app"),
                file("opt/app/new", "new"),
                empty(".wh..wh.plnk"),
            ]),
        ],
    );
    let tree = home.snapshots.tree(&keys).unwrap();
    assert_eq!(tree.read("etc/a", 100).unwrap(), b"top a");
    assert_eq!(tree.stat("/etc/b").unwrap(), None);
    assert_eq!(tree.list("var/cache").unwrap(), [b"y"]);
    assert_eq!(tree.list("opt/app").unwrap(), [b"new"]);
    assert_eq!(tree.list("/").unwrap(), [&b"etc"[..], b"opt", b"var"]);
    assert!(matches!(tree.read("etc/a", 3), Err(SnapshotError::TooLarge { .. })));
    assert!(tree.read("nope", 3).unwrap_err().is_not_found());
    assert!(matches!(tree.open_file("etc"), Err(SnapshotError::WrongKind { .. })));
    // The base alone, without the top.
    let base = home.snapshots.tree(&keys[..1]).unwrap();
    assert_eq!(base.list("opt/app").unwrap(), [b"old"]);
    assert!(home.snapshots.tree(&[]).unwrap().list("/").unwrap().is_empty());
}

#[test]
fn everything_survives_the_way_there_and_back() {
    let Some(home) = home() else { return };
    let mut rich = file("rich", "content").0;
    (rich.uid, rich.gid, rich.mode) = (1234, 70_000, 0o4751);
    rich.mtime = Time { seconds: 1_600_000_000, nanos: 123_456_789 };
    let capability = vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let acl = [&2u32.to_le_bytes()[..], &acl_entries()].concat();
    rich.xattrs.insert(b"security.capability".to_vec(), capability);
    rich.xattrs.insert(b"user.note".to_vec(), b"a=b\nc\0".to_vec());
    rich.xattrs.insert(b"system.posix_acl_access".to_vec(), acl);
    let mut latin = file("latin", "x");
    latin.0.path = b"caf\xe9".to_vec();
    let mut time = directory("dir");
    time.0.mtime = Time { seconds: -5, nanos: 7 };
    time.0.mode = 0o3775;
    let long = format!("{}/{}", "p".repeat(200), "q".repeat(200));
    let mut entries = vec![
        latin,
        time,
        node("dir/fifo", EntryKind::Fifo, 0o620),
        node("disk", EntryKind::BlockDevice { major: 7, minor: 300 }, 0o660),
        symlink("dangling", "/no/where"),
        node("null", EntryKind::CharDevice { major: 1, minor: 3 }, 0o666),
        directory(&"p".repeat(200)),
        file(&long, "long"),
        (rich, b"content".to_vec()),
        node("rich-too", EntryKind::HardLink { target: b"rich".to_vec() }, 0o4751),
    ];
    entries.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    // A hard link repeats its target's attributes; the packer writes those, without the extended ones.
    let rich = entries.iter().find(|(e, _)| e.path == b"rich").unwrap().0.clone();
    for (entry, _) in &mut entries {
        if entry.path == b"rich-too" {
            (entry.uid, entry.gid, entry.mtime) = (rich.uid, rich.gid, rich.mtime);
        }
    }
    let original = tar(&entries);
    let keys = unpack(&home, std::slice::from_ref(&original));
    let packed = home.snapshots.pack(&keys[0], Compression::ZSTD, None, &Cancel::new()).unwrap();
    let blob = home.snapshots.store().open_blob(&packed.descriptor).unwrap();
    let mut reader = TarReader::new(decode(blob).unwrap().1);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        found.push(entry);
    }
    let expected: Vec<_> = entries.iter().map(|(entry, _)| entry.clone()).collect();
    // Setting an ACL changes the group bits that a mode shows; the tar says both, so they agree there.
    assert_eq!(found, expected);
    assert_eq!(packed.diff_id, DiffId(Digest::of(&original)), "the packed tar is the tar that was unpacked");
}

/// user::rwx, user:1000:r--, group::r-x, mask::r-x, other::--x: the bits of mode 0751.
fn acl_entries() -> Vec<u8> {
    let undefined = u32::MAX;
    let entries = [(1u16, 7u16, undefined), (2, 4, 1000), (4, 5, undefined), (16, 5, undefined), (32, 1, undefined)];
    entries.iter().flat_map(|(t, p, id)| [&t.to_le_bytes()[..], &p.to_le_bytes(), &id.to_le_bytes()].concat()).collect()
}

#[test]
fn a_workspace_becomes_a_layer() {
    let Some(home) = home() else { return };
    let (snapshots, cancel) = (&home.snapshots, Cancel::new());
    let base = unpack(&home, &[tar(&[directory("d"), file("d/keep", "k"), file("d/gone", "g"), file("top", "t")])]);
    let workspace = snapshots.begin(&base).unwrap();
    assert!(workspace.is_empty().unwrap());
    {
        let fd = workspace.open_root().unwrap();
        assert!(remove(root(&fd), b"d/gone").unwrap());
        mkfile(root(&fd), b"d/new", b"new", &NEW, 0o755).unwrap();
        std::fs::set_permissions(here(&fd).join("top"), PermissionsExt::from_mode(0o600)).unwrap();
    }
    {
        // A second mount over the same upper directory, and a replaced directory.
        let fd = workspace.open_root().unwrap();
        assert_eq!(std::fs::read(here(&fd).join("d/new")).unwrap(), b"new");
        mkfile(root(&fd), b"again", b"", &NEW, 0o755).unwrap();
        std::fs::rename(here(&fd).join("again"), here(&fd).join("moved")).unwrap();
    }
    assert!(!workspace.is_empty().unwrap());
    workspace.commit(&key("aa")).unwrap();
    let layers = [base.clone(), vec![key("aa")]].concat();
    let tree = snapshots.tree(&layers).unwrap();
    assert_eq!(tree.list("d").unwrap(), [&b"keep"[..], b"new"]);
    assert_eq!(tree.stat("top").unwrap().unwrap().mode, 0o600);
    // The tar of the layer, unpacked elsewhere, makes the same tree.
    let packed = snapshots.pack(&key("aa"), Compression::GZIP, Some(1_000), &cancel).unwrap();
    assert_eq!(snapshots.pack(&key("aa"), Compression::GZIP, Some(1_000), &cancel).unwrap(), packed);
    let other = Snapshots::open(&Store::open(&home.directory.path().join("other")).unwrap());
    let mut bytes = Vec::new();
    let blob = snapshots.store().open_blob(&packed.descriptor).unwrap();
    std::io::Read::read_to_end(&mut decode(blob).unwrap().1, &mut bytes).unwrap();
    let names: Vec<String> = {
        let mut reader = TarReader::new(&bytes[..]);
        std::iter::from_fn(|| {
            reader.next_entry().unwrap().map(|e| (assert!(e.mtime <= Time::seconds(1_000)), e).1.display())
        })
        .collect()
    };
    assert_eq!(names, ["d", "d/.wh.gone", "d/new", "moved", "top"]);
    let base_tar = tar(&[directory("d"), file("d/keep", "k"), file("d/gone", "g"), file("top", "t")]);
    let manifest = image(other.store(), &[base_tar, bytes], Compression::GZIP);
    let keys = other.unpack_image(&manifest, None, &cancel).unwrap();
    assert_eq!(other.tree(&keys).unwrap().list("d").unwrap(), [&b"keep"[..], b"new"]);
    // What was packed is known by its diffID: nothing to unpack when it comes back.
    assert!(snapshots.has(&LayerKey::diff(&packed.diff_id)).unwrap());
    let views = snapshots.tree(&[base, vec![LayerKey::diff(&packed.diff_id)]].concat()).unwrap();
    assert_eq!(views.list("d").unwrap(), [&b"keep"[..], b"new"]);
}

#[test]
fn packing_is_deterministic() {
    let Some(home) = home() else { return };
    let build = |seed: &str| {
        let workspace = home.snapshots.begin(&[]).unwrap();
        let fd = workspace.open_root().unwrap();
        for name in ["b", "a", "c/d/e"] {
            mkfile(root(&fd), name.as_bytes(), name.as_bytes(), &NEW, 0o755).unwrap();
        }
        drop(fd);
        workspace.commit(&key(seed)).unwrap();
        home.snapshots.pack(&key(seed), Compression::GZIP, Some(0), &Cancel::new()).unwrap()
    };
    assert_eq!(build("01"), build("02"));
}

#[test]
fn no_change_is_an_empty_layer_and_the_root_has_attributes() {
    let Some(home) = home() else { return };
    let snapshots = &home.snapshots;
    let mut slash = directory("");
    slash.0.mode = 0o711;
    let base = unpack(&home, &[tar(&[slash, file("a", "a")])]);
    let workspace = snapshots.begin(&base).unwrap();
    drop(workspace.open_root().unwrap());
    workspace.commit(&key("ee")).unwrap();
    assert!(snapshots.is_empty(&key("ee")).unwrap());
    let layers = [base.clone(), vec![key("ee")]].concat();
    let workspace = snapshots.begin(&layers).unwrap();
    let fd = workspace.open_root().unwrap();
    assert_eq!(std::fs::metadata(here(&fd)).unwrap().mode() & 0o7777, 0o711);
    std::fs::set_permissions(here(&fd), PermissionsExt::from_mode(0o755)).unwrap();
    drop(fd);
    workspace.commit(&key("ef")).unwrap();
    assert!(!snapshots.is_empty(&key("ef")).unwrap());
    let packed = snapshots.pack(&key("ef"), Compression::None, None, &Cancel::new()).unwrap();
    let blob = snapshots.store().open_blob(&packed.descriptor).unwrap();
    let entry = TarReader::new(blob).next_entry().unwrap().unwrap();
    assert_eq!((entry.display().as_str(), entry.mode), ("/", 0o755));
}

#[test]
fn views_are_writable_and_forgotten() {
    let Some(home) = home() else { return };
    let base = unpack(&home, &[tar(&[file("a", "a")])]);
    let view = home.snapshots.view(&base).unwrap();
    let fd = view.open_root().unwrap();
    mkdir(root(&fd), b"x/y", &NEW, true).unwrap();
    let upper = view.upper().to_owned();
    assert!(upper.join("x/y").is_dir());
    drop((fd, view));
    assert!(!upper.exists());
    assert_eq!(home.snapshots.tree(&base).unwrap().list("/").unwrap(), [b"a"]);
}

#[test]
fn the_mount_for_the_runtime_names_each_layer() {
    let Some(home) = home() else { return };
    let keys = unpack(&home, &[tar(&[file("a", "1")]), tar(&[file("a", "2")])]);
    let workspace = home.snapshots.begin(&keys).unwrap();
    let mount = workspace.root_mount().unwrap();
    assert_eq!(mount.kind.as_deref(), Some("overlay"));
    let lower: Vec<&str> = mount.options.iter().filter_map(|o| o.strip_prefix("lowerdir=")).collect();
    assert_eq!(lower.len(), 2);
    assert_eq!(std::fs::read(PathBuf::from(lower[0]).join("a")).unwrap(), b"2", "the top comes first");
    assert!(mount.options.iter().any(|o| o.starts_with("upperdir=")));
    assert!(mount.options.iter().any(|o| o.starts_with("workdir=")));
    // No layers at all: something to mount over nonetheless.
    let nothing = home.snapshots.begin(&[]).unwrap().root_mount().unwrap();
    assert_eq!(nothing.options.iter().filter(|o| o.starts_with("lowerdir=")).count(), 1);
}

#[test]
fn wrong_layers_are_refused_and_leave_nothing() {
    let Some(home) = home() else { return };
    let store = home.snapshots.store();
    let cancel = Cancel::new();
    let check = |break_it: &dyn Fn(&mut ctk_oci::Manifest, &mut ImageConfig), expected: &str| {
        let mut manifest = image(store, &[tar(&[file("a", expected)])], Compression::GZIP);
        let config: Document<ImageConfig> = store.document("config", &manifest.config).unwrap();
        let mut config = config.into_value();
        break_it(&mut manifest, &mut config);
        manifest.config = store.put(media_type::CONFIG, Document::new(config.clone()).bytes()).unwrap();
        let error = home.snapshots.unpack_image(&manifest, None, &cancel).unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text.push_str(&format!(" | {cause}"));
            source = cause.source();
        }
        assert!(text.contains(expected), "`{text}` does not contain `{expected}`");
        for diff_id in &config.rootfs.diff_ids {
            assert!(!home.snapshots.has(&LayerKey::diff(diff_id)).unwrap());
        }
    };
    check(&|_, config| config.rootfs.diff_ids[0] = DiffId(Digest::of(b"other")), "but the image config says");
    check(&|_, config| config.rootfs.diff_ids.push(DiffId(Digest::of(b"more"))), "2 diffIDs");
    check(&|manifest, _| manifest.layers[0].size -= 1, "does not match");
    let truncated = |manifest: &mut ctk_oci::Manifest, _: &mut ImageConfig| {
        let bytes = store.read(&manifest.layers[0], 1 << 20).unwrap();
        manifest.layers[0] = store.put(media_type::LAYER_GZIP, &bytes[..bytes.len() - 9]).unwrap();
    };
    check(&truncated, "cannot unpack layer");
}

#[test]
fn collection_spares_layers_of_images_and_workspaces() {
    let Some(home) = home() else { return };
    let (snapshots, cancel) = (&home.snapshots, Cancel::new());
    let manifest = image(snapshots.store(), &[tar(&[file("a", "a")]), tar(&[file("b", "b")])], Compression::GZIP);
    let keys = snapshots.unpack_image(&manifest, None, &cancel).unwrap();
    let descriptor = snapshots.store().put(media_type::MANIFEST, Document::new(manifest).bytes()).unwrap();
    let workspace = snapshots.begin(&keys).unwrap();
    let everything = GcOptions { cache_bytes: Some(0), ..GcOptions::default() };
    let root = snapshots.store().root().to_owned();
    let other = Store::open(&root).unwrap();
    assert_eq!(other.gc(&everything, &cancel).unwrap().layers, 0);
    workspace.commit(&key("ab")).unwrap();
    snapshots.store().set_reference("kept", &ctk_store::Ref::new(descriptor)).unwrap();
    drop(home.snapshots);
    // Only what the ref needs is left: the two pulled layers, not the built ones.
    let report = other.gc(&everything, &cancel).unwrap();
    assert_eq!((report.layers, report.blobs), (2, 0));
    assert!(keys.iter().all(|key| Snapshots::open(&other).has(key).unwrap()));
}

#[test]
fn a_tree_keeps_its_layers_after_the_handle_is_gone() {
    let Some(home) = home() else { return };
    let keys = unpack(&home, &[tar(&[file("a", "a")])]);
    let tree = home.snapshots.tree(&keys).unwrap();
    let root = home.snapshots.store().root().to_owned();
    drop(home.snapshots);
    let other = Store::open(&root).unwrap();
    let everything = GcOptions { cache_bytes: Some(0), ..GcOptions::default() };
    other.gc(&everything, &Cancel::new()).unwrap();
    assert_eq!(tree.read("a", 10).unwrap(), b"a");
    drop(tree);
    assert_ne!(other.gc(&everything, &Cancel::new()).unwrap().layers, 0);
}

#[test]
fn the_same_image_is_unpacked_once_by_many() {
    let Some(home) = home() else { return };
    let entries: Vec<_> = (0..300).map(|n| file(&format!("d/{n}"), &"x".repeat(n))).collect();
    let manifest = image(home.snapshots.store(), &[tar(&entries)], Compression::ZSTD);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store::open(home.snapshots.store().root()).unwrap();
                let snapshots = Snapshots::open(&store);
                let keys = snapshots.unpack_image(&manifest, None, &Cancel::new()).unwrap();
                assert_eq!(snapshots.tree(&keys).unwrap().list("d").unwrap().len(), 300);
            });
        }
    });
}

#[test]
fn cancelling_stops_unpacking() {
    let Some(home) = home() else { return };
    let manifest = image(home.snapshots.store(), &[tar(&[file("a", "cancelled")])], Compression::ZSTD);
    let cancel = Cancel::new();
    cancel.cancel();
    assert!(matches!(home.snapshots.unpack_image(&manifest, None, &cancel), Err(SnapshotError::Cancelled)));
}

#[test]
fn links_in_a_view_stay_in_it() {
    let Some(home) = home() else { return };
    let keys = unpack(
        &home,
        &[tar(&[symlink("abs", "/etc/passwd"), symlink("up", "../../../etc/passwd"), file("etc/passwd", "inside")])],
    );
    let tree = home.snapshots.tree(&keys).unwrap();
    for path in ["abs", "up", "/abs", "../../up"] {
        assert_eq!(tree.read(path, 100).unwrap(), b"inside", "{path}");
    }
    assert_eq!(tree.stat_link("abs").unwrap().unwrap().kind, NodeKind::Symlink(b"/etc/passwd".to_vec()));
}
