//! Images from place to place, every digest as it was. From registry to registry nothing touches a disk: what the
//! target lacks streams through, several blobs at once, in the memory of a few buffers each.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, Read, Write};
use std::sync::Arc;

use ctk_distribution::{MANIFEST_LIMIT_BYTES, REFERRERS_LIMIT};
use ctk_oci::{Descriptor, Digest, Platform, Reference};
use ctk_plan::{Cancel, Step};
use ctk_store::{Blobs, Store};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::host::Repository;
use crate::manifest::{Fetched, Shape};
use crate::progress::Progress;
use crate::pull::{Sources, keep, wanted};
use crate::push::{Pushed, Source};
use crate::retry::patiently;
use crate::{Client, ClientError, MANIFESTS_LIMIT, PIECE_BYTES, block};

/// Where a copy comes from.
#[expect(clippy::large_enum_variant, reason = "there is one a copy")]
pub enum CopyFrom<'a> {
    /// A registry or its mirrors.
    Registry(&'a Reference),
    /// Something on this machine.
    Local {
        /// Its bytes.
        blobs: Arc<dyn Blobs>,
        /// The store, if that is what it is: it remembers which registries have a blob.
        store: Option<&'a Store>,
        /// The image.
        root: Descriptor,
        /// Manifests among which its referrers are, if any.
        others: Vec<Descriptor>,
        /// What it is called in errors.
        shown: String,
    },
}

/// Where a copy goes.
pub enum CopyTo<'a> {
    /// A registry; the tag moves last. A reference by digest alone moves none.
    Registry(&'a Reference),
    /// The store, without a name.
    Store(&'a Store),
    /// Something else on this machine, without a name.
    Local(&'a dyn Blobs),
}

/// What is copied.
#[derive(Clone, Copy, Debug, Default)]
pub struct CopyOptions<'a> {
    /// Of an index only the image for this platform, as an image of its own; else everything.
    pub platform: Option<&'a Platform>,
    /// Also what refers to the image and its members, and what refers to that.
    pub referrers: bool,
}

/// What a copy did.
#[derive(Clone, Debug)]
pub struct Copied {
    /// What was copied.
    pub root: Descriptor,
    /// What refers to it or its members, each with what it refers to; those that were asked for.
    pub referrers: Vec<(Digest, Descriptor)>,
    /// What happened to the blobs; those below manifests that the target had count as present.
    pub blobs: Pushed,
}

/// Where manifests and blobs are read from.
enum Origin<'a> {
    Registry(Sources),
    Local {
        blobs: Arc<dyn Blobs>,
        store: Option<&'a Store>,
        shown: String,
        by_subject: HashMap<Digest, Vec<Descriptor>>,
    },
}

