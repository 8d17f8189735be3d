//! Loads images: OCI layouts (directory, tar) and docker archives (`docker save`), also compressed as a whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use ctk_layer::{Encoding, EntryKind, TarReader, decode};
use ctk_oci::media_type::{self, LayerCompression};
use ctk_oci::{Algorithm, Descriptor, Digest, Document, ImageConfig, Index, Manifest};
use ctk_plan::Cancel;
use serde::Deserialize;

use crate::error::Context;
use crate::export::name_of;
use crate::limits::{ARCHIVE_INDEX_MAX_BYTES, INDEX_DEPTH_MAX};
use crate::{Store, StoreError};

/// One image that was loaded. It has no ref yet; naming it is the caller's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The names that the archive gives it, as written there.
    pub names: Vec<String>,
    /// A manifest or an index.
    pub descriptor: Descriptor,
}

pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Docker 25 and containerd write the whole name here, and only the tag into [`REF_NAME`].
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Loads an OCI layout directory; only what its index reaches is read.
pub fn import_layout(store: &Store, directory: &Path, cancel: &Cancel) -> Result<Vec<Imported>, StoreError> {
    let path = directory.join("index.json");
    let bytes = fs::read(&path).context("read", &path)?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|source| StoreError::Json { path, source })?;
    let what = directory.display().to_string();
    named(store, &what, &index, &mut |descriptor| bring(store, directory, descriptor, cancel))
}

/// Brings one image of an OCI layout directory, with all that belongs to it.
pub fn import_from_layout(
    store: &Store,
    directory: &Path,
    image: &Descriptor,
    cancel: &Cancel,
) -> Result<(), StoreError> {
    let what = directory.display().to_string();
    let mut bring = |descriptor: &Descriptor| bring(store, directory, descriptor, cancel);
    match walk(store, &what, image, 0, &mut HashSet::new(), &mut bring)? {
        true => Ok(()),
        false => Err(StoreError::Archive { what, reason: format!("{} is missing", image.digest) }),
    }
}

/// Makes a blob of a layout available; `false`: the layout does not have it.
fn bring(store: &Store, directory: &Path, descriptor: &Descriptor, cancel: &Cancel) -> Result<bool, StoreError> {
    if cancel.is_cancelled() {
        return Err(StoreError::Cancelled);
    }
    if store.contains(&descriptor.digest)? {
        return Ok(true);
    }
    let digest = &descriptor.digest;
    let path = directory.join("blobs").join(digest.algorithm().name()).join(digest.hex());
    let file = match File::open(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        file => file.context("open", &path)?,
    };
    let mut ingest = store.ingest(Some(descriptor))?;
    ingest.fill(&path.display().to_string(), file)?;
    ingest.commit()?;
    Ok(true)
}

/// Loads a tar stream, compressed or not, that holds an OCI layout or a docker archive. `what` names it in errors.
pub fn import_archive(
    store: &Store,
    what: &str,
    stream: impl Read + Send,
    cancel: &Cancel,
) -> Result<Vec<Imported>, StoreError> {
    let input = |source| StoreError::Input { what: what.to_owned(), source };
    let (_, stream) = decode(stream).map_err(input)?;
    let mut files = Files::default();
    let mut tar = TarReader::new(stream);
    while let Some(entry) = tar.next_entry()? {
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let path = entry.display();
        match &entry.kind {
            EntryKind::Symlink { target } => {
                files.links.insert(path.clone(), beside(&path, &String::from_utf8_lossy(target)));
            }
            EntryKind::HardLink { target } => {
                files.links.insert(path, String::from_utf8_lossy(target).into_owned());
            }
            EntryKind::File { size } => files.take(store, what, path, *size, &mut tar)?,
            _ => {}
        }
    }
    tar.finish()?;
    let refuse = |reason: String| StoreError::Archive { what: what.to_owned(), reason };
    if let Some(bytes) = files.small.get("index.json") {
        let parsed = serde_json::from_slice(bytes);
        let index: Index = parsed.map_err(|source| StoreError::Json { path: "index.json".into(), source })?;
        return named(store, what, &index, &mut |descriptor| store.contains(&descriptor.digest));
    }
    let Some(bytes) = files.small.get("manifest.json") else {
        return Err(refuse("neither `index.json` (OCI layout) nor `manifest.json` (docker archive) is in it".into()));
    };
    let parsed = serde_json::from_slice(bytes);
    let items: Vec<Item> = parsed.map_err(|source| StoreError::Json { path: "manifest.json".into(), source })?;
    items.iter().map(|item| files.docker_image(store, what, item)).collect()
}

