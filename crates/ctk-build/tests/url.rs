//! ADD of URLs, over a real server.

mod common;
#[path = "common/server.rs"]
mod server;

use std::time::{Duration, SystemTime};

use common::{Bench, can_run};
use ctk_oci::{Algorithm, Digest};
use server::Server;

struct Rig {
    bench: Bench,
    server: Server,
}

fn rig() -> Option<Rig> {
    let bench = can_run().then(Bench::new)?;
    let root = bench.folder.path().join("served");
    std::fs::create_dir_all(root.join("dir")).unwrap();
    let server = Server::new(&root);
    Some(Rig { bench, server })
}

impl Rig {
    fn serve(&self, path: &str, text: &str, seconds: u64) {
        let path = self.server.root.join(path);
        std::fs::write(&path, text).unwrap();
        let file = std::fs::File::open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    /// As a build without a lock file.
    fn forget(&self) {
        self.bench.lock.0.lock().unwrap().clear();
    }
}

#[test]
fn a_file_has_the_urls_name_and_the_servers_time() {
    let Some(rig) = rig() else { return };
    rig.serve("dir/file.txt", "web", 1_000_000_000);
    rig.serve("dir/a b.txt", "blank", 1_000_000_001);
    let url = |path: &str| rig.server.url(&format!("files/{path}"));
    let (plain, escaped) = (url("dir/file.txt?x=/y"), url("dir/a%20b.txt"));
    let built = rig.bench.built(&format!("FROM scratch\nADD {plain} {escaped} /got/\nADD {plain} /named\n"));
    let tree = rig.bench.tree(&built);
    for (path, text, seconds) in [
        ("/got/file.txt", "web", 1_000_000_000),
        ("/got/a b.txt", "blank", 1_000_000_001),
        ("/named", "web", 1_000_000_000),
    ] {
        let found = tree.stat(path).unwrap().unwrap();
        assert_eq!((rig.bench.text(&built, path).as_str(), found.mode), (text, 0o600), "{path}");
        assert_eq!(found.mtime.seconds, seconds, "{path}");
    }
    let built = rig.bench.built(&format!("FROM scratch\nADD --chmod=755 --chown=7:8 {plain} /x\n"));
    let found = rig.bench.tree(&built).stat("/x").unwrap().unwrap();
    assert_eq!((found.mode, found.uid, found.gid), (0o755, 7, 8));
}

#[test]
fn what_the_lock_file_knows_is_not_asked_for() {
    let Some(rig) = rig() else { return };
    rig.serve("f", "one", 1000);
    let text = format!("FROM scratch\nADD {} /f\n", rig.server.url("files/f"));
    let first = rig.bench.built(&text);
    assert_eq!(rig.server.seen(), ["GET /files/f"]);
    rig.serve("f", "two", 2000);
    let again = rig.bench.built(&text);
    assert_eq!((again.executed, &again.descriptor), (0, &first.descriptor));
    assert_eq!(rig.server.seen(), [""; 0]);
    // Without the lock file's word it is asked for, and everything follows from what came.
    rig.forget();
    assert_eq!(rig.bench.text(&rig.bench.built(&text), "/f"), "two");
    rig.forget();
    let same = rig.bench.built(&text);
    assert_eq!((same.executed, rig.bench.text(&same, "/f").as_str()), (0, "two"));
    // The server was asked twice, but sent the content once.
    assert_eq!(rig.server.seen(), ["GET /files/f", "GET /files/f"]);
}

#[test]
fn only_an_entity_tag_says_that_a_file_is_the_same() {
    let Some(rig) = rig() else { return };
    for name in ["f", "f.tagged"] {
        let text = format!("FROM scratch\nADD {} /f\n", rig.server.url(&format!("files/{name}")));
        // A date may go back, or stay.
        for (content, seconds) in [("new", 2000), ("old", 1000), ("odd", 1000), ("odd", 1000)] {
            rig.serve(name, content, seconds);
            rig.forget();
            assert_eq!(rig.bench.text(&rig.bench.built(&text), "/f"), content, "{name}");
        }
    }
}

#[test]
fn checksums_are_kept_to() {
    let Some(rig) = rig() else { return };
    rig.serve("f", "web", 1000);
    let url = rig.server.url("files/f");
    let add = |digest: &str| format!("FROM scratch\nADD --checksum={digest} {url} /f\n");
    let right = Digest::of(b"web");
    assert_eq!(rig.bench.text(&rig.bench.built(&add(&right.to_string())), "/f"), "web");
    let mut long = Algorithm::Sha512.digester();
    long.update(b"web");
    let long = long.finish();
    assert_eq!(rig.bench.text(&rig.bench.built(&add(&long.to_string())), "/f"), "web");
    rig.server.seen();
    // A checksum says enough: what has it is known.
    assert_eq!(rig.bench.built(&add(&right.to_string())).executed, 0);
    assert_eq!(rig.server.seen(), [""; 0]);
    let wrong = Digest::of(b"other");
    let error = rig.bench.failure(&add(&wrong.to_string()));
    assert!(error.contains(&format!("its digest is {right}, not {wrong}")), "{error}");
    let error = rig.bench.failure(&add("sha256:12"));
    assert!(error.contains("`sha256:12` is no checksum"), "{error}");
    let error = rig.bench.failure(&format!("FROM scratch\nADD {}nothing /f\n", rig.server.url("files/")));
    assert!(error.contains("the server answered 404"), "{error}");
    rig.server.go_down();
    let error = rig.bench.failure(&format!("FROM scratch\nADD {}other /f\n", rig.server.url("files/")));
    assert!(error.contains("the server answered 503"), "{error}");
}

#[test]
fn secrets_are_for_their_host_alone() {
    let Some(mut rig) = rig() else { return };
    rig.serve("f", "secret", 1000);
    let host = format!("127.0.0.1:{}", rig.server.port);
    let text = format!("FROM scratch\nADD {} /f\n", rig.server.url("files/f"));
    rig.server.require("Bearer abc");
    let error = rig.bench.failure(&text);
    assert!(error.contains("the server answered 401"), "{error}");
    rig.bench.secrets.0.insert(format!("HTTP_AUTH_TOKEN_{host}"), "abc\n".into());
    assert_eq!(rig.bench.text(&rig.bench.built(&text), "/f"), "secret");
    assert!(!rig.bench.log().contains("abc"));
    rig.server.require("Basic eDp5");
    rig.bench.secrets.0.clear();
    rig.bench.secrets.0.insert(format!("HTTP_AUTH_HEADER_{host}"), "Basic eDp5".into());
    rig.forget();
    assert_eq!(rig.bench.text(&rig.bench.built(&text), "/f"), "secret");
    // Whoever is redirected to does not learn it.
    let other = rig.bench.folder.path().join("other");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("g"), "elsewhere").unwrap();
    let elsewhere = Server::new(&other);
    let url = rig.server.url(&format!("to/{}/files/g", elsewhere.port));
    rig.server.seen();
    assert_eq!(rig.bench.text(&rig.bench.built(&format!("FROM scratch\nADD {url} /g\n")), "/g"), "elsewhere");
    assert_eq!(rig.server.seen(), [format!("GET /to/{}/files/g as Basic eDp5", elsewhere.port)]);
    assert_eq!(elsewhere.seen(), ["GET /files/g"]);
}
