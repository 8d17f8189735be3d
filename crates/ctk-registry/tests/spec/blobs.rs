//! Pushing, pulling, mounting and deleting blobs.

use ctk_oci::{Algorithm, Digest};

use super::peer::{Answer, Check, Outcome, Peer, add, bytes, digest, ensure, with};

/// How a blob is pushed.
const WAYS: [&str; 5] = ["post-then-put", "single-post", "patch-then-put", "chunks", "last-chunk-in-put"];

fn push(peer: &Peer, way: &str, bytes: &[u8], digest: &Digest) -> Result<Answer, String> {
    let algorithm = digest.algorithm().name();
    let open = || {
        let answer = peer.ask("POST", &format!("blobs/uploads/?digest-algorithm={algorithm}"), &[], b"")?;
        answer.is(&[202])?;
        answer.needs("location").map(str::to_owned)
    };
    match way {
        "post-then-put" => peer.close(&open()?, digest, bytes),
        "single-post" => {
            let headers = [("Content-Type", "application/octet-stream")];
            let answer = peer.ask("POST", &format!("blobs/uploads/?digest={digest}"), &headers, bytes)?;
            match answer.status {
                // A registry may answer 202: then the session is gone on with as usual.
                202 => peer.close(answer.needs("location")?, digest, bytes),
                _ => Ok(answer),
            }
        }
        "patch-then-put" => {
            let location = open()?;
            let answer = peer.ask("PATCH", &location, &[("Content-Type", "application/octet-stream")], bytes)?;
            answer.is(&[202])?;
            peer.close(answer.needs("location")?, digest, b"")
        }
        "chunks" => {
            let mut location = open()?;
            let mut from = 0;
            for chunk in bytes.chunks((bytes.len() / 3).max(1)) {
                location = peer.chunk(&location, from, chunk)?;
                from += chunk.len();
            }
            peer.close(&location, digest, b"")
        }
        _ => {
            let half = bytes.len() / 2;
            let mut location = open()?;
            if half > 0 {
                location = peer.chunk(&location, 0, &bytes[..half])?;
            }
            let last = bytes.len().saturating_sub(1);
            let range = format!("{half}-{last}");
            let headers: &[(&str, &str)] = if bytes.is_empty() { &[] } else { &[("Content-Range", &range)] };
            peer.ask("PUT", &with(&location, &format!("digest={digest}")), headers, &bytes[half..])
        }
    }
}

pub fn table(checks: &mut Vec<Check>) {
    const PUSH: &str = "Pushing blobs, end-4 to end-6";
    for way in WAYS {
        for (label, length) in [("empty", 0), ("a-byte", 1), ("4-KiB", 4096), ("100-kB", 100_000), ("2-MB", 2_000_001)]
        {
            for algorithm in Algorithm::ALL {
                let name = algorithm.name();
                add(checks, format!("blobs/{name}/{way}/{label}"), PUSH, move |peer| {
                    let bytes = bytes(length as u64 + 1, length);
                    let digest = digest(algorithm, &bytes);
                    let answer = push(peer, way, &bytes, &digest)?;
                    answer.is(&[201])?;
                    answer.has("docker-content-digest", &digest.to_string())?;
                    let location = answer.needs("location")?.to_owned();
                    ensure(peer.get(&location)?.body == bytes, "other bytes at the Location")?;
                    let found = peer.get(&format!("blobs/{digest}"))?;
                    found.is(&[200])?;
                    found.has("docker-content-digest", &digest.to_string())?;
                    found.has("content-length", &length.to_string())?;
                    ensure(found.body == bytes, "other bytes came back")?;
                    let found = peer.head(&format!("blobs/{digest}"))?;
                    found.is(&[200])?;
                    found.has("content-length", &length.to_string())?;
                    found.has("docker-content-digest", &digest.to_string())?;
                    ensure(found.body.is_empty(), "a body after HEAD")
                });
            }
        }
    }
    add(checks, "blobs/pushed-twice", PUSH, |peer| {
        let first = peer.blob(b"twice")?;
        peer.blob(b"twice")?;
        peer.head(&format!("blobs/{}", first.digest))?.is(&[200])
    });
    add(checks, "blobs/not-in-other-repositories", "Pulling blobs: within <name>", |peer| {
        let blob = peer.blob(b"mine alone, and nobody else's")?;
        peer.beside("other").get(&format!("blobs/{}", blob.digest))?.fails(&[404], "BLOB_UNKNOWN")
    });
    let unknown = Digest::of(b"nobody has this");
    for method in ["GET", "HEAD", "DELETE"] {
        let path = format!("blobs/{unknown}");
        add(checks, format!("blobs/unknown/{method}"), "Error Codes, BLOB_UNKNOWN", move |peer| {
            let answer = peer.ask(method, &path, &[], b"")?;
            if method == "HEAD" { answer.is(&[404]) } else { answer.fails(&[404], "BLOB_UNKNOWN") }
        });
    }
    ranges(checks);
    conditions(checks);
    mounts(checks);
    deletions(checks);
}

