//! A file of the store as a tree: what a context from a URL or from standard input is.

use ctk_oci::Digest;
use ctk_snapshot::LayerKey;

use super::Work;
use crate::BuildError;
use crate::remote::tree_of;

/// Unpacks the archive, or writes the one file.
pub(super) fn run(work: &Work<'_>, digest: &Digest, file_name: Option<&str>) -> Result<Option<LayerKey>, BuildError> {
    tree_of(digest, file_name, &work.job.request.world, work.cancel)
}
