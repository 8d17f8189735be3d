//! A runtime that is killed, or finds no room, no inode and no process to make: afterwards `delete --force` leaves
//! nothing of the container, and says that it has.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ctk_e2e::bundle::{Bundle, Runtime, View};
use ctk_e2e::{Output, eventually, has_programs, is_root};
use serde_json::{Value, json};

/// At how many moments a verb is killed.
const MOMENTS: u32 = 20;

fn bundles(controllers: &[&str]) -> Vec<Bundle> {
    if !is_root() || !has_programs(&["unshare", "busybox", "find"]) {
        return Vec::new();
    }
    let views = match controllers {
        [] => vec![View::Machine],
        controllers => View::all(controllers),
    };
    views.into_iter().map(|view| Bundle::new(Runtime::Ours).in_view(view)).collect()
}

/// A container whose name is in the command lines of its processes.
fn configure(bundle: &Bundle, changes: &Value) {
    bundle.configure(&json!({
        "process": { "args": ["sh", "-c", "while true; do sleep 1; done", "@ID@"] },
        "root": { "readonly": false },
        "linux": { "cgroupsPath": "/@ID@" },
    }));
    let text = fs::read_to_string(bundle.path("config.json")).expect("it");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    for (name, value) in changes.as_object().into_iter().flatten() {
        config[name] = value.clone();
    }
    fs::write(bundle.path("config.json"), bundle.replace(&config.to_string())).expect("a file");
}

/// What is left of a container: processes, mounts, cgroups, and what the state root has of it.
fn left(bundle: &Bundle) -> Vec<String> {
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc").expect("processes").flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&bundle.id) {
            left.push(format!("process {} {line}", entry.file_name().display()));
        }
    }
    let folder = bundle.path("").display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    left.extend(mounts.lines().filter(|line| line.contains(&folder)).map(|line| format!("mount {line}")));
    for entry in fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
        if entry.path().join(&bundle.id).exists() {
            left.push(format!("cgroup {}", entry.path().join(&bundle.id).display()));
        }
    }
    let state = bundle.path("state").join(&bundle.id);
    if state.exists() {
        left.push(format!("state {:?}", fs::read_dir(state).map(|all| all.flatten().collect::<Vec<_>>())));
    }
    left
}

