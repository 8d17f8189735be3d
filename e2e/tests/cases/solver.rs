//! The solver's promises: the same digest however it is built, no litter wherever it is killed, a shell where it fails.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ctk_e2e::{Output, World, contains, eventually, has_programs, is_root, run};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::interrupt::cgroups;

/// A world whose folder has a busybox and this Dockerfile.
fn folder(dockerfile: &str) -> Option<World> {
    if !is_root() || !has_programs(&["busybox"]) {
        return None;
    }
    let world = World::new();
    world.write("busybox", fs::read("/usr/bin/busybox").expect("a static busybox"));
    world.write("Dockerfile", format!("FROM scratch AS base\nCOPY --chmod=755 busybox /bin/busybox\nCOPY --chmod=755 busybox /bin/sh\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n{dockerfile}"));
    Some(world)
}

/// Two stages, several layers, mounts, links, accounts.
const WHOLE: &str = "\
FROM base AS one
WORKDIR /work
COPY input .
COPY many /many/
RUN ls -f /many | sort > /listed && cp -a /many /again
RUN cat input > a && ln a b && ln -s a c && mkfifo d && mkdir -p e/f && chmod 2750 e && date > /dev/null
FROM base AS two
RUN --mount=type=tmpfs,target=/t --mount=type=cache,target=/cache cp /bin/busybox /t/x && echo two > /two; touch /cache/x
FROM base
ARG WHAT=nothing
ENV WHAT=$WHAT
RUN echo root:x:0:0::/:/bin/sh > /passwd && hostname > /host && id > /id && umask > /umask && env | sort > /env
COPY --link --from=one /work /work
COPY --from=one /again /again
RUN echo $HOME $USER $TZ $LANG $PWD > /variables && ls /sys/devices/system/cpu > /dev/null
COPY --link --from=two --chown=7:8 /two /copied/two
RUN --mount=type=bind,from=one,source=/work,target=/mnt ls -l /mnt/a | wc -l > /lines
LABEL x=y
CMD [\"/bin/sh\"]
";

/// Files whose order in the directory is that of the numbers.
fn many(folder: &Path, numbers: impl Iterator<Item = u32>) {
    fs::create_dir_all(folder.join("many/deep")).unwrap();
    for number in numbers {
        fs::write(folder.join(format!("many/{number}")), number.to_string()).unwrap();
        fs::write(folder.join(format!("many/deep/{number}")), number.to_string()).unwrap();
    }
}

fn digest(output: Output) -> String {
    output.ok().trim().to_owned()
}

/// Asserts that nothing of a build is left: mounts, running containers, half-made things.
#[track_caller]
fn nothing_is_left(world: &World) {
    let store = world.store();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(store.to_str().unwrap()), "a mount is left:\n{mounts}");
    for name in ["run", "tmp", "locks", "leases"] {
        let left: Vec<_> =
            fs::read_dir(store.join(name)).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{name} has {left:?}");
    }
}

