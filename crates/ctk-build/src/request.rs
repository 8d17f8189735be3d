//! What a build is asked for, what it is given of the world, and what it gives back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ctk_buildgraph::BaseName;
use ctk_oci::{Descriptor, Digest, Platform, Reference};
use ctk_packages::{HostSources, Locked, PackagesError};
use ctk_plan::{Address, Cancel, Reporter};
use ctk_snapshot::Snapshots;
use ctk_store::{Fetch, Store};
use ctk_syntax::Sources;

use crate::cache::Caches;
use crate::{Debugger, Explanations, ImageDecl, RunSettings, SecretSource, Slots, StatIndex};

/// What moving names meant: the lock file, as the builder sees it. Called from several threads.
pub trait LockView: Sync {
    /// Whether entries may be added; the error is a sentence that says why not. Asked before anything is resolved.
    fn may_add(&self) -> Result<(), String> {
        Ok(())
    }
    /// The manifest or index that `reference` meant for `platform`.
    fn image(&self, reference: &Reference, platform: &Platform) -> Option<Digest>;
    /// Notes what it means now. An error is a sentence that says why it may not be noted, e.g. `--locked`.
    fn set_image(&self, reference: &Reference, platform: &Platform, digest: &Digest) -> Result<(), String>;
    /// The packages of a stage of `image` for `platform`.
    fn packages(&self, image: &Address, stage: &str, platform: &Platform) -> Option<Locked>;
    /// The commit that `reference` meant in the repository `url`.
    fn git(&self, url: &str, reference: &str) -> Option<String>;
    /// Notes what it means now.
    fn set_git(&self, url: &str, reference: &str, commit: &str) -> Result<(), String>;
    /// The digest of what a context's `url` gave.
    fn http(&self, url: &str) -> Option<Digest>;
    /// Notes what it gives now.
    fn set_http(&self, url: &str, digest: &Digest) -> Result<(), String>;
    /// Notes the packages of a stage.
    fn set_packages(&self, image: &Address, stage: &str, platform: &Platform, locked: &Locked) -> Result<(), String>;
}

/// Gives secrets by their names. Called from several threads.
pub trait Secrets: Sync {
    /// The secret's bytes; none if there is no such secret. `declared` is where the image says it comes from.
    fn secret(&self, id: &str, declared: Option<&SecretSource>) -> Option<Vec<u8>>;
}

/// What the builder needs of the world, the same for all images of an apply.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The directory that paths of declarations are relative to.
    pub project_directory: &'a Path,
    /// The texts that the project's spans point into.
    pub sources: &'a Sources,
    /// The lock file.
    pub lock: &'a dyn LockView,
    /// Where blobs, records and caches are.
    pub store: &'a Store,
    /// Unpacked layers of that store.
    pub snapshots: &'a Snapshots,
    /// Digests of files by their stat.
    pub index: &'a StatIndex,
    /// Where base images come from.
    pub fetch: &'a dyn Fetch,
    /// The host's package sources, read when first asked for.
    pub host_packages: &'a (dyn Fn() -> Result<HostSources, PackagesError> + Sync),
    /// Hears what happens.
    pub reporter: &'a Reporter,
    /// Says stop.
    pub cancel: &'a Cancel,
    /// Seconds since 1970.
    pub now_seconds: i64,
    /// For what ADD downloads.
    pub http: &'a ctk_http::Options,
    /// Secrets.
    pub secrets: &'a dyn Secrets,
    /// The environment, of which `git` gets the search path, proxies, authorities and the agent of `ssh`.
    pub environment: &'a BTreeMap<String, String>,
}

/// A build.
pub struct BuildRequest<'a> {
    /// The image.
    pub decl: &'a ImageDecl,
    /// What it may use.
    pub world: World<'a>,
    /// What to build for; several make an index.
    pub platforms: &'a [Platform],
    /// What the project's images (and stages of them) that it is built on are now.
    pub images: &'a BTreeMap<BaseName, Descriptor>,
    /// Values of build arguments on top of the declaration's.
    pub args: &'a BTreeMap<String, String>,
    /// Another stage than the last.
    pub target: Option<&'a str>,
    /// Room for operations; builds that run side by side share it.
    pub slots: &'a Slots,
    /// Whether to use no earlier result. Results are recorded all the same, but see `apart`.
    pub no_cache: bool,
    /// Whether results are kept from later builds.
    pub apart: bool,
    /// Stages, by name or number, that use no earlier result although the others do.
    pub no_cache_stages: &'a [String],
    /// Caches of other machines, read and written.
    pub caches: Option<Caches<'a>>,
    /// What RUN instructions are given besides what they say.
    pub run: &'a RunSettings,
    /// Labels on top of the recipe's.
    pub labels: &'a BTreeMap<String, String>,
    /// `SOURCE_DATE_EPOCH`: no file and no date is younger. By default the packages' date or the base's.
    pub epoch_seconds: Option<i64>,
    /// Where running containers are written down, e.g. `/run/ctk`.
    pub state_directory: PathBuf,
    /// Who is asked to a shell when a step fails.
    pub debugger: Option<&'a dyn Debugger>,
    /// Hears why operations have to run.
    pub explain: Option<&'a Explanations>,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Built {
    /// The manifest, or the index of several platforms. In the store; no ref points to it yet.
    pub descriptor: Descriptor,
    /// The manifests by platform.
    pub manifests: Vec<(Platform, Descriptor)>,
    /// Layers that were not built here: those of bases.
    pub base_layers: BTreeSet<Digest>,
    /// Operations that ran.
    pub executed: usize,
    /// Operations whose earlier result was used.
    pub cached: usize,
}
