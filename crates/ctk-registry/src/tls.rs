//! TLS: a certificate and a key in files, read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::RegistryError;

/// Where the certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file of the chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
}

/// A configuration that new connections take; open ones keep what they began with.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    pub(crate) fn load(files: &TlsFiles) -> Result<Tls, RegistryError> {
        Ok(Tls { files: files.clone(), config: RwLock::new(read(files)?) })
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.read().expect("no holder panics").clone()
    }

    /// Reads the files again. What cannot be used leaves everything as it was: while a certificate is being renewed,
    /// key and chain may not fit for a moment.
    pub(crate) fn reload(&self) -> Result<(), RegistryError> {
        let config = read(&self.files)?;
        *self.config.write().expect("no holder panics") = config;
        Ok(())
    }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, RegistryError> {
    let fail = |path: &Path, reason: String| RegistryError::Tls { path: path.into(), reason };
    let unreadable = |path: &Path, error: rustls_pki_types::pem::Error| fail(path, error.to_string());
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(|found| found.collect::<Result<Vec<_>, _>>())
        .map_err(|error| unreadable(&files.certificate, error))?;
    if chain.is_empty() {
        return Err(fail(&files.certificate, "it holds no certificate".into()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable(&files.key, error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|error| fail(&files.certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
