//! The server by raw HTTP: every route, its success and its refusals.

#[path = "../../ctk-client/tests/common/mod.rs"]
mod common;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use common::{ask, noise};
use ctk_distribution::ErrorBody;
use ctk_oci::{Descriptor, Digest, Document, Manifest, media_type};
use ctk_registry::{Access, ServeOptions, Server, Storage, serve};

fn start(directory: &tempfile::TempDir) -> Server {
    serve(ServeOptions::new("127.0.0.1:0".parse().unwrap(), directory.path())).unwrap()
}

/// Files that hold bytes, of uploads and blobs.
fn files(directory: &tempfile::TempDir) -> usize {
    let fans = std::fs::read_dir(directory.path().join("blobs")).unwrap();
    fans.map(|fan| std::fs::read_dir(fan.unwrap().path()).unwrap().count()).sum()
}

fn code(body: &[u8]) -> String {
    ErrorBody::parse(body).errors.first().map(|e| e.code.clone()).unwrap_or_default()
}

fn header(head: &str, name: &str) -> Option<String> {
    let line = head.lines().find(|line| line.starts_with(&format!("{name}: ")))?;
    Some(line[name.len() + 2..].trim().to_owned())
}

/// Uploads at once and gives the digest.
fn put(host: &str, repository: &str, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let (status, _, body) = ask(host, "POST", &format!("/v2/{repository}/blobs/uploads/?digest={digest}"), "", bytes);
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
    digest
}

fn manifest(config: &Digest, size: u64) -> Vec<u8> {
    let config = Descriptor::new(media_type::CONFIG, config.clone(), size);
    Document::new(Manifest::image(config, Vec::new())).bytes().to_vec()
}

const KIND: &str = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";

#[test]
fn versions_and_unknown_things() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let host = server.host();
    let (status, head, _) = ask(&host, "GET", "/v2/", "", b"");
    assert_eq!((status, header(&head, "docker-distribution-api-version").as_deref()), (200, Some("registry/2.0")));
    let unknown = Digest::of(b"unknown");
    for (method, path, expected, word) in [
        ("GET", "/".to_owned(), 404, "UNSUPPORTED"),
        ("GET", "/v2/A/tags/list".into(), 400, "NAME_INVALID"),
        ("GET", "/v2/a%2fb/tags/list".into(), 400, "NAME_INVALID"),
        ("GET", "/v2/../tags/list".into(), 400, "NAME_INVALID"),
        ("GET", "/v2/a/tags/list".into(), 404, "NAME_UNKNOWN"),
        ("GET", "/v2/_catalog?n=x".into(), 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "/v2/a/blobs/sha256:00".into(), 400, "DIGEST_INVALID"),
        ("GET", format!("/v2/a/blobs/{unknown}"), 404, "BLOB_UNKNOWN"),
        ("DELETE", format!("/v2/a/blobs/{unknown}"), 404, "BLOB_UNKNOWN"),
        ("GET", format!("/v2/a/manifests/{unknown}"), 404, "MANIFEST_UNKNOWN"),
        ("DELETE", "/v2/a/manifests/x".into(), 404, "MANIFEST_UNKNOWN"),
        ("PATCH", "/v2/a/blobs/uploads/abc".into(), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("GET", "/v2/a/blobs/uploads/abc".into(), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("POST", "/v2/a/tags/list".into(), 405, "UNSUPPORTED"),
    ] {
        let (status, _, body) = ask(&host, method, &path, "", b"");
        assert_eq!((status, code(&body).as_str()), (expected, word), "{method} {path}");
    }
    let (status, _, body) = ask(&host, "HEAD", &format!("/v2/a/blobs/{unknown}"), "", b"");
    assert_eq!((status, body.len()), (404, 0));
}

#[test]
fn blobs_and_ranges() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let host = server.host();
    let bytes = noise(1, 3_000_000);
    let digest = put(&host, "a/b", &bytes);
    let path = format!("/v2/a/b/blobs/{digest}");
    let (status, head, body) = ask(&host, "GET", &path, "", b"");
    assert_eq!((status, body == bytes), (200, true));
    assert_eq!(header(&head, "docker-content-digest"), Some(digest.to_string()));
    let (status, head, _) = ask(&host, "HEAD", &path, "", b"");
    assert_eq!((status, header(&head, "content-length").as_deref()), (200, Some("3000000")));
    let (status, head, body) = ask(&host, "GET", &path, "Range: bytes=1000000-1000009\r\n", b"");
    assert_eq!((status, &body[..]), (206, &bytes[1_000_000..1_000_010]));
    assert_eq!(header(&head, "content-range").as_deref(), Some("bytes 1000000-1000009/3000000"));
    let (_, _, body) = ask(&host, "GET", &path, "Range: bytes=-5\r\n", b"");
    assert_eq!(body, bytes[2_999_995..]);
    assert_eq!(ask(&host, "GET", &path, "Range: bytes=3000000-\r\n", b"").0, 416);
    assert_eq!(ask(&host, "GET", &path, &format!("If-None-Match: \"{digest}\"\r\n"), b"").0, 304);
    // Another repository does not hold it, until it is mounted.
    assert_eq!(ask(&host, "GET", &format!("/v2/c/blobs/{digest}"), "", b"").0, 404);
    let (status, ..) = ask(&host, "POST", &format!("/v2/c/blobs/uploads/?mount={digest}&from=a/b"), "", b"");
    assert_eq!(status, 201);
    assert_eq!(ask(&host, "GET", &format!("/v2/c/blobs/{digest}"), "", b"").0, 200);
    let (status, ..) = ask(&host, "POST", &format!("/v2/d/blobs/uploads/?mount={digest}&from=nobody"), "", b"");
    assert_eq!(status, 202);
    assert_eq!(ask(&host, "DELETE", &path, "", b"").0, 202);
    assert_eq!(ask(&host, "GET", &path, "", b"").0, 404);
    assert_eq!(ask(&host, "GET", &format!("/v2/c/blobs/{digest}"), "", b"").0, 200);
}

