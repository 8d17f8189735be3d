//! Containers of ordinary users, and user namespaces that are there already; with crun and runc where they can.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ctk_e2e::bundle::{Bundle, Runtime};
use ctk_e2e::ordinary::User;
use ctk_e2e::{Output, contains, eventually, has, has_programs, is_root, run};
use serde_json::{Value, json};

fn ready() -> bool {
    is_root() && has_programs(&["unshare", "busybox", "setpriv", "chown"])
}

fn run_in(bundle: &Bundle, changes: &Value) -> Output {
    bundle.configure(changes);
    bundle.quietly(&["run", "--bundle", &bundle.path("").display().to_string(), &bundle.id])
}

/// Starts a container that sleeps.
fn sleeping(bundle: &Bundle, changes: &Value) {
    let mut all = json!({ "process": { "args": ["sleep", "100"] } });
    for (name, change) in changes.as_object().expect("changes") {
        all[name] = change.clone();
    }
    bundle.configure(&all);
    let output = bundle.quietly(&["run", "--detach", &bundle.id]);
    assert!(output.status.success(), "{}", output.story());
}

#[test]
fn an_ordinary_user_executes_in_his_container() {
    if !ready() {
        return;
    }
    for runtime in Runtime::all() {
        let bundle = Bundle::ordinary(runtime);
        sleeping(&bundle, &json!({ "hostname": "inside" }));
        let exec = |words: &[&str]| bundle.runtime(&[&["exec", &bundle.id], words].concat());
        assert_eq!(exec(&["id", "-u"]).ok(), "0\n", "{}", runtime.name());
        assert_eq!(exec(&["hostname"]).ok(), "inside\n");
        // In its process ids, mounts and user namespace.
        contains(&exec(&["ps"]).ok(), &["1 root", "sleep 100"]);
        assert_eq!(exec(&["cat", "/etc/inside"]).ok(), "yes\n");
        let same = "for n in user pid mnt net uts ipc; do \
                    test $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) || echo $n; done";
        assert_eq!(exec(&["sh", "-c", same]).ok(), "");
        exec(&["sh", "-c", "exit 9"]).fails(9);
        exec(&["sh", "-c", "kill -TERM $$"]).fails(128 + 15);
        assert!(!exec(&["no-such-program"]).status.success());
        let file = bundle.path("pid").display().to_string();
        let output = bundle.quietly(&["exec", "--detach", "--pid-file", &file, &bundle.id, "sleep", "77"]);
        assert!(output.status.success(), "{}", output.story());
        let pid = fs::read_to_string(&file).expect("a process id");
        // runc 1.1 comes back a moment before.
        eventually(Duration::from_secs(10), "its program", || {
            fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == "sleep\0".to_owned() + "77\0")
        });
        assert!(bundle.quietly(&["delete", "--force", &bundle.id]).status.success());
        eventually(Duration::from_secs(10), "its end", || fs::metadata(format!("/proc/{pid}/exe")).is_err());
    }
}

/// What `exec` makes of its options is what crun makes of them.
#[test]
fn exec_has_the_options_that_others_have() {
    if !ready() {
        return;
    }
    let mut told: Vec<(Runtime, Vec<String>)> = Vec::new();
    for runtime in Runtime::all() {
        let bundle = Bundle::new(runtime);
        sleeping(&bundle, &json!({}));
        let script = "id -u; id -g; id -G; pwd; echo $A; echo ${HOME:-/}; \
                      grep -E 'CapEff|CapPrm|CapBnd|CapInh|NoNewPrivs' /proc/self/status";
        let cases: [&[&str]; 8] = [
            &[],
            &["--user", "5:6"],
            &["--user", "5"],
            &["--cap", "CAP_NET_ADMIN"],
            &["--user", "0", "--cap", "CAP_NET_ADMIN", "--cap", "CAP_SYS_TIME"],
            &["--env", "PATH=/bin", "--env", "A=b", "--env", "HOME=/elsewhere"],
            &["--cwd", "/tmp"],
            &["--no-new-privs"],
        ];
        let said = cases.iter().map(|case| {
            let words = [&["exec"][..], case, &[&bundle.id, "sh", "-c", script]].concat();
            format!("{case:?}\n{}", bundle.runtime(&words).ok())
        });
        told.push((runtime, said.collect()));
        // crun 1.8 has no such option.
        if runtime != Runtime::Crun {
            let groups = ["--user", "5:6", "--additional-gids", "7", "--additional-gids", "8"];
            let words = [&["exec"][..], &groups, &[&bundle.id, "id", "-G"]].concat();
            assert_eq!(bundle.runtime(&words).ok(), "6 7 8\n", "{}", runtime.name());
        }
    }
    let (_, ours) = told.first().expect("ours");
    for (runtime, theirs) in told.iter().skip(1) {
        for (ours, theirs) in ours.iter().zip(theirs) {
            // crun 1.8 gives those alone, and runc 1.1 and we those beside the container's.
            if *runtime != Runtime::Crun || !ours.contains("--cap") {
                assert_eq!(ours, theirs, "{}", runtime.name());
            }
        }
    }
}

