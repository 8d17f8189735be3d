//! The exam of every [`Meta`]: call [`run`] with something that opens a fresh one twice. Panics say what is wrong.

use std::sync::Arc;

use ctk_oci::{Algorithm, Descriptor, Digest, media_type};

use super::{ManifestPut, Meta, Name, Place, Retention, Seen, TagChange, Trash, Upload, Usage, any_change};
use crate::RegistryError;

/// Two handles on the same fresh metadata, as two processes hold them.
pub type Pair = (Box<dyn Meta>, Box<dyn Meta>);

/// Everything an implementation must do.
pub fn run(open: &mut dyn FnMut() -> Pair) {
    uploads_live_and_end(open());
    content_is_kept_once(open());
    membership_is_per_repository(open());
    manifests_are_whole_or_not_there(open());
    tags_move_by_their_rule(open());
    deleting_takes_what_hangs_on_it(open());
    lists_are_pages_in_the_order_of_bytes(open());
    referrers_are_found(open());
    sweeping_keeps_what_is_named(open());
    retention_keeps_what_it_says(open());
    quotas_hold(open());
    many_at_once(open());
}

fn place(number: u32) -> Place {
    Place(format!("{number:032x}"))
}

fn upload(number: u32, repository: &str) -> Upload {
    let state = Algorithm::Sha256.digester().save();
    let (algorithm, parts) = (Algorithm::Sha256, String::new());
    Upload { place: place(number), repository: repository.into(), algorithm, size: 0, state, parts }
}

/// Puts a blob of `text` at a place of its own.
fn blob(meta: &dyn Meta, number: u32, repository: &str, text: &str, now: u64) -> Descriptor {
    let descriptor = Descriptor::of("application/octet-stream", text.as_bytes());
    meta.start_upload(upload(number, repository), 1000, now).expect("start");
    let done = meta.finish_upload(repository, &place(number), &descriptor.digest, descriptor.size, None, now);
    assert!(done.expect("finish"), "the upload was there");
    descriptor
}

fn manifest(repository: &str, text: &str, blobs: &[&Descriptor], tags: &[&str], now: u64) -> ManifestPut {
    ManifestPut {
        repository: repository.into(),
        descriptor: Descriptor::of(media_type::MANIFEST, text.as_bytes()),
        bytes: text.into(),
        blobs: blobs.iter().map(|d| (*d).clone()).collect(),
        manifests: Vec::new(),
        sparse: false,
        subject: None,
        artifact_type: None,
        annotations: Default::default(),
        tags: tags.iter().map(|t| (*t).into()).collect(),
        rule: any_change(),
        quota_bytes: None,
        now,
    }
}

fn put(meta: &dyn Meta, put: ManifestPut) -> Digest {
    let digest = put.descriptor.digest.clone();
    meta.put_manifest(put).expect("put");
    digest
}

fn by_tag(meta: &dyn Meta, repository: &str, tag: &str) -> Option<Digest> {
    meta.descriptor(repository, &Name::Tag(tag.into())).expect("descriptor").map(|d| d.digest)
}

fn thrown_away(meta: &dyn Meta) -> Vec<Place> {
    let mut places: Vec<Place> = meta.trash(1000).expect("trash").into_iter().map(|trash| trash.place).collect();
    places.sort();
    places
}