#[test]
fn chunks_and_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let host = server.host();
    let bytes = noise(2, 1_000_000);
    let digest = Digest::of(&bytes);
    let (status, head, _) = ask(&host, "POST", "/v2/a/blobs/uploads/", "", b"");
    assert_eq!((status, header(&head, "range").as_deref()), (202, Some("0-0")));
    let location = header(&head, "location").unwrap();
    assert_eq!(ask(&host, "PATCH", &location, "Content-Range: 10-19\r\n", &bytes[..10]).0, 416);
    let (status, head, _) = ask(&host, "PATCH", &location, "Content-Range: 0-599999\r\n", &bytes[..600_000]);
    assert_eq!((status, header(&head, "range").as_deref()), (202, Some("0-599999")));
    // Refused before it is read: few bytes, so that the answer is read before the writing fails.
    assert_eq!(ask(&host, "PATCH", &location, "Content-Range: 0-9\r\n", &bytes[..10]).0, 416);
    assert_eq!(ask(&host, "GET", &location, "", b"").0, 204);
    // A session is reached through its own repository only.
    assert_eq!(ask(&host, "GET", &location.replace("/v2/a/", "/v2/b/"), "", b"").0, 404);
    let (status, ..) = ask(
        &host,
        "PUT",
        &format!("{location}?digest={digest}"),
        "Content-Range: 600000-999999\r\n",
        &bytes[600_000..],
    );
    assert_eq!(status, 201);
    assert_eq!(ask(&host, "GET", &format!("/v2/a/blobs/{digest}"), "", b"").2, bytes);
    assert_eq!(ask(&host, "GET", &location, "", b"").0, 404);

    // Wrong bytes: refused, and nothing stays.
    let (_, head, _) = ask(&host, "POST", "/v2/a/blobs/uploads/", "", b"");
    let location = header(&head, "location").unwrap();
    let (status, _, body) = ask(&host, "PUT", &format!("{location}?digest={}", Digest::of(b"x")), "", b"y");
    assert_eq!((status, code(&body).as_str()), (400, "DIGEST_INVALID"));
    let (_, head, _) = ask(&host, "POST", "/v2/a/blobs/uploads/", "", b"");
    let location = header(&head, "location").unwrap();
    assert_eq!(ask(&host, "DELETE", &location, "", b"").0, 204);
    assert_eq!(files(&directory), 1);

    // sha512 is hashed from the file.
    let mut digester = ctk_oci::Algorithm::Sha512.digester();
    digester.update(&bytes);
    let long = digester.finish();
    let (_, head, _) = ask(&host, "POST", "/v2/a/blobs/uploads/", "", b"");
    let location = header(&head, "location").unwrap();
    assert_eq!(ask(&host, "PUT", &format!("{location}?digest={long}"), "", &bytes).0, 201);
    assert_eq!(ask(&host, "HEAD", &format!("/v2/a/blobs/{long}"), "", b"").0, 200);
}

