//! What a build leaves to other machines.

use std::collections::{BTreeMap, BTreeSet};

use ctk_buildgraph::{KeyHasher, MountKind, Op};
use ctk_cache::{CacheError, Export, LayerRecord, Mode, MountRecord, Place, Records, Source};
use ctk_layer::Compression;
use ctk_oci::{Descriptor, DiffId, Digest};
use ctk_plan::Outcome;
use ctk_snapshot::{LayerKey, Packed};

use super::Imports;
use crate::mounts::SharedCache;
use crate::solve::{CONTENTS, Content, DEFINITIONS, Job, Tree};
use crate::{BuildError, BuildRequest};

/// Results of the image's instructions on all platforms.
#[derive(Default)]
pub(crate) struct Exports {
    trees: BTreeMap<String, Tree>,
    /// Layers of the images themselves.
    own: BTreeSet<LayerKey>,
    /// The dates of the images that layers are for.
    epochs: BTreeMap<LayerKey, i64>,
    /// Cache mounts: ids by names of directories.
    mounts: BTreeMap<String, String>,
}

/// A layer as it goes into a cache.
struct Outgoing {
    record: LayerRecord,
    blob: Descriptor,
}

impl Outgoing {
    fn new(packed: Packed, epoch: i64, compression: Compression) -> Outgoing {
        let Packed { descriptor, diff_id, uncompressed_size, cut } = packed;
        let digest = descriptor.digest.clone();
        let compression = compression.key();
        Outgoing {
            record: LayerRecord { diff_id, size: uncompressed_size, epoch, digest, compression, cut },
            blob: descriptor,
        }
    }
}

/// The records of an image in its own config; `packed` are its layers that were built, `image` all of them. They depend on
/// the instructions and on what these made alone, not on what this store knows besides: the image is the same from a
/// cache and without one. So layers are named after what they hold, and nothing is said of other stages.
pub(crate) fn inline(image: &Tree, packed: &BTreeMap<LayerKey, Packed>, job: &Job<'_>) -> serde_json::Value {
    let graph = &job.plan.lowered.graph;
    let keys = graph.definition_keys(job.digests);
    let epoch = job.epoch_seconds;
    let mut layers = BTreeMap::new();
    let mut pieces = Vec::new();
    for piece in &image.0 {
        let by = piece.by.clone();
        let Some((packed, made_by)) = packed.get(&piece.layer).zip(by.as_deref()) else {
            pieces.push(ctk_cache::Piece { layer: piece.layer.to_string(), by });
            continue;
        };
        let mut hasher = KeyHasher::new("inline");
        hasher.part(made_by.as_bytes()).part(packed.diff_id.to_string().as_bytes()).part(&epoch.to_le_bytes());
        let layer = LayerKey::op(hasher.finish().as_str()).expect("keys are hexadecimal").to_string();
        layers.insert(layer.clone(), Outgoing::new(packed.clone(), epoch, Compression::GZIP).record);
        pieces.push(ctk_cache::Piece { layer, by });
    }
    // From the image down to its base: each instruction's tree is what it put on the one below.
    let mut chain = vec![job.plan.lowered.image.vertex];
    while let Some(below) = graph.get(chain[chain.len() - 1]).inputs.first() {
        chain.push(*below);
    }
    let mut definitions = BTreeMap::new();
    let mut count = pieces.iter().take_while(|piece| piece.by.is_none()).count();
    for id in chain.into_iter().rev() {
        if matches!(graph.get(id).op, Op::Scratch | Op::Image { .. } | Op::Local { .. }) {
            continue;
        }
        let key = keys[id.index()].as_str();
        if pieces.get(count).is_some_and(|piece| piece.by.as_deref() == Some(key)) {
            count += 1;
        }
        definitions.insert(key.to_owned(), pieces[..count].to_vec());
    }
    let mut records = Records::new(&definitions);
    records.layers = layers;
    records.to_json()
}

