//! Networks of containers: bridges, addresses, published ports, names. No daemon: files, the kernel, and a name server
//! in each container's own monitor.
//!
//! ```text
//!   host                                                     container
//!   eth0 ── nat ── ctk0 10.88.0.1/16 ── ctk5d1c…  ═══ veth ═══ eth0 10.88.0.2/16, default route 10.88.0.1
//!            │                                               127.0.0.11: names (NameServer)
//!            └ table inet ctk: masquerade, published ports, what may pass between whom
//! ```
//! A monitor starts a [`Session`] for its container and ends it. Underneath, [`Networks::attach`] joins a network namespace to networks, [`Networks::detach`] undoes it, by whomever and as often
//! as one likes. Both are called in the host's network namespace: that of the calling thread. Who is on a network is
//! what its folder says *and* the kernel shows: a member is there as long as the host's end of its pair of devices is,
//! and that goes with the container's namespace. So nothing has to be cleaned by those who die: the next who comes
//! removes what they left, and the last who leaves takes bridge, rules and kernel settings along, a second later.

mod attach;
mod conntrack;
mod error;
mod files;
mod host;
mod leave;
pub mod limits;
mod loopback;
mod member;
mod names;
mod namespace;
mod networks;
mod nft;
mod options;
mod publish;
mod resolv;
mod rootless;
mod rules;
mod server;
mod session;
mod subnets;
mod text;

pub use attach::bring_loopback_up;
pub use error::Error;
pub use host::may_make_bridges;
pub use leave::Leaving;
pub use networks::{DEFAULT_NETWORK, Networks};
pub use options::{
    AddressRange, Attachment, DnsOptions, Endpoint, HostAddress, Interface, Join, MacAddress, Member, Network,
    NetworkOptions, Port, Protocol, PublishedPort, Subnet,
};
pub use resolv::host_resolv_conf;
pub use rootless::{Relay, RelayOptions};
pub use server::NameServer;
pub use session::{Joined, Place, Request, Session};
