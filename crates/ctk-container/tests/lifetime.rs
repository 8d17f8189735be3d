//! Containers of processes that were killed, and many containers at once.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{rig, wait};
use ctk_container::{ExitStatus, Limits, cleanup_stale, run};

const HELPER: &str = "CTK_TEST_STARTS_AND_WAITS";

/// Not a test of its own: the process that the test below kills.
#[test]
fn starts_and_waits() {
    if std::env::var_os(HELPER).is_none() {
        return;
    }
    let Some(rig) = rig() else { return };
    let mut options = rig.options("orphan", "sleep 1000 & sleep 1000");
    let limits = Limits { pids: Some(100), ..Limits::default() };
    if rig.can_limit(limits.clone()) {
        options.limits = limits;
    }
    // A thread that ends: the container must outlive it.
    let container = std::thread::scope(|scope| scope.spawn(|| run(options)).join().unwrap().unwrap());
    std::thread::sleep(Duration::from_millis(100));
    assert!(container.try_wait().unwrap().is_none(), "it died with the thread that started it");
    println!("\ncontainer {} {} {}", container.pid(), container.id(), rig.directory.path().display());
    wait(&container);
}

#[test]
fn a_killed_process_leaves_no_container() {
    if rig().is_none() {
        return;
    }
    let mut helper = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "starts_and_waits", "--nocapture"])
        .env(HELPER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(helper.stdout.take().unwrap()).lines();
    let line = lines.find_map(|line| line.unwrap().strip_prefix("container ").map(String::from)).unwrap();
    let [pid, id, directory] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let alive = || std::path::Path::new("/proc").join(pid).join("root/bin/busybox").exists();
    assert!(alive());
    let state = std::path::Path::new(directory).join("state");
    assert_eq!(cleanup_stale(&state).unwrap(), 0, "a living container is not stale");
    assert!(alive());
    helper.kill().unwrap();
    helper.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while alive() {
        assert!(Instant::now() < deadline, "the container outlived its process");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(cleanup_stale(&state).unwrap(), 1);
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), 0);
    let left = Command::new("find").args(["/sys/fs/cgroup", "-name", &format!("ctk-{id}")]).output().unwrap();
    assert_eq!(String::from_utf8(left.stdout).unwrap(), "");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn dropping_kills() {
    let Some(rig) = rig() else { return };
    let container = run(rig.options("drop", "sleep 1000")).unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", container.pid()));
    assert!(process.exists());
    drop(container);
    assert!(!process.exists());
    rig.assert_clean();
}

#[test]
fn many_start_at_once() {
    let Some(rig) = rig() else { return };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let rig = &rig;
            scope.spawn(move || {
                for round in 0..10 {
                    let container = run(rig.options(&format!("{thread}"), &format!("exit {round}"))).unwrap();
                    assert_eq!(wait(&container), ExitStatus::Code(round));
                }
            });
        }
    });
    rig.assert_clean();
}

/// A process that is killed between making its directory and locking it leaves one without a lock.
#[test]
fn a_directory_that_was_never_locked_goes() {
    let state = std::env::temp_dir().join(format!("ctk-never-locked-{}", std::process::id()));
    std::fs::create_dir_all(state.join("0123456789ab")).unwrap();
    std::fs::create_dir_all(state.join("ba9876543210")).unwrap();
    // Another's, still empty.
    std::fs::create_dir_all(state.join(".secrets-1-0")).unwrap();
    // Nothing of ours makes a directory with content before its lock.
    std::fs::write(state.join("ba9876543210/note"), "a user's").unwrap();
    assert_eq!(cleanup_stale(&state).unwrap(), 1);
    assert!(!state.join("0123456789ab").exists());
    assert!(state.join("ba9876543210/note").exists());
    // A removal that was killed after all but the lock is finished.
    std::fs::remove_file(state.join("ba9876543210/note")).unwrap();
    std::fs::write(state.join("ba9876543210/lock"), "").unwrap();
    assert_eq!(cleanup_stale(&state).unwrap(), 1);
    std::fs::remove_dir(state.join(".secrets-1-0")).unwrap();
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), 0);
    std::fs::remove_dir(&state).unwrap();
}
