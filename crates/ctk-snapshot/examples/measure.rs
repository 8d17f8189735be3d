//! Times of packing and unpacking a directory: `measure DIRECTORY SCRATCH`. Prints seconds, a line each.

use std::error::Error;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use ctk_layer::Compression;
use ctk_oci::{Document, ImageConfig, Manifest, media_type};
use ctk_plan::Cancel;
use ctk_snapshot::copy::{CopiedXattrs, CopyOptions, Mtime, copy_into};
use ctk_snapshot::{LayerKey, Snapshots};
use ctk_store::Store;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, directory, scratch] = &arguments[..] else { return Err("usage: measure DIRECTORY SCRATCH".into()) };
    let (scratch, cancel) = (Path::new(scratch), Cancel::new());
    let snapshots = Snapshots::open(&Store::open(&scratch.join("one"))?);
    let timed = |what: &str, since: Instant| println!("{what} {:.3}", since.elapsed().as_secs_f64());
    let workspace = snapshots.begin(&[])?;
    let (to, from) = (workspace.open_root()?, std::fs::File::open(directory)?);
    let keep = CopyOptions {
        owner: None,
        mode: None,
        mtime: Mtime::Keep,
        parents_mode: 0o755,
        follow: false,
        xattrs: CopiedXattrs::All,
        filter: None,
    };
    let started = Instant::now();
    copy_into(to.as_fd(), b"/", from.as_fd(), b"/", &keep, &cancel)?;
    timed("copy", started);
    drop(to);
    let key = LayerKey::op(&"ab".repeat(32))?;
    let started = Instant::now();
    workspace.commit(&key)?;
    timed("commit", started);
    for (name, compression) in [
        ("none", Compression::None),
        ("gzip", Compression::GZIP),
        ("gzip1", Compression::Gzip { level: 1 }),
        ("zstd", Compression::ZSTD),
    ] {
        let started = Instant::now();
        let packed = snapshots.pack(&key, compression, None, &cancel)?;
        timed(&format!("pack-{name}"), started);
        println!("size-{name} {}", packed.descriptor.size);
        let other = Snapshots::open(&Store::open(&scratch.join(name))?);
        let mut config = ImageConfig::default();
        config.rootfs.diff_ids.push(packed.diff_id.clone());
        let mut ingest = other.store().ingest(Some(&packed.descriptor))?;
        ingest.fill("layer", snapshots.store().open_blob(&packed.descriptor)?)?;
        ingest.commit()?;
        let config = other.store().put(media_type::CONFIG, Document::new(config).bytes())?;
        let manifest = Manifest::image(config, vec![packed.descriptor]);
        let started = Instant::now();
        other.unpack_image(&manifest, None, &cancel)?;
        timed(&format!("unpack-{name}"), started);
    }
    let started = Instant::now();
    Store::open(&scratch.join("one"))?;
    timed("open", started);
    Ok(())
}
