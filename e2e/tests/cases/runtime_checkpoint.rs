//! `checkpoint` and `restore` with Debian's CRIU, on a machine whose kernel has all that it wants: see
//! `e2e/test_data/machine/criu.sh` and `criu-options.sh`, whose findings are checked here.

use std::process::Command;

use ctk_e2e::bundle::{Bundle, Runtime};
use ctk_e2e::{contains, is_root, run};
use serde_json::{Value, json};

use super::runtime_systemd::{findings, findings_with};

const MIB: u64 = 1 << 20;

fn configurations() -> Vec<(&'static str, Value)> {
    let count = "i=0; while :; do i=$((i+1)); echo $i >> /tmp/count; sleep 0.1; done";
    let shell = |script: &str| json!({ "args": ["sh", "-c", script] });
    let hook = |word: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("cat > /run/hook-{word}")] }]);
    let mount = json!([{ "destination": "/mnt", "type": "bind", "source": "/run/host", "options": ["bind"] }]);
    let counter = json!({
        "process": shell(count),
        "mounts+": mount,
        "hooks": { "createRuntime": hook("createRuntime"), "poststart": hook("poststart"), "poststop": hook("poststop") },
        "linux": { "cgroupsPath": "/box", "resources": { "memory": { "limit": 64 * MIB }, "pids": { "limit": 20 } } },
    });
    let scoped = json!({
        "process": shell(count),
        "linux": { "cgroupsPath": "system.slice:e2e:box", "namespaces+": [{ "type": "cgroup" }] },
    });
    let terminal = json!({
        "process": { "terminal": true, "args": ["sh", "-c", "while :; do sleep 0.5; echo tick; done"] },
        "linux": { "cgroupsPath": "/box" },
    });
    let namespaces = [("pid", ""), ("network", "/run/netns/e2e"), ("ipc", ""), ("uts", ""), ("mount", "")];
    let namespaces = namespaces.map(|(kind, path)| json!({ "type": kind, "path": path }));
    let network = json!({ "process": shell(count), "linux": { "cgroupsPath": "/box", "namespaces": namespaces } });
    vec![("counter", counter), ("scoped", scoped), ("terminal", terminal), ("network", network)]
}

#[test]
fn containers_are_written_down_and_made_again() {
    let Some(found) = findings("criu.sh", "", configurations()) else { return };
    let of = |name: &str| found.get(name);
    let is = |name: &str, expected: &str| found.is(name, expected);
    of("done");
    contains(of("criu"), &["3."]);
    is("run", "0");
    // Written down, it is gone, and its poststop hooks have run; made again, it goes on where it was.
    is("checkpoint", "0");
    contains(of("gone"), &["does not exist"]);
    is("stopped", "stopped");
    contains(of("log"), &["dump.log", "descriptors.json"]);
    is("still", "yes");
    is("restore", "0");
    is("counts", "yes");
    is("status", "running 1");
    is("hooks", "creating same running");
    is("limits", "67108864 20");
    is("inside", "file 0::/box ctk");
    // By the container's own null device, as before.
    contains(of("masked"), &["0 1 0 ", "Read-only file system"]);
    is("place", "config.json lock state.json");
    // One that goes on; one that was paused stays so.
    is("leave", "0  running");
    is("delete", "0");
    is("second", "0  running");
    is("remembered", "yes");
    is("pause", "0  0  paused");
    is("resume", "0");
    // Memory first.
    is("pre", "0  running");
    contains(of("absolute"), &["must be relative to --image-path", "running"]);
    is("last", "0");
    is("parent", "../pre");
    is("from-parent", "0  yes");
    contains(of("broken"), &["failed to restore the container: ", "(see `/run/second/restore.log`)"]);
    contains(of("broken-left"), &["does not exist"]);
    // A terminal.
    is("terminal", "0  tick");
    is("terminal-again", "running tick");
    is("terminal-tty", "/dev/pts/0");
    contains(of("terminal-end"), &["does not exist"]);
    // A namespace of the host, and a scope of systemd's.
    is("network", "0");
    is("network-checkpoint", "0");
    is("network-restore", "0  yes");
    is("network-same", "1");
    is("scoped", "0");
    is("scoped-checkpoint", "0  inactive");
    is("scoped-restore", "0  active");
    is("scoped-counts", "yes 0::/system.slice/e2e-box.scope");
    is("scoped-left", "");
    is("podman", "1");
    is("podman-checkpoint", "1");
    is("podman-restore", "1 yes");
    is("podman-rm", "1");
}

