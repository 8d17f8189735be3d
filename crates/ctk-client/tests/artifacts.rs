//! Referrers, artifacts, deletions and copies, against `docker-registry`, which keeps no list of referrers, and against
//! a little server that keeps one.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::*;
use ctk_client::{
    Artifact, ArtifactFile, Client, ClientError, CopyFrom, CopyOptions, CopyTo, DeleteOptions, DoomedKind, Listing,
    PushOptions, referrers_tag,
};
use ctk_oci::{Algorithm, Descriptor, Digest, Document, Index, Manifest, Platform, Reference, media_type};
use ctk_store::{Layout, Store};

fn push(client: &Client, to: &Reference, root: &Descriptor, store: &Store) {
    client.push(to, root, store, &PushOptions::default(), None, &never()).unwrap();
}

fn file(directory: &Path, name: &str, content: &str) -> ArtifactFile {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    let annotations = BTreeMap::new();
    ArtifactFile { path, media_type: "text/plain".into(), title: Some(name.into()), annotations }
}

fn attach(client: &Client, to: &Reference, subject: &Descriptor, kind: &str, note: &str) -> Descriptor {
    let artifact = Artifact {
        artifact_type: kind.into(),
        subject: Some(subject.clone()),
        annotations: [("note".to_owned(), note.to_owned())].into(),
        ..Artifact::default()
    };
    client.push_artifact(&to.with_digest(subject.digest.clone()), &artifact, None, &never()).unwrap()
}

fn found(client: &Client, reference: &Reference, kind: Option<&str>) -> Vec<Digest> {
    let referrers = client.referrers(reference, None, kind, false, &never()).unwrap();
    referrers.found.into_iter().map(|referrer| referrer.descriptor.digest).collect()
}

