//! `ctk-runtime` with the systemd driver, on a machine that systemd runs: see `ctk_e2e::machine::SystemMachine` and
//! `e2e/test_data/machine/systemd.sh`, whose findings are checked here.

use std::fs;
use std::process::Command;

use ctk_e2e::bundle::{Bundle, Runtime};
use ctk_e2e::machine::{Findings, SystemMachine};
use ctk_e2e::{contains, has, has_programs, is_root, workspace};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

fn configurations() -> Vec<(&'static str, Value)> {
    let shell = |script: &str| json!({ "args": ["sh", "-c", script] });
    let limit = json!({ "memory": { "limit": 32 * MIB, "swap": 32 * MIB } });
    let greedy = json!({
        "process": shell("exec dd if=/dev/zero of=/dev/null bs=200M count=1"),
        "linux": { "cgroupsPath": "system.slice:e2e:box", "resources": limit },
    });
    let mut full = json!({
        "annotations": { "org.systemd.property.TimeoutStopSec": "7" },
        "process": shell("sleep 2000 & while true; do wait; done"),
        "linux": {
            "cgroupsPath": "system.slice:e2e:box",
            "resources": {
                "devices": [{ "allow": false, "access": "rwm" }],
                "pids": { "limit": 8 },
                "cpu": { "quota": 20_000, "period": 100_000, "shares": 2048, "cpus": "0" },
                "unified": { "memory.high": "max" },
            },
        },
    });
    full["process"]["capabilities"] =
        json!({ "bounding+": ["CAP_MKNOD"], "effective+": ["CAP_MKNOD"], "permitted+": ["CAP_MKNOD"] });
    full["linux"]["resources"]["memory"] = limit["memory"].clone();
    full["linux"]["namespaces+"] = json!([{ "type": "cgroup" }]);
    let default = json!({ "process": shell("exec sleep 1000") });
    let one = json!({ "process": { "args": ["cat", "/proc/self/cgroup", "/sys/fs/cgroup/system.slice/ctk-first.scope/pids.max"] }, "linux": { "resources": { "pids": { "limit": 1 } } } });
    let path = json!({ "process": shell("true"), "linux": { "cgroupsPath": "/box" } });
    let property = json!({
        "annotations": { "org.systemd.property.NoSuchProperty": "true" },
        "process": shell("true"),
    });
    let namespaces = ["pid", "ipc", "uts", "mount", "user"].map(|name| json!({ "type": name }));
    let mut ordinary = json!({
        "process": shell("cat /proc/self/cgroup; exec dd if=/dev/zero of=/dev/null bs=200M count=1"),
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
        ],
        "linux": {
            "namespaces": namespaces,
            "uidMappings": [{ "containerID": 0, "hostID": 1000, "size": 1 }],
            "gidMappings": [{ "containerID": 0, "hostID": 1000, "size": 1 }],
            "resources": { "memory": { "limit": 32 * MIB, "swap": 32 * MIB }, "pids": { "limit": 30 }, "devices": null },
        },
    });
    let cat = ordinary.clone();
    ordinary["process"]["args"] = json!(["sleep", "1000"]);
    vec![
        ("greedy", greedy),
        ("box", full),
        ("default", default),
        ("one", one),
        ("path", path),
        ("property", property),
        ("ordinary", cat),
        ("ordinary-sleep", ordinary),
    ]
}

/// What the machine finds with this script; none if there can be no machine.
pub(super) fn findings(script: &str, parameters: &str, configurations: Vec<(&str, Value)>) -> Option<Findings> {
    findings_with(script, parameters, configurations, "")
}

/// The same, where `/e2e/profile` has these AppArmor profiles.
pub(super) fn findings_with(
    script: &str,
    parameters: &str,
    configurations: Vec<(&str, Value)>,
    profiles: &str,
) -> Option<Findings> {
    let here = is_root() && has_programs(&["mmdebstrap", "busybox", "timeout"]);
    if !here || !has("an x86 processor", cfg!(target_arch = "x86_64")) {
        return None;
    }
    let scripts = workspace().join("e2e/test_data/machine");
    let init = fs::read_to_string(scripts.join(script)).expect("a script");
    let machine = SystemMachine::new(&init);
    fs::copy(scripts.join("counting.sh"), machine.root().join("counting.sh")).expect("what scripts share");
    if !profiles.is_empty() {
        fs::write(machine.root().join("profile"), machine.apparmor(profiles)).expect("profiles");
    }
    let bundle = Bundle::new(Runtime::Ours);
    let place = machine.root().join("bundle");
    fs::create_dir_all(place.join("configs")).expect("a folder");
    for (name, mut changes) in configurations {
        changes["root"] = json!({ "readonly": false });
        bundle.configure(&changes);
        fs::copy(bundle.path("config.json"), place.join(format!("configs/{name}.json"))).expect("a file");
    }
    let mut command = Command::new("cp");
    command.arg("-a").arg(bundle.path("rootfs")).arg(&place);
    ctk_e2e::run(command).ok();
    std::os::unix::fs::symlink("busybox", place.join("rootfs/bin/mknod")).expect("a link");

    let output = machine.run(parameters);
    println!("{}", output.out);
    Some(Findings::of(&output))
}

