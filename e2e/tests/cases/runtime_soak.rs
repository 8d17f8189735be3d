//! Very many short containers: none hangs, and nothing of them stays.
//!
//! `CTK_SOAK_RUNS` says how many; the usual number finishes within a minute.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ctk_e2e::bundle::{Bundle, Runtime};
use ctk_e2e::{has_programs, is_root, run};
use serde_json::json;

/// How many containers run if nobody says.
const RUNS: u32 = 500;
/// What no single run of `true` takes, on the busiest machine.
const HANG: Duration = Duration::from_secs(60);

/// What there is of things that could leak, each as lines.
fn inventory(bundle: &Bundle) -> BTreeMap<&'static str, Vec<String>> {
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(String::from).collect();
        lines.sort();
        lines
    };
    let find = |place: &str, arguments: &[&str]| {
        let mut command = Command::new("find");
        command.arg(place).args(arguments);
        sorted(run(command).out)
    };
    let own = bundle.path("").display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let links = fs::read_dir("/sys/class/net").expect("devices of the network").flatten();
    let links = links.map(|entry| entry.file_name().display().to_string()).filter(|name| name.starts_with("veth"));
    let files = fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
    let files = files.filter_map(|entry| fs::read_link(entry.path()).ok()).map(|to| to.display().to_string());
    BTreeMap::from([
        ("mounts", sorted(mounts.lines().filter(|line| line.contains(&own)).collect::<Vec<_>>().join("\n"))),
        ("cgroups", find("/sys/fs/cgroup", &["-name", &format!("{}*", bundle.id)])),
        ("veths", links.collect()),
        // Without the one that lists them.
        ("descriptors", sorted(files.filter(|to| !to.starts_with("/proc/")).collect::<Vec<_>>().join("\n"))),
        ("files", find(&own, &["-path", &bundle.path("host/below").display().to_string(), "-prune", "-o", "-print"])),
    ])
}

/// Runs a container of this name; the link to the runtime, as others call it, and no process between.
fn once(bundle: &Bundle, id: &str) {
    let mut command = Command::new(bundle.path("ctk-runtime"));
    command.arg("--root").arg(bundle.path("state")).args(["run", id]).current_dir(bundle.path(""));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("ctk-runtime");
    let pidfd =
        rustix::process::pidfd_open(rustix::process::Pid::from_child(&child), rustix::process::PidfdFlags::empty());
    let pidfd = pidfd.expect("a pidfd");
    let limit = rustix::event::Timespec { tv_sec: HANG.as_secs() as i64, tv_nsec: 0 };
    let mut ended = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    if rustix::event::poll(&mut ended, Some(&limit)) == Ok(0) {
        let stack = fs::read_to_string(format!("/proc/{}/stack", child.id())).unwrap_or_default();
        let _ = child.kill();
        panic!("{id}: no end within {HANG:?}\n{stack}");
    }
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "{id}: {} {}", output.status, String::from_utf8_lossy(&output.stderr));
}

#[test]
fn very_many_runs_leave_nothing() {
    if !is_root() || !has_programs(&["unshare", "busybox", "find"]) {
        return;
    }
    let runs = std::env::var("CTK_SOAK_RUNS").map_or(RUNS, |text| text.parse().expect("CTK_SOAK_RUNS: a number"));
    let bundle = Bundle::new(Runtime::Ours);
    bundle.configure(&json!({ "process": { "args": ["/bin/true"] } }));
    // Makes the link, and what is made once.
    assert_eq!(bundle.status(), None);
    once(&bundle, &bundle.id);
    let before = inventory(&bundle);
    let started = Instant::now();
    let id = |index: u32| format!("{}-{index}", bundle.id);
    for index in 0..runs / 2 {
        once(&bundle, &id(index));
    }
    let alone = started.elapsed();
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (bundle, id) = (&bundle, &id);
            scope
                .spawn(move || (runs / 2..runs).filter(|index| index % 2 == worker).for_each(|i| once(bundle, &id(i))));
        }
    });
    let together = started.elapsed() - alone;
    println!("{} runs alone took {alone:.1?}, {} two at a time {together:.1?}", runs / 2, runs - runs / 2);
    assert_eq!(inventory(&bundle), before);
}