#[test]
fn the_same_digest_however_it_is_built() {
    let Some(world) = folder(WHOLE).filter(|_| has_programs(&["taskset", "unshare"])) else { return };
    world.write("input", "input\n");
    many(&world.project(), 0..20);
    let mut digests = BTreeSet::new();
    let mut built = |what: &str, output: Output| {
        digests.insert(digest(output));
        assert_eq!(digests.len(), 1, "{what} gives another digest");
    };
    built("the first time", world.ctk(&["build", "-q", "--jobs=2", "."]));
    for _ in 0..9 {
        built("again", world.ctk(&["build", "-q", "."]));
    }
    for jobs in ["--jobs=1", "--jobs=2", "--jobs=7"] {
        built(jobs, world.ctk(&["build", "-q", "--no-cache", jobs, "."]));
    }
    built("one stage anew", world.ctk(&["build", "-q", "--no-cache-filter=one", "."]));
    // Another machine: its name, its user's habits, its clock, its store.
    let elsewhere = world.path("elsewhere");
    let mut other = Command::new("unshare");
    other.args(["-u", "sh", "-c", "hostname elsewhere; umask 077; exec \"$@\"", "sh"]);
    other.arg(ctk_e2e::binary()).args(["build", "-q", "."]).current_dir(world.project()).stdin(Stdio::null());
    other.env("CTK_ROOT", &elsewhere).env("LANG", "de_DE.UTF-8").env("TZ", "Asia/Tokyo").env("USER", "somebody");
    built("elsewhere", run(other));
    // The same files from another place, made in another order, under another name, with one core.
    let copy = world.path("other name/of the folder");
    fs::create_dir_all(&copy).unwrap();
    many(&copy, (0..20).rev());
    for name in ["input", "busybox", "Dockerfile"] {
        fs::copy(world.project().join(name), copy.join(name)).unwrap();
    }
    let place = copy.to_str().unwrap();
    let with_root = |root: &str, words: &[&str], current: &Path| {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(ctk_e2e::binary()).args(["build", "-q"]).args(words).current_dir(current);
        command.env("CTK_ROOT", world.path(root)).stdin(Stdio::null());
        run(command)
    };
    built("one core, another place", with_root("elsewhere 2", &["."], &copy));
    built("named from outside", with_root("elsewhere 3", &[place], Path::new("/")));
    built("by its Dockerfile", with_root("elsewhere 4", &["-f", "Dockerfile", place], &copy));
    // By way of a cache, and with every stage's result or only the image's from it.
    for mode in ["min", "max"] {
        let cache = world.path(&format!("cache-{mode}")).display().to_string();
        built(
            "an export",
            world.ctk(&["build", "-q", "--cache-to", &format!("type=local,dest={cache},mode={mode}"), "."]),
        );
        let from = format!("type=local,src={cache}");
        let elsewhere = format!("import {mode}");
        built("an import", with_root(&elsewhere, &["--cache-from", &from, "."], &copy));
        built("no cache after it", with_root(&elsewhere, &["--no-cache", "."], &copy));
        built("one stage of it", with_root(&elsewhere, &["--no-cache-filter=two", "--cache-from", &from, "."], &copy));
    }
    // The files' times and the folder's place are nobody's business.
    run({
        let mut touch = Command::new("touch");
        touch.args(["-d", "2001-02-03", "input", "busybox", "Dockerfile"]).current_dir(world.project());
        touch
    })
    .ok();
    built("touched", world.ctk(&["build", "-q", "--no-cache", "."]));
    nothing_is_left(&world);
}

#[test]
fn verify_names_the_first_difference() {
    let Some(world) = folder("FROM base\nRUN echo same > /a\n") else { return };
    world.ctk(&["build", "-q", "--verify", "-t", "good", "."]).ok();
    let table = [
        ("RUN mkdir /d && cat /proc/sys/kernel/random/uuid > /d/b", "layer 5 ", "/d/b: content differs from byte "),
        (
            "RUN cat /proc/uptime | tr -d . | head -c 7 | sha256sum | head -c 30 > /z; echo 1 > /a",
            "layer 5 ",
            "/z: content",
        ),
        ("RUN touch /$(cat /proc/sys/kernel/random/uuid)", "layer 5 ", "is only in the"),
        ("RUN touch /x && chown $(head -c 2 /dev/urandom | od -An -tu2 | tr -d ' ') /x", "layer 5 ", "/x: owner "),
    ];
    for (line, layer, what) in table {
        let text = world.read("Dockerfile");
        world.write("Dockerfile", format!("{text}{line}\n"));
        // Also when the first of both builds is an earlier one.
        world.ctk(&["build", "-q", "."]).ok();
        let said = world.ctk(&["build", "--verify", "-t", "bad", "."]).fails(1);
        contains(&said, &["build::not-reproducible", "not the same when it is built again", layer, &line[4..], what]);
        assert!(!world.ctk(&["images"]).ok().contains("bad"));
        world.write("Dockerfile", text);
    }
    // Comparing leaves the earlier result where it was.
    world.write("Dockerfile", world.read("Dockerfile") + "RUN cat /proc/sys/kernel/random/uuid > /b\n");
    let before = digest(world.ctk(&["build", "-q", "."]));
    world.ctk(&["build", "-q", "--verify", "."]).fails(1);
    assert_eq!(digest(world.ctk(&["build", "-q", "."])), before);
    nothing_is_left(&world);
}

