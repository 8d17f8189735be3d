//! Pushing, pulling and deleting manifests and tags; referrers.

use std::collections::BTreeMap;

use ctk_oci::{Algorithm, Descriptor, Digest, Document, Index, Manifest, media_type};

use super::peer::{Check, Peer, add, digest, ensure};

/// Bytes of a manifest of one of the four types, whose content is pushed.
fn document(peer: &Peer, kind: &str) -> Result<Vec<u8>, String> {
    let mut image = peer.image(11)?;
    Ok(match kind {
        media_type::MANIFEST => Document::new(image).bytes().to_vec(),
        media_type::DOCKER_MANIFEST => {
            image.media_type = Some(kind.into());
            image.config.media_type = media_type::DOCKER_CONFIG.into();
            image.layers[0].media_type = media_type::DOCKER_LAYER_GZIP.into();
            Document::new(image).bytes().to_vec()
        }
        _ => {
            let member = peer.push("", image)?;
            let mut index = Index::new(vec![member]);
            index.media_type = Some(kind.into());
            Document::new(index).bytes().to_vec()
        }
    })
}

pub fn table(checks: &mut Vec<Check>) {
    const PUSH: &str = "Pushing manifests, end-7a";
    const PULL: &str = "Pulling manifests, end-3";
    for (label, kind) in [
        ("oci-image", media_type::MANIFEST),
        ("oci-index", media_type::INDEX),
        ("docker-image", media_type::DOCKER_MANIFEST),
        ("docker-list", media_type::DOCKER_LIST),
    ] {
        for by_tag in [true, false] {
            let way = if by_tag { "by-tag" } else { "by-digest" };
            add(checks, format!("manifests/{label}/put-{way}"), PUSH, move |peer| {
                let bytes = document(peer, kind)?;
                let digest = Digest::of(&bytes).to_string();
                let answer = peer.put(if by_tag { "v1" } else { &digest }, kind, &bytes)?;
                answer.is(&[201])?;
                answer.has("docker-content-digest", &digest)?;
                let location = answer.needs("location")?.to_owned();
                ensure(peer.get(&location)?.body == bytes, "other bytes at the Location")
            });
            add(checks, format!("manifests/{label}/get-{way}"), PULL, move |peer| {
                let bytes = document(peer, kind)?;
                let digest = Digest::of(&bytes).to_string();
                peer.put("v1", kind, &bytes)?.is(&[201])?;
                let answer = peer.ask(
                    "GET",
                    &format!("manifests/{}", if by_tag { "v1" } else { &digest }),
                    &[("Accept", kind)],
                    b"",
                )?;
                answer.is(&[200])?;
                answer.has("content-type", kind)?;
                answer.has("docker-content-digest", &digest)?;
                answer.has("content-length", &bytes.len().to_string())?;
                ensure(answer.body == bytes, "other bytes")
            });
            add(checks, format!("manifests/{label}/head-{way}"), PULL, move |peer| {
                let bytes = document(peer, kind)?;
                let digest = Digest::of(&bytes).to_string();
                peer.put("v1", kind, &bytes)?.is(&[201])?;
                let answer = peer.ask(
                    "HEAD",
                    &format!("manifests/{}", if by_tag { "v1" } else { &digest }),
                    &[("Accept", kind)],
                    b"",
                )?;
                answer.is(&[200])?;
                answer.has("content-type", kind)?;
                answer.has("docker-content-digest", &digest)?;
                answer.has("content-length", &bytes.len().to_string())?;
                ensure(answer.body.is_empty(), "a body after HEAD")
            });
        }
    }
    add(checks, "manifests/exact-bytes", "Pushing manifests: the exact bytes", |peer| {
        let text = String::from_utf8(document(peer, media_type::MANIFEST)?).map_err(|e| e.to_string())?;
        let odd =
            format!(" \n{}\n\n", text.replace(",", " ,\t").replace("\"layers\"", "\"x-unknown\": 1e0, \"layers\""));
        peer.put("odd", media_type::MANIFEST, odd.as_bytes())?.is(&[201])?;
        ensure(peer.get("manifests/odd")?.body == odd.as_bytes(), "other bytes")
    });
    add(checks, "manifests/without-own-media-type", "image-spec: mediaType SHOULD be used", |peer| {
        let mut image = peer.image(12)?;
        image.media_type = None;
        let bytes = serde_json::to_vec(&image).map_err(|e| e.to_string())?;
        peer.put("v1", media_type::MANIFEST, &bytes)?.is(&[201])?;
        peer.get("manifests/v1")?.has("content-type", media_type::MANIFEST)
    });
    add(checks, "manifests/without-layers", PUSH, |peer| {
        let mut image = peer.image(13)?;
        image.layers.clear();
        peer.push("v1", image).map(|_| ())
    });
    add(checks, "manifests/a-layer-twice", PUSH, |peer| {
        let mut image = peer.image(14)?;
        image.layers.push(image.layers[0].clone());
        peer.push("v1", image).map(|_| ())
    });
    add(checks, "manifests/unknown-layer-type", "artifacts: any media type", |peer| {
        let mut image = peer.image(15)?;
        image.layers[0].media_type = "application/vnd.example.thing.v1+json".into();
        image.config.media_type = media_type::EMPTY_JSON.into();
        image.artifact_type = Some("application/vnd.example.thing".into());
        peer.push("v1", image).map(|_| ())
    });
    add(checks, "manifests/foreign-layer", "non-distributable layers need not be there", |peer| {
        let mut image = peer.image(16)?;
        let mut layer = Descriptor::of(media_type::DOCKER_FOREIGN_LAYER, b"elsewhere");
        layer.urls = vec!["https://example.invalid/layer".into()];
        image.layers.push(layer);
        image.media_type = Some(media_type::DOCKER_MANIFEST.into());
        let bytes = Document::new(image).bytes().to_vec();
        peer.put("v1", media_type::DOCKER_MANIFEST, &bytes)?.is(&[201])
    });
    add(checks, "manifests/data", "image-spec, descriptor: data", |peer| {
        let mut image = peer.image(17)?;
        let empty = peer.blob(b"{}")?;
        image.config = Descriptor { data: Some("e30=".into()), ..empty };
        image.config.media_type = media_type::EMPTY_JSON.into();
        peer.push("v1", image).map(|_| ())
    });
    add(checks, "manifests/data/of-other-content", "image-spec, descriptor: data must match", |peer| {
        let mut image = peer.image(17)?;
        image.config.data = Some("e30=".into());
        peer.put("v1", media_type::MANIFEST, Document::new(image).bytes())?.fails(&[400], "MANIFEST_INVALID")
    });
    add(checks, "manifests/nested-index", PUSH, |peer| {
        let inner = Document::new(Index::new(vec![peer.tagged("one", 18)?])).bytes().to_vec();
        peer.put("inner", media_type::INDEX, &inner)?.is(&[201])?;
        let outer = Document::new(Index::new(vec![Descriptor::of(media_type::INDEX, &inner)])).bytes().to_vec();
        peer.put("outer", media_type::INDEX, &outer)?.is(&[201])
    });
    add(checks, "manifests/empty-index", PUSH, |peer| {
        peer.put("v1", media_type::INDEX, Document::new(Index::new(Vec::new())).bytes())?.is(&[201])
    });
    add(checks, "manifests/sparse-index", "an index may name what is not there", |peer| {
        let here = peer.tagged("one", 19)?;
        let away = Descriptor::of(media_type::MANIFEST, b"not here");
        let bytes = Document::new(Index::new(vec![here, away])).bytes().to_vec();
        peer.put("v1", media_type::INDEX, &bytes)?.is(&[201])
    });
    add(checks, "manifests/tag-moves", PUSH, |peer| {
        let first = peer.tagged("v1", 20)?;
        let second = peer.tagged("v1", 21)?;
        peer.head("manifests/v1")?.has("docker-content-digest", &second.digest.to_string())?;
        peer.head(&format!("manifests/{}", first.digest))?.is(&[200])
    });
    add(checks, "manifests/two-tags", PUSH, |peer| {
        let (one, two) = (peer.tagged("v1", 22)?, peer.tagged("v2", 22)?);
        ensure(one == two, "two manifests")?;
        peer.head("manifests/v1")?.has("docker-content-digest", &one.digest.to_string())?;
        peer.head("manifests/v2")?.has("docker-content-digest", &one.digest.to_string())
    });
    add(checks, "manifests/not-in-other-repositories", PULL, |peer| {
        let image = peer.tagged("v1", 23)?;
        peer.beside("other").get(&format!("manifests/{}", image.digest))?.is(&[404])
    });
    add(checks, "manifests/if-none-match", "RFC 9110 §13", |peer| {
        peer.tagged("v1", 24)?;
        let tag = peer.get("manifests/v1")?.needs("etag")?.to_owned();
        peer.ask("GET", "manifests/v1", &[("If-None-Match", &tag)], b"")?.is(&[304])
    });
    add(checks, "manifests/of-4-MiB", "Pushing manifests: at least 4 MiB", |peer| padded(peer, 4 << 20)?.is(&[201]));
    add(checks, "manifests/larger-than-4-MiB", "Pushing manifests: 413", |peer| {
        padded(peer, (4 << 20) + 1)?.is(&[400, 413])?;
        peer.head("manifests/v1")?.is(&[404])
    });
    for (label, target) in [("tag", "none".to_owned()), ("digest", Digest::of(b"none").to_string())] {
        for method in ["GET", "HEAD", "DELETE"] {
            let path = format!("manifests/{target}");
            add(checks, format!("manifests/unknown/{label}/{method}"), "Error Codes, MANIFEST_UNKNOWN", move |peer| {
                peer.tagged("v1", 25)?;
                let answer = peer.ask(method, &path, &[], b"")?;
                if method == "HEAD" { answer.is(&[404]) } else { answer.fails(&[404], "MANIFEST_UNKNOWN") }
            });
        }
    }
    add(checks, "manifests/unknown/repository", "Error Codes", |peer| peer.get("manifests/v1")?.is(&[404]));
    refused(checks);
    tags_with_a_digest(checks);
    deletions(checks);
    referrers(checks);
}

