//! A build without a project file, as `docker build` does it: nothing is planned or locked, a moving name means what the
//! store has under it, or what the registry says.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ctk_build::{
    Advised, BuildError, BuildRequest, Caches, Explained, Explanations, LockView, Looked, Slots, StdinInput, World,
};
use ctk_buildgraph::BaseName;
use ctk_oci::{Descriptor, Digest, Platform, Reference};
use ctk_packages::Locked;
use ctk_plan::{Address, Cancel, Event, Outcome, Reporter, Sink};
use ctk_push::export::{ExportError, ExportRequest, Image, export};
use ctk_store::{Links, Store};
use ctk_syntax::Sources;

use crate::apply::{build_failure, failure, innermost};
use crate::besides::{Besides, verified};
use crate::ground::{Ground, host_packages};
use crate::secrets::DeclaredSecrets;
use crate::{ApplyError, Options, UnitFailure, codes};

pub use ctk_build::{
    Built, ContextDecl, Entitlements, HostAddress, ImageDecl, Linted, Location, Outline, RecipeSource, Resources,
    RunSettings, SecretSource, SshSource, Targets, Ulimit, outline, targets,
};
pub use ctk_buildgraph::lint::Rule;
pub use ctk_buildgraph::{ContextSource, NetworkMode};
pub use ctk_cache::{Export as CacheExport, Import as CacheImport, masked as masked_cache};
pub use ctk_push::export::{Annotation, Archive, Exported, Form, Output, Pictured, check_places, fields};

/// What moving names meant to earlier builds without a project file.
const BASES: &str = "adhoc-base";
/// What a main context that is none is called in errors.
const NOTHING: &str = "the result of `scratch`";
/// What opens a shell where a build failed.
const AGAIN: &str = "`ctk build --debug` with the same words";

/// A build without a project file.
pub struct AdHoc {
    /// As for a session; variables and the lock file have no meaning.
    pub options: Options,
    /// The absolute folder that paths are relative to.
    pub directory: PathBuf,
    /// What is built.
    pub decl: ImageDecl,
    /// What RUN instructions are given.
    pub run: RunSettings,
    /// Labels on top of the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// Whether to use no earlier result.
    pub no_cache: bool,
    /// Stages that use none.
    pub no_cache_stages: Vec<String>,
    /// Caches to read.
    pub cache_from: Vec<CacheImport>,
    /// Caches to write.
    pub cache_to: Vec<CacheExport>,
    /// Whether moving names are asked for anew.
    pub pull: bool,
    /// No file and no date is younger. By default the bases' date.
    pub epoch_seconds: Option<i64>,
    /// Names as written.
    pub names: Vec<String>,
    /// Where it goes; into the store if there is none.
    pub outputs: Vec<Output>,
    /// For every output that is an image.
    pub annotations: Vec<Annotation>,
    /// What is done besides building.
    pub besides: Besides,
    /// Hears why operations have to run.
    pub explain: Option<Explanations>,
}

/// What came out.
#[derive(Debug)]
pub struct AdHocBuilt {
    /// The image.
    pub built: Built,
    /// Where it went.
    pub exported: Exported,
}

impl AdHoc {
    /// Builds it and sends it where it goes. `store_name` gives the full name under which the store keeps what the user
    /// calls so; `stdout` gets what goes to `-`. Safe to repeat.
    pub fn build(
        &self,
        store_name: &(dyn Fn(&str) -> Result<String, String> + Sync),
        sink: Arc<dyn Sink>,
        stdout: &mut dyn Write,
        cancel: &Cancel,
    ) -> Result<AdHocBuilt, ApplyError> {
        let address = self.decl.address.clone();
        sink.emit(Event::UnitStarted { address: address.clone() });
        let started = Instant::now();
        let reporter = Reporter::new(address.clone(), sink.clone());
        let result = self.work(store_name, &reporter, stdout, cancel);
        let outcome = match &result {
            Ok(_) => Outcome::Done,
            Err(ApplyError::Cancelled) => Outcome::Cancelled,
            Err(ApplyError::Failed { failures, .. }) => Outcome::Failed(failures[0].summary().to_owned()),
            Err(error) => Outcome::Failed(error.to_string()),
        };
        sink.emit(Event::UnitFinished { address, outcome, seconds: started.elapsed().as_secs_f64() });
        result
    }

