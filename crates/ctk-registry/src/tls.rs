//! TLS: a certificate and a key in files, read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
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
    clients: Option<PathBuf>,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// `clients` is a PEM file of the authorities whose certificates clients may show.
    pub(crate) fn load(files: &TlsFiles, clients: Option<&Path>) -> Result<Tls, RegistryError> {
        let config = RwLock::new(read(files, clients)?);
        Ok(Tls { files: files.clone(), clients: clients.map(Into::into), config })
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.read().expect("no holder panics").clone()
    }

    /// Reads the files again. What cannot be used leaves everything as it was: while a certificate is being renewed,
    /// key and chain may not fit for a moment.
    pub(crate) fn reload(&self) -> Result<(), RegistryError> {
        let config = read(&self.files, self.clients.as_deref())?;
        *self.config.write().expect("no holder panics") = config;
        Ok(())
    }
}

fn read(files: &TlsFiles, clients: Option<&Path>) -> Result<Arc<ServerConfig>, RegistryError> {
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
    let verifier = match clients {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            let found = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(path, error))?;
            for certificate in found {
                let certificate = certificate.map_err(|error| unreadable(path, error))?;
                roots.add(certificate).map_err(|error| fail(path, error.to_string()))?;
            }
            // Who shows none is nobody in particular: the gate decides what they may.
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            builder.allow_unauthenticated().build().map_err(|error| fail(path, error.to_string()))?
        }
    };
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, key));
    let mut config = config.map_err(|error| fail(&files.certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
