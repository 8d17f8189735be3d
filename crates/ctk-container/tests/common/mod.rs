//! A root file system of busybox, and containers in it.
#![allow(dead_code)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ctk_container::{Container, Error, ExitStatus, Limits, RunOptions, Stdio, run};
use ctk_oci::{ContainerConfig, Mount};
use ctk_plan::{Cancel, Stream};

const BUSYBOX: &str = "/usr/bin/busybox";
const APPLETS: [&str; 38] = [
    "sh", "true", "false", "cat", "ls", "grep", "id", "mount", "sleep", "hostname", "echo", "env", "pwd", "stat", "dd",
    "head", "kill", "unshare", "chroot", "mknod", "touch", "rm", "mkdir", "wc", "readlink", "nc", "ping", "wget",
    "httpd", "tr", "sort", "ps", "sync", "test", "tail", "stty", "tty", "su",
];

/// A directory with everything that a test's containers need and leave.
pub struct Rig {
    pub directory: tempfile::TempDir,
    pub config: ContainerConfig,
}

/// `None`, and a word about it, where containers cannot run.
pub fn rig() -> Option<Rig> {
    let missing = if !rustix_root() {
        "root"
    } else if !Path::new(BUSYBOX).exists() {
        "/usr/bin/busybox"
    } else {
        return Some(make_rig());
    };
    assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs {missing}");
    println!("skipped: needs {missing}");
    None
}

fn rustix_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("\nUid:\t0\t0\t"))
}

fn make_rig() -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let lower = directory.path().join("lower");
    for name in ["lower/bin", "lower/etc", "lower/tmp", "upper", "work", "state"] {
        fs::create_dir_all(directory.path().join(name)).unwrap();
    }
    fs::copy(BUSYBOX, lower.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", lower.join("bin").join(applet)).unwrap();
    }
    fs::set_permissions(lower.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(lower.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n").unwrap();
    fs::write(lower.join("etc/group"), "root:x:0:\nweb:x:34:\naudio:x:29:web\n").unwrap();
    let config = ContainerConfig { env: vec!["FROM_IMAGE=yes".into(), "broken".into()], ..ContainerConfig::default() };
    Rig { directory, config }
}

impl Rig {
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An overlay with its own upper directory, as a build step has.
    pub fn overlay(&self, name: &str) -> Mount {
        let (upper, work) = (self.path(&format!("upper-{name}")), self.path(&format!("work-{name}")));
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(&work).unwrap();
        let lower = format!("lowerdir={}", self.path("lower").display());
        let upper = format!("upperdir={}", upper.display());
        let work = format!("workdir={}", work.display());
        Mount::new("overlay", "overlay", "/", &[&lower, &upper, &work])
    }

    /// A container that runs `script` by the shell.
    pub fn options(&self, name: &str, script: &str) -> RunOptions<'_> {
        let mut options = RunOptions::new(self.overlay(name), &self.config, self.path("state"));
        options.args = Some(["sh", "-c", script].map(String::from).to_vec());
        options
    }

    /// Runs it to its end: how it ended, and what it wrote to both streams.
    pub fn run(&self, script: &str, change: impl FnOnce(&mut RunOptions<'_>)) -> (ExitStatus, String) {
        let mut options = self.options("run", script);
        let output = record(&mut options.stdio);
        change(&mut options);
        let container = run(options).unwrap_or_else(|error| panic!("{}", chain(&error)));
        let status = wait(&container);
        drop(container);
        self.assert_clean();
        (status, output.lock().unwrap().join("\n"))
    }

    /// Whether this machine can limit so; a word about it if not.
    pub fn can_limit(&self, limits: Limits) -> bool {
        let mut options = self.options("probe", "true");
        options.limits = limits;
        match run(options) {
            Err(Error::Runtime(error @ ctk_runtime::Error::Limit { .. })) => {
                assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "{error}");
                println!("skipped: needs cgroup controllers: {error}");
                false
            }
            Err(error) => panic!("{}", chain(&error)),
            Ok(_) => true,
        }
    }

    /// Nothing may be left of ended containers.
    pub fn assert_clean(&self) {
        let left: Vec<_> = fs::read_dir(self.path("state")).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(left.is_empty(), "state left: {left:?}");
    }
}

/// Lines of both streams, in the order they came.
pub fn record(stdio: &mut Stdio) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    *stdio = Stdio::Lines(Arc::new(move |_: Stream, line: &str| sink.lock().unwrap().push(line.to_string())));
    lines
}

/// Waits, but not forever.
pub fn wait(container: &Container) -> ExitStatus {
    let cancel = Cancel::new();
    let word = cancel.clone();
    let (done, watch) = std::sync::mpsc::channel::<()>();
    let watcher = std::thread::spawn(move || {
        if watch.recv_timeout(Duration::from_secs(60)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            word.cancel();
        }
    });
    let status = container.wait(&cancel).unwrap();
    drop(done);
    watcher.join().unwrap();
    assert_ne!(status, ExitStatus::Cancelled, "the container hangs");
    status
}

/// An error and its causes, a line each.
pub fn chain(error: &Error) -> String {
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        text.push_str(&format!("{error}\n"));
        next = error.source();
    }
    text
}
