//! Interrupted, killed, run twice at once, on a full disk: the next run finishes, and nothing is left behind.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use ctk_e2e::front::{Fault, Front};
use ctk_e2e::{Output, World, contains, eventually, has_programs, run};

use super::failures::with_busybox;
use super::network::Docker;

/// Whether a process runs whose command line has this.
fn runs(marker: &str) -> bool {
    let mut command = Command::new("pgrep");
    command.args(["-f", marker]);
    run(command).status.success()
}

pub(super) fn signal(child: &Child, name: &str) {
    let mut command = Command::new("kill");
    command.args([name, &child.id().to_string()]);
    run(command).ok();
}

/// What a child said, and its code.
pub(super) fn end(mut child: Child) -> (String, Option<i32>) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (said, child.wait().unwrap().code())
}

/// The folders below `folder` and their entries, two levels deep.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    read(folder).collect()
}

/// Cgroups of the containers that are written down in the world's store.
pub(super) fn cgroups(world: &World) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in entries(&world.store().join("run")) {
        let name = entry.file_stem().unwrap().to_string_lossy().into_owned();
        for hierarchy in entries(Path::new("/sys/fs/cgroup")) {
            found.extend(entries(&hierarchy).into_iter().filter(|path| path.to_string_lossy().contains(&name)));
        }
    }
    found
}

/// Asserts that neither processes, mounts, cgroups nor half-made folders of this world are left.
#[track_caller]
pub(super) fn nothing_is_left(world: &World, cgroups: &[PathBuf]) {
    let store = world.store().to_str().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(store), "a mount is left:\n{mounts}");
    for path in cgroups {
        assert!(!path.exists(), "{} is left", path.display());
    }
    for folder in ["run", "tmp"] {
        let left = entries(&world.store().join(folder));
        assert!(left.is_empty(), "{folder} has {left:?}");
    }
}

fn nothing_to_do(output: Output) {
    contains(&(output.err.clone() + &output.out), &["nothing to do"]);
    output.ok();
}

#[test]
fn an_interrupt_ends_a_long_run_and_the_next_finishes_it() {
    let marker = format!("71{}", std::process::id());
    let Some(world) = with_busybox(&format!(
        "image \"slow\" {{ stage \"final\" from=\"busybox\" {{ run \"/bin/busybox sleep {marker}\"; }}; }}\n"
    )) else {
        return;
    };
    for name in ["-INT", "-TERM", "-KILL"] {
        let child = world.spawn(&["apply"]);
        eventually(Duration::from_secs(20), "the step runs", || runs(&format!("sleep {marker}")));
        let cgroups = cgroups(&world);
        assert!(!cgroups.is_empty(), "the container has no cgroup");
        let started = Instant::now();
        signal(&child, name);
        let (said, code) = end(child);
        assert!(started.elapsed() < Duration::from_secs(5), "{name} took {:?}", started.elapsed());
        eventually(Duration::from_secs(5), "the step ends", || !runs(&format!("sleep {marker}")));
        if name == "-KILL" {
            assert_eq!(code, None);
            world.ctk(&["gc"]).ok();
        } else {
            assert_eq!(code, Some(130), "{said}");
            contains(&said, &["interrupted", "run it again"]);
        }
        nothing_is_left(&world, &cgroups);
        assert!(!world.ctk(&["images"]).ok().contains("case/slow"));
    }
    let project = world.read("containers.kdl").replace(&format!("sleep {marker}"), "sleep 0");
    world.write("containers.kdl", project);
    world.ctk(&["apply"]).ok();
    nothing_to_do(world.ctk(&["apply"]));
}

/// An apply of everything: two images, a step, a test with a service, pushes to a registry, a layout, an archive.
fn everything(registry: &str) -> String {
    format!(
        r#"
image "app" {{
    stage "build" from="busybox" {{
        copy "input" to="/input"
        run "for i in 1 2 3; do /bin/busybox cat /input > /out$i; done; /bin/busybox dd if=/dev/zero of=/big bs=1M count=4"
    }}
    stage "final" from="busybox" {{
        copy "/out1" "/out3" "/big" to="/data/" from="build"
        run "/bin/busybox sleep 0.1; /bin/busybox cat /data/out1 /data/out3 > /data/both"
        label "x"="y"
    }}
}}
test "app" image="app" {{
    service "web" image="busybox" {{
        entrypoint "/bin/busybox" "httpd" "-f" "-p" "80" "-h" "/bin"
        health exec="/bin/busybox wget -q -O /dev/null http://127.0.0.1/busybox" within="10s"
    }}
    command "both" "/bin/busybox" "wc" "-l" "/data/both" {{ stdout contains="2" }}
    command "web" "/bin/busybox" "wget" "-q" "-O" "/dev/null" "http://web/busybox"
}}
push "app" image="app" needs="test:app" {{
    to "{registry}/team/app" {{ tag "v1"; }}
    to "oci:dist/layout" {{ tag "v1"; }}
    to "docker-archive:dist/app.tar" {{ tag "app:v1"; }}
}}
"#
    )
}

