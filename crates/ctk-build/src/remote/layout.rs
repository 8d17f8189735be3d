//! Images of OCI image layouts on this machine.

use std::fs;
use std::path::PathBuf;

use ctk_buildgraph::OciLayout;
use ctk_oci::{Descriptor, Index};
use ctk_syntax::nearest;

use crate::{BuildError, World};

/// Where a layout keeps an image's name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

fn directory(layout: &OciLayout, world: &World<'_>) -> PathBuf {
    world.project_directory.join(&layout.path)
}

/// The manifest or index that is meant. Reads the layout's `index.json` only.
pub(crate) fn choose(layout: &OciLayout, world: &World<'_>) -> Result<Descriptor, BuildError> {
    let failed = |reason: String| BuildError::Layout { layout: layout.to_string(), reason };
    let path = directory(layout, world).join("index.json");
    let bytes = fs::read(&path).map_err(BuildError::read("read", &path))?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|e| failed(format!("its index is malformed: {e}")))?;
    let all = &index.manifests;
    if let Some(digest) = &layout.digest {
        let found = all.iter().find(|m| m.digest == *digest).cloned();
        return found.ok_or_else(|| failed("its index has no such digest".into()));
    }
    let names = || all.iter().filter_map(|m| m.annotations.get(REF_NAME).map(String::as_str));
    // The tag, or a whole reference that ends in it.
    let wanted = layout.tag.as_deref().unwrap_or("latest");
    let is = |name: &str| name == wanted || name.rsplit_once(':').is_some_and(|(_, tag)| tag == wanted);
    let named = all.iter().find(|m| m.annotations.get(REF_NAME).is_some_and(|name| is(name)));
    let only = all.first().filter(|_| layout.tag.is_none() && all.len() == 1);
    named.or(only).cloned().ok_or_else(|| {
        let near = nearest(wanted, names()).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        failed(format!("it has no image `{wanted}`{near}"))
    })
}

/// The same, with all its blobs brought into the store.
pub(crate) fn import(layout: &OciLayout, world: &World<'_>) -> Result<Descriptor, BuildError> {
    let descriptor = choose(layout, world)?;
    ctk_store::import_from_layout(world.store, &directory(layout, world), &descriptor, world.cancel)?;
    Ok(descriptor)
}
