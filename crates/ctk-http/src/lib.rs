//! The HTTP client that every crate shares: one TLS provider, the system's roots, proxies, timeouts.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// A connection that is not made within this time is an error: longer than any sane handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A body that yields no byte for this long is an error; a retry resumes it.
pub const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// What differs from the defaults.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// PEM files of further certificate authorities, besides the system's.
    pub authorities: Vec<PathBuf>,
    /// PEM file with the client's certificate chain and, unless `identity_key` is given, its private key.
    pub identity: Option<PathBuf>,
    /// PEM file with the client's private key.
    pub identity_key: Option<PathBuf>,
    /// Accept any certificate. Only for hosts that the user named as insecure.
    pub accept_invalid_certificates: bool,
    /// Proxy for `http:` and `https:`, instead of the ones in the environment (`HTTP_PROXY`, …).
    pub proxy: Option<String>,
    /// Follow no redirect: the caller wants to see them.
    pub no_redirects: bool,
    /// For `http:` only: no roots are loaded (which takes milliseconds), every `https:` request fails.
    pub plain: bool,
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// A certificate or key file that cannot be read.
    #[error("cannot read certificates from {}: {cause}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        cause: String,
    },
    /// TLS could not be configured.
    #[error("cannot configure TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The client could not be built.
    #[error("cannot make an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// The runtime that every blocking API drives its requests on; started when first asked for, never stopped.
///
/// Callers `block_on` from their own thread, never from inside a task of this runtime.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("ctk-http")
            .enable_all()
            .build()
            .expect("the kernel gives threads and an epoll instance")
    })
}

/// A client after `options`. Connections are kept and reused; share it.
pub fn client(options: &Options) -> Result<reqwest::Client, HttpError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("ctk/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .tls_backend_preconfigured(tls(options)?);
    if let Some(proxy) = &options.proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy)?);
    }
    if options.no_redirects {
        builder = builder.redirect(reqwest::redirect::Policy::none());
    }
    Ok(builder.build()?)
}

/// What TLS connections of other protocols are made with, too: the same authorities and client certificate.
pub fn tls(options: &Options) -> Result<rustls::ClientConfig, HttpError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let mut roots = rustls::RootCertStore::empty();
    // Honours SSL_CERT_FILE and SSL_CERT_DIR; a certificate it cannot read is skipped, as OpenSSL does.
    if !options.plain {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() && !options.plain {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for path in &options.authorities {
        roots.add_parsable_certificates(certificates(path)?);
    }
    let builder = builder.with_root_certificates(roots);
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let key = options.identity_key.as_ref().unwrap_or(path);
            let key = rustls_pki_types::PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable(key, e))?;
            builder.with_client_auth_cert(certificates(path)?, key)?
        }
    };
    if options.accept_invalid_certificates {
        config.dangerous().set_certificate_verifier(Arc::new(AcceptAny(provider)));
    }
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, HttpError> {
    let found = CertificateDer::pem_file_iter(path).map_err(|e| unreadable(path, e))?;
    found.collect::<Result<_, _>>().map_err(|e| unreadable(path, e))
}

fn unreadable(path: &Path, cause: impl std::fmt::Display) -> HttpError {
    HttpError::Certificates { path: path.into(), cause: cause.to_string() }
}

/// Accepts any certificate, but still checks that the peer holds its key.
#[derive(Debug)]
struct AcceptAny(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &rustls_pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_authority_names_the_file() {
        let options = Options { authorities: vec!["/nonexistent/ca.pem".into()], ..Options::default() };
        let message = client(&options).unwrap_err().to_string();
        assert!(message.contains("/nonexistent/ca.pem"), "{message}");
    }

    #[test]
    fn the_default_client_can_be_made() {
        client(&Options::default()).unwrap();
    }
}
