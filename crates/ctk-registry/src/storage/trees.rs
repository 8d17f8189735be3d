//! Registries and images that lie in folders: `docker-registry`'s storage and OCI layouts are read, OCI layouts are
//! written. What is read is hashed on its way and checked as if it were pushed; nothing of it is changed or linked to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ctk_distribution::{ByteRange, MANIFEST_LIMIT_BYTES, PAGE_LIMIT_ENTRIES};
use ctk_oci::{Descriptor, Digest, Index, Reference, media_type};
use futures_util::StreamExt;

use super::Storage;
use super::manifests::Parsed;
use crate::meta::Name;
use crate::{BLOB_LIMIT_BYTES, FOLDERS_LIMIT, NESTING_LIMIT, PIECE_BYTES, RegistryError};

/// The annotation of a layout's entry that names its tag (image-spec 1.1, `annotations.md`).
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What an import took, and what it left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Repositories with anything in them.
    pub repositories: usize,
    /// Blobs, counted once a repository.
    pub blobs: usize,
    /// Manifests and indexes.
    pub manifests: usize,
    /// Tags.
    pub tags: usize,
    /// What could not be taken, each with its reason.
    pub refused: Vec<String>,
}

fn refused(reason: String) -> RegistryError {
    RegistryError::Manifest { reason, unknown: None }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(RegistryError::storage("open", path))?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(RegistryError::storage("read", path))?;
    match bytes.len() as u64 > limit {
        true => Err(refused(format!("`{}` is larger than {limit} bytes", path.display()))),
        false => Ok(bytes),
    }
}

