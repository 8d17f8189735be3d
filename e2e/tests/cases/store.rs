//! The store: images in and out through others' formats, inspect, rm, and gc beside everything else.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use ctk_e2e::{World, contains, has_programs, run};
use serde_json::Value;

use super::failures::with_busybox;

/// An image with everything that archives can lose: owners, modes, links, times, a whiteout, an opaque folder.
const RICH: &str = r#"
image "rich" {
    stage "final" from="busybox" {
        run "/bin/busybox mkdir -p /d/deep /gone; echo a > /d/deep/a; echo b > /d/b; echo g > /gone/g; /bin/busybox ln -s b /d/link; /bin/busybox ln /d/b /d/hard; /bin/busybox chown 12:34 /d/b; /bin/busybox chmod 4750 /d/b; /bin/busybox chmod 1777 /d/deep"
        run "/bin/busybox rm -r /gone /d/deep; /bin/busybox mkdir /d/deep; echo new > /d/deep/new"
        env A="1" B="two words"
        user "12:34"
        workdir "/d"
        expose 80 "53/udp"
        volume "/data"
        label "k"="v" "größe"="ß"
        entrypoint "/bin/busybox"
        cmd "echo" "from the image"
        stopsignal "SIGUSR1"
    }
}
"#;

/// The tree of `rich`, as `find` prints it.
const TREE: &str =
    "d/b 4750 12:34 f\nd/deep 755 0:0 d\nd/deep/new 644 0:0 f\nd/hard 4750 12:34 f\nd/link 777 0:0 l b\nd 755 0:0 d\n";

/// podman asks for more files and processes than some machines let even root have, and crun knows no hybrid cgroups.
const PODMAN_RUN: &[&str] = &[
    "run",
    "--rm",
    "--rm",
    "--network=none",
    "--runtime=runc",
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=4096:4096",
];

fn rich() -> Option<World> {
    if !has_programs(&["skopeo", "umoci", "podman"]) {
        return None;
    }
    let world = with_busybox(RICH)?;
    world.ctk(&["apply"]).ok();
    Some(world)
}

