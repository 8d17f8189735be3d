//! What containers find in their file systems: volumes, mounts, secrets, devices; and what others see of theirs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use ctk_e2e::engine::{Engine, Kind};
use ctk_e2e::{Output, World, binary, contains, run};

/// A world with the image `box`: busybox under all its names, and what `lines` of a Dockerfile add.
fn boxed(lines: &str) -> Option<World> {
    if !ctk_e2e::is_root() || !ctk_e2e::has_programs(&["busybox"]) {
        return None;
    }
    let world = World::new();
    world.write("busybox", fs::read("/usr/bin/busybox").expect("a static busybox"));
    fs::set_permissions(world.project().join("busybox"), PermissionsExt::from_mode(0o755)).unwrap();
    let install = r#"RUN ["/bin/busybox", "--install", "-s", "/bin"]"#;
    let base = "COPY busybox /bin/busybox\n";
    let users = "COPY passwd /etc/passwd\n";
    world.write("passwd", "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n");
    world.write("Dockerfile", format!("FROM scratch\n{base}{install}\n{users}{lines}\n"));
    world.ctk(&["build", "-t", "box", "."]).ok();
    Some(world)
}

/// `ctk` without networks.
fn ctk(world: &World, arguments: &[&str]) -> Output {
    let mut command = world.command(arguments);
    command.env("CTK_NETWORK", "none");
    run(command)
}

/// A script in a new container that goes at once.
fn sh(world: &World, options: &[&str], script: &str) -> Output {
    ctk(world, &[&["run", "--rm"], options, &["box", "/bin/sh", "-c", script]].concat())
}

fn volumes(world: &World) -> Vec<String> {
    ctk(world, &["volume", "ls", "-q"]).ok().lines().map(str::to_owned).collect()
}

#[test]
fn a_volume_gets_what_the_image_has_and_outlives_its_containers() {
    let Some(world) = boxed(
        "RUN /bin/mkdir -p /data/sub && echo seed > /data/sub/file && chown -R 33:33 /data && chmod 2750 /data && ln -s sub/file /data/link",
    ) else {
        return;
    };
    let look = "stat -c '%u:%g %a' /data; stat -c '%u' /data/sub/file; cat /data/link; readlink /data/link";
    let seen = "33:33 2750\n33\nseed\nsub/file\n";
    assert_eq!(sh(&world, &["-v", "store:/data"], look).ok(), seen);
    sh(&world, &["-v", "store:/data"], "echo more > /data/more; rm /data/link").ok();
    // Filled once: what is gone stays so.
    assert_eq!(sh(&world, &["-v", "store:/data:ro"], "ls /data").ok(), "more\nsub\n");
    contains(&sh(&world, &["-v", "store:/data:ro"], "echo x > /data/x").fails(1), &["Read-only file system"]);
    assert_eq!(sh(&world, &["-v", "bare:/data:nocopy"], "ls /data").ok(), "");
    assert_eq!(sh(&world, &["--mount", "src=part,dst=/elsewhere"], "stat -c %u /elsewhere").ok(), "0\n");
    // One that nobody had and the image knows nothing of is its first user's.
    assert_eq!(sh(&world, &["-u", "web", "-v", "mine:/mine"], "touch /mine/x && stat -c %u:%g /mine").ok(), "33:33\n");
    let part = ["--mount", "type=volume,src=store,dst=/part,volume-subpath=sub"];
    assert_eq!(sh(&world, &part, "cat /part/file").ok(), "seed\n");
    assert_eq!(volumes(&world), ["bare", "mine", "part", "store"]);
    if ctk_e2e::has_programs(&["podman"]) {
        world.ctk(&["save", "-o", "box.tar", "box"]).ok();
        world.podman(&["load", "-i", "box.tar"]).ok();
        // What fills the volume is podman; who runs the container makes no difference.
        let runtime = binary().with_file_name("ctk-runtime").display().to_string();
        let global = ["--runtime", &runtime, "--cgroup-manager", "cgroupfs"];
        let limits = ["--network=none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        let all = ["-v", "theirs:/data", "localhost/box", "/bin/sh", "-c", look];
        let output = world.podman(&[&global[..], &["run", "--rm"], &limits, &all].concat());
        assert_eq!(output.ok(), seen, "podman does the same");
    }
}

#[test]
fn anonymous_volumes_go_with_their_container() {
    let Some(world) = boxed("RUN /bin/mkdir /data && echo seed > /data/file\nVOLUME /data") else { return };
    assert_eq!(sh(&world, &["-v", "/other"], "cat /data/file; ls -d /other").ok(), "seed\n/other\n");
    ctk_e2e::eventually(std::time::Duration::from_secs(5), "they go by themselves", || volumes(&world).is_empty());
    ctk(&world, &["create", "--name", "one", "box", "/bin/true"]).ok();
    assert_eq!(volumes(&world).len(), 1);
    ctk(&world, &["rm", "one"]).ok();
    assert_eq!(volumes(&world).len(), 1, "without -v they stay");
    assert_eq!(ctk(&world, &["volume", "prune", "-f"]).ok().lines().count(), 1);
    ctk(&world, &["create", "--name", "two", "box", "/bin/true"]).ok();
    ctk(&world, &["create", "--name", "three", "--volumes-from", "two", "box", "/bin/cat", "/data/file"]).ok();
    ctk(&world, &["rm", "-v", "two"]).ok();
    assert_eq!(volumes(&world).len(), 1, "another container has it");
    assert_eq!(ctk(&world, &["start", "-a", "three"]).ok(), "seed\n");
    ctk(&world, &["rm", "-v", "three"]).ok();
    // What cannot be made leaves none behind.
    ctk(&world, &["volume", "prune"]).ok();
    ctk(&world, &["run", "-v", "/x", "-v", "/nowhere/at/all:/y", "box"]).fails(125);
    assert_eq!(volumes(&world), Vec::<String>::new());
}

#[test]
fn volumes_of_one_whose_monitor_was_killed_go_too() {
    let Some(world) = boxed("VOLUME /data") else { return };
    ctk(&world, &["run", "-d", "--rm", "--name", "one", "box", "/bin/sleep", "99"]).ok();
    assert_eq!(volumes(&world).len(), 1);
    let processes = ctk(&world, &["inspect", "--format", "{{.State.MonitorPid}} {{.State.Pid}}", "one"]).ok();
    let mut kill = std::process::Command::new("kill");
    kill.arg("-9").args(processes.split_whitespace());
    run(kill).ok();
    ctk_e2e::eventually(std::time::Duration::from_secs(5), "it goes, and its volume", || {
        ctk(&world, &["ps", "-aq"]).ok().is_empty() && volumes(&world).is_empty()
    });
}

#[test]
fn many_fill_one_volume_at_once() {
    let Some(world) = boxed("RUN /bin/mkdir /data && for i in $(seq 200); do echo $i > /data/$i; done") else { return };
    std::thread::scope(|scope| {
        let one = || sh(&world, &["-v", "shared:/data"], "ls /data | wc -l; cat /data/200").ok();
        let threads: Vec<_> = (0..12).map(|_| scope.spawn(one)).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), "200\n200\n", "nobody sees a half filled one");
        }
    });
    assert_eq!(volumes(&world), ["shared"]);
}

