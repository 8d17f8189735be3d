//! Caches that travel: one store writes them, another reads them.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ctk_e2e::{Output, World, contains, eventually, free_port, has, has_programs, run};

/// Every instruction whose result depends on chance makes another image if it runs again.
const DOCKERFILE: &str = r#"
FROM scratch AS base
COPY busybox /bin/sh
RUN ["/bin/sh", "-c", "/bin/sh -c 'read x < /proc/sys/kernel/random/uuid; echo $x > /base'"]
FROM base AS build
COPY source /source
RUN read x < /proc/sys/kernel/random/uuid; echo $x > /noise; read y < /source; echo "$y" > /out
FROM base
COPY --from=build /out /out
COPY last /last
RUN read x < /proc/sys/kernel/random/uuid; echo $x > /end
"#;

/// Kills a program when the case ends.
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder `app` with that Dockerfile.
fn world() -> Option<World> {
    if !ctk_e2e::is_root() || !has_programs(&["busybox"]) {
        return None;
    }
    let world = World::new();
    world.write("app/busybox", fs::read("/usr/bin/busybox").expect("a static busybox"));
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(world.path("project/app/busybox"), executable).unwrap();
    world.write("app/Dockerfile", DOCKERFILE).write("app/source", "1\n").write("app/last", "1\n");
    Some(world)
}

/// `ctk build` in a store of its own called `store`.
fn build(world: &World, store: &str, more: &[&str]) -> Output {
    let mut arguments = vec!["build", "--progress=plain", "-t", "app"];
    arguments.extend(more);
    arguments.push("app");
    let mut command = world.command(&arguments);
    command.env("CTK_ROOT", world.path(store)).env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
    run(command)
}

/// The digest of what was built, and the story.
fn built(output: Output) -> (String, String) {
    let story = output.err.clone();
    let said = output.ok();
    (said.trim().rsplit(' ').next().unwrap().to_owned(), story)
}

/// Whether the instruction `step` ran.
pub fn ran(story: &str, step: &str) -> bool {
    story.lines().any(|line| line.contains(step) && line.contains(": done"))
}

pub fn nothing_ran(story: &str) {
    let ran = |line: &&str| (line.contains("] RUN") || line.contains("] COPY")) && line.contains(": done");
    assert_eq!(story.lines().find(ran), None, "{story}");
}

pub fn registry(world: &World, port: u16) -> Server {
    let listen = format!("127.0.0.1:{port}");
    let server = Server(world.spawn(&["registry", "serve", "--listen", &listen, "--storage", "registry-data"]));
    eventually(Duration::from_secs(10), "the registry answers", || TcpStream::connect(&listen).is_ok());
    server
}

/// The same, and one without and one with a changed file: what every place must do.
fn travels(world: &World, to: &str, from: &str) {
    let (first, _) = built(build(world, "a", &["--cache-to", to]));
    let (again, story) = built(build(world, "b", &["--cache-from", from]));
    nothing_ran(&story);
    assert_eq!(again, first);
    // It is in the store now, and the cache is not asked again.
    let (again, story) = built(build(world, "b", &[]));
    nothing_ran(&story);
    assert_eq!(again, first);
    world.write("app/last", "2\n");
    let (changed, story) = built(build(world, "c", &["--cache-from", from]));
    assert!(ran(&story, "COPY last /last") && ran(&story, "> /end"), "{story}");
    assert!(!ran(&story, "> /base") && !ran(&story, "/noise"), "{story}");
    assert_ne!(changed, first);
    world.write("app/last", "1\n");
}

#[test]
fn a_folder() {
    let Some(world) = world() else { return };
    travels(&world, "type=local,dest=cache,mode=max", "type=local,src=cache");
    // Nothing changed: nothing is written.
    let index = fs::metadata(world.path("project/cache/index.json")).unwrap().modified().unwrap();
    build(&world, "a", &["--cache-to", "type=local,dest=cache,mode=max"]).ok();
    assert_eq!(fs::metadata(world.path("project/cache/index.json")).unwrap().modified().unwrap(), index);
    // Another store that has it all from the cache writes the very same.
    build(&world, "b", &["--cache-from", "type=local,src=cache", "--cache-to", "type=local,dest=other,mode=max"]).ok();
    assert_eq!(world.read("other/index.json"), world.read("cache/index.json"));
}

