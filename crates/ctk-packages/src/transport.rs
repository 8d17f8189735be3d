//! Downloads: HTTP and local files, several at once, repeated and resumed when a mirror stumbles.

use std::collections::HashMap;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ctk_plan::{Cancel, ProgressUnit, Step};
use sha2::{Digest, Sha256};

use crate::apt::sources::{HostSources, local_path};
use crate::cache::{Cache, hex};
use crate::{PackagesError, limits};

/// One file to bring into the cache.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Where it may be, best first.
    pub(crate) urls: Vec<String>,
    /// Announced digest; without one the file is only held against the limit, and stays outside the cache proper: whoever
    /// asked removes it.
    pub(crate) sha256: Option<String>,
    /// Announced size.
    pub(crate) size: Option<u64>,
    /// Most bytes to take.
    pub(crate) limit_bytes: u64,
}

/// Clients by proxy, made when first needed and shared by all downloads of one call.
pub(crate) struct Transport {
    host: HostSources,
    clients: Mutex<HashMap<Option<String>, reqwest::Client>>,
}

/// A try that did not bring the file.
enum Failure {
    /// Another try may help; wait at least that long.
    Passing(PackagesError, Option<Duration>),
    /// This URL will not give the file.
    Final(PackagesError),
}

impl Transport {
    pub(crate) fn new(host: &HostSources) -> Arc<Transport> {
        Arc::new(Transport { host: host.clone(), clients: Mutex::default() })
    }

    /// Brings all files into the cache, in order of `wanted`; the first failure stops the rest and is the error.
    pub(crate) fn download_all(
        self: &Arc<Transport>,
        wanted: Vec<Wanted>,
        cache: &Cache,
        step: &Step,
        cancel: &Cancel,
    ) -> Result<Vec<PathBuf>, PackagesError> {
        let mut paths = Vec::with_capacity(wanted.len());
        let mut stopped = false;
        for result in self.run(wanted, cache, step, cancel, true) {
            match result {
                Ok(path) => paths.push(path),
                Err(PackagesError::Cancelled) => stopped = true,
                Err(error) => return Err(error),
            }
        }
        if stopped { Err(PackagesError::Cancelled) } else { Ok(paths) }
    }

    /// Tries all files, in order of `wanted`, each with its own result.
    pub(crate) fn download(
        self: &Arc<Transport>,
        wanted: Vec<Wanted>,
        cache: &Cache,
        step: &Step,
        cancel: &Cancel,
    ) -> Vec<Result<PathBuf, PackagesError>> {
        self.run(wanted, cache, step, cancel, false)
    }