/// Where the kernel has no AppArmor and no SELinux, what asks for them is told so; it is never passed over.
#[test]
fn exec_refuses_labels_that_the_kernel_does_not_have() {
    if !ready() {
        return;
    }
    let has_module = |path: &str| fs::metadata(path).is_ok();
    let bundle = Bundle::new(Runtime::Ours);
    sleeping(&bundle, &json!({}));
    for (option, module, path) in [
        ("--apparmor", "AppArmor", "/sys/kernel/security/apparmor"),
        ("--process-label", "SELinux", "/sys/fs/selinux/enforce"),
    ] {
        if !has_module(path) {
            let output = bundle.runtime(&["exec", option, "a-label", &bundle.id, "true"]);
            contains(&output.fails(255), &["a-label", module, "not in use in this kernel"]);
        }
    }
    // What asks for nothing is given.
    bundle.runtime(&["exec", "--apparmor", "unconfined", "--process-label", "", &bundle.id, "true"]).ok();
}

/// `exec --cgroup`: below the container's own, in all hierarchies or in one.
#[test]
fn exec_goes_into_a_cgroup_below() {
    if !ready() {
        return;
    }
    let bundle = Bundle::new(Runtime::Ours);
    sleeping(&bundle, &json!({}));
    let pid = state(&bundle)["pid"].as_i64().expect("a process id");
    let of = |pid: i64| fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroups");
    let line = of(pid).lines().find(|line| line.contains(":pids:")).map(String::from);
    if !has("the pids controller of cgroup version 1", line.is_some()) {
        return;
    }
    let line = line.unwrap_or_default();
    let own = line.rsplit(':').next().expect("a path");
    let below = format!("/sys/fs/cgroup/pids{own}/below");
    fs::create_dir(&below).expect("a cgroup");
    let read = ["grep", "pids", "/proc/self/cgroup"];
    let exec = |cgroup: &str| bundle.runtime(&[&["exec", "--cgroup", cgroup, &bundle.id][..], &read].concat());
    assert_eq!(exec("pids:below").ok(), format!("{line}/below\n"));
    assert_eq!(exec("/").ok(), format!("{line}\n"));
    // It is not there in the others.
    contains(&exec("below").fails(255), &["--cgroup `below`", "is not there"]);
    contains(&exec("pids:../..").fails(255), &["leads upwards"]);
    contains(&exec("hat:below").fails(255), &["no cgroup hierarchy"]);
    // A limit of its own holds there.
    fs::write(format!("{below}/pids.max"), "1").expect("a limit");
    let script = ["exec", "--cgroup", "pids:below", &bundle.id, "sh", "-c", "ls; echo more"];
    let output = bundle.runtime(&script);
    assert!(output.err.contains("fork"), "{}", output.story());
}

