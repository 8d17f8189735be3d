//! `ghcr.io/acme/api`, `docker://…`: a repository of a registry. Without a host, the project's `registry` is the
//! prefix.

use ctk_oci::{Descriptor, Reference};
use ctk_plan::Step;

use super::{BadLocation, Context, Found, Naming, Place, Reach, Ready};
use crate::codes;
use crate::error::PushError;

#[derive(Clone, Debug)]
struct Repository {
    /// Without tag and digest.
    reference: Reference,
}

pub(super) fn parse(naming: &Naming, rest: &str) -> Result<(Box<dyn Place>, Option<String>), BadLocation> {
    let bad = |message: String, label: &str, hint: Option<String>| BadLocation {
        code: codes::BAD_LOCATION,
        message,
        label: label.into(),
        hint,
    };
    let whole = match (has_host(rest), &naming.registry) {
        (true, _) => rest.to_string(),
        (false, Some(registry)) => format!("{registry}/{rest}"),
        (false, None) => {
            return Err(BadLocation {
                code: codes::NO_REGISTRY,
                message: format!("`{rest}` names no registry"),
                label: "expected e.g. `ghcr.io/acme/api`".into(),
                hint: Some(
                    "add `registry \"ghcr.io/acme\"` to the project, or write `docker.io/…` if you mean that".into(),
                ),
            });
        }
    };
    let reference: Reference = whole.parse().map_err(|error: ctk_oci::ReferenceError| {
        bad(format!("`{whole}` is no place for images"), &error.to_string(), None)
    })?;
    if reference.digest().is_some() {
        let message = format!("`{whole}` has a digest");
        return Err(bad(message, "expected a repository", Some("the digest is what is pushed".into())));
    }
    let tag = reference.tag().map(str::to_string);
    let bare = Reference::new(reference.registry(), reference.repository(), None, None)
        .map_err(|error| bad(format!("`{whole}` is no place for images"), &error.to_string(), None))?;
    Ok((Box::new(Repository { reference: bare }), tag))
}

/// Whether the first part of `a/b` is a host, as references are read.
fn has_host(text: &str) -> bool {
    text.split_once('/').is_some_and(|(first, _)| {
        first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase())
    })
}

impl Repository {
    fn tagged(&self, tag: &str) -> Reference {
        // Tags were checked when they were decoded.
        self.reference.with_tag(tag).unwrap_or_else(|_| self.reference.clone())
    }
}

impl Place for Repository {
    fn location(&self) -> String {
        self.reference.to_string()
    }

    fn tag(&self, tag: &str) -> Result<String, String> {
        self.reference.with_tag(tag).map(|_| tag.to_string()).map_err(|error| error.to_string())
    }

    fn observe(&self, reach: &Reach<'_>, tags: &[String]) -> Vec<Found> {
        let local = reach.local.iter().find(|local| local.host() == self.reference.registry());
        let mut all: Vec<Found> = Vec::with_capacity(tags.len());
        for tag in tags {
            // Whoever did not answer once will not answer for the next tag either.
            if let Some(silent @ Found::Unreachable { .. }) = all.last() {
                all.push(silent.clone());
                continue;
            }
            let found = match local {
                Some(local) => local.tag(self.reference.repository(), tag),
                None => match reach.client.head_at_target(&self.tagged(tag), reach.cancel) {
                    Ok(found) => Ok(found.map(|descriptor| descriptor.digest)),
                    Err(error) => Err(chain(&error)),
                },
            };
            all.push(match found {
                Ok(Some(digest)) => Found::Digest { digest },
                Ok(None) => Found::Absent,
                Err(reason) => Found::Unreachable { reason },
            });
        }
        all
    }

    fn upload(
        &self,
        context: &Context<'_>,
        image: &Descriptor,
        tags: &[String],
        step: &Step,
    ) -> Result<Box<dyn Ready>, PushError> {
        let fail = |source| failed(context, self.location(), "upload", source);
        let Context { store, reach, .. } = context;
        let options = ctk_client::PushOptions::default();
        reach.client.push_blobs(&self.reference, image, store, &options, Some(step), reach.cancel).map_err(fail)?;
        reach.client.push_manifests(&self.reference, image, store, reach.cancel).map_err(fail)?;
        Ok(Box::new(Uploaded { repository: self.clone(), image: image.clone(), tags: tags.to_vec() }))
    }
}

struct Uploaded {
    repository: Repository,
    image: Descriptor,
    tags: Vec<String>,
}

impl Ready for Uploaded {
    fn publish(self: Box<Self>, context: &Context<'_>) -> Result<(), PushError> {
        let Context { store, reach, .. } = context;
        for tag in &self.tags {
            let to = self.repository.tagged(tag);
            let moved = reach.client.push_tag(&to, &self.image, store, reach.cancel);
            moved.map_err(|source| failed(context, to.to_string(), "publish", source))?;
        }
        Ok(())
    }
}

fn failed(context: &Context<'_>, place: String, action: &'static str, source: ctk_client::ClientError) -> PushError {
    match source {
        ctk_client::ClientError::Cancelled => PushError::Cancelled,
        source => PushError::Registry { push: context.push.clone(), place, action, source: Box::new(source) },
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