#[test]
fn an_image_that_is_mounted_stays_as_long_as_its_container() {
    let Some(world) = boxed("RUN /bin/mkdir /data && echo here > /data/file") else { return };
    let mount = ["--mount", "type=image,src=box,dst=/img"];
    ctk(&world, &[&["create", "--name", "one"][..], &mount, &["box", "/bin/cat", "/img/data/file"]].concat()).ok();
    ctk(&world, &["rmi", "box"]).ok();
    ctk(&world, &["gc"]).ok();
    assert_eq!(ctk(&world, &["start", "-a", "one"]).ok(), "here\n");
}

#[test]
fn users_of_its_own_see_their_files() {
    let Some(world) = boxed("RUN /bin/mkdir -p /data /tmp && echo seed > /data/file && chown 33 /data/file") else {
        return;
    };
    world.write("key", "hush\n");
    let own = ["--userns", "auto"];
    let look = "stat -c %u /data /data/file; touch /data/mine && stat -c %u /data/mine";
    assert_eq!(sh(&world, &[&own[..], &["-v", "data:/data"]].concat(), look).ok(), "0\n33\n0\n");
    // What is stored is what the container saw, whoever has it next.
    assert_eq!(sh(&world, &["-v", "data:/data"], "stat -c %u /data/file /data/mine").ok(), "33\n0\n");
    assert_eq!(
        sh(&world, &[&own[..], &["-v", "data:/data:U", "-u", "web"]].concat(), "stat -c %u /data/mine").ok(),
        "33\n"
    );
    let secret = ["--secret", "id=key,src=key,uid=33,mode=0400"];
    let seen = sh(&world, &[&own[..], &secret].concat(), "cat /run/secrets/key; stat -c %u /run/secrets/key").ok();
    assert_eq!(seen, "hush\n33\n");
    let host = world.path("host");
    fs::create_dir(&host).unwrap();
    let bind = format!("{}:/host:U", host.display());
    sh(&world, &[&own[..], &["-v", &bind]].concat(), "touch /host/x").ok();
    assert!(fs::metadata(host.join("x")).unwrap().uid() > 65536, "outside it is one of the container's own");
    // Its layer becomes an image as it saw it.
    let script = ["box", "/bin/sh", "-c", "touch /new; chown 33 /new; echo more >> /data/file"];
    ctk(&world, &[&["run", "--name", "one"][..], &own, &script].concat()).ok();
    assert_eq!(ctk(&world, &["diff", "one"]).ok(), "C /data\nC /data/file\nA /new\n");
    ctk(&world, &["commit", "one", "made"]).ok();
    let owners = ctk(&world, &["run", "--rm", "made", "stat", "-c", "%u", "/", "/new", "/data/file"]).ok();
    assert_eq!(owners, "0\n33\n33\n");
    ctk(&world, &["export", "-o", "one.tar", "one"]).ok();
    let listed = world.peer("tar", &["--numeric-owner", "-tvf", "one.tar", "new", "data/file", "bin/busybox"]).ok();
    assert_eq!(listed.matches("33/0").count(), 2, "{listed}");
    ctk(&world, &["cp", "key", "one:/copied"]).ok();
    assert_eq!(ctk(&world, &["diff", "one"]).ok(), "A /copied\nC /data\nC /data/file\nA /new\n");
    ctk(&world, &["commit", "one", "again"]).ok();
    assert_eq!(ctk(&world, &["run", "--rm", "again", "stat", "-c", "%u", "/copied"]).ok(), "0\n");
}