    /// Reads the Dockerfile, which is fetched if it is elsewhere, and builds nothing.
    pub fn lint(&self, cancel: &Cancel) -> Result<Linted, ApplyError> {
        let failed = |error: BuildError| self.failed(&error, &Sources::new(), cancel);
        let looked = match &self.decl.source {
            RecipeSource::Dockerfile { .. } if !self.options.store.exists() => {
                ctk_build::lint(&self.decl, &self.directory, None).map_err(failed)?
            }
            _ => {
                let ground = Ground::open(&self.options, [])?;
                let reporter = Reporter::new(self.decl.address.clone(), Arc::new(ctk_plan::Silent));
                self.within(&ground, &reporter, cancel, |world| {
                    ctk_build::lint(&self.decl, &self.directory, Some((&world, true))).map_err(failed)
                })?
            }
        };
        match looked {
            Looked::Linted(linted) => Ok(*linted),
            Looked::Native | Looked::Elsewhere(_) => unreachable!("what was fetched is a Dockerfile"),
        }
    }

    /// The error that a build of it would end with before anything is built, if it would.
    pub fn refused(&self, linted: &Linted) -> Result<(), ApplyError> {
        linted.refused().map_err(|error| one(build_failure(&self.decl.address, &error, &Sources::new(), AGAIN)))
    }

    /// Takes the main context from `input`: a tar archive, which has a Dockerfile called `file` in it, or a Dockerfile
    /// alone, and then there is no other file.
    pub fn read_stdin(&mut self, input: impl Read, file: Option<&str>) -> Result<(), ApplyError> {
        let ground = Ground::open(&self.options, [])?;
        let reporter = Reporter::new(self.decl.address.clone(), Arc::new(ctk_plan::Silent));
        let cancel = Cancel::new();
        let read = self.within(&ground, &reporter, &cancel, |world| ctk_build::read_stdin(input, &world));
        let read = read.map_err(|error| one(build_failure(&self.decl.address, &error, &Sources::new(), AGAIN)))?;
        let (source, context) = match read {
            StdinInput::Archive(context) => {
                let path = file.unwrap_or("Dockerfile").to_owned();
                (RecipeSource::InContext { path, origin: None }, context)
            }
            StdinInput::Dockerfile(text) => (RecipeSource::Text { name: "stdin".into(), text }, ContextDecl::Scratch),
        };
        self.decl.source = source;
        self.decl.contexts.insert(String::new(), context);
        Ok(())
    }

