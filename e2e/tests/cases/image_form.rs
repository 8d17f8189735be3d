//! `compression` and `annotation` of images in the project file, as skopeo sees what was pushed.

use ctk_e2e::{World, contains, has_programs, is_root};
use serde_json::Value;

const PROJECT: &str = r#"
project "p"
image "base" {
    copy "one" to="/"
    compression "none"
    annotation "org.opencontainers.image.source"="https://example.com/base"
}
image "site" dockerfile="Dockerfile" {
    context "base" "image:base"
    platforms "linux/amd64" "linux/arm64"
    compression "zstd" level=LEVEL
    annotation "manifest" "index" "vendor"="acme"
    annotation "manifest[linux/arm64]" "for"="${platform.arch}"
    annotation "manifest-descriptor" { "cpu" "${platform.arch}"; }
    annotation "index-descriptor" "shelf"=7
}
push "base" image="base" {
    to "oci:out/images" { tag "base"; }
}
push "site" image="site" {
    to "oci:out/images" { tag "site"; }
}
push "gzip" image="site" {
    to "oci:out/gzip" { tag "site"; }
    compression "gzip" level=9
}
"#;

fn world() -> Option<World> {
    if !is_root() || !has_programs(&["skopeo"]) {
        return None;
    }
    let world = World::new();
    world.write("one", "one\n".repeat(5000)).write("two", "two\n".repeat(5000));
    world.write("Dockerfile", "FROM base\nCOPY two /\n").write("containers.kdl", PROJECT.replace("LEVEL", "19"));
    Some(world)
}

fn raw(world: &World, arguments: &[&str], place: &str) -> Value {
    let text = world.peer("skopeo", &[&["inspect", "--raw"], arguments, &[place]].concat()).ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The manifest that `place`'s index names at `number`, read from the layout's blobs.
fn member(world: &World, layout: &str, place: &str, number: usize) -> (Value, Value) {
    let index = raw(world, &[], place);
    let descriptor = index["manifests"][number].clone();
    let digest = descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:");
    let manifest = serde_json::from_str(&world.read(&format!("{layout}/blobs/sha256/{digest}"))).unwrap();
    (descriptor, manifest)
}

fn codecs(manifest: &Value) -> Vec<&str> {
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers.map(|layer| layer["mediaType"].as_str().unwrap().rsplit("layer.v1.").next().unwrap()).collect()
}

#[test]
fn an_image_has_the_form_that_its_declaration_says() {
    let Some(world) = world() else { return };
    world.ctk(&["apply"]).ok();
    contains(&world.ctk(&["plan"]).ok(), &["nothing to do"]);
    let base = raw(&world, &[], "oci:out/images:base");
    assert_eq!(base["annotations"]["org.opencontainers.image.source"], "https://example.com/base");
    assert_eq!(codecs(&base), ["tar"]);

    // Layers of the base stay as the base has them; only its own are compressed so.
    let site = "oci:out/images:site";
    assert_eq!(raw(&world, &[], site)["annotations"], serde_json::json!({ "vendor": "acme" }));
    let (descriptor, amd64) = member(&world, "out/images", site, 0);
    assert_eq!(descriptor["annotations"], serde_json::json!({ "cpu": "amd64" }));
    assert_eq!(codecs(&amd64), ["tar", "tar+zstd"]);
    assert_eq!(amd64["annotations"], serde_json::json!({ "vendor": "acme" }));
    let (_, arm64) = member(&world, "out/images", site, 1);
    assert_eq!(arm64["annotations"], serde_json::json!({ "vendor": "acme", "for": "arm64" }));
    let layout: Value = serde_json::from_str(&world.read("out/images/index.json")).unwrap();
    let named = layout["manifests"].as_array().unwrap().iter().find(|m| m["annotations"]["shelf"] == "7").unwrap();
    assert_eq!(named["annotations"]["org.opencontainers.image.ref.name"], "site");

    // A push's own compression is for all layers, whatever the image says; annotations stay.
    let (_, gzip) = member(&world, "out/gzip", "oci:out/gzip:site", 0);
    assert_eq!(codecs(&gzip), ["tar+gzip", "tar+gzip"]);
    assert_eq!(gzip["annotations"], amd64["annotations"]);
    assert_eq!(gzip["config"]["digest"], amd64["config"]["digest"]);
    world.ctk(&["run", "--rm", "image:base", "/nothing"]).fails(127);

    // The form is part of what the image is.
    world.write("containers.kdl", PROJECT.replace("LEVEL", "1"));
    contains(&world.ctk(&["plan"]).ok(), &["image:site", "push:site"]);
    world.ctk(&["apply"]).ok();
    let (_, other) = member(&world, "out/images", site, 0);
    assert_ne!(other["layers"][1], amd64["layers"][1]);
    assert_eq!(other["layers"][0], amd64["layers"][0]);
    assert_eq!(other["config"], amd64["config"]);
    contains(&world.ctk(&["plan"]).ok(), &["nothing to do"]);
}

#[test]
fn all_layers_with_force() {
    let Some(world) = world() else { return };
    world.write("containers.kdl", PROJECT.replace("level=LEVEL", "force=#true"));
    world.ctk(&["apply"]).ok();
    let (_, site) = member(&world, "out/images", "oci:out/images:site", 0);
    assert_eq!(codecs(&site), ["tar+zstd", "tar+zstd"]);
}

#[test]
fn mistakes_are_told_at_their_place() {
    let Some(world) = world() else { return };
    let text = PROJECT.replace("zstd", "zsdt").replace("\"index-descriptor\"", "\"index-descripter\"");
    world.write("containers.kdl", text.replace("level=LEVEL", ""));
    let told = world.ctk(&["check"]).fails(1);
    contains(&told, &["did you mean `zstd`?", "did you mean `index-descriptor`?", "containers.kdl:11:"]);
}
