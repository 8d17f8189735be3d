//! Images out of a store: blobs side by side, then manifests by digest, then the tag. Three calls, so that several
//! images can all have their content in place before the first tag moves.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ctk_distribution::{Actions, Answer, Next, Scope, Upload, UploadRefused, is_transient, uploads_path};
use ctk_oci::{Descriptor, Digest, Reference};
use ctk_plan::{Cancel, Step};
use ctk_store::{Blobs, Store, StoreError};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, LOCATION, RANGE};
use reqwest::{Body, Method, Url};

use crate::call::{Call, Sent};
use crate::host::Repository;
use crate::manifest::{Fetched, Shape};
use crate::progress::Progress;
use crate::registries::Place;
use crate::retry::{Patience, patiently};
use crate::{Client, ClientError, MANIFESTS_LIMIT, PIECE_BYTES, PROGRESS_INTERVAL, SEEN_BLOBS_LIMIT, block, origins};

const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// How to push.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    /// Repositories of the same registry that may hold the blobs already, the likeliest first. Without any, those are
    /// asked that a blob of the store was pulled from or pushed to before.
    pub mount_from: Vec<String>,
    /// Whether each blob is looked for even if the registry has the root manifest: some lose blobs, and one that vouches
    /// for what it names spares the questions.
    pub every_blob: bool,
}

/// What a push of blobs did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Blobs sent.
    pub uploaded: usize,
    /// Blobs that the registry took from another repository.
    pub mounted: usize,
    /// Blobs that were there.
    pub present: usize,
    /// Bytes sent.
    pub bytes: u64,
}

impl std::ops::Add for Pushed {
    type Output = Pushed;

