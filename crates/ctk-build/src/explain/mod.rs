//! Why operations have to run: the nearest earlier build of the same step, and what differs.

mod cause;
mod compare;
mod files;
mod record;
mod see;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use ctk_buildgraph::{Instruction, Key, Op, VertexId};
use ctk_oci::Platform;

pub use cause::{Cause, Change, Explained, FileChange, StepOutlook};
use record::note;
pub(crate) use record::{Noted, NotedStep, noted, past};
pub(crate) use see::see;

use crate::recipe::Loaded;
use crate::remote::Given;
use crate::solve::{Job, Tree, known, links_alike};
use crate::{BuildError, BuildRequest};

/// Collects what builds say of themselves, from any thread. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Explanations(Arc<Mutex<Vec<Explained>>>);

impl Explanations {
    /// All so far, which are taken out.
    pub fn take(&self) -> Vec<Explained> {
        std::mem::take(&mut self.0.lock().expect("no panic while locked"))
    }

    pub(crate) fn add(&self, explained: Explained) {
        self.0.lock().expect("no panic while locked").push(explained);
    }
}

/// What [`crate::build`] with the same request would run, and why, for each platform. Changes nothing and asks nobody:
/// what is not on this machine yet is in [`Explained::waits`].
pub fn explain(request: &BuildRequest<'_>) -> Result<Vec<Explained>, BuildError> {
    let given = Given::new(request.decl, &request.world);
    let waiting = |platform: &Platform, waits: Vec<String>, stages: BTreeSet<String>| Explained {
        image: request.decl.address.to_string(),
        platform: platform.to_string(),
        waits,
        stages: stages.into_iter().map(|stage| (stage, BTreeSet::new())).collect(),
        steps: Vec::new(),
    };
    let loaded = match Loaded::look(request.decl, &given)? {
        Ok(loaded) => loaded,
        Err(what) => {
            let what = format!("{what} is fetched");
            return Ok(request
                .platforms
                .iter()
                .map(|platform| waiting(platform, vec![what.clone()], BTreeSet::new()))
                .collect());
        }
    };
    let mut all = Vec::new();
    for platform in request.platforms {
        all.push(match see(request, &loaded, platform, |job| of_job(job, platform))? {
            Ok(explained) => explained,
            Err(waits) => waiting(platform, waits, written(loaded.recipe(platform))),
        });
    }
    Ok(all)
}

/// The same for a build that knows all of it.
pub(crate) fn of_job(job: &Job<'_>, platform: &Platform) -> Result<Explained, BuildError> {
    let keys = job.plan.lowered.graph.definition_keys(job.digests);
    let now = noted(job, &keys);
    let states = states(job, &keys)?;
    let past = if states.iter().any(|state| matches!(state, State::Missing)) { past(job)? } else { Vec::new() };
    let aligned: Vec<Vec<Option<usize>>> = past.iter().map(|past| compare::align(&now, past)).collect();
    let arguments = arguments(job.loaded.recipe(platform));
    let selections: BTreeMap<String, ctk_buildgraph::Selection> = job
        .plan
        .lowered
        .graph
        .reads(job.plan.lowered.image.vertex)
        .into_iter()
        .map(|read| (job.digests.0[&read.selection].clone(), read.selection))
        .collect();
    let files = |before: &str, now: &str| files::differing(job, &selections, before, now).ok().flatten();
    let needed = job.plan.lowered.graph.reachable(job.plan.lowered.image.vertex);
    let alike = alike(job, &needed, &states, &keys)?;
    let mut steps = Vec::new();
    for (at, (id, step)) in needed.iter().zip(&now.steps).enumerate() {
        if !step.runs() {
            continue;
        }
        let cached = !matches!(states[at], State::Missing) || alike.contains(id);
        let causes = if cached { Vec::new() } else { why(job, *id, (&now, at), &past, &aligned, &arguments, &files) };
        steps.push(StepOutlook {
            name: step.name.clone(),
            stage: step.stage().to_owned(),
            number: step.number(),
            place: step.place.clone(),
            cached,
            same_content: false,
            causes,
        });
    }
    let image = job.request.decl.address.to_string();
    let mut stages: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (step, number) in now.steps.iter().filter_map(|step| Some((step, step.number()?))) {
        stages.entry(step.stage().to_owned()).or_default().insert(number);
    }
    Ok(Explained { image, platform: platform.to_string(), waits: Vec::new(), stages, steps })
}

fn why(
    job: &Job<'_>,
    id: VertexId,
    (now, at): (&Noted, usize),
    past: &[Noted],
    aligned: &[Vec<Option<usize>>],
    arguments: &BTreeSet<String>,
    files: compare::Files<'_>,
) -> Vec<Cause> {
    let vertex = job.plan.lowered.graph.get(id);
    if job.request.no_cache {
        return vec![Cause::Forced { by: "--no-cache".into() }];
    }
    if job.is_forced(vertex) {
        return vec![Cause::Forced { by: format!("--no-cache-filter {}", now.steps[at].stage()) }];
    }
    let one =
        |(past, alignment): (&Noted, &Vec<Option<usize>>)| compare::causes(now, past, alignment, at, arguments, files);
    let nearest = past.iter().zip(aligned).filter_map(one).min_by_key(|causes| compare::distance(causes));
    match (nearest, past) {
        (Some(causes), _) => forced_before(job, id, causes),
        (None, []) => vec![Cause::FirstBuild],
        (None, _) => vec![Cause::NewStep],
    }
}

