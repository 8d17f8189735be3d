//! What is asked for, and what was found: the entry for the lock file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A family of repositories and package files. A further family is a further variant and a folder beside `apt/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Debian, Ubuntu and relatives: `InRelease`, `Packages`, `.deb`, dpkg's database.
    #[default]
    Apt,
}

/// Which packages are there without being named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// `Essential: yes`, `Priority: required`, and the package manager: the smallest usable distribution.
    #[default]
    Minbase,
    /// `Essential: yes` alone with what it needs.
    Essential,
    /// Nothing but what is named and what that needs.
    Custom,
}

/// What to put into a root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `debian`, `ubuntu`, …: a word for errors and the lock; the suite decides.
    pub distro: String,
    /// `bookworm`. The suites `bookworm-updates`, `bookworm-security` and `bookworm/updates` come along when the
    /// host has sources for them and no `mirror` is named.
    pub suite: String,
    /// Components, e.g. `main`; empty: those of the host's sources, or `main` with a named mirror.
    pub components: Vec<String>,
    /// Debian's word for the architecture, e.g. `amd64`; see [`architecture_of`].
    pub architecture: String,
    /// The archive's URL, instead of the host's sources.
    pub mirror: Option<String>,
    /// File with the trusted keys, instead of what the host's sources say.
    pub keyring: Option<PathBuf>,
    /// What is there without being named.
    pub variant: Variant,
    /// `name`, `name:arch` or `name=version`.
    pub install: Vec<String>,
    /// Follow `Recommends` too.
    pub recommends: bool,
    /// The time to check `Valid-Until` against, in seconds since 1970.
    pub now_seconds: i64,
}

/// The exact packages of a root: what goes to `containers.lock`. Same value, same tree, on any machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Locked {
    /// The family.
    #[serde(default)]
    pub format: Format,
    /// From the request.
    pub distro: String,
    /// From the request.
    pub suite: String,
    /// From the request, Debian's word.
    pub architecture: String,
    /// Newest `Date` of the release files, in seconds since 1970: the time stamp of everything that installing makes.
    pub epoch_seconds: i64,
    /// In the order in which they are configured: needs first.
    pub packages: Vec<LockedPackage>,
}

/// One package file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LockedPackage {
    /// Name.
    pub name: String,
    /// Full version with epoch and revision.
    pub version: String,
    /// `amd64`, `all`, …
    pub architecture: String,
    /// The suite whose archive holds it: names the source to fetch from, on any machine.
    pub suite: String,
    /// Path below the archive's URL.
    pub filename: String,
    /// Lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Debian's word for an OCI platform's architecture and variant; none if Debian has no port of it.
pub fn architecture_of(architecture: &str, variant: Option<&str>) -> Option<&'static str> {
    Some(match (architecture, variant) {
        ("amd64", _) => "amd64",
        ("arm64", _) => "arm64",
        ("386", _) => "i386",
        ("arm", Some("v5" | "v6")) => "armel",
        ("arm", _) => "armhf",
        ("ppc64le", _) => "ppc64el",
        ("s390x", _) => "s390x",
        ("riscv64", _) => "riscv64",
        ("mips64le", _) => "mips64el",
        ("loong64", _) => "loong64",
        _ => return None,
    })
}
