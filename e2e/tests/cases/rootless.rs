//! `ctk` by ordinary users: with subordinate ids all of it, without what can be; and never in somebody else's store.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ctk_e2e::git;
use ctk_e2e::ordinary::User;
use ctk_e2e::sshd::Sshd;
use ctk_e2e::{World, contains, eventually, free_port, has, has_programs, run};

/// Ids that no test of another area uses.
const ALICE: (&str, u32, u32) = ("alice", 54_331, 600_000);
const BOB: (&str, u32, u32) = ("bob", 54_332, 700_000);

fn user((name, uid, first): (&'static str, u32, u32)) -> User {
    User::new(name, uid, Some((first, 65_536)))
}

fn ready() -> bool {
    User::can_be() && has_programs(&["busybox"])
}

/// An image of a Dockerfile whose files have several owners, a test that runs it, and what `more` says.
fn write_project(world: &World, more: &str) {
    world.write("busybox", fs::read("/usr/bin/busybox").expect("a static busybox"));
    world.write(
        "Dockerfile",
        "FROM scratch\n\
         COPY --chmod=755 busybox /bin/busybox\n\
         COPY --chmod=755 busybox /bin/sh\n\
         RUN /bin/busybox --install /bin && mkdir -p /etc /srv/old /tmp && echo root:x:0:0::/:/bin/sh > /etc/passwd && \
         echo web:x:33:34::/srv:/bin/sh >> /etc/passwd && echo yes > /srv/page && chown -R 33:34 /srv && chmod 4755 /bin/su\n\
         RUN rm -r /srv/old && mkdir /srv/old && echo new > /srv/old/new && chown 1000:65534 /srv/old/new\n\
         COPY --chown=web Dockerfile /srv/\n\
         USER web\n\
         CMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/srv\"]\n",
    );
    let test = "test \"app\" image=\"app\" {\n    start\n    http \"http://image:8080/page\" status=200 body=\"yes\" within=\"10s\"\n    \
                command \"user\" \"id\" \"-u\" { stdout equals=\"33\\n\" }\n    file \"/srv/page\" owner=\"33:34\"\n    \
                absent \"/srv/old/old\"\n}\n";
    world.write("containers.kdl", format!("project \"case\"\nimage \"app\" dockerfile=\"Dockerfile\"\n{test}{more}"));
}

/// Files below a folder that belong to others than `uid`, by their owner.
fn owners(folder: &Path, uid: u32) -> Vec<u32> {
    let mut command = Command::new("find");
    command.arg(folder).args(["!", "-uid", &uid.to_string(), "-printf", "%U\n"]);
    let mut all: Vec<u32> = run(command).ok().lines().filter_map(|line| line.parse().ok()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn everything_works_with_subordinate_ids() {
    if !ready() || !has_programs(&["skopeo"]) {
        return;
    }
    let world = World::of(user(ALICE));
    let port = free_port();
    let registry =
        format!("registry \"local\" listen=\"127.0.0.1:{port}\" {{ storage \"filesystem:.ctk/registry\" }}\n");
    let push = format!(
        "push \"app\" image=\"app\" needs=\"test:app\" {{\n    to \"oci:dist\" {{ tag \"v1\" }}\n    \
         to \"127.0.0.1:{port}/team/app\" {{ tag \"v1\" }}\n}}\n"
    );
    write_project(&world, &(registry + &push));
    let output = world.ctk(&["apply", "--progress", "plain"]);
    contains(&output.err, &["user namespace: root is 54331, 65536 more users and 65536 groups", "userxattr"]);
    assert!(!output.err.contains("note:"), "{}", output.story());
    output.ok();
    contains(&world.ctk(&["apply"]).ok(), &["nothing to do"]);
    contains(&world.ctk(&["plan"]).ok(), &["nothing to do"]);

    // What root makes of it is the same, to the bit.
    let theirs = World::new();
    write_project(&theirs, "push \"app\" image=\"app\" { to \"oci:dist\" { tag \"v1\" }; }\n");
    theirs.ctk(&["apply"]).ok();
    let digest = |world: &World| world.peer("skopeo", &["inspect", "--raw", "oci:dist:v1"]).ok();
    assert_eq!(digest(&world), digest(&theirs));
    // The results are the user's own; only the store has files of his subordinate ids.
    assert_eq!(owners(&world.project(), ALICE.1), [0_u32; 0]);
    assert_eq!(owners(world.store(), ALICE.1), [32, 999].map(|id| ALICE.2 + id));

    // Containers: ids, networks, volumes, a host's file system.
    let sh = |options: &[&str], script: &str| {
        world.ctk(&[&["run"][..], options, &["image:app", "sh", "-c", script]].concat())
    };
    assert_eq!(sh(&[], "id -u; id -g; stat -c %u:%g /srv/old/new; echo > /dev/null").ok(), "33\n34\n1000:65534\n");
    assert_eq!(sh(&["--user", "0"], "touch /new && chown 7:8 /new && stat -c %u:%g /new").ok(), "7:8\n");
    assert_eq!(sh(&["--network", "host"], "ls -d /sys/class/net/lo").ok(), "/sys/class/net/lo\n");
    fs::create_dir(world.project().join("shared")).expect("a folder");
    world.give(&world.project());
    let volume = format!("{}:/v", world.project().join("shared").display());
    sh(&["--user", "0", "--volume", &volume], "echo mine > /v/root; echo his > /v/web; chown 33 /v/web").ok();
    let uid = |name: &str| fs::metadata(world.project().join("shared").join(name)).expect("a file").uid();
    assert_eq!((uid("root"), uid("web")), (ALICE.1, ALICE.2 + 32));

    // One that outlives its maker, and begins anew.
    let life = |words: &[&str]| world.ctk(words).ok();
    life(&[
        "run",
        "--detach",
        "--name",
        "one",
        "--network",
        "none",
        "image:app",
        "sh",
        "-c",
        "echo begun; exec sleep 100",
    ]);
    eventually(Duration::from_secs(20), "its first words", || world.ctk(&["logs", "one"]).out == "begun\n");
    contains(&life(&["ps"]), &["one", "Up"]);
    assert_eq!(life(&["exec", "one", "id", "-u"]), "33\n");
    assert_eq!(life(&["exec", "--user", "0", "one", "id", "-u"]), "0\n");
    life(&["stop", "--time", "1", "one"]);
    life(&["start", "one"]);
    life(&["rm", "--force", "one"]);

    // Trees of all owners can be removed again.
    fs::remove_dir_all(world.project().join("shared")).expect("removed");
    let once = world.path("home/once");
    let in_once = |words: &[&str]| world.ctk(&[&["--root", once.to_str().expect("a path")][..], words].concat()).ok();
    in_once(&["build", ".", "--tag", "localhost/once"]);
    assert_eq!(owners(&once, ALICE.1), [32, 999].map(|id| ALICE.2 + id));
    in_once(&["rmi", "localhost/once"]);
    // A process that brings layers to the disk may still hold them.
    eventually(Duration::from_secs(60), "nothing is left of others", || {
        in_once(&["gc", "--all"]);
        owners(&once, ALICE.1).is_empty()
    });
}

/// The network that containers have without being asked: through a program of the user's.
#[test]
fn containers_of_ordinary_users_have_a_network() {
    if !ready() || !has_programs(&["pasta"]) || !has("/dev/net/tun", Path::new("/dev/net/tun").exists()) {
        return;
    }
    let world = World::of(user(ALICE));
    write_project(&world, "");
    world.ctk(&["apply"]).ok();
    let port = free_port();
    let publish = format!("{port}:8080");
    let words = ["run", "--detach", "--name", "web", "--network", "ctk", "--publish", &publish, "image:app"];
    world.ctk(&words).ok();
    let get = || {
        let mut command = Command::new("busybox");
        command.args(["wget", "-q", "-O", "-", &format!("http://127.0.0.1:{port}/page")]);
        run(command).out
    };
    eventually(Duration::from_secs(20), "an answer", || get() == "yes\n");
    assert_eq!(world.ctk(&["exec", "web", "sh", "-c", "ls /sys/class/net"]).ok(), "eth0\nlo\n");
    world.ctk(&["rm", "--force", "web"]).ok();
    eventually(Duration::from_secs(10), "a free port", || std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
}

/// Volumes, copies, changes and secrets of an ordinary user's containers.
#[test]
fn files_of_ordinary_users_containers() {
    if !ready() {
        return;
    }
    let world = World::of(user(ALICE));
    write_project(&world, "");
    world.ctk(&["apply"]).ok();
    let run = |options: &[&str], script: &str| {
        let none = ["run", "--network", "none", "--user", "0"];
        world.ctk(&[&none[..], options, &["image:app", "sh", "-c", script]].concat()).ok()
    };
    world.write("key", "hush\n");
    run(&["--rm", "-v", "data:/data"], "echo one > /data/x; chown 7 /data/x");
    assert_eq!(run(&["--rm", "-v", "data:/data"], "cat /data/x; stat -c %u /data/x"), "one\n7\n");
    assert_eq!(
        run(&["--rm", "--secret", "id=key,src=key,uid=7"], "cat /run/secrets/key; stat -c %u /run/secrets/key"),
        "hush\n7\n"
    );
    assert_eq!(world.ctk(&["volume", "ls", "-q"]).ok(), "data\n");
    run(&["--name", "one", "-v", "data:/data"], "echo new > /new; chown 7 /new");
    contains(&world.ctk(&["diff", "one"]).ok(), &["A /new\n"]);
    world.ctk(&["cp", "key", "one:/data/copied"]).ok();
    world.ctk(&["cp", "one:/new", "back"]).ok();
    assert_eq!(world.read("back"), "new\n");
    assert_eq!(run(&["--rm", "-v", "data:/data"], "stat -c %u /data/copied"), "0\n");
    world.ctk(&["commit", "one", "made"]).ok();
    assert_eq!(world.ctk(&["run", "--rm", "--network", "none", "made", "stat", "-c", "%u", "/new"]).ok(), "7\n");
    world.ctk(&["export", "-o", "one.tar", "one"]).ok();
    world.ctk(&["rm", "one"]).ok();
    world.ctk(&["volume", "rm", "data"]).ok();
}

/// Packages with their owners, setuid programs and scripts: the same image as root's.
#[test]
fn packages_are_installed_by_ordinary_users() {
    if !ready() || !has_programs(&["skopeo"]) {
        return;
    }
    let project = "project \"case\"\n\
                   image \"system\" { packages distro=\"debian\" suite=\"bookworm\" { install \"dash\" \"passwd\" }; }\n\
                   image \"owned\" {\n    from \"image:system\"\n    run \"useradd -u 1234 -m someone && touch \
                   /home/someone/file && chown someone:shadow /home/someone/file\"\n}\n\
                   test \"owned\" image=\"owned\" {\n    file \"/home/someone/file\" owner=\"1234:42\"\n    \
                   command \"packages\" \"dpkg\" \"--audit\" { stdout equals=\"\" }\n}\n\
                   push \"owned\" image=\"owned\" { to \"oci:dist\" { tag \"v1\" }; }\n";
    let mine = World::shared_of(user(ALICE));
    mine.write("containers.kdl", project);
    mine.ctk(&["apply"]).ok();
    contains(&mine.ctk(&["apply"]).ok(), &["nothing to do"]);
    let roots = World::shared();
    roots.write("containers.kdl", project);
    // The same versions.
    fs::copy(mine.project().join("containers.lock"), roots.project().join("containers.lock")).expect("a lock file");
    roots.ctk(&["apply"]).ok();
    let digest = |world: &World| world.peer("skopeo", &["inspect", "--raw", "oci:dist:v1"]).ok();
    assert_eq!(digest(&mine), digest(&roots));
}

/// Layers with device nodes: nobody makes those in a user namespace. The tree does without, the layer stays.
#[test]
fn images_with_devices_run_without_them() {
    if !ready() {
        return;
    }
    let roots = World::new();
    roots.write("busybox", fs::read("/usr/bin/busybox").expect("a static busybox"));
    let dockerfile = "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nCOPY --chmod=755 busybox /bin/sh\n\
                      RUN busybox mknod /null c 1 3 && busybox mknod /disk b 8 0 && echo yes > /file\n";
    roots.write("Dockerfile", dockerfile);
    roots.ctk(&["build", ".", "--tag", "localhost/devices"]).ok();
    roots.ctk(&["save", "localhost/devices", "--output", "image.tar"]).ok();
    let world = World::of(user(ALICE));
    world.write("image.tar", fs::read(roots.project().join("image.tar")).expect("an archive"));
    world.ctk(&["load", "image.tar"]).ok();
    let list = ["run", "localhost/devices", "/bin/busybox", "sh", "-c", "busybox cat /file; busybox ls /"];
    assert_eq!(world.ctk(&list).ok(), "yes\nbin\ndev\netc\nfile\nproc\nsys\n");
    world.ctk(&["save", "localhost/devices", "--output", "again.tar"]).ok();
    let bytes = |name: &str| fs::read(world.project().join(name)).expect("an archive");
    assert!(bytes("again.tar") == bytes("image.tar"), "the layers are not what they were");
}

#[test]
fn users_do_not_disturb_each_other() {
    if !ready() {
        return;
    }
    let worlds = [World::of(user(ALICE)), World::of(user(BOB))];
    let children: Vec<_> = worlds
        .iter()
        .map(|world| {
            write_project(world, "");
            world.spawn(&["apply"])
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("an end");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for (world, (_, _, first)) in worlds.iter().zip([ALICE, BOB]) {
        let found = owners(world.store(), world.user().expect("a user").uid);
        assert!(!found.is_empty() && found.iter().all(|id| (first..first + 65_536).contains(id)), "{found:?}");
    }
    // Neither gets into the other's store, nor into root's, nor root into theirs: each would read it wrongly.
    let roots = World::new();
    write_project(&roots, "");
    roots.ctk(&["apply"]).ok();
    let refused = |who: &World, whose: &World| {
        for command in [&["apply"][..], &["images"], &["gc"], &["plan"], &["run", "image:app"]] {
            let store = whose.store().to_str().expect("a path");
            let output = who.ctk(&[&["--root", store][..], command].concat());
            assert!(!output.status.success(), "{}", output.story());
            contains(&output.err, &[store, "belongs to another user", "--root"]);
        }
    };
    // Their folders are open to everybody, so that it is the store that says no.
    refused(&worlds[0], &worlds[1]);
    fs::set_permissions(roots.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
    refused(&worlds[0], &roots);
    refused(&roots, &worlds[0]);
}

#[test]
fn without_subordinate_ids_root_is_alone() {
    if !ready() {
        return;
    }
    let world = World::of(User::new("carol", 54_333, None));
    world.write("busybox", fs::read("/usr/bin/busybox").expect("a static busybox"));
    world.write(
        "Dockerfile",
        "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nCOPY --chmod=755 busybox /bin/sh\nRUN busybox mkdir /tmp && busybox id -u > /tmp/id\n",
    );
    world.write(
        "containers.kdl",
        "project \"case\"\nimage \"app\" dockerfile=\"Dockerfile\"\n\
         test \"app\" image=\"app\" { command \"works\" \"busybox\" \"cat\" \"/tmp/id\" { stdout equals=\"0\\n\" }; }\n\
         push \"app\" image=\"app\" { to \"oci:dist\" { tag \"v1\" }; }\n",
    );
    let advice = "`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 carol`";
    let output = world.ctk(&["apply"]);
    contains(&output.err, &["note: `carol` has no subordinate ids", "only what belongs to root", advice]);
    output.ok();
    contains(&world.ctk(&["apply"]).ok(), &["nothing to do"]);
    assert_eq!(world.ctk(&["run", "image:app", "/bin/busybox", "id", "-u"]).ok(), "0\n");
    // Who is not there is told so, and what gives more.
    let output = world.ctk(&["run", "--user", "33", "image:app", "/bin/busybox", "true"]);
    contains(&output.fails(125), &["failed to become user 33", "usermod --add-subuids"]);
    world.write(
        "Dockerfile",
        "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\nCOPY --chmod=755 busybox /bin/busybox\nRUN busybox chown 33 /bin/sh\n",
    );
    let output = world.ctk(&["apply", "--progress", "plain"]);
    contains(&output.err, &["root is 54333, nobody else", "chown: /bin/sh: Invalid argument"]);
    output.fails(1);
    world.write("Dockerfile", "FROM scratch\nCOPY --chown=33:33 busybox /bin/sh\n");
    let output = world.ctk(&["apply", "--progress", "json"]);
    assert!(!output.err.starts_with("note"), "{}", output.story());
    contains(&output.fails(1), &["cannot create `/bin/sh`", "no ids but root's", "usermod --add-subuids"]);
    world.ctk(&["gc", "--all"]).ok();
}

/// ssh asks the account for its home, which is root's in the namespace: what the user knows of hosts counts all the same.
#[test]
fn repositories_over_ssh_are_fetched() {
    let there = has("an ssh server", Path::new("/usr/sbin/sshd").exists());
    if !ready() || !there || !has_programs(&["git", "ssh", "ssh-keygen"]) {
        return;
    }
    let world = World::of(user(ALICE));
    let work = world.path("work");
    drop(git::repositories(&work.join("git")));
    let sshd = Sshd::start(&work.join("sshd"));
    let key = world.path("home/key");
    fs::copy(sshd.key(), &key).expect("a key");
    // Root's server knows another host there.
    let known = world.path("home/.ssh/known_hosts");
    fs::create_dir_all(world.path("home/.ssh")).expect("a folder");
    let wrong = fs::read_to_string(sshd.key().with_extension("pub")).expect("a key");
    fs::write(&known, format!("[{}]:{} {wrong}", sshd.host, sshd.port)).expect("a file");
    world.give(&world.path("home"));
    let place = format!("ssh://root@{}:{}{}/git/whole.git", sshd.host, sshd.port, work.display());
    let with_key = format!("default={}", key.display());
    let words = ["build", "-o", "type=local,dest=out", "--ssh", &with_key, &place];
    contains(&world.ctk(&words).fails(1), &["its host shows another key than before"]);
    fs::remove_file(&known).expect("removed");
    world.ctk(&words).ok();
    assert_eq!(world.read("out/all/file"), "two\n");
    assert_eq!(owners(&world.project(), ALICE.1), [0_u32; 0]);
}

/// Files of ids that stand for somebody else now would end up in images with wrong owners.
#[test]
fn a_store_keeps_its_ids() {
    if !ready() {
        return;
    }
    let world = World::of(user(ALICE));
    write_project(&world, "");
    world.ctk(&["apply"]).ok();
    let project = world.project();
    let with = |user: User, words: &[&str]| {
        let mut command = user.command(ctk_e2e::binary());
        command.args(words).current_dir(&project).env("CTK_ROOT", world.store()).env("NO_COLOR", "1");
        run(command)
    };
    let name = ALICE.0;
    for other in [Some((800_000, 65_536)), Some((ALICE.2, 1000)), None] {
        for words in [&["apply"][..], &["run", "image:app", "true"], &["gc"]] {
            let output = with(User::new(name, ALICE.1, other), words);
            assert!(!output.status.success(), "{}", output.story());
            contains(&output.err, &["has files of the ids 600000-665535", "/etc/subuid", "--root"]);
        }
    }
    // Looking is free, and more of them are as good.
    with(User::new(name, ALICE.1, None), &["images"]).ok();
    contains(&with(User::new(name, ALICE.1, Some((ALICE.2, 70_000))), &["apply"]).ok(), &["nothing to do"]);
    assert_eq!(world.ctk(&["run", "image:app", "id", "-u"]).code(), 125);
}

/// The helpers say no: told, and the rest works.
#[test]
fn subordinate_ids_that_are_refused_are_told() {
    if !ready() {
        return;
    }
    // The kernel takes no id twice, so that `newuidmap` fails.
    let user = User::new("dave", 54_334, Some((54_334, 10)));
    let world = World::of(user);
    write_project(&world, "");
    let output = world.ctk(&["build", "image:app"]);
    contains(&output.err, &["note: `dave` cannot use his subordinate ids: newuidmap"]);
    output.fails(1);
}

/// A machine on which ordinary users may make no namespaces.
#[test]
fn forbidden_user_namespaces_are_explained() {
    if !ready() {
        return;
    }
    let world = World::of(user(ALICE));
    write_project(&world, "");
    // A namespace with the machine's ids, in which its root forbids further ones. Rights come with the second program:
    // the first begins before there are ids.
    let under = |words: &[&str]| {
        let script = "until grep -q . /proc/self/uid_map && grep -q . /proc/self/gid_map; do sleep 0.01; done; exec sh -c \
                      'echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"' sh \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--user", "--", "sh", "-c", script, "sh"]);
        command.args(["setpriv", "--reuid", "54331", "--regid", "54331", "--clear-groups", "--"]);
        command.arg(ctk_e2e::binary()).args(words).current_dir(world.project()).stdin(Stdio::null());
        command.env("CTK_ROOT", world.store()).env("HOME", world.path("home")).env("NO_COLOR", "1");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unshare");
        let of = |name: &str| fs::read_link(format!("/proc/{}/ns/{name}", child.id())).ok();
        let ours = fs::read_link("/proc/self/ns/user").ok();
        eventually(Duration::from_secs(10), "a user namespace", || of("user") != ours);
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{map}", child.id()), "0 0 70000").expect("ids");
        }
        let output = child.wait_with_output().expect("an end");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = under(&["apply"]);
    assert_eq!(code, Some(1), "{said}");
    contains(
        &said,
        &[
            "failed to make a user namespace",
            "user.max_user_namespaces is 0",
            "`sysctl user.max_user_namespaces=15000`",
        ],
    );
    // What needs no owners does without.
    for command in ["images", "gc"] {
        assert_eq!(under(&[command]), (Some(0), String::new()));
    }
}

/// Without a delegated cgroup a limit is refused with advice; with one it holds.
#[test]
fn limits_need_delegated_cgroups() {
    if !ready() {
        return;
    }
    let world = World::of(user(ALICE));
    write_project(&world, "");
    world.ctk(&["apply"]).ok();
    let limited =
        ["run", "--pids-limit", "3", "image:app", "sh", "-c", "for i in 1 2 3 4 5; do sleep 1 & done; wait; echo all"];
    let output = world.ctk(&limited);
    contains(&output.fails(125), &["linux.resources.pids.limit", "delegated to this user", "Delegate=yes"]);
    let base = Path::new("/sys/fs/cgroup/pids");
    if !has("the pids controller of cgroup version 1", base.join("cgroup.procs").exists()) {
        return;
    }
    // One that is given away, with the caller in a part of it.
    let folder = world.path("").file_name().expect("a name").to_string_lossy().into_owned();
    let given = base.join(&folder);
    fs::create_dir_all(given.join("shell")).expect("a cgroup");
    for path in [&given, &given.join("shell")] {
        world.give(path);
    }
    let under = |words: &[&str]| {
        let inner = world.command(words);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("echo $$ > {}/shell/cgroup.procs; exec \"$@\"", given.display())).arg("sh");
        command.arg(inner.get_program()).args(inner.get_args()).current_dir(world.project()).stdin(Stdio::null());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        run(command)
    };
    let output = under(&limited);
    contains(&output.err, &["can't fork"]);
    assert!(!output.out.contains("all"), "{}", output.story());
    under(&["run", "--pids-limit", "30", "image:app", "sh", "-c", "for i in 1 2 3 4 5; do sleep 0.1 & done; wait"])
        .ok();
    let story = under(&["build", "image:app", "--progress", "plain"]).err;
    contains(&story, &[&format!("cgroups: {}", given.display())]);
    for path in [given.join("shell"), given] {
        fs::remove_dir(&path).expect("nothing is left in it");
    }
}
