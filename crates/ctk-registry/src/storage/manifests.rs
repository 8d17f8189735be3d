//! Manifests, tags, referrers and the lists of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ctk_distribution::MANIFEST_LIMIT_BYTES;
use ctk_oci::{Descriptor, Digest, Index, Manifest, Reference, media_type};

use super::files::{sync_dir, write_atomic};
use super::{Storage, Stored};
use crate::{NAME_DEPTH_LIMIT, RegistryError};

/// What a deletion found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deleted {
    Yes,
    NotThere,
}

impl Storage {
    /// What a tag names now. Reads two small files and no network; for observing before anything is served.
    pub fn tag(&self, repository: &str, tag: &str) -> Result<Option<Descriptor>, RegistryError> {
        Reference::new("localhost", repository, Some(tag), None)?;
        let path = self.repository(repository)?.join("_tags").join(tag);
        let Some(bytes) = read_optional(&path)? else { return Ok(None) };
        let descriptor: Descriptor = match serde_json::from_slice(&bytes) {
            Ok(descriptor) => descriptor,
            Err(error) => return Err(RegistryError::storage("read", path)(error.into())),
        };
        let manifest = self.manifest_path(repository, &descriptor.digest)?;
        Ok(manifest.exists().then_some(descriptor))
    }

    /// A manifest of a repository by its digest.
    pub fn manifest(&self, repository: &str, digest: &Digest) -> Result<Option<Stored>, RegistryError> {
        let Some(bytes) = read_optional(&self.manifest_path(repository, digest)?)? else { return Ok(None) };
        let Some(kind) = read_optional(&self.type_path(repository, digest)?)? else { return Ok(None) };
        let kind = String::from_utf8_lossy(&kind).into_owned();
        Ok(Some(Stored { descriptor: Descriptor::new(kind, digest.clone(), bytes.len() as u64), bytes }))
    }

