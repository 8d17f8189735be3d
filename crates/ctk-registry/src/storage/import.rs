//! Images from a content store on the same machine: links instead of HTTP.

use ctk_distribution::MANIFEST_LIMIT_BYTES;
use ctk_oci::{Descriptor, Index, Manifest, media_type};
use ctk_store::Store;

use super::Storage;
use crate::{NESTING_LIMIT, RegistryError};

impl Storage {
    /// Puts the image or index `root` of a store into a repository: blobs, then manifests from the members up, then
    /// the tag, if given. Every manifest is checked as if it were pushed. Safe to repeat.
    pub fn import_image(
        &self,
        repository: &str,
        root: &Descriptor,
        store: &Store,
        tag: Option<&str>,
    ) -> Result<(), RegistryError> {
        self.import(repository, root, store, tag, 0)
    }

    fn import(
        &self,
        repository: &str,
        root: &Descriptor,
        store: &Store,
        tag: Option<&str>,
        depth: usize,
    ) -> Result<(), RegistryError> {
        let refused = |reason: String| RegistryError::Manifest { reason, unknown: None };
        if depth > NESTING_LIMIT {
            return Err(refused(format!("indexes are nested more than {NESTING_LIMIT} deep")));
        }
        let bytes = store.read(root, MANIFEST_LIMIT_BYTES)?;
        // Their files become ours.
        store.sync_blobs()?;
        if media_type::is_index(&root.media_type) {
            let index: Index = serde_json::from_slice(&bytes).map_err(|error| refused(error.to_string()))?;
            for member in &index.manifests {
                self.import(repository, member, store, None, depth + 1)?;
            }
        } else {
            let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| refused(error.to_string()))?;
            let held = manifest.layers.iter().filter(|layer| layer.urls.is_empty());
            for blob in held.chain([&manifest.config]) {
                self.import_blob(repository, &store.blob_path(&blob.digest), blob)?;
            }
        }
        self.put_manifest(repository, &root.media_type, &bytes, Some(&root.digest), tag)?;
        Ok(())
    }
}
