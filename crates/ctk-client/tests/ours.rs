//! The client against the embedded registry, which keeps what arrived of a cut upload and lists referrers, behind a proxy
//! that breaks things on order.

mod common;

use std::time::{Duration, Instant};

use common::*;
use ctk_client::{Client, ClientOptions, Listing, PushOptions, RANGE_BYTES, RANGES_FROM_BYTES};
use ctk_oci::{Algorithm, Descriptor, Document, Manifest, media_type};
use ctk_registry::{ServeOptions, Server, serve};
use ctk_store::{Depth, Store};

struct Ours {
    server: Server,
    proxy: Proxy,
    _folder: tempfile::TempDir,
}

fn ours() -> Ours {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(ServeOptions::new("127.0.0.1:0".parse().unwrap(), folder.path())).unwrap();
    let proxy = Proxy::before(&server.host());
    Ours { server, proxy, _folder: folder }
}

impl Ours {
    fn direct(&self, name: &str) -> ctk_oci::Reference {
        format!("{}/{name}", self.server.host()).parse().unwrap()
    }
}

/// An image of one layer that is what it is, uncompressed, and needs no packing.
fn blob_image(store: &Store, seed: u64, bytes: usize) -> (Descriptor, Descriptor) {
    let layer = store.put(media_type::LAYER, &noise(seed, bytes)).unwrap();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        layer.digest
    );
    let config = store.put(media_type::CONFIG, config.as_bytes()).unwrap();
    let manifest = Document::new(Manifest::image(config, vec![layer.clone()]));
    (store.put(media_type::MANIFEST, manifest.bytes()).unwrap(), layer)
}

fn push(to: &ctk_oci::Reference, root: &Descriptor, store: &Store) {
    client().push(to, root, store, &PushOptions::default(), None, &never()).unwrap();
}

/// In the line of the request that ends the upload of a blob.
fn finish(blob: &Descriptor) -> &'static str {
    format!("digest={}", blob.digest).replace(':', "%3A").leak()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)))
        .map(|(_, v)| v)
}

#[test]
fn a_cut_upload_goes_on_where_the_registry_is() {
    let ours = ours();
    let (_a, store) = store();
    let (root, layer) = blob_image(&store, 1, 3_000_000);
    ours.proxy.order(finish(&layer), 1, Fault::CutRequest(2_000_000));
    push(&ours.proxy.reference("app:1"), &root, &store);
    assert!(client().head(&ours.direct("app:1"), &never()).unwrap().is_some());
    let puts = ours.proxy.seen("PUT /v2/app/blobs/uploads/");
    let resumed: Vec<u64> =
        puts.iter().filter_map(|head| header(head, "content-range")?.split('-').next()?.parse().ok()).collect();
    assert_eq!(resumed.len(), 1, "{puts:#?}");
    assert!(resumed[0] > 1_000_000 && resumed[0] < layer.size, "{resumed:?}");
}

#[test]
fn a_cut_chunk_goes_on_where_the_registry_is() {
    let ours = ours();
    let (_a, store) = store();
    let (root, layer) = blob_image(&store, 2, 20_000_000);
    ours.proxy.order(finish(&layer), 1, Fault::Answer(http("413 Payload Too Large", "", "")));
    ours.proxy.order("PATCH /v2/app/blobs/uploads/", 1, Fault::CutRequest(5_000_000));
    push(&ours.proxy.reference("app:1"), &root, &store);
    let starts: Vec<u64> = ours
        .proxy
        .seen("PATCH /v2/app/blobs/uploads/")
        .iter()
        .map(|head| header(head, "content-range").unwrap().split('-').next().unwrap().parse().unwrap())
        .collect();
    // The first was cut; the next begins where it was, not at a multiple of the chunk's size.
    assert_eq!(starts[0], 0);
    assert!(starts[1] > 4_000_000 && starts[1] < 5_000_001, "{starts:?}");
    let (_b, into) = common::store();
    client().pull(&ours.direct("app:1"), None, Depth::Layers, &into, None, &never()).unwrap();
    assert!(into.contains(&layer.digest).unwrap());
}

