//! `containers.lock`: what each moving name meant.
//!
//! A JSON object. One line per entry, sorted by key, `"version"` last: two branches that add different entries merge
//! without help, and the diff of an update names exactly what moved. A list inside an entry (the packages of a stage)
//! has one line per item for the same reason.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use ctk_oci::{Digest, Platform, Reference};
use ctk_plan::Address;
use serde_json::Value;

use crate::limits;

const VERSION: u64 = 1;

/// What an entry is about. Its text is the key in the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockKey {
    /// `image docker.io/library/debian:12 linux/amd64`: a digest.
    Image {
        /// The reference, complete.
        reference: String,
        /// The platform.
        platform: String,
    },
    /// `packages image:base/final linux/amd64`: what the package manager chose.
    Packages {
        /// The image.
        image: String,
        /// Its stage.
        stage: String,
        /// The platform.
        platform: String,
    },
    /// `http https://…`: a checksum.
    Http {
        /// The address.
        url: String,
    },
    /// `git https://… main`: a commit.
    Git {
        /// The repository.
        url: String,
        /// Branch, tag or other name.
        reference: String,
    },
}

impl fmt::Display for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockKey::Image { reference, platform } => write!(f, "image {reference} {platform}"),
            LockKey::Packages { image, stage, platform } => write!(f, "packages {image}/{stage} {platform}"),
            LockKey::Http { url } => write!(f, "http {url}"),
            LockKey::Git { url, reference } => write!(f, "git {url} {reference}"),
        }
    }
}

impl FromStr for LockKey {
    type Err = LockError;

    fn from_str(text: &str) -> Result<LockKey, LockError> {
        let bad = || LockError::ReadKey { key: text.to_string() };
        let (kind, rest) = text.split_once(' ').ok_or_else(bad)?;
        let two = || rest.rsplit_once(' ').map(|(a, b)| (a.to_string(), b.to_string())).ok_or_else(bad);
        match kind {
            "image" => two().map(|(reference, platform)| LockKey::Image { reference, platform }),
            "packages" => {
                let (place, platform) = two()?;
                let (image, stage) = place.rsplit_once('/').ok_or_else(bad)?;
                Ok(LockKey::Packages { image: image.to_string(), stage: stage.to_string(), platform })
            }
            "http" => Ok(LockKey::Http { url: rest.to_string() }),
            "git" => two().map(|(url, reference)| LockKey::Git { url, reference }),
            _ => Err(bad()),
        }
    }
}

/// Why a lock file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It is no JSON.
    #[error("failed to read the lock file as JSON at line {line}")]
    Parse {
        /// From 1.
        line: usize,
        /// The parser's reason.
        #[source]
        source: serde_json::Error,
    },
    /// A merge left its marks.
    #[error(
        "the lock file holds unresolved merge marks at line {line}; keep either side (or both lines), or delete them: `ctk apply` resolves what is missing"
    )]
    ReadMerged {
        /// From 1.
        line: usize,
    },
    /// It is larger than [`limits::LOCK_BYTES`].
    #[error("the lock file has {bytes} bytes; at most {} are read", limits::LOCK_BYTES)]
    ReadLarge {
        /// Its size.
        bytes: usize,
    },
    /// Another version of the format.
    #[error(
        "the lock file has version {found}, this ctk reads version {VERSION}; use a newer ctk, or delete the file to resolve everything anew"
    )]
    ReadVersion {
        /// What it says.
        found: String,
    },
    /// A key that means nothing.
    #[error("the lock file has an entry `{key}` that this ctk does not know; use a newer ctk, or delete the line")]
    ReadKey {
        /// The key.
        key: String,
    },
    /// A value of the wrong shape.
    #[error("the lock file's entry `{key}` does not hold {expected}; delete the line to resolve it anew")]
    ReadValue {
        /// The key.
        key: String,
        /// What was expected.
        expected: &'static str,
    },
}

/// One difference between two lock files.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The entry.
    pub key: LockKey,
    /// What it was.
    pub from: Option<Value>,
    /// What it is.
    pub to: Option<Value>,
}

/// The entries of a lock file. Refusing to add any (`--locked`) is up to the caller.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lock {
    entries: BTreeMap<LockKey, Value>,
    original: BTreeMap<LockKey, Value>,
}

impl Lock {
    /// No entries: what a project without a lock file has.
    pub fn new() -> Lock {
        Lock::default()
    }

    /// Reads the text of a lock file.
    pub fn parse(text: &str) -> Result<Lock, LockError> {
        if text.len() > limits::LOCK_BYTES {
            return Err(LockError::ReadLarge { bytes: text.len() });
        }
        if let Some(at) = text.lines().position(|l| ["<<<<<<<", "=======", ">>>>>>>"].iter().any(|m| l.starts_with(m)))
        {
            return Err(LockError::ReadMerged { line: at + 1 });
        }
        let all: BTreeMap<String, Value> =
            serde_json::from_str(text).map_err(|source| LockError::Parse { line: source.line(), source })?;
        match all.get("version") {
            Some(version) if version.as_u64() == Some(VERSION) => {}
            found => {
                let found = found.map_or_else(|| "none".to_string(), Value::to_string);
                return Err(LockError::ReadVersion { found });
            }
        }
        let mut entries = BTreeMap::new();
        for (key, value) in all.into_iter().filter(|(key, _)| key != "version") {
            let parsed: LockKey = key.parse()?;
            let expected = match &parsed {
                LockKey::Packages { .. } => None,
                LockKey::Git { .. } => value.as_str().is_none().then_some("a commit"),
                _ => value.as_str().is_none_or(|t| t.parse::<Digest>().is_err()).then_some("a digest"),
            };
            if let Some(expected) = expected {
                return Err(LockError::ReadValue { key, expected });
            }
            entries.insert(parsed, value);
        }
        Ok(Lock { original: entries.clone(), entries })
    }

