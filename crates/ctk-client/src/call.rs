//! One request to a registry: authorization, redirects, 401, and errors that say what happened.

use std::time::SystemTime;

use ctk_distribution::{ANSWER_LIMIT_BYTES, Challenge, ErrorBody, Scope, parse_retry_after};
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Body, Method, Response, Url};

use crate::error::Answered;
use crate::host::{Repository, challenge};
use crate::{Client, ClientError, REDIRECTS_LIMIT};

/// What to send.
pub(crate) struct Call<'a> {
    pub method: Method,
    /// A path from `/v2/` on, or the URL of a `Location`.
    pub target: &'a str,
    pub headers: Vec<(HeaderName, String)>,
    pub scopes: &'a [Scope],
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, target: &'a str, scopes: &'a [Scope]) -> Call<'a> {
        Call { method, target, headers: Vec::new(), scopes }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Call<'a> {
        self.headers.push((name, value.into()));
        self
    }
}

impl Client {
    /// Sends a call without a body. Any answer is a success here but 401, which is answered once.
    pub(crate) async fn send(&self, repository: &Repository, call: Call<'_>) -> Result<Sent, ClientError> {
        self.send_body(repository, call, async || Ok(None)).await
    }

    /// Sends a call whose body `body` makes, anew for every try.
    pub(crate) async fn send_body(
        &self,
        repository: &Repository,
        call: Call<'_>,
        body: impl AsyncFn() -> Result<Option<Body>, ClientError>,
    ) -> Result<Sent, ClientError> {
        let host = &repository.host;
        let mut scopes = call.scopes.to_vec();
        let mut answered_challenge = false;
        loop {
            let authorization = self.authorization(host, &repository.name, &scopes).await?;
            let sent = self.follow(repository, &call, authorization, &body).await?;
            if sent.response.status() != 401 || answered_challenge || !sent.own_origin {
                return Ok(sent);
            }
            let Some(asked) = challenge(&sent.response) else { return Ok(sent) };
            if let Challenge::Bearer { scope: Some(text), .. } = &asked {
                // What the registry says it needs goes before what we thought it would.
                for scope in text.split(' ').filter_map(|s| s.parse::<Scope>().ok()) {
                    if !scopes.iter().any(|own| own.covers(&scope)) {
                        scopes.push(scope);
                    }
                }
            }
            self.refused(host, asked, &scopes).await;
            answered_challenge = true;
        }
    }

    /// Follows redirects. Credentials go to the registry's origin only, and never from TLS to plain HTTP.
    async fn follow(
        &self,
        repository: &Repository,
        call: &Call<'_>,
        authorization: Option<HeaderValue>,
        body: &impl AsyncFn() -> Result<Option<Body>, ClientError>,
    ) -> Result<Sent, ClientError> {
        let host = &repository.host;
        let astray = |location: &str, reason| ClientError::Location {
            host: host.name.clone(),
            location: location.into(),
            reason,
        };
        let mut url = host.base.join(call.target).map_err(|_| astray(call.target, "it is no URL"))?;
        if let Some(namespace) = repository.namespace.as_ref().filter(|_| call.target.starts_with("/v2/")) {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        for _ in 0..=REDIRECTS_LIMIT {
            if !matches!(url.scheme(), "http" | "https") {
                return Err(astray(url.as_str(), "it is neither http nor https"));
            }
            let own_origin = url.origin() == host.base.origin();
            if host.base.scheme() == "https" && url.scheme() == "http" {
                return Err(astray(&without_query(&url), "it leaves https"));
            }
            let http = match own_origin {
                true => host.http.clone(),
                false => self.http(url.host_str().unwrap_or_default(), url.scheme() == "http", false)?,
            };
            let mut request = http.request(call.method.clone(), url.clone());
            for (name, value) in &call.headers {
                request = request.header(name, value);
            }
            let authenticated = own_origin && authorization.is_some();
            if let (true, Some(value)) = (own_origin, &authorization) {
                request = request.header(AUTHORIZATION, value.clone());
            }
            if let Some(body) = body().await? {
                request = request.body(body);
            }
            let path = url.path().to_owned();
            let response = request.send().await.map_err(|cause| ClientError::NoAnswer {
                host: host.name.clone(),
                method: method_name(&call.method),
                path: path.clone(),
                cause: cause.without_url(),
            })?;
            if own_origin {
                self.options().warnings.note(&host.name, response.headers());
            }
            let redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            match response.headers().get(LOCATION).and_then(|v| v.to_str().ok()) {
                Some(location) if redirect => {
                    url = url.join(location).map_err(|_| astray(location, "it is no URL"))?;
                }
                _ => return Ok(Sent { response, url, path, authenticated, own_origin }),
            }
        }
        Err(astray(&without_query(&url), "there are too many redirects"))
    }

    /// The error that an answer is.
    pub(crate) async fn complain(&self, repository: &Repository, method: &Method, sent: Sent) -> ClientError {
        let status = sent.response.status().as_u16();
        let retry_after = header(&sent.response, RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| parse_retry_after(&value, SystemTime::now()));
        let body = read_limited(sent.response, ANSWER_LIMIT_BYTES).await.ok().flatten().unwrap_or_default();
        ClientError::Answer(Box::new(Answered {
            host: repository.host.name.clone(),
            method: method_name(method),
            path: sent.path,
            reference: repository.reference.clone(),
            status,
            body: ErrorBody::parse(&body),
            retry_after,
            authenticated: sent.authenticated,
        }))
    }
}

/// An answer and where it came from.
pub(crate) struct Sent {
    pub response: Response,
    /// Where it came from, after redirects.
    pub url: Url,
    pub path: String,
    pub authenticated: bool,
    pub own_origin: bool,
}

impl Sent {
    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(crate) fn header(&self, name: impl Into<HeaderName>) -> Option<String> {
        header(&self.response, name.into())
    }
}

fn header(response: &Response, name: HeaderName) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// The body, `None` when it is longer than `limit`.
pub(crate) async fn read_limited(mut response: Response, limit: u64) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        if (body.len() + piece.len()) as u64 > limit {
            return Ok(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Some(body))
}

pub(crate) fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "request",
    }
}

/// Queries of signed URLs are secrets.
fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}
