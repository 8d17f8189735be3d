//! The solver: which vertices must run, and running them side by side.
//!
//! First a look back from the target: a vertex whose definition has a recorded result is done, and nothing before it is
//! looked at. What remains runs as soon as its inputs are there, on as many threads as the request allows. A vertex
//! about to run asks once more, by its content key: its inputs may have turned out as before. Last it compares its
//! inputs with those of earlier runs of the same operation, file by file: a step before it may have run and made the
//! same files.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ctk_buildgraph::{FileAction, Graph, Key, Op, Sources, Vertex, VertexId};
use ctk_plan::{Cancel, Outcome, Reporter, Silent};
use ctk_snapshot::LayerKey;
use ctk_store::Links;
use serde::{Deserialize, Serialize};

use crate::build::Plan;
use crate::cache::Imports;
use crate::earlier::{self, Described};
use crate::recipe::{Contexts, Loaded, SelectionDigests};
use crate::workers::{self, Ended};
use crate::{BuildError, BuildRequest};
use crate::{debug, ops};

/// Records of results by definition key, and by content key.
pub(crate) const DEFINITIONS: &str = "build-definition";
pub(crate) const CONTENTS: &str = "build-content";

/// All that a vertex' work may look at.
pub(crate) struct Job<'a> {
    pub request: &'a BuildRequest<'a>,
    pub loaded: &'a Loaded,
    pub contexts: &'a Contexts<'a>,
    pub plan: &'a Plan,
    pub digests: &'a SelectionDigests,
    pub epoch_seconds: i64,
    pub made: &'a Made,
    /// Results of other machines.
    pub imports: &'a Imports<'a>,
}

impl Job<'_> {
    /// Whether it stands in a stage that is to be built anew. Progress lines begin with `[STAGE NUMBER/COUNT]`.
    pub fn is_forced(&self, vertex: &Vertex) -> bool {
        let label = vertex.name.strip_prefix('[').and_then(|rest| Some(rest.split_once(']')?.0)).unwrap_or_default();
        let named = |stage: &str| self.request.no_cache_stages.iter().any(|name| name.eq_ignore_ascii_case(stage));
        label.split_whitespace().any(|word| named(word) || word.strip_prefix("stage-").is_some_and(named))
    }
}

/// A file tree as layers, base first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tree(pub Vec<Piece>);

/// A layer and which vertex made it: its definition key, or nothing for a base's layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub layer: LayerKey,
    pub by: Option<String>,
}

/// The layer that a vertex adds, if it changes anything.
#[derive(Serialize, Deserialize)]
pub(crate) struct Content {
    pub layer: Option<LayerKey>,
}

impl Tree {
    pub fn keys(&self) -> Vec<LayerKey> {
        self.0.iter().map(|p| p.layer.clone()).collect()
    }

    /// Names the tree in content keys.
    pub fn describe(&self) -> Vec<u8> {
        self.0.iter().map(|p| p.layer.as_str()).collect::<Vec<_>>().join("\n").into_bytes()
    }
}

pub(crate) struct Solved {
    pub tree: Tree,
    pub executed: usize,
    pub cached: usize,
    /// Seconds that each operation took that ran.
    pub ran: BTreeMap<VertexId, f64>,
}

/// Layers that this build made, by content key: what no earlier result may stand for is still made only once.
pub(crate) type Made = Mutex<HashMap<Key, Option<LayerKey>>>;

struct Solver<'a> {
    job: &'a Job<'a>,
    graph: &'a Graph,
    keys: Vec<Key>,
    trees: Mutex<Vec<Option<Tree>>>,
    /// Layers of linked copies whose trees are still to come.
    linked: Mutex<HashMap<VertexId, Option<LayerKey>>>,
    executed: AtomicUsize,
    cached: AtomicUsize,
    ran: Mutex<BTreeMap<VertexId, f64>>,
    /// Given when one vertex failed or the user said so.
    stop: Cancel,
}

