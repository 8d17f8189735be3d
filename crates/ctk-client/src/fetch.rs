//! The client as the store's [`Fetch`]: what build pulls bases with.

use ctk_oci::{Descriptor, Platform, Reference};
use ctk_plan::{Cancel, Outcome, Reporter};
use ctk_store::{Depth, Fetch, FetchError, Store};

use crate::{Client, ClientError};

/// Fetches from registries.
#[derive(Clone)]
pub struct RegistryFetch {
    client: Client,
}

impl RegistryFetch {
    /// Fetches by `client`.
    pub fn new(client: Client) -> RegistryFetch {
        RegistryFetch { client }
    }
}

impl Fetch for RegistryFetch {
    fn resolve(&self, reference: &Reference, cancel: &Cancel) -> Result<Descriptor, FetchError> {
        match self.client.head(reference, cancel) {
            Ok(Some(descriptor)) => Ok(descriptor),
            Ok(None) => Err(FetchError::NotFound { reference: reference.clone() }),
            Err(error) => Err(translate(reference, error)),
        }
    }

    fn fetch(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        depth: Depth,
        into: &Store,
        reporter: &Reporter,
        cancel: &Cancel,
    ) -> Result<Descriptor, FetchError> {
        let step = reporter.step(format!("pull {reference}"));
        let pulled = self.client.pull(reference, platform, depth, into, Some(&step), cancel);
        let pulled = pulled.map_err(|error| translate(reference, error));
        step.finish(match &pulled {
            Ok(_) => Outcome::Done,
            Err(FetchError::Cancelled) => Outcome::Cancelled,
            Err(error) => Outcome::Failed(error.to_string()),
        });
        pulled
    }
}

fn translate(reference: &Reference, error: ClientError) -> FetchError {
    let reference = reference.clone();
    match error {
        ClientError::Cancelled => FetchError::Cancelled,
        ClientError::Store(ctk_store::StoreError::Cancelled) => FetchError::Cancelled,
        ClientError::Store(source) => FetchError::Store { reference, source },
        ClientError::Platform { platform, offered, .. } => {
            FetchError::Platform { reference, platform: *platform, offered }
        }
        error => match error.status() {
            Some(404) => FetchError::NotFound { reference },
            Some(401 | 403) => FetchError::Denied { reference, source: Box::new(error) },
            _ => FetchError::Transfer { reference, source: Box::new(error) },
        },
    }
}
