//! The client against a real registry behind a proxy that cuts, delays, answers errors and spoils bytes.

mod common;

use std::time::{Duration, Instant};

use common::*;
use ctk_client::{Client, ClientError, ClientOptions, CopyOptions, PushOptions, Retry};
use ctk_oci::{Descriptor, Manifest};
use ctk_plan::Cancel;
use ctk_store::{Depth, Store};

struct Bench {
    registry: DockerRegistry,
    proxy: Proxy,
    root: Descriptor,
    source: Store,
    _directory: tempfile::TempDir,
}

/// A registry with `app:1` (one layer of 1 MB) behind a proxy.
fn bench(seed: u64) -> Option<Bench> {
    if !has("docker-registry") {
        return None;
    }
    let registry = DockerRegistry::start("");
    let proxy = Proxy::before(&registry.host);
    let (directory, source) = store();
    let root = image(&source, "amd64", seed, 1, 1_000_000);
    client().push(&registry.reference("app:1"), &root, &source, &PushOptions::default(), None, &never()).unwrap();
    Some(Bench { registry, proxy, root, source, _directory: directory })
}

impl Bench {
    fn layer(&self) -> Descriptor {
        let manifest: Manifest = self.source.document("manifest", &self.root).unwrap().into_value();
        manifest.layers[0].clone()
    }

    fn pull(&self, into: &Store) -> Result<Descriptor, ClientError> {
        client().pull(&self.proxy.reference("app:1"), None, Depth::Layers, into, None, &never())
    }
}

const BUSY: &str = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const BROKEN: &str = "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let Some(bench) = bench(11) else { return };
    let layer = bench.layer();
    let get: &'static str = format!("GET /v2/app/blobs/{}", layer.digest).leak();
    bench.proxy.order(get, 2, Fault::CutAnswer(400_000));
    let (_d, into) = store();
    bench.pull(&into).unwrap();
    assert!(into.contains(&layer.digest).unwrap());
    let asked = bench.proxy.seen(get);
    assert_eq!(asked.len(), 3);
    let ranges: Vec<bool> = asked.iter().map(|head| head.to_lowercase().contains("range: bytes=")).collect();
    assert_eq!(ranges, [false, true, true]);
    assert!(!asked[1].to_lowercase().contains("range: bytes=0-"));
}

#[test]
fn another_process_goes_on_too() {
    let Some(bench) = bench(12) else { return };
    let layer = bench.layer();
    let get: &'static str = format!("GET /v2/app/blobs/{}", layer.digest).leak();
    bench.proxy.order(get, 1, Fault::CutAnswer(600_000));
    let directory = tempfile::tempdir().unwrap();
    let impatient = ClientOptions { retry: Retry { attempts: 1, ..Retry::default() }, ..options() };
    let into = Store::open(directory.path()).unwrap();
    let pulled =
        Client::new(impatient).pull(&bench.proxy.reference("app:1"), None, Depth::Layers, &into, None, &never());
    assert!(pulled.is_err());
    assert!(!into.contains(&layer.digest).unwrap());
    drop(into);
    bench.pull(&Store::open(directory.path()).unwrap()).unwrap();
    let asked = bench.proxy.seen(get);
    assert!(asked[1].to_lowercase().contains("range: bytes="), "{asked:#?}");
}

#[test]
fn busy_and_broken_registries_are_asked_again() {
    let Some(bench) = bench(13) else { return };
    bench.proxy.order("GET /v2/app/manifests/1", 1, Fault::Answer(BUSY.into()));
    bench.proxy.order("GET /v2/app/blobs/", 2, Fault::Answer(BROKEN.into()));
    let (_d, into) = store();
    let started = Instant::now();
    bench.pull(&into).unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "Retry-After was not obeyed");
    assert_eq!(bench.proxy.seen("GET /v2/app/manifests/1").len(), 2);
}

#[test]
fn patience_ends() {
    let Some(bench) = bench(14) else { return };
    bench.proxy.order("GET /v2/app/manifests/1", usize::MAX, Fault::Answer(BROKEN.into()));
    let (_d, into) = store();
    let error = bench.pull(&into).unwrap_err();
    assert_eq!(error.status(), Some(500), "{error}");
    assert_eq!(bench.proxy.seen("GET /v2/app/manifests/1").len(), 5);
    assert!(error.to_string().contains(&format!("{}/app:1", bench.proxy.host)), "{error}");
}