fn ranges(checks: &mut Vec<Check>) {
    const CLAUSE: &str = "Pulling blobs: Range (RFC 9110 §14)";
    const SIZE: usize = 1_000_000;
    // What is asked, and the bytes that answer it; `None` for 416.
    for (range, expected) in [
        ("bytes=0-0", Some((0, 1))),
        ("bytes=0-9", Some((0, 10))),
        ("bytes=5-5", Some((5, 6))),
        ("bytes=524287-524289", Some((524_287, 524_290))),
        ("bytes=0-", Some((0, SIZE))),
        ("bytes=1-", Some((1, SIZE))),
        ("bytes=999999-", Some((SIZE - 1, SIZE))),
        ("bytes=999990-2000000", Some((999_990, SIZE))),
        ("bytes=-1", Some((SIZE - 1, SIZE))),
        ("bytes=-1000", Some((SIZE - 1000, SIZE))),
        ("bytes=-2000000", Some((0, SIZE))),
        ("bytes=1000000-", None),
        ("bytes=1000000-1000001", None),
        ("bytes=9999999999-", None),
    ] {
        add(checks, format!("blobs/range/{range}"), CLAUSE, move |peer| {
            let bytes = bytes(9, SIZE);
            let blob = peer.blob(&bytes)?;
            let answer = peer.ask("GET", &format!("blobs/{}", blob.digest), &[("Range", range)], b"")?;
            let Some((start, end)) = expected else {
                answer.is(&[416])?;
                return answer.has("content-range", &format!("bytes */{SIZE}"));
            };
            answer.is(&[206])?;
            answer.has("content-range", &format!("bytes {start}-{}/{SIZE}", end - 1))?;
            answer.has("content-length", &(end - start).to_string())?;
            ensure(answer.body == bytes[start..end], "other bytes than asked for")
        });
    }
    // What no range is gives everything, or is refused; never some other part.
    for range in [
        "bytes=9-5",
        "bytes=a-b",
        "bytes=",
        "bytes=-",
        "lines=0-5",
        "0-5",
        "bytes=0x1-5",
        "bytes=99999999999999999999999-",
    ] {
        add(checks, format!("blobs/range/ignored/{range}"), CLAUSE, move |peer| {
            let blob = peer.blob(&bytes(8, 1000))?;
            let answer = peer.ask("GET", &format!("blobs/{}", blob.digest), &[("Range", range)], b"")?;
            answer.is(&[200, 400, 416])?;
            ensure(answer.status != 200 || answer.body.len() == 1000, "a part of the blob")
        });
    }
    add(checks, "blobs/range/several", CLAUSE, |peer| {
        let blob = peer.blob(&bytes(7, 1000))?;
        let answer = peer.ask("GET", &format!("blobs/{}", blob.digest), &[("Range", "bytes=0-1,5-6")], b"")?;
        let multipart = answer.header("content-type").is_some_and(|kind| kind.starts_with("multipart/byteranges"));
        ensure(
            answer.status == 200 && answer.body.len() == 1000 || answer.status == 206 && multipart,
            "neither whole nor parts",
        )
    });
}