/// The images of a layout's index, each complete. `bring` makes a blob available or says that it is missing.
fn named(
    store: &Store,
    what: &str,
    index: &Index,
    bring: &mut dyn FnMut(&Descriptor) -> Result<bool, StoreError>,
) -> Result<Vec<Imported>, StoreError> {
    let mut images: Vec<Imported> = Vec::new();
    for member in &index.manifests {
        let complete = walk(store, what, member, 0, &mut HashSet::new(), bring)?;
        if !complete {
            let reason = format!("{} is named by the index but missing", member.digest);
            return Err(StoreError::Archive { what: what.to_owned(), reason });
        }
        let name = name_of(member).cloned();
        let mut descriptor = member.clone();
        descriptor.annotations.clear();
        match images.iter_mut().find(|image| image.descriptor.digest == descriptor.digest) {
            Some(image) => image.names.extend(name),
            None => images.push(Imported { names: name.into_iter().collect(), descriptor }),
        }
    }
    Ok(images)
}

/// Brings `descriptor` and all below it. `false`: it is missing itself. Members of an index may be missing as long
/// as one is there (skopeo and buildx write such layouts); parts of a manifest may not.
fn walk(
    store: &Store,
    what: &str,
    descriptor: &Descriptor,
    depth: usize,
    seen: &mut HashSet<Digest>,
    bring: &mut dyn FnMut(&Descriptor) -> Result<bool, StoreError>,
) -> Result<bool, StoreError> {
    let refuse = |reason: String| StoreError::Archive { what: what.to_owned(), reason };
    if !seen.insert(descriptor.digest.clone()) {
        return Ok(true);
    }
    if !bring(descriptor)? {
        return Ok(false);
    }
    if depth > INDEX_DEPTH_MAX {
        return Err(refuse(format!("indexes are nested more than {INDEX_DEPTH_MAX} deep")));
    }
    if media_type::is_index(&descriptor.media_type) {
        let index: Document<Index> = store.document("image index", descriptor)?;
        let mut any = index.value().manifests.is_empty();
        for member in &index.value().manifests {
            any |= walk(store, what, member, depth + 1, seen, bring)?;
        }
        if !any {
            return Err(refuse(format!("no member of the index {} is in it", descriptor.digest)));
        }
    } else if media_type::is_manifest(&descriptor.media_type) {
        let manifest: Document<Manifest> = store.document("image manifest", descriptor)?;
        let manifest = manifest.value();
        for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
            if !bring(part)? {
                return Err(refuse(format!("{} of the manifest {} is missing", part.digest, descriptor.digest)));
            }
        }
    }
    Ok(true)
}

/// One image in docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

#[derive(Default)]
struct Files {
    /// Index files, whole.
    small: BTreeMap<&'static str, Vec<u8>>,
    /// Everything else, as blobs.
    blobs: HashMap<String, (Digest, u64)>,
    links: HashMap<String, String>,
}

