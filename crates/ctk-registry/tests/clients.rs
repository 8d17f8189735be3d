//! The server as its clients see it: ctk, skopeo, podman.

#[path = "../../ctk-client/tests/common/mod.rs"]
mod common;

use std::process::Command;
use std::time::Duration;

use common::{Fault, Proxy, client, has, image, index, never, options, run, store};
use ctk_client::{Client, Credentials, PushOptions, Pushed, Secret};
use ctk_oci::{Digest, Manifest, Reference};
use ctk_registry::{Access, ServeOptions, Server, serve};
use ctk_store::Depth;

fn start(directory: &tempfile::TempDir) -> Server {
    serve(ServeOptions::new("127.0.0.1:0".parse().unwrap(), directory.path())).unwrap()
}

fn reference(host: &str, name: &str) -> Reference {
    format!("{host}/{name}").parse().unwrap()
}

#[test]
fn ctk_pushes_pulls_copies_and_mounts() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (start(&one), start(&two));
    let (_a, from) = store();
    let root = index(&from, 31, 3, 700_000);
    let to = reference(&first.host(), "team/app:1");
    let pushed = client().push(&to, &root, &from, &PushOptions::default(), None, &never()).unwrap();
    assert_eq!(pushed.uploaded, 8);
    assert_eq!(first.storage().tag("team/app", "1").unwrap().unwrap().digest, root.digest);
    let options = PushOptions { mount_from: vec!["team/app".into()], ..PushOptions::default() };
    let mounted = client().push(&reference(&first.host(), "b:1"), &root, &from, &options, None, &never()).unwrap();
    assert_eq!(mounted, Pushed { mounted: 8, ..Pushed::default() });
    let copy = reference(&second.host(), "app:1");
    assert_eq!(client().copy(&to, &copy, None, None, &never()).unwrap().digest, root.digest);
    let (_b, into) = store();
    client().pull(&copy, None, Depth::Layers, &into, None, &never()).unwrap();
    assert_eq!(into.read(&root, 1 << 20).unwrap(), from.read(&root, 1 << 20).unwrap());
    assert_eq!(client().tags(&copy, &never()).unwrap(), ["1"]);
    assert!(client().delete(&copy, &never()).unwrap());
    assert_eq!(client().head(&copy, &never()).unwrap(), None);
}

#[test]
fn many_tags_come_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let (_a, from) = store();
    let root = image(&from, "amd64", 32, 1, 100);
    let to = reference(&server.host(), "app:t0");
    client().push(&to, &root, &from, &PushOptions::default(), None, &never()).unwrap();
    let bytes = from.read(&root, 1 << 20).unwrap();
    let mut expected: Vec<String> = (0..1100).map(|n| format!("t{n}")).collect();
    for tag in &expected {
        server.storage().put_manifest("app", &root.media_type, &bytes, None, Some(tag)).unwrap();
    }
    expected.sort();
    assert_eq!(client().tags(&to, &never()).unwrap(), expected);
    assert_eq!(Digest::of(&bytes), root.digest);
}

#[test]
fn a_cut_upload_goes_on_where_it_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let proxy = Proxy::before(&server.host());
    let (_a, from) = store();
    let root = image(&from, "amd64", 33, 1, 3_000_000);
    proxy.order("PUT /v2/app/blobs/uploads/", 2, Fault::CutRequest(1_000_000));
    let to = proxy.reference("app:1");
    // One blob at a time, so that the cuts meet the layer.
    let one = ctk_client::ClientOptions { parallel: 1, ..options() };
    client().push_blobs(&to, &root, &from, &PushOptions::default(), None, &never()).unwrap();
    Client::new(one).push(&to, &root, &from, &PushOptions::default(), None, &never()).unwrap();
    let resumed = proxy.seen("PUT /v2/app/blobs/uploads/");
    let resumed = resumed.iter().filter(|head| head.to_lowercase().contains("content-range: ")).count();
    assert!(resumed >= 1, "{:#?}", proxy.seen("/v2/app/blobs/uploads/"));
    let (_b, into) = store();
    client().pull(&to, None, Depth::Layers, &into, None, &never()).unwrap();
    server.storage().empty_trash().unwrap();
    assert_eq!(server.storage().check(true).unwrap().faults, []);
}

#[test]
fn many_at_once_on_two_servers_of_one_directory() {
    let directory = tempfile::tempdir().unwrap();
    let servers = [start(&directory), start(&directory)];
    let (_a, from) = store();
    let roots: Vec<_> = (0..4).map(|seed| index(&from, 40 + seed, 2, 200_000)).collect();
    std::thread::scope(|scope| {
        for turn in 0..8usize {
            let (servers, roots, from) = (&servers, &roots, &from);
            scope.spawn(move || {
                // The same image by two names and two servers at once.
                let root = &roots[turn % 4];
                let to = reference(&servers[turn / 4].host(), &format!("app{}:t{turn}", turn % 2));
                client().push(&to, root, from, &PushOptions::default(), None, &never()).unwrap();
                let (_b, into) = store();
                let other = reference(&servers[1 - turn / 4].host(), &format!("app{}:t{turn}", turn % 2));
                client().pull(&other, None, Depth::Layers, &into, None, &never()).unwrap();
            });
        }
    });
    for turn in 0..8 {
        let tag = servers[0].storage().tag(&format!("app{}", turn % 2), &format!("t{turn}")).unwrap().unwrap();
        assert_eq!(tag.digest, roots[turn % 4].digest);
    }
}

