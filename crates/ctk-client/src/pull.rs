//! Images into a store: manifests first, then blobs side by side.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use ctk_oci::{Descriptor, Index, Platform, Reference};
use ctk_plan::{Cancel, Step};
use ctk_store::{Depth, Store};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::Method;

use crate::blob::Download;
use crate::host::Repository;
use crate::manifest::{Fetched, Question, Shape, own_type};
use crate::progress::Progress;
use crate::registries::Place;
use crate::retry::patiently;
use crate::{Client, ClientError, MANIFESTS_LIMIT, OBSERVE_ATTEMPTS, Retry, block, origins};

/// The places that may serve a reference, mirrors first, and the one that did last.
pub(crate) struct Sources {
    places: Vec<Place>,
    pub reference: String,
    good: AtomicUsize,
}

impl Sources {
    /// The registry itself.
    pub(crate) fn own(&self) -> &Place {
        self.places.last().expect("there is at least one place")
    }

    /// The place that served something last.
    pub(crate) fn last_good(&self) -> &Place {
        &self.places[self.good.load(Ordering::Relaxed)]
    }
}

impl Client {
    /// What `reference` names now, mirrors asked first; `None` when it does not exist. Changes nothing.
    pub fn head(&self, reference: &Reference, cancel: &Cancel) -> Result<Option<Descriptor>, ClientError> {
        block(cancel, async {
            let sources = self.sources(reference)?;
            let found = self.ask_any(&sources, async |from, retry| {
                patiently(retry, async || match self.head_manifest(from, &reference.target()).await? {
                    Some(found) => Ok(found),
                    // An error, so that the next place is asked.
                    None => Err(self.missing(from, &reference.target()).await),
                })
                .await
            });
            match found.await {
                Ok(found) => Ok(Some(found)),
                Err(error) if error.status() == Some(404) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// What the registry itself (no mirror) has for `reference`; `None` when nothing. For looking at push targets.
    pub fn head_at_target(&self, reference: &Reference, cancel: &Cancel) -> Result<Option<Descriptor>, ClientError> {
        block(cancel, async {
            let place = self.registries()?.push_place(reference)?;
            let retry = self.options().retry;
            let retry = Retry { attempts: retry.attempts.min(OBSERVE_ATTEMPTS), ..retry };
            let (name, target) = (reference.to_string(), reference.target());
            let question = Question::new(Method::HEAD, &place.repository, &target);
            let (repository, answer) = self.repository_asking(&place, &name, retry, Some(&question.call())).await?;
            if let Some(sent) = answer {
                return self.head_answered(&repository, &target, sent).await;
            }
            patiently(retry, async || self.head_manifest(&repository, &target).await).await
        })
    }

    /// Brings `reference` into `store`: the manifests, and as much else as `depth` says; of an index all members, or
    /// the one for `platform`. Gives what the reference names; an index stays an index, and sets no ref. Safe to
    /// repeat: what is there is not fetched again, and what was cut goes on where it stopped.
    ///
    /// A reference by digest whose image is there already costs no request.
    pub fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        depth: Depth,
        store: &Store,
        step: Option<&Step>,
        cancel: &Cancel,
    ) -> Result<Descriptor, ClientError> {
        self.pull_telling(reference, platform, depth, store, &|_| (), step, cancel)
    }

    /// The same; `arrived` is told each blob as soon as the store has it, so that something can be done with it while
    /// others are on their way. It must not block.
    #[expect(clippy::too_many_arguments, reason = "those of a pull, and one more")]
    pub fn pull_telling(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        depth: Depth,
        store: &Store,
        arrived: &dyn Fn(&Descriptor),
        step: Option<&Step>,
        cancel: &Cancel,
    ) -> Result<Descriptor, ClientError> {
        block(cancel, async {
            let progress = Progress::new(step);
            let sources = self.sources(reference)?;
            let root = match self.stored_root(reference, store)? {
                Some(root) => root,
                None => self.fetch_manifest(&sources, &reference.target()).await?,
            };
            let descriptor = root.descriptor.clone();
            let blobs = self.pull_manifests(&sources, root, platform, depth, store).await?;
            let transfers = blobs.iter().map(async |blob| {
                self.pull_one(&sources, blob, store, &progress, cancel).await?;
                arrived(blob);
                Ok::<(), ClientError>(())
            });
            let parallel = self.options().parallel.max(1);
            stream::iter(transfers).buffer_unordered(parallel).try_collect::<Vec<()>>().await?;
            progress.flush();
            Ok(descriptor)
        })
    }

    /// Brings single blobs of the repository of `reference` into `store`. Safe to repeat.
    pub fn pull_blobs(
        &self,
        reference: &Reference,
        blobs: &[Descriptor],
        store: &Store,
        step: Option<&Step>,
        cancel: &Cancel,
    ) -> Result<(), ClientError> {
        block(cancel, async {
            let progress = Progress::new(step);
            let sources = self.sources(reference)?;
            let transfers = blobs.iter().map(|blob| self.pull_one(&sources, blob, store, &progress, cancel));
            let parallel = self.options().parallel.max(1);
            stream::iter(transfers).buffer_unordered(parallel).try_collect::<Vec<()>>().await?;
            progress.flush();
            Ok(())
        })
    }

    pub(crate) fn sources(&self, reference: &Reference) -> Result<Sources, ClientError> {
        let places = self.registries()?.pull_places(reference)?;
        Ok(Sources { places, reference: reference.to_string(), good: AtomicUsize::new(0) })
    }

    /// Asks the places in turn, the last good one first; the error is that of the last, the registry itself.
    pub(crate) async fn ask_any<T>(
        &self,
        sources: &Sources,
        mut ask: impl AsyncFnMut(&Repository, Retry) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let (count, first) = (sources.places.len(), sources.good.load(Ordering::Relaxed));
        let mut order: Vec<usize> = vec![first];
        order.extend((0..count).filter(|place| *place != first));
        let mut last = None;
        for (turn, place) in order.into_iter().enumerate() {
            // A mirror that fails is no reason to wait: the next one is there.
            let mut retry = self.options().retry;
            if turn + 1 < count {
                retry.attempts = 1;
            }
            let asked = async {
                let reached = self.repository(&sources.places[place], &sources.reference, retry).await?;
                ask(&reached, retry).await
            };
            match asked.await {
                Ok(value) => {
                    sources.good.store(place, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(
                    error
                    @ (ClientError::Store(_) | ClientError::Write(_) | ClientError::Cancelled | ClientError::Task),
                ) => return Err(error),
                Err(error) => {
                    // The registry itself, the last of the places, is the one whose word counts.
                    if last.is_none() || place + 1 == count {
                        last = Some(error);
                    }
                }
            }
        }
        Err(last.expect("there is at least one place"))
    }

    async fn missing(&self, from: &Repository, target: &str) -> ClientError {
        match self.get_manifest(from, target).await {
            Ok(_) => ClientError::Manifest { reference: from.reference.clone(), reason: "it comes and goes".into() },
            Err(error) => error,
        }
    }

    pub(crate) async fn fetch_manifest(&self, sources: &Sources, target: &str) -> Result<Fetched, ClientError> {
        self.ask_any(sources, async |from, retry| {
            patiently(retry, async || self.get_manifest(from, target).await).await
        })
        .await
    }

    /// Stores the manifests under `root` and gives the blobs that they name.
    async fn pull_manifests(
        &self,
        sources: &Sources,
        root: Fetched,
        platform: Option<&Platform>,
        depth: Depth,
        store: &Store,
    ) -> Result<Vec<Descriptor>, ClientError> {
        let mut pending = vec![root];
        let mut seen = HashSet::new();
        let mut blobs = Vec::new();
        while let Some(fetched) = pending.pop() {
            if !seen.insert(fetched.descriptor.digest.clone()) {
                continue;
            }
            if seen.len() > MANIFESTS_LIMIT {
                let reason = format!("it holds more than {MANIFESTS_LIMIT} manifests");
                return Err(ClientError::Manifest { reference: sources.reference.clone(), reason });
            }
            let shape = fetched.shape(&sources.reference)?;
            keep(store, &fetched)?;
            match shape {
                Shape::Index(index) => {
                    for member in wanted(&index, platform, &sources.reference)? {
                        pending.push(self.member(sources, &member, store).await?);
                    }
                }
                Shape::Image(manifest) => {
                    if depth >= Depth::Config {
                        blobs.push(manifest.config);
                    }
                    if depth >= Depth::Layers {
                        blobs.extend(manifest.layers);
                    }
                }
            }
        }
        let mut names = HashSet::new();
        blobs.retain(|blob| names.insert(blob.digest.clone()));
        Ok(blobs)
    }

    /// A member of an index, from the store or the registry.
    async fn member(&self, sources: &Sources, member: &Descriptor, store: &Store) -> Result<Fetched, ClientError> {
        if store.contains(&member.digest)? {
            let bytes = store.read(member, ctk_distribution::MANIFEST_LIMIT_BYTES)?;
            return Ok(Fetched { descriptor: member.clone(), bytes });
        }
        let fetched = self.fetch_manifest(sources, &member.digest.to_string()).await?;
        if fetched.descriptor.size != member.size {
            return Err(ClientError::Manifest {
                reference: sources.reference.clone(),
                reason: format!("{} has {} bytes, not {}", member.digest, fetched.descriptor.size, member.size),
            });
        }
        // The index says what it is; the registry only repeats what it was told.
        Ok(Fetched { descriptor: member.clone(), bytes: fetched.bytes })
    }

    pub(crate) async fn pull_one(
        &self,
        sources: &Sources,
        blob: &Descriptor,
        store: &Store,
        progress: &Progress<'_>,
        cancel: &Cancel,
    ) -> Result<(), ClientError> {
        let mut download = Download::open(blob, store, progress, cancel).await?;
        if download.is_done() {
            return Ok(());
        }
        self.ask_any(sources, async |from, retry| {
            self.pull_blob(from, retry, &mut download).await?;
            origins::note(store, &blob.digest, from);
            Ok(())
        })
        .await
    }

    /// The manifest that a digest names, if the store has it.
    fn stored_root(&self, reference: &Reference, store: &Store) -> Result<Option<Fetched>, ClientError> {
        let Some(digest) = reference.digest() else { return Ok(None) };
        if !store.contains(digest)? {
            return Ok(None);
        }
        let Some(size) = store.size(digest)? else { return Ok(None) };
        let mut descriptor = Descriptor::new("", digest.clone(), size);
        let bytes = store.read(&descriptor, ctk_distribution::MANIFEST_LIMIT_BYTES)?;
        let Some(kind) = own_type(&bytes) else { return Ok(None) };
        descriptor.media_type = kind;
        Ok(Some(Fetched { descriptor, bytes }))
    }
}

/// The members of an index to fetch: all, or the one for a platform.
pub(crate) fn wanted(
    index: &Index,
    platform: Option<&Platform>,
    reference: &str,
) -> Result<Vec<Descriptor>, ClientError> {
    let Some(platform) = platform else { return Ok(index.manifests.clone()) };
    if let Some(member) = index.select(platform) {
        return Ok(vec![member.clone()]);
    }
    let offered = Some(index.offers()).filter(|offered| !offered.is_empty()).unwrap_or_else(|| "none".into());
    Err(ClientError::Platform { reference: reference.into(), platform: Box::new(platform.clone()), offered })
}

pub(crate) fn keep(store: &Store, fetched: &Fetched) -> Result<(), ClientError> {
    if !store.contains(&fetched.descriptor.digest)? {
        let mut ingest = store.ingest(Some(&fetched.descriptor))?;
        ingest.write_bytes(&fetched.bytes)?;
        ingest.commit()?;
    }
    Ok(())
}