/// Asserts that every name which is there shows a whole image, made from one of these inputs.
#[track_caller]
fn names_are_whole(world: &World, registry: &Docker, inputs: &[String]) {
    let remote = format!("docker://{}/team/app:v1", registry.host);
    for (there, place) in [
        (world.peer("skopeo", &["inspect", "--tls-verify=false", &remote]).status.success(), remote.as_str()),
        (world.project().join("dist/layout/index.json").exists(), "oci:dist/layout:v1"),
        (world.project().join("dist/app.tar").exists(), "docker-archive:dist/app.tar"),
    ] {
        if !there {
            continue;
        }
        let folder = world.path("seen");
        let _ = fs::remove_dir_all(&folder);
        let to = format!("dir:{}", folder.display());
        world.peer("skopeo", &["copy", "-q", "--src-tls-verify=false", place, &to]).ok();
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        let texts: Vec<String> = layers
            .iter()
            .map(|layer| {
                let file = folder.join(layer["digest"].as_str().unwrap().trim_start_matches("sha256:"));
                world.peer("tar", &["-xOf", file.to_str().unwrap(), "--wildcards", "*data/out1"]).out
            })
            .collect();
        assert!(texts.iter().any(|text| inputs.contains(text)), "{place} shows {texts:?}, expected one of {inputs:?}");
    }
}

#[test]
fn killed_anywhere_the_next_run_finishes() {
    if !has_programs(&["docker-registry", "skopeo", "tar"]) {
        return;
    }
    let Some(world) = with_busybox("") else { return };
    let registry = Docker::start(&world, "127.0.0.1", "");
    let project = world.read("containers.kdl") + &everything(&registry.host);
    world.write("containers.kdl", project);
    world.write("input", "0\n");
    let whole = world.ctk(&["apply"]);
    let took = whole.took;
    whole.ok();
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
    let mut inputs = vec!["0\n".to_owned()];
    for round in 1..=10u32 {
        inputs.push(format!("{round}\n"));
        world.write("input", &inputs[round as usize]);
        // Spread over the whole of an apply, each time elsewhere.
        let part = took * round / 10;
        let moment = part.saturating_sub(took / 10 * (seed.rotate_left(round) % 100) / 100);
        let mut child = world.spawn(&["apply"]);
        std::thread::sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();
        names_are_whole(&world, &registry, &inputs);
        let again = world.ctk(&["apply"]);
        assert!(again.status.success(), "after a kill at {moment:?} of {took:?}: {}", again.story());
        names_are_whole(&world, &registry, &inputs[round as usize..]);
        nothing_to_do(world.ctk(&["apply"]));
    }
    nothing_is_left(&world, &[]);
    // What only older rounds needed goes; what is named stays.
    let size = || {
        let said = world.peer("du", &["-s", "-B1", world.store().to_str().unwrap()]).ok();
        said.split('\t').next().unwrap().parse::<u64>().unwrap()
    };
    let before = size();
    contains(&world.ctk(&["gc", "--all"]).ok(), &["freed"]);
    assert!(size() < before / 2, "{} of {before} bytes are left", size());
    assert_eq!(world.ctk(&["run", "image:app", "/bin/busybox", "cat", "/data/out3"]).ok(), "10\n");
    world.ctk(&["apply"]).ok();
    nothing_to_do(world.ctk(&["apply"]));
}

