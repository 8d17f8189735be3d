//! Pushing to real places, read back by skopeo and podman's relatives.

mod support;

use std::sync::Arc;

use ctk_plan::{Address, Kind, Reporter, Silent};
use ctk_push::{Found, PushRequest};
use support::{Bench, has, output, push_of};

/// Fields of `skopeo inspect`.
fn inspect(place: &str) -> serde_json::Value {
    serde_json::from_str(&output("skopeo", &["inspect", "--tls-verify=false", place])).unwrap()
}

#[test]
fn a_layout_keeps_what_others_put_into_it() {
    if !has("skopeo") {
        return;
    }
    let bench = Bench::new();
    let (one, two) = (bench.image("one"), bench.image("two"));
    let first = push_of("to \"oci:dist/images\" { tag \"1.0\" \"latest\" }");
    let second = push_of("to \"oci:dist/images\" { tag \"2.0\" \"latest\" }");
    assert_eq!(bench.observe(&first), ["absent", "absent"]);
    let published = bench.push(&first, &one).unwrap();
    assert_eq!(published[0].name, "oci:dist/images:1.0");
    assert_eq!(bench.observe(&first), [one.digest.to_string(), one.digest.to_string()]);
    bench.push(&second, &two).unwrap();
    assert_eq!(bench.observe(&second), [two.digest.to_string(), two.digest.to_string()]);
    assert_eq!(bench.observe(&first), [one.digest.to_string(), two.digest.to_string()]);
    for (tag, digest) in [("1.0", &one.digest), ("2.0", &two.digest), ("latest", &two.digest)] {
        let seen = inspect(&format!("oci:{}:{tag}", bench.path("dist/images")));
        assert_eq!(seen["Digest"], digest.to_string(), "{tag}");
    }
    // Again: nothing changes, not even the index.
    let index = std::fs::read(bench.path("dist/images/index.json")).unwrap();
    bench.push(&second, &two).unwrap();
    let again: ctk_oci::Index =
        serde_json::from_slice(&std::fs::read(bench.path("dist/images/index.json")).unwrap()).unwrap();
    let before: ctk_oci::Index = serde_json::from_slice(&index).unwrap();
    assert_eq!(again.manifests.len(), before.manifests.len());
    output(
        "skopeo",
        &[
            "copy",
            "--quiet",
            &format!("oci:{}:1.0", bench.path("dist/images")),
            &format!("dir:{}", bench.path("copied")),
        ],
    );
}

#[test]
fn nothing_is_seen_before_publishing() {
    let bench = Bench::new();
    let image = bench.image("one");
    let decl = push_of(
        "to \"oci:layout\" { tag \"a\" }\n to \"oci-archive:one.tar\" { tag \"a\" }\n to \"docker-archive:two.tar\"",
    );
    let folder = bench.folder();
    let reach = bench.reach(&[], &folder);
    let reporter = Reporter::new(Address::new(Kind::Push, "app"), Arc::new(Silent));
    let request = PushRequest { decl: &decl, image: &image, store: &bench.store, reach: &reach, reporter: &reporter };
    let staged = ctk_push::upload(&request).unwrap();
    assert_eq!(bench.observe(&decl), ["absent", "absent", "absent"]);
    drop(staged);
    let left: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(left, ["layout"]);
    bench.push(&decl, &image).unwrap();
    assert_eq!(Some(bench.observe(&decl)), bench.wanted(&decl, &image));
}

#[test]
fn archives_are_read_by_skopeo() {
    if !has("skopeo") {
        return;
    }
    let bench = Bench::new();
    let decl = push_of(
        "to \"oci-archive:out/oci.tar\" { tag \"1.0\" }\n to \"docker-archive:out/docker.tar\" { tag \"shop:1.0\" \"2\" }",
    );
    for content in ["one", "two"] {
        let image = bench.image(content);
        bench.push(&decl, &image).unwrap();
        assert_eq!(Some(bench.observe(&decl)), bench.wanted(&decl, &image));
        let seen = inspect(&format!("oci-archive:{}:1.0", bench.path("out/oci.tar")));
        assert_eq!(seen["Digest"], image.digest.to_string());
        let seen = inspect(&format!("docker-archive:{}:docker.io/library/shop:1.0", bench.path("out/docker.tar")));
        assert_eq!(seen["Os"], "linux");
    }
    // A whole index into archives: all of it into the one, our platform into the other.
    let index = bench.index("both");
    bench.push(&decl, &index).unwrap();
    assert_eq!(Some(bench.observe(&decl)), bench.wanted(&decl, &index));
    inspect(&format!("docker-archive:{}:app:2", bench.path("out/docker.tar")));
    // No archive at all.
    std::fs::write(bench.path("out/oci.tar"), vec![b'x'; 2000]).unwrap();
    assert!(bench.observe(&decl)[0].starts_with("unreachable: cannot read"), "{:?}", bench.observe(&decl));
}