#[test]
fn large_blobs_come_in_ranges_side_by_side() {
    let ours = ours();
    let (_a, source) = store();
    let size = (RANGES_FROM_BYTES + 2 * RANGE_BYTES + 12_345) as usize;
    let (root, layer) = blob_image(&source, 3, size);
    push(&ours.direct("app:1"), &root, &source);
    let get: &'static str = format!("GET /v2/app/blobs/{}", layer.digest).leak();
    // One of them is cut, another one answered with an error: the rest goes on.
    ours.proxy.order(get, 1, Fault::CutAnswer(1_000_000));
    let (_b, into) = store();
    let name = ours.proxy.reference("app:1");
    client().pull(&name, None, Depth::Layers, &into, None, &never()).unwrap();
    assert!(into.read(&layer, 1 << 30).is_ok());
    let asked = ours.proxy.seen(get);
    let ranges: Vec<&str> = asked.iter().filter_map(|head| header(head, "range")).collect();
    assert_eq!(ranges.len(), asked.len());
    assert!(ranges.contains(&format!("bytes=0-{}", RANGE_BYTES - 1).as_str()), "{ranges:?}");
    assert!(ranges.iter().any(|range| range.ends_with(&format!("-{}", layer.size - 1))), "{ranges:?}");
    assert!(asked.len() >= 7, "{}", asked.len());

    // What was cut in another process goes on, in ranges too.
    let (_c, into) = store();
    ours.proxy.order(get, usize::MAX, Fault::CutAnswer(3_000_000));
    let impatient = ctk_client::Retry { attempts: 1, ..ctk_client::Retry::default() };
    let impatient = Client::new(ClientOptions { retry: impatient, ..options() });
    assert!(impatient.pull(&name, None, Depth::Layers, &into, None, &never()).is_err());
    client().pull(&ours.direct("app:1"), None, Depth::Layers, &into, None, &never()).unwrap();
    assert!(into.read(&layer, 1 << 30).is_ok());
}

#[test]
fn a_registry_may_give_less_than_a_range() {
    let (_a, source) = store();
    let (root, layer) = blob_image(&source, 9, (RANGES_FROM_BYTES + 3 * RANGE_BYTES / 2) as usize);
    let bytes = source.read(&layer, 1 << 30).unwrap();
    let manifest: Manifest = source.document("manifest", &root).unwrap().into_value();
    let config = source.read(&manifest.config, 1 << 20).unwrap();
    let document = source.read(&root, 1 << 20).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let at_most = RANGE_BYTES as usize * 2 / 3;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let Ok((head, _)) = read_head(&mut stream) else { continue };
            let range = header(&head, "range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
            let range = range.map(|(start, end)| (start.parse::<usize>().unwrap(), end.parse::<usize>().unwrap() + 1));
            let (kind, body) = match head.lines().next().unwrap_or_default() {
                line if line.contains("/manifests/") => (media_type::MANIFEST, &document),
                line if line.contains(layer.digest.hex()) => ("application/octet-stream", &bytes),
                _ => ("application/octet-stream", &config),
            };
            let (status, part) = match range {
                Some((start, end)) => {
                    let end = end.min(start + at_most);
                    (
                        format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{}", end - 1, body.len()),
                        &body[start..end],
                    )
                }
                None => ("200 OK".to_owned(), &body[..]),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
                part.len()
            );
            let _ = std::io::Write::write_all(&mut stream, head.as_bytes());
            let _ = std::io::Write::write_all(&mut stream, part);
        }
    });
    let (_b, into) = store();
    client().pull(&format!("{host}/app:1").parse().unwrap(), None, Depth::Layers, &into, None, &never()).unwrap();
    assert!(into.read(&manifest.layers[0], 1 << 30).is_ok());
}

