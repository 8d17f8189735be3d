//! Small JSON values by namespace and key: caches and results.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ctk_oci::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fsutil::{file_name, make_directory, names, put_in_place, read_if_there, remove_if_there, replace};
use crate::limits::USE_GRANULARITY_SECONDS;
use crate::{Store, StoreError};

/// What a record speaks of, for the collector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// Blobs; what a manifest or index among them names is meant too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Digest>,
    /// Unpacked layers, by their keys (`op:<hex>`, `diff:<hex>`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    /// `true`: the record stays, and what it links. `false`: it is a cache, and goes with what it links or when the
    /// cache is trimmed.
    #[serde(default)]
    pub root: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored<T> {
    key: String,
    links: Links,
    value: T,
}

/// A record as the collector sees it.
pub(crate) struct Found {
    pub path: PathBuf,
    pub links: Links,
    pub used: SystemTime,
}

impl Store {
    /// The value of a record, if it is there and still has the shape `T`: a record of another version of ctk counts
    /// as absent. Marks it as used.
    pub fn record<T: DeserializeOwned>(&self, namespace: &str, key: &str) -> Result<Option<T>, StoreError> {
        let path = self.record_path(namespace, key);
        let Some(bytes) = read_if_there(&path)? else { return Ok(None) };
        let Ok(stored) = serde_json::from_slice::<Stored<T>>(&bytes) else { return Ok(None) };
        if stored.key != key {
            return Ok(None);
        }
        touch(&path);
        Ok(Some(stored.value))
    }

    /// Writes a record, replacing an older one; durably if it is a root. The others are caches: one that the disk never
    /// saw before the machine went down counts as absent.
    pub fn put_record<T: Serialize>(
        &self,
        namespace: &str,
        key: &str,
        value: &T,
        links: &Links,
    ) -> Result<(), StoreError> {
        let path = self.record_path(namespace, key);
        let directory = path.parent().expect("records have a namespace");
        if !directory.exists() {
            make_directory(directory)?;
        }
        let stored = Stored { key: key.to_owned(), links: links.clone(), value };
        let to_json = serde_json::to_vec(&stored);
        let bytes = to_json.map_err(|source| StoreError::Json { path: path.clone(), source })?;
        if links.root {
            self.sync_blobs()?;
            return replace(&path, &self.session().temporary()?, &bytes);
        }
        put_in_place(&path, &self.session().temporary()?, &bytes)
    }

    /// Removes a record; that it isn't there is no error.
    pub fn remove_record(&self, namespace: &str, key: &str) -> Result<(), StoreError> {
        remove_if_there(&self.record_path(namespace, key))
    }

    /// The keys of a namespace, sorted.
    pub fn record_keys(&self, namespace: &str) -> Result<Vec<String>, StoreError> {
        let directory = self.path("records").join(file_name(namespace));
        let mut keys = Vec::new();
        for name in names(&directory)? {
            let stored = read_if_there(&directory.join(name))?
                .and_then(|bytes| serde_json::from_slice::<Stored<serde::de::IgnoredAny>>(&bytes).ok());
            keys.extend(stored.map(|s| s.key));
        }
        keys.sort();
        Ok(keys)
    }

    /// All records; malformed ones have no links.
    pub(crate) fn all_records(&self) -> Result<Vec<Found>, StoreError> {
        let mut all = Vec::new();
        let root = self.path("records");
        for namespace in names(&root)? {
            for name in names(&root.join(&namespace))? {
                let path = root.join(&namespace).join(name);
                let Some(bytes) = read_if_there(&path)? else { continue };
                let stored = serde_json::from_slice::<Stored<serde::de::IgnoredAny>>(&bytes);
                let links = stored.map(|s| s.links).unwrap_or_default();
                let used = path.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                all.push(Found { path, links, used });
            }
        }
        Ok(all)
    }

    fn record_path(&self, namespace: &str, key: &str) -> PathBuf {
        self.path("records").join(file_name(namespace)).join(file_name(key))
    }
}

/// Remembers the use in the file's time, at most once an hour.
fn touch(path: &Path) {
    let now = SystemTime::now();
    let granularity = Duration::from_secs(USE_GRANULARITY_SECONDS);
    let old = |file: &File| file.metadata().and_then(|m| m.modified()).is_ok_and(|used| used + granularity < now);
    if let Ok(file) = File::open(path)
        && old(&file)
    {
        // Only the order of eviction depends on it.
        let _ = file.set_modified(now);
    }
}
