//! Containers that outlive their maker: `ctk run -d` and its family. Scenarios that podman has, too, are played with
//! both.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ctk_e2e::engine::{Engine, IMAGE, Kind, both};
use ctk_e2e::{contains, eventually, has_programs};

const SECONDS: Duration = Duration::from_secs(20);

/// Runs until it is asked to end, and says so.
const POLITE: &str = "trap 'echo ends; exit 3' TERM; echo started; while true; do sleep 0.05; done";

#[test]
fn one_runs_is_looked_at_and_stopped() {
    both(|engine| {
        let id = engine.ask(&["run", "--detach", "--name", "one", IMAGE, "sh", "-c", POLITE]).ok();
        assert_eq!(id.trim().len(), 64, "{id}");
        eventually(SECONDS, "its start", || engine.ask(&["logs", "one"]).out == "started\n");
        assert_eq!(engine.status("one"), "running");
        assert_eq!(engine.ask(&["ps", "--format", "{{.Names}}"]).ok(), "one\n");
        assert_eq!(engine.ask(&["ps", "--quiet", "--no-trunc"]).ok(), id);
        assert_eq!(engine.ask(&["exec", "one", "echo", "inside"]).ok(), "inside\n");
        engine.ask(&["exec", "one", "sh", "-c", "exit 5"]).fails(5);
        engine.ask(&["exec", "one", "no-such-program"]).fails(127);
        let user = engine.ask(&[
            "exec",
            "--user",
            "7",
            "--workdir",
            "/tmp",
            "--env",
            "A=b",
            "one",
            "sh",
            "-c",
            "id -u; pwd; echo $A",
        ]);
        assert_eq!(user.ok(), "7\n/tmp\nb\n");
        contains(&engine.ask(&["top", "one"]).ok(), &["sleep"]);
        engine.ask(&["pause", "one"]).ok();
        assert_eq!(engine.status("one"), "paused");
        engine.ask(&["unpause", "one"]).ok();
        engine.ask(&["rename", "one", "two"]).ok();
        engine.ask(&["stop", "--time", "20", "two"]).ok();
        assert_eq!(engine.ask(&["logs", "two"]).ok(), "started\nends\n");
        assert_eq!(engine.field("two", "{{.State.ExitCode}}"), "3");
        assert_eq!(engine.ask(&["ps", "--quiet"]).ok(), "");
        assert_eq!(engine.ask(&["ps", "--all", "--format", "{{.Names}}"]).ok(), "two\n");
        // The same container once more.
        engine.ask(&["start", "two"]).ok();
        assert_eq!(engine.status("two"), "running");
        engine.ask(&["kill", "two"]).ok();
        assert_eq!(engine.ask(&["wait", "two"]).ok(), "137\n");
        engine.ask(&["rm", "two"]).ok();
        engine.ask(&["inspect", "--type", "container", "two"]).fails(if engine.is_ctk() { 1 } else { 125 });
    });
}

