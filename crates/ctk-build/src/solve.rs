//! The solver: which vertices must run, and running them side by side.
//!
//! First a look back from the target: a vertex whose definition has a recorded result is done, and nothing before it is
//! looked at. What remains runs as soon as its inputs are there, on as many threads as the request allows. A vertex
//! about to run asks once more, by its content key: its inputs may have turned out as before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use ctk_buildgraph::{Graph, Key, Op, Sources, Vertex, VertexId};
use ctk_plan::{Cancel, Outcome};
use ctk_snapshot::LayerKey;
use ctk_store::Links;
use serde::{Deserialize, Serialize};

use crate::build::Plan;
use crate::ops;
use crate::recipe::{Contexts, Loaded, SelectionDigests};
use crate::{BuildError, BuildRequest};

/// Records of results by definition key, and by content key.
const DEFINITIONS: &str = "build-definition";
const CONTENTS: &str = "build-content";

/// All that a vertex' work may look at.
pub(crate) struct Job<'a> {
    pub request: &'a BuildRequest<'a>,
    pub loaded: &'a Loaded,
    pub contexts: &'a Contexts<'a>,
    pub plan: &'a Plan,
    pub digests: &'a SelectionDigests,
    pub epoch_seconds: i64,
}

impl Job<'_> {
    /// Whether it stands in a stage that is to be built anew. Progress lines begin with `[STAGE NUMBER/COUNT]`.
    fn is_forced(&self, vertex: &Vertex) -> bool {
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
struct Content {
    layer: Option<LayerKey>,
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
}

struct State {
    trees: Vec<Option<Tree>>,
    waiting: Vec<usize>,
    ready: Vec<VertexId>,
    left: usize,
    executed: usize,
    cached: usize,
    failed: Option<BuildError>,
}

struct Solver<'a> {
    job: &'a Job<'a>,
    graph: &'a Graph,
    keys: Vec<Key>,
    users: Vec<Vec<VertexId>>,
    state: Mutex<State>,
    changed: Condvar,
    /// Given when one vertex failed or the user said so.
    stop: Cancel,
}

/// Makes the target's tree.
pub(crate) fn solve(job: &Job<'_>) -> Result<Solved, BuildError> {
    let graph = &job.plan.lowered.graph;
    let target = job.plan.lowered.image.vertex;
    let keys = graph.definition_keys(job.digests);
    let count = graph.len();
    let mut state = State {
        trees: vec![None; count],
        waiting: vec![0; count],
        ready: Vec::new(),
        left: 0,
        executed: 0,
        cached: 0,
        failed: None,
    };
    let mut users: Vec<Vec<VertexId>> = vec![Vec::new(); count];
    // What must be made anew, and all that is made of it.
    let mut forced = vec![false; count];
    for (id, vertex) in graph.vertices() {
        forced[id.index()] = job.is_forced(vertex) || vertex.inputs.iter().any(|i| forced[i.index()]);
    }
    // Back from the target: inputs have smaller numbers than their users.
    let mut wanted = vec![false; count];
    wanted[target.index()] = true;
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
                state.cached += 1;
            }
            state.trees[id.index()] = Some(tree);
            continue;
        }
        state.left += 1;
        for input in &vertex.inputs {
            wanted[input.index()] = true;
        }
    }
    for id in &ids {
        if !wanted[id.index()] || state.trees[id.index()].is_some() {
            continue;
        }
        let mut inputs = graph.get(*id).inputs.clone();
        inputs.sort();
        inputs.dedup();
        for input in inputs.iter().filter(|i| state.trees[i.index()].is_none()) {
            state.waiting[id.index()] += 1;
            users[input.index()].push(*id);
        }
        if state.waiting[id.index()] == 0 {
            state.ready.push(*id);
        }
    }
    // Taken from the end: the first in the file first.
    state.ready.reverse();
    let threads = job.request.jobs.clamp(1, state.left.max(1));
    let work = state.left > 0;
    let solver =
        Solver { job, graph, keys, users, state: Mutex::new(state), changed: Condvar::new(), stop: Cancel::new() };
    if work {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| solver.work());
            }
            solver.watch();
        });
    }
    let mut state = solver.state.into_inner().expect("no panic while locked");
    if let Some(error) = state.failed {
        return Err(if job.request.world.cancel.is_cancelled() { BuildError::Cancelled } else { error });
    }
    let tree = state.trees[target.index()].take().expect("solved to the end");
    Ok(Solved { tree, executed: state.executed, cached: state.cached })
}

/// The result of a vertex that needs no work: a source, or one that was built before.
fn known(job: &Job<'_>, op: &Op, key: &Key) -> Result<Option<Tree>, BuildError> {
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
    let Some(tree) = job.request.world.store.record::<Tree>(DEFINITIONS, key.as_str())? else { return Ok(None) };
    for piece in tree.0.iter().filter(|p| p.by.is_some()) {
        if !job.request.world.snapshots.has(&piece.layer)? {
            return Ok(None);
        }
    }
    Ok(Some(tree))
}

/// Wakes the others when a worker panics: what they wait for will never be there.
struct Alarm<'a>(&'a Solver<'a>);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop.cancel();
            if let Ok(mut state) = self.0.state.lock() {
                state.failed.get_or_insert(BuildError::Cancelled);
            }
            self.0.changed.notify_all();
        }
    }
}