/// Two that forbid what nobody here does.
const PROFILES: &str = "profile e2e-one flags=(attach_disconnected,mediate_deleted) {\n  file,\n  capability,\n  network,\n  \
                        signal,\n  ptrace,\n  mount,\n  deny /forbidden w,\n}\nprofile e2e-two \
                        flags=(attach_disconnected,mediate_deleted) {\n  file,\n  capability,\n  network,\n  signal,\n  \
                        ptrace,\n  mount,\n  deny /forbidden w,\n}\n";

fn configurations_of_options() -> Vec<(&'static str, Value)> {
    let count = "i=0; while :; do i=$((i+1)); echo $i >> /tmp/count; sleep 0.1; done";
    let shell = |script: &str| json!({ "args": ["sh", "-c", script] });
    let counter = json!({ "process": shell(count), "linux": { "cgroupsPath": "/box" } });
    let mut confined = counter.clone();
    confined["process"]["apparmorProfile"] = "e2e-one".into();
    let bind = |at: &str, from: &str| json!({ "destination": at, "type": "bind", "source": from, "options": ["bind"] });
    // With the machine's Python.
    let python = |script: &str, namespaces: &[&str]| {
        let namespaces: Value = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
        json!({
            "process": { "args": ["/usr/bin/python3", "-S", "-c", script] },
            "mounts+": [
                bind("/run/host", "/run/host"), bind("/usr", "/usr"), bind("/lib", "/usr/lib"), bind("/lib64", "/usr/lib64"),
            ],
            "linux": { "cgroupsPath": "/box", "namespaces": namespaces },
        })
    };
    let lock = "import fcntl, time\nlock = open('/tmp/lock', 'w')\nfcntl.flock(lock, fcntl.LOCK_EX)\ni = 0\nwhile True:\n    \
                i += 1\n    with open('/tmp/count', 'a') as f: f.write(f'{i}\\n')\n    time.sleep(0.1)\n";
    let locks = python(lock, &["pid", "network", "ipc", "uts", "mount"]);
    let talk = "import socket, time\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\ns.connect('/run/host/log')\ni = 0\n\
                while True:\n    i += 1\n    s.send(str(i).encode())\n    time.sleep(0.1)\n";
    // Both ends are of one network namespace: CRIU finds no other. Its name is that of who bound it.
    let socket = python(talk, &["pid", "ipc", "uts", "mount"]);
    let mapped = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    let mut users = counter.clone();
    users["process"] = json!({ "args": ["sleep", "1000"] });
    users["linux"]["namespaces+"] = json!([{ "type": "user" }]);
    (users["linux"]["uidMappings"], users["linux"]["gidMappings"]) = (mapped.clone(), mapped);
    let namespaces = [("pid", "/proc/@PID@/ns/pid"), ("network", ""), ("ipc", ""), ("uts", ""), ("mount", "")];
    let mut pids = counter.clone();
    pids["linux"]["namespaces"] =
        namespaces.map(|(kind, path)| json!({ "type": kind, "path": path })).into_iter().collect();
    vec![
        ("counter", counter),
        ("locks", locks),
        ("socket", socket),
        ("confined", confined),
        ("users", users),
        ("pids", pids),
    ]
}

