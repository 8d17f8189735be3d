//! `ctk-runtime` on a machine that has cgroup version 2 with every controller, and AppArmor: see `ctk_e2e::machine` and
//! `e2e/test_data/machine/init.sh`, whose findings are checked here.

use std::fs;
use std::path::Path;
use std::process::Command;

use ctk_e2e::bundle::{Bundle, Runtime};
use ctk_e2e::machine::{Findings, Machine};
use ctk_e2e::{contains, has, has_programs, is_root, workspace};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

/// May do all but write below /tmp.
const PROFILE: &str = "profile e2e {\n  file,\n  capability,\n  signal,\n  deny /tmp/** w,\n}\n";

fn configurations() -> Vec<(&'static str, Value)> {
    let shell = |script: &str| json!({ "args": ["sh", "-c", script] });
    let disk = json!([{ "major": 259, "minor": 0, "rate": MIB }]);
    let box_ = json!({
        "process": {
            "args": ["sh", "-c", "sleep 2000 & while true; do wait; done"],
            "capabilities": { "bounding+": ["CAP_MKNOD"], "effective+": ["CAP_MKNOD"], "permitted+": ["CAP_MKNOD"] },
        },
        "linux": {
            "devices": [{ "path": "/dev/disk", "type": "b", "major": 259, "minor": 0, "fileMode": 0o600 }],
            "resources": {
                "devices": [
                    { "allow": false, "access": "rwm" },
                    { "allow": true, "type": "b", "major": 259, "minor": 0, "access": "rw" },
                ],
                "memory": { "limit": 32 * MIB, "swap": 32 * MIB },
                "pids": { "limit": 8 },
                "cpu": { "quota": 20_000, "period": 100_000, "shares": 2048, "cpus": "0" },
                "blockIO": { "throttleWriteBpsDevice": disk },
                "unified": { "memory.high": "max", "memory.oom.group": "0" },
            },
        },
    });
    let confined = json!({
        "process": {
            "args": ["sh", "-c", "cat /proc/self/attr/current; touch /tmp/file"],
            "apparmorProfile": "e2e",
        },
    });
    let mut unknown = confined.clone();
    unknown["process"]["apparmorProfile"] = "no-such-profile".into();
    let mut redirected = confined.clone();
    // What /proc/self/attr leads to is not the kernel's any more (CVE-2019-16884, CVE-2023-28642).
    redirected["mounts+"] = json!([{ "destination": "/proc", "type": "tmpfs", "source": "tmpfs" }]);
    let greedy = json!({
        "process": shell("exec dd if=/dev/zero of=/dev/null bs=200M count=1"),
        "linux": { "resources": { "memory": { "limit": 32 * MIB, "swap": 32 * MIB } } },
    });
    vec![("greedy", greedy), ("box", box_), ("confined", confined), ("redirected", redirected), ("unknown", unknown)]
}

#[track_caller]
fn within(what: &str, found: &str, expected: f64, tolerance: f64) {
    let number: f64 = found.parse().unwrap_or_else(|_| panic!("{what}: `{found}` is no number"));
    let near = (number - expected).abs() <= expected * tolerance;
    assert!(near, "{what}: {number} is not {expected} ± {:.0} %", tolerance * 100.0);
}

