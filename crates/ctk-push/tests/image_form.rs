//! `compression` and `annotation` of `image` nodes, right and wrong.

mod support;

use ctk_plan::Kind;
use ctk_push::decode_form;
use support::project;

fn decode(inside: &str) -> Result<String, String> {
    let (sources, project) = project(&format!("project \"p\"\nimage \"app\" {{\nfrom \"scratch\"\n{inside}\n}}\n"));
    let image = project.of_kind(Kind::Image).next().unwrap();
    let form = decode_form(&project, image, &"linux/amd64".parse().unwrap()).map_err(|d| d.render(&sources, false))?;
    let Some(form) = form else { return Ok("nothing".into()) };
    let mut lines: Vec<String> = Vec::new();
    lines.extend(form.compression.map(|c| format!("{c} said={} force={}", form.level.is_some(), form.force)));
    lines.extend(form.layer_limit_bytes.map(|limit| format!("at most {limit}")));
    for said in form.annotations {
        let platform = said.platform.map(|p| format!("[{p}]")).unwrap_or_default();
        lines.push(format!("{:?}{platform} {}={}", said.level, said.key, said.value));
    }
    Ok(lines.join("\n"))
}

#[track_caller]
fn check(inside: &str, expected: &[&str]) {
    assert_eq!(decode(inside).unwrap_or_else(|text| panic!("{text}")), expected.join("\n"));
}

#[track_caller]
fn refused(inside: &str, expected: &[&str]) {
    let told = decode(inside).unwrap_err();
    for expected in expected {
        assert!(told.contains(expected), "no `{expected}` in:\n{told}");
    }
    assert_eq!(told.matches("error[").count(), 1, "{told}");
}

#[test]
fn layer_size() {
    check("layer-size \"512MiB\"", &["at most 536870912"]);
    refused("layer-size \"1k\"", &["layers of 1024 bytes at most would be too many", "expected `1MiB` or more"]);
    refused("layer-size \"big\"", &["layer-size"]);
}

#[test]
fn compression() {
    check("cmd \"x\"", &["nothing"]);
    check("compression \"zstd\"", &["zstd level 3 said=false force=false"]);
    check("compression \"zstd\" level=19 force=#true", &["zstd level 19 said=true force=true"]);
    check("compression \"gzip\" level=9", &["gzip level 9 said=true force=false"]);
    check("compression \"none\"", &["none said=false force=false"]);
    refused("compression \"zst\"", &["did you mean `zstd`?"]);
    refused("compression \"gzip\" level=12", &["project::out-of-range"]);
    refused("compression \"none\" level=1", &["no property `level` on `compression`"]);
    refused("compression \"gzip\" levl=1", &["did you mean `level`?"]);
    refused("compression \"gzip\"\ncompression \"zstd\"", &["`compression` is given twice inside `image`"]);
    refused("compression", &["project::missing-argument"]);
}

#[test]
fn annotations() {
    check("annotation \"a.b\"=\"c\" d=1", &["Manifest[linux/amd64] a.b=c", "Manifest[linux/amd64] d=1"]);
    check("annotation { \"a.b\" \"c\"; }", &["Manifest[linux/amd64] a.b=c"]);
    let both = "platforms \"linux/amd64\" \"linux/arm64\"\n";
    let with = |rest: &str| format!("{both}{rest}");
    check(
        &with(
            "annotation \"index\" \"manifest-descriptor\" \"manifest[linux/arm64]\" a=1\nannotation \"index-descriptor\" b=2",
        ),
        &[
            "Index a=1",
            "IndexDescriptor b=2",
            "ManifestDescriptor[linux/amd64] a=1",
            "ManifestDescriptor[linux/arm64] a=1",
            "Manifest[linux/arm64] a=1",
        ],
    );
    check(
        &with("annotation cpu=\"${platform.arch}\""),
        &["Manifest[linux/amd64] cpu=amd64", "Manifest[linux/arm64] cpu=arm64"],
    );
    check("arg \"BUILDKIT_MULTI_PLATFORM\" \"1\"\nannotation \"index\" a=1", &["Index a=1"]);
}

#[test]
fn annotations_that_go_nowhere() {
    let both = "platforms \"linux/amd64\" \"linux/arm64\"\n";
    let with = |rest: &str| format!("{both}{rest}");
    refused("annotation \"manifst\" a=1", &["`manifst` carries no annotations; did you mean `manifest`?"]);
    refused("annotation \"org.x\" \"1\"", &["needs at least one name", "expected `annotation \"org.x\"=\"value\"`"]);
    refused("annotation", &["`annotation` needs at least one name and value"]);
    refused("annotation \"\"=\"x\"", &["an annotation has a name"]);
    refused("annotation \"index\" a=1", &["no index to annotate", "several `platforms`"]);
    refused(&with("annotation \"index[linux/arm64]\" a=1"), &["leave the brackets out"]);
    refused(
        &with("annotation \"manifest[linux/arm65]\" a=1"),
        &["not built for linux/arm65", "did you mean `linux/arm64`?"],
    );
    refused(&with("annotation \"manifest[linux/arm64\" a=1"), &["lacks its `]`"]);
    refused(&with("annotation \"index\" cpu=\"${platform.arch}\""), &["cannot depend on the platform"]);
}
