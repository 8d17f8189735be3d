//! What an image's result depends on, seen without changing anything; and the names that must be pinned before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ctk_buildgraph::{
    BaseImage, BaseName, BaseRequest, Bases, GitSource, LowerRequest, Need, PackagesSpec, Recipe, reads,
    without_password,
};
use ctk_oci::{Platform, Reference};
use ctk_packages::{Request, Variant, architecture_of};
use ctk_plan::{Input, hash_text};

use crate::base;
use crate::build::from_step;
use crate::context::file_words;
use crate::epoch;
use crate::recipe::{Contexts, Loaded, lower_request};
use crate::remote::{Given, layout};
use crate::{BuildError, ContextDecl, ImageDecl, RecipeSource, World};

/// Raised when the same declaration means something else.
const SEMANTICS: &str = "3";

/// What an image depends on.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Every input with a digest of it, for the image's unit.
    pub inputs: BTreeMap<Input, String>,
    /// What moving names mean nothing yet: [`resolve`] pins them.
    pub unresolved: Vec<String>,
    /// What is to be fetched before its date is known.
    pub undated: Vec<String>,
    /// Images of the project, and stages of them, that it is built on.
    pub images: Vec<BaseName>,
    /// Repositories and refs in them that the lock file has, or will have, entries for.
    pub repositories: BTreeSet<(String, String)>,
    /// URLs, likewise.
    pub urls: BTreeSet<String>,
}

/// What `decl` depends on. `args` are build arguments on top of the declaration's. Mistakes of a Dockerfile are found
/// here. The stat index is not saved.
pub fn observe(decl: &ImageDecl, world: &World<'_>, args: &BTreeMap<String, String>) -> Result<Observed, BuildError> {
    let given = Given::new(decl, world);
    let mut seen = Observed::default();
    seen.dockerfile_from(decl);
    let loaded = match Loaded::look(decl, &given)? {
        Ok(loaded) => loaded,
        Err(what) => {
            seen.unresolved.push(format!("context {what}"));
            seen.inputs.insert(Input::Named(format!("context {what}")), "unresolved".into());
            return Ok(seen);
        }
    };
    let contexts = Contexts::new(decl, world);
    seen.inputs.insert(Input::Declaration, hash_text(&decl.canonical));
    seen.inputs.insert(Input::Semantics, SEMANTICS.into());
    if let Some((path, text)) = &loaded.dockerfile {
        seen.inputs.insert(Input::File(path.clone()), hash_text(text));
    }
    let platforms: Vec<String> = decl.platforms.iter().map(Platform::to_string).collect();
    let default = if decl.platforms_asked { "" } else { " by default" };
    seen.inputs.insert(Input::Named("platforms".into()), platforms.join(" ") + default);
    // Other caches are no part of what the image is.
    if decl.holds_cache() {
        seen.inputs.insert(Input::Named("cache in the image".into()), "yes".into());
    }
    for (name, value) in args {
        seen.inputs.insert(Input::Named(format!("build argument {name}")), hash_text(value));
    }
    for platform in &decl.platforms {
        let mut request = lower_request(decl, platform, None);
        request.args.extend(args.clone());
        if let Some(known) = epoch::date(&mut request, decl, &loaded, platform, &given, false)? {
            seen.epoch(known);
        }
        let recipe = loaded.recipe(platform);
        let (mut read, mut needs) = reads(recipe, &request).map_err(|d| loaded.invalid(d))?;
        // Triggers of a base read files too, as far as the base is here to tell.
        for base in needs.iter().filter_map(|need| here(need, world)) {
            let (wanted, base) = base?;
            if !base.config.config.on_build.is_empty() {
                request.bases.insert(wanted, base);
            }
        }
        if !request.bases.is_empty() {
            let pinned = needs;
            (read, needs) = reads(recipe, &request).map_err(|d| loaded.invalid(d))?;
            needs.extend(pinned);
        }
        for read in read {
            let mut words = BTreeMap::new();
            let found = contexts.find(&read.selection);
            let found = found.map_err(|source| loaded.at(read.step, read.origin, world.sources, source))?;
            file_words(&found, &mut words);
            let context = context_name(decl, &read.selection.context);
            for (path, word) in words {
                let name = if context.is_empty() { path } else { format!("{context}:{path}") };
                seen.inputs.insert(Input::File(name), word);
            }
        }
        for need in needs {
            seen.need(decl, platform, need, world)?;
        }
    }
    Ok(seen)
}

/// The bases that a recipe needs, as far as they are here. What keeps one from being read is told by whoever needs it.
pub(crate) fn bases_here(recipe: &Recipe, request: &LowerRequest<'_>, world: &World<'_>) -> Bases {
    let Ok((_, needs)) = reads(recipe, request) else { return Bases::new() };
    needs.iter().filter_map(|need| here(need, world)?.ok()).collect()
}

