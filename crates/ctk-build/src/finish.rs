//! From a tree of layers to config and manifest.

use std::collections::{BTreeMap, BTreeSet};

use ctk_buildgraph::ImageHistory;
use ctk_cache::{INLINE_FIELD, Place};
use ctk_layer::Compression;
use ctk_oci::{Descriptor, DiffId, Digest, Document, History, ImageConfig, Manifest, RootFs, media_type};
use ctk_plan::Outcome;
use ctk_snapshot::LayerKey;

use crate::BuildError;
use crate::base::fetch_layers;
use crate::cache::inline;
use crate::solve::{Job, Tree};

/// Packs what was built and writes the image. Its layers are all in the store afterwards.
///
/// Layers that come from bases are added to `base_layers`.
pub(crate) fn manifest(
    job: &Job<'_>,
    tree: &Tree,
    base_layers: &mut BTreeSet<Digest>,
) -> Result<Descriptor, BuildError> {
    let world = &job.request.world;
    let image = &job.plan.lowered.image;
    let from_bases = layers_of_bases(job);
    for base in &job.plan.bases {
        let used = base.config.rootfs.diff_ids.iter().any(|d| tree.0.iter().any(|p| p.layer == LayerKey::diff(d)));
        if used {
            fetch_layers(base, world)?;
        }
    }
    let step = world.reporter.step("pack layers");
    let mut packed_now = false;
    let (mut layers, mut diff_ids, mut built) = (Vec::new(), Vec::new(), BTreeMap::new());
    for piece in &tree.0 {
        match from_bases.get(&piece.layer) {
            Some((descriptor, diff_id)) if piece.by.is_none() => {
                base_layers.insert(descriptor.digest.clone());
                layers.push(descriptor.clone());
                diff_ids.push(diff_id.clone());
            }
            _ => {
                let epoch = job.epoch_seconds;
                let packed = match job.imports.packed(&piece.layer, epoch)? {
                    Some(packed) => packed,
                    None => world.snapshots.pack(&piece.layer, Compression::GZIP, Some(epoch), world.cancel)?,
                };
                packed_now = true;
                layers.push(packed.descriptor.clone());
                diff_ids.push(packed.diff_id.clone());
                built.insert(piece.layer.clone(), packed);
            }
        }
    }
    step.finish(if packed_now { Outcome::Done } else { Outcome::Cached });
    let created = jiff::Timestamp::from_second(job.epoch_seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string();
    let keys = job.plan.lowered.graph.definition_keys(job.digests);
    let history = image.history.iter().map(|line| match line {
        ImageHistory::Base(history) => history.clone(),
        ImageHistory::Empty { created_by } => entry(&created, created_by, true),
        ImageHistory::Layer { created_by, vertex } => {
            let key = keys[vertex.index()].as_str();
            let made = tree.0.iter().any(|p| p.by.as_deref() == Some(key));
            entry(&created, created_by, !made)
        }
    });
    let mut settings = image.config.clone();
    settings.labels.extend(job.request.labels.clone());
    let mut extra = BTreeMap::new();
    if job.request.caches.is_some_and(|caches| caches.to.iter().any(|cache| cache.place == Place::Inline)) {
        extra.insert(INLINE_FIELD.to_owned(), inline(tree, &built, job));
    }
    let config = Document::new(ImageConfig {
        created: Some(created.clone()),
        author: image.author.clone(),
        architecture: image.platform.architecture.clone(),
        os: image.platform.os.clone(),
        variant: image.platform.variant.clone(),
        config: settings,
        history: history.collect(),
        rootfs: RootFs { diff_ids, ..RootFs::default() },
        extra,
    });
    let config = world.store.put(media_type::CONFIG, config.bytes())?;
    let manifest = Document::new(Manifest::image(config, layers));
    Ok(world.store.put(media_type::MANIFEST, manifest.bytes())?)
}

fn entry(created: &str, created_by: &str, empty_layer: bool) -> History {
    let comment = Some("ctk".to_owned());
    History {
        created: Some(created.to_owned()),
        created_by: Some(created_by.to_owned()),
        comment,
        empty_layer,
        author: None,
    }
}

/// The bases' layers as OCI descriptors.
fn layers_of_bases(job: &Job<'_>) -> BTreeMap<LayerKey, (Descriptor, DiffId)> {
    let mut all = BTreeMap::new();
    for base in &job.plan.bases {
        for (descriptor, diff_id) in base.manifest.layers.iter().zip(&base.config.rootfs.diff_ids) {
            let mut descriptor = descriptor.clone();
            if let Some(compression) = media_type::layer_compression(&descriptor.media_type) {
                descriptor.media_type = compression.media_type().into();
            }
            all.insert(LayerKey::diff(diff_id), (descriptor, diff_id.clone()));
        }
    }
    all
}
