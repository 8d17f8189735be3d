//! Upload sessions: chunks, their order, status, cancellation.

use ctk_oci::Digest;

use super::peer::{Check, add, bytes, ensure, with};

pub fn table(checks: &mut Vec<Check>) {
    const OPEN: &str = "Pushing a blob in chunks, end-4a";
    const CHUNK: &str = "Pushing a blob in chunks, end-5";
    const LAST: &str = "Pushing a blob in chunks, end-6";
    const STATUS: &str = "Pushing a blob in chunks, end-13";
    add(checks, "uploads/open", OPEN, |peer| {
        let answer = peer.ask("POST", "blobs/uploads/", &[], b"")?;
        answer.is(&[202])?;
        ensure(!answer.needs("location")?.is_empty(), "an empty Location")?;
        match answer.header("oci-chunk-min-length") {
            Some(text) => ensure(text.parse::<u64>().is_ok(), "OCI-Chunk-Min-Length is no number"),
            None => Ok(()),
        }
    });
    add(checks, "uploads/open/without-slash", OPEN, |peer| {
        peer.ask("POST", "blobs/uploads", &[], b"")?.is(&[202, 301, 307, 308, 404])
    });
    add(checks, "uploads/open/twice-is-two", OPEN, |peer| ensure(peer.open()? != peer.open()?, "the same session"));
    add(checks, "uploads/open/unknown-algorithm", "draft, end-4c", |peer| {
        peer.ask("POST", "blobs/uploads/?digest-algorithm=md5", &[], b"")?.is(&[400])
    });
    add(checks, "uploads/two-at-once", OPEN, |peer| {
        let (first, second) = (peer.open()?, peer.open()?);
        let (first, second) = (peer.chunk(&first, 0, b"one ")?, peer.chunk(&second, 0, b"two ")?);
        let (first, second) = (peer.chunk(&first, 4, b"first")?, peer.chunk(&second, 4, b"second")?);
        peer.close(&first, &Digest::of(b"one first"), b"")?.is(&[201])?;
        peer.close(&second, &Digest::of(b"two second"), b"")?.is(&[201])
    });

    add(checks, "uploads/chunk/range-in-answer", CHUNK, |peer| {
        let answer = peer.ask("PATCH", &peer.open()?, &[("Content-Range", "0-9")], b"0123456789")?;
        answer.is(&[202])?;
        answer.has("range", "0-9")?;
        answer.needs("location").map(|_| ())
    });
    add(checks, "uploads/chunk/range-adds-up", CHUNK, |peer| {
        let location = peer.chunk(&peer.open()?, 0, &[7; 100])?;
        let answer = peer.ask("PATCH", &location, &[("Content-Range", "100-149")], &[8; 50])?;
        answer.has("range", "0-149")
    });
    add(checks, "uploads/chunk/without-range", CHUNK, |peer| {
        let answer = peer.ask("PATCH", &peer.open()?, &[("Content-Type", "application/octet-stream")], b"stream")?;
        answer.is(&[202])?;
        answer.has("range", "0-5")
    });
    for (label, range, length) in [
        ("gap", "200-209", 10),
        ("gap-of-one", "101-110", 10),
        ("overlap", "50-149", 100),
        ("again", "0-99", 100),
        ("one-too-early", "99-108", 10),
        ("far", "99999999999-99999999999", 1),
    ] {
        add(checks, format!("uploads/order/{label}"), "end-5: out of order is 416", move |peer| {
            let location = peer.chunk(&peer.open()?, 0, &[1; 100])?;
            let answer = peer.ask("PATCH", &location, &[("Content-Range", range)], &vec![2; length])?;
            answer.is(&[416])?;
            // Nothing of it counts, and the right one is taken.
            let location = peer.chunk(&location, 100, &[3; 10])?;
            let whole = [vec![1; 100], vec![3; 10]].concat();
            peer.close(&location, &Digest::of(&whole), b"")?.is(&[201])
        });
        add(checks, format!("uploads/order/{label}/in-put"), "draft, end-6: out of order is 416", move |peer| {
            let location = peer.chunk(&peer.open()?, 0, &[1; 100])?;
            let query = format!("digest={}", Digest::of(&[1; 100]));
            let answer = peer.ask("PUT", &with(&location, &query), &[("Content-Range", range)], &vec![2; length])?;
            answer.is(&[416])
        });
    }
    add(checks, "uploads/order/first-not-at-0", "end-5: the first chunk begins at 0", |peer| {
        peer.ask("PATCH", &peer.open()?, &[("Content-Range", "1-10")], b"0123456789")?.is(&[416])
    });
    for (label, range) in [
        ("words", "none"),
        ("one-number", "5"),
        ("no-end", "0-"),
        ("no-start", "-9"),
        ("negative", "-5--1"),
        ("backwards", "9-0"),
        ("hexadecimal", "0x0-0x9"),
        ("huge", "0-99999999999999999999999999"),
        ("spaces", "0 - 9"),
    ] {
        add(checks, format!("uploads/malformed-range/{label}"), "end-5: ^[0-9]+-[0-9]+$", move |peer| {
            peer.ask("PATCH", &peer.open()?, &[("Content-Range", range)], b"0123456789")?.is(&[400, 416])
        });
    }
    for (label, range) in [("longer", "0-99"), ("shorter", "0-4")] {
        add(checks, format!("uploads/range-and-body/{label}"), "Error Codes, SIZE_INVALID", move |peer| {
            peer.ask("PATCH", &peer.open()?, &[("Content-Range", range)], b"0123456789")?.is(&[400, 416])
        });
    }

    add(checks, "uploads/status/fresh", STATUS, |peer| {
        let answer = peer.get(&peer.open()?)?;
        answer.is(&[204])?;
        answer.needs("range")?;
        answer.needs("location").map(|_| ())
    });
    add(checks, "uploads/status/after-a-chunk", STATUS, |peer| {
        let location = peer.chunk(&peer.open()?, 0, &[5; 1234])?;
        let answer = peer.get(&location)?;
        answer.is(&[204])?;
        answer.has("range", "0-1233")
    });
    add(checks, "uploads/status/goes-on-from-it", STATUS, |peer| {
        let whole = bytes(31, 3000);
        let location = peer.chunk(&peer.open()?, 0, &whole[..1000])?;
        let location = peer.get(&location)?.needs("location")?.to_owned();
        let location = peer.chunk(&location, 1000, &whole[1000..])?;
        peer.close(&location, &Digest::of(&whole), b"")?.is(&[201])
    });
    for (label, method) in [("GET", "GET"), ("PATCH", "PATCH"), ("DELETE", "DELETE"), ("PUT", "PUT")] {
        add(checks, format!("uploads/unknown/{label}"), "Error Codes, BLOB_UPLOAD_UNKNOWN", move |peer| {
            let query = if method == "PUT" { format!("?digest={}", Digest::of(b"")) } else { String::new() };
            let path = format!("blobs/uploads/01234567-0123-0123-0123-0123456789ab{query}");
            peer.ask(method, &path, &[], b"")?.fails(&[404], "BLOB_UPLOAD_UNKNOWN")
        });
        add(checks, format!("uploads/of-another-repository/{label}"), "a session is its repository's", move |peer| {
            let other = peer.beside("other");
            let location = peer.chunk(&peer.open()?, 0, b"mine")?;
            let stolen = location.replacen(&peer.repository, &other.repository, 1);
            let stolen =
                if method == "PUT" { with(&stolen, &format!("digest={}", Digest::of(b"mine"))) } else { stolen };
            other.ask(method, &stolen, &[], b"")?.is(&[400, 403, 404])?;
            // It is as it was.
            peer.close(&location, &Digest::of(b"mine"), b"")?.is(&[201])
        });
    }

    add(checks, "uploads/put/wrong-digest", "end-6, DIGEST_INVALID", |peer| {
        peer.close(&peer.open()?, &Digest::of(b"this"), b"that")?.fails(&[400], "DIGEST_INVALID")
    });
    add(checks, "uploads/put/wrong-digest/nothing-stays", "end-6", |peer| {
        peer.close(&peer.open()?, &Digest::of(b"this"), b"that")?.is(&[400])?;
        peer.head(&format!("blobs/{}", Digest::of(b"this")))?.is(&[404])?;
        peer.head(&format!("blobs/{}", Digest::of(b"that")))?.is(&[404])
    });
    add(checks, "uploads/put/wrong-digest-after-chunks", LAST, |peer| {
        let location = peer.chunk(&peer.open()?, 0, b"chunk")?;
        peer.close(&location, &Digest::of(b"other"), b"")?.fails(&[400], "DIGEST_INVALID")
    });
    add(checks, "uploads/post/wrong-digest", "end-4b, DIGEST_INVALID", |peer| {
        let answer = peer.ask("POST", &format!("blobs/uploads/?digest={}", Digest::of(b"this")), &[], b"that")?;
        answer.is(&[202, 400])?;
        peer.head(&format!("blobs/{}", Digest::of(b"this")))?.is(&[404])
    });
    add(checks, "uploads/put/without-digest", "end-6: digest is required", |peer| {
        peer.ask("PUT", &peer.open()?, &[], b"x")?.fails(&[400], "DIGEST_INVALID")
    });
    for (label, text) in
        [("malformed", "sha256:xyz"), ("empty", ""), ("unknown-algorithm", "md5:d41d8cd98f00b204e9800998ecf8427e")]
    {
        add(checks, format!("uploads/put/digest-{label}"), "end-6, DIGEST_INVALID", move |peer| {
            let location = with(&peer.open()?, &format!("digest={text}"));
            peer.ask("PUT", &location, &[], b"x")?.fails(&[400], "DIGEST_INVALID")
        });
    }
    add(checks, "uploads/put/ends-the-session", LAST, |peer| {
        let location = peer.open()?;
        peer.close(&location, &Digest::of(b"done"), b"done")?.is(&[201])?;
        peer.get(&location)?.is(&[404])?;
        peer.close(&location, &Digest::of(b"done"), b"done")?.is(&[404])
    });
    add(checks, "uploads/put/invisible-before", "a blob is there once it is whole", |peer| {
        let whole = bytes(41, 10_000);
        let digest = Digest::of(&whole);
        let location = peer.chunk(&peer.open()?, 0, &whole)?;
        peer.head(&format!("blobs/{digest}"))?.is(&[404])?;
        peer.close(&location, &digest, b"")?.is(&[201])?;
        peer.head(&format!("blobs/{digest}"))?.is(&[200])
    });
    add(checks, "uploads/put/escaped-digest", LAST, |peer| {
        let escaped = Digest::of(b"escaped").to_string().replace(':', "%3A");
        peer.ask("PUT", &with(&peer.open()?, &format!("digest={escaped}")), &[], b"escaped")?.is(&[201])
    });

    const CANCEL: &str = "draft, end-14: cancelling an upload";
    add(checks, "uploads/cancel", CANCEL, |peer| peer.delete(&peer.open()?)?.is(&[204]));
    for method in ["GET", "PATCH", "PUT", "DELETE"] {
        add(checks, format!("uploads/cancel/then-{method}"), CANCEL, move |peer| {
            let location = peer.chunk(&peer.open()?, 0, b"given up")?;
            peer.delete(&location)?.is(&[204])?;
            let query = format!("digest={}", Digest::of(b"given up"));
            let location = if method == "PUT" { with(&location, &query) } else { location };
            peer.ask(method, &location, &[], b"")?.is(&[404])
        });
    }
}
