//! The same image with its layers compressed otherwise: new layer blobs and manifests, the same config and diffIDs.

use std::io::{self, Read};

use ctk_layer::{Compression, LayerWriter, decode};
use ctk_oci::{Descriptor, Document, Index, Manifest, media_type};
use ctk_plan::{Cancel, ProgressUnit, Step};
use ctk_store::{Links, Store, StoreError};

use crate::compression::Wanted;
use crate::layout::reachable;

/// Records of layers and images that were recompressed, by digest and compression.
const RECORDS: &str = "recompressed";

fn key(descriptor: &Descriptor, compression: &str) -> String {
    format!("{} {compression}", descriptor.digest)
}

/// What [`recompress`] gave before, if it is still in the store.
pub(crate) fn recompressed(
    store: &Store,
    image: &Descriptor,
    wanted: &Wanted,
) -> Result<Option<Descriptor>, StoreError> {
    noted(store, image, &wanted.key())
}

fn noted(store: &Store, from: &Descriptor, compression: &str) -> Result<Option<Descriptor>, StoreError> {
    match store.record::<Descriptor>(RECORDS, &key(from, compression))? {
        Some(found) if store.contains(&found.digest)? => Ok(Some(found)),
        _ => Ok(None),
    }
}

/// `image` (a manifest or an index) with every layer compressed so. A layer that is already in that codec stays as it
/// is, unless a level was said.
pub(crate) fn recompress(
    store: &Store,
    image: &Descriptor,
    wanted: &Wanted,
    step: &Step,
    cancel: &Cancel,
) -> Result<Descriptor, StoreError> {
    if let Some(known) = recompressed(store, image, wanted)? {
        // Its parts may have been collected.
        let parts = reachable(store, &known)?;
        let mut whole = true;
        for part in &parts {
            whole &= store.contains(&part.digest)?;
        }
        if whole {
            return Ok(named_as(image, known));
        }
    }
    let made = if media_type::is_index(&image.media_type) {
        let index: Document<Index> = store.document("image index", image)?;
        let mut index = index.into_value();
        for member in &mut index.manifests {
            if media_type::is_manifest(&member.media_type) || media_type::is_index(&member.media_type) {
                *member = recompress(store, member, wanted, step, cancel)?;
            }
        }
        store.put(&image.media_type, Document::new(index).bytes())?
    } else {
        let manifest: Document<Manifest> = store.document("image manifest", image)?;
        let unchanged = manifest.value().clone();
        let mut manifest = manifest.into_value();
        let total = manifest.layers.len() as u64;
        for (done, layer) in manifest.layers.iter_mut().enumerate() {
            step.progress(done as u64, Some(total), ProgressUnit::Items);
            *layer = recompress_layer(store, layer, wanted.compression, wanted.level.is_some(), cancel)?;
        }
        step.progress(total, Some(total), ProgressUnit::Items);
        if manifest == unchanged {
            return Ok(image.clone());
        }
        // Docker's manifests know no zstd.
        manifest.media_type = Some(media_type::MANIFEST.into());
        manifest.config.media_type = media_type::CONFIG.into();
        store.put(media_type::MANIFEST, Document::new(manifest).bytes())?
    };
    let links = Links { blobs: vec![made.digest.clone()], ..Links::default() };
    store.put_record(RECORDS, &key(image, &wanted.key()), &made, &links)?;
    Ok(named_as(image, made))
}

/// What names `made` says what named `image`.
fn named_as(image: &Descriptor, made: Descriptor) -> Descriptor {
    Descriptor { platform: image.platform.clone(), annotations: image.annotations.clone(), ..made }
}

/// A layer in that compression. One that is already in that codec stays as it is, unless `level` says that its level
/// counts too.
pub(crate) fn recompress_layer(
    store: &Store,
    layer: &Descriptor,
    compression: Compression,
    level: bool,
    cancel: &Cancel,
) -> Result<Descriptor, StoreError> {
    let Some(now) = media_type::layer_compression(&layer.media_type) else { return Ok(layer.clone()) };
    if now == compression.layer_compression() && !level {
        return Ok(layer.clone());
    }
    if let Some(known) = noted(store, layer, &compression.key())? {
        return Ok(known);
    }
    let failed = |source| StoreError::Input { what: format!("layer {}", layer.digest), source };
    let (_, mut tar) = decode(store.open_blob(layer)?).map_err(failed)?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut writer = LayerWriter::new(store.ingest(None)?, compression, workers).map_err(failed)?;
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
    store.put_record(RECORDS, &key(layer, &compression.key()), &made, &links)?;
    Ok(made)
}
