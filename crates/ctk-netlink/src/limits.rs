//! Limits of this crate: name, unit, reason.

use std::time::Duration;

/// Bytes of one message of the kernel. `NLMSG_GOODSIZE`: it makes none larger.
pub const NETLINK_BYTES: usize = 32 * 1024;

/// Messages in one answer of the kernel: devices or routes of a large host.
pub const NETLINK_MESSAGES: usize = 1 << 20;

/// How long a device that is up may take until packets pass it.
pub const CARRIER_WAIT: Duration = Duration::from_secs(1);
