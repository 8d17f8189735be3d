//! How much the client takes and how long it waits.

use std::time::Duration;

/// How often a wait looks for a cancellation.
pub const CANCEL_POLL: Duration = Duration::from_millis(50);
/// Blobs on their way at once, by default: hides latency, stays polite to registries and their rate limits.
pub const PARALLEL_BLOBS: usize = 6;
/// Redirects followed for one request; real ones take one or two.
pub const REDIRECTS_LIMIT: usize = 5;
/// Longest wait that a `Retry-After` is obeyed for; beyond it, failing now is kinder than sitting still.
pub const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(120);
/// Bytes gathered before they are handed to the disk, and read from it at a time.
pub const PIECE_BYTES: usize = 512 * 1024;
/// A credential helper that has not answered by then is killed: some wait for a window nobody sees.
pub const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer of a credential helper, and largest auth file, in bytes.
pub const CREDENTIALS_LIMIT_BYTES: u64 = 1024 * 1024;
/// Repositories remembered of each blob.
pub const ORIGINS_MAX: usize = 4;
/// Manifests in one tree, over all nestings of indexes: real multi-platform images have some dozens.
pub const MANIFESTS_LIMIT: usize = 1024;
/// A token is renewed this long before its end, so that it does not end on the way.
pub const TOKEN_MARGIN: Duration = Duration::from_secs(10);
/// Least time between two progress reports of one step.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(80);
/// Tries to reach a host that has not answered yet: nobody listening is mostly a wrong name or port, and waiting long
/// for it helps nobody.
pub const REACH_ATTEMPTS: u32 = 3;
/// Tries at looking what a push target shows: a plan is read by somebody who waits, and not knowing is no failure yet.
pub const OBSERVE_ATTEMPTS: u32 = 3;
/// Warnings of registries that are kept to be told: more would hide the first.
pub const WARNINGS_LIMIT: usize = 64;
/// How deep referrers of referrers are followed, in levels: a signature of an attestation of an image is two.
pub const REFERRERS_DEPTH: usize = 8;
/// How often the list of referrers under a tag is written anew when somebody else changed it meanwhile.
pub const REFERRERS_TAG_TRIES: usize = 16;
/// How long after writing such a list is looked at again: longer than a manifest takes to be put.
pub const REFERRERS_TAG_SETTLE: Duration = Duration::from_millis(30);
/// Most files of an artifact that are pushed or fetched.
pub const ARTIFACT_FILES_LIMIT: usize = 10_000;
/// A blob larger than this is fetched by several requests side by side, in bytes: a single connection seldom fills a
/// line, and what is smaller is there before another one has begun.
pub const RANGES_FROM_BYTES: u64 = 32 * 1024 * 1024;
/// How much each of these requests asks for, in bytes. They are held in memory until their turn.
pub const RANGE_BYTES: u64 = 8 * 1024 * 1024;
/// Most of these requests at once for one blob.
pub const RANGES_AT_ONCE: usize = 4;
/// Blobs of which a client remembers where it saw them: some 20 MB of memory at most.
pub const SEEN_BLOBS_LIMIT: usize = 100_000;
