//! `ctk-runtime` as the runtime of others: podman, and docker 20.10 of the package archive.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ctk_e2e::bundle::{Bundle, Runtime, View};
use ctk_e2e::ordinary::User;
use ctk_e2e::peers::Peers;
use ctk_e2e::{Output, World, binary, contains, eventually, has, has_programs, is_root};

/// podman with our runtime and an image of busybox.
struct Podman {
    world: World,
    runtime: PathBuf,
}

const IMAGE: &str = "localhost/busybox:1";

impl Podman {
    fn new() -> Option<Podman> {
        let ready = is_root() && has_programs(&["podman", "conmon", "busybox", "script", "tar"]);
        if ready { Some(Podman::in_world(World::new())) } else { None }
    }

    /// The same of an ordinary user with subordinate ids, and devices as most machines have them.
    fn ordinary() -> Option<Podman> {
        if !User::can_be() || !has_programs(&["podman", "conmon", "busybox", "tar"]) {
            return None;
        }
        Some(Podman::in_world(World::of(User::new("erin", 54_341, Some((800_000, 65_536))))))
    }

    fn in_world(world: World) -> Podman {
        let runtime = world.path("ctk-runtime");
        symlink(binary(), &runtime).expect("a link");
        let podman = Podman { world, runtime };
        let bundle = Bundle::new(Runtime::Ours);
        let archive = podman.world.path("home/root.tar").display().to_string();
        let root = bundle.path("rootfs").display().to_string();
        podman.world.peer("tar", &["-C", &root, "-cf", &archive, "."]).ok();
        podman.podman(&["import", &archive, IMAGE]).ok();
        podman
    }

    fn words(&self) -> Vec<String> {
        let path = |name: &str| self.world.path(name).display().to_string();
        let runtime = self.runtime.display().to_string();
        let words = ["--root", &path("podman"), "--runroot", &path("podman-run"), "--cgroup-manager", "cgroupfs"];
        // Else an ordinary user's would write to a journal that few test machines have.
        let words = words.into_iter().chain(["--events-backend", "file", "--storage-driver", "overlay"]);
        words.chain(["--runtime", &runtime]).map(String::from).collect()
    }

    fn podman(&self, arguments: &[&str]) -> Output {
        let mut words = self.words();
        words.extend(arguments.iter().map(|word| (*word).to_string()));
        self.world.peer("timeout", &[vec!["120".to_owned(), "podman".to_owned()], words].concat())
    }

