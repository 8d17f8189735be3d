//! Sockets, connections and the end of both.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::api::{App, Peer};
use crate::audit::Audit;
use crate::blobs::Bucket;
use crate::gate::{Door, TokenOptions, certificate_names};
use crate::meta::Database;
use crate::metrics::{Log, Metrics};
use crate::tls::Tls;
use crate::{
    Access, BLOB_LIFE, BLOB_LIMIT_BYTES, CONNECTIONS_LIMIT, FILES_INTERVAL, Gate, Glob, HEAD_TIMEOUT,
    METRICS_CONNECTIONS_LIMIT, RegistryError, Retention,
};
use crate::{Rights, SWEEP_INTERVAL, Storage, TIDY_INTERVAL, TlsFiles, UPLOAD_LIFE, Who};

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The storage directory, made if it does not exist.
    pub storage: PathBuf,
    /// Where bytes are instead of in the storage directory, which then holds the metadata alone.
    pub bucket: Option<Bucket>,
    /// A PostgreSQL database of the metadata, instead of a file in the storage directory.
    pub database: Option<Database>,
    /// How users prove who they are.
    pub access: Access,
    /// Certificate and key; `None` for plain HTTP. Read again when the files change.
    pub tls: Option<TlsFiles>,
    /// A PEM file of authorities: clients with a certificate of theirs have its names. Needs `tls`.
    pub client_authorities: Option<PathBuf>,
    /// A token server at `/token`, and Bearer challenges that lead to it. Needs users.
    pub tokens: Option<TokenOptions>,
    /// A file for a line about each request that changes something or is refused.
    pub audit: Option<PathBuf>,
    /// Where to answer at `/metrics`, besides the questions about health; a port of its own, which needs no user.
    pub metrics: Option<SocketAddr>,
    /// Who is told of each request.
    pub log: Option<Log>,
    /// What they may; `None` for everything to everybody, or to every user where there are users.
    pub rights: Option<Rights>,
    /// Whether an index may name manifests that are not here (a sparse index).
    pub sparse: bool,
    /// Tags that cannot be moved or removed once they are there.
    pub immutable: Vec<InRepositories<Glob>>,
    /// Most bytes of blobs and manifests in a repository. Of several that fit the first counts.
    pub quotas: Vec<InRepositories<u64>>,
    /// What is kept. Of several that fit the first counts.
    pub retention: Vec<InRepositories<Retention>>,
    /// Whether manifests, tags and blobs may be deleted; else such requests hear UNSUPPORTED.
    pub delete: bool,
    /// Largest blob, in bytes.
    pub blob_limit_bytes: u64,
    /// An upload untouched for this long is removed.
    pub upload_life: Duration,
    /// A blob that no manifest of its repository names goes after this long.
    pub blob_life: Duration,
}

impl ServeOptions {
    /// Serves `storage` on `listen` to everybody, with deletion and the usual limits.
    pub fn new(listen: SocketAddr, storage: impl Into<PathBuf>) -> ServeOptions {
        ServeOptions {
            listen,
            storage: storage.into(),
            bucket: None,
            database: None,
            access: Access::Open,
            tls: None,
            client_authorities: None,
            tokens: None,
            audit: None,
            metrics: None,
            log: None,
            rights: None,
            sparse: true,
            immutable: Vec::new(),
            quotas: Vec::new(),
            retention: Vec::new(),
            delete: true,
            blob_limit_bytes: BLOB_LIMIT_BYTES,
            upload_life: UPLOAD_LIFE,
            blob_life: BLOB_LIFE,
        }
    }
}

/// Something that holds in the repositories that fit a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InRepositories<T> {
    /// Which repositories.
    pub repositories: Glob,
    /// What holds there.
    pub value: T,
}

fn first_of<'a, T>(rules: &'a [InRepositories<T>], repository: &str) -> Option<&'a T> {
    rules.iter().find(|rule| rule.repositories.matches(repository)).map(|rule| &rule.value)
}

impl ServeOptions {
    pub(crate) fn immutable_for(&self, repository: &str) -> Vec<Glob> {
        let fits = self.immutable.iter().filter(|rule| rule.repositories.matches(repository));
        fits.map(|rule| rule.value.clone()).collect()
    }

