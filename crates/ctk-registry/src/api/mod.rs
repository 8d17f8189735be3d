//! A request → a route → an answer. All handlers pass one door: the route is parsed once, access is checked once.

mod answer;
mod blobs;
mod lists;
mod manifests;
mod uploads;

use axum::body::Body;
use ctk_distribution::{Code, Query, Route, RouteError};
use http::{HeaderMap, Method, Request, Response, header};

use crate::access::Guard;
use crate::{RegistryError, ServeOptions, Storage};
use answer::{Failure, empty};

/// What every request shares.
#[derive(Debug)]
pub(crate) struct App {
    pub storage: Storage,
    pub guard: Guard,
    pub options: ServeOptions,
}

/// A request's head.
pub(crate) struct Asked {
    pub method: Method,
    pub path: String,
    pub query: Query,
    pub headers: HeaderMap,
}

impl Asked {
    fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl App {
    pub(crate) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let head = request.method() == Method::HEAD;
        let mut response = match self.route(request).await {
            Ok(response) => response,
            Err(failure) => failure.into_response(),
        };
        let version = http::HeaderValue::from_static("registry/2.0");
        response.headers_mut().insert("docker-distribution-api-version", version);
        if head {
            *response.body_mut() = Body::empty();
        }
        response
    }

    async fn route(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let (parts, body) = request.into_parts();
        let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        if !self.guard.admits(authorization).await {
            return Err(Failure::of(Code::Unauthorized).with(header::WWW_AUTHENTICATE, "Basic realm=\"ctk registry\""));
        }
        let route = Route::parse(parts.uri.path()).map_err(|error| match error {
            RouteError::NotFound => Failure::of(Code::Unsupported).status(404),
            RouteError::Name(name) => Failure::of(Code::NameInvalid).detail(name),
            RouteError::Digest(digest) => Failure::of(Code::DigestInvalid).detail(digest),
            RouteError::Tag(tag) => Failure::of(Code::ManifestUnknown).detail(tag),
        })?;
        let asked = Asked {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: Query::parse(parts.uri.query().unwrap_or_default()),
            headers: parts.headers,
        };
        let (get, head, delete) = (Method::GET, Method::HEAD, Method::DELETE);
        let method = asked.method.clone();
        if method == delete && !self.options.delete && !matches!(route, Route::Upload { .. }) {
            return Err(Failure::of(Code::Unsupported));
        }
        match route {
            Route::Version if method == get || method == head => Ok(empty(200)),
            Route::Catalog if method == get => self.catalog(&asked).await,
            Route::Tags { name } if method == get => self.tags(&asked, name).await,
            Route::Referrers { name, digest } if method == get => self.referrers(&asked, name, digest).await,
            Route::Blob { name, digest } if method == get || method == head => self.blob(&asked, name, digest).await,
            Route::Blob { name, digest } if method == delete => self.delete_blob(name, digest).await,
            Route::Uploads { name } if method == Method::POST => self.start_upload(&asked, body, name).await,
            Route::Upload { name, session } if method == Method::PATCH => {
                self.patch_upload(&asked, body, name, session).await
            }
            Route::Upload { name, session } if method == Method::PUT => {
                self.put_upload(&asked, body, name, session).await
            }
            Route::Upload { name, session } if method == get => self.upload_status(name, session).await,
            Route::Upload { name, session } if method == delete => self.cancel_upload(name, session).await,
            Route::Manifest { name, target } if method == get || method == head => {
                self.manifest(&asked, name, target).await
            }
            Route::Manifest { name, target } if method == Method::PUT => {
                self.put_manifest(&asked, body, name, target).await
            }
            Route::Manifest { name, target } if method == delete => self.delete_manifest(name, target).await,
            _ => Err(Failure::of(Code::Unsupported)),
        }
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
