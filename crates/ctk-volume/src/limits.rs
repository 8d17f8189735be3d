//! Limits of this crate: name, unit, reason.

use std::time::Duration;

/// Bytes of a volume's description: one with thousands of labels has a tenth of this.
pub const DESCRIPTION_BYTES: u64 = 4 * 1024 * 1024;

/// Volumes of a store that are looked at.
pub const VOLUMES: usize = 100_000;

/// Characters of a name: it is a file name.
pub const NAME_CHARACTERS: usize = 128;

/// How long is waited for who makes a container with a volume, or fills one: filling a large one takes a while.
pub const LOCK_WAIT: Duration = Duration::from_secs(60);
