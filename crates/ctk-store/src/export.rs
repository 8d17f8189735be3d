//! Saves images: OCI layouts (directory, tar) and docker archives.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use ctk_layer::{Entry, EntryKind, TarWriter, decode};
use ctk_oci::{Descriptor, Digest, Document, ImageConfig, Index, Manifest, Platform, Reference, media_type};
use ctk_plan::Cancel;
use serde_json::json;

use crate::archive::{CONTAINERD_NAME, REF_NAME};
use crate::error::Context;
use crate::fsutil::make_directory;
use crate::layout::named_member;
use crate::limits::INDEX_DEPTH_MAX;
use crate::{Layout, Store, StoreError};

/// An image to save.
#[derive(Clone, Debug)]
pub struct Export {
    /// What the archive calls it; several entries may name the same image.
    pub name: Option<Name>,
    /// A manifest or an index.
    pub descriptor: Descriptor,
}

/// What an archive calls an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// So, in every format.
    Plain(String),
    /// As a registry would: in a layout its tag is what others find it by, and the whole name stands beside it, as
    /// docker and containerd write it.
    Reference(Reference),
}

impl Name {
    /// Of the full name of an image; what is none is plain.
    pub fn of(text: &str) -> Name {
        match text.parse::<Reference>().map(Reference::or_latest) {
            Ok(reference) if reference.tag().is_some() => Name::Reference(reference),
            _ => Name::Plain(text.to_owned()),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Plain(text) => f.write_str(text),
            Name::Reference(reference) => reference.fmt(f),
        }
    }
}

/// Adds images to the OCI layout in `directory`, making it if needed. Names that it already has are moved; its other
/// images stay. The index changes last, by a rename.
pub fn export_layout(store: &Store, directory: &Path, exports: &[Export], cancel: &Cancel) -> Result<(), StoreError> {
    make_directory(directory)?;
    for descriptor in reachable(store, exports)? {
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let digest = &descriptor.digest;
        let blobs = directory.join("blobs").join(digest.algorithm().name());
        make_directory(&blobs)?;
        let path = blobs.join(digest.hex());
        if fs::metadata(&path).is_ok_and(|m| m.len() == descriptor.size) {
            continue;
        }
        let temporary = blobs.join(format!(".{}.{}", digest.short(), std::process::id()));
        let written = write_file(store, &descriptor, &temporary)
            .and_then(|()| fs::rename(&temporary, &path).context("rename into place", &path));
        if written.is_err() {
            // The write's error matters more than that of cleaning up after it.
            let _ = fs::remove_file(&temporary);
        }
        written?;
    }
    Layout::new(directory).name(exports.iter().map(|export| (export.name.clone(), export.descriptor.clone())))
}

/// Writes an OCI layout as a tar stream: the same bytes for the same images.
pub fn export_layout_archive<W: Write>(
    store: &Store,
    out: W,
    exports: &[Export],
    cancel: &Cancel,
) -> Result<W, StoreError> {
    let mut tar = TarWriter::new(out);
    small(&mut tar, "oci-layout", crate::layout::version())?;
    let index = Index::new(members(exports).collect());
    small(&mut tar, "index.json", &serde_json::to_vec(&index).expect("plain data serialises"))?;
    let blobs = reachable(store, exports)?;
    let mut directories = BTreeSet::from(["blobs".to_owned()]);
    directories.extend(blobs.iter().map(|b| format!("blobs/{}", b.digest.algorithm().name())));
    for directory in directories {
        tar.append(&Entry::new(directory, EntryKind::Directory, 0o755), std::io::empty())?;
    }
    for descriptor in blobs {
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let digest = &descriptor.digest;
        let path = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        let entry = Entry::new(path, EntryKind::File { size: descriptor.size }, 0o644);
        tar.append(&entry, whole(store.open_blob(&descriptor)?, descriptor.size))?;
    }
    Ok(tar.finish()?)
}

