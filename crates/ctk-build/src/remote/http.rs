//! Contexts from URLs: downloaded into the store.

use ctk_buildgraph::RemoteFile;
use ctk_oci::Digest;
use ctk_plan::{ProgressUnit, Step};
use ctk_snapshot::copy::is_archive;
use ctk_store::Links;

use crate::limits::DOWNLOAD_BYTES;
use crate::{BuildError, World};

/// Records of downloads: whether the file is an archive.
const FILES: &str = "context-file";

/// The file, if it is in the store.
pub(super) fn known(digest: &Digest, world: &World<'_>) -> Result<Option<RemoteFile>, BuildError> {
    let Some(archive) = world.store.record::<bool>(FILES, &digest.to_string())? else { return Ok(None) };
    Ok(world.store.contains(digest)?.then(|| RemoteFile { digest: digest.clone(), archive }))
}

/// Notes that the file `digest` of the store is a context's.
pub(super) fn note(digest: Digest, world: &World<'_>) -> Result<RemoteFile, BuildError> {
    let archive = is_archive(world.store.open_raw(&digest)?);
    let links = Links { blobs: vec![digest.clone()], ..Links::default() };
    world.store.put_record(FILES, &digest.to_string(), &archive, &links)?;
    Ok(RemoteFile { digest, archive })
}

pub(super) fn download(url: &str, world: &World<'_>, step: &Step) -> Result<RemoteFile, BuildError> {
    let digest = ctk_http::runtime().block_on(fetch(url, world, step))?;
    note(digest, world)
}

async fn fetch(url: &str, world: &World<'_>, step: &Step) -> Result<Digest, BuildError> {
    let failed = |reason: String| BuildError::Download { url: url.to_owned(), reason };
    let why = |error: &dyn std::error::Error| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            text.push_str(&format!(": {inner}"));
            cause = inner.source();
        }
        text
    };
    let client = ctk_http::client(world.http).map_err(|e| failed(e.to_string()))?;
    let mut response = client.get(url).send().await.map_err(|e| failed(why(&e)))?;
    if !response.status().is_success() {
        return Err(failed(format!("the server answered {}", response.status())));
    }
    let total = response.content_length();
    let mut into = world.store.ingest(None)?;
    let mut done = 0u64;
    while let Some(chunk) = response.chunk().await.map_err(|e| failed(why(&e)))? {
        if world.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        done += chunk.len() as u64;
        if done > DOWNLOAD_BYTES {
            return Err(failed(format!("it is larger than {DOWNLOAD_BYTES} bytes")));
        }
        into.write_bytes(&chunk)?;
        step.progress(done, total, ProgressUnit::Bytes);
    }
    Ok(into.commit()?.0)
}
