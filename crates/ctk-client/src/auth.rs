//! Tokens: asked for when needed, kept until shortly before their end, asked for again when refused.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ctk_distribution::{ANSWER_LIMIT_BYTES, Challenge, ErrorBody, Scope, TokenReply, TokenRequest, parse_retry_after};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};

use crate::call::read_limited;
use crate::error::TokenFailure;
use crate::host::{Host, is_loopback};
use crate::{Client, ClientError, Credentials, Secret, TOKEN_MARGIN};

/// The name that token servers know us by.
const CLIENT_ID: &str = "ctk";

/// Tokens of one host by what they allow.
#[derive(Default)]
pub(crate) struct Tokens(tokio::sync::Mutex<HashMap<String, Token>>);

struct Token {
    value: Secret,
    ends: Instant,
}

impl Client {
    /// The `Authorization` for a request that needs `scopes`; none when the registry is open or nobody is logged in.
    pub(crate) async fn authorization(
        &self,
        host: &Host,
        repository: &str,
        scopes: &[Scope],
    ) -> Result<Option<HeaderValue>, ClientError> {
        let challenge = host.challenge.lock().expect("no holder panics").clone();
        let text = match challenge {
            None | Some(Challenge::Unknown { .. }) => return Ok(None),
            Some(challenge) => match (challenge, self.credentials(host, repository).await?) {
                (_, Some(Credentials::Bearer(token))) => format!("Bearer {}", token.expose()),
                (Challenge::Bearer { realm, service, .. }, credentials) => {
                    let token = self.token(host, &realm, service.as_deref(), scopes, credentials.as_ref()).await?;
                    format!("Bearer {}", token.expose())
                }
                (_, Some(Credentials::Basic { user, password })) => basic(&user, &password),
                _ => return Ok(None),
            },
        };
        let mut value = match HeaderValue::from_str(&text) {
            Ok(value) => value,
            Err(_) => return Ok(None),
        };
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Takes note of a 401: what it asks for, and that the token was no good.
    pub(crate) async fn refused(&self, host: &Host, challenge: Challenge, scopes: &[Scope]) {
        *host.challenge.lock().expect("no holder panics") = Some(challenge);
        host.tokens.0.lock().await.remove(&key(scopes));
    }

    async fn token(
        &self,
        host: &Host,
        realm: &str,
        service: Option<&str>,
        scopes: &[Scope],
        credentials: Option<&Credentials>,
    ) -> Result<Secret, ClientError> {
        // Held while asking: ten blobs of one repository need one token.
        let mut tokens = host.tokens.0.lock().await;
        let key = key(scopes);
        if let Some(token) = tokens.get(&key).filter(|token| token.ends > Instant::now()) {
            return Ok(token.value.clone());
        }
        let request = TokenRequest { realm, service, scopes, client_id: CLIENT_ID };
        let asked = crate::retry::patiently(self.inner.options.retry, async || {
            let failed = |cause| ClientError::Token { host: host.name.clone(), realm: realm.into(), cause };
            self.ask(host, &request, credentials).await.map_err(failed)
        });
        let reply = asked.await?;
        let life = Duration::from_secs(reply.life_seconds).saturating_sub(TOKEN_MARGIN);
        let value = Secret::new(reply.token);
        tokens.insert(key, Token { value: value.clone(), ends: Instant::now() + life });
        Ok(value)
    }

    async fn ask(
        &self,
        host: &Host,
        request: &TokenRequest<'_>,
        credentials: Option<&Credentials>,
    ) -> Result<TokenReply, TokenFailure> {
        let url = request.url()?;
        if credentials.is_some() && !may_know_credentials(host, &url) {
            return Err(TokenFailure::Insecure);
        }
        let same = url.origin() == host.base.origin();
        let insecure = same && host.insecure || is_loopback(url.host_str().unwrap_or_default());
        // No client: it could be made for the registry, so it can be made for its token server.
        let http = match same {
            true => host.http.clone(),
            false => {
                self.http(&authority(&url), url.scheme() == "http", insecure).map_err(|_| TokenFailure::Insecure)?
            }
        };
        let form =
            |body: String| http.post(url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        let first = match credentials {
            Some(Credentials::Identity(token)) => form(request.refresh_form(token.expose())),
            Some(Credentials::Basic { user, password }) => {
                http.get(request.get_url(Some(user))?).header(AUTHORIZATION, sensitive(&basic(user, password)))
            }
            _ => http.get(request.get_url(None)?),
        };
        match (answer(first).await, credentials) {
            // Servers that know only the OAuth2 form.
            (Err(TokenFailure::Refused { status: 404 | 405, .. }), Some(Credentials::Basic { user, password })) => {
                answer(form(request.password_form(user, password.expose()))).await
            }
            (result, _) => result,
        }
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<TokenReply, TokenFailure> {
    let response = request.send().await.map_err(TokenFailure::NoAnswer)?;
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok());
    let retry_after = retry_after.and_then(|value| parse_retry_after(value, SystemTime::now()));
    let body = read_limited(response, ANSWER_LIMIT_BYTES).await.map_err(TokenFailure::NoAnswer)?;
    match status {
        200 => Ok(TokenReply::parse(&body.unwrap_or_default())?),
        _ => Err(TokenFailure::Refused { status, body: ErrorBody::parse(&body.unwrap_or_default()), retry_after }),
    }
}

/// Credentials go to the registry's own origin, and to other hosts only by TLS (or on this machine): a realm is what
/// the registry says, and the registry may be lying.
fn may_know_credentials(host: &Host, realm: &Url) -> bool {
    realm.origin() == host.base.origin()
        || realm.scheme() == "https"
        || is_loopback(realm.host_str().unwrap_or_default()) && is_loopback(&host.name)
}

fn authority(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    }
}

fn basic(user: &str, password: &Secret) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{}", password.expose())))
}

fn sensitive(text: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).expect("base64 is a header value");
    value.set_sensitive(true);
    value
}

fn key(scopes: &[Scope]) -> String {
    scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