    /// Stores a manifest whose content the repository holds already, and points `tag` at it if given. Everything it
    /// names is checked: presence and size. Returns its descriptor and the subject it refers to.
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
        Reference::new("localhost", repository, tag, None)?;
        if bytes.len() as u64 > MANIFEST_LIMIT_BYTES {
            return Err(refused(format!("larger than {MANIFEST_LIMIT_BYTES} bytes")));
        }
        let digest = match expected {
            None => Digest::of(bytes),
            Some(expected) => {
                let mut digester = expected.algorithm().digester();
                digester.update(bytes);
                let found = digester.finish();
                if found != *expected {
                    let (expected, size) = (expected.clone(), bytes.len() as u64);
                    return Err(RegistryError::Mismatch { expected, expected_size: size, found, found_size: size });
                }
                found
            }
        };
        let parsed = Parsed::parse(kind, bytes)?;
        let descriptor = Descriptor::new(kind, digest, bytes.len() as u64);
        let _lock = self.lock(repository)?;
        for blob in &parsed.blobs {
            self.check(repository, blob, self.blob_size(repository, &blob.digest)?)?;
        }
        for manifest in &parsed.manifests {
            let path = self.manifest_path(repository, &manifest.digest)?;
            self.check(repository, manifest, fs::metadata(path).ok().map(|m| m.len()))?;
        }
        let type_path = self.type_path(repository, &descriptor.digest)?;
        write_atomic(&type_path, kind.as_bytes(), &self.temporary()?)?;
        write_atomic(&self.manifest_path(repository, &descriptor.digest)?, bytes, &self.temporary()?)?;
        if let Some(subject) = &parsed.subject {
            let mut referrer = descriptor.clone();
            referrer.artifact_type = parsed.artifact_type.clone();
            referrer.annotations = parsed.annotations.clone();
            let path = self.referrers_path(repository, subject)?;
            let path = path.join(format!("{}-{}", descriptor.digest.algorithm().name(), descriptor.digest.hex()));
            let text = serde_json::to_vec(&referrer).expect("plain data serialises");
            write_atomic(&path, &text, &self.temporary()?)?;
        }
        if let Some(tag) = tag {
            let path = self.repository(repository)?.join("_tags").join(tag);
            let text = serde_json::to_vec(&descriptor).expect("plain data serialises");
            write_atomic(&path, &text, &self.temporary()?)?;
        }
        Ok((descriptor, parsed.subject))
    }

    fn check(&self, repository: &str, named: &Descriptor, found: Option<u64>) -> Result<(), RegistryError> {
        let digest = &named.digest;
        match found {
            Some(size) if size == named.size => Ok(()),
            Some(size) => Err(refused(format!("it says that {digest} has {} bytes, but it has {size}", named.size))),
            None => Err(RegistryError::Manifest {
                reason: format!("`{repository}` does not hold {digest}, which it names"),
                unknown: Some(digest.clone()),
            }),
        }
    }

    /// Removes a tag; the manifest stays.
    pub(crate) fn delete_tag(&self, repository: &str, tag: &str) -> Result<Deleted, RegistryError> {
        Reference::new("localhost", repository, Some(tag), None)?;
        let path = self.repository(repository)?.join("_tags").join(tag);
        let _lock = self.lock(repository)?;
        remove_optional(&path)
    }

    /// Removes a manifest and every tag of it.
    pub(crate) fn delete_manifest(&self, repository: &str, digest: &Digest) -> Result<Deleted, RegistryError> {
        let Some(stored) = self.manifest(repository, digest)? else { return Ok(Deleted::NotThere) };
        let _lock = self.lock(repository)?;
        for tag in self.tags(repository)?.unwrap_or_default() {
            if self.tag(repository, &tag)?.is_some_and(|d| d.digest == *digest) {
                remove_optional(&self.repository(repository)?.join("_tags").join(&tag))?;
            }
        }
        if let Ok(Parsed { subject: Some(subject), .. }) = Parsed::parse(&stored.descriptor.media_type, &stored.bytes) {
            let name = format!("{}-{}", digest.algorithm().name(), digest.hex());
            remove_optional(&self.referrers_path(repository, &subject)?.join(name))?;
        }
        let deleted = remove_optional(&self.manifest_path(repository, digest)?)?;
        remove_optional(&self.type_path(repository, digest)?)?;
        Ok(deleted)
    }

    /// Every tag of a repository in the order of their bytes; `None` when there is no such repository.
    pub fn tags(&self, repository: &str) -> Result<Option<Vec<String>>, RegistryError> {
        let directory = self.repository(repository)?;
        if !directory.join("_manifests").is_dir() {
            return Ok(None);
        }
        Ok(Some(names(&directory.join("_tags"))?))
    }

    /// What refers to a manifest, by the order of their digests: manifests with that `subject`, and what clients
    /// listed under the tag `<algorithm>-<hex>` (distribution-spec 1.1, "Referrers Tag Schema").
    pub fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let directory = self.referrers_path(repository, subject)?;
        let mut found = Vec::new();
        for name in names(&directory)? {
            let Some(bytes) = read_optional(&directory.join(&name))? else { continue };
            found.extend(serde_json::from_slice::<Descriptor>(&bytes).ok());
        }
        let tag = format!("{}-{}", subject.algorithm().name(), subject.hex());
        if let Some(listed) = self.tag(repository, &tag)?
            && let Some(stored) = self.manifest(repository, &listed.digest)?
            && let Ok(index) = serde_json::from_slice::<Index>(&stored.bytes)
        {
            found.extend(index.manifests);
        }
        found.sort_by(|a, b| a.digest.cmp(&b.digest));
        found.dedup_by(|a, b| a.digest == b.digest);
        Ok(found)
    }

    /// Every repository that holds a manifest, in the order of their bytes.
    pub fn repositories(&self) -> Result<Vec<String>, RegistryError> {
        let mut found = Vec::new();
        let mut pending = vec![(String::new(), 0)];
        while let Some((name, depth)) = pending.pop() {
            let directory = self.root.join("repositories").join(&name);
            for part in names(&directory)? {
                if part == "_manifests" {
                    found.push(name.clone());
                } else if !part.starts_with('_') && depth < NAME_DEPTH_LIMIT {
                    pending.push((if name.is_empty() { part } else { format!("{name}/{part}") }, depth + 1));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn manifest_path(&self, repository: &str, digest: &Digest) -> Result<PathBuf, RegistryError> {
        Ok(self.repository(repository)?.join("_manifests").join(digest.algorithm().name()).join(digest.hex()))
    }

    fn type_path(&self, repository: &str, digest: &Digest) -> Result<PathBuf, RegistryError> {
        Ok(self.repository(repository)?.join("_types").join(digest.algorithm().name()).join(digest.hex()))
    }

    fn referrers_path(&self, repository: &str, subject: &Digest) -> Result<PathBuf, RegistryError> {
        Ok(self.repository(repository)?.join("_referrers").join(subject.algorithm().name()).join(subject.hex()))
    }
}

/// What a manifest names.
struct Parsed {
    blobs: Vec<Descriptor>,
    manifests: Vec<Descriptor>,
    subject: Option<Digest>,
    artifact_type: Option<String>,
    annotations: std::collections::BTreeMap<String, String>,
}

impl Parsed {
    fn parse(kind: &str, bytes: &[u8]) -> Result<Parsed, RegistryError> {
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
        if media_type::is_index(kind) {
            let index: Index = serde_json::from_slice(bytes).map_err(shape)?;
            return Ok(Parsed {
                blobs: Vec::new(),
                manifests: index.manifests,
                subject: index.subject.map(|s| s.digest),
                artifact_type: index.artifact_type,
                annotations: index.annotations,
            });
        }
        if !media_type::is_manifest(kind) {
            return Err(refused(format!("unknown media type `{kind}`")));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(shape)?;
        let artifact_type = manifest.artifact_type.or_else(|| Some(manifest.config.media_type.clone()));
        let mut blobs = vec![manifest.config];
        blobs.extend(manifest.layers.into_iter().filter(|layer| !is_foreign(layer)));
        Ok(Parsed {
            blobs,
            manifests: Vec::new(),
            subject: manifest.subject.map(|s| s.digest),
            artifact_type,
            annotations: manifest.annotations,
        })
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

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, RegistryError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(RegistryError::storage("read", path)(error)),
    }
}

fn remove_optional(path: &Path) -> Result<Deleted, RegistryError> {
    match fs::remove_file(path) {
        Ok(()) => {
            sync_dir(path.parent().expect("a stored file has a parent"))?;
            Ok(Deleted::Yes)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Deleted::NotThere),
        Err(error) => Err(RegistryError::storage("remove", path)(error)),
    }
}

/// The names in a directory, sorted; none when it is not there.
fn names(directory: &Path) -> Result<Vec<String>, RegistryError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RegistryError::storage("list", directory)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(RegistryError::storage("list", directory))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}
