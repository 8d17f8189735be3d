//! What can go wrong between a mirror and a root filesystem.

use std::io;
use std::path::PathBuf;

/// Why packages could not be resolved, fetched or installed. Each names the URL, package or file concerned.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// A file of the host's package configuration, or a keyring, that cannot be read.
    #[error("cannot read {}", path.display())]
    ReadHostFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A line of the host's package configuration that has no meaning.
    #[error("{}:{line}: {what}", path.display())]
    ParseHostFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what was expected.
        what: String,
    },
    /// No configured source offers the suite.
    #[error("no package source offers suite `{suite}`{}; name a mirror and a keyring, or use one of: {available}", match architecture { Some(a) => format!(" for {a}"), None => String::new() })]
    NoSource {
        /// What was asked for.
        suite: String,
        /// For which architecture, when that was what excluded sources.
        architecture: Option<String>,
        /// Suites that the host has.
        available: String,
    },
    /// A keyring without usable keys.
    #[error("keyring {keyring} {what}")]
    Keyring {
        /// The file, or what else holds the keys.
        keyring: String,
        /// What is wrong with it.
        what: String,
    },
    /// A URL that cannot be asked.
    #[error("cannot use the URL {url}: {what}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// The HTTP client could not be made from the host's proxy and CA settings.
    #[error("cannot set up downloads")]
    Client(#[from] ctk_http::HttpError),
    /// The mirror answered with something other than the file.
    #[error("{url}: the mirror answered {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status with its reason.
        status: String,
    },
    /// The transfer broke off and repeating it did not help.
    #[error("cannot download {url}: {what}")]
    Transfer {
        /// What was asked for.
        url: String,
        /// How it broke.
        what: String,
    },
    /// A downloaded file is larger than announced or than any sane file of its kind.
    #[error("{url} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// Announced size or limit.
        limit_bytes: u64,
    },
    /// A file whose digest is not the announced one.
    #[error("{url}: expected sha256 {expected}, got {actual}")]
    HashMismatch {
        /// Where it came from.
        url: String,
        /// Announced digest.
        expected: String,
        /// Digest of what came.
        actual: String,
    },
    /// A release file that no trusted key signed.
    #[error("{url}: {what} (keyring {keyring})")]
    Signature {
        /// The signed file.
        url: String,
        /// Unknown key, bad signature, missing signature.
        what: String,
        /// Where trusted keys were taken from.
        keyring: String,
    },
    /// A signed release file that is unusable: another suite, no such component, malformed.
    #[error("{url}: {what}")]
    Release {
        /// The release file.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// A signed release file that is too old to be trusted.
    #[error("{url}: expired on {valid_until}; the mirror is stale, or somebody replays an old one")]
    Expired {
        /// The release file.
        url: String,
        /// Its `Valid-Until`.
        valid_until: String,
    },
    /// An index that is not what its format says.
    #[error("{url}: {what}")]
    Index {
        /// The index file.
        url: String,
        /// What is wrong, with the package where known.
        what: String,
    },
    /// A package nobody offers.
    #[error("no package `{name}` in {suite}{}", match nearest { Some(n) => format!("; did you mean `{n}`?"), None => String::new() })]
    UnknownPackage {
        /// What was asked for.
        name: String,
        /// Where it was sought.
        suite: String,
        /// A similar name that exists.
        nearest: Option<String>,
    },
    /// A package that exists, but not in the version asked for.
    #[error("no version `{version}` of package `{name}`; there is {available}")]
    UnknownVersion {
        /// The package.
        name: String,
        /// What was asked for.
        version: String,
        /// What there is.
        available: String,
    },
    /// A dependency that nothing fulfils.
    #[error("{chain}, but {why}")]
    Unsatisfiable {
        /// From the request to the dependency: `a needs b, b needs c (>= 2)`.
        chain: String,
        /// Why nothing fulfils it.
        why: String,
    },
    /// Two selected packages that exclude each other.
    #[error("{package} {relation} {other}, but both are needed: {chain}")]
    Conflict {
        /// The package that declares it.
        package: String,
        /// `conflicts with` or `breaks`.
        relation: &'static str,
        /// The other package, with its version.
        other: String,
        /// Why both were selected.
        chain: String,
    },
    /// The cache directory refuses.
    #[error("cannot use the package cache at {}", path.display())]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A package file that is malformed or truncated.
    #[error("package {package}: {} {what}", path.display())]
    Archive {
        /// The package.
        package: String,
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file of a package that cannot be created in the root.
    #[error("package {package}: cannot unpack {path}")]
    Unpack {
        /// The package.
        package: String,
        /// The path in the root.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Two packages ship the same file and neither replaces the other.
    #[error("packages {first} and {second} both ship {path}")]
    FileConflict {
        /// One package.
        first: String,
        /// The other.
        second: String,
        /// The path in the root.
        path: String,
    },
    /// The root directory or the package database in it cannot be read or written.
    #[error("cannot write {path} in the new root")]
    Root {
        /// The path in the root.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A maintainer script failed.
    #[error("package {package}: the {script} script failed with {status}{}", if output.is_empty() { String::new() } else { format!(":\n{output}") })]
    Script {
        /// The package.
        package: String,
        /// `preinst`, `postinst`, …
        script: String,
        /// `exit code 1`.
        status: String,
        /// The last lines it wrote.
        output: String,
    },
    /// No process could be run in the new root.
    #[error("cannot run maintainer scripts in the new root")]
    Runner(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}