    /// `podman run` with limits that every machine can give, and no network.
    fn run(&self, arguments: &[&str]) -> Output {
        let usual = ["run", "--network=none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        self.podman(&[&usual, arguments].concat())
    }

    /// The same at a terminal.
    fn at_terminal(&self, arguments: &str) -> Output {
        let line = format!("podman {} {arguments}", self.words().join(" "));
        self.world.peer("script", &["-qec", &line, "/dev/null"])
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.podman(&["rm", "--all", "--force", "--time", "0"]);
        if self.world.user().is_some() {
            // An ordinary user's leaves a process behind that keeps its namespaces.
            let _ = self.podman(&["system", "migrate"]);
        }
    }
}

#[test]
fn podman_runs_and_tells_how_it_ended() {
    let Some(podman) = Podman::new() else { return };
    assert_eq!(podman.run(&["--rm", IMAGE, "echo", "hello"]).ok(), "hello\n");
    podman.run(&["--rm", IMAGE, "sh", "-c", "exit 42"]).fails(42);
    contains(&podman.run(&["--rm", IMAGE, "no-such-program"]).fails(127), &["no-such-program"]);
    podman.run(&["--rm", IMAGE, "/etc"]).fails(126);
    let user =
        podman.run(&["--rm", "--user", "1000:1000", "--cap-drop", "all", IMAGE, "grep", "CapEff", "/proc/self/status"]);
    assert_eq!(user.ok(), "CapEff:\t0000000000000000\n");
    // A pipe is opened anew by whose it is.
    let streams = "echo out > /dev/stdout; echo err > /dev/stderr";
    let opened = podman.run(&["--rm", "--user", "1000", IMAGE, "sh", "-c", streams]);
    assert_eq!((opened.err.as_str(), opened.out.as_str()), ("err\n", "out\n"), "{}", opened.story());
    let read_only =
        podman.run(&["--rm", "--read-only", "--tmpfs", "/foo", IMAGE, "sh", "-c", "touch /foo/a && touch /a"]);
    contains(&read_only.fails(1), &["Read-only file system"]);
    let mapped =
        podman.run(&["--rm", "--uidmap", "0:100000:65536", IMAGE, "sh", "-c", "id -u; tr -s ' ' < /proc/self/uid_map"]);
    assert_eq!(mapped.ok(), "0\n 0 100000 65536\n");
    let privileged = podman.run(&["--rm", "--privileged", IMAGE, "sh", "-c", "test -e /dev/kmsg && echo there"]);
    assert_eq!(privileged.ok(), "there\n");
}

#[test]
fn podman_execs_stops_and_shows_logs() {
    let Some(podman) = Podman::new() else { return };
    let script = "trap 'echo ends; exit 3' TERM; echo started; while true; do sleep 0.05; done";
    podman.run(&["--detach", "--name", "one", IMAGE, "sh", "-c", script]).ok();
    eventually(Duration::from_secs(20), "its start", || podman.podman(&["logs", "one"]).out == "started\n");
    assert_eq!(podman.podman(&["exec", "one", "echo", "inside"]).ok(), "inside\n");
    podman.podman(&["exec", "one", "sh", "-c", "exit 5"]).fails(5);
    podman.podman(&["exec", "one", "no-such-program"]).fails(127);
    let user = podman.podman(&["exec", "--user", "7", "--workdir", "/etc", "one", "sh", "-c", "id -u; pwd"]);
    assert_eq!(user.ok(), "7\n/etc\n");
    contains(&podman.podman(&["top", "one"]).ok(), &["sleep"]);
    podman.podman(&["pause", "one"]).ok();
    assert_eq!(podman.podman(&["inspect", "--format", "{{.State.Status}}", "one"]).ok(), "paused\n");
    podman.podman(&["unpause", "one"]).ok();
    podman.podman(&["stop", "--time", "20", "one"]).ok();
    assert_eq!(podman.podman(&["logs", "one"]).ok(), "started\nends\n");
    assert_eq!(podman.podman(&["inspect", "--format", "{{.State.ExitCode}}", "one"]).ok(), "3\n");
    // The same container once more.
    podman.podman(&["start", "one"]).ok();
    podman.podman(&["kill", "one"]).ok();
    assert_eq!(podman.podman(&["wait", "one"]).ok(), "137\n");
    podman.podman(&["rm", "one"]).ok();
}

/// An ordinary user's podman: the runtime is started by root of a user namespace, who has no right to the machine's
/// `/run`, cgroups and devices.
#[test]
fn podman_of_an_ordinary_user() {
    let Some(podman) = Podman::ordinary() else { return };
    let shown = podman.run(&["--rm", IMAGE, "sh", "-c", "id -u; tr -s ' ' < /proc/self/uid_map; echo > /dev/null"]);
    assert_eq!(shown.ok(), "0\n 0 54341 1\n 1 800000 65536\n");
    podman.run(&["--rm", IMAGE, "sh", "-c", "exit 42"]).fails(42);
    podman.run(&["--rm", IMAGE, "no-such-program"]).fails(127);
    let user = podman.run(&["--rm", "--user", "33:34", IMAGE, "sh", "-c", "id -u; id -g"]);
    assert_eq!(user.ok(), "33\n34\n");
    let opened = podman.run(&["--rm", "--user", "33", IMAGE, "sh", "-c", "echo out > /dev/stdout"]);
    assert_eq!(opened.ok(), "out\n");
    let kept = podman.run(&["--rm", "--userns", "keep-id", IMAGE, "id", "-u"]);
    assert_eq!(kept.ok(), "54341\n");
    let script = "trap 'echo ends; exit 3' TERM; echo started; while true; do sleep 0.05; done";
    podman.run(&["--detach", "--name", "one", IMAGE, "sh", "-c", script]).ok();
    eventually(Duration::from_secs(20), "its start", || podman.podman(&["logs", "one"]).out == "started\n");
    assert_eq!(podman.podman(&["exec", "one", "id", "-u"]).ok(), "0\n");
    assert_eq!(podman.podman(&["exec", "--user", "7", "one", "id", "-u"]).ok(), "7\n");
    podman.podman(&["exec", "one", "sh", "-c", "exit 5"]).fails(5);
    contains(&podman.podman(&["top", "one"]).ok(), &["sleep"]);
    podman.podman(&["stop", "--time", "20", "one"]).ok();
    assert_eq!(podman.podman(&["logs", "one"]).ok(), "started\nends\n");
    assert_eq!(podman.podman(&["inspect", "--format", "{{.State.ExitCode}}", "one"]).ok(), "3\n");
    podman.podman(&["start", "one"]).ok();
    podman.podman(&["kill", "one"]).ok();
    assert_eq!(podman.podman(&["wait", "one"]).ok(), "137\n");
    podman.podman(&["rm", "one"]).ok();
    // Where the runtime writes containers down: nothing is left.
    let left = podman.world.path("run/ctk-runtime");
    assert_eq!(std::fs::read_dir(left).expect("the state root").count(), 0);
}

/// The same with a network of its own, which a process of the user's makes.
#[test]
fn podman_of_an_ordinary_user_has_a_network() {
    if !has_programs(&["slirp4netns"]) || !has("/dev/net/tun", Path::new("/dev/net/tun").exists()) {
        return;
    }
    let Some(podman) = Podman::ordinary() else { return };
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
    let show = ["--network=slirp4netns", IMAGE, "grep", "-c", "tap0:", "/proc/net/dev"];
    assert_eq!(podman.podman(&[&["run", "--rm"], &limits[..], &show].concat()).ok(), "1\n");
}

#[test]
fn podman_has_terminals() {
    let Some(podman) = Podman::new() else { return };
    let usual = "run --rm --network=none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024";
    let ran = podman.at_terminal(&format!("{usual} -t {IMAGE} sh -c 'test -t 0 && tty'"));
    assert_eq!(ran.ok().trim_end(), "/dev/pts/0");
    podman.run(&["--detach", "--name", "two", IMAGE, "sleep", "100"]).ok();
    let exec = podman.at_terminal("exec -t two sh -c 'test -t 1 && exit 6'");
    exec.fails(6);
}

#[test]
fn podmans_limits_hold() {
    let Some(podman) = Podman::new() else { return };
    let mut find = Command::new("grep");
    find.args(["-c", "^cgroup2 /sys/fs/cgroup ", "/proc/mounts"]);
    let only_v2 = ctk_e2e::run(find).out.trim() != "0";
    let (memory, pids) = match only_v2 {
        true => ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max"),
        false => ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/pids.max"),
    };
    let shown = podman.run(&["--rm", "--memory", "32m", "--pids-limit", "9", IMAGE, "cat", memory, pids]);
    assert_eq!(shown.ok(), "33554432\n9\n");
    // More than there is: killed, and told as such.
    podman
        .run(&["--name", "three", "--memory", "32m", IMAGE, "dd", "if=/dev/zero", "of=/dev/null", "bs=200M"])
        .fails(137);
    let forks = "(i=0; while [ $i -lt 20 ]; do sleep 4 & i=$((i+1)); done) 2>&1 | grep -c fork; true";
    assert_eq!(podman.run(&["--rm", "--pids-limit", "9", IMAGE, "sh", "-c", forks]).ok(), "1\n");
}

/// What a limit made of it, in podman's words; and limits that change while it runs.
#[test]
fn podman_tells_and_changes_limits() {
    let Some(podman) = Podman::new() else { return };
    let inspect = |what: &str, name: &str| podman.podman(&["inspect", "--format", what, name]).ok();
    let greedy = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"];
    let limits = ["--name", "greedy", "--memory", "32m", "--memory-swap", "32m", IMAGE];
    podman.run(&[&limits[..], &greedy].concat()).fails(137);
    // Whether it was for want of memory is conmon's to find out, which it does not here, nor with runc.
    assert_eq!(inspect("{{.State.ExitCode}}", "greedy"), "137\n");
    let limits = ["--memory", "32m", "--memory-swap", "32m", "--cpus", "0.2", "--cpu-shares", "262144"];
    let spin = ["--detach", "--name", "four", IMAGE, "sh", "-c", "while true; do :; done"];
    podman.run(&[&limits[..], &spin].concat()).ok();
    let id = inspect("{{.Id}}", "four");
    let usage = || {
        let path = inspect("{{.State.CgroupPath}}", "four");
        assert!(path.contains(id.trim()), "{path}");
        let file = format!("/sys/fs/cgroup/cpuacct{}/cpuacct.usage", path.trim());
        std::fs::read_to_string(file).expect("version 1").trim().parse::<f64>().expect("nanoseconds")
    };
    let share = || {
        let (started, before) = (std::time::Instant::now(), usage());
        std::thread::sleep(Duration::from_secs(2));
        (usage() - before) / started.elapsed().as_nanos() as f64
    };
    if has("cgroup version 1 with cpuacct", std::path::Path::new("/sys/fs/cgroup/cpuacct").exists()) {
        let used = share();
        assert!((0.14..0.26).contains(&used), "{used} of a processor, not 0.2");
        podman.podman(&["update", "--cpus", "0.4", "four"]).ok();
        let used = share();
        assert!((0.28..0.52).contains(&used), "{used} of a processor, not 0.4");
    }
    let stats = podman.podman(&["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", "four"]).ok();
    contains(&stats, &["1 ", "/ 33.55MB"]);
    let take = [&["exec", "four"], &greedy[..]].concat();
    podman.podman(&take).fails(137);
    podman.podman(&["update", "--memory", "400m", "--memory-swap", "400m", "four"]).ok();
    podman.podman(&take).ok();
}

/// A check that a container's image or caller has, run by podman through `exec`.
#[test]
fn podman_checks_health() {
    let Some(podman) = Podman::new() else { return };
    let health = ["--health-cmd", "test -e /tmp/well", "--health-interval", "disable", "--health-retries", "1"];
    podman.run(&[&["--detach", "--name", "five"], &health[..], &[IMAGE, "sleep", "100"]].concat()).ok();
    podman.podman(&["healthcheck", "run", "five"]).fails(1);
    let status = || podman.podman(&["inspect", "--format", "{{.State.Health.Status}}", "five"]).ok();
    assert_eq!(status(), "unhealthy\n");
    podman.podman(&["exec", "five", "touch", "/tmp/well"]).ok();
    podman.podman(&["healthcheck", "run", "five"]).ok();
    assert_eq!(status(), "healthy\n");
}

/// docker with our runtime and an image of busybox; what it writes goes with it.
struct Docker {
    peers: Peers,
    _world: World,
}

impl Docker {
    fn new() -> Option<Docker> {
        let here = is_root() && has_programs(&["mmdebstrap", "busybox", "script", "tar", "unshare", "nsenter"]);
        if !here || View::all(&["memory", "pids", "cpu", "devices", "freezer"]).is_empty() {
            return None;
        }
        let world = World::new();
        let work = world.path("work");
        let peers = Peers::start_with_runtime(&work, &binary());
        let bundle = Bundle::new(Runtime::Ours);
        let archive = work.join("root.tar").display().to_string();
        world.peer("tar", &["-C", &bundle.path("rootfs").display().to_string(), "-cf", &archive, "."]).ok();
        peers.inside("docker", &["import", "/run/work/root.tar", "busybox:1"]).ok();
        Some(Docker { peers, _world: world })
    }