    /// Gives the builder its world.
    fn within<T>(&self, ground: &Ground, reporter: &Reporter, cancel: &Cancel, work: impl FnOnce(World<'_>) -> T) -> T {
        let book = Names { store: &ground.store, pull: self.pull, found: Mutex::default(), commits: Mutex::default() };
        let host = host_packages(&self.options);
        let sources = Sources::new();
        let secrets = DeclaredSecrets::new(&self.options, &self.directory);
        work(World {
            project_directory: &self.directory,
            sources: &sources,
            lock: &book,
            store: &ground.store,
            snapshots: &ground.snapshots,
            index: &ground.index,
            fetch: &ground.fetch,
            host_packages: &host,
            reporter,
            cancel,
            now_seconds: self.options.now_seconds,
            http: &self.options.client.http,
            secrets: &secrets,
            environment: &self.options.environment,
        })
    }

    fn work(
        &self,
        store_name: &(dyn Fn(&str) -> Result<String, String> + Sync),
        reporter: &Reporter,
        stdout: &mut dyn Write,
        cancel: &Cancel,
    ) -> Result<AdHocBuilt, ApplyError> {
        let ground = Ground::open(&self.options, [])?;
        ctk_container::cleanup_stale(&self.options.state).map_err(ApplyError::CleanUp)?;
        let _caches = ground.store.use_caches()?;
        let none = Nothing::new(&self.options);
        let built = self.within(&ground, reporter, cancel, |world| {
            let caches = Caches { from: &self.cache_from, to: &self.cache_to, client: &ground.client };
            let request = self.request(world, &none, Some(caches));
            let failed = |error: BuildError| self.failed(&error, world.sources, cancel);
            let built = ctk_build::build(&request).map_err(failed)?;
            if self.besides.verify {
                let differences = ctk_build::verify(&request, &built).map_err(failed)?;
                verified(&self.decl.address, &differences).map_err(one)?;
            }
            Ok::<Built, ApplyError>(built)
        })?;
        let request = ExportRequest {
            image: Image {
                descriptor: &built.descriptor,
                manifests: &built.manifests,
                base_layers: &built.base_layers,
            },
            outputs: &self.outputs,
            names: &self.names,
            annotations: &self.annotations,
            store_name,
            store: &ground.store,
            snapshots: &ground.snapshots,
            client: &ground.client,
            directory: &self.directory,
            reporter,
            cancel,
        };
        let exported = export(&request, stdout).map_err(|error| match error {
            ExportError::Cancelled => ApplyError::Cancelled,
            _ if cancel.is_cancelled() => ApplyError::Cancelled,
            error => {
                let hint = match &error {
                    ExportError::Registry { source, .. } => source.hint(),
                    _ => None,
                };
                let address = &self.decl.address;
                one(failure(address, codes::EXPORT_FAILED, "cannot export", &error, hint.as_deref()))
            }
        })?;
        Ok(AdHocBuilt { built, exported })
    }

    /// What a build would run, and why. Changes nothing; what is not on this machine is not asked for.
    pub fn explain(&self) -> Result<Vec<Explained>, ApplyError> {
        self.ask(ctk_build::explain)
    }

    /// What could be better about the image, as it was built last. Changes nothing.
    pub fn advise(&self) -> Result<Vec<Advised>, ApplyError> {
        self.ask(ctk_build::advise)
    }

    fn ask<T>(&self, ask: impl FnOnce(&BuildRequest<'_>) -> Result<Vec<T>, BuildError>) -> Result<Vec<T>, ApplyError> {
        let ground = Ground::open(&self.options, [])?;
        let reporter = Reporter::new(self.decl.address.clone(), Arc::new(ctk_plan::Silent));
        let (cancel, none) = (Cancel::new(), Nothing::new(&self.options));
        self.within(&ground, &reporter, &cancel, |world| {
            let answer = ask(&self.request(world, &none, None));
            world.index.save();
            answer.map_err(|error| self.failed(&error, world.sources, &cancel))
        })
    }

    fn request<'a>(&'a self, world: World<'a>, none: &'a Nothing, caches: Option<Caches<'a>>) -> BuildRequest<'a> {
        BuildRequest {
            decl: &self.decl,
            world,
            platforms: &self.decl.platforms,
            images: &none.images,
            args: &none.args,
            target: self.decl.target.as_deref(),
            slots: &none.slots,
            no_cache: self.no_cache,
            apart: false,
            no_cache_stages: &self.no_cache_stages,
            caches,
            run: &self.run,
            labels: &self.labels,
            epoch_seconds: self.epoch_seconds,
            state_directory: self.options.state.clone(),
            debugger: self.besides.debugger(),
            explain: self.explain.as_ref(),
        }
    }

    fn failed(&self, error: &BuildError, sources: &Sources, cancel: &Cancel) -> ApplyError {
        match error.is_cancelled() || cancel.is_cancelled() {
            true => ApplyError::Cancelled,
            false => {
                let mut failure = build_failure(&self.decl.address, error, sources, AGAIN);
                let alone = matches!(self.decl.source, RecipeSource::Text { .. })
                    && matches!(self.decl.contexts.get(""), Some(ContextDecl::Scratch));
                if alone
                    && matches!(innermost(error), BuildError::SourceMissing { container, .. } if container == NOTHING)
                {
                    failure.text +=
                        "  hint: a Dockerfile alone has no context; name a folder: `ctk build -f - FOLDER`\n";
                }
                one(failure)
            }
        }
    }
}

/// What a project's build has and this has not.
struct Nothing {
    images: BTreeMap<BaseName, Descriptor>,
    args: BTreeMap<String, String>,
    slots: Slots,
}

impl Nothing {
    fn new(options: &Options) -> Nothing {
        Nothing { images: BTreeMap::new(), args: BTreeMap::new(), slots: Slots::new(options.jobs) }
    }
}

fn one(failure: UnitFailure) -> ApplyError {
    ApplyError::Failed { failures: vec![failure], reports: Vec::new() }
}

/// What moving names mean: what the store has, else what an earlier build found, else what is found now.
struct Names<'a> {
    store: &'a Store,
    /// Believe nothing that is older than this build.
    pull: bool,
    found: Mutex<BTreeMap<String, Digest>>,
    /// Commits of this build.
    commits: Mutex<BTreeMap<String, String>>,
}

fn key(reference: &Reference, platform: &Platform) -> String {
    format!("{reference} {platform}")
}

impl Names<'_> {
    /// A name without a host is what was built here under it, then what was pulled.
    fn stored(&self, reference: &Reference) -> Option<Digest> {
        let full = reference.clone().or_latest();
        let own = (full.registry() == "docker.io").then(|| {
            let short = full.repository().strip_prefix("library/").unwrap_or(full.repository());
            format!("localhost/{short}:{}", full.tag().unwrap_or("latest"))
        });
        let here = full.registry() == "localhost";
        let names = own.into_iter().chain([full.to_string()]).filter(|_| here || !self.pull);
        names.filter_map(|name| self.store.reference(&name).ok().flatten()).map(|found| found.descriptor.digest).next()
    }
}