/// A version 2 cgroup that was divided takes no processes: a further one goes where the first one went, and not out of
/// the container's.
#[test]
fn exec_follows_into_a_divided_cgroup() {
    if !ready() {
        return;
    }
    let bundle = Bundle::new(Runtime::Ours);
    sleeping(&bundle, &json!({}));
    let pid = state(&bundle)["pid"].to_string();
    let of = |pid: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroups");
        text.lines().find_map(|line| line.strip_prefix("0::").map(String::from))
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    let (Some(own), Some(mount)) = (of(&pid), mount) else {
        has("cgroup version 2", false);
        return;
    };
    let path = format!("{mount}{own}");
    let offered = fs::read_to_string(format!("{path}/cgroup.controllers")).unwrap_or_default();
    // One that takes no thread of its own: what is divided by it holds processes in leaves only.
    let controller = offered.split_whitespace().find(|name| matches!(*name, "hugetlb" | "memory" | "io"));
    if !has("a controller of cgroup version 2", controller.is_some()) {
        return;
    }
    fs::create_dir(format!("{path}/inner")).expect("a cgroup");
    fs::write(format!("{path}/inner/cgroup.procs"), &pid).expect("moved");
    fs::write(format!("{path}/cgroup.subtree_control"), format!("+{}", controller.unwrap_or_default()))
        .expect("divided");
    let line = bundle.runtime(&["exec", &bundle.id, "grep", "0::", "/proc/self/cgroup"]).ok();
    assert_eq!(line, format!("0::{own}/inner\n"));
}

fn state(bundle: &Bundle) -> Value {
    serde_json::from_str(&bundle.runtime(&["state", &bundle.id]).ok()).expect("a state")
}

/// A process of somebody whose user namespace others join.
struct Holder(Child);