#[test]
fn a_volume_in_use_stays_and_says_whose_it_is() {
    let Some(world) = boxed("") else { return };
    ctk(&world, &["volume", "create", "--label", "tier=db", "data"]).ok();
    contains(&ctk(&world, &["volume", "create", "data"]).fails(1), &["there is a volume `data` already", "--ignore"]);
    ctk(&world, &["volume", "create", "--ignore", "data"]).ok();
    ctk(&world, &["run", "-d", "--name", "user", "-v", "data:/data", "box", "/bin/sleep", "99"]).ok();
    contains(&ctk(&world, &["volume", "rm", "data"]).fails(1), &["volume data is used by user", "--force"]);
    assert_eq!(ctk(&world, &["volume", "prune"]).ok(), "");
    assert_eq!(ctk(&world, &["volume", "ls", "-q", "--filter", "label=tier=db"]).ok(), "data\n");
    assert_eq!(ctk(&world, &["volume", "ls", "-q", "--filter", "dangling=true"]).ok(), "");
    assert_eq!(
        ctk(&world, &["volume", "inspect", "--format", "{{.Labels.tier}} {{.Users}}", "data"]).ok(),
        "db [user]\n"
    );
    assert_eq!(ctk(&world, &["inspect", "--format", "{{range .Mounts}}{{.Name}}{{end}}", "user"]).ok(), "data\n");
    ctk(&world, &["volume", "exists", "data"]).ok();
    ctk(&world, &["volume", "exists", "dato"]).fails(1);
    contains(&ctk(&world, &["volume", "inspect", "dato"]).fails(1), &["did you mean `data`?"]);
    ctk(&world, &["volume", "rm", "--force", "-t", "0", "data"]).ok();
    assert_eq!(ctk(&world, &["ps", "-aq"]).ok(), "");
    assert!(volumes(&world).is_empty());
}

