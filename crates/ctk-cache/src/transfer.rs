//! Records and layers in and out of any place.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use ctk_client::Client;
use ctk_oci::{Descriptor, DiffId, Digest, Document, ImageConfig, Index, Manifest, Platform, media_type};
use ctk_plan::{Cancel, Step};
use ctk_store::Store;

use crate::format::{ARTIFACT_TYPE, RECORDS_TYPE};
use crate::limits::RECORDS_MAX_BYTES;
use crate::local::Folder;
use crate::registry::Repository;
use crate::s3::Bucket;
use crate::spec::Place;
use crate::{CacheError, Export, INLINE_FIELD, Import, Mounts, Records};

/// What reading and writing caches needs of the world.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// Speaks to registries.
    pub client: &'a Client,
    /// How other servers are spoken to.
    pub http: &'a ctk_http::Options,
    /// Where blobs come from and go to.
    pub store: &'a Store,
    /// What relative paths start from.
    pub directory: &'a Path,
    /// For what a bucket's settings leave out.
    pub environment: &'a BTreeMap<String, String>,
    /// Hears of bytes.
    pub step: Option<&'a Step>,
    /// Says stop.
    pub cancel: &'a Cancel,
}

/// Where manifests and blobs are kept.
pub(crate) trait Backend: Send + Sync {
    /// Brings what the cache's name means into the store, with what an index names; nothing if there is no such name.
    fn root(&self, env: &Env<'_>) -> Result<Option<Descriptor>, CacheError>;
    /// Brings a blob into the store, verified.
    fn fetch(&self, blob: &Descriptor, env: &Env<'_>) -> Result<(), CacheError>;
    /// Whether all of these manifests and blobs are there, as far as can be seen without reading them.
    fn is_whole(&self, manifests: &[Descriptor], blobs: &[Descriptor], env: &Env<'_>) -> Result<bool, CacheError>;
    /// Sends blobs that are not there, then manifests (members first), then points the name at the last of them. Gives
    /// how many blobs were sent.
    fn send(
        &self,
        manifests: &[Descriptor],
        blobs: &[Descriptor],
        source: &Source<'_>,
        env: &Env<'_>,
    ) -> Result<usize, CacheError>;
}

/// Where the blobs of an export come from.
pub struct Source<'a> {
    /// Brings a blob into the store that is not in it.
    pub supply: &'a dyn Fn(&Descriptor) -> Result<(), CacheError>,
    /// Whether somebody could not read a blob where it is: it is sent again.
    pub damaged: &'a dyn Fn(&Digest) -> bool,
}

impl Source<'_> {
    /// Brings it into the store, unless it is there.
    pub(crate) fn bring(&self, blob: &Descriptor, env: &Env<'_>) -> Result<(), CacheError> {
        if env.store.contains(&blob.digest)? { Ok(()) } else { (self.supply)(blob) }
    }
}

fn backend(place: &Place, reset: bool, env: &Env<'_>) -> Result<Option<Arc<dyn Backend>>, CacheError> {
    Ok(Some(match place {
        Place::Registry(reference) => Arc::new(Repository { reference: reference.clone() }),
        Place::Local { path, tag, digest } => {
            Arc::new(Folder { path: env.directory.join(path), tag: tag.clone(), digest: digest.clone(), reset })
        }
        Place::S3(s3) => Arc::new(Bucket::open(s3, env)?),
        Place::Inline => return Ok(None),
    }))
}

impl Place {
    /// What it is called in messages.
    pub fn name(&self) -> String {
        match self {
            Place::Registry(reference) => reference.to_string(),
            Place::Local { path, .. } => path.display().to_string(),
            Place::Inline => "the image".into(),
            Place::S3(s3) => format!("s3://{}/{}{}", s3.bucket, s3.prefix, s3.names.join(";")),
        }
    }
}

/// A cache that can be read from. Its layers are fetched one by one.
pub struct Cache {
    place: String,
    records: Records,
    blobs: HashMap<DiffId, Descriptor>,
    mounts: Mounts,
    backend: Arc<dyn Backend>,
}

impl Cache {
    /// What it is called in messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What it knows.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// A layer as the cache has it.
    pub fn blob(&self, diff_id: &DiffId) -> Option<&Descriptor> {
        self.blobs.get(diff_id)
    }

    /// Whether the cache mount `id` may be taken from it.
    pub fn gives_mount(&self, id: &str) -> bool {
        self.mounts.has(id)
    }

