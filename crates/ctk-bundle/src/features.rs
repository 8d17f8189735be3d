//! What this runtime can do (`features.md`): made from the tables that do it.

use serde_json::{Value, json};

use crate::action::NAMESPACES;
use crate::{checkpoint, landlock, options, process, seccomp, systemd};

/// The structure that the specification defines. Capabilities are those that this kernel has too.
pub fn features(version: &str, capabilities: &[String]) -> Value {
    let names = |list: &[(&str, u32)]| list.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": crate::spec::VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": options::known().collect::<Vec<_>>(),
        "linux": {
            "namespaces": names(&NAMESPACES),
            "capabilities": capabilities,
            "cgroup": {
                "v1": true,
                "v2": true,
                "systemd": true,
                "systemdUser": true,
                "rdma": true,
            },
            "seccomp": {
                "enabled": true,
                "actions": seccomp::ACTIONS,
                "operators": seccomp::OPERATORS,
                "archs": seccomp::ARCHITECTURES,
                "knownFlags": seccomp::FLAGS.map(|(name, _)| name),
                "supportedFlags": seccomp::FLAGS.map(|(name, _)| name),
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": {
                "modes": process::MEMORY_MODES.map(|(name, _)| name),
                "flags": process::MEMORY_FLAGS.map(|(name, _)| name),
            },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": {
            "org.ctk.runtime.version": version,
            "org.ctk.runtime.checkpoint.enabled": "true",
            landlock::ANNOTATION: landlock::WORDS.map(|(word, ..)| word).join(","),
        },
        "potentiallyUnsafeConfigAnnotations": [checkpoint::CONFIG, systemd::ANNOTATION],
    })
}

/// Names of the capabilities that this kernel has.
pub fn capabilities() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
    let last = text.trim().parse::<u32>().unwrap_or(40);
    let words = ctk_runtime::Capabilities::names();
    words.iter().take(last as usize + 1).map(|name| format!("CAP_{name}")).collect()
}

/// A `config.json` to start from: a shell in a root that cannot be written. For an ordinary user, it has a user
/// namespace in which he is root.
pub fn example(rootless: bool, uid: u32, gid: u32) -> String {
    let kept = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    let mut namespaces: Vec<&str> = vec!["pid", "network", "ipc", "uts", "mount", "cgroup"];
    if rootless {
        namespaces.retain(|name| *name != "network");
        namespaces.push("user");
        mounts[2] =
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
        mounts.push(mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]));
    } else {
        mounts.push(mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]));
        mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]));
    }
    let mut linux = json!({
        "namespaces": namespaces.iter().map(|name| json!({ "type": name })).collect::<Vec<_>>(),
        "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
            "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    });
    match rootless {
        true => {
            linux["uidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
            linux["gidMappings"] = json!([{ "containerID": 0, "hostID": gid, "size": 1 }]);
            // The machine's /sys has all cgroups, those that the user owns among them (CVE-2023-25809).
            if let Some(masked) = linux.get_mut("maskedPaths").and_then(serde_json::Value::as_array_mut) {
                masked.push("/sys/fs/cgroup".into());
            }
        }
        false => linux["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] }),
    }
    let spec = json!({
        "ociVersion": crate::spec::VERSION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": kept, "effective": kept, "permitted": kept },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "ctk",
        "mounts": mounts,
        "linux": linux,
    });
    format!("{}\n", serde_json::to_string_pretty(&spec).unwrap_or_default())
}
