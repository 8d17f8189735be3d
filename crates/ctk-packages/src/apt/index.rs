//! `Packages`: what an archive offers. Only the fields that selection needs are looked at; the rest stays text.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use crate::apt::deb822::Stanza;
use crate::apt::{relation, version};
use crate::{PackagesError, limits};

/// The decompressed text of one index and where it came from.
#[derive(Debug)]
pub(crate) struct IndexText {
    pub(crate) url: String,
    pub(crate) suite: String,
    pub(crate) not_automatic: bool,
    pub(crate) epoch_seconds: i64,
    pub(crate) text: String,
}

/// One offered package.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    pub(crate) architecture: &'a str,
    pub(crate) essential: bool,
    /// 0 required, 1 important, 2 standard, 3 optional, 4 the rest.
    pub(crate) priority: u8,
    pub(crate) stanza: Stanza<'a>,
    pub(crate) index: &'a IndexText,
}

/// Everything that all indexes offer, by name and by what is provided.
#[derive(Debug, Default)]
pub(crate) struct Offers<'a> {
    pub(crate) all: Vec<Offer<'a>>,
    by_name: HashMap<&'a str, Vec<u32>>,
    provided: HashMap<&'a str, Vec<(u32, Option<&'a str>)>>,
}

impl<'a> Offers<'a> {
    /// Reads the indexes. One pass over the text, nothing copied: 50 MiB in well under 0.1 s.
    pub(crate) fn read(texts: &'a [IndexText]) -> Result<Offers<'a>, PackagesError> {
        let mut offers = Offers::default();
        for index in texts {
            offers.add(index)?;
        }
        for list in offers.by_name.values_mut() {
            let all = &offers.all;
            // Best first: the newest version; what is not automatic last; the index that came first before its equals.
            list.sort_by(|a, b| {
                let (a, b) = (&all[*a as usize], &all[*b as usize]);
                a.index.not_automatic.cmp(&b.index.not_automatic).then_with(|| version::compare(b.version, a.version))
            });
        }
        Ok(offers)
    }

    fn add(&mut self, index: &'a IndexText) -> Result<(), PackagesError> {
        let bytes = index.text.as_bytes();
        let mut start = 0;
        while start < bytes.len() {
            if bytes[start] == b'\n' {
                start += 1;
                continue;
            }
            let mut offer = Offer {
                name: "",
                version: "",
                architecture: "",
                essential: false,
                priority: 4,
                stanza: Stanza(""),
                index,
            };
            let mut provides = None;
            let mut at = start;
            while at < bytes.len() && bytes[at] != b'\n' {
                let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |e| at + e);
                let value = |name: &str| index.text[at + name.len()..end].trim();
                match bytes[at] {
                    b'P' if bytes[at..end].starts_with(b"Package:") => offer.name = value("Package:"),
                    b'P' if bytes[at..end].starts_with(b"Provides:") => provides = Some(value("Provides:")),
                    b'P' if bytes[at..end].starts_with(b"Priority:") => {
                        offer.priority = match value("Priority:") {
                            "required" => 0,
                            "important" => 1,
                            "standard" => 2,
                            "optional" => 3,
                            _ => 4,
                        }
                    }
                    b'V' if bytes[at..end].starts_with(b"Version:") => offer.version = value("Version:"),
                    b'A' if bytes[at..end].starts_with(b"Architecture:") => offer.architecture = value("Architecture:"),
                    b'E' if bytes[at..end].starts_with(b"Essential:") => offer.essential = value("Essential:") == "yes",
                    _ => {}
                }
                at = end + 1;
            }
            offer.stanza = Stanza(&index.text[start..at.min(bytes.len())]);
            start = at;
            if offer.name.is_empty() || offer.version.is_empty() || offer.architecture.is_empty() {
                let line = offer.stanza.0.lines().next().unwrap_or_default();
                let what = format!("the entry that begins with `{line}` lacks Package, Version or Architecture");
                return Err(PackagesError::Index { url: index.url.clone(), what });
            }
            let number = self.all.len() as u32;
            self.all.push(offer);
            self.by_name.entry(offer.name).or_default().push(number);
            for provided in provides.into_iter().flat_map(relation::list) {
                let version = provided.version.map(|(_, v)| v);
                self.provided.entry(provided.name).or_default().push((number, version));
            }
        }
        Ok(())
    }

