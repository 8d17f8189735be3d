//! Where blobs of a store were last seen, so that a push to another repository of the same registry moves no bytes.

use ctk_oci::Digest;
use ctk_store::{Links, Store};
use serde::{Deserialize, Serialize};

use crate::ORIGINS_MAX;
use crate::host::Repository;

/// Records by digest; they go with their blob.
const RECORDS: &str = "blob-origins";

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Origin {
    host: String,
    repository: String,
}

/// Notes that the repository has the blob. It is a hint only: that it cannot be kept is no error.
pub(crate) fn note(store: &Store, blob: &Digest, at: &Repository) {
    let origin = Origin { host: at.host.name.clone(), repository: at.name.clone() };
    let mut origins = known(store, blob);
    if origins.contains(&origin) {
        return;
    }
    origins.insert(0, origin);
    origins.truncate(ORIGINS_MAX);
    let links = Links { blobs: vec![blob.clone()], ..Links::default() };
    let _ = store.put_record(RECORDS, &blob.to_string(), &origins, &links);
}

/// A repository of the same registry, another than `to`, that had the blob.
pub(crate) fn find(store: &Store, blob: &Digest, to: &Repository) -> Option<String> {
    let other = |origin: &Origin| origin.host == to.host.name && origin.repository != to.name;
    known(store, blob).into_iter().find(other).map(|origin| origin.repository)
}

fn known(store: &Store, blob: &Digest) -> Vec<Origin> {
    store.record::<Vec<Origin>>(RECORDS, &blob.to_string()).ok().flatten().unwrap_or_default()
}