/// The base that is wanted, if it is in a layout of this machine, or its name is pinned and its config in the store.
fn here(need: &Need, world: &World<'_>) -> Option<Result<(BaseRequest, BaseImage), BuildError>> {
    let Need::Base { request, .. } = need else { return None };
    let platform: Platform = request.platform.parse().ok()?;
    let found = || -> Result<Option<BaseImage>, BuildError> {
        let reference = match &request.name {
            BaseName::Reference(reference) => reference,
            BaseName::Layout(layout) => return layout::look(layout, &platform, world),
            _ => return Ok(None),
        };
        let Some(digest) = reference.digest().cloned().or_else(|| world.lock.image(reference, &platform)) else {
            return Ok(None);
        };
        match base::by_digest(world.store, &digest)? {
            Some(top) if base::has_config(world.store, &top, &platform)? => {
                base::load(world.store, &request.name, &platform, &top).map(|base| Some(base.image()))
            }
            _ => Ok(None),
        }
    };
    found().map(|base| base.map(|base| (request.clone(), base))).transpose()
}

impl Observed {
    /// What the Dockerfile itself comes from.
    fn dockerfile_from(&mut self, decl: &ImageDecl) {
        match (&decl.source, decl.contexts.get("")) {
            (RecipeSource::Url { url, .. }, _)
            | (RecipeSource::InContext { .. }, Some(ContextDecl::Http { url, .. })) => {
                self.urls.insert(url.clone());
            }
            (RecipeSource::InContext { .. }, Some(ContextDecl::Git { source, .. })) => self.repository(source),
            _ => {}
        }
    }

    fn repository(&mut self, source: &GitSource) {
        self.repositories.insert((without_password(&source.url), source.wanted().to_owned()));
    }

    fn need(&mut self, decl: &ImageDecl, platform: &Platform, need: Need, world: &World<'_>) -> Result<(), BuildError> {
        match need {
            Need::Base { request, .. } => match request.name {
                BaseName::Reference(reference) => {
                    let for_platform = request.platform.parse().unwrap_or_else(|_| platform.clone());
                    let digest = reference.digest().cloned().or_else(|| world.lock.image(&reference, &for_platform));
                    let name = format!("{reference} {for_platform}");
                    let digest = digest.map(|d| d.to_string()).unwrap_or_else(|| {
                        self.unresolved.push(name.clone());
                        "unresolved".into()
                    });
                    self.inputs.insert(Input::Base(name), digest);
                }
                BaseName::Layout(layout) => {
                    let digest = layout::choose(&layout, world)?.digest;
                    self.inputs.insert(Input::Base(format!("{layout} {}", request.platform)), digest.to_string());
                }
                project if !self.images.contains(&project) => self.images.push(project),
                _ => {}
            },
            Need::Git { source, .. } => {
                let commit = Given::new(decl, world).known_commit(&source);
                self.repository(&source);
                self.remote(source.to_string(), commit);
            }
            Need::Http { url, .. } => {
                let digest = world.lock.http(&url).map(|digest| digest.to_string());
                self.urls.insert(url.clone());
                self.remote(url, digest);
            }
            Need::Packages { stage, .. } => {
                let name = format!("{}/{stage} {platform}", decl.address);
                let locked = world.lock.packages(&decl.address, &stage, platform);
                let digest = locked.map(|l| locked_digest(&l)).unwrap_or_else(|| {
                    self.unresolved.push(format!("packages of {name}"));
                    "unresolved".into()
                });
                self.inputs.insert(Input::Packages(name), digest);
            }
        }
        Ok(())
    }

    /// The context's date, where that is the image's.
    fn epoch(&mut self, known: epoch::KnownEpoch) {
        let word = known.map(|seconds| seconds.to_string()).unwrap_or_else(|what| {
            self.undated.push(format!("the date of {what}"));
            "unresolved".into()
        });
        self.inputs.insert(Input::Named("SOURCE_DATE_EPOCH of the context".into()), word);
    }

    /// A repository or URL and what the lock file says of it.
    fn remote(&mut self, what: String, locked: Option<String>) {
        let word = locked.unwrap_or_else(|| {
            self.unresolved.push(what.clone());
            "unresolved".into()
        });
        self.inputs.insert(Input::Named(what), word);
    }
}

/// How a context is called in an input: by its directory.
fn context_name(decl: &ImageDecl, name: &str) -> String {
    match decl.contexts.get(name) {
        Some(ContextDecl::Directory { path, .. }) => {
            let parts = path.components().filter(|c| !matches!(c, std::path::Component::CurDir));
            parts.collect::<PathBuf>().display().to_string()
        }
        _ => name.to_owned(),
    }
}