/// Writes a docker archive (`docker save`): readable by docker, podman and skopeo of any age. Of an index, the member
/// for `platform` is taken; layers are decompressed, as old readers want them.
pub fn export_docker_archive<W: Write>(
    store: &Store,
    out: W,
    exports: &[Export],
    platform: &Platform,
    cancel: &Cancel,
) -> Result<W, StoreError> {
    let mut tar = TarWriter::new(out);
    let mut written = HashSet::new();
    let mut items: Vec<(Digest, serde_json::Value, Vec<String>)> = Vec::new();
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for export in exports {
        let manifest_of = manifest_of(store, &export.descriptor, platform, 0)?;
        let manifest: Document<Manifest> = store.document("image manifest", &manifest_of)?;
        let manifest = manifest.value();
        let config: Document<ImageConfig> = store.document("image config", &manifest.config)?;
        let config_name = format!("{}.json", manifest.config.digest.hex());
        if written.insert(config_name.clone()) {
            small(&mut tar, &config_name, config.bytes())?;
        }
        let mut layers = Vec::new();
        let mut parent: Option<String> = None;
        for (layer, diff_id) in manifest.layers.iter().zip(&config.value().rootfs.diff_ids) {
            if cancel.is_cancelled() {
                return Err(StoreError::Cancelled);
            }
            let id = diff_id.0.hex().to_owned();
            let path = format!("{id}/layer.tar");
            if written.insert(path.clone()) {
                tar.append(&Entry::new(id.clone(), EntryKind::Directory, 0o755), std::io::empty())?;
                small(&mut tar, &format!("{id}/VERSION"), b"1.0")?;
                let legacy = match &parent {
                    Some(parent) => json!({ "id": id, "parent": parent }),
                    None => json!({ "id": id }),
                };
                small(&mut tar, &format!("{id}/json"), legacy.to_string().as_bytes())?;
                let read = |source| StoreError::Input { what: format!("layer {}", layer.digest), source };
                let (_, mut stream) = decode(store.open_blob(layer)?).map_err(read)?;
                let size = std::io::copy(&mut stream, &mut std::io::sink()).map_err(read)?;
                let (_, stream) = decode(store.open_blob(layer)?).map_err(read)?;
                tar.append(&Entry::new(path.clone(), EntryKind::File { size }, 0o644), stream)?;
            }
            layers.push(path);
            parent = Some(id);
        }
        let name = export.name.as_ref().map(|name| familiar(&name.to_string()));
        if let (Some(name), Some(top)) = (&name, parent)
            && let Some((repository, tag)) = name.rsplit_once(':')
        {
            repositories.entry(repository.to_owned()).or_default().insert(tag.to_owned(), top);
        }
        match items.iter_mut().find(|(digest, ..)| *digest == manifest.config.digest) {
            Some((_, _, names)) => names.extend(name),
            None => {
                let item = json!({ "Config": config_name, "Layers": layers });
                items.push((manifest.config.digest.clone(), item, name.into_iter().collect()));
            }
        }
    }
    let items: Vec<serde_json::Value> = items
        .into_iter()
        .map(|(_, mut item, names)| {
            item["RepoTags"] = json!(names);
            item
        })
        .collect();
    small(&mut tar, "manifest.json", json!(items).to_string().as_bytes())?;
    small(&mut tar, "repositories", json!(repositories).to_string().as_bytes())?;
    Ok(tar.finish()?)
}

/// Docker's archives want a tag, and know no `docker.io/library/`.
fn familiar(name: &str) -> String {
    let Ok(reference) = name.parse::<Reference>() else { return name.to_owned() };
    let name = reference.or_latest().to_string();
    let name = name.split('@').next().unwrap_or_default();
    let short = name.strip_prefix("docker.io/library/").or_else(|| name.strip_prefix("docker.io/"));
    short.unwrap_or(name).to_owned()
}