    fn docker(&self, arguments: &[&str]) -> Output {
        self.peers.inside("docker", arguments)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.docker(&[&["run", "--network", "none"], arguments].concat())
    }

    fn at_terminal(&self, arguments: &[&str]) -> Output {
        let command = self.peers.command("docker", arguments);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let mut command = Command::new("script");
        command.args(["-qec", &line.join(" "), "/dev/null"]);
        ctk_e2e::run(command)
    }

    fn inspect(&self, what: &str, name: &str) -> String {
        self.docker(&["inspect", "--format", what, name]).ok().trim().to_owned()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let all = self.docker(&["ps", "--all", "--quiet"]).out;
        let names: Vec<&str> = all.split_whitespace().collect();
        if !names.is_empty() {
            let _ = self.docker(&[&["rm", "--force"], &names[..]].concat());
        }
    }
}

/// One daemon for all of it: it needs seconds to start.
#[test]
fn docker_runs_execs_stops_checks_health_and_limits() {
    let Some(docker) = Docker::new() else { return };
    const IMAGE: &str = "busybox:1";
    assert_eq!(docker.docker(&["info", "--format", "{{.DefaultRuntime}} {{.CgroupVersion}}"]).ok(), "ctk 1\n");
    assert_eq!(docker.run(&["--rm", IMAGE, "echo", "hello"]).ok(), "hello\n");
    docker.run(&["--rm", IMAGE, "sh", "-c", "exit 42"]).fails(42);
    contains(&docker.run(&["--rm", IMAGE, "no-such-program"]).fails(127), &["no-such-program"]);
    docker.run(&["--rm", IMAGE, "/etc"]).fails(126);
    let user =
        docker.run(&["--rm", "--user", "1000:1000", "--cap-drop", "ALL", IMAGE, "grep", "CapEff", "/proc/self/status"]);
    assert_eq!(user.ok(), "CapEff:\t0000000000000000\n");
    assert_eq!(
        docker.run(&["--rm", "--privileged", IMAGE, "sh", "-c", "test -e /dev/kmsg && echo there"]).ok(),
        "there\n"
    );

    let script = "trap 'echo ends; exit 3' TERM; echo started; while true; do sleep 0.05; done";
    docker.run(&["--detach", "--name", "one", IMAGE, "sh", "-c", script]).ok();
    eventually(Duration::from_secs(20), "its start", || docker.docker(&["logs", "one"]).out == "started\n");
    assert_eq!(docker.docker(&["exec", "one", "echo", "inside"]).ok(), "inside\n");
    docker.docker(&["exec", "one", "sh", "-c", "exit 5"]).fails(5);
    // 20.10 has a code of its own for this, whichever the runtime.
    docker.run(&["--detach", "--name", "peer", "--runtime", "runc", IMAGE, "sleep", "100"]).ok();
    let code = docker.docker(&["exec", "peer", "no-such-program"]).code();
    docker.docker(&["exec", "one", "no-such-program"]).fails(code);
    let user = docker.docker(&["exec", "--user", "7", "--workdir", "/etc", "one", "sh", "-c", "id -u; pwd"]);
    assert_eq!(user.ok(), "7\n/etc\n");
    contains(&docker.docker(&["top", "one"]).ok(), &["sleep"]);
    docker.docker(&["pause", "one"]).ok();
    assert_eq!(docker.inspect("{{.State.Status}}", "one"), "paused");
    docker.docker(&["unpause", "one"]).ok();
    docker.docker(&["stop", "--time", "20", "one"]).ok();
    assert_eq!(docker.docker(&["logs", "one"]).ok(), "started\nends\n");
    assert_eq!(docker.inspect("{{.State.ExitCode}}", "one"), "3");
    docker.docker(&["start", "one"]).ok();
    docker.docker(&["kill", "one"]).ok();
    assert_eq!(docker.docker(&["wait", "one"]).ok(), "137\n");
    docker.docker(&["rm", "one"]).ok();

    let shown =
        docker.at_terminal(&["run", "--rm", "--tty", "--network", "none", IMAGE, "sh", "-c", "test -t 0 && tty"]);
    assert_eq!(shown.ok().trim_end(), "/dev/pts/0");
    docker.run(&["--detach", "--name", "two", IMAGE, "sleep", "100"]).ok();
    docker.at_terminal(&["exec", "--tty", "two", "sh", "-c", "test -t 1 && exit 6"]).fails(6);

    let health = ["--health-cmd", "test -e /tmp/well", "--health-interval", "1s", "--health-retries", "1"];
    docker.run(&[&["--detach", "--name", "three"], &health[..], &[IMAGE, "sleep", "100"]].concat()).ok();
    let status = |word: &str| docker.inspect("{{.State.Health.Status}}", "three") == word;
    eventually(Duration::from_secs(20), "an ill container", || status("unhealthy"));
    docker.docker(&["exec", "three", "touch", "/tmp/well"]).ok();
    eventually(Duration::from_secs(20), "a healthy container", || status("healthy"));

    let greedy = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"];
    let limits = ["--memory", "32m", "--memory-swap", "32m"];
    docker.run(&[&["--name", "four"], &limits[..], &[IMAGE], &greedy].concat()).fails(137);
    assert_eq!(docker.inspect("{{.State.OOMKilled}}", "four"), "true");
    let forks = "(i=0; while [ $i -lt 20 ]; do sleep 4 & i=$((i+1)); done) 2>&1 | grep -c fork; true";
    assert_eq!(docker.run(&["--rm", "--pids-limit", "9", IMAGE, "sh", "-c", forks]).ok(), "1\n");
    docker
        .run(&[&["--detach", "--name", "five", "--cpus", "0.2"], &limits[..], &[IMAGE, "sleep", "100"]].concat())
        .ok();
    let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
    assert_eq!(docker.docker(&["exec", "five", "sh", "-c", quota]).ok(), "20000\n");
    let take = [&["exec", "five"], &greedy[..]].concat();
    docker.docker(&take).fails(137);
    docker.docker(&["update", "--memory", "400m", "--memory-swap", "400m", "--cpus", "0.4", "five"]).ok();
    docker.docker(&take).ok();
    assert_eq!(docker.docker(&["exec", "five", "sh", "-c", quota]).ok(), "40000\n");
    let stats = docker.docker(&["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", "five"]).ok();
    contains(&stats, &["1 ", "/ 400MiB"]);
}
