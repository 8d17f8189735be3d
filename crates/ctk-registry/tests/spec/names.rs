//! The version check, names, tags, digests, methods and paths.

use ctk_oci::{Digest, media_type};

use super::peer::{Check, add, ensure};

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub fn add_version(checks: &mut Vec<Check>) {
    const CLAUSE: &str = "Determining Support, end-1";
    add(checks, "version/get", CLAUSE, |peer| peer.get("/v2/")?.is(&[200]));
    add(checks, "version/head", CLAUSE, |peer| {
        let answer = peer.head("/v2/")?;
        answer.is(&[200])?;
        ensure(answer.body.is_empty(), "a body after HEAD")
    });
    add(checks, "version/without-slash", CLAUSE, |peer| peer.get("/v2")?.is(&[200, 301, 308]));
    add(checks, "version/header", "docker/distribution API version", |peer| {
        peer.get("/v2/")?.has("docker-distribution-api-version", "registry/2.0")
    });
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        add(checks, format!("version/method-{method}"), "Error Codes, UNSUPPORTED", move |peer| {
            peer.ask(method, "/v2/", &[], b"")?.is(&[404, 405])
        });
    }
}

pub fn table(checks: &mut Vec<Check>) {
    add_version(checks);
    const NAMES: &str = "Pulling manifests, grammar of <name>";
    for (label, name) in [
        ("one-letter", "a"),
        ("digits", "0123"),
        ("dot", "a.b"),
        ("underscore", "a_b"),
        ("two-underscores", "a__b"),
        ("hyphen", "a-b"),
        ("many-hyphens", "a----b"),
        ("many-parts", "a/b/c/d/e/f/g/h"),
        ("word-tags", "tags/list"),
        ("word-manifests", "manifests/manifests"),
        ("word-blobs", "blobs/uploads"),
        (
            "long",
            "abcdefghijklmnopqrstuvwxyz0123456789/abcdefghijklmnopqrstuvwxyz0123456789/abcdefghijklmnopqrstuvwxyz0123456789/abcdefghijklmnopqrstuvwxyz0123456789",
        ),
    ] {
        add(checks, format!("names/taken/{label}"), NAMES, move |peer| {
            let inner = peer.beside(name);
            let image = inner.tagged("v1", 1)?;
            inner.get("manifests/v1")?.has("docker-content-digest", &image.digest.to_string())?;
            inner.get("tags/list")?.is(&[200])
        });
    }
    for (label, name) in [
        ("upper-case", "Upper"),
        ("upper-case-part", "a/B"),
        ("dot-first", ".a"),
        ("dot-last", "a."),
        ("two-dots", "a..b"),
        ("three-underscores", "a___b"),
        ("hyphen-first", "-a"),
        ("hyphen-last", "a-"),
        ("underscore-first", "_a"),
        ("empty-part", "a//b"),
        ("tilde", "a~b"),
        ("escaped-slash", "a%2fb"),
        ("escaped-letter", "%61"),
        ("at", "a@b"),
    ] {
        for (route, method, rest) in [
            ("tags", "GET", "tags/list"),
            ("manifest", "GET", "manifests/v1"),
            ("upload", "POST", "blobs/uploads/"),
            ("put", "PUT", "manifests/v1"),
        ] {
            add(checks, format!("names/refused/{label}/{route}"), "Error Codes, NAME_INVALID", move |peer| {
                peer.ask(method, &format!("/v2/{name}/{rest}"), &[], b"")?.fails(&[400], "NAME_INVALID")
            });
        }
    }

    const TAGS: &str = "Pulling manifests, grammar of <reference>";
    for tag in ["a", "A", "0", "_", "v1.0", "V1_0-rc.1", "latest", "a--b", "a..b", "__"] {
        add(checks, format!("tags/taken/{tag}"), TAGS, move |peer| {
            let image = peer.tagged(tag, 2)?;
            peer.head(&format!("manifests/{tag}"))?.has("docker-content-digest", &image.digest.to_string())
        });
    }
    add(checks, "tags/taken/of-128-characters", TAGS, |peer| {
        let tag = "t".repeat(128);
        peer.tagged(&tag, 3)?;
        peer.get(&format!("manifests/{tag}"))?.is(&[200])
    });
    for (label, tag) in [
        ("dot-first", ".a"),
        ("hyphen-first", "-a"),
        ("plus", "a+b"),
        ("tilde", "a~b"),
        ("escaped", "a%20b"),
        ("at", "a@b"),
    ] {
        add(checks, format!("tags/refused/{label}/put"), TAGS, move |peer| {
            let bytes = ctk_oci::Document::new(peer.image(4)?).bytes().to_vec();
            peer.put(tag, media_type::MANIFEST, &bytes)?.is(&[400, 404])
        });
        add(checks, format!("tags/refused/{label}/get"), TAGS, move |peer| {
            peer.get(&format!("manifests/{tag}"))?.is(&[400, 404])
        });
    }
    add(checks, "tags/refused/of-129-characters", TAGS, |peer| {
        let bytes = ctk_oci::Document::new(peer.image(4)?).bytes().to_vec();
        peer.put(&"t".repeat(129), media_type::MANIFEST, &bytes)?.is(&[400, 404])
    });

    for (label, text) in [
        ("short", "sha256:00".to_owned()),
        ("long", format!("{EMPTY}0")),
        ("upper-case", EMPTY.to_uppercase().replace("SHA", "sha")),
        ("no-hex", EMPTY.replace('e', "g")),
        ("empty-hex", "sha256:".into()),
        ("unknown-algorithm", EMPTY.replace("sha256", "md5")),
        ("sha512-length", EMPTY.replace("sha256", "sha512")),
    ] {
        for (route, method) in [("blobs", "GET"), ("blobs", "HEAD"), ("manifests", "GET"), ("referrers", "GET")] {
            let text = text.clone();
            add(
                checks,
                format!("digests/refused/{label}/{method}-{route}"),
                "Error Codes, DIGEST_INVALID",
                move |peer| {
                    let answer = peer.ask(method, &format!("{route}/{text}"), &[], b"")?;
                    if method == "HEAD" { answer.is(&[400]) } else { answer.fails(&[400], "DIGEST_INVALID") }
                },
            );
        }
    }

    let unknown = Digest::of(b"nobody has this");
    for (label, path, methods) in [
        ("tags", "tags/list".to_owned(), &["POST", "PUT", "PATCH", "DELETE"][..]),
        ("manifests", "manifests/v1".into(), &["POST", "PATCH"]),
        ("blobs", format!("blobs/{unknown}"), &["POST", "PUT", "PATCH"]),
        ("uploads", "blobs/uploads/".into(), &["PATCH", "DELETE", "PUT"]),
        ("referrers", format!("referrers/{unknown}"), &["POST", "PUT", "PATCH", "DELETE"]),
        ("catalogue", "/v2/_catalog".into(), &["POST", "PUT", "PATCH", "DELETE"]),
    ] {
        for method in methods {
            let path = path.clone();
            add(checks, format!("methods/{label}/{method}"), "Error Codes, UNSUPPORTED", move |peer| {
                let answer = peer.ask(method, &path, &[], b"")?;
                answer.is(&[404, 405])?;
                // RFC 9110 §15.5.6
                if answer.status == 405 { answer.needs("allow").map(|_| ()) } else { Ok(()) }
            });
        }
    }

    const PATHS: &str = "Endpoints: no other path is one";
    for (label, path) in [
        ("root", "/"),
        ("v1", "/v1/"),
        ("v2-and-more", "/v2x/"),
        ("upper-case", "/V2/"),
        ("name-only", "/v2/a"),
        ("unknown-noun", "/v2/a/things/x"),
        ("escaped-catalogue", "/v2/%5fcatalog"),
        ("upper-case-catalogue", "/v2/_CATALOG"),
        ("catalogue-below", "/v2/_catalog/x"),
        ("tags-without-list", "/v2/a/tags"),
        ("tags-of-nobody", "/v2/tags/list"),
        ("referrers-of-nothing", "/v2/a/referrers/"),
    ] {
        add(checks, format!("paths/{label}"), PATHS, move |peer| peer.get(path)?.is(&[301, 308, 400, 404, 405]));
    }
    for (label, path) in [
        ("dots", "/v2/a/../_catalog"),
        ("escaped-dots", "/v2/%2e%2e/_catalog"),
        ("two-slashes", "/v2//_catalog"),
        ("session-of-dots", "/v2/a/blobs/uploads/../../../_catalog"),
    ] {
        add(checks, format!("paths/no-way-around/{label}"), "CVE-2020-29662: one path, one door", move |peer| {
            peer.get(path)?.is(&[301, 307, 308, 400, 404])
        });
    }

    for (label, path) in [
        ("blob", format!("blobs/{unknown}")),
        ("manifest", format!("manifests/{unknown}")),
        ("tag", "manifests/none".into()),
        ("tags", "tags/list".into()),
        ("upload", "blobs/uploads/00000000-0000-0000-0000-000000000000".into()),
    ] {
        add(checks, format!("errors/{label}/body"), "Error Codes: a JSON body with errors", move |peer| {
            let answer = peer.get(&path)?;
            answer.is(&[404])?;
            let kind = answer.needs("content-type")?;
            ensure(kind.starts_with("application/json"), format!("Content-Type {kind}"))?;
            let value = answer.json()?;
            let errors = value["errors"].as_array().ok_or("no `errors`")?;
            ensure(!errors.is_empty(), "no error in `errors`")?;
            let code = errors[0]["code"].as_str().unwrap_or_default();
            let plain = |b: u8| b.is_ascii_uppercase() || b == b'_';
            ensure(!code.is_empty() && code.bytes().all(plain), format!("code `{code}`"))
        });
    }
}
