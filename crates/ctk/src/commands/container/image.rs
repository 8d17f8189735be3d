//! The image of a container: found, built or fetched.

use std::path::PathBuf;

use ctk_oci::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, media_type};
use ctk_plan::{Address, Cancel, Kind, Reporter};
use ctk_store::{Depth, Fetch, Store};

use super::options::Pull;
use crate::commands::images::manifests;
use crate::commands::project::ProjectArgs;
use crate::context::Context;
use crate::failure::Failure;

/// An image that is here.
pub struct Found {
    /// Under which name.
    pub name: String,
    /// Its manifest.
    pub manifest: Manifest,
    /// That one's digest.
    pub manifest_digest: Digest,
    /// Its config.
    pub config: ImageConfig,
}

/// The image that the user calls `image`, for a platform.
pub fn find(
    context: &Context,
    store: &Store,
    image: &str,
    pull: Pull,
    platform: Option<&Platform>,
    cancel: &Cancel,
) -> Result<Found, Failure> {
    let (name, descriptor) = look(context, store, image, pull, platform, cancel)?;
    documents(store, &name, &descriptor, platform)
}

/// The image in the store; built or fetched if it is not there.
fn look(
    context: &Context,
    store: &Store,
    image: &str,
    pull: Pull,
    platform: Option<&Platform>,
    cancel: &Cancel,
) -> Result<(String, Descriptor), Failure> {
    let fetches = matches!(pull, Pull::Always | Pull::Newer) && !image.starts_with("image:");
    let here = context.find(store, image)?;
    if let (Some(found), false) = (&here, fetches) {
        return Ok(found.clone());
    }
    if let Some(name) = image.strip_prefix("image:") {
        let session = ProjectArgs::default().open(context)?;
        let only = context.explain(session.select_kind(Kind::Image, &[name.to_owned()]))?;
        let request = ctk_apply::Request { only, ..ctk_apply::Request::default() };
        let applied = session.apply(&request, context.sink(), cancel);
        context.explain(applied)?;
        return context.require(store, image);
    }
    let reference = context.full_name(image, cancel)?.or_latest();
    // By an alias that is here already.
    if let (Some(found), false) = (store.reference(&reference.to_string())?, fetches) {
        return Ok((reference.to_string(), found.descriptor));
    }
    // `localhost` without a port names what only the store has.
    if pull == Pull::Never || reference.registry() == "localhost" {
        return context.require(store, image);
    }
    let platform = platform.cloned().unwrap_or_else(Platform::host);
    let reporter = Reporter::new(Address::new(Kind::Image, reference.to_string()), context.sink());
    let fetch = ctk_client::RegistryFetch::new(context.client());
    let fetched = fetch.fetch(&reference, Some(&platform), Depth::Layers, store, &reporter, cancel);
    context.end_story();
    let descriptor = match (fetched, here) {
        (Ok(descriptor), _) => descriptor,
        // A newer one that cannot be had is none.
        (Err(_), Some(here)) if pull == Pull::Newer => return Ok(here),
        (Err(error), _) => {
            let denied = matches!(error, ctk_store::FetchError::Denied { .. });
            let hint = denied.then(|| format!("`ctk login {}`", reference.registry()));
            return Err(Failure::Error { code: None, error: Box::new(error), hint });
        }
    };
    store.set_reference(&reference.to_string(), &ctk_store::Ref::new(descriptor.clone()))?;
    Ok((reference.to_string(), descriptor))
}

/// The manifest and config for `platform`.
pub fn documents(
    store: &Store,
    name: &str,
    descriptor: &Descriptor,
    platform: Option<&Platform>,
) -> Result<Found, Failure> {
    let host = Platform::host();
    let asked = platform;
    let platform = platform.unwrap_or(&host);
    let members = Index::new(manifests(store, descriptor)?);
    let chosen = match media_type::is_index(&descriptor.media_type) {
        true => members.select(platform),
        false => members.manifests.first(),
    };
    let none = || {
        let hint = "`ctk inspect` shows its platforms here; `--pull always` asks the registry";
        Failure::sentence(format!("`{name}` has no image for {platform}"), Some(hint))
    };
    let chosen = chosen.ok_or_else(none)?;
    let manifest = store.document::<Manifest>("image manifest", chosen)?.into_value();
    let config = store.document::<ImageConfig>("image config", &manifest.config)?.into_value();
    // An image alone says in its config what it is for.
    if asked.is_some_and(|platform| platform.rank(&config.platform()).is_none()) {
        return Err(none());
    }
    Ok(Found { name: name.into(), manifest, manifest_digest: chosen.digest.clone(), config })
}

/// The lines of files with one NAME=VALUE a line; empty ones and comments are passed over.
pub fn lines(files: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for file in files {
        let text = ctk_store::read_given_text(file)
            .map_err(|e| Failure::sentence(format!("cannot read {}: {e}", file.display()), None))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        all.extend(lines.map(str::to_owned));
    }
    Ok(all)
}

/// Our own environment, for a container.
pub fn host_environment(context: &Context) -> Vec<String> {
    // Where programs are and whose home it is means something else in there.
    let own = |name: &str| matches!(name, "PATH" | "HOME" | "HOSTNAME" | "PWD" | "OLDPWD" | "SHLVL" | "_");
    context
        .environment()
        .pairs()
        .filter(|(name, _)| !own(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// The environment on top of an image's: that of files, then what was given by itself.
pub fn environment(context: &Context, given: &[String], files: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let mut env = Vec::new();
    for file in files {
        for line in lines(std::slice::from_ref(file))? {
            let wrong = |why: &str| Failure::sentence(format!("{}: `{line}`: {why}", file.display()), None);
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() || name.contains(char::is_whitespace) {
                return Err(wrong("expected NAME=VALUE, or a NAME that is taken from the environment"));
            }
            // As `--env NAME`.
            match line.contains('=') {
                true => env.push(line),
                false => env.extend(context.environment().get(name).map(|value| format!("{name}={value}"))),
            }
        }
    }
    for entry in given {
        match entry.contains('=') {
            true => env.push(entry.clone()),
            false => env.extend(context.environment().get(entry).map(|value| format!("{entry}={value}"))),
        }
    }
    Ok(env)
}
