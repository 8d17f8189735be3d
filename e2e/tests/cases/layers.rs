//! Layers on their way to others and back: nothing is lost, whoever packs or unpacks them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ctk_e2e::listing::{Listing, differences, listing};
use ctk_e2e::{World, contains, has_programs, is_root};
use ctk_oci::Digest;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev, mknodat, utimensat};
use serde_json::{Value, json};

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The tree that umoci makes of the one image in a layout.
fn by_umoci(world: &World, layout: &str) -> Listing {
    let (named, bundle) = (world.path("named"), world.path("bundle"));
    // It takes no names with slashes.
    world.peer("skopeo", &["copy", "-q", &format!("oci:{layout}"), &format!("oci:{}:it", named.display())]).ok();
    let image = format!("{}:it", named.display());
    world.peer("umoci", &["unpack", "--keep-dirlinks", "--image", &image, bundle.to_str().unwrap()]).ok();
    let found = listing(&bundle.join("rootfs"));
    fs::remove_dir_all(bundle).unwrap();
    fs::remove_dir_all(named).unwrap();
    found
}

/// The tree that podman mounts for the image `place`.
fn by_podman(world: &World, place: &str) -> Listing {
    let id = world.podman(&["pull", "-q", place]).ok();
    let mounted = world.podman(&["image", "mount", id.trim()]).ok();
    let found = listing(&PathBuf::from(mounted.trim()));
    world.podman(&["image", "unmount", id.trim()]).ok();
    world.podman(&["rmi", "--force", id.trim()]).ok();
    found
}

/// A folder `app` whose image has layers that are larger than 1 MiB: many files with links across folders, a file that
/// is larger by itself, and a layer that removes and replaces what is below it.
fn large() -> Option<World> {
    if !is_root() || !has_programs(&["umoci", "podman", "skopeo", "busybox"]) {
        return None;
    }
    let world = World::new();
    let mut state = 1u64;
    let mut random = |bytes: usize| -> Vec<u8> {
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(bytes).collect()
    };
    world.write("app/busybox", fs::read("/usr/bin/busybox").unwrap());
    for number in 0..8 {
        world.write(&format!("app/tree/{}/{number}", ["a", "b/deep", "c", "d"][number % 4]), random(300_000));
    }
    world.write("app/tree/gone/x", "x").write("app/tree/d/old", "old");
    let script = "cd /tree; rm -r gone d; mkdir d; cp a/0 d/new; cp a/4 d/other; cp c/2 c/6 b/; \
                  ln b/deep/1 a/first; ln a/0 c/linked; ln a/0 d/linked; chmod 1770 a; chown 12:34 c b/deep; \
                  rm b/deep/5; touch -d @86400 c; mkdir -m 700 empty; ln -s d/new link";
    world.write(
        "app/Dockerfile",
        format!(
            "FROM scratch AS base\nCOPY --chmod=755 busybox /bin/busybox\nFROM base\nCOPY tree /tree/\n\
             ENV A=1\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"{script}\"]\nLABEL b=2\n"
        ),
    );
    Some(world)
}

