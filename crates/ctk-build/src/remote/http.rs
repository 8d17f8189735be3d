//! Files from URLs: downloaded into the store, and asked for again only if they changed.

use std::time::SystemTime;

use ctk_buildgraph::{KeyHasher, RemoteFile};
use ctk_oci::Digest;
use ctk_plan::{ProgressUnit, Step};
use ctk_snapshot::copy::is_archive;
use ctk_store::Links;
use serde::{Deserialize, Serialize};

use super::Given;
use crate::limits::DOWNLOAD_BYTES;
use crate::{BuildError, World};

/// Records of files: whether each is an archive.
const FILES: &str = "context-file";
/// Records of what URLs gave last.
const URLS: &str = "url";

/// What a URL gave, and what to ask for it again with (RFC 9110, section 8.8).
#[derive(Serialize, Deserialize)]
struct Visit {
    /// The blob.
    digest: Digest,
    /// The same content by the algorithm that somebody asked for.
    also: Option<Digest>,
    etag: Option<String>,
    last_modified: Option<String>,
}

impl Visit {
    fn last(url: &str, world: &World<'_>) -> Result<Option<Visit>, BuildError> {
        Ok(world.store.record(URLS, &key(url))?)
    }

    fn gave(&self, digest: &Digest) -> bool {
        self.digest == *digest || self.also.as_ref() == Some(digest)
    }

    /// 1970 if the server did not say.
    fn modified(&self) -> SystemTime {
        let parsed = self.last_modified.as_deref().and_then(|text| httpdate::parse_http_date(text).ok());
        parsed.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

fn key(url: &str) -> String {
    KeyHasher::new("url").part(url.as_bytes()).finish().to_string()
}

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

/// What the URL gives now.
pub(super) fn download(url: &str, given: &Given<'_>, step: &Step) -> Result<RemoteFile, BuildError> {
    let visit = visit(url, None, given, step)?;
    note(visit.digest, given.world)
}

/// Brings the file `digest` from its URL, unless that gave it before. Gives the blob that it is, and when the server says
/// that it was changed.
pub(super) fn bring(
    url: &str,
    digest: &Digest,
    given: &Given<'_>,
    step: &Step,
) -> Result<(Digest, SystemTime), BuildError> {
    if let Some(brought) = brought(url, digest, given.world)? {
        return Ok(brought);
    }
    let visit = visit(url, Some(digest), given, step)?;
    Ok((visit.digest.clone(), visit.modified()))
}

/// The same if the URL gave that file last.
pub(super) fn brought(
    url: &str,
    digest: &Digest,
    world: &World<'_>,
) -> Result<Option<(Digest, SystemTime)>, BuildError> {
    let Some(visit) = Visit::last(url, world)?.filter(|visit| visit.gave(digest)) else { return Ok(None) };
    Ok(world.store.contains(&visit.digest)?.then(|| (visit.digest.clone(), visit.modified())))
}

fn visit(url: &str, wanted: Option<&Digest>, given: &Given<'_>, step: &Step) -> Result<Visit, BuildError> {
    let visit = ctk_http::runtime().block_on(fetch(url, wanted, given, step))?;
    let links = Links { blobs: vec![visit.digest.clone()], ..Links::default() };
    given.world.store.put_record(URLS, &key(url), &visit, &links)?;
    Ok(visit)
}

/// What the `Authorization` of a request to `url` is, by the image's secrets. Redirections elsewhere do not see it.
fn authorization(url: &str, given: &Given<'_>) -> Option<String> {
    let host = url.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let (secret, token) = given.secret_of_host(host, "HTTP_AUTH_HEADER", "HTTP_AUTH_TOKEN", &[])?;
    Some(if token { format!("Bearer {secret}") } else { secret })
}

async fn fetch(url: &str, wanted: Option<&Digest>, given: &Given<'_>, step: &Step) -> Result<Visit, BuildError> {
    let world = given.world;
    let failed = |reason: String| BuildError::Download { url: url.to_owned(), reason };
    let client = ctk_http::client(world.http).map_err(|e| failed(e.to_string()))?;
    let last = match Visit::last(url, world)?.filter(|visit| wanted.is_none_or(|wanted| visit.gave(wanted))) {
        Some(visit) if world.store.contains(&visit.digest)? => Some(visit),
        _ => None,
    };
    let mut request = client.get(url);
    if let Some(value) = authorization(url, given) {
        request = request.header("authorization", value);
    }
    // Only an entity tag names the content: a date may stay, or go back, when the file becomes another.
    if let Some(etag) = last.as_ref().and_then(|visit| visit.etag.as_ref()) {
        request = request.header("if-none-match", etag);
    }
    let mut response = request.send().await.map_err(|e| failed(causes(&e)))?;
    if let (304, Some(visit)) = (response.status().as_u16(), last) {
        return Ok(visit);
    }
    if !response.status().is_success() {
        return Err(failed(format!("the server answered {}", response.status())));
    }
    let [etag, last_modified] = ["etag", "last-modified"]
        .map(|name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned));
    let total = response.content_length();
    let mut digester = wanted.map(|wanted| wanted.algorithm().digester());
    let mut into = world.store.ingest(None)?;
    let mut done = 0u64;
    while let Some(chunk) = response.chunk().await.map_err(|e| failed(causes(&e)))? {
        if world.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        done += chunk.len() as u64;
        if done > DOWNLOAD_BYTES {
            return Err(failed(format!("it is larger than {DOWNLOAD_BYTES} bytes")));
        }
        if let Some(digester) = &mut digester {
            digester.update(&chunk);
        }
        into.write_bytes(&chunk)?;
        step.progress(done, total, ProgressUnit::Bytes);
    }
    let also = digester.map(|digester| digester.finish());
    if let (Some(wanted), Some(found)) = (wanted, &also)
        && wanted != found
    {
        return Err(failed(format!("its digest is {found}, not {wanted}")));
    }
    Ok(Visit { digest: into.commit()?.0, also, etag, last_modified })
}

/// An error and what it comes from, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
