//! What containers tried against runtimes, each with its number: it must not work against `ctk-runtime`.

use std::fs;
use std::os::unix::fs::symlink;

use ctk_e2e::bundle::{Bundle, Runtime};
use ctk_e2e::{Output, has_programs, is_root};
use serde_json::{Value, json};

fn bundle() -> Option<Bundle> {
    (is_root() && has_programs(&["unshare", "busybox"])).then(|| Bundle::new(Runtime::Ours))
}

fn run(bundle: &Bundle, changes: &Value) -> Output {
    bundle.configure(changes);
    bundle.quietly(&["run", "--bundle", &bundle.path("").display().to_string(), &bundle.id])
}

/// The runtime's own program, as a container could reach it through `/proc/self/exe` (CVE-2019-5736): a container whose
/// program is that link, or a script for it, must not get a file that it can write.
#[test]
fn the_runtimes_program_cannot_be_written() {
    let Some(bundle) = bundle() else { return };
    let root = bundle.path("rootfs");
    fs::write(root.join("bin/evil"), "#!/proc/self/exe\n").expect("a file");
    fs::set_permissions(root.join("bin/evil"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
    let before = fs::read(ctk_e2e::binary()).expect("ctk");
    for program in ["/proc/self/exe", "/bin/evil"] {
        // Where it needs no libraries it may even run there: it is what it was all the same.
        run(&bundle, &json!({ "process": { "args": [program, "--version"] } }));
    }
    // One that waits for its start is the runtime's program still.
    bundle.configure(&json!({ "process": { "args": ["true"] } }));
    let pid_file = bundle.path("pid").display().to_string();
    assert!(bundle.quietly(&["create", "--pid-file", &pid_file, &bundle.id]).status.success());
    let pid = fs::read_to_string(&pid_file).expect("a pid");
    let program = rustix::fs::statvfs(format!("/proc/{pid}/exe")).expect("a program");
    assert!(program.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{:?}", program.f_flag);
    assert!(bundle.quietly(&["delete", "--force", &bundle.id]).status.success());
    let exec = json!({ "process": { "args": ["sleep", "100"] } });
    bundle.configure(&exec);
    assert!(bundle.quietly(&["run", "--detach", &bundle.id]).status.success());
    // A process that comes in cannot be looked into before it is its program.
    bundle.runtime(&["exec", &bundle.id, "/proc/self/exe", "--version"]);
    assert!(fs::read(ctk_e2e::binary()).expect("ctk") == before, "the program was written");
}

/// The same, by a container that looks at every process that comes in, as one may with `CAP_SYS_PTRACE`.
#[test]
fn the_runtimes_program_cannot_be_written_by_who_watches() {
    let Some(bundle) = bundle() else { return };
    // Its own programs are on a read-only root: what can be written is not its own. Counted is what it saw of others.
    let script = "echo 0 > /dev/shm/seen; while :; do for process in /proc/[0-9]*; do \
                  case $(readlink $process/exe) in /bin/busybox | '') ;; *) echo 1 > /dev/shm/seen ;; esac; \
                  if (exec 3>> $process/exe) 2> /dev/null; then echo $process > /dev/shm/written; fi; done; done";
    let capabilities = json!(["CAP_SYS_PTRACE", "CAP_KILL"]);
    bundle.configure(&json!({ "process": {
        "args": ["sh", "-c", script],
        "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
    } }));
    assert!(bundle.quietly(&["run", "--detach", &bundle.id]).status.success());
    for _ in 0..200 {
        bundle.runtime(&["exec", &bundle.id, "true"]).ok();
    }
    let output =
        bundle.runtime(&["exec", &bundle.id, "sh", "-c", "cat /dev/shm/written 2>/dev/null; cat /dev/shm/seen"]);
    assert!(["0\n", "1\n"].contains(&output.out.as_str()), "{}", output.story());
}

/// The same where the program belongs to an ordinary user, who is root in his containers: they run from a sealed copy.
#[test]
fn an_ordinary_users_program_cannot_be_written() {
    if !is_root() || !has_programs(&["unshare", "busybox", "setpriv", "chown"]) {
        return;
    }
    let bundle = Bundle::ordinary(Runtime::Ours);
    let program = bundle.path("ctk-runtime");
    fs::copy(ctk_e2e::binary(), &program).expect("a copy");
    bundle.give(&program);
    bundle.configure(&json!({ "process": { "args": ["true"] } }));
    let pid_file = bundle.path("pid").display().to_string();
    let output = bundle.quietly(&["create", "--pid-file", &pid_file, &bundle.id]);
    assert!(output.status.success(), "{}", output.story());
    let pid = fs::read_to_string(&pid_file).expect("a pid");
    let link = format!("/proc/{pid}/exe");
    let target = fs::read_link(&link).expect("a link").display().to_string();
    assert!(target.starts_with("/memfd:ctk-runtime"), "{target}");
    // Not by root either.
    assert!(fs::File::options().write(true).open(&link).is_err(), "it can be written");
    assert_eq!(bundle.status().as_deref(), Some("created"));
    assert!(bundle.quietly(&["start", &bundle.id]).status.success());
    // Further processes, too.
    bundle.runtime(&["delete", "--force", &bundle.id]).ok();
    bundle.configure(&json!({ "process": { "args": ["sleep", "100"] } }));
    assert!(bundle.quietly(&["run", "--detach", &bundle.id]).status.success());
    assert_eq!(bundle.runtime(&["exec", &bundle.id, "echo", "inside"]).ok(), "inside\n");
    let output = bundle.runtime(&["exec", &bundle.id, "/proc/self/exe", "--version"]);
    assert!(!output.out.contains("ctk"), "{}", output.story());
}

/// A working directory that is a leaked file of the host (CVE-2024-21626).
#[test]
fn no_file_of_the_runtime_is_a_working_directory() {
    let Some(bundle) = bundle() else { return };
    for number in 3..40 {
        let cwd = format!("/proc/self/fd/{number}");
        let changes =
            json!({ "process": { "args": ["ls", "../../../var"], "cwd": cwd }, "root": { "readonly": false } });
        let output = run(&bundle, &changes);
        assert!(!output.status.success(), "{cwd}: {}", output.story());
    }
}

/// A mask that is no mask: an image's own `/dev/null` (CVE-2025-31133), and masks through links.
#[test]
fn masks_are_not_what_an_image_put_there() {
    let Some(bundle) = bundle() else { return };
    let root = bundle.path("rootfs");
    fs::write(root.join("dev/null"), "of the image\n").expect("a file");
    // Without a /dev of its own, the root's is what there is.
    bundle.configure(&json!({}));
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(bundle.path("config.json")).expect("it")).expect("JSON");
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|place| place.starts_with("/dev")));
    config["linux"]["maskedPaths"] = json!(["/etc/inside"]);
    config["process"]["args"] = json!(["cat", "/etc/inside"]);
    fs::write(bundle.path("config.json"), config.to_string()).expect("a file");
    let output = bundle.quietly(&["run", &bundle.id]);
    assert!(!output.status.success() && output.out.is_empty(), "{}", output.story());
    fs::remove_file(root.join("dev/null")).expect("gone");
    symlink("/etc/passwd", root.join("dev/null")).expect("a link");
    let output = bundle.quietly(&["run", &bundle.id]);
    assert!(!output.status.success() && output.out.is_empty(), "{}", output.story());
    // A link to a masked path is no way around it.
    symlink("/proc/kcore", root.join("kcore")).expect("a link");
    let changes = json!({ "process": { "args": ["head", "-c", "1", "/kcore"] }, "linux": { "maskedPaths": ["/kcore", "/proc/kcore"] } });
    assert_eq!(run(&bundle, &changes).out, "");
}