#[test]
fn large_layers_go_as_several() {
    let Some(world) = large() else { return };
    let build = |output: &str| world.ctk(&["build", "-t", "localhost/app:1", "-o", output, "app"]).ok();
    build("type=oci,dest=whole,tar=false");
    let said =
        world.ctk(&["build", "-t", "localhost/app:1", "-o", "type=oci,dest=divided,tar=false,layer-size=1MiB", "app"]);
    assert!(!said.err.contains("stays whole"), "{}", said.story());
    said.ok();

    // The same files, whoever looks, to the times of the folders.
    let whole = by_umoci(&world, "whole");
    let divided = by_umoci(&world, "divided");
    assert_eq!(differences(&whole, &divided), "");
    assert!(whole["\"tree/d/linked\""].contains(" = \"tree/a/0\""), "{whole:#?}");
    assert!(!whole.contains_key("\"tree/d/old\"") && !whole.contains_key("\"tree/gone\""), "{whole:#?}");
    assert_eq!(differences(&by_podman(&world, "oci:whole"), &by_podman(&world, "oci:divided")), "");

    // No layer is larger, but for those of one file; and a line of the history for each.
    let manifest = parse(&world.peer("skopeo", &["inspect", "--raw", "oci:divided"]).ok());
    let config = parse(&world.peer("skopeo", &["inspect", "--config", "--raw", "oci:divided"]).ok());
    let layers = manifest["layers"].as_array().unwrap().len();
    assert!(layers >= 6, "{manifest:#}");
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), layers);
    let history = config["history"].as_array().unwrap();
    let lines: Vec<&Value> = history.iter().filter(|line| line["empty_layer"] != true).collect();
    assert_eq!(lines.len(), layers, "{config:#}");
    assert_eq!(history.iter().filter(|line| line["empty_layer"] == true).count(), 2);
    let copied: Vec<&Value> =
        lines.iter().copied().filter(|l| l["created_by"].as_str().unwrap().starts_with("COPY tree")).collect();
    let pieces: Vec<String> = (1..=copied.len()).map(|n| format!("piece {n} of {}", copied.len())).collect();
    assert!(copied.iter().zip(&pieces).all(|(line, piece)| line["comment"].as_str().unwrap().contains(piece)));
    for layer in manifest["layers"].as_array().unwrap() {
        let (_, digest) = layer["digest"].as_str().unwrap().split_once(':').unwrap();
        let blob = format!("divided/blobs/sha256/{digest}");
        let names = world.peer("tar", &["-tzf", &blob]).ok();
        let size = world.peer("sh", &["-c", &format!("gzip -dc {blob} | wc -c")]).ok();
        let leaves = names.lines().filter(|name| !name.ends_with('/')).count();
        assert!(size.trim().parse::<u64>().unwrap() <= 1 << 20 || leaves == 1, "{size} {names}");
    }

    // By ctk itself, from its store and from an archive; with other compressions; the same in another store.
    let look = "cd /tree; find . | sort | xargs stat -c '%n %a %u:%g %s'; find . -type f | sort | xargs stat -c %h; \
                cat $(find . -type f | sort) | sha256sum";
    let run = |name: &str| world.ctk(&["run", name, "/bin/busybox", "sh", "-c", look]).ok();
    build("type=image");
    let expected = run("localhost/app:1");
    contains(&expected, &["./b/deep 755 12:34", "./a/0 644 0:0 300000", "./empty 700"]);
    build("type=image,layer-size=1MiB,unpack=true");
    assert_eq!(run("localhost/app:1"), expected);
    build("type=docker,dest=divided.tar,layer-size=1MiB");
    world.ctk(&["load", "divided.tar", "--tag", "localhost/loaded:1"]).ok();
    assert_eq!(run("localhost/loaded:1"), expected);
    assert_eq!(differences(&by_podman(&world, "docker-archive:divided.tar"), &by_podman(&world, "oci:whole")), "");
    build("type=oci,dest=zstd,tar=false,layer-size=1MiB,compression=zstd,force-compression=true");
    // This umoci knows no zstd.
    assert_eq!(differences(&by_podman(&world, "oci:zstd"), &by_podman(&world, "oci:whole")), "");
    let digest =
        |layout: &str| parse(&world.read(&format!("{layout}/index.json")))["manifests"][0]["digest"].to_string();
    fs::remove_dir_all(world.store()).unwrap();
    build("type=oci,dest=again,tar=false,layer-size=1MiB");
    assert_eq!(digest("again"), digest("divided"));
}

#[test]
fn pushes_divide_layers_too() {
    let Some(world) = large() else { return };
    let project = "project \"p\"\nimage \"app\" dockerfile=\"app/Dockerfile\" context=\"app\"\n\
                   push \"app\" image=\"app\" {\n    to \"oci:dist\" { tag \"1\"; }\n    compression \"none\"\n    layer-size \"SIZE\"\n}\n";
    world.write("containers.kdl", project.replace("SIZE", "4KiB"));
    contains(&world.ctk(&["check"]).fails(1), &["containers.kdl:6:16", "1MiB"]);
    world.write("containers.kdl", project.replace("SIZE", "1MiB"));
    world.ctk(&["apply"]).ok();
    contains(&world.ctk(&["plan"]).ok(), &["nothing to do"]);
    world.ctk(&["save", "image:app", "--format", "oci-dir", "-o", "whole"]).ok();
    assert_eq!(differences(&by_umoci(&world, "dist"), &by_umoci(&world, "whole")), "");
    let manifest = parse(&world.peer("skopeo", &["inspect", "--raw", "oci:dist"]).ok());
    assert!(manifest["layers"].as_array().unwrap().len() >= 6, "{manifest:#}");
}

