//! What an operator relies on: rights, rules of tags, quotas, the audit log, TLS, readiness.

#[path = "../../ctk-client/tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{ask, has};
use ctk_distribution::ErrorBody;
use ctk_oci::{Descriptor, Digest, Document, Manifest, media_type};
use ctk_registry::{Access, InRepositories, Retention, ServeOptions, TlsFiles, add_password, serve};

const KIND: &str = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";

fn options(directory: &Path) -> ServeOptions {
    ServeOptions::new("127.0.0.1:0".parse().unwrap(), directory.join("data"))
}

fn basic(user: &str) -> String {
    use base64::Engine as _;
    let text = base64::prelude::BASE64_STANDARD.encode(format!("{user}:secret of {user}"));
    format!("Authorization: Basic {text}\r\n")
}

fn code(body: &[u8]) -> String {
    ErrorBody::parse(body).errors.first().map(|e| e.code.clone()).unwrap_or_default()
}

/// Pushes a manifest whose config is `text`; gives the status and the code.
fn push(host: &str, repository: &str, tag: &str, text: &str, who: &str) -> (u16, String) {
    let config = Descriptor::of(media_type::CONFIG, text.as_bytes());
    let path = format!("/v2/{repository}/blobs/uploads/?digest={}", config.digest);
    let (status, _, body) = ask(host, "POST", &path, who, text.as_bytes());
    if status != 201 {
        return (status, code(&body));
    }
    let bytes = Document::new(Manifest::image(config, Vec::new())).bytes().to_vec();
    let (status, _, body) =
        ask(host, "PUT", &format!("/v2/{repository}/manifests/{tag}"), &format!("{KIND}{who}"), &bytes);
    (status, code(&body))
}

