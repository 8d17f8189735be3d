//! `checkpoint` and `restore` with Debian's CRIU, on a machine whose kernel has all that it wants: see
//! `e2e/test_data/machine/criu.sh`, whose findings are checked here.

use std::process::Command;

use ctk_e2e::bundle::{Bundle, Runtime};
use ctk_e2e::{contains, is_root, run};
use serde_json::{Value, json};

use super::runtime_systemd::findings;

const MIB: u64 = 1 << 20;

fn configurations() -> Vec<(&'static str, Value)> {
    let count = "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.1; done";
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