/// An image whose manifest has this many bytes.
fn padded(peer: &Peer, length: usize) -> Result<super::peer::Answer, String> {
    let mut image = peer.image(26)?;
    let mut pad = |n: usize| {
        image.annotations = BTreeMap::from([("pad".to_owned(), "x".repeat(n))]);
        Document::new(image.clone()).bytes().to_vec()
    };
    let plain = pad(0).len();
    let bytes = pad(length - plain);
    ensure(bytes.len() == length, "the padding is wrong")?;
    peer.put("v1", media_type::MANIFEST, &bytes)
}

fn refused(checks: &mut Vec<Check>) {
    const CLAUSE: &str = "Error Codes, MANIFEST_INVALID";
    type Change = fn(&str) -> String;
    let changes: [(&str, Change); 14] = [
        ("empty", |_| String::new()),
        ("text", |_| "nonsense".into()),
        ("cut", |text| text[..text.len() / 2].into()),
        ("array", |text| format!("[{text}]")),
        ("null", |_| "null".into()),
        ("two-documents", |text| format!("{text}{text}")),
        ("schema-version-1", |text| text.replace("\"schemaVersion\":2", "\"schemaVersion\":1")),
        ("schema-version-text", |text| text.replace("\"schemaVersion\":2", "\"schemaVersion\":\"2\"")),
        ("no-schema-version", |text| text.replace("\"schemaVersion\":2,", "")),
        ("other-media-type", |text| text.replace("image.manifest.v1", "image.index.v1")),
        ("layers-no-list", |text| text.replace("\"layers\":[", "\"layers\":{\"a\":[").replacen("}]", "}]}", 1)),
        ("malformed-digest", |text| text.replace("sha256:", "sha256:zz")),
        ("size-text", |text| text.replacen("\"size\":", "\"size\":\"x\",\"y\":", 1)),
        ("size-negative", |text| text.replacen("\"size\":", "\"size\":-", 1)),
    ];
    for (label, change) in changes {
        add(checks, format!("manifests/refused/{label}"), CLAUSE, move |peer| {
            let text = String::from_utf8(Document::new(peer.image(30)?).bytes().to_vec()).map_err(|e| e.to_string())?;
            peer.put("v1", media_type::MANIFEST, change(&text).as_bytes())?.fails(&[400], "MANIFEST_INVALID")?;
            peer.head("manifests/v1")?.is(&[404])
        });
    }
    for (label, addition) in [
        ("image-and-index", "\"manifests\":[],"),
        (
            "image-and-index-with-members",
            "\"manifests\":[{\"mediaType\":\"x/y\",\"digest\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\"size\":0}],",
        ),
    ] {
        add(checks, format!("manifests/refused/{label}"), "GHSA-qq97-vm5h-rrhg: one thing, not two", move |peer| {
            let text = String::from_utf8(Document::new(peer.image(31)?).bytes().to_vec()).map_err(|e| e.to_string())?;
            let both = text.replacen("\"layers\"", &format!("{addition}\"layers\""), 1);
            peer.put("v1", media_type::MANIFEST, both.as_bytes())?.fails(&[400], "MANIFEST_INVALID")
        });
    }
    for (label, kind) in [("text", "text/plain"), ("json", "application/json"), ("index", media_type::INDEX)] {
        add(checks, format!("manifests/refused/sent-as-{label}"), "mediaType is Content-Type", move |peer| {
            let bytes = Document::new(peer.image(32)?).bytes().to_vec();
            peer.put("v1", kind, &bytes)?.fails(&[400], "MANIFEST_INVALID")
        });
    }
    add(checks, "manifests/refused/wrong-size", CLAUSE, |peer| {
        let mut image = peer.image(33)?;
        image.layers[0].size += 1;
        peer.put("v1", media_type::MANIFEST, Document::new(image).bytes())?.fails(&[400], "MANIFEST_INVALID")
    });
    for (label, change) in [("config", 0usize), ("layer", 1)] {
        add(checks, format!("manifests/refused/missing-{label}"), "Error Codes, MANIFEST_BLOB_UNKNOWN", move |peer| {
            let mut image = peer.image(34)?;
            let missing = Descriptor::of("application/octet-stream", b"never pushed");
            if change == 0 {
                image.config.digest = missing.digest
            } else {
                image.layers[0].digest = missing.digest
            }
            peer.put("v1", media_type::MANIFEST, Document::new(image).bytes())?
                .fails(&[400, 404], "MANIFEST_BLOB_UNKNOWN")?;
            peer.head("manifests/v1")?.is(&[404])
        });
    }
    add(checks, "manifests/refused/blob-of-another-repository", "Error Codes, MANIFEST_BLOB_UNKNOWN", |peer| {
        let image = peer.image(35)?;
        let bytes = Document::new(image).bytes().to_vec();
        peer.beside("other").put("v1", media_type::MANIFEST, &bytes)?.fails(&[400, 404], "MANIFEST_BLOB_UNKNOWN")
    });
    add(checks, "manifests/refused/wrong-digest", "Error Codes, DIGEST_INVALID", |peer| {
        let bytes = Document::new(peer.image(36)?).bytes().to_vec();
        peer.put(&Digest::of(b"other").to_string(), media_type::MANIFEST, &bytes)?.fails(&[400], "DIGEST_INVALID")
    });
    add(checks, "manifests/by-sha512", "Pushing manifests, digests", |peer| {
        let bytes = Document::new(peer.image(37)?).bytes().to_vec();
        let digest = digest(Algorithm::Sha512, &bytes);
        peer.put(&digest.to_string(), media_type::MANIFEST, &bytes)?.is(&[201])?;
        let answer = peer.get(&format!("manifests/{digest}"))?;
        answer.has("docker-content-digest", &digest.to_string())?;
        ensure(answer.body == bytes, "other bytes")
    });
}