    pub(crate) fn quota_for(&self, repository: &str) -> Option<u64> {
        first_of(&self.quotas, repository).copied()
    }

    pub(crate) fn retention_for(&self, repository: &str) -> Option<Retention> {
        first_of(&self.retention, repository).cloned()
    }
}

/// A running registry. Dropping it stops new connections and lets the open ones end by themselves.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    storage: Storage,
    app: Arc<App>,
    stop: watch::Sender<bool>,
    accept: Option<JoinHandle<()>>,
}

/// Starts to serve; when it returns, connections are accepted. Runs on [`ctk_http::runtime`].
pub fn serve(options: ServeOptions) -> Result<Server, RegistryError> {
    let storage = match (&options.database, &options.bucket) {
        (None, None) => Storage::open(&options.storage)?,
        (None, Some(bucket)) => Storage::open_bucket(&options.storage, bucket)?,
        (Some(database), bucket) => Storage::open_database(&options.storage, database, bucket.as_ref())?,
    };
    let certificates = options.tls.is_some() && options.client_authorities.is_some();
    let door = Door::load(&options.access, options.tokens.as_ref(), certificates, crate::storage::now())?;
    let everybody = if door.has_users() { Who::Users } else { Who::Anyone };
    let gate: Arc<dyn Gate> = Arc::new(options.rights.clone().unwrap_or_else(|| Rights::all_to(everybody)));
    let failed = |cause| RegistryError::Listen { address: options.listen, cause };
    let listener = std::net::TcpListener::bind(options.listen).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let runtime = ctk_http::runtime();
    let _context = runtime.enter();
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    let watched = match options.metrics {
        None => None,
        Some(address) => {
            let failed = |cause| RegistryError::Listen { address, cause };
            let listener = std::net::TcpListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            Some(TcpListener::from_std(listener).map_err(failed)?)
        }
    };
    let metrics_address = watched.as_ref().and_then(|listener| listener.local_addr().ok());
    let (stop, stopped) = watch::channel(false);
    let tls = options.tls.as_ref().map(|files| Tls::load(files, options.client_authorities.as_deref()));
    let tls = tls.transpose()?.map(Arc::new);
    let audit = options.audit.as_deref().map(Audit::open).transpose()?;
    let draining = AtomicBool::new(false);
    let metrics = Metrics::default();
    let app = Arc::new(App { storage: storage.clone(), door, gate, audit, draining, metrics, options });
    if let Some(listener) = watched {
        runtime.spawn(watch_numbers(listener, app.clone(), stopped.clone()));
    }
    runtime.spawn(sweep(app.clone(), stopped.clone()));
    runtime.spawn(tidy(app.clone(), stopped.clone()));
    runtime.spawn(watch_files(app.clone(), tls.clone(), stopped.clone()));
    let accept = Some(runtime.spawn(accept(listener, app.clone(), tls, stopped)));
    Ok(Server { address, metrics_address, storage, app, stop, accept })
}

impl Server {
    /// The address it listens on, with the port it took.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The address of the metrics, with the port they took.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// `host:port`, as it stands in a reference.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The storage behind it.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Tells those who ask for its readiness that it will stop; everything else goes on.
    pub fn drain(&self) {
        self.app.draining.store(true, Ordering::Relaxed);
    }

