//! Images and artifacts between registries, layouts, archives and the store; what refers to them; deletions; many at
//! once. On the other side: `docker-registry`, which keeps no list of referrers, the embedded registry, which does, and
//! skopeo.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use ctk_e2e::front::{Fault, Front};
use ctk_e2e::{World, contains, eventually, free_port, has_programs};
use serde_json::Value;

use super::network::Docker;

/// Kills the server when the case ends.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The embedded registry in a world, and its host.
fn embedded(world: &World) -> (Server, String) {
    let host = format!("127.0.0.1:{}", free_port());
    let server = Server(world.spawn(&["registry", "serve", "--listen", &host, "--storage", "registry-data"]));
    eventually(Duration::from_secs(10), "the registry answers", || std::net::TcpStream::connect(&host).is_ok());
    (server, host)
}

/// A world with the image `name`, an index for two platforms.
fn world(name: &str) -> World {
    let world = World::new();
    world.write("src/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY file /file\nLABEL arch=$TARGETARCH\n");
    world.write("src/file", "x".repeat(100_000));
    let platforms = "linux/amd64,linux/arm64";
    world.ctk(&["build", "--platform", platforms, "--provenance=false", "-t", name, "src"]).ok();
    world
}

fn digest_of(line: &str) -> String {
    let start = line.find("sha256:").unwrap_or_else(|| panic!("no digest in: {line}"));
    line[start..start + 71].to_owned()
}

fn referrers(world: &World, reference: &str) -> Vec<String> {
    let text = world.ctk(&["referrers", reference, "--format", "json"]).ok();
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let found = value["referrers"].as_array().expect("a list");
    found.iter().map(|one| one["artifactType"].as_str().expect("a type").to_owned()).collect()
}

#[test]
fn copies_keep_digests_between_all_places() {
    if !has_programs(&["docker-registry", "skopeo"]) {
        return;
    }
    let world = world("app:1");
    let (docker, (_server, own)) = (Docker::start(&world, "127.0.0.1", ""), embedded(&world));
    let first = format!("{}/app:1", docker.host);
    let digest = digest_of(&world.ctk(&["copy", "store:app:1", &first]).ok());
    world.write("sbom.spdx.json", "{\"spdx\": true}");
    world.ctk(&["artifact", "attach", &first, "--artifact-type", "application/spdx+json", "sbom.spdx.json"]).ok();
    let arm = ["artifact", "attach", &first, "--platform", "linux/arm64", "--artifact-type", "a/arm", "sbom.spdx.json"];
    world.ctk(&arm).ok();

    // From place to place, and back to a registry; what refers to it comes along.
    let second = format!("{own}/deep/er/app:x");
    let places = [
        first.as_str(),
        "oci:layout:v1",
        "oci-archive:archive.tar:v2",
        "store:kept:1",
        second.as_str(),
        "oci:again:v3",
        "store:kept:2",
        "oci:last",
    ];
    for step in places.windows(2) {
        assert_eq!(digest_of(&world.ctk(&["copy", "--recursive", step[0], step[1]]).ok()), digest, "{step:?}");
    }
    assert_eq!(referrers(&world, &second), ["application/spdx+json"]);
    let arm = world.ctk(&["referrers", &second, "--platform", "linux/arm64", "--format", "tree"]).ok();
    contains(&arm, &["└── a/arm sha256:"]);
    // The layout at the end of the way holds as much as the one at its beginning.
    let count = |folder: &str| fs::read_dir(world.project().join(folder).join("blobs/sha256")).expect("blobs").count();
    assert_eq!(count("layout"), count("last"));

    // Others read what was written, and the other way round.
    let raw = world.peer("skopeo", &["inspect", "--raw", "oci:layout:v1"]).ok();
    assert_eq!(
        raw,
        world.peer("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{second}")]).ok()
    );
    world.peer("skopeo", &["copy", "--all", "oci-archive:archive.tar:v2", "oci:theirs:t"]).ok();
    assert_eq!(digest_of(&world.ctk(&["copy", "oci:theirs:t", &format!("{own}/theirs:1")]).ok()), digest);
    world.ctk(&["copy", "--platform", "linux/arm64", &second, "docker-archive:docker.tar:app:arm"]).ok();
    contains(&world.peer("skopeo", &["inspect", "docker-archive:docker.tar"]).ok(), &["\"arch\": \"arm64\"", "arm64"]);

    // Through pipes.
    let archive = world.command(&["copy", &second, "oci-archive:-:v4"]).stderr(Stdio::null()).output().expect("ctk");
    assert!(archive.status.success());
    fs::write(world.path("piped.tar"), &archive.stdout).expect("a file");
    let mut command = world.command(&["copy", "oci-archive:-", &format!("{own}/piped:1")]);
    let output = command.stdin(fs::File::open(world.path("piped.tar")).expect("a file")).output().expect("ctk");
    assert_eq!(digest_of(&String::from_utf8_lossy(&output.stdout)), digest);

    let mut command = world.command(&["copy", "docker-archive:-", &format!("{own}/piped:2")]);
    let archive = fs::File::open(world.project().join("docker.tar")).expect("a file");
    assert!(command.stdin(archive).output().expect("ctk").status.success());
    contains(&world.ctk(&["inspect", "--config", &format!("docker://{own}/piped:2")]).ok(), &["\"arch\": \"arm64\""]);

    // What cannot be is told.
    let refused = world.ctk(&["copy", "--recursive", &second, "docker-archive:x.tar:x:1"]).fails(1);
    contains(&refused, &["a docker archive cannot hold what refers to an image", "oci-archive:"]);
    contains(&world.ctk(&["copy", "oci:layout:nope", &second]).fails(1), &["`layout` has no image `nope`", "v1"]);
    contains(&world.ctk(&["copy", "oci:absent", &second]).fails(1), &["there is no image in `absent`"]);
}

