//! Bytes of many blobs, told as one step.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ctk_plan::{ProgressUnit, Step};

use crate::PROGRESS_INTERVAL;

/// Sums up what transfers of one step have done.
pub(crate) struct Progress<'a> {
    step: Option<&'a Step>,
    done: AtomicU64,
    total: AtomicU64,
    told: Mutex<Option<Instant>>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(step: Option<&'a Step>) -> Progress<'a> {
        Progress { step, done: AtomicU64::new(0), total: AtomicU64::new(0), told: Mutex::new(None) }
    }

    /// More is to come.
    pub(crate) fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        self.tell(false);
    }

    /// That much was done.
    pub(crate) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.tell(false);
    }

    /// That much has to be done again.
    pub(crate) fn back(&self, bytes: u64) {
        self.done.fetch_sub(bytes.min(self.done.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// Tells the last state, whatever the clock says.
    pub(crate) fn flush(&self) {
        self.tell(true);
    }

    fn tell(&self, now: bool) {
        let Some(step) = self.step else { return };
        let mut told = self.told.lock().expect("no holder panics");
        if now || told.is_none_or(|t| t.elapsed() >= PROGRESS_INTERVAL) {
            *told = Some(Instant::now());
            let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
            step.progress(done, (total > 0).then_some(total), ProgressUnit::Bytes);
        }
    }
}