#[test]
fn imported_images_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let (_a, from) = store();
    let root = index(&from, 55, 2, 100_000);
    for _ in 0..2 {
        server.storage().import_image("team/app", &root, &from, Some("1")).unwrap();
    }
    assert_eq!(server.storage().tag("team/app", "1").unwrap().unwrap().digest, root.digest);
    let (_b, into) = store();
    let to = reference(&server.host(), "team/app:1");
    assert_eq!(client().pull(&to, None, Depth::Layers, &into, None, &never()).unwrap().digest, root.digest);
}

#[test]
fn passwords() {
    if !has("htpasswd") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut serving = ServeOptions::new("127.0.0.1:0".parse().unwrap(), directory.path().join("data"));
    serving.access = Access::Htpasswd(common::htpasswd(directory.path(), "me", "secret"));
    let server = serve(serving).unwrap();
    let (_a, from) = store();
    let root = image(&from, "amd64", 50, 2, 1000);
    let to = reference(&server.host(), "app:1");
    let error = client().push(&to, &root, &from, &PushOptions::default(), None, &never()).unwrap_err();
    assert_eq!(error.status(), Some(401));
    let auth_file = directory.path().join("auth.json");
    let with = Client::new(ctk_client::ClientOptions { auth_files: vec![auth_file.clone()], ..options() });
    let me = Credentials::Basic { user: "me".into(), password: Secret::new("secret") };
    with.login(&server.host(), &me, &never()).unwrap();
    with.push(&to, &root, &from, &PushOptions::default(), None, &never()).unwrap();
    if has("skopeo") {
        let (target, file) = (format!("docker://{to}"), auth_file.display().to_string());
        run(Command::new("skopeo").args(["inspect", "--tls-verify=false", "--authfile", &file, &target]));
    }
}

#[test]
fn skopeo_copies_both_ways() {
    if !has("skopeo") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let (_a, from) = store();
    let root = index(&from, 60, 2, 500_000);
    let to = reference(&server.host(), "app:1");
    client().push(&to, &root, &from, &PushOptions::default(), None, &never()).unwrap();
    let layout = directory.path().join("layout");
    let (ours, oci) = (format!("docker://{to}"), format!("oci:{}:x", layout.display()));
    let skopeo = |arguments: &[&str]| {
        run(Command::new("skopeo").args(["--insecure-policy", "copy", "-q", "--all"]).args(arguments))
    };
    skopeo(&["--src-tls-verify=false", &ours, &oci]);
    let back = format!("docker://{}/from/skopeo:2", server.host());
    skopeo(&["--dest-tls-verify=false", &oci, &back]);
    let (_b, into) = store();
    let pulled = client().pull(&reference(&server.host(), "from/skopeo:2"), None, Depth::Layers, &into, None, &never());
    assert_eq!(pulled.unwrap().digest, root.digest);
    // Docker's types, within the registry.
    let docker = format!("docker://{}/docker:1", server.host());
    run(Command::new("skopeo").args(["--insecure-policy", "copy", "-q", "--format", "v2s2"]).args([
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        &ours,
        &docker,
    ]));
    let (_c, into) = store();
    let pulled =
        client().pull(&reference(&server.host(), "docker:1"), None, Depth::Layers, &into, None, &never()).unwrap();
    assert_eq!(pulled.media_type, ctk_oci::media_type::DOCKER_MANIFEST);
    let manifest: Manifest = into.document("manifest", &pulled).unwrap().into_value();
    assert!(into.contains(&manifest.layers[0].digest).unwrap());
    run(Command::new("skopeo").args(["delete", "--tls-verify=false", &docker]));
    server.shutdown(Duration::from_secs(5));
}

#[test]
fn podman_pulls_and_pushes() {
    if !has("podman") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let (_a, from) = store();
    let root = image(&from, "amd64", 70, 2, 300_000);
    let to = reference(&server.host(), "app:1");
    client().push(&to, &root, &from, &PushOptions::default(), None, &never()).unwrap();
    let (graph, state) = (directory.path().join("graph"), directory.path().join("run"));
    let policy = directory.path().join("policy.json");
    std::fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.arg("--root").arg(&graph).arg("--runroot").arg(&state).args(["--storage-driver", "vfs"]);
        run(command.args(arguments))
    };
    let policy = format!("--signature-policy={}", policy.display());
    podman(&["pull", "-q", "--tls-verify=false", &policy, &to.to_string()]);
    let back = format!("{}/from/podman:2", server.host());
    podman(&["push", "-q", "--tls-verify=false", &policy, &to.to_string(), &back]);
    let (_b, into) = store();
    client().pull(&back.parse().unwrap(), None, Depth::Layers, &into, None, &never()).unwrap();
    podman(&["pull", "-q", "--tls-verify=false", &policy, &back]);
    podman(&["rmi", "-f", "-a"]);
}