    /// The text of the file. Equal entries give equal bytes.
    pub fn to_text(&self) -> String {
        let sorted: BTreeMap<String, &Value> = self.entries.iter().map(|(k, v)| (k.to_string(), v)).collect();
        let mut out = String::from("{\n");
        for (key, value) in sorted {
            let _ = writeln!(out, "{}: {},", Value::String(key), value_text(value));
        }
        let _ = writeln!(out, "\"version\": {VERSION}\n}}");
        out
    }

    /// Whether anything differs from what was read.
    pub fn changed(&self) -> bool {
        self.entries != self.original
    }

    /// What differs from what was read, by key.
    pub fn changes(&self) -> Vec<Change> {
        let keys: std::collections::BTreeSet<&LockKey> = self.original.keys().chain(self.entries.keys()).collect();
        keys.into_iter()
            .map(|key| Change {
                key: key.clone(),
                from: self.original.get(key).cloned(),
                to: self.entries.get(key).cloned(),
            })
            .filter(|c| c.from != c.to)
            .collect()
    }

    /// Every entry, by key.
    pub fn entries(&self) -> impl Iterator<Item = (&LockKey, &Value)> {
        self.entries.iter()
    }

    /// Any entry's value.
    pub fn get(&self, key: &LockKey) -> Option<&Value> {
        self.entries.get(key)
    }

    /// Forgets an entry, so that it is resolved anew.
    pub fn remove(&mut self, key: &LockKey) -> Option<Value> {
        self.entries.remove(key)
    }

    /// Keeps only the entries that `keep` wants: for names that the project no longer mentions.
    pub fn retain(&mut self, mut keep: impl FnMut(&LockKey) -> bool) {
        self.entries.retain(|key, _| keep(key));
    }

    fn text(&self, key: &LockKey) -> Option<&str> {
        self.entries.get(key)?.as_str()
    }

    /// What a reference meant for a platform.
    pub fn image(&self, reference: &Reference, platform: &Platform) -> Option<Digest> {
        self.text(&image_key(reference, platform))?.parse().ok()
    }

    /// Says what a reference means for a platform.
    pub fn insert_image(&mut self, reference: &Reference, platform: &Platform, digest: &Digest) {
        self.entries.insert(image_key(reference, platform), Value::String(digest.to_string()));
    }

    /// What the package manager chose for a stage.
    pub fn packages(&self, image: &Address, stage: &str, platform: &Platform) -> Option<&Value> {
        self.entries.get(&packages_key(image, stage, platform))
    }

    /// Says what the package manager chose for a stage.
    pub fn insert_packages(&mut self, image: &Address, stage: &str, platform: &Platform, payload: Value) {
        self.entries.insert(packages_key(image, stage, platform), payload);
    }

    /// The checksum of what an address held.
    pub fn http(&self, url: &str) -> Option<Digest> {
        self.text(&LockKey::Http { url: url.to_string() })?.parse().ok()
    }

    /// Says the checksum of what an address holds.
    pub fn insert_http(&mut self, url: &str, digest: &Digest) {
        self.entries.insert(LockKey::Http { url: url.to_string() }, Value::String(digest.to_string()));
    }

    /// The commit that a name in a repository meant.
    pub fn git(&self, url: &str, reference: &str) -> Option<&str> {
        self.text(&LockKey::Git { url: url.to_string(), reference: reference.to_string() })
    }

    /// Says the commit that a name in a repository means.
    pub fn insert_git(&mut self, url: &str, reference: &str, commit: &str) {
        let key = LockKey::Git { url: url.to_string(), reference: reference.to_string() };
        self.entries.insert(key, Value::String(commit.to_string()));
    }
}

fn image_key(reference: &Reference, platform: &Platform) -> LockKey {
    LockKey::Image { reference: reference.to_string(), platform: platform.to_string() }
}

fn packages_key(image: &Address, stage: &str, platform: &Platform) -> LockKey {
    LockKey::Packages { image: image.to_string(), stage: stage.to_string(), platform: platform.to_string() }
}

/// Compact, but the items of lists (of the value, or of its fields) each on a line.
fn value_text(value: &Value) -> String {
    match value {
        Value::Array(items) if items.iter().any(|i| i.is_object() || i.is_array()) => {
            let lines: Vec<String> = items.iter().map(|i| format!("  {i}")).collect();
            format!("[\n{}\n]", lines.join(",\n"))
        }
        Value::Object(fields) if fields.values().any(Value::is_array) => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            let lines: Vec<String> = sorted
                .into_iter()
                .map(|(name, field)| {
                    format!("  {}: {}", Value::String(name.clone()), value_text(field).replace('\n', "\n  "))
                })
                .collect();
            format!("{{\n{}\n}}", lines.join(",\n"))
        }
        other => other.to_string(),
    }
}