#[test]
fn options_of_criu_do_what_they_say() {
    let Some(found) = findings_with("criu-options.sh", "", configurations_of_options(), PROFILES) else { return };
    let of = |name: &str| found.get(name);
    let is = |name: &str, expected: &str| found.is(name, expected);
    of("done");
    is("locks", "0");
    contains(of("locks-refused"), &["--file-locks", "running"]);
    is("locks-checkpoint", "0");
    is("locks-free", "free");
    is("locks-restore", "0  yes");
    is("locks-held", "held");
    is("socket", "0");
    contains(of("socket-refused"), &["ext-unix-sk", "running"]);
    is("socket-checkpoint", "0");
    is("socket-restore", "0");
    is("socket-heard", "yes");
    is("job", "0");
    is("job-checkpoint", "0");
    is("job-restore", "0  yes");
    // Memory is where it was sent, and nowhere else.
    is("server", "0");
    is("server-checkpoint", "0");
    is("server-pages", "sent 0");
    is("server-restore", "0  yes");
    contains(of("server-none"), &["failed to checkpoint the container", "running"]);
    // What was written again is no longer in the images of before; what was restored in none.
    is("dedup-pre", "0");
    is("dedup-checkpoint", "0");
    is("dedup-less", "yes");
    is("dedup-restore", "0  yes");
    is("dedup-used", "yes");
    is("empty-before", "1");
    is("empty-checkpoint", "0");
    is("empty-restore", "0  yes");
    is("empty-after", "0");
    contains(of("empty-other"), &["--empty-ns `ipc` is not `network`"]);
    is("profiles", "0");
    is("profile", "0");
    is("profile-before", "e2e-one (enforce)");
    is("profile-checkpoint", "0");
    is("profile-restore", "0  yes");
    is("profile-after", "e2e-two (enforce)");
    // Refused, and nothing has happened.
    is("users", "0");
    contains(of("users-checkpoint"), &["checkpoint with a user namespace (linux.namespaces[5])", "running"]);
    contains(of("users-left"), &["No such file"]);
    contains(of("users-restore"), &["restore with a user namespace (linux.namespaces[5])"]);
    is("pids", "0");
    contains(of("pids-checkpoint"), &["checkpoint with a pid namespace by path (linux.namespaces[0])", "running"]);
    contains(of("pids-restore"), &["restore with a pid namespace by path (linux.namespaces[0])"]);
    is("left", "");
}

#[test]
fn without_criu_there_is_advice() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new(Runtime::Ours);
    bundle.configure(&json!({ "process": { "args": ["sleep", "1000"] } }));
    bundle.quietly(&["run", "--detach", &bundle.id]).ok();
    let fails = |arguments: &[&str]| bundle.runtime(&[arguments, &[&bundle.id]].concat()).fails(1);
    let advice = "checkpoint and restore is not supported: the program `criu` cannot be run (No such file or directory (os \
                  error 2)); install CRIU 3.15 or newer";
    contains(&fails(&["--criu", "/no/criu", "checkpoint"]), &[advice]);
    contains(
        &fails(&["--criu", "/bin/true", "checkpoint"]),
        &["failed to talk with `criu`: it ended without an answer"],
    );
    contains(&fails(&["checkpoint", "--lazy-pages"]), &["--lazy-pages is not supported"]);
    contains(&fails(&["checkpoint", "--manage-cgroups-mode", "hard"]), &["is none of soft, full, strict, ignore"]);
    contains(&fails(&["checkpoint", "--page-server", "here"]), &["`here` is not ADDRESS:PORT"]);
    // It was not disturbed, and images that are not there make no container.
    assert_eq!(bundle.status().as_deref(), Some("running"));
    let other = bundle.runtime(&["--criu", "/no/criu", "restore", "--image-path", "none", "other"]).fails(1);
    contains(&other, &["failed to read `none/descriptors.json`"]);
    bundle.quietly(&["kill", &bundle.id, "KILL"]).ok();
    ctk_e2e::eventually(std::time::Duration::from_secs(10), "it stops", || {
        bundle.status().as_deref() == Some("stopped")
    });
    contains(&fails(&["checkpoint"]), &["cannot checkpoint a container that is stopped"]);
    let mut command = Command::new("ls");
    command.arg(bundle.path("state"));
    assert_eq!(run(command).ok().trim(), bundle.id);
}
