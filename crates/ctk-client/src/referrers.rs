//! What refers to a manifest: signatures, SBOMs, attestations.
//!
//! Registries list them (`GET /v2/<name>/referrers/<digest>`). Where one does not, clients keep the list themselves, as
//! an index under the tag `sha256-<hex>`: whoever pushes a manifest with a `subject` and hears no `OCI-Subject` adds it
//! there, whoever deletes one takes it out (distribution-spec 1.1, "Referrers Tag Schema"). Nothing locks such a tag:
//! before writing we look whether it is still what we read, and some time after whether our change is there, and make it
//! again if somebody else's took its place. Two clients that write at once can still lose an entry; a registry that keeps
//! the list itself cannot.

use std::collections::HashSet;

use ctk_distribution::{
    ANSWER_LIMIT_BYTES, Actions, PAGES_LIMIT, REFERRERS_LIMIT, Scope, manifest_path, next_link, referrers_path,
    referrers_tag,
};
use ctk_oci::{Descriptor, Digest, Document, Index, Platform, Reference, media_type};
use ctk_plan::Cancel;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, LINK};
use serde::Deserialize;

use crate::call::{Call, Sent, read_limited};
use crate::host::Repository;
use crate::manifest::{Fetched, Shape};
use crate::pull::wanted;
use crate::retry::patiently;
use crate::{Client, ClientError, REFERRERS_DEPTH, REFERRERS_TAG_SETTLE, REFERRERS_TAG_TRIES, block};

/// Who keeps the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// The registry.
    Registry,
    /// Clients, under a tag.
    Tag,
}

/// What refers to a manifest.
#[derive(Clone, Debug)]
pub struct Referrers {
    /// The manifest.
    pub subject: Descriptor,
    /// Who keeps the list.
    pub listing: Listing,
    /// What refers to it.
    pub found: Vec<Referrer>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Referrer {
    /// Its manifest, with artifact type and annotations.
    pub descriptor: Descriptor,
    /// What refers to it in turn, if that was asked for.
    pub referrers: Vec<Referrer>,
}

/// The parts of any manifest that matter here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parts {
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

impl Fetched {
    /// What it refers to.
    pub(crate) fn subject(&self) -> Option<Digest> {
        Some(self.parts()?.subject?.digest)
    }

    fn parts(&self) -> Option<Parts> {
        serde_json::from_slice(&self.bytes).ok()
    }

    /// How a list of referrers has it: an image without an artifact type is of its config's.
    fn as_referrer(&self) -> Descriptor {
        let mut descriptor = self.descriptor.clone();
        (descriptor.platform, descriptor.annotations) = (None, Default::default());
        if let Some(parts) = self.parts() {
            let of_config = parts.config.map(|config| config.media_type);
            descriptor.artifact_type = parts.artifact_type.or(of_config).filter(|kind| !kind.is_empty());
            descriptor.annotations = parts.annotations;
        }
        descriptor
    }
}

impl Client {
    /// What refers to the manifest that `reference` names, or to the member of its index for `platform`; only those
    /// of an artifact type, if one is given. With `deep` also what refers to these, down to [`REFERRERS_DEPTH`].
    /// The registry itself is asked, no mirror.
    pub fn referrers(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        artifact_type: Option<&str>,
        deep: bool,
        cancel: &Cancel,
    ) -> Result<Referrers, ClientError> {
        block(cancel, async {
            let at = self.target(reference).await?;
            let subject = self.named(&at, &reference.target(), platform).await?.descriptor;
            let (listing, listed) = self.list_referrers(&at, &subject.digest, artifact_type).await?;
            let mut seen = HashSet::from([subject.digest.clone()]);
            let mut found = Vec::new();
            for descriptor in listed {
                let referrers = match deep {
                    true => self.below(&at, &descriptor.digest, 1, &mut seen).await?,
                    false => Vec::new(),
                };
                found.push(Referrer { descriptor, referrers });
            }
            Ok(Referrers { subject, listing, found })
        })
    }