impl Exports {
    /// Adds what is known of the instructions behind `image`.
    pub fn gather(&mut self, job: &Job<'_>, image: &Tree) -> Result<(), BuildError> {
        let graph = &job.plan.lowered.graph;
        let keys = graph.definition_keys(job.digests);
        self.own.extend(image.0.iter().filter(|piece| piece.by.is_some()).map(|piece| piece.layer.clone()));
        for id in graph.reachable(job.plan.lowered.image.vertex) {
            let op = &graph.get(id).op;
            if let Op::Exec(exec) = op {
                for mount in &exec.mounts {
                    if let MountKind::Cache { id, .. } = &mount.kind
                        && let Some(name) = SharedCache::name(&mount.kind)
                    {
                        self.mounts.insert(name, id.clone());
                    }
                }
            }
            if matches!(op, Op::Scratch | Op::Image { .. } | Op::Local { .. }) {
                continue;
            }
            let key = &keys[id.index()];
            let known = job.request.world.store.record::<Tree>(DEFINITIONS, key.as_str())?;
            let tree = match known {
                Some(tree) => tree,
                None => match job.imports.definition(job, key)? {
                    Some(tree) => tree,
                    None => continue,
                },
            };
            for piece in tree.0.iter().filter(|piece| piece.by.is_some()) {
                self.epochs.entry(piece.layer.clone()).or_insert(job.epoch_seconds);
            }
            self.trees.insert(key.as_str().to_owned(), tree);
        }
        Ok(())
    }

    /// The records of trees that are made of `layers` only.
    fn records(
        &self,
        layers: &BTreeMap<LayerKey, LayerRecord>,
        request: &BuildRequest<'_>,
        imports: &Imports<'_>,
    ) -> Result<Records, BuildError> {
        let mut definitions = BTreeMap::new();
        for (key, tree) in &self.trees {
            if tree.0.iter().any(|piece| piece.by.is_some() && !layers.contains_key(&piece.layer)) {
                continue;
            }
            let piece =
                |piece: &crate::solve::Piece| ctk_cache::Piece { layer: piece.layer.to_string(), by: piece.by.clone() };
            definitions.insert(key.clone(), tree.0.iter().map(piece).collect());
        }
        let mut records = Records::new(&definitions);
        for (layer, record) in layers {
            records.layers.insert(layer.to_string(), record.clone());
            // A layer is called by its content key, unless it was made without looking at earlier results.
            let Some(key) = layer.as_str().strip_prefix("op:") else { continue };
            let own = request.world.store.record::<Content>(CONTENTS, key)?;
            if own.is_some_and(|own| own.layer.as_ref() == Some(layer)) || imports.content(key)?.as_ref() == Some(layer)
            {
                records.contents.insert(key.to_owned(), layer.to_string());
            }
        }
        Ok(records)
    }

    /// Writes every cache that the request names.
    pub fn send(&self, request: &BuildRequest<'_>, imports: &Imports<'_>) -> Result<(), BuildError> {
        let Some(caches) = request.caches.filter(|_| !request.apart) else { return Ok(()) };
        for export in caches.to.iter().filter(|export| export.place != Place::Inline) {
            let world = &request.world;
            let place = export.place.name();
            let step = world.reporter.step(format!("export cache to {place}"));
            let sent = loop {
                // What turned out to be lost on the way is no part of the cache, and is lost once.
                match self.send_one(export, request, imports) {
                    Ok(None) => {}
                    Ok(Some(unchanged)) => break Ok(unchanged),
                    Err(error) => break Err(error),
                }
            };
            match sent {
                Ok(unchanged) => step.finish(if unchanged { Outcome::Cached } else { Outcome::Done }),
                Err(error) if error.is_cancelled() || world.cancel.is_cancelled() => {
                    step.finish(Outcome::Cancelled);
                    return Err(BuildError::Cancelled);
                }
                Err(error) => {
                    let line = match &error {
                        BuildError::CacheExport { source, .. } => source.line(),
                        error => error.to_string(),
                    };
                    step.finish(Outcome::Failed(line.clone()));
                    if !export.ignore_error {
                        return Err(error);
                    }
                    world.reporter.warn(format!("the cache was not exported to `{place}`: {line}"));
                }
            }
        }
        Ok(())
    }

