//! Large layers as several smaller ones ([`ctk_layer::divide`]), and the config that says so.

use std::io::{self, Read};

use ctk_layer::{Compression, Division, LayerError, LayerWriter, Split, TarReader, decode_ahead};
use ctk_oci::media_type::{self, LayerCompression};
use ctk_oci::{Descriptor, DiffId, Document, History, ImageConfig, Manifest};
use ctk_plan::Cancel;
use ctk_store::{Links, Store};
use serde::{Deserialize, Serialize};

use crate::limits::LAYERS;
use crate::packing::{Ground, PackingError};

/// Records of layers that were divided, by digest, compression and limit.
const RECORDS: &str = "divided";

/// A layer of an image.
pub(crate) type Piece = (Descriptor, DiffId);

/// What became of a layer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Divided {
    Whole,
    /// Why it could not be divided.
    Entangled(String),
    Pieces(Vec<Piece>),
}

/// The pieces of `layer`, compressed so or as it is; none when it stays whole.
pub(crate) fn layer(
    ground: Ground<'_>,
    layer: &Descriptor,
    compression: Option<Compression>,
    limit_bytes: u64,
) -> Result<Vec<Piece>, PackingError> {
    let Some(now) = media_type::layer_compression(&layer.media_type) else { return Ok(Vec::new()) };
    if now == LayerCompression::None && layer.size <= limit_bytes {
        return Ok(Vec::new());
    }
    let compression = compression.unwrap_or(match now {
        LayerCompression::None => Compression::None,
        LayerCompression::Gzip => Compression::GZIP,
        LayerCompression::Zstd => Compression::ZSTD,
    });
    let (store, key) = (ground.store, format!("{} {} {limit_bytes}", layer.digest, compression.key()));
    let divided = match known(store, &key)? {
        Some(known) => known,
        None => {
            let divided = divide(ground, layer, compression, limit_bytes).map_err(|error| match error {
                _ if ground.cancel.is_cancelled() => PackingError::Cancelled,
                error => error,
            })?;
            let blobs = match &divided {
                Divided::Pieces(pieces) => pieces.iter().map(|(piece, _)| piece.digest.clone()).collect(),
                Divided::Whole | Divided::Entangled(_) => Vec::new(),
            };
            store.put_record(RECORDS, &key, &divided, &Links { blobs, ..Links::default() })?;
            divided
        }
    };
    Ok(match divided {
        Divided::Whole => Vec::new(),
        Divided::Entangled(why) => {
            ground.reporter.warn(format!("layer {} stays whole: {why}", layer.digest));
            Vec::new()
        }
        Divided::Pieces(pieces) => pieces,
    })
}

/// What [`divide`] gave before, if it is still in the store.
fn known(store: &Store, key: &str) -> Result<Option<Divided>, PackingError> {
    let found = store.record::<Divided>(RECORDS, key)?;
    if let Some(Divided::Pieces(pieces)) = &found {
        for (piece, _) in pieces {
            if !store.contains(&piece.digest)? {
                return Ok(None);
            }
        }
    }
    Ok(found)
}

fn divide(
    ground: Ground<'_>,
    layer: &Descriptor,
    compression: Compression,
    limit_bytes: u64,
) -> Result<Divided, PackingError> {
    let failed = |source: LayerError| PackingError::Divide { layer: layer.digest.clone(), source };
    let mut tar = open(ground, layer)?;
    let found = ctk_layer::divide(&mut tar, limit_bytes).map_err(failed)?;
    // What lies behind the last entry is verified, too.
    tar.finish().map_err(failed)?;
    match found {
        Division::Whole => Ok(Divided::Whole),
        Division::Entangled { path, reason } => Ok(Divided::Entangled(format!("`{path}`: {reason}"))),
        Division::Pieces(split) if split.pieces() > LAYERS => {
            Err(PackingError::TooManyLayers { layers: split.pieces(), limit: LAYERS })
        }
        Division::Pieces(split) => Ok(Divided::Pieces(write(ground, layer, &split, compression)?)),
    }
}

