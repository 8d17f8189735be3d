//! Limits of runs: name, unit, reason.

use std::time::Duration;

/// Steps that run at once if nothing else is said. Cloud Build has no end; a machine has one, and steps that wait for
/// others of the same moment are few.
pub const STEPS_AT_ONCE: usize = 64;

/// Bytes of a step's log. What comes later is shown, and not kept.
pub const LOG_BYTES: u64 = 1 << 30;

/// Bytes of `$BUILDER_OUTPUT/output` that are kept, as in Cloud Build.
pub const OUTPUT_BYTES: u64 = 50 << 10;

/// Bytes of a secret, as in Cloud Build.
pub const SECRET_BYTES: usize = 64 << 10;

/// Shorter secrets are not taken out of what is printed: every second line has an `a`.
pub const REDACTED_BYTES_MIN: usize = 3;

/// Between the signal that asks a step to end and the one that ends it.
pub const GRACE: Duration = Duration::from_secs(10);

/// Bytes of a `.gitignore`.
pub const IGNORE_BYTES: u64 = 1 << 20;

/// Levels of folders in a workspace; walks are recursive.
pub const DEPTH_LEVELS: usize = 256;

/// Files that a pattern of artifacts may name.
pub const ARTIFACT_FILES: usize = 100_000;

/// Bytes of a package that is uploaded; it is held in memory.
pub const PACKAGE_BYTES: u64 = 1 << 30;

/// How long a webhook may take to answer.
pub const WEBHOOK: Duration = Duration::from_secs(10);

/// Bytes of a JUnit report.
pub const JUNIT_BYTES: u64 = 64 << 20;

/// Tries of an upload or a push, besides those of the client below.
pub const UPLOAD_TRIES: u32 = 3;

/// The longest pause between two tries.
pub const PAUSE_MAX: Duration = Duration::from_secs(300);
