//! The store on a real disk: conformance, collection, resuming, records, refs.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use ctk_oci::{Descriptor, Digest, Document, ImageConfig, Index, Manifest, media_type};
use ctk_plan::Cancel;
use ctk_store::{GcOptions, Links, MemoryBlobs, Ref, Resume, Store, StoreError};

fn all() -> GcOptions {
    GcOptions { cache_bytes: Some(0), ..GcOptions::default() }
}

fn gc(store: &Store) -> ctk_store::GcReport {
    store.gc(&all(), &Cancel::new()).unwrap()
}

/// An image of two made-up layers; gives the manifest's descriptor.
fn image(store: &Store, seed: &str) -> Descriptor {
    let layer = store.put(media_type::LAYER, format!("layer {seed}").as_bytes()).unwrap();
    let config = Document::new(ImageConfig { author: Some(seed.into()), ..Default::default() });
    let config = store.put(media_type::CONFIG, config.bytes()).unwrap();
    let manifest = Document::new(Manifest::image(config, vec![layer]));
    store.put(media_type::MANIFEST, manifest.bytes()).unwrap()
}

fn blob_count(root: &Path) -> usize {
    Store::open(root).unwrap().usage().unwrap().blobs
}

#[test]
fn disk_and_memory_conform() {
    let directory = tempfile::tempdir().unwrap();
    ctk_store::conformance::run(&Store::open(directory.path()).unwrap());
    ctk_store::conformance::run(&MemoryBlobs::new());
}

#[test]
fn opening_is_fast_and_repeatable() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let descriptor = store.put("x/y", b"abc").unwrap();
    let started = std::time::Instant::now();
    let again = Store::open(directory.path()).unwrap();
    assert!(again.size(&descriptor.digest).unwrap().is_some());
    let took = started.elapsed();
    assert!(took.as_millis() < 20, "opening took {took:?}");
    std::fs::write(directory.path().join("format"), "ctk-store 99\n").unwrap();
    assert!(matches!(Store::open(directory.path()), Err(StoreError::Format { .. })));
}

#[test]
fn a_damaged_blob_is_an_error_at_its_end_and_goes() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let check = |bytes: &[u8]| {
        let descriptor = store.put("x/y", &[7; 100_000]).unwrap();
        let path = store.blob_path(&descriptor.digest);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(store.read(&descriptor, 10), Err(StoreError::TooLarge { .. })));
        assert!(matches!(store.read(&descriptor, 1 << 20), Err(StoreError::Damaged { .. })));
        assert!(!store.contains(&descriptor.digest).unwrap());
        std::fs::write(&path, bytes).unwrap();
        assert!(store.open_blob(&descriptor).unwrap().read_to_end(&mut Vec::new()).is_err());
        assert!(!path.exists());
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(store.examine(&descriptor.digest), Err(StoreError::Damaged { .. })));
        assert!(!path.exists());
    };
    let mut damaged = vec![7; 100_000];
    check(&damaged[1..]);
    damaged.push(7);
    check(&damaged);
    damaged.pop();
    damaged[50_000] = 8;
    check(&damaged);
    check(&[]);
}

#[test]
fn a_blob_whose_size_is_said_wrongly_stays() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let descriptor = store.put("x/y", b"content").unwrap();
    store.examine(&descriptor.digest).unwrap();
    for size in [0, 6, 8] {
        let lie = ctk_oci::Descriptor { size, ..descriptor.clone() };
        assert!(matches!(store.read(&lie, 1 << 20), Err(StoreError::Mismatch { .. })));
        assert_eq!(store.read(&descriptor, 1 << 20).unwrap(), b"content");
    }
}