/// Where they go, reached.
enum Goal<'a> {
    Registry(Repository),
    Store(&'a Store),
    Local(&'a dyn Blobs),
}

/// A manifest with all below it.
struct Tree {
    /// Members before indexes.
    manifests: Vec<Fetched>,
    blobs: Vec<Descriptor>,
}

impl Client {
    /// Copies an image from registry to registry, with `platform` of an index the one for it. Gives what `to` names now.
    /// See [`Client::transfer`].
    pub fn copy(
        &self,
        from: &Reference,
        to: &Reference,
        platform: Option<&Platform>,
        step: Option<&Step>,
        cancel: &Cancel,
    ) -> Result<Descriptor, ClientError> {
        let options = CopyOptions { platform, referrers: false };
        let copied = self.transfer(CopyFrom::Registry(from), CopyTo::Registry(to), options, step, cancel)?;
        Ok(copied.root)
    }

    /// Copies an image: blobs, then manifests, then the tag. Safe to repeat: what is there is not copied again.
    ///
    /// Within one registry blobs are mounted.
    pub fn transfer(
        &self,
        from: CopyFrom<'_>,
        to: CopyTo<'_>,
        options: CopyOptions<'_>,
        step: Option<&Step>,
        cancel: &Cancel,
    ) -> Result<Copied, ClientError> {
        block(cancel, async {
            let (origin, mut root) = self.origin(from, options.referrers).await?;
            let shown = origin.shown().to_owned();
            if let (Some(platform), Shape::Index(index)) = (options.platform, root.shape(&shown)?) {
                let chosen = wanted(&index, Some(platform), &shown)?.remove(0);
                root = self.required(&origin, &chosen).await?;
            }
            let goal = match &to {
                CopyTo::Registry(reference) => Goal::Registry(self.target(reference).await?),
                CopyTo::Store(store) => Goal::Store(store),
                CopyTo::Local(blobs) => Goal::Local(*blobs),
            };
            let progress = Progress::new(step);
            let mut copied = Copied { root: root.descriptor.clone(), referrers: Vec::new(), blobs: Pushed::default() };
            let mut pending = VecDeque::from([root.clone()]);
            let mut seen = HashSet::from([root.descriptor.digest.clone()]);
            while let Some(next) = pending.pop_front() {
                let whole = self.is_there(&goal, &next.descriptor).await?;
                let mut subjects = vec![next.descriptor.digest.clone()];
                if !whole || options.referrers {
                    let tree = self.tree(&origin, next, &shown).await?;
                    subjects = tree.manifests.iter().map(|m| m.descriptor.digest.clone()).collect();
                    match whole {
                        true => copied.blobs.present += tree.blobs.len(),
                        false => {
                            copied.blobs += self.bring_tree(&origin, &goal, &tree, &progress, step, cancel).await?
                        }
                    }
                }
                for subject in subjects.into_iter().filter(|_| options.referrers) {
                    for referrer in self.referrers_at(&origin, &subject).await? {
                        copied.referrers.push((subject.clone(), referrer.clone()));
                        if !seen.insert(referrer.digest.clone()) {
                            continue;
                        }
                        if seen.len() > REFERRERS_LIMIT {
                            let reason = format!("more than {REFERRERS_LIMIT} manifests refer to it");
                            return Err(ClientError::Manifest { reference: shown, reason });
                        }
                        pending.push_back(self.required(&origin, &referrer).await?);
                    }
                }
            }
            // Pushes tell their own.
            if !matches!(goal, Goal::Registry(_)) {
                progress.flush();
            }
            if let (Goal::Registry(target), CopyTo::Registry(to)) = (&goal, &to)
                && (to.digest().is_none() || to.tag().is_some())
            {
                let tag = to.tag().unwrap_or("latest");
                let now = patiently(self.options().retry, async || self.head_manifest(target, tag).await).await?;
                if now.is_none_or(|now| now.digest != root.descriptor.digest) {
                    self.put_manifest(target, tag, &root).await?;
                }
            }
            Ok(copied)
        })
    }

    async fn origin<'a>(&self, from: CopyFrom<'a>, referrers: bool) -> Result<(Origin<'a>, Fetched), ClientError> {
        match from {
            CopyFrom::Registry(reference) => {
                let sources = self.sources(reference)?;
                let root = self.fetch_manifest(&sources, &reference.target()).await?;
                Ok((Origin::Registry(sources), root))
            }
            CopyFrom::Local { blobs, store, root, others, shown } => {
                let fetched = read_manifest(&*blobs, &root)?;
                let mut by_subject: HashMap<Digest, Vec<Descriptor>> = HashMap::new();
                for other in others.into_iter().filter(|_| referrers) {
                    if let Ok(manifest) = read_manifest(&*blobs, &other)
                        && let Some(subject) = manifest.subject()
                    {
                        by_subject.entry(subject).or_default().push(manifest.descriptor);
                    }
                }
                Ok((Origin::Local { blobs, store, shown, by_subject }, fetched))
            }
        }
    }

    /// A manifest of the origin; `None` when it is not there.
    async fn manifest_at(&self, origin: &Origin<'_>, wanted: &Descriptor) -> Result<Option<Fetched>, ClientError> {
        match origin {
            Origin::Registry(sources) => {
                let fetched = self.fetch_manifest(sources, &wanted.digest.to_string()).await?;
                // The index says what it is; the registry only repeats what it was told.
                Ok(Some(Fetched { descriptor: wanted.clone(), bytes: fetched.bytes }))
            }
            Origin::Local { blobs, .. } => match blobs.size(&wanted.digest)? {
                Some(_) => Ok(Some(read_manifest(&**blobs, wanted)?)),
                None => Ok(None),
            },
        }
    }

    async fn required(&self, origin: &Origin<'_>, wanted: &Descriptor) -> Result<Fetched, ClientError> {
        self.manifest_at(origin, wanted).await?.ok_or_else(|| ClientError::Manifest {
            reference: origin.shown().into(),
            reason: format!("{} is not in it", wanted.digest),
        })
    }

    async fn referrers_at(&self, origin: &Origin<'_>, subject: &Digest) -> Result<Vec<Descriptor>, ClientError> {
        match origin {
            Origin::Registry(sources) => {
                let listed = self.list_referrers(&self.good(sources).await?, subject, None).await?.1;
                if !listed.is_empty() || sources.last_good() == sources.own() {
                    return Ok(listed);
                }
                // Mirrors need not have them; the registry itself need not answer.
                let asked = async { self.list_referrers(&self.own(sources).await?, subject, None).await };
                match asked.await {
                    Err(ClientError::NoAnswer { .. }) => Ok(listed),
                    found => Ok(found?.1),
                }
            }
            Origin::Local { by_subject, .. } => Ok(by_subject.get(subject).cloned().unwrap_or_default()),
        }
    }

    /// The manifests under `root` and the blobs they name. Members that something local never had are left out, as
    /// layouts of one platform of an index have it.
    async fn tree(&self, origin: &Origin<'_>, root: Fetched, shown: &str) -> Result<Tree, ClientError> {
        let mut tree = Tree { manifests: Vec::new(), blobs: Vec::new() };
        let mut known: HashMap<Digest, Fetched> = HashMap::new();
        let mut seen = HashSet::new();
        // Each is looked at twice: once to take its members before it, once to take it itself.
        let mut pending = vec![(root.descriptor.clone(), None::<Fetched>)];
        known.insert(root.descriptor.digest.clone(), root);
        while let Some((descriptor, opened)) = pending.pop() {
            if let Some(fetched) = opened {
                tree.manifests.push(fetched);
                continue;
            }
            if !seen.insert(descriptor.digest.clone()) {
                continue;
            }
            if seen.len() > MANIFESTS_LIMIT {
                let reason = format!("it holds more than {MANIFESTS_LIMIT} manifests");
                return Err(ClientError::Manifest { reference: shown.into(), reason });
            }
            let Some(fetched) = known.remove(&descriptor.digest) else { continue };
            let shape = fetched.shape(shown)?;
            pending.push((descriptor, Some(fetched)));
            match shape {
                Shape::Index(index) => {
                    let fresh: Vec<Descriptor> =
                        index.manifests.into_iter().filter(|member| !seen.contains(&member.digest)).collect();
                    let asked = fresh.iter().map(|member| self.manifest_at(origin, member));
                    let found: Vec<Option<Fetched>> =
                        stream::iter(asked).buffered(self.options().parallel.max(1)).try_collect().await?;
                    for member in found.into_iter().flatten() {
                        pending.push((member.descriptor.clone(), None));
                        known.insert(member.descriptor.digest.clone(), member);
                    }
                }
                Shape::Image(manifest) => {
                    tree.blobs.push(manifest.config);
                    tree.blobs.extend(manifest.layers.into_iter().filter(|layer| layer.urls.is_empty()));
                }
            }
        }
        let mut names = HashSet::new();
        tree.blobs.retain(|blob| names.insert(blob.digest.clone()));
        Ok(tree)
    }

    /// Whether the goal has a manifest, and so all below it: it was put there last.
    async fn is_there(&self, goal: &Goal<'_>, wanted: &Descriptor) -> Result<bool, ClientError> {
        match goal {
            Goal::Registry(target) => {
                let digest = wanted.digest.to_string();
                let head = patiently(self.options().retry, async || self.head_manifest(target, &digest).await);
                Ok(head.await?.is_some())
            }
            // A store may have a manifest without its layers; looking is cheap on this machine.
            Goal::Store(_) | Goal::Local(_) => Ok(false),
        }
    }

    /// Brings what the goal lacks of a tree.
    async fn bring_tree(
        &self,
        origin: &Origin<'_>,
        goal: &Goal<'_>,
        tree: &Tree,
        progress: &Progress<'_>,
        step: Option<&Step>,
        cancel: &Cancel,
    ) -> Result<Pushed, ClientError> {
        let blobs = match goal {
            Goal::Registry(target) => {
                let near;
                let (source, mount) = match origin {
                    Origin::Registry(sources) => {
                        near = self.good(sources).await?;
                        let own = Some(sources.own()).filter(|own| *own != sources.last_good());
                        let same = near.host.base.origin() == target.host.base.origin();
                        let mount = if same { vec![near.name.clone()] } else { Vec::new() };
                        (Source::Registry { near: &near, own }, mount)
                    }
                    Origin::Local { blobs, store, .. } => {
                        (Source::Local { blobs: blobs.clone(), store: *store }, Vec::new())
                    }
                };
                let sent = self.send_blobs(target, &tree.blobs, &source, &mount, step).await?;
                self.send_manifests(target, &tree.manifests).await?;
                return Ok(sent);
            }
            Goal::Store(_) | Goal::Local(_) => &tree.blobs,
        };
        let brought = blobs.iter().map(|blob| self.bring(origin, goal, blob, progress, cancel));
        let parallel = self.options().parallel.max(1);
        let brought: Vec<Pushed> = stream::iter(brought).buffer_unordered(parallel).try_collect().await?;
        for manifest in &tree.manifests {
            match goal {
                Goal::Store(store) => keep(store, manifest)?,
                Goal::Local(blobs) if blobs.size(&manifest.descriptor.digest)? != Some(manifest.descriptor.size) => {
                    let mut sink = blobs.create(Some(&manifest.descriptor))?;
                    sink.write_all(&manifest.bytes).map_err(ClientError::Write)?;
                    sink.commit()?;
                }
                _ => {}
            }
        }
        Ok(brought.into_iter().fold(Pushed::default(), |sum, one| sum + one))
    }

    /// One blob to this machine.
    async fn bring(
        &self,
        origin: &Origin<'_>,
        goal: &Goal<'_>,
        blob: &Descriptor,
        progress: &Progress<'_>,
        cancel: &Cancel,
    ) -> Result<Pushed, ClientError> {
        let there = match goal {
            // Held from now on.
            Goal::Store(store) => store.contains(&blob.digest)?,
            Goal::Local(blobs) => blobs.size(&blob.digest)? == Some(blob.size),
            Goal::Registry(_) => false,
        };
        if there {
            return Ok(Pushed { present: 1, ..Pushed::default() });
        }
        let done = Pushed { uploaded: 1, bytes: blob.size, ..Pushed::default() };
        let create = || match goal {
            Goal::Store(store) => Blobs::create(*store, Some(blob)),
            Goal::Local(blobs) => blobs.create(Some(blob)),
            Goal::Registry(_) => unreachable!("blobs are pushed there"),
        };
        match (origin, goal) {
            (Origin::Registry(sources), Goal::Store(store)) => {
                self.pull_one(sources, blob, store, progress, cancel).await?;
            }
            (Origin::Registry(sources), _) => {
                let mut sink = create()?;
                self.stream_blob(sources, blob, &mut *sink, progress).await?;
                sink.commit()?;
            }
            (Origin::Local { blobs, .. }, _) => {
                progress.expect(blob.size);
                let (mut reader, mut sink) = (blobs.open(blob)?, create()?);
                let mut buffer = vec![0; PIECE_BYTES];
                loop {
                    // Others may go on, and a cancellation be heard, between two pieces.
                    tokio::task::yield_now().await;
                    match reader.read(&mut buffer).map_err(|error| ctk_error(error, blob))? {
                        0 => break,
                        n => {
                            sink.write_all(&buffer[..n]).map_err(ClientError::Write)?;
                            progress.add(n as u64);
                        }
                    }
                }
                sink.commit()?;
            }
        }
        Ok(done)
    }

    /// The registry itself.
    async fn own(&self, sources: &Sources) -> Result<Repository, ClientError> {
        self.repository(sources.own(), &sources.reference, self.options().retry).await
    }

    /// The place that answered last.
    async fn good(&self, sources: &Sources) -> Result<Repository, ClientError> {
        self.repository(sources.last_good(), &sources.reference, self.options().retry).await
    }
}

