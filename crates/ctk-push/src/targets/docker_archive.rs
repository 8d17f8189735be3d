//! `docker-archive:FILE`: what `docker save` writes and `docker load` reads. It has no manifest of ours, so what is
//! found is the digest of the image's config, docker's image id.

use std::path::PathBuf;

use ctk_oci::{Descriptor, Digest, Document, Index, Manifest, Reference, media_type};
use ctk_plan::Step;
use ctk_store::{Export, Name, export_docker_archive};
use serde::Deserialize;

use super::{BadLocation, Context, Found, Naming, Place, Reach, Ready, oci_archive, path_of};
use crate::error::PushError;
use crate::layout::read_from_archive;

#[derive(Debug)]
struct Archive {
    path: PathBuf,
    image: String,
}

pub(super) fn parse(naming: &Naming, rest: &str) -> Result<(Box<dyn Place>, Option<String>), BadLocation> {
    let (path, name) = match rest.split_once(':') {
        Some((path, name)) => (path, Some(name.to_string())),
        None => (rest, None),
    };
    let path = path_of(naming, path, "docker-archive:dist/api.tar")?;
    Ok((Box::new(Archive { path, image: naming.image.clone() }), name))
}

/// One image in `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

impl Place for Archive {
    fn location(&self) -> String {
        format!("docker-archive:{}", self.path.display())
    }

    /// `1.0` is the image's own name with this tag; `name:1.0` says it all.
    fn tag(&self, tag: &str) -> Result<String, String> {
        let whole = if tag.contains([':', '/']) { tag.to_string() } else { format!("{}:{tag}", self.image) };
        let reference: Reference = whole.parse().map_err(|error: ctk_oci::ReferenceError| error.to_string())?;
        if reference.digest().is_some() {
            return Err("expected `name:tag` without a digest".into());
        }
        Ok(if reference.tag().is_none() { format!("{whole}:latest") } else { whole })
    }

    fn default_tag(&self) -> String {
        format!("{}:latest", self.image)
    }

    fn observe(&self, reach: &Reach<'_>, tags: &[String]) -> Vec<Found> {
        let path = reach.project.join(&self.path);
        let bytes = match read_from_archive(&path, "manifest.json") {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return vec![Found::Absent; tags.len()],
            Err(error) => {
                let reason = format!("cannot read `{}`: {error}", path.display());
                return vec![Found::Unreachable { reason }; tags.len()];
            }
        };
        let items: Vec<Item> = serde_json::from_slice(&bytes).unwrap_or_default();
        let found = |tag: &String| {
            let same = |name: &String| same_name(name, tag);
            let item = items.iter().find(|item| item.repo_tags.iter().flatten().any(same));
            match item.and_then(|item| config_digest(&item.config)) {
                Some(digest) => Found::Digest { digest },
                None => Found::Absent,
            }
        };
        tags.iter().map(found).collect()
    }

    fn identity(&self, context: &Context<'_>, image: &Descriptor) -> Result<Digest, PushError> {
        let place = self.location();
        let fail = context.store_error(&place, "upload");
        let platform = context.reach.platform;
        let mut at = image.clone();
        if media_type::is_index(&at.media_type) {
            let index: Document<Index> = context.store.document("image index", &at).map_err(&fail)?;
            let best = index
                .value()
                .manifests
                .iter()
                .filter_map(|member| Some((platform.rank(member.platform.as_ref()?)?, member)))
                .min_by_key(|(rank, _)| *rank);
            let none = || PushError::NoPlatform {
                push: context.push.clone(),
                place: place.clone(),
                platform: Box::new(platform.clone()),
            };
            at = best.ok_or_else(none)?.1.clone();
        }
        let manifest: Document<Manifest> = context.store.document("image manifest", &at).map_err(&fail)?;
        Ok(manifest.value().config.digest.clone())
    }

    fn upload(
        &self,
        context: &Context<'_>,
        image: &Descriptor,
        tags: &[String],
        _step: &Step,
    ) -> Result<Box<dyn Ready>, PushError> {
        // Says early, and in words about this target, that there is nothing for the platform.
        self.identity(context, image)?;
        let export = |tag: &String| Export { name: Some(Name::Plain(tag.clone())), descriptor: image.clone() };
        let exports: Vec<Export> = tags.iter().map(export).collect();
        let place = self.location();
        oci_archive::write_aside(context, &place, &context.reach.project.join(&self.path), |out| {
            export_docker_archive(context.store, out, &exports, context.reach.platform, context.reach.cancel)
        })
    }
}

/// `<hex>.json` or `blobs/sha256/<hex>`.
fn config_digest(path: &str) -> Option<Digest> {
    let hex = path.rsplit('/').next()?.trim_end_matches(".json");
    format!("sha256:{hex}").parse().ok()
}

/// Archives say `debian:12` for `docker.io/library/debian:12`.
fn same_name(a: &str, b: &str) -> bool {
    match (a.parse::<Reference>(), b.parse::<Reference>()) {
        (Ok(a), Ok(b)) => a.or_latest() == b.or_latest(),
        _ => a == b,
    }
}
