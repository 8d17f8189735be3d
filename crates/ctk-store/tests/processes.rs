//! Several processes, killed processes, full disks. The second process is this test binary, started again with a
//! variable that says what to do.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ctk_oci::Descriptor;
use ctk_plan::Cancel;
use ctk_store::{GcOptions, Resume, Store, StoreError};

const ROLE: &str = "CTK_STORE_TEST_ROLE";

fn start(role: &str, root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(ROLE, role)
        .env("CTK_STORE_TEST_ROOT", root)
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until the child says `ready`.
fn ready(child: &mut Child) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("ready")), "the child ended early");
}

/// What the second process does; nothing in the first.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let store = Store::open(Path::new(&std::env::var("CTK_STORE_TEST_ROOT").unwrap())).unwrap();
    match role.as_str() {
        "ingest-and-hang" => {
            let mut ingest = store.ingest(None).unwrap();
            ingest.write_all(&[1; 1 << 20]).unwrap();
            let descriptor = Descriptor::of("x/y", &[2; 1000]);
            let Resume::Partial(mut partial) = store.resume(&descriptor, &Cancel::new()).unwrap() else { panic!() };
            partial.write_all(&[2; 500]).unwrap();
            store.put("x/y", b"held by the child").unwrap();
            println!("ready");
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        "put-many" => {
            for number in 0..50 {
                store.put("x/y", format!("blob {number}").as_bytes()).unwrap();
            }
        }
        other => panic!("no role {other}"),
    }
}

#[test]
fn a_killed_writer_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = start("ingest-and-hang", directory.path());
    ready(&mut child);
    let store = Store::open(directory.path()).unwrap();
    let held = Descriptor::of("x/y", b"held by the child");
    let everything = GcOptions { cache_bytes: Some(0), ..GcOptions::default() };
    let report = store.gc(&everything, &Cancel::new()).unwrap();
    assert_eq!((report.blobs, report.partials), (0, 0), "a living process lost something");
    child.kill().unwrap();
    child.wait().unwrap();
    // Its unfinished blob goes with the next open, its download can be resumed, its lease ends.
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    let left: Vec<_> = std::fs::read_dir(directory.path().join("tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let Resume::Partial(partial) = store.resume(&Descriptor::of("x/y", &[2; 1000]), &Cancel::new()).unwrap() else {
        panic!("nobody finished it");
    };
    assert_eq!(partial.offset(), 500);
    drop(partial);
    let report = store.gc(&everything, &Cancel::new()).unwrap();
    assert_eq!((report.blobs, report.partials), (1, 1));
    assert!(!store.contains(&held.digest).unwrap());
}

#[test]
fn processes_share_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let children: Vec<Child> = (0..4).map(|_| start("put-many", directory.path())).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(Store::open(directory.path()).unwrap().usage().unwrap().blobs, 50);
}

#[test]
fn a_full_disk_is_said_clearly_and_leaves_nothing_half_done() {
    let directory = tempfile::tempdir().unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(directory.path()).status();
    if !mount.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "cannot mount");
        println!("skipped: needs mount");
        return;
    }
    let result = std::panic::catch_unwind(|| {
        let store = Store::open(&directory.path().join("store")).unwrap();
        let small = store.put("x/y", b"small").unwrap();
        let mut ingest = store.ingest(None).unwrap();
        let error = ingest.write_bytes(&vec![3; 2 << 20]).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert!(error.to_string().contains("no space left"), "{error}");
        drop(ingest);
        assert_eq!(store.usage().unwrap().blobs, 1);
        assert_eq!(store.read(&small, 10).unwrap(), b"small");
        store.put("x/y", &[4; 100_000]).unwrap();
    });
    let status = Command::new("umount").arg("-l").arg(directory.path()).status().unwrap();
    assert!(status.success());
    result.unwrap();
}
