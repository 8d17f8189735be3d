//! Servers that are killed in the middle of anything, and collections in the middle of everything.

#[path = "../../ctk-client/tests/common/mod.rs"]
mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use common::noise;
use ctk_oci::{Descriptor, Digest, Document, Manifest, media_type};
use ctk_registry::{ServeOptions, Storage, serve};

/// A server starts, is ready and ends. Asked for by the other tests, it is the process that they kill.
#[test]
fn server() {
    let own = tempfile::tempdir().unwrap();
    let asked = std::env::var_os("CTK_TEST_SERVER").map(std::path::PathBuf::from);
    let folder = asked.as_deref().unwrap_or(own.path());
    let server = serve(ServeOptions::new("127.0.0.1:0".parse().unwrap(), folder)).unwrap();
    if asked.is_none() {
        assert_eq!(ask(&server.host(), "GET", "/readyz", "", b""), Some(200));
        server.shutdown(Duration::from_secs(5));
        return;
    }
    let address = folder.join("address");
    std::fs::write(address.with_extension("new"), server.host()).unwrap();
    std::fs::rename(address.with_extension("new"), address).unwrap();
    // Ends when its parent does, too.
    let _ = std::io::stdin().read(&mut [0]);
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path) -> (Killed, String) {
    let address = folder.join("address");
    let _ = std::fs::remove_file(&address);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "server", "--nocapture"]).env("CTK_TEST_SERVER", folder);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let child = Killed(child);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Ok(host) = std::fs::read_to_string(&address) {
            return (child, host);
        }
        assert!(Instant::now() < deadline, "the server does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One request; `None` when the server went away.
fn ask(host: &str, method: &str, path: &str, kind: &str, body: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(host).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

/// An image of two blobs: `shared` ones are the same for many, the other one is its own.
fn push(host: &str, repository: &str, tag: &str, number: u64) -> Option<u16> {
    let (config, layer) = (format!("{{\"shared\":{}}}", number % 3).into_bytes(), noise(number, 120_000));
    for blob in [&config, &layer] {
        let path = format!("/v2/{repository}/blobs/uploads/?digest={}", Digest::of(blob));
        match ask(host, "POST", &path, "application/octet-stream", blob)? {
            201 => {}
            other => return Some(other),
        }
    }
    let layer = Descriptor::of(media_type::LAYER, &layer);
    let manifest = Manifest::image(Descriptor::of(media_type::CONFIG, &config), vec![layer]);
    let bytes = Document::new(manifest).bytes().to_vec();
    ask(host, "PUT", &format!("/v2/{repository}/manifests/{tag}"), media_type::MANIFEST, &bytes)
}

/// Every tag resolves to whole bytes, and nothing is there that nobody names.
fn whole(storage: &Storage) -> Vec<(String, String)> {
    storage.empty_trash().unwrap();
    assert_eq!(storage.check(true).unwrap().faults, []);
    let mut found = Vec::new();
    for repository in storage.meta().repositories("", 1000).unwrap() {
        for tag in storage.tags(&repository).unwrap().unwrap() {
            let descriptor = storage.tag(&repository, &tag).unwrap().expect("a tag names a manifest");
            let stored = storage.manifest(&repository, &descriptor.digest).unwrap().expect("the manifest is there");
            assert_eq!(Digest::of(&stored.bytes), descriptor.digest);
            let manifest: Manifest = serde_json::from_slice(&stored.bytes).unwrap();
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                assert_eq!(
                    storage.blob_size(&repository, &blob.digest).unwrap(),
                    Some(blob.size),
                    "{repository}:{tag}"
                );
            }
            found.push((repository.clone(), tag));
        }
    }
    found
}

#[test]
fn a_server_that_is_killed_keeps_what_it_promised() {
    let directory = tempfile::tempdir().unwrap();
    let promised = Mutex::new(Vec::new());
    for round in 0..12u64 {
        let (child, host) = start(directory.path());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..3u64 {
                let (host, stop, promised) = (&host, &stop, &promised);
                scope.spawn(move || {
                    for turn in 0.. {
                        let (repository, tag) = (format!("app{thread}"), format!("r{round}-{turn}"));
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        match push(host, &repository, &tag, round * 10_000 + thread * 1000 + turn) {
                            Some(201) => promised.lock().unwrap().push((repository.clone(), tag)),
                            Some(other) => panic!("refused with {other}"),
                            None => break,
                        }
                        if turn % 4 == 3 {
                            let gone = (repository.clone(), format!("r{round}-{}", turn - 1));
                            // Not promised any more from here on, whatever the answer.
                            promised.lock().unwrap().retain(|one| *one != gone);
                            if ask(host, "DELETE", &format!("/v2/{}/manifests/{}", gone.0, gone.1), "", b"").is_none() {
                                break;
                            }
                        }
                    }
                });
            }
            // Another point of the work every round.
            std::thread::sleep(Duration::from_millis(60 + round * 23));
            drop(child);
            stop.store(true, Ordering::Relaxed);
        });
        let storage = Storage::open(directory.path()).unwrap();
        let found = whole(&storage);
        for one in promised.lock().unwrap().iter() {
            assert!(found.contains(one), "round {round}: {one:?} was promised");
        }
    }
    let promised = promised.into_inner().unwrap();
    assert!(promised.len() > 12, "only {} pushes ended", promised.len());
    // Nothing is orphaned for good: without its tags and manifests, everything goes.
    let storage = Storage::open(directory.path()).unwrap();
    let keep = ctk_registry::Retention { newest: Some(0), untagged_after: Some(0), ..Default::default() };
    let later = SystemTime::now() + Duration::from_secs(100);
    storage.retain(later, &|_| Some(keep.clone()), false).unwrap();
    storage.sweep(later, Duration::ZERO, Duration::ZERO).unwrap();
    assert_eq!(storage.check(true).unwrap().blobs, 0);
    let fans = std::fs::read_dir(directory.path().join("blobs")).unwrap();
    let files: usize = fans.map(|fan| std::fs::read_dir(fan.unwrap().path()).unwrap().count()).sum();
    assert_eq!(files, 0, "bytes that nobody names");
}

