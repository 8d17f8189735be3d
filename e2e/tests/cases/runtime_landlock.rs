//! Landlock on top, for containers that ask for it: what namespaces leave open is closed, and nothing else is.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};

use ctk_e2e::bundle::{Bundle, Runtime};
use ctk_e2e::{Output, contains, has, has_programs, is_root};
use serde_json::{Value, json};

fn ready() -> bool {
    let modules = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    // Where that is not mounted, the kernel's own word is in its log only: the runtime says whether it is there.
    let there = modules.is_empty() || modules.split(',').any(|name| name.trim() == "landlock");
    is_root() && has("Landlock", there) && has_programs(&["unshare", "busybox"])
}

const ALL: [&str; 1] = ["CAP_SYS_ADMIN"];

/// Runs a script as a root who may change mounts, with these words in the annotation.
fn run_with(bundle: &Bundle, words: &str, script: &str, namespaces: &[&str]) -> Output {
    let namespaces: Vec<Value> = namespaces.iter().map(|name| json!({ "type": name })).collect();
    let process = json!({
        "args": ["sh", "-c", script],
        "capabilities": { "bounding": ALL, "effective": ALL, "permitted": ALL },
    });
    bundle.configure(&json!({
        "process": process,
        "root": { "readonly": false },
        "annotations": { "org.ctk.runtime.landlock": words },
        "linux": { "namespaces": namespaces },
    }));
    bundle.quietly(&["run", &bundle.id])
}

const EVERY: [&str; 5] = ["pid", "network", "ipc", "uts", "mount"];

#[test]
fn mounts_cannot_be_changed_any_more() {
    if !ready() {
        return;
    }
    let bundle = Bundle::new(Runtime::Ours);
    let change = "busybox mount -t tmpfs x /mnt && echo mounted; busybox umount -l /sys && echo bare";
    contains(&run_with(&bundle, "", change, &EVERY).out, &["mounted", "bare"]);
    let output = run_with(&bundle, "mounts", change, &EVERY);
    assert_eq!(output.out, "", "{}", output.story());
    contains(&output.err, &["mount: permission denied", "can't unmount /sys: Operation not permitted"]);
    // A namespace of mounts of its own is no way around it.
    let around = "busybox unshare -m sh -c 'busybox mount -t tmpfs x /mnt' || echo refused";
    contains(&run_with(&bundle, "mounts", around, &EVERY).ok(), &["refused"]);
    // Files are as they were: made, written, executed, and moved from one directory to another.
    let files = "mkdir /tmp/a /tmp/b && echo text > /tmp/a/file && busybox ln /tmp/a/file /tmp/b/link && \
                 busybox mv /tmp/a/file /tmp/b/file && stat -c %h /tmp/b/file && busybox cp /bin/busybox /tmp/b/cat && \
                 /tmp/b/cat /tmp/b/link && echo > /dev/null && rm -r /tmp/a /tmp/b";
    assert_eq!(run_with(&bundle, "mounts", files, &EVERY).ok(), "2\ntext\n");
}

#[test]
fn signals_stay_inside() {
    if !ready() {
        return;
    }
    let mut other = Command::new("sleep").arg("100").stdin(Stdio::null()).spawn().expect("a process");
    let bundle = Bundle::new(Runtime::Ours);
    let script = format!("kill -0 {} && echo reached; sleep 9 & kill -9 $! && echo own", other.id());
    // With the machine's process ids.
    let shared = ["network", "ipc", "uts", "mount"];
    assert_eq!(run_with(&bundle, "", &script, &shared).ok(), "reached\nown\n");
    let output = run_with(&bundle, "signals", &script, &shared);
    contains(&output.err, &["Operation not permitted"]);
    assert_eq!(output.ok(), "own\n");
    let _ = other.kill();
    let _ = other.wait();

    // From outside it is reached as before, and by further processes.
    bundle.configure(&json!({
        "process": { "args": ["sh", "-c", "trap 'exit 7' TERM; while true; do sleep 0.05; done"] },
        "annotations": { "org.ctk.runtime.landlock": "signals,mounts,sockets" },
    }));
    assert!(bundle.quietly(&["run", "--detach", &bundle.id]).status.success());
    assert_eq!(bundle.runtime(&["exec", &bundle.id, "sh", "-c", "kill -0 1 && echo reached"]).ok(), "reached\n");
    // Further processes give up the same otherwise.
    let process = ["exec", "--cap", "CAP_SYS_ADMIN", &bundle.id];
    let output = bundle.runtime(&[&process[..], &["busybox", "mount", "-t", "tmpfs", "x", "/mnt"]].concat());
    contains(&output.err, &["mount: permission denied"]);
    bundle.runtime(&["kill", &bundle.id, "TERM"]).ok();
    ctk_e2e::eventually(std::time::Duration::from_secs(10), "its end", || {
        bundle.status().as_deref() == Some("stopped")
    });
}