    fn run(
        self: &Arc<Transport>,
        wanted: Vec<Wanted>,
        cache: &Cache,
        step: &Step,
        cancel: &Cancel,
        stop_at_error: bool,
    ) -> Vec<Result<PathBuf, PackagesError>> {
        let mut results: Vec<Option<Result<PathBuf, PackagesError>>> = wanted.iter().map(|_| None).collect();
        let total: u64 = wanted.iter().filter_map(|w| w.size).sum();
        let done = Arc::new(AtomicU64::new(0));
        let report =
            || step.progress(done.load(Ordering::Relaxed), Some(total).filter(|t| *t > 0), ProgressUnit::Bytes);
        // The largest first: the last connection then has the least left to do.
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(wanted[*at].size.unwrap_or(0)));
        ctk_http::runtime().block_on(async {
            let mut set = tokio::task::JoinSet::new();
            let mut queue = order.into_iter();
            loop {
                while set.len() < limits::CONNECTIONS {
                    let Some(at) = queue.next() else { break };
                    let (transport, cache, done, wanted) =
                        (self.clone(), cache.clone(), done.clone(), wanted[at].clone());
                    set.spawn(async move { (at, transport.one(&wanted, &cache, &done).await) });
                }
                match tokio::time::timeout(Duration::from_millis(100), set.join_next()).await {
                    Ok(None) => break,
                    Ok(Some(Ok((at, result)))) => {
                        let stop = stop_at_error && result.is_err();
                        results[at] = Some(result);
                        if stop {
                            break;
                        }
                    }
                    Ok(Some(Err(_))) | Err(_) => {}
                }
                report();
                if cancel.is_cancelled() {
                    break;
                }
            }
            // Aborts what is still under way and waits until its partial files are gone.
            set.shutdown().await;
        });
        report();
        results.into_iter().map(|r| r.unwrap_or(Err(PackagesError::Cancelled))).collect()
    }

    async fn one(&self, wanted: &Wanted, cache: &Cache, done: &AtomicU64) -> Result<PathBuf, PackagesError> {
        if let Some(digest) = &wanted.sha256
            && let Some(path) = cache.find(digest, wanted.size)
        {
            done.fetch_add(wanted.size.unwrap_or(0), Ordering::Relaxed);
            return Ok(path);
        }
        let mut first_error = None;
        for address in &wanted.urls {
            let url = &shown(address);
            let mut wait = limits::RETRY_FIRST;
            let mut partial = Partial::new(cache)?;
            for attempt in 1..=limits::ATTEMPTS {
                let failure = match self.attempt(address, url, wanted, &mut partial, done).await {
                    Ok(()) => match partial.verify(url, wanted) {
                        Ok(digest) if wanted.sha256.is_some() => return cache.keep(partial.file, &digest),
                        Ok(_) => return cache.keep_unnamed(partial.file),
                        // A mirror in the middle of its update, or a proxy with a stale copy: once more from the start.
                        Err(error) if attempt <= 2 => {
                            partial.restart(cache, done)?;
                            Failure::Passing(error, None)
                        }
                        Err(error) => Failure::Final(error),
                    },
                    Err(failure) => failure,
                };
                match failure {
                    Failure::Passing(error, at_least) => {
                        let last = attempt == limits::ATTEMPTS
                            || matches!(&error, PackagesError::HashMismatch { .. } if attempt == 2);
                        if last {
                            first_error.get_or_insert(error);
                            break;
                        }
                        tokio::time::sleep(at_least.unwrap_or(wait).min(limits::RETRY_MOST)).await;
                        wait *= 2;
                    }
                    Failure::Final(error) => {
                        first_error.get_or_insert(error);
                        break;
                    }
                }
            }
            partial.restart(cache, done)?;
        }
        Err(first_error
            .unwrap_or(PackagesError::Transfer { url: String::new(), what: "there is no URL for it".into() }))
    }

    async fn attempt(
        &self,
        address: &str,
        url: &str,
        wanted: &Wanted,
        partial: &mut Partial,
        done: &AtomicU64,
    ) -> Result<(), Failure> {
        if let Some(path) = local_path(address) {
            let mut file = std::fs::File::open(&path).map_err(|e| {
                Failure::Final(match e.kind() {
                    std::io::ErrorKind::NotFound => {
                        PackagesError::Status { url: url.into(), status: "no such file".into() }
                    }
                    _ => PackagesError::ReadHostFile { path: path.clone(), source: e },
                })
            })?;
            return partial.copy(url, &mut file, wanted, done).map_err(Failure::Final);
        }
        let final_url = |what: String| Failure::Final(PackagesError::Url { url: url.into(), what });
        let parsed = url::Url::parse(address).map_err(|e| final_url(e.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(final_url(format!("`{}` is not among http, https, file, copy", parsed.scheme())));
        }
        let client = self.client(&parsed).map_err(Failure::Final)?;
        // Digests are of the file as it lies on the mirror: no transport compression.
        let mut request = client.get(parsed.clone()).header("accept-encoding", "identity");
        if partial.size > 0 {
            request = request.header("range", format!("bytes={}-", partial.size));
        }
        let broken = |what: String| Failure::Passing(PackagesError::Transfer { url: url.into(), what }, None);
        let mut response = request.send().await.map_err(|e| broken(cause(&e)))?;
        let status = response.status();
        if status.as_u16() != 206 && partial.size > 0 {
            partial.reset(done).map_err(Failure::Final)?;
        }
        if !status.is_success() {
            let text = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("")).trim().to_string();
            let error = PackagesError::Status { url: url.into(), status: text };
            let after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
            return Err(match status.as_u16() {
                408 | 416 | 425 | 429 | 500..=599 => Failure::Passing(error, after.map(Duration::from_secs)),
                _ => Failure::Final(error),
            });
        }
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => partial.add(url, &bytes, wanted, done).map_err(Failure::Final)?,
                Ok(None) => break,
                Err(e) => return Err(broken(cause(&e))),
            }
        }
        match wanted.size {
            Some(size) if partial.size < size => {
                Err(broken(format!("the body ended after {} of {size} bytes", partial.size)))
            }
            _ => Ok(()),
        }
    }

    fn client(&self, url: &url::Url) -> Result<reqwest::Client, PackagesError> {
        let host = url.host_str().unwrap_or_default();
        let rule =
            self.host.proxies.iter().find(|r| r.scheme == url.scheme() && r.host.as_deref().is_none_or(|h| h == host));
        let proxy = rule.and_then(|r| r.proxy.clone());
        let mut clients = self.clients.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(client) = clients.get(&proxy) {
            return Ok(client.clone());
        }
        let client = ctk_http::client(&ctk_http::Options {
            authorities: self.host.authorities.clone(),
            identity: self.host.identity.clone(),
            accept_invalid_certificates: self.host.accept_invalid_certificates,
            proxy: proxy.clone(),
            ..ctk_http::Options::default()
        })?;
        clients.insert(proxy, client.clone());
        Ok(client)
    }
}

