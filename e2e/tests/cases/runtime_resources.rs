//! Limits that really hold: each is exceeded, changed while the container runs, and exceeded again; on a machine with
//! both versions of cgroups and on one of version 1. `runtime_machine` has version 2.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use ctk_e2e::bundle::{Bundle, Runtime, View};
use ctk_e2e::{Output, contains, eventually, has, has_programs, is_root};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

/// A bundle for each view that has `controllers`.
fn bundles(controllers: &[&str]) -> Vec<Bundle> {
    if !is_root() || !has_programs(&["unshare", "busybox"]) {
        return Vec::new();
    }
    View::all(controllers).into_iter().map(|view| Bundle::new(Runtime::Ours).in_view(view)).collect()
}

/// Writes a configuration with these limits.
fn configure(bundle: &Bundle, script: &str, resources: &Value) {
    bundle.configure(&json!({
        "process": { "args": ["sh", "-c", script] },
        "root": { "readonly": false },
        "mounts+": [{ "destination": "/mnt", "type": "bind", "source": "@HOST@", "options": ["bind"] }],
        "linux": { "cgroupsPath": "/@ID@", "resources": resources },
    }));
}

/// Runs a container with these limits to its end.
fn run(bundle: &Bundle, script: &str, resources: &Value) -> Output {
    configure(bundle, script, resources);
    bundle.quietly(&["run", &bundle.id])
}

/// Leaves one running.
fn start(bundle: &Bundle, script: &str, resources: &Value) {
    configure(bundle, script, resources);
    bundle.quietly(&["run", "--detach", &bundle.id]).ok();
}

fn exec(bundle: &Bundle, script: &str) -> Output {
    bundle.runtime(&["exec", &bundle.id, "sh", "-c", script])
}

fn update(bundle: &Bundle, options: &[&str]) {
    bundle.runtime(&[&["update"], options, &[&bundle.id]].concat()).ok();
}

/// `update` with a file, which is how podman and containerd do it.
fn update_from(bundle: &Bundle, resources: &Value) {
    let file = bundle.path("resources.json");
    fs::write(&file, resources.to_string()).expect("a file");
    update(bundle, &["--resources", &file.display().to_string()]);
}

/// What `events --stats` tells.
fn stats(bundle: &Bundle) -> Value {
    let event: Value =
        serde_json::from_str(&bundle.runtime(&["events", "--stats", &bundle.id]).ok()).expect("an event");
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(bundle.id)));
    event["data"].clone()
}