#[test]
fn the_foreground_is_a_pipe() {
    both(|engine| {
        let output = engine.ask(&["run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((output.code(), output.out.as_str(), output.err.as_str()), (7, "out\n", "err\n"));
        engine.ask(&["run", "--rm", IMAGE, "no-such-program"]).fails(127);
        engine.ask(&["run", "--rm", IMAGE, "/etc"]).fails(126);
        let mut child = engine
            .command(&["run", "--rm", "--interactive", IMAGE, "wc", "-c"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&[b'x'; 300_000]).unwrap();
        assert_eq!(String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).trim(), "300000");
        assert_eq!(engine.ask(&["ps", "--all", "--quiet"]).ok(), "");
    });
}

#[test]
fn whoever_reads_no_more_ends_it() {
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    let mut child = engine.spawn(&["run", "--rm", IMAGE, "sh", "-c", "yes; echo $? >&2"]);
    let mut first = [0; 4];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    assert_eq!(&first, b"y\ny\n");
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn whoever_reads_slowly_gets_everything() {
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    // More than everybody on the way keeps, and about as much.
    for bytes in [20_000_000, 1_300_000] {
        let script =
            format!("$CTK run --rm --network none $IMAGE sh -c 'head -c {bytes} /dev/zero; exit 0' | (sleep 7; wc -c)");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script]).env("CTK", ctk_e2e::binary()).env("IMAGE", IMAGE);
        command.env("CTK_ROOT", engine.world.store());
        assert_eq!(ctk_e2e::run(command).ok().trim(), bytes.to_string());
    }
    // With the host's process ids, what the first process left ends with it, and holds nobody up.
    let started = Instant::now();
    engine.ask(&["run", "--rm", "--pid", "host", IMAGE, "sh", "-c", "sleep 1000 & exit 4"]).fails(4);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn signals_reach_it() {
    both(|engine| {
        let ended = || {
            let mut child = engine.spawn(&["run", "--rm", "--name", "s", IMAGE, "sh", "-c", POLITE]);
            eventually(SECONDS, "its start", || engine.ask(&["logs", "s"]).out == "started\n");
            // podman's parent is the clock that keeps it from hanging.
            let pid = match engine.kind {
                Kind::Ctk => child.id().to_string(),
                Kind::Podman => engine.world.peer("pgrep", &["-P", &child.id().to_string()]).ok().trim().to_owned(),
            };
            engine.world.peer("kill", &["-TERM", &pid]).ok();
            child.wait().unwrap().code()
        };
        // podman listens some time after its container runs, and then and now it is too late: it ends itself.
        let attempts = if engine.is_ctk() { 1 } else { 5 };
        let mut codes = Vec::new();
        while codes.len() < attempts && codes.last() != Some(&Some(3)) {
            engine.ask(&["rm", "--force", "--ignore", "--time", "0", "s"]);
            codes.push(ended());
        }
        assert_eq!(codes.last(), Some(&Some(3)), "{codes:?}");
    });
    // One that has no name in the C library.
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    let script = "trap 'exit 8' 37; echo started; while true; do sleep 0.05; done";
    engine.ask(&["run", "--detach", "--name", "rt", "--stop-signal", "SIGRTMIN+3", IMAGE, "sh", "-c", script]).ok();
    eventually(SECONDS, "its start", || engine.ask(&["logs", "rt"]).out == "started\n");
    engine.ask(&["stop", "rt"]).ok();
    assert_eq!(engine.field("rt", "{{.State.ExitCode}}"), "8");
}

#[test]
fn names_belong_to_one() {
    both(|engine| {
        engine.ask(&["run", "--detach", "--name", "web", IMAGE, "sleep", "100"]).ok();
        contains(&engine.ask(&["run", "--name", "web", IMAGE]).fails(125), &["web"]);
        let id = engine.field("web", "{{.Id}}");
        assert_eq!(engine.field(&id[..6], "{{.Name}}"), "web");
        engine.ask(&["run", "--detach", "--replace", "--name", "web", IMAGE, "sleep", "100"]).ok();
        assert_ne!(engine.field("web", "{{.Id}}"), id);
        assert_eq!(engine.ask(&["ps", "--all", "--quiet"]).ok().lines().count(), 1);
        engine.ask(&["rm", "web"]).fails(if engine.is_ctk() { 1 } else { 2 });
        engine.ask(&["rm", "--force", "--time", "0", "web"]).ok();
    });
}

#[test]
fn it_is_started_again_as_its_policy_says() {
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    let run = |name: &str, policy: &str, script: &str| {
        engine.ask(&["run", "--detach", "--name", name, "--restart", policy, IMAGE, "sh", "-c", script]).ok();
    };
    run("fails", "on-failure:2", "echo run; exit 4");
    run("works", "on-failure:2", "echo run");
    run("always", "always", "echo run; sleep 0.1");
    eventually(SECONDS, "the end of it", || engine.status("fails") == "exited");
    assert_eq!(engine.ask(&["logs", "fails"]).ok(), "run\nrun\nrun\n");
    assert_eq!(engine.field("fails", "{{.RestartCount}} {{.State.ExitCode}}"), "2 4");
    assert_eq!((engine.status("works"), engine.ask(&["logs", "works"]).ok()), ("exited".into(), "run\n".into()));
    eventually(SECONDS, "three runs", || engine.ask(&["logs", "always"]).out.matches("run").count() >= 3);
    engine.ask(&["stop", "always"]).ok();
    assert_eq!(engine.status("always"), "exited");
    let runs = engine.ask(&["logs", "always"]).ok();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(engine.ask(&["logs", "always"]).ok(), runs, "it was stopped by somebody");
    engine.ask(&["update", "--restart", "no", "always"]).ok();
    assert_eq!(engine.field("always", "{{.HostConfig.RestartPolicy.Name}}"), "no");
}

#[test]
fn its_health_is_found_out_and_acted_upon() {
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    let health = ["--health-interval", "100ms", "--health-retries", "2", "--health-cmd", "test -e /ok"];
    let run = |name: &str, more: &[&str]| {
        let words = [&["run", "--detach", "--name", name], &health[..], more, &[IMAGE, "sleep", "100"]].concat();
        engine.ask(&words).ok();
    };
    run("h", &[]);
    eventually(SECONDS, "bad health", || engine.field("h", "{{.State.Health.Status}}") == "unhealthy");
    engine.ask(&["healthcheck", "run", "h"]).fails(1);
    engine.ask(&["exec", "h", "touch", "/ok"]).ok();
    assert_eq!(engine.ask(&["wait", "--condition", "healthy", "h"]).ok(), "0\n");
    engine.ask(&["healthcheck", "run", "h"]).ok();
    assert_eq!(engine.ask(&["ps", "--filter", "health=healthy", "--format", "{{.Names}}"]).ok(), "h\n");
    run("killed", &["--health-on-failure", "kill"]);
    eventually(SECONDS, "its end", || engine.status("killed") == "exited");
    assert_eq!(engine.field("killed", "{{.State.ExitCode}}"), "137");
    run("again", &["--health-on-failure", "restart", "--stop-timeout", "0"]);
    let first = engine.field("again", "{{.State.StartedAt}}");
    eventually(SECONDS, "another start", || engine.field("again", "{{.State.StartedAt}}") != first);
    // One that takes too long is a failure.
    let slow = ["--health-cmd", "sleep 60", "--health-timeout", "200ms", "--health-retries", "1"];
    engine
        .ask(
            &[
                &["run", "--detach", "--name", "slow", "--health-interval", "100ms"],
                &slow[..],
                &[IMAGE, "sleep", "100"],
            ]
            .concat(),
        )
        .ok();
    eventually(SECONDS, "bad health", || engine.field("slow", "{{.State.Health.Status}}") == "unhealthy");
    contains(&engine.field("slow", "{{json .State.Health.Log}}"), &["took longer than 200 ms"]);
    let events =
        engine.ask(&["events", "--stream", "false", "--filter", "container=h", "--format", "{{.Status}}"]).ok();
    contains(&events, &["create\nstart\nhealth_status\nhealth_status\n"]);
}

#[test]
fn whoever_is_killed_is_found_out() {
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    let kill = |pid: &str| {
        assert!(std::process::Command::new("kill").args(["-9", pid]).status().unwrap().success());
    };
    // The monitor: somebody else takes over, and no line is lost.
    let script = "i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.05; done; sleep 1; exit 9";
    engine.ask(&["run", "--detach", "--name", "m", IMAGE, "sh", "-c", script]).ok();
    eventually(SECONDS, "some lines", || engine.ask(&["logs", "m"]).out.lines().count() > 5);
    let monitor = engine.field("m", "{{.State.MonitorPid}}");
    kill(&monitor);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(engine.status("m"), "running");
    assert_ne!(engine.field("m", "{{.State.MonitorPid}}"), monitor);
    assert_eq!(engine.ask(&["wait", "m"]).ok(), "9\n");
    let all: String = (0..60).map(|n| format!("{n}\n")).collect();
    assert_eq!(engine.ask(&["logs", "m"]).ok(), all);
    assert_eq!(engine.field("m", "{{.State.ExitCode}} {{.State.Error}}"), "9");
    engine.ask(&["start", "m"]).ok();
    assert_eq!(engine.status("m"), "running");

    // Monitor and container at once, as when the machine goes down.
    let pids = engine.field("m", "{{.State.MonitorPid}} {{.State.Pid}}");
    pids.split(' ').for_each(kill);
    eventually(SECONDS, "its end", || engine.status("m") == "exited");
    // Whoever looks while its process still stands in the table sees how it ended.
    let code = engine.field("m", "{{.State.ExitCode}}");
    assert!(["-1", "137"].contains(&code.as_str()), "{code}");
    engine.ask(&["run", "--detach", "--rm", "--name", "r", IMAGE, "sleep", "100"]).ok();
    engine.field("r", "{{.State.MonitorPid}} {{.State.Pid}}").split(' ').for_each(kill);
    eventually(SECONDS, "its removal", || engine.ask(&["ps", "--all", "--format", "{{.Names}}"]).out == "m\n");

    // Its first process.
    engine.ask(&["run", "--detach", "--name", "i", IMAGE, "sleep", "100"]).ok();
    kill(&engine.field("i", "{{.State.Pid}}"));
    assert_eq!(engine.ask(&["wait", "i"]).ok(), "137\n");

    // Who started it: it goes on.
    let mut child = engine.spawn(&["run", "--name", "c", IMAGE, "sleep", "100"]);
    eventually(SECONDS, "its start", || engine.ask(&["ps", "--quiet", "--filter", "name=c"]).out.lines().count() == 1);
    child.kill().unwrap();
    child.wait().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(engine.status("c"), "running");
    engine.ask(&["rm", "--all", "--force", "--time", "0"]).ok();
    let store = engine.world.store();
    let left: Vec<_> = std::fs::read_dir(store.join("containers")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "names and events, but {left:?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(store.to_str().unwrap()), "a mount is left:\n{mounts}");
}

#[test]
fn a_hundred_at_once() {
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    let started = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..100 {
            let engine = &engine;
            scope.spawn(move || {
                let name = format!("n{number}");
                engine.ask(&["run", "--detach", "--rm", "--name", &name, IMAGE, "sleep", "100"]).ok();
            });
        }
    });
    assert_eq!(engine.ask(&["ps", "--quiet"]).ok().lines().count(), 100);
    engine.ask(&["rm", "--all", "--force", "--time", "0"]).ok();
    assert_eq!(engine.ask(&["ps", "--all", "--quiet"]).ok(), "");
    assert!(started.elapsed() < Duration::from_secs(120));
}

#[test]
fn a_log_is_followed_cut_and_turned_over() {
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    let script =
        "i=0; while [ $i -lt 200000 ]; do echo this is line number $i of a talkative program; i=$((i+1)); done";
    let options = ["--log-opt", "max-size=1MiB", "--log-opt", "max-file=3"];
    engine.ask(&[&["run", "--detach", "--name", "l"], &options[..], &[IMAGE, "sh", "-c", script]].concat()).ok();
    let followed = engine.ask(&["logs", "--follow", "l"]).ok();
    assert!(followed.ends_with("this is line number 199999 of a talkative program\n"));
    let numbers: Vec<u32> = followed.lines().map(|l| l.split(' ').nth(4).unwrap().parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "in order, and none twice");
    let tail = engine.ask(&["logs", "--tail", "2", "--timestamps", "l"]).ok();
    assert_eq!(tail.lines().count(), 2);
    contains(&tail, &["Z this is line number 199998", "Z this is line number 199999"]);
    let directory = engine.field("l", "{{.LogPath}}");
    let sizes: Vec<u64> = ["", ".1", ".2"].map(|n| std::fs::metadata(format!("{directory}{n}")).unwrap().len()).into();
    assert!(sizes.iter().all(|size| *size < 1_300_000), "{sizes:?}");
    assert!(!std::path::Path::new(&format!("{directory}.3")).exists());
    assert_eq!(engine.ask(&["logs", "--since", "1h", "--tail", "1", "l"]).ok().lines().count(), 1);
    assert_eq!(engine.ask(&["logs", "--until", "1h", "l"]).ok(), "");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "$CTK logs l | head -1"]).env("CTK", ctk_e2e::binary()).env("CTK_ROOT", engine.world.store());
    contains(&ctk_e2e::run(command).ok(), &["this is line number "]);
    engine.ask(&["run", "--name", "silent", "--log-driver", "none", IMAGE, "echo", "x"]).ok();
    contains(&engine.ask(&["logs", "silent"]).fails(1), &["keeps no log"]);
}