/// Sorted lines about `d` in an unpacked root.
fn tree(world: &World, root: &str) -> String {
    let format = [
        "-path",
        "*/d*",
        "(",
        "-type",
        "l",
        "-printf",
        "%P %m %U:%G %y %l\n",
        "-o",
        "-printf",
        "%P %m %U:%G %y\n",
        ")",
    ];
    let found = world.peer("find", &[&[root][..], &format].concat()).ok();
    let mut lines: Vec<&str> = found.lines().filter(|line| line.starts_with("d/") || line.starts_with("d ")).collect();
    lines.sort_unstable();
    lines.join("\n") + "\n"
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n") + "\n"
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn saved_images_are_read_by_skopeo_umoci_and_podman() {
    let Some(world) = rich() else { return };
    let config = parse(&world.ctk(&["inspect", "--config", "image:rich"]).ok());
    assert_eq!(config["config"]["Labels"]["größe"], "ß");
    world.ctk(&["save", "image:rich", "--format", "oci-dir", "-o", "layout"]).ok();
    world.ctk(&["save", "image:rich", "--format", "oci-archive", "-o", "layout.tar"]).ok();
    world.ctk(&["save", "image:rich", "-o", "docker.tar"]).ok();
    let layout = parse(&fs::read_to_string(world.project().join("layout/index.json")).unwrap());
    let tag = layout["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap().to_owned();

    for place in
        [format!("oci:layout:{tag}"), format!("oci-archive:layout.tar:{tag}"), "docker-archive:docker.tar".into()]
    {
        let seen = parse(&world.peer("skopeo", &["inspect", "--config", "--raw", &place]).ok());
        assert_eq!(seen["config"], config["config"], "{place}");
        assert_eq!(seen["rootfs"], config["rootfs"], "{place}");
    }
    world.peer("umoci", &["unpack", "--image", &format!("layout:{tag}"), "bundle"]).ok();
    assert_eq!(tree(&world, "bundle/rootfs"), sorted(TREE));
    assert!(!world.project().join("bundle/rootfs/gone").exists());
    for place in ["docker-archive:docker.tar".to_owned(), format!("oci:layout:{tag}")] {
        let id = world.podman(&["pull", "-q", &place]).ok();
        assert_eq!(world.podman(&[PODMAN_RUN, &[id.trim()]].concat()).ok(), "from the image\n");
        let script =
            "cd /d; /bin/busybox stat -c '%n %a %u:%g' b deep hard; /bin/busybox ls /d/deep; /bin/busybox id -u";
        let words = ["--entrypoint", "/bin/sh", id.trim(), "-c", script];
        assert_eq!(
            world.podman(&[PODMAN_RUN, &words].concat()).ok(),
            "b 4750 12:34\ndeep 755 0:0\nhard 4750 12:34\nnew\n12\n",
            "{place}"
        );
    }
    // Standard output, as `docker save` does; two images in one archive share their layers.
    world
        .peer(
            "sh",
            &[
                "-c",
                &format!(
                    "CTK_ROOT={} {} save image:rich image:busybox > both.tar",
                    world.store().display(),
                    ctk_e2e::binary().display()
                ),
            ],
        )
        .ok();
    let members = parse(&world.peer("tar", &["-xOf", "both.tar", "manifest.json"]).ok());
    assert_eq!(members.as_array().unwrap().len(), 2);
    contains(&world.ctk(&["save", "image:nix", "-o", "x.tar"]).fails(1), &["image:nix"]);
    contains(&world.ctk(&["save", "nowhere/nix", "-o", "x.tar"]).fails(1), &["nowhere/nix", "hint:"]);
    assert!(!world.project().join("x.tar").exists());
}

#[test]
fn what_others_saved_is_loaded() {
    let Some(world) = rich() else { return };
    world.ctk(&["save", "image:rich", "--format", "oci-dir", "-o", "layout"]).ok();
    let digest = world.ctk(&["images", "--quiet", "case/rich"]).ok();
    let layout = parse(&fs::read_to_string(world.project().join("layout/index.json")).unwrap());
    let tag = layout["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap().to_owned();
    let from = format!("oci:layout:{tag}");
    world.peer("skopeo", &["copy", "-q", &from, "docker-archive:theirs.tar:example.test/theirs:1"]).ok();
    world.peer("skopeo", &["copy", "-q", &from, "oci-archive:theirs-oci.tar:two"]).ok();
    let id = world.podman(&["pull", "-q", &from]).ok();
    world.podman(&["save", "-q", "-o", world.project().join("podman.tar").to_str().unwrap(), id.trim()]).ok();
    world.peer("gzip", &["-k", "podman.tar"]).ok();

    for (arguments, name) in [
        (&["load", "theirs.tar"][..], "example.test/theirs:1"),
        (&["load", "theirs-oci.tar"], "localhost/loaded:two"),
        (&["load", "--input", "podman.tar.gz", "--tag", "from-podman:3"], "localhost/from-podman:3"),
        (&["load", "layout", "--tag", "example.test/layout:4"], "example.test/layout:4"),
    ] {
        fs::remove_dir_all(world.store()).unwrap();
        let said = world.ctk(arguments).ok();
        let shown = world.ctk(&["images"]).ok();
        assert!(shown.contains(name) || arguments.contains(&"--tag"), "{arguments:?} said {said} and shows {shown}");
        let loaded = parse(&world.ctk(&["images", "--json"]).ok())[0].clone();
        let name = loaded["name"].as_str().unwrap().to_owned();
        assert_eq!(world.ctk(&["run", "--rm", &name]).ok(), "from the image\n", "{arguments:?}");
        let script = "/bin/busybox stat -c '%n %a %u:%g' b deep hard; /bin/busybox ls /d/deep";
        let words = ["run", "--rm", "--entrypoint", "/bin/sh", &name, "-c", script];
        assert_eq!(world.ctk(&words).ok(), "b 4750 12:34\ndeep 755 0:0\nhard 4750 12:34\nnew\n", "{arguments:?}");
        if arguments.contains(&"layout") {
            assert_eq!(loaded["digest"].as_str().unwrap(), digest.trim());
        }
    }
    // By standard input, and again: the same.
    let mut child = world.command(&["load"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let archive = fs::read(world.project().join("theirs.tar")).unwrap();
    child.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    contains(&world.ctk(&["images"]).ok(), &["example.test/theirs:1"]);
}

#[test]
fn archives_that_are_none_and_archives_that_lie() {
    let Some(world) = rich() else { return };
    world.ctk(&["save", "image:rich", "-o", "good.tar"]).ok();
    world.ctk(&["save", "image:rich", "--format", "oci-dir", "-o", "layout"]).ok();
    let good = fs::read(world.project().join("good.tar")).unwrap();
    world.write("empty.tar", "").write("text.tar", "this is no archive, only a text".repeat(100));
    world.write("short.tar", &good[..good.len() / 2]);
    world.peer("tar", &["-cf", "other.tar", "containers.kdl"]).ok();
    fs::remove_dir_all(world.store()).unwrap();
    for name in ["empty.tar", "text.tar", "short.tar", "other.tar", "nothing-there.tar"] {
        contains(&world.ctk(&["load", name]).fails(1), &["error", name]);
    }
    // A blob that is not what its name says.
    let blobs = world.project().join("layout/blobs/sha256");
    let largest = fs::read_dir(blobs).unwrap().flatten().max_by_key(|e| e.metadata().unwrap().len()).unwrap().path();
    let mut bytes = fs::read(&largest).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let digest = largest.file_name().unwrap().to_str().unwrap();
    contains(&world.ctk(&["load", "layout"]).fails(1), &["error", digest]);
    fs::remove_file(&largest).unwrap();
    contains(&world.ctk(&["load", "layout"]).fails(1), &["error", digest]);
    assert_eq!(world.ctk(&["images", "--quiet"]).ok(), "");
    contains(&world.ctk(&["gc", "--all"]).ok(), &["freed"]);
    world.ctk(&["load", "good.tar"]).ok();
}

#[test]
fn names_come_and_go_and_gc_follows() {
    let Some(world) = rich() else { return };
    let name = "localhost/case/rich:latest";
    let inspected = parse(&world.ctk(&["inspect", name]).ok());
    assert_eq!(inspected["images"][0]["config"]["config"]["WorkingDir"], "/d");
    let raw = world.ctk(&["inspect", "--raw", name]).ok();
    let digest = inspected["descriptor"]["digest"].as_str().unwrap();
    world.write("raw", raw);
    contains(&world.peer("sha256sum", &["raw"]).ok(), &[digest.trim_start_matches("sha256:")]);
    world.ctk(&["copy", &format!("store:{name}"), "store:example.test/second:1"]).ok();
    world.ctk(&["rmi", name]).ok();
    contains(&world.ctk(&["rmi", name]).fails(1), &[name]);
    world.ctk(&["rmi", "--force", name]).ok();
    contains(&world.ctk(&["inspect", name]).fails(1), &[name, "hint:"]);

    // The second name keeps it whole; without it everything goes.
    world.ctk(&["gc", "--all"]).ok();
    assert_eq!(world.ctk(&["run", "--rm", "example.test/second:1"]).ok(), "from the image\n");
    world.ctk(&["rmi", "example.test/second:1", "localhost/case/busybox:latest"]).ok();
    let would = world.ctk(&["gc", "--all", "--dry-run"]).ok();
    contains(&would, &["would free"]);
    let blobs = || {
        let found = world.peer("find", &[world.store().join("blobs").to_str().unwrap(), "-type", "f"]).ok();
        found.lines().count()
    };
    assert!(blobs() > 0);
    world.ctk(&["gc", "--all"]).ok();
    assert_eq!(blobs(), 0);
    assert_eq!(world.ctk(&["images", "--quiet"]).ok(), "");
    world.ctk(&["apply"]).ok();
    assert_eq!(world.ctk(&["run", "--rm", "image:rich"]).ok(), "from the image\n");
}

#[test]
fn gc_beside_an_apply_takes_nothing_away() {
    let project = r#"
image "app" {
    stage "build" from="busybox" {
        copy "input" to="/input"
        run "for i in 1 2 3; do /bin/busybox cat /input > /out$i; /bin/busybox sleep 0.05; done"
    }
    stage "final" from="busybox" {
        copy "/out1" "/out3" to="/data/" from="build"
        run "/bin/busybox sleep 0.1; /bin/busybox cat /data/out1 > /data/both"
    }
}
test "app" image="app" { command "both" "/bin/busybox" "cat" "/data/both"; }
push "app" image="app" needs="test:app" { to "oci:dist" { tag "v1"; }; }
"#;
    let Some(world) = with_busybox(project) else { return };
    let stop = AtomicBool::new(false);
    let collected = std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                world.ctk(&["gc", "--all"]).ok();
                rounds += 1;
            }
            rounds
        });
        let applied = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..8 {
                world.write("input", format!("{round}\n"));
                world.ctk(&["apply"]).ok();
                let said = world.ctk(&["run", "--rm", "image:app", "/bin/busybox", "cat", "/data/both"]).ok();
                assert_eq!(said, format!("{round}\n"));
            }
        }));
        stop.store(true, Ordering::Relaxed);
        let rounds = collector.join().unwrap();
        applied.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        rounds
    });
    assert!(collected > 5, "gc ran only {collected} times");
    world.ctk(&["apply"]).ok();
    if has_programs(&["skopeo"]) {
        world.peer("skopeo", &["inspect", "oci:dist:v1"]).ok();
    }
}

#[test]
fn gc_waits_for_what_runs() {
    let Some(world) = with_busybox("") else { return };
    world.ctk(&["apply"]).ok();
    world.ctk(&["copy", "store:localhost/case/busybox:latest", "store:example.test/x:1"]).ok();
    let script = "/bin/busybox echo started; /bin/busybox sleep 1; exec /bin/busybox echo still here";
    let mut command = world.command(&["run", "--rm", "example.test/x:1", "/bin/sh", "-c", script]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(400));
    world.ctk(&["rmi", "example.test/x:1", "localhost/case/busybox:latest"]).ok();
    world.ctk(&["gc", "--all"]).ok();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "started\nstill here\n", "{:?}", output.stderr);
    world.ctk(&["gc", "--all"]).ok();
    let mut command = Command::new("find");
    command.args([world.store().join("layers").to_str().unwrap(), "-name", "busybox"]);
    assert_eq!(run(command).ok(), "", "its layer is left");
}
