//! A cache in a registry: a tag.

use std::collections::HashSet;

use ctk_client::{ClientError, PushOptions};
use ctk_oci::{Descriptor, Reference};
use ctk_store::Depth;

use crate::CacheError;
use crate::transfer::{Backend, Env, Source};

pub(crate) struct Repository {
    pub reference: Reference,
}

impl Repository {
    fn failed(&self, error: ClientError) -> CacheError {
        match error {
            ClientError::Cancelled => CacheError::Cancelled,
            error if error.status() == Some(404) => CacheError::Missing { place: self.reference.to_string() },
            source => CacheError::Registry { place: self.reference.to_string(), source: Box::new(source) },
        }
    }
}

impl Backend for Repository {
    fn root(&self, env: &Env<'_>) -> Result<Option<Descriptor>, CacheError> {
        let pulled = env.client.pull(&self.reference, None, Depth::Manifest, env.store, env.step, env.cancel);
        match pulled {
            Ok(root) => Ok(Some(root)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn fetch(&self, blob: &Descriptor, env: &Env<'_>) -> Result<(), CacheError> {
        let blobs = std::slice::from_ref(blob);
        env.client.pull_blobs(&self.reference, blobs, env.store, env.step, env.cancel).map_err(|error| {
            match error.status() {
                Some(404) => CacheError::Gone { place: self.reference.to_string(), digest: blob.digest.clone() },
                _ => self.failed(error),
            }
        })
    }

    /// A registry vouches for manifests that it has.
    fn is_whole(&self, _manifests: &[Descriptor], blobs: &[Descriptor], env: &Env<'_>) -> Result<bool, CacheError> {
        let missing = env.client.missing_blobs(&self.reference, blobs, env.cancel);
        Ok(missing.map_err(|error| self.failed(error))?.is_empty())
    }

    /// What is damaged in a registry it has to mend itself: it takes no blob that it has.
    fn send(
        &self,
        manifests: &[Descriptor],
        blobs: &[Descriptor],
        source: &Source<'_>,
        env: &Env<'_>,
    ) -> Result<usize, CacheError> {
        let absent = blobs.iter().filter(|blob| !env.store.contains(&blob.digest).unwrap_or(false));
        let absent: Vec<Descriptor> = absent.cloned().collect();
        let missing = env.client.missing_blobs(&self.reference, &absent, env.cancel);
        let missing: HashSet<_> = missing.map_err(|error| self.failed(error))?.into_iter().collect();
        for blob in absent.iter().filter(|blob| missing.contains(&blob.digest)) {
            source.bring(blob, env)?;
        }
        let root = manifests.last().expect("an export has a manifest");
        // Its blobs may be gone while the manifest is there.
        let options = PushOptions { every_blob: true, ..PushOptions::default() };
        let pushed = env.client.push(&self.reference, root, env.store, &options, env.step, env.cancel);
        Ok(pushed.map_err(|error| self.failed(error))?.uploaded)
    }
}