impl Solver<'_> {
    /// Passes the user's word on until all is done.
    fn watch(&self) {
        let mut state = self.state.lock().expect("no panic while locked");
        while state.left > 0 && state.failed.is_none() {
            if self.job.request.world.cancel.is_cancelled() {
                self.stop.cancel();
                state.failed.get_or_insert(BuildError::Cancelled);
                self.changed.notify_all();
                break;
            }
            state = self.changed.wait_timeout(state, Duration::from_millis(50)).expect("no panic while locked").0;
        }
    }

    fn work(&self) {
        let _alarm = Alarm(self);
        let mut state = self.state.lock().expect("no panic while locked");
        loop {
            if state.failed.is_some() || state.left == 0 {
                self.changed.notify_all();
                return;
            }
            let Some(id) = state.ready.pop() else {
                state = self.changed.wait_timeout(state, Duration::from_millis(200)).expect("no panic while locked").0;
                continue;
            };
            let inputs: Vec<Tree> = {
                let trees = self.graph.get(id).inputs.iter().map(|i| state.trees[i.index()].clone());
                trees.map(|t| t.expect("ready means that inputs are there")).collect()
            };
            drop(state);
            let result = self.vertex(id, &inputs);
            state = self.state.lock().expect("no panic while locked");
            match result {
                Ok((tree, hit)) => {
                    state.trees[id.index()] = Some(tree);
                    state.left -= 1;
                    if hit {
                        state.cached += 1
                    } else {
                        state.executed += 1
                    }
                    for user in self.users[id.index()].iter().rev() {
                        state.waiting[user.index()] -= 1;
                        if state.waiting[user.index()] == 0 {
                            state.ready.push(*user);
                        }
                    }
                }
                Err(error) => {
                    self.stop.cancel();
                    // The first failure is the story; what it stopped is not.
                    if state.failed.as_ref().is_none_or(|e| e.is_cancelled() && !error.is_cancelled()) {
                        state.failed = Some(error);
                    }
                }
            }
            self.changed.notify_all();
        }
    }

    /// One vertex: by its content key, or by doing it. Gives whether nothing had to be done.
    fn vertex(&self, id: VertexId, inputs: &[Tree]) -> Result<(Tree, bool), BuildError> {
        let vertex = self.graph.get(id);
        let world = &self.job.request.world;
        let step = world.reporter.step(vertex.name.clone());
        let result = self.content(id, inputs, &step);
        match &result {
            Ok((_, true)) => step.finish(Outcome::Cached),
            Ok((_, false)) => step.finish(Outcome::Done),
            Err(error) if error.is_cancelled() => step.finish(Outcome::Cancelled),
            Err(error) => step.finish(Outcome::Failed(one_line(error))),
        }
        result.map_err(|error| match error {
            error @ (BuildError::Command { .. }
            | BuildError::Start { .. }
            | BuildError::NoShell { .. }
            | BuildError::Cancelled
            | BuildError::Invalid { .. }) => error,
            source => {
                let place = self.job.loaded.place(vertex.origin, world.sources);
                BuildError::Step { step: vertex.name.clone(), place, source: Box::new(source) }
            }
        })
    }

    fn content(&self, id: VertexId, inputs: &[Tree], step: &ctk_plan::Step) -> Result<(Tree, bool), BuildError> {
        let vertex = self.graph.get(id);
        let world = &self.job.request.world;
        let work = ops::Work { job: self.job, vertex, inputs, step, cancel: &self.stop };
        let described = work.describe_inputs(|tree| tree.describe())?;
        let described: Vec<&[u8]> = described.iter().map(Vec::as_slice).collect();
        let key = vertex.op.key("content", &described, self.job.digests as &dyn Sources);
        // One process does it, the others find it done.
        let _lock = world.store.lock(&format!("build {key}"), &self.stop).map_err(|error| match error {
            ctk_store::StoreError::Cancelled => BuildError::Cancelled,
            other => other.into(),
        })?;
        let mut hit = true;
        let anew = self.job.is_forced(vertex);
        let layer = match self.recorded(&key)?.filter(|_| !anew) {
            Some(content) => content.layer,
            None => {
                hit = false;
                let name = if self.job.request.no_cache || anew { fresh(&key, world.now_seconds) } else { key.clone() };
                let layer = LayerKey::op(name.as_str()).expect("keys are hexadecimal");
                let layer = work.run(&layer)?;
                let links = Links { layers: layer.iter().map(LayerKey::to_string).collect(), ..Links::default() };
                world.store.put_record(CONTENTS, key.as_str(), &Content { layer: layer.clone() }, &links)?;
                layer
            }
        };
        let by = self.keys[id.index()].as_str();
        let mut tree = inputs.first().cloned().unwrap_or_default();
        tree.0.extend(layer.map(|layer| Piece { layer, by: Some(by.to_owned()) }));
        let layers = tree.0.iter().filter(|p| p.by.is_some()).map(|p| p.layer.to_string()).collect();
        world.store.put_record(DEFINITIONS, by, &tree, &Links { layers, ..Links::default() })?;
        Ok((tree, hit))
    }

    fn recorded(&self, key: &Key) -> Result<Option<Content>, BuildError> {
        let world = &self.job.request.world;
        if self.job.request.no_cache {
            return Ok(None);
        }
        let Some(content) = world.store.record::<Content>(CONTENTS, key.as_str())? else { return Ok(None) };
        match &content.layer {
            Some(layer) if !world.snapshots.has(layer)? => Ok(None),
            _ => Ok(Some(content)),
        }
    }
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