fn conditions(checks: &mut Vec<Check>) {
    const CLAUSE: &str = "RFC 9110 §13: content never changes";
    fn tagged(peer: &Peer) -> Result<(String, String), String> {
        let blob = peer.blob(&bytes(6, 5000))?;
        let path = format!("blobs/{}", blob.digest);
        let tag = peer.get(&path)?.needs("etag")?.to_owned();
        Ok((path, tag))
    }
    add(checks, "blobs/condition/if-none-match", CLAUSE, |peer| {
        let (path, tag) = tagged(peer)?;
        let answer = peer.ask("GET", &path, &[("If-None-Match", &tag)], b"")?;
        answer.is(&[304])?;
        ensure(answer.body.is_empty(), "a body with 304")
    });
    add(checks, "blobs/condition/if-none-match-other", CLAUSE, |peer| {
        let (path, _) = tagged(peer)?;
        peer.ask("GET", &path, &[("If-None-Match", "\"other\"")], b"")?.is(&[200])
    });
    add(checks, "blobs/condition/if-range", CLAUSE, |peer| {
        let (path, tag) = tagged(peer)?;
        peer.ask("GET", &path, &[("Range", "bytes=0-9"), ("If-Range", &tag)], b"")?.is(&[206])
    });
    add(checks, "blobs/condition/if-range-other", CLAUSE, |peer| {
        let (path, _) = tagged(peer)?;
        let answer = peer.ask("GET", &path, &[("Range", "bytes=0-9"), ("If-Range", "\"other\"")], b"")?;
        answer.is(&[200])?;
        ensure(answer.body.len() == 5000, "a part of something else")
    });
}

fn mounts(checks: &mut Vec<Check>) {
    const CLAUSE: &str = "Mounting a blob from another repository, end-11";
    fn mount(peer: &Peer, query: &str) -> Result<Answer, String> {
        peer.ask("POST", &format!("blobs/uploads/?{query}"), &[], b"")
    }
    for algorithm in Algorithm::ALL {
        add(checks, format!("mount/{}", algorithm.name()), CLAUSE, move |peer| {
            let text = bytes(21, 2000);
            let digest = digest(algorithm, &text);
            let from = peer.beside("from");
            from.close(&from.open()?, &digest, &text)?.is(&[201])?;
            let answer = mount(peer, &format!("mount={digest}&from={}", from.repository))?;
            answer.is(&[201])?;
            answer.has("docker-content-digest", &digest.to_string())?;
            let location = answer.needs("location")?.to_owned();
            ensure(peer.get(&location)?.body == text, "other bytes")?;
            ensure(peer.get(&format!("blobs/{digest}"))?.body == text, "other bytes")?;
            from.delete(&format!("blobs/{digest}"))?.is(&[202])?;
            peer.get(&format!("blobs/{digest}"))?.is(&[200])
        });
    }
    add(checks, "mount/escaped", CLAUSE, |peer| {
        let from = peer.beside("from");
        let blob = from.blob(b"escaped")?;
        let escape = |text: &str| text.replace('/', "%2F").replace(':', "%3A");
        let query = format!("from={}&mount={}", escape(&from.repository), escape(&blob.digest.to_string()));
        mount(peer, &query)?.is(&[201])
    });
    add(checks, "mount/within-one-repository", CLAUSE, |peer| {
        let blob = peer.blob(b"within")?;
        mount(peer, &format!("mount={}&from={}", blob.digest, peer.repository))?.is(&[201])
    });
    add(checks, "mount/unknown-blob", CLAUSE, |peer| {
        let answer = mount(peer, &format!("mount={}&from={}", Digest::of(b"nobody"), peer.repository))?;
        answer.is(&[202])?;
        // The session goes on as any other.
        let location = answer.needs("location")?.to_owned();
        peer.close(&location, &Digest::of(b"instead"), b"instead")?.is(&[201])
    });
    add(checks, "mount/unknown-repository", CLAUSE, |peer| {
        let blob = peer.blob(b"here, not there")?;
        mount(&peer.beside("into"), &format!("mount={}&from=spec/nobody", blob.digest))?.is(&[202])
    });
    add(checks, "mount/repository-without-the-blob", CLAUSE, |peer| {
        let blob = peer.blob(b"here, not in the other")?;
        let other = peer.beside("other");
        other.blob(b"something else")?;
        mount(&peer.beside("into"), &format!("mount={}&from={}", blob.digest, other.repository))?.is(&[202])
    });
    add(checks, "mount/malformed-repository", CLAUSE, |peer| {
        let blob = peer.blob(b"malformed from")?;
        mount(peer, &format!("mount={}&from=../x", blob.digest))?.is(&[202, 400])
    });
    add(checks, "mount/malformed-digest", CLAUSE, |peer| {
        mount(peer, &format!("mount=sha256:00&from={}", peer.repository))?.is(&[202, 400])
    });
    add(checks, "mount/without-from", "end-11: from may be left out", |peer| {
        let blob = peer.beside("somewhere").blob(b"anonymous mount")?;
        let answer = mount(peer, &format!("mount={}", blob.digest))?;
        answer.is(&[201, 202])?;
        if answer.status == 201 { peer.get(&format!("blobs/{}", blob.digest))?.is(&[200]) } else { Ok(()) }
    });
    add(checks, "mount/without-from/unknown", "end-11: from may be left out", |peer| {
        mount(peer, &format!("mount={}", Digest::of(b"nowhere")))?.is(&[202])
    });
}

