//! The operations, one file each.

mod blob;
mod exec;
mod file;
mod git;
mod http;
mod packages;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use ctk_buildgraph::{FileAction, MountKind, Op, Selection, Vertex};
use ctk_plan::{Cancel, Step};
use ctk_snapshot::{LayerKey, TreeView, Workspace};

use crate::base::fetch_layers;
use crate::context::{Context, digest_of};
use crate::earlier::Described;
use crate::solve::{Job, Tree};
use crate::{BuildError, StatIndex};

/// One vertex about to run.
pub(crate) struct Work<'a> {
    pub job: &'a Job<'a>,
    pub vertex: &'a Vertex,
    pub inputs: &'a [Tree],
    pub step: &'a Step,
    pub cancel: &'a Cancel,
}

impl Work<'_> {
    /// What the content key says of each input: a copy's source is what is copied, anything else the whole tree.
    pub fn describe_inputs(&self) -> Result<Vec<Described>, BuildError> {
        let mut described: Vec<Described> = self.inputs.iter().map(|tree| Described::Layers(tree.keys())).collect();
        if let Op::File { actions, link } = &self.vertex.op {
            if *link {
                described[0] = Described::Layers(Vec::new());
            }
            for action in actions {
                let FileAction::Copy { input, selection: None, sources, exclude, parents, .. } = action else {
                    continue;
                };
                described[*input] = self.files(*input, sources.clone(), exclude.clone(), *parents)?;
            }
        }
        for (input, sources) in self.mounted() {
            described[input] = self.files(input, sources, Vec::new(), false)?;
        }
        Ok(described)
    }

    /// Results of other steps of which a command sees some paths only.
    fn mounted(&self) -> BTreeMap<usize, Vec<String>> {
        let Op::Exec(exec) = &self.vertex.op else { return BTreeMap::new() };
        let mut parts: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let mut whole = BTreeSet::from([0]);
        for mount in &exec.mounts {
            match &mount.kind {
                MountKind::Bind { input, source, selection: None } if !source.trim_matches('/').is_empty() => {
                    parts.entry(*input).or_default().push(source.trim_matches('/').to_owned());
                }
                MountKind::Bind { input, .. } | MountKind::Cache { input: Some(input), .. } => {
                    whole.insert(*input);
                }
                _ => {}
            }
        }
        // An image has one name for all that it holds: nothing to gain there.
        let graph = &self.job.plan.lowered.graph;
        let is_step = |input: usize| {
            let from = graph.get(self.vertex.inputs[input]);
            matches!(from.op, Op::Exec(_) | Op::File { .. } | Op::Packages { .. })
        };
        parts.retain(|input, _| !whole.contains(input) && is_step(*input));
        parts
    }

    fn files(
        &self,
        input: usize,
        paths: Vec<String>,
        exclude: Vec<String>,
        parents: bool,
    ) -> Result<Described, BuildError> {
        let (_tree, context) = self.tree_context(input)?;
        let selection = Selection { context: String::new(), paths, exclude, parents };
        let found = context.look(&selection, &StatIndex::in_memory(), 0, 0)?;
        Ok(Described::Files(digest_of(&found)))
    }

    /// Does it. The layer `key` is there afterwards, or nothing changed.
    pub fn run(&self, key: &LayerKey) -> Result<Option<LayerKey>, BuildError> {
        if self.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        match &self.vertex.op {
            Op::Exec(exec) => exec::run(self, exec, key),
            Op::File { actions, link } => file::run(self, actions, *link, key),
            Op::Packages { stage, scripts, .. } => packages::run(self, stage, *scripts, key),
            Op::Http { url, file_name, digest } => http::run(self, url, file_name, digest, key),
            Op::Git { source, commit } => git::run(self, source, commit),
            Op::Blob { digest, file_name } => blob::run(self, digest, file_name.as_deref()),
            Op::Scratch | Op::Image { .. } | Op::Local { .. } => Ok(None),
        }
    }

    /// The layer, unless it changes nothing.
    fn commit(&self, mut workspace: Workspace, key: &LayerKey) -> Result<Option<LayerKey>, BuildError> {
        if self.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        if workspace.is_empty()? {
            return Ok(None);
        }
        let world = &self.job.request.world;
        let mut layers: Vec<LayerKey> = self.inputs.iter().flat_map(Tree::keys).collect();
        // Of a layer that nobody unpacked no file was taken.
        layers.retain(|layer| world.snapshots.has(layer).unwrap_or(false));
        workspace.made_from(&layers, world.now_seconds)?;
        workspace.commit(key)?;
        Ok(Some(key.clone()))
    }

    /// A writable tree over input 0.
    pub fn workspace(&self) -> Result<Workspace, BuildError> {
        let keys = self.unpacked(&self.inputs[0])?;
        Ok(self.job.request.world.snapshots.begin(&keys)?)
    }

    /// The tree's keys, all of them unpacked.
    pub fn unpacked(&self, tree: &Tree) -> Result<Vec<LayerKey>, BuildError> {
        unpacked(self.job, tree, self.cancel)
    }

    /// The files of an input, read-only.
    pub fn tree(&self, input: usize) -> Result<TreeView, BuildError> {
        let keys = self.unpacked(&self.inputs[input])?;
        Ok(self.job.request.world.snapshots.tree(&keys)?)
    }

    /// The files of an input as a place to find sources in.
    pub fn tree_context(&self, input: usize) -> Result<(TreeView, Context), BuildError> {
        let tree = self.tree(input)?;
        let root = rustix::io::fcntl_dupfd_cloexec(tree.root().as_fd(), 0);
        let root = root.map_err(|e| BuildError::read("open", "/")(e.into()))?;
        let name = self.job.plan.lowered.graph.get(self.vertex.inputs[input]).name.clone();
        let name = format!("the result of `{name}`");
        let made = self.job.request.world.snapshots.made(&self.inputs[input].keys())?;
        Ok((tree, Context::tree(root, &name, made)))
    }
}

/// The tree's keys, all of them unpacked.
pub(crate) fn unpacked(job: &Job<'_>, tree: &Tree, cancel: &Cancel) -> Result<Vec<LayerKey>, BuildError> {
    let world = &job.request.world;
    let keys = tree.keys();
    for key in &keys {
        if world.snapshots.has(key)? {
            continue;
        }
        let holds =
            |b: &&std::sync::Arc<crate::base::Base>| b.config.rootfs.diff_ids.iter().any(|d| LayerKey::diff(d) == *key);
        let Some(base) = job.plan.bases.iter().find(holds) else {
            job.imports.unpack(key, cancel)?;
            continue;
        };
        let _lock = world.store.lock(&format!("unpack {}", base.descriptor.digest), cancel)?;
        fetch_layers(base, world)?;
        if world.snapshots.has(key)? {
            continue;
        }
        let step = world.reporter.step(format!("unpack {}", base.name));
        step_result(step, |step| Ok(world.snapshots.unpack_image(&base.manifest, Some(step), cancel)?))?;
    }
    Ok(keys)
}

fn step_result<T>(step: Step, work: impl FnOnce(&Step) -> Result<T, BuildError>) -> Result<T, BuildError> {
    let result = work(&step);
    step.conclude(result)
}