#[test]
fn volumes_travel_as_archives_and_may_be_mounted_from_elsewhere() {
    let Some(world) = boxed("") else { return };
    sh(&world, &["-v", "from:/data"], "mkdir /data/d; echo one > /data/d/f; ln -s d/f /data/l; chown 33 /data/d/f")
        .ok();
    ctk(&world, &["volume", "export", "-o", "v.tar", "from"]).ok();
    contains(&world.peer("tar", &["-tvf", "v.tar"]).ok(), &["./", "d/", "33/0", "d/f", "l -> d/f"]);
    ctk(&world, &["volume", "import", "to", "v.tar"]).ok();
    assert_eq!(sh(&world, &["-v", "to:/data"], "cat /data/l; stat -c %u /data/d/f").ok(), "one\n33\n");
    let shown = world.path("shown");
    fs::create_dir(&shown).unwrap();
    let device = format!("device={}", shown.display());
    ctk(&world, &["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "host"]).ok();
    sh(&world, &["-v", "host:/data"], "echo x > /data/x").ok();
    assert_eq!(fs::read_to_string(shown.join("x")).unwrap(), "x\n");
    ctk(&world, &["volume", "create", "-o", "type=tmpfs", "-o", "o=size=1m", "memory"]).ok();
    contains(
        &sh(&world, &["-v", "memory:/data"], "grep /data /proc/mounts").ok(),
        &["tmpfs /data tmpfs", "size=1024k"],
    );
    let said = ctk(&world, &["volume", "create", "-o", "type=nfs", "-o", "device=:/x", "no"]).fails(1);
    contains(&said, &["mount it on the host"]);
}

#[test]
fn mounts_of_all_kinds() {
    let Some(world) = boxed("RUN /bin/mkdir /seeded && echo seed > /seeded/file") else { return };
    let host = world.path("host");
    fs::create_dir_all(host.join("sub")).unwrap();
    fs::write(host.join("sub/file"), "host\n").unwrap();
    let path = host.to_str().unwrap();
    let bind = |rest: &str| format!("{path}:/mnt{rest}");
    assert_eq!(sh(&world, &["-v", &bind("")], "cat /mnt/sub/file").ok(), "host\n");
    contains(&sh(&world, &["-v", &bind(":ro")], "echo x > /mnt/x").fails(1), &["Read-only"]);
    // Written over it, and not into it; and gone with the container.
    assert_eq!(sh(&world, &["-v", &bind(":O")], "echo new > /mnt/sub/file; cat /mnt/sub/file").ok(), "new\n");
    assert_eq!(fs::read_to_string(host.join("sub/file")).unwrap(), "host\n");
    ctk(&world, &["create", "--name", "again", "-v", &bind(":O"), "box", "/bin/sh", "-c", "ls /mnt; touch /mnt/left"])
        .ok();
    assert_eq!(ctk(&world, &["start", "-a", "again"]).ok(), "sub\n");
    assert_eq!(ctk(&world, &["start", "-a", "again"]).ok(), "sub\n", "it begins empty each time");
    sh(&world, &["-u", "web", "-v", &bind(":U")], "touch /mnt/sub/mine").ok();
    assert_eq!(fs::metadata(host.join("sub/file")).unwrap().uid(), 33);
    let mapped = ["-v", &bind(":idmap=uids=0-33-1;gids=0-33-1")[..]].map(str::to_owned);
    fs::write(host.join("of-root"), "").unwrap();
    assert_eq!(sh(&world, &[&mapped[0], &mapped[1]], "stat -c %u /mnt/of-root").ok(), "33\n");
    let made = world.path("made");
    let creates = format!("type=bind,src={},dst=/mnt,bind-create-src", made.display());
    sh(&world, &["--mount", &creates], "touch /mnt/x").ok();
    assert!(made.join("x").exists());
    // An image in an image.
    assert_eq!(sh(&world, &["--mount", "type=image,src=box,dst=/img"], "cat /img/seeded/file").ok(), "seed\n");
    contains(&sh(&world, &["--mount", "type=image,src=box,dst=/img"], "touch /img/x").fails(1), &["Read-only"]);
    let part = "type=image,src=box,dst=/img,rw=true,image-subpath=seeded";
    assert_eq!(sh(&world, &["--mount", part], "echo x >> /img/file; cat /img/file").ok(), "seed\nx\n");
    // File systems in memory.
    let tmpfs = ["--tmpfs", "/seeded:size=1m,mode=700,noexec"];
    let script = "cat /seeded/file; stat -c %a /seeded; grep -c 'seeded.*noexec.*size=1024k' /proc/mounts";
    assert_eq!(sh(&world, &tmpfs, script).ok(), "seed\n700\n1\n");
    assert_eq!(sh(&world, &["--tmpfs", "/seeded:notmpcopyup"], "ls /seeded").ok(), "");
    let read_only =
        "touch /x 2>/dev/null || echo no; touch /run/x /tmp/x /var/tmp/x /dev/shm/x && echo yes; stat -c %a /tmp";
    assert_eq!(sh(&world, &["--read-only"], read_only).ok(), "no\nyes\n1777\n");
    let without = ["--read-only", "--read-only-tmpfs=false"];
    assert_eq!(
        sh(&world, &without, "touch /tmp/x 2>/dev/null || echo no; touch /dev/shm/x && echo yes").ok(),
        "no\nyes\n"
    );
}

#[test]
fn a_part_of_a_volume_leads_nowhere_else() {
    let Some(world) = boxed("") else { return };
    sh(&world, &["-v", "v:/data"], "mkdir /data/part; touch /data/part/mine").ok();
    let part = "type=volume,src=v,dst=/part,volume-subpath=part";
    ctk(&world, &["create", "--name", "later", "--mount", part, "box", "/bin/ls", "/part"]).ok();
    assert_eq!(ctk(&world, &["start", "-a", "later"]).ok(), "mine\n");
    // Between its making and its start, somebody who has the volume makes it a link to the host's.
    sh(&world, &["-v", "v:/data"], "rm -r /data/part; ln -s /etc /data/part").ok();
    let started = ctk(&world, &["start", "-a", "later"]);
    assert!(!started.status.success() && !started.out.contains("hostname"), "{}", started.story());
    contains(&started.err, &["No such file or directory"]);
    let made = ctk(&world, &["run", "--rm", "--mount", part, "box", "/bin/ls", "/part"]).fails(125);
    contains(&made, &["there is no `part` in it"]);
}

#[test]
fn wrong_mounts_say_what_to_do() {
    let Some(world) = boxed("") else { return };
    for (options, said) in [
        (&["-v", "/not/there:/x"][..], "mkdir -p /not/there"),
        (&["-v", "/etc:/x:O,ro"], "does not go with `ro`"),
        (&["-v", "/etc:/x:U"], "belongs to the host"),
        (&["-v", "/tmp:/x:idmap"], "--userns or --uidmap"),
        (&["-v", "/tmp:/x:idmap=uids=1"], "uids=STORED-SHOWN-COUNT"),
        (&["-v", "a:/x", "--tmpfs", "/x"], "something else is mounted at /x"),
        (&["--mount", "type=image,src=box,dst=/x,image-subpath=none"], "there is no `none` in the image"),
        (&["--volumes-from", "nobody"], "there is no container `nobody`"),
    ] {
        contains(&sh(&world, options, "true").fails(125), &[said]);
    }
}

/// The mode's permission bits of a file of the host.
fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn files_are_copied_as_dockers_rules_say() {
    let Some(world) = boxed("RUN /bin/mkdir -p /srv/dir/sub && echo one > /srv/dir/sub/file && chmod 750 /srv/dir")
    else {
        return;
    };
    let host = world.path("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "host\n").unwrap();
    fs::create_dir_all(host.join("tree/inner")).unwrap();
    fs::write(host.join("tree/inner/x"), "x\n").unwrap();
    let at = |name: &str| host.join(name).display().to_string();
    for running in [false, true] {
        let name = if running { "runs" } else { "rests" };
        let command = ["--name", name, "-v", "data:/data", "--tmpfs", "/scratch", "box", "/bin/sleep", "99"];
        ctk(&world, &[if running { &["run", "-d"][..] } else { &["create"] }, &command].concat()).ok();
        let inside = |path: &str| format!("{name}:{path}");
        let cp = |from: &str, to: &str| ctk(&world, &["cp", from, to]);
        // A file: to a new name, into a directory, over a file.
        cp(&at("file"), &inside("/new")).ok();
        cp(&at("file"), &inside("/srv/")).ok();
        cp(&inside("/new"), &at(&format!("{name}-back"))).ok();
        assert_eq!(fs::read_to_string(host.join(format!("{name}-back"))).unwrap(), "host\n");
        cp(&inside("/srv/file"), &at(&format!("{name}-back"))).ok();
        contains(&cp(&at("file"), &inside("/none/")).fails(1), &["there is no directory /none"]);
        contains(&cp(&at("file"), &inside("/none/x")).fails(1), &["there is no directory /none"]);
        contains(&cp(&at("missing"), &inside("/x")).fails(1), &["there is no", "missing to copy"]);
        contains(&cp(&inside("/missing"), &at("x")).fails(1), &["there is no /missing to copy"]);
        contains(&cp(&at("file"), &inside("/srv/file/")).fails(1), &["is no directory"]);
        // A directory: to a new name, into one that is there, only what is in it.
        cp(&at("tree"), &inside("/copy")).ok();
        cp(&at("tree"), &inside("/srv")).ok();
        cp(&format!("{}/.", at("tree")), &inside("/srv/dir")).ok();
        contains(&cp(&at("tree"), &inside("/new")).fails(1), &["/new is no directory"]);
        let out = at(&format!("{name}-out"));
        cp(&inside("/srv/dir"), &out).ok();
        assert_eq!(mode(&host.join(format!("{name}-out"))), 0o750);
        for path in ["sub/file", "inner/x"] {
            assert!(host.join(format!("{name}-out/{path}")).exists(), "{path}");
        }
        cp(&inside("/copy"), &out).ok();
        assert!(host.join(format!("{name}-out/copy/inner/x")).exists());
        // Volumes are seen, and what a file belongs to is root's, unless it is kept.
        cp(&at("file"), &inside("/data/of-root")).ok();
        std::os::unix::fs::chown(host.join("file"), Some(33), Some(34)).unwrap();
        ctk(&world, &["cp", "-a", &at("file"), &inside("/data/of-web")]).ok();
        let seen = sh(&world, &["-v", "data:/data"], "stat -c '%n %u:%g' /data/*; rm /data/*").ok();
        assert_eq!(seen, "/data/of-root 0:0\n/data/of-web 33:34\n");
        // Streams.
        let tar = world.command(&["cp", &inside("/srv/dir"), "-"]).output().unwrap().stdout;
        fs::write(world.path("stream.tar"), &tar).unwrap();
        let listed = world.peer("tar", &["-tf", &world.path("stream.tar").display().to_string()]).ok();
        contains(&listed, &["dir/\n", "dir/sub/file\n", "dir/inner/x\n"]);
        let mut command = world.command(&["cp", "-", &inside("/copy")]);
        command.stdin(fs::File::open(world.path("stream.tar")).unwrap());
        run(command).ok();
        let again = world.command(&["cp", &inside("/copy/dir/sub/file"), "-"]).output().unwrap().stdout;
        assert!(String::from_utf8_lossy(&again).contains("one\n"));
        if running {
            assert_eq!(ctk(&world, &["exec", name, "cat", "/new", "/copy/inner/x"]).ok(), "host\nx\n");
            cp(&at("file"), &inside("/scratch/x")).ok();
            assert_eq!(ctk(&world, &["exec", name, "cat", "/scratch/x"]).ok(), "host\n");
            ctk(&world, &["cp", "runs:/new", "rests:/from-other"]).ok();
            ctk(&world, &["cp", "rests:/from-other", &at("between")]).ok();
            assert_eq!(fs::read_to_string(host.join("between")).unwrap(), "host\n");
            ctk(&world, &["rm", "-f", "-t", "0", name]).ok();
        }
    }
    contains(&ctk(&world, &["cp", &at("file"), &at("other")]).fails(1), &["one of the two has to be in a container"]);
    contains(&ctk(&world, &["cp", "nobody:/x", "."]).fails(1), &["there is no container `nobody`"]);
}

/// The same copies by podman give the same files in the same places.
#[test]
fn copies_are_those_of_podman() {
    let Some(world) =
        boxed("RUN /bin/mkdir -p /srv/dir/sub && echo one > /srv/dir/sub/file && ln -s sub /srv/dir/link")
    else {
        return;
    };
    if !ctk_e2e::has_programs(&["podman"]) {
        return;
    }
    let host = world.path("host");
    fs::create_dir_all(host.join("tree/inner")).unwrap();
    fs::write(host.join("tree/inner/x"), "x\n").unwrap();
    fs::write(host.join("file"), "host\n").unwrap();
    world.ctk(&["save", "-o", "box.tar", "box"]).ok();
    world.podman(&["load", "-i", "box.tar"]).ok();
    world.podman(&["create", "--name", "c", "--network", "none", "localhost/box", "/bin/true"]).ok();
    ctk(&world, &["create", "--name", "c", "box", "/bin/true"]).ok();
    let at = |name: &str| host.join(name).display().to_string();
    let copies = [
        (at("file"), "c:/new".to_owned()),
        (at("file"), "c:/srv".into()),
        (at("file"), "c:/srv/".into()),
        (at("tree"), "c:/copy".into()),
        (at("tree"), "c:/srv".into()),
        (at("tree/."), "c:/srv/dir".into()),
        (at("tree"), "c:/srv/dir/link".into()),
        (at("file"), "c:/srv/dir/link/named".into()),
        (at("file"), "c:/absent/".into()),
        (at("file"), "c:/absent/x".into()),
        (at("tree"), "c:/new".into()),
    ];
    for (from, to) in &copies {
        let (theirs, ours) = (world.podman(&["cp", from, to]), ctk(&world, &["cp", from, to]));
        let same = theirs.status.success() == ours.status.success();
        assert!(same, "{from} {to}\n{}\n{}", theirs.story(), ours.story());
    }
    let listing = |archive: &str| {
        let list = "tar -tf $1 | sed 's,^\\./,,; s,/$,,' | grep -E '^(new|srv|copy)' | sort";
        world.peer("sh", &["-c", list, "sh", archive]).ok()
    };
    world.podman(&["export", "-o", "theirs.tar", "c"]).ok();
    ctk(&world, &["export", "-o", "ours.tar", "c"]).ok();
    assert_eq!(listing("ours.tar"), listing("theirs.tar"));
    for (from, to) in [("c:/srv/dir", "out"), ("c:/srv/dir", "out"), ("c:/srv/dir/.", "out"), ("c:/new", "out/renamed")]
    {
        for (name, outcome) in [("theirs", 0), ("ours", 1)] {
            let to = at(&format!("{name}-{to}"));
            let output = if outcome == 0 { world.podman(&["cp", from, &to]) } else { ctk(&world, &["cp", from, &to]) };
            output.ok();
        }
    }
    let found = |name: &str| world.peer("sh", &["-c", "cd $1 && find . | sort", "sh", &at(name)]).ok();
    assert_eq!(found("ours-out"), found("theirs-out"));
}

/// What a container makes of its own files leads nowhere else: not its links, not what it puts in their places.
#[test]
fn a_hostile_containers_links_lead_nowhere() {
    let Some(world) = boxed("") else { return };
    let secret = world.path("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("file"), "host's\n").unwrap();
    let at = secret.display();
    let script = format!(
        "ln -s {at} /dir; ln -s {at}/file /file; ln -s /proc/1/root/{at} /magic; mkdir /deep; ln -s ../../../../../..{at} /deep/up; \
         ln -s /etc/passwd /passwd; mkdir /own; touch /own/mine; ln -s /own /ok; mkfifo /pipe; sleep 99"
    );
    for running in [true, false] {
        let name = if running { "runs" } else { "rests" };
        ctk(&world, &["run", "-d", "--name", name, "box", "/bin/sh", "-c", &script]).ok();
        ctk_e2e::eventually(std::time::Duration::from_secs(5), "its links are there", || {
            ctk(&world, &["exec", name, "test", "-p", "/pipe"]).status.success()
        });
        if !running {
            ctk(&world, &["stop", "-t", "0", name]).ok();
        }
        let inside = |path: &str| format!("{name}:{path}");
        let out = world.path("out");
        fs::create_dir(&out).unwrap();
        let to = out.display().to_string();
        for path in ["/dir/file", "/deep/up/file", "/magic/file", "/dir/."] {
            ctk(&world, &["cp", "-L", &inside(path), &to]).fails(1);
        }
        ctk(&world, &["cp", "-L", &inside("/file"), &to]).fails(1);
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "nothing of the host came out");
        // Its own are its own.
        ctk(&world, &["cp", "-L", &inside("/passwd"), &to]).ok();
        assert!(fs::read_to_string(out.join("passwd")).unwrap().contains("/var/www"));
        ctk(&world, &["cp", &inside("/ok/mine"), &to]).ok();
        ctk(&world, &["cp", &inside("/pipe"), &to]).ok();
        // And nothing goes through them.
        fs::write(world.project().join("new"), "new\n").unwrap();
        for path in ["/dir/new", "/deep/up/new", "/magic/new", "/dir/"] {
            ctk(&world, &["cp", "new", &inside(path)]).fails(1);
        }
        // A link at the end stands for a path of the container.
        let replaced = ctk(&world, &["cp", "new", &inside("/file")]);
        assert!(!secret.join("new").exists());
        assert_eq!(fs::read_to_string(secret.join("file")).unwrap(), "host's\n", "{}", replaced.story());
        fs::remove_dir_all(&out).unwrap();
        ctk(&world, &["rm", "-f", "-t", "0", name]).ok();
    }
}

#[test]
fn what_a_container_changed_is_seen_and_becomes_an_image() {
    let Some(world) =
        boxed("RUN /bin/mkdir -p /srv/a /srv/b && echo 1 > /srv/a/x && echo 2 > /srv/b/y && echo 3 > /gone")
    else {
        return;
    };
    let script = "echo new > /added; echo 4 >> /srv/a/x; rm /gone; rm -r /srv/b; mkdir /srv/b; touch /srv/b/z; \
                  echo v > /data/v; echo t > /tmpfs/t; cat /run/secrets/key > /dev/null";
    world.write("key", "hush-hush");
    let options = ["-v", "data:/data", "--tmpfs", "/tmpfs", "--secret", "id=key,src=key"];
    ctk(&world, &[&["run", "--name", "one"][..], &options, &["box", "/bin/sh", "-c", script]].concat()).ok();
    let seen = ctk(&world, &["diff", "one"]).ok();
    let mut lines: Vec<&str> = seen.lines().filter(|line| !line.ends_with("/run")).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["A /added", "A /srv/b/z", "C /srv", "C /srv/a", "C /srv/a/x", "C /srv/b", "D /gone", "D /srv/b/y"]
    );
    let json = ctk(&world, &["diff", "--format", "json", "one"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["deleted"], serde_json::json!(["/gone", "/srv/b/y"]));
    let template = ctk(&world, &["diff", "--format", "{{.Kind}}={{.Path}}", "one"]).ok();
    contains(&template, &["D=/gone\n"]);
    contains(&ctk(&world, &["diff", "nobody"]).fails(1), &["there is no container `nobody`", "ctk images"]);

    let change =
        ["-c", r#"CMD ["/bin/cat", "/added"]"#, "-c", "LABEL made=here", "-c", "ENV X=1", "-c", "WORKDIR /srv"];
    let told = ["-m", "a remark", "-a", "somebody", "--iidfile", "id"];
    let id = ctk(&world, &[&["commit"][..], &told, &change, &["one", "made"]].concat()).ok();
    assert_eq!(world.read("id"), id.trim());
    assert_eq!(ctk(&world, &["run", "--rm", "made"]).ok(), "new\n");
    let look = "cat /srv/a/x /srv/b/z; ls -a /srv/b | wc -l; ls /gone 2>&1; ls /data /tmpfs /run/secrets 2>/dev/null; pwd; echo $X";
    let made = ctk(&world, &["run", "--rm", "made", "/bin/sh", "-c", look]).ok();
    assert_eq!(made, "1\n4\n3\nls: /gone: No such file or directory\n/srv\n1\n");
    // Nothing of it stands anywhere in the image, the container's description, or its log.
    ctk(&world, &["save", "--format", "oci-dir", "-o", "layout", "made"]).ok();
    let everything = world.peer("sh", &["-c", "cat layout/blobs/sha256/* | (cat; for f in layout/blobs/sha256/*; do zcat -f $f; done) | grep -c hush-hush"]);
    assert_eq!(everything.out.trim(), "0");
    assert!(!ctk(&world, &["inspect", "one"]).ok().contains("hush"));
    if ctk_e2e::has_programs(&["skopeo"]) {
        let seen = world.peer("skopeo", &["inspect", "oci:layout"]).ok();
        contains(&seen, &["\"made\": \"here\"", "\"X=1\""]);
        let config = world.peer("skopeo", &["inspect", "--config", "oci:layout"]).ok();
        contains(&config, &["a remark", "somebody"]);
    }
    assert_eq!(ctk(&world, &["diff", "made"]).ok(), seen, "an image's last layer against those below");
    // One layer of everything, and docker's format.
    ctk(&world, &["commit", "--squash", "--format", "docker", "one", "flat"]).ok();
    let raw = ctk(&world, &["inspect", "--type", "image", "--raw", "flat"]).ok();
    let raw: serde_json::Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(raw["layers"].as_array().unwrap().len(), 1);
    assert_eq!(raw["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(ctk(&world, &["run", "--rm", "flat", "/bin/cat", "/srv/a/x"]).ok(), "1\n4\n");
    ctk(&world, &["commit", "one"]).ok();
    let unnamed = ctk(&world, &["images"]).ok();
    contains(&unnamed, &["sha256:"]);
    contains(&ctk(&world, &["commit", "-c", "RUN x", "one", "no"]).fails(1), &["no instruction that changes"]);
    // All its files, without what is mounted.
    ctk(&world, &["export", "-o", "one.tar", "one"]).ok();
    let listed = world.peer("tar", &["-tf", "one.tar"]).ok();
    contains(&listed, &["added\n", "srv/a/x\n", "bin/busybox\n", "data/\n"]);
    for absent in ["gone\n", "data/v", "tmpfs/t", "srv/b/y", "secrets/key\n"] {
        let there = listed.lines().any(|line| line.ends_with(absent.trim_end()));
        assert!(!there || absent == "secrets/key\n", "{absent}");
    }
    let key = world.peer("tar", &["-xOf", "one.tar", "run/secrets/key"]);
    assert!(!key.out.contains("hush"), "{}", key.story());
}

#[test]
fn a_running_container_is_committed_standing_still() {
    let Some(world) = boxed("") else { return };
    ctk(&world, &["run", "-d", "--name", "busy", "box", "/bin/sh", "-c", "while :; do date > /now; done"]).ok();
    ctk_e2e::eventually(std::time::Duration::from_secs(5), "it writes", || {
        ctk(&world, &["exec", "busy", "test", "-e", "/now"]).status.success()
    });
    ctk(&world, &["commit", "busy", "snap"]).ok();
    assert_eq!(ctk(&world, &["inspect", "--format", "{{.State.Status}}", "busy"]).ok(), "running\n");
    ctk(&world, &["run", "--rm", "snap", "/bin/test", "-e", "/now"]).ok();
    ctk(&world, &["export", "-o", "busy.tar", "busy"]).ok();
    contains(&world.peer("tar", &["-tf", "busy.tar"]).ok(), &["now\n"]);
    ctk(&world, &["rm", "-f", "-t", "0", "busy"]).ok();
}

#[test]
fn secrets_are_shown_and_stay_secrets() {
    let Some(world) = boxed("") else { return };
    world.write("key", "hush-hush\n");
    let file = ["--secret", "id=key,src=key,uid=33,mode=0400", "--secret", "id=other,src=key,target=/etc/other"];
    let look =
        "cat /run/secrets/key /etc/other; stat -c '%u %a' /run/secrets/key; grep -c 'tmpfs /run/secrets' /proc/mounts";
    assert_eq!(sh(&world, &file, look).ok(), "hush-hush\nhush-hush\n33 400\n1\n");
    contains(&sh(&world, &file, "echo x > /etc/other").fails(1), &["Read-only"]);
    let variable = ["--secret", "id=token,env=TOKEN,type=env"];
    let mut command = world
        .command(&[&["run", "--rm", "--name", "v"], &variable[..], &["box", "/bin/sh", "-c", "echo $token"]].concat());
    command.env("CTK_NETWORK", "none").env("TOKEN", "hush-too");
    assert_eq!(run(command).ok(), "hush-too\n");
    // Kept ones.
    ctk(&world, &["secret", "create", "kept", "key"]).ok();
    contains(
        &ctk(&world, &["secret", "create", "kept", "key"]).fails(1),
        &["there is a secret `kept` already", "--replace"],
    );
    ctk(&world, &["secret", "create", "--replace", "--label", "a=b", "kept", "key"]).ok();
    assert_eq!(ctk(&world, &["secret", "ls", "-q"]).ok(), "kept\n");
    assert_eq!(ctk(&world, &["secret", "inspect", "--format", "{{.Labels.a}}", "kept"]).ok(), "b\n");
    assert_eq!(
        sh(&world, &["--secret", "kept", "--secret", "kept,type=env,target=K"], "cat /run/secrets/kept; echo $K").ok(),
        "hush-hush\nhush-hush\n"
    );
    // Started again, it has them again; nobody who looks at it has.
    let again = ["create", "--name", "again", "--secret", "kept", "--secret", "kept,type=env,target=K", "box"];
    ctk(&world, &[&again[..], &["/bin/sh", "-c", "cat /run/secrets/kept >/dev/null; rm /run/secrets/kept"]].concat())
        .ok();
    ctk(&world, &["start", "-a", "again"]).ok();
    ctk(&world, &["start", "-a", "again"]).ok();
    let told = ctk(&world, &["inspect", "again"]).ok();
    contains(&told, &["K=*******"]);
    assert!(!told.contains("hush"), "{told}");
    let secret = world.store().join("secrets/kept/data");
    assert_eq!(mode(&secret), 0o600);
    ctk(&world, &["secret", "rm", "kept"]).ok();
    contains(
        &sh(&world, &["--secret", "kept"], "true").fails(125),
        &["there is no secret `kept`", "ctk secret create"],
    );
    contains(&sh(&world, &["--secret", "id=a,src=/not/there"], "true").fails(125), &["cannot read /not/there"]);
    contains(&sh(&world, &["--secret", "id=a,env=NOT_THERE"], "true").fails(125), &["no variable `NOT_THERE`"]);
}

#[test]
fn devices_by_path_by_cdi_and_by_rule() {
    let Some(world) = boxed("") else { return };
    assert_eq!(sh(&world, &["--device", "/dev/zero:/dev/nothing:r"], "head -c 3 /dev/nothing | wc -c").ok(), "3\n");
    let specifications = world.path("cdi");
    fs::create_dir(&specifications).unwrap();
    fs::write(specifications.join("tool"), "a tool\n").unwrap();
    let yaml = format!(
        "cdiVersion: 0.8.0\nkind: acme.com/gpu\ncontainerEdits:\n  env: [ACME=on]\ndevices:\n  - name: zero\n    containerEdits:\n      \
         deviceNodes:\n        - path: /dev/acme0\n          hostPath: /dev/zero\n      mounts:\n        - hostPath: {}\n          \
         containerPath: /opt/tool\n          options: [ro, bind]\n      additionalGids: [4711]\n      hooks:\n        \
         - hookName: createContainer\n          path: /bin/touch\n          args: [touch, {}]\n",
        specifications.join("tool").display(),
        specifications.join("hooked").display()
    );
    fs::write(specifications.join("acme.yaml"), yaml).unwrap();
    let json = r#"{"cdiVersion":"0.6.0","kind":"nvidia.com/gpu","devices":[{"name":"all","containerEdits":{"env":["GPU=all"]}}]}"#;
    fs::write(specifications.join("gpu.json"), json).unwrap();
    let folder = specifications.display().to_string();
    let cdi = ["--cdi-spec-dir", &folder];
    let look = "head -c 3 /dev/acme0 | wc -c; cat /opt/tool; echo $ACME; id -G";
    let seen = sh(&world, &[&cdi[..], &["--device", "acme.com/gpu=zero"]].concat(), look).ok();
    assert!(seen.starts_with("3\na tool\non\n") && seen.contains("4711"), "{seen}");
    assert!(specifications.join("hooked").exists(), "its hook ran");
    assert_eq!(sh(&world, &[&cdi[..], &["--gpus", "all"]].concat(), "echo $GPU").ok(), "all\n");
    let near = sh(&world, &[&cdi[..], &["--device", "acme.com/gpu=zer"]].concat(), "true").fails(125);
    contains(&near, &["did you mean `acme.com/gpu=zero`?", "there are acme.com/gpu=zero"]);
    contains(&sh(&world, &["--device-cgroup-rule", "c 1:x r"], "true").fails(125), &["c 10:200 rwm"]);
    contains(&sh(&world, &["--device", "/etc/hostname"], "true").fails(125), &["is no device"]);
    contains(&sh(&world, &["--gpus", "some"], "true").fails(125), &["how many"]);
}

#[test]
fn the_size_of_a_layer_is_limited_where_the_file_system_can() {
    let Some(world) = boxed("") else { return };
    let fill = "dd if=/dev/zero of=/full bs=1M count=16 2>&1";
    let filled = sh(&world, &["--storage-opt", "size=4MiB"], fill);
    match filled.code() {
        // This file system cannot; the error says what to do about it.
        125 => contains(&filled.err, &["cannot limit a container's layer", "prjquota"]),
        _ => contains(&filled.out, &["o space left"]),
    }
    contains(&sh(&world, &["--storage-opt", "inodes=5"], "true").fails(125), &["there is `size=SIZE`"]);
}

#[test]
fn time_zones() {
    let Some(world) = boxed("") else { return };
    if !ctk_e2e::has("time zones of tzdata", std::path::Path::new("/usr/share/zoneinfo/Asia/Tokyo").exists()) {
        return;
    }
    assert_eq!(sh(&world, &["--tz", "Asia/Tokyo"], "date -d @0 +%H").ok(), "09\n");
    assert_eq!(sh(&world, &[], "date -d @0 +%H").ok(), "00\n");
    contains(&sh(&world, &["--tz", "Asia/Tokio"], "true").fails(125), &["did you mean `Asia/Tokyo`?"]);
    contains(&sh(&world, &["--tz", "../../etc/passwd"], "true").fails(125), &["is no name of a time zone"]);
}

#[test]
fn layers_as_images_are_the_same_files() {
    let Some(engine) = Engine::new(Kind::Ctk) else { return };
    let world = &engine.world;
    world.write("b/Dockerfile", "FROM localhost/busybox:1\nRUN mkdir /d && echo one > /d/f && chmod 4711 /d/f && ln -s f /d/l\nRUN rm /d/l && echo two > /d/g\n");
    engine.ask(&["build", "--quiet", "-t", "localhost/images:1", "b"]).ok();
    let script = "stat -c '%a %n' /d/*; cat /d/f /d/g; echo new > /d/f; ls /d; grep -c lowerdir /proc/self/mounts";
    let ask = |form: &str, options: &[&str]| {
        let mut command = engine.command(&[&["run"], options, &["localhost/images:1", "sh", "-c", script]].concat());
        command.env("CTK_LAYERS", form);
        ctk_e2e::run(command)
    };
    let as_trees = ask("tree", &["--rm"]).ok();
    assert_eq!(ask("erofs", &["--rm"]).ok(), as_trees);
    assert_eq!(ask("erofs", &["--rm", "--userns", "auto"]).ok(), as_trees);
    assert_eq!(ask("erofs", &["--name", "kept"]).ok(), as_trees);
    // Its root is images: what it wrote, and the rest, is seen by all who look at it, and after its next start.
    let config = world.store().join("containers").join(engine.field("kept", "{{.Id}}")).join("container.json");
    contains(&fs::read_to_string(config).unwrap(), &["image.erofs"]);
    assert_eq!(engine.ask(&["diff", "kept"]).ok(), "C /d\nC /d/f\n");
    engine.ask(&["cp", "kept:/d/f", "out"]).ok();
    assert_eq!(std::fs::read_to_string(world.project().join("out")).unwrap(), "new\n");
    engine.ask(&["commit", "kept", "localhost/images:2"]).ok();
    assert_eq!(engine.ask(&["run", "--rm", "localhost/images:2", "cat", "/d/f", "/d/g"]).ok(), "new\ntwo\n");
    contains(&engine.ask(&["start", "--attach", "kept"]).ok(), &["new\ntwo\n"]);
    contains(&ask("squashfs", &["--rm"]).fails(125), &["CTK_LAYERS is `squashfs`"]);
}