    /// Brings a blob into the store, verified.
    pub fn fetch(&self, blob: &Descriptor, env: &Env<'_>) -> Result<(), CacheError> {
        if env.store.contains(&blob.digest)? { Ok(()) } else { self.backend.fetch(blob, env) }
    }
}

/// Opens a cache: its records are read, no layer is. An image of several platforms may have records in each; what is
/// for none of `platforms` is not looked at.
pub fn import(spec: &Import, platforms: &[Platform], env: &Env<'_>) -> Result<Vec<Cache>, CacheError> {
    let place = spec.place.name();
    let Some(backend) = backend(&spec.place, false, env)? else { return Ok(Vec::new()) };
    let root = backend.root(env)?.ok_or_else(|| CacheError::Missing { place: place.clone() })?;
    let mut caches = Vec::new();
    let mut pending = vec![root];
    while let Some(descriptor) = pending.pop() {
        if media_type::is_index(&descriptor.media_type) {
            let index: Document<Index> = env.store.document("index", &descriptor)?;
            let wanted = |member: &&Descriptor| match &member.platform {
                Some(platform) if platform.os == "unknown" => false,
                Some(platform) => platforms.iter().any(|wanted| wanted.architecture == platform.architecture),
                None => true,
            };
            pending.extend(index.value().manifests.iter().filter(wanted).cloned());
            continue;
        }
        let manifest: Document<Manifest> = env.store.document("manifest", &descriptor)?;
        let manifest = manifest.into_value();
        let format = |reason: String| CacheError::Format { place: place.clone(), reason };
        let own = manifest.config.media_type == RECORDS_TYPE;
        let image = matches!(manifest.config.media_type.as_str(), media_type::CONFIG | media_type::DOCKER_CONFIG);
        if !own && !image {
            return Err(format(format!("its config is `{}`", manifest.config.media_type)));
        }
        if manifest.config.size > RECORDS_MAX_BYTES {
            return Err(format(format!("its records have more than {RECORDS_MAX_BYTES} bytes")));
        }
        if !env.store.contains(&manifest.config.digest)? {
            backend.fetch(&manifest.config, env)?;
        }
        let (records, diff_ids) = if own {
            let records = Records::parse(&env.store.read(&manifest.config, RECORDS_MAX_BYTES)?).map_err(format)?;
            let diff_ids = records.diff_ids.clone();
            (records, diff_ids)
        } else {
            let config: Document<ImageConfig> = env.store.document("image config", &manifest.config)?;
            let config = config.into_value();
            let Some(field) = config.extra.get(INLINE_FIELD) else {
                return Err(format("it is an image without an inline cache".into()));
            };
            let records = Records::parse(field.to_string().as_bytes()).map_err(format)?;
            (records, config.rootfs.diff_ids)
        };
        if diff_ids.len() != manifest.layers.len() {
            return Err(format("its records speak of other layers than it has".into()));
        }
        let blobs = diff_ids.into_iter().zip(manifest.layers).collect();
        let (place, mounts, backend) = (place.clone(), spec.mounts.clone(), backend.clone());
        caches.push(Cache { place, records, blobs, mounts, backend });
    }
    Ok(caches)
}

/// What an export did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Whether the cache was there already, as it is.
    pub unchanged: bool,
    /// Layers of the cache.
    pub layers: usize,
    /// Blobs that were not there.
    pub sent: usize,
}

/// Writes a cache: `records` and the layers with their diffIDs. The name moves last, so that whoever reads meanwhile sees
/// the old cache or the new one, and an export that was killed leaves the old one. What is there is not sent again; what
/// somebody removed since is.
pub fn export(
    spec: &Export,
    mut records: Records,
    layers: BTreeMap<DiffId, Descriptor>,
    source: &Source<'_>,
    env: &Env<'_>,
) -> Result<Sent, CacheError> {
    let Some(backend) = backend(&spec.place, spec.reset, env)? else { return Ok(Sent::default()) };
    records.diff_ids = layers.keys().cloned().collect();
    let layers: Vec<Descriptor> = layers.into_values().map(|layer| typed(layer, spec.oci_mediatypes)).collect();
    let bytes = serde_json::to_vec(&records).expect("plain data serialises");
    let config = env.store.put(RECORDS_TYPE, &bytes)?;
    let count = layers.len();
    let mut manifest = Manifest::image(config.clone(), layers.clone());
    manifest.artifact_type = Some(ARTIFACT_TYPE.into());
    let mut kinds = (media_type::MANIFEST, media_type::INDEX);
    if !spec.oci_mediatypes {
        kinds = (media_type::DOCKER_MANIFEST, media_type::DOCKER_LIST);
        (manifest.media_type, manifest.artifact_type) = (Some(kinds.0.into()), None);
    }
    let manifest = env.store.put(kinds.0, Document::new(manifest).bytes())?;
    let mut manifests = vec![manifest.clone()];
    if !spec.image_manifest {
        let mut index = Index::new(vec![manifest]);
        index.media_type = Some(kinds.1.into());
        manifests.push(env.store.put(kinds.1, Document::new(index).bytes())?);
    }
    let root = manifests.last().expect("has one");
    let mut blobs = layers;
    blobs.push(config);
    if backend.root(env).is_ok_and(|now| now.is_some_and(|now| now.digest == root.digest))
        && !blobs.iter().any(|blob| (source.damaged)(&blob.digest))
        && backend.is_whole(&manifests, &blobs, env)?
    {
        return Ok(Sent { unchanged: true, layers: count, sent: 0 });
    }
    let sent = backend.send(&manifests, &blobs, source, env)?;
    Ok(Sent { unchanged: false, layers: count, sent })
}

fn typed(mut layer: Descriptor, oci: bool) -> Descriptor {
    if let Some(compression) = media_type::layer_compression(&layer.media_type) {
        layer.media_type = match (oci, compression) {
            (true, compression) => compression.media_type(),
            (false, media_type::LayerCompression::None) => media_type::DOCKER_LAYER,
            (false, _) => media_type::DOCKER_LAYER_GZIP,
        }
        .into();
    }
    layer
}
