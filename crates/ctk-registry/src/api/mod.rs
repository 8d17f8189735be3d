//! A request → a route → an answer. All handlers pass one door: the route is parsed once, access is checked once.

mod answer;
mod blobs;
mod lists;
mod manifests;
mod token;
mod uploads;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use ctk_distribution::{Actions, Code, Query, Route, RouteError, Scope};
use http::{HeaderMap, Method, Request, Response, header};

use crate::audit::{Audit, Record};
use crate::gate::{Action, Challenged, Door, Gate, Identity, Need, TOKEN_PATH, Wanted, methods, need};
use crate::meta::TagChange;
use crate::metrics::{Log, Metrics, RequestLog};
use crate::storage::{PutRules, now};
use crate::{RegistryError, ServeOptions, Storage};
use answer::{Failure, bytes, empty};

/// What every request shares.
#[derive(Debug)]
pub(crate) struct App {
    pub storage: Storage,
    pub door: Door,
    pub gate: Arc<dyn Gate>,
    pub audit: Option<Audit>,
    /// Whether it is about to stop: then it is not ready for more.
    pub draining: AtomicBool,
    pub metrics: Metrics,
    pub options: ServeOptions,
}

/// The other end of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// Where it is.
    pub address: Option<IpAddr>,
    /// The names of its certificate, which was verified.
    pub certificate: Arc<[String]>,
}

/// A request's head, and who sends it.
pub(crate) struct Asked {
    pub method: Method,
    pub path: String,
    pub query: Query,
    pub headers: HeaderMap,
    pub who: Identity,
}

impl Asked {
    fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl App {
    /// Answers a request of `peer`.
    pub(crate) async fn answer(&self, request: Request<Body>, peer: &Peer) -> Response<Body> {
        if let Some(health) = self.health(request.uri().path()).await {
            return health;
        }
        let (active, begun) = (self.metrics.begin(), std::time::Instant::now());
        let request = request.map(|body| self.metrics.received(body));
        let head = request.method() == Method::HEAD;
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let mut record = Record { time: now(), address: peer.address, method, path, ..Record::default() };
        let answered = match (&self.door.tokens, record.path.as_str()) {
            (Some(tokens), TOKEN_PATH) => self.token(tokens, request, peer, &mut record).await,
            _ => self.route(request, peer, &mut record).await,
        };
        let mut response = answered.unwrap_or_else(Failure::into_response);
        record.status = response.status().as_u16();
        let took = begun.elapsed();
        self.metrics.request(&record.method, &record.path, record.status, took);
        if let Some(audit) = &self.audit {
            audit.write(&record);
        }
        if let Some(Log(tell)) = &self.options.log {
            let Record { time, address, who, method, path, status, .. } = record;
            tell(&RequestLog { time, address, who, method, path, status, seconds: took.as_secs_f64() });
        }
        let version = http::HeaderValue::from_static("registry/2.0");
        response.headers_mut().insert("docker-distribution-api-version", version);
        if head {
            *response.body_mut() = Body::empty();
        }
        response.map(|body| self.metrics.sent(body, active))
    }

    /// The answer to a question about the server's health, which everybody may ask; `None` for other paths.
    pub(crate) async fn health(&self, path: &str) -> Option<Response<Body>> {
        match path {
            "/livez" | "/healthz" => Some(empty(200)),
            "/readyz" => Some(self.ready().await),
            _ => None,
        }
    }

    /// What the listener of the metrics answers.
    pub(crate) async fn watched(&self, request: Request<Body>) -> Response<Body> {
        match request.uri().path() {
            "/metrics" if request.method() == Method::GET => {
                let totals = self.stored(|storage| storage.meta().totals()).await.ok();
                bytes(200, "text/plain; version=0.0.4; charset=utf-8", self.metrics.text(totals).into_bytes())
            }
            path => self.health(path).await.unwrap_or_else(|| empty(404)),
        }
    }

    /// 200 while requests can be served: the metadata answers, and nobody asked the server to stop.
    async fn ready(&self) -> Response<Body> {
        let reads = self.stored(|storage| storage.meta().repositories("", 1)).await.is_ok();
        empty(if reads && !self.draining.load(Ordering::Relaxed) { 200 } else { 503 })
    }

    /// Whether somebody may do something.
    fn may(&self, who: &Identity, action: Action, repository: &str) -> bool {
        who.covers(action, repository) && self.gate.allows(who, action, repository)
    }

    fn challenged(&self, wanted: &Wanted) -> Failure {
        Failure::of(Code::Unauthorized).with(header::WWW_AUTHENTICATE, self.door.challenge(wanted))
    }

    fn refuse(&self, who: &Identity, wanted: &Wanted) -> Failure {
        match self.door.refusal(who) {
            Code::Unauthorized => self.challenged(wanted),
            code => Failure::of(code),
        }
    }

    /// The scheme and host that a client asked.
    fn origin(&self, parts: &http::request::Parts) -> String {
        let host = parts.uri.authority().map(|authority| authority.as_str());
        let host = host.or_else(|| parts.headers.get(header::HOST)?.to_str().ok()).unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b);
        let host = Some(host).filter(|host| host.bytes().all(plain)).unwrap_or_default();
        format!("{}://{host}", if self.options.tls.is_some() { "https" } else { "http" })
    }

