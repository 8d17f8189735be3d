//! The registry client: pulls into a store, pushes from it, copies between registries.
//!
//! Every function blocks its caller and runs on [`ctk_http::runtime`]; never call one from a task of that runtime.
//! Nothing is connected, read or parsed before the first call that needs it.
//!
//! ```text
//! options.rs       what the caller decides: files, hosts, retries
//! registries.rs    registries.conf: mirrors, short names           credentials/  auth files and helpers
//! hosts.rs         the same of containerd
//! host.rs          one registry: scheme, TLS, challenge            auth.rs       tokens
//! call.rs          one request: redirects, 401, limits             retry.rs      again, and when
//! manifest.rs blob.rs pieces.rs                                    one object
//! pull.rs push.rs copy.rs artifact.rs tags.rs referrers.rs delete.rs login.rs fetch.rs     what users ask for
//! ```

mod artifact;
mod auth;
mod blob;
mod call;
mod copy;
mod credentials;
mod delete;
mod error;
mod fetch;
mod host;
mod hosts;
mod limits;
mod login;
mod manifest;
mod options;
mod origins;
mod pieces;
mod progress;
mod pull;
mod push;
mod referrers;
mod registries;
mod retry;
mod secret;
mod tags;
mod warnings;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock};

use ctk_oci::Reference;
use ctk_plan::Cancel;

pub use artifact::{Artifact, ArtifactFile};
pub use copy::{Copied, CopyFrom, CopyOptions, CopyTo};
pub use credentials::Credentials;
pub use ctk_distribution::referrers_tag;
pub use delete::{DeleteOptions, Doomed, DoomedKind};
pub use error::{Answered, ClientError};
pub use fetch::RegistryFetch;
pub use limits::*;
pub use login::LoginPlace;
pub use options::{ClientOptions, Retry};
pub use push::{PushOptions, Pushed};
pub use referrers::{Listing, Referrer, Referrers};
pub use secret::Secret;
pub use warnings::{Warning, Warnings};

use host::HostCell;
use registries::Registries;

/// Speaks to registries. Cheap to clone; clones share connections and tokens.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    options: ClientOptions,
    registries: OnceLock<Registries>,
    hosts: Mutex<HashMap<(String, bool), Arc<HostCell>>>,
    clients: Mutex<BTreeMap<String, reqwest::Client>>,
    /// Certificates for hosts that a `hosts.toml` names.
    identities: Mutex<HashMap<String, hosts::Identity>>,
    /// In which repository of a host a blob was seen first, for mounts.
    seen: Mutex<HashMap<(String, ctk_oci::Digest), String>>,
    /// Held while one blob is fetched by several requests.
    ranges: tokio::sync::Semaphore,
    /// Held while a list of referrers under a tag is changed.
    tags: tokio::sync::Mutex<()>,
}

impl Client {
    /// A client after `options`. Reads and connects nothing yet.
    pub fn new(options: ClientOptions) -> Client {
        let inner = Inner {
            options,
            registries: OnceLock::new(),
            hosts: Mutex::default(),
            clients: Mutex::default(),
            identities: Mutex::default(),
            seen: Mutex::default(),
            ranges: tokio::sync::Semaphore::new(1),
            tags: tokio::sync::Mutex::default(),
        };
        Client { inner: Arc::new(inner) }
    }

    /// What it was made with.
    pub fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    /// What users call `name`: with a registry itself; else the alias that registries.conf has for it; else the first of
    /// its `unqualified-search-registries` that has it (the first of all when none does), which asks them. Without any
    /// of these it is `docker.io`'s.
    pub fn full_name(&self, name: &str, cancel: &Cancel) -> Result<Reference, ClientError> {
        let malformed = |error: ctk_oci::ReferenceError| ClientError::Name { name: name.into(), cause: error };
        let mut found = self.registries()?.long_names(name).map_err(malformed)?;
        if found.len() > 1 {
            for candidate in &found {
                if self.head(candidate, cancel)?.is_some() {
                    return Ok(candidate.clone());
                }
            }
        }
        Ok(found.remove(0))
    }

    fn registries(&self) -> Result<&Registries, ClientError> {
        if let Some(registries) = self.inner.registries.get() {
            return Ok(registries);
        }
        let loaded = Registries::load(&self.inner.options.registries, &self.inner.options.hosts)?;
        Ok(self.inner.registries.get_or_init(|| loaded))
    }
}

/// Runs `work` on the shared runtime until it ends or somebody cancels.
fn block<T>(cancel: &Cancel, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    ctk_http::runtime().block_on(async {
        tokio::select! {
            biased;
            result = work => result,
            () = cancelled(cancel) => Err(ClientError::Cancelled),
        }
    })
}

async fn cancelled(cancel: &Cancel) {
    while !cancel.is_cancelled() {
        tokio::time::sleep(limits::CANCEL_POLL).await;
    }
}
