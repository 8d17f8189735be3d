//! What went wrong in other registries, each once, by its name. Those of the token server are in `tokens.rs` and
//! `gate/tokens.rs`.

#[path = "../../ctk-client/tests/common/mod.rs"]
mod common;

use common::ask;
use ctk_oci::{Descriptor, Digest, Document, Manifest, media_type};
use ctk_registry::{Access, Rights, ServeOptions, Server, add_password, serve};

const KIND: &str = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";

fn start(directory: &tempfile::TempDir, change: impl FnOnce(&mut ServeOptions)) -> Server {
    let mut options = ServeOptions::new("127.0.0.1:0".parse().unwrap(), directory.path().join("data"));
    change(&mut options);
    serve(options).unwrap()
}

fn basic(user: &str) -> String {
    use base64::Engine as _;
    let text = base64::prelude::BASE64_STANDARD.encode(format!("{user}:secret"));
    format!("Authorization: Basic {text}\r\n")
}

fn users(directory: &tempfile::TempDir, names: &[&str]) -> Access {
    let path = directory.path().join("users");
    for name in names {
        add_password(&path, name, "secret").unwrap();
    }
    Access::Htpasswd(path)
}

fn rights(grants: &[&str]) -> Option<Rights> {
    Some(Rights { grants: grants.iter().map(|text| text.parse().unwrap()).collect() })
}

fn blob(host: &str, repository: &str, bytes: &[u8], who: &str) -> Digest {
    let digest = Digest::of(bytes);
    let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    assert_eq!(ask(host, "POST", &path, who, bytes).0, 201);
    digest
}

fn tag(host: &str, repository: &str, tag: &str, text: &str, who: &str) -> u16 {
    blob(host, repository, text.as_bytes(), who);
    let manifest = Document::new(Manifest::image(Descriptor::of(media_type::CONFIG, text.as_bytes()), Vec::new()));
    let path = format!("/v2/{repository}/manifests/{tag}");
    ask(host, "PUT", &path, &format!("{KIND}{who}"), manifest.bytes()).0
}

#[test]
fn cve_2017_11468_a_manifest_has_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory, |_| ());
    let (status, ..) = ask(&server.host(), "PUT", "/v2/a/manifests/1", KIND, &vec![b' '; 4 * 1024 * 1024 + 1]);
    assert_eq!(status, 413);
}

#[test]
fn cve_2023_2253_a_page_is_not_as_long_as_asked() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory, |_| ());
    for n in ["1000000000", "18446744073709551616", "99999999999999999999999999"] {
        assert_eq!(ask(&server.host(), "GET", &format!("/v2/_catalog?n={n}"), "", b"").0, 200);
    }
    assert_eq!(ask(&server.host(), "GET", "/v2/_catalog?n=-1", "", b"").0, 400);
}

#[test]
fn cve_2026_35172_what_is_deleted_is_read_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory, |_| ());
    let host = server.host();
    let digest = blob(&host, "a", b"content", "");
    blob(&host, "b", b"content", "");
    assert_eq!(ask(&host, "GET", &format!("/v2/a/blobs/{digest}"), "", b"").0, 200);
    assert_eq!(ask(&host, "DELETE", &format!("/v2/a/blobs/{digest}"), "", b"").0, 202);
    for method in ["GET", "HEAD"] {
        assert_eq!(ask(&host, method, &format!("/v2/a/blobs/{digest}"), "", b"").0, 404);
    }
    assert_eq!(ask(&host, "GET", &format!("/v2/b/blobs/{digest}"), "", b"").0, 200, "the other holds it still");
}

#[test]
fn cve_2026_41888_no_deletion_where_there_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory, |options| options.delete = false);
    let host = server.host();
    assert_eq!(tag(&host, "a", "v1", "{}", ""), 201);
    let digest = server.storage().tag("a", "v1").unwrap().unwrap().digest;
    let config = Digest::of(b"{}");
    for path in ["manifests/v1".to_owned(), format!("manifests/{digest}"), format!("blobs/{config}")] {
        assert_eq!(ask(&host, "DELETE", &format!("/v2/a/{path}"), "", b"").0, 405, "{path}");
    }
    assert!(server.storage().tag("a", "v1").unwrap().is_some());
}