    /// What a reference names, or the member of its index for a platform.
    pub(crate) async fn named(
        &self,
        at: &Repository,
        target: &str,
        platform: Option<&Platform>,
    ) -> Result<Fetched, ClientError> {
        let get =
            async |target: &str| patiently(self.options().retry, async || self.get_manifest(at, target).await).await;
        let root = get(target).await?;
        if platform.is_some() && media_type::is_index(&root.descriptor.media_type) {
            let Shape::Index(index) = root.shape(&at.reference)? else { return Ok(root) };
            let member = wanted(&index, platform, &at.reference)?.remove(0);
            return get(&member.digest.to_string()).await;
        }
        Ok(root)
    }

    /// The referrers of a referrer. `seen` keeps a cycle, which only a lying registry can list, from being walked.
    async fn below(
        &self,
        at: &Repository,
        subject: &Digest,
        depth: usize,
        seen: &mut HashSet<Digest>,
    ) -> Result<Vec<Referrer>, ClientError> {
        if depth > REFERRERS_DEPTH || !seen.insert(subject.clone()) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for descriptor in self.list_referrers(at, subject, None).await?.1 {
            let referrers = Box::pin(self.below(at, &descriptor.digest, depth + 1, seen)).await?;
            found.push(Referrer { descriptor, referrers });
        }
        Ok(found)
    }

