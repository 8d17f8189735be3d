//! Base images: from a name to a manifest and its config in the store.

use ctk_buildgraph::{BaseImage, BaseName, BaseRequest};
use ctk_oci::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, Reference, media_type};
use ctk_store::{Depth, Store, StoreError};

use crate::{BuildError, BuildRequest, World};

/// A base image for a platform, as far as it is in the store.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub name: BaseName,
    pub platform: Platform,
    pub descriptor: Descriptor,
    pub manifest: Manifest,
    pub config: ImageConfig,
}

impl Base {
    pub fn image(&self) -> BaseImage {
        BaseImage { manifest: self.descriptor.digest.clone(), config: self.config.clone() }
    }
}

/// The base that a build asks for; fetches its manifest and config if they are not here.
pub(crate) fn find(wanted: &BaseRequest, request: &BuildRequest<'_>) -> Result<Base, BuildError> {
    let world = &request.world;
    let platform = wanted.platform.parse::<Platform>().map_err(|_| BuildError::NoPlatform {
        image: wanted.name.to_string(),
        platform: wanted.platform.clone(),
        offered: "none of that name".into(),
    })?;
    let top = match &wanted.name {
        BaseName::Reference(reference) => {
            let digest = lock(reference, &platform, world)?;
            match by_digest(world.store, &digest)? {
                Some(descriptor) if has_config(world.store, &descriptor, &platform)? => descriptor,
                _ => fetch(reference, &digest, &platform, Depth::Config, world)?,
            }
        }
        BaseName::Layout(layout) => crate::remote::layout::import(layout, world)?,
        project => match request.images.get(project) {
            Some(descriptor) => descriptor.clone(),
            None => return Err(BuildError::ProjectImage { image: project.to_string() }),
        },
    };
    load(world.store, &wanted.name, &platform, &top)
}

/// What the lock file says, or what the name means now, noted.
pub(crate) fn lock(reference: &Reference, platform: &Platform, world: &World<'_>) -> Result<Digest, BuildError> {
    if let Some(digest) = reference.digest() {
        return Ok(digest.clone());
    }
    if let Some(digest) = world.lock.image(reference, platform) {
        return Ok(digest);
    }
    let fetched = world.fetch.resolve(reference, world.cancel);
    let descriptor =
        fetched.map_err(|source| BuildError::Fetch { image: reference.to_string(), source: Box::new(source) })?;
    let noted = world.lock.set_image(reference, platform, &descriptor.digest);
    noted.map_err(|reason| BuildError::Locked { what: reference.to_string(), reason })?;
    Ok(descriptor.digest)
}

/// Brings a base's layers into the store, unless they are here.
pub(crate) fn fetch_layers(base: &Base, world: &World<'_>) -> Result<(), BuildError> {
    let mut complete = true;
    for layer in &base.manifest.layers {
        complete &= world.store.contains(&layer.digest)?;
    }
    match &base.name {
        BaseName::Reference(reference) if !complete => {
            fetch(reference, &base.descriptor.digest, &base.platform, Depth::Layers, world).map(|_| ())
        }
        _ => Ok(()),
    }
}

fn fetch(
    reference: &Reference,
    digest: &Digest,
    platform: &Platform,
    depth: Depth,
    world: &World<'_>,
) -> Result<Descriptor, BuildError> {
    let exact = reference.with_digest(digest.clone());
    let fetched = world.fetch.fetch(&exact, Some(platform), depth, world.store, world.reporter, world.cancel);
    fetched.map_err(|source| BuildError::Fetch { image: reference.to_string(), source: Box::new(source) })
}

/// The descriptor of a manifest or index in the store, of which only the digest is known.
pub(crate) fn by_digest(store: &Store, digest: &Digest) -> Result<Option<Descriptor>, BuildError> {
    if !store.contains(digest)? {
        return Ok(None);
    }
    let Some(size) = store.size(digest)? else { return Ok(None) };
    let unknown = Descriptor::new(media_type::MANIFEST, digest.clone(), size);
    let document = store.document::<serde_json::Value>("base image", &unknown)?;
    let value = document.value();
    let said = value.get("mediaType").and_then(|m| m.as_str());
    let guessed = if value.get("manifests").is_some() { media_type::INDEX } else { media_type::MANIFEST };
    Ok(Some(Descriptor::new(said.unwrap_or(guessed), digest.clone(), size)))
}

pub(crate) fn has_config(store: &Store, top: &Descriptor, platform: &Platform) -> Result<bool, BuildError> {
    let Some(descriptor) = select(store, top, platform)?.ok() else { return Ok(true) };
    if !store.contains(&descriptor.digest)? {
        return Ok(false);
    }
    let manifest = store.document::<Manifest>("image manifest", &descriptor)?;
    Ok(store.contains(&manifest.value().config.digest)?)
}

/// The manifest for a platform, or what there is instead.
fn select(store: &Store, top: &Descriptor, platform: &Platform) -> Result<Result<Descriptor, String>, StoreError> {
    if !media_type::is_index(&top.media_type) {
        return Ok(Ok(top.clone()));
    }
    Ok(select_of(store.document::<Index>("image index", top)?.value(), platform))
}

/// The same of an index that was read.
pub(crate) fn select_of(index: &Index, platform: &Platform) -> Result<Descriptor, String> {
    index.select(platform).cloned().ok_or_else(|| index.offers())
}

pub(crate) fn load(store: &Store, name: &BaseName, platform: &Platform, top: &Descriptor) -> Result<Base, BuildError> {
    let none = |offered| BuildError::NoPlatform { image: name.to_string(), platform: platform.to_string(), offered };
    let descriptor = select(store, top, platform)?.map_err(none)?;
    let manifest = store.document::<Manifest>("image manifest", &descriptor)?.into_value();
    let config = store.document::<ImageConfig>("image config", &manifest.config)?.into_value();
    Ok(Base { name: name.clone(), platform: platform.clone(), descriptor, manifest, config })
}