impl Holder {
    fn start(bundle: &Bundle, words: &[&str]) -> Holder {
        let mut all = bundle.as_user();
        all.extend(words.iter().map(|word| (*word).to_owned()));
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).stdin(Stdio::null()).stdout(Stdio::null());
        Holder(command.spawn().expect("a process"))
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }

    fn is_ready(&self) -> bool {
        let map = fs::read_to_string(format!("/proc/{}/uid_map", self.0.id())).unwrap_or_default();
        !map.is_empty() && !map.contains("4294967295")
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const NAMESPACES: [&str; 5] = ["pid", "network", "ipc", "uts", "mount"];

fn namespaces(user: &str) -> Vec<Value> {
    let mut all: Vec<Value> = NAMESPACES.iter().map(|name| json!({ "type": name })).collect();
    all.push(json!({ "type": "user", "path": user }));
    all
}

#[test]
fn a_user_namespace_is_joined_by_its_owner() {
    if !ready() {
        return;
    }
    // runc 1.1 wants the mappings said.
    for runtime in Runtime::all().into_iter().filter(|runtime| *runtime != Runtime::Runc) {
        let bundle = Bundle::ordinary(runtime);
        let holder = Holder::start(&bundle, &["unshare", "--user", "--net", "--map-root-user", "sleep", "100"]);
        eventually(Duration::from_secs(10), "a user namespace", || holder.is_ready());
        let expected = fs::read_link(holder.path("user")).expect("a link").display().to_string();
        let script = "readlink /proc/self/ns/user; id -u; echo $$; cat /sys/class/net/lo/flags";
        let changes = json!({
            "process": { "args": ["sh", "-c", script] },
            "linux": { "namespaces": namespaces(&holder.path("user")), "uidMappings": null, "gidMappings": null },
        });
        let output = run_in(&bundle, &changes);
        assert_eq!(output.ok(), format!("{expected}\n0\n1\n0x9\n"), "{}", runtime.name());
        // And a namespace that belongs to it, which only its members may join.
        let mut all = namespaces(&holder.path("user"));
        all[1] = json!({ "type": "network", "path": holder.path("net") });
        let changes = json!({
            "process": { "args": ["readlink", "/proc/self/ns/net"] },
            "linux": { "namespaces": all, "uidMappings": null, "gidMappings": null },
        });
        let expected = fs::read_link(holder.path("net")).expect("a link").display().to_string();
        assert_eq!(run_in(&bundle, &changes).ok(), format!("{expected}\n"), "{}", runtime.name());
    }
}

#[test]
fn a_user_namespace_is_joined_by_root() {
    if !ready() {
        return;
    }
    let mapped = json!([{ "containerID": 0, "hostID": 100000, "size": 65536 }]);
    for runtime in Runtime::all() {
        let holder = Bundle::new(Runtime::Ours);
        let mut new: Vec<Value> = NAMESPACES.iter().map(|name| json!({ "type": name })).collect();
        new.push(json!({ "type": "user" }));
        sleeping(&holder, &json!({ "linux": { "namespaces": new, "uidMappings": mapped, "gidMappings": mapped } }));
        let pid = state(&holder)["pid"].as_i64().expect("a process id");
        let path = |name: &str| format!("/proc/{pid}/ns/{name}");
        let expected = fs::read_link(path("user")).expect("a link").display().to_string();
        let bundle = Bundle::new(runtime);
        let script = "readlink /proc/self/ns/user; tr -s ' ' < /proc/self/uid_map; id -u; echo $$; echo > /dev/null";
        let mut linux = json!({ "namespaces": namespaces(&path("user")) });
        let process = json!({ "args": ["sh", "-c", script] });
        let told = format!("{expected}\n 0 100000 65536\n0\n1\n");
        // runc 1.1 wants them said.
        if runtime != Runtime::Runc {
            let output = run_in(&bundle, &json!({ "process": process, "linux": linux }));
            assert_eq!(output.ok(), told, "{}", runtime.name());
        }
        (linux["uidMappings"], linux["gidMappings"]) = (mapped.clone(), mapped.clone());
        let output = run_in(&bundle, &json!({ "process": process, "linux": linux }));
        assert_eq!(output.ok(), told, "{}", runtime.name());
        if runtime != Runtime::Ours {
            continue;
        }
        linux["uidMappings"][0]["hostID"] = 200_000.into();
        let output = run_in(&bundle, &json!({ "process": process, "linux": linux }));
        contains(&output.fails(1), &["linux.uidMappings", "has 0:100000:65536"]);
        // With the process ids of its holder, too: a pod.
        let mut pod = namespaces(&path("user"));
        pod[0] = json!({ "type": "pid", "path": path("pid") });
        let changes = json!({ "process": { "args": ["readlink", "/proc/1/ns/pid"] }, "linux": { "namespaces": pod } });
        let expected = fs::read_link(path("pid")).expect("a link").display().to_string();
        assert_eq!(run_in(&bundle, &changes).ok(), format!("{expected}\n"));
        // A further process gets into such a container as into any other.
        sleeping(&bundle, &json!({ "linux": { "namespaces": namespaces(&path("user")) } }));
        assert_eq!(bundle.runtime(&["exec", &bundle.id, "id", "-u"]).ok(), "0\n");
    }
}

#[test]
fn a_tmpfs_begins_with_what_was_there() {
    if !ready() {
        return;
    }
    for bundle in [Bundle::new(Runtime::Ours), Bundle::ordinary(Runtime::Ours)] {
        let root = bundle.path("rootfs/target");
        fs::create_dir_all(root.join("deep/er")).expect("folders");
        fs::write(root.join("deep/er/file"), "content\n".repeat(100_000)).expect("a file");
        std::os::unix::fs::symlink("deep/er", root.join("link")).expect("a link");
        for number in 0..300 {
            fs::write(root.join(format!("a-rather-long-name-of-a-file-{number}")), "").expect("a file");
        }
        for (path, mode) in [("deep/er/file", 0o4710), ("deep", 0o2751)] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(root.join(path), mode).expect("a mode");
        }
        bundle.give(&root);
        // Owners that came with `chown` lose nothing but the setuid bit.
        let modes: Vec<u32> = ["deep/er/file", "deep"]
            .map(|path| std::os::unix::fs::MetadataExt::mode(&fs::metadata(root.join(path)).expect("it")) & 0o7777)
            .into();
        let script = "cd /target; echo new > new; ls | wc -l; readlink link; wc -c < link/file; stat -c %a deep/er/file deep; \
                      grep ' /target ' /proc/self/mountinfo | cut -d' ' -f9";
        let changes = json!({
            "process": { "args": ["sh", "-c", script] },
            "mounts+": [{ "destination": "/target", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] }],
        });
        let (file, deep) = (format!("{:o}", modes[0]), format!("{:o}", modes[1]));
        let output = run_in(&bundle, &changes);
        assert_eq!(output.ok(), format!("303\ndeep/er\n800000\n{file}\n{deep}\ntmpfs\n"));
        assert!(!root.join("new").exists());
    }
}