/// Linked copies whose layers are there, whatever happens to what they are put onto.
fn alike(job: &Job<'_>, needed: &[VertexId], states: &[State], keys: &[Key]) -> Result<BTreeSet<VertexId>, BuildError> {
    let graph = &job.plan.lowered.graph;
    let missing: BTreeSet<VertexId> =
        needed.iter().zip(states).filter(|(_, state)| matches!(state, State::Missing)).map(|(id, _)| *id).collect();
    let mut alike = BTreeSet::new();
    for id in &missing {
        let vertex = graph.get(*id);
        let [_, sources @ ..] = vertex.inputs.as_slice() else { continue };
        if sources.iter().any(|input| missing.contains(input)) {
            continue;
        }
        let mut inputs = vec![Tree::default()];
        for input in sources {
            inputs.extend(known(job, &graph.get(*input).op, &keys[input.index()])?);
        }
        if inputs.len() == vertex.inputs.len() && links_alike(job, vertex, &inputs)? {
            alike.insert(*id);
        }
    }
    Ok(alike)
}

/// Corrects what was said of a build before it, by what ran.
pub(crate) fn correct(job: &Job<'_>, explained: &mut Explained, ran: &BTreeMap<VertexId, f64>) {
    let graph = &job.plan.lowered.graph;
    let ran: BTreeSet<&str> = ran.keys().map(|id| graph.get(*id).name.as_str()).collect();
    for step in explained.steps.iter_mut().filter(|step| !step.cached && !ran.contains(step.name.as_str())) {
        (step.cached, step.same_content) = (true, true);
    }
}

/// A step with the key of an earlier one runs all the same after one that is built anew.
fn forced_before(job: &Job<'_>, id: VertexId, causes: Vec<Cause>) -> Vec<Cause> {
    let graph = &job.plan.lowered.graph;
    if !matches!(causes.as_slice(), [Cause::ResultGone]) {
        return causes;
    }
    let anew = graph
        .get(id)
        .inputs
        .iter()
        .find(|input| graph.reachable(**input).iter().any(|before| job.is_forced(graph.get(*before))));
    match anew {
        Some(input) => vec![Cause::Step { step: graph.get(*input).name.clone() }],
        None => causes,
    }
}

/// Names of the stages that a recipe has.
fn written(recipe: &ctk_buildgraph::Recipe) -> BTreeSet<String> {
    let name = |(number, stage): (usize, &ctk_buildgraph::RecipeStage)| {
        stage.name.clone().unwrap_or_else(|| format!("stage-{number}"))
    };
    recipe.stages.iter().enumerate().map(name).collect()
}

/// Names of build arguments that the recipe declares.
fn arguments(recipe: &ctk_buildgraph::Recipe) -> BTreeSet<String> {
    let declared = recipe.stages.iter().flat_map(|stage| &stage.statements).filter_map(|statement| {
        let Instruction::Arg(args) = &statement.instruction else { return None };
        Some(args)
    });
    let names = recipe.globals.iter().chain(declared.flatten()).map(|arg| arg.name.clone());
    let mut names: BTreeSet<String> = names.collect();
    // A variable of the same name set by ENV is what processes see.
    for statement in recipe.stages.iter().flat_map(|stage| &stage.statements) {
        if let Instruction::Env(pairs) = &statement.instruction {
            let own = pairs.iter().filter(|(_, value)| !value.contains('$'));
            own.for_each(|(name, _)| names.retain(|other| other != name));
        }
    }
    names
}

enum State {
    /// Behind a result that is there.
    Unasked,
    Known,
    Missing,
}

/// As the solver looks back from the target.
fn states(job: &Job<'_>, keys: &[Key]) -> Result<Vec<State>, BuildError> {
    let graph = &job.plan.lowered.graph;
    let needed = graph.reachable(job.plan.lowered.image.vertex);
    let mut forced = vec![false; graph.len()];
    for id in &needed {
        let vertex = graph.get(*id);
        forced[id.index()] = job.is_forced(vertex) || vertex.inputs.iter().any(|input| forced[input.index()]);
    }
    let mut wanted = vec![false; graph.len()];
    wanted[job.plan.lowered.image.vertex.index()] = true;
    let mut states = Vec::with_capacity(needed.len());
    for id in needed.iter().rev() {
        if !wanted[id.index()] {
            states.push(State::Unasked);
            continue;
        }
        let vertex = graph.get(*id);
        let found = !forced[id.index()] && known(job, &vertex.op, &keys[id.index()])?.is_some();
        let source = matches!(vertex.op, Op::Scratch | Op::Local { .. } | Op::Image { .. });
        if found || source {
            states.push(State::Known);
        } else {
            states.push(State::Missing);
            vertex.inputs.iter().for_each(|input| wanted[input.index()] = true);
        }
    }
    states.reverse();
    Ok(states)
}

/// What was there before the solver began, and what it made.
pub(crate) fn note_build(job: &Job<'_>, ran: &BTreeMap<VertexId, f64>, whole: bool) -> Result<(), BuildError> {
    if job.request.apart {
        return Ok(());
    }
    let keys = job.plan.lowered.graph.definition_keys(job.digests);
    if whole {
        return note(job, &keys, ran, |_| true);
    }
    let states = states(job, &keys)?;
    let needed = job.plan.lowered.graph.reachable(job.plan.lowered.image.vertex);
    let missing: BTreeSet<VertexId> =
        needed.into_iter().zip(states).filter(|(_, state)| matches!(state, State::Missing)).map(|(id, _)| id).collect();
    note(job, &keys, ran, |id| !missing.contains(&id))
}
