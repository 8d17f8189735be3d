//! What other caches offer.

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, OnceLock};

use ctk_buildgraph::Key;
use ctk_cache::{Cache, CacheError, LayerRecord};
use ctk_layer::{Compression, decode};
use ctk_oci::{Descriptor, Digest};
use ctk_plan::{Cancel, Outcome};
use ctk_snapshot::{LayerKey, Packed, SnapshotError};
use ctk_store::Links;
use serde::{Deserialize, Serialize};

use crate::limits::CACHE_FAILURES;
use crate::solve::{DEFINITIONS, Job, Piece, Tree};
use crate::{BuildError, BuildRequest};

/// Layers that came from a cache and were not unpacked, by their names.
const LAYERS: &str = "cached-layer";

/// All caches that a build may read from.
pub(crate) struct Imports<'a> {
    request: &'a BuildRequest<'a>,
    opened: OnceLock<Vec<Cache>>,
    /// The date of the image that is being built.
    epoch_seconds: AtomicI64,
    lost: Mutex<Lost>,
}

#[derive(Default)]
struct Lost {
    blobs: HashSet<(usize, Digest)>,
    failures: Vec<usize>,
    /// Whether the records of some cache are there and cannot be read.
    unreadable: bool,
}

/// A layer as somebody has it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Offer {
    pub record: LayerRecord,
    pub blob: Descriptor,
    /// Which cache; none if the blob is in the store.
    #[serde(skip)]
    from: Option<usize>,
}

impl Offer {
    /// The layer as `compression` packs it; nothing if it is packed in another way.
    fn packed_by(&self, compression: Compression) -> Option<Packed> {
        // Who copied the image on may have packed it anew.
        let same = self.record.compression == compression.key() && self.record.digest == self.blob.digest;
        let media_type = compression.layer_compression().media_type();
        same.then(|| Packed {
            descriptor: Descriptor::new(media_type, self.blob.digest.clone(), self.blob.size),
            diff_id: self.record.diff_id.clone(),
            uncompressed_size: self.record.size,
            cut: self.record.cut,
        })
    }
}

