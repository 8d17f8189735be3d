//! One registry: how it is reached and what it asks for. Found out by one `GET /v2/` when first needed, or by the first
//! question itself.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use ctk_distribution::{Challenge, parse_challenges};
use reqwest::header::WWW_AUTHENTICATE;
use reqwest::{Method, Response, Url};
use tokio::sync::OnceCell;

use crate::auth::Tokens;
use crate::call::{Call, Sent, method_name};
use crate::registries::Place;
use crate::retry::patiently;
use crate::{Client, ClientError, ClientOptions, Credentials, REACH_ATTEMPTS, Retry, credentials};

/// A host that is being found out, once, whoever asks.
pub(crate) type HostCell = OnceCell<Arc<Host>>;

/// A registry that was reached.
pub(crate) struct Host {
    /// As in references.
    pub name: String,
    /// `scheme://host:port/`.
    pub base: Url,
    /// Whether certificates go unchecked.
    pub insecure: bool,
    pub http: reqwest::Client,
    /// What the registry asked for last.
    pub challenge: Mutex<Option<Challenge>>,
    pub tokens: Tokens,
    /// By repository, since auth files may be that specific.
    pub credentials: tokio::sync::Mutex<std::collections::HashMap<String, Option<Credentials>>>,
}

/// A repository at a host: what every operation talks to.
#[derive(Clone)]
pub(crate) struct Repository {
    pub host: Arc<Host>,
    pub name: String,
    /// How the user wrote it, for errors.
    pub reference: String,
    /// Whose mirror it is, if it has to be told (distribution-spec 1.2 drafts, "Registry Proxying").
    pub namespace: Option<String>,
}

impl Client {
    /// Reaches a place.
    pub(crate) async fn repository(
        &self,
        place: &Place,
        reference: &str,
        retry: Retry,
    ) -> Result<Repository, ClientError> {
        Ok(self.repository_asking(place, reference, retry, None).await?.0)
    }

    /// Reaches a place by a question without a body that has to be asked anyhow, which saves asking for `/v2/`. With its
    /// answer, if the host was not known yet and the answer is a success.
    pub(crate) async fn repository_asking(
        &self,
        place: &Place,
        reference: &str,
        retry: Retry,
        question: Option<&Call<'_>>,
    ) -> Result<(Repository, Option<Sent>), ClientError> {
        let retry = Retry { attempts: retry.attempts.min(REACH_ATTEMPTS), ..retry };
        if let Some(identity) = &place.identity {
            self.inner.identities.lock().expect("no holder panics").insert(place.host.clone(), identity.clone());
        }
        let reached = patiently(retry, async || self.host_asking(&place.host, place.insecure, question).await).await;
        let (host, answer) = reached?;
        let (name, namespace) = (place.repository.clone(), place.namespace.clone());
        Ok((Repository { host, name, reference: reference.into(), namespace }, answer))
    }

    pub(crate) async fn host(&self, name: &str, insecure: bool) -> Result<Arc<Host>, ClientError> {
        Ok(self.host_asking(name, insecure, None).await?.0)
    }

    async fn host_asking(
        &self,
        name: &str,
        insecure: bool,
        question: Option<&Call<'_>>,
    ) -> Result<(Arc<Host>, Option<Sent>), ClientError> {
        let cell = {
            let mut hosts = self.inner.hosts.lock().expect("no holder panics");
            hosts.entry((name.to_owned(), insecure)).or_default().clone()
        };
        let mut answer = None;
        let reach = async || {
            let (host, sent) = self.reach(name, insecure, question).await?;
            answer = sent;
            Ok::<_, ClientError>(Arc::new(host))
        };
        let host = cell.get_or_try_init(reach).await.cloned()?;
        Ok((host, answer))
    }