    /// Stops: no new connections, requests under way get `grace` to end, then they are cut. What was cut can be
    /// resumed from its upload session. Call from outside the runtime.
    pub fn shutdown(mut self, grace: Duration) {
        self.drain();
        let _ = self.stop.send(true);
        let Some(mut accept) = self.accept.take() else { return };
        ctk_http::runtime().block_on(async {
            if tokio::time::timeout(grace, &mut accept).await.is_err() {
                accept.abort();
            }
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

async fn accept(listener: TcpListener, app: Arc<App>, tls: Option<Arc<Tls>>, mut stopped: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_LIMIT));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(HEAD_TIMEOUT));
    // Connections end with this set, which ends with this task: an aborted shutdown cuts them.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let slot = slots.clone().acquire_owned().await.expect("never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // Out of descriptors, or the client left already: neither is a reason to stop serving.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let app = app.clone();
        let service = move |certificate: Arc<[String]>| {
            let peer = Peer { address: Some(peer.ip()), certificate };
            hyper::service::service_fn(move |request: Request<Incoming>| {
                let (app, peer) = (app.clone(), peer.clone());
                async move { Ok::<Response<Body>, Infallible>(app.answer(request.map(Body::new), &peer).await) }
            })
        };
        let Some(tls) = &tls else {
            let connection = builder.serve_connection(TokioIo::new(stream), service(Arc::default())).into_owned();
            let connection = graceful.watch(connection);
            connections.spawn(async move {
                let _slot = slot;
                let _ = connection.await;
            });
            continue;
        };
        let (acceptor, builder) = (tokio_rustls::TlsAcceptor::from(tls.config()), builder.clone());
        let watcher = graceful.watcher();
        connections.spawn(async move {
            let _slot = slot;
            // Who does not finish the handshake in time is cut like who does not send a head.
            if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
                let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                let names: Arc<[String]> = shown.map(|own| certificate_names(own)).unwrap_or_default().into();
                let connection = builder.serve_connection(TokioIo::new(stream), service(names)).into_owned();
                let _ = watcher.watch(connection).await;
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
    while connections.join_next().await.is_some() {}
}

/// Answers at the address of the metrics.
async fn watch_numbers(listener: TcpListener, app: Arc<App>, mut stopped: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(METRICS_CONNECTIONS_LIMIT));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let slot = slots.clone().acquire_owned().await.expect("never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let app = app.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let app = app.clone();
            async move { Ok::<Response<Body>, Infallible>(app.watched(request.map(Body::new)).await) }
        });
        connections.spawn(async move {
            let _slot = slot;
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Applies the retention and collects, every now and then.
async fn sweep(app: Arc<App>, mut stopped: watch::Receiver<bool>) {
    loop {
        let shared = app.clone();
        let work = move || {
            let options = &shared.options;
            shared.storage.retain(SystemTime::now(), &|name| options.retention_for(name), false)?;
            shared.storage.sweep(SystemTime::now(), options.upload_life, options.blob_life)
        };
        // A sweep that fails (a full or broken disk) is tried again; requests tell their clients about the disk.
        let begun = Instant::now();
        let done = tokio::task::spawn_blocking(work).await;
        app.metrics.swept(done.ok().and_then(Result::ok).as_ref(), begun.elapsed());
        let life = app.options.upload_life.min(app.options.blob_life);
        tokio::select! {
            _ = tokio::time::sleep(SWEEP_INTERVAL.min(life)) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

/// Reads certificates and users again when their files change.
async fn watch_files(app: Arc<App>, tls: Option<Arc<Tls>>, mut stopped: watch::Receiver<bool>) {
    let options = &app.options;
    let certificates: Vec<PathBuf> =
        options.tls.iter().flat_map(|files| [files.certificate.clone(), files.key.clone()]).collect();
    let certificates: Vec<PathBuf> = certificates.into_iter().chain(options.client_authorities.clone()).collect();
    let users: Vec<PathBuf> = app.door.files().into_iter().map(Into::into).collect();
    let (mut seen_certificates, mut seen_users) = (stamps(&certificates), stamps(&users));
    loop {
        tokio::select! {
            _ = tokio::time::sleep(FILES_INTERVAL) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        // What cannot be used now is tried again: the file may be half written.
        let found = stamps(&certificates);
        if found != seen_certificates && tls.as_ref().is_some_and(|tls| tls.reload().is_ok()) {
            seen_certificates = found;
        }
        let found = stamps(&users);
        if found != seen_users && app.door.reload().is_ok() {
            seen_users = found;
        }
    }
}

/// What changes when a file is written or replaced.
fn stamps(paths: &[PathBuf]) -> Vec<Option<(u64, u64, SystemTime)>> {
    use std::os::unix::fs::MetadataExt;
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
    };
    paths.iter().map(stamp).collect()
}

/// Removes the bytes of what was deleted, and writes notes of pulls down, soon.
async fn tidy(app: Arc<App>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = tokio::time::sleep(TIDY_INTERVAL) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        let storage = app.storage.clone();
        let work = move || storage.write_seen().and_then(|()| storage.empty_trash());
        if let Ok(Ok(places)) = tokio::task::spawn_blocking(work).await {
            app.metrics.removed(places);
        }
    }
}