    /// What refers to a digest, all pages; of one artifact type, if one is given.
    pub(crate) async fn list_referrers(
        &self,
        at: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<(Listing, Vec<Descriptor>), ClientError> {
        let fits = |found: &Descriptor| artifact_type.is_none_or(|kind| found.artifact_type.as_deref() == Some(kind));
        if let Some(mut found) = self.registry_list(at, subject, artifact_type).await? {
            found.retain(fits);
            return Ok((Listing::Registry, found));
        }
        let mut found = self.tag_list(at, subject).await?.map_or(Vec::new(), |(_, index)| index.manifests);
        found.retain(fits);
        Ok((Listing::Tag, found))
    }

    /// The registry's own list; `None` when it keeps none.
    async fn registry_list(
        &self,
        at: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>, ClientError> {
        let scopes = [Scope::repository(&at.name, Actions::Pull)];
        let mut path = referrers_path(&at.name, subject);
        if let Some(kind) = artifact_type {
            // `+` is a blank in a query, and media types are full of it.
            let kind: String = kind.bytes().map(escaped).collect();
            path += &format!("?artifactType={kind}");
        }
        let mut found: Vec<Descriptor> = Vec::new();
        for page in 0..PAGES_LIMIT {
            let answer = patiently(self.options().retry, async || {
                let call = Call::new(Method::GET, &path, &scopes).header(ACCEPT, media_type::INDEX);
                let sent = self.send(at, call).await?;
                match sent.status() {
                    200 => self.index_page(at, sent).await.map(Some),
                    404 | 405 | 501 => Ok(None),
                    _ => Err(self.complain(at, &Method::GET, sent).await),
                }
            });
            // Something else than an index: the front page of a web server, say.
            let Some((Some(index), next)) = answer.await? else {
                return Ok((page > 0).then_some(found));
            };
            found.extend(index.manifests);
            if found.len() > REFERRERS_LIMIT {
                let reason = format!("more than {REFERRERS_LIMIT} manifests refer to {subject}");
                return Err(ClientError::Manifest { reference: at.reference.clone(), reason });
            }
            match next {
                Some(next) => path = next,
                None => break,
            }
        }
        Ok(Some(found))
    }

    /// One page, if it is an index, and the place of the next.
    async fn index_page(&self, at: &Repository, sent: Sent) -> Result<(Option<Index>, Option<String>), ClientError> {
        let next = sent.header(LINK).and_then(|link| sent.url.join(next_link(&link)?).ok()).map(String::from);
        let host = at.host.name.clone();
        let path = sent.path.clone();
        let no_answer = |cause| ClientError::NoAnswer { host: host.clone(), method: "GET", path, cause };
        let body = read_limited(sent.response, ANSWER_LIMIT_BYTES).await.map_err(no_answer)?;
        let what = format!("the referrers of `{}`", at.reference);
        let body =
            body.ok_or(ClientError::TooLarge { host: at.host.name.clone(), what, limit_bytes: ANSWER_LIMIT_BYTES })?;
        Ok((serde_json::from_slice(&body).ok(), next))
    }

    /// The list under the tag, and the tag's manifest.
    async fn tag_list(&self, at: &Repository, subject: &Digest) -> Result<Option<(Fetched, Index)>, ClientError> {
        let tag = referrers_tag(subject);
        let got = patiently(self.options().retry, async || self.get_manifest(at, &tag).await).await;
        match got {
            Ok(fetched) => match fetched.shape(&at.reference) {
                Ok(Shape::Index(index)) => Ok(Some((fetched, *index))),
                // Somebody's tag that only looks like ours.
                _ => Ok(None),
            },
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds a manifest to the list under its subject's tag, for a registry that keeps none. Safe to repeat.
    pub(crate) async fn add_to_tag(
        &self,
        at: &Repository,
        subject: &Digest,
        manifest: &Fetched,
    ) -> Result<(), ClientError> {
        let entry = manifest.as_referrer();
        let add = |list: &mut Vec<Descriptor>| match list.iter().any(|known| known.digest == entry.digest) {
            true => false,
            false => {
                list.push(entry.clone());
                true
            }
        };
        self.change_tag(at, subject, add).await
    }

    /// Takes a manifest out of the list under its subject's tag. Safe to repeat.
    pub(crate) async fn take_from_tag(
        &self,
        at: &Repository,
        subject: &Digest,
        gone: &Digest,
    ) -> Result<(), ClientError> {
        let take = |list: &mut Vec<Descriptor>| {
            let before = list.len();
            list.retain(|known| known.digest != *gone);
            list.len() != before
        };
        self.change_tag(at, subject, take).await
    }

    async fn change_tag(
        &self,
        at: &Repository,
        subject: &Digest,
        change: impl Fn(&mut Vec<Descriptor>) -> bool,
    ) -> Result<(), ClientError> {
        // Several pushes of one process wait for each other; those of others are found out by looking again.
        let _one = self.inner.tags.lock().await;
        let tag = referrers_tag(subject);
        for _ in 0..REFERRERS_TAG_TRIES {
            let known = self.tag_list(at, subject).await?;
            let (before, mut index) = match known {
                Some((fetched, index)) => (Some(fetched.descriptor.digest), index),
                None => (None, Index::new(Vec::new())),
            };
            if !change(&mut index.manifests) {
                return Ok(());
            }
            let document = Document::new(index);
            let descriptor = document.descriptor(media_type::INDEX);
            let fetched = Fetched { descriptor, bytes: document.bytes().to_vec() };
            let now = patiently(self.options().retry, async || self.head_manifest(at, &tag).await).await?;
            if now.map(|now| now.digest) != before {
                continue;
            }
            self.put_plain(at, &tag, &fetched).await?;
            // Whoever read before we wrote writes within this time.
            tokio::time::sleep(REFERRERS_TAG_SETTLE).await;
        }
        let reason = format!("others keep changing the list of referrers under the tag `{tag}`");
        Err(ClientError::Manifest { reference: at.reference.clone(), reason })
    }

    /// Puts a manifest; gives whether the registry said that it keeps the referrers of its subject.
    pub(crate) async fn put_plain(
        &self,
        to: &Repository,
        target: &str,
        manifest: &Fetched,
    ) -> Result<bool, ClientError> {
        const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
        patiently(self.options().retry, async || {
            let path = manifest_path(&to.name, target);
            let scopes = [Scope::repository(&to.name, Actions::Push)];
            let call = Call::new(Method::PUT, &path, &scopes).header(CONTENT_TYPE, &manifest.descriptor.media_type);
            let body = async || Ok(Some(reqwest::Body::from(manifest.bytes.clone())));
            let sent = self.send_body(to, call, body).await?;
            match sent.status() {
                200 | 201 | 202 | 204 => Ok(sent.header(SUBJECT).is_some()),
                _ => Err(self.complain(to, &Method::PUT, sent).await),
            }
        })
        .await
    }
}

fn escaped(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    }
}