impl Origin<'_> {
    fn shown(&self) -> &str {
        match self {
            Origin::Registry(sources) => &sources.reference,
            Origin::Local { shown, .. } => shown,
        }
    }
}

fn read_manifest(blobs: &dyn Blobs, descriptor: &Descriptor) -> Result<Fetched, ClientError> {
    if descriptor.size > MANIFEST_LIMIT_BYTES {
        let (digest, size) = (descriptor.digest.clone(), descriptor.size);
        return Err(ctk_store::StoreError::TooLarge { digest, size, limit: MANIFEST_LIMIT_BYTES }.into());
    }
    let mut bytes = Vec::with_capacity(descriptor.size as usize);
    blobs.open(descriptor)?.read_to_end(&mut bytes).map_err(|error| ctk_error(error, descriptor))?;
    Ok(Fetched { descriptor: descriptor.clone(), bytes })
}

/// What a verifying reader says when content is not what it should be.
fn ctk_error(error: io::Error, blob: &Descriptor) -> ClientError {
    match error.downcast::<ctk_store::StoreError>() {
        Ok(inner) => inner.into(),
        Err(source) => {
            let path = std::path::PathBuf::from(blob.digest.to_string());
            ctk_store::StoreError::Io { action: "read", path, source }.into()
        }
    }
}
