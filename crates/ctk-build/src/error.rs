//! Why a build failed.

use std::fmt;
use std::io;
use std::path::PathBuf;

use ctk_buildgraph::BaseRequest;
use ctk_buildgraph::pattern::PatternError;
use ctk_container::ExitStatus;
use ctk_oci::DocumentError;
use ctk_packages::PackagesError;
use ctk_snapshot::SnapshotError;
use ctk_store::{FetchError, StoreError};
use ctk_syntax::{Diagnostics, Sources};

/// Why a build failed. `place` is where the instruction stands, `file:line:column`, when it is known.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Mistakes in what somebody wrote. The places are in `sources`, or in the project's texts if there are none.
    #[error("{diagnostics}")]
    Invalid {
        /// The mistakes.
        diagnostics: Diagnostics,
        /// The Dockerfile's text.
        sources: Option<Box<Sources>>,
    },
    /// A command said no.
    #[error("`{command}` failed{} {status}{}", if matches!(.status, ExitStatus::Code(_)) { " with" } else { ":" }, at(.place))]
    Command {
        /// The progress line's name.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Its last lines.
        last_lines: Vec<String>,
        /// Where it stands.
        place: Option<Place>,
    },
    /// A container that did not start.
    #[error("cannot start `{command}`{}", at(.place))]
    Start {
        /// The progress line's name.
        command: String,
        /// Where it stands.
        place: Option<Place>,
        /// Why.
        #[source]
        source: Box<ctk_container::Error>,
    },
    /// An instruction whose own work failed.
    #[error("`{step}` failed{}", at(.place))]
    Step {
        /// The progress line's name.
        step: String,
        /// Where it stands.
        place: Option<Place>,
        /// Whether a shell can be opened in the state before it.
        shell: bool,
        /// Why.
        #[source]
        source: Box<BuildError>,
    },
    /// A path that COPY, ADD or a mount names and nobody has.
    #[error("`{path}` does not exist in {container}{}{}", if *.ignored { ": an ignore pattern excludes it" } else { "" }, near.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    SourceMissing {
        /// As written.
        path: String,
        /// `the context`, `stage build`, …
        container: String,
        /// Whether it is there and ignored.
        ignored: bool,
        /// What is there and called almost so.
        near: Option<String>,
    },
    /// A path of the host that could not be read.
    #[error("cannot {action} {}", path.display())]
    Read {
        /// Verb.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A malformed pattern of an ignore file.
    #[error("{}:{line}: `{pattern}` is no pattern: {reason}", path.display())]
    IgnorePattern {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// As written.
        pattern: String,
        /// What is wrong.
        reason: PatternError,
    },
    /// Files that somebody wrote to while they were copied.
    #[error("`{what}` changed while it was copied; build again when nobody writes to it")]
    ContextChanged {
        /// The sources.
        what: String,
    },
    /// A context that crosses a limit.
    #[error("context {} is too large: more than {limit} {unit}", path.display())]
    ContextTooLarge {
        /// Its directory.
        path: PathBuf,
        /// The limit.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
    /// A base image that could not be fetched.
    #[error("cannot fetch base image {image}")]
    Fetch {
        /// Which.
        image: String,
        /// Why.
        #[source]
        source: Box<FetchError>,
    },
    /// An image of the project that should have been built before.
    #[error("{image} has no result to build on")]
    ProjectImage {
        /// Which.
        image: String,
    },
    /// A base that has nothing for a platform.
    #[error("{image} has no manifest for {platform}; it has {offered}")]
    NoPlatform {
        /// Which.
        image: String,
        /// What was wanted.
        platform: String,
        /// What there is.
        offered: String,
    },
    /// The lock file may not grow.
    #[error("cannot add {what} to the lock file: {reason}")]
    Locked {
        /// What was resolved.
        what: String,
        /// The sentence.
        reason: String,
    },
    /// A secret that a mount requires.
    #[error(
        "secret `{id}` is not given; name its source by `--secret id={id},src=FILE` or, in a project file, by `secret {id:?} file=…`"
    )]
    SecretMissing {
        /// Which.
        id: String,
    },
    /// An ssh agent that a mount requires.
    #[error("ssh agent `{id}` is not given; name its socket by `--ssh {id}` or, in a project file, by `ssh {id:?}`")]
    AgentMissing {
        /// Which.
        id: String,
    },
    /// Private keys that no agent serves.
    #[error("cannot serve the keys of ssh agent `{id}`: {reason}")]
    AgentKeys {
        /// Which.
        id: String,
        /// What happened, or what is missing.
        reason: String,
    },
    /// A device that a RUN requires.
    #[error("this machine has no device `{name}`; expected the path of one below /dev")]
    DeviceMissing {
        /// As written.
        name: String,
    },
    /// A command for a processor that this machine is not.
    #[error(
        "cannot run commands of {platform} on this {host} machine: {reason}. A stage that only copies files needs none \
         of this"
    )]
    ForeignPlatform {
        /// Which, as text.
        platform: String,
        /// What the machine is, as text.
        host: String,
        /// What is missing.
        reason: String,
    },
    /// A line for a shell that is not there.
    #[error("the image has no `{shell}`{}: {reason}", at(.place))]
    NoShell {
        /// The program.
        shell: String,
        /// What to do.
        reason: &'static str,
        /// Where the line stands.
        place: Option<Place>,
    },
    /// Something of the language that this version cannot do.
    #[error("{what} is not supported yet")]
    NotSupported {
        /// What.
        what: String,
    },
    /// `git` said no.
    #[error("cannot {action} {url}: {reason}")]
    Git {
        /// Verb.
        action: &'static str,
        /// Which repository.
        url: String,
        /// Why.
        reason: String,
    },
    /// There is no `git`.
    #[error("the repository {url} needs the `git` program, and it is not on the search path")]
    GitMissing {
        /// Which repository.
        url: String,
    },
    /// Nothing to show an ssh server.
    #[error(
        "the repository {url} needs an ssh agent or a key: start an agent and give it by `--ssh default`, or a key by \
         `--ssh default=FILE`; in a project file, by `ssh` or `ssh file=\"FILE\"`"
    )]
    GitAgent {
        /// Which repository.
        url: String,
    },
    /// A name that a repository does not have.
    #[error("{url} has no branch, tag or commit `{reference}`{}", did_you_mean(.near))]
    GitReference {
        /// Which repository.
        url: String,
        /// The name.
        reference: String,
        /// The one that is nearly it.
        near: Option<String>,
    },
    /// A commit that is another than expected.
    #[error("{source_} is commit {commit}, not {expected}")]
    GitChecksum {
        /// What was asked for.
        source_: String,
        /// What it is.
        commit: String,
        /// What it should begin with.
        expected: String,
    },
    /// A folder that a commit does not have.
    #[error("{source_} has no folder `{subdir}`{}", did_you_mean(.near))]
    GitFolder {
        /// What was asked for.
        source_: String,
        /// The folder.
        subdir: String,
        /// The one that is nearly it.
        near: Option<String>,
    },
    /// A context that dates nothing.
    #[error(
        "SOURCE_DATE_EPOCH is `context`, and {context} has no date: {reason}. Set it to seconds since 1970, or leave it \
         out"
    )]
    ContextEpoch {
        /// Which context.
        context: String,
        /// Why.
        reason: String,
    },
    /// An image layout that does not have an image.
    #[error("cannot take an image from {layout}: {reason}")]
    Layout {
        /// Which layout.
        layout: String,
        /// Why.
        reason: String,
    },
    /// A download failed.
    #[error("cannot download {url}: {reason}")]
    Download {
        /// From where.
        url: String,
        /// Why.
        reason: String,
    },
    /// An archive that is damaged, cut short, or leads out of its root.
    #[error("cannot unpack the context from {place}")]
    Archive {
        /// Where it came from.
        place: String,
        /// What is wrong with it.
        #[source]
        source: Box<SnapshotError>,
    },
    /// A name in `--chown` and the like that the image does not know, or a mode that is none.
    #[error("{0}")]
    BadOption(String),
    /// OS packages.
    #[error("cannot install packages of stage `{stage}`")]
    Packages {
        /// Which stage.
        stage: String,
        /// Why.
        #[source]
        source: Box<PackagesError>,
    },
    /// Lowering asked the same questions again and again.
    #[error("cannot find out what base images need: still asking for {}", .0.iter().map(|b| b.name.to_string()).collect::<Vec<_>>().join(", "))]
    Undecided(Vec<BaseRequest>),
    /// The store.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// Layers.
    #[error("a layer could not be made")]
    Snapshot(#[from] SnapshotError),
    /// A manifest or config that cannot be read.
    #[error("a document of a base image cannot be read")]
    Document(#[from] DocumentError),
    /// A layer that a cache promised is not to be had. Never comes out of a build: it begins again without that cache.
    #[error("no cache has layer `{layer}` any more")]
    CacheLost {
        /// Its name.
        layer: String,
    },
    /// A cache could not be written.
    #[error("cannot export the cache to `{place}`")]
    CacheExport {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: Box<ctk_cache::CacheError>,
    },
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}

/// Where an instruction stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `file:line:column`.
    pub text: String,
    /// The lines there, for people.
    pub excerpt: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn did_you_mean(near: &Option<String>) -> String {
    near.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

fn at(place: &Option<Place>) -> String {
    place.as_ref().map(|place| format!(" at {place}")).unwrap_or_default()
}

impl BuildError {
    pub(crate) fn invalid(diagnostics: Diagnostics) -> BuildError {
        BuildError::Invalid { diagnostics, sources: None }
    }

    pub(crate) fn read(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> BuildError {
        let path = path.into();
        move |source| BuildError::Read { action, path, source }
    }

    /// Where the instruction stands that failed, if it was one.
    pub fn place(&self) -> Option<&Place> {
        match self {
            BuildError::Step { source, place, .. } => source.place().or(place.as_ref()),
            BuildError::Command { place, .. } | BuildError::Start { place, .. } => place.as_ref(),
            _ => None,
        }
    }

    /// Whether a [`Debugger`](crate::Debugger) would have had a shell in the state before what failed.
    pub fn has_shell(&self) -> bool {
        match self {
            BuildError::Command { .. } | BuildError::Start { .. } => true,
            BuildError::Step { shell, source, .. } => *shell || source.has_shell(),
            _ => false,
        }
    }

    /// Whether a layer that a cache promised is not to be had: building again makes it.
    pub(crate) fn is_cache_lost(&self) -> bool {
        match self {
            BuildError::CacheLost { .. } => true,
            BuildError::Step { source, .. } => source.is_cache_lost(),
            _ => false,
        }
    }

    /// Whether it is the user's word that ended it.
    pub fn is_cancelled(&self) -> bool {
        match self {
            BuildError::Cancelled => true,
            BuildError::Command { status, .. } => *status == ExitStatus::Cancelled,
            BuildError::Step { source, .. } => source.is_cancelled(),
            _ => false,
        }
    }
}
