//! Sockets, connections and the end of both.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::access::Guard;
use crate::api::App;
use crate::{Access, BLOB_LIMIT_BYTES, CONNECTIONS_LIMIT, HEAD_TIMEOUT, ORPHAN_LIFE, RegistryError, SWEEP_INTERVAL};
use crate::{Storage, UPLOAD_LIFE};

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The storage directory, made if it does not exist.
    pub storage: PathBuf,
    /// Who may.
    pub access: Access,
    /// Whether manifests, tags and blobs may be deleted; else such requests hear UNSUPPORTED.
    pub delete: bool,
    /// Largest blob, in bytes.
    pub blob_limit_bytes: u64,
    /// An upload untouched for this long is removed.
    pub upload_life: Duration,
}

impl ServeOptions {
    /// Serves `storage` on `listen` to everybody, with deletion and the usual limits.
    pub fn new(listen: SocketAddr, storage: impl Into<PathBuf>) -> ServeOptions {
        ServeOptions {
            listen,
            storage: storage.into(),
            access: Access::Open,
            delete: true,
            blob_limit_bytes: BLOB_LIMIT_BYTES,
            upload_life: UPLOAD_LIFE,
        }
    }
}

/// A running registry. Dropping it stops new connections and lets the open ones end by themselves.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    storage: Storage,
    stop: watch::Sender<bool>,
    accept: Option<JoinHandle<()>>,
}

/// Starts to serve; when it returns, connections are accepted. Runs on [`ctk_http::runtime`].
pub fn serve(options: ServeOptions) -> Result<Server, RegistryError> {
    let storage = Storage::open(&options.storage)?;
    let guard = Guard::load(&options.access)?;
    let failed = |cause| RegistryError::Listen { address: options.listen, cause };
    let listener = std::net::TcpListener::bind(options.listen).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let runtime = ctk_http::runtime();
    let _context = runtime.enter();
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    let (stop, stopped) = watch::channel(false);
    runtime.spawn(sweep(storage.clone(), options.upload_life, stopped.clone()));
    let app = Arc::new(App { storage: storage.clone(), guard, options });
    let accept = Some(runtime.spawn(accept(listener, app, stopped)));
    Ok(Server { address, storage, stop, accept })
}

impl Server {
    /// The address it listens on, with the port it took.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// `host:port`, as it stands in a reference.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The storage behind it.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Stops: no new connections, requests under way get `grace` to end, then they are cut. What was cut can be
    /// resumed from its upload session. Call from outside the runtime.
    pub fn shutdown(mut self, grace: Duration) {
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

async fn accept(listener: TcpListener, app: Arc<App>, mut stopped: watch::Receiver<bool>) {
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
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // Out of descriptors, or the client left already: neither is a reason to stop serving.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let app = app.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let app = app.clone();
            async move { Ok::<Response<Body>, Infallible>(app.answer(request.map(Body::new)).await) }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            let _slot = slot;
            let _ = connection.await;
        });
    }
    drop(listener);
    graceful.shutdown().await;
    while connections.join_next().await.is_some() {}
}

async fn sweep(storage: Storage, upload_life: Duration, mut stopped: watch::Receiver<bool>) {
    loop {
        let storage = storage.clone();
        let work = move || storage.sweep(SystemTime::now(), upload_life, ORPHAN_LIFE);
        // A sweep that fails (a full or broken disk) is tried again; requests tell their clients about the disk.
        let _ = tokio::task::spawn_blocking(work).await;
        tokio::select! {
            _ = tokio::time::sleep(SWEEP_INTERVAL.min(upload_life)) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}
