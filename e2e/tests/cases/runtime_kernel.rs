//! What only the kernel can tell: priorities, processors and memory as other programs read them back, listeners that get
//! descriptors, network devices that move.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ctk_e2e::bundle::{Bundle, Runtime};
use ctk_e2e::{Output, contains, eventually, has, has_programs, is_root, run};
use serde_json::{Value, json};

fn ready() -> bool {
    is_root() && has_programs(&["unshare", "busybox"])
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    run(command).ok()
}

/// Starts a container in the background; its first process.
fn started(bundle: &Bundle, changes: &Value) -> String {
    bundle.configure(changes);
    let output = bundle.quietly(&["run", "--detach", &bundle.id]);
    assert!(output.status.success(), "{}", output.story());
    let state: Value = serde_json::from_str(&bundle.runtime(&["state", &bundle.id]).ok()).expect("a state");
    state["pid"].to_string()
}

#[test]
fn priorities_processors_and_memory_are_those_asked_for() {
    if !ready() || !has_programs(&["ionice", "chrt", "taskset"]) {
        return;
    }
    let bundle = Bundle::new(Runtime::Ours);
    let pid = started(
        &bundle,
        &json!({
            "process": {
                "args": ["sleep", "100"],
                "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 6 },
                "scheduler": { "policy": "SCHED_BATCH", "nice": 3 },
            },
            "linux": { "memoryPolicy": { "mode": "MPOL_INTERLEAVE", "nodes": "0" } },
        }),
    );
    assert_eq!(output_of("ionice", &["-p", &pid]), "best-effort: prio 6\n");
    contains(&output_of("chrt", &["-p", &pid]), &["policy: SCHED_BATCH"]);
    let nice = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    assert_eq!(nice.rsplit(')').next().and_then(|rest| rest.split(' ').nth(17)), Some("3"));
    if has("memory policies", fs::metadata("/proc/self/numa_maps").is_ok()) {
        contains(&fs::read_to_string(format!("/proc/{pid}/numa_maps")).expect("maps"), &["interleave:0"]);
    }
    if !has("two processors", std::thread::available_parallelism().is_ok_and(|count| count.get() > 1)) {
        return;
    }
    let process = json!({
        "args": ["sleep", "77"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
        "execCPUAffinity": { "initial": "0", "final": "1" },
    });
    fs::write(bundle.path("process.json"), process.to_string()).expect("a file");
    let (file, pid_file) = (bundle.path("process.json"), bundle.path("exec-pid"));
    let (file, pid_file) = (file.display().to_string(), pid_file.display().to_string());
    let output = bundle.quietly(&["exec", "--detach", "--pid-file", &pid_file, "--process", &file, &bundle.id]);
    assert!(output.status.success(), "{}", output.story());
    let pid = fs::read_to_string(&pid_file).expect("a process id");
    assert!(output_of("taskset", &["-pc", &pid]).ends_with("list: 1\n"));
}

/// Somebody at the other end of a unix socket, in Python, whose standard library passes descriptors.
struct Listener(Child);

impl Listener {
    fn start(bundle: &Bundle, script: &str) -> (Listener, String) {
        let socket = bundle.path("socket");
        let begin = "import array, fcntl, json, os, socket, struct, sys\n\
                     server = socket.socket(socket.AF_UNIX)\n\
                     server.bind(sys.argv[1] + '.new')\n\
                     server.listen()\n\
                     os.rename(sys.argv[1] + '.new', sys.argv[1])\n\
                     peer, _ = server.accept()\n\
                     text, files, _, _ = socket.recv_fds(peer, 65536, 4)\n\
                     peer.settimeout(2)\n\
                     def closed():\n\
                     \x20   try: return peer.recv(1) == b''\n\
                     \x20   except TimeoutError: return False\n";
        let mut command = Command::new("python3");
        command.arg("-c").arg(format!("{begin}{script}")).arg(&socket).stdout(Stdio::piped());
        let child = command.spawn().expect("python3");
        eventually(Duration::from_secs(20), "a listener", || socket.exists());
        (Listener(child), socket.display().to_string())
    }

    /// What it printed, at its end.
    fn said(mut self) -> String {
        let mut output = self.0.stdout.take().expect("its output");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut output, &mut text).expect("text");
        assert!(self.0.wait().expect("its end").success());
        text
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The listener gets the descriptor and the state, and answers a call: a directory that is never made.
#[test]
fn a_seccomp_listener_answers() {
    if !ready() || !has_programs(&["python3"]) {
        return;
    }
    // `struct seccomp_notif` is 80 bytes, `struct seccomp_notif_resp` 24.
    let answer = "note = array.array('B', bytes(80))\n\
                  fcntl.ioctl(files[0], 0xc0502100, note)\n\
                  number, pid = struct.unpack('QI', note[:12])\n\
                  fcntl.ioctl(files[0], 0xc0182101, array.array('B', struct.pack('QqiI', number, 0, 0, 0)))\n\
                  while True:\n\
                  \x20   try: state = json.loads(text); break\n\
                  \x20   except ValueError: more = peer.recv(65536)\n\
                  \x20   assert more, text\n\
                  \x20   text += more\n\
                  state['files'], state['closed'] = len(files), closed()\n\
                  print(json.dumps(state))\n";
    // More than comes in one piece.
    let metadata = "some words, ".repeat(700);
    for runtime in Runtime::all() {
        let bundle = Bundle::new(runtime);
        let (listener, socket) = Listener::start(&bundle, answer);
        bundle.configure(&json!({
            "process": { "args": ["sh", "-c", "mkdir /tmp/made && echo allowed; test -e /tmp/made || echo absent"] },
            "root": { "readonly": false },
            "linux": { "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "listenerPath": socket,
                "listenerMetadata": metadata,
                "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
            } },
        }));
        let output = bundle.quietly(&["run", &bundle.id]);
        assert_eq!(output.ok(), "allowed\nabsent\n", "{}", runtime.name());
        let state: Value = serde_json::from_str(&listener.said()).expect("JSON");
        assert_eq!(state["fds"], json!(["seccompFd"]), "{}", runtime.name());
        assert_eq!((&state["files"], &state["metadata"]), (&json!(1), &json!(metadata)));
        assert_eq!((&state["state"]["id"], &state["state"]["status"]), (&json!(bundle.id), &json!("creating")));
        assert!(state["pid"].as_i64().is_some_and(|pid| pid > 0));
        // One state for each connection; crun 1.8 keeps it open.
        assert!(runtime == Runtime::Crun || state["closed"] == json!(true), "{}", runtime.name());
    }
}

/// `--pidfd-socket` gets a descriptor of the container's first process, that of `exec` one of the further process.
#[test]
fn a_pidfd_is_handed_over() {
    if !ready() || !has_programs(&["python3"]) {
        return;
    }
    let tell = "print(open(f'/proc/self/fdinfo/{files[0]}').read())\n";
    let bundle = Bundle::new(Runtime::Ours);
    bundle.configure(&json!({ "process": { "args": ["sleep", "100"] } }));
    let pid_file = bundle.path("pid").display().to_string();
    for verb in [&["create"][..], &["exec", "--detach"]] {
        let (listener, socket) = Listener::start(&bundle, tell);
        let mut words = [verb, &["--pidfd-socket", &socket, "--pid-file", &pid_file, &bundle.id]].concat();
        if verb[0] == "exec" {
            assert!(bundle.quietly(&["start", &bundle.id]).status.success());
            words.extend(["sleep", "77"]);
        }
        let output = bundle.quietly(&words);
        assert!(output.status.success(), "{}", output.story());
        let pid = fs::read_to_string(&pid_file).expect("a process id");
        contains(&listener.said(), &[&format!("Pid:\t{}\n", pid.trim())]);
        fs::remove_file(socket).expect("gone");
    }
}

/// Without `pivot_root`, as on an initial ramdisk: the same root.
#[test]
fn a_root_is_entered_without_pivot() {
    if !ready() {
        return;
    }
    for runtime in Runtime::all() {
        let bundle = Bundle::new(runtime);
        bundle.configure(&json!({
            "process": { "args": ["sh", "-c", "cat /etc/inside; pwd; ls -d /var 2>/dev/null; touch /x 2>/dev/null || echo read-only"] },
        }));
        let output = bundle.quietly(&["run", "--no-pivot", &bundle.id]);
        assert_eq!(output.ok(), "yes\n/\nread-only\n", "{}", runtime.name());
    }
}

/// A container in a network namespace of the test's own, in which `prepare` made devices.
fn run_with_devices(bundle: &Bundle, prepare: &str, changes: &Value) -> Output {
    bundle.configure(changes);
    let inner = bundle.command(&["run", &bundle.id]);
    let mut command = Command::new("unshare");
    command.args(["--net", "--", "sh", "-ec", &format!("{prepare}; \"$@\"; ip -o link >&2"), "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).current_dir(bundle.path("")).stdin(Stdio::null());
    run(command)
}

#[test]
fn network_devices_move_with_their_addresses() {
    if !ready() || !has_programs(&["ip"]) {
        return;
    }
    let devices = "ip link add veth-a type veth peer name veth-b; ip link set veth-b up; \
                   ip addr add 10.9.8.7/24 broadcast 10.9.8.255 dev veth-a; \
                   ip -6 addr add fd00:9::7/64 dev veth-a nodad; ip addr add 10.9.9.9/32 scope link dev veth-a; \
                   ip link set veth-a up; ip tuntap add mode tap name tap-a; ip addr add 10.7.0.1/16 dev tap-a";
    let bundle = Bundle::new(Runtime::Ours);
    let changes = |devices: Value| {
        json!({
            "process": { "args": ["busybox", "ip", "addr"] },
            "linux": { "netDevices": devices },
        })
    };
    let output = run_with_devices(&bundle, devices, &changes(json!({ "veth-a": { "name": "lan%d" }, "tap-a": {} })));
    let (host, inside) = (output.err.clone(), output.ok());
    contains(&inside, &["lan0", "inet 10.9.8.7/24 brd 10.9.8.255", "inet6 fd00:9::7/64", "tap-a", "inet 10.7.0.1/16"]);
    assert!(!inside.contains("10.9.9.9"), "an address of one link only:\n{inside}");
    let up = inside.lines().filter(|line| line.contains("lan0") && line.contains(",UP")).count();
    assert_eq!(up, 1, "{inside}");
    assert!(!host.contains("tap-a") && !host.contains("veth-a"), "{host}");
    // The same in a container with users of its own, whose namespace is not the host's.
    let mapped = json!([{ "containerID": 0, "hostID": 100000, "size": 65536 }]);
    let mut with_users = changes(json!({ "veth-a": { "name": "eth0" } }));
    with_users["linux"]["uidMappings"] = mapped.clone();
    with_users["linux"]["gidMappings"] = mapped;
    with_users["linux"]["namespaces+"] = json!([{ "type": "user" }]);
    let inside = run_with_devices(&bundle, devices, &with_users).ok();
    contains(&inside, &["eth0", "inet 10.9.8.7/24"]);
    for (wanted, parts) in [
        (json!({ "hat": {} }), ["linux.netDevices.hat", "No such device"]),
        (json!({ "veth-a": { "name": "lo" } }), ["linux.netDevices.veth-a", "File exists"]),
    ] {
        let output = run_with_devices(&bundle, devices, &changes(wanted));
        assert!(!output.status.success(), "{}", output.story());
        contains(&output.err, &parts);
        assert_eq!(bundle.status(), None);
    }
}

/// Where nothing can divide caches, nobody is told that they are divided.
#[test]
fn caches_are_divided_by_resctrl_only() {
    let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().contains(" - resctrl ");
    if !ready() || !has("a machine without resctrl", !mounted) {
        return;
    }
    let bundle = Bundle::new(Runtime::Ours);
    bundle.configure(&json!({
        "process": { "args": ["true"] },
        "linux": { "intelRdt": { "schemata": ["L3:0=f"] } },
    }));
    let output = bundle.quietly(&["run", &bundle.id]);
    contains(&output.fails(1), &["linux.intelRdt", "no `resctrl` file system is mounted"]);
    assert_eq!(bundle.status(), None);
}
