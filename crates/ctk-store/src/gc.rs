//! Takes what nobody needs. Roots are refs, leases of living processes and records that say so.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ctk_oci::{DiffId, Digest};
use ctk_plan::Cancel;
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

use crate::error::Context;
use crate::fsutil::{make_directory, names, open_lock_file, remove_tree, try_lock, wait_lock};
use crate::lease::{Held, clear_dead, held_by_all};
use crate::limits::{CONFIG_MAX_BYTES, INDEX_DEPTH_MAX};
use crate::store::layer_name;
use crate::{Store, StoreError};

/// What may stay although nobody needs it.
#[derive(Clone, Debug, Default)]
pub struct GcOptions {
    /// Keep caches used within this time; `None`: whatever their age.
    pub cache_age: Option<Duration>,
    /// Keep at most so many bytes of caches, the last used first; 0 keeps none, `None` is no limit.
    pub cache_bytes: Option<u64>,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What went, or would go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Blobs.
    pub blobs: usize,
    /// Unpacked layers.
    pub layers: usize,
    /// Cache records.
    pub records: usize,
    /// Downloads that nobody goes on with.
    pub partials: usize,
    /// Package files and cache mounts.
    pub caches: usize,
    /// Bytes freed.
    pub bytes: u64,
}

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Blobs.
    pub blobs: usize,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Unpacked layers.
    pub layers: usize,
    /// Their bytes.
    pub layer_bytes: u64,
    /// Names.
    pub references: usize,
    /// Records.
    pub records: usize,
}

impl Store {
    /// Removes what no ref, no living process and no root record needs, and caches beyond the limits. Everything
    /// goes out of sight at once, under a lock that keeps others from relying on it; the deleting comes after.
    pub fn gc(&self, options: &GcOptions, cancel: &Cancel) -> Result<GcReport, StoreError> {
        let lock_path = self.path("gc.lock");
        let lock = open_lock_file(&lock_path)?;
        wait_lock(&lock, &lock_path, cancel)?;
        clear_dead(self.root())?;
        let refs_lock = self.lock_refs_to_read()?;
        let mut marks = Marks { store: self, blobs: HashSet::new(), layers: HashSet::new() };
        for (_, reference) in self.read_refs()? {
            marks.blob(&reference.descriptor.digest, 0)?;
        }
        drop(refs_lock);
        for held in held_by_all(self.root())? {
            match held {
                Held::Blob(digest) => marks.blob(&digest, 0)?,
                Held::Layer(name) => marks.layer(&name),
            };
        }
        let mut caches = Vec::new();
        for record in self.all_records()? {
            if record.links.root {
                marks.links(&record.links)?;
            } else {
                caches.push(record);
            }
        }
        let mut gone = Vec::new();
        let mut report = GcReport::default();
        caches.sort_by_key(|record| std::cmp::Reverse(record.used));
        let (mut cache_bytes, now) = (0u64, SystemTime::now());
        for record in caches {
            let young = options.cache_age.is_none_or(|age| record.used + age >= now);
            let mut grown = Marks { store: self, blobs: marks.blobs.clone(), layers: marks.layers.clone() };
            let more = grown.links(&record.links)?;
            let room = options.cache_bytes.is_none_or(|limit| limit > 0 && cache_bytes + more <= limit);
            let complete = marks.complete(&record.links);
            let free = more == 0 && !record.links.is_empty();
            if complete && (free || (young && room)) {
                cache_bytes += more;
                (marks.blobs, marks.layers) = (grown.blobs, grown.layers);
            } else {
                report.records += 1;
                gone.push(record.path);
            }
        }
        for (digest, path, bytes) in self.all_blobs()? {
            if !marks.blobs.contains(&digest) {
                report.blobs += 1;
                report.bytes += bytes;
                gone.push(path);
            }
        }
        for name in names(&self.layers())? {
            if !marks.layers.contains(&name) {
                let path = self.layers().join(&name);
                report.layers += usize::from(!path.is_symlink());
                report.bytes += layer_bytes(&path);
                gone.push(path);
            }
        }
        for directory in ["partial", "locks"] {
            for name in names(&self.path(directory))? {
                let path = self.path(directory).join(name);
                let Ok(file) = fs::File::open(&path) else { continue };
                if try_lock(&file, &path)? {
                    if directory == "partial" {
                        report.partials += 1;
                        report.bytes += file.metadata().map(|m| m.len()).unwrap_or(0);
                    }
                    gone.push(path);
                }
            }
        }
        let (caches, cached_bytes) = self.trim_caches(options)?;
        report.caches = caches;
        report.bytes += cached_bytes;
        if options.dry_run {
            return Ok(report);
        }
        let grave = self.session().temporary()?;
        make_directory(&grave)?;
        for (number, path) in gone.iter().enumerate() {
            fs::rename(path, grave.join(number.to_string())).context("remove", path)?;
        }
        flock(&lock, FlockOperation::Unlock).context("unlock", &lock_path)?;
        remove_tree(&grave)?;
        Ok(report)
    }