/// `/dev/console` and `/dev/pts` as links (CVE-2025-52565): the terminal is shown nowhere else.
#[test]
fn consoles_are_not_mounted_elsewhere() {
    let Some(bundle) = bundle() else { return };
    bundle.configure(&json!({}));
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(bundle.path("config.json")).expect("it")).expect("JSON");
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| mount["destination"] != json!("/dev"));
    config["process"]["terminal"] = true.into();
    config["process"]["args"] = json!(["true"]);
    fs::write(bundle.path("config.json"), config.to_string()).expect("a file");
    let console = bundle.path("rootfs/dev/console");
    symlink("/etc/passwd", &console).expect("a link");
    let output = bundle.quietly(&["run", &bundle.id]);
    assert!(!output.status.success() && output.err.contains("open a terminal"), "{}", output.story());
}

/// Settings and labels are not written into a file system that only looks like `/proc` (CVE-2019-19921,
/// CVE-2019-16884, CVE-2023-27561, CVE-2025-52881).
#[test]
fn settings_go_to_the_real_proc() {
    let Some(bundle) = bundle() else { return };
    let root = bundle.path("rootfs");
    fs::remove_dir(root.join("proc")).expect("gone");
    fs::create_dir_all(root.join("fake/sys/net/ipv4")).expect("a folder");
    fs::write(root.join("fake/sys/net/ipv4/ip_forward"), "0\n").expect("a file");
    symlink("/fake", root.join("proc")).expect("a link");
    let changes = json!({ "process": { "args": ["true"] }, "linux": { "sysctl": { "net.ipv4.ip_forward": "1" } } });
    let output = run(&bundle, &changes);
    // Not mounted through a link, and nothing written to what stands there.
    assert!(!output.status.success() && output.err.contains("mount proc"), "{}", output.story());
    assert_eq!(fs::read_to_string(root.join("fake/sys/net/ipv4/ip_forward")).expect("it"), "0\n");
}

