//! Loading and saving, and what skopeo and umoci think of it.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use ctk_layer::{Compression, Entry, EntryKind, LayerWriter, TarReader, TarWriter};
use ctk_oci::{Descriptor, Document, ImageConfig, Index, Manifest, Platform, media_type};
use ctk_plan::Cancel;
use ctk_store::{
    Export, Imported, Name, Store, export_docker_archive, export_layout, export_layout_archive, import_archive,
    import_layout,
};

fn image(store: &Store, architecture: &str) -> Descriptor {
    image_of(store, architecture, &[Compression::GZIP, Compression::ZSTD, Compression::None])
}

fn image_of(store: &Store, architecture: &str, compressions: &[Compression]) -> Descriptor {
    let mut layers = Vec::new();
    let mut config = ImageConfig { architecture: architecture.into(), os: "linux".into(), ..Default::default() };
    config.config.cmd = Some(vec!["/hello".into()]);
    for (number, compression) in compressions.iter().copied().enumerate() {
        let mut tar = TarWriter::new(LayerWriter::new(store.ingest(None).unwrap(), compression, 2).unwrap());
        let text = format!("{architecture} {number}");
        let entry = Entry::new(format!("file-{number}"), EntryKind::File { size: text.len() as u64 }, 0o644);
        tar.append(&entry, text.as_bytes()).unwrap();
        let (ingest, summary) = tar.finish().unwrap().finish().unwrap();
        ingest.commit().unwrap();
        layers.push(summary.descriptor());
        config.rootfs.diff_ids.push(summary.diff_id);
    }
    let config = store.put(media_type::CONFIG, Document::new(config).bytes()).unwrap();
    let manifest = Document::new(Manifest::image(config, layers));
    store.put(media_type::MANIFEST, manifest.bytes()).unwrap()
}

fn multi(store: &Store) -> Descriptor {
    let member = |architecture| {
        let mut descriptor = image(store, architecture);
        descriptor.platform = Some(Platform::new("linux", architecture));
        descriptor
    };
    let index = Document::new(Index::new(vec![member("amd64"), member("arm64")]));
    store.put(media_type::INDEX, index.bytes()).unwrap()
}

fn fresh(parent: &Path, name: &str) -> Store {
    Store::open(&parent.join(name)).unwrap()
}

fn named(name: &str, descriptor: &Descriptor) -> Export {
    Export { name: Some(Name::Plain(name.into())), descriptor: descriptor.clone() }
}

/// Whether a peer is installed; without it the rest of the test is skipped.
fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    assert!(there || std::env::var_os("CTK_TEST_REQUIRE").is_none(), "{program} is missing");
    if !there {
        println!("skipped: needs {program}");
    }
    there
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.into_owned()
}

#[test]
fn layouts_round_trip_as_directory_and_tar() {
    let directory = tempfile::tempdir().unwrap();
    let (store, cancel) = (fresh(directory.path(), "store"), Cancel::new());
    let (index, single) = (multi(&store), image(&store, "riscv64"));
    let exports = [named("multi", &index), named("also", &index), named("single", &single)];
    let expected = [
        Imported { names: vec!["multi".into(), "also".into()], descriptor: index.clone() },
        Imported { names: vec!["single".into()], descriptor: single.clone() },
    ];
    let layout = directory.path().join("layout");
    export_layout(&store, &layout, &exports, &cancel).unwrap();
    let other = fresh(directory.path(), "from-directory");
    assert_eq!(import_layout(&other, &layout, &cancel).unwrap(), expected);
    assert_eq!(other.usage().unwrap(), store.usage().unwrap());
    let tar = export_layout_archive(&store, Vec::new(), &exports, &cancel).unwrap();
    let again = export_layout_archive(&store, Vec::new(), &exports, &cancel).unwrap();
    assert!(tar == again, "the same images gave other bytes");
    let mut gzip = LayerWriter::new(Vec::new(), Compression::GZIP, 2).unwrap();
    gzip.write_all(&tar).unwrap();
    for (name, bytes) in [("plain", tar), ("gzip", gzip.finish().unwrap().0)] {
        let other = fresh(directory.path(), name);
        assert_eq!(import_archive(&other, name, &bytes[..], &cancel).unwrap(), expected);
        assert_eq!(other.usage().unwrap(), store.usage().unwrap());
    }
    // A second export moves its name and leaves the others.
    export_layout(&store, &layout, &[named("also", &single)], &cancel).unwrap();
    let names: Vec<Vec<String>> =
        import_layout(&other, &layout, &cancel).unwrap().into_iter().map(|image| image.names).collect();
    assert_eq!(names, [vec!["multi".to_owned()], vec!["single".into(), "also".into()]]);
}

