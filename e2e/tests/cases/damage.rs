//! A disk that gives back other bytes: said once, then made again. And names that would take each other's place.

use std::fs;
use std::path::PathBuf;

use ctk_e2e::{World, contains};

use super::failures::with_busybox;

/// The largest blob: a layer.
fn largest_blob(world: &World) -> PathBuf {
    let folders = fs::read_dir(world.store().join("blobs/sha256")).unwrap();
    let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap()).map(|file| file.unwrap());
    files.max_by_key(|file| file.metadata().unwrap().len()).expect("there are blobs").path()
}

/// Writes over a blob, which is a read-only file.
fn spoil(blob: &PathBuf, bytes: &[u8]) {
    fs::remove_file(blob).unwrap();
    fs::write(blob, bytes).unwrap();
}

#[test]
fn a_damaged_layer_is_made_again() {
    let Some(world) = with_busybox("push \"out\" image=\"busybox\" { to \"oci:out\"; }\n") else { return };
    world.ctk(&["apply"]).ok();
    let blob = largest_blob(&world);
    let mut bytes = fs::read(&blob).unwrap();
    for cut in [true, false] {
        if cut {
            spoil(&blob, &bytes[..1000]);
        } else {
            bytes[5000] ^= 0xff;
            spoil(&blob, &bytes);
        }
        fs::remove_dir_all(world.project().join("out")).unwrap();
        contains(&world.ctk(&["apply"]).fails(1), &["push:out", "was damaged on this disk and has been removed"]);
        contains(&world.ctk(&["plan"]).ok(), &["image:busybox", "its result is no longer in the store"]);
        world.ctk(&["apply"]).ok();
        contains(&world.ctk(&["apply"]).ok(), &["nothing to do"]);
        assert!(world.project().join("out/index.json").exists());
        assert_eq!(world.ctk(&["run", "image:busybox", "/bin/sh", "-c", "echo whole"]).ok(), "whole\n");
    }
}

#[test]
fn a_damaged_manifest_is_made_again() {
    let Some(world) = with_busybox("") else { return };
    world.ctk(&["apply"]).ok();
    let digest = world.ctk(&["images", "--quiet"]).ok();
    let hex = digest.trim().strip_prefix("sha256:").unwrap();
    spoil(&world.store().join(format!("blobs/sha256/{}/{hex}", &hex[..2])), b"{}");
    world.ctk(&["apply"]).ok();
    contains(&world.ctk(&["apply"]).ok(), &["nothing to do"]);
    assert_eq!(world.ctk(&["run", "image:busybox", "/bin/sh", "-c", "echo whole"]).ok(), "whole\n");
}

#[test]
fn images_that_the_store_would_call_alike() {
    let world = World::new();
    world.write(
        "containers.kdl",
        "project \"p\"\nimage \"web_api\" from=\"scratch\"\nimage \"Web-Api\" from=\"scratch\"\n",
    );
    let said = world.ctk(&["check"]).fails(1);
    contains(&said, &["apply::store-name", "`image:web_api`", "`image:Web-Api`", "localhost/p/web-api", "kdl:3:7"]);
}

#[test]
fn what_does_not_start_is_125() {
    let Some(world) = with_busybox("") else { return };
    world.ctk(&["apply"]).ok();
    let check = |arguments: &[&str], words: &[&str]| {
        let arguments: Vec<&str> = ["run"].iter().chain(arguments).copied().collect();
        contains(&world.ctk(&arguments).fails(125), words);
    };
    check(&["--platform", "linux/s390x", "image:busybox"], &["no image for linux/s390x"]);
    check(&["--volume", "/no/such:/x", "image:busybox"], &["cannot mount /no/such"]);
    check(&["--pull", "never", "127.0.0.1:1/none"], &["the store has no image"]);
    check(&["Not An Image"], &["malformed"]);
    check(&["--user", "nobody-here", "image:busybox"], &["nobody-here"]);
    let said = world.ctk(&["run", "image:busybox", "/bin"]).fails(126);
    assert!(!said.contains("root"), "{said}");
}

#[test]
fn check_finds_what_a_build_would_stumble_over() {
    let world = World::new();
    world.write("a", "").write("b", "");
    let check = |instruction: &str, words: &[&str]| {
        world.write("containers.kdl", format!("image \"i\" from=\"scratch\" {{\n    {instruction}\n}}\n"));
        let said = world.ctk(&["check"]).fails(1);
        contains(&said, words);
        contains(&said, &["containers.kdl:2:"]);
    };
    check(r#"expose 70000"#, &["`70000` is no port"]);
    check(r#"stopsignal "nope""#, &["`nope` is no signal"]);
    check(r#"copy "a" "b" to="/x""#, &["`/x` must end with `/`"]);
    check(r#"copy "a" to="/x" chmod="9z""#, &["image::bad-mode", "`9z` is no mode", "2:28"]);
    check(r#"copy "" to="/x""#, &["a source cannot be empty"]);
    check(r#"copy "a" to="""#, &["a destination cannot be empty"]);
    check(r#"env ""="x""#, &["`` of `env` is no name"]);
    check(r#"label { "" "x"; }"#, &["`` of `label` is no name"]);
    check(r#"workdir """#, &["a path cannot be empty"]);
    check(r#"user """#, &["a user cannot be empty"]);
    check(r#"entrypoint "" "x""#, &["a command cannot be empty"]);
}

#[test]
fn what_apply_writes_is_no_input() {
    let world = World::new();
    if !ctk_e2e::is_root() {
        return;
    }
    let check = |instruction: &str| {
        world.write("Dockerfile", format!("FROM scratch\n{instruction}\n"));
        world.ctk(&["apply"]).ok();
        contains(&world.ctk(&["plan"]).ok(), &["nothing to do"]);
        contains(&world.ctk(&["apply"]).ok(), &["nothing to do"]);
        world.write("dist/mine", instruction);
        contains(&world.ctk(&["plan"]).ok(), &["dist/mine"]);
        world.ctk(&["apply"]).ok();
        contains(&world.ctk(&["apply"]).ok(), &["nothing to do"]);
        fs::remove_dir_all(world.project().join("dist")).unwrap();
    };
    world.write(
        "containers.kdl",
        r#"project "p"
image "i" dockerfile="Dockerfile"
push "i" image="i" {
    to "oci:dist/images"
    to "oci-archive:dist/deep/i-oci.tar"
    to "docker-archive:i.tar"
    to "127.0.0.1:PORT/i"
}
registry "r" listen="127.0.0.1:PORT" { storage "filesystem:.ctk/registry"; }
"#
        .replace("PORT", &ctk_e2e::free_port().to_string()),
    );
    check("COPY . /");
    check("COPY * /");
}

#[test]
fn a_damaged_name_is_named_and_can_be_removed() {
    let Some(world) = with_busybox("") else { return };
    world.ctk(&["apply"]).ok();
    let names = || std::fs::read_dir(world.store().join("refs")).unwrap().map(|entry| entry.unwrap().path());
    let path = names().next().expect("the image has a name");
    std::fs::write(&path, "").unwrap();
    contains(&world.ctk(&["images"]).fails(1), &["refs/", "ctk rmi"]);
    world.ctk(&["rmi", "localhost/case/busybox"]).ok();
    assert_eq!(names().count(), 0);
    world.ctk(&["images"]).ok();
}