fn members(exports: &[Export]) -> impl Iterator<Item = Descriptor> + '_ {
    exports.iter().map(|export| named_member(export.name.as_ref(), export.descriptor.clone()))
}

/// The whole name that a layout gives an image, or what it has of one.
pub(crate) fn name_of(member: &Descriptor) -> Option<&String> {
    member.annotations.get(CONTAINERD_NAME).or_else(|| member.annotations.get(REF_NAME))
}

fn manifest_of(
    store: &Store,
    descriptor: &Descriptor,
    platform: &Platform,
    depth: usize,
) -> Result<Descriptor, StoreError> {
    if !media_type::is_index(&descriptor.media_type) {
        return Ok(descriptor.clone());
    }
    let refuse = |reason: String| StoreError::Archive { what: descriptor.digest.to_string(), reason };
    if depth > INDEX_DEPTH_MAX {
        return Err(refuse(format!("indexes are nested more than {INDEX_DEPTH_MAX} deep")));
    }
    let index: Document<Index> = store.document("image index", descriptor)?;
    let member = index.value().select(platform).ok_or_else(|| refuse(format!("it has no image for {platform}")))?;
    manifest_of(store, member, platform, depth + 1)
}

/// Every blob of the images, children before parents, each once. Members of an index that were never fetched are
/// left out.
fn reachable(store: &Store, exports: &[Export]) -> Result<Vec<Descriptor>, StoreError> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for export in exports {
        if !store.contains(&export.descriptor.digest)? {
            return Err(StoreError::Missing { digest: export.descriptor.digest.clone() });
        }
        visit(store, &export.descriptor, 0, &mut seen, &mut found)?;
    }
    Ok(found)
}

fn visit(
    store: &Store,
    descriptor: &Descriptor,
    depth: usize,
    seen: &mut HashSet<Digest>,
    found: &mut Vec<Descriptor>,
) -> Result<(), StoreError> {
    if depth > INDEX_DEPTH_MAX || !seen.insert(descriptor.digest.clone()) {
        return Ok(());
    }
    if media_type::is_index(&descriptor.media_type) {
        let index: Document<Index> = store.document("image index", descriptor)?;
        for member in &index.value().manifests {
            if store.contains(&member.digest)? {
                visit(store, member, depth + 1, seen, found)?;
            }
        }
    } else if media_type::is_manifest(&descriptor.media_type) {
        let manifest: Document<Manifest> = store.document("image manifest", descriptor)?;
        for part in std::iter::once(&manifest.value().config).chain(&manifest.value().layers) {
            if seen.insert(part.digest.clone()) {
                if !store.contains(&part.digest)? {
                    return Err(StoreError::Missing { digest: part.digest.clone() });
                }
                found.push(part.clone());
            }
        }
    }
    found.push(descriptor.clone());
    Ok(())
}

fn write_file(store: &Store, descriptor: &Descriptor, path: &Path) -> Result<(), StoreError> {
    let mut out = fs::File::create(path).context("create", path)?;
    let mut blob = store.open_blob(descriptor)?;
    std::io::copy(&mut blob, &mut out).and_then(|_| out.sync_data()).context("write", path)
}

fn small<W: Write>(tar: &mut TarWriter<W>, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let entry = Entry::new(path, EntryKind::File { size: bytes.len() as u64 }, 0o644);
    Ok(tar.append(&entry, bytes)?)
}

/// Reads `size` bytes and then the end, so that a verifying reader has its word.
fn whole(inner: impl Read, size: u64) -> impl Read {
    struct Whole<R> {
        inner: R,
        left: u64,
    }
    impl<R: Read> Read for Whole<R> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = self.inner.read(buffer)?;
            self.left = self.left.saturating_sub(n as u64);
            if n > 0 && self.left == 0 {
                // The last bytes: the reader under us must agree before we give them.
                self.inner.read(&mut [0; 1])?;
            }
            Ok(n)
        }
    }
    Whole { inner, left: size }
}
