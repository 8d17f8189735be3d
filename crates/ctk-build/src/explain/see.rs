//! A build's plan as far as it can be made without asking anybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use ctk_buildgraph::{BaseName, BaseRequest, Lowering, Need, lower};
use ctk_oci::Platform;

use crate::base::{self, Base};
use crate::build::Plan;
use crate::cache::Imports;
use crate::epoch;
use crate::limits::LOWERING_ROUNDS;
use crate::observe::locked_digest;
use crate::recipe::{Contexts, Loaded, SelectionDigests, lower_request};
use crate::remote::{Given, layout};
use crate::settle::settle;
use crate::solve::Job;
use crate::{BuildError, BuildRequest};

/// What `work` says of the build for `platform`, or what it waits for.
pub(crate) fn see<T>(
    request: &BuildRequest<'_>,
    loaded: &Loaded,
    platform: &Platform,
    work: impl FnOnce(&Job<'_>) -> Result<T, BuildError>,
) -> Result<Result<T, Vec<String>>, BuildError> {
    let mut plan = match plan(request, loaded, platform)? {
        Ok(plan) => plan,
        Err(waits) => return Ok(Err(waits)),
    };
    settle(&mut plan.lowered, request, loaded)?;
    let world = &request.world;
    let contexts = Contexts::new(request.decl, world);
    let reads = plan.lowered.graph.reads(plan.lowered.image.vertex);
    let digests =
        SelectionDigests::new(reads, &contexts, |step, origin, source| loaded.at(step, origin, world.sources, source))?;
    let made = Default::default();
    let imports = Imports::new(request);
    let job = Job {
        request,
        loaded,
        contexts: &contexts,
        plan: &plan,
        digests: &digests,
        epoch_seconds: 0,
        made: &made,
        imports: &imports,
    };
    work(&job).map(Ok)
}

fn plan(
    request: &BuildRequest<'_>,
    loaded: &Loaded,
    platform: &Platform,
) -> Result<Result<Plan, Vec<String>>, BuildError> {
    let mut ask = lower_request(request.decl, platform, request.target);
    ask.args.extend(request.args.clone());
    let given = Given::new(request.decl, &request.world);
    if let Some(Err(what)) = epoch::date(&mut ask, request.decl, loaded, platform, &given, false)? {
        return Ok(Err(vec![format!("{what} is fetched")]));
    }
    let (mut bases, mut packages, mut mirrors) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for _ in 0..LOWERING_ROUNDS {
        let needs = match lower(loaded.recipe(platform), &ask).map_err(|d| loaded.invalid(d))? {
            Lowering::Ready(lowered) => {
                return Ok(Ok(Plan { lowered: *lowered, bases, packages, mirrors, commits: Vec::new() }));
            }
            Lowering::Needs(needs) => needs,
        };
        let mut waits = Vec::new();
        for need in needs {
            match need {
                Need::Base { request: wanted, .. } => match base_of(request, &wanted)? {
                    Some(base) => {
                        ask.bases.insert(wanted.clone(), base.image());
                        bases.push(Arc::new(base));
                    }
                    None => waits.push(match &wanted.name {
                        BaseName::Project(_) | BaseName::ProjectStage(..) => format!("{} is built", wanted.name),
                        name => format!("{name} is fetched"),
                    }),
                },
                Need::Git { source, .. } => match given.known_commit(&source) {
                    Some(commit) => {
                        ask.remote.commits.insert((source.url.clone(), source.wanted().to_owned()), commit);
                    }
                    None => waits.push(format!("{source} is asked what it means")),
                },
                Need::Http { url, .. } => match given.known_file(&url)? {
                    Some(file) => drop(ask.remote.files.insert(url, file)),
                    None => waits.push(format!("{url} is downloaded")),
                },
                Need::Packages { stage, spec, .. } => {
                    match request.world.lock.packages(&request.decl.address, &stage, platform) {
                        Some(locked) => {
                            ask.packages.insert(stage.clone(), locked_digest(&locked));
                            mirrors.insert(stage.clone(), spec.mirror.clone());
                            packages.insert(stage, locked);
                        }
                        None => waits.push(format!("the packages of {stage} are resolved")),
                    }
                }
            }
        }
        if !waits.is_empty() {
            return Ok(Err(waits));
        }
    }
    Err(BuildError::Undecided(Vec::new()))
}

/// The base, if all that is asked of it is in the store.
fn base_of(request: &BuildRequest<'_>, wanted: &BaseRequest) -> Result<Option<Base>, BuildError> {
    let world = &request.world;
    let Ok(platform) = wanted.platform.parse::<Platform>() else { return Ok(None) };
    let top = match &wanted.name {
        BaseName::Reference(reference) => {
            let digest = reference.digest().cloned().or_else(|| world.lock.image(reference, &platform));
            digest.map(|digest| base::by_digest(world.store, &digest)).transpose()?.flatten()
        }
        BaseName::Layout(named) => {
            let digest = layout::choose(named, world)?.digest;
            base::by_digest(world.store, &digest)?
        }
        project => request.images.get(project).cloned(),
    };
    match top {
        Some(top) if base::has_config(world.store, &top, &platform)? => {
            base::load(world.store, &wanted.name, &platform, &top).map(Some)
        }
        _ => Ok(None),
    }
}
