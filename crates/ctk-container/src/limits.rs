//! Limits of this crate: name, unit, reason.

use std::time::Duration;

/// Bytes of one line of output before it is passed on in pieces: a program without newlines must not fill memory.
pub const LINE_BYTES: usize = 64 * 1024;

/// Bytes of the image's passwd and group files that are read: real ones are a few kilobytes.
pub const ACCOUNT_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Members of one private network: addresses of a /24 without network, gateway and broadcast.
pub const SWITCH_MEMBERS: usize = 253;

/// How long output of a finished container may still come from pipes held elsewhere, before we stop reading.
pub const DRAIN_SECONDS: Duration = Duration::from_secs(2);

/// How often a wait looks at its cancel token and clock, in milliseconds.
pub const POLL_MS: i64 = 50;

/// Bytes moved at once between terminals: more than a screenful.
pub const RELAY_BYTES: usize = 16 * 1024;

/// Largest specification of devices (CDI) that is read, in bytes: those of large vendors have a hundredth of it.
pub const CDI_FILE_BYTES: u64 = 4 << 20;