#[test]
fn attachments_and_deletions_in_registries_with_and_without_a_list() {
    if !has_programs(&["docker-registry"]) {
        return;
    }
    let world = world("app:1");
    let (docker, (_server, own)) = (Docker::start(&world, "127.0.0.1", ""), embedded(&world));
    world.write("report.txt", "fine\n").write("sbom.spdx.json", "{}");
    for host in [docker.host.as_str(), own.as_str()] {
        let name = format!("{host}/app:1");
        world.ctk(&["copy", "store:app:1", &name]).ok();
        assert_eq!(world.ctk(&["referrers", &name]).ok(), "ARTIFACT TYPE      SIZE  DIGEST\n");
        let attach = ["artifact", "attach", &name, "--artifact-type", "text/report", "report.txt", "-a", "by=me"];
        let report = world.ctk(&attach).ok();
        let report = report.trim();
        let signature = ["artifact", "attach", report, "--artifact-type", "a/signature", "sbom.spdx.json:a/b"];
        world.ctk(&signature).ok();
        assert_eq!(referrers(&world, &name), ["text/report"]);
        assert_eq!(referrers(&world, report), ["a/signature"]);
        contains(
            &world.ctk(&["referrers", &name, "--format", "tree"]).ok(),
            &["└── text/report", "    └── a/signature"],
        );
        let filtered = world.ctk(&["referrers", &name, "--artifact-type", "no/such", "--format", "json"]).ok();
        contains(&filtered, &["\"referrers\": []"]);

        world.ctk(&["artifact", "pull", report, "-o", "got"]).ok();
        assert_eq!(world.read("got/report.txt"), "fine\n");

        let plan = world.ctk(&["delete", &name, "--referrers", "--dry-run"]).ok();
        contains(&plan, &["would delete referrer", "(a/signature)", "(text/report)", "would delete manifest"]);
        assert_eq!(referrers(&world, &name), ["text/report"], "a dry run changes nothing");
        let json = world.ctk(&["delete", &name, "--referrers", "--format", "json"]).ok();
        let gone: Vec<Value> = serde_json::from_str(&json).expect("JSON");
        assert!(gone.len() >= 3 && gone.iter().all(|one| one["deleted"] == true), "{json}");
        assert_eq!(world.ctk(&["tags", &format!("{host}/app")]).ok().trim(), "");
        contains(&world.ctk(&["delete", &name]).fails(1), &["does not exist", "`ctk tags"]);
        world.ctk(&["delete", "--force", &name]).ok();
    }
    // What a registry warns of is told, once.
    let front = Front::before(&own);
    front.fault(|asked| (asked.path == "/v2/").then_some(Fault::Status("200 OK\r\nWarning: 299 - \"we move in May\"")));
    let told = world.ctk(&["tags", &format!("{}/app", front.host)]);
    assert_eq!(told.err, format!("warning: {} says: we move in May\n", front.host));
    // A tag alone: only registries of distribution-spec 1.1 can.
    for (host, can) in [(docker.host.as_str(), false), (own.as_str(), true)] {
        let (one, two) = (format!("{host}/tags:1"), format!("{host}/tags:2"));
        world.ctk(&["copy", "store:app:1", &one]).ok();
        world.ctk(&["copy", &one, &two]).ok();
        let deleted = world.ctk(&["delete", &one]);
        match can {
            true => assert_eq!(deleted.ok(), format!("deleted tag {one}\n")),
            false => contains(&deleted.fails(1), &["deletes no tag alone", "`--manifest`"]),
        }
        contains(&world.ctk(&["tags", &two]).ok(), &["2"]);
        contains(&world.ctk(&["delete", "--manifest", &two]).ok(), &["deleted manifest"]);
        assert_eq!(world.ctk(&["tags", &two]).ok().trim(), "");
    }
}

