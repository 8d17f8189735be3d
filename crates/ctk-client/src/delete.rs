//! Deletions: first what would go, then its going.

use ctk_distribution::{Actions, Scope, manifest_path, referrers_path, referrers_tag};
use ctk_oci::{Digest, Reference, media_type};
use ctk_plan::Cancel;
use reqwest::Method;

use crate::call::Call;
use crate::host::Repository;
use crate::referrers::{Listing, Referrer};
use crate::retry::patiently;
use crate::{Client, ClientError, block};

/// How much is deleted.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeleteOptions {
    /// The manifest that a tag names, not the tag alone. A reference by digest always means the manifest.
    pub manifest: bool,
    /// What refers to the manifest, too, and what refers to that. Means `manifest`.
    pub referrers: bool,
}

/// Something that is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doomed {
    /// By tag or by digest.
    pub reference: Reference,
    /// What it is.
    pub kind: DoomedKind,
    /// Its artifact type, of a referrer that has one.
    pub artifact_type: Option<String>,
}

/// What is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoomedKind {
    /// A tag alone.
    Tag,
    /// A manifest, with every tag that names it.
    Manifest,
    /// A manifest that refers to a deleted one.
    Referrer,
    /// The list of referrers that clients keep under a tag.
    List,
}

impl Client {
    /// What deleting `reference` would delete, in order: referrers before what they refer to. Empty when it does not
    /// exist. Changes nothing.
    pub fn doomed(
        &self,
        reference: &Reference,
        options: DeleteOptions,
        cancel: &Cancel,
    ) -> Result<Vec<Doomed>, ClientError> {
        let named = self.head_at_target(reference, cancel)?;
        let Some(named) = named else { return Ok(Vec::new()) };
        let one = |reference, kind| Doomed { reference, kind, artifact_type: None };
        if reference.digest().is_none() && !options.manifest && !options.referrers {
            return Ok(vec![one(reference.clone(), DoomedKind::Tag)]);
        }
        let by_digest = reference.with_digest(named.digest.clone());
        let mut doomed = Vec::new();
        if options.referrers {
            let referrers = self.referrers(&by_digest, None, None, true, cancel)?;
            let by_tag = referrers.listing == Listing::Tag;
            let mut lists = Vec::new();
            gather(&by_digest, &referrers.found, by_tag, &mut doomed, &mut lists);
            if by_tag && !referrers.found.is_empty() {
                lists.push(named.digest.clone());
            }
            for list in lists {
                let tag = by_digest.with_tag(&referrers_tag(&list)).expect("a tag of hex digits");
                doomed.push(one(tag, DoomedKind::List));
            }
        }
        doomed.push(one(by_digest, DoomedKind::Manifest));
        Ok(doomed)
    }

    /// Deletes one of [`Client::doomed`]. `false` when it was not there any more.
    pub fn delete_doomed(&self, doomed: &Doomed, cancel: &Cancel) -> Result<bool, ClientError> {
        if doomed.kind == DoomedKind::Manifest {
            return self.delete(&doomed.reference, cancel);
        }
        block(cancel, async {
            let at = self.target(&doomed.reference).await?;
            let target = doomed.reference.target();
            if doomed.kind != DoomedKind::List {
                return self.delete_target(&at, &target).await;
            }
            // By what it is now: registries before distribution-spec 1.1 delete no tags.
            let head = patiently(self.options().retry, async || self.head_manifest(&at, &target).await);
            match head.await? {
                Some(list) if media_type::is_index(&list.media_type) => {
                    self.delete_target(&at, &list.digest.to_string()).await
                }
                _ => Ok(false),
            }
        })
    }

    /// Deletes what the reference names: the manifest with all its tags when it has a digest, else the tag alone
    /// (which registries before distribution-spec 1.1 refuse). A manifest that refers to another one is taken out of the
    /// list of its referrers, where clients keep that. `false` when it was not there.
    pub fn delete(&self, reference: &Reference, cancel: &Cancel) -> Result<bool, ClientError> {
        block(cancel, async {
            let at = self.target(reference).await?;
            let Some(digest) = reference.digest() else {
                return self.delete_target(&at, &reference.target()).await;
            };
            let got = patiently(self.options().retry, async || self.get_manifest(&at, &digest.to_string()).await).await;
            let subject = match got {
                Ok(fetched) => fetched.subject(),
                Err(error) if error.status() == Some(404) => return Ok(false),
                // Whatever it is, it can go.
                Err(ClientError::Manifest { .. } | ClientError::TooLarge { .. } | ClientError::Mismatch { .. }) => None,
                Err(error) => return Err(error),
            };
            let deleted = self.delete_target(&at, &digest.to_string()).await?;
            if let Some(subject) = subject
                && !self.keeps_referrers(&at, &subject).await?
            {
                self.take_from_tag(&at, &subject, digest).await?;
            }
            Ok(deleted)
        })
    }

    async fn delete_target(&self, at: &Repository, target: &str) -> Result<bool, ClientError> {
        let scopes = [Scope::repository(&at.name, Actions::Delete)];
        let path = manifest_path(&at.name, target);
        patiently(self.options().retry, async || {
            let sent = self.send(at, Call::new(Method::DELETE, &path, &scopes)).await?;
            match sent.status() {
                200 | 202 | 204 => Ok(true),
                404 => Ok(false),
                _ => Err(self.complain(at, &Method::DELETE, sent).await),
            }
        })
        .await
    }

    /// Whether the registry lists referrers itself.
    async fn keeps_referrers(&self, at: &Repository, subject: &Digest) -> Result<bool, ClientError> {
        let scopes = [Scope::repository(&at.name, Actions::Pull)];
        let path = referrers_path(&at.name, subject);
        let asked =
            patiently(self.options().retry, async || self.send(at, Call::new(Method::GET, &path, &scopes)).await);
        Ok(asked.await?.status() == 200)
    }
}

/// The referrers, deepest first, and those of them that have a list of their own.
fn gather(repository: &Reference, found: &[Referrer], by_tag: bool, doomed: &mut Vec<Doomed>, lists: &mut Vec<Digest>) {
    for referrer in found {
        gather(repository, &referrer.referrers, by_tag, doomed, lists);
        if by_tag && !referrer.referrers.is_empty() {
            lists.push(referrer.descriptor.digest.clone());
        }
        let reference = repository.with_digest(referrer.descriptor.digest.clone());
        if !doomed.iter().any(|known| known.reference == reference) {
            let artifact_type = referrer.descriptor.artifact_type.clone();
            doomed.push(Doomed { reference, kind: DoomedKind::Referrer, artifact_type });
        }
    }
}
