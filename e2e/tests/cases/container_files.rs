//! What containers find in their file systems: volumes, mounts, secrets, devices; and what others see of theirs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use ctk_e2e::{Output, World, contains, run};

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
        let all = ["run", "--rm", "--network", "none", "-v", "theirs:/data", "localhost/box", "/bin/sh", "-c", look];
        assert_eq!(world.podman(&all).ok(), seen, "podman does the same");
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
    ctk(&world, &["volume", "rm", "--force", "data"]).ok();
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
    // Between its making and its start, somebody who has the volume makes it a link to the host's.
    sh(&world, &["-v", "v:/data"], "rm -r /data/part; ln -s /etc /data/part").ok();
    let started = ctk(&world, &["start", "-a", "later"]);
    assert!(!started.status.success() && !started.out.contains("hostname"), "{}", started.story());
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
