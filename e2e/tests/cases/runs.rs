//! `ctk run`: exit codes, streams, signals, and nothing left behind.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use ctk_e2e::{eventually, run};

use super::failures::with_busybox;

#[test]
fn codes_streams_and_arguments() {
    let Some(world) = with_busybox("") else { return };
    world.ctk(&["apply"]).ok();
    let sh = |script: &str| world.ctk(&["run", "image:busybox", "/bin/sh", "-c", script]);
    assert_eq!(sh("exit 42").code(), 42);
    assert_eq!(world.ctk(&["run", "--timeout", "200ms", "image:busybox", "/bin/busybox", "sleep", "9"]).code(), 124);
    let output = sh("echo out; echo err >&2");
    assert_eq!((output.out.as_str(), output.err.as_str()), ("out\n", "err\n"));
    assert_eq!(world.ctk(&["run", "image:busybox", "/no/such"]).code(), 127);
    assert_eq!(world.ctk(&["run", "-e", "X=1", "image:busybox", "/bin/sh", "-c", "echo $X"]).ok(), "1\n");
    assert_eq!(sh("echo $$").ok(), "1\n");
    // Nothing, said in the ways that fingers know, is no limit.
    let unlimited = ["run", "--memory", "0", "--cpus", "0", "--pids-limit", "-1", "--timeout", "0s"];
    world.ctk(&[&unlimited[..], &["image:busybox", "/bin/busybox", "true"]].concat()).ok();
}

/// Shells open `/dev/stdout` anew, which a pipe allows its owner only.
#[test]
fn others_than_root_open_their_streams() {
    let Some(world) = with_busybox("") else { return };
    world.ctk(&["apply"]).ok();
    let script = "echo out > /dev/stdout; echo err > /dev/stderr; /bin/busybox id -u";
    let output = world.ctk(&["run", "--user", "1000", "image:busybox", "/bin/sh", "-c", script]);
    assert_eq!((output.err.as_str(), output.out.as_str()), ("err\n", "out\n1000\n"), "{}", output.story());
    // Steps of a build, too.
    let dockerfile = "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\nUSER 1000\nRUN echo told > /dev/stderr\n";
    world.write("Dockerfile", dockerfile);
    let output = world.ctk(&["build", "--file", "Dockerfile", ".", "--progress", "plain"]);
    ctk_e2e::contains(&output.err, &["| told"]);
    output.ok();
}

#[test]
fn standard_input_is_passed_on() {
    let Some(world) = with_busybox("") else { return };
    world.ctk(&["apply"]).ok();
    let mut command = world.command(&["run", "-i", "image:busybox", "/bin/busybox", "wc", "-c"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"12345").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "5");
}

#[test]
fn signals_are_forwarded_and_nothing_is_left() {
    let Some(world) = with_busybox("") else { return };
    world.ctk(&["apply"]).ok();
    let marker = format!("86{}", std::process::id());
    let running = || {
        let mut command = std::process::Command::new("pgrep");
        // The sleep itself: before it, in the same script, stands the trap.
        command.args(["-f", &format!("^/bin/busybox sleep {marker}")]);
        run(command).status.success()
    };
    let script = format!("trap 'exit 9' TERM; /bin/busybox sleep {marker} & wait");
    let mut child = world.spawn(&["run", "--rm", "image:busybox", "/bin/sh", "-c", &script]);
    eventually(Duration::from_secs(10), "the container runs", running);
    run(kill("-TERM", child.id()));
    assert_eq!(child.wait().unwrap().code(), Some(9));
    eventually(Duration::from_secs(5), "nothing runs after TERM", || !running());

    // Whoever started it may be killed: the container has a monitor of its own.
    let mut child = world.spawn(&["run", "--rm", "image:busybox", "/bin/busybox", "sleep", &marker]);
    eventually(Duration::from_secs(10), "the container runs", running);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(running());
    world.ctk(&["rm", "--all", "--force", "--time", "0"]).ok();
    assert!(!running());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(world.store().to_str().unwrap()), "a mount is left:\n{mounts}");
}

fn kill(signal: &str, process: u32) -> std::process::Command {
    let mut command = std::process::Command::new("kill");
    command.args([signal, &process.to_string()]);
    command
}
