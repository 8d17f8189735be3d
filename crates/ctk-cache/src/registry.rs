//! A cache in a registry: a tag.

use std::collections::HashSet;

use ctk_client::{ClientError, PushOptions};
use ctk_oci::{Descriptor, Reference};
use ctk_store::Depth;

use crate::CacheError;
use crate::transfer::{Backend, Env, Supply};

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
        env.client
            .pull_blobs(&self.reference, blobs, env.store, env.step, env.cancel)
            .map_err(|error| self.failed(error))
    }

    fn send(
        &self,
        manifests: &[Descriptor],
        blobs: &[Descriptor],
        supply: Supply<'_>,
        env: &Env<'_>,
    ) -> Result<usize, CacheError> {
        let absent = blobs.iter().filter(|blob| !env.store.contains(&blob.digest).unwrap_or(false));
        let absent: Vec<Descriptor> = absent.cloned().collect();
        let missing = env.client.missing_blobs(&self.reference, &absent, env.cancel);
        let missing: HashSet<_> = missing.map_err(|error| self.failed(error))?.into_iter().collect();
        for blob in absent.iter().filter(|blob| missing.contains(&blob.digest)) {
            supply(blob)?;
        }
        let root = manifests.last().expect("an export has a manifest");
        let options = PushOptions::default();
        let pushed = env.client.push(&self.reference, root, env.store, &options, env.step, env.cancel);
        Ok(pushed.map_err(|error| self.failed(error))?.uploaded)
    }
}
