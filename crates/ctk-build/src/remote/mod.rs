//! What comes from elsewhere: repositories, URLs, archives, image layouts. What was brought once is in the store and
//! found there again by what the lock file says.

mod archive;
mod checkout;
pub(crate) mod git;
mod http;
pub(crate) mod layout;
mod program;
mod stdin;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use ctk_buildgraph::{GitSource, RemoteFile, without_password};
use ctk_oci::Digest;
use ctk_plan::Step;
use ctk_snapshot::LayerKey;

pub(crate) use archive::{tree_of, tree_of_known};
pub use stdin::{StdinInput, read_stdin};

use crate::context::Context;
use crate::{BuildError, ContextDecl, ImageDecl, SecretSource, SshDecl, SshSource, World};

/// The build argument by which `.git` of the main context stays.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

/// What repositories and URLs are asked with.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    pub world: &'a World<'a>,
    /// Where the image's secrets come from.
    pub secrets: &'a BTreeMap<String, SecretSource>,
    /// Where its ssh agents are.
    ssh: &'a BTreeMap<String, SshDecl>,
}

impl<'a> Given<'a> {
    pub fn new(decl: &'a ImageDecl, world: &'a World<'a>) -> Given<'a> {
        Given { world, secrets: &decl.secrets, ssh: &decl.ssh }
    }

    /// By what `ssh` shows who we are: the image's default agent, else the user's own.
    pub fn ssh(&self) -> Option<SshSource> {
        let own = SshDecl::Env("SSH_AUTH_SOCK".into());
        let declared = self.ssh.get("default").unwrap_or(&own);
        declared.source(self.world.environment, self.world.project_directory)
    }

    /// The commit that is known to be meant, without asking anybody.
    pub fn known_commit(&self, source: &GitSource) -> Option<String> {
        let locked = || self.world.lock.git(&without_password(&source.url), source.wanted());
        let commit = source.commit().map(str::to_owned).or_else(locked)?;
        // Who says another checksum than the lock file's wants another commit.
        git::verify(source, &commit).is_ok().then_some(commit)
    }

    /// The commit that is meant, noted in the lock file.
    pub fn commit(&self, source: &GitSource) -> Result<String, BuildError> {
        if let Some(commit) = self.known_commit(source) {
            return Ok(commit);
        }
        let lock = self.world.lock;
        let (url, what) = (without_password(&source.url), source.to_string());
        let locked = |reason| BuildError::Locked { what: what.clone(), reason };
        if source.commit().is_none() {
            lock.may_add().map_err(locked)?;
        }
        let step = self.world.reporter.step(format!("resolve {source}"));
        let commit = step.conclude(git::resolve(source, self).and_then(|commit| {
            git::verify(source, &commit)?;
            Ok(commit)
        }))?;
        if source.commit().is_none() {
            lock.set_git(&url, source.wanted(), &commit).map_err(locked)?;
        }
        Ok(commit)
    }

    /// What a URL is known to have given, and is in the store.
    pub fn known_file(&self, url: &str) -> Result<Option<RemoteFile>, BuildError> {
        match self.world.lock.http(url) {
            Some(digest) => http::known(&digest, self.world),
            None => Ok(None),
        }
    }

    /// Brings a file of known digest. Gives the blob that it is, and when the server says that it was changed.
    pub fn bring(&self, url: &str, digest: &Digest, step: &Step) -> Result<(Digest, SystemTime), BuildError> {
        http::bring(url, digest, self, step)
    }

    /// The same if it is here.
    pub fn brought(&self, url: &str, digest: &Digest) -> Result<Option<(Digest, SystemTime)>, BuildError> {
        http::brought(url, digest, self.world)
    }

    /// The secret called `HEADER.host`, `HEADER_host` or the like with `token`, or one of `more`; and whether its name
    /// begins with `token`.
    pub fn secret_of_host(&self, host: &str, header: &str, token: &str, more: &[&str]) -> Option<(String, bool)> {
        let names = [header, token].into_iter().flat_map(|name| [format!("{name}.{host}"), format!("{name}_{host}")]);
        names.chain(more.iter().map(|name| (*name).to_owned())).find_map(|name| {
            let secret = self.world.secrets.secret(&name, self.secrets.get(&name))?;
            let secret = String::from_utf8_lossy(&secret).trim_end_matches(['\r', '\n']).to_owned();
            let usable = !secret.is_empty() && !secret.contains(['\r', '\n']);
            usable.then(|| (secret, name.starts_with(token)))
        })
    }

    /// What a URL gives, in the store and noted in the lock file.
    pub fn file(&self, url: &str) -> Result<RemoteFile, BuildError> {
        if let Some(file) = self.known_file(url)? {
            return Ok(file);
        }
        let lock = self.world.lock;
        let expected = lock.http(url);
        let locked = |reason| BuildError::Locked { what: url.to_owned(), reason };
        if expected.is_none() {
            lock.may_add().map_err(locked)?;
        }
        let step = self.world.reporter.step(format!("download {url}"));
        let found = http::download(url, self, &step);
        let file = step.conclude(found.and_then(|file| match &expected {
            Some(expected) if *expected != file.digest => {
                let reason = format!("its digest is {}, and the lock file says {expected}", file.digest);
                Err(BuildError::Download { url: url.to_owned(), reason })
            }
            _ => Ok(file),
        }))?;
        if expected.is_none() {
            lock.set_http(url, &file.digest).map_err(locked)?;
        }
        Ok(file)
    }
}

/// The repository with what a build argument says of the main context.
pub(crate) fn with_args(decl: &ImageDecl, name: &str, source: &GitSource) -> GitSource {
    let keep = decl.args.get(KEEP_GIT_DIR).filter(|_| name.is_empty() && source.keep_git_dir.is_none());
    let keep = keep.filter(|value| ["1", "t", "T", "true", "TRUE", "True"].contains(&value.as_str()));
    GitSource { keep_git_dir: keep.map(|_| true).or(source.keep_git_dir), ..source.clone() }
}

/// What of the main context, which is no directory, is the Dockerfile.
pub(crate) enum MainDockerfile {
    /// Its path and its text, as it came.
    Found(String, Vec<u8>),
    /// It is not there.
    Missing,
    /// It has to be fetched first. What: for people.
    Unknown(String),
}

/// The text that a URL gives. Without `fetch` nobody is asked, and none means that it is not here.
pub(crate) fn text(url: &str, given: &Given<'_>, fetch: bool) -> Result<Option<Vec<u8>>, BuildError> {
    let file = if fetch { Some(given.file(url)?) } else { given.known_file(url)? };
    file.map(|file| archive::small_text(&file.digest, given.world)).transpose()
}

/// Looks for `path` in the main context. Without `fetch` nobody is asked.
pub(crate) fn dockerfile(
    decl: &ImageDecl,
    path: &str,
    given: &Given<'_>,
    fetch: bool,
) -> Result<MainDockerfile, BuildError> {
    let world = given.world;
    let layer = match decl.contexts.get("") {
        Some(ContextDecl::Git { source, .. }) => {
            let source = &with_args(decl, "", source);
            let Some(commit) = (if fetch { Some(given.commit(source)?) } else { given.known_commit(source) }) else {
                return Ok(MainDockerfile::Unknown(source.to_string()));
            };
            match git::known(source, &commit, world)? {
                Some(checkout) => checkout.layer,
                None if !fetch => return Ok(MainDockerfile::Unknown(source.to_string())),
                None => {
                    let step = world.reporter.step(format!("check out {source}"));
                    step_result(step, |step| git::checkout(source, &commit, given, step, world.cancel))?.layer
                }
            }
        }
        Some(ContextDecl::Http { url, .. }) => {
            let file = if fetch { Some(given.file(url)?) } else { given.known_file(url)? };
            match file {
                None => return Ok(MainDockerfile::Unknown(url.clone())),
                Some(file) if !file.archive => {
                    let text = archive::small_text(&file.digest, world)?;
                    return Ok(MainDockerfile::Found(url.clone(), text));
                }
                Some(file) => match layer_of(&file.digest, url, fetch, world)? {
                    Some(layer) => layer,
                    None => return Ok(MainDockerfile::Unknown(url.clone())),
                },
            }
        }
        Some(ContextDecl::Archive { digest }) => match layer_of(digest, "standard input", fetch, world)? {
            Some(layer) => layer,
            None => return Ok(MainDockerfile::Unknown("the archive of standard input".into())),
        },
        Some(ContextDecl::Directory { path: directory, .. }) => {
            let root = world.project_directory.join(directory);
            return Ok(match local(&root, Path::new(path))? {
                Some((path, text)) => MainDockerfile::Found(path, text),
                None => MainDockerfile::Missing,
            });
        }
        Some(ContextDecl::Image(_) | ContextDecl::Scratch) | None => return Ok(MainDockerfile::Missing),
    };
    let Some(layer) = layer else { return Ok(MainDockerfile::Missing) };
    let tree = world.snapshots.tree(&[layer])?;
    for name in spellings(path) {
        if tree.stat(&name)?.is_some() {
            let bytes = tree.read(&name, crate::limits::SMALL_FILE_BYTES + 1)?;
            return Ok(MainDockerfile::Found(name, bytes));
        }
    }
    Ok(MainDockerfile::Missing)
}

/// The tree of the archive `digest`, which came from `place`.
fn layer_of(
    digest: &Digest,
    place: &str,
    fetch: bool,
    world: &World<'_>,
) -> Result<Option<Option<LayerKey>>, BuildError> {
    match fetch {
        true => tree_of(digest, None, world, world.cancel).map(Some).map_err(|error| match error {
            BuildError::Snapshot(source) if !world.cancel.is_cancelled() => {
                BuildError::Archive { place: place.to_owned(), source: Box::new(source) }
            }
            other => other,
        }),
        false => tree_of_known(digest, None, world),
    }
}

/// A Dockerfile of this machine, relative to `root`, with the path where it was found.
pub(crate) fn local(root: &Path, path: &Path) -> Result<Option<(String, Vec<u8>)>, BuildError> {
    for name in spellings(&path.to_string_lossy()) {
        if let Some(text) = Context::small_file(root, Path::new(&name))? {
            return Ok(Some((name, text)));
        }
    }
    Ok(None)
}

/// `Dockerfile` may be called `dockerfile`, too.
fn spellings(path: &str) -> Vec<String> {
    let mut names = vec![path.to_owned()];
    let folder = path.strip_suffix("Dockerfile").filter(|folder| folder.is_empty() || folder.ends_with('/'));
    names.extend(folder.map(|folder| format!("{folder}dockerfile")));
    names
}

pub(crate) fn step_result<T>(
    step: ctk_plan::Step,
    work: impl FnOnce(&ctk_plan::Step) -> Result<T, BuildError>,
) -> Result<T, BuildError> {
    let result = work(&step);
    step.conclude(result)
}