#[test]
fn a_full_disk_loses_lines_and_nothing_else() {
    let Some(mut engine) = Engine::new(Kind::Ctk) else { return };
    // Its directory, with the log in it, on a file system of two megabytes: in mounts of the case's own.
    let script = "
        mount -t tmpfs -o size=3m tmpfs $STORE/containers
        $CTK run --detach --name f $IMAGE sh -c '
            i=0; while [ $i -lt 100000 ]; do echo this is line number $i; i=$((i+1)); done; sleep 100' || exit 1
        n=0; until [ \"$($CTK exec f sh -c 'ps | grep -c [s]leep')\" = 1 ]; do n=$((n+1)); [ $n -lt 200 ] || exit 2; sleep 0.1; done
        $CTK inspect --format '{{.State.Status}}' f
        mount -o remount,size=30m $STORE/containers
        $CTK kill f; $CTK wait f
        $CTK logs --tail 1 f 2>&1
        $CTK inspect --format '{{.State.ExitCode}}' f
        $CTK rm f; umount $STORE/containers";
    let store = engine.world.store().to_owned();
    std::fs::create_dir_all(store.join("containers")).unwrap();
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).env("IMAGE", IMAGE);
    command.env("STORE", &store).env("CTK_ROOT", &store).env("CTK_NETWORK", "none");
    command.env("CTK", ctk_e2e::binary()).current_dir(engine.world.project());
    let output = ctk_e2e::run(command);
    contains(&output.ok(), &["running\n", "this is line number ", "137\nf\n"]);
    engine.kind = Kind::Ctk;
}