/// Nothing is left, or will be in a moment: the kernel takes processes away after it has told their end.
#[track_caller]
fn nothing_is_left(bundle: &Bundle, when: &str) {
    let started = Instant::now();
    loop {
        let left = left(bundle);
        if left.is_empty() {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{when}: {left:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The runtime itself, without a process between it and us, once it is told to go.
struct Ready(Child);

impl Ready {
    fn new(bundle: &Bundle, arguments: &[&str]) -> Ready {
        // Makes the link.
        let _ = bundle.status();
        let hide = if bundle.view() == View::Legacy { "umount /sys/fs/cgroup/unified 2>/dev/null; " } else { "" };
        let script = format!("{hide}echo ready; read go; exec \"$@\" < /dev/null > /dev/null 2>&1");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--", "sh", "-c", &script, "sh"]);
        command.arg(bundle.path("ctk-runtime")).arg("--root").arg(bundle.path("state")).args(arguments);
        command.arg(&bundle.id).current_dir(bundle.path("")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("unshare");
        let mut line = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut line).expect("a line");
        Ready(child)
    }

    fn go(&mut self) {
        self.0.stdin.take().expect("piped").write_all(b"\n").expect("a line");
    }
}

fn is_over(bundle: &Bundle, when: &str) {
    let output = bundle.quietly(&["delete", "--force", &bundle.id]);
    assert!(output.status.success(), "{when}: {}", output.story());
    nothing_is_left(bundle, when);
}

/// Kills `verb` at moments from its start to a little after its end, each time after `before`.
fn killed(verb: &[&str], before: &[&[&str]]) {
    for view in View::all(&["pids"]) {
        let Some(bundle) = bundles(&[]).pop() else { return };
        let bundle = bundle.in_view(view);
        configure(&bundle, &json!({}));
        let prepare = || {
            for arguments in before {
                bundle.quietly(&[arguments, &[bundle.id.as_str()][..]].concat()).ok();
            }
        };
        // How long it takes undisturbed: the median of five.
        let mut took: Vec<Duration> = (0..5)
            .map(|_| {
                prepare();
                let mut ready = Ready::new(&bundle, verb);
                let started = Instant::now();
                ready.go();
                assert!(ready.0.wait().expect("its end").success(), "{verb:?}");
                let took = started.elapsed();
                is_over(&bundle, "undisturbed");
                took
            })
            .collect();
        took.sort();
        let step = took[2].mul_f64(1.2) / MOMENTS;
        for moment in 0..MOMENTS {
            prepare();
            let mut ready = Ready::new(&bundle, verb);
            ready.go();
            std::thread::sleep(step * moment);
            let _ = ready.0.kill();
            let _ = ready.0.wait();
            is_over(&bundle, &format!("{verb:?}, killed after {:?}, {view:?}", step * moment));
        }
    }
}

/// Who waits in a container that stands still keeps nobody from letting it go on, or from removing it.
#[test]
fn an_exec_into_a_paused_container_is_in_nobodys_way() {
    for bundle in bundles(&["freezer"]) {
        configure(&bundle, &json!({}));
        let id = bundle.id.as_str();
        bundle.quietly(&["run", "--detach", id]).ok();
        for end in [&["resume", id][..], &["delete", "--force", id]] {
            bundle.quietly(&["pause", id]).ok();
            let mut exec = bundle.command(&["exec", "--ignore-paused", id, "true"]);
            let mut exec = exec.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("exec");
            // Once it has let go of the container, others see it at once.
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(bundle.status().as_deref(), Some("paused"));
            assert!(exec.try_wait().expect("it").is_none(), "it ran in a container that stands still");
            bundle.quietly(end).ok();
            let mut code = None;
            eventually(Duration::from_secs(20), "its end", || {
                code = exec.try_wait().expect("it");
                code.is_some()
            });
            // One that is removed is thawed for that, and may be quick.
            assert!(code.expect("a code").success() || end[0] == "delete");
        }
        assert_eq!(left(&bundle), Vec::<String>::new());
    }
}

#[test]
fn a_killed_create_leaves_nothing_after_delete() {
    killed(&["create"], &[]);
}

#[test]
fn a_killed_start_leaves_nothing_after_delete() {
    killed(&["start"], &[&["create"]]);
}

#[test]
fn a_killed_delete_leaves_nothing_after_delete() {
    killed(&["delete", "--force"], &[&["create"], &["start"]]);
    killed(&["delete"], &[&["create"], &["kill"]]);
}

#[test]
fn a_killed_run_leaves_nothing_after_delete() {
    killed(&["run", "--detach"], &[]);
}

/// Runs a script that has the runtime and the container's name as `$runtime` and `$id`, in a mount namespace of its own.
fn script(bundle: &Bundle, script: &str) -> Output {
    let _ = bundle.status();
    let script = match bundle.view() {
        View::Machine => script.to_owned(),
        View::Legacy => format!("umount /sys/fs/cgroup/unified 2>/dev/null; {script}"),
    };
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--", "timeout", "60", "sh", "-c", &script]);
    command.env("id", &bundle.id).current_dir(bundle.path("")).stdin(Stdio::null());
    command
        .env("runtime", format!("{} --root {}", bundle.path("ctk-runtime").display(), bundle.path("state").display()));
    ctk_e2e::run(command)
}

/// The state root has this little room, then this few inodes: whatever works and whatever does not, nothing is left.
#[test]
fn a_full_state_root_leaves_nothing() {
    for bundle in bundles(&[]) {
        configure(&bundle, &json!({}));
        fs::create_dir_all(bundle.path("state")).expect("a folder");
        let (mut failed, mut made) = (0, 0);
        let room = (1..8).map(|pages| format!("size={}k", pages * 4));
        let inodes = (2..10).map(|count| format!("size=1m,nr_inodes={count}"));
        for option in room.chain(inodes) {
            let output = script(
                &bundle,
                &format!(
                    "mount -t tmpfs -o {option} tmpfs state || exit 9
                     if $runtime create $id > said 2>&1 < /dev/null; then
                         echo made
                         dd if=/dev/zero of=state/fill bs=1k 2>/dev/null
                         $runtime start $id > said 2>&1 < /dev/null; echo \"start $?\"
                     else
                         echo failed
                         test -d state/$id && {{ ls state/$id; exit 8; }}
                         grep -q 'No space left' said || {{ cat said; exit 7; }}
                     fi
                     $runtime delete --force $id || exit 6
                     rm -f state/fill
                     ls -A state"
                ),
            );
            match output.out.lines().collect::<Vec<_>>().as_slice() {
                ["failed"] if output.status.success() => failed += 1,
                ["made", start] if output.status.success() && start.starts_with("start ") => made += 1,
                _ => panic!("{option}: {}\n{}", output.story(), left(&bundle).join("\n")),
            }
            nothing_is_left(&bundle, &option);
        }
        assert!(failed > 3 && made > 1, "{failed} failed, {made} made");
    }
}

/// The bundle's file system is full: neither mount points nor the file with the process id can be made.
#[test]
fn a_full_bundle_leaves_nothing() {
    for bundle in bundles(&[]) {
        let mount = json!({ "destination": "/no/such/place", "type": "tmpfs", "source": "tmpfs" });
        let mounts: Vec<Value> = vec![json!({ "destination": "/proc", "type": "proc", "source": "proc" }), mount];
        configure(&bundle, &json!({ "mounts": mounts }));
        let output = script(
            &bundle,
            "mkdir full && mount -t tmpfs -o size=8m tmpfs full && cp -a rootfs config.json full/ || exit 9
             dd if=/dev/zero of=full/fill bs=4k 2>/dev/null
             for left in $(seq 200); do : > full/inode-$left || break; done 2>/dev/null
             mount -o remount,nr_inodes=$(df -i full | awk 'END { print $3 }') full
             $runtime create --bundle full $id > said 2>&1 < /dev/null && exit 8
             grep -q 'No space left' said || { cat said; exit 7; }
             ls -A state
             rm full/fill full/inode-1; mkdir -p full/rootfs/no/such/place
             dd if=/dev/zero of=full/fill bs=4k 2>/dev/null
             $runtime create --bundle full --pid-file full/pid $id > said 2>&1 < /dev/null && exit 6
             grep -q 'No space left' said || { cat said; exit 5; }
             ls -A state full | grep pid
             $runtime delete --force $id",
        );
        assert!(output.status.success() && output.out.is_empty(), "{}", output.story());
        nothing_is_left(&bundle, "a full bundle");
    }
}

/// A cgroup around the runtime in which there may be no further process.
#[test]
fn without_processes_to_make_nothing_is_left() {
    for bundle in bundles(&["pids"]) {
        let around = std::path::Path::new("/sys/fs/cgroup/pids").join(format!("{}-caller", bundle.id));
        fs::create_dir(&around).expect("a cgroup");
        let limited = |limit: u32, arguments: &str| {
            fs::write(around.join("pids.max"), limit.to_string()).expect("a limit");
            let line = format!(
                "echo 0 > {}/cgroup.procs; exec $runtime {arguments} $id < /dev/null > said 2>&1",
                around.display()
            );
            // `timeout` and the shell before us are in no limited cgroup.
            let output = script(&bundle, &line);
            (output.code(), fs::read_to_string(bundle.path("said")).unwrap_or_default())
        };
        configure(&bundle, &json!({}));
        for verb in ["create", "run", "run --detach"] {
            let (code, said) = limited(1, verb);
            assert!(code == 1 && said.contains("Resource temporarily unavailable"), "{verb}: {code} {said}");
            nothing_is_left(&bundle, verb);
        }
        // Whoever may make none can still start one that was made, look at it and delete it.
        assert_eq!(limited(2, "create").0, 0);
        for verb in ["state", "start", "ps --format json", "pause", "resume", "kill", "delete --force"] {
            let (code, said) = limited(1, verb);
            assert_eq!(code, 0, "{verb}: {said}");
        }
        nothing_is_left(&bundle, "delete");
        // Hooks are processes, too.
        let hook = json!([{ "path": "/bin/true", "args": ["true"] }]);
        configure(&bundle, &json!({ "hooks": { "createRuntime": hook } }));
        let (code, said) = limited(1, "create");
        assert_eq!(code, 1, "{said}");
        nothing_is_left(&bundle, "a hook");
        // Inside, limits count from the first process on: one is too few for a runtime that would need a second.
        configure(&bundle, &json!({}));
        assert_eq!(limited(2, "run --detach").0, 0);
        fs::write(
            bundle.path("process.json"),
            json!({ "args": ["true"], "cwd": "/", "env": ["PATH=/bin"] }).to_string(),
        )
        .expect("a file");
        let (code, said) = limited(1, "exec --process process.json");
        assert!(code == 255 && said.contains("Resource temporarily unavailable"), "{code} {said}");
        is_over(&bundle, "exec");
        eventually(Duration::from_secs(5), "an empty cgroup", || fs::remove_dir(&around).is_ok());
    }
}