    /// Writes one cache, and whether it was so before. Nothing, if a layer that another cache offered is not to be had:
    /// from then on it is not offered.
    fn send_one(
        &self,
        export: &Export,
        request: &BuildRequest<'_>,
        imports: &Imports<'_>,
    ) -> Result<Option<bool>, BuildError> {
        let caches = request.caches.expect("the caller has them");
        let (mut layers, mut blobs) = (BTreeMap::new(), BTreeMap::new());
        let mut keep = |diff_id: &DiffId, blob: Descriptor| {
            // The same files from two instructions.
            blobs.entry(diff_id.clone()).or_insert(blob).digest.clone()
        };
        for (layer, epoch) in &self.epochs {
            if export.mode == Mode::Min && !self.own.contains(layer) {
                continue;
            }
            let Some(Outgoing { mut record, blob }) = self.layer(layer, *epoch, export, request, imports)? else {
                continue;
            };
            let kept = keep(&record.diff_id, blob);
            if kept != record.digest {
                record.digest = kept;
            }
            layers.insert(layer.clone(), record);
        }
        let mut records = self.records(&layers, request, imports)?;
        for (name, id) in self.mounts.iter().filter(|(_, id)| export.mounts.has(id)) {
            if let Some((packed, id)) = self.mount(name, id, export, request, imports)? {
                keep(&packed.diff_id, packed.descriptor);
                let (diff_id, size) = (packed.diff_id, packed.uncompressed_size);
                records.mounts.insert(name.clone(), MountRecord { id, diff_id, size });
            }
        }
        let failed = |source: CacheError| match source {
            CacheError::Cancelled => BuildError::Cancelled,
            source => BuildError::CacheExport { place: export.place.name(), source: Box::new(source) },
        };
        let supply = |blob: &Descriptor| {
            imports.supply(blob).map_err(|error| match error {
                error if error.is_cancelled() => CacheError::Cancelled,
                _ => CacheError::Missing { place: blob.digest.to_string() },
            })
        };
        let known = imports.damaged();
        let damaged = |digest: &Digest| imports.distrusts() || known.contains(digest);
        let source = Source { supply: &supply, damaged: &damaged };
        match ctk_cache::export(export, records, blobs, &source, &caches.env(&request.world)) {
            Ok(sent) => Ok(Some(sent.unchanged)),
            Err(CacheError::Missing { .. }) if imports.damaged().len() > known.len() => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// A layer packed as the cache is to have it; nothing if nobody has it any more.
    fn layer(
        &self,
        layer: &LayerKey,
        epoch: i64,
        export: &Export,
        request: &BuildRequest<'_>,
        imports: &Imports<'_>,
    ) -> Result<Option<Outgoing>, BuildError> {
        let world = &request.world;
        if !world.snapshots.has(layer)? {
            let offers = imports.offers(layer)?;
            let wanted = export.compression.key();
            let fits = |offer: &&super::imports::Offer| offer.record.compression == wanted;
            let offer = offers.iter().find(fits).or(offers.first().filter(|_| !export.force_compression));
            if let Some(offer) = offer {
                return Ok(Some(Outgoing { record: offer.record.clone(), blob: offer.blob.clone() }));
            }
            if offers.is_empty() || imports.unpack(layer, world.cancel).is_err() {
                return Ok(None);
            }
        }
        let packed = world.snapshots.pack(layer, export.compression, Some(epoch), world.cancel)?;
        Ok(Some(Outgoing::new(packed, epoch, export.compression)))
    }

    /// A cache mount of this machine, else the one that came along.
    fn mount(
        &self,
        name: &str,
        id: &str,
        export: &Export,
        request: &BuildRequest<'_>,
        imports: &Imports<'_>,
    ) -> Result<Option<(Packed, String)>, BuildError> {
        let world = &request.world;
        if let Some(cache) = SharedCache::lock(world.store, name, world.cancel)? {
            let packed = world.snapshots.pack_directory(cache.path(), export.compression, world.cancel)?;
            return Ok(Some((packed, id.to_owned())));
        }
        let known = imports.caches().iter().enumerate().find_map(|(place, cache)| {
            let record = cache.records().mounts.get(name)?;
            let blob = cache.blob(&record.diff_id).filter(|blob| !imports.is_lost(place, &blob.digest))?.clone();
            let (diff_id, uncompressed_size) = (record.diff_id.clone(), record.size);
            let packed = Packed { descriptor: blob, diff_id, uncompressed_size, cut: false };
            Some((packed, record.id.clone()))
        });
        Ok(known)
    }
}