/// What a worker does.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Task {
    /// A vertex; of a linked copy, whose layer is there already, what remains.
    Whole(VertexId),
    /// The layer of a linked copy, which takes nothing from what it is put onto.
    Layer(VertexId),
}

impl Task {
    fn id(self) -> VertexId {
        match self {
            Task::Whole(id) | Task::Layer(id) => id,
        }
    }

    /// What needs the files of this input.
    fn user(id: VertexId, vertex: &Vertex, input: usize) -> Task {
        if is_linked(&vertex.op) && input > 0 { Task::Layer(id) } else { Task::Whole(id) }
    }
}

/// Makes the target's tree.
pub(crate) fn solve(job: &Job<'_>) -> Result<Solved, BuildError> {
    let graph = &job.plan.lowered.graph;
    let target = job.plan.lowered.image.vertex;
    let keys = graph.definition_keys(job.digests);
    let count = graph.len();
    // What must be made anew, and all that is made of it.
    let mut forced = vec![false; count];
    for (id, vertex) in graph.vertices() {
        forced[id.index()] = job.is_forced(vertex) || vertex.inputs.iter().any(|i| forced[i.index()]);
    }
    // Back from the target: inputs have smaller numbers than their users.
    let mut trees: Vec<Option<Tree>> = vec![None; count];
    let mut wanted = vec![false; count];
    wanted[target.index()] = true;
    let mut cached = 0;
    let ids: Vec<VertexId> = graph.vertices().map(|(id, _)| id).collect();
    for id in ids.iter().rev().filter(|id| id.index() <= target.index()) {
        if !wanted[id.index()] {
            continue;
        }
        let vertex = graph.get(*id);
        let known = if forced[id.index()] { None } else { known(job, &vertex.op, &keys[id.index()])? };
        if let Some(tree) = known {
            if !vertex.inputs.is_empty() || matches!(vertex.op, Op::Packages { .. } | Op::Http { .. } | Op::Git { .. })
            {
                job.request.world.reporter.step(vertex.name.clone()).finish(Outcome::Cached);
                cached += 1;
            }
            trees[id.index()] = Some(tree);
            continue;
        }
        for input in &vertex.inputs {
            wanted[input.index()] = true;
        }
    }
    let mut work = ctk_dag::Graph::new();
    let undone = |id: &VertexId| wanted[id.index()] && trees[id.index()].is_none();
    for id in ids.iter().filter(|id| undone(id)) {
        let vertex = graph.get(*id);
        if is_linked(&vertex.op) {
            work.insert(Task::Layer(*id));
            work.need(Task::Whole(*id), Task::Layer(*id));
        }
        work.insert(Task::Whole(*id));
        for (place, input) in vertex.inputs.iter().enumerate().filter(|(_, input)| undone(input)) {
            work.need(Task::user(*id, vertex, place), Task::Whole(*input));
        }
    }
    // Bases whose files are wanted: they come while other vertices run. With results of other machines at hand, only
    // when it is certain that nothing there makes them needless.
    for id in ids.iter().filter(|id| undone(id) && job.imports.is_empty()) {
        let vertex = graph.get(*id);
        for (place, input) in vertex.inputs.iter().enumerate() {
            if uses_files(&vertex.op, place)
                && matches!(graph.get(*input).op, Op::Image { .. })
                && let Some(tree) = &trees[input.index()]
                && !is_unpacked(job, tree)?
            {
                work.need(Task::user(*id, vertex, place), Task::Whole(*input));
            }
        }
    }
    let solver = Solver {
        job,
        graph,
        keys,
        trees: Mutex::new(trees),
        linked: Mutex::default(),
        executed: AtomicUsize::new(0),
        cached: AtomicUsize::new(cached),
        ran: Mutex::default(),
        stop: Cancel::new(),
    };
    let request = job.request;
    let done =
        workers::run(&work, request.slots, request.world.cancel, &solver.stop, |task| match solver.task(*task) {
            Ok(()) => Ok(()),
            Err(error) if error.is_cancelled() => Err(None),
            Err(error) => Err(Some((task.id(), error))),
        });
    done.map_err(|ended| match ended {
        Ended::Failed((id, error)) => {
            solver.debug(id, &error);
            error
        }
        Ended::Cancelled => BuildError::Cancelled,
    })?;
    let mut trees = solver.trees.into_inner().expect("no panic while locked");
    let tree = trees[target.index()].take().expect("solved to the end");
    let ran = solver.ran.into_inner().expect("no panic while locked");
    Ok(Solved { tree, executed: solver.executed.into_inner(), cached: solver.cached.into_inner(), ran })
}