impl<'a> Imports<'a> {
    pub fn new(request: &'a BuildRequest<'a>) -> Imports<'a> {
        // Until a date is known, every layer will do.
        let epoch_seconds = AtomicI64::new(i64::MIN);
        Imports { request, opened: OnceLock::new(), epoch_seconds, lost: Mutex::default() }
    }

    /// From now on, layers are for an image of this date.
    pub fn for_date(&self, epoch_seconds: i64) {
        self.epoch_seconds.store(epoch_seconds, Ordering::Relaxed);
    }

    /// Whether the layer is here, fit for the image.
    pub fn is_here(&self, layer: &LayerKey) -> Result<bool, BuildError> {
        Ok(self.request.world.snapshots.serves(layer, self.epoch_seconds.load(Ordering::Relaxed))?)
    }

    /// Whether nobody named a cache to import from.
    pub fn is_empty(&self) -> bool {
        self.request.caches.is_none_or(|caches| caches.from.is_empty())
    }

    /// Opens all caches, side by side, when first asked for. One that cannot be read is a warning.
    pub(super) fn caches(&self) -> &[Cache] {
        self.opened.get_or_init(|| {
            let world = &self.request.world;
            let Some(caches) = self.request.caches.filter(|c| !c.from.is_empty() && !self.request.no_cache) else {
                return Vec::new();
            };
            let step = world.reporter.step("read caches");
            let env = caches.env(world);
            let found: Vec<Result<Vec<Cache>, CacheError>> = std::thread::scope(|scope| {
                let open = |spec| scope.spawn(move || ctk_cache::import(spec, self.request.platforms, &env));
                let opening: Vec<_> = caches.from.iter().map(open).collect();
                opening.into_iter().map(|opening| opening.join().expect("reading a cache does not panic")).collect()
            });
            let mut opened = Vec::new();
            for (found, spec) in found.into_iter().zip(caches.from) {
                match found {
                    Ok(caches) => opened.extend(caches),
                    Err(CacheError::Cancelled) => {}
                    Err(error) => {
                        let missing = matches!(error, CacheError::Missing { .. });
                        self.lost.lock().expect("no panic while locked").unreadable |= !missing;
                        world.reporter.warn(format!("cache `{}`: {}", spec.place.name(), error.line()));
                    }
                }
            }
            step.finish(Outcome::Done);
            opened
        })
    }

    /// Everybody who has the layer, the store first.
    pub(super) fn offers(&self, layer: &LayerKey) -> Result<Vec<Offer>, BuildError> {
        let store = self.request.world.store;
        let epoch = self.epoch_seconds.load(Ordering::Relaxed);
        let serves = |record: &LayerRecord| !record.cut || epoch <= record.epoch;
        if let Some(own) = store.record::<Offer>(LAYERS, layer.as_str())?
            && serves(&own.record)
            && store.contains(&own.blob.digest)?
        {
            return Ok(vec![own]);
        }
        let offers = self.caches().iter().enumerate().filter_map(|(place, cache)| {
            let record = cache.records().layers.get(layer.as_str())?.clone();
            let blob = cache.blob(&record.diff_id)?.clone();
            (serves(&record) && !self.is_lost(place, &blob.digest)).then_some(Offer { record, blob, from: Some(place) })
        });
        Ok(offers.collect())
    }

    pub(super) fn is_lost(&self, place: usize, digest: &Digest) -> bool {
        let lost = self.lost.lock().expect("no panic while locked");
        let failures = lost.failures.iter().filter(|failed| **failed == place).count();
        failures >= CACHE_FAILURES || lost.blobs.contains(&(place, digest.clone()))
    }

    /// Blobs that some cache has no more, or not as it should.
    pub(super) fn damaged(&self) -> HashSet<Digest> {
        let lost = self.lost.lock().expect("no panic while locked");
        lost.blobs.iter().map(|(_, digest)| digest.clone()).collect()
    }

    /// Whether some cache is there and cannot be read at all.
    pub(super) fn distrusts(&self) -> bool {
        self.lost.lock().expect("no panic while locked").unreadable
    }

    /// Whether somebody has the layer.
    pub fn has(&self, layer: &LayerKey) -> Result<bool, BuildError> {
        Ok(!self.offers(layer)?.is_empty())
    }

    /// Whether all that was built of a tree is here or can be had.
    pub fn has_tree(&self, tree: &Tree) -> Result<bool, BuildError> {
        for piece in tree.0.iter().filter(|piece| piece.by.is_some()) {
            if !self.is_here(&piece.layer)? && !self.has(&piece.layer)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The tree that a cache knows for a definition. The store remembers it.
    pub fn definition(&self, job: &Job<'_>, key: &Key) -> Result<Option<Tree>, BuildError> {
        for cache in self.caches() {
            let Some(pieces) = cache.records().definition(key.as_str()) else { continue };
            let piece = |piece: ctk_cache::Piece| {
                let layer = piece.layer.parse::<LayerKey>().ok()?;
                Some(Piece { layer, by: piece.by })
            };
            let Some(pieces) = pieces.into_iter().map(piece).collect::<Option<Vec<Piece>>>() else { continue };
            let of_base = |layer: &LayerKey| {
                let mut diff_ids = job.plan.bases.iter().flat_map(|base| &base.config.rootfs.diff_ids);
                diff_ids.any(|diff_id| LayerKey::diff(diff_id) == *layer)
            };
            let tree = Tree(pieces);
            // Whatever a cache says of bases, they come from where the image says.
            if tree.0.iter().any(|piece| piece.by.is_none() && !of_base(&piece.layer)) || !self.has_tree(&tree)? {
                continue;
            }
            self.request.world.store.put_record(DEFINITIONS, key.as_str(), &tree, &Links::default())?;
            return Ok(Some(tree));
        }
        Ok(None)
    }

    /// The layer that a cache knows for a content key.
    pub fn content(&self, key: &str) -> Result<Option<LayerKey>, BuildError> {
        for cache in self.caches() {
            let layer = cache.records().contents.get(key).and_then(|layer| layer.parse().ok());
            if let Some(layer) = layer
                && (self.is_here(&layer)? || self.has(&layer)?)
            {
                return Ok(Some(layer));
            }
        }
        Ok(None)
    }

    /// Brings the layer's blob into the store. `false`: this offer is worth nothing.
    fn bring(&self, layer: &LayerKey, offer: &Offer) -> Result<bool, BuildError> {
        let Some(place) = offer.from else { return Ok(true) };
        if !self.fetch(place, &offer.blob)? {
            return Ok(false);
        }
        let links = Links { blobs: vec![offer.blob.digest.clone()], ..Links::default() };
        self.request.world.store.put_record(LAYERS, layer.as_str(), offer, &links)?;
        Ok(true)
    }

    fn fetch(&self, place: usize, blob: &Descriptor) -> Result<bool, BuildError> {
        let world = &self.request.world;
        let caches = self.request.caches.expect("caches were opened");
        let (cache, mut env) = (&self.caches()[place], caches.env(world));
        let step = world.reporter.step(format!("fetch {} from {}", blob.digest, cache.place()));
        env.step = Some(&step);
        match cache.fetch(blob, &env) {
            Ok(()) => {
                step.finish(Outcome::Done);
                Ok(true)
            }
            Err(CacheError::Cancelled) => {
                step.finish(Outcome::Cancelled);
                Err(BuildError::Cancelled)
            }
            Err(_) if world.cancel.is_cancelled() => Err(BuildError::Cancelled),
            Err(error) => {
                step.finish(Outcome::Failed(error.to_string()));
                self.lose(place, blob, &error.line());
                Ok(false)
            }
        }
    }

    fn lose(&self, place: usize, blob: &Descriptor, why: &str) {
        let world = &self.request.world;
        let name = self.caches()[place].place();
        world.reporter.warn(format!("cache `{name}`: {} cannot be used: {why}", blob.digest));
        let mut lost = self.lost.lock().expect("no panic while locked");
        lost.blobs.insert((place, blob.digest.clone()));
        lost.failures.push(place);
    }

    /// An offer that was brought turned out bad.
    fn drop_offer(&self, layer: &LayerKey, offer: &Offer, why: &str) -> Result<(), BuildError> {
        self.request.world.store.remove_record(LAYERS, layer.as_str())?;
        match offer.from {
            Some(place) => self.lose(place, &offer.blob, why),
            None => self.request.world.reporter.warn(format!("cached layer {}: {why}", offer.blob.digest)),
        }
        Ok(())
    }

    /// Fetches and unpacks a layer that somebody has.
    pub fn unpack(&self, layer: &LayerKey, cancel: &Cancel) -> Result<(), BuildError> {
        let world = &self.request.world;
        loop {
            let Some(offer) = self.offers(layer)?.into_iter().next() else {
                return Err(BuildError::CacheLost { layer: layer.to_string() });
            };
            if !self.bring(layer, &offer)? {
                continue;
            }
            let times = (offer.record.epoch, world.now_seconds, offer.record.cut);
            let unpacked = world.snapshots.unpack_built(layer, &offer.blob, &offer.record.diff_id, times, cancel);
            match unpacked {
                Ok(()) => {}
                Err(SnapshotError::Cancelled) => return Err(BuildError::Cancelled),
                Err(error) => {
                    self.drop_offer(layer, &offer, &error.to_string())?;
                    continue;
                }
            }
            for compression in [Compression::GZIP, Compression::ZSTD, Compression::None] {
                if let Some(packed) = offer.packed_by(compression) {
                    world.snapshots.remember_packed(layer, compression, offer.record.epoch, &packed)?;
                }
            }
            return Ok(());
        }
    }

    /// The layer packed for an image of date `epoch`, its blob in the store, without unpacking it if somebody has just
    /// that. Nothing if it is unpacked: then it is to be packed.
    pub fn packed(&self, layer: &LayerKey, epoch: i64) -> Result<Option<Packed>, BuildError> {
        let world = &self.request.world;
        if world.snapshots.has(layer)? {
            return Ok(None);
        }
        loop {
            let fits = |offer: &Offer| offer.record.epoch == epoch && offer.packed_by(Compression::GZIP).is_some();
            let Some(offer) = self.offers(layer)?.into_iter().find(fits) else {
                return self.unpack(layer, world.cancel).map(|()| None);
            };
            if !self.bring(layer, &offer)? {
                continue;
            }
            match self.check(&offer) {
                Ok(()) => return Ok(offer.packed_by(Compression::GZIP)),
                Err(why) => self.drop_offer(layer, &offer, &why)?,
            }
        }
    }

    /// Whether the blob is the layer that the records say it is.
    fn check(&self, offer: &Offer) -> Result<(), String> {
        let unpack = || -> io::Result<Digest> {
            let blob = self.request.world.store.open_blob(&offer.blob).map_err(io::Error::other)?;
            let (_, mut tar) = decode(blob)?;
            let mut digester = offer.record.diff_id.0.algorithm().digester();
            let mut buffer = vec![0; 256 << 10];
            loop {
                match tar.read(&mut buffer)? {
                    0 => return Ok(digester.finish()),
                    n => digester.update(&buffer[..n]),
                }
            }
        };
        match unpack() {
            Ok(found) if found == offer.record.diff_id.0 => Ok(()),
            Ok(found) => Err(format!("its tar is {found}, not {}", offer.record.diff_id.0)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Brings a blob of some cache into the store: for an export that wants it elsewhere.
    pub(super) fn supply(&self, blob: &Descriptor) -> Result<(), BuildError> {
        for (place, cache) in self.caches().iter().enumerate() {
            let layers = cache.records().layers.values().map(|record| &record.diff_id);
            let mounts = cache.records().mounts.values().map(|record| &record.diff_id);
            let has = layers.chain(mounts).filter_map(|id| cache.blob(id)).any(|found| found.digest == blob.digest);
            if has && !self.is_lost(place, &blob.digest) && self.fetch(place, blob)? {
                return Ok(());
            }
        }
        Err(BuildError::CacheLost { layer: blob.digest.to_string() })
    }

    /// Fills the new, empty `directory` with the cache mount `name`. `false`: nobody has it, and it is empty.
    pub fn mount(&self, name: &str, id: &str, directory: &Path, cancel: &Cancel) -> Result<bool, BuildError> {
        let world = &self.request.world;
        for (place, cache) in self.caches().iter().enumerate() {
            let Some(record) = cache.records().mounts.get(name).filter(|_| cache.gives_mount(id)) else { continue };
            let Some(blob) = cache.blob(&record.diff_id) else { continue };
            if self.is_lost(place, &blob.digest) || !self.fetch(place, blob)? {
                continue;
            }
            match world.snapshots.unpack_directory(blob, &record.diff_id, directory, cancel) {
                Ok(()) => return Ok(true),
                Err(SnapshotError::Cancelled) => return Err(BuildError::Cancelled),
                Err(error) => {
                    self.lose(place, blob, &error.to_string());
                    std::fs::remove_dir_all(directory).map_err(BuildError::read("remove", directory))?;
                    std::fs::create_dir(directory).map_err(BuildError::read("create", directory))?;
                }
            }
        }
        Ok(false)
    }
}
