//! What went wrong between us and a registry.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ctk_distribution::{Code, ErrorBody, TokenError, UploadRefused};
use ctk_oci::{Digest, Platform};

/// Why the client could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The registry answered, but not what we hoped for.
    #[error(transparent)]
    Answer(Box<Answered>),
    /// No answer: no connection, a broken one, or none in time.
    #[error("no answer from `{host}` to {method} {path}")]
    NoAnswer {
        /// The registry.
        host: String,
        /// The method.
        method: &'static str,
        /// Path of the request.
        path: String,
        /// What the connection said.
        #[source]
        cause: reqwest::Error,
    },
    /// A body that ended before its end.
    #[error("`{host}` sent {received} of {expected} bytes of {digest}")]
    Short {
        /// The registry.
        host: String,
        /// Which blob.
        digest: Digest,
        /// Bytes that came.
        received: u64,
        /// Bytes that should.
        expected: u64,
    },
    /// Content that is not what its digest or size promise.
    #[error("`{host}` sent content that is not {expected}: {found}")]
    Mismatch {
        /// The registry.
        host: String,
        /// The digest asked for.
        expected: Digest,
        /// What came instead.
        found: String,
    },
    /// A body beyond a limit.
    #[error("`{host}` sent more than {limit_bytes} bytes for {what}")]
    TooLarge {
        /// The registry.
        host: String,
        /// What it should be.
        what: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// A manifest that is no manifest, or of a kind that we don't read.
    #[error("`{reference}` is no image that ctk can read: {reason}")]
    Manifest {
        /// What was asked for.
        reference: String,
        /// Why not.
        reason: String,
    },
    /// An index without this platform.
    #[error("`{reference}` has no image for {platform}; it has {offered}")]
    Platform {
        /// What was asked for.
        reference: String,
        /// For what.
        platform: Box<Platform>,
        /// What there is.
        offered: String,
    },
    /// The token server gave no token.
    #[error("no token for `{host}` from {realm}")]
    Token {
        /// The registry.
        host: String,
        /// The token server.
        realm: String,
        /// Why.
        #[source]
        cause: TokenFailure,
    },
    /// An upload that the registry ended.
    #[error("`{host}` did not take {digest}")]
    Upload {
        /// The registry.
        host: String,
        /// Which blob.
        digest: Digest,
        /// How.
        #[source]
        cause: UploadRefused,
    },
    /// A `Location` or redirect that leads nowhere we go.
    #[error("`{host}` points to `{location}`: {reason}")]
    Location {
        /// The registry.
        host: String,
        /// Where it points.
        location: String,
        /// Why we don't go.
        reason: &'static str,
    },
    /// A name that is none.
    #[error("`{name}` is no name of an image")]
    Name {
        /// What was written.
        name: String,
        /// Why not.
        #[source]
        cause: ctk_oci::ReferenceError,
    },
    /// The configuration forbids this registry.
    #[error("registry `{prefix}` is blocked by `{}`", file.display())]
    Blocked {
        /// The entry's prefix.
        prefix: String,
        /// The configuration file.
        file: PathBuf,
    },
    /// A configuration, credential or certificate file that cannot be used.
    #[error("cannot {action} `{}`: {reason}", path.display())]
    File {
        /// `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A credential helper that failed.
    #[error("credential helper `{helper}` failed to {action} credentials for `{host}`: {reason}")]
    Helper {
        /// `docker-credential-…`.
        helper: String,
        /// `get`, `store`, `erase`.
        action: &'static str,
        /// The registry.
        host: String,
        /// What it said, never a secret.
        reason: String,
    },
    /// There is nowhere to write credentials to.
    #[error("no auth file is configured to keep credentials in")]
    NoAuthFile,
    /// No HTTP client could be made.
    #[error("cannot speak HTTP to `{host}`")]
    Http {
        /// The registry.
        host: String,
        /// Why.
        #[source]
        cause: ctk_http::HttpError,
    },
    /// What was fetched could not be written.
    #[error("cannot write what was fetched")]
    Write(#[source] io::Error),
    /// A file to push that cannot be read, or that changed meanwhile.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ctk_store::StoreError),
    /// A thread of ours failed: a bug.
    #[error("an internal task ended early")]
    Task,
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFailure {
    /// The realm or the reply makes no sense.
    #[error(transparent)]
    Protocol(#[from] TokenError),
    /// The realm is not one that credentials may go to.
    #[error("the token server is not reached by https, so no credentials are sent to it")]
    Insecure,
    /// No answer.
    #[error("no answer")]
    NoAnswer(#[source] reqwest::Error),
    /// An answer that is no token.
    #[error("it answered {status}{}{body}", if body.errors.is_empty() { "" } else { " " })]
    Refused {
        /// The status.
        status: u16,
        /// Its errors.
        body: ErrorBody,
        /// When to come back.
        retry_after: Option<Duration>,
    },
}

/// A registry's answer that is an error.
#[derive(Debug)]
pub struct Answered {
    /// The registry, as in the reference.
    pub host: String,
    /// The method.
    pub method: &'static str,
    /// The path.
    pub path: String,
    /// What it was about.
    pub reference: String,
    /// The status.
    pub status: u16,
    /// The registry's codes and messages.
    pub body: ErrorBody,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Whether credentials were sent.
    pub authenticated: bool,
}

impl std::error::Error for Answered {}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "registry `{}` answered {}", self.host, self.status)?;
        if !self.body.errors.is_empty() {
            write!(f, " {}", self.body)?;
        }
        write!(f, " to {} {} for `{}`", self.method, self.path, self.reference)
    }
}

impl ClientError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ClientError::Answer(a) => match a.status {
                401 if a.authenticated => {
                    Some(format!("the credentials for {} are refused; `ctk login {0}` replaces them", a.host))
                }
                401 => Some(format!("`ctk login {}` stores credentials", a.host)),
                403 if !a.authenticated => Some(format!("nobody is logged in; see `ctk login {}`", a.host)),
                403 => Some(format!("the account for {} may not do this", a.host)),
                404 if a.body.has(Code::NameUnknown) => {
                    Some("the repository does not exist there, or needs a login".into())
                }
                404 => Some(format!(
                    "`ctk tags {}` lists what exists",
                    a.reference.split(['@']).next().map_or("", strip_tag)
                )),
                413 => Some("the registry or a proxy before it limits the size of requests".into()),
                429 => Some("the registry limits requests; wait, or log in for a higher limit".into()),
                507 => Some("the registry's disk is full".into()),
                _ => None,
            },
            ClientError::Token { host, cause: TokenFailure::Refused { status: 401 | 403, .. }, .. } => {
                Some(format!("see `ctk login {host}`"))
            }
            ClientError::NoAnswer { host, cause, .. } if cause.is_connect() => Some(format!(
                "is `{host}` right, and does it speak https? plain http needs `insecure = true` in registries.conf"
            )),
            _ => None,
        }
    }

    /// The status that the registry answered with.
    pub fn status(&self) -> Option<u16> {
        match self {
            ClientError::Answer(answered) => Some(answered.status),
            ClientError::Token { cause: TokenFailure::Refused { status, .. }, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether trying again may help, and how long the registry asks to wait.
    pub(crate) fn transient(&self) -> Option<Option<Duration>> {
        match self {
            ClientError::Answer(a) if ctk_distribution::is_transient(a.status) => Some(a.retry_after),
            ClientError::NoAnswer { cause, .. } => is_worth_it(cause).then_some(None),
            ClientError::Short { .. } => Some(None),
            ClientError::Token { cause, .. } => match cause {
                TokenFailure::NoAnswer(cause) => is_worth_it(cause).then_some(None),
                TokenFailure::Refused { status, retry_after, .. } if ctk_distribution::is_transient(*status) => {
                    Some(*retry_after)
                }
                _ => None,
            },
            _ => None,
        }
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ClientError {
        let path = path.into();
        move |error| ClientError::File { action, path, reason: error.to_string() }
    }
}

/// A request that could not be made will not be made better by repeating it, nor will a certificate that is refused.
fn is_worth_it(cause: &reqwest::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(cause);
    while let Some(error) = source {
        let text = error.to_string();
        if text.contains("invalid peer certificate") || text.contains("failed to lookup address") {
            return false;
        }
        source = error.source();
    }
    !cause.is_builder()
}

fn strip_tag(reference: &str) -> &str {
    match reference.rfind(':') {
        Some(colon) if !reference[colon..].contains('/') => &reference[..colon],
        _ => reference,
    }
}