#[test]
fn cve_2026_31801_who_may_create_does_not_overwrite() {
    let directory = tempfile::tempdir().unwrap();
    let access = users(&directory, &["ci"]);
    let server = start(&directory, |options| {
        options.access = access;
        options.rights = rights(&["user:ci=creator@**"]);
    });
    let host = server.host();
    assert_eq!(tag(&host, "a", "latest", "1", &basic("ci")), 201);
    assert_eq!(tag(&host, "a", "latest", "2", &basic("ci")), 403);
    // By digest with a tag in the query, too.
    let manifest = Document::new(Manifest::image(Descriptor::of(media_type::CONFIG, b"2"), Vec::new()));
    let path = format!("/v2/a/manifests/{}?tag=new&tag=latest", Digest::of(manifest.bytes()));
    assert_eq!(ask(&host, "PUT", &path, &format!("{KIND}{}", basic("ci")), manifest.bytes()).0, 403);
    assert_eq!(server.storage().tags("a").unwrap().unwrap(), ["latest"]);
}

#[test]
fn cve_2020_29662_the_catalogue_has_one_path_and_one_door() {
    let directory = tempfile::tempdir().unwrap();
    let access = users(&directory, &["ci"]);
    let server = start(&directory, |options| {
        options.access = access;
        options.rights = rights(&["user:ci=writer@mine/**"]);
    });
    let host = server.host();
    assert_eq!(tag(&host, "mine/a", "1", "{}", &basic("ci")), 201);
    for path in [
        "/v2/_catalog",
        "/v2/_catalog/",
        "//v2/_catalog",
        "/v2//_catalog",
        "/v2/%5fcatalog",
        "/V2/_catalog",
        "/v2/./_catalog",
    ] {
        let (status, _, body) = ask(&host, "GET", path, "", b"");
        assert_eq!(status, 401, "{path}");
        assert!(!String::from_utf8_lossy(&body).contains("mine"), "{path}");
    }
}

#[test]
fn cve_2025_23208_rights_that_were_taken_away_are_gone() {
    let directory = tempfile::tempdir().unwrap();
    let access = users(&directory, &["ci", "other"]);
    let before = start(&directory, |options| {
        options.access = access.clone();
        options.rights = rights(&["user:ci=admin@**"]);
    });
    assert_eq!(tag(&before.host(), "a", "1", "1", &basic("ci")), 201);
    drop(before);
    let after = start(&directory, |options| {
        options.access = access;
        options.rights = rights(&["user:ci=reader@**"]);
    });
    assert_eq!(ask(&after.host(), "POST", "/v2/a/blobs/uploads/", &basic("ci"), b"").0, 403);
}

#[test]
fn cve_2026_4404_nobody_is_there_from_the_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    std::fs::write(&path, "").unwrap();
    let mut options = ServeOptions::new("127.0.0.1:0".parse().unwrap(), directory.path().join("data"));
    options.access = Access::Htpasswd(path);
    assert!(serve(options).unwrap_err().to_string().contains("names no user"));
}

#[test]
fn ghsa_qq97_vm5h_rrhg_a_manifest_is_one_thing() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory, |_| ());
    let host = server.host();
    let digest = blob(&host, "a", b"{}", "");
    let descriptor = format!(r#"{{"mediaType":"x/y","digest":"{digest}","size":2}}"#);
    let both = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[],"manifests":[]}}"#);
    for kind in [media_type::MANIFEST, media_type::INDEX, media_type::DOCKER_MANIFEST] {
        let kind = format!("Content-Type: {kind}\r\n");
        assert_eq!(ask(&host, "PUT", "/v2/a/manifests/1", &kind, both.as_bytes()).0, 400);
    }
    let other = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::INDEX);
    assert_eq!(ask(&host, "PUT", "/v2/a/manifests/1", KIND, other.as_bytes()).0, 400);
}
