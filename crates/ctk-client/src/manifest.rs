//! One manifest: asked about, fetched, put, deleted. Always the exact bytes.

use ctk_distribution::{Actions, MANIFEST_LIMIT_BYTES, Scope, manifest_path};
use ctk_oci::{Descriptor, Digest, Index, Manifest, media_type};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};

use crate::call::{Call, Sent, read_limited};
use crate::host::Repository;
use crate::{Client, ClientError};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A manifest or index as it came.
#[derive(Clone)]
pub(crate) struct Fetched {
    pub descriptor: Descriptor,
    pub bytes: Vec<u8>,
}

/// What a manifest or index holds.
pub(crate) enum Shape {
    Image(Box<Manifest>),
    Index(Box<Index>),
}

impl Fetched {
    /// Reads it; `reference` names it in errors.
    pub(crate) fn shape(&self, reference: &str) -> Result<Shape, ClientError> {
        let kind = &self.descriptor.media_type;
        let failed = |reason: String| ClientError::Manifest { reference: reference.into(), reason };
        if media_type::is_index(kind) {
            return serde_json::from_slice(&self.bytes)
                .map(|i| Shape::Index(Box::new(i)))
                .map_err(|e| failed(e.to_string()));
        }
        if media_type::is_manifest(kind) {
            let parsed = serde_json::from_slice(&self.bytes).map(|m| Shape::Image(Box::new(m)));
            return parsed.map_err(|e| failed(e.to_string()));
        }
        Err(failed(format!("its media type is `{kind}`")))
    }
}

/// The media type that manifest bytes give themselves, or that their fields give away.
pub(crate) fn own_type(bytes: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    if let Some(own) = value.get("mediaType").and_then(|m| m.as_str()) {
        return Some(own.to_owned());
    }
    match (value.get("manifests").is_some(), value.get("layers").is_some()) {
        (true, false) => Some(media_type::INDEX.into()),
        (false, true) => Some(media_type::MANIFEST.into()),
        _ => None,
    }
}

/// A request for a manifest.
pub(crate) struct Question {
    method: Method,
    path: String,
    scopes: [Scope; 1],
}

impl Question {
    pub(crate) fn new(method: Method, repository: &str, target: &str) -> Question {
        let scopes = [Scope::repository(repository, Actions::Pull)];
        Question { method, path: manifest_path(repository, target), scopes }
    }

    pub(crate) fn call(&self) -> Call<'_> {
        let call = Call::new(self.method.clone(), &self.path, &self.scopes);
        call.header(ACCEPT, media_type::ACCEPTED_MANIFESTS.join(", "))
    }
}

impl Client {
    /// What a tag or digest names, without fetching it. `None` when there is no such thing.
    pub(crate) async fn head_manifest(
        &self,
        from: &Repository,
        target: &str,
    ) -> Result<Option<Descriptor>, ClientError> {
        let question = Question::new(Method::HEAD, &from.name, target);
        let sent = self.send(from, question.call()).await?;
        self.head_answered(from, target, sent).await
    }

    /// What an answer to [`Client::head_manifest`]'s question says.
    pub(crate) async fn head_answered(
        &self,
        from: &Repository,
        target: &str,
        sent: Sent,
    ) -> Result<Option<Descriptor>, ClientError> {
        match sent.status() {
            200 => {}
            404 => return Ok(None),
            // An answer to HEAD has no body, so it cannot say why: an answer to GET can.
            401 | 403 => return Ok(Some(self.get_manifest(from, target).await?.descriptor)),
            _ => return Err(self.complain(from, &Method::HEAD, sent).await),
        }
        let digest = sent.header(CONTENT_DIGEST).and_then(|d| d.parse::<Digest>().ok());
        let digest = digest.or_else(|| target.parse().ok());
        let size = sent.header(CONTENT_LENGTH).and_then(|l| l.parse::<u64>().ok());
        match (content_type(&sent), digest, size) {
            (Some(kind), Some(digest), Some(size)) if size > 0 => Ok(Some(Descriptor::new(kind, digest, size))),
            // A registry that keeps the answer's headers to itself.
            _ => Ok(Some(self.get_manifest(from, target).await?.descriptor)),
        }
    }

    /// Fetches and verifies a manifest.
    pub(crate) async fn get_manifest(&self, from: &Repository, target: &str) -> Result<Fetched, ClientError> {
        let sent = self.send(from, Question::new(Method::GET, &from.name, target).call()).await?;
        if sent.status() != 200 {
            return Err(self.complain(from, &Method::GET, sent).await);
        }
        let (kind, promised) = (content_type(&sent), sent.header(CONTENT_DIGEST));
        let host = &from.host.name;
        let no_answer = |cause| ClientError::NoAnswer {
            host: host.clone(),
            method: "GET",
            path: manifest_path(&from.name, target),
            cause,
        };
        let bytes = read_limited(sent.response, MANIFEST_LIMIT_BYTES).await.map_err(no_answer)?;
        let bytes = bytes.ok_or_else(|| ClientError::TooLarge {
            host: host.clone(),
            what: format!("the manifest of `{}`", from.reference),
            limit_bytes: MANIFEST_LIMIT_BYTES,
        })?;
        // What was asked for by digest must have it; what a registry promises it must keep.
        let asked: Option<Digest> = target.parse().ok();
        let promised: Option<Digest> = promised.and_then(|d| d.parse().ok());
        let mut digest = Digest::of(&bytes);
        for expected in asked.iter().chain(&promised) {
            let mut digester = expected.algorithm().digester();
            digester.update(&bytes);
            let found = digester.finish();
            if found != *expected {
                let (host, expected) = (host.clone(), expected.clone());
                return Err(ClientError::Mismatch { host, expected, found: format!("it is {found}") });
            }
        }
        if let Some(asked) = asked {
            digest = asked;
        }
        let generic =
            |kind: &String| !matches!(kind.as_str(), "application/json" | "application/octet-stream" | "text/plain");
        let kind = kind.filter(generic).or_else(|| own_type(&bytes));
        let kind = kind.ok_or_else(|| ClientError::Manifest {
            reference: from.reference.clone(),
            reason: "it has no media type".into(),
        })?;
        Ok(Fetched { descriptor: Descriptor::new(kind, digest, bytes.len() as u64), bytes })
    }

    /// Puts a manifest under a digest or tag, and into the list of its subject's referrers if the registry keeps none.
    /// Safe to repeat.
    pub(crate) async fn put_manifest(
        &self,
        to: &Repository,
        target: &str,
        manifest: &Fetched,
    ) -> Result<(), ClientError> {
        let keeps_referrers = self.put_plain(to, target, manifest).await?;
        match manifest.subject() {
            Some(subject) if !keeps_referrers => self.add_to_tag(to, &subject, manifest).await,
            _ => Ok(()),
        }
    }
}

fn content_type(sent: &Sent) -> Option<String> {
    let value = sent.header(CONTENT_TYPE)?;
    Some(value.split(';').next()?.trim().to_owned()).filter(|kind| !kind.is_empty())
}