#[test]
fn files_of_artifacts_stay_in_their_folder() {
    let world = World::new();
    let (_server, host) = embedded(&world);
    world.write("sub/a.txt", "a").write("b.bin", "b").write("settings.json", "{\"k\":1}");
    let name = format!("{host}/files:1");
    let config = ["--config", "settings.json:a/config"];
    let push = ["artifact", "push", &name, "sub/a.txt", "b.bin:a/b", "--artifact-type", "application/vnd.test"];
    world.ctk(&[&push[..], &config].concat()).ok();
    let pulled = world.ctk(&["artifact", "pull", &name, "-o", "out"]).ok();
    assert_eq!(pulled, "out/sub/a.txt\nout/b.bin\n");
    assert_eq!((world.read("out/sub/a.txt"), world.read("out/b.bin")), ("a".into(), "b".into()));
    // A link in the folder leads nowhere else.
    fs::remove_dir_all(world.project().join("out/sub")).expect("gone");
    std::os::unix::fs::symlink(world.path("elsewhere"), world.project().join("out/sub")).expect("a link");
    fs::create_dir(world.path("elsewhere")).expect("a folder");
    contains(&world.ctk(&["artifact", "pull", &name, "-o", "out"]).fails(1), &["cannot write `sub/a.txt`"]);
    assert_eq!(fs::read_dir(world.path("elsewhere")).expect("a folder").count(), 0);
    // Nor does a name: such a manifest is written into a layout by hand.
    let layout = world.project().join("evil");
    world.ctk(&["copy", &name, "oci:evil:1"]).ok();
    let index: Value = serde_json::from_str(&world.read("evil/index.json")).expect("JSON");
    let digest = index["manifests"][0]["digest"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
    let manifest = fs::read_to_string(layout.join("blobs/sha256").join(&digest)).expect("a manifest");
    let evil = manifest.replace("sub/a.txt", "../a.txt");
    let renamed = ctk_oci::Digest::of(evil.as_bytes());
    fs::write(layout.join("blobs/sha256").join(renamed.hex()), &evil).expect("a manifest");
    let text = world.read("evil/index.json").replace(&digest, renamed.hex());
    let text = text.replace(&format!("\"size\":{}", manifest.len()), &format!("\"size\":{}", evil.len()));
    world.write("evil/index.json", text);
    let evil = format!("{host}/evil:1");
    world.ctk(&["copy", "oci:evil:1", &evil]).ok();
    contains(
        &world.ctk(&["artifact", "pull", &evil, "-o", "out2"]).fails(1),
        &["the artifact names a file `../a.txt`"],
    );

    contains(&world.ctk(&["artifact", "push", &name, "sub"]).fails(1), &["`sub` is a folder"]);
    contains(&world.ctk(&["artifact", "push", &name, "absent"]).fails(1), &["cannot read `absent`"]);
    contains(&world.ctk(&["artifact", "push", &name, "b.bin", "sub/../b.bin", "-a", "x"]).fails(1), &["b.bin"]);
}

#[test]
fn many_images_are_synced_once() {
    if !has_programs(&["docker-registry", "skopeo"]) {
        return;
    }
    let world = world("app:1");
    let (docker, (_server, own)) = (Docker::start(&world, "127.0.0.1", ""), embedded(&world));
    let (source, target) = (Front::before(&docker.host), Front::before(&own));
    for tag in ["1.0", "1.1", "1.2-rc1", "2.0", "latest"] {
        world.ctk(&["copy", "store:app:1", &format!("{}/app:{tag}", docker.host)]).ok();
    }
    world.write("sbom.spdx.json", "{}");
    let first = format!("{}/app:1.0", docker.host);
    world.ctk(&["artifact", "attach", &first, "--artifact-type", "application/spdx+json", "sbom.spdx.json"]).ok();
    let (from, to) = (&source.host, &target.host);
    world.write(
        "sync.kdl",
        format!(
            "to \"{to}/mirror\"\ncopy \"{from}/app\" {{\n    semver \"^1\"\n    newest 1\n    referrers\n}}\n\
             copy \"{from}/app\" {{ to \"{to}/old\"; tag \"1.0\" \"2.*\"; }}\n\
             copy \"{from}/app:latest\" {{ to \"{to}/arm:x\"; platform \"linux/arm64\"; }}\n\
             copy \"{from}/absent:1\"\ncopy \"{from}/app\" {{ to \"{to}/none\"; tag \"9.*\"; }}\n"
        ),
    );
    let plan = world.ctk(&["sync", "sync.kdl", "--dry-run"]);
    contains(&plan.out, &["4 would be copied, 0 already there, 2 failed"]);
    plan.fails(1);
    assert!(!target.requests().iter().any(|request| !request.starts_with("HEAD") && !request.starts_with("GET")));

    // What cannot be copied keeps nothing else from it.
    let report = world.ctk(&["sync", "sync.kdl"]);
    contains(&report.out, &["4 copied (", "0 already there, 2 failed", "it does not exist", "none of its 6 tags fits"]);
    contains(&report.out, &["sync.kdl:9:1", &format!("copied {from}/app:1.1 to {to}/mirror/app:1.1")]);
    contains(&report.fails(1), &["2 of 6 could not be copied"]);
    assert_eq!(referrers(&world, &format!("{own}/mirror/app:1.1")), ["application/spdx+json"]);
    // What one repository of a registry got is mounted into the next: of 5 blobs no one is sent for each image.
    let sent =
        target.requests().iter().filter(|request| request.starts_with("PUT") && request.contains("uploads")).count();
    assert!(sent < 15, "{sent}");
    contains(&world.ctk(&["tags", &format!("{own}/old")]).ok(), &["1.0\n2.0\n"]);
    let arm =
        world.peer("skopeo", &["inspect", "--tls-verify=false", "--config", &format!("docker://{own}/arm:x")]).ok();
    contains(&arm, &["\"architecture\": \"arm64\""]);

    // The second time nothing but heads and lists; nothing is written.
    source.requests();
    target.requests();
    world.write("two.txt", format!("{from}/app:1.0 {to}/old:1.0\n{from}/app:2.0 {to}/old # a comment\n"));
    assert_eq!(world.ctk(&["sync", "two.txt"]).ok(), "0 copied (0 B sent), 2 already there, 0 failed\n");
    for requests in [source.requests(), target.requests()] {
        assert!(requests.iter().all(|request| request.starts_with("HEAD ") || request == "GET /v2/"), "{requests:?}");
    }
    let again = world.ctk(&["sync", "sync.kdl", "--json"]);
    let json: Value = serde_json::from_str(&again.out).expect("JSON");
    assert_eq!((&json["copied"], &json["present"], &json["failed"]), (&0.into(), &4.into(), &2.into()), "{json}");
    assert_eq!(json["images"].as_array().expect("a list").len(), 6);
    assert!(!target.requests().iter().any(|request| request.starts_with("P")), "nothing is written");

    // skopeo's own file, and what skopeo makes of it.
    world.write(
        "sync.yaml",
        format!(
            "{}:\n  tls-verify: false\n  images:\n    app: [\"1.0\", \"2.0\"]\n  images-by-semver: {{}}\n",
            docker.host
        ),
    );
    contains(&world.ctk(&["sync", "sync.yaml", "--to", &format!("{own}/yaml")]).ok(), &["2 copied"]);
    let theirs = ["sync", "--all", "--src-tls-verify=false", "--src", "yaml", "--dest", "dir", "sync.yaml", "theirs"];
    world.peer("skopeo", &theirs).ok();
    let digest = digest_of(&world.ctk(&["copy", &format!("{own}/yaml/app:1.0"), "oci:check:1"]).ok());
    let dir = world.project().join("theirs");
    let manifest = fs::read(dir.join("app:1.0/manifest.json")).expect("skopeo's copy");
    assert_eq!(ctk_oci::Digest::of(&manifest).to_string(), digest);

    // Tags are chosen in the same words.
    let app = format!("{}/app", docker.host);
    assert_eq!(world.ctk(&["tags", &app, "--semver", "^1"]).ok(), "1.0\n1.1\n");
    assert_eq!(world.ctk(&["tags", &app, "1.*", "2*", "--not", "*-rc*", "--newest", "2"]).ok(), "1.1\n2.0\n");
    contains(&world.ctk(&["tags", &app, "9*"]).fails(1), &["none of its 6 tags fits"]);
    // An image is looked at where it is.
    let seen: Value = serde_json::from_str(&world.ctk(&["inspect", &format!("docker://{first}")]).ok()).expect("JSON");
    assert_eq!((&seen["index"], seen["images"].as_array().expect("two").len()), (&true.into(), 2));
    assert_eq!(seen["images"][1]["config"]["architecture"], "arm64");
    let one = ["inspect", &format!("docker://{first}"), "--platform", "linux/arm64", "--config"];
    contains(&world.ctk(&one).ok(), &["\"arch\": \"arm64\""]);
    let raw = world.ctk(&["inspect", "--raw", &format!("docker://{first}")]).ok();
    assert_eq!(ctk_oci::Digest::of(raw.as_bytes()).to_string(), digest);

    // Mistakes of a file are told with their places.
    let told = world.write("wrong.kdl", "copi \"a\"\ncopy \"A\"\n").ctk(&["sync", "wrong.kdl"]).fails(1);
    contains(&told, &["wrong.kdl:1:1", "did you mean `copy`?", "wrong.kdl:2:6"]);
}

#[test]
fn a_sync_that_was_killed_goes_on() {
    if !has_programs(&["docker-registry"]) {
        return;
    }
    let world = World::new();
    let (docker, (_server, own)) = (Docker::start(&world, "127.0.0.1", ""), embedded(&world));
    world.write("src/Dockerfile", "FROM scratch\nARG N\nCOPY file$N /file\n");
    let mut lines = String::new();
    for n in 0..4 {
        world.write(&format!("src/file{n}"), format!("{n}").repeat(50_000));
        let name = format!("{}/app:{n}", docker.host);
        world.ctk(&["build", "--build-arg", &format!("N={n}"), "--provenance=false", "-t", &name, "src"]).ok();
        world.ctk(&["push", &name]).ok();
        lines += &format!("{name} {own}/app\n");
    }
    world.write("list", lines);
    // After the second image no upload is answered any more.
    let stalled = Front::before(&own);
    let text = world.read("list").replace(&own, &stalled.host);
    world.write("stalled", text);
    let mut uploads = 0;
    stalled.fault(move |asked| {
        uploads += usize::from(asked.method == "PUT" && asked.path.contains("/blobs/uploads/"));
        (uploads > 3).then_some(Fault::Status("503 Service Unavailable"))
    });
    let mut child = world.spawn(&["sync", "stalled", "--jobs", "1"]);
    eventually(Duration::from_secs(20), "one image is there", || {
        world.ctk(&["tags", &format!("{own}/app")]).out.contains('0')
    });
    child.kill().expect("a child");
    child.wait().expect("a child");
    let report = world.ctk(&["sync", "list"]).ok();
    contains(&report, &["already there, 0 failed"]);
    assert!(!report.contains(" 0 already there"), "{report}");
    assert_eq!(world.ctk(&["tags", &format!("{own}/app")]).ok(), "0\n1\n2\n3\n");
}