#[test]
fn long_waits_are_refused() {
    let Some(bench) = bench(15) else { return };
    let answer = BUSY.replace("Retry-After: 1", "Retry-After: 86400");
    bench.proxy.order("GET /v2/app/manifests/1", usize::MAX, Fault::Answer(answer));
    let (_d, into) = store();
    let error = bench.pull(&into).unwrap_err();
    assert_eq!(error.status(), Some(429), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn short_bodies_are_noticed() {
    let Some(bench) = bench(16) else { return };
    let get: &'static str = format!("GET /v2/app/blobs/{}", bench.layer().digest).leak();
    bench.proxy.order(get, 1, Fault::Answer(http("200 OK", "", "hello")));
    let (_d, into) = store();
    // What came is kept, found to be wrong at the end, and everything is fetched again.
    bench.pull(&into).unwrap();
    assert!(into.read(&bench.layer(), 10_000_000).is_ok());
}

#[test]
fn spoilt_bytes_are_fetched_again_once() {
    let Some(bench) = bench(17) else { return };
    let get: &'static str = format!("GET /v2/app/blobs/{}", bench.layer().digest).leak();
    bench.proxy.order(get, 1, Fault::Spoil(500_000));
    let (_d, into) = store();
    bench.pull(&into).unwrap();
    bench.proxy.order(get, 2, Fault::Spoil(500_000));
    let (_e, into) = store();
    let error = bench.pull(&into).unwrap_err();
    assert!(matches!(error, ClientError::Mismatch { .. }), "{error}");
    assert!(!into.contains(&bench.layer().digest).unwrap());
}

#[test]
fn lying_manifests_are_refused() {
    let Some(bench) = bench(18) else { return };
    let (_d, into) = store();
    let target = bench.proxy.reference("app:1").with_digest(bench.root.digest.clone());
    let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
    bench.proxy.order("GET /v2/app/manifests/", 1, Fault::Answer(http("200 OK", kind, r#"{"schemaVersion":2}"#)));
    let error = client().pull(&target, None, Depth::Layers, &into, None, &never()).unwrap_err();
    assert!(matches!(error, ClientError::Mismatch { .. }), "{error}");
    bench.proxy.order("GET /v2/app/manifests/", 1, Fault::Answer(http("200 OK", kind, "<html>")));
    let error = bench.pull(&into).unwrap_err();
    assert!(matches!(error, ClientError::Manifest { .. }), "{error}");
}

#[test]
fn cut_uploads_are_finished() {
    let Some(bench) = bench(19) else { return };
    bench.proxy.order("PUT /v2/b/blobs/uploads/", 1, Fault::CutRequest(300_000));
    bench.proxy.order("POST /v2/b/blobs/uploads/", 1, Fault::Answer(BROKEN.into()));
    let to = bench.proxy.reference("b:1");
    client().push(&to, &bench.root, &bench.source, &PushOptions::default(), None, &never()).unwrap();
    let (_d, into) = store();
    let direct = bench.registry.reference("b:1");
    client().pull(&direct, None, Depth::Layers, &into, None, &never()).unwrap();
}

#[test]
fn uploads_too_large_for_a_proxy_go_in_chunks() {
    let Some(bench) = bench(20) else { return };
    let large = image(&bench.source, "amd64", 21, 1, 20_000_000);
    let answer = http("413 Payload Too Large", "", "");
    bench.proxy.order("PUT /v2/c/blobs/uploads/", 2, Fault::Answer(answer));
    let to = bench.proxy.reference("c:1");
    client().push(&to, &large, &bench.source, &PushOptions::default(), None, &never()).unwrap();
    assert!(bench.proxy.seen("PATCH /v2/c/blobs/uploads/").len() >= 3);
    let (_d, into) = store();
    client().pull(&bench.registry.reference("c:1"), None, Depth::Layers, &into, None, &never()).unwrap();
}

#[test]
fn copies_survive_cuts_on_both_sides() {
    let Some(bench) = bench(22) else { return };
    let target = DockerRegistry::start("");
    let before = Proxy::before(&target.host);
    bench.proxy.order("GET /v2/app/blobs/", 1, Fault::CutAnswer(200_000));
    before.order("PUT /v2/app/blobs/uploads/", 1, Fault::CutRequest(200_000));
    let to = before.reference("app:1");
    let copied = copy(&client(), &bench.proxy.reference("app:1"), &to, CopyOptions::default()).unwrap().root;
    assert_eq!(copied.digest, bench.root.digest);
    let (_d, into) = store();
    client().pull(&target.reference("app:1"), None, Depth::Layers, &into, None, &never()).unwrap();
}

#[test]
fn cancelling_ends_a_stalled_pull() {
    let Some(bench) = bench(23) else { return };
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx".to_owned();
    let stalled = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = stalled.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in stalled.incoming().flatten() {
            let _ = read_head(&mut stream);
            let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
            open.push(stream);
        }
    });
    let (_d, into) = store();
    let cancel = Cancel::new();
    let later = cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        later.cancel();
    });
    let started = Instant::now();
    let reference = format!("{host}/app:1").parse().unwrap();
    let error = client().pull(&reference, None, Depth::Layers, &into, None, &cancel).unwrap_err();
    assert!(matches!(error, ClientError::Cancelled), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));
    drop(bench);
}