#[test]
fn docker_archives_round_trip() {
    let directory = tempfile::tempdir().unwrap();
    let (store, cancel) = (fresh(directory.path(), "store"), Cancel::new());
    let index = multi(&store);
    let exports = [named("docker.io/library/hello:1", &index), named("ghcr.io/acme/hello", &index)];
    let platform = Platform::new("linux", "amd64");
    let tar = export_docker_archive(&store, Vec::new(), &exports, &platform, &cancel).unwrap();
    let other = fresh(directory.path(), "other");
    let images = import_archive(&other, "hello.tar", &tar[..], &cancel).unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].names, ["hello:1", "ghcr.io/acme/hello:latest"]);
    let manifest: Document<Manifest> = other.document("manifest", &images[0].descriptor).unwrap();
    let manifest = manifest.value();
    let config: Document<ImageConfig> = other.document("config", &manifest.config).unwrap();
    assert_eq!(config.value().architecture, "amd64");
    assert!(manifest.layers.iter().all(|layer| layer.media_type == media_type::LAYER));
    let ids: Vec<_> = manifest.layers.iter().map(|layer| &layer.digest).collect();
    assert_eq!(ids, config.value().rootfs.diff_ids.iter().map(|id| &id.0).collect::<Vec<_>>());
    if !has("skopeo") {
        return;
    }
    let path = directory.path().join("hello.tar");
    std::fs::write(&path, &tar).unwrap();
    let archive = format!("docker-archive:{}", path.display());
    let inspect = run(Command::new("skopeo").args(["inspect", "--config", &format!("{archive}:hello:1")]));
    assert!(inspect.contains("/hello"), "{inspect}");
    if has("podman") {
        let storage = directory.path().join("podman");
        let mut podman = Command::new("podman");
        podman.args(["--storage-driver", "vfs", "--root"]).arg(storage.join("root"));
        podman.arg("--runroot").arg(storage.join("run")).args(["load", "-q", "-i"]).arg(&path);
        let loaded = run(&mut podman);
        assert!(loaded.contains("ghcr.io/acme/hello:latest"), "{loaded}");
    }
    // And back: what skopeo writes as a docker archive (its layers are links there) loads with us.
    // Docker's manifests know no zstd.
    let old = image_of(&store, "amd64", &[Compression::GZIP, Compression::None]);
    let layout = directory.path().join("layout");
    export_layout(&store, &layout, &[named("x", &old)], &cancel).unwrap();
    let theirs = directory.path().join("theirs.tar");
    let to = format!("docker-archive:{}:some/name:tag", theirs.display());
    run(Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q"])
        .arg(format!("oci:{}:x", layout.display()))
        .arg(to));
    let third = fresh(directory.path(), "third");
    let images = import_archive(&third, "theirs", std::fs::File::open(theirs).unwrap(), &cancel).unwrap();
    assert_eq!(images[0].names, ["docker.io/some/name:tag"]);
}

#[test]
fn umoci_and_skopeo_accept_our_layout() {
    if !has("umoci") || !has("skopeo") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (store, cancel) = (fresh(directory.path(), "store"), Cancel::new());
    // umoci 0.4 knows no zstd.
    let single = image_of(&store, "amd64", &[Compression::GZIP, Compression::None]);
    let layout = directory.path().join("layout");
    export_layout(&store, &layout, &[named("1.0", &single)], &cancel).unwrap();
    let bundle = directory.path().join("bundle");
    run(Command::new("umoci").args(["unpack", "--image"]).arg(format!("{}:1.0", layout.display())).arg(&bundle));
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/file-0")).unwrap(), "amd64 0");
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/file-1")).unwrap(), "amd64 1");
    let raw = run(Command::new("skopeo").args(["inspect", "--raw"]).arg(format!("oci:{}:1.0", layout.display())));
    assert_eq!(raw.as_bytes(), store.read(&single, 1 << 20).unwrap(), "bytes are identity");
}