#[test]
fn a_machine_of_version_2_holds_limits() {
    let here = is_root() && has_programs(&["mmdebstrap", "busybox", "ldd", "timeout"]);
    if !here || !has("an x86 processor", cfg!(target_arch = "x86_64")) {
        return;
    }
    let init = fs::read_to_string(workspace().join("e2e/test_data/machine/init.sh")).expect("a script");
    let machine = Machine::new(&init);
    let bundle = Bundle::new(Runtime::Ours);
    let place = machine.root().join("bundle");
    fs::create_dir_all(place.join("configs")).expect("a folder");
    for (name, mut changes) in configurations() {
        changes["root"] = json!({ "readonly": false });
        changes["linux"]["cgroupsPath"] = "/box".into();
        bundle.configure(&changes);
        fs::copy(bundle.path("config.json"), place.join(format!("configs/{name}.json"))).expect("a file");
    }
    let mut command = Command::new("cp");
    command.arg("-a").arg(bundle.path("rootfs")).arg(&place);
    ctk_e2e::run(command).ok();
    let applet = |name: &str| place.join("rootfs/bin").join(name);
    for name in ["mknod", "mount"] {
        std::os::unix::fs::symlink(Path::new("busybox"), applet(name)).expect("a link");
    }
    fs::write(machine.root().join("profile"), machine.apparmor(PROFILE)).expect("a profile");

    let output = machine.run();
    let story = output.story();
    let found = Findings::of(&output);
    let of = |name: &str| found.get(name);
    let is = |name: &str, expected: &str| found.is(name, expected);
    of("done");
    println!("{}", output.out);

    contains(of("controllers"), &["cpuset", "cpu", "io", "memory", "pids"]);
    is("disk", "259:0");
    // Killed for want of memory.
    is("greedy", "137");
    contains(of("greedy-left"), &["No such file"]);
    contains(of("greedy-state"), &["does not exist"]);
    contains(
        of("divided"),
        &["1 ", "gives controllers (memory) to cgroups below it", "name one that is not there yet"],
    );
    contains(of("divided-state"), &["does not exist"]);
    is("beneath", "137");
    contains(of("beneath-left"), &["No such file"]);
    is("divided-kept", "0");
    // Every limit where version 2 has it.
    is("box", "0");
    is("memory.max", "33554432");
    is("memory.swap.max", "0");
    is("pids.max", "8");
    is("cpu.max", "20000 100000");
    is("cpu.weight", "79");
    is("cpuset.cpus", "0");
    is("io.max", "259:0 rbps=max wbps=1048576 riops=max wiops=max");
    is("unified", "max");
    // A process that was killed, the others are well, and who watches is told.
    is("oom", "137");
    assert_ne!(of("oom-events"), "0", "{story}");
    contains(of("state"), &["running"]);
    contains(of("forks"), &["can't fork: Resource temporarily unavailable", " 6"]);
    within("share", of("share"), 200.0, 0.3);
    // Frozen is frozen.
    is("pause", "0");
    contains(of("paused"), &["paused"]);
    is("frozen", "frozen 1");
    is("used-frozen", "0");
    contains(of("exec-frozen"), &["paused"]);
    is("resume", "0");
    contains(of("resumed"), &["running"]);
    is("update", "0");
    within("share-after", of("share-after"), 400.0, 0.3);
    is("memory-after", "100663296 0");
    is("pids-after", "20");
    // 2 MiB at 1 MiB/s, then 4 MiB at 4 MiB/s.
    let took = |name: &str| of(name).strip_prefix("0 ").unwrap_or_else(|| panic!("{name}\n{story}"));
    within("write", took("write"), 200.0, 0.4);
    is("update-io", "0 259:0 rbps=4194304 wbps=4194304 riops=max wiops=max");
    within("read", took("read"), 100.0, 0.4);
    let event: Value = serde_json::from_str(of("stats")).expect("an event");
    let stats = &event["data"];
    assert_eq!(stats["memory"]["usage"]["limit"], json!(96 * MIB), "{stats}");
    assert_eq!(stats["pids"]["limit"], json!(20), "{stats}");
    assert!(stats["cpu"]["usage"]["total"].as_u64().is_some_and(|used| used > 500_000_000), "{stats}");
    assert!(stats["cpu"]["throttling"]["throttledPeriods"].as_u64().is_some_and(|count| count > 10), "{stats}");
    let moved = |op: &str| {
        let list = stats["blkio"]["ioServiceBytesRecursive"].as_array().cloned().unwrap_or_default();
        let ours = list.into_iter().find(|entry| entry["op"] == json!(op) && entry["major"] == json!(259));
        ours.and_then(|entry| entry["value"].as_u64()).unwrap_or(0)
    };
    assert_eq!((moved("Write"), moved("Read")), (2 * MIB, 4 * MIB), "{stats}");
    // The program that says which devices there are, exchanged while the container runs.
    contains(of("refused"), &["Operation not permitted"]);
    is("allowed", "0 opened");
    contains(of("refused-write"), &["Operation not permitted"]);
    contains(of("refused-after"), &["Operation not permitted"]);
    is("below", "0  1");
    is("delete", "0");
    is("left", "0");
    is("processes", "0");
    // A profile holds, and is not written to a /proc that is not the kernel's; one that nobody loaded is an error.
    is("apparmor", "0");
    contains(of("confined"), &["e2e (enforce)", "Permission denied"]);
    contains(of("redirected"), &["/proc/self/attr/current", "/tmp/file: Permission denied"]);
    contains(of("unknown"), &["no-such-profile"]);
}