#[test]
fn everybody_may_what_the_grants_say() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    for user in ["ci", "root", "me"] {
        add_password(&users, user, &format!("secret of {user}")).unwrap();
    }
    let mut options = options(directory.path());
    options.access = Access::Htpasswd(users);
    let audit = directory.path().join("audit.jsonl");
    options.audit = Some(audit.clone());
    let grants =
        ["anyone=reader@public/**", "user:ci=creator@team/**", "user:root=admin@**", "user:me=writer@public/mine"];
    let grants = grants.iter().map(|text| text.parse().unwrap()).collect();
    options.rights = Some(ctk_registry::Rights { grants });
    let server = serve(options).unwrap();
    let host = server.host();
    let (ci, root, me) = (basic("ci"), basic("root"), basic("me"));

    let created = || (201, String::new());
    assert_eq!(push(&host, "team/app", "v1", "1", &ci), created());
    assert_eq!(push(&host, "team/app", "v2", "1", &ci), created());
    assert_eq!(push(&host, "team/app", "v1", "1", &ci), created(), "the same again is no change");
    // CVE-2026-31801: who may only create does not overwrite.
    assert_eq!(push(&host, "team/app", "v1", "2", &ci), (403, "DENIED".into()));
    assert_eq!(push(&host, "public/x", "v1", "1", &ci), (403, "DENIED".into()));
    assert_eq!(push(&host, "public/x", "v1", "1", ""), (401, "UNAUTHORIZED".into()));
    assert_eq!(push(&host, "team/app", "v1", "2", &root), created());
    assert_eq!(push(&host, "public/mine", "v1", "1", &me), created());
    assert_eq!(push(&host, "public/mine", "v1", "2", &me), created());

    let get = |path: &str, who: &str| ask(&host, "GET", path, who, b"").0;
    assert_eq!(get("/v2/", ""), 401, "clients learn here how to say who they are");
    assert_eq!(get("/v2/", &me), 200);
    assert_eq!(get("/v2/public/mine/manifests/v1", ""), 200);
    assert_eq!(get("/v2/team/app/manifests/v1", ""), 401);
    assert_eq!(get("/v2/team/app/manifests/v1", &me), 403);
    assert_eq!(get("/v2/team/app/manifests/v1", &ci), 200);
    assert_eq!(get("/v2/public/mine/manifests/v1", &basic("nobody")), 401, "a wrong name is not anonymous");
    assert_eq!(get("/v2/A/tags/list", ""), 401, "what is malformed is told to users only");
    for (method, path) in [("DELETE", "/v2/team/app/manifests/v1"), ("DELETE", "/v2/public/mine/manifests/v1")] {
        assert_eq!(ask(&host, method, path, &ci, b"").0, 403, "{method} {path}");
    }
    // Everybody sees in the catalogue what they may read.
    let catalogue = |who: &str| String::from_utf8(ask(&host, "GET", "/v2/_catalog", who, b"").2).unwrap();
    assert_eq!(catalogue(&ci), r#"{"repositories":["public/mine","team/app"]}"#);
    assert_eq!(catalogue(&me), r#"{"repositories":["public/mine"]}"#);

    // CVE-2024-39897: the source of a mount is asked for, too, also when it is not named.
    let secret = Digest::of(b"1");
    let mount = |query: &str, who: &str| {
        ask(&host, "POST", &format!("/v2/public/mine/blobs/uploads/?mount={secret}{query}"), who, b"").0
    };
    assert_eq!(ask(&host, "DELETE", &format!("/v2/public/mine/blobs/{secret}"), &root, b"").0, 202);
    assert_eq!(mount("&from=team/app", &me), 202);
    assert_eq!(mount("", &me), 202);
    assert_eq!(mount("", &root), 201);

    let log = std::fs::read_to_string(audit).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let has = |who: &str, action: &str, path: &str, status: u16| {
        lines.iter().any(|l| l["who"] == who && l["action"] == action && l["path"] == path && l["status"] == status)
    };
    assert!(has("ci", "push", "/v2/team/app/manifests/v1", 201), "{log}");
    assert!(has("ci", "push", "/v2/team/app/manifests/v1", 403), "{log}");
    assert!(has("anonymous", "pull", "/v2/team/app/manifests/v1", 401), "{log}");
    assert!(has("root", "delete", &format!("/v2/public/mine/blobs/{secret}"), 202), "{log}");
    assert!(!lines.iter().any(|line| line["status"] == 200), "reading is not written down: {log}");
    let password = basic("ci");
    assert!(!log.contains("secret of") && !log.contains(password.split(' ').nth(2).unwrap().trim()), "{log}");
}

#[test]
fn immutable_tags_quotas_and_retention() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    let within = |text: &str| text.parse().unwrap();
    options.immutable = vec![InRepositories { repositories: within("**"), value: within("v*") }];
    options.quotas = vec![InRepositories { repositories: within("small/*"), value: 1000 }];
    let server = serve(options).unwrap();
    let host = server.host();
    assert_eq!(push(&host, "app", "v1", "1", "").0, 201);
    assert_eq!(push(&host, "app", "v1", "1", "").0, 201);
    assert_eq!(push(&host, "app", "v1", "2", ""), (403, "DENIED".into()));
    assert_eq!(push(&host, "app", "latest", "1", "").0, 201);
    assert_eq!(push(&host, "app", "latest", "2", "").0, 201);
    assert_eq!(ask(&host, "DELETE", "/v2/app/manifests/v1", "", b"").0, 403);
    let digest = server.storage().tag("app", "v1").unwrap().unwrap().digest;
    assert_eq!(ask(&host, "DELETE", &format!("/v2/app/manifests/{digest}"), "", b"").0, 403);
    assert_eq!(ask(&host, "DELETE", "/v2/app/manifests/latest", "", b"").0, 202);

    assert_eq!(push(&host, "small/app", "a", &"x".repeat(600), "").0, 201);
    assert_eq!(push(&host, "small/app", "b", &"y".repeat(600), ""), (403, "DENIED".into()));
    assert_eq!(server.storage().tag("small/app", "b").unwrap(), None);

    let keep = Retention { patterns: vec![within("v*")], untagged_after: Some(0), ..Retention::default() };
    assert_eq!(push(&host, "app", "x", "3", "").0, 201);
    let later = std::time::SystemTime::now() + Duration::from_secs(10);
    let which = |name: &str| (name == "app").then(|| keep.clone());
    let told = server.storage().retain(later, &which, true).unwrap();
    assert!(server.storage().tag("app", "x").unwrap().is_some(), "a dry run");
    assert_eq!(server.storage().retain(later, &which, false).unwrap(), told);
    assert_eq!(server.storage().tags("app").unwrap().unwrap(), ["v1"]);
    assert_eq!(server.storage().tags("small/app").unwrap().unwrap(), ["a"]);
}

#[test]
fn it_is_ready_until_it_is_told_to_stop() {
    let directory = tempfile::tempdir().unwrap();
    let server = serve(options(directory.path())).unwrap();
    let host = server.host();
    let get = |path: &str| ask(&host, "GET", path, "", b"").0;
    assert_eq!((get("/livez"), get("/readyz")), (200, 200));
    server.drain();
    assert_eq!((get("/livez"), get("/readyz"), get("/v2/")), (200, 503, 200));
    server.shutdown(Duration::from_secs(5));
}