#[test]
fn bad_archives_are_refused_with_reasons() {
    let directory = tempfile::tempdir().unwrap();
    let (store, cancel) = (fresh(directory.path(), "store"), Cancel::new());
    let exports = [named("x", &image(&store, "amd64"))];
    let tar = export_layout_archive(&store, Vec::new(), &exports, &cancel).unwrap();
    // Rewrites the archive without, or with other, bytes of some entries.
    type Change<'a> = &'a dyn Fn(&str, Vec<u8>) -> Option<Vec<u8>>;
    let rewrite = |change: Change<'_>| {
        let (mut reader, mut writer) = (TarReader::new(&tar[..]), TarWriter::new(Vec::new()));
        while let Some(mut entry) = reader.next_entry().unwrap() {
            let mut data = Vec::new();
            reader.read_to_end(&mut data).unwrap();
            let Some(data) = change(&entry.display(), data) else { continue };
            if let EntryKind::File { size } = &mut entry.kind {
                *size = data.len() as u64;
            }
            writer.append(&entry, &data[..]).unwrap();
        }
        writer.finish().unwrap()
    };
    let number = std::cell::Cell::new(0);
    let check = |bytes: &[u8], expected: &str| {
        number.set(number.get() + 1);
        let other = fresh(directory.path(), &format!("other-{}", number.get()));
        let error = import_archive(&other, "bad.tar", bytes, &cancel).unwrap_err();
        let text = format!("{error} {:?}", std::error::Error::source(&error).map(ToString::to_string));
        assert!(text.contains(expected), "`{text}` does not contain `{expected}`");
        assert!(other.references().unwrap().is_empty());
    };
    check(&rewrite(&|path, data| (path != "index.json").then_some(data)), "neither `index.json`");
    let layer = "blobs/sha256/";
    let first = std::cell::Cell::new(true);
    check(&rewrite(&|path, data| (!(path.starts_with(layer) && first.replace(false))).then_some(data)), "missing");
    let first = std::cell::Cell::new(true);
    let damage = |path: &str, mut data: Vec<u8>| {
        if path.starts_with(layer) && first.replace(false) {
            data[0] ^= 1;
        }
        Some(data)
    };
    check(&rewrite(&damage), "does not match");
    check(&tar[..tar.len() / 2], "cut short");
    check(b"no archive at all", "cut short");
    check(&rewrite(&|path, data| Some(if path == "index.json" { b"{".to_vec() } else { data })), "malformed");
}

#[test]
fn a_layout_has_the_tag_and_the_whole_name() {
    let folder = tempfile::tempdir().unwrap();
    let (store, cancel) = (fresh(folder.path(), "store"), Cancel::new());
    let (one, two) = (image(&store, "amd64"), image(&store, "arm64"));
    let layout = folder.path().join("layout");
    let write = |name: &str, descriptor: &Descriptor| {
        let export = Export { name: Some(Name::of(name)), descriptor: descriptor.clone() };
        export_layout(&store, &layout, &[export], &cancel).unwrap();
    };
    // As they were written once, and by others still: the whole name where the tag belongs.
    export_layout(&store, &layout, &[named("ghcr.io/acme/a:1", &one)], &cancel).unwrap();
    write("ghcr.io/acme/a:1", &two);
    write("b", &one);
    write("ghcr.io/acme/c:1", &one);
    let index: Index = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let names = |key: &str| index.manifests.iter().map(|m| m.annotations[key].clone()).collect::<Vec<_>>();
    assert_eq!(names("org.opencontainers.image.ref.name"), ["1", "latest", "1"]);
    let whole = ["ghcr.io/acme/a:1", "docker.io/library/b:latest", "ghcr.io/acme/c:1"];
    assert_eq!(names("io.containerd.image.name"), whole);
    let loaded = import_layout(&fresh(folder.path(), "other"), &layout, &cancel).unwrap();
    let loaded: Vec<&str> = loaded.iter().flat_map(|image| &image.names).map(String::as_str).collect();
    assert_eq!(loaded, ["ghcr.io/acme/a:1", "docker.io/library/b:latest", "ghcr.io/acme/c:1"]);
}
