//! Limits of this crate: name, unit, reason.

use std::time::Duration;

/// How long a bridge stays after its last container: who starts one after the other does not make it each time.
pub const BRIDGE_STAYS: Duration = Duration::from_secs(1);

/// How long the kernel is given to remove a container's devices with its namespace, before they are removed by name.
pub const PAIR_GOES: Duration = Duration::from_millis(200);

/// Bytes of a network's name: it is a folder's, and part of one line of text.
pub const NETWORK_NAME_BYTES: usize = 128;

/// Networks in one folder: the private ranges that we choose from have 256 of them, and more are given by hand.
pub const NETWORKS: usize = 4096;

/// Networks one container may join: each is a device.
pub const JOINS: usize = 64;

/// Aliases of one container on one network: they travel in one answer of the name server.
pub const ALIASES: usize = 256;

/// Ports one option, and one container, may publish: each holds a socket.
pub const PORTS_PUBLISHED: usize = 4096;

/// Tries at a free port of the host, when any would do.
pub const PORT_ATTEMPTS: usize = 64;

/// Bytes of a file that describes a network or a member of it: real ones are below a few hundred kilobytes even with
/// all ports that may be published.
pub const STATE_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes of the host's `resolv.conf`: real ones are below one kilobyte.
pub const RESOLV_CONF_BYTES: u64 = 64 * 1024;

/// Bytes of one question or answer over UDP; EDNS allows more, fragments do not arrive (DNS flag day 2020 says 1232).
pub const DNS_UDP_BYTES: usize = 4096;

/// Questions of one container that wait for a name server of the host at a time; more are told to come again.
pub const DNS_PENDING: usize = 256;

/// Connections of one container to its name server.
pub const DNS_CONNECTIONS: usize = 32;

/// How long a name server of the host may take before the next is asked.
pub const DNS_ATTEMPT: Duration = Duration::from_secs(3);

/// Name servers that are asked, one after the other: as the C library's `MAXNS`.
pub const DNS_SERVERS: usize = 3;

/// How long a connection to the name server may be silent.
pub const DNS_IDLE: Duration = Duration::from_secs(10);

/// Seconds for which an answer about a container may be kept. Addresses change hands when containers are made again.
pub const DNS_TTL_SECONDS: u32 = 5;

/// How long pasta or slirp4netns may take to be ready.
pub const HELPER_START: Duration = Duration::from_secs(10);

/// How long one of them may take to be gone after it was killed: so long its ports are taken.
pub const HELPER_END: Duration = Duration::from_secs(5);

/// Connections of one container that are copied from `::1`, each a thread; more are closed at once.
pub const LOOPBACK_CONNECTIONS: usize = 256;

/// Clients over UDP of one container that are copied from `::1`; of more, the one that was silent longest is forgotten.
pub const LOOPBACK_FLOWS: usize = 256;

/// How long a client over UDP at `::1` may be silent before it is forgotten: as the kernel's own, of one that was
/// answered (`nf_conntrack_udp_timeout_stream`).
pub const LOOPBACK_FLOW_IDLE: Duration = Duration::from_secs(120);

/// How long a container may take to accept a connection from `::1`.
pub const LOOPBACK_CONNECT: Duration = Duration::from_secs(10);

/// Bytes that wait in one direction of a connection from `::1`, and of one datagram: no datagram is larger.
pub const LOOPBACK_BYTES: usize = 64 * 1024;
