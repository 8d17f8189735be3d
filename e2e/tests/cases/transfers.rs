//! Images and artifacts between registries, layouts, archives and the store; what refers to them; deletions; many at
//! once. On the other side: `docker-registry`, which keeps no list of referrers, the embedded registry, which does, and
//! skopeo.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

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
