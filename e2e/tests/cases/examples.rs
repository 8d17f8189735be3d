//! Each example is applied twice; others read what came out.

use std::fs;
use std::time::Duration;

use ctk_e2e::{World, contains, has_programs, is_root};
use serde_json::{Value, json};

/// The `config` object of an image's config, as skopeo reads it.
fn config(world: &World, image: &str) -> Value {
    // The whole config: skopeo's own idea of it lacks what Docker added.
    let text = world.peer("skopeo", &["inspect", "--config", "--raw", image]).ok();
    serde_json::from_str::<Value>(&text).expect("a config")["config"].take()
}

/// Applies twice and gives what the first said; the second must do nothing.
fn apply_twice(world: &World) -> String {
    let first = world.ctk(&["apply"]);
    let story = first.err.clone() + &first.out;
    first.ok();
    let lock = fs::read(world.project().join("containers.lock")).unwrap();
    let second = world.ctk(&["apply"]);
    contains(&(second.err.clone() + &second.out), &["nothing to do"]);
    assert!(second.took < Duration::from_secs(2), "{}", second.story());
    second.ok();
    assert_eq!(fs::read(world.project().join("containers.lock")).unwrap(), lock);
    story
}

#[test]
fn hello_c() {
    if !is_root() || !has_programs(&["skopeo", "umoci", "podman"]) {
        return;
    }
    let world = World::shared();
    world.copy("examples/hello-c");
    apply_twice(&world);

    let config = config(&world, "oci:dist/images:1.0.0");
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], json!(["/hello"]));
    assert_eq!(config["Cmd"], json!(["container"]));
    assert_eq!(config["Labels"]["org.opencontainers.image.version"], "1.0.0");
    world.peer("umoci", &["unpack", "--image", "dist/images:latest", "bundle"]).ok();
    let files = world.peer("find", &["bundle/rootfs", "-type", "f", "-printf", "%P %m %U:%G\n"]).ok();
    assert_eq!(files, "hello 755 0:0\n");
    let id = world.podman(&["pull", "-q", "oci:dist/images:latest"]).ok();
    assert_eq!(world.podman(&["run", "--rm", "--network=none", id.trim()]).ok(), "Hello, container!\n");
    assert_eq!(world.ctk(&["run", "image:hello", "there"]).ok(), "Hello, there!\n");
}

#[test]
fn dockerfile() {
    if !is_root() || !has_programs(&["skopeo"]) {
        return;
    }
    let world = World::shared();
    world.copy("examples/dockerfile");
    apply_twice(&world);
    let config = config(&world, "oci:dist/images:site");
    assert_eq!(config["User"], "www-data");
    assert_eq!(config["ExposedPorts"], json!({ "8080/tcp": {} }));
    assert_eq!(config["Healthcheck"]["Interval"], 10_000_000_000_u64);
    let archive = world.peer("skopeo", &["inspect", "docker-archive:dist/site.tar"]).ok();
    contains(&archive, &["\"Layers\""]);
}

#[test]
fn monorepo() {
    if !is_root() || !has_programs(&["skopeo"]) {
        return;
    }
    let world = World::shared();
    world.copy("examples/monorepo");
    let story = apply_twice(&world);
    contains(&story, &["test:services/clock:clock"]);
    world.peer("skopeo", &["inspect", "oci:dist/images:greeter"]).ok();
}
