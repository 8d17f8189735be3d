//! What a session stands on while it works: the store, its layers, the client. Opened when first needed.

use std::path::Path;
use std::sync::OnceLock;

use ctk_build::StatIndex;
use ctk_client::{Client, RegistryFetch};
use ctk_oci::Platform;
use ctk_packages::{HostSources, PackagesError};
use ctk_push::LocalRegistry;
use ctk_registry::Storage;
use ctk_snapshot::Snapshots;
use ctk_store::Store;

use crate::registries::RegistryDecl;
use crate::{ApplyError, Options};

/// Opened parts of the world.
pub struct Ground {
    pub store: Store,
    pub snapshots: Snapshots,
    pub client: Client,
    pub fetch: RegistryFetch,
    pub index: StatIndex,
    pub platform: Platform,
    pub local: Vec<Inside>,
}

impl Ground {
    /// Opens what needs no network. The client connects when it is first used.
    pub fn open<'a>(
        options: &Options,
        registries: impl IntoIterator<Item = &'a RegistryDecl>,
    ) -> Result<Ground, ApplyError> {
        let store = Store::open(&options.store)?;
        let snapshots = Snapshots::open(&store);
        let client = Client::new(options.client.clone());
        Ok(Ground {
            index: StatIndex::open(&store.root().join("stats")),
            snapshots,
            fetch: RegistryFetch::new(client.clone()),
            client,
            platform: Platform::host(),
            local: registries.into_iter().map(Inside::new).collect(),
            store,
        })
    }

    /// The registries of the project, seen from inside.
    pub fn local(&self) -> Vec<&dyn LocalRegistry> {
        self.local.iter().map(|inside| inside as &dyn LocalRegistry).collect()
    }
}

/// Reads the host's package sources, when asked for.
pub fn host_packages(options: &Options) -> impl Fn() -> Result<HostSources, PackagesError> + Sync {
    || HostSources::read(&options.etc_apt, &options.keyrings)
}

/// A registry of this project whose storage is read without a server.
pub struct Inside {
    host: String,
    storage: std::path::PathBuf,
    opened: OnceLock<Result<Storage, String>>,
}

impl Inside {
    fn new(decl: &RegistryDecl) -> Inside {
        Inside { host: decl.listen.to_string(), storage: decl.storage.clone(), opened: OnceLock::new() }
    }

    fn storage(&self) -> &Result<Storage, String> {
        self.opened.get_or_init(|| Storage::open(&self.storage).map_err(|error| error.to_string()))
    }
}

impl LocalRegistry for Inside {
    fn host(&self) -> &str {
        &self.host
    }

    fn tag(&self, repository: &str, tag: &str) -> Result<Option<ctk_oci::Digest>, String> {
        if !Path::new(&self.storage).exists() {
            return Ok(None);
        }
        let storage = self.storage().as_ref().map_err(String::clone)?;
        let found = storage.tag(repository, tag).map_err(|error| error.to_string())?;
        Ok(found.map(|descriptor| descriptor.digest))
    }
}