/// Mount points through links of the root, `/dev` among them (CVE-2026-41579, CVE-2026-47766, CVE-2024-45310): nothing
/// is made or mounted outside.
#[test]
fn mount_points_stay_inside() {
    let Some(bundle) = bundle() else { return };
    let root = bundle.path("rootfs");
    let outside = bundle.path("elsewhere");
    fs::create_dir_all(&outside).expect("a folder");
    fs::remove_dir(root.join("dev")).expect("gone");
    symlink(&outside, root.join("dev")).expect("a link");
    let output = run(&bundle, &json!({ "process": { "args": ["true"] } }));
    assert!(!output.status.success(), "{}", output.story());
    assert_eq!(fs::read_dir(&outside).expect("it").count(), 0);
    fs::remove_file(root.join("dev")).expect("gone");
    fs::create_dir(root.join("dev")).expect("a folder");
    symlink(&outside, root.join("escape")).expect("a link");
    let mount = json!({ "destination": "/escape/made/here", "type": "bind", "source": "@HOST@", "options": ["bind"] });
    let output =
        run(&bundle, &json!({ "process": { "args": ["true"] }, "root": { "readonly": false }, "mounts+": [mount] }));
    drop(output);
    assert_eq!(fs::read_dir(&outside).expect("it").count(), 0);
}

/// Ids are numbers and nothing else (CVE-2026-30892); an environment takes nothing from the runtime's own
/// (CVE-2026-57231); inheritable capabilities are those asked for, usually none (CVE-2022-29162).
#[test]
fn ids_and_environments_are_taken_at_their_word() {
    let Some(bundle) = bundle() else { return };
    let changes = json!({ "process": { "args": ["env"], "env": ["PATH=/bin", "CALLER", "CALL*", "=x"] } });
    let output = run(&bundle, &changes);
    assert!(output.status.success() && !output.out.contains("CALLER=1"), "{}", output.story());
    bundle.configure(&json!({ "process": { "args": ["sleep", "100"] } }));
    assert!(bundle.quietly(&["run", "--detach", &bundle.id]).status.success());
    for user in ["-1", "1x", "4294967295", "4294967296", "root", "0:", ":0", " 1"] {
        let output = bundle.runtime(&["exec", "--user", user, &bundle.id, "id"]);
        assert!(!output.status.success() && output.err.contains("user or group id"), "`{user}`: {}", output.story());
    }
    let inherited = bundle.runtime(&["exec", &bundle.id, "grep", "CapInh", "/proc/self/status"]);
    assert_eq!(inherited.ok(), "CapInh:\t0000000000000000\n");
}

/// Files of the runtime and of its caller stay outside (CVE-2024-21626), also those of a process that comes in.
#[test]
fn no_file_is_handed_on() {
    let Some(bundle) = bundle() else { return };
    // 3 is what the shell reads the directory with.
    let list = "for file in /proc/self/fd/*; do echo ${file##*/}; done";
    let holds = |output: Output| assert_eq!(output.ok(), "0\n1\n2\n3\n");
    let with_files = |arguments: &[&str]| {
        let command = bundle.command(arguments);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let mut caller = std::process::Command::new("sh");
        caller.args(["-c", "exec 5</ 7</etc/passwd 9</proc; exec \"$@\"", "sh"]).args(words);
        caller.current_dir(bundle.path("")).stdin(std::process::Stdio::null());
        ctk_e2e::run(caller)
    };
    bundle.configure(&json!({ "process": { "args": ["sh", "-c", list] } }));
    holds(with_files(&["run", &bundle.id]));
    bundle.configure(&json!({ "process": { "args": ["sleep", "100"] } }));
    assert!(bundle.quietly(&["run", "--detach", &bundle.id]).status.success());
    holds(with_files(&["exec", &bundle.id, "sh", "-c", list]));
}