#[test]
fn our_registry_and_nothing_is_fetched_that_nobody_needs() {
    let Some(world) = world() else { return };
    let port = free_port();
    let _server = registry(&world, port);
    let name = format!("type=registry,ref=127.0.0.1:{port}/app:cache");
    travels(&world, &format!("{name},mode=max"), &name);
    let counter = Proxy::start(port, usize::MAX, false);
    let name = format!("type=registry,ref=127.0.0.1:{}/app:cache", counter.port);
    build(&world, "d", &["--cache-from", &name]).ok();
    let blobs = counter.seen("GET", "/blobs/");
    // The records and the image's five layers; not what the stage `build` made besides.
    assert_eq!(blobs, 6, "{:?}", counter.requests.lock().unwrap());
    counter.forget();
    build(&world, "d", &["--cache-from", &name]).ok();
    assert_eq!(counter.seen("", ""), 0, "{:?}", counter.requests.lock().unwrap());
    build(&world, "a", &["--cache-to", &format!("{name},mode=max")]).ok();
    assert_eq!(counter.seen("PUT", "") + counter.seen("POST", ""), 0, "{:?}", counter.requests.lock().unwrap());
}

#[test]
fn docker_registry_and_other_forms() {
    let Some(world) = world() else { return };
    if !has_programs(&["docker-registry"]) {
        return;
    }
    let port = free_port();
    world.write(
        "registry.yml",
        format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            world.path("distribution").display()
        ),
    );
    let mut command = Command::new("docker-registry");
    command.args(["serve", "registry.yml"]).current_dir(world.project()).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Server(command.spawn().unwrap());
    let listen = format!("127.0.0.1:{port}");
    eventually(Duration::from_secs(10), "the registry answers", || TcpStream::connect(&listen).is_ok());
    for (tag, form) in ["", ",image-manifest=false", ",oci-mediatypes=false", ",compression=zstd"].iter().enumerate() {
        let name = format!("type=registry,ref=127.0.0.1:{port}/app:cache{tag}");
        for store in ["a", "b", "c"] {
            let _ = fs::remove_dir_all(world.path(store));
        }
        travels(&world, &format!("{name},mode=max{form}"), &name);
    }
}

#[test]
fn an_image_that_holds_its_own() {
    let Some(world) = world() else { return };
    let port = free_port();
    let _server = registry(&world, port);
    let name = format!("127.0.0.1:{port}/app:1");
    let (first, _) = built(build(
        &world,
        "a",
        &["--cache-to", "type=inline", "--output", &format!("type=image,name={name},push=true")],
    ));
    let more = ["--cache-to", "type=inline", "--cache-from", &name];
    let (again, story) = built(build(&world, "b", &more));
    nothing_ran(&story);
    assert_eq!(again, first);
    world.write("app/last", "2\n");
    let (_, story) = built(build(&world, "c", &more));
    assert!(ran(&story, "COPY last /last") && !ran(&story, "/noise"), "{story}");
    let error = build(&world, "c", &["--cache-to", "type=inline,mode=max"]).fails(1);
    contains(&error, &["`mode=min` alone"]);
}

#[test]
fn a_bucket() {
    let Some(world) = world() else { return };
    let program = std::env::var("CTK_TEST_MOTO").unwrap_or_else(|_| "moto_server".into());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|folder| folder.join(&program).exists());
    if !has("moto_server (a server with S3's protocol)", there) {
        return;
    }
    let port = free_port();
    let mut command = Command::new(program);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Server(command.spawn().unwrap());
    let address = format!("127.0.0.1:{port}");
    eventually(Duration::from_secs(30), "the server answers", || TcpStream::connect(&address).is_ok());
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(stream, "PUT /caches HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    contains(&answer, &["200 OK"]);
    let name = format!(
        "type=s3,bucket=caches,region=us-east-1,prefix=ci/,name=main;side,endpoint_url=http://{address},use_path_style=true"
    );
    travels(&world, &format!("{name},mode=max"), &name);
    let absent = format!("{name},ignore-error=true").replace("bucket=caches", "bucket=absent");
    let (_, story) = built(build(&world, "a", &["--cache-to", &absent]));
    contains(&story, &["the cache was not exported to `s3://absent/"]);
}

