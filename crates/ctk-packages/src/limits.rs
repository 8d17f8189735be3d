//! Every bound of this crate: name, unit, reason.

use std::time::Duration;

/// Connections used at the same time: mirrors throttle above about ten per client.
pub const CONNECTIONS: usize = 8;
/// Tries per file, the first included: with the waits below a mirror may be away for about six seconds.
pub const ATTEMPTS: u32 = 5;
/// Wait before the second try; doubles with each further one.
pub const RETRY_FIRST: Duration = Duration::from_millis(400);
/// Longest wait that a `Retry-After` may ask for: beyond it, failing is more useful than waiting.
pub const RETRY_MOST: Duration = Duration::from_secs(20);
/// `InRelease`, `Release`, `Release.gpg`: Debian's is 200 KiB, Ubuntu's 270 KiB.
pub const RELEASE_BYTES: u64 = 16 << 20;
/// One decompressed `Packages` index: Debian main has 50 MiB, sid 70 MiB.
pub const INDEX_BYTES: u64 = 1 << 30;
/// `control.tar`, unpacked: the largest in Debian (linux-image lists) is under 10 MiB.
pub const CONTROL_BYTES: u64 = 64 << 20;
/// One file inside a package: no distribution ships a larger one; guards against decompression bombs.
pub const FILE_BYTES: u64 = 16 << 30;
/// One configuration file of the host's package manager.
pub const CONFIG_BYTES: u64 = 4 << 20;
/// Lines of a failed script's output that an error repeats.
pub const SCRIPT_OUTPUT_LINES: usize = 30;
/// Packages in one resolution: all of Debian main is 64,000.
pub const SELECTED_PACKAGES: usize = 100_000;