fn uploads_live_and_end((meta, other): Pair) {
    let mut first = upload(1, "a");
    meta.start_upload(first.clone(), 2, 100).expect("start");
    assert_eq!(other.upload("a", &place(1)).expect("upload"), Some(first.clone()), "both see it");
    assert_eq!(meta.upload("b", &place(1)).expect("upload"), None, "through its own repository only");
    (first.size, first.parts, first.algorithm) = (7, "somewhere".into(), Algorithm::Sha256);
    assert!(other.save_upload(first.clone(), 200).expect("save"));
    assert_eq!(meta.upload("a", &place(1)).expect("upload"), Some(first.clone()));
    meta.start_upload(upload(2, "a"), 2, 300).expect("start");
    match meta.start_upload(upload(3, "a"), 2, 300) {
        Err(RegistryError::UploadsLimit { limit: 2 }) => {}
        other => panic!("a third of two uploads: {other:?}"),
    }
    assert!(!meta.cancel_upload("b", &place(2), 300).expect("cancel"), "another repository's");
    assert!(meta.cancel_upload("a", &place(2), 300).expect("cancel"));
    assert!(!meta.cancel_upload("a", &place(2), 300).expect("cancel"), "it is gone");
    assert_eq!(meta.expire_uploads(200, 400).expect("expire"), 0, "touched at 200");
    assert_eq!(meta.expire_uploads(201, 400).expect("expire"), 1);
    assert!(!meta.save_upload(first.clone(), 500).expect("save"), "it is gone");
    assert!(!meta.finish_upload("a", &place(1), &Digest::of(b""), 0, None, 500).expect("finish"), "it is gone");
    let trash = meta.trash(10).expect("trash");
    let kept = |number: u32, parts: &str| Trash { place: place(number), parts: parts.into() };
    assert_eq!(trash, [kept(2, ""), kept(1, "somewhere")], "the oldest first");
    assert!(meta.knows(&place(1)).expect("knows") && !meta.knows(&place(9)).expect("knows"));
    meta.forget(vec![place(1), place(2), place(9)]).expect("forget");
    assert_eq!(other.trash(10).expect("trash"), []);
}

fn content_is_kept_once((meta, other): Pair) {
    let text = blob(&*meta, 1, "a", "text", 100);
    blob(&*other, 2, "b", "text", 100);
    blob(&*meta, 3, "a", "text", 100);
    assert_eq!(meta.blob("a", &text.digest).expect("blob"), meta.blob("b", &text.digest).expect("blob"));
    assert_eq!(meta.blob("a", &text.digest).expect("blob").map(|held| held.place), Some(place(1)));
    assert_eq!(thrown_away(&*meta), [place(2), place(3)]);
    assert_eq!(meta.all_blobs("", 10).expect("blobs").len(), 1);
    let totals = super::Totals { blobs: 1, blob_bytes: 4, trash: 2, ..Default::default() };
    assert_eq!(meta.totals().expect("totals"), totals);
    assert_eq!(meta.all_blobs(&text.digest.to_string(), 10).expect("blobs").len(), 0);
    // Lost bytes are replaced for all who hold them; only those.
    let again = |number: u32, lost: u32| {
        meta.start_upload(upload(number, "c"), 1000, 150).expect("start");
        meta.finish_upload("c", &place(number), &text.digest, 4, Some(&place(lost)), 150).expect("finish")
    };
    assert!(again(10, 9) && again(11, 1));
    assert_eq!(meta.blob("a", &text.digest).expect("blob").map(|held| held.place), Some(place(11)));
    assert_eq!(thrown_away(&*meta), [place(1), place(2), place(3), place(10)]);
    meta.forget(vec![place(10)]).expect("forget");
    assert!(meta.delete_blob("c", &text.digest, 200).expect("delete"));
    // Gone for good, then pushed again: another place.
    assert!(meta.delete_blob("a", &text.digest, 200).expect("delete"));
    assert!(!meta.delete_blob("a", &text.digest, 200).expect("delete"));
    assert!(meta.blob("b", &text.digest).expect("blob").is_some(), "the other one holds it still");
    assert!(meta.delete_blob("b", &text.digest, 200).expect("delete"));
    assert!(meta.all_blobs("", 10).expect("blobs").is_empty());
    assert_eq!(thrown_away(&*meta), [place(1), place(2), place(3), place(11)]);
    blob(&*meta, 4, "a", "text", 300);
    assert_eq!(meta.blob("a", &text.digest).expect("blob").map(|held| held.place), Some(place(4)));
}

