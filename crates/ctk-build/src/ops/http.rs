//! ADD of a URL: a tree with one file.

use std::fs::{File, Permissions, set_permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;

use ctk_oci::Digest;
use ctk_snapshot::LayerKey;

use super::Work;
use crate::BuildError;
use crate::remote::Given;

/// The file as BuildKit has it: readable by its owner alone, as old as the server says.
pub(super) fn run(
    work: &Work<'_>,
    url: &str,
    file_name: &str,
    digest: &Digest,
    key: &LayerKey,
) -> Result<Option<LayerKey>, BuildError> {
    let request = work.job.request;
    let (blob, modified) = Given::new(request.decl, &request.world).bring(url, digest, work.step)?;
    let mut workspace = request.world.snapshots.begin(&[])?;
    workspace.without_programs();
    let path = workspace.upper().join(file_name);
    let write = || -> io::Result<()> {
        let mut from = request.world.store.open_raw(&blob).map_err(io::Error::other)?;
        let mut file = File::create_new(&path)?;
        io::copy(&mut from, &mut file)?;
        file.set_modified(modified)?;
        set_permissions(&path, Permissions::from_mode(0o600))
    };
    write().map_err(BuildError::read("write", &path))?;
    work.commit(workspace, key)
}
