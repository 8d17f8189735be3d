//! Images of OCI image layouts on this machine.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use ctk_buildgraph::{BaseImage, OciLayout};
use ctk_oci::{Descriptor, Digest, Index, Manifest, Platform, media_type};
use ctk_syntax::nearest;
use serde::de::DeserializeOwned;

use crate::base::select_of;
use crate::limits::DOCUMENT_BYTES;
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

/// Manifest and config of the image for `platform`, read where they are; none if there is no such platform. Every blob is
/// verified.
pub(crate) fn look(
    layout: &OciLayout,
    platform: &Platform,
    world: &World<'_>,
) -> Result<Option<BaseImage>, BuildError> {
    let mut descriptor = choose(layout, world)?;
    if media_type::is_index(&descriptor.media_type) {
        let index: Index = document(layout, &descriptor.digest, world)?;
        let Ok(found) = select_of(&index, platform) else { return Ok(None) };
        descriptor = found;
    }
    let manifest: Manifest = document(layout, &descriptor.digest, world)?;
    let config = document(layout, &manifest.config.digest, world)?;
    Ok(Some(BaseImage { manifest: descriptor.digest, config }))
}

fn document<T: DeserializeOwned>(layout: &OciLayout, digest: &Digest, world: &World<'_>) -> Result<T, BuildError> {
    let failed = |reason: String| BuildError::Layout { layout: layout.to_string(), reason };
    let path = directory(layout, world).join("blobs").join(digest.to_string().replace(':', "/"));
    let mut bytes = Vec::new();
    let file = fs::File::open(&path).map_err(BuildError::read("read", &path))?;
    file.take(DOCUMENT_BYTES).read_to_end(&mut bytes).map_err(BuildError::read("read", &path))?;
    let mut digester = digest.algorithm().digester();
    digester.update(&bytes);
    if digester.finish() != *digest {
        return Err(failed(format!("its blob {digest} has another digest")));
    }
    serde_json::from_slice(&bytes).map_err(|e| failed(format!("its blob {digest} is malformed: {e}")))
}

/// The same as [`choose`], with all its blobs brought into the store.
pub(crate) fn import(layout: &OciLayout, world: &World<'_>) -> Result<Descriptor, BuildError> {
    let descriptor = choose(layout, world)?;
    ctk_store::import_from_layout(world.store, &directory(layout, world), &descriptor, world.cancel)?;
    Ok(descriptor)
}
