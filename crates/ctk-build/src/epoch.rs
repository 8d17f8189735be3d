//! `SOURCE_DATE_EPOCH=context`: the date of an image is that of its main context.
//!
//! | main context | date |
//! |---|---|
//! | repository | when the commit was made |
//! | archive | the newest time in it |
//! | file of a URL | `Last-Modified` |
//! | folder | when the newest commit was made that touched it |
//!
//! By itself nothing is dated so: each commit would make another image of the same files.

use std::path::Path;
use std::time::UNIX_EPOCH;

use ctk_buildgraph::{LowerRequest, context_epoch_asked};
use ctk_layer::{LayerError, TarReader, decode};
use ctk_oci::{Digest, Platform};
use ctk_snapshot::SnapshotError;
use ctk_store::Links;

use crate::recipe::Loaded;
use crate::remote::{self, Given, git};
use crate::{BuildError, ContextDecl, ImageDecl, World};

/// Records of the newest times in archives.
const NEWEST: &str = "archive-time";

/// A date in seconds since 1970, or what has to be fetched before it is known.
pub type KnownEpoch = Result<i64, String>;

/// The date that a `SOURCE_DATE_EPOCH` of `text` gives to `decl`, none if it is empty. With `fetch` whatever is not here is
/// fetched. A text that is no date, and a context that has none, is an error that says what to do.
pub fn epoch(text: &str, decl: &ImageDecl, world: &World<'_>, fetch: bool) -> Result<Option<KnownEpoch>, BuildError> {
    match text {
        "" => Ok(None),
        "context" => of_context(decl, &Given::new(decl, world), fetch).map(Some),
        number => match number.parse::<i64>().ok().filter(|seconds| (0..=ctk_oci::EPOCH_MAX_SECONDS).contains(seconds))
        {
            Some(seconds) => Ok(Some(Ok(seconds))),
            None => {
                let expected = ctk_oci::EPOCH_EXPECTED;
                Err(BuildError::BadOption(format!("SOURCE_DATE_EPOCH is `{number}`; {expected}")))
            }
        },
    }
}

/// Tells `ask` the date of the main context, if the recipe or a build argument asks for that. The answer is it, or what
/// has to be fetched first.
pub(crate) fn date(
    ask: &mut LowerRequest<'_>,
    decl: &ImageDecl,
    loaded: &Loaded,
    platform: &Platform,
    given: &Given<'_>,
    fetch: bool,
) -> Result<Option<KnownEpoch>, BuildError> {
    let Some(origin) = context_epoch_asked(loaded.recipe(platform), ask) else { return Ok(None) };
    let found = of_context(decl, given, fetch).map_err(|error| match origin {
        Some(_) => loaded.at("ARG SOURCE_DATE_EPOCH".into(), origin, given.world.sources, error),
        None => error,
    })?;
    ask.context_epoch = found.as_ref().ok().copied();
    Ok(Some(found))
}

fn of_context(decl: &ImageDecl, given: &Given<'_>, fetch: bool) -> Result<KnownEpoch, BuildError> {
    let none = |context: String, reason: &str| BuildError::ContextEpoch { context, reason: reason.to_owned() };
    let known = match decl.contexts.get("") {
        Some(ContextDecl::Git { source, .. }) => {
            let source = remote::with_args(decl, "", source);
            let commit = if fetch { Some(given.commit(&source)?) } else { given.known_commit(&source) };
            let seconds = match &commit {
                Some(commit) if fetch => Some(git::seconds(&source, commit, given)?),
                Some(commit) => git::known_seconds(commit, given.world)?,
                None => None,
            };
            seconds.ok_or_else(|| source.to_string())
        }
        Some(ContextDecl::Http { url, .. }) => {
            let file = if fetch { Some(given.file(url)?) } else { given.known_file(url)? };
            match file {
                None => Err(url.clone()),
                Some(file) if file.archive => Ok(newest(&file.digest, url, given.world)?),
                Some(file) => {
                    let found = match given.brought(url, &file.digest)? {
                        None if fetch => {
                            let step = given.world.reporter.step(format!("download {url}"));
                            Some(remote::step_result(step, |step| given.bring(url, &file.digest, step))?)
                        }
                        found => found,
                    };
                    match found.map(|(_, modified)| modified.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())) {
                        None => Err(url.clone()),
                        Some(0) => {
                            return Err(none(
                                format!("the context `{url}`"),
                                "its server does not say when it was changed",
                            ));
                        }
                        Some(seconds) => Ok(seconds as i64),
                    }
                }
            }
        }
        Some(ContextDecl::Archive { digest }) => Ok(newest(digest, "standard input", given.world)?),
        Some(ContextDecl::Directory { path, .. }) => {
            let folder = given.world.project_directory.join(path);
            match git::folder_seconds(&folder, given)? {
                Ok(seconds) => Ok(seconds),
                Err(reason) => return Err(none(plain(path), reason)),
            }
        }
        Some(ContextDecl::Image(_) | ContextDecl::Scratch) | None => {
            return Err(none("the main context".into(), "it has no files"));
        }
    };
    Ok(known.map(|seconds| seconds.max(0)))
}

fn plain(path: &Path) -> String {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    format!("the context `{}`", path.display())
}

/// The newest time in the archive `digest`, which came from `place`.
fn newest(digest: &Digest, place: &str, world: &World<'_>) -> Result<i64, BuildError> {
    if let Some(seconds) = world.store.record::<i64>(NEWEST, &digest.to_string())? {
        return Ok(seconds);
    }
    let failed = |source: LayerError| BuildError::Archive {
        place: place.to_owned(),
        source: Box::new(SnapshotError::Unpack { layer: "the context".into(), source }),
    };
    let (_, stream) = decode(world.store.open_raw(digest)?).map_err(|error| failed(LayerError::Read(error)))?;
    let (mut tar, mut newest) = (TarReader::new(stream), 0);
    while let Some(entry) = tar.next_entry().map_err(failed)? {
        if world.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        newest = newest.max(entry.mtime.seconds);
    }
    world.store.put_record(NEWEST, &digest.to_string(), &newest, &Links::default())?;
    Ok(newest)
}