/// Builds a folder with a date after all times of its files, so that they stay as they are.
fn build_late(world: &World, folder: &str, output: &str) {
    let mut command = world.command(&["build", "-q", "-o", output, folder]);
    command.env("SOURCE_DATE_EPOCH", "4102444800");
    ctk_e2e::run(command).ok();
}

/// A time before 1970, with nanoseconds; seconds and nanoseconds.
const OLD: (i64, i64) = (-86_401, 500_000_001);

/// Makes in `root` everything that a layer can hold.
fn everything(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("bin")).unwrap();
    fs::copy("/usr/bin/busybox", at("bin/busybox")).unwrap();
    for folder in ["gone", "opaque", "merged/deep", "sticky", "dev", "proc", "sys"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    for name in ["gone/a", "opaque/old", "merged/kept", "merged/removed", "plain", "setuid", "attributes", "sticky/x"] {
        fs::write(at(name), name).unwrap();
    }
    fs::hard_link(at("plain"), at("merged/hard")).unwrap();
    fs::hard_link(at("plain"), at("z-hard")).unwrap();
    std::os::unix::fs::symlink("../plain", at("merged/link")).unwrap();
    std::os::unix::fs::symlink("l".repeat(300), at("long-link")).unwrap();
    // Names past 100 bytes, a path past 255, and bytes that are no UTF-8.
    let long = format!("{}/{}", "d".repeat(150), "e".repeat(150));
    fs::create_dir_all(at(&long)).unwrap();
    fs::write(at(&format!("{long}/{}", "f".repeat(200))), "deep").unwrap();
    fs::hard_link(at(&format!("{long}/{}", "f".repeat(200))), at("long-hard")).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"caf\xe9")), "latin").unwrap();
    let node = |name: &str, kind, (major, minor)| {
        mknodat(CWD, at(name), kind, Mode::from_raw_mode(0o640), makedev(major, minor)).unwrap();
    };
    node("dev/null", FileType::CharacterDevice, (1, 3));
    node("dev/disk", FileType::BlockDevice, (259, 70_000));
    node("dev/pipe", FileType::Fifo, (0, 0));
    let file = fs::File::create(at("holes")).unwrap();
    file.set_len(6 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"in the middle", 3 << 20).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::setxattr(at(name), key, value, XattrFlags::empty()).unwrap_or_else(|e| panic!("{key}: {e}"));
    };
    for (name, owner) in [("attributes", 70_000), ("merged/deep", 4_000_000_000), ("plain", 12)] {
        std::os::unix::fs::lchown(at(name), Some(owner), Some(3_000_000)).unwrap();
    }
    set("attributes", "user.note", b"a=b\nc\0d");
    set("attributes", "security.capability", &capability);
    set("attributes", "system.posix_acl_access", &acl());
    set("merged/deep", "user.note", b"of a folder");
    set("merged/deep", "system.posix_acl_default", &acl());
    for (name, mode) in [("setuid", 0o4711), ("sticky", 0o3777), ("sticky/x", 0o2755), ("gone", 0o700)] {
        fs::set_permissions(at(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    // The times of everything: folders last, since what is made in them changes theirs.
    let mut paths: Vec<String> = listing(root).keys().rev().cloned().collect();
    paths.retain(|path| !path.contains("caf"));
    for path in paths {
        let path = path.trim_matches('"');
        let seconds = 1_600_000_000 + path.len() as i64;
        set_time(&at(path), if path.contains("merged") { OLD } else { (seconds, 123_456_789) });
    }
    set_time(&root.join(OsStr::from_bytes(b"caf\xe9")), (1, 0));
}

fn set_time(path: &Path, (tv_sec, tv_nsec): (i64, i64)) {
    let time = Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// user::rwx, user:1000:r--, group::r-x, mask::r-x, other::--x
fn acl() -> Vec<u8> {
    let nobody = u32::MAX;
    let lines = [(1u16, 7u16, nobody), (2, 4, 1000), (4, 5, nobody), (16, 5, nobody), (32, 1, nobody)];
    let line =
        |(tag, bits, id): (u16, u16, u32)| [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat();
    [2u32.to_le_bytes().to_vec(), lines.into_iter().flat_map(line).collect()].concat()
}

/// What is done to the tree in a second layer, here and in the container.
const CHANGES: &str = "rm -r gone opaque merged/removed; mkdir opaque; echo new > opaque/new; ln opaque/new opaque/hard; \
                       chmod 4755 sticky/x; \
                       touch -h -d @1600000001 opaque opaque/new opaque/hard merged .";

/// What is done to a bundle before it is packed again.
const AGAIN: &str = "rm -r merged/deep opaque; mkdir opaque; cp -p plain opaque/plain; ln opaque/plain opaque/again; \
                     touch -h -d @1600000002 merged opaque opaque/plain .";

/// An OCI layout of one image with this plain tar as its layer.
fn layout_of(world: &World, name: &str, tar: &[u8]) {
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        world.write(&format!("{name}/blobs/sha256/{}", digest.hex()), bytes);
        digest.to_string()
    };
    let layer = put(tar);
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer]}}).to_string();
    let part = |kind: &str, digest: &str, size: usize| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": size});
    let parts =
        [part("config.v1+json", &put(config.as_bytes()), config.len()), part("layer.v1.tar", &layer, tar.len())];
    let manifest = json!({"schemaVersion": 2, "config": parts[0], "layers": [parts[1]]}).to_string();
    let index = part("manifest.v1+json", &put(manifest.as_bytes()), manifest.len());
    world.write(&format!("{name}/index.json"), json!({"schemaVersion": 2, "manifests": [index]}).to_string());
    world.write(&format!("{name}/oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#);
}

/// The tree that GNU tar makes of an archive.
fn by_tar(world: &World, archive: &str) -> Listing {
    let folder = world.path("extracted");
    fs::create_dir(&folder).unwrap();
    let into =
        ["-C", folder.to_str().unwrap(), "--numeric-owner", "-p", "--xattrs", "--xattrs-include=*", "-xf", archive];
    world.peer("tar", &into).ok();
    let found = listing(&folder);
    fs::remove_dir_all(folder).unwrap();
    found
}

/// The tree of an image in our store: through all its layers, in a tar of ours.
fn by_us(world: &World, image: &str) -> Listing {
    world.write("flat/Dockerfile", format!("FROM {image}\n"));
    build_late(world, "flat", "type=tar,dest=flat.tar");
    by_tar(world, "flat.tar")
}

/// What is left without extended attributes and parts of seconds, which GNU's own formats do not have.
fn plain(all: &Listing) -> Listing {
    let cut = |line: &String| line.split_once('\t').unwrap().0.rsplit_once('.').unwrap().0.to_owned();
    all.iter().map(|(path, line)| (path.clone(), cut(line))).collect()
}

/// `everything`, packed by GNU tar with these switches.
fn packed(world: &World, root: &Path, form: &[&str]) -> Vec<u8> {
    let archive = world.path("packed.tar");
    let all =
        ["--xattrs", "--sparse", "--sort=name", "-C", root.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "."];
    world.peer("tar", &[form, &all].concat()).ok();
    fs::read(archive).unwrap()
}

fn rich() -> Option<(World, PathBuf)> {
    if !is_root() || !has_programs(&["umoci", "podman", "skopeo", "busybox", "tar"]) {
        return None;
    }
    let world = World::new();
    let root = world.path("root");
    everything(&root);
    Some((world, root))
}

#[test]
fn what_gnu_tar_packs_is_read_in_all_its_forms() {
    let Some((world, root)) = rich() else { return };
    let expected = listing(&root);
    for form in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        // GNU's formats have no place for attributes.
        let switches = if form.len() == 1 { [form, &["--no-xattrs"]].concat() } else { form.to_vec() };
        layout_of(&world, "layout", &packed(&world, &root, &switches));
        world.ctk(&["load", "layout", "--tag", "localhost/theirs:1"]).ok();
        let found = by_us(&world, "localhost/theirs:1");
        match form.len() {
            1 => assert_eq!(differences(&plain(&expected), &plain(&found)), "", "{form:?}"),
            _ => assert_eq!(differences(&expected, &found), "", "{form:?}"),
        }
        fs::remove_dir_all(world.project().join("layout")).unwrap();
    }
}

