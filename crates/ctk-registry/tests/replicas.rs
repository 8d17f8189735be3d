//! Two servers that share a database and a bucket, and nothing else.

#[path = "../../ctk-client/tests/common/mod.rs"]
mod common;
#[path = "common/postgres.rs"]
mod postgres;
#[path = "common/s3.rs"]
mod s3;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use common::{client, image, never, store};
use ctk_client::PushOptions;
use ctk_oci::Reference;
use ctk_registry::blobs::Bucket;
use ctk_registry::{Database, ServeOptions, Server, serve};
use ctk_store::Depth;

fn start(directory: &std::path::Path, database: &Database, bucket: Option<&Bucket>) -> Server {
    let mut options = ServeOptions::new("127.0.0.1:0".parse().unwrap(), directory);
    options.database = Some(database.clone());
    options.bucket = bucket.cloned();
    serve(options).unwrap()
}

fn reference(server: &Server, name: &str) -> Reference {
    format!("{}/{name}", server.host()).parse().unwrap()
}

#[test]
fn two_replicas_push_delete_and_collect_at_once() {
    let (Some(database), Some(buckets)) = (postgres::Server::start(), s3::Bucketeer::start()) else { return };
    let url = database.url("registry");
    let database_of_both = Database::parse(&url, Some(postgres::PASSWORD), None).unwrap();
    let bucket = Bucket {
        name: "blobs".into(),
        prefix: "shared".into(),
        region: "us-east-1".into(),
        endpoint: Some(format!("http://{}", buckets.address)),
        key: Some(("id".into(), "secret".into())),
        token: None,
    };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let servers = [one.path(), two.path()].map(|folder| start(folder, &database_of_both, Some(&bucket)));
    let (_a, from) = store();
    // Some share layers, all are pushed to several repositories.
    let roots: Vec<_> = (0..3).map(|seed| image(&from, "amd64", 200 + seed, 2, 60_000)).collect();
    // Longer than any push here takes between a blob and its manifest, shorter than the test.
    let life = Duration::from_secs(5);
    let (done, pushed, deleted) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let end = Instant::now() + Duration::from_secs(10);
    std::thread::scope(|scope| {
        let (servers, roots, from, done) = (&servers, &roots, &from, &done);
        let (pushed, deleted) = (&pushed, &deleted);
        for server in servers {
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    server.storage().sweep(SystemTime::now(), Duration::from_secs(3600), life).unwrap();
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
        }
        let workers: Vec<_> = (0..4usize)
            .map(|worker| {
                scope.spawn(move || {
                    let mut turn = worker;
                    while Instant::now() < end {
                        let (here, there) = (&servers[turn % 2], &servers[1 - turn % 2]);
                        let name = format!("app{}:w{worker}", turn % 3);
                        let root = &roots[turn % roots.len()];
                        let to = reference(here, &name);
                        client().push(&to, root, from, &PushOptions::default(), None, &never()).unwrap();
                        pushed.fetch_add(1, Ordering::Relaxed);
                        // The other one has it, whole, at once.
                        let (_b, into) = store();
                        let pulled =
                            client().pull(&reference(there, &name), None, Depth::Layers, &into, None, &never());
                        assert_eq!(pulled.unwrap().digest, root.digest);
                        if turn.is_multiple_of(2) {
                            client().delete(&reference(there, &name), &never()).unwrap();
                            assert_eq!(client().head(&to, &never()).unwrap(), None);
                            deleted.fetch_add(1, Ordering::Relaxed);
                        }
                        turn += 1;
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    println!("{} pushes, {} deletions", pushed.into_inner(), deleted.into_inner());
    let storage = servers[0].storage();
    let whole = storage.check(true).unwrap();
    assert_eq!(whole.faults, []);
    for repository in ["app0", "app1", "app2"] {
        for tag in storage.tags(repository).unwrap().unwrap_or_default() {
            let (_b, into) = store();
            let name = format!("{repository}:{tag}");
            client().pull(&reference(&servers[1], &name), None, Depth::Layers, &into, None, &never()).unwrap();
            client().delete(&reference(&servers[1], &name), &never()).unwrap();
        }
        let later = SystemTime::now() + Duration::from_secs(100);
        let untagged = ctk_registry::Retention { untagged_after: Some(0), ..Default::default() };
        storage.retain(later, &|_| Some(untagged.clone()), false).unwrap();
    }
    // When nobody names anything any more, nothing is left.
    let later = SystemTime::now() + Duration::from_secs(100);
    storage.sweep(later, Duration::ZERO, Duration::ZERO).unwrap();
    let left = servers[1].storage().check(false).unwrap();
    assert_eq!((left.blobs, left.faults), (0, vec![]));
    assert!(!database.run("registry", "SELECT count(*) FROM trash").contains(|c: char| c.is_ascii_digit() && c != '0'));
}

#[test]
fn a_database_and_a_folder_survive_a_server() {
    let Some(server) = postgres::Server::start() else { return };
    let database = Database::parse(&server.url("registry"), Some(postgres::PASSWORD), None).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (_a, from) = store();
    let root = image(&from, "amd64", 210, 1, 10_000);
    let first = start(directory.path(), &database, None);
    client().push(&reference(&first, "app:1"), &root, &from, &PushOptions::default(), None, &never()).unwrap();
    first.shutdown(Duration::from_secs(5));
    let second = start(directory.path(), &database, None);
    server.drop_connections();
    let (_b, into) = store();
    let pulled = client().pull(&reference(&second, "app:1"), None, Depth::Layers, &into, None, &never()).unwrap();
    assert_eq!(pulled.digest, root.digest);
    let wrong = Database::parse(&server.url("other"), Some("hidden"), None).unwrap();
    let mut options = ServeOptions::new("127.0.0.1:0".parse().unwrap(), directory.path());
    options.database = Some(wrong);
    let error = serve(options).unwrap_err();
    let text = format!("{error:?} {error}");
    assert!(text.contains("password authentication failed") && !text.contains("hidden"), "{text}");
}
