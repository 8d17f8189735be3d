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
