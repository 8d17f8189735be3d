//! An image as declared: what the project file says, decoded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ctk_buildgraph::{BaseName, ContextSource, GitSource, Recipe, SourceError};
use ctk_cache::{Export, Import, Place};
use ctk_oci::{Digest, Platform};
use ctk_plan::{Address, Kind};
use ctk_syntax::{Span, Spanned};

use crate::{Entitlements, SshSource};

/// An image's declaration.
#[derive(Clone, Debug)]
pub struct ImageDecl {
    /// Which image.
    pub address: Address,
    /// What it is built for; never empty.
    pub platforms: Vec<Platform>,
    /// Whether somebody asked for these. If not, they are the builder's, and an image says it is for what its base is for.
    pub platforms_asked: bool,
    /// Where its stages come from.
    pub source: RecipeSource,
    /// Contexts by name; `""` is the main one.
    pub contexts: BTreeMap<String, ContextDecl>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Where secrets come from, by name.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Agents for `RUN --mount=type=ssh`, by name; `git` asks `default`.
    pub ssh: BTreeMap<String, SshDecl>,
    /// What its RUN instructions may ask for.
    pub allow: Entitlements,
    /// Files and folders that applying the project writes, relative to the project's directory or absolute. They are no
    /// part of contexts: an image that holds what was made of it would never be done.
    pub outputs: Vec<PathBuf>,
    /// Caches of other machines that it is built with, as far as nobody says others.
    pub cache_from: Vec<Import>,
    /// Caches that its builds leave, with the places where they are named. Only one in the image itself is part of what
    /// the image is.
    pub cache_to: Vec<Spanned<Export>>,
    /// The wanted stage, if not the last.
    pub target: Option<String>,
    /// The declaration's canonical text, for fingerprints.
    pub canonical: String,
}

/// Where an image's stages come from.
#[derive(Clone, Debug)]
pub enum RecipeSource {
    /// Native nodes; a recipe for each platform's text.
    Native(BTreeMap<String, Recipe>),
    /// A Dockerfile, read when it is needed.
    Dockerfile {
        /// Relative to the project's directory.
        path: PathBuf,
        /// Where it is named.
        origin: Option<Span>,
    },
    /// A Dockerfile in the main context, which is no directory of this machine. If that is one plain file, it is the
    /// Dockerfile itself.
    InContext {
        /// Within the context.
        path: String,
        /// Where it is named.
        origin: Option<Span>,
    },
    /// A Dockerfile behind a URL, beside whatever the main context is.
    Url {
        /// Where from.
        url: String,
        /// Where it is named.
        origin: Option<Span>,
    },
    /// A Dockerfile that was read already, e.g. from standard input.
    Text {
        /// What it is called in messages.
        name: String,
        /// Its text, as it came.
        text: Vec<u8>,
    },
}

/// A context.
#[derive(Clone, Debug)]
pub enum ContextDecl {
    /// A directory.
    Directory {
        /// Relative to the project's directory, or absolute.
        path: PathBuf,
        /// Patterns besides those of its `.dockerignore`.
        ignore: Vec<String>,
        /// Where it is named.
        origin: Option<Span>,
    },
    /// An image.
    Image(BaseName),
    /// No files.
    Scratch,
    /// A checkout of a repository.
    Git {
        /// Of which.
        source: GitSource,
        /// Where it is named.
        origin: Option<Span>,
    },
    /// What a URL gives: an archive, whose files count, or a Dockerfile. As a named context one file called `context`.
    Http {
        /// Where from.
        url: String,
        /// Where it is named.
        origin: Option<Span>,
    },
    /// An archive in the store: what standard input gave.
    Archive {
        /// Its digest.
        digest: Digest,
    },
}

impl ContextDecl {
    /// The context that a command line or a project file names. Paths start at the project's directory; `target:x` is
    /// an image of the project. Standard input has to be read first: [`read_stdin`](crate::read_stdin).
    pub fn from_source(source: ContextSource, origin: Option<Span>) -> Result<ContextDecl, SourceError> {
        Ok(match source {
            ContextSource::Stdin => return Err(SourceError::NotNamed),
            ContextSource::Local(path) => ContextDecl::Directory { path: path.into(), ignore: Vec::new(), origin },
            ContextSource::Git(source) => ContextDecl::Git { source, origin },
            ContextSource::Http(url) => ContextDecl::Http { url, origin },
            ContextSource::Image(reference) => ContextDecl::Image(BaseName::Reference(reference)),
            ContextSource::Scratch => ContextDecl::Scratch,
            ContextSource::OciLayout(layout) => ContextDecl::Image(BaseName::Layout(layout)),
            ContextSource::Target(name) => ContextDecl::Image(BaseName::Project(Address::new(Kind::Image, &name))),
        })
    }
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file, relative to the project's directory or absolute.
    File(PathBuf),
}

/// Where an agent's socket is declared to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshDecl {
    /// Where this environment variable says.
    Env(String),
    /// There: relative to the project's directory or absolute.
    Socket(PathBuf),
    /// Nowhere: these private keys are served instead. Paths as of sockets.
    Keys(Vec<PathBuf>),
}

impl SshDecl {
    /// What that is on this machine; none if the variable is not set.
    pub fn source(&self, environment: &BTreeMap<String, String>, directory: &Path) -> Option<SshSource> {
        Some(match self {
            SshDecl::Env(name) => SshSource::Agent(environment.get(name).filter(|path| !path.is_empty())?.into()),
            SshDecl::Socket(path) => SshSource::Agent(directory.join(path)),
            SshDecl::Keys(keys) => SshSource::Keys(keys.iter().map(|key| directory.join(key)).collect()),
        })
    }
}

impl From<SshSource> for SshDecl {
    fn from(source: SshSource) -> SshDecl {
        match source {
            SshSource::Agent(socket) => SshDecl::Socket(socket),
            SshSource::Keys(keys) => SshDecl::Keys(keys),
        }
    }
}

impl ImageDecl {
    /// Whether the image holds a cache of itself.
    pub fn holds_cache(&self) -> bool {
        self.cache_to.iter().any(|cache| cache.value.place == Place::Inline)
    }

    /// Where its caches are, those that are read and those that are written.
    pub fn caches(&self) -> impl Iterator<Item = &Place> {
        let to = self.cache_to.iter().map(|cache| &cache.value.place);
        self.cache_from.iter().map(|cache| &cache.place).chain(to)
    }

    /// Folders that its caches are written to.
    pub fn cache_folders(&self) -> impl Iterator<Item = &Path> {
        self.cache_to.iter().filter_map(|cache| match &cache.value.place {
            Place::Local { path, .. } => Some(path.as_path()),
            Place::Registry(_) | Place::Inline | Place::S3(_) => None,
        })
    }

    /// An image of a Dockerfile with the main context `context`, as `docker build` takes them.
    pub fn dockerfile(address: Address, dockerfile: impl Into<PathBuf>, context: impl Into<PathBuf>) -> ImageDecl {
        let main = ContextDecl::Directory { path: context.into(), ignore: Vec::new(), origin: None };
        ImageDecl {
            address,
            platforms: vec![Platform::host()],
            platforms_asked: false,
            source: RecipeSource::Dockerfile { path: dockerfile.into(), origin: None },
            contexts: BTreeMap::from([(String::new(), main)]),
            args: BTreeMap::new(),
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            allow: Entitlements::default(),
            outputs: Vec::new(),
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            target: None,
            canonical: String::new(),
        }
    }
}
