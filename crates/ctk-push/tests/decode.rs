//! `push` nodes, right and wrong.

mod support;

use support::decode;

const IMAGE: &str = "image \"app\" {\n from \"scratch\"\n}\n";

#[track_caller]
fn places(text: &str) -> Vec<String> {
    let decl = decode(text).unwrap_or_else(|d| panic!("{d}"));
    decl.targets.iter().map(|t| format!("{} {} {}", t.kind, t.location, t.tags.join(","))).collect()
}

#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let told = decode(text).unwrap_err();
    for expected in expected {
        assert!(told.contains(expected), "no `{expected}` in:\n{told}");
    }
}

#[test]
fn every_kind_of_target() {
    let text = format!(
        r#"project "p"
{IMAGE}test "app" image="app" {{
    absent "/x"
}}
push "app" image="app" needs="test:app" {{
    to "ghcr.io/acme/app" {{ tag "1.0" "latest" }}
    to "127.0.0.1:5050/app:v2"
    to "docker://docker.io/acme/app" {{ tag 3 }}
    to "oci:dist/images" {{ tag "site" }}
    to "oci-archive:dist/app.tar:x"
    to "docker-archive:dist/docker.tar" {{ tag "dockerfile-site:latest" "2" }}
    compression "zstd" level=5
    layer-size "512MiB"
}}"#
    );
    assert_eq!(
        places(&text),
        [
            "registry ghcr.io/acme/app 1.0,latest",
            "registry 127.0.0.1:5050/app v2",
            "registry docker.io/acme/app 3",
            "oci oci:dist/images site",
            "oci-archive oci-archive:dist/app.tar x",
            "docker-archive docker-archive:dist/docker.tar dockerfile-site:latest,app:2",
        ]
    );
    let decl = decode(&text).unwrap();
    assert_eq!(decl.image.to_string(), "image:app");
    assert_eq!(decl.packing.compression.unwrap().to_string(), "zstd level 5");
    assert!(decl.packing.level);
    assert_eq!(decl.packing.layer_limit_bytes, Some(512 << 20));
    assert_eq!(decl.semantics().len(), 4);
}

#[test]
fn what_is_not_said_has_a_default() {
    let text = format!(
        "project \"p\" {{\n registry \"ghcr.io/acme\"\n}}\n{IMAGE}push \"app\" image=\"app\" {{\n\
         to \"tools/app\"\n to \"oci:dist\"\n to \"docker-archive:d.tar\"\n}}"
    );
    assert_eq!(
        places(&text),
        [
            "registry ghcr.io/acme/tools/app latest",
            "oci oci:dist app",
            "docker-archive docker-archive:d.tar app:latest"
        ]
    );
    let text = format!("project \"p\" {{\n registry \"ghcr.io/acme\"\n}}\n{IMAGE}push \"app\" image=\"app\"\n");
    assert_eq!(places(&text), ["registry ghcr.io/acme/app latest"]);
}

#[test]
fn all_mistakes_are_told_at_once() {
    refused(
        &format!(
            r#"project "p"
{IMAGE}push "app" image="app" {{
    to "acme/app" {{ tag "1" }}
    to "ghcr.io/Acme/app"
    to "ghcr.io/acme/app" {{ tag "not a tag" "1" "1" }}
    to "ghcr.io/acme/app"
    to "oci:"
    to "oci:x" {{ tga "1" }}
    compression "gizp"
    layer-size "512KiB"
    sign key="env:KEY"
    attest sbom="spdx"
}}"#
        ),
        &[
            "error[push::no-registry]: `acme/app` names no registry",
            "`ghcr.io/Acme/app` is no place for images",
            "`not a tag` is no tag for `ghcr.io/acme/app`",
            "tag `1` is given twice",
            "`ghcr.io/acme/app` is named twice",
            "the location has no path",
            "did you mean `tag`?",
            "did you mean `gzip`?",
            "expected `1MiB` or more",
            "`sign` is not supported yet",
            "`attest` is not supported yet",
        ],
    );
    refused(&format!("project \"p\"\n{IMAGE}push \"app\" image=\"app\"\n"), &["`push` needs a `to` inside"]);
    refused(
        "project \"p\"\npush \"app\" image=\"debian:12\" {\n to \"oci:x\"\n}\n",
        &["`docker.io/library/debian:12` is not built by this project"],
    );
}