#[test]
fn mirrors_are_asked_first_and_may_fail() {
    let Some(bench) = bench(24) else { return };
    let directory = tempfile::tempdir().unwrap();
    let conf = directory.path().join("registries.conf");
    let text = format!(
        "[[registry]]\nprefix = \"example.test\"\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:9/dead\"\n[[registry.mirror]]\nlocation = \"{}\"\n",
        bench.registry.host, bench.proxy.host
    );
    std::fs::write(&conf, text).unwrap();
    let client = Client::new(ClientOptions { registries: vec![conf], ..options() });
    let (_d, into) = store();
    let reference = "example.test/app:1".parse().unwrap();
    client.pull(&reference, None, Depth::Layers, &into, None, &never()).unwrap();
    assert!(!bench.proxy.seen("GET /v2/app/manifests/1").is_empty());
    bench.proxy.order("/v2/app/", usize::MAX, Fault::Answer(BROKEN.into()));
    let (_e, into) = store();
    client.pull(&reference, None, Depth::Layers, &into, None, &never()).unwrap();
}

#[test]
fn copies_take_from_the_registry_what_its_mirror_lacks() {
    let Some(bench) = bench(25) else { return };
    let target = DockerRegistry::start("");
    let directory = tempfile::tempdir().unwrap();
    let conf = directory.path().join("registries.conf");
    let text = format!(
        "[[registry]]\nprefix = \"example.test\"\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}\"\n",
        bench.registry.host, bench.proxy.host
    );
    std::fs::write(&conf, text).unwrap();
    let client = Client::new(ClientOptions { registries: vec![conf], ..options() });
    bench.proxy.order("GET /v2/app/blobs/", usize::MAX, Fault::Answer(http("404 Not Found", "", "")));
    let (from, to) = ("example.test/app:1".parse().unwrap(), target.reference("app:1"));
    let options = CopyOptions { referrers: true, ..CopyOptions::default() };
    assert_eq!(copy(&client, &from, &to, options).unwrap().root.digest, bench.root.digest);
    assert!(
        !bench.proxy.seen("GET /v2/app/manifests/1").is_empty() && !bench.proxy.seen("GET /v2/app/blobs/").is_empty()
    );
    let (_d, into) = store();
    client.pull(&to, None, Depth::Layers, &into, None, &never()).unwrap();
}

#[test]
fn redirects_carry_no_credentials_elsewhere() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    let elsewhere = little_server(move |request| {
        log.lock().unwrap().push(request.to_lowercase());
        http("200 OK", "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n", r#"{"schemaVersion":2}"#)
    });
    let registry = little_server(move |request| {
        if !request.to_lowercase().contains("authorization: basic") {
            return http("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", "");
        }
        http("307 Temporary Redirect", &format!("Location: http://{elsewhere}/signed?secret=1\r\n"), "")
    });
    let mut options = options();
    let credentials = ctk_client::Credentials::Basic { user: "u".into(), password: ctk_client::Secret::new("p") };
    options.credentials.insert(registry.to_string(), credentials);
    let reference: ctk_oci::Reference = format!("{registry}/app:1").parse().unwrap();
    let _ = Client::new(options).head(&reference, &never());
    let seen = seen.lock().unwrap();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|request| !request.contains("authorization")), "{seen:#?}");
}

#[test]
fn token_servers_by_plain_http_get_no_credentials() {
    let registry = little_server(|_| {
        let challenge = "WWW-Authenticate: Bearer realm=\"http://198.51.100.1/token\",service=\"x\"\r\n";
        http("401 Unauthorized", challenge, "")
    });
    let mut options = options();
    let credentials = ctk_client::Credentials::Basic { user: "u".into(), password: ctk_client::Secret::new("p") };
    options.credentials.insert(registry.to_string(), credentials);
    let reference: ctk_oci::Reference = format!("{registry}/app:1").parse().unwrap();
    let error = Client::new(options).head(&reference, &never()).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("no credentials are sent"), "{error}");
}

#[test]
fn uploads_elsewhere_carry_no_credentials() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    let elsewhere = little_server(move |request| {
        log.lock().unwrap().push(request.to_lowercase());
        http("201 Created", "", "")
    });
    let registry = little_server(move |request| {
        let lower = request.to_lowercase();
        if !lower.contains("authorization: basic") {
            return http("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", "");
        }
        match request.split(' ').next() {
            Some("POST") => http("202 Accepted", &format!("Location: http://{elsewhere}/upload?signature=1\r\n"), ""),
            Some("PUT") => http("201 Created", "", ""),
            _ => http("404 Not Found", "", ""),
        }
    });
    let mut options = options();
    let credentials = ctk_client::Credentials::Basic { user: "u".into(), password: ctk_client::Secret::new("p") };
    options.credentials.insert(registry.to_string(), credentials);
    let (_d, source) = store();
    let root = image(&source, "amd64", 91, 1, 1000);
    let to = format!("{registry}/app:1").parse().unwrap();
    Client::new(options).push(&to, &root, &source, &PushOptions::default(), None, &never()).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().filter(|request| request.starts_with("put /upload?signature=1&digest=")).count(), 2);
    assert!(seen.iter().all(|request| !request.contains("authorization")), "{seen:#?}");
}