#[test]
fn what_we_pack_is_unpacked_by_others_and_what_they_pack_by_us() {
    let Some((world, root)) = rich() else { return };
    world.write("app/root.tar", packed(&world, &root, &["--format=posix"]));
    world.write("base/Dockerfile", "FROM scratch\nADD root.tar /\n");
    fs::copy(world.project().join("app/root.tar"), world.project().join("base/root.tar")).unwrap();
    world.write(
        "app/Dockerfile",
        format!("FROM scratch\nADD root.tar /\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"{CHANGES}\"]\n"),
    );

    // A layer by itself is a tar that GNU tar extracts.
    build_late(&world, "base", "type=oci,dest=base-layout,tar=false");
    let manifest = parse(&world.peer("skopeo", &["inspect", "--raw", "oci:base-layout"]).ok());
    let digest = manifest["layers"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let found = by_tar(&world, &format!("base-layout/blobs/sha256/{digest}"));
    assert_eq!(differences(&listing(&root), &found), "", "GNU tar");

    // With a second layer that removes, hides and links.
    build_late(&world, "app", "type=oci,dest=layout,tar=false");
    build_late(&world, "app", "type=image,name=localhost/ours:1");
    world.peer("busybox", &["sh", "-c", &format!("cd {} && {CHANGES}", root.display())]).ok();
    let expected = listing(&root);
    assert_eq!(differences(&expected, &by_us(&world, "localhost/ours:1")), "", "ctk");
    assert_eq!(differences(&expected, &by_umoci(&world, "layout")), "", "umoci");
    // podman unpacks nothing but links that is older than 1970.
    let since_1970 = |line: &String| match line.starts_with("link") {
        true => line.clone(),
        false => line.replace("-86401.500000001", "0.000000000"),
    };
    let by_podmans_clock = expected.iter().map(|(path, line)| (path.clone(), since_1970(line))).collect();
    assert_eq!(differences(&by_podmans_clock, &by_podman(&world, "oci:layout")), "", "podman");

    // Others pack it again: podman in both formats, and umoci after a change.
    let id = world.podman(&["pull", "-q", "oci:layout"]).ok();
    for format in ["docker-archive", "oci-archive"] {
        let archive = world.project().join(format);
        world.podman(&["save", "-q", "--format", format, "-o", archive.to_str().unwrap(), id.trim()]).ok();
        // In a store that has none of the layers.
        fs::remove_dir_all(world.store()).unwrap();
        world.ctk(&["load", format, "--tag", "localhost/podman:1"]).ok();
        assert_eq!(differences(&expected, &by_us(&world, "localhost/podman:1")), "", "podman save as {format}");
    }
    world.peer("skopeo", &["copy", "-q", "oci:layout", "oci:named:it"]).ok();
    world.peer("umoci", &["unpack", "--keep-dirlinks", "--image", "named:it", "bundle"]).ok();
    let bundle = world.project().join("bundle/rootfs");
    world.peer("busybox", &["sh", "-c", &format!("cd {} && {AGAIN}", bundle.display())]).ok();
    world.peer("umoci", &["repack", "--refresh-bundle", "--image", "named:again", "bundle"]).ok();
    world.peer("skopeo", &["copy", "-q", "oci:named:again", "oci:again"]).ok();
    fs::remove_dir_all(world.store()).unwrap();
    world.ctk(&["load", "again", "--tag", "localhost/umoci:1"]).ok();
    assert_eq!(differences(&listing(&bundle), &by_us(&world, "localhost/umoci:1")), "", "umoci repack");
}