fn tags_with_a_digest(checks: &mut Vec<Check>) {
    const CLAUSE: &str = "draft, end-7b: ?tag=";
    fn put(peer: &Peer, query: &str) -> Result<(String, super::peer::Answer), String> {
        let bytes = Document::new(peer.image(40)?).bytes().to_vec();
        let digest = Digest::of(&bytes).to_string();
        let answer = peer.put(&format!("{digest}?{query}"), media_type::MANIFEST, &bytes)?;
        Ok((digest, answer))
    }
    for (label, query, tags) in [
        ("one", "tag=a".to_owned(), vec!["a".to_owned()]),
        ("two", "tag=a&tag=b".into(), vec!["a".into(), "b".into()]),
        ("ten", (0..10).map(|n| format!("&tag=t{n}")).collect(), (0..10).map(|n| format!("t{n}")).collect()),
    ] {
        add(checks, format!("manifests/tags-given/{label}"), CLAUSE, move |peer| {
            let (digest, answer) = put(peer, &query)?;
            answer.is(&[201])?;
            answer.needs("oci-tag")?;
            for tag in &tags {
                peer.head(&format!("manifests/{tag}"))?.has("docker-content-digest", &digest)?;
            }
            Ok(())
        });
    }
    add(checks, "manifests/tags-given/malformed", CLAUSE, |peer| put(peer, "tag=a&tag=.b")?.1.is(&[400]));
    add(checks, "manifests/tags-given/too-many", "draft, end-7b: 414", |peer| {
        let query: String = (0..2000).map(|n| format!("&tag=t{n}")).collect();
        put(peer, &query)?.1.is(&[400, 414, 431])
    });
}

