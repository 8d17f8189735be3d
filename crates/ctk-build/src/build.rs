//! A build from its request to its manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ctk_buildgraph::{BaseName, Lowered, Lowering, Need, Op, Recipe, lower, multi_platform};
use ctk_oci::{Descriptor, Document, Index, Platform, media_type};
use ctk_packages::Locked;
use ctk_syntax::nearest;

use crate::base::{self, Base};
use crate::cache::{Exports, Imports};
use crate::epoch;
use crate::explain;
use crate::limits::LOWERING_ROUNDS;
use crate::observe::{lock_packages, locked_digest};
use crate::recipe::{Contexts, Loaded, SelectionDigests, lower_request};
use crate::remote::{Given, git};
use crate::settle::settle;
use crate::solve::{Job, Made, solve};
use crate::{BuildError, BuildRequest, Built, finish};

/// Builds an image for every platform of the request and writes its manifests. Sets no ref. Safe to repeat, and to run
/// several times at once.
pub fn build(request: &BuildRequest<'_>) -> Result<Built, BuildError> {
    let world = &request.world;
    let loaded = Loaded::fetch(request.decl, &Given::new(request.decl, world))?;
    let contexts = Contexts::new(request.decl, world);
    let (mut manifests, mut base_layers, mut told) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let (mut executed, mut cached, made) = (0, 0, Made::default());
    if request.platforms.len() > 1 && always_index(request) == Some(false) {
        let message = "`BUILDKIT_MULTI_PLATFORM` is false, and several platforms make an index; leave it out";
        return Err(BuildError::BadOption(message.into()));
    }
    check_stages(request, &loaded);
    let imports = Imports::new(request);
    let mut exports = Exports::default();
    for platform in request.platforms {
        if world.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let mut plan = plan(request, &loaded, platform)?;
        settle(&mut plan.lowered, request, &loaded)?;
        for warning in loaded.warnings.iter().chain(plan.lowered.warnings.iter()) {
            let place = loaded.place(warning.labels.first().map(|label| label.span), world.sources);
            let place = place.map(|place| format!("{place}: ")).unwrap_or_default();
            let hint = warning.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            let message = format!("{place}{}{hint} [{}]", warning.message, warning.code);
            if told.insert(message.clone()) {
                world.reporter.warn(message);
            }
        }
        let reads = plan.lowered.graph.reads(plan.lowered.image.vertex);
        let digests = SelectionDigests::new(reads, &contexts, |step, origin, source| {
            loaded.at(step, origin, world.sources, source)
        })?;
        let epoch_seconds = plan.epoch(request);
        imports.for_date(epoch_seconds);
        let job = Job {
            request,
            loaded: &loaded,
            contexts: &contexts,
            plan: &plan,
            digests: &digests,
            epoch_seconds,
            made: &made,
            imports: &imports,
        };
        let explain = request.explain.filter(|_| !request.apart);
        let mut explained = explain.map(|_| explain::of_job(&job, platform)).transpose()?;
        let mut tell = |ran: Option<&BTreeMap<_, _>>| {
            let (Some(explain), Some(mut explained)) = (explain, explained.take()) else { return };
            if let Some(ran) = ran {
                explain::correct(&job, &mut explained, ran);
            }
            explain.add(explained);
        };
        let (solved, descriptor) = loop {
            let attempt = solve(&job).and_then(|solved| {
                let descriptor = finish::manifest(&job, &solved.tree, &mut base_layers)?;
                Ok((solved, descriptor))
            });
            match attempt {
                // A layer that a cache promised is not to be had: nobody offers it any more, so this comes to an end.
                Err(error) if error.is_cache_lost() => made.lock().expect("no panic while locked").clear(),
                Err(error) => {
                    tell(None);
                    // What failed is the story; that it was not noted is none.
                    let _ = explain::note_build(&job, &BTreeMap::new(), false);
                    return Err(error);
                }
                Ok(built) => break built,
            }
        };
        tell(Some(&solved.ran));
        explain::note_build(&job, &solved.ran, true)?;
        executed += solved.executed;
        cached += solved.cached;
        if request.caches.is_some_and(|caches| !caches.to.is_empty()) {
            exports.gather(&job, &solved.tree)?;
        }
        manifests.push((platform.clone(), descriptor));
    }
    world.index.save();
    exports.send(request, &imports)?;
    let descriptor = match manifests.as_slice() {
        [(_, only)] if always_index(request) != Some(true) => only.clone(),
        several => index(request, several)?,
    };
    Ok(Built { descriptor, manifests, base_layers, executed, cached })
}

/// Whether even one platform is written as an index; nothing if nobody said so.
fn always_index(request: &BuildRequest<'_>) -> Option<bool> {
    multi_platform(request.args).or_else(|| multi_platform(&request.decl.args))
}