    async fn reach(
        &self,
        name: &str,
        insecure: bool,
        question: Option<&Call<'_>>,
    ) -> Result<(Host, Option<Sent>), ClientError> {
        let insecure = insecure || self.inner.options.insecure.iter().any(|host| host == name);
        let loopback = is_loopback(name);
        // Docker Hub's references name `docker.io`, its registry listens elsewhere.
        let address = if credentials::is_hub(name) { "registry-1.docker.io" } else { name };
        // On loopback nobody listens in, and TLS is rare: docker and podman allow plain HTTP there too.
        let schemes: &[&str] = match (loopback, insecure) {
            (true, _) => &["http", "https"],
            (false, true) => &["https", "http"],
            (false, false) => &["https"],
        };
        let mut last = None;
        for scheme in schemes {
            let base = Url::parse(&format!("{scheme}://{address}/")).map_err(|_| ClientError::Location {
                host: name.into(),
                location: address.into(),
                reason: "no host name",
            })?;
            let unchecked = insecure || loopback;
            let http = self.http(name, *scheme == "http", unchecked)?;
            let host = |challenge| Host {
                name: name.into(),
                base: base.clone(),
                insecure: unchecked,
                http: http.clone(),
                challenge: Mutex::new(challenge),
                tokens: Tokens::default(),
                credentials: Default::default(),
            };
            let ask = async |call: &Call<'_>| {
                let url = base.join(call.target).expect("a path of the protocol");
                let mut request = http.request(call.method.clone(), url.clone());
                for (name, value) in &call.headers {
                    request = request.header(name, value);
                }
                let path = url.path().to_owned();
                match request.send().await {
                    Ok(response) => Ok(Sent { response, url, path, authenticated: false, own_origin: true }),
                    Err(cause) => {
                        Err(ClientError::NoAnswer { host: name.into(), method: method_name(&call.method), path, cause })
                    }
                }
            };
            let ping = Call::new(Method::GET, "/v2/", &[]);
            let mut answer = ask(question.unwrap_or(&ping)).await;
            // What a stranger is told may differ from what we would be told: `/v2/` says whom it wants to see.
            let strange = |sent: &Sent| !sent.response.status().is_success() && !matches!(sent.status(), 400 | 401);
            if question.is_some() && answer.as_ref().is_ok_and(strange) {
                answer = ask(&ping).await;
            }
            match answer {
                // A TLS server that hears plain HTTP answers 400 (Go, nginx) and nothing of the protocol.
                Ok(sent) if *scheme == "http" && schemes.len() > 1 && sent.status() == 400 => {}
                Ok(sent) => {
                    self.options().warnings.note(name, sent.response.headers());
                    let host = host(challenge(&sent.response));
                    let asked = question.is_some() && sent.path != ping.target && sent.response.status().is_success();
                    return Ok((host, asked.then_some(sent)));
                }
                // The first scheme's error is the one that says something, unless nobody listened to it.
                Err(error) => last = last.or(Some(error)),
            }
        }
        Err(last.expect("at least one scheme failed"))
    }

    /// The HTTP client for a host, shared by hosts of the same kind.
    pub(crate) fn http(&self, host: &str, plain: bool, insecure: bool) -> Result<reqwest::Client, ClientError> {
        let mut options = self.inner.options.http.clone();
        options.no_redirects = true;
        options.plain = plain;
        options.accept_invalid_certificates |= insecure;
        if !plain {
            certificates(&self.inner.options, host, &mut options)?;
            let identities = self.inner.identities.lock().expect("no holder panics");
            if let Some(identity) = identities.get(host) {
                options.authorities.extend(identity.authorities.iter().cloned());
                if let Some((certificate, key)) = &identity.client {
                    (options.identity, options.identity_key) = (Some(certificate.clone()), key.clone());
                }
            }
        }
        let key = format!("{options:?}");
        let mut clients = self.inner.clients.lock().expect("no holder panics");
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let made = ctk_http::client(&options).map_err(|cause| ClientError::Http { host: host.into(), cause })?;
        clients.insert(key, made.clone());
        Ok(made)
    }

    /// What we know about ourselves for a repository of a host.
    pub(crate) async fn credentials(&self, host: &Host, repository: &str) -> Result<Option<Credentials>, ClientError> {
        let mut known = host.credentials.lock().await;
        if let Some(found) = known.get(repository) {
            return Ok(found.clone());
        }
        let (client, name, path) = (self.clone(), host.name.clone(), repository.to_owned());
        let find = move || credentials::find(&client.inner.options, &client.registries()?.helpers, &name, &path);
        let found = tokio::task::spawn_blocking(find).await.map_err(|_| ClientError::Task)??;
        known.insert(repository.to_owned(), found.clone());
        Ok(found)
    }
}

/// The challenge to answer: Bearer before Basic, as docker does.
pub(crate) fn challenge(answer: &Response) -> Option<Challenge> {
    if answer.status() != 401 {
        return None;
    }
    let values = answer.headers().get_all(WWW_AUTHENTICATE).iter();
    let challenges: Vec<Challenge> = values.filter_map(|v| v.to_str().ok()).flat_map(parse_challenges).collect();
    let bearer = challenges.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
    bearer.or_else(|| challenges.iter().find(|c| matches!(c, Challenge::Basic { .. }))).cloned()
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Authorities and identity from the first certificate directory that knows the host.
fn certificates(options: &ClientOptions, host: &str, http: &mut ctk_http::Options) -> Result<(), ClientError> {
    for directory in &options.certificates {
        let Ok(entries) = std::fs::read_dir(directory.join(host)) else { continue };
        let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        for file in files {
            match file.extension().and_then(|e| e.to_str()) {
                Some("crt") => http.authorities.push(file),
                Some("cert") => {
                    let key = file.with_extension("key");
                    if !key.exists() {
                        let reason = "there is no `.key` beside it".into();
                        return Err(ClientError::File { action: "use", path: file, reason });
                    }
                    (http.identity, http.identity_key) = (Some(file), Some(key));
                }
                _ => {}
            }
        }
        return Ok(());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.9.8.7:1", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.evil.com", "128.0.0.1", "[::2]:1", "127.0.0.1.evil.com", "docker.io"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