/// The result of a vertex that needs no work: a source, or one that was built before.
pub(crate) fn known(job: &Job<'_>, op: &Op, key: &Key) -> Result<Option<Tree>, BuildError> {
    match op {
        Op::Scratch | Op::Local { .. } => return Ok(Some(Tree::default())),
        Op::Image { manifest, .. } => {
            let base =
                job.plan.bases.iter().find(|b| b.descriptor.digest == *manifest).expect("lowered with its config");
            let pieces = base.config.rootfs.diff_ids.iter().map(|d| Piece { layer: LayerKey::diff(d), by: None });
            return Ok(Some(Tree(pieces.collect())));
        }
        _ if job.request.no_cache => return Ok(None),
        _ => {}
    }
    match job.request.world.store.record::<Tree>(DEFINITIONS, key.as_str())? {
        Some(tree) if job.imports.has_tree(&tree)? => Ok(Some(tree)),
        _ => job.imports.definition(job, key),
    }
}

/// Whether an operation looks at the files of this input: what is linked into a tree does not.
fn uses_files(op: &Op, input: usize) -> bool {
    !(input == 0 && is_linked(op))
}

/// Whether an operation makes its layer without looking at what it is put onto.
pub(crate) fn is_linked(op: &Op) -> bool {
    let Op::File { actions, link: true } = op else { return false };
    let reads_it = |action: &FileAction| matches!(action, FileAction::Copy { input: 0, selection: None, .. });
    !actions.iter().any(reads_it)
}