    fn add(self, other: Pushed) -> Pushed {
        Pushed {
            uploaded: self.uploaded + other.uploaded,
            mounted: self.mounted + other.mounted,
            present: self.present + other.present,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl std::ops::AddAssign for Pushed {
    fn add_assign(&mut self, other: Pushed) {
        *self = *self + other;
    }
}

impl Client {
    /// Pushes the blobs under `root` to the repository of `to`. Nothing becomes visible by that. Safe to repeat.
    pub fn push_blobs(
        &self,
        to: &Reference,
        root: &Descriptor,
        store: &Store,
        options: &PushOptions,
        step: Option<&Step>,
        cancel: &Cancel,
    ) -> Result<Pushed, ClientError> {
        block(cancel, async {
            let repository = self.target(to).await?;
            let (_, blobs) = tree(root, store, &to.to_string())?;
            // A registry that has the manifest has what it names: it checked when it took it.
            let whole = patiently(self.options().retry, async || {
                self.head_manifest(&repository, &root.digest.to_string()).await
            });
            if !options.every_blob && whole.await?.is_some() {
                return Ok(Pushed { present: blobs.len(), ..Pushed::default() });
            }
            let source = Source::Local { blobs: Arc::new(store.clone()), store: Some(store) };
            self.send_blobs(&repository, &blobs, &source, &options.mount_from, step).await
        })
    }

    /// Puts the manifests under `root` by their digests, members before indexes. The blobs must be there.
    pub fn push_manifests(
        &self,
        to: &Reference,
        root: &Descriptor,
        store: &Store,
        cancel: &Cancel,
    ) -> Result<(), ClientError> {
        block(cancel, async {
            let repository = self.target(to).await?;
            let (manifests, _) = tree(root, store, &to.to_string())?;
            self.send_manifests(&repository, &manifests).await
        })
    }

    /// Points the tag of `to` (`latest` when it has none) at `root`, whose manifests must be there.
    pub fn push_tag(
        &self,
        to: &Reference,
        root: &Descriptor,
        store: &Store,
        cancel: &Cancel,
    ) -> Result<(), ClientError> {
        block(cancel, async {
            let repository = self.target(to).await?;
            let bytes = store.read(root, ctk_distribution::MANIFEST_LIMIT_BYTES)?;
            let fetched = Fetched { descriptor: root.clone(), bytes };
            self.put_manifest(&repository, to.tag().unwrap_or("latest"), &fetched).await
        })
    }

    /// All three: blobs, manifests, and the tag unless `to` names a digest.
    pub fn push(
        &self,
        to: &Reference,
        root: &Descriptor,
        store: &Store,
        options: &PushOptions,
        step: Option<&Step>,
        cancel: &Cancel,
    ) -> Result<Pushed, ClientError> {
        let pushed = self.push_blobs(to, root, store, options, step, cancel)?;
        self.push_manifests(to, root, store, cancel)?;
        if to.digest().is_none() || to.tag().is_some() {
            self.push_tag(to, root, store, cancel)?;
        }
        Ok(pushed)
    }

    /// Which of `blobs` the repository of `to` has not. Changes nothing.
    pub fn missing_blobs(
        &self,
        to: &Reference,
        blobs: &[Descriptor],
        cancel: &Cancel,
    ) -> Result<Vec<Digest>, ClientError> {
        block(cancel, async {
            let repository = self.target(to).await?;
            let scopes = [Scope::repository(&repository.name, Actions::Push)];
            let (repository, scopes) = (&repository, &scopes);
            let asked = blobs.iter().map(|blob| async move {
                let here = patiently(self.options().retry, async || self.has_blob(repository, blob, scopes).await);
                Ok::<_, ClientError>((!here.await?).then(|| blob.digest.clone()))
            });
            let parallel = self.options().parallel.max(1);
            let found: Vec<Option<Digest>> = stream::iter(asked).buffered(parallel).try_collect().await?;
            Ok(found.into_iter().flatten().collect())
        })
    }

    /// The repository that a reference itself names: no mirrors.
    pub(crate) async fn target(&self, to: &Reference) -> Result<Repository, ClientError> {
        let place = self.registries()?.push_place(to)?;
        self.repository(&place, &to.to_string(), self.options().retry).await
    }

    pub(crate) async fn send_manifests(&self, to: &Repository, manifests: &[Fetched]) -> Result<(), ClientError> {
        for manifest in manifests {
            self.put_manifest(to, &manifest.descriptor.digest.to_string(), manifest).await?;
        }
        Ok(())
    }

    pub(crate) async fn send_blobs(
        &self,
        to: &Repository,
        blobs: &[Descriptor],
        source: &Source<'_>,
        mount_from: &[String],
        step: Option<&Step>,
    ) -> Result<Pushed, ClientError> {
        let progress = Progress::new(step);
        for blob in blobs {
            progress.expect(blob.size);
        }
        let transfers = blobs.iter().map(|blob| self.push_blob(to, blob, source, mount_from, &progress));
        let parallel = self.options().parallel.max(1);
        let sent = stream::iter(transfers).buffer_unordered(parallel).try_collect::<Vec<Pushed>>().await?;
        progress.flush();
        Ok(sent.into_iter().fold(Pushed::default(), |sum, one| sum + one))
    }

    async fn push_blob(
        &self,
        to: &Repository,
        blob: &Descriptor,
        source: &Source<'_>,
        mount_from: &[String],
        progress: &Progress<'_>,
    ) -> Result<Pushed, ClientError> {
        let named = mount_from.iter().find(|from| **from != to.name).cloned();
        let mount = named.or_else(|| source.origin(blob, to)).or_else(|| self.beside(blob, to));
        let mut scopes = vec![Scope::repository(&to.name, Actions::Push)];
        scopes.extend(mount.iter().map(|from| Scope::repository(from, Actions::Pull)));
        let present = patiently(self.options().retry, async || self.has_blob(to, blob, &scopes).await);
        if present.await? {
            progress.add(blob.size);
            self.saw(blob, to);
            return Ok(Pushed { present: 1, ..Pushed::default() });
        }
        let anywhere = mount.is_none();
        let mut upload = Upload::new(blob.digest.clone(), blob.size, mount);
        let mut patience = Patience::new(self.options().retry);
        let mut starts = 0;
        let mut furthest = 0;
        loop {
            let flow = Flow::default();
            let next = upload.poll();
            match &next {
                Next::Done { mounted: true } => {
                    // A registry that found it somewhere by itself said just before that it is not here: a disk that
                    // lost it is mended by sending it.
                    if anywhere && starts == 1 {
                        let here = patiently(self.options().retry, async || self.has_blob(to, blob, &scopes).await);
                        if !here.await? {
                            upload.handle_lost();
                            starts += 1;
                            continue;
                        }
                    }
                    progress.add(blob.size);
                    source.note(blob, to);
                    self.saw(blob, to);
                    return Ok(Pushed { mounted: 1, ..Pushed::default() });
                }
                Next::Done { mounted: false } => {
                    source.note(blob, to);
                    self.saw(blob, to);
                    return Ok(Pushed { uploaded: 1, bytes: blob.size, ..Pushed::default() });
                }
                Next::Start { .. } => starts += 1,
                _ => {}
            }
            let method = method(&next);
            let sent = self.send_next(to, blob, source, &next, &scopes, &flow, progress).await;
            if let Some(error) = flow.failure.lock().expect("no holder panics").take() {
                return Err(error);
            }
            let told = flow.told.load(Ordering::Relaxed);
            let sent = match sent {
                Ok(sent) if !is_transient(sent.status()) => sent,
                failed => {
                    upload.handle_cut();
                    progress.back(told);
                    let error = match failed {
                        Ok(sent) => self.complain(to, &method, sent).await,
                        Err(error) => error,
                    };
                    patience.wait(error).await?;
                    continue;
                }
            };
            let location = sent.header(LOCATION).and_then(|l| sent.url.join(&l).ok()).map(String::from);
            let range = sent.header(RANGE);
            let chunk_min_length = sent.header(CHUNK_MIN_LENGTH).and_then(|l| l.parse().ok());
            let (location, range) = (location.as_deref(), range.as_deref());
            let answer = Answer { status: sent.status(), location, range, chunk_min_length };
            match upload.handle(&answer) {
                // Starting over again and again is no progress.
                Ok(()) if starts > self.options().retry.attempts && !matches!(upload.poll(), Next::Done { .. }) => {
                    return Err(self.complain(to, &method, sent).await);
                }
                Ok(()) => {}
                Err(UploadRefused::Status(_)) => return Err(self.complain(to, &method, sent).await),
                Err(cause) => {
                    let (host, digest) = (to.host.name.clone(), blob.digest.clone());
                    return Err(ClientError::Upload { host, digest, cause });
                }
            }
            match upload.poll() {
                Next::Finish { from, .. } | Next::Chunk { from, .. } if from > furthest => {
                    furthest = from;
                    patience.progressed();
                }
                Next::Start { .. } if told > 0 => progress.back(told),
                _ => {}
            }
        }
    }

    /// Another repository of the same registry in which this client saw the blob.
    fn beside(&self, blob: &Descriptor, to: &Repository) -> Option<String> {
        let seen = self.inner.seen.lock().expect("no holder panics");
        seen.get(&(to.host.name.clone(), blob.digest.clone())).filter(|name| **name != to.name).cloned()
    }

    fn saw(&self, blob: &Descriptor, at: &Repository) {
        let mut seen = self.inner.seen.lock().expect("no holder panics");
        if seen.len() < SEEN_BLOBS_LIMIT {
            seen.entry((at.host.name.clone(), blob.digest.clone())).or_insert_with(|| at.name.clone());
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one request in all its parts, called once")]
    async fn send_next(
        &self,
        to: &Repository,
        blob: &Descriptor,
        source: &Source<'_>,
        next: &Next,
        scopes: &[Scope],
        flow: &Flow,
        progress: &Progress<'_>,
    ) -> Result<Sent, ClientError> {
        let octets = "application/octet-stream";
        let (target, range) = match next {
            Next::Start { query } if query.is_empty() => (uploads_path(&to.name), None),
            Next::Start { query } => (format!("{}?{query}", uploads_path(&to.name)), None),
            Next::Ask { location } => (location.clone(), None),
            Next::Chunk { location, from, to } => (location.clone(), Some((*from, *to))),
            Next::Finish { location, from } => {
                let mut url = Url::parse(location).map_err(|_| ClientError::Location {
                    host: to.host.name.clone(),
                    location: location.clone(),
                    reason: "it is no URL",
                })?;
                url.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
                (url.into(), Some((*from, blob.size)))
            }
            Next::Done { .. } => unreachable!("the caller returned"),
        };
        let mut call = Call::new(method(next), &target, scopes);
        call = match (next, range) {
            (Next::Start { .. }, _) => call.header(CONTENT_LENGTH, "0"),
            (_, Some((from, end))) => {
                let call = call.header(CONTENT_LENGTH, (end - from).to_string()).header(CONTENT_TYPE, octets);
                let part = end > from && (from > 0 || matches!(next, Next::Chunk { .. }));
                if part { call.header(CONTENT_RANGE, format!("{from}-{}", end - 1)) } else { call }
            }
            _ => call,
        };
        let body = async || match range {
            Some((from, end)) if end > from => source.body(self, blob, from, end, flow).await.map(Some),
            _ => Ok(None),
        };
        let sending = self.send_body(to, call, body);
        tokio::pin!(sending);
        loop {
            let sent = tokio::select! {
                sent = &mut sending => Some(sent),
                () = tokio::time::sleep(PROGRESS_INTERVAL) => None,
            };
            let done = flow.sent.load(Ordering::Relaxed);
            let before = flow.told.swap(done, Ordering::Relaxed);
            progress.add(done.saturating_sub(before));
            if let Some(sent) = sent {
                return sent;
            }
        }
    }
}

fn method(next: &Next) -> Method {
    match next {
        Next::Start { .. } => Method::POST,
        Next::Finish { .. } => Method::PUT,
        Next::Chunk { .. } => Method::PATCH,
        Next::Ask { .. } | Next::Done { .. } => Method::GET,
    }
}

/// What a body on its way tells its sender.
#[derive(Clone, Default)]
pub(crate) struct Flow {
    /// Bytes handed to the connection.
    sent: Arc<AtomicU64>,
    /// Bytes told as progress.
    told: Arc<AtomicU64>,
    /// Why the source ended early.
    failure: Arc<Mutex<Option<ClientError>>>,
}

/// Where the bytes of blobs come from.
pub(crate) enum Source<'a> {
    /// This machine; the store remembers which registries have a blob.
    Local { blobs: Arc<dyn Blobs>, store: Option<&'a Store> },
    /// The place that served the manifests, and the registry itself, which may have what a mirror lacks.
    Registry { near: &'a Repository, own: Option<&'a Place> },
}

impl Source<'_> {
    /// A repository next to `to` that may have the blob.
    fn origin(&self, blob: &Descriptor, to: &Repository) -> Option<String> {
        match self {
            Source::Local { store, .. } => store.and_then(|store| origins::find(store, &blob.digest, to)),
            Source::Registry { near, .. } => (near.host.name == to.host.name).then(|| near.name.clone()),
        }
    }

    fn note(&self, blob: &Descriptor, at: &Repository) {
        if let Source::Local { store: Some(store), .. } = self {
            origins::note(store, &blob.digest, at);
        }
    }

    /// A body of the bytes `from..end` of a blob.
    async fn body(
        &self,
        client: &Client,
        blob: &Descriptor,
        from: u64,
        end: u64,
        flow: &Flow,
    ) -> Result<Body, ClientError> {
        flow.sent.store(0, Ordering::Relaxed);
        match self {
            Source::Local { blobs, .. } => Ok(stored_body(blobs.clone(), blob, from, end, flow)),
            Source::Registry { near, own } => {
                let mut asked = client.get_blob(near, blob, from, end).await;
                let mut place = (*near).clone();
                if let Some(own) = own
                    && !asked.as_ref().is_ok_and(|sent| matches!(sent.status(), 200 | 206))
                {
                    place = client.repository(own, &near.reference, client.options().retry).await?;
                    asked = client.get_blob(&place, blob, from, end).await;
                }
                let sent = asked?;
                let mut skip = match sent.status() {
                    206 => 0,
                    200 => from,
                    _ => return Err(client.complain(&place, &Method::GET, sent).await),
                };
                let (mut left, flow) = (end - from, flow.clone());
                let pieces = sent.response.bytes_stream().map_ok(move |mut piece: Bytes| {
                    let skipped = skip.min(piece.len() as u64);
                    skip -= skipped;
                    let piece = piece.split_off(skipped as usize);
                    let piece = piece.slice(..left.min(piece.len() as u64) as usize);
                    left -= piece.len() as u64;
                    flow.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    piece
                });
                Ok(Body::wrap_stream(pieces))
            }
        }
    }
}

/// Reads ahead on a thread, verified: a blob that rotted on disk ends the body with an error before its end.
fn stored_body(blobs: Arc<dyn Blobs>, blob: &Descriptor, from: u64, end: u64, flow: &Flow) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(2);
    let (blob, flow) = (blob.clone(), flow.clone());
    let counted = flow.sent.clone();
    tokio::task::spawn_blocking(move || {
        let fail = |error: StoreError| {
            *flow.failure.lock().expect("no holder panics") = Some(error.into());
            let _ = sender.blocking_send(Err(std::io::Error::other("the blob cannot be read")));
        };
        let mut reader = match blobs.open(&blob) {
            Ok(reader) => reader,
            Err(error) => return fail(error),
        };
        let mut at = 0;
        while at < end {
            let length = ((end - at).min(PIECE_BYTES as u64)) as usize;
            let mut piece = vec![0; length];
            // The read after the last byte is the one that verifies.
            let read = reader.read_exact(&mut piece).and_then(|()| match at + length as u64 == blob.size {
                true => reader.read(&mut [0]).map(drop),
                false => Ok(()),
            });
            if let Err(error) = read {
                // A verifying reader says itself what is wrong.
                return fail(error.downcast::<StoreError>().unwrap_or_else(|source| StoreError::Io {
                    action: "read",
                    path: blob.digest.to_string().into(),
                    source,
                }));
            }
            let skipped = from.saturating_sub(at).min(length as u64) as usize;
            at += length as u64;
            if skipped < length && sender.blocking_send(Ok(Bytes::from(piece).slice(skipped..))).is_err() {
                return;
            }
        }
    });
    let pieces = stream::unfold(receiver, move |mut receiver| {
        let counted = counted.clone();
        async move {
            let piece = receiver.recv().await?;
            if let Ok(piece) = &piece {
                counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
            Some((piece, receiver))
        }
    });
    Body::wrap_stream(pieces)
}

/// The manifests under `root`, members before indexes, and the blobs they name, each once.
fn tree(root: &Descriptor, store: &Store, reference: &str) -> Result<(Vec<Fetched>, Vec<Descriptor>), ClientError> {
    let mut manifests = Vec::new();
    let mut blobs = Vec::new();
    let mut seen = HashSet::new();
    // Each is looked at twice: once to push its members before it, once to take it itself.
    let mut pending = vec![(root.clone(), None::<Fetched>)];
    while let Some((descriptor, opened)) = pending.pop() {
        if let Some(fetched) = opened {
            manifests.push(fetched);
            continue;
        }
        if !seen.insert(descriptor.digest.clone()) {
            continue;
        }
        if seen.len() > MANIFESTS_LIMIT {
            let reason = format!("it holds more than {MANIFESTS_LIMIT} manifests");
            return Err(ClientError::Manifest { reference: reference.into(), reason });
        }
        let bytes = store.read(&descriptor, ctk_distribution::MANIFEST_LIMIT_BYTES)?;
        let fetched = Fetched { descriptor: descriptor.clone(), bytes };
        let shape = fetched.shape(reference)?;
        pending.push((descriptor, Some(fetched)));
        match shape {
            Shape::Index(index) => pending.extend(index.manifests.into_iter().map(|member| (member, None))),
            Shape::Image(manifest) => {
                blobs.push(manifest.config);
                blobs.extend(manifest.layers.into_iter().filter(|layer| layer.urls.is_empty()));
            }
        }
    }
    let mut names = HashSet::new();
    blobs.retain(|blob: &Descriptor| names.insert(blob.digest.clone()));
    Ok((manifests, blobs))
}