    async fn route(&self, request: Request<Body>, peer: &Peer, record: &mut Record) -> Result<Response<Body>, Failure> {
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let authorization = parts.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
        let mut wanted = Wanted { origin: self.origin(&parts), ..Wanted::default() };
        let identified = self.door.identify(authorization, &peer.certificate, now()).await;
        let route = Route::parse(parts.uri.path()).map_err(|error| match error {
            RouteError::NotFound => Failure::of(Code::Unsupported).status(404),
            RouteError::Name(name) => Failure::of(Code::NameInvalid).detail(name),
            RouteError::Digest(digest) => Failure::of(Code::DigestInvalid).detail(digest),
            RouteError::Tag(tag) if parts.method == Method::PUT => Failure::of(Code::ManifestInvalid).detail(tag),
            RouteError::Tag(tag) => Failure::of(Code::ManifestUnknown).detail(tag),
        });
        if let Ok(route) = &route {
            wanted.scopes = scopes(route, &parts.method, &query);
        }
        let who = identified.map_err(|Challenged| {
            wanted.error = Some("invalid_token");
            self.challenged(&wanted)
        })?;
        record.who = who.to_string();
        let route = match route {
            Ok(route) => route,
            // Even what is malformed is answered to those only who may ask.
            Err(_) if !who.is_known() && self.door.has_users() => return Err(self.refuse(&who, &wanted)),
            Err(failure) => return Err(failure),
        };
        let method = parts.method;
        match need(&route, &method) {
            None => return Err(Failure::of(Code::Unsupported).with(header::ALLOW, methods(&route))),
            // Clients ask here first, to learn how to say who they are.
            Some(Need::Identity) if !who.is_known() && who.scopes.is_none() && self.door.has_users() => {
                return Err(self.challenged(&wanted));
            }
            Some(Need::Identity) => {
                let covered = |scopes: &Arc<Vec<Scope>>| wanted.scopes.iter().all(|scope| scopes.contains(scope));
                if !who.scopes.as_ref().is_none_or(covered) {
                    wanted.error = Some("insufficient_scope");
                    return Err(self.challenged(&wanted));
                }
            }
            Some(Need::Action(action)) => {
                record.action = action.word();
                let name = route.name().unwrap_or_default();
                if !self.gate.allows(&who, action, name) {
                    return Err(self.refuse(&who, &wanted));
                }
                if !who.covers(action, name) {
                    // Another token would do.
                    wanted.error = Some("insufficient_scope");
                    return Err(self.challenged(&wanted));
                }
                if action == Action::Delete && !self.options.delete {
                    return Err(Failure::of(Code::Unsupported).with(header::ALLOW, "GET, HEAD, PUT"));
                }
            }
        }
        let asked =
            Asked { method: method.clone(), path: parts.uri.path().to_owned(), query, headers: parts.headers, who };
        match route {
            Route::Version => Ok(empty(200)),
            Route::Catalog => self.catalog(&asked).await,
            Route::Tags { name } => self.tags(&asked, name).await,
            Route::Referrers { name, digest } => self.referrers(&asked, name, digest).await,
            Route::Blob { name, digest } if method == Method::DELETE => self.delete_blob(name, digest).await,
            Route::Blob { name, digest } => self.blob(&asked, name, digest).await,
            Route::Uploads { name } => self.start_upload(&asked, body, name).await,
            Route::Upload { name, session } => match method {
                Method::PATCH => self.patch_upload(&asked, body, name, session).await,
                Method::PUT => self.put_upload(&asked, body, name, session).await,
                Method::DELETE => self.cancel_upload(name, session).await,
                _ => self.upload_status(name, session).await,
            },
            Route::Manifest { name, target } => match method {
                Method::PUT => self.put_manifest(&asked, body, name, target).await,
                Method::DELETE => self.delete_manifest(&asked, name, target).await,
                _ => self.manifest(&asked, name, target).await,
            },
        }
    }