impl Files {
    fn take(
        &mut self,
        store: &Store,
        what: &str,
        path: String,
        size: u64,
        tar: &mut impl Read,
    ) -> Result<(), StoreError> {
        let input = |source| StoreError::Input { what: what.to_owned(), source };
        if let Some(name) = ["index.json", "manifest.json", "oci-layout", "repositories"].iter().find(|n| **n == path) {
            if size > ARCHIVE_INDEX_MAX_BYTES {
                let reason = format!("`{path}` has {size} bytes; at most {ARCHIVE_INDEX_MAX_BYTES} are read");
                return Err(StoreError::Archive { what: what.to_owned(), reason });
            }
            let mut bytes = Vec::with_capacity(size as usize);
            tar.read_to_end(&mut bytes).map_err(input)?;
            self.small.insert(name, bytes);
            return Ok(());
        }
        // Docker's legacy bookkeeping beside each layer.
        if path.ends_with("/VERSION") || path.ends_with("/json") {
            return Ok(());
        }
        let expected = path.strip_prefix("blobs/").and_then(|rest| rest.replacen('/', ":", 1).parse::<Digest>().ok());
        let expected = expected.map(|digest| Descriptor::new("application/octet-stream", digest, size));
        if let Some(Descriptor { digest, .. }) = &expected
            && store.contains(digest)?
        {
            self.blobs.insert(path, (digest.clone(), size));
            return Ok(());
        }
        let mut ingest = store.ingest(expected.as_ref())?;
        ingest.fill(what, tar)?;
        self.blobs.insert(path, ingest.commit()?);
        Ok(())
    }

    fn find(&self, what: &str, path: &str) -> Result<(Digest, u64), StoreError> {
        let mut at = path.trim_start_matches("./");
        // A link may lead to a link, but not for long.
        for _ in 0..8 {
            if let Some(found) = self.blobs.get(at) {
                return Ok(found.clone());
            }
            match self.links.get(at) {
                Some(next) => at = next,
                None => break,
            }
        }
        let reason = format!("`{path}` is named by `manifest.json` but missing");
        Err(StoreError::Archive { what: what.to_owned(), reason })
    }

    fn docker_image(&self, store: &Store, what: &str, item: &Item) -> Result<Imported, StoreError> {
        let refuse = |reason: String| StoreError::Archive { what: what.to_owned(), reason };
        let (digest, size) = self.find(what, &item.config)?;
        let config = Descriptor::new(media_type::CONFIG, digest, size);
        let document: Document<ImageConfig> = store.document("image config", &config)?;
        let diff_ids = &document.value().rootfs.diff_ids;
        if diff_ids.len() != item.layers.len() {
            let (layers, ids) = (item.layers.len(), diff_ids.len());
            return Err(refuse(format!("`{}` has {ids} diffIDs for {layers} layers", item.config)));
        }
        let mut layers = Vec::new();
        for (path, diff_id) in item.layers.iter().zip(diff_ids) {
            let (digest, size) = self.find(what, path)?;
            let (encoding, found) = diff_id_of(store, &digest)?;
            let compression = match encoding {
                Encoding::Gzip => LayerCompression::Gzip,
                Encoding::Zstd => LayerCompression::Zstd,
                Encoding::Plain => LayerCompression::None,
                other => return Err(refuse(format!("layer `{path}` is compressed as {other:?}"))),
            };
            if found != diff_id.0 {
                return Err(refuse(format!("layer `{path}` is {found}, but the config says {diff_id}")));
            }
            layers.push(Descriptor::new(compression.media_type(), digest, size));
        }
        let manifest = Document::new(Manifest::image(config, layers));
        let mut descriptor = store.put(media_type::MANIFEST, manifest.bytes())?;
        descriptor.platform = None;
        Ok(Imported { names: item.repo_tags.clone().unwrap_or_default(), descriptor })
    }
}

/// The digest of a layer's tar, whatever its compression. Plain tar's is the blob's own.
fn diff_id_of(store: &Store, digest: &Digest) -> Result<(Encoding, Digest), StoreError> {
    let path = store.blob_path(digest);
    let (encoding, mut stream) = decode(store.open_raw(digest)?).context("read", &path)?;
    if encoding == Encoding::Plain && digest.algorithm() == Algorithm::Sha256 {
        return Ok((encoding, digest.clone()));
    }
    let mut digester = Algorithm::Sha256.digester();
    std::io::copy(&mut stream, &mut digester).context("read", &path)?;
    Ok((encoding, digester.finish()))
}

/// `../x/layer.tar` beside `y/layer.tar` → `x/layer.tar`; what leaves the archive leads nowhere.
fn beside(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