#[test]
fn limits_change_while_it_runs() {
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    engine
        .ask(&["run", "--detach", "--name", "u", "--pids-limit", "50", IMAGE, "sh", "-c", "while :; do :; done"])
        .ok();
    engine.ask(&["update", "--pids-limit", "20", "--memory", "64MiB", "u"]).ok();
    let stats = engine.ask(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", "u"]).ok();
    contains(&stats, &["u ", " / 64.0MiB 1\n"]);
    assert_eq!(
        engine.field("u", "{{.HostConfig.Resources.pids.limit}} {{.HostConfig.Resources.memory.limit}}"),
        "20 67108864"
    );
    let hungry = engine.ask(&[
        "run",
        "--rm",
        "--memory",
        "20MiB",
        "--memory-swap",
        "20MiB",
        IMAGE,
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=200M",
    ]);
    contains(&hungry.fails(137), &["out of memory"]);
}

#[test]
fn another_runtime_runs_it() {
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    if !has_programs(&["runc"]) {
        return;
    }
    let run = |words: &[&str]| engine.ask(&[&["run", "--runtime", "runc"], words].concat());
    let output = run(&["--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((output.code(), output.out.as_str(), output.err.as_str()), (7, "out\n", "err\n"));
    contains(&run(&["--rm", IMAGE, "no-such-program"]).fails(127), &["no-such-program"]);
    let health = ["--health-cmd", "true", "--health-interval", "100ms"];
    run(&[&["--detach", "--name", "f"], &health[..], &[IMAGE, "sh", "-c", POLITE]].concat()).ok();
    eventually(SECONDS, "good health", || engine.field("f", "{{.State.Health.Status}}") == "healthy");
    engine.ask(&["exec", "f", "sh", "-c", "exit 6"]).fails(6);
    contains(&engine.ask(&["top", "f"]).ok(), &["sleep"]);
    engine.ask(&["pause", "f"]).ok();
    assert_eq!(engine.status("f"), "paused");
    engine.ask(&["unpause", "f"]).ok();
    engine.ask(&["stop", "f"]).ok();
    assert_eq!(engine.ask(&["logs", "f"]).ok(), "started\nends\n");
    assert_eq!(engine.field("f", "{{.State.ExitCode}}"), "3");
    engine.ask(&["start", "f"]).ok();
    engine.ask(&["rm", "--force", "--time", "0", "f"]).ok();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(engine.world.store().to_str().unwrap()), "a mount is left:\n{mounts}");
}

/// A terminal that somebody types at.
struct Screen<'a> {
    engine: &'a Engine,
    socket: String,
}

impl Screen<'_> {
    fn new<'a>(engine: &'a Engine, arguments: &str) -> Screen<'a> {
        let socket = format!("ctk-e2e-{}", std::process::id());
        let screen = Screen { engine, socket };
        let (store, ctk) = (engine.world.store().display(), ctk_e2e::binary());
        let line = format!("env CTK_ROOT={store} {} {arguments}; echo code $?; exec sleep 100", ctk.display());
        screen.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", &line]);
        screen
    }

    fn tmux(&self, words: &[&str]) -> String {
        self.engine.world.peer("tmux", &[&["-L", &self.socket], words].concat()).out
    }

    fn types(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    #[track_caller]
    fn shows(&self, part: &str) {
        eventually(SECONDS, part, || self.tmux(&["capture-pane", "-p"]).contains(part));
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[test]
fn a_terminal_is_typed_at_left_and_taken_again() {
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    if !has_programs(&["tmux"]) {
        return;
    }
    {
        let screen = Screen::new(&engine, &format!("run -it --network none --name t {IMAGE} sh"));
        screen.shows("/ #");
        screen.types(&["stty size; echo $((40+2))", "Enter"]);
        screen.shows("30 100");
        screen.shows("42");
        screen.tmux(&["resize-window", "-x", "80", "-y", "20"]);
        std::thread::sleep(Duration::from_millis(200));
        screen.types(&["clear; stty size", "Enter"]);
        screen.shows("20 80");
        // An interrupt is for what runs inside.
        screen.types(&["sleep 100", "Enter"]);
        screen.types(&["C-c", "echo still $((1+1))", "Enter"]);
        screen.shows("still 2");
        screen.types(&["C-p", "C-q"]);
        screen.shows("code 0");
    }
    assert_eq!(engine.status("t"), "running");
    let screen = Screen::new(&engine, "attach t");
    std::thread::sleep(Duration::from_millis(300));
    screen.types(&["echo again $((2+3)); exit 9", "Enter"]);
    screen.shows("again 5");
    screen.shows("code 9");
    assert_eq!(engine.field("t", "{{.State.ExitCode}}"), "9");
    contains(&engine.ask(&["logs", "t"]).ok(), &["still 2", "again 5"]);
}

#[test]
fn a_first_process_that_collects_others() {
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    let script = "echo $$; tr '\\0' '\\n' < /proc/1/cmdline | head -n 1; (sleep 0.1 &); exit 5";
    let output = engine.ask(&["run", "--rm", "--init", IMAGE, "sh", "-c", script]);
    assert_eq!(output.out, "2\n/run/ctk-init\n", "{}", output.err);
    output.fails(5);
    engine.ask(&["run", "--rm", "--init", IMAGE, "no-such-program"]).fails(127);
    engine.ask(&["run", "--rm", "--init", IMAGE, "/etc"]).fails(126);
    assert_eq!(engine.ask(&["run", "--rm", "--init", "--userns", "auto", IMAGE, "sh", "-c", "echo $$"]).ok(), "2\n");

    // Signals reach the program, real-time ones, too; orphans become its children and are gone when they end.
    let script = "trap 'echo heard' USR1; trap 'echo time' 36; trap 'echo bye; exit 3' TERM; \
        sh -c 'sleep 0.2 & echo orphan $!'; echo up; while :; do sleep 0.05; done";
    engine.ask(&["run", "-d", "--name", "init", "--init", IMAGE, "sh", "-c", script]).ok();
    eventually(SECONDS, "what it says", || engine.ask(&["logs", "init"]).ok().contains("up\n"));
    let logs = engine.ask(&["logs", "init"]).ok();
    let orphan = logs.lines().find_map(|line| line.strip_prefix("orphan ")).unwrap().to_owned();
    eventually(SECONDS, "what it says", || {
        engine.ask(&["exec", "init", "test", "!", "-e", &format!("/proc/{orphan}")]).code() == 0
    });
    engine.ask(&["kill", "--signal", "USR1", "init"]).ok();
    eventually(SECONDS, "what it says", || engine.ask(&["logs", "init"]).ok().contains("heard\n"));
    engine.ask(&["kill", "--signal", "36", "init"]).ok();
    eventually(SECONDS, "what it says", || engine.ask(&["logs", "init"]).ok().contains("time\n"));
    engine.ask(&["stop", "init"]).ok();
    assert_eq!(engine.field("init", "{{.State.ExitCode}}"), "3");
    contains(&engine.ask(&["logs", "init"]).ok(), &["bye"]);
}

#[test]
fn users_of_its_own() {
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    let script = "id -u; touch /made; stat -c %u /made /bin/busybox; cut -c1-10 /proc/self/uid_map | head -1";
    let output = engine.ask(&["run", "--name", "own", "--userns", "auto", IMAGE, "sh", "-c", script]).ok();
    assert_eq!(output.lines().take(3).collect::<Vec<_>>(), ["0", "0", "0"], "{output}");
    engine
        .ask(&["run", "--rm", "--uidmap", "0:700000:1000", "--user", "7", IMAGE, "sh", "-c", "id -u; touch /no"])
        .fails(1);
    assert_eq!(engine.ask(&["run", "--rm", "--isolation", "userns", IMAGE, "id", "-u"]).ok(), "0\n");
}

#[test]
fn what_it_has_written_is_told_and_the_environment_chosen() {
    both(|engine| {
        let script = "dd if=/dev/zero of=/big bs=1024 count=300 2>/dev/null";
        engine.ask(&["run", "--quiet", "--name", "large", IMAGE, "sh", "-c", script]).ok();
        engine.ask(&["run", "--name", "empty", "--unsetenv-all", "--env", "A=b", IMAGE, "/bin/busybox", "env"]).ok();
        let all = ["ps", "--all", "--sort", "names", "--format"];
        assert_eq!(engine.ask(&[&all[..], &["{{.Names}}"]].concat()).ok(), "empty\nlarge\n");
        let sizes = engine.ask(&[&all[..], &["{{.Size}}", "--size"]].concat()).ok();
        contains(&sizes, &[if engine.is_ctk() { "300.0KiB (virtual" } else { "307kB (virtual" }]);
        let environment = engine.ask(&["logs", "empty"]).ok();
        let mut names: Vec<&str> = environment.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["A", "HOME", "HOSTNAME"], "{environment}");
    });
}

#[test]
fn scripts_find_what_they_look_for() {
    both(|engine| {
        engine.ask(&["run", "--detach", "--name", "one", "--memory", "64m", IMAGE, "sleep", "100"]).ok();
        assert_eq!(engine.field("one", "{{.HostConfig.Memory}}"), "67108864");
        assert_eq!(engine.field("one", "{{.NetworkSettings.IPAddress}}"), "");
        engine.ask(&["rm", "--force", "--time", "0", "one"]).ok();
        engine.ask(&["run", "--name", "bad", IMAGE, "/no-such-program"]).fails(127);
        let ended = engine.field("bad", "{{.State.FinishedAt}}");
        assert!(engine.is_ctk() != ended.starts_with("0001"), "{ended}");
    });
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    engine.ask(&["run", "--rm", "--requires", "nobody", "--name", "two", IMAGE, "true"]).fails(125);
    assert_eq!(engine.ask(&["ps", "--all", "--quiet"]).ok(), "");
    let low = ["run", "--rm", "--user", "7", IMAGE, "sh", "-c", "timeout 1 nc -l -p 80; echo $?"];
    assert_eq!(engine.ask(&low).ok(), "143\n");
}

#[test]
fn values_are_taken_as_others_take_them() {
    both(|engine| {
        let run = |options: &[&str], script: &str| {
            engine.ask(&[&["run", "--rm"], options, &[IMAGE, "sh", "-c", script]].concat()).ok()
        };
        engine.world.write("variables", "# Names alone are the caller's.\nONE=1\n\nHOME\nNOT_THERE\nTWO=a b\n");
        let file = engine.world.project().join("variables").display().to_string();
        let found = run(&["--env-file", &file, "--env", "TWO=2"], "echo $ONE $HOME $TWO ${NOT_THERE-none}");
        let home = engine.command(&["version"]).get_envs().find_map(|(name, value)| {
            (name == "HOME").then(|| value.map_or(String::new(), |value| value.to_string_lossy().into_owned()))
        });
        let home = home.unwrap_or_else(|| std::env::var("HOME").unwrap_or_default());
        assert_eq!(found, format!("1 {home} 2 none\n"));
        assert_eq!(run(&["--shm-size", "1mb"], "df -k /dev/shm | grep -o ' 1024 ' | head -1"), " 1024 \n");
        assert_eq!(run(&["--ipc", "host", "--pid", "host", "--uts", "host"], "echo up"), "up\n");
    });
    // A container of one id has no group of terminals.
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    let output = engine.ask(&["run", "--rm", "--uidmap", "0:700000:1", IMAGE, "sh", "-c", "id -u; ls /dev/pts"]);
    assert_eq!(output.ok(), "0\nptmx\n");
}

#[test]
fn wrong_values_are_told_with_what_is_right() {
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    for (options, parts) in [
        (&["--memory", "lots"][..], &["expected a size"][..]),
        (&["--memory-swap", "1MiB", "--memory", "2MiB"], &["cannot be less than --memory"]),
        (&["--cpus", "x"], &["expected a number"]),
        (&["--cpuset-cpus", "3-1"], &["expected a list"]),
        (&["--ulimit", "nofiles=1"], &["did you mean `nofile`"]),
        (&["--restart", "sometimes"], &["on-failure"]),
        (&["--stop-signal", "SIGWHAT"], &["expected a signal"]),
        (&["--network", "none,host"], &["together"]),
        (&["--publish", "80"], &["bridge"]),
        (&["--volume", "/x:y"], &["no path in the container"]),
        (&["--volume", "/no/such/folder:/x"], &["/no/such/folder"]),
        (&["--mount", "type=bind,dst=/x"], &["`src=PATH` is missing"]),
        (&["--mount", "tpye=bind"], &["did you mean `type`"]),
        (&["--device", "/etc/passwd"], &["is no device"]),
        (&["--device-read-bps", "/etc/passwd:1MiB"], &["no block device"]),
        (&["--pid", "container:nobody"], &["no container `nobody`"]),
        (&["--userns", "what"], &["cannot be understood"]),
        (&["--uidmap", "1:2:x"], &["INSIDE:OUTSIDE"]),
        (&["--security-opt", "secomp=x"], &["cannot be understood"]),
        (&["--security-opt", "seccomp=/etc/hostname"], &["no JSON"]),
        (&["--cap-add", "NET_ADMN"], &["NET_ADMN"]),
        (&["--user", "nobody-here"], &["nobody-here"]),
        (&["--name", "-x"], &["-x"]),
        (&["--name", "a/b"], &["cannot be a container's name"]),
        (&["--log-opt", "max-files=3"], &["max-file"]),
        (&["--log-driver", "journald"], &["choose `file`"]),
        (&["--health-cmd", "[1"], &["no JSON list"]),
        (&["--health-on-failure", "kill"], &["--health-cmd"]),
        (&["--runtime", "nope"], &["not installed"]),
        (&["--entrypoint", "[x"], &["no JSON list"]),
        (&["--rm", "--restart", "always"], &["contradict"]),
        (&["--add-host", "name:where"], &["no address"]),
        (&["--detach-keys", "ctrl-1"], &["cannot be understood"]),
        (&["--tty"], &["needs a terminal"]),
        (&["--env-file", "/no/such"], &["/no/such"]),
        (&["--attach", "stdwhat"], &["none of stdin"]),
        (&["--workdir", "relative"], &["relative"]),
        (&["--oom-score-adj", "2000"], &["2000"]),
        (&["--rootfs"], &["cannot use"]),
        (&["--sysctl", "bad"], &["expected NAME=VALUE"]),
        (&["--hostname", "a b"], &["expected a host name"]),
        (&["--dns", "x"], &["--dns `x` is no address"]),
        (&["--ip", "10.88.0.9"], &["--ip is for bridge networks only"]),
        (&["--network-alias", "x"], &["--network-alias is for bridge networks only"]),
        (&["--pids-limit", "x"], &["expected a number"]),
        (&["--stop-timeout", "x"], &["expected a number"]),
        (&["--device-read-bps", "/dev/null:x"], &["`x` is not a rate"]),
        (&["--blkio-weight-device", "/dev/null:5"], &["a weight from 10 to 1000"]),
        (&["--user", "99999999999"], &["99999999999 is no number of a user"]),
        (&["--userns", "what"], &["`auto`"]),
    ] {
        let output = engine.ask(&[&["run"], options, &[IMAGE, "true"]].concat());
        assert!([64, 125].contains(&output.code()), "{options:?}: {}", output.story());
        contains(&output.err, parts);
    }
    assert_eq!(engine.ask(&["ps", "--all", "--quiet"]).ok(), "", "nothing is left of those that could not be made");
    contains(&engine.ask(&["ps", "--format", "{{.Nme"]).fails(1), &["`{{` without `}}`"]);
    contains(&engine.ask(&["inspect", "nobody"]).fails(1), &["no container and no image `nobody`"]);
    contains(&engine.ask(&["ps", "--filter", "nme=x"]).fails(1), &["did you mean `name`"]);
    contains(&engine.ask(&["rm", IMAGE]).fails(1), &["ctk rmi"]);
    contains(&engine.ask(&["logs", "nobody"]).fails(1), &["no container `nobody`", "ctk ps --all"]);
}
