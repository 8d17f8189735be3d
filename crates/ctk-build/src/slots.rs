//! How many operations run at once, over all builds that share it.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use ctk_plan::Cancel;

/// How often who waits looks whether somebody said stop.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Room for so many operations at once.
#[derive(Debug)]
pub struct Slots {
    count: usize,
    pub(crate) free: Mutex<usize>,
    changed: Condvar,
}

impl Slots {
    /// Room for `count` operations; at least for one.
    pub fn new(count: usize) -> Slots {
        let count = count.max(1);
        Slots { count, free: Mutex::new(count), changed: Condvar::new() }
    }

    /// For how many there is room when none runs.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Waits for room; none when somebody says stop.
    pub(crate) fn take(&self, stop: &Cancel) -> Option<Slot<'_>> {
        let mut free = self.free.lock().expect("no panic while locked");
        loop {
            if stop.is_cancelled() {
                return None;
            }
            if *free > 0 {
                *free -= 1;
                return Some(Slot(self));
            }
            free = self.changed.wait_timeout(free, CANCEL_POLL).expect("no panic while locked").0;
        }
    }
}

/// Room for one operation, until dropped.
pub(crate) struct Slot<'a>(&'a Slots);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Ok(mut free) = self.0.free.lock() {
            *free += 1;
        }
        self.0.changed.notify_one();
    }
}