fn deletions(checks: &mut Vec<Check>) {
    const CLAUSE: &str = "Deleting blobs, end-10";
    fn gone(peer: &Peer, blob: &Digest) -> Outcome {
        peer.delete(&format!("blobs/{blob}"))?.is(&[202])
    }
    for method in ["GET", "HEAD", "DELETE"] {
        add(checks, format!("blobs/deleted/{method}"), CLAUSE, move |peer| {
            let blob = peer.blob(b"to be deleted")?.digest;
            gone(peer, &blob)?;
            peer.ask(method, &format!("blobs/{blob}"), &[], b"")?.is(&[404])
        });
    }
    add(checks, "blobs/deleted/range", CLAUSE, |peer| {
        let blob = peer.blob(b"to be deleted, too")?.digest;
        gone(peer, &blob)?;
        peer.ask("GET", &format!("blobs/{blob}"), &[("Range", "bytes=0-1")], b"")?.is(&[404])
    });
    add(checks, "blobs/deleted/not-mountable", "CVE-2026-35172: gone is gone", |peer| {
        let blob = peer.blob(b"deleted, then mounted?")?.digest;
        gone(peer, &blob)?;
        let query = format!("blobs/uploads/?mount={blob}&from={}", peer.repository);
        peer.beside("into").ask("POST", &query, &[], b"")?.is(&[202])
    });
    add(checks, "blobs/deleted/stays-elsewhere", CLAUSE, |peer| {
        let other = peer.beside("other");
        let blob = peer.blob(b"in two places")?.digest;
        other.blob(b"in two places")?;
        gone(peer, &blob)?;
        ensure(other.get(&format!("blobs/{blob}"))?.body == b"in two places", "the other one lost it")
    });
    add(checks, "blobs/deleted/pushed-again", CLAUSE, |peer| {
        let blob = peer.blob(b"comes back")?.digest;
        gone(peer, &blob)?;
        peer.blob(b"comes back")?;
        ensure(peer.get(&format!("blobs/{blob}"))?.body == b"comes back", "it did not come back")
    });
}
