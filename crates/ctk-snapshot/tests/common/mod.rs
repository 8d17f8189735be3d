//! Stores, images and trees for the tests of this crate.
#![allow(dead_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use ctk_layer::{Compression, Entry, EntryKind, LayerWriter, TarWriter, Time};
use ctk_oci::{Document, ImageConfig, Manifest, media_type};
use ctk_plan::Cancel;
use ctk_snapshot::copy::{Attributes, CopiedXattrs, CopyOptions, Mtime};
use ctk_snapshot::{LayerKey, Snapshots};
use ctk_store::Store;

pub struct Home {
    pub directory: tempfile::TempDir,
    pub snapshots: Snapshots,
}

/// A store in a new directory, or `None` where overlays cannot be mounted.
pub fn home() -> Option<Home> {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(&Store::open(&directory.path().join("store")).unwrap());
    let workspace = snapshots.begin(&[]).unwrap();
    workspace.commit(&key("00")).unwrap();
    let able = rustix::process::geteuid().is_root();
    if !able {
        assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs root");
        println!("skipped: needs root");
        return None;
    }
    Some(Home { directory, snapshots })
}

pub fn key(seed: &str) -> LayerKey {
    LayerKey::op(&seed.repeat(16)).unwrap()
}

pub fn file(path: &str, data: &str) -> (Entry, Vec<u8>) {
    (Entry::new(path, EntryKind::File { size: data.len() as u64 }, 0o644), data.as_bytes().to_vec())
}

pub fn node(path: &str, kind: EntryKind, mode: u32) -> (Entry, Vec<u8>) {
    let mut entry = Entry::new(path, kind, mode);
    entry.mtime = Time::seconds(1_000_000);
    (entry, vec![])
}

pub fn directory(path: &str) -> (Entry, Vec<u8>) {
    node(path, EntryKind::Directory, 0o755)
}

pub fn symlink(path: &str, target: &str) -> (Entry, Vec<u8>) {
    node(path, EntryKind::Symlink { target: target.into() }, 0o777)
}

pub fn tar(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (entry, data) in entries {
        tar.append(entry, &data[..]).unwrap();
    }
    tar.finish().unwrap()
}

/// An image whose layers are these tars.
pub fn image(store: &Store, layers: &[Vec<u8>], compression: Compression) -> Manifest {
    let mut descriptors = Vec::new();
    let mut config = ImageConfig::default();
    for layer in layers {
        let mut writer = LayerWriter::new(store.ingest(None).unwrap(), compression, 2).unwrap();
        std::io::Write::write_all(&mut writer, layer).unwrap();
        let (ingest, summary) = writer.finish().unwrap();
        ingest.commit().unwrap();
        descriptors.push(summary.descriptor());
        config.rootfs.diff_ids.push(summary.diff_id);
    }
    let config = store.put(media_type::CONFIG, Document::new(config).bytes()).unwrap();
    Manifest::image(config, descriptors)
}

pub fn unpack(home: &Home, layers: &[Vec<u8>]) -> Vec<LayerKey> {
    let manifest = image(home.snapshots.store(), layers, Compression::GZIP);
    home.snapshots.unpack_image(&manifest, None, &Cancel::new()).unwrap()
}

/// Runs a command of the host and gives its output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {err}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn open(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

pub fn root(fd: &OwnedFd) -> BorrowedFd<'_> {
    fd.as_fd()
}

pub const PLAIN: CopyOptions<'static> = CopyOptions {
    owner: None,
    mode: None,
    mtime: Mtime::Keep,
    parents_mode: 0o755,
    follow: true,
    xattrs: CopiedXattrs::All,
    filter: None,
};

pub const NEW: Attributes = Attributes { owner: (0, 0), mode: 0o644, mtime: None };