#[test]
fn a_registry_without_ranges_gives_all() {
    let (_a, source) = store();
    let size = (RANGES_FROM_BYTES + 5) as usize;
    let (root, layer) = blob_image(&source, 4, size);
    let bytes = source.read(&layer, 1 << 30).unwrap();
    let manifest: Manifest = source.document("manifest", &root).unwrap().into_value();
    let config = source.read(&manifest.config, 1 << 20).unwrap();
    let document = source.read(&root, 1 << 20).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let Ok((head, _)) = read_head(&mut stream) else { continue };
            let (kind, body) = match head.lines().next().unwrap_or_default() {
                line if line.contains("/manifests/") => (media_type::MANIFEST, &document),
                line if line.contains(layer.digest.hex()) => ("application/octet-stream", &bytes),
                line if line.contains("/blobs/") => ("application/octet-stream", &config),
                _ => ("text/plain", &config),
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = std::io::Write::write_all(&mut stream, head.as_bytes());
            let _ = std::io::Write::write_all(&mut stream, body);
        }
    });
    let (_b, into) = store();
    client().pull(&format!("{host}/app:1").parse().unwrap(), None, Depth::Layers, &into, None, &never()).unwrap();
    assert_eq!(into.size(&manifest.layers[0].digest).unwrap(), Some(size as u64));
}

#[test]
fn referrers_are_the_registrys_matter() {
    let ours = ours();
    let (_a, store) = store();
    let (root, _) = blob_image(&store, 5, 1000);
    let name = ours.direct("app:1");
    push(&name, &root, &store);
    let artifact = ctk_client::Artifact {
        artifact_type: "a/b".into(),
        subject: Some(root.clone()),
        ..ctk_client::Artifact::default()
    };
    client().push_artifact(&name.with_digest(root.digest.clone()), &artifact, None, &never()).unwrap();
    let found = client().referrers(&name, None, Some("a/b"), false, &never()).unwrap();
    assert_eq!((found.listing, found.found.len()), (Listing::Registry, 1));
    assert_eq!(client().tags(&name, &never()).unwrap(), ["1"], "no list under a tag");
}

#[test]
fn sha512_goes_there_and_back() {
    let ours = ours();
    let (_a, source) = store();
    let bytes = noise(6, 9_000_000);
    let mut digester = Algorithm::Sha512.digester();
    digester.update(&bytes);
    let layer = Descriptor::new(media_type::LAYER, digester.finish(), bytes.len() as u64);
    let mut ingest = source.ingest(Some(&layer)).unwrap();
    ingest.write_bytes(&bytes).unwrap();
    ingest.commit().unwrap();
    let (plain, _) = blob_image(&source, 7, 1000);
    let mut manifest: Manifest = source.document("manifest", &plain).unwrap().into_value();
    manifest.layers = vec![layer.clone()];
    let root = source.put(media_type::MANIFEST, Document::new(manifest).bytes()).unwrap();
    ours.proxy.order(finish(&layer), 1, Fault::CutRequest(4_000_000));
    push(&ours.proxy.reference("app:1"), &root, &source);
    let (_b, into) = store();
    client().pull(&ours.direct("app:1"), None, Depth::Layers, &into, None, &never()).unwrap();
    assert_eq!(into.read(&layer, 1 << 30).unwrap(), bytes);
}

#[test]
fn a_registry_that_asks_to_wait_is_waited_for() {
    let ours = ours();
    let (_a, store) = store();
    let (root, _) = blob_image(&store, 8, 1000);
    let busy = http("429 Too Many Requests", "Retry-After: 1\r\n", "");
    ours.proxy.order("PUT /v2/app/manifests/1", 1, Fault::Answer(busy.clone()));
    ours.proxy.order("POST /v2/app/blobs/uploads/", 1, Fault::Answer(busy));
    let started = Instant::now();
    push(&ours.proxy.reference("app:1"), &root, &store);
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
}