#[test]
fn an_interrupt_anywhere_is_told_and_moves_nothing() {
    if !has_programs(&["docker-registry", "skopeo"]) {
        return;
    }
    let Some(world) = with_busybox("") else { return };
    let registry = Docker::start(&world, "127.0.0.1", "");
    let project = world.read("containers.kdl") + &everything(&registry.host);
    world.write("containers.kdl", project);
    let mut inputs = Vec::new();
    for round in 0..5u64 {
        inputs.push(format!("{round}\n"));
        world.write("input", inputs.last().unwrap());
        let child = world.spawn(&["apply"]);
        std::thread::sleep(Duration::from_millis(60 + 80 * round));
        signal(&child, "-INT");
        let (said, code) = end(child);
        // Before anything began it simply ends (`None`), and too late is fine, too.
        assert!(matches!(code, None | Some(0 | 130)), "{code:?}: {said}");
        if code == Some(130) {
            contains(&said, &["interrupted"]);
        }
        if code.is_none() {
            // What a killed process left, the next that opens the store removes.
            world.ctk(&["images"]).ok();
        }
        nothing_is_left(&world, &[]);
        names_are_whole(&world, &registry, &inputs);
    }
    world.ctk(&["apply"]).ok();
    nothing_to_do(world.ctk(&["apply"]));
}

#[test]
fn two_applies_of_a_project_at_once() {
    if !has_programs(&["docker-registry", "skopeo", "tar"]) {
        return;
    }
    let Some(world) = with_busybox("") else { return };
    let registry = Docker::start(&world, "127.0.0.1", "");
    let project = world.read("containers.kdl") + &everything(&registry.host);
    world.write("containers.kdl", project);
    for round in 0..3 {
        world.write("input", format!("{round}\n"));
        let children = [world.spawn(&["apply"]), world.spawn(&["apply"]), world.spawn(&["apply"])];
        for (said, code) in children.map(end) {
            assert_eq!(code, Some(0), "{said}");
        }
        names_are_whole(&world, &registry, &[format!("{round}\n")]);
        nothing_to_do(world.ctk(&["apply"]));
    }
    nothing_is_left(&world, &[]);
}

#[test]
fn two_projects_share_a_store() {
    let (Some(one), Some(two)) = (with_busybox(""), with_busybox("")) else { return };
    let image = |name: &str| {
        format!(
            "image \"{name}\" {{ stage \"final\" from=\"busybox\" {{ run \"/bin/busybox dd if=/dev/zero of=/x bs=1M count=3; echo {name} > /name\"; }}; }}\npush \"p\" image=\"{name}\" {{ to \"oci:dist\" {{ tag \"v1\"; }}; }}\n"
        )
    };
    for (world, name) in [(&one, "one"), (&two, "two")] {
        let project = world.read("containers.kdl").replace("\"case\"", &format!("\"project-{name}\""));
        world.write("containers.kdl", project + &image(name));
    }
    let shared = |world: &World, arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env("CTK_ROOT", one.store());
        command
    };
    for _ in 0..3 {
        let _ = fs::remove_dir_all(one.store());
        for world in [&one, &two] {
            let _ = fs::remove_dir_all(world.project().join("dist"));
        }
        let outputs = std::thread::scope(|scope| {
            let runs = [&one, &two].map(|world| scope.spawn(|| run(shared(world, &["apply"]))));
            runs.map(|running| running.join().unwrap())
        });
        outputs.into_iter().for_each(|output| drop(output.ok()));
        for (world, name) in [(&one, "one"), (&two, "two")] {
            nothing_to_do(run(shared(world, &["apply"])));
            let image = format!("image:{name}");
            assert_eq!(run(shared(world, &["run", &image, "/bin/busybox", "cat", "/name"])).ok(), format!("{name}\n"));
        }
    }
    let images = run(shared(&one, &["images"])).ok();
    contains(&images, &["project-one/one", "project-two/two", "project-one/busybox", "project-two/busybox"]);
}

#[test]
fn an_interrupted_pull_goes_on_where_it_was() {
    if !has_programs(&["docker-registry"]) {
        return;
    }
    let Some(world) = with_busybox("") else { return };
    let registry = Docker::start(&world, "127.0.0.1", "");
    let front = Front::before(&registry.host);
    let push = format!("push \"p\" image=\"busybox\" {{ to \"{}/app\" {{ tag \"v1\"; }}; }}\n", front.host);
    world.write("containers.kdl", world.read("containers.kdl") + &push);
    world.ctk(&["apply"]).ok();
    fs::remove_dir_all(world.store()).unwrap();
    let is_layer = |path: &str| path.contains("/blobs/");
    front.fault(move |asked| is_layer(&asked.path).then_some(Fault::Stall(600_000)));
    let name = format!("{}/app:v1", front.host);
    let child = world.spawn(&["pull", &name]);
    let mut asked = Vec::new();
    eventually(Duration::from_secs(10), "a blob is asked for", || {
        asked.extend(front.requests());
        asked.iter().any(|line| is_layer(line))
    });
    std::thread::sleep(Duration::from_millis(300));
    let started = Instant::now();
    signal(&child, "-INT");
    let (said, code) = end(child);
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(code, Some(130), "{said}");
    contains(&said, &["interrupted"]);
    assert_eq!(world.ctk(&["images", "--quiet"]).ok(), "");
    front.heal();
    world.ctk(&["pull", &name]).ok();
    assert_eq!(world.ctk(&["run", &name, "/bin/busybox", "echo", "hi"]).ok(), "hi\n");
}