/// A cgroup that somebody gave the user is used without a word, and `cgroupsPath` is below it.
#[test]
fn delegated_cgroups_are_used() {
    if !ready() {
        return;
    }
    let bundle = Bundle::ordinary(Runtime::Ours);
    let user = bundle.as_user();
    let base = format!("/sys/fs/cgroup/{}", bundle.id);
    let under = |script: &str, words: &[&str]| {
        // Version 2 alone, in mounts of its own; a delegated cgroup, in a part of which the caller is.
        let prepare = format!(
            "umount -R /sys/fs/cgroup && mount -t cgroup2 c /sys/fs/cgroup && mkdir -p {base}/shell && \
             chown -R {} {base} && echo $$ > {base}/shell/cgroup.procs && {script}",
            user[2]
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--", "sh", "-c", &prepare, "sh"]);
        command.args(&user).arg(bundle.path("ctk-runtime")).arg("--root").arg(bundle.path("state")).args(words);
        command.current_dir(bundle.path("")).stdin(Stdio::null());
        run(command)
    };
    // Makes the link.
    let _ = bundle.runtime(&["list"]);
    bundle.configure(&json!({
        "process": { "args": ["sh", "-c", "grep 0:: /proc/self/cgroup"] },
        "linux": { "cgroupsPath": "/pods/one" },
    }));
    let output = under("exec \"$@\"", &["--debug", "run", &bundle.id]);
    contains(&output.err, &[&format!("{base}/pods/one")]);
    assert_eq!(output.ok(), format!("0::/{}/pods/one\n", bundle.id));
    // Freezing, killing and removing work with it.
    bundle.configure(&json!({ "process": { "args": ["sleep", "100"] } }));
    let life = format!(
        "\"$@\" </dev/null >/dev/null 2>&1; rt() {{ {} {} --root {} \"$@\"; }}; I={}; \
         rt pause $I && rt state $I | grep status; rt resume $I; rt exec $I grep 0:: /proc/self/cgroup; \
         rt kill --all $I KILL; sleep 0.5; rt delete $I; test ! -e {base}/$I && echo gone",
        user.join(" "),
        bundle.path("ctk-runtime").display(),
        bundle.path("state").display(),
        bundle.id,
    );
    let output = under(&life, &["run", "--detach", &bundle.id]);
    let expected = format!("  \"status\": \"paused\",\n0::/{0}/{0}\ngone\n", bundle.id);
    assert_eq!(output.ok(), expected);
    let _ = fs::remove_dir(format!("/sys/fs/cgroup/unified/{}/pods", bundle.id));
    for name in ["shell", ""] {
        let _ = fs::remove_dir(format!("/sys/fs/cgroup/unified/{}/{name}", bundle.id));
    }
}

/// A container with a range of subordinate ids: a further process is every user that there is.
#[test]
fn exec_knows_subordinate_ids() {
    if !ready() || !User::can_be() {
        return;
    }
    for runtime in Runtime::all() {
        let bundle = Bundle::of(runtime, User::new("frank", 54_351, Some((900_000, 65_536))));
        let process = json!({ "args": ["sleep", "100"], "user": { "uid": 5, "gid": 6 } });
        sleeping(&bundle, &json!({ "process": process, "root": { "readonly": false } }));
        let exec = |words: &[&str]| bundle.runtime(&[&["exec"][..], words].concat());
        let name = runtime.name();
        let script = "id -u; id -g; tr -s ' ' < /proc/self/uid_map; stat -c %u /proc/1";
        // crun 1.8 begins as root without being told.
        let own: &[&str] = if runtime == Runtime::Crun { &["--user", "5:6"] } else { &[] };
        let told = "5\n6\n 0 54351 1\n 1 900000 65536\n5\n";
        assert_eq!(exec(&[own, &[&bundle.id, "sh", "-c", script]].concat()).ok(), told, "{name}");
        assert_eq!(exec(&["--user", "0:0", &bundle.id, "sh", "-c", "id -u; id -g"]).ok(), "0\n0\n", "{name}");
        let script = "id -u; id -g; touch /tmp/file; stat -c %u:%g /tmp/file";
        fs::set_permissions(bundle.path("rootfs/tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .expect("a mode");
        assert_eq!(exec(&["--user", "1000:65535", &bundle.id, "sh", "-c", script]).ok(), "1000\n65535\n1000:65535\n");
        let owner = |path: &str| {
            let found = fs::metadata(bundle.path(path)).expect("a file");
            use std::os::unix::fs::MetadataExt;
            (found.uid(), found.gid())
        };
        assert_eq!(owner("rootfs/tmp/file"), (900_999, 965_534), "{name}");
        // An id that is not there, and groups that are.
        assert!(!exec(&["--user", "70000", &bundle.id, "true"]).status.success(), "{name}");
        if runtime == Runtime::Ours {
            let groups = ["--user", "5:6", "--additional-gids", "7", "--additional-gids", "8"];
            assert_eq!(exec(&[&groups[..], &[&bundle.id, "id", "-G"]].concat()).ok(), "6 7 8\n");
            contains(&exec(&["--user", "70000", &bundle.id, "true"]).err, &["70000"]);
        }
        bundle.runtime(&["kill", &bundle.id, "KILL"]).ok();
    }
}

/// A directory of a version 1 hierarchy that somebody gave to the user, with himself in a part of it.
struct Given(std::path::PathBuf);

impl Given {
    fn new(bundle: &Bundle, controller: &str) -> Option<Given> {
        let base = std::path::Path::new("/sys/fs/cgroup").join(controller);
        if !has(&format!("the {controller} controller of cgroup version 1"), base.join("cgroup.procs").exists()) {
            return None;
        }
        let path = base.join(&bundle.id);
        fs::create_dir_all(path.join("shell")).expect("a cgroup");
        bundle.give(&path);
        Some(Given(path))
    }

    /// Runs the runtime from within it.
    fn runtime(&self, bundle: &Bundle, words: &[&str]) -> Output {
        let inner = bundle.command(words);
        let mut command = Command::new("sh");
        let script = format!("echo $$ > {}/shell/cgroup.procs; exec \"$@\"", self.0.display());
        command.args(["-c", &script, "sh"]).arg(inner.get_program()).args(inner.get_args());
        command.current_dir(bundle.path("")).stdin(Stdio::null());
        run(command)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        for path in [self.0.join("shell"), self.0.clone()] {
            let _ = fs::remove_dir(path);
        }
    }
}

#[test]
fn delegated_cgroups_of_version_1_are_used() {
    if !ready() {
        return;
    }
    let bundle = Bundle::ordinary(Runtime::Ours);
    let forks = "for i in 1 2 3 4 5; do sleep 0.2 & done; wait; echo all";
    let limited = json!({
        "process": { "args": ["sh", "-c", forks] },
        "linux": { "resources": { "pids": { "limit": 3 } } },
    });
    // Without one a limit is refused, with what would help.
    let output = run_in(&bundle, &limited);
    contains(&output.fails(1), &["linux.resources.pids", "pids", "delegated to this user", "Delegate=yes"]);
    let Some(given) = Given::new(&bundle, "pids") else { return };
    let output = given.runtime(&bundle, &["--debug", "run", &bundle.id]);
    contains(&output.err, &[&given.0.join(&bundle.id).display().to_string(), "can't fork"]);
    assert!(!output.out.contains("all"), "{}", output.story());
    // The container's own is gone, and one by another path is below it.
    assert!(!given.0.join(&bundle.id).exists());
    bundle.configure(&json!({
        "process": { "args": ["sh", "-c", "grep pids /proc/self/cgroup"] },
        "linux": { "cgroupsPath": "/pods/one", "resources": { "pids": { "limit": 30 } } },
    }));
    let told = given.runtime(&bundle, &["run", &bundle.id]).ok();
    assert!(told.ends_with(&format!(":pids:/{}/pods/one\n", bundle.id)), "{told}");
    let _ = fs::remove_dir(given.0.join("pods"));
}

/// Who executes from outside of what was delegated is told which right is missing.
#[test]
fn a_cgroup_that_cannot_be_reached_is_named() {
    if !ready() {
        return;
    }
    let bundle = Bundle::ordinary(Runtime::Ours);
    let _ = bundle.runtime(&["list"]);
    bundle.configure(&json!({ "process": { "args": ["sleep", "100"] } }));
    let base = format!("/sys/fs/cgroup/{}", bundle.id);
    let user = bundle.as_user().join(" ");
    let runtime = format!("{} --root {}", bundle.path("ctk-runtime").display(), bundle.path("state").display());
    let script = format!(
        "umount -R /sys/fs/cgroup && mount -t cgroup2 c /sys/fs/cgroup && mkdir -p {base}/shell && chown -R {0} {base}\n\
         (echo 0 > {base}/shell/cgroup.procs; exec {user} {runtime} run --detach {id} </dev/null >/dev/null 2>&1)\n\
         {user} {runtime} exec {id} true; echo code $?\n\
         (echo 0 > {base}/shell/cgroup.procs; exec {user} {runtime} exec {id} echo inside)\n\
         {user} {runtime} delete --force {id}; rmdir {base}/shell; rmdir {base}",
        bundle.as_user()[2],
        id = bundle.id,
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--", "sh", "-c", &script]);
    command.current_dir(bundle.path("")).stdin(Stdio::null());
    let output = run(command);
    let place = format!("{base}/{}", bundle.id);
    contains(&output.err, &["start a process in the cgroup", &place, "`/sys/fs/cgroup/cgroup.procs`", "delegated"]);
    assert_eq!(output.ok(), "code 255\ninside\n");
}

/// Shells open `/dev/stdout` anew, which a pipe allows its owner only; with mapped ids that is another number here.
#[test]
fn pipes_are_their_users() {
    if !ready() {
        return;
    }
    let mapped = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    let mut with_users: Vec<Value> = NAMESPACES.iter().map(|name| json!({ "type": name })).collect();
    let alone = with_users.clone();
    with_users.push(json!({ "type": "user" }));
    for (namespaces, mappings) in [(alone, Value::Null), (with_users, mapped)] {
        let bundle = Bundle::new(Runtime::Ours);
        let streams = "echo out > /dev/stdout; echo err > /dev/stderr";
        let linux = json!({ "namespaces": namespaces, "uidMappings": mappings, "gidMappings": mappings });
        let user = json!({ "uid": 1000, "gid": 1000 });
        bundle.configure(&json!({ "process": { "args": ["sh", "-c", streams], "user": user }, "linux": linux }));
        let output = bundle.runtime(&["run", &bundle.id]);
        assert_eq!((output.out.as_str(), output.err.as_str()), ("out\n", "err\n"), "{}", output.story());
        bundle.configure(&json!({ "process": { "args": ["sleep", "100"] }, "linux": linux }));
        assert!(bundle.quietly(&["run", "--detach", &bundle.id]).status.success());
        let output = bundle.runtime(&["exec", "--user", "7", &bundle.id, "sh", "-c", streams]);
        assert_eq!((output.out.as_str(), output.err.as_str()), ("out\n", "err\n"), "{}", output.story());
    }
}

/// Groups by which its user may read files of the machine are none of the container's.
#[test]
fn groups_of_the_user_stay_outside() {
    if !ready() || !User::can_be() {
        return;
    }
    let with_groups = |bundle: &Bundle, words: &[&str]| {
        let _ = bundle.runtime(&["list"]);
        let user: Vec<String> =
            bundle.as_user().iter().map(|word| word.replace("--clear-groups", "--groups 54399")).collect();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--"]).args(user).arg(bundle.path("ctk-runtime"));
        command.arg("--root").arg(bundle.path("state")).args(words).current_dir(bundle.path("")).stdin(Stdio::null());
        run(command)
    };
    let secret = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file");
    fs::write(&secret, "of the group\n").expect("a file");
    std::os::unix::fs::chown(secret.path(), Some(0), Some(54_399)).expect("an owner");
    fs::set_permissions(secret.path(), std::os::unix::fs::PermissionsExt::from_mode(0o640)).expect("a mode");
    let bundle = Bundle::of(Runtime::Ours, User::new("grace", 54_352, Some((1_000_000, 65_536))));
    let mount =
        json!([{ "destination": "/secret", "type": "bind", "source": secret.path(), "options": ["bind", "ro"] }]);
    let script = "cat /secret; grep Groups /proc/self/status";
    bundle.configure(&json!({ "process": { "args": ["sh", "-c", script] }, "mounts+": mount }));
    let output = with_groups(&bundle, &["run", &bundle.id]);
    contains(&output.err, &["Permission denied"]);
    assert_eq!(output.out.trim_end(), "Groups:", "{}", output.story());
    // Further processes neither.
    bundle.configure(&json!({ "process": { "args": ["sleep", "100"] }, "mounts+": mount }));
    assert!(bundle.quietly(&["run", "--detach", &bundle.id]).status.success());
    let output = with_groups(&bundle, &["exec", &bundle.id, "sh", "-c", script]);
    assert_eq!(output.out.trim_end(), "Groups:", "{}", output.story());
    bundle.runtime(&["kill", &bundle.id, "KILL"]).ok();
}
