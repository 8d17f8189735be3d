//! The files that say what to copy: KDL, lines, and skopeo's YAML.
//!
//! ```kdl
//! to "registry.example/mirror"
//! copy "docker.io/library/debian" {
//!     tag "12" "bookworm-*"
//!     newest 5
//! }
//! ```

use std::collections::BTreeMap;

use ctk_oci::{Platform, Reference};
use ctk_syntax::{Diagnostic, Diagnostics, Node, Reader, Sources, Spanned, codes, parse_kdl};
use regex::RegexBuilder;
use serde::Deserialize;

use super::select::{Selection, is_pattern};
use super::version::Requirement;
use crate::limits::{SYNC_ENTRIES_LIMIT, SYNC_REGEX_LIMIT_BYTES};

/// What to copy.
#[derive(Clone, Debug, Default)]
pub struct SyncFile {
    /// Where to, unless an entry says it: `host/prefix`.
    pub to: Option<String>,
    /// Whether the source's host is a part of the target's name.
    pub scoped: bool,
    /// The repositories and images.
    pub entries: Vec<Entry>,
    /// What the file says about registries.
    pub hosts: Vec<Host>,
}

/// A repository, or one image of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where from: without tag and digest if `selection` says which.
    pub from: Reference,
    /// Where to; a repository, or a whole reference for one image.
    pub to: Option<String>,
    /// Which tags; `None`: what `from` names.
    pub selection: Option<Selection>,
    /// Of indexes only this platform.
    pub platform: Option<Platform>,
    /// Also what refers to the images.
    pub referrers: bool,
    /// Where it stands, `file:line:column` or `file:line`.
    pub place: String,
}

/// What skopeo's files say about a registry.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// `tls-verify: false`.
    pub insecure: bool,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncSyntax {
    /// KDL.
    Kdl,
    /// `SOURCE [TARGET]` a line.
    Lines,
    /// `skopeo sync --src yaml`.
    Yaml,
}

impl SyncSyntax {
    /// By the ending of the file's name.
    pub fn of(name: &str) -> SyncSyntax {
        match name.rsplit_once('.').map(|(_, ending)| ending) {
            Some("kdl") => SyncSyntax::Kdl,
            Some("yaml" | "yml") => SyncSyntax::Yaml,
            _ => SyncSyntax::Lines,
        }
    }
}

impl SyncFile {
    /// Says where what has no target goes. The error says why `to` is no such place.
    pub fn set_to(&mut self, to: &str) -> Result<(), String> {
        self.to = Some(prefix(to)?);
        Ok(())
    }

    /// Reads a file; every mistake at once, as it is shown to people.
    pub fn parse(name: &str, text: &str, syntax: SyncSyntax, color: bool) -> Result<SyncFile, String> {
        let mut sources = Sources::new();
        let id = sources.add(name, text);
        let read = match syntax {
            SyncSyntax::Kdl => kdl(&sources, id),
            SyncSyntax::Lines => lines(&sources, id, text),
            SyncSyntax::Yaml => {
                return yaml(name, text).map_err(|reason| format!("error: cannot read {name}: {reason}\n"));
            }
        };
        let file = read.map_err(|diagnostics| diagnostics.render(&sources, color))?;
        if file.entries.len() > SYNC_ENTRIES_LIMIT {
            return Err(format!("error: {name} has more than {SYNC_ENTRIES_LIMIT} entries\n"));
        }
        Ok(file)
    }
}

/// `NAME[:TAG-OR-PATTERN][@DIGEST]`.
fn source(text: &str) -> Result<(Reference, Option<Selection>), String> {
    if let Some((name, tag)) = text.rsplit_once(':')
        && is_pattern(tag)
        && !tag.contains('/')
    {
        let from = name.parse::<Reference>().map_err(|error| error.to_string())?;
        return Ok((from, Some(Selection { tags: vec![tag.to_owned()], ..Selection::default() })));
    }
    text.parse().map(|from| (from, None)).map_err(|error: ctk_oci::ReferenceError| error.to_string())
}