/// The URL as errors may show it: without a password.
pub(crate) fn shown(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            let _ = parsed.set_password(Some("***"));
            parsed.to_string()
        }
        _ => url.to_string(),
    }
}

/// The innermost cause: reqwest's own words only repeat the URL.
fn cause(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner.to_string()
}

/// What has come so far, hashed as it came.
struct Partial {
    file: tempfile::NamedTempFile,
    hasher: Sha256,
    size: u64,
}

impl Partial {
    fn new(cache: &Cache) -> Result<Partial, PackagesError> {
        Ok(Partial { file: cache.partial()?, hasher: Sha256::new(), size: 0 })
    }

    fn restart(&mut self, cache: &Cache, done: &AtomicU64) -> Result<(), PackagesError> {
        done.fetch_sub(self.size, Ordering::Relaxed);
        *self = Partial::new(cache)?;
        Ok(())
    }

    fn reset(&mut self, done: &AtomicU64) -> Result<(), PackagesError> {
        done.fetch_sub(self.size, Ordering::Relaxed);
        let emptied = self.file.as_file().set_len(0).and_then(|()| self.file.as_file().seek(SeekFrom::Start(0)));
        emptied.map_err(|source| PackagesError::Cache { path: self.file.path().into(), source })?;
        self.hasher = Sha256::new();
        self.size = 0;
        Ok(())
    }

    fn add(&mut self, url: &str, bytes: &[u8], wanted: &Wanted, done: &AtomicU64) -> Result<(), PackagesError> {
        let limit_bytes = wanted.size.unwrap_or(wanted.limit_bytes).min(wanted.limit_bytes);
        if self.size + bytes.len() as u64 > limit_bytes {
            return Err(PackagesError::TooLarge { url: url.into(), limit_bytes });
        }
        let written = self.file.as_file_mut().write_all(bytes);
        written.map_err(|source| PackagesError::Cache { path: self.file.path().into(), source })?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn copy(
        &mut self,
        url: &str,
        from: &mut std::fs::File,
        wanted: &Wanted,
        done: &AtomicU64,
    ) -> Result<(), PackagesError> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = std::io::Read::read(from, &mut buffer);
            match read.map_err(|e| PackagesError::Transfer { url: url.into(), what: e.to_string() })? {
                0 => return Ok(()),
                n => self.add(url, &buffer[..n], wanted, done)?,
            }
        }
    }

    fn verify(&mut self, url: &str, wanted: &Wanted) -> Result<String, PackagesError> {
        let actual = hex(&std::mem::take(&mut self.hasher).finalize());
        match &wanted.sha256 {
            Some(expected) if *expected != actual => {
                Err(PackagesError::HashMismatch { url: url.into(), expected: expected.clone(), actual })
            }
            _ => Ok(actual),
        }
    }
}
