//! The same image with its layers packed otherwise: compressed anew, or divided into smaller ones. New layer blobs and
//! manifests; the config changes only where layers were divided.

use std::io::{self, Read};

use ctk_layer::{Compression, LayerError, LayerWriter, decode};
use ctk_oci::{Descriptor, Digest, Document, Index, Manifest, media_type};
use ctk_plan::{Cancel, ProgressUnit, Reporter, Step};
use ctk_store::{Links, Store, StoreError};

use crate::compression::Wanted;
use crate::divide;
use crate::layout::reachable;

/// Records of layers and images that were packed anew, by digest and packing.
const RECORDS: &str = "recompressed";

/// How the layers of an image travel. The default is as they were built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    /// How they are compressed.
    pub compression: Option<Compression>,
    /// Whether layers in that codec are compressed anew, for their level's sake.
    pub level: bool,
    /// The most bytes that the tar of a layer may have before it becomes several.
    pub layer_limit_bytes: Option<u64>,
}

impl Packing {
    /// What the nodes of a project file say.
    pub(crate) fn said(compression: Option<Wanted>, layer_limit_bytes: Option<u64>) -> Packing {
        let level = compression.is_some_and(|wanted| wanted.level.is_some());
        Packing { compression: compression.map(|wanted| wanted.compression), level, layer_limit_bytes }
    }

    /// Whether anything changes.
    pub(crate) fn is_as_built(self) -> bool {
        self == Packing::default()
    }

    fn key(self) -> String {
        let mut compression = self.compression.map_or_else(|| "as built".to_owned(), Compression::key);
        if self.level {
            compression += " whatever they are";
        }
        match self.layer_limit_bytes {
            None => compression,
            Some(limit) => format!("{compression} {limit}"),
        }
    }

    /// What is done, for people.
    pub(crate) fn title(self) -> String {
        let compress = self.compression.map(|compression| format!("compress with {compression}"));
        let divide = self.layer_limit_bytes.map(|limit| format!("divide layers over {limit} bytes"));
        compress.into_iter().chain(divide).collect::<Vec<_>>().join(", ")
    }
}

/// Why layers could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackingError {
    /// The store.
    #[error(transparent)]
    Store(StoreError),
    /// A layer makes no sense, or its pieces could not be written.
    #[error("cannot divide layer {layer}")]
    Divide {
        /// The layer.
        layer: Digest,
        /// Why.
        #[source]
        source: LayerError,
    },
    /// The config speaks of other layers than the manifest.
    #[error("the image has {layers} layers, but its config names {diff_ids} diffIDs")]
    LayerCount {
        /// Layers of the manifest.
        layers: usize,
        /// DiffIDs of the config.
        diff_ids: usize,
    },
    /// More layers than containers can be made of.
    #[error(
        "with `layer-size` the image has {layers} layers, and no more than {limit} can be mounted; choose a larger size"
    )]
    TooManyLayers {
        /// How many it would have.
        layers: usize,
        /// The limit.
        limit: usize,
    },
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}

impl From<StoreError> for PackingError {
    fn from(error: StoreError) -> PackingError {
        match error {
            StoreError::Cancelled => PackingError::Cancelled,
            error => PackingError::Store(error),
        }
    }
}

/// What packing is done with.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// Where the image is and goes.
    pub store: &'a Store,
    /// Hears of layers that stay whole.
    pub reporter: &'a Reporter,
    /// Asked while layers are packed.
    pub cancel: &'a Cancel,
}

fn key(descriptor: &Descriptor, packing: Packing) -> String {
    format!("{} {}", descriptor.digest, packing.key())
}

/// What [`pack`] gave before, if it is still in the store.
pub(crate) fn packed(store: &Store, image: &Descriptor, packing: Packing) -> Result<Option<Descriptor>, StoreError> {
    match store.record::<Descriptor>(RECORDS, &key(image, packing))? {
        Some(found) if store.contains(&found.digest)? => Ok(Some(found)),
        _ => Ok(None),
    }
}

