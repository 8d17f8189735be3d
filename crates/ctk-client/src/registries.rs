//! registries.conf: where a repository really is, which mirrors to ask first, what short names mean.
//!
//! The format is containers-registries.conf(5), version 2 (and the lists of version 1), so that one file serves podman,
//! skopeo and ctk. Read are `unqualified-search-registries`, `[aliases]`, `credential-helpers`, and `[[registry]]` with
//! `prefix`, `location`, `insecure`, `blocked`, `mirror-by-digest-only` and `[[registry.mirror]]` with `location`,
//! `insecure`, `pull-from-mirror`; other keys are left alone. The longest prefix of all files counts, and of equal ones
//! that of the first file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ctk_oci::Reference;
use serde::Deserialize;

use crate::ClientError;
use crate::hosts::{Hosts, Identity};

/// Every entry of the files, the first file first.
#[derive(Debug, Default)]
pub(crate) struct Registries {
    entries: Vec<(PathBuf, Entry)>,
    /// Where a name without a registry may be, if a file says so.
    search: Option<Vec<String>>,
    aliases: BTreeMap<String, String>,
    /// Programs that keep credentials besides auth files.
    pub(crate) helpers: Vec<String>,
    /// Where containerd's files are.
    hosts: Vec<PathBuf>,
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
    /// Whose mirror it is, if it wants to be told.
    pub namespace: Option<String>,
    /// Certificates that its entry names.
    pub identity: Option<Identity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    registry: Vec<Entry>,
    unqualified_search_registries: Option<Vec<String>>,
    aliases: BTreeMap<String, String>,
    credential_helpers: Vec<String>,
    /// Version 1.
    registries: Version1,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Version1 {
    search: List,
    insecure: List,
    block: List,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct List {
    registries: Vec<String>,
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
    /// Reads registries.conf and its kin; `hosts` are directories of containerd's files, for registries that these say
    /// nothing about.
    pub(crate) fn load(paths: &[PathBuf], hosts: &[PathBuf]) -> Result<Registries, ClientError> {
        let mut registries = Registries { hosts: hosts.to_vec(), ..Registries::default() };
        for path in paths {
            for file in files(path)? {
                let text = match fs::read_to_string(&file) {
                    Ok(text) => text,
                    Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                        continue;
                    }
                    Err(error) => return Err(ClientError::file("read", file)(error)),
                };
                registries.parse(&file, &text)?;
            }
        }
        Ok(registries)
    }

    fn parse(&mut self, path: &Path, text: &str) -> Result<(), ClientError> {
        let refuse = |reason: String| ClientError::File { action: "read", path: path.into(), reason };
        let parsed: File = toml::from_str(text).map_err(|error| refuse(error.to_string().trim().to_owned()))?;
        for entry in &parsed.registry {
            let name = if entry.prefix.is_empty() { &entry.location } else { &entry.prefix };
            if name.is_empty() {
                return Err(refuse("a `[[registry]]` has neither `prefix` nor `location`".into()));
            }
            for mirror in &entry.mirror {
                if mirror.location.is_empty() {
                    return Err(refuse(format!("a mirror of `{name}` has no `location`")));
                }
                if !matches!(mirror.pull_from_mirror.as_str(), "" | "all" | "digest-only" | "tag-only") {
                    let found = &mirror.pull_from_mirror;
                    let reason = format!(
                        "`pull-from-mirror` of `{}` is `{found}`; it is `all`, `digest-only` or `tag-only`",
                        mirror.location
                    );
                    return Err(refuse(reason));
                }
            }
        }
        let version1 = |name: &String, insecure| Entry {
            location: name.clone(),
            insecure,
            blocked: !insecure,
            ..Entry::default()
        };
        let insecure = parsed.registries.insecure.registries.iter().map(|name| version1(name, true));
        let blocked = parsed.registries.block.registries.iter().map(|name| version1(name, false));
        let entries = parsed.registry.into_iter().chain(insecure).chain(blocked);
        self.entries.extend(entries.map(|entry| (path.to_owned(), entry)));
        let search = Some(parsed.registries.search.registries).filter(|search| !search.is_empty());
        if self.search.is_none() {
            self.search = parsed.unqualified_search_registries.or(search);
        }
        for (short, full) in parsed.aliases {
            self.aliases.entry(short).or_insert(full);
        }
        if self.helpers.is_empty() {
            self.helpers = parsed.credential_helpers;
        }
        Ok(())
    }

    /// What a name means that names no registry: its alias, else one reference for each registry to search, in order.
    /// Without either `docker.io`, as everywhere.
    pub(crate) fn long_names(&self, text: &str) -> Result<Vec<Reference>, ctk_oci::ReferenceError> {
        let plain: Reference = text.parse()?;
        let first = text.split(['/', ':', '@']).next().unwrap_or_default();
        let host = text.split('/').next().filter(|_| text.contains('/')).unwrap_or_default();
        if host.contains(['.', ':']) || host == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) {
            return Ok(vec![plain]);
        }
        // What follows the name: the alias has none.
        let end = text.find(['@', ':']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        if let Some(full) = self.aliases.get(name).filter(|full| !full.is_empty()) {
            return Ok(vec![format!("{full}{rest}").parse()?]);
        }
        match &self.search {
            Some(search) if !search.is_empty() => {
                search.iter().map(|registry| format!("{}/{text}", registry.trim_end_matches('/')).parse()).collect()
            }
            _ => Ok(vec![plain]),
        }
    }

    /// Where to pull `reference` from: mirrors first, the place itself last.
    pub(crate) fn pull_places(&self, reference: &Reference) -> Result<Vec<Place>, ClientError> {
        let mut places = Vec::new();
        let entry = self.entry(reference)?;
        if entry.is_none()
            && let Some(hosts) = Hosts::read(&self.hosts, reference.registry())?
        {
            return Ok(hosts.pull_places(reference));
        }
        if let Some((prefix, entry)) = entry {
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
            Some((prefix, entry)) => place(reference, &prefix, &entry.location, entry.insecure),
            None => match Hosts::read(&self.hosts, reference.registry())? {
                Some(hosts) => hosts.own_place(reference),
                None => place(reference, "", "", false),
            },
        })
    }

