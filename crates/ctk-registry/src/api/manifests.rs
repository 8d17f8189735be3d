//! Manifests: HEAD and GET give the exact bytes pushed, PUT checks and stores, DELETE removes a tag or a manifest.

use axum::body::Body;
use ctk_distribution::{Code, MANIFEST_LIMIT_BYTES, Target, manifest_path};
use ctk_oci::Digest;
use http::{Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::answer::{CONTENT_DIGEST, Failure, SUBJECT, bytes, empty, set};
use super::{App, Asked};
use crate::BODY_TIMEOUT;
use crate::storage::Deleted;

impl App {
    pub(super) async fn manifest(
        &self,
        asked: &Asked,
        name: String,
        target: Target,
    ) -> Result<Response<Body>, Failure> {
        let missing = Failure::of(Code::ManifestUnknown).detail(written(&target));
        let found = self.stored(move |storage| {
            let digest = match target {
                Target::Digest(digest) => Some(digest),
                Target::Tag(tag) => storage.tag(&name, &tag)?.map(|d| d.digest),
            };
            digest.map_or(Ok(None), |digest| storage.manifest(&name, &digest))
        });
        let stored = found.await?.ok_or(missing)?;
        let digest = stored.descriptor.digest.to_string();
        let etag = format!("\"{digest}\"");
        let mut response = match asked.header(header::IF_NONE_MATCH) {
            Some(tags) if tags.contains(&etag) => empty(304),
            _ => bytes(200, &stored.descriptor.media_type, stored.bytes),
        };
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
        let kind = asked.header(header::CONTENT_TYPE).map(str::to_owned);
        let collected = Limited::new(body, MANIFEST_LIMIT_BYTES as usize).collect();
        let body = match tokio::time::timeout(BODY_TIMEOUT, collected).await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let detail = format!("larger than {MANIFEST_LIMIT_BYTES} bytes");
                return Err(Failure::of(Code::SizeInvalid).status(413).detail(detail));
            }
            _ => return Err(Failure::of(Code::ManifestInvalid).detail("the body ended early")),
        };
        let (digest, tag) = match &target {
            Target::Digest(digest) => (Some(digest.clone()), None),
            Target::Tag(tag) => (None, Some(tag.clone())),
        };
        let repository = name.clone();
        let put = self.stored(move |storage| {
            let kind = kind.or_else(|| own_type(&body)).unwrap_or_default();
            storage.put_manifest(&repository, &kind, &body, digest.as_ref(), tag.as_deref())
        });
        let (descriptor, subject): (_, Option<Digest>) = put.await?;
        let mut response = empty(201);
        set(&mut response, header::LOCATION, &manifest_path(&name, &descriptor.digest.to_string()));
        set(&mut response, CONTENT_DIGEST, &descriptor.digest.to_string());
        if let Some(subject) = subject {
            set(&mut response, SUBJECT, &subject.to_string());
        }
        Ok(response)
    }

    pub(super) async fn delete_manifest(&self, name: String, target: Target) -> Result<Response<Body>, Failure> {
        let missing = Failure::of(Code::ManifestUnknown).detail(written(&target));
        let deleted = self.stored(move |storage| match target {
            Target::Digest(digest) => storage.delete_manifest(&name, &digest),
            Target::Tag(tag) => storage.delete_tag(&name, &tag),
        });
        match deleted.await? {
            Deleted::Yes => Ok(empty(202)),
            Deleted::NotThere => Err(missing),
        }
    }
}

fn written(target: &Target) -> String {
    match target {
        Target::Digest(digest) => digest.to_string(),
        Target::Tag(tag) => tag.clone(),
    }
}

fn own_type(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    value.get("mediaType")?.as_str().map(str::to_owned)
}
