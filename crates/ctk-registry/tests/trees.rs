//! Registries and images in folders: what `docker-registry` wrote is read, layouts go in and out.

#[path = "../../ctk-client/tests/common/mod.rs"]
mod common;

use std::process::Command;

use common::{DockerRegistry, client, has, image, index, never, run, store};
use ctk_client::PushOptions;
use ctk_registry::{Imported, ServeOptions, Storage, serve};
use ctk_store::Depth;

#[test]
fn the_folder_of_docker_registry_is_imported_while_it_serves() {
    if !has("docker-registry") {
        return;
    }
    let theirs = DockerRegistry::start("");
    let (_a, from) = store();
    let many = index(&from, 90, 2, 50_000);
    let one = image(&from, "amd64", 91, 2, 50_000);
    let push = |root, name: &str| {
        client().push(&theirs.reference(name), root, &from, &PushOptions::default(), None, &never()).unwrap();
    };
    push(&many, "team/app:1");
    push(&many, "team/app:latest");
    push(&one, "team/app/deep:x");
    push(&one, "other:x");
    let folder = theirs.folder();
    let directory = tempfile::tempdir().unwrap();
    let server = serve(ServeOptions::new("127.0.0.1:0".parse().unwrap(), directory.path())).unwrap();
    let imported = server.storage().import_distribution(&folder).unwrap();
    let blobs = imported.blobs;
    assert!(blobs > 0);
    assert_eq!(
        imported,
        Imported { repositories: 3, blobs, manifests: 3 + 1 + 1, tags: 4, refused: vec![] },
        "an index of two images, and an image twice"
    );
    let again = server.storage().import_distribution(&folder).unwrap();
    assert_eq!((again.blobs, again.tags, again.refused), (0, 4, vec![]));
    for (name, root) in
        [("team/app:1", &many), ("team/app:latest", &many), ("team/app/deep:x", &one), ("other:x", &one)]
    {
        let (_b, into) = store();
        let reference = format!("{}/{name}", server.host()).parse().unwrap();
        let pulled = client().pull(&reference, None, Depth::Layers, &into, None, &never()).unwrap();
        assert_eq!(pulled.digest, root.digest, "{name}");
    }
    assert_eq!(server.storage().check(true).unwrap().faults, []);
    // What is damaged there is told, and the rest comes.
    let hex = one.digest.hex();
    std::fs::write(folder.join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2])), "{}").unwrap();
    let fresh = tempfile::tempdir().unwrap();
    let partly = Storage::open(fresh.path()).unwrap().import_distribution(&folder).unwrap();
    assert_eq!(partly.tags, 2);
    assert!(partly.refused.iter().any(|text| text.starts_with("other:x: ")), "{:?}", partly.refused);
    let error = Storage::open(fresh.path()).unwrap().import_distribution(fresh.path()).unwrap_err();
    assert!(error.to_string().contains("docker/registry/v2/repositories"), "{error}");
}

#[test]
fn layouts_go_out_and_in() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = serve(ServeOptions::new("127.0.0.1:0".parse().unwrap(), one.path())).unwrap();
    let (_a, from) = store();
    let root = index(&from, 95, 2, 30_000);
    for tag in ["1", "latest"] {
        let to = format!("{}/team/app:{tag}", server.host()).parse().unwrap();
        client().push(&to, &root, &from, &PushOptions::default(), None, &never()).unwrap();
    }
    // A signature of it.
    let config = br#"{}"#;
    let descriptor = ctk_oci::Descriptor::of("application/vnd.oci.empty.v1+json", config);
    let path = format!("/v2/team/app/blobs/uploads/?digest={}", descriptor.digest);
    assert_eq!(common::ask(&server.host(), "POST", &path, "", config).0, 201);
    let subject = serde_json::to_value(&root).unwrap();
    let signature = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "some/signature",
        "config": descriptor, "layers": [descriptor], "subject": subject,
    });
    let signature = serde_json::to_vec(&signature).unwrap();
    let storage = server.storage();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let (signed, _) = storage.put_manifest("team/app", kind, &signature, None, None).unwrap();
    let layout = two.path().join("layout");
    assert_eq!(storage.export_layout("team/app", None, &layout).unwrap(), 4);
    assert!(storage.export_layout("team/app", None, &layout).unwrap_err().to_string().contains("not empty"));
    assert!(storage.export_layout("team/app", Some("2"), &two.path().join("x")).is_err());
    if has("skopeo") {
        let source = format!("oci:{}:latest", layout.display());
        run(Command::new("skopeo").args(["inspect", "--raw", &source]));
    }
    let fresh = Storage::open(two.path().join("data")).unwrap();
    let imported = fresh.import_layout("copy", &layout).unwrap();
    assert_eq!((imported.tags, imported.refused), (2, vec![]));
    assert_eq!(fresh.tag("copy", "latest").unwrap().unwrap().digest, root.digest);
    assert_eq!(fresh.manifest("copy", &signed.digest).unwrap().unwrap().bytes, signature);
    assert_eq!(fresh.check(true).unwrap().faults, []);
    // Another content under the name of a layer.
    let blob =
        std::fs::read_dir(layout.join("blobs/sha256")).unwrap().flatten().max_by_key(|e| e.metadata().unwrap().len());
    std::fs::write(blob.unwrap().path(), "other").unwrap();
    let other = Storage::open(two.path().join("other")).unwrap();
    let imported = other.import_layout("copy", &layout).unwrap();
    assert!(!imported.refused.is_empty());
    assert_eq!(other.check(true).unwrap().faults, []);
}