#[test]
fn zstd_is_another_image_with_the_same_content() {
    if !has("skopeo") {
        return;
    }
    let bench = Bench::new();
    let plain = push_of("to \"oci:plain\" { tag \"a\" }");
    let zstd = push_of("to \"oci:zstd\" { tag \"a\" }\n compression \"zstd\"");
    for image in [bench.image("one"), bench.index("both")] {
        assert_eq!(bench.wanted(&zstd, &image), None);
        bench.push(&plain, &image).unwrap();
        bench.push(&zstd, &image).unwrap();
        assert_eq!(Some(bench.observe(&zstd)), bench.wanted(&zstd, &image));
        assert_ne!(bench.observe(&zstd), bench.observe(&plain));
        bench.push(&zstd, &image).unwrap();
        assert_eq!(Some(bench.observe(&zstd)), bench.wanted(&zstd, &image));
    }
    let image = bench.image("one");
    bench.push(&plain, &image).unwrap();
    bench.push(&zstd, &image).unwrap();
    let place = format!("oci:{}:a", bench.path("zstd"));
    let raw = output("skopeo", &["inspect", "--raw", &place]);
    assert!(raw.contains("application/vnd.oci.image.layer.v1.tar+zstd"), "{raw}");
    // What skopeo decompresses is what the config says.
    output("skopeo", &["copy", "--quiet", "--dest-decompress", &place, &format!("dir:{}", bench.path("copied"))]);
    let copied: serde_json::Value =
        serde_json::from_slice(&std::fs::read(bench.path("copied/manifest.json")).unwrap()).unwrap();
    let config = output("skopeo", &["inspect", "--config", &place]);
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(copied["layers"][0]["digest"], config["rootfs"]["diff_ids"][0]);
    let config = |layout: &str| output("skopeo", &["inspect", "--config", &format!("oci:{}:a", bench.path(layout))]);
    assert_eq!(config("plain"), config("zstd"));
    // A gzip image stays as it is when gzip is asked for, unless a level is.
    let best = push_of("to \"oci:best\" { tag \"a\" }\n compression \"gzip\" level=9");
    bench.push(&best, &image).unwrap();
    assert_ne!(bench.observe(&best), bench.observe(&plain));
    assert_eq!(Some(bench.observe(&best)), bench.wanted(&best, &image));
    let gzip = push_of("to \"oci:gzip\" { tag \"a\" }\n compression \"gzip\"");
    let image = bench.image("one");
    bench.push(&gzip, &image).unwrap();
    assert_eq!(bench.observe(&gzip), [image.digest.to_string()]);
}

#[test]
fn two_pushes_share_a_layout() {
    let bench = Bench::new();
    let images: Vec<_> = (0..6).map(|n| bench.image(&format!("image {n}"))).collect();
    let decls: Vec<_> = (0..6).map(|n| push_of(&format!("to \"oci:shared\" {{ tag \"t{n}\" }}"))).collect();
    std::thread::scope(|scope| {
        for (decl, image) in decls.iter().zip(&images) {
            let bench = &bench;
            scope.spawn(move || bench.push(decl, image).unwrap());
        }
    });
    for (decl, image) in decls.iter().zip(&images) {
        assert_eq!(bench.observe(decl), [image.digest.to_string()]);
    }
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let bench = Bench::new();
    let image = bench.image("one");
    std::fs::write(bench.path("file"), "not a directory").unwrap();
    let error = bench.push(&push_of("to \"oci:file/images\" { tag \"a\" }"), &image).unwrap_err();
    assert!(error.to_string().starts_with("failed to write `push:app` to `oci:file/images`"), "{error}");
    let error = bench.push(&push_of("to \"docker-archive:file/a.tar\""), &image).unwrap_err();
    assert!(error.to_string().starts_with("failed to write `push:app` to `docker-archive:file/a.tar`"), "{error}");
    std::fs::create_dir(bench.path("broken")).unwrap();
    std::fs::write(bench.path("broken/index.json"), "{").unwrap();
    let decl = push_of("to \"oci:broken\" { tag \"a\" }");
    assert!(bench.observe(&decl)[0].starts_with("unreachable: "), "{:?}", bench.observe(&decl));
    let folder = bench.folder();
    let found = &ctk_push::observe(&decl, &bench.reach(&[], &folder))[0].found;
    assert!(matches!(found, Found::Unreachable { .. }));
}