#[test]
fn images_of_a_project_are_verified() {
    let stage = "RUN_LINE".replace("RUN_LINE", "run \"/bin/busybox cat /proc/sys/kernel/random/uuid > /b\"");
    let text = format!(
        "image \"good\" {{ stage \"final\" from=\"busybox\" {{ run \"echo 1 > /x\"; }}; }}\nimage \"bad\" {{ stage \"final\" from=\"busybox\" {{ {stage}; }}; }}\n"
    );
    let Some(world) = super::failures::with_busybox(&text) else { return };
    world.ctk(&["build"]).ok();
    world.ctk(&["build", "good", "--verify"]).ok();
    let said = world.ctk(&["build", "image:bad", "--verify"]).fails(1);
    contains(&said, &["build::not-reproducible", "image:bad", "/b: content differs from byte "]);
    nothing_is_left(&world);
}

#[test]
fn two_builds_at_once_a_hundred_rounds() {
    let text = "FROM base\nRUN --mount=type=cache,target=/c cat /c/runs 2>/dev/null; true\n\
                FROM base AS work\nCOPY input /\nRUN --mount=type=cache,target=/c echo x >> /c/runs && cat /input > /out\n\
                FROM base\nCOPY --from=work /out /out\n";
    let Some(world) = folder(text) else { return };
    let mut all = BTreeSet::new();
    for round in 0..100 {
        world.write("input", format!("{round}\n"));
        let both = [0, 1].map(|_| world.spawn(&["build", "-q", "."]));
        let digests = both.map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "round {round}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        });
        assert_eq!(digests[0], digests[1], "round {round}");
        assert!(all.insert(digests[0].clone()), "round {round} is like an earlier one");
    }
    // Each was run by one of the two.
    world.write("Dockerfile", world.read("Dockerfile") + "RUN --mount=type=cache,target=/c wc -l < /c/runs\n");
    contains(&world.ctk(&["build", "--progress=plain", "."]).err, &["| 100\n"]);
    nothing_is_left(&world);
}

#[test]
fn killed_while_another_waits_for_it() {
    let marker = format!("73{}", std::process::id());
    let text = format!(
        "FROM base\nRUN --mount=type=cache,target=/c test -e /c/done && exit 0; touch /c/done; sleep {marker}\n"
    );
    let Some(world) = folder(&text) else { return };
    let mut first = world.spawn(&["build", "-q", "."]);
    let sleeps = || {
        run({
            let mut pgrep = Command::new("pgrep");
            pgrep.args(["-f", &format!("^sleep {marker}")]);
            pgrep
        })
    };
    eventually(Duration::from_secs(20), "the step runs", || sleeps().status.success());
    let second = world.spawn(&["build", "-q", "."]);
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    first.kill().unwrap();
    first.wait().unwrap();
    let output = second.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(began.elapsed() < Duration::from_secs(5), "noticed after {:?}", began.elapsed());
    eventually(Duration::from_secs(5), "the killed step is gone", || !sleeps().status.success());
    // What it wrote down is cleared by whoever begins next.
    world.ctk(&["build", "-q", "."]).ok();
    nothing_is_left(&world);
}