/// A file of its cgroup.
fn cgroup(bundle: &Bundle, controller: &str, file: &str) -> String {
    let path = Path::new("/sys/fs/cgroup").join(controller).join(&bundle.id).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

#[track_caller]
fn within(what: &str, found: f64, expected: f64, tolerance: f64) {
    let near = (found - expected).abs() <= expected * tolerance;
    assert!(near, "{what}: {found:.3} is not {expected:.3} ± {:.0} %", tolerance * 100.0);
}

/// Takes this many MiB at once.
fn takes(mebibytes: u32) -> String {
    format!("dd if=/dev/zero of=/dev/null bs={mebibytes}M count=1 2>/dev/null")
}

#[test]
fn memory_is_limited_and_kills_are_told() {
    for bundle in bundles(&["memory"]) {
        let limit = json!({ "memory": { "limit": 32 * MIB, "swap": 32 * MIB } });
        assert_eq!(run(&bundle, &takes(16), &limit).code(), 0);
        // The program itself; nothing is left of it.
        let output = run(&bundle, &format!("exec {}", takes(200)), &limit);
        assert_eq!(output.code(), 137, "{}", output.story());
        assert_eq!(bundle.status(), None);

        // One of several: the others go on, and whoever watches is told.
        start(&bundle, "sleep 1000", &limit);
        let mut watch = bundle.command(&["events", "--interval", "1s", &bundle.id]);
        let told = bundle.path("told");
        watch.stdout(fs::File::create(&told).expect("a file"));
        let mut watch = watch.spawn().expect("ctk-runtime");
        let text = || fs::read_to_string(&told).unwrap_or_default();
        eventually(Duration::from_secs(20), "a first event", || text().contains("stats"));
        assert!(!text().contains("oom"), "{}", text());
        assert_eq!(exec(&bundle, &format!("exec {}", takes(200))).code(), 137);
        eventually(Duration::from_secs(20), "an event `oom`", || text().contains(r#""type":"oom""#));
        assert_eq!(bundle.status().as_deref(), Some("running"));

        let seen = stats(&bundle);
        assert_eq!(seen["memory"]["usage"]["limit"], json!(32 * MIB));
        assert_eq!(seen["memory"]["usage"]["failcnt"].to_string(), cgroup(&bundle, "memory", "memory.failcnt"));
        let most = seen["memory"]["usage"]["max"].as_f64().unwrap_or_default();
        within("memory.usage.max", most, 32.0 * MIB as f64, 0.1);

        update(&bundle, &["--memory", "96M", "--memory-swap", "96M"]);
        assert_eq!(exec(&bundle, &takes(64)).code(), 0);
        assert_eq!(stats(&bundle)["memory"]["usage"]["limit"], json!(96 * MIB));
        update_from(&bundle, &json!({ "memory": { "limit": 24 * MIB, "swap": 24 * MIB } }));
        assert_eq!(exec(&bundle, &format!("exec {}", takes(64))).code(), 137);

        bundle.runtime(&["kill", &bundle.id, "KILL"]).ok();
        assert!(watch.wait().expect("its end").success());
        bundle.runtime(&["delete", &bundle.id]).ok();
        // The first process: told although it ends with that, and the container has stopped.
        start(&bundle, &format!("while ! test -e /mnt/go; do sleep 0.05; done; exec {}", takes(200)), &limit);
        let mut watch = bundle.command(&["events", "--interval", "60s", &bundle.id]);
        let watch = watch.stdout(Stdio::piped()).spawn().expect("ctk-runtime");
        std::thread::sleep(Duration::from_millis(300));
        fs::write(bundle.path("host/go"), "").expect("a file");
        let told = watch.wait_with_output().expect("its end");
        contains(&String::from_utf8_lossy(&told.stdout), &[r#""type":"oom""#]);
        assert_eq!(bundle.status().as_deref(), Some("stopped"));
        bundle.runtime(&["delete", &bundle.id]).ok();
        fs::remove_file(bundle.path("host/go")).expect("gone");
    }
}

#[test]
fn processes_are_limited() {
    for bundle in bundles(&["pids"]) {
        // In a shell of its own, since a shell that cannot fork ends.
        let forks = "i=0; (while test $i -lt 30; do sleep 2 & i=$((i+1)); echo $i; done) > /tmp/made 2> /tmp/said; \
                     wc -l < /tmp/made; cat /tmp/said";
        let output = run(&bundle, forks, &json!({ "pids": { "limit": 8 } }));
        // Two shells, and six to sleep.
        contains(&output.out, &["6\n", "can't fork: Resource temporarily unavailable"]);
        // A first process that waits for those that lost their parent.
        start(&bundle, "sleep 1000 & while true; do wait; done", &json!({ "pids": { "limit": 8 } }));
        let count = |bundle: &Bundle| {
            let script = "i=0; while test $i -lt 40; do sleep 2 & i=$((i+1)); echo $i; done; wait";
            exec(bundle, script).out.lines().count()
        };
        let alone = || {
            eventually(Duration::from_secs(20), "the end of the others", || {
                cgroup(&bundle, "pids", "pids.current") == "2"
            })
        };
        assert_eq!(count(&bundle), 5);
        alone();
        let refused = cgroup(&bundle, "pids", "pids.events");
        assert_ne!(refused, "max 0");
        update(&bundle, &["--pids-limit", "20"]);
        assert_eq!(cgroup(&bundle, "pids", "pids.max"), "20");
        assert_eq!(count(&bundle), 17);
        alone();
        assert_eq!(stats(&bundle)["pids"], json!({ "current": 2, "limit": 20 }));
        update_from(&bundle, &json!({ "pids": { "limit": -1 } }));
        assert_eq!(count(&bundle), 40);
    }
}

/// Which part of a processor it used in two seconds.
fn share(bundle: &Bundle) -> f64 {
    let usage = || cgroup(bundle, "cpuacct", "cpuacct.usage").parse::<f64>().expect("nanoseconds");
    let (started, before) = (Instant::now(), usage());
    std::thread::sleep(Duration::from_secs(2));
    let used = usage() - before;
    used / started.elapsed().as_nanos() as f64
}

#[test]
fn processor_time_is_limited() {
    for bundle in bundles(&["cpu", "cpuacct"]) {
        // With shares that let it have its quota on a busy machine, too.
        let limit = json!({ "cpu": { "quota": 20_000, "period": 100_000, "shares": 262_144 } });
        start(&bundle, "while true; do :; done", &limit);
        within("a fifth of a processor", share(&bundle), 0.2, 0.3);
        let throttled = |bundle: &Bundle| stats(bundle)["cpu"]["throttling"]["throttledPeriods"].as_u64().unwrap_or(0);
        assert!(throttled(&bundle) > 10, "{}", stats(&bundle));
        update(&bundle, &["--cpu-quota", "40000"]);
        within("after update", share(&bundle), 0.4, 0.3);
        update_from(&bundle, &json!({ "cpu": { "quota": 20_000, "period": 200_000 } }));
        within("after update with a period", share(&bundle), 0.1, 0.3);
        let own: f64 = cgroup(&bundle, "cpuacct", "cpuacct.usage").parse().expect("nanoseconds");
        let told = stats(&bundle)["cpu"]["usage"]["total"].as_f64().expect("nanoseconds");
        within("events --stats", told, own, 0.2);
        assert!(throttled(&bundle) > 20);
        update(&bundle, &["--cpu-quota", "-1", "--cpu-share", "2048"]);
        // As much as others leave.
        assert!(share(&bundle) > 0.2, "without a limit");
        assert_eq!(cgroup(&bundle, "cpu", "cpu.shares"), "2048");
    }
}

#[test]
fn processors_are_chosen() {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    if !has("two processors", count > 1) {
        return;
    }
    for bundle in bundles(&["cpuset", "cpuacct"]) {
        start(&bundle, "while true; do :; done & while true; do :; done", &json!({ "cpu": { "cpus": "1" } }));
        let each = |bundle: &Bundle| -> Vec<u64> {
            let text = cgroup(bundle, "cpuacct", "cpuacct.usage_percpu");
            text.split_whitespace().map(|word| word.parse().expect("nanoseconds")).collect()
        };
        let ran_on = |bundle: &Bundle| -> Vec<usize> {
            let before = each(bundle);
            std::thread::sleep(Duration::from_secs(1));
            let after = each(bundle);
            (0..count).filter(|index| after[*index] - before[*index] > 50_000_000).collect()
        };
        assert_eq!(ran_on(&bundle), [1]);
        update(&bundle, &["--cpuset-cpus", "0"]);
        assert_eq!(ran_on(&bundle), [0]);
        contains(&exec(&bundle, "grep Cpus_allowed_list /proc/self/status").out, &["\t0\n"]);
        update_from(&bundle, &json!({ "cpu": { "cpus": "0-1" } }));
        contains(&exec(&bundle, "grep Cpus_allowed_list /proc/self/status").out, &["\t0-1\n"]);
        let percpu = stats(&bundle)["cpu"]["usage"]["percpu"].as_array().map_or(0, Vec::len);
        assert!(percpu >= 2, "{}", stats(&bundle));
    }
}

/// The disk below a folder: its numbers.
fn disk(folder: &Path) -> Option<(u32, u32)> {
    let device = fs::metadata(folder).expect("a folder").dev();
    let numbers = (rustix::fs::major(device), rustix::fs::minor(device));
    let known = PathBuf::from(format!("/sys/dev/block/{}:{}", numbers.0, numbers.1));
    let found = fs::canonicalize(known).ok().and_then(|path| {
        // A limit is one of the whole disk.
        let whole = if path.join("partition").exists() { path.parent()?.to_owned() } else { path };
        let text = fs::read_to_string(whole.join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    has("a disk of its own below /var/tmp", found.is_some());
    found
}

#[test]
fn disks_are_limited() {
    for bundle in bundles(&["blkio"]) {
        let Some((major, minor)) = disk(&bundle.path("host")) else { return };
        let rate = |mebibytes: u64| json!([{ "major": major, "minor": minor, "rate": mebibytes * MIB }]);
        let both = |mebibytes: u64| json!({ "blockIO": { "throttleReadBpsDevice": rate(mebibytes), "throttleWriteBpsDevice": rate(mebibytes) } });
        let write = "dd if=/dev/zero of=/mnt/data bs=64k count=64 oflag=direct 2>/dev/null";
        let read = "dd if=/mnt/data of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null";
        start(&bundle, "sleep 1000", &both(2));
        // 4 MiB at 2 MiB/s.
        let seconds = |script: &str| {
            let output = exec(&bundle, script);
            let took = output.took.as_secs_f64();
            output.ok();
            took
        };
        within("writing", seconds(write), 2.0, 0.4);
        within("reading", seconds(read), 2.0, 0.4);
        update_from(&bundle, &both(1));
        within("writing after update", seconds(write), 4.0, 0.4);
        update_from(&bundle, &both(4));
        within("reading after update", seconds(read), 1.0, 0.4);
        let seen = stats(&bundle)["blkio"]["ioServiceBytesRecursive"].clone();
        for op in ["Read", "Write"] {
            let ours = |entry: &&Value| entry["major"] == json!(major) && entry["minor"] == json!(minor);
            let found = seen.as_array().into_iter().flatten().filter(ours).find(|entry| entry["op"] == json!(op));
            let bytes = found.and_then(|entry| entry["value"].as_f64()).unwrap_or(0.0);
            within(op, bytes, 8.0 * MIB as f64, 0.2);
        }
    }
}

/// `checkBeforeUpdate`: nobody is killed by a limit that was meant to be looked at first.
#[test]
fn a_limit_below_what_is_in_use_is_refused() {
    for bundle in bundles(&["memory"]) {
        let limit = json!({ "memory": { "limit": 64 * MIB } });
        start(
            &bundle,
            "dd if=/dev/zero of=/dev/shm/file bs=1M count=16 2>/dev/null; echo > /dev/shm/done; sleep 100",
            &limit,
        );
        eventually(Duration::from_secs(20), "its memory", || exec(&bundle, "test -e /dev/shm/done").code() == 0);
        let file = bundle.path("resources.json");
        let less = json!({ "memory": { "limit": 8 * MIB, "checkBeforeUpdate": true }, "pids": { "limit": 50 } });
        fs::write(&file, less.to_string()).expect("a file");
        let output = bundle.runtime(&["update", "--resources", &file.display().to_string(), &bundle.id]);
        contains(
            &output.fails(1),
            &["linux.resources.memory.limit", "8388608 bytes are less than", "checkBeforeUpdate"],
        );
        assert_eq!(cgroup(&bundle, "memory", "memory.limit_in_bytes"), (64 * MIB).to_string());
        let more = json!({ "memory": { "limit": 48 * MIB, "checkBeforeUpdate": true } });
        update_from(&bundle, &more);
        assert_eq!(cgroup(&bundle, "memory", "memory.limit_in_bytes"), (48 * MIB).to_string());
    }
}

/// Runs a bundle where there is cgroup version 2 and nothing else.
fn run_on_version_2(bundle: &Bundle) -> Output {
    let _ = bundle.runtime(&["list"]);
    let script = "umount -R /sys/fs/cgroup && mount -t cgroup2 c /sys/fs/cgroup && exec \"$@\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--", "sh", "-c", script, "sh"]);
    command.arg(bundle.path("ctk-runtime")).arg("--root").arg(bundle.path("state")).args(["run", &bundle.id]);
    command.current_dir(bundle.path("")).stdin(Stdio::null());
    ctk_e2e::run(command)
}

/// A container with a user namespace and writable cgroups gets its own: it can divide it.
#[test]
fn a_version_2_cgroup_is_given_to_the_containers_root() {
    if !is_root() || !has_programs(&["unshare", "busybox"]) {
        return;
    }
    let bundle = Bundle::new(Runtime::Ours);
    let script = "stat -c %u /sys/fs/cgroup /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/own && \
                  echo $$ > /sys/fs/cgroup/own/cgroup.procs && grep 0:: /proc/self/cgroup; \
                  stat -c %u /sys/fs/cgroup/cgroup.max.depth";
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup", "user"].map(|name| json!({ "type": name }));
    let mapped = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    let configure = |options: &[&str]| {
        bundle.configure(&json!({
            "process": { "args": ["sh", "-c", script] },
            "mounts+": [{ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options }],
            "linux": { "namespaces": namespaces, "uidMappings": mapped, "gidMappings": mapped },
        }));
    };
    configure(&["nosuid", "noexec", "nodev"]);
    // What is not for it stays root's, who is nobody in there.
    assert_eq!(run_on_version_2(&bundle).ok(), "0\n0\n0::/own\n65534\n");
    configure(&["nosuid", "noexec", "nodev", "ro"]);
    let output = run_on_version_2(&bundle);
    assert!(output.out.starts_with("65534\n65534\n"), "{}", output.story());
}

/// A cgroup that takes no processes is an error: outside of it there would be no limits, and no rules of devices.
#[test]
fn a_cgroup_that_takes_no_processes_is_told() {
    if !is_root() || !has_programs(&["unshare", "busybox"]) {
        return;
    }
    let bundle = Bundle::new(Runtime::Ours);
    let mount = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let mount = mount.into_iter().find(|mount| mount.join("cgroup.procs").exists() && !mount.join("tasks").exists());
    if !has("cgroup version 2", mount.is_some()) {
        return;
    }
    /// Goes with the test, however that ends.
    struct Threaded(PathBuf);
    impl Drop for Threaded {
        fn drop(&mut self) {
            let _ = fs::remove_dir(self.0.join("threads"));
            let _ = fs::remove_dir(&self.0);
        }
    }
    // Beside a threaded cgroup, nothing has a domain of its own.
    let above = mount.expect("a mount").join(&bundle.id);
    let _threaded = Threaded(above.clone());
    fs::create_dir_all(above.join("threads")).expect("a cgroup");
    fs::write(above.join("threads/cgroup.type"), "threaded").expect("a threaded cgroup");
    let configure = |path: &str| {
        bundle.configure(&json!({ "process": { "args": ["true"] }, "linux": { "cgroupsPath": path } }));
    };
    configure("/@ID@/box");
    let told = run_on_version_2(&bundle).fails(1);
    contains(
        &told,
        &["failed to start a process in the cgroup", "`domain invalid`", "name one elsewhere", "linux.cgroupsPath"],
    );
    assert!(!above.join("box").exists(), "it is left");
    configure("/@ID@-other");
    run_on_version_2(&bundle).ok();
}

/// What version 2 does not have is told, not passed over.
#[test]
fn limits_of_version_1_are_refused_on_version_2() {
    if !is_root() || !has_programs(&["unshare", "busybox"]) {
        return;
    }
    let bundle = Bundle::new(Runtime::Ours);
    for (resources, field) in [
        (json!({ "memory": { "swappiness": 7 } }), "linux.resources.memory.swappiness"),
        (json!({ "memory": { "disableOOMKiller": true } }), "linux.resources.memory.disableOOMKiller"),
        (json!({ "cpu": { "realtimePeriod": 1000 } }), "linux.resources.cpu.realtimePeriod"),
    ] {
        bundle.configure(&json!({ "process": { "args": ["true"] }, "linux": { "resources": resources } }));
        contains(&run_on_version_2(&bundle).fails(1), &[field, "only cgroup version 1 has it"]);
    }
    bundle.configure(&json!({
        "process": { "args": ["true"] },
        "linux": { "resources": { "memory": { "disableOOMKiller": false }, "cpu": { "realtimePeriod": 0 } } },
    }));
    run_on_version_2(&bundle).ok();
}

/// Capabilities that cannot be given are a warning, not an error (`config.md#posix-process`).
#[test]
fn capabilities_that_are_not_there_are_warnings() {
    if !is_root() || !has_programs(&["unshare", "busybox"]) {
        return;
    }
    let bundle = Bundle::new(Runtime::Ours);
    let names = ["CAP_KILL", "CAP_NEWER_THAN_THIS"];
    bundle.configure(&json!({
        "process": {
            "args": ["grep", "CapEff", "/proc/self/status"],
            "capabilities": { "bounding": names, "effective": names, "permitted": names },
        },
    }));
    let log = bundle.path("log").display().to_string();
    let output = bundle.quietly(&["--log", &log, "--log-format", "json", "run", &bundle.id]);
    assert_eq!(output.ok(), "CapEff:\t0000000000000020\n");
    let told = fs::read_to_string(&log).expect("a log");
    contains(&told, &[r#""level":"warning""#, "`CAP_NEWER_THAN_THIS` is not known here"]);
    assert_eq!(told.lines().count(), 1, "{told}");
}

/// Who is paused is killed all the same, as `docker kill` has it: version 1 keeps even that signal back.
#[test]
fn paused_containers_are_killed() {
    for bundle in bundles(&["freezer"]) {
        for words in [&["kill"][..], &["kill", "--all"]] {
            start(&bundle, "sleep 1000", &json!({}));
            bundle.runtime(&["pause", &bundle.id]).ok();
            assert_eq!(bundle.status().as_deref(), Some("paused"));
            bundle.runtime(&[words, &[&bundle.id, "KILL"]].concat()).ok();
            eventually(Duration::from_secs(10), "its end", || bundle.status().as_deref() == Some("stopped"));
            bundle.runtime(&["delete", &bundle.id]).ok();
        }
    }
}
