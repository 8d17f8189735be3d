//! Layers on their way to others and back: nothing is lost, whoever packs or unpacks them.

use std::fs;
use std::path::PathBuf;

use ctk_e2e::listing::{Listing, differences, listing};
use ctk_e2e::{World, contains, has_programs, is_root};
use serde_json::Value;

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