fn membership_is_per_repository((meta, _): Pair) {
    let text = blob(&*meta, 1, "a", "text", 100);
    assert!(meta.blob("b", &text.digest).expect("blob").is_none());
    assert!(!meta.mount("b", "c", &text.digest, 100).expect("mount"), "from one that does not hold it");
    assert!(!meta.mount("b", "a", &Digest::of(b"other"), 100).expect("mount"));
    assert!(meta.mount("b", "a", &text.digest, 100).expect("mount"));
    assert!(meta.mount("b", "a", &text.digest, 100).expect("mounting twice is fine"));
    assert!(meta.blob("b", &text.digest).expect("blob").is_some());
    assert_eq!(meta.holders(&text.digest, 10).expect("holders"), ["a", "b"]);
    assert_eq!(meta.holders(&text.digest, 1).expect("holders"), ["a"]);
    assert!(meta.holders(&Digest::of(b"other"), 1).expect("holders").is_empty());
}

fn manifests_are_whole_or_not_there((meta, _): Pair) {
    let config = blob(&*meta, 1, "a", "{}", 100);
    let refused = |put: ManifestPut| match meta.put_manifest(put) {
        Err(RegistryError::Manifest { unknown, .. }) => unknown,
        other => panic!("expected a refusal, found {other:?}"),
    };
    let missing = Descriptor::of("x/y", b"missing");
    assert_eq!(refused(manifest("a", "m", &[&config, &missing], &["t"], 100)), Some(missing.digest.clone()));
    let larger = Descriptor { size: 3, ..config.clone() };
    assert_eq!(refused(manifest("a", "m", &[&larger], &["t"], 100)), None);
    assert_eq!(refused(manifest("b", "m", &[&config], &["t"], 100)), Some(config.digest.clone()));
    assert_eq!(by_tag(&*meta, "a", "t"), None, "nothing of a refused one stays");
    assert_eq!(meta.tags("a", "", 10).expect("tags"), None, "no manifest was ever there");
    assert!(meta.repositories("", 10).expect("repositories").is_empty());

    let member = put(&*meta, manifest("a", "m", &[&config], &[], 100));
    let stored = meta.manifest("a", &Name::Digest(member.clone())).expect("manifest").expect("it is there");
    assert_eq!((stored.bytes.as_slice(), stored.descriptor.size), (&b"m"[..], 1));
    assert_eq!(stored.descriptor.media_type, media_type::MANIFEST);
    assert_eq!(meta.tags("a", "", 10).expect("tags"), Some(Vec::new()));
    let mut index = manifest("a", "index", &[], &["i"], 100);
    index.manifests = vec![Descriptor::of(media_type::MANIFEST, b"m"), missing.clone()];
    assert_eq!(refused(index.clone()), Some(missing.digest));
    index.sparse = true;
    put(&*meta, index.clone());
    put(&*meta, index.clone());
    index.manifests[0].size = 2;
    index.bytes = b"index 2".to_vec();
    index.descriptor = Descriptor::of(media_type::INDEX, b"index 2");
    assert_eq!(refused(index), None, "a member that is here has its size");
}

fn tags_move_by_their_rule((meta, other): Pair) {
    let one = put(&*meta, manifest("a", "1", &[], &["x", "y"], 100));
    let two = put(&*other, manifest("a", "2", &[], &["x"], 200));
    assert_eq!((by_tag(&*meta, "a", "x"), by_tag(&*meta, "a", "y")), (Some(two.clone()), Some(one.clone())));
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = asked.clone();
    let rule: super::TagRule = Arc::new(move |change: &TagChange| {
        seen.lock().expect("a list").push(change.clone());
        if change.old.is_some() { Err("it is there".into()) } else { Ok(()) }
    });
    let mut third = manifest("a", "3", &[], &["z", "x"], 300);
    third.rule = rule.clone();
    match meta.put_manifest(third.clone()) {
        Err(RegistryError::Refused { reason }) => assert_eq!(reason, "it is there"),
        other => panic!("expected a refusal, found {other:?}"),
    }
    assert_eq!(by_tag(&*meta, "a", "z"), None, "all of its tags, or none");
    assert!(meta.manifest("a", &Name::Digest(third.descriptor.digest.clone())).expect("manifest").is_none());
    {
        let asked = asked.lock().expect("a list");
        let change = asked.iter().find(|change| change.tag == "x").expect("asked for x");
        assert_eq!((&change.old, &change.new), (&Some(two.clone()), &Some(third.descriptor.digest.clone())));
    }
    let name = Name::Tag("x".into());
    assert!(matches!(meta.delete_manifest("a", &name, rule.clone(), 400), Err(RegistryError::Refused { .. })));
    let whole = Name::Digest(two.clone());
    assert!(matches!(meta.delete_manifest("a", &whole, rule, 400), Err(RegistryError::Refused { .. })));
    assert_eq!(by_tag(&*meta, "a", "x"), Some(two));
}