#[test]
fn a_killed_upload_leaves_nothing_visible_and_can_go_on_in_another_process() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let host = server.host();
    let bytes = noise(3, 2_000_000);
    let digest = Digest::of(&bytes);
    let (_, head, _) = ask(&host, "POST", "/v2/a/blobs/uploads/", "", b"");
    let location = header(&head, "location").unwrap();
    let mut stream = TcpStream::connect(&host).unwrap();
    write!(stream, "PUT {location}?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n").unwrap();
    stream.write_all(&bytes[..1_200_000]).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    drop(stream);
    assert_eq!(ask(&host, "HEAD", &format!("/v2/a/blobs/{digest}"), "", b"").0, 404);
    let (status, head, _) = ask(&host, "GET", &location, "", b"");
    assert_eq!(status, 204);
    let range = header(&head, "range").unwrap();
    let held: usize = range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
    assert!((1..=1_200_000).contains(&held), "{range}");
    assert_eq!(ask(&host, "GET", "/v2/_catalog", "", b"").2, br#"{"repositories":[]}"#);

    // A second server on the same directory knows no hash of ours and reads the file again.
    let other = start(&directory);
    let from = format!("Content-Range: {held}-1999999\r\n");
    let (status, ..) = ask(&other.host(), "PUT", &format!("{location}?digest={digest}"), &from, &bytes[held..]);
    assert_eq!(status, 201);
    assert_eq!(ask(&host, "GET", &format!("/v2/a/blobs/{digest}"), "", b"").2, bytes);
    other.shutdown(Duration::from_secs(5));
    server.shutdown(Duration::from_secs(5));
    assert!(TcpStream::connect(&host).is_err());
}

