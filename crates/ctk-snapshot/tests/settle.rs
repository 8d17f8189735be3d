//! Layers that the disk has not seen yet: believed in this boot of the machine, removed in the next.

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::*;
use ctk_snapshot::Snapshots;
use ctk_store::Store;

fn layer(home: &Home, seed: &str, content: &str) -> PathBuf {
    let workspace = home.snapshots.begin(&[]).unwrap();
    fs::write(workspace.upper().join("file"), content).unwrap();
    workspace.commit(&key(seed)).unwrap();
    home.snapshots.store().layers().join(format!("op-{}", seed.repeat(16)))
}

fn marked(path: &std::path::Path) -> bool {
    fs::read_to_string(path.join("info.json")).unwrap().contains("\"boot\"")
}

/// As if the machine had been started again.
fn restart(path: &std::path::Path) {
    let info = fs::read_to_string(path.join("info.json")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(info.contains(boot.trim()), "{info}");
    fs::write(path.join("info.json"), info.replace(boot.trim(), "another")).unwrap();
}

#[test]
fn a_layer_is_settled_when_the_last_handle_is_gone() {
    let Some(home) = home() else { return };
    let path = layer(&home, "11", "one");
    assert!(marked(&path));
    drop(home.snapshots);
    let end = Instant::now() + Duration::from_secs(60);
    while marked(&path) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!marked(&path), "the mark is taken off once it is on the disk");
    let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["fs", "info.json"]);
    // Nobody is left to be waited for.
    let children = fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap();
    assert_eq!(children.trim(), "");
}

#[test]
fn an_unsettled_layer_of_another_boot_is_made_again() {
    let Some(home) = home() else { return };
    let path = layer(&home, "22", "half of it");
    restart(&path);
    let store = Store::open(&home.directory.path().join("store")).unwrap();
    let snapshots = Snapshots::open(&store);
    assert!(!snapshots.has(&key("22")).unwrap());
    assert!(!path.exists());
    let home = Home { snapshots, ..home };
    layer(&home, "22", "all of it");
    assert_eq!(fs::read_to_string(path.join("fs/file")).unwrap(), "all of it");
    assert!(home.snapshots.has(&key("22")).unwrap());
}

#[test]
fn a_commit_replaces_what_cannot_be_believed() {
    let Some(home) = home() else { return };
    let path = layer(&home, "33", "half of it");
    fs::write(path.join("info.json"), "").unwrap();
    let snapshots = Snapshots::open(home.snapshots.store());
    let home = Home { snapshots, ..home };
    // Nobody asked whether it is there.
    layer(&home, "33", "all of it");
    assert_eq!(fs::read_to_string(path.join("fs/file")).unwrap(), "all of it");
}