/// A folder for temporary files that nobody else has.
fn temporary(world: &World) -> PathBuf {
    let folder = world.path("temporary");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Kills what makes the `number`th call of `call` in any thread of `ctk build`: it, or a container, and then it fails.
/// Whether it came to that.
fn killed_at(world: &World, call: &str, number: u32) -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:signal=SIGKILL:when={number}")]);
    strace.arg(ctk_e2e::binary()).args(["build", "-q", "--jobs=2", "."]).current_dir(world.project());
    strace.env("CTK_ROOT", world.store()).env("HOME", world.path("home")).stdin(Stdio::null());
    strace.env("TMPDIR", temporary(world));
    let output = run(strace);
    assert!([0, 1, 137].contains(&output.code()), "{}", output.story());
    !output.status.success()
}

#[test]
fn killed_at_every_boundary_the_next_build_is_the_same() {
    if !has_programs(&["strace"]) {
        return;
    }
    let Some(world) = folder(WHOLE) else { return };
    world.write("input", "input\n");
    many(&world.project(), 0..20);
    let expected = digest(world.ctk(&["build", "-q", "."]));
    let (mut kills, mut with_cgroup) = (0, 0);
    // Where something becomes visible, begins or ends.
    for call in [
        "renameat2",
        "rename",
        "mkdir",
        "unlink",
        "clone3",
        "mount_setattr",
        "move_mount",
        "fsync",
        "fdatasync",
        "syncfs",
        "flock",
    ] {
        for number in [1, 2, 4, 9, 20] {
            fs::remove_dir_all(world.store()).unwrap();
            if !killed_at(&world, call, number) {
                break;
            }
            kills += 1;
            let cgroups = cgroups(&world);
            with_cgroup += usize::from(!cgroups.is_empty());
            assert_eq!(digest(world.ctk(&["build", "-q", "."])), expected, "after a kill at {call} {number}");
            // What is kept is whole. A container of the killed may have been dying still when the build before began.
            assert_eq!(digest(world.ctk(&["build", "-q", "."])), expected);
            nothing_is_left(&world);
            assert!(cgroups.iter().all(|path| !path.exists()), "{call} {number}: of {cgroups:?} some are left");
            assert_eq!(
                fs::read_dir(temporary(&world)).unwrap().count(),
                0,
                "{call} {number}: a temporary file is left"
            );
        }
    }
    assert!(kills >= 20, "only {kills} kills");
    assert!(with_cgroup > 0, "no kill left a cgroup behind that had to go");
}

#[test]
fn a_stop_reaches_every_child() {
    let marker = format!("74{}", std::process::id());
    let text = format!(
        "FROM base AS one\nRUN (setsid sleep {marker} &) ; sleep {marker}\nFROM base AS two\nRUN trap '' INT TERM HUP; sleep {marker}; true\n\
         FROM base\nCOPY --from=one /bin/sh /1\nCOPY --from=two /bin/sh /2\n"
    );
    let Some(world) = folder(&text) else { return };
    let count = || {
        let mut pgrep = Command::new("pgrep");
        pgrep.args(["-cf", &format!("^sleep {marker}")]);
        run(pgrep).out.trim().parse::<usize>().unwrap_or(0)
    };
    for signal in ["-INT", "-TERM", "-HUP"] {
        let child = world.spawn(&["build", "--jobs=2", "."]);
        eventually(Duration::from_secs(20), "three processes sleep", || count() == 3);
        let began = Instant::now();
        let mut kill = Command::new("kill");
        kill.args([signal, &child.id().to_string()]);
        run(kill).ok();
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
        assert!(began.elapsed() < Duration::from_secs(3), "{signal} took {:?}", began.elapsed());
        eventually(Duration::from_secs(3), "nobody sleeps", || count() == 0);
        nothing_is_left(&world);
    }
}

/// `ctk` on a terminal.
struct OnTerminal {
    child: Child,
    terminal: File,
    seen: Arc<Mutex<String>>,
}

