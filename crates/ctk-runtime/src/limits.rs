//! Limits of this crate: name, unit, reason.

use std::time::Duration;

/// How long removing a cgroup is tried: the kernel lets go of a killed member within milliseconds.
pub const CGROUP_REMOVAL: Duration = Duration::from_secs(2);

/// Microseconds over which processor time is counted, the kernel's own default.
pub const CPU_PERIOD_MICROS: u64 = 100_000;

/// How often a wait looks at its cancel token, in milliseconds.
pub const POLL_MS: i64 = 50;

/// Bytes of a string that `fsconfig` takes; longer paths go by file descriptor.
pub const FSCONFIG_STRING_BYTES: usize = 255;

/// Containers looked at in one cleanup: a state directory with more is not ours.
pub const STALE_CONTAINERS: usize = 10_000;

/// How often locking a new container's directory is tried: each failure is another process cleaning up at that moment.
pub const LOCK_ATTEMPTS: usize = 20;

/// Bytes of what is written down about one container: a few paths.
pub const STATE_BYTES: u64 = 64 * 1024;

/// Bytes of `/etc/subuid` and `/etc/subgid` that are read: a line a user.
pub const SUBORDINATE_BYTES: u64 = 4 * 1024 * 1024;

/// Ranges of subordinate ids that one user may have; the kernel takes 340, one of which is his own id.
pub const SUBORDINATE_RANGES: usize = 339;

/// Bytes of what `newuidmap` says when it refuses: a line.
pub const HELPER_BYTES: u64 = 4096;