#[test]
fn collection_spares_what_refs_and_living_handles_need() {
    let directory = tempfile::tempdir().unwrap();
    let owner = Store::open(directory.path()).unwrap();
    let (kept, held) = (image(&owner, "kept"), image(&owner, "held"));
    owner.set_reference("kept:1", &Ref::new(kept.clone())).unwrap();
    let other = Store::open(directory.path()).unwrap();
    assert_eq!(gc(&other).blobs, 0, "everything is held by `owner`");
    drop(owner);
    // Only what is asked for is held now, with all below it.
    let reader = Store::open(directory.path()).unwrap();
    assert!(reader.contains(&held.digest).unwrap());
    assert_eq!(gc(&other).blobs, 0);
    drop(reader);
    let dry = other.gc(&GcOptions { dry_run: true, ..all() }, &Cancel::new()).unwrap();
    assert_eq!((dry.blobs, blob_count(directory.path())), (3, 6));
    assert_eq!(gc(&other).blobs, 3);
    assert!(!other.contains(&held.digest).unwrap());
    assert!(other.contains(&kept.digest).unwrap());
    other.remove_reference("kept:1").unwrap();
    drop(other);
    let last = Store::open(directory.path()).unwrap();
    assert_eq!(gc(&last).blobs, 3);
    assert_eq!(last.usage().unwrap(), Default::default());
}

#[test]
fn indexes_keep_their_members() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let absent = Descriptor::of(media_type::MANIFEST, b"never fetched");
    let index = Document::new(Index::new(vec![image(&store, "amd64"), image(&store, "arm64"), absent]));
    let index = store.put(media_type::INDEX, index.bytes()).unwrap();
    store.set_reference("multi", &Ref::new(index)).unwrap();
    image(&store, "loose");
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(gc(&store).blobs, 3);
    assert_eq!(store.usage().unwrap().blobs, 7);
}

#[test]
fn records_live_as_long_as_they_should() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let (rooted, cached) = (image(&store, "rooted"), image(&store, "cached"));
    let links = |descriptor: &Descriptor, root| Links { blobs: vec![descriptor.digest.clone()], root, layers: vec![] };
    store.put_record("built", "a/b: c", &1u32, &links(&rooted, true)).unwrap();
    store.put_record("cache", &"k".repeat(500), &"v", &links(&cached, false)).unwrap();
    store.put_record("cache", "free", &"v", &links(&rooted, false)).unwrap();
    assert_eq!(store.record::<u32>("built", "a/b: c").unwrap(), Some(1));
    assert_eq!(store.record::<String>("built", "a/b: c").unwrap(), None, "another shape is another version");
    assert_eq!(store.record_keys("cache").unwrap(), ["free".to_owned(), "k".repeat(500)]);
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    let keep = store.gc(&GcOptions::default(), &Cancel::new()).unwrap();
    assert_eq!((keep.blobs, keep.records), (0, 0), "without limits caches stay");
    let tight = store.gc(&GcOptions { cache_bytes: Some(10), ..GcOptions::default() }, &Cancel::new()).unwrap();
    assert_eq!((tight.blobs, tight.records), (3, 1));
    assert_eq!(store.record_keys("cache").unwrap(), ["free"], "what costs nothing stays");
    assert_eq!(store.record_keys("built").unwrap(), ["a/b: c"]);
}

#[test]
fn many_refs_change_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let (one, two) = (image(&store, "one"), image(&store, "two"));
    let name = |n: usize| format!("registry.example:5000/group/image:{n}");
    let set = |to: &Descriptor| -> Vec<(String, Option<Ref>)> {
        let value = Ref { descriptor: to.clone(), annotations: BTreeMap::from([("by".into(), "test".into())]) };
        (0..20).map(|n| (name(n), Some(value.clone()))).collect()
    };
    store.update_references(&set(&one)).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..20 {
                store.update_references(&set(if round % 2 == 0 { &two } else { &one })).unwrap();
            }
        });
        let reader = Store::open(directory.path()).unwrap();
        while !writer.is_finished() {
            let seen = reader.references().unwrap();
            assert_eq!(seen.len(), 20);
            assert!(seen.iter().all(|(_, value)| value == &seen[0].1), "half a change was visible");
        }
    });
    // A crash between journal and refs: whoever comes next carries it out.
    let journal = serde_json::to_vec(&set(&two)).unwrap();
    std::fs::write(directory.path().join("refs.journal"), journal).unwrap();
    let seen = store.references().unwrap();
    assert!(seen.iter().all(|(_, value)| value.descriptor == two));
    assert!(matches!(store.remove_reference("nobody"), Err(StoreError::NoSuchRef { .. })));
}