fn deletions(checks: &mut Vec<Check>) {
    const CLAUSE: &str = "Deleting tags and manifests, end-9";
    add(checks, "manifests/deleted/tag", CLAUSE, |peer| {
        let image = peer.tagged("v1", 50)?;
        peer.tagged("v2", 50)?;
        peer.delete("manifests/v1")?.is(&[202])?;
        peer.get("manifests/v1")?.fails(&[404], "MANIFEST_UNKNOWN")?;
        peer.get("manifests/v2")?.is(&[200])?;
        peer.get(&format!("manifests/{}", image.digest))?.is(&[200])
    });
    add(checks, "manifests/deleted/tag-twice", CLAUSE, |peer| {
        peer.tagged("v1", 51)?;
        peer.delete("manifests/v1")?.is(&[202])?;
        peer.delete("manifests/v1")?.is(&[404])
    });
    for method in ["GET", "HEAD", "DELETE"] {
        add(checks, format!("manifests/deleted/digest/{method}"), CLAUSE, move |peer| {
            let image = peer.push("", peer.image(52)?)?;
            let path = format!("manifests/{}", image.digest);
            peer.delete(&path)?.is(&[202])?;
            peer.ask(method, &path, &[], b"")?.is(&[404])
        });
    }
    add(checks, "manifests/deleted/digest-takes-its-tags", CLAUSE, |peer| {
        let image = peer.tagged("v1", 53)?;
        peer.tagged("v2", 53)?;
        peer.tagged("other", 54)?;
        peer.delete(&format!("manifests/{}", image.digest))?.is(&[202])?;
        peer.get("manifests/v1")?.is(&[404])?;
        peer.get("manifests/v2")?.is(&[404])?;
        peer.get("manifests/other")?.is(&[200])?;
        let tags = peer.get("tags/list")?.json()?;
        ensure(tags["tags"] == serde_json::json!(["other"]), format!("tags {}", tags["tags"]))
    });
    add(checks, "manifests/deleted/pushed-again", CLAUSE, |peer| {
        let image = peer.tagged("v1", 55)?;
        peer.delete(&format!("manifests/{}", image.digest))?.is(&[202])?;
        peer.tagged("v1", 55)?;
        peer.get("manifests/v1")?.is(&[200])
    });
    add(checks, "manifests/deleted/blobs-stay", CLAUSE, |peer| {
        let manifest = peer.image(56)?;
        let image = peer.push("v1", manifest.clone())?;
        peer.delete(&format!("manifests/{}", image.digest))?.is(&[202])?;
        peer.head(&format!("blobs/{}", manifest.config.digest))?.is(&[200])
    });
    add(checks, "manifests/deleted/elsewhere-it-stays", CLAUSE, |peer| {
        let other = peer.beside("other");
        let image = peer.tagged("v1", 57)?;
        other.tagged("v1", 57)?;
        peer.delete(&format!("manifests/{}", image.digest))?.is(&[202])?;
        other.get("manifests/v1")?.is(&[200])
    });
}

