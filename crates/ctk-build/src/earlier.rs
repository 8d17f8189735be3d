//! Earlier runs of an operation over layers of other names and the same files.
//!
//! Nothing is hashed ahead: an operation notes which layers it ran over, and only when it is about to run again over
//! others are the two compared, up to their first difference. Copied files need less: what they were put onto may differ
//! wherever they do not meet it.

use ctk_buildgraph::{FileAction, Key, Op};
use ctk_snapshot::{Footing, LayerKey};
use ctk_store::Links;
use serde::{Deserialize, Serialize};

use crate::BuildError;
use crate::limits::EARLIER_RUNS;
use crate::ops::Work;

/// Records of runs, by operation alone.
const RUNS: &str = "build-runs";

/// What an input is to an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Described {
    /// A whole tree: its layers, base first.
    Layers(Vec<LayerKey>),
    /// Some files of it: their digest.
    Files(String),
}

impl Described {
    /// Names it in content keys.
    pub fn word(&self) -> Vec<u8> {
        match self {
            Described::Layers(layers) => {
                layers.iter().map(LayerKey::as_str).collect::<Vec<_>>().join("\n").into_bytes()
            }
            Described::Files(digest) => digest.clone().into_bytes(),
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Run {
    inputs: Vec<Described>,
    layer: Option<LayerKey>,
}

/// The layer that the operation made of inputs with the same files, if it is still there.
pub(crate) fn find(work: &Work<'_>, inputs: &[Described]) -> Result<Option<Option<LayerKey>>, BuildError> {
    // Sources that are only copied are told by their content already.
    if !inputs.iter().any(|input| matches!(input, Described::Layers(layers) if !layers.is_empty())) {
        return Ok(None);
    }
    for run in runs(work)? {
        if !run.layer.as_ref().map_or(Ok(true), |layer| work.job.imports.is_here(layer))? {
            continue;
        }
        if same(work, &run.inputs, inputs)? || stands(work, &run, inputs)? {
            return Ok(Some(run.layer));
        }
    }
    Ok(None)
}

/// Notes that the operation made `layer` of `inputs`.
pub(crate) fn note(work: &Work<'_>, inputs: &[Described], layer: &Option<LayerKey>) -> Result<(), BuildError> {
    let mut runs = runs(work)?;
    runs.retain(|run| run.inputs != inputs);
    runs.insert(0, Run { inputs: inputs.to_vec(), layer: layer.clone() });
    runs.truncate(EARLIER_RUNS);
    // Linked to nothing: what it names may go, and then it is of no use.
    Ok(work.job.request.world.store.put_record(RUNS, operation(work).as_str(), &runs, &Links::default())?)
}

fn runs(work: &Work<'_>) -> Result<Vec<Run>, BuildError> {
    Ok(work.job.request.world.store.record(RUNS, operation(work).as_str())?.unwrap_or_default())
}

/// The operation without its inputs.
fn operation(work: &Work<'_>) -> Key {
    work.vertex.op.key("operation", &[], work.job.digests)
}

/// Whether files were copied onto a tree that differs from this one only where the copy does not meet it.
fn stands(work: &Work<'_>, run: &Run, inputs: &[Described]) -> Result<bool, BuildError> {
    let (Op::File { actions, link: false }, Some(layer)) = (&work.vertex.op, &run.layer) else { return Ok(false) };
    let ([Described::Layers(old), old_sources @ ..], [Described::Layers(new), sources @ ..]) =
        (&run.inputs[..], inputs)
    else {
        return Ok(false);
    };
    let (mut destinations, mut by_name) = (Vec::new(), false);
    for action in actions {
        let (FileAction::Copy { dest: path, owner, .. } | FileAction::Mkdir { path, owner, .. }) = action else {
            return Ok(false);
        };
        destinations.push(path.as_bytes());
        by_name |= owner.as_ref().is_some_and(|owner| owner.0.contains(|c: char| !c.is_ascii_digit() && c != ':'));
    }
    let snapshots = work.job.request.world.snapshots;
    if old_sources != sources
        || !old.iter().try_fold(true, |all, key| Ok::<_, BuildError>(all && snapshots.has(key)?))?
    {
        return Ok(false);
    }
    work.unpacked(&work.inputs[0])?;
    let reads: &[&str] = if by_name { &["/etc/passwd", "/etc/group"] } else { &[] };
    let footing = Footing { destinations: &destinations, reads };
    Ok(snapshots.stands_on(layer, (old, new), &footing, work.cancel)?)
}

fn same(work: &Work<'_>, old: &[Described], new: &[Described]) -> Result<bool, BuildError> {
    if old.len() != new.len() {
        return Ok(false);
    }
    let mut pairs = Vec::new();
    for (old, new) in old.iter().zip(new) {
        match (old, new) {
            (Described::Layers(old), Described::Layers(new)) if old.len() == new.len() => {
                pairs.extend(old.iter().zip(new).filter(|(old, new)| old != new));
            }
            (old, new) if old == new => {}
            _ => return Ok(false),
        }
    }
    let snapshots = work.job.request.world.snapshots;
    for (old, new) in pairs {
        if !snapshots.has(old)? {
            return Ok(false);
        }
        if !snapshots.has(new)? {
            // Layers of a base: the operation, which is about to run, needs them anyway.
            work.inputs.iter().try_for_each(|tree| work.unpacked(tree).map(drop))?;
        }
        if !snapshots.same(old, new, work.cancel)? {
            return Ok(false);
        }
    }
    Ok(true)
}