fn deleting_takes_what_hangs_on_it((meta, _): Pair) {
    let config = blob(&*meta, 1, "a", "{}", 100);
    let one = put(&*meta, manifest("a", "1", &[&config], &["x", "y"], 100));
    let two = put(&*meta, manifest("a", "2", &[&config], &["z"], 100));
    assert!(meta.delete_manifest("a", &Name::Tag("x".into()), any_change(), 200).expect("delete"));
    assert!(!meta.delete_manifest("a", &Name::Tag("x".into()), any_change(), 200).expect("delete"));
    assert!(!meta.delete_manifest("b", &Name::Tag("y".into()), any_change(), 200).expect("delete"));
    assert_eq!(by_tag(&*meta, "a", "y"), Some(one.clone()), "the manifest stays with its other tag");
    assert!(meta.delete_manifest("a", &Name::Digest(one.clone()), any_change(), 200).expect("delete"));
    assert!(!meta.delete_manifest("a", &Name::Digest(one.clone()), any_change(), 200).expect("delete"));
    assert_eq!(by_tag(&*meta, "a", "y"), None, "its tags go with it");
    assert!(meta.manifest("a", &Name::Digest(one)).expect("manifest").is_none());
    assert_eq!(by_tag(&*meta, "a", "z"), Some(two));
    assert_eq!(meta.tags("a", "", 10).expect("tags"), Some(vec!["z".into()]));
    assert!(meta.blob("a", &config.digest).expect("blob").is_some(), "blobs stay until they are swept");
}

fn lists_are_pages_in_the_order_of_bytes((meta, _): Pair) {
    let tags = ["Z", "a", "a-b", "a.b", "a_b", "ab", "b"];
    put(&*meta, manifest("a", "1", &[], &["ab", "b", "a_b", "Z", "a", "a.b", "a-b"], 100));
    assert_eq!(meta.tags("a", "", 100).expect("tags").expect("a list"), tags);
    assert_eq!(meta.tags("a", "", 2).expect("tags").expect("a list"), tags[..2]);
    assert_eq!(meta.tags("a", "a", 2).expect("tags").expect("a list"), tags[2..4]);
    assert_eq!(meta.tags("a", "a0", 2).expect("tags").expect("a list"), tags[4..6], "after one that is not there");
    assert!(meta.tags("a", "b", 2).expect("tags").expect("a list").is_empty());
    assert!(meta.tags("a", "", 0).expect("tags").expect("a list").is_empty());
    for name in ["b/c", "b", "b-c", "b.c"] {
        put(&*meta, manifest(name, "1", &[], &[], 100));
    }
    blob(&*meta, 1, "only/blobs", "x", 100);
    assert_eq!(meta.repositories("", 10).expect("repositories"), ["a", "b", "b-c", "b.c", "b/c"]);
    assert_eq!(meta.repositories("b-c", 1).expect("repositories"), ["b.c"]);
}