/// `image` (a manifest or an index) with every layer packed so. A layer that is already in that codec stays as it is,
/// unless a level was said.
pub(crate) fn pack(
    ground: Ground<'_>,
    image: &Descriptor,
    packing: Packing,
    step: &Step,
) -> Result<Descriptor, PackingError> {
    let store = ground.store;
    if let Some(known) = packed(store, image, packing)? {
        // Its parts may have been collected.
        let parts = reachable(store, &known)?;
        let mut whole = true;
        for part in &parts {
            whole &= store.contains(&part.digest)?;
        }
        if whole {
            return Ok(known);
        }
    }
    let mut made = if media_type::is_index(&image.media_type) {
        let index: Document<Index> = store.document("image index", image)?;
        let mut index = index.into_value();
        for member in &mut index.manifests {
            if media_type::is_manifest(&member.media_type) || media_type::is_index(&member.media_type) {
                *member = pack(ground, member, packing, step)?;
            }
        }
        store.put(&image.media_type, Document::new(index).bytes())?
    } else {
        let manifest: Document<Manifest> = store.document("image manifest", image)?;
        let unchanged = manifest.value().clone();
        let mut manifest = manifest.into_value();
        let total = manifest.layers.len() as u64;
        let progress = |done: u64| step.progress(done, Some(total), ProgressUnit::Items);
        pack_layers(ground, &mut manifest, &|_| packing, &progress)?;
        if manifest == unchanged {
            return Ok(image.clone());
        }
        // Docker's manifests know no zstd.
        manifest.media_type = Some(media_type::MANIFEST.into());
        manifest.config.media_type = media_type::CONFIG.into();
        store.put(media_type::MANIFEST, Document::new(manifest).bytes())?
    };
    made.platform.clone_from(&image.platform);
    made.annotations.clone_from(&image.annotations);
    let links = Links { blobs: vec![made.digest.clone()], ..Links::default() };
    store.put_record(RECORDS, &key(image, packing), &made, &links)?;
    Ok(named_as(image, made))
}

/// What names `made` says what named `image`.
fn named_as(image: &Descriptor, made: Descriptor) -> Descriptor {
    Descriptor { platform: image.platform.clone(), annotations: image.annotations.clone(), ..made }
}

/// Packs the layers of `manifest`, each as `how` says, and gives it another config if some were divided. `progress`
/// hears how many are done.
pub(crate) fn pack_layers(
    ground: Ground<'_>,
    manifest: &mut Manifest,
    how: &dyn Fn(&Descriptor) -> Packing,
    progress: &dyn Fn(u64),
) -> Result<(), PackingError> {
    let mut division = Vec::with_capacity(manifest.layers.len());
    for (done, layer) in manifest.layers.iter_mut().enumerate() {
        progress(done as u64);
        let packing = how(layer);
        let pieces = match packing.layer_limit_bytes {
            Some(limit) => divide::layer(ground, layer, packing.compression, limit)?,
            None => Vec::new(),
        };
        if let Some(compression) = packing.compression
            && pieces.is_empty()
        {
            *layer = recompress(ground, layer, compression, packing.level)?;
        }
        division.push(pieces);
    }
    progress(manifest.layers.len() as u64);
    if division.iter().any(|pieces| !pieces.is_empty()) {
        divide::replace(ground.store, manifest, division)?;
    }
    Ok(())
}

/// A layer in that compression. One that is already in that codec stays as it is, unless `level` says that its level
/// counts too.
fn recompress(
    Ground { store, cancel, .. }: Ground<'_>,
    layer: &Descriptor,
    compression: Compression,
    level: bool,
) -> Result<Descriptor, StoreError> {
    let Some(now) = media_type::layer_compression(&layer.media_type) else { return Ok(layer.clone()) };
    if now == compression.layer_compression() && !level {
        return Ok(layer.clone());
    }
    let packing = Packing { compression: Some(compression), ..Packing::default() };
    if let Some(known) = packed(store, layer, packing)? {
        return Ok(known);
    }
    let failed = |source| match cancel.is_cancelled() {
        true => StoreError::Cancelled,
        false => StoreError::Input { what: format!("layer {}", layer.digest), source },
    };
    let (_, mut tar) = decode(store.open_blob(layer)?).map_err(failed)?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut writer = LayerWriter::new(store.ingest(None)?, compression, workers).map_err(failed)?.cancelled_by(cancel);
    let mut buffer = vec![0u8; 256 << 10];
    loop {
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        match tar.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => io::Write::write_all(&mut writer, &buffer[..count]).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let (ingest, summary) = writer.finish().map_err(failed)?;
    ingest.commit()?;
    let mut made = summary.descriptor();
    made.annotations.clone_from(&layer.annotations);
    let links = Links { blobs: vec![made.digest.clone()], ..Links::default() };
    store.put_record(RECORDS, &key(layer, packing), &made, &links)?;
    Ok(made)
}