#[test]
fn referrers_by_the_tag_scheme() {
    if !has("docker-registry") {
        return;
    }
    let registry = DockerRegistry::start("");
    let (_a, store) = store();
    let client = client();
    let root = image(&store, "amd64", 31, 1, 1000);
    let name = registry.reference("app:1");
    push(&client, &name, &root, &store);
    assert_eq!(found(&client, &name, None), []);

    // By two clients side by side: neither overwrites what the other wrote.
    let spread: Vec<Descriptor> = std::thread::scope(|scope| {
        let one =
            |n: usize| (0..4).map(|m| attach(&common::client(), &name, &root, "a/b", &format!("{n}.{m}"))).collect();
        let threads: Vec<_> = (0..2).map(|n| scope.spawn(move || -> Vec<Descriptor> { one(n) })).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let signature = attach(&client, &name, &root, "application/vnd.sig+json", "s");
    let of_signature = attach(&client, &name, &signature, "c/d", "below");

    let referrers = client.referrers(&name, None, None, true, &never()).unwrap();
    assert_eq!((referrers.listing, referrers.found.len()), (Listing::Tag, 9));
    assert_eq!(referrers.subject.digest, root.digest);
    assert!(spread.iter().all(|one| referrers.found.iter().any(|r| r.descriptor.digest == one.digest)));
    let listed = referrers.found.iter().find(|r| r.descriptor.digest == signature.digest).unwrap();
    assert_eq!(listed.descriptor.artifact_type.as_deref(), Some("application/vnd.sig+json"));
    assert_eq!(listed.descriptor.annotations["note"], "s");
    assert_eq!(listed.referrers[0].descriptor.digest, of_signature.digest);
    assert_eq!(found(&client, &name, Some("application/vnd.sig+json")), std::slice::from_ref(&signature.digest));
    assert!(client.tags(&name, &never()).unwrap().contains(&referrers_tag(&root.digest)));

    // An attachment that goes leaves the list.
    assert!(client.delete(&name.with_digest(spread[0].digest.clone()), &never()).unwrap());
    assert_eq!(found(&client, &name, None).len(), 8);

    let options = DeleteOptions { referrers: true, ..DeleteOptions::default() };
    let doomed = client.doomed(&name, options, &never()).unwrap();
    let count = |kind| doomed.iter().filter(|one| one.kind == kind).count();
    assert_eq!((count(DoomedKind::Referrer), count(DoomedKind::List), count(DoomedKind::Manifest)), (9, 2, 1));
    assert_eq!(client.head(&name, &never()).unwrap().unwrap().digest, root.digest, "a plan changes nothing");
    for one in &doomed {
        assert!(client.delete_doomed(one, &never()).unwrap(), "{one:?}");
    }
    assert_eq!(client.head(&name, &never()).unwrap(), None);
    assert_eq!(client.tags(&name, &never()).unwrap(), Vec::<String>::new());
    assert_eq!(client.doomed(&name, options, &never()).unwrap(), []);
}

#[test]
fn what_a_registry_lists_in_pages() {
    let entry = |n: u8, kind: &str| {
        format!(
            r#"{{"mediaType":"{}","digest":"sha256:{n:064}","size":2,"artifactType":"{kind}"}}"#,
            media_type::MANIFEST
        )
    };
    let page = move |entries: &[String]| {
        format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#, media_type::INDEX, entries.join(","))
    };
    let manifest = r#"{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = asked.clone();
    let server = little_server(move |request| {
        let line = request.lines().next().unwrap_or_default().to_owned();
        log.lock().unwrap().push(line.clone());
        let index = format!("Content-Type: {}\r\n", media_type::INDEX);
        if line.contains("/referrers/") && line.contains("last=") {
            return http("200 OK", &index, &page(&[entry(2, "x/y"), entry(3, "x/z+json")]));
        }
        if line.contains("/referrers/") {
            let link = format!("{index}Link: </v2/app/referrers/more?last=1>; rel=\"next\"\r\n");
            return http("200 OK", &link, &page(&[entry(1, "x/y")]));
        }
        let head = format!("Content-Type: {}\r\nWarning: 299 - \"this image goes in May\"\r\n", media_type::MANIFEST);
        http("200 OK", &head, manifest)
    });
    let reference: Reference = format!("{server}/app:1").parse().unwrap();
    let client = client();
    let all = client.referrers(&reference, None, None, false, &never()).unwrap();
    assert_eq!((all.listing, all.found.len()), (Listing::Registry, 3));
    // What a registry did not filter is filtered here.
    assert_eq!(found(&client, &reference, Some("x/z+json")).len(), 1);
    assert!(asked.lock().unwrap().iter().any(|line| line.contains("?artifactType=x/z%2Bjson ")));
    // Each warning once, however often it was heard.
    let warnings = client.options().warnings.take();
    assert_eq!(warnings.iter().map(|w| w.text.as_str()).collect::<Vec<_>>(), ["this image goes in May"]);
    assert_eq!(warnings[0].host, server.to_string());
    assert!(client.options().warnings.take().is_empty());
}

#[test]
fn files_go_there_and_back() {
    if !has("docker-registry") {
        return;
    }
    let registry = DockerRegistry::start("");
    let directory = tempfile::tempdir().unwrap();
    let name = registry.reference("files:1");
    let artifact = Artifact {
        artifact_type: "application/vnd.test".into(),
        files: vec![file(directory.path(), "a", "aaa"), file(directory.path(), "b", "bbb")],
        ..Artifact::default()
    };
    let pushed = client().push_artifact(&name, &artifact, None, &never()).unwrap();
    assert_eq!(client().push_artifact(&name, &artifact, None, &never()).unwrap(), pushed, "the same bytes");
    let (found, bytes) = client().manifest(&name, None, &never()).unwrap();
    assert_eq!(found.digest, pushed.digest);
    let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(manifest.config.media_type, media_type::EMPTY_JSON);
    for (layer, (title, content)) in manifest.layers.iter().zip([("a", "aaa"), ("b", "bbb")]) {
        assert_eq!(layer.annotations["org.opencontainers.image.title"], title);
        let mut read = Vec::new();
        client().fetch_blob(&name, layer, &mut read, None, &never()).unwrap();
        assert_eq!(read, content.as_bytes());
    }
    let gone =
        Artifact { files: vec![ArtifactFile { path: "/nonexistent".into(), ..artifact.files[0].clone() }], ..artifact };
    let error = client().push_artifact(&name, &gone, None, &never()).unwrap_err();
    assert!(matches!(&error, ClientError::Read { path, .. } if path == Path::new("/nonexistent")), "{error}");
}

#[test]
fn copies_take_referrers_along_everywhere() {
    if !has("docker-registry") {
        return;
    }
    let (one, two) = (DockerRegistry::start(""), DockerRegistry::start(""));
    let (_a, first) = store();
    let client = client();
    let root = index(&first, 41, 2, 50_000);
    let members: Index = first.document("index", &root).unwrap().into_value();
    let from = one.reference("app:1");
    push(&client, &from, &root, &first);
    let on_index = attach(&client, &from, &root, "a/index", "i");
    let on_member = attach(&client, &from, &members.manifests[1], "a/member", "m");
    let on_attachment = attach(&client, &from, &on_member, "a/deep", "d");

    let options = CopyOptions { referrers: true, ..CopyOptions::default() };
    // Registry → layout → store → registry: every digest as it was.
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(&folder.path().join("layout"));
    let copied = client.transfer(CopyFrom::Registry(&from), CopyTo::Local(&layout), options, None, &never()).unwrap();
    assert_eq!((copied.root.digest.clone(), copied.referrers.len()), (root.digest.clone(), 3));
    assert_eq!((copied.blobs.uploaded, copied.blobs.present), (7, 2));
    let others: Vec<Descriptor> = copied.referrers.iter().map(|(_, referrer)| referrer.clone()).collect();
    let local = |blobs: Arc<dyn ctk_store::Blobs>| CopyFrom::Local {
        blobs,
        store: None,
        root: root.clone(),
        others: others.clone(),
        shown: "x".into(),
    };
    let (_b, second) = store();
    let copied =
        client.transfer(local(Arc::new(layout.clone())), CopyTo::Store(&second), options, None, &never()).unwrap();
    assert_eq!(copied.referrers.len(), 3);
    let to = two.reference("deep/er/app:x");
    let copied = client.transfer(local(Arc::new(second)), CopyTo::Registry(&to), options, None, &never()).unwrap();
    assert_eq!((copied.referrers.len(), copied.blobs.uploaded), (3, 7));
    assert_eq!(found(&client, &to, None), [on_index.digest]);
    let member = to.with_digest(members.manifests[1].digest.clone());
    assert_eq!(found(&client, &member, None), std::slice::from_ref(&on_member.digest));
    assert_eq!(found(&client, &to.with_digest(on_member.digest), None), [on_attachment.digest]);

    // Again: nothing is sent. Registry to registry: nothing that the target has is asked for.
    let copied = copy(&client, &from, &to, options).unwrap();
    assert_eq!((copied.blobs.uploaded, copied.blobs.mounted), (0, 0));
    // Within a registry everything is mounted.
    let within = two.reference("other:1");
    let arm: Platform = "linux/arm64".parse().unwrap();
    let copied = copy(&client, &to, &within, CopyOptions { platform: Some(&arm), referrers: true }).unwrap();
    assert_eq!(copied.root.digest, members.manifests[1].digest);
    assert_eq!((copied.blobs.uploaded, copied.blobs.mounted + copied.blobs.present, copied.referrers.len()), (0, 5, 2));
}

#[test]
fn members_that_several_indexes_share_go_before_them() {
    if !has("docker-registry") {
        return;
    }
    let (one, two) = (DockerRegistry::start(""), DockerRegistry::start(""));
    let (_a, store) = store();
    let client = client();
    let shared = image(&store, "amd64", 51, 1, 1000);
    let nested = |other: u64| {
        let members = vec![shared.clone(), image(&store, "arm64", other, 1, 1000)];
        store.put(media_type::INDEX, Document::new(Index::new(members)).bytes()).unwrap()
    };
    let root = store.put(media_type::INDEX, Document::new(Index::new(vec![nested(52), nested(53)])).bytes()).unwrap();
    let (from, to) = (one.reference("app:1"), two.reference("app:1"));
    push(&client, &from, &root, &store);
    assert_eq!(copy(&client, &from, &to, CopyOptions::default()).unwrap().root.digest, root.digest);
    assert_eq!(client.head(&to, &never()).unwrap().unwrap().digest, root.digest);
}

#[test]
fn damaged_layouts_are_told() {
    if !has("docker-registry") {
        return;
    }
    let registry = DockerRegistry::start("");
    let (_a, store) = store();
    let root = image(&store, "amd64", 61, 1, 100_000);
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(folder.path());
    let local = |blobs: Arc<dyn ctk_store::Blobs>| CopyFrom::Local {
        blobs,
        store: None,
        root: root.clone(),
        others: Vec::new(),
        shown: "oci:x".into(),
    };
    let client = client();
    client
        .transfer(local(Arc::new(store.clone())), CopyTo::Local(&layout), CopyOptions::default(), None, &never())
        .unwrap();
    let manifest: Manifest = store.document("manifest", &root).unwrap().into_value();
    let blob = folder.path().join("blobs/sha256").join(manifest.layers[0].digest.hex());
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[50_000] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let to = registry.reference("app:1");
    let error =
        client.transfer(local(Arc::new(layout.clone())), CopyTo::Registry(&to), CopyOptions::default(), None, &never());
    assert!(error.unwrap_err().to_string().contains("content does not match"));
    assert_eq!(client.head(&to, &never()).unwrap(), None);
    std::fs::remove_file(&blob).unwrap();
    let error = client.transfer(local(Arc::new(layout)), CopyTo::Registry(&to), CopyOptions::default(), None, &never());
    assert!(error.unwrap_err().to_string().contains(manifest.layers[0].digest.hex()));
}

#[test]
fn sha512_is_a_digest_too() {
    if !has("docker-registry") {
        return;
    }
    let registry = DockerRegistry::start("");
    let (_a, first) = store();
    let client = client();
    let plain = image(&first, "amd64", 71, 1, 10_000);
    let mut manifest: Manifest = first.document("manifest", &plain).unwrap().into_value();
    let bytes = first.read(&manifest.layers[0], 1 << 20).unwrap();
    let mut digester = Algorithm::Sha512.digester();
    digester.update(&bytes);
    let layer = Descriptor::new(media_type::LAYER_GZIP, digester.finish(), bytes.len() as u64);
    let mut ingest = first.ingest(Some(&layer)).unwrap();
    ingest.write_bytes(&bytes).unwrap();
    ingest.commit().unwrap();
    manifest.layers[0] = layer.clone();
    let root = first.put(media_type::MANIFEST, Document::new(manifest).bytes()).unwrap();
    let (proxy, name) = (Proxy::before(&registry.host), "app:1");
    push(&client, &proxy.reference(name), &root, &first);
    assert!(!proxy.seen("POST /v2/app/blobs/uploads/?digest-algorithm=sha512").is_empty());
    let (_b, second) = store();
    let pulled = client.pull(&registry.reference(name), None, ctk_store::Depth::Layers, &second, None, &never());
    assert_eq!(pulled.unwrap().digest, root.digest);
    assert_eq!(second.read(&layer, 1 << 20).unwrap(), bytes);
}