#[test]
fn min_keeps_the_image_and_max_all_stages() {
    let Some(world) = world() else { return };
    build(&world, "a", &["--cache-to", "type=local,dest=min", "--cache-to", "type=local,dest=max,mode=max"]).ok();
    let count = |folder: &str| fs::read_dir(world.path(folder).join("blobs/sha256")).unwrap().count();
    assert!(count("project/min") < count("project/max"));
    world.write("app/last", "2\n");
    let (_, story) = built(build(&world, "b", &["--cache-from", "type=local,src=min"]));
    assert!(!ran(&story, "/noise"), "its result is in the image: {story}");
    world.write("app/source", "2\n");
    for (store, cache) in [("c", "min"), ("d", "max")] {
        let (_, story) = built(build(&world, store, &["--cache-from", &format!("type=local,src={cache}")]));
        assert!(ran(&story, "/noise") && !ran(&story, "> /base"), "{story}");
    }
    world.write("app/source", "1\n").write("app/Dockerfile", DOCKERFILE.replace("/out /out", "/out /other"));
    for (store, cache, runs) in [("e", "min", true), ("f", "max", false)] {
        let (_, story) = built(build(&world, store, &["--cache-from", &format!("type=local,src={cache}")]));
        assert_eq!(ran(&story, "/noise"), runs, "{cache}: {story}");
    }
}

#[test]
fn several_platforms_in_one_cache() {
    let Some(world) = world() else { return };
    world.write("app/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY source /source-$TARGETARCH\nCOPY last /last\n");
    let platforms = "--platform=linux/amd64,linux/arm64";
    let (first, _) = built(build(&world, "a", &[platforms, "--cache-to", "type=local,dest=cache"]));
    let (again, story) = built(build(&world, "b", &[platforms, "--cache-from", "type=local,src=cache"]));
    nothing_ran(&story);
    assert_eq!(again, first);
}

#[test]
fn cache_mounts_go_along() {
    let Some(world) = world() else { return };
    let dockerfile = "FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/busybox\nCOPY source /source\n\
        RUN --mount=type=cache,id=log,target=/log,uid=7,mode=0750 \
        read x < /source; echo $x >> /log/lines; busybox cat /log/lines > /lines\n";
    world.write("app/Dockerfile", dockerfile);
    build(
        &world,
        "a",
        &["--cache-to", "type=local,dest=with,cache-mounts=log", "--cache-to", "type=local,dest=without"],
    )
    .ok();
    world.write("app/source", "2\n");
    let lines = |store: &str, from: &str| {
        let out = format!("type=local,dest=out-{store}");
        build(&world, store, &["--cache-from", from, "--output", &out]).ok();
        world.read(&format!("out-{store}/lines"))
    };
    assert_eq!(lines("b", "type=local,src=with"), "1\n2\n");
    assert_eq!(lines("c", "type=local,src=without"), "2\n");
    assert_eq!(lines("d", "type=local,src=with,cache-mounts=false"), "2\n");
    let mount = fs::read_dir(world.path("b/cache")).unwrap().flatten().find(|e| e.path().is_dir()).unwrap();
    let metadata = mount.metadata().unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (7, 0o750));
}

/// The same files whenever it is built; some times are chosen, the others are those of the build.
const SAME: &str = r#"
FROM scratch AS one
COPY busybox /bin/sh
COPY busybox /bin/busybox
RUN busybox mkdir /d; echo 1 > /d/made; echo 1 > /d/chosen; busybox touch -d @1450000000 /d/chosen
RUN busybox chmod 600 /d/made; busybox cp -p /d/made /d/copied
FROM one
COPY --from=one /d /e
COPY source /d/source
RUN busybox mv /e/copied /moved; busybox cp -p /d/source /s
"#;

