//! `-`: what standard input gives is a tar archive, which is the context, or a Dockerfile.

use std::io::Read;

use ctk_snapshot::copy::is_archive;

use super::http::note;
use crate::limits::{DOWNLOAD_BYTES, SMALL_FILE_BYTES};
use crate::{BuildError, ContextDecl, World};

/// Bytes that tell an archive: two blocks of a tar.
const MAGIC_BYTES: u64 = 1024;

/// What standard input gave.
#[derive(Clone, Debug)]
pub enum StdinInput {
    /// The main context; the Dockerfile is in it ([`RecipeSource::InContext`](crate::RecipeSource)).
    Archive(ContextDecl),
    /// A Dockerfile; the main context has no files ([`ContextDecl::Scratch`]).
    Dockerfile(Vec<u8>),
}

/// Reads all of `input`: a tar archive, compressed or not, goes to the store. An error if it is empty, or too large.
pub fn read_stdin(mut input: impl Read, world: &World<'_>) -> Result<StdinInput, BuildError> {
    let read = |e| BuildError::read("read", "standard input")(e);
    let mut first = Vec::new();
    input.by_ref().take(MAGIC_BYTES).read_to_end(&mut first).map_err(read)?;
    if first.is_empty() {
        return Err(BuildError::BadOption("standard input is empty; expected a tar archive or a Dockerfile".into()));
    }
    if !is_archive(first.as_slice()) {
        let mut text = first;
        input.take(SMALL_FILE_BYTES + 1).read_to_end(&mut text).map_err(read)?;
        return Ok(StdinInput::Dockerfile(text));
    }
    let mut into = world.store.ingest(None)?;
    into.write_bytes(&first)?;
    let more = into.fill("standard input", input.take(DOWNLOAD_BYTES + 1))?;
    if more > DOWNLOAD_BYTES {
        let reason = format!("standard input has more than {DOWNLOAD_BYTES} bytes");
        return Err(BuildError::BadOption(reason));
    }
    let (digest, _) = into.commit()?;
    let file = note(digest, world)?;
    Ok(StdinInput::Archive(ContextDecl::Archive { digest: file.digest }))
}