    /// What the tags of a repository may become, for the transaction that writes them.
    fn put_rules(&self, who: &Identity, repository: &str) -> PutRules {
        let (gate, who) = (self.gate.clone(), who.clone());
        let immutable: Vec<_> = self.options.immutable_for(repository);
        let rule = move |change: &TagChange| {
            let same = change.old == change.new;
            if let Some(pattern) = immutable.iter().find(|pattern| pattern.matches(&change.tag))
                && change.old.is_some()
                && !same
            {
                return Err(format!("the tag `{}` cannot change: `{pattern}` is immutable", change.tag));
            }
            let overwrites = change.old.is_some() && change.new.is_some() && !same;
            if overwrites && !gate.allows(&who, Action::Overwrite, &change.repository) {
                return Err(format!("the tag `{}` exists, and you may only make new ones", change.tag));
            }
            Ok(())
        };
        let options = &self.options;
        PutRules { rule: Arc::new(rule), sparse: options.sparse, quota_bytes: options.quota_for(repository) }
    }

    /// Runs `work` on the storage, on a thread that may block.
    async fn stored<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Storage) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, Failure> {
        let storage = self.storage.clone();
        match tokio::task::spawn_blocking(move || work(&storage)).await {
            Ok(result) => result.map_err(Failure::from),
            Err(_) => Err(Failure::of(Code::Unknown)),
        }
    }
}

/// What a token must allow for a request; a mount reads its source, too.
fn scopes(route: &Route, method: &Method, query: &Query) -> Vec<Scope> {
    let actions = match need(route, method) {
        None => return Vec::new(),
        Some(Need::Identity) => {
            let all = Scope { kind: "registry".into(), name: "catalog".into(), actions: vec!["*".into()] };
            return if *route == Route::Catalog { vec![all] } else { Vec::new() };
        }
        Some(Need::Action(Action::Pull)) => Actions::Pull,
        Some(Need::Action(Action::Push | Action::Overwrite)) => Actions::Push,
        Some(Need::Action(Action::Delete)) => Actions::Delete,
    };
    let mut scopes: Vec<Scope> = route.name().map(|name| Scope::repository(name, actions)).into_iter().collect();
    let source = query.get("from").filter(|_| matches!(route, Route::Uploads { .. }) && query.get("mount").is_some());
    // A name that is none stands in no header.
    if let Some(source) = source.filter(|source| ctk_oci::Reference::new("localhost", source, None, None).is_ok()) {
        scopes.push(Scope::repository(source, Actions::Pull));
    }
    scopes
}