/// The names in a folder, sorted; none when there is no such folder.
fn entries(path: &Path) -> Result<Vec<String>, RegistryError> {
    let failed = || RegistryError::storage("list", path);
    let found = match std::fs::read_dir(path) {
        Ok(found) => found,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed()(error)),
    };
    let mut names = Vec::new();
    for entry in found {
        names.extend(entry.map_err(failed())?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// Digests of which a folder holds links, `<algorithm>/<hex>/link`.
fn links(path: &Path) -> Result<Vec<Digest>, RegistryError> {
    let mut found = Vec::new();
    for algorithm in entries(path)? {
        for hex in entries(&path.join(&algorithm))? {
            let linked = path.join(&algorithm).join(&hex).join("link").is_file();
            found.extend(format!("{algorithm}:{hex}").parse::<Digest>().ok().filter(|_| linked));
        }
    }
    Ok(found)
}

fn own_kind(bytes: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    match value.get("mediaType").and_then(serde_json::Value::as_str) {
        Some(kind) => kind.to_owned(),
        // OCI documents need not say what they are.
        None if value.get("manifests").is_some() => media_type::INDEX.into(),
        None => media_type::MANIFEST.into(),
    }
}

impl Storage {
    /// Reads the storage folder of a `distribution` registry (`docker-registry`), which holds
    /// `docker/registry/v2/repositories`. It may be served meanwhile: what is pushed during the import may be missing,
    /// and comes with the next one. Safe to repeat; what is there already is not read again.
    pub fn import_distribution(&self, folder: &Path) -> Result<Imported, RegistryError> {
        let root = folder.join("docker/registry/v2");
        if !root.join("repositories").is_dir() {
            let path = root.join("repositories");
            let cause = std::io::Error::new(std::io::ErrorKind::NotFound, "it is no distribution registry's folder");
            return Err(RegistryError::Storage { action: "list", path, cause });
        }
        let mut imported = Imported::default();
        let mut todo = vec![String::new()];
        let mut looked = 0;
        while let Some(name) = todo.pop() {
            looked += 1;
            if looked > FOLDERS_LIMIT {
                return Err(refused(format!("more than {FOLDERS_LIMIT} folders of repositories")));
            }
            let path = root.join("repositories").join(&name);
            let inside = entries(&path)?;
            if inside.iter().any(|entry| entry == "_manifests" || entry == "_layers") {
                self.import_repository(&root, &name, &path, &mut imported)?;
            }
            let deeper = inside.into_iter().filter(|entry| !entry.starts_with('_') && path.join(entry).is_dir());
            todo.extend(deeper.map(|entry| if name.is_empty() { entry } else { format!("{name}/{entry}") }));
        }
        Ok(imported)
    }

    fn import_repository(
        &self,
        root: &Path,
        name: &str,
        path: &Path,
        imported: &mut Imported,
    ) -> Result<(), RegistryError> {
        if Reference::new("localhost", name, None, None).is_err() {
            imported.refused.push(format!("{name}: no repository has such a name"));
            return Ok(());
        }
        let data = |digest: &Digest| {
            let (hex, algorithm) = (digest.hex(), digest.algorithm().name());
            root.join("blobs").join(algorithm).join(&hex[..2]).join(hex).join("data")
        };
        imported.repositories += 1;
        let (mut indexes, mut failed) = (Vec::new(), Vec::new());
        for digest in links(&path.join("_manifests/revisions"))? {
            let taken = read(&data(&digest), MANIFEST_LIMIT_BYTES).and_then(|bytes| {
                let kind = own_kind(&bytes);
                if media_type::is_index(&kind) {
                    indexes.push((digest.clone(), kind, bytes));
                    return Ok(());
                }
                let parsed = Parsed::parse(&kind, &bytes)?;
                for blob in &parsed.blobs {
                    imported.blobs += usize::from(self.import_file(name, &data(&blob.digest), blob)?);
                }
                imported.manifests += 1;
                self.put_manifest(name, &kind, &bytes, Some(&digest), None).map(drop)
            });
            failed.extend(taken.err().map(|error| format!("{name}@{digest}: {error}")));
        }
        // Of indexes in indexes the inner ones may come later: members may be missing until then.
        for (digest, kind, bytes) in indexes {
            match self.put_manifest(name, &kind, &bytes, Some(&digest), None) {
                Ok(_) => imported.manifests += 1,
                Err(error) => failed.push(format!("{name}@{digest}: {error}")),
            }
        }
        for tag in entries(&path.join("_manifests/tags"))? {
            let link = path.join("_manifests/tags").join(&tag).join("current/link");
            let tagged = read(&link, 1024).and_then(|text| {
                let text = String::from_utf8_lossy(&text).trim().to_owned();
                let digest: Digest = text.parse().map_err(|_| refused(format!("`{text}` is no digest")))?;
                let stored = self.manifest(name, &digest)?;
                let stored = stored.ok_or_else(|| refused(format!("it names {digest}, which is not there")))?;
                let kind = &stored.descriptor.media_type;
                self.put_manifest(name, kind, &stored.bytes, Some(&digest), Some(&tag)).map(drop)
            });
            match tagged {
                Ok(()) => imported.tags += 1,
                Err(error) => failed.push(format!("{name}:{tag}: {error}")),
            }
        }
        imported.refused.extend(failed);
        Ok(())
    }

    /// Reads the OCI layout in `folder` into a repository: every entry of its `index.json`, tagged by its
    /// `org.opencontainers.image.ref.name`. Safe to repeat.
    pub fn import_layout(&self, repository: &str, folder: &Path) -> Result<Imported, RegistryError> {
        Reference::new("localhost", repository, None, None)?;
        let path = folder.join("index.json");
        let index: Index = serde_json::from_slice(&read(&path, MANIFEST_LIMIT_BYTES)?)
            .map_err(|error| refused(format!("`{}`: {error}", path.display())))?;
        let mut imported = Imported { repositories: 1, ..Imported::default() };
        for entry in &index.manifests {
            // Some write whole references; the tag is what follows the last colon.
            let tag = entry.annotations.get(REF_NAME).map(|name| name.rsplit(['/', ':']).next().unwrap_or(name));
            match self.import_entry(repository, folder, entry, tag, 0, &mut imported) {
                Ok(()) => imported.tags += usize::from(tag.is_some()),
                Err(error) => imported.refused.push(format!("{}: {error}", entry.digest)),
            }
        }
        Ok(imported)
    }

    fn import_entry(
        &self,
        repository: &str,
        folder: &Path,
        entry: &Descriptor,
        tag: Option<&str>,
        depth: usize,
        imported: &mut Imported,
    ) -> Result<(), RegistryError> {
        if depth > NESTING_LIMIT {
            return Err(refused(format!("indexes are nested more than {NESTING_LIMIT} deep")));
        }
        let bytes = read(&in_layout(folder, &entry.digest), MANIFEST_LIMIT_BYTES)?;
        let parsed = Parsed::parse(&entry.media_type, &bytes)?;
        for blob in &parsed.blobs {
            imported.blobs += usize::from(self.import_file(repository, &in_layout(folder, &blob.digest), blob)?);
        }
        for member in &parsed.manifests {
            // A layout may hold some of an index only.
            if in_layout(folder, &member.digest).is_file() {
                self.import_entry(repository, folder, member, None, depth + 1, imported)?;
            }
        }
        self.put_manifest(repository, &entry.media_type, &bytes, Some(&entry.digest), tag)?;
        imported.manifests += 1;
        Ok(())
    }

    /// Copies a file into a repository as the blob `descriptor`; `false` when the repository or another one held it.
    fn import_file(&self, repository: &str, path: &Path, descriptor: &Descriptor) -> Result<bool, RegistryError> {
        let digest = &descriptor.digest;
        if self.blob_size(repository, digest)?.is_some() {
            return Ok(false);
        }
        for holder in self.meta.holders(digest, 1)? {
            if self.mount(repository, &holder, digest)? {
                return Ok(false);
            }
        }
        let mut file = File::open(path).map_err(RegistryError::storage("open", path))?;
        let session = self.start_upload(repository, digest.algorithm())?;
        let mut append = self.append(&session)?;
        let copied = (|| {
            let mut buffer = vec![0; PIECE_BYTES];
            loop {
                let got = file.read(&mut buffer).map_err(RegistryError::storage("read", path))?;
                if got == 0 {
                    return Ok(());
                }
                append.write(&[Bytes::copy_from_slice(&buffer[..got])], BLOB_LIMIT_BYTES)?;
            }
        })();
        if let Err(error) = copied {
            drop(append);
            let _ = self.cancel_upload(&session);
            return Err(error);
        }
        self.finish_upload(&session, append, digest)?;
        Ok(true)
    }

    /// Writes a repository, or one of its tags, as an OCI layout into `folder`, which must be empty or not there: what
    /// the tags name with all members that are here, and what refers to them. Every byte is verified. Call from outside
    /// the runtime.
    pub fn export_layout(&self, repository: &str, tag: Option<&str>, folder: &Path) -> Result<usize, RegistryError> {
        if !entries(folder)?.is_empty() {
            return Err(refused(format!("`{}` is not empty", folder.display())));
        }
        let tags = match tag {
            Some(tag) => vec![tag.to_owned()],
            None => {
                let unknown = || refused(format!("there is no repository `{repository}`"));
                self.tags(repository)?.ok_or_else(unknown)?
            }
        };
        std::fs::create_dir_all(folder).map_err(RegistryError::storage("make", folder))?;
        let (mut listed, mut done) = (Vec::new(), BTreeSet::new());
        for tag in tags {
            let found = self.meta.descriptor(repository, &Name::Tag(tag.clone()))?;
            let missing = || refused(format!("`{repository}` has no tag `{tag}`"));
            let mut descriptor = found.ok_or_else(missing)?;
            self.export_manifest(repository, &descriptor, folder, 0, &mut done, &mut listed)?;
            descriptor.annotations = BTreeMap::from([(REF_NAME.to_owned(), tag)]);
            listed.push(descriptor);
        }
        let count = done.len();
        let index = serde_json::to_vec(&Index::new(listed)).expect("plain data serialises");
        write(&folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        write(&folder.join("index.json"), &index)?;
        Ok(count)
    }

    fn export_manifest(
        &self,
        repository: &str,
        descriptor: &Descriptor,
        folder: &Path,
        depth: usize,
        done: &mut BTreeSet<String>,
        listed: &mut Vec<Descriptor>,
    ) -> Result<(), RegistryError> {
        if depth > NESTING_LIMIT {
            return Err(refused(format!("indexes are nested more than {NESTING_LIMIT} deep")));
        }
        let digest = &descriptor.digest;
        if !done.insert(digest.to_string()) {
            return Ok(());
        }
        // What is not here was never pushed: a sparse index.
        let Some(stored) = self.manifest(repository, digest)? else {
            done.remove(&digest.to_string());
            return Ok(());
        };
        let parsed = Parsed::parse(&stored.descriptor.media_type, &stored.bytes)?;
        for blob in &parsed.blobs {
            self.export_blob(repository, blob, folder)?;
        }
        for member in &parsed.manifests {
            self.export_manifest(repository, member, folder, depth + 1, done, listed)?;
        }
        let path = in_layout(folder, digest);
        make_parent(&path)?;
        write(&path, &stored.bytes)?;
        let mut after = String::new();
        loop {
            let page = self.referrers(repository, digest, None, &after, PAGE_LIMIT_ENTRIES)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.digest.to_string();
            for referrer in page {
                if !done.contains(&referrer.digest.to_string()) {
                    self.export_manifest(repository, &referrer, folder, depth + 1, done, listed)?;
                    if done.contains(&referrer.digest.to_string()) {
                        listed.push(referrer);
                    }
                }
            }
        }
    }

    fn export_blob(&self, repository: &str, blob: &Descriptor, folder: &Path) -> Result<(), RegistryError> {
        let path = in_layout(folder, &blob.digest);
        if path.exists() {
            return Ok(());
        }
        make_parent(&path)?;
        let missing = || refused(format!("the bytes of {} are not there; see `ctk registry check`", blob.digest));
        let held = self.blob(repository, &blob.digest)?.ok_or_else(missing)?;
        let mut stream = self.read(&held, ByteRange { start: 0, end: held.size })?.ok_or_else(missing)?;
        let temporary = path.with_extension("part");
        let mut file = File::create(&temporary).map_err(RegistryError::storage("write", &temporary))?;
        let mut digester = blob.digest.algorithm().digester();
        let copied = ctk_http::runtime().block_on(async {
            while let Some(piece) = stream.next().await {
                let place = held.place.to_string();
                let piece = piece.map_err(|cause| RegistryError::Unreadable { place, cause })?;
                digester.update(&piece);
                file.write_all(&piece).map_err(RegistryError::storage("write", &temporary))?;
            }
            Ok::<_, RegistryError>(())
        });
        let found = copied.map(|()| digester.finish()).inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
        if found != blob.digest {
            let _ = std::fs::remove_file(&temporary);
            let expected = blob.digest.clone();
            return Err(RegistryError::Mismatch { expected, expected_size: held.size, found, found_size: held.size });
        }
        std::fs::rename(&temporary, &path).map_err(RegistryError::storage("name", &path))
    }
}

fn in_layout(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join("blobs").join(digest.algorithm().name()).join(digest.hex())
}

fn make_parent(path: &Path) -> Result<(), RegistryError> {
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent).map_err(RegistryError::storage("make", parent))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RegistryError> {
    std::fs::write(path, bytes).map_err(RegistryError::storage("write", path))
}
