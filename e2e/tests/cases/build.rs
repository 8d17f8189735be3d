//! `ctk build` of a folder, as docker, buildx and buildah have it: switches and exporters, seen through others.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use ctk_e2e::{World, contains, eventually, free_port, has_programs};
use serde_json::Value;

const DOCKERFILE: &str = "\
FROM scratch AS base
COPY busybox /bin/busybox
COPY busybox /bin/sh
FROM base AS app
# WHAT is what it says
ARG WHAT=nothing
ENV WHAT=$WHAT
COPY --chown=5:6 --chmod=4755 hello /data/hello
CMD [\"/bin/busybox\", \"cat\", \"/data/hello\"]
";

/// A folder `app` with a Dockerfile, and no project file.
fn world() -> Option<World> {
    if !ctk_e2e::is_root() || !has_programs(&["busybox", "tar", "skopeo"]) {
        return None;
    }
    let world = World::new();
    world.write("app/busybox", fs::read("/usr/bin/busybox").expect("a static busybox"));
    world.write("app/hello", "hello\n").write("app/Dockerfile", DOCKERFILE);
    fs::set_permissions(world.path("project/app/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    Some(world)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The config of `image`, as skopeo reads it from a layout.
fn config(world: &World, image: &str) -> Value {
    let layout = format!("layout-{}", image.replace(['/', ':'], "-"));
    world.ctk(&["save", image, "--format", "oci-dir", "-o", &layout]).ok();
    json(&world.peer("skopeo", &["inspect", "--config", &format!("oci:{layout}")]).ok())
}

#[test]
fn a_folder_becomes_an_image_that_runs() {
    let Some(world) = world() else { return };
    let said = world.ctk(&["build", "-t", "app:1", "-t", "ghcr.io/acme/app", "app"]).ok();
    contains(&said, &["localhost/app:1 sha256:", "ghcr.io/acme/app:latest sha256:"]);
    contains(&world.ctk(&["images"]).ok(), &["localhost/app:1", "ghcr.io/acme/app:latest"]);
    assert_eq!(world.ctk(&["run", "app:1"]).ok(), "hello\n");
    // Nothing was locked, and the second time nothing is done.
    assert!(!world.path("project/containers.lock").exists() && !world.path("project/app/containers.lock").exists());
    let again = world.ctk(&["build", "--progress=plain", "-t", "app:1", "app"]);
    assert!(!again.err.contains("COPY --chown=5:6 --chmod=4755 hello /data/hello: done"), "{}", again.err);
    assert_eq!(
        again.ok().split_once(' ').unwrap().1,
        said.lines().next().unwrap().split_once(' ').unwrap().1.to_owned() + "\n"
    );
}

#[test]
fn an_image_without_a_name_is_its_digest() {
    let Some(world) = world() else { return };
    let output = world.ctk(&["build", "-q", "--iidfile", "iid", "app"]);
    assert_eq!(output.err, "");
    let digest = output.ok();
    assert_eq!(world.read("iid"), digest.trim());
    contains(&world.ctk(&["images"]).ok(), &["<none>"]);
    assert_eq!(world.ctk(&["run", digest.trim()]).ok(), "hello\n");
    world.ctk(&["rmi", digest.trim()]).ok();
    assert!(!world.ctk(&["images"]).ok().contains("<none>"));
}

#[test]
fn switches_reach_the_image() {
    let Some(world) = world() else { return };
    world.write("args", "# a comment\nWHAT=file\n");
    let mut command =
        world.command(&["build", "-t", "a", "--build-arg", "WHAT", "--label", "x=y", "--label", "z", "app"]);
    command.env("WHAT", "environment");
    ctk_e2e::run(command).ok();
    let read = config(&world, "a");
    assert!(read["config"]["Env"].as_array().unwrap().contains(&"WHAT=environment".into()), "{read}");
    assert_eq!(read["config"]["Labels"], serde_json::json!({ "x": "y", "z": "" }));
    world.ctk(&["build", "-t", "b", "--build-arg-file", "args", "app"]).ok();
    assert!(config(&world, "b")["config"]["Env"].to_string().contains("WHAT=file"));
    world.ctk(&["build", "-t", "c", "--target", "base", "app"]).ok();
    assert_eq!(config(&world, "c")["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    let mut command = world.command(&["build", "-t", "d", "app"]);
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    ctk_e2e::run(command).ok();
    assert_eq!(config(&world, "d")["created"], "2023-11-14T22:13:20Z");
    world.ctk(&["build", "-t", "e", "--platform", "linux/arm64", "--target", "base", "app"]).ok();
    assert_eq!(config(&world, "e")["architecture"], "arm64");
    // Another Dockerfile, found from where we are; a name that was built here is a base.
    world.write("other.Dockerfile", "FROM a\nLABEL on=top\nCOPY hello /again\n");
    world.ctk(&["build", "-t", "f", "-f", "other.Dockerfile", "app"]).ok();
    assert_eq!(config(&world, "f")["config"]["Labels"], serde_json::json!({ "x": "y", "z": "", "on": "top" }));
}

#[test]
fn named_contexts_stand_for_images_and_folders() {
    let Some(world) = world() else { return };
    world.write("more/file", "more\n").write("app/named", "FROM base\nCOPY --from=extra /file /file\n");
    world.ctk(&["build", "-q", "-t", "first", "--target", "base", "app"]).ok();
    let contexts = ["--build-context", "extra=more", "--build-context", "base=docker-image://localhost/first"];
    world.ctk(&[&["build", "-t", "named", "-f", "app/named"], &contexts[..], &["app"]].concat()).ok();
    assert_eq!(world.ctk(&["run", "named", "/bin/busybox", "cat", "/file"]).ok(), "more\n");
}

#[test]
fn secrets_reach_run_and_nothing_else() {
    let Some(world) = world() else { return };
    let text = "FROM scratch\nCOPY busybox /bin/sh\nRUN --mount=type=secret,id=a --mount=type=secret,id=b,env=B [\"/bin/sh\", \"-c\", \"test $(cat /run/secrets/a) = one && test $B = two\"]\n";
    world.write("app/secret", text).write("a.txt", "one");
    let mut command = world.command(&[
        "build",
        "-t",
        "s",
        "--secret",
        "id=a,src=a.txt",
        "--secret",
        "id=b,env=TWO",
        "-f",
        "app/secret",
        "app",
    ]);
    command.env("TWO", "two");
    ctk_e2e::run(command).ok();
    contains(
        &world.ctk(&["build", "--secret", "id=a,src=nope.txt", "-f", "app/secret", "app"]).fails(1),
        &["secret `a`", "nope.txt"],
    );
}

#[test]
fn files_go_to_a_folder_or_a_tar_stream() {
    let Some(world) = world() else { return };
    assert_eq!(world.ctk(&["build", "-q", "-o", "out", "app"]).ok().len(), 72);
    let hello = world.path("project/out/data/hello");
    let found = hello.metadata().unwrap();
    // They are the caller's; the modes are the image's.
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o4755, rustix_uid()));
    // A second export replaces its own and keeps what else is there, unless it is told not to.
    world.write("out/mine", "");
    fs::write(&hello, "changed").unwrap();
    world.ctk(&["build", "-o", "type=local,dest=out", "app"]).ok();
    assert_eq!((world.read("out/data/hello"), world.path("project/out/mine").exists()), ("hello\n".into(), true));
    world.ctk(&["build", "-o", "type=local,dest=out,mode=delete", "app"]).ok();
    assert!(!world.path("project/out/mine").exists() && hello.exists());
    let left: Vec<_> = fs::read_dir(world.path("project/out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    world.ctk(&["build", "-o", "type=tar,dest=out.tar", "app"]).ok();
    let listed = world.peer("tar", &["--numeric-owner", "-tvf", "out.tar"]).ok();
    contains(&listed, &["-rwsr-xr-x 5/6", "data/hello"]);
    let script = "\"$0\" build -q -o - app | tar -tf -";
    let binary = ctk_e2e::binary();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).arg(&binary).current_dir(world.project()).env("CTK_ROOT", world.store());
    contains(&ctk_e2e::run(command).ok(), &["bin/busybox", "data/hello"]);
    world.ctk(&["build", "-o", "many", "--platform", "linux/amd64,linux/arm64", "--target", "base", "app"]).ok();
    assert!(world.path("project/many/linux_arm64/bin/sh").exists());
    // In one folder, as long as nothing would replace anything.
    let text = "FROM scratch\nARG TARGETARCH\nCOPY hello /bin/tool-$TARGETARCH\n";
    world.write("app/apart", text).write("app/same", format!("{text}COPY hello /bin/same\n"));
    let split = |file: &str, output: &str| {
        let output = format!("{output},platform-split=false");
        world.ctk(&["build", "-f", file, "-o", &output, "--platform", "linux/amd64,linux/arm64", "app"])
    };
    split("app/apart", "type=local,dest=one").ok();
    assert_eq!(
        (world.read("one/bin/tool-amd64"), world.read("one/bin/tool-arm64")),
        ("hello\n".into(), "hello\n".into())
    );
    split("app/apart", "type=tar,dest=one.tar").ok();
    assert_eq!(world.peer("tar", &["-tf", "one.tar"]).ok(), "bin/\nbin/tool-amd64\nbin/tool-arm64\n");
    let refused = "`/bin/same` of linux/arm64 would replace that of another platform";
    contains(&split("app/same", "type=local,dest=two").fails(1), &[refused]);
    contains(&split("app/same", "type=tar,dest=two.tar").fails(1), &[refused]);
    assert!(!world.path("project/two").exists() && !world.path("project/two.tar").exists());
}

fn rustix_uid() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

#[test]
fn archives_are_read_by_others() {
    let Some(world) = world() else { return };
    if !has_programs(&["podman", "umoci"]) {
        return;
    }
    let outputs = [
        "-o",
        "type=oci,dest=oci.tar,compression=zstd,compression-level=9",
        "-o",
        "type=docker,dest=docker.tar",
        "-o",
        "type=oci,dest=layout,tar=false,compression=uncompressed",
    ];
    let said = world.ctk(&[&["build", "-t", "app:2"], &outputs[..], &["app"]].concat()).ok();
    // The name is in the archives, and none here.
    assert!(said.starts_with("sha256:") && !world.ctk(&["images"]).ok().contains("app"), "{said}");
    let media_types = |place: &str| {
        let manifest = json(&world.peer("skopeo", &["inspect", "--raw", place]).ok());
        manifest["layers"][0]["mediaType"].as_str().unwrap().to_owned()
    };
    assert!(media_types("oci-archive:oci.tar").ends_with("tar+zstd"));
    assert!(media_types("oci:layout").ends_with(".tar"));
    contains(&world.podman(&["load", "-i", "docker.tar"]).ok(), &["app:2"]);
    let mounted = world.podman(&["image", "mount", "localhost/app:2"]).ok();
    assert_eq!(fs::read_to_string(format!("{}/data/hello", mounted.trim())).unwrap(), "hello\n");
    world.podman(&["image", "umount", "--all"]).ok();
    world.peer("umoci", &["unpack", "--image", "layout:2", "bundle"]).ok();
    assert_eq!(world.read("bundle/rootfs/data/hello"), "hello\n");
    world.peer("skopeo", &["inspect", "--raw", "oci-archive:oci.tar:2"]).ok();
    // The whole name is there, too, for those who know where.
    contains(&world.ctk(&["load", "oci.tar"]).ok(), &["docker.io/library/app:2 sha256:"]);
    // The config is the same whatever the compression.
    let config = |place: &str| world.peer("skopeo", &["inspect", "--config", "--raw", place]).ok();
    assert_eq!(config("oci-archive:oci.tar"), config("oci:layout"));
}

#[test]
fn registries_get_it_under_tags_or_by_digest() {
    let Some(world) = world() else { return };
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut server = world.spawn(&["registry", "serve", "--listen", &listen, "--storage", "data"]);
    eventually(Duration::from_secs(10), "the registry answers", || std::net::TcpStream::connect(&listen).is_ok());
    let name = |tag: &str| format!("{listen}/acme/app:{tag}");
    world.ctk(&["build", "--push", "-t", &name("1"), "-t", &name("2"), "--metadata-file", "meta.json", "app"]).ok();
    let meta = json(&world.read("meta.json"));
    assert_eq!(meta["image.name"], format!("{},{}", name("1"), name("2")));
    assert_eq!(meta["containerimage.digest"], meta["containerimage.descriptor"]["digest"]);
    assert_eq!(meta["containerimage.descriptor"]["platform"]["os"], "linux");
    let inspect = |reference: &str, more: &[&str]| {
        let place = format!("docker://{reference}");
        world.peer("skopeo", &[&["inspect", "--tls-verify=false"], more, &[place.as_str()]].concat())
    };
    assert_eq!(json(&inspect(&name("2"), &[]).ok())["Digest"], meta["containerimage.digest"]);
    // With docker's media types and annotations, in an index for two platforms, by its digest only.
    let output = format!("type=image,name={listen}/acme/many,push=true,push-by-digest=true,oci-mediatypes=false");
    let digest = world
        .ctk(&["build", "-q", "--platform", "linux/amd64,linux/arm64", "--target", "base", "-o", &output, "app"])
        .ok();
    let raw = inspect(&format!("{listen}/acme/many@{}", digest.trim()), &["--raw"]).ok();
    contains(&raw, &["vnd.docker.distribution.manifest.list.v2+json", "arm64"]);
    assert!(!world.ctk(&["tags", &format!("{listen}/acme/many")]).out.contains("latest"));
    world.ctk(&["build", "--push", "-t", &name("note"), "--annotation", "org.example.note=hi", "app"]).ok();
    assert_eq!(json(&inspect(&name("note"), &["--raw"]).ok())["annotations"]["org.example.note"], "hi");
    world.ctk(&["build", "--format=docker", "-o", &format!("type=registry,name={}", name("v2s2")), "app"]).ok();
    contains(&inspect(&name("v2s2"), &["--raw"]).ok(), &["vnd.docker.image.rootfs.diff.tar.gzip"]);
    let _ = server.kill();
    let _ = server.wait();
}

#[test]
fn failures_leave_nothing_behind() {
    let Some(world) = world() else { return };
    let nowhere = format!("127.0.0.1:{}/app", free_port());
    let to = ["-o", "type=tar,dest=x.tar", "-o", "y", "-o", "type=oci,dest=z,tar=false", "-o"];
    let registry = format!("type=registry,name={nowhere}");
    let said = world.ctk(&[&["build", "-t", "app"], &to[..], &[registry.as_str(), "app"]].concat()).fails(1);
    contains(&said, &["error[build::export]", &nowhere]);
    let left: Vec<_> = fs::read_dir(world.project()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["app"]);
    assert!(!world.ctk(&["images"]).ok().contains("app"));
    world.write(
        "app/bad",
        "FROM scratch\nCOPY busybox /bin/sh\nRUN [\"/bin/sh\", \"-c\", \"echo last words; exit 3\"]\n",
    );
    let said = world.ctk(&["build", "-o", "y", "-f", "app/bad", "app"]).fails(1);
    contains(
        &said,
        &["app/bad:3:1", "3 │ RUN", "exit code 3", "last words", "`ctk build --debug` with the same words"],
    );
    assert!(!world.path("project/y").exists());
}

#[test]
fn what_is_no_file_is_written_to_and_stays() {
    let Some(world) = world() else { return };
    world.peer("mknod", &["nothing", "c", "1", "3"]).ok();
    world.peer("mknod", &["full", "c", "1", "7"]).ok();
    world.write("old", "").peer("ln", &["-s", "old", "link"]).ok();
    for output in ["type=tar,dest=nothing", "type=oci,dest=nothing", "type=docker,dest=nothing", "type=tar,dest=link"] {
        world.ctk(&["build", "-q", "-o", output, "app"]).ok();
    }
    let whole = &["-q", "--iidfile", "nothing", "--metadata-file", "nothing", "-t", "app", "app"];
    world.ctk(&[&["build"], &whole[..]].concat()).ok();
    world.ctk(&["save", "app", "-o", "nothing"]).ok();
    world.ctk(&["copy", "store:app", "oci-archive:nothing"]).ok();
    for output in ["type=tar,dest=full", "type=oci,dest=full"] {
        let said = world.ctk(&["build", "-o", output, "app"]).fails(1);
        contains(&said, &["cannot write", "project/full", "No space left"]);
    }
    let kind = |name: &str| world.peer("stat", &["-c", "%F", name]).ok();
    assert_eq!(kind("nothing") + &kind("full"), "character special file\n".repeat(2));
    assert_eq!(kind("link"), "symbolic link\n");
    assert!(fs::metadata(world.project().join("old")).unwrap().len() > 1000);
}

#[test]
fn places_that_are_none_are_told_before_anything_is_built() {
    let Some(world) = world() else { return };
    let check = |arguments: &[&str], part: &str| {
        let said = world.ctk(&[&["build", "-t", "app"], arguments, &["app"]].concat()).fails(1);
        contains(&said, &[part]);
        assert!(!said.contains("COPY"), "{said}");
    };
    check(&["--iidfile", "nope/id"], "there is no folder `nope`");
    check(&["--metadata-file", "nope/meta"], "there is no folder `nope`");
    check(&["--iidfile", "app"], "it is a folder");
    check(&["-o", "type=oci,dest=nope/x.tar"], "there is no folder `nope`");
    check(&["-o", "type=tar,dest=app"], "it is a folder");
    check(&["-o", ""], "goes nowhere");
    check(&["-o", "a", "-o", "./a/"], "two outputs go to ./a/; give each a place of its own");
    check(&["-o", "type=tar,dest=x/y", "-o", "x"], "one output goes to x/y, inside x");
    assert!(!world.ctk(&["images"]).ok().contains("app"));
}

#[test]
fn options_of_buildah_are_there_or_say_what_to_write() {
    let Some(world) = world() else { return };
    world.ctk(&["build", "-q", "-t", "app", "--arch=arm64", "--variant", "v8", "--timestamp", "86400", "app"]).ok();
    let config = config(&world, "app");
    assert_eq!((&config["architecture"], &config["os"]), (&"arm64".into(), &"linux".into()));
    assert_eq!(config["created"], "1970-01-02T00:00:00Z");
    let check = |option: &str, part: &str| {
        let said = world.ctk(&["build", option, "app"]).fails(64);
        contains(&said, &["error: `ctk build` has no `--", part]);
    };
    check("--volume=/a:/b", "RUN --mount");
    check("--tls-verify=false", "registries.conf");
    check("--squash-all", "a last stage that copies");
    contains(
        &world.ctk(&["build", "--arch=arm64", "--platform=linux/amd64", "app"]).fails(64),
        &["cannot be used with"],
    );
}

#[test]
fn wrong_switches_say_what_is_right() {
    let Some(world) = world() else { return };
    let check = |arguments: &[&str], code: i32, parts: &[&str]| {
        contains(&world.ctk(&[&["build"], arguments, &["app"]].concat()).fails(code), parts);
    };
    check(&["--platfrom", "x"], 64, &["--platform"]);
    check(&["--source-date-epoch", "-1"], 64, &["'-1'", "expected seconds since 1970, before the year 10000"]);
    check(&["--timestamp", "soon"], 64, &["expected seconds since 1970"]);
    check(&["-j", "-1"], 64, &["'-1'", "1..=65535"]);
    check(&["-o", "type=lcal,dest=x"], 1, &["did you mean `local`?"]);
    check(&["-o", "type=oci,dst=x"], 1, &["did you mean `dest`?"]);
    check(&["-t", "App"], 1, &["`App`", "small letters"]);
    check(&["--network", "nat"], 1, &["default, none and host"]);
    check(&["--ulimit", "nofiles=1"], 1, &["did you mean `nofile`?"]);
    check(&["--target", "bse"], 1, &["`bse`", "does not exist"]);
    check(&["--call", "outlin"], 1, &["did you mean `outline`?"]);
    check(&["--squash"], 1, &["not there yet"]);
    check(&["-o", "type=image,compression=estargz"], 1, &["estargz"]);
    check(&["--annotation", "index:a=b"], 1, &["no index"]);
    check(&["-o", "type=tar", "-o", "type=oci"], 1, &["only one output"]);
    check(&["--secret", "src=app/hello"], 1, &["has no id", "`id=hello,src=app/hello`"]);
    check(&["--build-arg", "BUILDKIT_MULTI_PLATFORM=maybe"], 1, &["bad-argument", "expected `true` or `false`"]);
    let several = ["--platform", "linux/amd64,linux/arm64", "--annotation", "manifest[linux/riscv64]:k=v"];
    check(&several, 1, &["for linux/riscv64, and the image is for linux/amd64, linux/arm64"]);
    // What BuildKit takes in silence is a warning.
    let warned = |arguments: &[&str], parts: &[&str]| {
        let output = world.ctk(&[&["build", "--progress=plain"], arguments, &["app"]].concat());
        contains(&output.err, &[&["warning: "], parts].concat());
        output.ok();
    };
    warned(&["--no-cache-filter", "bse"], &["`bse` does not exist; did you mean `base`?"]);
    warned(&["--annotation", "manifest[linux/riscv64]:k=v"], &["an annotation is for linux/riscv64"]);
    world.write("app/quote", format!("{DOCKERFILE}RUN --mount=type=tmpfs,target=\"/m echo\n"));
    warned(&["-f", "app/quote"], &["`--mount` is never closed"]);
    contains(&world.ctk(&["build", "nope"]).fails(1), &["no folder `nope`", "ctk build ."]);
    contains(&world.ctk(&["build", "-t", "x", "nope"]).fails(1), &["nope"]);
}

#[test]
fn habits_of_other_builders_do_no_harm() {
    let Some(world) = world() else { return };
    let output = world.ctk(&[
        "build",
        "--load",
        "--rm",
        "--force-rm=true",
        "--compress",
        "--layers=true",
        "--builder",
        "default",
        "--isolation=oci",
        "--provenance=false",
        "--sbom=false",
        "--pull=false",
        "--no-cache=false",
        "--progress=tty",
        "--memory",
        "1g",
        "-t",
        "app",
        "app",
    ]);
    assert!(!output.err.contains("warning"), "{}", output.err);
    output.ok();
    let noted = world.ctk(&["build", "--provenance=mode=max", "app"]);
    contains(&noted.err, &["attestations are not there yet"]);
    noted.ok();
}

#[test]
fn questions_are_answered_as_buildx_does() {
    let Some(world) = world() else { return };
    let ask = |call: &str| world.ctk(&["build", "--call", call, "app"]).ok();
    assert_eq!(ask("targets"), "TARGET        DESCRIPTION\nbase\napp (default)\n");
    assert_eq!(
        ask("outline"),
        "TARGET: app\n\nBUILD ARG   VALUE     DESCRIPTION\nWHAT        nothing   is what it says\n"
    );
    let targets = json(&ask("targets,format=json"));
    assert_eq!(targets["targets"][1]["name"], "app");
    assert_eq!(targets["targets"][1]["default"], true);
    assert_eq!(targets["targets"][1]["location"]["ranges"][0]["start"]["line"], 4);
    let outline = json(&ask("outline,format=json"));
    assert_eq!(outline["args"][0]["value"], "nothing");
    assert_eq!(ask("check"), "Check complete, no warnings found.\n");
    // Breaches are told as a list, and as what keeps it from being built; stages are told all the same.
    world.write("app/strict", "# check=error=true\nFROM --platform=linux/386 scratch AS Upper\nlabel a=b\nLABEL c=d\n");
    let strict = |call: &str| world.ctk(&["build", "-f", "app/strict", "--call", call, "app"]);
    let checked = strict("check,format=json");
    let list = json(&checked.out);
    let names: Vec<_> =
        list["warnings"].as_array().unwrap().iter().map(|one| one["ruleName"].as_str().unwrap()).collect();
    assert_eq!(names, ["FromPlatformFlagConstDisallowed", "StageNameCasing", "ConsistentInstructionCasing"]);
    assert_eq!(list["buildError"]["location"], serde_json::json!({}));
    contains(list["buildError"]["message"].as_str().unwrap(), &names);
    contains(&checked.fails(1), &["error[dockerfile::stage-name-casing]"]);
    contains(&strict("check").out, &["3 warnings have been found", "WARNING: StageNameCasing"]);
    assert_eq!(strict("outline").code(), 1);
    let stages = json(&strict("targets,format=json").ok());
    assert_eq!(
        (&stages["targets"][0]["name"], &stages["targets"][0]["platform"]),
        (&"upper".into(), &"linux/386".into())
    );
    world.write("app/strict", "FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\nCOPY --from=a / /\n");
    let circle = json(&strict("check,format=json").out);
    assert_eq!(circle["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
    assert_eq!((strict("check").out.as_str(), strict("check").code()), ("", 1));
    contains(&strict("targets").ok(), &["a\nb (default)\n"]);
    world.write("app/strict", "FROM scratch\nRNU x\n");
    assert_eq!(json(&strict("check,format=json").out)["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
    contains(&strict("targets").fails(1), &["did you mean `RUN`?"]);
    assert!(world.ctk(&["images"]).ok().lines().count() == 1);
}

#[test]
fn stages_can_be_built_anew() {
    let Some(world) = world() else { return };
    let text = "FROM scratch AS tools\nCOPY busybox /bin/sh\nRUN [\"/bin/sh\", \"-c\", \"echo a > /a\"]\nFROM tools AS last\nRUN [\"/bin/sh\", \"-c\", \"echo b > /b\"]\n";
    world.write("app/stages", text);
    let build = |more: &[&str]| {
        let output = world.ctk(&[&["build", "--progress=plain", "-f", "app/stages"], more, &["app"]].concat());
        let ran = |word: &str| output.err.lines().any(|line| line.contains(word) && line.contains(": done in"));
        let both = (ran("echo a"), ran("echo b"));
        output.ok();
        both
    };
    assert_eq!(build(&[]), (true, true));
    assert_eq!(build(&[]), (false, false));
    assert_eq!(build(&["--no-cache-filter", "last"]), (false, true));
    assert_eq!(build(&["--no-cache"]), (true, true));
}

#[test]
fn a_project_beside_a_folder_is_told_apart() {
    let Some(world) = world() else { return };
    world.write("containers.kdl", "project \"case\"\nimage \"app\" dockerfile=\"app/Dockerfile\" { context \"app\"; }\nimage \"web\" dockerfile=\"app/Dockerfile\" { context \"app\"; }\n");
    contains(&world.ctk(&["build", "app"]).fails(1), &["`image:app`", "`./app`"]);
    contains(&world.ctk(&["build", "web"]).ok(), &["case: 1 done"]);
    contains(&world.ctk(&["build", "image:app"]).ok(), &["case: 1 done"]);
    contains(&world.ctk(&["build", "-t", "x", "./app"]).ok(), &["localhost/x:latest"]);
    contains(&world.ctk(&["build", "-t", "x", "web"]).fails(1), &["`--tag`", "image of the project"]);
    contains(&world.ctk(&["build", "--locked", "."]).fails(1), &["`--locked`", "leave one of them out"]);
    contains(&world.ctk(&["build"]).ok(), &["case: nothing to do"]);
}

#[test]
fn standard_input_is_a_dockerfile_or_a_context() {
    let Some(world) = world() else { return };
    let pipe = |script: &str| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).arg(ctk_e2e::binary()).current_dir(world.project());
        command.env("CTK_ROOT", world.store());
        ctk_e2e::run(command)
    };
    pipe(r"printf 'FROM scratch\nCOPY busybox /bin/sh\nCOPY hello /in\n' | $0 build -t one -f - app").ok();
    assert_eq!(world.ctk(&["run", "one", "/bin/sh", "-c", "read x < /in; echo $x"]).ok(), "hello\n");
    pipe(r"printf 'FROM scratch\nENV A=b\n' | $0 build -t two -").ok();
    assert!(config(&world, "two")["config"]["Env"].to_string().contains("A=b"));
    pipe("tar -czf - -C app . | $0 build -t three -").ok();
    assert_eq!(world.ctk(&["run", "three"]).ok(), "hello\n");
    contains(&pipe(r"printf 'FROM scratch\n' | $0 build -f - -").fails(1), &["cannot be context and Dockerfile"]);
    let alone = pipe(r"printf 'FROM scratch\nCOPY x /\n' | $0 build -").fails(1);
    contains(&alone, &["`x`", "stdin:2", "hint: a Dockerfile alone has no context", "`ctk build -f - FOLDER`"]);
    let with_folder = pipe(r"printf 'FROM scratch\nCOPY x /\n' | $0 build -f - app").fails(1);
    assert!(!with_folder.contains("no context"), "{with_folder}");
    contains(&pipe("$0 build - < /dev/null").fails(1), &["standard input is empty"]);
}

#[test]
fn a_store_inside_the_context_is_no_part_of_it() {
    if !ctk_e2e::is_root() || !has_programs(&["busybox"]) {
        return;
    }
    let world = World::new();
    world.write("app/Dockerfile", "FROM scratch\nCOPY . /all/\n").write("app/file", "1\n");
    let build = |store: &str| {
        let mut command = world.command(&["build", "-q", "-o", "type=local,dest=out", "app"]);
        command.env("CTK_ROOT", world.project().join(store));
        ctk_e2e::run(command).ok();
    };
    build("app/store");
    build("app/store");
    let mut names: Vec<_> =
        fs::read_dir(world.project().join("out/all")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["Dockerfile", "file"]);
}

#[test]
fn pipes_are_read_where_they_were_handed_over() {
    let Some(world) = world() else { return };
    let folder = world.project();
    // Whoever waits for a writer here waits forever.
    let ctk = |script: &str| {
        let command = world.command(&[]);
        let program = command.get_program().to_owned();
        let mut bash = std::process::Command::new("timeout");
        bash.args(["20", "bash", "-c", script]).current_dir(&folder).env("CTK", program);
        bash.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        ctk_e2e::run(bash)
    };
    assert!(std::process::Command::new("mkfifo").arg(folder.join("fifo")).status().unwrap().success());
    world.write("app/data", "data\n").write("small", "FROM scratch\nCOPY data /\n");
    let refused_with = |code: i32, words: &str| {
        contains(&ctk(&format!("$CTK {words}")).fails(code), &["fifo", "it is no regular file but a FIFO"]);
    };
    let refused = |words: &str| refused_with(1, words);
    ctk("$CTK build -t app -f small app").ok();
    refused("build -f fifo app");
    refused("build -f fifo --call=outline app");
    refused("build --secret id=x,src=fifo app");
    refused("build --build-arg-file fifo app");
    refused_with(125, "run --env-file fifo localhost/app");
    refused("check --file fifo");
    ctk("$CTK build -f <(cat small) app").ok();
    ctk("cat small | $CTK build -f /dev/stdin app").ok();
    ctk("sleep 0.3; (sleep 0.3; cat small) | $CTK build -f /proc/self/fd/0 app").ok();
    ctk("$CTK build -f /dev/stdin app < small").ok();
    ctk("(cat small > fifo &) ; $CTK build -f /dev/stdin app < fifo").ok();
    contains(&ctk("$CTK build -f /dev/zero app").fails(1), &["it is no regular file but a device"]);
    world.write("containers.kdl", "image \"app\" dockerfile=\"small\" { context \"app\"; }\n");
    std::fs::rename(folder.join("fifo"), folder.join("containers.lock")).unwrap();
    contains(&ctk("$CTK plan").fails(1), &["containers.lock", "it is no regular file but a FIFO"]);
}

#[test]
fn what_is_not_text_is_refused_from_wherever_it_comes() {
    let Some(world) = world() else { return };
    world.write("bad", b"FROM scratch\nLABEL a=\xe4\n").write("good", b"# \xe4\nFROM scratch\nLABEL a=b\n");
    world.write("containers.kdl", "image \"app\" dockerfile=\"bad\"\n");
    let said = ["error[dockerfile::not-text]: this Dockerfile is not UTF-8 text", ":2:9", "iconv"];
    contains(&world.ctk(&["build", "-f", "bad", "app"]).fails(1), &said);
    contains(&world.ctk(&["build", "-f", "bad", "--call=check", "app"]).fails(1), &said);
    contains(&world.ctk(&["build", "-f", "bad", "--call=outline", "app"]).fails(1), &said);
    contains(&world.ctk(&["check"]).fails(1), &said);
    world.ctk(&["build", "-f", "good", "app"]).ok();
    let mut files = vec![(&["build", "-"][..], "bad"), (&["build", "-f", "-", "app"], "bad")];
    world.peer("tar", &["-cf", "bad.tar", "--transform=s/bad/Dockerfile/", "bad"]).ok();
    files.push((&["build", "-"], "bad.tar"));
    for (words, file) in files {
        let mut command = world.command(words);
        command.stdin(fs::File::open(world.project().join(file)).unwrap());
        contains(&ctk_e2e::run(command).fails(1), &said);
    }
    let front = ctk_e2e::front::Front::of_folder(world.project());
    contains(&world.ctk(&["build", "-f", &format!("http://{}/bad", front.host), "app"]).fails(1), &said);
}

#[test]
fn metadata_has_each_name_once() {
    let Some(world) = world() else { return };
    let outputs = ["-o", "type=oci,dest=a.tar", "-o", "type=docker,dest=b.tar", "-o", "type=image,name=zz"];
    let words = [&["build", "-t", "pg", "--metadata-file", "meta.json"], &outputs[..], &["app"]].concat();
    world.ctk(&words).ok();
    let meta = json(&fs::read_to_string(world.path("project/meta.json")).unwrap());
    assert_eq!(meta["image.name"], "docker.io/library/pg:latest,docker.io/library/zz:latest");
}

#[test]
fn a_path_of_thousands_of_characters_is_cut() {
    let Some(world) = world() else { return };
    let path = "a/".repeat(3000);
    for words in [&["build", &path][..], &["build", "-f", &path, "app"]] {
        let said = world.ctk(words).fails(1);
        assert!(said.len() < 2000 && said.contains("bytes…"), "{said}");
    }
}