impl OnTerminal {
    fn start(world: &World, arguments: &[&str]) -> OnTerminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let name = name.to_str().unwrap();
        let open = || File::options().read(true).write(true).open(name).unwrap();
        let mut command = world.command(arguments);
        let child = command.stdin(open()).stdout(Stdio::null()).stderr(open()).spawn().unwrap();
        drop(command);
        let terminal = File::from(master);
        let mut reader = terminal.try_clone().unwrap();
        let seen: Arc<Mutex<String>> = Arc::default();
        let kept = seen.clone();
        std::thread::spawn(move || {
            let mut block = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut block) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&block[..count]));
            }
        });
        OnTerminal { child, terminal, seen }
    }

    fn types(&mut self, line: &str) {
        self.terminal.write_all(format!("{line}\r").as_bytes()).unwrap();
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        let began = Instant::now();
        while !self.seen.lock().unwrap().contains(text) {
            assert!(began.elapsed() < Duration::from_secs(20), "`{text}` is not in:\n{}", self.seen.lock().unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ends(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

#[test]
fn a_shell_in_the_state_before_the_failing_step() {
    let text = "FROM base\nENV GREETING=hello\nRUN echo app:x:7:8::/:/bin/sh > /etc/passwd 2>/dev/null || mkdir /etc; echo app:x:7:8::/:/bin/sh > /etc/passwd; mkdir -m 777 /work\n\
                USER app\nWORKDIR /work\nRUN --mount=type=tmpfs,target=/scratch --mount=type=secret,id=s,target=/s,mode=444 \
                touch made; echo last words; exit 3\n";
    let Some(world) = folder(text) else { return };
    world.write("secret", "very secret\n");
    let words = ["build", "--debug", "--secret=id=s,src=secret", "."];
    let mut shell = OnTerminal::start(&world, &words);
    shell.shows("A shell in the state before this step");
    shell.shows("last words");
    shell.shows("Dockerfile:10");
    shell.types("echo $GREETING-$(id -u):$(id -g)-$(pwd)-$(hostname)");
    shell.shows("hello-7:8-/work-buildkitsandbox");
    shell.types("grep -c ' /scratch ' /proc/mounts; cat /s; ls -A /work | wc -l; tty; echo over");
    shell.shows("1\r\nvery secret\r\n0\r\n/dev/");
    shell.types("touch /work/thrown-away; exit");
    assert_eq!(shell.ends(), Some(1));
    nothing_is_left(&world);
    // A copy has a shell, too, and a stop ends it.
    let copies = world.read("Dockerfile").replace("exit 3", "exit 0") + "COPY --from=base /absent /there\n";
    world.write("Dockerfile", copies);
    let mut shell = OnTerminal::start(&world, &words);
    shell.shows("A shell in the state before this step");
    shell.types("ls -A /work && echo have-$((40+2))");
    shell.shows("made\r\nhave-42");
    let mut kill = Command::new("kill");
    run({
        kill.args(["-TERM", &shell.child.id().to_string()]);
        kill
    })
    .ok();
    assert_eq!(shell.ends(), Some(130));
    nothing_is_left(&world);
}

#[test]
fn a_shell_for_an_image_of_the_project() {
    let text = "image \"bad\" { stage \"final\" from=\"busybox\" { run \"/bin/busybox false\"; }; }\n";
    let Some(world) = super::failures::with_busybox(text) else { return };
    let mut shell = OnTerminal::start(&world, &["build", "image:bad", "--debug"]);
    shell.shows("A shell in the state before this step");
    shell.types("echo here-$((40+2)); exit 5");
    shell.shows("here-42");
    shell.shows("containers.kdl:");
    assert_eq!(shell.ends(), Some(1));
    for words in [&["build", "image:bad", "--debug"][..], &["build", "--debug", "."]] {
        contains(&world.ctk(words).fails(1), &["--debug", "is no terminal", "hint:"]);
    }
    contains(
        &world.ctk(&["build", "bad"]).fails(1),
        &["`ctk build image:bad --debug` opens a shell", "containers.kdl:"],
    );
    assert!(Path::new(world.store()).exists());
    nothing_is_left(&world);
}
