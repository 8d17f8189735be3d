//! Tags and repositories, in pages.

use ctk_oci::Digest;

use super::peer::{Check, Peer, add, ensure};

const TAGS: [&str; 9] = ["0", "A", "Z", "a", "a-b", "a.b", "a_b", "b", "latest"];

fn filled(peer: &Peer) -> Result<(), String> {
    let image = peer.tagged("latest", 90)?;
    let bytes = peer.get(&format!("manifests/{}", image.digest))?.body;
    for tag in TAGS.iter().rev() {
        peer.put(tag, &image.media_type, &bytes)?.is(&[201])?;
    }
    Ok(())
}

fn strings(value: &serde_json::Value) -> Vec<String> {
    value.as_array().map(|a| a.iter().filter_map(|v| v.as_str().map(Into::into)).collect()).unwrap_or_default()
}

pub fn table(checks: &mut Vec<Check>) {
    const CLAUSE: &str = "Listing tags, end-8a";
    const PAGES: &str = "Listing tags, end-8b";
    add(checks, "lists/tags", CLAUSE, |peer| {
        filled(peer)?;
        let answer = peer.get("tags/list")?;
        answer.is(&[200])?;
        let value = answer.json()?;
        ensure(value["name"] == peer.repository.as_str(), "another name")?;
        ensure(strings(&value["tags"]) == TAGS, format!("{}", value["tags"]))
    });
    add(checks, "lists/tags/content-type", CLAUSE, |peer| {
        filled(peer)?;
        let answer = peer.get("tags/list")?;
        let kind = answer.needs("content-type")?;
        ensure(kind.starts_with("application/json"), kind)
    });
    add(checks, "lists/tags/unknown-repository", "Error Codes, NAME_UNKNOWN", |peer| {
        peer.get("tags/list")?.fails(&[404], "NAME_UNKNOWN")
    });
    add(checks, "lists/tags/only-blobs", "Error Codes, NAME_UNKNOWN", |peer| {
        peer.blob(b"no manifest here")?;
        let answer = peer.get("tags/list")?;
        answer.is(&[200, 404])?;
        if answer.status == 200 { ensure(strings(&answer.json()?["tags"]).is_empty(), "tags") } else { Ok(()) }
    });
    add(checks, "lists/tags/none-left", CLAUSE, |peer| {
        peer.tagged("v1", 91)?;
        peer.delete("manifests/v1")?.is(&[202])?;
        let answer = peer.get("tags/list")?;
        answer.is(&[200])?;
        ensure(strings(&answer.json()?["tags"]).is_empty(), "a tag that was deleted")
    });
    add(checks, "lists/tags/digests-are-none", CLAUSE, |peer| {
        let image = peer.push("", peer.image(92)?)?;
        peer.tagged("v1", 93)?;
        let value = peer.get("tags/list")?.json()?;
        ensure(strings(&value["tags"]) == ["v1"], format!("{} beside {}", value["tags"], image.digest))
    });
    for n in [1usize, 2, 3, 8, 9, 10, 1000] {
        add(checks, format!("lists/tags/n={n}"), PAGES, move |peer| {
            filled(peer)?;
            let answer = peer.get(&format!("tags/list?n={n}"))?;
            answer.is(&[200])?;
            let expected = &TAGS[..n.min(TAGS.len())];
            ensure(strings(&answer.json()?["tags"]) == expected, "another page")?;
            let link = answer.header("link").and_then(ctk_distribution::next_link);
            ensure(link.is_some() == (n < TAGS.len()), format!("link {link:?}"))
        });
        add(checks, format!("lists/tags/all-pages-of/{n}"), PAGES, move |peer| {
            filled(peer)?;
            let mut path = format!("tags/list?n={n}");
            let mut found = Vec::new();
            for _ in 0..20 {
                let answer = peer.get(&path)?;
                found.extend(strings(&answer.json()?["tags"]));
                match answer.header("link").and_then(ctk_distribution::next_link) {
                    Some(next) => path = next.to_owned(),
                    None => break,
                }
            }
            ensure(found == TAGS, format!("{found:?}"))
        });
    }
    add(checks, "lists/tags/n=0", "end-8b: an empty list and no Link", |peer| {
        filled(peer)?;
        let answer = peer.get("tags/list?n=0")?;
        answer.is(&[200])?;
        ensure(strings(&answer.json()?["tags"]).is_empty(), "entries")?;
        ensure(answer.header("link").is_none(), "a Link")
    });
    for n in ["-1", "x", "1.5", "", "0x10"] {
        add(checks, format!("lists/tags/malformed-n/{n}"), PAGES, move |peer| {
            filled(peer)?;
            peer.get(&format!("tags/list?n={n}"))?.is(&[400])
        });
    }
    for n in ["99999999", "18446744073709551615", "99999999999999999999999999"] {
        add(checks, format!("lists/tags/huge-n/{n}"), "CVE-2023-2253: n is no size to allocate", move |peer| {
            filled(peer)?;
            let answer = peer.get(&format!("tags/list?n={n}"))?;
            answer.is(&[200, 400])?;
            ensure(answer.status == 400 || strings(&answer.json()?["tags"]) == TAGS, "another list")
        });
    }
    for (last, skipped) in [("0", 1), ("Z", 3), ("a", 4), ("a0", 6), ("b", 8), ("latest", 9), ("zzz", 9), ("-", 0)] {
        add(checks, format!("lists/tags/last={last}"), PAGES, move |peer| {
            filled(peer)?;
            let answer = peer.get(&format!("tags/list?n=100&last={last}"))?;
            answer.is(&[200])?;
            ensure(strings(&answer.json()?["tags"]) == TAGS[skipped..], format!("{}", answer.json()?["tags"]))
        });
    }
    add(checks, "lists/tags/last-without-n", PAGES, |peer| {
        filled(peer)?;
        ensure(strings(&peer.get("tags/list?last=b")?.json()?["tags"]) == ["latest"], "another list")
    });

    const CATALOGUE: &str = "docker/distribution: the catalogue";
    add(checks, "lists/catalogue", CATALOGUE, |peer| {
        for part in ["b", "a", "a/c"] {
            peer.beside(part).tagged("v1", 94)?;
        }
        peer.beside("only-blobs").blob(b"no manifest here")?;
        let last = format!("{}/", peer.repository);
        let answer = peer.get(&format!("/v2/_catalog?n=3&last={}", last.replace('/', "%2F")))?;
        answer.is(&[200])?;
        let expected: Vec<String> = ["a", "a/c", "b"].iter().map(|part| format!("{last}{part}")).collect();
        let found = strings(&answer.json()?["repositories"]);
        ensure(found == expected, format!("{found:?}"))
    });
    add(checks, "lists/catalogue/pages", CATALOGUE, |peer| {
        let mut expected = Vec::new();
        for number in 0..5 {
            let one = peer.beside(&format!("p{number}"));
            one.tagged("v1", 95)?;
            expected.push(one.repository);
        }
        let mut found = Vec::new();
        let mut path = "/v2/_catalog?n=7".to_owned();
        for _ in 0..500 {
            let answer = peer.get(&path)?;
            answer.is(&[200])?;
            found.extend(strings(&answer.json()?["repositories"]));
            match answer.header("link").and_then(ctk_distribution::next_link) {
                Some(next) => path = next.to_owned(),
                None => break,
            }
        }
        let once: std::collections::BTreeSet<&String> = found.iter().collect();
        ensure(once.len() == found.len(), "one of them twice")?;
        ensure(expected.iter().all(|name| once.contains(name)), "not all of them")
    });
    for n in ["-1", "x"] {
        add(checks, format!("lists/catalogue/malformed-n/{n}"), CATALOGUE, move |peer| {
            peer.get(&format!("/v2/_catalog?n={n}"))?.is(&[400])
        });
    }
    add(checks, "lists/tags/of-a-digest", "Endpoints: no other path is one", |peer| {
        peer.get(&format!("tags/{}", Digest::of(b"")))?.is(&[404])
    });
}
