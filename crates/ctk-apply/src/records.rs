//! What applies leave in the store: results by fingerprint, and the last apply of each address.
//!
//! All of it is a cache of what can be found out again, except that a result keeps its image from being collected
//! while it is recent.

use std::collections::BTreeMap;
use std::path::Path;

use ctk_check::Report;
use ctk_oci::{Descriptor, Index, Manifest, media_type};
use ctk_plan::{Address, Fingerprint, Last, Produced};
use ctk_store::{Links, Store, StoreError};

/// Results by fingerprint.
const RESULTS: &str = "results";
/// What tests said that passed, by fingerprint, for those who want to read it again.
const REPORTS: &str = "reports";
/// The last apply of an address of a project, for reasons.
const LAST: &str = "last";

/// The records of one project.
pub struct Records<'a> {
    store: &'a Store,
    /// Names the project's folder: two checkouts have two pasts.
    project: String,
}

impl<'a> Records<'a> {
    /// Records of the project in `folder`, an absolute path.
    pub fn new(store: &'a Store, folder: &Path) -> Records<'a> {
        let name = ctk_plan::hash_text(&folder.to_string_lossy());
        Records { store, project: name[..16].to_owned() }
    }

    /// What the unit with this fingerprint produced, if it is still whole.
    pub fn result(&self, fingerprint: &Fingerprint) -> Result<Option<Produced>, StoreError> {
        let found: Option<Produced> = self.store.record(RESULTS, fingerprint.as_str())?;
        match found {
            Some(Produced { image: Some(image), .. }) if !whole(self.store, &image)? => Ok(None),
            found => Ok(found),
        }
    }

    /// Notes what the unit with this fingerprint produced.
    pub fn set_result(&self, fingerprint: &Fingerprint, result: &Produced) -> Result<(), StoreError> {
        let blobs = result.image.iter().map(|image| image.digest.clone()).collect();
        let links = Links { blobs, ..Links::default() };
        self.store.put_record(RESULTS, fingerprint.as_str(), result, &links)
    }

    /// What the test with this fingerprint said when it passed.
    pub fn report(&self, fingerprint: &Fingerprint) -> Result<Option<Report>, StoreError> {
        self.store.record(REPORTS, fingerprint.as_str())
    }

    /// Notes what a test that passed said.
    pub fn set_report(&self, fingerprint: &Fingerprint, report: &Report) -> Result<(), StoreError> {
        self.store.put_record(REPORTS, fingerprint.as_str(), report, &Links::default())
    }

    /// The last apply of every address of this project.
    pub fn last(&self) -> Result<BTreeMap<Address, Last>, StoreError> {
        Ok(self.store.record(LAST, &self.project)?.unwrap_or_default())
    }

    /// Adds to the last apply. Serialised over processes by the caller's lock.
    pub fn set_last(&self, changes: BTreeMap<Address, Last>) -> Result<(), StoreError> {
        let mut all = self.last()?;
        all.extend(changes);
        self.store.put_record(LAST, &self.project, &all, &Links { root: true, ..Links::default() })
    }

    /// The name of the lock under which this project's records and lock file change.
    pub fn lock_name(&self) -> String {
        format!("project-{}", self.project)
    }
}

/// Whether all of an image is in the store. One that is damaged is not, and is made again.
fn whole(store: &Store, image: &Descriptor) -> Result<bool, StoreError> {
    if !store.contains(&image.digest)? {
        return Ok(false);
    }
    let parts = if media_type::is_index(&image.media_type) {
        store.document::<Index>("image index", image).map(|index| index.into_value().manifests)
    } else if media_type::is_manifest(&image.media_type) {
        let manifest = store.document::<Manifest>("image manifest", image);
        manifest.map(|manifest| manifest.into_value()).map(|Manifest { config, mut layers, .. }| {
            layers.push(config);
            layers
        })
    } else {
        return Ok(store.size(&image.digest)? == Some(image.size));
    };
    let parts = match parts {
        Err(StoreError::Damaged { .. } | StoreError::Missing { .. }) => return Ok(false),
        parts => parts?,
    };
    for part in &parts {
        if !whole(store, part)? {
            return Ok(false);
        }
    }
    Ok(true)
}
