//! Artifacts: files as a manifest, alone or attached to an image.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use ctk_oci::{Algorithm, Descriptor, Digest, Document, Manifest, Platform, Reference, media_type};
use ctk_plan::{Cancel, Step};
use ctk_store::{BlobReader, Blobs, Sink, StoreError};

use crate::blob::blocking;
use crate::manifest::{Fetched, Shape};
use crate::progress::Progress;
use crate::push::Source;
use crate::{ARTIFACT_FILES_LIMIT, Client, ClientError, block};

/// The annotation that has a file's name.
const TITLE: &str = "org.opencontainers.image.title";

/// Files to push as one manifest.
#[derive(Clone, Debug, Default)]
pub struct Artifact {
    /// What kind of thing it is, a media type.
    pub artifact_type: String,
    /// The config, if it has one.
    pub config: Option<ArtifactFile>,
    /// The files.
    pub files: Vec<ArtifactFile>,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
    /// What it refers to.
    pub subject: Option<Descriptor>,
}

/// A file to push.
#[derive(Clone, Debug)]
pub struct ArtifactFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its media type.
    pub media_type: String,
    /// What whoever fetches it shall call it.
    pub title: Option<String>,
    /// Further annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The bytes of an artifact: files of this machine, and the empty document.
#[derive(Default)]
struct Given(HashMap<Digest, Option<PathBuf>>);

/// The empty document, which stands where a manifest must name something.
const EMPTY: &[u8] = b"{}";

impl Given {
    fn empty(&mut self) -> Descriptor {
        let mut descriptor = Descriptor::of(media_type::EMPTY_JSON, EMPTY);
        // As the image specification has it: readers need not fetch it.
        descriptor.data = Some("e30=".into());
        self.0.insert(descriptor.digest.clone(), None);
        descriptor
    }

    fn file(&mut self, file: &ArtifactFile) -> Result<Descriptor, ClientError> {
        let failed = |cause| ClientError::Read { path: file.path.clone(), cause };
        let mut content = File::open(&file.path).map_err(failed)?;
        if content.metadata().map_err(failed)?.is_dir() {
            return Err(failed(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
        }
        let mut digester = Algorithm::Sha256.digester();
        let size = std::io::copy(&mut content, &mut digester).map_err(failed)?;
        let mut descriptor = Descriptor::new(file.media_type.as_str(), digester.finish(), size);
        descriptor.annotations = file.annotations.clone();
        if let Some(title) = &file.title {
            descriptor.annotations.insert(TITLE.into(), title.clone());
        }
        self.0.insert(descriptor.digest.clone(), Some(file.path.clone()));
        Ok(descriptor)
    }
}

impl Blobs for Given {
    fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.0.get(digest).map(|path| match path {
            Some(path) => path.metadata().map_or(0, |metadata| metadata.len()),
            None => EMPTY.len() as u64,
        }))
    }

    fn open(&self, descriptor: &Descriptor) -> Result<BlobReader<Box<dyn Read + Send>>, StoreError> {
        let content: Box<dyn Read + Send> = match self.0.get(&descriptor.digest) {
            None => return Err(StoreError::Missing { digest: descriptor.digest.clone() }),
            Some(None) => Box::new(Cursor::new(EMPTY)),
            Some(Some(path)) => match File::open(path) {
                Ok(file) => Box::new(file),
                Err(source) => return Err(StoreError::Io { action: "open", path: path.clone(), source }),
            },
        };
        Ok(BlobReader::new(content, descriptor))
    }

    fn create<'a>(&'a self, _expected: Option<&Descriptor>) -> Result<Box<dyn Sink + 'a>, StoreError> {
        unreachable!("what is given is only read")
    }
}

impl Client {
    /// Pushes an artifact to the repository of `to`, and points its tag at it if it has one. Gives its manifest. A file
    /// that changes while it is read fails it.
    pub fn push_artifact(
        &self,
        to: &Reference,
        artifact: &Artifact,
        step: Option<&Step>,
        cancel: &Cancel,
    ) -> Result<Descriptor, ClientError> {
        if artifact.files.len() > ARTIFACT_FILES_LIMIT {
            let reason = format!("it would have more than {ARTIFACT_FILES_LIMIT} files");
            return Err(ClientError::Manifest { reference: to.to_string(), reason });
        }
        block(cancel, async {
            let asked = artifact.clone();
            let (given, config, mut layers) = blocking(move || {
                let mut given = Given::default();
                let config = match &asked.config {
                    Some(file) => given.file(file)?,
                    None => given.empty(),
                };
                let layers = asked.files.iter().map(|file| given.file(file)).collect::<Result<Vec<_>, _>>()?;
                Ok::<_, ClientError>((given, config, layers))
            })
            .await??;
            let mut given = given;
            if layers.is_empty() {
                layers.push(given.empty());
            }
            let mut manifest = Manifest::image(config.clone(), layers.clone());
            manifest.artifact_type = Some(artifact.artifact_type.clone());
            let bare = |d: &Descriptor| Descriptor::new(d.media_type.as_str(), d.digest.clone(), d.size);
            manifest.subject = artifact.subject.as_ref().map(bare);
            manifest.annotations = artifact.annotations.clone();
            let document = Document::new(manifest);
            let descriptor = document.descriptor(media_type::MANIFEST);
            let fetched = Fetched { descriptor: descriptor.clone(), bytes: document.bytes().to_vec() };

            let target = self.target(to).await?;
            let mut blobs = layers;
            blobs.push(config);
            let mut names = std::collections::HashSet::new();
            blobs.retain(|blob| names.insert(blob.digest.clone()));
            let source = Source::Local { blobs: Arc::new(given), store: None };
            self.send_blobs(&target, &blobs, &source, &[], step).await?;
            let name = to.tag().map_or_else(|| descriptor.digest.to_string(), str::to_owned);
            self.put_manifest(&target, &name, &fetched).await?;
            Ok(descriptor)
        })
    }

    /// What `reference` names, or the member of its index for `platform`. The registry itself is asked, no mirror.
    pub fn subject(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        cancel: &Cancel,
    ) -> Result<Descriptor, ClientError> {
        block(cancel, async {
            let at = self.target(reference).await?;
            Ok(self.named(&at, &reference.target(), platform).await?.descriptor)
        })
    }

    /// The manifest that `reference` names, or the member of its index for `platform`; with its bytes as they came.
    pub fn manifest(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        cancel: &Cancel,
    ) -> Result<(Descriptor, Vec<u8>), ClientError> {
        block(cancel, async {
            let sources = self.sources(reference)?;
            let mut found = self.fetch_manifest(&sources, &reference.target()).await?;
            if let (Some(platform), Shape::Index(index)) = (platform, found.shape(&sources.reference)?) {
                let member = crate::pull::wanted(&index, Some(platform), &sources.reference)?.remove(0);
                found = self.fetch_manifest(&sources, &member.digest.to_string()).await?;
            }
            Ok((found.descriptor, found.bytes))
        })
    }

    /// Writes one blob of the repository of `reference` to `to`. What was written counts only when this succeeds: it is
    /// verified at its end.
    pub fn fetch_blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        to: &mut dyn Write,
        step: Option<&Step>,
        cancel: &Cancel,
    ) -> Result<(), ClientError> {
        block(cancel, async {
            let sources = self.sources(reference)?;
            let progress = Progress::new(step);
            self.stream_blob(&sources, blob, to, &progress).await?;
            progress.flush();
            Ok(())
        })
    }
}
