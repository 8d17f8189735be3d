//! Image references, as Go's `distribution/reference` reads them.
//!
//! `[registry/]path[:tag][@digest]`: the first component is a registry if it holds a `.` or a
//! `:`, is `localhost`, or has an upper-case letter; without one, `docker.io` is meant, and a
//! single component gets `library/` before it.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// Longest repository name, in bytes (distribution/reference `NameTotalLengthMax`).
const NAME_MAX_BYTES: usize = 255;
/// Longest tag, in bytes (distribution-spec 1.1, `<reference>`).
const TAG_MAX_BYTES: usize = 128;

/// A parsed, normalised image reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing there.
    #[error("image reference is empty")]
    Empty,
    /// A repository that the grammar refuses.
    #[error(
        "repository `{0}` in image reference is malformed; expected lower-case letters, digits, and single `.`, `_`, `__` or `-` between them, parts separated by `/`"
    )]
    Repository(String),
    /// A registry that is no `host[:port]`.
    #[error("registry `{0}` in image reference is malformed; expected `host` or `host:port`")]
    Registry(String),
    /// A tag that the grammar refuses.
    #[error(
        "tag `{0}` in image reference is malformed; expected up to 128 letters, digits, `_`, `.` and `-`, not starting with `.` or `-`"
    )]
    Tag(String),
    /// A bad digest.
    #[error("image reference has a bad digest: {0}")]
    Digest(#[from] crate::DigestError),
    /// Too long a name.
    #[error("repository name is longer than {NAME_MAX_BYTES} bytes")]
    TooLong,
}

impl Reference {
    /// A reference from its parts; the tag and digest may both be absent.
    pub fn new(
        registry: &str,
        repository: &str,
        tag: Option<&str>,
        digest: Option<Digest>,
    ) -> Result<Reference, ReferenceError> {
        check_registry(registry)?;
        check_repository(repository)?;
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        Ok(Reference { registry: registry.into(), repository: repository.into(), tag: tag.map(Into::into), digest })
    }

    /// `host[:port]`; `docker.io` when none was written.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository, with `library/` where Docker Hub wants it.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What to ask the registry for: the digest, else the tag, else `latest`.
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".into(),
        }
    }

    /// The same repository, this tag, no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Reference, ReferenceError> {
        Reference::new(&self.registry, &self.repository, Some(tag), None)
    }

    /// The same repository at `digest`; the tag goes.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// With `:latest` where neither tag nor digest was written.
    pub fn or_latest(self) -> Reference {
        match (&self.tag, &self.digest) {
            (None, None) => Reference { tag: Some("latest".into()), ..self },
            _ => self,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        let (name, tag) = match name.rfind(':') {
            Some(colon) if !name[colon..].contains('/') => (&name[..colon], Some(&name[colon + 1..])),
            _ => (name, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest.to_owned()),
            _ => ("docker.io", name.to_owned()),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let path = if registry == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path };
        Reference::new(registry, &path, tag, digest)
    }
}

fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<(), ReferenceError> {
    let bad = || ReferenceError::Registry(registry.into());
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or_else(bad)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
            match after.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None if after.is_empty() => (None, None),
                None => return Err(bad()),
            }
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        },
    };
    if port.is_some_and(|p| p.parse::<u16>().is_err()) {
        return Err(bad());
    }
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    match host {
        Some(host) if !host.split('.').all(label) => Err(bad()),
        _ => Ok(()),
    }
}

fn check_repository(repository: &str) -> Result<(), ReferenceError> {
    if repository.len() > NAME_MAX_BYTES {
        return Err(ReferenceError::TooLong);
    }
    if !repository.split('/').all(is_component) {
        return Err(ReferenceError::Repository(repository.into()));
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_well = |b: Option<&u8>| b.is_some_and(|b| alphanumeric(*b));
    if !ends_well(bytes.first()) || !ends_well(bytes.last()) {
        return false;
    }
    let separators = component.split(|c: char| c.is_ascii() && alphanumeric(c as u8)).filter(|s| !s.is_empty());
    separators.into_iter().all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = !tag.is_empty()
        && tag.len() <= TAG_MAX_BYTES
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if good { Ok(()) } else { Err(ReferenceError::Tag(tag.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let reference: Reference = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(reference.to_string(), expected);
        assert_eq!(expected.parse::<Reference>().unwrap(), reference);
    }

    fn refuse(text: &str) {
        if let Ok(reference) = text.parse::<Reference>() {
            panic!("{text} was read as {reference}");
        }
    }

    #[test]
    fn names_are_normalised() {
        check("debian", "docker.io/library/debian");
        check("acme/api:1", "docker.io/acme/api:1");
        check("index.docker.io/debian", "docker.io/library/debian");
        check("localhost/x", "localhost/x");
        check("localhost:5000/a/b__c/d--e:V1.0", "localhost:5000/a/b__c/d--e:V1.0");
        check("[::1]:5000/x", "[::1]:5000/x");
        check("HOST/x", "HOST/x");
    }

    #[test]
    fn digests_may_follow_tags() {
        let digest = Digest::of(b"");
        check(&format!("ghcr.io/a/b:1@{digest}"), &format!("ghcr.io/a/b:1@{digest}"));
    }

    #[test]
    fn malformed_references_are_refused() {
        for text in [
            "",
            "a//b",
            "a/B",
            "-a",
            "a___b",
            "a.-b",
            "a:",
            "a:.x",
            "a@sha256:00",
            "[::1/x",
            "host:99999/x",
            "a/b/",
            "é",
        ] {
            refuse(text);
        }
    }

    #[test]
    fn the_target_is_the_most_exact_part() {
        assert_eq!("a".parse::<Reference>().unwrap().target(), "latest");
        assert_eq!("a:1".parse::<Reference>().unwrap().target(), "1");
    }
}