    /// Counts everything; scans the whole store.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let blobs = self.all_blobs()?;
        let layers: Vec<PathBuf> = names(&self.layers())?.into_iter().map(|name| self.layers().join(name)).collect();
        Ok(Usage {
            blobs: blobs.len(),
            blob_bytes: blobs.iter().map(|(_, _, bytes)| bytes).sum(),
            layers: layers.iter().filter(|path| !path.is_symlink()).count(),
            layer_bytes: layers.iter().map(|path| layer_bytes(path)).sum(),
            references: names(&self.path("refs"))?.len(),
            records: self.all_records()?.len(),
        })
    }

    fn all_blobs(&self) -> Result<Vec<(Digest, PathBuf, u64)>, StoreError> {
        let mut blobs = Vec::new();
        for algorithm in names(&self.path("blobs"))? {
            let directory = self.path("blobs").join(&algorithm);
            for prefix in names(&directory)? {
                for hex in names(&directory.join(&prefix))? {
                    let path = directory.join(&prefix).join(&hex);
                    let Ok(digest) = format!("{algorithm}:{hex}").parse() else { continue };
                    let bytes = path.metadata().map(|m| m.len()).unwrap_or(0);
                    blobs.push((digest, path, bytes));
                }
            }
        }
        Ok(blobs)
    }
}

impl crate::Links {
    fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.layers.is_empty()
    }
}

/// The bytes of an unpacked layer, as its maker counted them. An alias has none of its own.
fn layer_bytes(path: &Path) -> u64 {
    #[derive(Deserialize)]
    struct Info {
        bytes: u64,
    }
    if path.is_symlink() {
        return 0;
    }
    let info = fs::read(path.join("info.json")).ok().and_then(|bytes| serde_json::from_slice::<Info>(&bytes).ok());
    info.map_or(0, |info| info.bytes)
}

struct Marks<'a> {
    store: &'a Store,
    blobs: HashSet<Digest>,
    layers: HashSet<String>,
}

/// The parts of manifests, indexes and configs that lead on.
#[derive(Deserialize)]
struct Leads {
    #[serde(default)]
    manifests: Vec<Lead>,
    config: Option<serde_json::Value>,
    #[serde(default)]
    layers: Vec<Lead>,
    subject: Option<Lead>,
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct Lead {
    digest: Digest,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<DiffId>,
}

impl Marks<'_> {
    /// Marks a blob and what it leads to; gives the bytes that were not marked before. What is not here is skipped:
    /// an image may have been fetched in part.
    fn blob(&mut self, digest: &Digest, depth: usize) -> Result<u64, StoreError> {
        let size = self.store.size(digest)?;
        let Some(size) = size else { return Ok(0) };
        if !self.blobs.insert(digest.clone()) {
            return Ok(0);
        }
        let mut bytes = size;
        if size > CONFIG_MAX_BYTES || depth > INDEX_DEPTH_MAX {
            return Ok(bytes);
        }
        let path = self.store.blob_path(digest);
        let mut content = Vec::new();
        let mut file = self.store.open_raw(digest)?;
        file.by_ref().take(1).read_to_end(&mut content).context("read", &path)?;
        if content != b"{" {
            return Ok(bytes);
        }
        file.read_to_end(&mut content).context("read", &path)?;
        let Ok(leads) = serde_json::from_slice::<Leads>(&content) else { return Ok(bytes) };
        // A manifest's `config` is a descriptor; a config's is something else.
        let config = leads.config.and_then(|c| serde_json::from_value::<Lead>(c).ok());
        for lead in leads.manifests.iter().chain(&leads.layers).chain(&config).chain(&leads.subject) {
            bytes += self.blob(&lead.digest, depth + 1)?;
        }
        for DiffId(diff_id) in leads.rootfs.map(|r| r.diff_ids).unwrap_or_default() {
            bytes += self.layer(&layer_name(&format!("diff:{}", diff_id.hex())));
        }
        Ok(bytes)
    }

    /// Marks an unpacked layer and the one it is an alias of.
    fn layer(&mut self, name: &str) -> u64 {
        let path = self.store.layers().join(name);
        if !path.exists() || !self.layers.insert(name.to_owned()) {
            return 0;
        }
        match fs::read_link(&path).ok().and_then(|target| target.into_os_string().into_string().ok()) {
            Some(target) => self.layer(&target),
            None => layer_bytes(&path),
        }
    }

    fn links(&mut self, links: &crate::Links) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for digest in &links.blobs {
            bytes += self.blob(digest, 0)?;
        }
        for key in &links.layers {
            bytes += self.layer(&layer_name(key));
        }
        Ok(bytes)
    }

    /// Whether everything that a record links is still here.
    fn complete(&self, links: &crate::Links) -> bool {
        let blob = |digest| matches!(self.store.size(digest), Ok(Some(_)));
        links.blobs.iter().all(blob)
            && links.layers.iter().all(|key| self.store.layers().join(layer_name(key)).exists())
    }
}