fn list(peer: &Peer, subject: &Digest, query: &str) -> Result<(super::peer::Answer, Index), String> {
    let answer = peer.get(&format!("referrers/{subject}{query}"))?;
    answer.is(&[200])?;
    answer.has("content-type", media_type::INDEX)?;
    let index = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    Ok((answer, index))
}

fn referrer(peer: &Peer, number: u64, subject: &Descriptor, kind: Option<&str>) -> Result<Manifest, String> {
    let mut manifest = peer.image(number)?;
    manifest.subject = Some(subject.clone());
    manifest.artifact_type = kind.map(Into::into);
    Ok(manifest)
}

fn referrers(checks: &mut Vec<Check>) {
    const CLAUSE: &str = "Listing referrers, end-12a";
    const FILTER: &str = "Listing referrers, end-12b";
    add(checks, "referrers/none", CLAUSE, |peer| {
        let image = peer.tagged("v1", 60)?;
        let (_, index) = list(peer, &image.digest, "")?;
        ensure(index.manifests.is_empty() && index.schema_version == 2, "no empty index")
    });
    add(checks, "referrers/of-nothing", CLAUSE, |peer| {
        peer.tagged("v1", 60)?;
        list(peer, &Digest::of(b"nothing"), "").map(|_| ())
    });
    add(checks, "referrers/of-an-unknown-repository", CLAUSE, |peer| {
        list(peer, &Digest::of(b"nothing"), "").map(|_| ())
    });
    add(checks, "referrers/own-media-type", "image-spec: mediaType", |peer| {
        let (_, index) = list(peer, &Digest::of(b"nothing"), "")?;
        ensure(index.media_type.as_deref() == Some(media_type::INDEX), "another mediaType")
    });
    add(checks, "referrers/subject-header", "Pushing manifests with subject: OCI-Subject", |peer| {
        let image = peer.tagged("v1", 61)?;
        let bytes = Document::new(referrer(peer, 62, &image, None)?).bytes().to_vec();
        peer.put("signature", media_type::MANIFEST, &bytes)?.has("oci-subject", &image.digest.to_string())
    });
    add(checks, "referrers/no-subject-header-without-subject", "OCI-Subject", |peer| {
        let bytes = Document::new(peer.image(61)?).bytes().to_vec();
        ensure(peer.put("v1", media_type::MANIFEST, &bytes)?.header("oci-subject").is_none(), "OCI-Subject")
    });
    add(checks, "referrers/subject-may-be-missing", "a missing subject MUST be accepted", |peer| {
        let away = Descriptor::of(media_type::MANIFEST, b"comes later");
        let pushed = peer.push("", referrer(peer, 63, &away, None)?)?;
        let (_, index) = list(peer, &away.digest, "")?;
        ensure(index.manifests.iter().any(|found| found.digest == pushed.digest), "it is not listed")
    });
    for (label, kind) in [("artifact-type", Some("application/vnd.example.sbom+json")), ("config-type", None)] {
        add(checks, format!("referrers/entry/{label}"), CLAUSE, move |peer| {
            let image = peer.tagged("v1", 64)?;
            let mut manifest = referrer(peer, 65, &image, kind)?;
            manifest.annotations.insert("org.example.k".into(), "v".into());
            let pushed = peer.push("", manifest)?;
            let (_, index) = list(peer, &image.digest, "")?;
            let [entry] = index.manifests.as_slice() else { return Err(format!("{} entries", index.manifests.len())) };
            ensure((&entry.digest, entry.size) == (&pushed.digest, pushed.size), "another descriptor")?;
            ensure(entry.media_type == media_type::MANIFEST, "another mediaType")?;
            ensure(
                entry.artifact_type.as_deref() == Some(kind.unwrap_or(media_type::CONFIG)),
                format!("{:?}", entry.artifact_type),
            )?;
            ensure(entry.annotations.get("org.example.k").is_some_and(|v| v == "v"), "no annotations")
        });
    }
    for (label, kind) in
        [("with-artifact-type", Some("application/vnd.example.index")), ("without-artifact-type", None)]
    {
        add(checks, format!("referrers/entry/index-{label}"), CLAUSE, move |peer| {
            let image = peer.tagged("v1", 66)?;
            let mut index = Index::new(Vec::new());
            index.subject = Some(image.clone());
            index.artifact_type = kind.map(Into::into);
            let bytes = Document::new(index).bytes().to_vec();
            peer.put(&Digest::of(&bytes).to_string(), media_type::INDEX, &bytes)?.is(&[201])?;
            let (_, index) = list(peer, &image.digest, "")?;
            let [entry] = index.manifests.as_slice() else { return Err(format!("{} entries", index.manifests.len())) };
            ensure(
                entry.media_type == media_type::INDEX && entry.artifact_type.as_deref() == kind,
                format!("{entry:?}"),
            )
        });
    }
    for (query, expected) in [("application/vnd.a", 2), ("application/vnd.b", 1), ("application/vnd.none", 0)] {
        add(checks, format!("referrers/filter/{}", &query[16..]), FILTER, move |peer| {
            let image = peer.tagged("v1", 67)?;
            for (number, kind) in [(68, "application/vnd.a"), (69, "application/vnd.a"), (70, "application/vnd.b")] {
                peer.push("", referrer(peer, number, &image, Some(kind))?)?;
            }
            let (answer, index) = list(peer, &image.digest, &format!("?artifactType={}", query.replace('/', "%2F")))?;
            // Who does not filter says so by leaving the header out; we want the filter.
            answer.has("oci-filters-applied", "artifactType")?;
            ensure(index.manifests.len() == expected, format!("{} entries", index.manifests.len()))
        });
    }
    add(checks, "referrers/filter/none-no-header", FILTER, |peer| {
        let (answer, _) = list(peer, &Digest::of(b"nothing"), "")?;
        ensure(answer.header("oci-filters-applied").is_none(), "a filter nobody asked for")
    });
    add(checks, "referrers/deleted", CLAUSE, |peer| {
        let image = peer.tagged("v1", 71)?;
        let pushed = peer.push("", referrer(peer, 72, &image, None)?)?;
        peer.delete(&format!("manifests/{}", pushed.digest))?.is(&[202])?;
        ensure(list(peer, &image.digest, "")?.1.manifests.is_empty(), "it is still listed")
    });
    add(checks, "referrers/subject-deleted", CLAUSE, |peer| {
        let image = peer.tagged("v1", 73)?;
        peer.push("signature", referrer(peer, 74, &image, None)?)?;
        peer.delete(&format!("manifests/{}", image.digest))?.is(&[202])?;
        peer.get("manifests/signature")?.is(&[200])?;
        ensure(list(peer, &image.digest, "")?.1.manifests.len() == 1, "its referrer is forgotten")
    });
    add(checks, "referrers/of-one-repository", CLAUSE, |peer| {
        let image = peer.tagged("v1", 75)?;
        peer.push("", referrer(peer, 76, &image, None)?)?;
        ensure(list(&peer.beside("other"), &image.digest, "")?.1.manifests.is_empty(), "of another repository")
    });
    add(checks, "referrers/tag-schema", "Referrers Tag Schema: what clients wrote is listed, too", |peer| {
        let image = peer.tagged("v1", 77)?;
        let old = peer.push("", peer.image(78)?)?;
        let new = peer.push("", referrer(peer, 79, &image, None)?)?;
        // One that is in both is listed once.
        let bytes = Document::new(Index::new(vec![old.clone(), new.clone()])).bytes().to_vec();
        peer.put(&format!("sha256-{}", image.digest.hex()), media_type::INDEX, &bytes)?.is(&[201])?;
        let mut found: Vec<_> = list(peer, &image.digest, "")?.1.manifests.into_iter().map(|d| d.digest).collect();
        found.sort();
        let mut expected = vec![old.digest, new.digest];
        expected.sort();
        ensure(found == expected, format!("{found:?}"))
    });
    add(checks, "referrers/of-sha512", CLAUSE, |peer| {
        let bytes = Document::new(peer.image(80)?).bytes().to_vec();
        let digest = digest(Algorithm::Sha512, &bytes);
        peer.put(&digest.to_string(), media_type::MANIFEST, &bytes)?.is(&[201])?;
        let subject = Descriptor::new(media_type::MANIFEST, digest.clone(), bytes.len() as u64);
        peer.push("", referrer(peer, 81, &subject, None)?)?;
        ensure(list(peer, &digest, "")?.1.manifests.len() == 1, "not listed")
    });
    add(checks, "referrers/pages", "Listing referrers: Link", |peer| {
        let image = peer.tagged("v1", 82)?;
        let mut expected = Vec::new();
        for number in 83..88 {
            expected.push(peer.push("", referrer(peer, number, &image, Some("a/b"))?)?.digest.to_string());
        }
        expected.sort();
        let mut found = Vec::new();
        let mut path = format!("referrers/{}?n=2&artifactType=a%2Fb", image.digest);
        for _ in 0..10 {
            let answer = peer.get(&path)?;
            answer.is(&[200])?;
            let index: Index = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
            found.extend(index.manifests.iter().map(|d| d.digest.to_string()));
            match answer.header("link").and_then(ctk_distribution::next_link) {
                Some(next) => path = next.to_owned(),
                None => break,
            }
        }
        found.sort();
        ensure(found == expected, format!("{} entries, {} expected", found.len(), expected.len()))
    });
}
