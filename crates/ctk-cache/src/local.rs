//! A cache in a folder: an OCI layout (image-spec, `image-layout.md`), which may hold several by their tags.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ctk_oci::{Descriptor, Digest, Document, Index, Manifest, media_type};
use rustix::fs::{FlockOperation, flock};

use crate::CacheError;
use crate::limits::MANIFEST_MAX_BYTES;
use crate::transfer::{Backend, Env, Source};

/// The annotation of a layout's index that names a member.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

pub(crate) struct Folder {
    pub path: PathBuf,
    pub tag: String,
    pub digest: Option<Digest>,
    /// Whether an export removes what the new cache does not need.
    pub reset: bool,
}

impl Folder {
    fn blob(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    fn index(&self) -> Result<Option<Index>, CacheError> {
        let path = self.path.join("index.json");
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(MANIFEST_MAX_BYTES).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CacheError::io("read", path)(error)),
        }
        let parsed: Result<Document<Index>, _> = Document::parse("index", bytes);
        let format = |error: ctk_oci::DocumentError| CacheError::Format {
            place: self.path.display().to_string(),
            reason: error.to_string(),
        };
        Ok(Some(parsed.map_err(format)?.into_value()))
    }

    fn named<'i>(&self, index: &'i Index) -> Option<&'i Descriptor> {
        index.manifests.iter().find(|member| match &self.digest {
            Some(digest) => member.digest == *digest,
            None => member.annotations.get(REF_NAME) == Some(&self.tag),
        })
    }

    /// Writes a file so that it is there whole or not at all.
    fn write(&self, to: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), CacheError> {
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let new = to.with_file_name(name);
        let written = File::create(&new).and_then(|mut file| {
            fill(&mut file)?;
            file.sync_all()?;
            fs::rename(&new, to)
        });
        written.map_err(|error| {
            let _ = fs::remove_file(&new);
            CacheError::io("write", to)(error)
        })
    }

    fn copy(&self, blob: &Descriptor, env: &Env<'_>) -> Result<(), CacheError> {
        // Verified as it is read.
        let mut from = env.store.open_blob(blob)?;
        self.write(&self.blob(&blob.digest), |to| io::copy(&mut from, to).map(drop))
    }

    fn has(&self, blob: &Descriptor) -> bool {
        self.blob(&blob.digest).metadata().is_ok_and(|found| found.len() == blob.size)
    }

    /// Removes blobs that no name leads to, and what killed exports left.
    fn sweep(&self, index: &Index, env: &Env<'_>) -> Result<(), CacheError> {
        let mut needed: HashSet<String> = HashSet::new();
        let mut pending = index.manifests.clone();
        while let Some(descriptor) = pending.pop() {
            needed.insert(descriptor.digest.hex().to_owned());
            self.fetch(&descriptor, env)?;
            if media_type::is_index(&descriptor.media_type) {
                pending.extend(env.store.document::<Index>("index", &descriptor)?.into_value().manifests);
            } else if media_type::is_manifest(&descriptor.media_type) {
                let manifest = env.store.document::<Manifest>("manifest", &descriptor)?.into_value();
                let blobs = manifest.layers.iter().chain([&manifest.config]);
                needed.extend(blobs.map(|blob| blob.digest.hex().to_owned()));
            }
        }
        let folder = self.path.join("blobs/sha256");
        for entry in fs::read_dir(&folder).map_err(CacheError::io("read", &folder))?.flatten() {
            if !needed.contains(&*entry.file_name().to_string_lossy()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

impl Backend for Folder {
    fn root(&self, env: &Env<'_>) -> Result<Option<Descriptor>, CacheError> {
        let Some(index) = self.index()? else { return Ok(None) };
        let Some(root) = self.named(&index) else { return Ok(None) };
        let root = Descriptor::new(root.media_type.clone(), root.digest.clone(), root.size);
        let mut pending = vec![root.clone()];
        while let Some(descriptor) = pending.pop() {
            if !env.store.contains(&descriptor.digest)? {
                self.fetch(&descriptor, env)?;
            }
            if media_type::is_index(&descriptor.media_type) {
                let index = env.store.document::<Index>("index", &descriptor)?.into_value();
                pending.extend(index.manifests);
            }
        }
        Ok(Some(root))
    }

    fn fetch(&self, blob: &Descriptor, env: &Env<'_>) -> Result<(), CacheError> {
        if env.store.contains(&blob.digest)? {
            return Ok(());
        }
        let path = self.blob(&blob.digest);
        let file = File::open(&path).map_err(CacheError::io("open", &path))?;
        let mut ingest = env.store.ingest(Some(blob))?;
        ingest.fill("cache", file)?;
        ingest.commit()?;
        Ok(())
    }

    fn is_whole(&self, manifests: &[Descriptor], blobs: &[Descriptor], _env: &Env<'_>) -> Result<bool, CacheError> {
        Ok(blobs.iter().chain(manifests).all(|blob| self.has(blob)))
    }

    fn send(
        &self,
        manifests: &[Descriptor],
        blobs: &[Descriptor],
        source: &Source<'_>,
        env: &Env<'_>,
    ) -> Result<usize, CacheError> {
        let folder = self.path.join("blobs/sha256");
        fs::create_dir_all(&folder).map_err(CacheError::io("create", &folder))?;
        // Two exports into one folder take turns; whoever reads needs no lock.
        let path = self.path.join("ctk.lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(CacheError::io("open", &path))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| CacheError::io("lock", &path)(error.into()))?;
        let mut sent = 0;
        for blob in blobs {
            if env.cancel.is_cancelled() {
                return Err(CacheError::Cancelled);
            }
            if (source.damaged)(&blob.digest) || !self.has(blob) {
                source.bring(blob, env)?;
                self.copy(blob, env)?;
                sent += 1;
            }
        }
        for manifest in manifests {
            self.copy(manifest, env)?;
        }
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        self.write(&self.path.join("oci-layout"), |file| file.write_all(layout))?;
        let mut index = self.index()?.unwrap_or_else(|| Index::new(Vec::new()));
        index.manifests.retain(|member| member.annotations.get(REF_NAME) != Some(&self.tag));
        let mut root = manifests.last().expect("an export has a manifest").clone();
        root.annotations.insert(REF_NAME.into(), self.tag.clone());
        index.manifests.push(root);
        let document = Document::new(index);
        self.write(&self.path.join("index.json"), |file| file.write_all(document.bytes()))?;
        if self.reset {
            self.sweep(document.value(), env)?;
        }
        Ok(sent)
    }
}
