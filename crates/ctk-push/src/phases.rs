//! Observe, upload, publish.

use ctk_oci::{Descriptor, Digest};
use ctk_plan::{Address, Reporter};
use ctk_store::Store;
use serde::Serialize;

use crate::decl::{PushDecl, Target};
use crate::error::PushError;
use crate::packing::{Ground, PackingError, pack, packed};
use crate::targets::{Context, Found, Reach, Ready};

/// What a tag of a target names now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// The target's location.
    pub target: String,
    /// The tag.
    pub tag: String,
    /// Both, for people: `ghcr.io/acme/api:1.0`.
    pub name: String,
    /// What it names.
    pub found: Found,
}

/// A tag that was moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Published {
    /// The target's location.
    pub target: String,
    /// The tag.
    pub tag: String,
    /// Both, for people.
    pub name: String,
    /// What [`observe`] will find there.
    pub digest: Digest,
    /// The image that was pushed: a manifest or an index.
    pub image: Digest,
}

/// What a push is done with.
pub struct PushRequest<'a> {
    /// The push.
    pub decl: &'a PushDecl,
    /// The image: a manifest or an index, complete in the store.
    pub image: &'a Descriptor,
    /// Where it is.
    pub store: &'a Store,
    /// The ways to the targets.
    pub reach: &'a Reach<'a>,
    /// Hears of every target.
    pub reporter: &'a Reporter,
}

/// An image uploaded to every target, under no tag yet. Dropping it leaves nothing that is seen.
pub struct Staged {
    push: Address,
    image: Descriptor,
    targets: Vec<StagedTarget>,
}

struct StagedTarget {
    location: String,
    names: Vec<(String, String)>,
    identity: Digest,
    ready: Box<dyn Ready>,
}

impl Staged {
    /// What was uploaded: the image as it was packed, if the push says how.
    pub fn image(&self) -> &Descriptor {
        &self.image
    }
}

/// What all tags of all targets name now: targets side by side, reads only. A place that does not answer is an
/// observation, not an error.
pub fn observe(decl: &PushDecl, reach: &Reach<'_>) -> Vec<Observed> {
    let one = |target: &Target| -> Vec<Observed> {
        let found = target.place.observe(reach, &target.tags);
        let observed = |(tag, found): (&String, Found)| Observed {
            target: target.location.clone(),
            tag: tag.clone(),
            name: target.place.name(tag),
            found,
        };
        target.tags.iter().zip(found).map(observed).collect()
    };
    if let [target] = decl.targets.as_slice() {
        return one(target);
    }
    std::thread::scope(|scope| {
        let all: Vec<_> = decl.targets.iter().map(|target| scope.spawn(move || one(target))).collect();
        all.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

impl PushDecl {
    /// What [`observe`] finds, in its order, once `image` is pushed: compare the two. `None` when that is not known
    /// before the layers were packed so once.
    pub fn wanted(
        &self,
        store: &Store,
        image: &Descriptor,
        reach: &Reach<'_>,
    ) -> Result<Option<Vec<Digest>>, PushError> {
        let context = Context { push: &self.address, store, reach };
        let known = match self.packing {
            packing if packing.is_as_built() => Some(image.clone()),
            packing => packed(store, image, packing).map_err(|source| PushError::Pack {
                push: self.address.clone(),
                source: Box::new(PackingError::Store(source)),
            })?,
        };
        let Some(image) = known else { return Ok(None) };
        let mut wanted = Vec::new();
        for target in &self.targets {
            let identity = target.place.identity(&context, &image)?;
            wanted.extend(target.tags.iter().map(|_| identity.clone()));
        }
        Ok(Some(wanted))
    }
}

/// Brings the image to every target, targets side by side, without a tag. Safe to repeat: what is there is not sent
/// again.
pub fn upload(request: &PushRequest<'_>) -> Result<Staged, PushError> {
    let PushRequest { decl, store, reach, reporter, .. } = request;
    let context = Context { push: &decl.address, store, reach };
    let image = match decl.packing {
        packing if packing.is_as_built() => request.image.clone(),
        packing => {
            let step = reporter.step(packing.title());
            let ground = Ground { store, reporter, cancel: reach.cancel };
            let result = pack(ground, request.image, packing, &step);
            step.conclude(result.map_err(|source| match source {
                PackingError::Cancelled => PushError::Cancelled,
                source => PushError::Pack { push: decl.address.clone(), source: Box::new(source) },
            }))?
        }
    };
    let one = |target: &Target| -> Result<StagedTarget, PushError> {
        let step = reporter.step(format!("upload to {}", target.location));
        let staged = target.place.identity(&context, &image).and_then(|identity| {
            let ready = target.place.upload(&context, &image, &target.tags, &step)?;
            Ok((identity, ready))
        });
        let (identity, ready) = step.conclude(staged)?;
        let names = target.tags.iter().map(|tag| (tag.clone(), target.place.name(tag))).collect();
        Ok(StagedTarget { location: target.location.clone(), names, identity, ready })
    };
    let one = &one;
    let results: Vec<Result<StagedTarget, PushError>> = std::thread::scope(|scope| {
        let all: Vec<_> = decl.targets.iter().map(|target| scope.spawn(move || one(target))).collect();
        // A thread that panicked has said why; its panic goes on here.
        all.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let targets = results.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(Staged { push: decl.address.clone(), image, targets })
}

/// Moves the tags, target after target in the order of the file. On an error the tags of the targets before it have
/// moved; the next apply moves the rest.
pub fn publish(
    staged: Staged,
    store: &Store,
    reach: &Reach<'_>,
    reporter: &Reporter,
) -> Result<Vec<Published>, PushError> {
    let Staged { push, image, targets } = staged;
    let context = Context { push: &push, store, reach };
    let mut published = Vec::new();
    for StagedTarget { location, names, identity, ready } in targets {
        if reach.cancel.is_cancelled() {
            return Err(PushError::Cancelled);
        }
        let all: Vec<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
        let step = reporter.step(format!("tag {}", all.join(", ")));
        step.conclude(ready.publish(&context))?;
        published.extend(names.into_iter().map(|(tag, name)| Published {
            target: location.clone(),
            tag,
            name,
            digest: identity.clone(),
            image: image.digest.clone(),
        }));
    }
    Ok(published)
}
