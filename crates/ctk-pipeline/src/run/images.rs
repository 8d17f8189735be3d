//! Images of steps: found in the store, else fetched, and unpacked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ctk_oci::{Descriptor, Document, ImageConfig, Index, Manifest, Platform, Reference, media_type};
use ctk_plan::{Address, Cancel, Kind, Reporter, Silent};
use ctk_snapshot::{LayerKey, Snapshots};
use ctk_store::{Depth, Fetch, FetchError, Store};

use super::error::chain;

/// An image, ready to be run.
pub(crate) struct Image {
    /// Its config.
    pub config: ImageConfig,
    /// Its layers, the base first.
    pub layers: Vec<LayerKey>,
    /// What the store had under its name.
    pub descriptor: Descriptor,
}

/// A place for one image, locked while it is fetched.
type Slot = Arc<Mutex<Option<Arc<Image>>>>;

/// Images by their names.
pub(crate) struct Images<'a> {
    pub store: &'a Store,
    pub snapshots: &'a Snapshots,
    pub fetch: &'a dyn Fetch,
    pub cancel: &'a Cancel,
    known: Mutex<HashMap<String, Slot>>,
}

/// The names under which the store may have what a step calls `name`, the likeliest first.
pub(crate) fn names(name: &str) -> Vec<String> {
    let first = name.split(['/', '@']).next().unwrap_or_default();
    let has_host = name.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let local = if has_host { name.to_owned() } else { format!("localhost/{name}") };
    let full = |name: &str| name.parse::<Reference>().map(|reference| reference.or_latest().to_string()).ok();
    let mut names: Vec<String> = [Some(name.to_owned()), full(&local), full(name)].into_iter().flatten().collect();
    names.dedup();
    names
}

/// What the store has under the name.
pub(crate) fn stored(store: &Store, name: &str) -> Result<Option<(String, Descriptor)>, String> {
    for candidate in names(name) {
        if let Some(found) = store.reference(&candidate).map_err(|error| chain(&error))? {
            return Ok(Some((candidate, found.descriptor)));
        }
    }
    Ok(None)
}

impl<'a> Images<'a> {
    pub fn new(store: &'a Store, snapshots: &'a Snapshots, fetch: &'a dyn Fetch, cancel: &'a Cancel) -> Images<'a> {
        Images { store, snapshots, fetch, cancel, known: Mutex::default() }
    }

    /// The image of that name. What the store has counts; a registry is asked when it has none. `say` hears of that.
    pub fn get(&self, name: &str, say: &dyn Fn(String)) -> Result<Arc<Image>, String> {
        let slot = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(name.to_owned()).or_default())
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let found = stored(self.store, name)?.map(|(_, descriptor)| descriptor);
        if let (Some(image), Some(found)) = (slot.as_ref(), &found)
            && image.descriptor.digest == found.digest
        {
            return Ok(Arc::clone(image));
        }
        let descriptor = match found {
            Some(descriptor) => descriptor,
            None => self.pull(name, say)?,
        };
        let image = Arc::new(self.open(descriptor, name)?);
        *slot = Some(Arc::clone(&image));
        Ok(image)
    }

    fn pull(&self, name: &str, say: &dyn Fn(String)) -> Result<Descriptor, String> {
        let reference = name.parse::<Reference>().map_err(|error| chain(&error))?.or_latest();
        let why = |why: String| format!("cannot have image `{name}`: {why}");
        if reference.registry() == "localhost" {
            return Err(why("the store has none of that name".into()));
        }
        say(format!("pulling {reference}"));
        let reporter = Reporter::new(Address::new(Kind::Image, reference.to_string()), Arc::new(Silent));
        let platform = Platform::host();
        let fetched = self.fetch.fetch(&reference, Some(&platform), Depth::Layers, self.store, &reporter, self.cancel);
        let descriptor = fetched.map_err(|error| match &error {
            FetchError::Denied { .. } => why(format!("{}; `ctk login {}`", chain(&error), reference.registry())),
            error => why(chain(error)),
        })?;
        let stored = self.store.set_reference(&reference.to_string(), &ctk_store::Ref::new(descriptor.clone()));
        stored.map_err(|error| chain(&error))?;
        Ok(descriptor)
    }

    fn open(&self, descriptor: Descriptor, name: &str) -> Result<Image, String> {
        let why = |error: &dyn std::error::Error| format!("cannot use image `{name}`: {}", chain(error));
        let mut chosen = descriptor.clone();
        if media_type::is_index(&chosen.media_type) {
            let index: Document<Index> = self.store.document("image index", &chosen).map_err(|error| why(&error))?;
            let platform = Platform::host();
            let Some(member) = index.value().select(&platform) else {
                return Err(format!("image `{name}` has no member for {platform}"));
            };
            chosen = member.clone();
        }
        let manifest: Document<Manifest> =
            self.store.document("image manifest", &chosen).map_err(|error| why(&error))?;
        let config: Document<ImageConfig> =
            self.store.document("image config", &manifest.value().config).map_err(|error| why(&error))?;
        let layers = self.snapshots.unpack_image(manifest.value(), None, self.cancel);
        let layers = layers.map_err(|error| why(&error))?;
        Ok(Image { config: config.into_value(), layers, descriptor })
    }
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn names_of_an_image() {
        assert_eq!(names("app"), ["app", "localhost/app:latest", "docker.io/library/app:latest"]);
        assert_eq!(names("gcr.io/p/app:1"), ["gcr.io/p/app:1"]);
    }
}