/// Abstract sockets belong to the network namespace, so a container with the machine's network reaches all of them.
#[test]
fn abstract_sockets_of_others_are_out_of_reach() {
    if !ready() || !has_programs(&["perl"]) {
        return;
    }
    let bundle = Bundle::new(Runtime::Ours);
    let address = SocketAddr::from_abstract_name(&bundle.id).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("a socket");
    let script = "use Socket; my $name = pack_sockaddr_un(\"\\0$ARGV[0]\"); \
                  socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die; print connect($s, $name) ? \"reached\\n\" : \"$!\\n\"; \
                  my $own = pack_sockaddr_un(\"\\0own$$\"); socket(my $l, AF_UNIX, SOCK_STREAM, 0) or die; \
                  bind($l, $own) or die; listen($l, 1) or die; socket(my $c, AF_UNIX, SOCK_STREAM, 0) or die; \
                  print connect($c, $own) ? \"own\\n\" : \"$!\\n\"";
    let namespaces = ["pid", "ipc", "uts", "mount"].map(|name| json!({ "type": name }));
    let run = |words: &str| {
        bundle.configure(&json!({
            "process": { "args": ["perl", "-e", script, bundle.id], "env": ["PATH=/usr/bin:/bin"] },
            // The machine's own root, for its perl.
            "root": { "path": "/", "readonly": true },
            "annotations": { "org.ctk.runtime.landlock": words },
            "linux": { "namespaces": namespaces },
        }));
        bundle.quietly(&["run", &bundle.id]).ok()
    };
    assert_eq!(run(""), "reached\nown\n");
    assert_eq!(run("sockets"), "Operation not permitted\nown\n");
}

/// Processes of the runtime that stay behind or only look are confined without being asked.
#[test]
fn the_runtime_confines_itself() {
    if !ready() {
        return;
    }
    let bundle = Bundle::new(Runtime::Ours);
    let confined = "this process is confined by landlock";
    bundle.configure(&json!({ "process": { "args": ["sh", "-c", "exit 5"] } }));
    let output = bundle.quietly(&["--debug", "run", &bundle.id]);
    contains(&output.err, &[confined]);
    output.fails(5);
    // It still removed everything: the name is free, and so are the cgroups.
    bundle.configure(&json!({ "process": { "args": ["sleep", "100"] } }));
    assert!(bundle.quietly(&["run", "--detach", &bundle.id]).status.success());
    for words in [
        &["state", &bundle.id][..],
        &["list"],
        &["ps", "--format", "json", &bundle.id],
        &["events", "--stats", &bundle.id],
    ] {
        let output = bundle.runtime(&[&["--debug"], words].concat());
        contains(&output.err, &[confined]);
        assert!(!output.ok().is_empty());
    }
    let output = bundle.runtime(&["--debug", "exec", &bundle.id, "sh", "-c", "cat; exit 6"]);
    contains(&output.err, &[confined]);
    output.fails(6);
    // A hook is a program of the machine's, which nobody confines.
    let marker = bundle.path("ran");
    bundle.runtime(&["delete", "--force", &bundle.id]).ok();
    bundle.configure(&json!({
        "process": { "args": ["true"] },
        "hooks": { "poststop": [{ "path": "/bin/sh", "args": ["sh", "-c", format!("echo yes > {}", marker.display())] }] },
    }));
    let output = bundle.quietly(&["--debug", "run", &bundle.id]);
    contains(&output.err, &["this process is not confined by landlock"]);
    output.ok();
    assert_eq!(std::fs::read_to_string(marker).expect("the hook ran"), "yes\n");
}