fn write(
    ground: Ground<'_>,
    layer: &Descriptor,
    split: &Split,
    compression: Compression,
) -> Result<Vec<Piece>, PackingError> {
    let failed = |source: LayerError| PackingError::Divide { layer: layer.digest.clone(), source };
    let mut tar = open(ground, layer)?;
    let mut pieces = Vec::with_capacity(split.pieces());
    for number in 0..split.pieces() {
        let ingest = ground.store.ingest(None)?;
        let writer = LayerWriter::new(ingest, compression, workers()).map_err(|e| failed(LayerError::Write(e)))?;
        let writer = split.write(number, &mut tar, writer.cancelled_by(ground.cancel)).map_err(failed)?;
        let (ingest, summary) = writer.finish().map_err(|e| failed(LayerError::Write(e)))?;
        ingest.commit()?;
        pieces.push((summary.descriptor(), summary.diff_id));
    }
    Ok(pieces)
}

fn open(ground: Ground<'_>, layer: &Descriptor) -> Result<TarReader<impl Read>, PackingError> {
    let failed = |source| PackingError::Divide { layer: layer.digest.clone(), source: LayerError::Read(source) };
    let (_, stream) = decode_ahead(ground.store.open_blob(layer)?, workers()).map_err(failed)?;
    Ok(TarReader::new(Stopping { stream, cancel: ground.cancel.clone() }))
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A stream that fails once somebody says stop.
struct Stopping<R> {
    stream: R,
    cancel: Cancel,
}

impl<R: Read> Read for Stopping<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        self.stream.read(buffer)
    }
}

/// Puts the pieces of each layer, where there are some, in its place, in the manifest and in the config.
pub(crate) fn replace(store: &Store, manifest: &mut Manifest, division: Vec<Vec<Piece>>) -> Result<(), PackingError> {
    let config: Document<ImageConfig> = store.document("image config", &manifest.config)?;
    let mut config = config.into_value();
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(PackingError::LayerCount { layers, diff_ids });
    }
    let counts: Vec<usize> = division.iter().map(|pieces| pieces.len().max(1)).collect();
    let whole = std::mem::take(&mut manifest.layers).into_iter().zip(std::mem::take(&mut config.rootfs.diff_ids));
    for (whole, pieces) in whole.zip(division) {
        let pieces = if pieces.is_empty() { vec![whole] } else { pieces };
        let (layers, diff_ids): (Vec<_>, Vec<_>) = pieces.into_iter().unzip();
        manifest.layers.extend(layers);
        config.rootfs.diff_ids.extend(diff_ids);
    }
    if manifest.layers.len() > LAYERS {
        return Err(PackingError::TooManyLayers { layers: manifest.layers.len(), limit: LAYERS });
    }
    config.history = history(config.history, &counts);
    let media_type = manifest.config.media_type.clone();
    manifest.config = store.put(&media_type, Document::new(config).bytes())?;
    Ok(())
}

/// The history of an image whose layers became so many each: a line for every piece, as readers count them. One that
/// does not fit its layers is left alone.
fn history(history: Vec<History>, counts: &[usize]) -> Vec<History> {
    if history.iter().filter(|line| !line.empty_layer).count() != counts.len() {
        return history;
    }
    let mut counts = counts.iter();
    let mut lines = Vec::with_capacity(history.len());
    for line in history {
        let count = if line.empty_layer { 1 } else { *counts.next().expect("counted above") };
        for number in 1..=count {
            let mut line = line.clone();
            if count > 1 {
                let piece = format!("piece {number} of {count}");
                line.comment = Some(line.comment.map_or(piece.clone(), |comment| format!("{comment}, {piece}")));
            }
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_has_a_line_in_the_history() {
        let line = |by: &str, empty_layer| History {
            created_by: Some(by.into()),
            comment: (by == "b").then(|| "ctk".into()),
            empty_layer,
            ..History::default()
        };
        let all = vec![line("a", false), line("e", true), line("b", false), line("c", false)];
        let made = history(all.clone(), &[1, 2, 1]);
        let shown: Vec<String> = made
            .iter()
            .map(|l| format!("{} {}", l.created_by.as_deref().unwrap(), l.comment.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(shown, ["a -", "e -", "b ctk, piece 1 of 2", "b ctk, piece 2 of 2", "c -"]);
        assert_eq!(history(all.clone(), &[1, 2]), all, "it did not fit before");
    }
}
