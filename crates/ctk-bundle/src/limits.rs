//! Limits of this crate: name, unit, reason.

use std::time::Duration;

/// Bytes of a `config.json`: a container of thousands of mounts has a tenth of this.
pub const CONFIG_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of what is written down about one container.
pub const STATE_BYTES: u64 = 16 * 1024 * 1024;

/// Characters of a container's name: a file name with room for what is put around it.
pub const ID_CHARACTERS: usize = 200;

/// How long removing a cgroup is tried: the kernel lets go of a killed member within milliseconds.
pub const CGROUP_REMOVAL: Duration = Duration::from_secs(5);

/// How long a freezer may take.
pub const FREEZE: Duration = Duration::from_secs(10);

/// How long `delete --force` waits for the end of a killed process: it may be in the kernel's hands for a while.
pub const KILL: Duration = Duration::from_secs(30);

/// How many device files, directories and links a `tmpcopyup` copies: a directory of an image, not a disk.
pub const COPY_UP_ENTRIES: u32 = 100_000;

/// How deep a `tmpcopyup` goes.
pub const COPY_UP_DEPTH: u32 = 64;

/// Containers in a state directory that are looked at.
pub const CONTAINERS: usize = 100_000;

/// Bytes of a message of D-Bus: systemd's answers have some hundred.
pub const BUS_MESSAGE_BYTES: usize = 1024 * 1024;

/// How long an answer of systemd, or the end of one of its jobs, is waited for: as runc does.
pub const BUS_WAIT: Duration = Duration::from_secs(30);

/// Bytes of a message of CRIU's: its notifications have some ten.
pub const CRIU_MESSAGE_BYTES: usize = 40 * 1024;

/// Bytes of CRIU's log that are looked through for its errors.
pub const CRIU_LOG_BYTES: u64 = 16 * 1024 * 1024;