#[test]
fn another_date_from_a_cache_is_what_a_build_without_one_gives() {
    let Some(world) = world() else { return };
    let port = free_port();
    let _server = registry(&world, port);
    world.write("app/Dockerfile", SAME);
    let name = format!("127.0.0.1:{port}/app:1");
    let registry = format!("type=registry,ref=127.0.0.1:{port}/app:cache");
    let dated = |store: &str, seconds: u64, more: &[&str]| {
        let seconds = format!("SOURCE_DATE_EPOCH={seconds}");
        built(build(&world, store, &[&["--build-arg", &seconds], more].concat()))
    };
    let to = ["--cache-to", "type=local,dest=cache,mode=max", "--cache-to", &format!("{registry},mode=max")];
    dated("a", 1_600_000_000, &to);
    let push = format!("type=image,name={name},push=true");
    dated("a", 1_600_000_000, &["--cache-to", "type=inline", "--output", &push]);
    std::thread::sleep(Duration::from_millis(2100));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (number, seconds) in [1_500_000_000, 1_600_000_000, 1_700_000_000, now].into_iter().enumerate() {
        let (anew, _) = dated("new", seconds, &["--no-cache"]);
        let (again, story) = dated("a", seconds, &[]);
        nothing_ran(&story);
        assert_eq!(again, anew, "the store, {seconds}");
        for (kind, from) in [("folder", "type=local,src=cache"), ("registry", &registry), ("image", &name)] {
            let store = format!("{kind}{number}");
            let (cached, story) = dated(&store, seconds, &["--cache-from", from, "--verify"]);
            if kind != "image" {
                nothing_ran(story.split("--verify").next().unwrap().split("pack layers").next().unwrap());
            }
            assert_eq!(cached, anew, "{kind}, {seconds}");
            // What came from a cache and goes into another is the same again.
            let through = ["--cache-to", "type=local,dest=through,mode=max"];
            dated(&store, seconds, &through);
            let (second, _) = dated(&format!("{store}-2"), seconds, &["--cache-from", "type=local,src=through"]);
            assert_eq!(second, anew, "through {kind}, {seconds}");
        }
        // An image that holds its records is the same from a cache and without one, too.
        let inline = ["--cache-to", "type=inline", "--verify"];
        let (anew, _) = dated("new", seconds, &[&inline[..], &["--no-cache"]].concat());
        let (cached, _) =
            dated(&format!("inline{number}"), seconds, &[&inline[..], &["--cache-from", &registry]].concat());
        assert_eq!(cached, anew, "inline, {seconds}");
    }
}

#[test]
fn times_that_an_export_cut_are_made_again_for_a_later_date() {
    let Some(world) = world() else { return };
    let touched = "touch -d @1650000000 /d/chosen; busybox touch -d @1500000000 /d/date; echo";
    world.write("app/Dockerfile", SAME.replace("touch -d @1450000000 /d/chosen", touched));
    let dated = |store: &str, seconds: u64, more: &[&str]| {
        let seconds = format!("SOURCE_DATE_EPOCH={seconds}");
        built(build(&world, store, &[&["--build-arg", &seconds], more].concat()))
    };
    dated("a", 1_500_000_000, &["--cache-to", "type=local,dest=cache,mode=max"]);
    let from = ["--cache-from", "type=local,src=cache"];
    // In one store after the other, and in a store that has the layers for the earlier date.
    for (store, seconds) in
        [("b", 1_500_000_000), ("b", 1_400_000_000), ("b", 1_600_000_000), ("c", 1_700_000_000), ("b", 1_700_000_000)]
    {
        let (cached, story) = dated(store, seconds, &from);
        let (anew, _) = dated("new", seconds, &["--no-cache"]);
        assert_eq!(cached, anew, "{store}, {seconds}");
        assert!(!ran(&story, "COPY busybox /bin/sh"), "{story}");
        if seconds <= 1_500_000_000 {
            nothing_ran(&story);
        }
    }
}

#[test]
fn caches_that_are_damaged_lie_or_are_not_there() {
    let Some(world) = world() else { return };
    let (first, _) = built(build(&world, "a", &["--cache-to", "type=local,dest=cache,mode=max"]));
    let (missing, story) = built(build(&world, "b", &["--cache-from", "type=local,src=nowhere"]));
    contains(&story, &["warning", "there is no cache in `", "nowhere"]);
    assert_ne!(missing, first);
    let blobs = world.path("project/cache/blobs/sha256");
    let largest = fs::read_dir(&blobs).unwrap().flatten().max_by_key(|e| e.metadata().unwrap().len()).unwrap().path();
    let good = fs::read(&largest).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    for damaged in [bad, good[..100].to_vec(), Vec::new()] {
        fs::write(&largest, damaged).unwrap();
        let _ = fs::remove_dir_all(world.path("c"));
        let (_, story) = built(build(&world, "c", &["--cache-from", "type=local,src=cache"]));
        contains(&story, &["cannot be used"]);
        assert!(ran(&story, "COPY busybox /bin/sh") && !ran(&story, "> /end"), "{story}");
    }
    fs::remove_file(&largest).unwrap();
    let _ = fs::remove_dir_all(world.path("c"));
    built(build(&world, "c", &["--cache-from", "type=local,src=cache"]));
    fs::write(&largest, good).unwrap();
    // Records of another version.
    let index = world.read("cache/index.json");
    world.write("cache/index.json", "{}");
    contains(&built(build(&world, "d", &["--cache-from", "type=local,src=cache"])).1, &["holds no cache of ours"]);
    world.write("cache/index.json", index);
    let (again, _) = built(build(&world, "e", &["--cache-from", "type=local,src=cache"]));
    assert_eq!(again, first);
}

