//! A checkout of a repository: the layer of its files.

use ctk_buildgraph::GitSource;
use ctk_snapshot::LayerKey;

use super::Work;
use crate::BuildError;
use crate::remote::{Given, git};

/// Checks the commit out, unless that was done before.
pub(super) fn run(work: &Work<'_>, source: &GitSource, commit: &str) -> Result<Option<LayerKey>, BuildError> {
    let request = work.job.request;
    let given = Given::new(request.decl, &request.world);
    Ok(git::checkout(source, commit, &given, work.step, work.cancel)?.layer)
}