fn target(text: &str) -> Result<String, String> {
    let text = text.strip_prefix("docker://").unwrap_or(text);
    text.parse::<Reference>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn kdl(sources: &Sources, id: ctk_syntax::SourceId) -> Result<SyncFile, Diagnostics> {
    let nodes = parse_kdl(sources, id)?;
    let mut diagnostics = Diagnostics::new();
    let mut file = SyncFile::default();
    for node in &nodes {
        let mut reader = Reader::new(node, &mut diagnostics);
        match node.name.value.as_str() {
            "to" => {
                file.to = reader.arg_str("where to").and_then(|to| checked(&mut reader, &to, prefix));
                reader.finish();
            }
            "scoped" => {
                file.scoped = reader.arg_flag("whether");
                reader.finish();
            }
            "copy" => file.entries.extend(entry(reader, sources.place(node.name.span))),
            _ => {
                let known = ["to", "scoped", "copy"];
                let nearest = ctk_syntax::nearest(&node.name.value, known);
                let message = format!("no node `{}` in a file of copies", node.name.value);
                let diagnostic = Diagnostic::error(codes::UNKNOWN_NODE, message);
                diagnostics.push(diagnostic.at_or_nearest(
                    node.name.span,
                    nearest,
                    "expected `to`, `scoped` or `copy`",
                ));
            }
        }
    }
    diagnostics.sort();
    diagnostics.into_result(file)
}

/// A host with a prefix of repositories.
fn prefix(text: &str) -> Result<String, String> {
    let text = text.strip_prefix("docker://").unwrap_or(text).trim_end_matches('/');
    let probe = format!("{text}/x");
    match probe.parse::<Reference>() {
        Ok(parsed) if format!("{}/{}", parsed.registry(), parsed.repository()) == probe => Ok(text.to_owned()),
        Ok(_) => Err("expected a host, as `registry.example` or `registry.example:5000/prefix`".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn checked<T>(
    reader: &mut Reader<'_, '_>,
    text: &Spanned<String>,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    match read(&text.value) {
        Ok(value) => Some(value),
        Err(reason) => {
            reader.error(codes::BAD_VALUE, text.span, format!("`{}` cannot be read here", text.value), reason);
            None
        }
    }
}

fn entry(mut reader: Reader<'_, '_>, place: String) -> Option<Entry> {
    let text = reader.arg_str("what to copy");
    let from = text.as_ref().and_then(|text| checked(&mut reader, text, source));
    let to = child_text(&mut reader, "to", "where to", target);
    let tags = texts(&mut reader, "tag", "a tag or a pattern");
    let not = texts(&mut reader, "not", "a pattern");
    let regex = child_text(&mut reader, "regex", "a regular expression", regex);
    let semver = child_text(&mut reader, "semver", "a requirement", |text| match text.trim() {
        "" => Err("expected e.g. `>=1.2, <2`".into()),
        text => Requirement::parse(text),
    });
    let newest = reader.opt_child("newest").and_then(|node| {
        let mut child = reader.child(node);
        let newest = child.arg_int("how many", 1..=1_000_000);
        child.finish();
        newest.map(|newest| newest.value as usize)
    });
    let platform = child_text(&mut reader, "platform", "a platform", |text| {
        text.parse::<Platform>().map_err(|error| error.to_string())
    });
    let referrers = reader.opt_child("referrers").is_some_and(|node| flag(&mut reader, node));
    let all = reader.opt_child("all-tags").is_some_and(|node| flag(&mut reader, node));
    let asks = !tags.is_empty() || !not.is_empty() || regex.is_some() || semver.is_some() || newest.is_some() || all;
    if let (Some(text), Some((from, own))) = (&text, &from)
        && asks
        && (own.is_some() || from.tag().is_some() || from.digest().is_some())
    {
        let message = format!("`{}` says already which image is meant", text.value);
        reader.error(codes::BAD_VALUE, text.span, message, "give the repository alone, or take `tag` and the like out");
    }
    reader.finish();
    let (from, own) = from?;
    let selection = match asks {
        true => Some(Selection { tags, not, regex, semver, newest }),
        false => own,
    };
    Some(Entry { from, to, selection, platform, referrers, place })
}

fn flag(reader: &mut Reader<'_, '_>, node: &Node) -> bool {
    let mut child = reader.child(node);
    let flag = child.arg_flag("whether");
    child.finish();
    flag
}

fn texts(reader: &mut Reader<'_, '_>, name: &str, what: &str) -> Vec<String> {
    let mut found = Vec::new();
    for node in reader.every(name) {
        let mut child = reader.child(node);
        found.extend(child.args_text_some(what).into_iter().map(|text| text.value));
        child.finish();
    }
    found
}

fn child_text<T>(
    reader: &mut Reader<'_, '_>,
    name: &str,
    what: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let node = reader.opt_child(name)?;
    let mut child = reader.child(node);
    let text = child.arg_str(what);
    let value = text.and_then(|text| checked(&mut child, &text, read));
    child.finish();
    value
}

fn regex(text: &str) -> Result<regex::Regex, String> {
    let built = RegexBuilder::new(text).size_limit(SYNC_REGEX_LIMIT_BYTES).build();
    // The last line says what is wrong; those above draw it.
    built.map_err(|error| error.to_string().lines().last().unwrap_or_default().trim().to_owned())
}

fn lines(sources: &Sources, id: ctk_syntax::SourceId, text: &str) -> Result<SyncFile, Diagnostics> {
    let mut diagnostics = Diagnostics::new();
    let mut file = SyncFile::default();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let span = |word: &str| {
            let offset = start + (word.as_ptr() as usize - line.as_ptr() as usize);
            ctk_syntax::Span::new(id, offset, offset + word.len())
        };
        let mut words = content.split_whitespace().take_while(|word| !word.starts_with('#'));
        let (from, to) = (words.next().unwrap_or_default(), words.next());
        if let Some(more) = words.next() {
            let message = "a line has a source and a target";
            diagnostics.push(Diagnostic::error(codes::BAD_VALUE, message).at(span(more), "one word too many"));
            continue;
        }
        let bad = |word: &str, reason: String| {
            Diagnostic::error(codes::BAD_VALUE, format!("`{word}` cannot be read here")).at(span(word), reason)
        };
        let from_read = source(from.strip_prefix("docker://").unwrap_or(from));
        let to_read = to.map(target).transpose();
        if let (Some(word), Err(reason)) = (to, &to_read) {
            diagnostics.push(bad(word, reason.clone()));
        }
        match (from_read, to_read) {
            (Ok((reference, selection)), Ok(to)) => file.entries.push(Entry {
                from: reference,
                to,
                selection,
                platform: None,
                referrers: false,
                place: sources.place(span(from)),
            }),
            (Err(reason), _) => diagnostics.push(bad(from, reason)),
            _ => {}
        }
    }
    diagnostics.into_result(file)
}

/// A registry in skopeo's file (`skopeo-sync(1)`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct YamlRegistry {
    #[serde(default)]
    images: BTreeMap<String, Option<Vec<String>>>,
    #[serde(default)]
    images_by_tag_regex: BTreeMap<String, String>,
    #[serde(default)]
    images_by_semver: BTreeMap<String, String>,
    credentials: Option<YamlCredentials>,
    tls_verify: Option<bool>,
    cert_dir: Option<String>,
}

#[derive(Debug, Deserialize)]
struct YamlCredentials {
    username: String,
    password: String,
}

fn yaml(name: &str, text: &str) -> Result<SyncFile, String> {
    let registries: BTreeMap<String, YamlRegistry> = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let mut file = SyncFile::default();
    for (host, registry) in registries {
        if registry.cert_dir.as_ref().is_some_and(|directory| !directory.is_empty()) {
            return Err(format!("`cert-dir` of `{host}` is not read: certificates of a host stand in certs.d"));
        }
        let from = |repository: &str| {
            format!("{host}/{repository}")
                .parse::<Reference>()
                .map_err(|error| format!("`{host}/{repository}`: {error}"))
        };
        let mut add = |from: Reference, selection: Option<Selection>| {
            let place = name.to_owned();
            file.entries.push(Entry { from, to: None, selection, platform: None, referrers: false, place });
        };
        for (repository, tags) in &registry.images {
            let (digests, tags): (Vec<String>, Vec<String>) =
                tags.clone().unwrap_or_default().into_iter().partition(|tag| tag.contains(':'));
            for digest in &digests {
                let digest = digest.parse::<ctk_oci::Digest>().map_err(|error| error.to_string())?;
                add(from(repository)?.with_digest(digest), None);
            }
            if !tags.is_empty() || digests.is_empty() {
                add(from(repository)?, Some(Selection { tags, ..Selection::default() }));
            }
        }
        for (repository, pattern) in &registry.images_by_tag_regex {
            let regex = Some(regex(pattern).map_err(|reason| format!("`{pattern}`: {reason}"))?);
            add(from(repository)?, Some(Selection { regex, ..Selection::default() }));
        }
        for (repository, wanted) in &registry.images_by_semver {
            let semver = Some(Requirement::parse(wanted)?);
            add(from(repository)?, Some(Selection { semver, ..Selection::default() }));
        }
        let credentials = registry.credentials.map(|c| (c.username, c.password));
        file.hosts.push(Host { name: host, credentials, insecure: registry.tls_verify == Some(false) });
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<SyncFile, String> {
        SyncFile::parse(name, text, SyncSyntax::of(name), false)
    }

    #[test]
    fn kdl_files() {
        let file = read(
            "s.kdl",
            "to \"r.example/m/\"\nscoped\ncopy \"debian\" {\n  tag 12 \"bookworm-*\"\n  not \"*-slim\"\n  newest 3\n  platform \"linux/arm64\"\n  referrers\n}\ncopy \"quay.io/a/b:1\" { to \"r.example/b:2\"; }\ncopy \"quay.io/a/c:v*\"\n",
        )
        .unwrap();
        assert_eq!((file.to.as_deref(), file.scoped, file.entries.len()), (Some("r.example/m"), true, 3));
        let first = &file.entries[0];
        let selection = first.selection.as_ref().unwrap();
        assert_eq!(first.from.to_string(), "docker.io/library/debian");
        assert_eq!(selection.tags, ["12", "bookworm-*"]);
        assert_eq!((selection.newest, first.referrers, first.place.as_str()), (Some(3), true, "s.kdl:3:1"));
        assert!(file.entries[1].selection.is_none());
        assert_eq!(file.entries[1].to.as_deref(), Some("r.example/b:2"));
        assert_eq!(file.entries[2].selection.as_ref().unwrap().tags, ["v*"]);
    }

    #[test]
    fn mistakes_of_kdl_files_are_told_at_once() {
        let told = read(
            "s.kdl",
            "to \"debian\"\ncopi \"x\"\ncopy \"A B\"\ncopy \"debian:12\" { tag \"1\"; }\ncopy \"a\" { semver \"one\"; regex \"(\"; newset 3; }\n",
        )
        .unwrap_err();
        for part in [
            "s.kdl:1:4",
            "did you mean `copy`?",
            "s.kdl:3:6",
            "says already which image",
            "s.kdl:5",
            "`one`",
            "unclosed group",
            "did you mean `newest`?",
        ] {
            assert!(told.contains(part), "no {part} in\n{told}");
        }
    }

    #[test]
    fn files_of_lines() {
        let file = read("list", "# bases\ndebian:12   r.example/debian:12 # why\n\nquay.io/a/b:1.*\n").unwrap();
        assert_eq!(file.entries.len(), 2);
        assert_eq!(file.entries[0].to.as_deref(), Some("r.example/debian:12"));
        assert_eq!(file.entries[1].place, "list:4:1");
        let told = read("list", "debian:12 r.example/debian:12 more\nA/B\n").unwrap_err();
        assert!(told.contains("list:1:31") && told.contains("list:2:1"), "{told}");
    }

    #[test]
    fn skopeos_files() {
        let text = "registry.example.com:\n  images:\n    busybox: []\n    redis:\n      - \"1.0\"\n      - sha256:0000000000000000000000000000000011111111111111111111111111111111\n  images-by-tag-regex:\n    nginx: ^1\\.13\\.[12]-alpine-perl$\n  images-by-semver:\n    alpine: \">= 3.12.0\"\n  credentials:\n    username: john\n    password: secret\n  tls-verify: false\n";
        let file = read("s.yaml", text).unwrap();
        let shown: Vec<String> = file.entries.iter().map(|entry| entry.from.to_string()).collect();
        assert_eq!(shown.len(), 5);
        assert_eq!(shown[0], "registry.example.com/busybox");
        assert!(shown[1].contains("redis@sha256:"), "{shown:?}");
        assert_eq!(file.entries[2].selection.as_ref().unwrap().named(), Some(&["1.0".to_owned()][..]));
        assert!(file.hosts[0].insecure && file.hosts[0].credentials.as_ref().unwrap().0 == "john");
        assert!(read("s.yaml", "a.example:\n  imagse: {}\n").unwrap_err().contains("imagse"));
    }
}