    /// The longest matching entry of all, with its prefix.
    fn entry(&self, reference: &Reference) -> Result<Option<(String, &Entry)>, ClientError> {
        let mut best: Option<(&PathBuf, String, &Entry)> = None;
        for (file, entry) in &self.entries {
            let prefix = if entry.prefix.is_empty() { entry.location.clone() } else { entry.prefix.clone() };
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

/// Whether a prefix means the reference: a host, a part of its path, the whole of it, or one tag or digest of it; or
/// `*.example.com`, each host below.
fn matches(reference: &Reference, prefix: &str) -> bool {
    if prefix.is_empty() {
        return false;
    }
    if let Some(suffix) = prefix.strip_prefix('*') {
        return suffix.starts_with('.') && reference.registry().ends_with(suffix);
    }
    let name = reference.to_string();
    // A host does not stand for its other ports.
    let ends: &[char] = if prefix.contains('/') { &['/', ':', '@'] } else { &['/'] };
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(ends))
}

/// Replaces `prefix` of the reference's name by `location`; an empty location leaves the name.
fn place(reference: &Reference, prefix: &str, location: &str, insecure: bool) -> Place {
    let name = format!("{}/{}", reference.registry(), reference.repository());
    // The host alone stands for `*.…`; a prefix with a tag stands for the name without it.
    let prefix = match prefix.starts_with('*') {
        true => reference.registry(),
        false => name.get(..prefix.len()).map_or(name.as_str(), |_| prefix),
    };
    let location = location.split('@').next().unwrap_or_default();
    let name = match name.strip_prefix(prefix) {
        Some(rest) if !location.is_empty() => format!("{location}{rest}"),
        _ => name.clone(),
    };
    match name.split_once('/') {
        Some((host, repository)) => {
            Place { host: host.into(), repository: repository.into(), insecure, namespace: None, identity: None }
        }
        None => Place { host: name, repository: String::new(), insecure, namespace: None, identity: None },
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
    fn the_longest_prefix_of_all_files() {
        let mut registries = Registries::default();
        let first = "[[registry]]\nlocation = \"a.lan\"\ninsecure = true\n[[registry]]\nprefix = \"*.b.lan\"\nlocation = \"c.lan/b\"\n";
        let second = "[[registry]]\nprefix = \"a.lan/x\"\nlocation = \"d.lan\"\n[[registry]]\nprefix = \"a.lan\"\nlocation = \"e.lan\"\n[[registry]]\nprefix = \"a.lan/y:1\"\nlocation = \"f.lan/y\"\n[registries.block]\nregistries = [\"old.lan\"]\n";
        registries.parse(Path::new("1"), first).unwrap();
        registries.parse(Path::new("2"), second).unwrap();
        for (reference, expected) in [
            ("a.lan/z", "a.lan/z"),
            ("a.lan/x/y", "d.lan/y"),
            ("a.lan/y:1", "f.lan/y"),
            ("a.lan/y:12", "a.lan/y"),
            ("q.b.lan/z", "c.lan/b/z"),
            ("a.lan:5000/z", "a.lan:5000/z"),
        ] {
            let place = registries.push_place(&reference.parse().unwrap()).unwrap();
            assert_eq!(format!("{}/{}", place.host, place.repository), expected, "{reference}");
        }
        let blocked = registries.push_place(&"old.lan/x".parse().unwrap());
        assert!(matches!(blocked, Err(ClientError::Blocked { .. })));
    }

    #[test]
    fn short_names() {
        let mut registries = Registries::default();
        let check = |registries: &Registries, text: &str, expected: &[&str]| {
            let found = registries.long_names(text).unwrap();
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{text}");
        };
        check(&registries, "debian:12", &["docker.io/library/debian:12"]);
        let text = "unqualified-search-registries = [\"one.lan\", \"two.lan:5000\"]\n[aliases]\nskopeo = \"quay.io/skopeo/stable\"\n\"team/app\" = \"three.lan/app\"\n";
        registries.parse(Path::new("1"), text).unwrap();
        registries
            .parse(Path::new("2"), "unqualified-search-registries = []\n[aliases]\nskopeo = \"x.lan/y\"\n")
            .unwrap();
        check(&registries, "skopeo:v1", &["quay.io/skopeo/stable:v1"]);
        check(&registries, "team/app", &["three.lan/app"]);
        check(&registries, "debian:12", &["one.lan/debian:12", "two.lan:5000/debian:12"]);
        check(&registries, "localhost/x", &["localhost/x"]);
        check(&registries, "docker.io/x", &["docker.io/library/x"]);
        check(&registries, "host:5000/x:1", &["host:5000/x:1"]);
        let digest = ctk_oci::Digest::of(b"");
        check(&registries, &format!("skopeo@{digest}"), &[&format!("quay.io/skopeo/stable@{digest}")]);
    }

    #[test]
    fn blocked_and_malformed() {
        for (text, part) in [
            ("[[registry]]\ninsecure = true\n", "neither `prefix` nor `location`"),
            ("[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\ninsecure = true\n", "has no `location`"),
            (
                "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"b\"\npull-from-mirror = \"never\"\n",
                "`never`",
            ),
        ] {
            let error = Registries::default().parse(Path::new("r.conf"), text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let reference: Reference = "www.evil.com/x".parse().unwrap();
        assert!(matches!(registries().pull_places(&reference), Err(ClientError::Blocked { .. })));
        let error = Registries::default().parse(Path::new("r.conf"), "[[registry").unwrap_err().to_string();
        assert!(error.contains("r.conf"), "{error}");
    }
}