/// A file system of so many MiB at `folder`, until dropped.
struct Small<'a>(&'a World, PathBuf);

impl Small<'_> {
    fn mount<'a>(world: &'a World, folder: PathBuf, size: &str) -> Small<'a> {
        fs::create_dir_all(&folder).unwrap();
        let options = format!("size={size}");
        world.peer("mount", &["-t", "tmpfs", "-o", &options, "none", folder.to_str().unwrap()]).ok();
        Small(world, folder)
    }

    fn grow(&self) {
        self.0.peer("mount", &["-o", "remount,size=256m", self.1.to_str().unwrap()]).ok();
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.1).status();
    }
}

#[test]
fn a_full_disk_in_pull_load_save_and_push() {
    if !has_programs(&["docker-registry"]) {
        return;
    }
    let Some(world) = with_busybox("") else { return };
    let registry = Docker::start(&world, "127.0.0.1", "");
    let name = format!("{}/team/app:v1", registry.host);
    let push = |to: &str| format!("push \"p\" image=\"busybox\" {{ to \"{to}\" {{ tag \"v1\"; }}; }}\n");
    let project = world.read("containers.kdl");
    world.write("containers.kdl", project.clone() + &push(&format!("{}/team/app", registry.host)));
    world.ctk(&["apply"]).ok();
    world.ctk(&["save", "image:busybox", "-o", "busybox.tar"]).ok();

    // Pull and load into a store without space.
    let store = Small::mount(&world, world.path("small-store"), "700k");
    let into = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env("CTK_ROOT", &store.1);
        run(command)
    };
    contains(&into(&["pull", &name]).fails(1), &["team/app", "pace"]);
    contains(&into(&["load", "busybox.tar"]).fails(1), &["pace"]);
    assert_eq!(into(&["images", "--quiet"]).ok(), "");
    store.grow();
    into(&["pull", &name]).ok();
    into(&["load", "busybox.tar"]).ok();
    assert_eq!(into(&["run", &name, "/bin/busybox", "echo", "hi"]).ok(), "hi\n");
    drop(store);

    // Save and push to places without space.
    let place = Small::mount(&world, world.project().join("small"), "700k");
    contains(&world.ctk(&["save", "image:busybox", "-o", "small/x.tar"]).fails(1), &["small/x.tar", "pace"]);
    for kind in ["oci:small/layout", "docker-archive:small/push.tar"] {
        world.write("containers.kdl", project.clone() + &push(kind));
        contains(&world.ctk(&["apply"]).fails(1), &["push:p", "small/", "pace"]);
    }
    let left = world.peer("find", &["small", "-name", "*.tar", "-o", "-name", "index.json"]).ok();
    assert_eq!(left, "", "half a result is visible");
    place.grow();
    world.ctk(&["apply"]).ok();
    nothing_to_do(world.ctk(&["apply"]));
    drop(place);

    // A registry of ours without space says so, and its client repeats it.
    let storage = Small::mount(&world, world.path("small-registry"), "700k");
    let listen = format!("127.0.0.1:{}", ctk_e2e::free_port());
    let words = ["registry", "serve", "--listen", &listen, "--storage", storage.1.to_str().unwrap()];
    let mut server = world.spawn(&words);
    eventually(Duration::from_secs(10), "the registry answers", || std::net::TcpStream::connect(&listen).is_ok());
    world.write("containers.kdl", project + &push(&format!("{listen}/team/app")));
    let said = world.ctk(&["apply"]);
    storage.grow();
    let again = world.ctk(&["apply"]);
    server.kill().unwrap();
    server.wait().unwrap();
    contains(&said.fails(1), &["push:p", &listen, "507", "disk is full"]);
    again.ok();
}