#[test]
fn downloads_resume_in_another_handle() {
    let directory = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    let descriptor = Descriptor::of("x/y", &bytes);
    let cancel = Cancel::new();
    let begin = |store: &Store| match store.resume(&descriptor, &cancel).unwrap() {
        Resume::Partial(partial) => partial,
        Resume::Present => panic!("it is not there yet"),
    };
    let store = Store::open(directory.path()).unwrap();
    let mut partial = begin(&store);
    partial.write_all(&bytes[..100_000]).unwrap();
    let other = Store::open(directory.path()).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let mut partial = begin(&other);
            assert_eq!(partial.offset(), 100_000);
            partial.write_all(&bytes[100_000..]).unwrap();
            partial.commit().unwrap()
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(partial);
        assert_eq!(waits.join().unwrap(), (descriptor.digest.clone(), 300_000));
    });
    assert!(matches!(store.resume(&descriptor, &cancel).unwrap(), Resume::Present));
    // Wrong bytes do not spoil the next try.
    let wrong = Descriptor::of("x/y", b"right");
    let Resume::Partial(mut partial) = store.resume(&wrong, &cancel).unwrap() else { panic!() };
    partial.write_all(b"wrong").unwrap();
    assert!(matches!(partial.commit(), Err(StoreError::Mismatch { .. })));
    let Resume::Partial(partial) = store.resume(&wrong, &cancel).unwrap() else { panic!() };
    assert_eq!(partial.offset(), 0);
}

#[test]
fn locks_exclude_and_can_be_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (Store::open(directory.path()).unwrap(), Store::open(directory.path()).unwrap());
    let cancel = Cancel::new();
    let counter = std::sync::Mutex::new((0u32, 0u32));
    std::thread::scope(|scope| {
        for store in [&one, &two, &one, &two] {
            scope.spawn(|| {
                for _ in 0..20 {
                    let _lock = store.lock("the lock", &Cancel::new()).unwrap();
                    let now = {
                        let mut c = counter.lock().unwrap();
                        c.0 += 1;
                        c.0
                    };
                    assert_eq!(now, 1, "two hold the lock");
                    let mut c = counter.lock().unwrap();
                    (c.0, c.1) = (0, c.1 + 1);
                }
            });
        }
    });
    assert_eq!(counter.lock().unwrap().1, 80);
    let _held = one.lock("x", &cancel).unwrap();
    cancel.cancel();
    assert!(matches!(two.lock("x", &cancel), Err(StoreError::Cancelled)));
}

#[test]
fn what_is_found_is_not_collected_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = |n: u32| format!("contested {n}").into_bytes();
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let store = Store::open(directory.path()).unwrap();
            (0..100).map(|_| gc(&store).blobs).sum::<usize>()
        });
        let mut round = 0;
        while !collector.is_finished() {
            round += 1;
            let maker = Store::open(directory.path()).unwrap();
            let descriptor = maker.put("x/y", &bytes(round % 3)).unwrap();
            let user = Store::open(directory.path()).unwrap();
            let there = user.contains(&descriptor.digest).unwrap();
            assert!(there, "the maker holds it");
            drop(maker);
            let read = user.read(&descriptor, 100).unwrap();
            assert_eq!(Digest::of(&read), descriptor.digest);
        }
        assert!(collector.join().unwrap() > 0, "nothing was ever collected");
    });
}

#[test]
fn a_damaged_ref_can_be_set_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let image = image(&store, "one");
    store.set_reference("one:1", &Ref::new(image.clone())).unwrap();
    let file = std::fs::read_dir(directory.path().join("refs")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "").unwrap();
    assert!(store.reference("one:1").unwrap().is_none());
    assert!(store.references().is_err(), "collection must not take it for forgotten");
    store.set_reference("one:1", &Ref::new(image.clone())).unwrap();
    assert_eq!(store.reference("one:1").unwrap().unwrap().descriptor, image);
    assert_eq!(store.references().unwrap().len(), 1);
}