#[test]
fn manifests_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let host = server.host();
    let config = put(&host, "a", b"{}");
    let good = manifest(&config, 2);
    let refuse = |path: &str, kind: &str, body: &[u8], status: u16, word: &str| {
        let (found, _, answer) = ask(&host, "PUT", path, kind, body);
        assert_eq!((found, code(&answer).as_str()), (status, word), "{}", String::from_utf8_lossy(body));
    };
    let text = String::from_utf8(good.clone()).unwrap();
    refuse("/v2/a/manifests/v1", KIND, b"nonsense", 400, "MANIFEST_INVALID");
    refuse(
        "/v2/a/manifests/v1",
        KIND,
        text.replace("image.manifest", "image.index").as_bytes(),
        400,
        "MANIFEST_INVALID",
    );
    refuse(
        "/v2/a/manifests/v1",
        KIND,
        text.replace("\"layers\"", "\"manifests\":[],\"layers\"").as_bytes(),
        400,
        "MANIFEST_INVALID",
    );
    refuse("/v2/a/manifests/v1", KIND, text.replace("\"size\":2", "\"size\":3").as_bytes(), 400, "MANIFEST_INVALID");
    refuse("/v2/b/manifests/v1", KIND, &good, 404, "MANIFEST_BLOB_UNKNOWN");
    refuse(&format!("/v2/a/manifests/{}", Digest::of(b"x")), KIND, &good, 400, "DIGEST_INVALID");
    refuse(
        "/v2/a/manifests/v1",
        "Content-Type: text/plain\r\n",
        text.replace("\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",", "").as_bytes(),
        400,
        "MANIFEST_INVALID",
    );
    refuse("/v2/a/manifests/v1", KIND, &vec![b' '; 5 << 20], 413, "SIZE_INVALID");
    assert_eq!(ask(&host, "GET", "/v2/a/tags/list", "", b"").0, 404);

    let (status, head, _) = ask(&host, "PUT", "/v2/a/manifests/v1", KIND, &good);
    let digest = Digest::of(&good);
    assert_eq!((status, header(&head, "docker-content-digest")), (201, Some(digest.to_string())));
    let (status, head, body) = ask(&host, "GET", "/v2/a/manifests/v1", "", b"");
    assert_eq!((status, body), (200, good.clone()));
    assert_eq!(header(&head, "content-type").as_deref(), Some(media_type::MANIFEST));
    let storage = Storage::open(directory.path()).unwrap();
    assert_eq!(storage.tag("a", "v1").unwrap().unwrap().digest, digest);
    assert_eq!(storage.tag("a", "v2").unwrap(), None);

    for tag in ["v2", "v3", "w"] {
        assert_eq!(ask(&host, "PUT", &format!("/v2/a/manifests/{tag}"), KIND, &good).0, 201);
    }
    let (_, head, body) = ask(&host, "GET", "/v2/a/tags/list?n=2", "", b"");
    assert_eq!(body, br#"{"name":"a","tags":["v1","v2"]}"#);
    assert_eq!(header(&head, "link").as_deref(), Some("</v2/a/tags/list?n=2&last=v2>; rel=\"next\""));
    let (_, head, body) = ask(&host, "GET", "/v2/a/tags/list?n=2&last=v2", "", b"");
    assert_eq!((body, header(&head, "link")), (br#"{"name":"a","tags":["v3","w"]}"#.to_vec(), None));
    assert_eq!(ask(&host, "GET", "/v2/a/tags/list?n=0", "", b"").2, br#"{"name":"a","tags":[]}"#);
    assert_eq!(ask(&host, "GET", "/v2/_catalog", "", b"").2, br#"{"repositories":["a"]}"#);
    assert_eq!(ask(&host, "DELETE", "/v2/a/manifests/w", "", b"").0, 202);
    assert_eq!(ask(&host, "GET", "/v2/a/manifests/v3", "", b"").0, 200);
    assert_eq!(ask(&host, "DELETE", &format!("/v2/a/manifests/{digest}"), "", b"").0, 202);
    assert_eq!(ask(&host, "GET", "/v2/a/manifests/v3", "", b"").0, 404);
    assert_eq!(ask(&host, "GET", "/v2/a/tags/list", "", b"").2, br#"{"name":"a","tags":[]}"#);
}

#[test]
fn referrers_are_listed() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let host = server.host();
    let config = put(&host, "a", b"{}");
    let subject = manifest(&config, 2);
    assert_eq!(ask(&host, "PUT", "/v2/a/manifests/v1", KIND, &subject).0, 201);
    let subject = Descriptor::of(media_type::MANIFEST, &subject);
    let mut referrer: Manifest = serde_json::from_slice(&manifest(&config, 2)).unwrap();
    referrer.subject = Some(subject.clone());
    referrer.artifact_type = Some("application/vnd.example.sbom+json".into());
    referrer.annotations.insert("k".into(), "v".into());
    let bytes = Document::new(referrer).bytes().to_vec();
    let digest = Digest::of(&bytes);
    let (status, head, _) = ask(&host, "PUT", &format!("/v2/a/manifests/{digest}"), KIND, &bytes);
    assert_eq!((status, header(&head, "oci-subject")), (201, Some(subject.digest.to_string())));
    let list = format!("/v2/a/referrers/{}", subject.digest);
    let (status, head, body) = ask(&host, "GET", &list, "", b"");
    assert_eq!((status, header(&head, "content-type").as_deref()), (200, Some(media_type::INDEX)));
    let index: ctk_oci::Index = serde_json::from_slice(&body).unwrap();
    assert_eq!(index.manifests.len(), 1);
    assert_eq!(index.manifests[0].digest, digest);
    assert_eq!(index.manifests[0].annotations["k"], "v");
    assert_eq!(index.manifests[0].artifact_type.as_deref(), Some("application/vnd.example.sbom+json"));
    let (_, head, body) = ask(&host, "GET", &format!("{list}?artifactType=other"), "", b"");
    assert!(serde_json::from_slice::<ctk_oci::Index>(&body).unwrap().manifests.is_empty());
    assert_eq!(header(&head, "oci-filters-applied").as_deref(), Some("artifacttype"));
    let nothing = format!("/v2/a/referrers/{}", Digest::of(b"nothing"));
    assert_eq!(ask(&host, "GET", &nothing, "", b"").0, 200);
    assert_eq!(ask(&host, "DELETE", &format!("/v2/a/manifests/{digest}"), "", b"").0, 202);
    let (_, _, body) = ask(&host, "GET", &list, "", b"");
    assert!(serde_json::from_slice::<ctk_oci::Index>(&body).unwrap().manifests.is_empty());
}

#[test]
fn limits_deletion_and_passwords() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = ServeOptions::new("127.0.0.1:0".parse().unwrap(), directory.path().join("data"));
    options.blob_limit_bytes = 1000;
    options.delete = false;
    let server = serve(options.clone()).unwrap();
    let host = server.host();
    let (status, _, body) =
        ask(&host, "POST", &format!("/v2/a/blobs/uploads/?digest={}", Digest::of(b"")), "", &[0; 1001]);
    assert_eq!((status, code(&body).as_str()), (413, "SIZE_INVALID"));
    let (status, _, body) = ask(&host, "DELETE", "/v2/a/manifests/v1", "", b"");
    assert_eq!((status, code(&body).as_str()), (405, "UNSUPPORTED"));

    let passwords = directory.path().join("bad");
    std::fs::write(&passwords, "me:plain").unwrap();
    options.access = Access::Htpasswd(passwords);
    let error = serve(options.clone()).unwrap_err().to_string();
    assert!(error.contains("line 1") && !error.contains("plain"), "{error}");
    if !common::has("htpasswd") {
        return;
    }
    options.access = Access::Htpasswd(common::htpasswd(directory.path(), "me", "secret"));
    let server = serve(options).unwrap();
    let host = server.host();
    let (status, head, body) = ask(&host, "GET", "/v2/", "", b"");
    assert_eq!((status, code(&body).as_str()), (401, "UNAUTHORIZED"));
    assert_eq!(header(&head, "www-authenticate").as_deref(), Some("basic realm=\"ctk registry\""));
    // me:secret, twice, then me:wrong, then you:secret
    for (value, expected) in
        [("bWU6c2VjcmV0", 200), ("bWU6c2VjcmV0", 200), ("bWU6d3Jvbmc=", 401), ("eW91OnNlY3JldA==", 401), ("??", 401)]
    {
        assert_eq!(ask(&host, "GET", "/v2/", &format!("Authorization: Basic {value}\r\n"), b"").0, expected);
    }
}

#[test]
fn sweeping_takes_only_what_is_stale() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let host = server.host();
    let (life, storage) = (Duration::from_secs(60), Storage::open(directory.path()).unwrap());
    let kept = put(&host, "a", b"kept");
    let gone = put(&host, "a", b"gone");
    assert_eq!(ask(&host, "DELETE", &format!("/v2/a/blobs/{gone}"), "", b"").0, 202);
    let (_, head, _) = ask(&host, "POST", "/v2/a/blobs/uploads/", "", b"");
    let location = header(&head, "location").unwrap();
    let named = put(&host, "a", b"{}");
    assert_eq!(ask(&host, "PUT", "/v2/a/manifests/v1", KIND, &manifest(&named, 2)).0, 201);
    let found = storage.sweep(SystemTime::now(), life, life).unwrap();
    assert_eq!((found.uploads, found.blobs), (0, 0));
    assert_eq!(ask(&host, "GET", &format!("/v2/a/blobs/{kept}"), "", b"").2, b"kept");
    let found = storage.sweep(SystemTime::now() + 2 * life, life, life).unwrap();
    assert_eq!((found.uploads, found.blobs), (1, 1));
    assert_eq!(ask(&host, "GET", &location, "", b"").0, 404);
    assert_eq!(ask(&host, "GET", &format!("/v2/a/blobs/{kept}"), "", b"").0, 404);
    assert_eq!(ask(&host, "GET", &format!("/v2/a/blobs/{named}"), "", b"").2, b"{}");
    storage.empty_trash().unwrap();
    let checked = storage.check(true).unwrap();
    assert_eq!((checked.blobs, checked.faults), (1, Vec::new()));
    assert_eq!(files(&directory), 1);
}

#[test]
fn lost_and_damaged_content_is_told_and_mended_by_pushing_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let host = server.host();
    let (lost, cut, spoiled) = (put(&host, "a", b"lost"), put(&host, "a", b"cut off"), put(&host, "a", b"spoiled"));
    put(&host, "b", b"lost");
    for fan in std::fs::read_dir(directory.path().join("blobs")).unwrap() {
        for file in std::fs::read_dir(fan.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            match std::fs::read(&path).unwrap().as_slice() {
                b"lost" => std::fs::remove_file(&path).unwrap(),
                b"cut off" => std::fs::write(&path, "cut").unwrap(),
                b"spoiled" => std::fs::write(&path, "SPOILED").unwrap(),
                _ => continue,
            }
        }
    }
    std::fs::write(directory.path().join("blobs/stray"), "no place, no folder").unwrap();
    let faults = server.storage().check(true).unwrap().faults;
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    for (digest, word) in [(&lost, "no bytes"), (&cut, "3 bytes"), (&spoiled, "delete it")] {
        let digest = digest.to_string();
        assert!(told.iter().any(|line| line.contains(&digest) && line.contains(word)), "{told:#?}");
    }
    for digest in [&lost, &cut] {
        assert_eq!(ask(&host, "HEAD", &format!("/v2/a/blobs/{digest}"), "", b"").0, 404);
    }
    assert_eq!(ask(&host, "GET", &format!("/v2/a/blobs/{lost}"), "", b"").0, 404);
    put(&host, "b", b"lost");
    put(&host, "a", b"cut off");
    assert_eq!(ask(&host, "GET", &format!("/v2/a/blobs/{lost}"), "", b"").2, b"lost");
    assert_eq!(ask(&host, "GET", &format!("/v2/a/blobs/{cut}"), "", b"").2, b"cut off");
    assert_eq!(ask(&host, "DELETE", &format!("/v2/a/blobs/{spoiled}"), "", b"").0, 202);
    put(&host, "a", b"spoiled");
    assert_eq!(server.storage().check(true).unwrap().faults, []);
}

#[test]
fn imports_without_http() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(&directory);
    let storage = server.storage();
    let file = directory.path().join("config");
    std::fs::write(&file, "{}").unwrap();
    let config = Descriptor::of(media_type::CONFIG, b"{}");
    storage.import_blob("team/app", &file, &config).unwrap();
    storage.import_blob("team/app", &file, &config).unwrap();
    let bytes = manifest(&config.digest, 2);
    let (descriptor, _) = storage.put_manifest("team/app", media_type::MANIFEST, &bytes, None, Some("v1")).unwrap();
    assert_eq!(storage.tag("team/app", "v1").unwrap(), Some(descriptor));
    assert_eq!(ask(&server.host(), "GET", "/v2/team/app/manifests/v1", "", b"").2, bytes);
    let wrong = Descriptor::new(media_type::CONFIG, Digest::of(b"other"), 5);
    assert!(storage.import_blob("team/app", &file, &wrong).is_err());
    assert!(storage.import_blob("../x", &file, &config).is_err());
}