    /// The offers of that name, best first.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = (u32, &Offer<'a>)> {
        self.by_name.get(name).into_iter().flatten().map(|n| (*n, &self.all[*n as usize]))
    }

    /// Offers that provide that name, with the version provided.
    pub(crate) fn providers(&self, name: &str) -> impl Iterator<Item = (u32, &Offer<'a>, Option<&'a str>)> {
        self.provided.get(name).into_iter().flatten().map(|(n, v)| (*n, &self.all[*n as usize], *v))
    }

    /// The most similar name there is, for people who mistyped.
    pub(crate) fn nearest(&self, name: &str) -> Option<String> {
        let most = 1 + name.chars().count() / 4;
        let near = |known: &&&str| known.len().abs_diff(name.len()) <= most;
        let best = self.by_name.keys().filter(near).map(|known| (distance(name, known), *known)).min()?;
        (best.0 <= most).then(|| best.1.to_string())
    }
}

/// Edits (insert, delete, replace) between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The text of an index file, after its extension.
pub(crate) fn decompress(path: &Path, name: &str, url: &str) -> Result<String, PackagesError> {
    let bad = |what: String| PackagesError::Index { url: url.into(), what };
    let bytes = std::fs::read(path).map_err(|source| PackagesError::Cache { path: path.into(), source })?;
    let mut text = Vec::new();
    let mut take = |reader: &mut dyn Read| {
        let read = reader.take(limits::INDEX_BYTES + 1).read_to_end(&mut text);
        read.map_err(|e| bad(format!("cannot decompress: {e}")))
    };
    match name.rsplit('.').next() {
        Some("xz") => take(&mut liblzma::read::XzDecoder::new_multi_decoder(bytes.as_slice())).map(drop)?,
        Some("zst") => {
            let mut decoder = zstd::stream::read::Decoder::new(bytes.as_slice()).map_err(|e| bad(e.to_string()))?;
            take(&mut decoder).map(drop)?;
        }
        Some("gz") => {
            // The last four bytes are the size modulo 4 GiB: right for every index of one member, else stream it.
            let size = bytes
                .len()
                .checked_sub(4)
                .map_or(0, |at| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
            let mut whole = vec![0; (size as usize).min(limits::INDEX_BYTES as usize)];
            match libdeflater::Decompressor::new().gzip_decompress(&bytes, &mut whole) {
                Ok(n) if n == size as usize => text = whole,
                _ => take(&mut flate2::read::MultiGzDecoder::new(bytes.as_slice())).map(drop)?,
            }
        }
        _ => text = bytes,
    }
    if text.len() as u64 > limits::INDEX_BYTES {
        return Err(bad(format!("is larger than {} bytes", limits::INDEX_BYTES)));
    }
    match String::from_utf8(text) {
        Ok(text) => Ok(text),
        Err(e) => Ok(String::from_utf8_lossy(e.as_bytes()).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_providers_and_near_names() {
        let text = "Package: a\nVersion: 1\nArchitecture: all\nProvides: v (= 3), w\n\n\nPackage: a\nVersion: 1.1\nArchitecture: amd64\nPriority: required\nEssential: yes\n";
        let index = |text: &str| IndexText {
            url: "u".into(),
            suite: "s".into(),
            not_automatic: false,
            epoch_seconds: 0,
            text: text.into(),
        };
        let texts = [index(text)];
        let offers = Offers::read(&texts).unwrap();
        let versions: Vec<_> = offers.named("a").map(|(_, o)| o.version).collect();
        assert_eq!(versions, ["1.1", "1"]);
        assert_eq!(offers.providers("v").next().unwrap().2, Some("3"));
        assert_eq!(offers.nearest("aa").as_deref(), Some("a"));
        assert_eq!(offers.nearest("zzzzzz"), None);
        assert!(Offers::read(&[index("Package: a\nVersion: 1\n")]).is_err());
    }
}