/// Lengths that do not fit where somebody packs them by hand (CVE-2021-43784): what asks for isolation is kept whole or
/// the container is not made.
#[test]
fn long_lists_lose_no_namespace() {
    let Some(bundle) = bundle() else { return };
    let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace").display().to_string();
    let script = "readlink /proc/self/ns/net; readlink /proc/self/ns/mnt; readlink /proc/self/ns/pid";
    let long = "x/".repeat(500);
    // Each of them is more than a number of 16 bits counts.
    let many: Vec<Value> = (0..80)
        .map(|index| json!({ "destination": format!("/tmp/{index}/{long}"), "type": "tmpfs", "source": "tmpfs" }))
        .collect();
    let changes =
        json!({ "process": { "args": ["sh", "-c", script] }, "root": { "readonly": false }, "mounts+": many });
    let output = run(&bundle, &changes);
    let lines = output.ok();
    assert_eq!(lines.lines().count(), 3);
    for name in ["net", "mnt", "pid"] {
        assert!(!lines.contains(&own(name)), "{lines}");
    }
    let mappings: Vec<Value> =
        (0..6000).map(|index| json!({ "containerID": index, "hostID": 100_000 + index, "size": 1 })).collect();
    let changes = json!({
        "process": { "args": ["true"] },
        "linux": { "namespaces+": [{ "type": "user" }], "uidMappings": mappings, "gidMappings": mappings },
    });
    let output = run(&bundle, &changes);
    assert!(!output.status.success() && output.err.contains("Mappings"), "{}", output.story());
    let path = format!("/proc/self/ns/net{}", "\u{0}".repeat(70_000));
    let changes =
        json!({ "process": { "args": ["true"] }, "linux": { "namespaces": [{ "type": "network", "path": path }] } });
    let output = run(&bundle, &changes);
    assert!(!output.status.success(), "{}", output.story());
    assert_eq!(bundle.status(), None);
}

/// An ordinary user's cgroups, shown by a `/sys` of the machine, cannot be written from a container that has no cgroup
/// namespace (CVE-2023-25809).
#[test]
fn cgroups_of_the_user_are_not_the_containers() {
    let Some(bundle) = bundle() else { return };
    let version_2 = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].into_iter();
    let version_2 = version_2.map(std::path::Path::new).find(|path| path.join("cgroup.controllers").exists());
    if !has_programs(&["setpriv"]) || !ctk_e2e::has("cgroup version 2", version_2.is_some()) {
        return;
    }
    let given = version_2.expect("was asked").join(format!("{}-given", bundle.id));
    fs::create_dir(&given).expect("a cgroup");
    std::os::unix::fs::chown(&given, Some(65_534), Some(65_534)).expect("an owner");
    let as_user = |words: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", "sh", "-c"]);
        command.arg("exec \"$@\"").arg("sh").args(words).current_dir(bundle.path("host"));
        ctk_e2e::run(command)
    };
    std::os::unix::fs::chown(bundle.path("host"), Some(65_534), Some(65_534)).expect("an owner");
    // The binary may stand where only root can go.
    let program = bundle.path("program");
    fs::copy(ctk_e2e::binary(), &program).expect("a copy");
    symlink("program", bundle.path("ctk-runtime")).expect("a link");
    let runtime = bundle.path("ctk-runtime").display().to_string();
    as_user(&[&runtime, "spec", "--rootless"]).ok();
    let text = fs::read_to_string(bundle.path("host/config.json")).expect("it");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["process"]["terminal"] = false.into();
    config["process"]["env"] = json!(["PATH=/bin"]);
    config["process"]["rlimits"] = json!([]);
    config["process"]["args"] =
        json!(["sh", "-c", format!("mkdir {}/evil && echo made; ls /sys/fs/cgroup; true", given.display())]);
    config["root"]["path"] = bundle.path("rootfs").display().to_string().into();
    let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|namespace| namespace["type"] != json!("cgroup"));
    fs::write(bundle.path("host/config.json"), config.to_string()).expect("a file");
    let state = bundle.path("host/state").display().to_string();
    let output = as_user(&[&runtime, "--root", &state, "run", &bundle.id]);
    let made = given.join("evil").exists();
    let _ = fs::remove_dir(given.join("evil"));
    fs::remove_dir(&given).expect("an empty cgroup");
    assert!(output.status.success() && output.out.is_empty() && !made, "{}", output.story());
}

/// A label that the kernel cannot give is an error, not a container without it. `runtime_machine` has a kernel that can.
#[test]
fn labels_are_given_or_refused() {
    let Some(bundle) = bundle() else { return };
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    for (field, module) in [("apparmorProfile", "apparmor"), ("selinuxLabel", "selinux")] {
        if modules.contains(module) {
            continue;
        }
        let changes = json!({ "process": { "args": ["true"], field: "e2e" } });
        let output = run(&bundle, &changes);
        assert!(!output.status.success() && output.err.contains(field), "{}", output.story());
    }
}
