//! The ends of what a test may do.

use std::time::Duration;

/// A command that says no `timeout` is killed after this long: longer than a check of an image takes, shorter than a
/// person waits without a word.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest `timeout` and `within` that a test may say.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// A `health` that says no `within` is waited for this long.
pub const HEALTHY_WITHIN: Duration = Duration::from_secs(30);

/// An `http` that says no `within` has this long for its one answer, and a `health` without `timeout` for each.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two tries of something that is not there yet, or not healthy, unless `every=` says another time: short beside any start, long beside a connect.
pub const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Between two looks at whether somebody said stop.
pub const CANCEL_POLL: Duration = Duration::from_millis(20);

/// Bytes kept of each output stream of a command; the rest is counted and dropped. A check of more belongs in a file.
pub const COMMAND_OUTPUT_BYTES: usize = 4 << 20;

/// Bytes read of an HTTP body.
pub const HTTP_BODY_BYTES: usize = 4 << 20;

/// Bytes read of a file whose content is checked.
pub const FILE_CONTENT_BYTES: u64 = 16 << 20;

/// Bytes of a package database that are read: Debian's whole archive would be 80 MB.
pub const PACKAGE_STATUS_BYTES: u64 = 128 << 20;

/// Lines kept of what a started container writes, for the report of a failure.
pub const TAIL_LINES: usize = 40;

/// Characters of a seen text that a report shows; the middle of a longer one is left out.
pub const SHOWN_CHARACTERS: usize = 2000;

/// Bytes of a compiled regular expression; the `regex` crate's own default is 10 MiB.
pub const REGEX_BYTES: usize = 4 << 20;