/// Warns of stages to be built anew that no platform's recipe has.
fn check_stages(request: &BuildRequest<'_>, loaded: &Loaded) {
    let has = |wanted: &String, recipe: &Recipe| {
        let number = wanted.parse::<usize>().is_ok_and(|number| number < recipe.stages.len());
        number || recipe.stages.iter().filter_map(|s| s.name.as_deref()).any(|name| name.eq_ignore_ascii_case(wanted))
    };
    let recipes: Vec<&Recipe> = request.platforms.iter().map(|platform| loaded.recipe(platform)).collect();
    for wanted in request.no_cache_stages.iter().filter(|wanted| !recipes.iter().any(|recipe| has(wanted, recipe))) {
        let names = recipes.iter().flat_map(|recipe| recipe.stages.iter().filter_map(|stage| stage.name.as_deref()));
        let hint = match nearest(wanted, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.clone().next().is_none() => "no stage has a name".into(),
            None => format!("there are {}", names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")),
        };
        request.world.reporter.warn(format!("`--no-cache-filter` names no stage: `{wanted}` does not exist; {hint}"));
    }
}

/// A lowered recipe and what it is built on.
pub(crate) struct Plan {
    pub lowered: Lowered,
    pub bases: Vec<Arc<Base>>,
    pub packages: BTreeMap<String, Locked>,
    pub mirrors: BTreeMap<String, Option<String>>,
    /// When the commits were made whose files it reads.
    pub commits: Vec<i64>,
}

impl Plan {
    /// A build argument says it nearest, then who asks for the build, then the recipe.
    fn epoch(&self, request: &BuildRequest<'_>) -> i64 {
        let argument = [request.args, &request.decl.args].iter().any(|args| args.contains_key("SOURCE_DATE_EPOCH"));
        let own = self.lowered.epoch_seconds;
        let given = if argument { own.or(request.epoch_seconds) } else { request.epoch_seconds.or(own) };
        given.unwrap_or_else(|| self.default_epoch())
    }

    /// The newest of what the image is made from: the same inputs, the same date.
    fn default_epoch(&self) -> i64 {
        let bases = self.bases.iter().filter_map(|b| b.config.created.as_ref()?.parse::<jiff::Timestamp>().ok());
        let packages = self.packages.values().map(|p| p.epoch_seconds);
        let commits = self.commits.iter().copied();
        bases.map(|t| t.as_second()).chain(packages).chain(commits).max().unwrap_or(0).max(0)
    }
}

fn plan(request: &BuildRequest<'_>, loaded: &Loaded, platform: &Platform) -> Result<Plan, BuildError> {
    let mut ask = lower_request(request.decl, platform, request.target);
    ask.args.extend(request.args.clone());
    let given = Given::new(request.decl, &request.world);
    epoch::date(&mut ask, request.decl, loaded, platform, &given, true)?;
    let (mut bases, mut packages, mut mirrors) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    let mut last = Vec::new();
    for _ in 0..LOWERING_ROUNDS {
        let needs = match lower(loaded.recipe(platform), &ask).map_err(|d| loaded.invalid(d))? {
            Lowering::Ready(lowered) => {
                let commits = commit_times(&lowered, &given)?;
                return Ok(Plan { lowered: *lowered, bases, packages, mirrors, commits });
            }
            Lowering::Needs(needs) => needs,
        };
        last.clear();
        for need in needs {
            match need {
                Need::Base { request: wanted, near, origin } => {
                    let place = loaded.place(origin, request.world.sources);
                    let base = base::find(&wanted, request).map_err(|source| BuildError::Step {
                        step: from_step(&wanted.name, near.as_deref()),
                        place,
                        shell: false,
                        source: Box::new(source),
                    })?;
                    ask.bases.insert(wanted.clone(), base.image());
                    bases.push(Arc::new(base));
                    last.push(wanted);
                }
                Need::Git { source, origin } => {
                    let commit = given
                        .commit(&source)
                        .map_err(|error| loaded.at(source.to_string(), origin, request.world.sources, error))?;
                    ask.remote.commits.insert((source.url.clone(), source.wanted().to_owned()), commit);
                }
                Need::Http { url, origin } => {
                    let file = given.file(&url);
                    let file = file.map_err(|error| loaded.at(url.clone(), origin, request.world.sources, error))?;
                    ask.remote.files.insert(url, file);
                }
                Need::Packages { stage, spec, .. } => {
                    let locked = lock_packages(request.decl, &stage, &spec, platform, &request.world)?;
                    ask.packages.insert(stage.clone(), locked_digest(&locked));
                    mirrors.insert(stage.clone(), spec.mirror.clone());
                    packages.insert(stage, locked);
                }
            }
        }
    }
    Err(BuildError::Undecided(last))
}

/// What fails when there is no such image.
pub(crate) fn from_step(name: &BaseName, near: Option<&str>) -> String {
    let near = near.map(|near| format!(" (did you mean stage `{near}`?)")).unwrap_or_default();
    format!("FROM {name}{near}")
}

/// When the commits were made that the image needs.
fn commit_times(lowered: &Lowered, given: &Given<'_>) -> Result<Vec<i64>, BuildError> {
    let needed = lowered.graph.reachable(lowered.image.vertex);
    let mut times = Vec::new();
    for id in needed {
        if let Op::Git { source, commit } = &lowered.graph.get(id).op {
            times.push(git::seconds(source, commit, given)?);
        }
    }
    Ok(times)
}

fn index(request: &BuildRequest<'_>, manifests: &[(Platform, Descriptor)]) -> Result<Descriptor, BuildError> {
    let members = manifests.iter().map(|(platform, d)| Descriptor { platform: Some(platform.clone()), ..d.clone() });
    let index = Document::new(Index {
        schema_version: 2,
        media_type: Some(media_type::INDEX.into()),
        artifact_type: None,
        manifests: members.collect(),
        subject: None,
        annotations: BTreeMap::new(),
        extra: BTreeMap::new(),
    });
    Ok(request.world.store.put(media_type::INDEX, index.bytes())?)
}
