//! `compression "zstd" level=3` and `layer-size "512MiB"`, inside `image` and `push`.

use ctk_layer::Compression;
use ctk_syntax::Reader;

use crate::limits;

/// How layers are to be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The codec, with its level.
    pub compression: Compression,
    /// The level, if it was said: then layers of that codec are compressed anew, too.
    pub level: Option<i64>,
    /// Whether layers of bases are compressed anew, too. A push means all layers anyway.
    pub force: bool,
}

#[derive(Clone, Copy)]
enum Codec {
    Gzip,
    Zstd,
    None,
}

/// Reads the node `compression` of `reader`; images may say `force` in it.
pub(crate) fn wanted(reader: &mut Reader<'_, '_>, image: bool) -> Option<Wanted> {
    let node = reader.opt_child("compression")?;
    let mut child = reader.child(node);
    let codec = child.arg_one_of("a codec", &[("gzip", Codec::Gzip), ("zstd", Codec::Zstd), ("none", Codec::None)]);
    let force = image && child.opt_prop_bool("force").is_some_and(|force| force.value);
    let mut level = |range| child.opt_prop_int("level", range).map(|level| level.value as i64);
    let found = match codec.map(|codec| codec.value) {
        Some(Codec::Gzip) => {
            let level = level(1..=9);
            Some((level.map_or(Compression::GZIP, |level| Compression::Gzip { level: level as u32 }), level))
        }
        Some(Codec::Zstd) => {
            let level = level(1..=19);
            Some((level.map_or(Compression::ZSTD, |level| Compression::Zstd { level: level as i32 }), level))
        }
        Some(Codec::None) => Some((Compression::None, None)),
        None => {
            // Whatever it says, the mistake is the codec.
            child.opt_prop("level");
            None
        }
    };
    child.finish();
    found.map(|(compression, level)| Wanted { compression, level, force })
}

/// Reads the node `layer-size` of `reader`: the most bytes of a layer's tar.
pub(crate) fn layer_size(reader: &mut Reader<'_, '_>) -> Option<u64> {
    let node = reader.opt_child("layer-size")?;
    let mut child = reader.child(node);
    let size = child.arg_size("the largest layer's size");
    if let Some(size) = &size
        && size.value < limits::LAYER_SIZE_MIN_BYTES
    {
        let message = format!("layers of {} bytes at most would be too many", size.value);
        child.error(ctk_syntax::codes::OUT_OF_RANGE, size.span, message, "expected `1MiB` or more");
    }
    child.finish();
    size.map(|size| size.value)
}