fn referrers_are_found((meta, _): Pair) {
    let subject = Digest::of(b"subject");
    let mut expected = Vec::new();
    for (text, kind) in [("1", "a/b"), ("2", "c/d"), ("3", "a/b")] {
        let mut one = manifest("a", text, &[], &[], 100);
        one.subject = Some(subject.clone());
        one.artifact_type = Some(kind.into());
        one.annotations.insert("k".into(), text.into());
        expected.push((put(&*meta, one), kind));
    }
    expected.sort_by_key(|(digest, _)| digest.to_string());
    let list = |kind: Option<&str>, after: &str, limit| {
        let found = meta.referrers("a", &subject, kind, after, limit).expect("referrers");
        found.into_iter().map(|descriptor| descriptor.digest).collect::<Vec<_>>()
    };
    let all: Vec<Digest> = expected.iter().map(|(digest, _)| digest.clone()).collect();
    assert_eq!(list(None, "", 10), all);
    assert_eq!(list(None, &all[0].to_string(), 1), all[1..2]);
    let some: Vec<Digest> = expected.iter().filter(|(_, kind)| *kind == "a/b").map(|(d, _)| d.clone()).collect();
    assert_eq!(list(Some("a/b"), "", 10), some);
    assert!(list(Some("e/f"), "", 10).is_empty());
    let one = &meta.referrers("a", &subject, Some("c/d"), "", 1).expect("referrers")[0];
    assert_eq!((one.annotations["k"].as_str(), one.artifact_type.as_deref()), ("2", Some("c/d")));
    assert!(meta.referrers("b", &subject, None, "", 10).expect("referrers").is_empty());
    assert!(meta.delete_manifest("a", &Name::Digest(all[0].clone()), any_change(), 200).expect("delete"));
    assert_eq!(list(None, "", 10), all[1..]);
}

fn sweep(meta: &dyn Meta, before: u64) -> usize {
    let (mut removed, mut from) = (0, None);
    // Steps of two, so that there are several.
    loop {
        let (count, next) = meta.sweep(from, before, 2, before).expect("sweep");
        removed += count;
        match next {
            None => return removed,
            next => from = next,
        }
    }
}

fn sweeping_keeps_what_is_named((meta, other): Pair) {
    let named = blob(&*meta, 1, "a", "named", 100);
    let lost = blob(&*meta, 2, "a", "lost", 100);
    let young = blob(&*meta, 3, "a", "young", 200);
    let asked = blob(&*meta, 4, "a", "asked for", 100);
    // Named in one repository, lost in another.
    meta.mount("b", "a", &named.digest, 100).expect("mount");
    put(&*meta, manifest("a", "m", &[&named], &["t"], 100));
    other.seen(vec![Seen::Blob("a".into(), asked.digest.clone())], 200).expect("seen");
    other.seen(vec![Seen::Blob("a".into(), Digest::of(b"nobody"))], 200).expect("what is gone is left out");
    assert_eq!(sweep(&*meta, 100), 0);
    assert_eq!(sweep(&*meta, 150), 2, "lost in a, named in b");
    let holds = |repository: &str, what: &Descriptor| meta.blob(repository, &what.digest).expect("blob").is_some();
    assert!(
        holds("a", &named) && !holds("b", &named) && !holds("a", &lost) && holds("a", &young) && holds("a", &asked)
    );
    assert_eq!(thrown_away(&*meta), [place(2)]);
    assert!(meta.delete_manifest("a", &Name::Tag("t".into()), any_change(), 300).expect("delete"));
    assert_eq!(sweep(&*meta, 1000), 2, "an untagged manifest still names its blobs");
    assert!(holds("a", &named));
    let digest = Descriptor::of(media_type::MANIFEST, b"m").digest;
    assert!(meta.delete_manifest("a", &Name::Digest(digest), any_change(), 300).expect("delete"));
    assert_eq!(sweep(&*meta, 1000), 1);
    assert!(meta.all_blobs("", 10).expect("blobs").is_empty());
}