#[test]
fn collecting_takes_nothing_that_an_accepted_manifest_names() {
    let directory = tempfile::tempdir().unwrap();
    let server = serve(ServeOptions::new("127.0.0.1:0".parse().unwrap(), directory.path())).unwrap();
    let host = server.host();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let storage = Storage::open(directory.path()).unwrap();
            let mut removed = 0;
            while !done.load(Ordering::Relaxed) {
                // As if every blob were old: the hardest case.
                let later = SystemTime::now() + Duration::from_secs(100);
                removed += storage.sweep(later, Duration::from_secs(3600), Duration::ZERO).unwrap().blobs;
            }
            removed
        });
        let pushers: Vec<_> = (0..3u64)
            .map(|thread| {
                let host = &host;
                scope.spawn(move || {
                    for turn in 0..15u64 {
                        let (repository, tag) = (format!("app{}", thread % 2), format!("t{thread}-{turn}"));
                        // Who is told that a blob is gone pushes it again, as clients do.
                        let accepted = (0..500).any(|_| match push(host, &repository, &tag, thread * 5 + turn % 7) {
                            Some(201) => true,
                            Some(404) => false,
                            other => panic!("{other:?}"),
                        });
                        assert!(accepted, "never between two collections");
                        if turn % 3 == 2 {
                            let path = format!("/v2/{repository}/manifests/t{thread}-{}", turn - 1);
                            assert_eq!(ask(host, "DELETE", &path, "", b""), Some(202));
                        }
                    }
                })
            })
            .collect();
        for pusher in pushers {
            pusher.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(collector.join().unwrap() > 0, "nothing was collected");
    });
    assert_eq!(whole(server.storage()).len(), 3 * 15 - 3 * 5);
}
