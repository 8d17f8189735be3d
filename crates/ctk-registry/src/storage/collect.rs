//! What goes: uploads that nobody finishes, blobs that no manifest names, what the retention does not keep, trash.
//! Everything happens beside running servers, in steps that hold up nobody for longer than one of them takes.

use std::time::{Duration, SystemTime};

use super::{Storage, seconds};
use crate::meta::{Name, Retention, Trash};
use crate::{RegistryError, SWEEP_STEP_ENTRIES};

/// What a collection removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Uploads that were given up.
    pub uploads: usize,
    /// Blobs taken from repositories.
    pub blobs: usize,
    /// Tags and manifests that a retention did not keep, with their repositories.
    pub names: Vec<(String, Name)>,
    /// Places whose bytes were removed.
    pub places: usize,
}

impl Storage {
    /// Removes uploads untouched for `upload_life`, and blobs that no manifest of their repository names and that
    /// nobody pushed, mounted or asked for during `blob_life`; then their bytes. Nothing that a manifest names goes.
    /// Safe beside running servers, and to repeat.
    pub fn sweep(
        &self,
        now: SystemTime,
        upload_life: Duration,
        blob_life: Duration,
    ) -> Result<Collected, RegistryError> {
        let clock = seconds(now);
        self.write_seen()?;
        let uploads = self.meta.expire_uploads(clock.saturating_sub(upload_life.as_secs()), clock)?;
        let mut blobs = 0;
        let mut from = None;
        loop {
            let before = clock.saturating_sub(blob_life.as_secs());
            let (removed, next) = self.meta.sweep(from, before, SWEEP_STEP_ENTRIES, clock)?;
            blobs += removed;
            if next.is_none() {
                break;
            }
            from = next;
        }
        Ok(Collected { uploads, blobs, names: Vec::new(), places: self.empty_trash()? })
    }

    /// Applies `retention` to every repository that `which` names one for; with `dry`, only tells.
    pub fn retain(
        &self,
        now: SystemTime,
        which: &dyn Fn(&str) -> Option<Retention>,
        dry: bool,
    ) -> Result<Vec<(String, Name)>, RegistryError> {
        self.write_seen()?;
        let mut removed = Vec::new();
        let mut after = String::new();
        loop {
            let names = self.meta.repositories(&after, SWEEP_STEP_ENTRIES)?;
            let Some(last) = names.last() else { return Ok(removed) };
            after = last.clone();
            for repository in names {
                let Some(retention) = which(&repository) else { continue };
                let gone = self.meta.retain(&repository, &retention, seconds(now), dry)?;
                removed.extend(gone.into_iter().map(|name| (repository.clone(), name)));
            }
        }
    }

    /// Removes the bytes of what was thrown away; gives the number of places.
    pub fn empty_trash(&self) -> Result<usize, RegistryError> {
        let mut removed = 0;
        loop {
            let trash = self.meta.trash(SWEEP_STEP_ENTRIES)?;
            if trash.is_empty() {
                return Ok(removed);
            }
            let mut gone = Vec::with_capacity(trash.len());
            let mut failure = None;
            for Trash { place, parts } in trash {
                match self.blobs.remove(&place, &parts) {
                    Ok(()) => gone.push(place),
                    Err(error) => failure = Some(error),
                }
            }
            removed += gone.len();
            self.meta.forget(gone)?;
            if let Some(error) = failure {
                return Err(error);
            }
        }
    }
}
