//! Manifests: what they are allowed to be, and what of them the metadata keeps.

use base64::Engine as _;
use ctk_distribution::{MANIFEST_LIMIT_BYTES, PAGE_LIMIT_ENTRIES};
use ctk_oci::{Descriptor, Digest, Index, Manifest, Reference, media_type};

use super::{Storage, now};
use crate::meta::{ManifestPut, Name, Stored, TagRule, any_change};
use crate::{NAMED_LIMIT, RegistryError};

/// How a manifest is put, besides what it is.
pub(crate) struct PutRules {
    /// Asked for each tag, in the transaction.
    pub rule: TagRule,
    /// Whether members of an index may be missing.
    pub sparse: bool,
    /// Most bytes of the repository.
    pub quota_bytes: Option<u64>,
}

impl Default for PutRules {
    fn default() -> PutRules {
        PutRules { rule: any_change(), sparse: true, quota_bytes: None }
    }
}

impl Storage {
    /// What a tag names now. Reads the metadata and no network; for observing before anything is served.
    pub fn tag(&self, repository: &str, tag: &str) -> Result<Option<Descriptor>, RegistryError> {
        Reference::new("localhost", repository, Some(tag), None)?;
        self.meta.descriptor(repository, &Name::Tag(tag.into()))
    }

    /// A manifest of a repository by its digest.
    pub fn manifest(&self, repository: &str, digest: &Digest) -> Result<Option<Stored>, RegistryError> {
        self.meta.manifest(repository, &Name::Digest(digest.clone()))
    }

    /// Stores a manifest whose content the repository holds already, and points `tag` at it if given. Everything it
    /// names is checked: presence and size of blobs, size of members that are there. Returns its descriptor and the
    /// subject it refers to.
    ///
    /// `kind` is the media type it was sent with; `expected` the digest it must have, else sha256 is taken.
    pub fn put_manifest(
        &self,
        repository: &str,
        kind: &str,
        bytes: &[u8],
        expected: Option<&Digest>,
        tag: Option<&str>,
    ) -> Result<(Descriptor, Option<Digest>), RegistryError> {
        let tags = tag.map(str::to_owned).into_iter().collect();
        self.put_ruled(repository, kind, bytes.to_vec(), expected, tags, PutRules::default())
    }

    /// [`Storage::put_manifest`] with several tags and by rules.
    pub(crate) fn put_ruled(
        &self,
        repository: &str,
        kind: &str,
        bytes: Vec<u8>,
        expected: Option<&Digest>,
        tags: Vec<String>,
        rules: PutRules,
    ) -> Result<(Descriptor, Option<Digest>), RegistryError> {
        Reference::new("localhost", repository, None, None)?;
        for tag in &tags {
            Reference::new("localhost", repository, Some(tag), None)?;
        }
        let size = bytes.len() as u64;
        if size > MANIFEST_LIMIT_BYTES {
            return Err(refused(format!("larger than {MANIFEST_LIMIT_BYTES} bytes")));
        }
        let mut digester = expected.map_or(ctk_oci::Algorithm::Sha256, Digest::algorithm).digester();
        digester.update(&bytes);
        let digest = digester.finish();
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            let (expected, found) = (expected.clone(), digest);
            return Err(RegistryError::Mismatch { expected, expected_size: size, found, found_size: size });
        }
        let parsed = Parsed::parse(kind, &bytes)?;
        let descriptor = Descriptor::new(kind, digest, size);
        self.meta.put_manifest(ManifestPut {
            repository: repository.into(),
            descriptor: descriptor.clone(),
            bytes,
            blobs: parsed.blobs,
            manifests: parsed.manifests,
            sparse: rules.sparse,
            subject: parsed.subject.clone(),
            artifact_type: parsed.artifact_type,
            annotations: parsed.annotations,
            tags,
            rule: rules.rule,
            quota_bytes: rules.quota_bytes,
            now: now(),
        })?;
        Ok((descriptor, parsed.subject))
    }

    /// Every tag of a repository in the order of their bytes; `None` when there never was a manifest.
    pub fn tags(&self, repository: &str) -> Result<Option<Vec<String>>, RegistryError> {
        let mut found: Vec<String> = Vec::new();
        loop {
            let after = found.last().cloned().unwrap_or_default();
            let Some(page) = self.meta.tags(repository, &after, PAGE_LIMIT_ENTRIES)? else { return Ok(None) };
            let more = page.len() == PAGE_LIMIT_ENTRIES;
            found.extend(page);
            if !more {
                return Ok(Some(found));
            }
        }
    }

    /// What refers to a manifest, after the digest `after` in the order of their digests, at most `limit`: manifests
    /// with that `subject`, and what clients listed under the tag `<algorithm>-<hex>` (distribution-spec 1.1,
    /// "Referrers Tag Schema").
    pub(crate) fn referrers(
        &self,
        repository: &str,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let mut found = self.meta.referrers(repository, subject, artifact_type, after, limit)?;
        // Longer digests are cut in the tag (draft of distribution-spec 1.2): 32 and 64 characters.
        let hex = &subject.hex()[..subject.hex().len().min(64)];
        let tag = Name::Tag(format!("{}-{hex}", subject.algorithm().name()));
        if let Some(stored) = self.meta.manifest(repository, &tag)?
            && let Ok(index) = serde_json::from_slice::<Index>(&stored.bytes)
        {
            let wanted = |descriptor: &Descriptor| {
                artifact_type.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted))
                    && descriptor.digest.to_string().as_str() > after
            };
            found.extend(index.manifests.into_iter().filter(wanted));
            // The sort keeps ours, which come first, before those of the list.
            found.sort_by_key(|descriptor| descriptor.digest.to_string());
            found.dedup_by(|a, b| a.digest == b.digest);
            found.truncate(limit);
        }
        Ok(found)
    }
}

