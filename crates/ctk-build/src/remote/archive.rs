//! Files of the store as trees: an archive unpacked, or the file by itself.

use std::io::Read;
use std::os::fd::AsFd;

use ctk_buildgraph::KeyHasher;
use ctk_oci::Digest;
use ctk_plan::Cancel;
use ctk_snapshot::copy::{Attributes, Mtime, extract, mkfile};
use ctk_snapshot::{LayerKey, Made};
use ctk_store::Links;

use crate::limits::SMALL_FILE_BYTES;
use crate::{BuildError, World};

/// Records of trees made of files.
const TREES: &str = "blob-tree";
/// Raised when the same file gives another tree.
const SEMANTICS: &str = "2";
/// Bytes of a context that may be one file: it is held in memory while its tree is written.
const SINGLE_FILE_BYTES: u64 = 256 << 20;

fn key(digest: &Digest, file_name: Option<&str>) -> ctk_buildgraph::Key {
    let mut hasher = KeyHasher::new("blob");
    hasher.part(SEMANTICS.as_bytes()).part(digest.to_string().as_bytes());
    hasher.part(file_name.unwrap_or_default().as_bytes());
    hasher.finish()
}

/// The tree, if it was made before; its layer is none if it has no files.
pub(crate) fn tree_of_known(
    digest: &Digest,
    file_name: Option<&str>,
    world: &World<'_>,
) -> Result<Option<Option<LayerKey>>, BuildError> {
    let recorded = world.store.record::<Option<LayerKey>>(TREES, key(digest, file_name).as_str())?;
    Ok(match recorded {
        Some(Some(layer)) if !world.snapshots.has(&layer)? => None,
        other => other,
    })
}

/// The files of the archive `digest`, or a tree with that one file if it is given a name.
pub(crate) fn tree_of(
    digest: &Digest,
    file_name: Option<&str>,
    world: &World<'_>,
    cancel: &Cancel,
) -> Result<Option<LayerKey>, BuildError> {
    if let Some(known) = tree_of_known(digest, file_name, world)? {
        return Ok(known);
    }
    let mut workspace = world.snapshots.begin(&[])?;
    workspace.without_programs();
    workspace.made_from(&[], world.now_seconds)?;
    let root = workspace.open_root()?;
    let file = world.store.open_raw(digest)?;
    match file_name {
        None => {
            extract(root.as_fd(), b"/", "the context", file, None, Mtime::Keep, cancel)?;
        }
        Some(name) => {
            let mut bytes = Vec::new();
            let path = world.store.blob_path(digest);
            file.take(SINGLE_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(BuildError::read("read", &path))?;
            if bytes.len() as u64 > SINGLE_FILE_BYTES {
                let limit = SINGLE_FILE_BYTES as usize;
                return Err(BuildError::ContextTooLarge { path: name.into(), limit, unit: "bytes" });
            }
            let time = Some(Made::stamp(world.now_seconds));
            // As BuildKit: what comes from a URL is its owner's alone.
            let new = Attributes { owner: (0, 0), mode: 0o600, mtime: time };
            mkfile(root.as_fd(), name.as_bytes(), &bytes, &new, 0o755)?;
        }
    }
    drop(root);
    let layer = match workspace.is_empty()? {
        true => None,
        false => {
            let layer = LayerKey::op(key(digest, file_name).as_str()).expect("keys are hexadecimal");
            workspace.commit(&layer)?;
            Some(layer)
        }
    };
    let links = Links { layers: layer.iter().map(LayerKey::to_string).collect(), ..Links::default() };
    world.store.put_record(TREES, key(digest, file_name).as_str(), &layer, &links)?;
    Ok(layer)
}

/// The text of a small file of the store; one byte more than a Dockerfile may have, so that its parser sees it.
pub(super) fn small_text(digest: &Digest, world: &World<'_>) -> Result<Vec<u8>, BuildError> {
    let mut bytes = Vec::new();
    let path = world.store.blob_path(digest);
    let file = world.store.open_raw(digest)?;
    file.take(SMALL_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(BuildError::read("read", &path))?;
    Ok(bytes)
}
