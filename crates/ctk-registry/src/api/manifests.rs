//! Manifests: HEAD and GET give the exact bytes pushed, PUT checks and stores, DELETE removes a tag or a manifest.

use axum::body::Body;
use ctk_distribution::{Code, MANIFEST_LIMIT_BYTES, Target, manifest_path};
use ctk_oci::Digest;
use http::{Method, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::answer::{CONTENT_DIGEST, Failure, SUBJECT, TAG, bytes, empty, set};
use super::{App, Asked};
use crate::meta::{Name, Seen, Stored};
use crate::storage::now;
use crate::{BODY_TIMEOUT, TAGS_LIMIT};

impl App {
    pub(super) async fn manifest(
        &self,
        asked: &Asked,
        name: String,
        target: Target,
    ) -> Result<Response<Body>, Failure> {
        let named = Name::from(target);
        let missing = Failure::of(Code::ManifestUnknown).detail(written(&named));
        let (repository, wanted) = (name.clone(), named.clone());
        let (descriptor, body) = if asked.method == Method::HEAD {
            let found = self.stored(move |storage| storage.meta().descriptor(&repository, &wanted)).await?;
            (found.ok_or(missing)?, Vec::new())
        } else {
            let found = self.stored(move |storage| storage.meta().manifest(&repository, &wanted)).await?;
            let Stored { descriptor, bytes } = found.ok_or(missing)?;
            self.storage.note(Seen::Manifest(name, named));
            (descriptor, bytes)
        };
        let digest = descriptor.digest.to_string();
        let etag = format!("\"{digest}\"");
        let mut response = match asked.header(header::IF_NONE_MATCH) {
            Some(tags) if tags.contains(&etag) => empty(304),
            _ => bytes(200, &descriptor.media_type, body),
        };
        if response.status() == 200 {
            set(&mut response, header::CONTENT_LENGTH, &descriptor.size.to_string());
        }
        set(&mut response, header::ETAG, &etag);
        set(&mut response, CONTENT_DIGEST, &digest);
        Ok(response)
    }

    pub(super) async fn put_manifest(
        &self,
        asked: &Asked,
        body: Body,
        name: String,
        target: Target,
    ) -> Result<Response<Body>, Failure> {
        // Parameters are no part of what a manifest is.
        let kind = asked.header(header::CONTENT_TYPE).map(|kind| kind.split(';').next().unwrap_or_default().trim());
        let kind = kind.filter(|kind| !kind.is_empty()).map(str::to_owned);
        let (digest, tags) = match target {
            Target::Digest(digest) => (Some(digest), self.more_tags(asked, &name)?),
            Target::Tag(tag) => (None, vec![tag]),
        };
        let collected = Limited::new(body, MANIFEST_LIMIT_BYTES as usize).collect();
        let body = match tokio::time::timeout(BODY_TIMEOUT, collected).await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let detail = format!("larger than {MANIFEST_LIMIT_BYTES} bytes");
                return Err(Failure::of(Code::SizeInvalid).status(413).detail(detail));
            }
            _ => return Err(Failure::of(Code::ManifestInvalid).detail("the body ended early")),
        };
        let (repository, given) = (name.clone(), tags.clone());
        let with_digest = digest.is_some();
        let rules = self.put_rules(&asked.who, &name);
        let put = self.stored(move |storage| {
            let kind = kind.or_else(|| own_type(&body)).unwrap_or_default();
            storage.put_ruled(&repository, &kind, body.to_vec(), digest.as_ref(), given, rules)
        });
        let (descriptor, subject): (_, Option<Digest>) = put.await?;
        let mut response = empty(201);
        let digest = descriptor.digest.to_string();
        set(&mut response, header::LOCATION, &manifest_path(&name, &digest));
        set(&mut response, CONTENT_DIGEST, &digest);
        if let Some(subject) = subject {
            set(&mut response, SUBJECT, &subject.to_string());
        }
        if with_digest {
            for tag in tags {
                if let Ok(value) = http::HeaderValue::from_str(&tag) {
                    response.headers_mut().append(TAG, value);
                }
            }
        }
        Ok(response)
    }

    /// `?tag=` of a push by digest (draft of distribution-spec 1.2, end-7b).
    fn more_tags(&self, asked: &Asked, name: &str) -> Result<Vec<String>, Failure> {
        let mut tags: Vec<String> = Vec::new();
        for tag in asked.query.all("tag") {
            if ctk_oci::Reference::new("localhost", name, Some(tag), None).is_err() {
                return Err(Failure::of(Code::ManifestInvalid).detail(format!("`{tag}` is no tag")));
            }
            if !tags.iter().any(|known| known == tag) {
                tags.push(tag.to_owned());
            }
        }
        if tags.len() > TAGS_LIMIT {
            let detail = format!("{} tags; {TAGS_LIMIT} are the limit", tags.len());
            return Err(Failure::of(Code::ManifestInvalid).status(414).detail(detail));
        }
        Ok(tags)
    }

    pub(super) async fn delete_manifest(
        &self,
        asked: &Asked,
        name: String,
        target: Target,
    ) -> Result<Response<Body>, Failure> {
        let named = Name::from(target);
        let missing = Failure::of(Code::ManifestUnknown).detail(written(&named));
        let rule = self.put_rules(&asked.who, &name).rule;
        let deleted = self.stored(move |storage| storage.meta().delete_manifest(&name, &named, rule, now()));
        match deleted.await? {
            true => Ok(empty(202)),
            false => Err(missing),
        }
    }
}

impl From<Target> for Name {
    fn from(target: Target) -> Name {
        match target {
            Target::Digest(digest) => Name::Digest(digest),
            Target::Tag(tag) => Name::Tag(tag),
        }
    }
}

fn written(name: &Name) -> String {
    match name {
        Name::Digest(digest) => digest.to_string(),
        Name::Tag(tag) => tag.clone(),
    }
}

fn own_type(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    value.get("mediaType")?.as_str().map(str::to_owned)
}