#[test]
fn numbers_and_logs_tell_what_happened() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    let users = directory.path().join("users");
    add_password(&users, "ci", "secret of ci").unwrap();
    options.access = Access::Htpasswd(users);
    options.metrics = Some("127.0.0.1:0".parse().unwrap());
    let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = lines.clone();
    options.log = Some(ctk_registry::Log(std::sync::Arc::new(move |line| {
        kept.lock().unwrap().push(format!("{line}\n{}", serde_json::to_string(line).unwrap()));
    })));
    let server = serve(options).unwrap();
    let host = server.host();
    assert_eq!(push(&host, "app", "v1", "12345", &basic("ci")), (201, String::new()));
    assert_eq!(push(&host, "app", "v1", "12345", &basic("nobody")).0, 401);
    assert_eq!(ask(&host, "GET", "/v2/app/manifests/v1", &basic("ci"), b"").0, 200);
    assert_eq!(ask(&host, "POST", "/v2/app/blobs/uploads/?secret=hidden", &basic("ci"), b"").0, 202);
    assert_eq!(ask(&host, "GET", "/metrics", &basic("ci"), b"").0, 404, "not where everybody is");
    let metrics = server.metrics_addr().unwrap().to_string();
    assert_eq!(ask(&metrics, "GET", "/readyz", "", b"").0, 200);
    assert_eq!(ask(&metrics, "GET", "/v2/", "", b"").0, 404);
    let (status, head, body) = ask(&metrics, "GET", "/metrics", "", b"");
    assert!(status == 200 && head.contains("text/plain; version=0.0.4"), "{head}");
    let text = String::from_utf8(body).unwrap();
    let labels = |method: &str, route: &str, status: u16| {
        format!("ctk_registry_request_seconds_count{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}} 1\n")
    };
    for line in [labels("PUT", "manifest", 201), labels("GET", "manifest", 200), labels("POST", "uploads", 401)] {
        assert!(text.contains(&line), "{line} in {text}");
    }
    for line in ["blobs 1", "blob_bytes 5", "manifests 1", "tags 1", "uploads_open 1", "requests_active 0", "up 1"] {
        assert!(text.contains(&format!("ctk_registry_{line}\n")), "{line} in {text}");
    }
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("ctk_registry_{name} "))).unwrap();
        line.parse::<u64>().unwrap()
    };
    assert!(number("received_bytes_total") > 5 && number("sent_bytes_total") > 100, "{text}");
    let lines = lines.lock().unwrap().join("\n");
    assert!(lines.contains(" ci PUT /v2/app/manifests/v1 201 ") && lines.contains("\"status\":401"), "{lines}");
    // CVE-2025-48374: no log holds a secret.
    for secret in ["secret", "hidden", &basic("ci")[21..]] {
        assert!(!lines.contains(secret) && !text.contains(secret), "{secret} in {lines}");
    }
}

#[test]
fn what_is_under_way_ends_before_the_server_does() {
    use std::io::{Read, Write};
    let directory = tempfile::tempdir().unwrap();
    let server = serve(options(directory.path())).unwrap();
    let storage = server.storage().clone();
    let address = server.local_addr();
    let digest = Digest::of(b"0123456789");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let head = format!("POST /v2/app/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(b"01234").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let stopping = std::thread::spawn(move || server.shutdown(Duration::from_secs(20)));
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "it goes on to accept");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!stopping.is_finished(), "a request is under way");
    stream.write_all(b"56789").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    stopping.join().unwrap();
    assert_eq!(storage.blob_size("app", &digest).unwrap(), Some(10));
}

/// A certificate of its own for localhost, as `NAME.crt` and `NAME.key`.
fn certificate(directory: &Path, name: &str) -> TlsFiles {
    let files =
        TlsFiles { certificate: directory.join(format!("{name}.crt")), key: directory.join(format!("{name}.key")) };
    let config = directory.join(format!("{name}.cnf"));
    let text = "[req]\ndistinguished_name = n\nx509_extensions = e\nprompt = no\n[n]\nCN = localhost\n\
                [e]\nbasicConstraints = critical,CA:FALSE\nsubjectAltName = DNS:localhost,IP:127.0.0.1\n";
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    command.arg("-config").arg(config).arg("-keyout").arg(&files.key).arg("-out").arg(&files.certificate);
    common::run(&mut command);
    files
}

#[test]
fn certificates_are_read_again_when_they_change() {
    if !has("openssl") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (certificate(directory.path(), "first"), certificate(directory.path(), "second"));
    let served =
        TlsFiles { certificate: directory.path().join("served.crt"), key: directory.path().join("served.key") };
    let serve_with = |files: &TlsFiles| {
        std::fs::copy(&files.key, &served.key).unwrap();
        std::fs::copy(&files.certificate, &served.certificate).unwrap();
    };
    serve_with(&first);
    let mut options = options(directory.path());
    options.tls = Some(served.clone());
    let server = serve(options.clone()).unwrap();
    let url = format!("https://{}/v2/", server.local_addr());
    let trusting = |files: &TlsFiles| {
        let options = ctk_http::Options { authorities: vec![files.certificate.clone()], ..Default::default() };
        let client = ctk_http::client(&options).unwrap();
        ctk_http::runtime().block_on(async { client.get(&url).send().await.map(|answer| answer.status().as_u16()) })
    };
    assert_eq!(trusting(&first).unwrap(), 200);
    assert!(trusting(&second).is_err());
    // Half of it: the old one stays.
    std::fs::write(&served.key, "nonsense").unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(trusting(&first).unwrap(), 200);
    serve_with(&second);
    let deadline = Instant::now() + Duration::from_secs(20);
    while trusting(&second).is_err() {
        assert!(Instant::now() < deadline, "the second certificate is never served");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(trusting(&first).is_err());
    server.shutdown(Duration::from_secs(5));
    std::fs::write(&served.certificate, "nonsense").unwrap();
    let error = serve(options).unwrap_err().to_string();
    assert!(error.contains("served.crt"), "{error}");
}