impl LockView for Names<'_> {
    fn image(&self, reference: &Reference, platform: &Platform) -> Option<Digest> {
        let key = key(reference, platform);
        if let Some(known) = self.found.lock().expect("no holder panics").get(&key) {
            return Some(known.clone());
        }
        let found = self.stored(reference).or_else(|| {
            let noted = if self.pull { None } else { self.store.record::<Digest>(BASES, &key).ok().flatten() };
            noted.filter(|digest| self.store.contains(digest).unwrap_or(false))
        })?;
        self.found.lock().expect("no holder panics").insert(key, found.clone());
        Some(found)
    }

    fn set_image(&self, reference: &Reference, platform: &Platform, digest: &Digest) -> Result<(), String> {
        let key = key(reference, platform);
        let links = Links { blobs: vec![digest.clone()], ..Links::default() };
        self.store.put_record(BASES, &key, digest, &links).map_err(|error| error.to_string())?;
        self.found.lock().expect("no holder panics").insert(key, digest.clone());
        Ok(())
    }

    fn git(&self, url: &str, reference: &str) -> Option<String> {
        self.commits.lock().expect("no holder panics").get(&format!("{url} {reference}")).cloned()
    }

    fn set_git(&self, url: &str, reference: &str, commit: &str) -> Result<(), String> {
        self.commits.lock().expect("no holder panics").insert(format!("{url} {reference}"), commit.to_owned());
        Ok(())
    }

    fn http(&self, url: &str) -> Option<Digest> {
        self.found.lock().expect("no holder panics").get(url).cloned()
    }

    fn set_http(&self, url: &str, digest: &Digest) -> Result<(), String> {
        self.found.lock().expect("no holder panics").insert(url.to_owned(), digest.clone());
        Ok(())
    }

    fn packages(&self, _: &Address, _: &str, _: &Platform) -> Option<Locked> {
        // No Dockerfile has packages of its own.
        None
    }

    fn set_packages(&self, _: &Address, _: &str, _: &Platform, _: &Locked) -> Result<(), String> {
        Ok(())
    }
}