#[test]
fn systemd_makes_cgroups() {
    let Some(found) = findings("systemd.sh", "", configurations()) else { return };
    let of = |name: &str| found.get(name);
    let is = |name: &str, expected: &str| found.is(name, expected);
    of("done");
    // Killed for want of memory; nothing is left.
    is("greedy", "137");
    is("greedy-left", "");
    // Limits are the scope's, and the cgroup's.
    is("box", "0");
    for (name, expected) in [
        ("Slice", "system.slice"),
        ("Description", "ctk container box"),
        ("Delegate", "yes"),
        ("MemoryMax", "33554432"),
        ("MemorySwapMax", "0"),
        ("MemoryHigh", "infinity"),
        ("TasksMax", "8"),
        ("CPUWeight", "79"),
        ("CPUQuotaPerSecUSec", "200ms"),
        ("AllowedCPUs", "0"),
        ("TimeoutStopUSec", "7s"),
        ("inside", "0::/system.slice/e2e-box.scope"),
        ("seen", "0::/"),
        ("memory.max", "33554432 0"),
        ("pids.max", "8"),
        ("cpu.max", "20000 100000"),
        ("cpuset.cpus", "0"),
    ] {
        is(name, expected);
    }
    is("oom", "137");
    contains(of("forks"), &["can't fork: Resource temporarily unavailable", " 6"]);
    contains(of("refused"), &["Operation not permitted"]);
    // Who comes second takes nothing from the first.
    contains(of("again"), &["failed to start the scope `e2e-box.scope`: Unit e2e-box.scope was already loaded"]);
    // What is changed stays, also when systemd writes all it knows once more.
    is("update", "0 100663296 20 400ms");
    is("reloaded", "100663296 20 40000 100000");
    contains(of("refused-after"), &["Operation not permitted"]);
    contains(of("paused"), &["0 ", "paused"]);
    contains(of("resumed"), &["0 ", "running"]);
    is("delete", "0");
    is("left", "");
    // A scope of the container's own name, and one that only one process may be in.
    is("create", "0  active");
    is("start", "0");
    contains(of("stopped"), &["stopped"]);
    is("first", "0");
    is("one", "0::/system.slice/ctk-first.scope 1");
    contains(of("beside"), &["0::/system.slice/first"]);
    is("killed", "");
    // Mistakes.
    contains(of("path"), &["linux.cgroupsPath: `/box` must be `slice:prefix:name`"]);
    contains(of("property"), &["failed to start the scope `ctk-box.scope`", "NoSuchProperty"]);
    contains(of("cgroupfs"), &["linux.cgroupsPath", "is one for systemd: give --systemd-cgroup"]);
    contains(of("missing"), &["it cannot be reached (/run/systemd/private: No such file", "--cgroup-manager cgroupfs"]);
    // The bus does as well as systemd's own socket.
    is("by-bus", "137");
    // An ordinary user's scopes are his systemd's.
    let mine = "0::/user.slice/user-1000.slice/user@1000.service/user.slice/ctk-mine.scope";
    is("user", mine);
    is("user-outside", mine);
    is("user-left", "");
    is("user-detached", "0  30");
    is("user-exec", mine);
    is("user-update", "0 40");
    is("user-delete", "0");
    is("user-podman", "33554432 20");
    contains(of("user-missing"), &["XDG_RUNTIME_DIR is not set"]);
    is("failed", "");
    is("podman", "0::/ 33554432 20");
    is("podman-left", "");
}

#[test]
fn systemd_makes_cgroups_of_version_1() {
    let old = "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=0";
    let Some(found) = findings("systemd-old.sh", old, configurations()) else { return };
    let is = |name: &str, expected: &str| found.is(name, expected);
    found.get("done");
    is("box", "0");
    // One in every hierarchy, those that systemd does not know too.
    is("hierarchies", "memory pids devices freezer cpuset systemd unified");
    contains(found.get("properties"), &["MemoryLimit=33554432", "TasksMax=8", "CPUShares=2048", "DevicePolicy=strict"]);
    is("limits", "33554432 8");
    is("oom", "137");
    // What systemd writes when it is reloaded is no more than what we wrote.
    contains(found.get("devices"), &["c 1:3 rwm c", "c 136:* rwm"]);
    assert_eq!(found.get("devices-reloaded"), found.get("devices"));
    contains(found.get("refused"), &["Operation not permitted"]);
    is("update", "0 67108864 MemoryLimit=67108864");
    is("delete", "0");
    is("left", "");
}