/// Digest of a locked list of packages.
pub(crate) fn locked_digest(locked: &ctk_packages::Locked) -> String {
    hash_text(&serde_json::to_string(locked).expect("plain data serialises"))
}

/// Pins every moving name of `decl` that the lock file does not know: asks registries and package mirrors. Does
/// nothing, without network, when all are known.
pub fn resolve(decl: &ImageDecl, world: &World<'_>, args: &BTreeMap<String, String>) -> Result<(), BuildError> {
    let given = Given::new(decl, world);
    let loaded = Loaded::fetch(decl, &given)?;
    for platform in &decl.platforms {
        let mut request = lower_request(decl, platform, None);
        request.args.extend(args.clone());
        epoch::date(&mut request, decl, &loaded, platform, &given, true)?;
        let (_, needs) = reads(loaded.recipe(platform), &request).map_err(|d| loaded.invalid(d))?;
        for need in needs {
            match need {
                Need::Base { request, near, origin } => {
                    if let BaseName::Reference(reference) = &request.name {
                        let for_platform = request.platform.parse().unwrap_or_else(|_| platform.clone());
                        lock_reference(reference, &for_platform, world).map_err(|source| {
                            let step = from_step(&request.name, near.as_deref());
                            loaded.at(step, origin, world.sources, source)
                        })?;
                    }
                }
                Need::Git { source, origin } => {
                    let commit = given.commit(&source);
                    commit.map_err(|error| loaded.at(source.to_string(), origin, world.sources, error))?;
                }
                Need::Http { url, origin } => {
                    given.file(&url).map_err(|error| loaded.at(url.clone(), origin, world.sources, error))?;
                }
                Need::Packages { stage, spec, origin } => {
                    lock_packages(decl, &stage, &spec, platform, world)
                        .map_err(|source| loaded.at(format!("PACKAGES of {stage}"), origin, world.sources, source))?;
                }
            }
        }
    }
    Ok(())
}

fn lock_reference(reference: &Reference, platform: &Platform, world: &World<'_>) -> Result<(), BuildError> {
    if reference.digest().is_some() || world.lock.image(reference, platform).is_some() {
        return Ok(());
    }
    world
        .lock
        .may_add()
        .map_err(|reason| BuildError::Locked { what: format!("{reference} for {platform}"), reason })?;
    let step = world.reporter.step(format!("resolve {reference}"));
    step.conclude(base::lock(reference, platform, world)).map(|_| ())
}

/// The locked packages of a stage; resolved and noted when the lock file has none.
pub(crate) fn lock_packages(
    decl: &ImageDecl,
    stage: &str,
    spec: &PackagesSpec,
    platform: &Platform,
    world: &World<'_>,
) -> Result<ctk_packages::Locked, BuildError> {
    if let Some(locked) = world.lock.packages(&decl.address, stage, platform) {
        return Ok(locked);
    }
    let failed = |source| BuildError::Packages { stage: stage.to_owned(), source: Box::new(source) };
    let Some(architecture) = architecture_of(&platform.architecture, platform.variant.as_deref()) else {
        return Err(BuildError::NotSupported { what: format!("`packages` for {platform}") });
    };
    let request = Request {
        distro: spec.distro.clone(),
        suite: spec.suite.clone(),
        components: spec.components.clone(),
        architecture: architecture.to_owned(),
        mirror: spec.mirror.clone(),
        keyring: spec.keyring.as_ref().map(|k| world.project_directory.join(k)),
        variant: match spec.variant.as_str() {
            "essential" => Variant::Essential,
            "custom" => Variant::Custom,
            _ => Variant::Minbase,
        },
        install: spec.install.clone(),
        recommends: spec.recommends,
        now_seconds: world.now_seconds,
    };
    let what = format!("packages of {}/{stage} for {platform}", decl.address);
    world.lock.may_add().map_err(|reason| BuildError::Locked { what, reason })?;
    let step = world.reporter.step(format!("[{stage}] resolve packages of {} {}", spec.distro, spec.suite));
    let host = (world.host_packages)().map_err(failed)?;
    let cache = world.store.root().join("packages");
    let resolved = ctk_packages::resolve(&request, &host, &cache, &step, world.cancel);
    let locked = step.conclude(resolved).map_err(failed)?;
    let what = format!("packages of {}/{stage}", decl.address);
    let noted = world.lock.set_packages(&decl.address, stage, platform, &locked);
    noted.map_err(|reason| BuildError::Locked { what, reason })?;
    Ok(locked)
}
