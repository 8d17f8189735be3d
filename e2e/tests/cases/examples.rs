//! Each example is applied twice; others read what came out.

use std::fs;
use std::process::Command;
use std::time::Duration;

use ctk_e2e::{World, binary, contains, free_port, has_programs, is_root, run, workspace};
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
    // podman asks for more files and processes than some machines let even root have, and crun knows no hybrid cgroups.
    let limits = ["--runtime=runc", "--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096"];
    let arguments = [&["run", "--rm", "--network=none"][..], &limits, &[id.trim()]].concat();
    assert_eq!(world.podman(&arguments).ok(), "Hello, container!\n");
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

/// The project's own file, with a port of its own and the binary under test as what it ships.
#[test]
fn this_project() {
    if !is_root() || !has_programs(&["skopeo", "umoci", "podman"]) {
        return;
    }
    let world = World::shared();
    let file = fs::read_to_string(workspace().join("containers.kdl")).unwrap();
    let port = free_port();
    world.write("containers.kdl", file.replace("127.0.0.1:5050", &format!("127.0.0.1:{port}")));
    match std::env::var_os("CTK_RELEASE") {
        Some(release) => {
            world.write("target/release/ctk", fs::read(release).unwrap());
        }
        None => {
            world.write("target/release/ctk", fs::read(binary()).unwrap());
            // One that is built for development is larger than what the project promises.
            world.write("containers.kdl", world.read("containers.kdl").replace("160MiB", "900MiB"));
        }
    }
    apply_twice(&world);

    let config = config(&world, "oci:dist/images:0.1.0");
    assert_eq!(config["Entrypoint"], json!(["/usr/bin/ctk"]));
    assert_eq!(world.ctk(&["run", "image:ctk", "--version"]).ok(), format!("ctk {}\n", env!("CARGO_PKG_VERSION")));
    world.peer("umoci", &["unpack", "--image", "dist/images:0.1.0", "bundle"]).ok();
    let package = world.peer("dpkg-query", &["--admindir=bundle/rootfs/var/lib/dpkg", "-W", "ca-certificates"]).ok();
    contains(&package, &["ca-certificates"]);

    let mut server = world.spawn(&["registry", "serve", "local"]);
    let name = format!("127.0.0.1:{port}/ctk");
    ctk_e2e::eventually(Duration::from_secs(10), "the registry answers", || {
        world.ctk(&["tags", &name]).status.success()
    });
    let id = world.podman(&["pull", "-q", "--tls-verify=false", &format!("{name}:latest")]);
    run(kill(server.id()));
    server.wait().unwrap();
    assert_eq!(id.ok().trim().len(), 64);
}

/// A later `apt-get` works inside, behind whatever mirror the host has, and leaves nothing of it.
#[test]
fn packages_work_inside() {
    if !is_root() {
        return;
    }
    let world = World::shared();
    world.write(
        "containers.kdl",
        r#"project "inside"
image "base" {
    packages distro="debian" suite="bookworm"
}
image "more" {
    stage "final" from="base" {
        run "apt-get update && apt-get install -y --no-install-recommends hello && rm -f /var/lib/apt/lists/*_*"
    }
}
test "more" image="more" {
    command "hello" "hello" { stdout contains="Hello" }
    command "verify" "dpkg" "--verify" { stdout equals="" }
    command "list" "dpkg" "-l" { stdout contains="base-files" }
    packages { present "hello" "apt"; absent "gcc" }
    absent "/etc/apt/sources.list.d/*"
}
"#,
    );
    world.ctk(&["apply"]).ok();
}

/// The library, as somebody's own program uses it.
#[test]
fn library() {
    if !is_root() {
        return;
    }
    let world = World::shared();
    world.copy("examples/hello-c");
    // Whoever built the whole workspace has it.
    let mut command = match std::env::var_os("CTK_EXAMPLE_XTASK") {
        Some(built) => Command::new(built),
        None => {
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.args(["run", "--quiet", "--locked", "--package", "example-xtask", "--"]);
            cargo
        }
    };
    command
        .current_dir(workspace())
        .arg(world.project().join("containers.kdl"))
        .env("CTK_ROOT", world.store())
        .env("USER", "root");
    let said = run(command).ok();
    contains(&said, &["image:hello", "push:hello"]);
    contains(&world.ctk(&["apply"]).ok(), &["nothing to do"]);
}

fn kill(process: u32) -> Command {
    let mut command = Command::new("kill");
    command.args(["-TERM", &process.to_string()]);
    command
}
