//! A directory as a layer, packed now: `pack STORE DIRECTORY [gzip|zstd|none]`. Prints its digest, its size as stored and
//! its size as tar, in bytes.

use std::error::Error;
use std::path::Path;

use ctk_layer::Compression;
use ctk_plan::Cancel;
use ctk_snapshot::Snapshots;
use ctk_store::Store;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (store, directory, compression) = match &arguments[..] {
        [store, directory] => (store, directory, "gzip"),
        [store, directory, compression] => (store, directory, compression.as_str()),
        _ => return Err("usage: pack STORE DIRECTORY [gzip|zstd|none]".into()),
    };
    let compression = match compression {
        "gzip" => Compression::GZIP,
        "zstd" => Compression::ZSTD,
        "none" => Compression::None,
        other => return Err(format!("expected gzip, zstd or none, found `{other}`").into()),
    };
    let snapshots = Snapshots::open(&Store::open(Path::new(store))?);
    let packed = snapshots.pack_directory(Path::new(directory), compression, &Cancel::new())?;
    println!("{} {} {}", packed.descriptor.digest, packed.descriptor.size, packed.uncompressed_size);
    Ok(())
}