/// Exports to `name` once more from a store that the cache itself feeds, and afterwards it is whole: nothing runs.
fn heals(world: &World, name: &str, what: &str) {
    let to = format!("{name},mode=max").replace("src=", "dest=");
    let fresh = format!("mended-{what}");
    let (_, story) = built(build(world, &fresh, &["--cache-from", name, "--cache-to", &to]));
    assert!(
        !story.lines().any(|line| line.contains("export cache to") && line.contains(": failed")),
        "{what}: {story}"
    );
    let (_, story) = built(build(world, &format!("after-{what}"), &["--cache-from", name]));
    nothing_ran(&story);
    assert!(!story.contains("warning"), "{what}: {story}");
    // And then there is nothing to send.
    let (_, story) = built(build(world, &fresh, &["--cache-from", name, "--cache-to", &to]));
    let line = story.lines().find(|line| line.contains("export cache to") && line.contains(": cached"));
    assert!(line.is_some(), "{what}: {story}");
}

#[test]
fn what_is_lost_in_a_cache_is_sent_again() {
    let Some(world) = world() else { return };
    let port = free_port();
    let _server = registry(&world, port);
    let folder = "type=local,src=cache";
    let repository = format!("type=registry,ref=127.0.0.1:{port}/app:cache");
    let to = ["--cache-to", "type=local,dest=cache,mode=max", "--cache-to", &format!("{repository},mode=max")];
    built(build(&world, "a", &to));
    run_in(&world, &["cp", "-a", "cache", "good"]);
    let digest = |value: &serde_json::Value| value["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
    let index: serde_json::Value = serde_json::from_slice(&world.read("cache/index.json").into_bytes()).unwrap();
    let root = digest(&index["manifests"][0]);
    let path = |hex: &str| world.path("project/cache/blobs/sha256").join(hex);
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(path(&root)).unwrap()).unwrap();
    let mut blobs: Vec<String> = manifest["layers"].as_array().unwrap().iter().map(digest).collect();
    blobs.push(digest(&manifest["config"]));
    blobs.push(root);
    for (number, blob) in blobs.iter().enumerate() {
        let good = fs::read(path(blob)).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        run_in(&world, &["rm", "-r", "cache"]);
        run_in(&world, &["cp", "-a", "good", "cache"]);
        match number % 3 {
            0 => fs::remove_file(path(blob)).unwrap(),
            1 => fs::write(path(blob), flipped).unwrap(),
            _ => fs::write(path(blob), &good[..9]).unwrap(),
        }
        heals(&world, folder, &number.to_string());
    }
    // The layer that every stage stands on.
    let layers = manifest["layers"].as_array().unwrap();
    let largest = layers.iter().max_by_key(|layer| layer["size"].as_u64()).unwrap();
    // Files of a registry are named by the uploads that wrote them.
    let size = format!("{}c", largest["size"]);
    let removed = run_in(&world, &["find", "registry-data/blobs", "-type", "f", "-size", &size, "-print", "-delete"]);
    let largest = digest(largest);
    assert!(!removed.is_empty());
    let (_, story) = built(build(&world, "gone", &["--cache-from", &repository]));
    contains(&story, &[&format!("/app:cache` has no sha256:{largest} any more")]);
    heals(&world, &repository, "registry");
}

