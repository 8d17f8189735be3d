//! Secrets as images declare them.

use std::path::Path;

use ctk_build::{SecretSource, Secrets};

use crate::Options;

/// An environment variable or a file.
pub(crate) struct DeclaredSecrets<'a> {
    options: &'a Options,
    directory: &'a Path,
}

impl<'a> DeclaredSecrets<'a> {
    /// Relative paths start at `directory`.
    pub fn new(options: &'a Options, directory: &'a Path) -> DeclaredSecrets<'a> {
        DeclaredSecrets { options, directory }
    }
}

impl Secrets for DeclaredSecrets<'_> {
    fn secret(&self, id: &str, declared: Option<&SecretSource>) -> Option<Vec<u8>> {
        let environment = |name: &str| self.options.environment.get(name).map(|value| value.clone().into_bytes());
        match declared {
            Some(SecretSource::Env(name)) => environment(name),
            Some(SecretSource::File(path)) => ctk_store::read_given(&self.directory.join(path)).ok(),
            // As docker does for `--secret id=NAME`.
            None => environment(id),
        }
    }
}
