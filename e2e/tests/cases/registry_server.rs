//! What the operator of a registry does: users, keys, tokens, collection, checks, moving in and out, numbers, logs.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

use ctk_e2e::{World, contains, eventually, free_port, has_programs};

/// Kills the server when the case ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves the folder `data` with these options.
fn serve(world: &World, port: u16, options: &[&str]) -> Server {
    let listen = format!("127.0.0.1:{port}");
    let arguments = [&["registry", "serve", "--listen", &listen, "--storage", "data"], options].concat();
    let log = std::fs::File::create(world.project().join("log")).unwrap();
    let mut command = world.command(&arguments);
    let server = Server(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    eventually(Duration::from_secs(10), "the registry answers", || std::net::TcpStream::connect(&listen).is_ok());
    server
}

fn user(world: &World, name: &str, password: &str) {
    let mut command = world.command(&["registry", "user", name, "--htpasswd", "users", "--password-stdin"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn get(port: u16, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn an_operator_keeps_a_registry() {
    if !has_programs(&["skopeo"]) {
        return;
    }
    let world = World::new();
    user(&world, "ci", "first secret");
    let (port, metrics) = (free_port(), free_port());
    let at = format!("127.0.0.1:{metrics}");
    let options = [
        "--htpasswd",
        "users",
        "--token-keys",
        "keys",
        "--allow",
        "user:ci=admin@team/**",
        "--metrics",
        &at,
        "--log",
        "json",
        "--audit-log",
        "audit",
    ];
    let server = serve(&world, port, &options);
    let host = format!("127.0.0.1:{port}");
    // An image of nothing, as a layout.
    let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let digest = |text: &str| {
        world.write("blob", text);
        world.peer("sha256sum", &["blob"]).ok()[..64].to_owned()
    };
    let of_config = digest(config);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{of_config}","size":{}}},"layers":[]}}"#,
        config.len()
    );
    let of_manifest = digest(&manifest);
    world.write(&format!("layout/blobs/sha256/{of_config}"), config);
    world.write(&format!("layout/blobs/sha256/{of_manifest}"), &manifest);
    world.write("layout/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    world.write(
        "layout/index.json",
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{of_manifest}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"v1"}}}}]}}"#,
            manifest.len()
        ),
    );
    let folder = ["--storage", "data"];
    let import = ["registry", "import", "--from-layout", "layout", "--to", "team/app"];
    contains(&world.ctk(&[&import[..], &folder].concat()).ok(), &["1 blobs, 1 manifests, 1 tags; 0 refused"]);

    // By tokens: skopeo logs in, copies within the registry, and is refused elsewhere.
    let auth = "auth.json";
    let login = ["login", "--tls-verify=false", "--authfile", auth, "-u", "ci", "-p", "first secret", &host];
    world.peer("skopeo", &login).ok();
    let copy = |to: &str| {
        let (from, to) = (format!("docker://{host}/team/app:v1"), format!("docker://{host}/{to}"));
        let both = ["--src-tls-verify=false", "--dest-tls-verify=false", "--authfile", auth];
        world.peer("skopeo", &[&["copy", "-q"], &both[..], &[&from, &to]].concat())
    };
    copy("team/copy:v1").ok();
    assert!(!copy("elsewhere:v1").status.success());

    // A rotation of keys.
    let keys = ["--keys", "keys"];
    let listed = world.ctk(&[&["registry", "keys", "list"][..], &keys].concat()).ok();
    contains(&listed, &["  signs"]);
    let first = listed.split(' ').next().unwrap().to_owned();
    contains(&world.ctk(&[&["registry", "keys", "retire", &first][..], &keys].concat()).fails(1), &["only key"]);
    let second = world.ctk(&[&["registry", "keys", "new"][..], &keys].concat()).ok();
    contains(&world.ctk(&[&["registry", "keys", "list"][..], &keys].concat()).ok(), &[second.trim(), "verifies"]);
    world.ctk(&[&["registry", "keys", "retire", &first][..], &keys].concat()).ok();
    copy("team/after:v1").ok();

    // A new password counts at once, or nearly.
    user(&world, "ci", "second secret");
    eventually(Duration::from_secs(10), "the old password is refused", || !copy("team/late:v1").status.success());

    // What is there is whole; what is not named goes; what is taken away is missed.
    let check = [&["registry", "check"][..], &folder].concat();
    contains(&world.ctk(&check).ok(), &["1 blobs", "0 faults"]);
    let gc = [&["registry", "gc", "--keep-in", "team/copy", "--keep-tags", "x*", "--untagged-after", "0"][..], &folder];
    contains(&world.ctk(&[&gc.concat()[..], &["--dry-run"]].concat()).ok(), &["team/copy:v1"]);
    contains(&world.ctk(&gc.concat()).ok(), &["team/copy:v1", "removed: "]);
    let export = ["registry", "export", "team/app:v1", "exported"];
    contains(&world.ctk(&[&export[..], &folder].concat()).ok(), &["1 manifests"]);
    world.peer("skopeo", &["inspect", "--raw", "oci:exported:v1"]).ok();

    contains(
        &get(metrics, "/metrics"),
        &["ctk_registry_blobs 1\n", "ctk_registry_request_seconds_bucket{method=\"GET\""],
    );
    drop(server);
    let told = world.read("log") + &world.read("audit");
    contains(&told, &["\"who\":\"ci\"", "\"status\":403"]);
    assert!(!told.contains("secret") && !told.contains("eyJ"), "{told}");

    let bytes = world.peer("find", &["data/blobs", "-type", "f"]).ok();
    std::fs::remove_file(world.project().join(bytes.lines().next().unwrap())).unwrap();
    let checked = world.ctk(&check);
    assert_eq!(checked.code(), 1);
    contains(&checked.out, &["has no bytes", "1 faults"]);
}

#[test]
fn a_database_that_is_not_there_is_told_without_its_password() {
    let world = World::new();
    let url = format!("postgres://me:hidden@127.0.0.1:{}/x", free_port());
    let serve = ["registry", "serve", "--listen", "127.0.0.1:0", "--storage", "data", "--database", &url];
    let told = world.ctk(&serve).fails(1);
    assert!(told.contains("database") && !told.contains("hidden"), "{told}");
}