/// What a program of this machine says in the project.
fn run_in(world: &World, words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).current_dir(world.project()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn wrong_words_and_unreachable_places() {
    let Some(world) = world() else { return };
    let port = free_port();
    let to = format!("type=registry,ref=127.0.0.1:{port}/app:cache");
    contains(&build(&world, "a", &["--cache-to", &to]).fails(1), &["cannot export the cache to `127.0.0.1"]);
    contains(&built(build(&world, "a", &["--cache-to", &format!("{to},ignore-error=true")])).1, &["was not exported"]);
    contains(&built(build(&world, "b", &["--cache-from", &to])).1, &["warning"]);
    contains(&build(&world, "a", &["--cache-to", "type=gha"]).fails(1), &["no caches of type `gha`"]);
    world.write("users", "me:$2y$05$6Ge6iVRbX8vUcQpQsNwGsuT/e8q6aJZNl1nY4bJ1mRk1H6v2m5S0m\n");
    let listen = format!("127.0.0.1:{port}");
    let arguments = ["registry", "serve", "--listen", &listen, "--storage", "data", "--htpasswd", "users"];
    let _server = Server(world.spawn(&arguments));
    eventually(Duration::from_secs(10), "the registry answers", || TcpStream::connect(&listen).is_ok());
    contains(&build(&world, "a", &["--cache-to", &to]).fails(1), &["cannot export the cache to", "401"]);
}

#[test]
fn connections_that_are_cut_and_exports_that_are_killed() {
    let Some(world) = world() else { return };
    let port = free_port();
    let _server = registry(&world, port);
    let cache = |port: u16, tag: &str| format!("type=registry,ref=127.0.0.1:{port}/app:{tag}");
    // Every connection ends after so many bytes: exports and imports go on where they were.
    let cutting = Proxy::start(port, 400_000, false);
    let (first, _) = built(build(&world, "a", &["--cache-to", &format!("{},mode=max", cache(port, "cut"))]));
    let (again, story) = built(build(&world, "b", &["--cache-from", &cache(cutting.port, "cut")]));
    assert!(again == first, "{story}");
    // Killed on the way, at any time: the old cache is there whole, and the next export writes the new one.
    world.write("app/last", "2\n");
    for delay in [5, 20, 40, 80] {
        let slow = Proxy::start(port, usize::MAX, true);
        let to = format!("{},mode=max", cache(slow.port, "cut"));
        let mut command = world.command(&["build", "-t", "app", "--cache-to", &to, "app"]);
        command.env("CTK_ROOT", world.path("a")).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        eventually(Duration::from_secs(20), "the export begins", || {
            slow.seen("", "") > 0 || child.try_wait().unwrap().is_some()
        });
        std::thread::sleep(Duration::from_millis(delay));
        let _ = child.kill();
        child.wait().unwrap();
        world.write("app/last", "1\n");
        let _ = fs::remove_dir_all(world.path("c"));
        built(build(&world, "c", &["--cache-from", &cache(port, "cut")]));
        world.write("app/last", "2\n");
    }
    let (second, _) = built(build(&world, "a", &["--cache-to", &format!("{},mode=max", cache(port, "cut"))]));
    let (again, story) = built(build(&world, "d", &["--cache-from", &cache(port, "cut")]));
    nothing_ran(&story);
    assert_eq!(again, second);
}

/// Passes connections on, notes the first lines of requests, and cuts answers after so many bytes.
pub struct Proxy {
    pub port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn start(to: u16, cut_after: usize, slow: bool) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = requests.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let noted = noted.clone();
                std::thread::spawn(move || {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
                    let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let mut buffer = vec![0; 64 << 10];
                        while let Ok(n @ 1..) = from.read(&mut buffer) {
                            let text = String::from_utf8_lossy(&buffer[..n]);
                            let first = text.lines().filter(|line| line.ends_with(" HTTP/1.1"));
                            noted.lock().unwrap().extend(first.map(str::to_owned));
                            if slow {
                                std::thread::sleep(Duration::from_millis(10));
                            }
                            if into.write_all(&buffer[..n]).is_err() {
                                break;
                            }
                        }
                        let _ = into.shutdown(std::net::Shutdown::Both);
                    });
                    let (mut server, mut client, passed) = (server, client, AtomicUsize::new(0));
                    let mut buffer = vec![0; 16 << 10];
                    while let Ok(n @ 1..) = server.read(&mut buffer) {
                        if client.write_all(&buffer[..n]).is_err() || passed.fetch_add(n, Ordering::Relaxed) > cut_after
                        {
                            break;
                        }
                    }
                    let _ = client.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        Proxy { port, requests }
    }

    /// Begins to count anew.
    pub fn forget(&self) {
        self.requests.lock().unwrap().clear();
    }

    /// Requests of this method whose path has that in it.
    pub fn seen(&self, method: &str, part: &str) -> usize {
        let fits = |line: &&String| line.starts_with(method) && line.contains(part);
        self.requests.lock().unwrap().iter().filter(fits).count()
    }
}
