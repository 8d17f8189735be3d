//! From registry to registry without a disk: what the target lacks streams through.

use std::collections::HashSet;

use ctk_oci::{Descriptor, Platform, Reference};
use ctk_plan::{Cancel, Step};

use crate::manifest::{Fetched, Shape};
use crate::pull::wanted;
use crate::push::Source;
use crate::{Client, ClientError, MANIFESTS_LIMIT, block};

impl Client {
    /// Copies `from` to `to`: blobs, then manifests, then the tag (unless `to` names only a digest). With `platform`
    /// the one image for it, else everything. Gives what `to` names now. Safe to repeat.
    ///
    /// Within one registry the blobs are mounted. Mirrors are asked for the source's manifests only.
    pub fn copy(
        &self,
        from: &Reference,
        to: &Reference,
        platform: Option<&Platform>,
        step: Option<&Step>,
        cancel: &Cancel,
    ) -> Result<Descriptor, ClientError> {
        block(cancel, async {
            let sources = self.sources(from)?;
            let mut root = self.fetch_manifest(&sources, &from.target()).await?;
            let shown = from.to_string();
            if let (Shape::Index(index), Some(platform)) = (root.shape(&shown)?, platform) {
                let chosen = wanted(&index, Some(platform), &shown)?;
                root = self.fetch_manifest(&sources, &chosen[0].digest.to_string()).await?;
            }
            let (manifests, blobs) = self.walk(&sources, root.clone(), &shown).await?;
            let (source, target) = (self.target(from).await?, self.target(to).await?);
            let mount = match source.host.base.origin() == target.host.base.origin() {
                true => vec![source.name.clone()],
                false => Vec::new(),
            };
            self.send_blobs(&target, &blobs, &Source::Registry(&source), &mount, step).await?;
            self.send_manifests(&target, &manifests).await?;
            if to.digest().is_none() || to.tag().is_some() {
                self.put_manifest(&target, to.tag().unwrap_or("latest"), &root).await?;
            }
            Ok(root.descriptor)
        })
    }

    /// The manifests under `root`, members before indexes, and the blobs they name.
    async fn walk(
        &self,
        sources: &crate::pull::Sources,
        root: Fetched,
        shown: &str,
    ) -> Result<(Vec<Fetched>, Vec<Descriptor>), ClientError> {
        let mut manifests = Vec::new();
        let mut blobs = Vec::new();
        let mut seen = HashSet::new();
        let mut pending = vec![root];
        while let Some(fetched) = pending.pop() {
            if !seen.insert(fetched.descriptor.digest.clone()) {
                continue;
            }
            if seen.len() > MANIFESTS_LIMIT {
                let reason = format!("it holds more than {MANIFESTS_LIMIT} manifests");
                return Err(ClientError::Manifest { reference: shown.into(), reason });
            }
            match fetched.shape(shown)? {
                Shape::Index(index) => {
                    for member in index.manifests {
                        pending.push(self.fetch_manifest(sources, &member.digest.to_string()).await?);
                    }
                }
                Shape::Image(manifest) => {
                    blobs.push(manifest.config);
                    blobs.extend(manifest.layers.into_iter().filter(|layer| layer.urls.is_empty()));
                }
            }
            manifests.push(fetched);
        }
        // Found from the root down; put from the leaves up.
        manifests.reverse();
        let mut names = HashSet::new();
        blobs.retain(|blob: &Descriptor| names.insert(blob.digest.clone()));
        Ok((manifests, blobs))
    }
}