/// Whether bytes that were sent as `kind` are a manifest or index that the registry takes, whatever they name. Reads
/// nothing else.
pub fn check_manifest(kind: &str, bytes: &[u8]) -> Result<(), RegistryError> {
    Parsed::parse(kind, bytes).map(drop)
}

/// What a manifest names.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) blobs: Vec<Descriptor>,
    pub(super) manifests: Vec<Descriptor>,
    subject: Option<Digest>,
    artifact_type: Option<String>,
    annotations: std::collections::BTreeMap<String, String>,
}

impl Parsed {
    pub(super) fn parse(kind: &str, bytes: &[u8]) -> Result<Parsed, RegistryError> {
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(bytes).map_err(|error| refused(format!("not a JSON object: {error}")))?;
        match fields.get("mediaType").map(|m| m.as_str()) {
            None => {}
            Some(Some(own)) if own == kind => {}
            Some(own) => {
                let own = own.unwrap_or("something else");
                return Err(refused(format!("sent as `{kind}`, but it calls itself `{own}`")));
            }
        }
        // A document that is both would be read as one thing here and as another there (GHSA-qq97-vm5h-rrhg).
        let has = |name: &str| fields.contains_key(name);
        if has("manifests") && (has("layers") || has("config")) {
            return Err(refused("it is both an image and an index".into()));
        }
        if fields.get("schemaVersion").and_then(serde_json::Value::as_u64) != Some(2) {
            return Err(refused("its `schemaVersion` is not 2".into()));
        }
        let shape = |error: serde_json::Error| refused(error.to_string());
        let parsed = if media_type::is_index(kind) {
            let index: Index = serde_json::from_slice(bytes).map_err(shape)?;
            Parsed {
                blobs: Vec::new(),
                manifests: index.manifests,
                subject: index.subject.map(|s| s.digest),
                artifact_type: index.artifact_type,
                annotations: index.annotations,
            }
        } else if media_type::is_manifest(kind) {
            let manifest: Manifest = serde_json::from_slice(bytes).map_err(shape)?;
            let artifact_type = manifest.artifact_type.filter(|kind| !kind.is_empty());
            let artifact_type = artifact_type.or_else(|| Some(manifest.config.media_type.clone()));
            let mut blobs = vec![manifest.config];
            blobs.extend(manifest.layers);
            Parsed {
                blobs,
                manifests: Vec::new(),
                subject: manifest.subject.map(|s| s.digest),
                artifact_type,
                annotations: manifest.annotations,
            }
        } else {
            return Err(refused(format!("unknown media type `{kind}`")));
        };
        let named = parsed.blobs.len() + parsed.manifests.len();
        if named > NAMED_LIMIT {
            return Err(refused(format!("it names {named} things; {NAMED_LIMIT} are the limit")));
        }
        for descriptor in parsed.blobs.iter().chain(&parsed.manifests) {
            check_data(descriptor)?;
        }
        let blobs = parsed.blobs.into_iter().filter(|layer| !is_foreign(layer)).collect();
        Ok(Parsed { blobs, ..parsed })
    }
}

/// Content that stands in the descriptor must be what the descriptor says (image-spec 1.1, `descriptor.md`, `data`).
fn check_data(descriptor: &Descriptor) -> Result<(), RegistryError> {
    let Some(data) = &descriptor.data else { return Ok(()) };
    let wrong = |what: &str| refused(format!("the `data` of {} {what}", descriptor.digest));
    let bytes = base64::prelude::BASE64_STANDARD.decode(data).map_err(|_| wrong("is no base64"))?;
    let mut digester = descriptor.digest.algorithm().digester();
    digester.update(&bytes);
    match bytes.len() as u64 == descriptor.size && digester.finish() == descriptor.digest {
        true => Ok(()),
        false => Err(wrong("is other content")),
    }
}

/// Layers that a registry need not hold: they are downloaded from elsewhere.
fn is_foreign(layer: &Descriptor) -> bool {
    !layer.urls.is_empty()
        || layer.media_type == media_type::DOCKER_FOREIGN_LAYER
        || layer.media_type.contains(".nondistributable.")
}

fn refused(reason: String) -> RegistryError {
    RegistryError::Manifest { reason, unknown: None }
}
