//! registries.conf: where a repository really is, and which mirrors to ask first.
//!
//! The format is containers-registries.conf(5), version 2, so that one file serves podman, skopeo and ctk. Read are
//! `[[registry]]` with `prefix`, `location`, `insecure`, `blocked`, `mirror-by-digest-only` and
//! `[[registry.mirror]]` with `location`, `insecure`, `pull-from-mirror`; other keys are left alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ctk_oci::Reference;
use serde::Deserialize;

use crate::ClientError;

/// Every entry of the files, the first file first.
#[derive(Debug, Default)]
pub(crate) struct Registries {
    entries: Vec<(PathBuf, Entry)>,
}

/// A place that serves a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// `host[:port]`.
    pub host: String,
    /// The repository there.
    pub repository: String,
    /// Whether its entry says so.
    pub insecure: bool,
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Entry>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Entry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

impl Registries {
    pub(crate) fn load(paths: &[PathBuf]) -> Result<Registries, ClientError> {
        let mut registries = Registries::default();
        for path in paths {
            for file in files(path)? {
                let text = match fs::read_to_string(&file) {
                    Ok(text) => text,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(ClientError::file("read", file)(error)),
                };
                registries.parse(&file, &text)?;
            }
        }
        Ok(registries)
    }

    fn parse(&mut self, path: &Path, text: &str) -> Result<(), ClientError> {
        let parsed: File = toml::from_str(text).map_err(|error| ClientError::File {
            action: "read",
            path: path.into(),
            reason: error.to_string().trim().to_owned(),
        })?;
        self.entries.extend(parsed.registry.into_iter().map(|entry| (path.to_owned(), entry)));
        Ok(())
    }

    /// Where to pull `reference` from: mirrors first, the place itself last.
    pub(crate) fn pull_places(&self, reference: &Reference) -> Result<Vec<Place>, ClientError> {
        let mut places = Vec::new();
        if let Some((prefix, entry)) = self.entry(reference)? {
            for mirror in &entry.mirror {
                let by_digest = reference.digest().is_some();
                let wanted = match mirror.pull_from_mirror.as_str() {
                    "digest-only" => by_digest,
                    "tag-only" => !by_digest,
                    _ => by_digest || !entry.mirror_by_digest_only,
                };
                if wanted {
                    places.push(place(reference, &prefix, &mirror.location, mirror.insecure));
                }
            }
        }
        places.push(self.push_place(reference)?);
        Ok(places)
    }

    /// Where `reference` itself is.
    pub(crate) fn push_place(&self, reference: &Reference) -> Result<Place, ClientError> {
        Ok(match self.entry(reference)? {
            Some((prefix, entry)) => {
                let location = if entry.location.is_empty() || prefix.starts_with("*.") { "" } else { &entry.location };
                place(reference, &prefix, location, entry.insecure)
            }
            None => place(reference, "", "", false),
        })
    }

    /// The first file's longest matching entry, with its prefix.
    fn entry(&self, reference: &Reference) -> Result<Option<(String, &Entry)>, ClientError> {
        let mut best: Option<(&PathBuf, String, &Entry)> = None;
        for (file, entry) in &self.entries {
            let prefix = if entry.prefix.is_empty() { entry.location.clone() } else { entry.prefix.clone() };
            if best.as_ref().is_some_and(|(other, _, _)| *other != file) {
                break;
            }
            if matches(reference, &prefix) && best.as_ref().is_none_or(|(_, p, _)| prefix.len() > p.len()) {
                best = Some((file, prefix, entry));
            }
        }
        match best {
            Some((file, prefix, entry)) if entry.blocked => Err(ClientError::Blocked { prefix, file: file.clone() }),
            Some((_, prefix, entry)) => Ok(Some((prefix, entry))),
            None => Ok(None),
        }
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, ClientError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).map_err(ClientError::file("read", path))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    found.retain(|file| file.extension().is_some_and(|e| e == "conf"));
    // Later files of the directory override earlier ones (containers-registries.conf.d(5)).
    found.sort();
    found.reverse();
    Ok(found)
}

fn matches(reference: &Reference, prefix: &str) -> bool {
    if prefix.is_empty() {
        return false;
    }
    if let Some(suffix) = prefix.strip_prefix('*') {
        return suffix.starts_with('.') && reference.registry().ends_with(suffix);
    }
    let name = format!("{}/{}", reference.registry(), reference.repository());
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Replaces `prefix` of the reference's name by `location`; an empty location leaves the name.
fn place(reference: &Reference, prefix: &str, location: &str, insecure: bool) -> Place {
    let name = format!("{}/{}", reference.registry(), reference.repository());
    let name = match name.strip_prefix(prefix) {
        Some(rest) if !location.is_empty() => format!("{location}{rest}"),
        _ => name,
    };
    match name.split_once('/') {
        Some((host, repository)) => Place { host: host.into(), repository: repository.into(), insecure },
        None => Place { host: name, repository: String::new(), insecure },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
unqualified-search-registries = ["docker.io"]

[[registry]]
prefix = "docker.io"
location = "registry-1.docker.io"
[[registry.mirror]]
location = "mirror.lan:5000/hub"
insecure = true
[[registry.mirror]]
location = "tags.lan"
pull-from-mirror = "tag-only"

[[registry]]
prefix = "docker.io/acme"
location = "acme.lan/images"

[[registry]]
location = "plain.lan"
insecure = true

[[registry]]
prefix = "*.evil.com"
blocked = true
"#;

    fn registries() -> Registries {
        let mut registries = Registries::default();
        registries.parse(Path::new("r.conf"), TEXT).unwrap();
        registries
    }

    fn check(reference: &str, expected: &[&str]) {
        let reference: Reference = reference.parse().unwrap();
        let places = registries().pull_places(&reference).unwrap();
        let shown: Vec<String> = places
            .iter()
            .map(|p| format!("{}/{}{}", p.host, p.repository, if p.insecure { " insecure" } else { "" }))
            .collect();
        assert_eq!(shown, expected, "{reference}");
    }

    #[test]
    fn places() {
        let digest = ctk_oci::Digest::of(b"");
        check(
            "debian:12",
            &[
                "mirror.lan:5000/hub/library/debian insecure",
                "tags.lan/library/debian",
                "registry-1.docker.io/library/debian",
            ],
        );
        check(
            &format!("debian@{digest}"),
            &["mirror.lan:5000/hub/library/debian insecure", "registry-1.docker.io/library/debian"],
        );
        check("acme/api", &["acme.lan/images/api"]);
        check(
            "acmes/api",
            &["mirror.lan:5000/hub/acmes/api insecure", "tags.lan/acmes/api", "registry-1.docker.io/acmes/api"],
        );
        check("plain.lan/x", &["plain.lan/x insecure"]);
        check("other.lan/x", &["other.lan/x"]);
    }

    #[test]
    fn blocked_and_malformed() {
        let reference: Reference = "www.evil.com/x".parse().unwrap();
        assert!(matches!(registries().pull_places(&reference), Err(ClientError::Blocked { .. })));
        let error = Registries::default().parse(Path::new("r.conf"), "[[registry").unwrap_err().to_string();
        assert!(error.contains("r.conf"), "{error}");
    }
}