fn retention_keeps_what_it_says((meta, _): Pair) {
    for (number, tag) in ["one", "two", "three", "v1"].iter().enumerate() {
        put(&*meta, manifest("a", tag, &[], &[tag], 100 * (number as u64 + 1)));
    }
    let mut signature = manifest("a", "signature", &[], &[], 100);
    signature.subject = Some(Digest::of(b"one"));
    let signature = put(&*meta, signature);
    let mut index = manifest("a", "index", &[], &[], 100);
    index.manifests = vec![Descriptor::of(media_type::MANIFEST, b"two")];
    let index = put(&*meta, index);
    meta.seen(vec![Seen::Manifest("a".into(), Name::Tag("one".into()))], 900).expect("seen");
    let retention = Retention {
        newest: Some(1),
        patterns: Vec::new(),
        pushed_within: None,
        pulled_within: Some(200),
        untagged_after: None,
    };
    let names = |dry: bool, policy: &Retention| meta.retain("a", policy, 1000, dry).expect("retain");
    let tag = |name: &str| Name::Tag(name.into());
    assert_eq!(names(true, &retention), [tag("three"), tag("two")]);
    assert_eq!(by_tag(&*meta, "a", "two"), Some(Digest::of(b"two")), "a dry run removes nothing");
    assert_eq!(names(false, &retention), [tag("three"), tag("two")]);
    assert_eq!(names(false, &retention), []);
    assert_eq!(meta.tags("a", "", 10).expect("tags").expect("a list"), ["one", "v1"]);
    let untagged = Retention { untagged_after: Some(500), ..Retention::default() };
    let mut found = names(false, &untagged);
    found.sort_by_key(|name| format!("{name:?}"));
    let mut expected = vec![
        Name::Digest(index),
        // Only the index kept it.
        Name::Digest(Digest::of(b"two")),
        Name::Digest(Digest::of(b"three")),
    ];
    expected.sort_by_key(|name| format!("{name:?}"));
    assert_eq!(found, expected, "what a tag or a subject leads to stays");
    assert!(meta.manifest("a", &Name::Digest(signature)).expect("manifest").is_some());
    assert_eq!(meta.retain("nobody", &untagged, 1000, false).expect("retain"), []);
}

fn quotas_hold((meta, _): Pair) {
    let config = blob(&*meta, 1, "a", "0123456789", 100);
    let limited =
        |text: &str, limit| ManifestPut { quota_bytes: Some(limit), ..manifest("a", text, &[&config], &["t"], 100) };
    match meta.put_manifest(limited("12345", 14)) {
        Err(RegistryError::Quota { limit: 14, needed: 15, .. }) => {}
        other => panic!("expected a refusal, found {other:?}"),
    }
    assert_eq!(meta.usage("a").expect("usage"), Usage { blobs: 1, manifests: 0, tags: 0, bytes: 10 });
    put(&*meta, limited("12345", 15));
    assert_eq!(meta.usage("a").expect("usage"), Usage { blobs: 1, manifests: 1, tags: 1, bytes: 15 });
    assert_eq!(meta.usage("b").expect("usage"), Usage::default());
}

fn many_at_once((meta, other): Pair) {
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let meta: &dyn Meta = if thread % 2 == 0 { &*meta } else { &*other };
            scope.spawn(move || {
                for turn in 0..20u32 {
                    let number = 1000 + thread * 100 + turn;
                    // The same content by several threads, and content of one's own.
                    let shared = blob(meta, number, "a", &format!("shared {turn}"), 100);
                    let own = blob(meta, number + 5000, "a", &format!("own {number}"), 100);
                    let tag = format!("t{thread}-{turn}");
                    put(meta, manifest("a", &format!("m {number}"), &[&shared, &own], &[&tag, "last"], 100));
                    assert!(meta.delete_blob("a", &own.digest, 100).expect("delete"));
                }
            });
        }
    });
    assert_eq!(meta.tags("a", "", 1000).expect("tags").expect("a list").len(), 161);
    assert_eq!(meta.all_blobs("", 1000).expect("blobs").len(), 20);
    // Every place is known once: 160 own ones, and all but one of each that is shared.
    assert_eq!(thrown_away(&*meta).len(), 160 + 140);
}
