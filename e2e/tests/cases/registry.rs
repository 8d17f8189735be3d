//! The embedded registry and the client, against each other and against skopeo and podman.

use std::time::Duration;

use ctk_e2e::{World, contains, eventually, free_port, has_programs};

use super::failures::with_busybox;

/// Kills the server when the case ends.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(world: &World, port: u16) -> Server {
    let listen = format!("127.0.0.1:{port}");
    let server = Server(world.spawn(&["registry", "serve", "--listen", &listen, "--storage", "registry-data"]));
    eventually(Duration::from_secs(10), "the registry answers", || std::net::TcpStream::connect(&listen).is_ok());
    server
}

#[test]
fn others_push_to_it_and_pull_from_it() {
    let Some(world) = with_busybox("push \"p\" image=\"busybox\" { to \"oci:dist\" { tag \"v1\" }; }\n") else {
        return;
    };
    if !has_programs(&["skopeo", "podman"]) {
        return;
    }
    world.ctk(&["apply"]).ok();
    let port = free_port();
    let _server = serve(&world, port);
    let name = format!("127.0.0.1:{port}/some/app");
    world.peer("skopeo", &["copy", "--dest-tls-verify=false", "oci:dist:v1", &format!("docker://{name}:skopeo")]).ok();
    contains(&world.ctk(&["tags", &name]).ok(), &["skopeo"]);
    let id = world.podman(&["pull", "-q", "--tls-verify=false", &format!("{name}:skopeo")]).ok();
    world.podman(&["push", "-q", "--tls-verify=false", id.trim(), &format!("docker://{name}:podman")]).ok();
    world.ctk(&["pull", &format!("{name}:podman")]).ok();
    assert_eq!(world.ctk(&["run", &format!("{name}:podman"), "/bin/busybox", "echo", "hi"]).ok(), "hi\n");
    // Into a store that has seen nothing: files are there at once only when that is asked for.
    let fresh = world.path("fresh");
    let pull = ["--root", fresh.to_str().unwrap(), "pull", &format!("{name}:podman")];
    let unpacked = || world.peer("find", &[fresh.join("layers").to_str().unwrap(), "-path", "*/bin/busybox"]).ok();
    world.ctk(&pull).ok();
    assert_eq!(unpacked(), "");
    world.ctk(&[&pull[..], &["--unpack"]].concat()).ok();
    contains(&unpacked(), &["/bin/busybox"]);
    world.ctk(&["copy", &format!("{name}:skopeo"), &format!("{name}:copied")]).ok();
    world.peer("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{name}:copied")]).ok();
    contains(&world.ctk(&["pull", &format!("{name}:absent")]).fails(1), &["absent"]);
}

#[test]
fn apply_pushes_to_the_embedded_registry_and_serves_it_meanwhile() {
    let port = free_port();
    let project = format!(
        "registry \"local\" listen=\"127.0.0.1:{port}\" {{ storage \"filesystem:.ctk/registry\"; }}\npush \"p\" image=\"busybox\" {{ to \"127.0.0.1:{port}/app\" {{ tag \"v1\" \"latest\"; }}; }}\n"
    );
    let Some(world) = with_busybox(&project) else { return };
    world.ctk(&["apply"]).ok();
    let again = world.ctk(&["apply"]);
    contains(&(again.err.clone() + &again.out), &["nothing to do"]);
    again.ok();
    let server = world.spawn(&["registry", "serve", "local"]);
    let _server = Server(server);
    let name = format!("127.0.0.1:{port}/app");
    eventually(Duration::from_secs(10), "the registry answers", || world.ctk(&["tags", &name]).status.success());
    contains(&world.ctk(&["tags", &name]).ok(), &["latest", "v1"]);
}