fn is_unpacked(job: &Job<'_>, tree: &Tree) -> Result<bool, BuildError> {
    for key in tree.keys() {
        if !job.request.world.snapshots.has(&key)? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Solver<'_> {
    /// Asks whoever debugs to a shell before the vertex that failed.
    fn debug(&self, id: VertexId, error: &BuildError) {
        let Some(debugger) = self.job.request.debugger else { return };
        let (vertex, world) = (self.graph.get(id), &self.job.request.world);
        let inputs = self.inputs(vertex);
        let step = world.reporter.step(format!("shell before {}", vertex.name));
        let work = ops::Work { job: self.job, vertex, inputs: &inputs, step: &step, cancel: world.cancel };
        debugger.failed(&debug::told(error), &mut |input, output| work.shell(input, output));
        step.finish(Outcome::Done);
    }

    /// What is there of a vertex' inputs: all that it looks at, once it runs.
    fn inputs(&self, vertex: &Vertex) -> Vec<Tree> {
        let trees = self.trees.lock().expect("no panic while locked");
        let linked = is_linked(&vertex.op);
        let tree = |(place, input): (usize, &VertexId)| match &trees[input.index()] {
            Some(tree) => tree.clone(),
            None if linked && place == 0 => Tree::default(),
            None => unreachable!("needs come first"),
        };
        vertex.inputs.iter().enumerate().map(tree).collect()
    }

    fn task(&self, task: Task) -> Result<(), BuildError> {
        let id = task.id();
        let vertex = self.graph.get(id);
        if let Task::Layer(_) = task {
            let layer = self.layer(id)?;
            self.linked.lock().expect("no panic while locked").insert(id, layer);
            return Ok(());
        }
        if matches!(vertex.op, Op::Image { .. }) {
            let tree = self.trees.lock().expect("no panic while locked")[id.index()].clone().expect("known before");
            return ops::unpacked(self.job, &tree, &self.stop).map(drop).map_err(|error| self.explain(vertex, error));
        }
        let linked = self.linked.lock().expect("no panic while locked").remove(&id);
        let layer = linked.map_or_else(|| self.layer(id), Ok)?;
        let tree = self.tree(id, layer).map_err(|error| self.explain(vertex, error))?;
        self.trees.lock().expect("no panic while locked")[id.index()] = Some(tree);
        Ok(())
    }

    /// One vertex whose inputs are there: by its content key, or by doing it.
    fn layer(&self, id: VertexId) -> Result<Option<LayerKey>, BuildError> {
        let vertex = self.graph.get(id);
        let world = &self.job.request.world;
        let inputs = self.inputs(vertex);
        let step = world.reporter.step(vertex.name.clone());
        let started = Instant::now();
        let result = self.content(vertex, &inputs, &step);
        match &result {
            Ok((_, true)) => step.finish(Outcome::Cached),
            Ok((_, false)) => step.finish(Outcome::Done),
            Err(error) if error.is_cancelled() => step.finish(Outcome::Cancelled),
            Err(error) => step.finish(Outcome::Failed(one_line(error))),
        }
        let (layer, hit) = result.map_err(|error| self.explain(vertex, error))?;
        if !hit {
            self.ran.lock().expect("no panic while locked").insert(id, started.elapsed().as_secs_f64());
        }
        let counter = if hit { &self.cached } else { &self.executed };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(layer)
    }

    /// The error with its place, unless it says that itself.
    fn explain(&self, vertex: &Vertex, error: BuildError) -> BuildError {
        match error {
            error @ (BuildError::Command { .. }
            | BuildError::Start { .. }
            | BuildError::NoShell { .. }
            | BuildError::CacheLost { .. }
            | BuildError::Cancelled
            | BuildError::Invalid { .. }) => error,
            source => {
                let place = self.job.loaded.place(vertex.origin, self.job.request.world.sources);
                let shell = matches!(vertex.op, Op::File { .. })
                    && self.inputs(vertex).first().is_some_and(|base| debug::has_shell(self.job, base, &self.stop));
                BuildError::Step { step: vertex.name.clone(), place, shell, source: Box::new(source) }
            }
        }
    }

    /// The vertex' layer, and whether it was there before.
    fn content(
        &self,
        vertex: &Vertex,
        inputs: &[Tree],
        step: &ctk_plan::Step,
    ) -> Result<(Option<LayerKey>, bool), BuildError> {
        let world = &self.job.request.world;
        let work = ops::Work { job: self.job, vertex, inputs, step, cancel: &self.stop };
        let described = work.describe_inputs()?;
        let key = content_key(&work, &described);
        // One process does it, the others find it done.
        let _lock = world.store.lock(&format!("build {key}"), &self.stop).map_err(|error| match error {
            ctk_store::StoreError::Cancelled => BuildError::Cancelled,
            other => other.into(),
        })?;
        let made = self.job.made.lock().expect("no panic while locked").get(&key).cloned();
        let found = match made {
            Some(layer) => Some(layer),
            None if self.job.request.no_cache || self.job.is_forced(vertex) => None,
            None => match recorded(self.job, &key)? {
                Some(content) => Some(content.layer),
                None => earlier::find(&work, &described)?,
            },
        };
        let hit = found.is_some();
        let layer = match found {
            Some(layer) => layer,
            None => {
                let anew = self.job.request.no_cache || self.job.is_forced(vertex);
                let named = |key: &Key| LayerKey::op(key.as_str()).expect("keys are hexadecimal");
                // One that is fit for earlier dates alone keeps its name.
                let taken = || -> Result<bool, BuildError> {
                    Ok(world.snapshots.has(&named(&key))? && !self.job.imports.is_here(&named(&key))?)
                };
                let anew = anew || taken()?;
                let layer = if anew { named(&fresh(&key, world.now_seconds)) } else { named(&key) };
                work.run(&layer)?
            }
        };
        if !self.job.request.apart {
            let links = Links { layers: layer.iter().map(LayerKey::to_string).collect(), ..Links::default() };
            world.store.put_record(CONTENTS, key.as_str(), &Content { layer: layer.clone() }, &links)?;
            if !hit {
                earlier::note(&work, &described, &layer)?;
            }
        }
        self.job.made.lock().expect("no panic while locked").insert(key, layer.clone());
        Ok((layer, hit))
    }

    /// The layer on top of what it is put onto, and a record of it.
    fn tree(&self, id: VertexId, layer: Option<LayerKey>) -> Result<Tree, BuildError> {
        let world = &self.job.request.world;
        let by = self.keys[id.index()].as_str();
        let mut tree = self.inputs(self.graph.get(id)).into_iter().next().unwrap_or_default();
        tree.0.extend(layer.map(|layer| Piece { layer, by: Some(by.to_owned()) }));
        if !self.job.request.apart {
            let layers = tree.0.iter().filter(|p| p.by.is_some()).map(|p| p.layer.to_string()).collect();
            world.store.put_record(DEFINITIONS, by, &tree, &Links { layers, ..Links::default() })?;
        }
        Ok(tree)
    }
}

/// What a vertex makes is found again by: the operation, and what its inputs are to it.
fn content_key(work: &ops::Work<'_>, described: &[Described]) -> Key {
    let words: Vec<Vec<u8>> = described.iter().map(Described::word).collect();
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    work.vertex.op.key("content", &words, work.job.digests as &dyn Sources)
}

/// What was made for a content key, if it is to be had.
fn recorded(job: &Job<'_>, key: &Key) -> Result<Option<Content>, BuildError> {
    let imports = job.imports;
    let here = |layer: &LayerKey| -> Result<bool, BuildError> { Ok(imports.is_here(layer)? || imports.has(layer)?) };
    match job.request.world.store.record::<Content>(CONTENTS, key.as_str())? {
        Some(Content { layer: Some(layer) }) if !here(&layer)? => {}
        Some(content) => return Ok(Some(content)),
        None => {}
    }
    Ok(imports.content(key.as_str())?.map(|layer| Content { layer: Some(layer) }))
}

/// Whether the layer of a linked copy is there, whatever it is put onto. Its other inputs are these trees.
pub(crate) fn links_alike(job: &Job<'_>, vertex: &Vertex, inputs: &[Tree]) -> Result<bool, BuildError> {
    if !is_linked(&vertex.op) || job.request.no_cache || job.is_forced(vertex) {
        return Ok(false);
    }
    // Nothing is unpacked for an outlook.
    for tree in inputs {
        if !is_unpacked(job, tree)? {
            return Ok(false);
        }
    }
    let step = Reporter::new(job.request.decl.address.clone(), Arc::new(Silent)).step("");
    let work = ops::Work { job, vertex, inputs, step: &step, cancel: job.request.world.cancel };
    let key = content_key(&work, &work.describe_inputs()?);
    Ok(recorded(job, &key)?.is_some())
}

/// A name that no earlier layer has: without the cache, an old result must not win over the new one.
fn fresh(key: &Key, now_seconds: i64) -> Key {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut hasher = ctk_buildgraph::KeyHasher::new("fresh");
    hasher.part(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    hasher.part(key.as_str().as_bytes()).part(&now_seconds.to_le_bytes()).part(&std::process::id().to_le_bytes());
    hasher.finish()
}

fn one_line(error: &BuildError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
