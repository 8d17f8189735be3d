//! What a network is, what a container asks of it, and what it gets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What a network is to be. Nothing but the name has to be said.
#[derive(Clone, Debug, Default)]
pub struct NetworkOptions {
    /// Its name: letters, digits, `_`, `.`, `-`, not first; [`NETWORK_NAME_BYTES`](crate::limits::NETWORK_NAME_BYTES).
    pub name: String,
    /// Its addresses, at most one subnet of each family; empty: a free one of the private ranges.
    pub subnets: Vec<IpNet>,
    /// The bridge's own addresses, each in one of the subnets; the first address of a subnet where none is given.
    pub gateways: Vec<IpAddr>,
    /// Parts of the subnets that containers without an address of their own get theirs from.
    pub ranges: Vec<AddressRange>,
    /// An IPv6 subnet, too, where none is given: of a unique local prefix that is chosen by chance.
    pub ipv6: bool,
    /// No way out, and none in.
    pub internal: bool,
    /// No answers to names: the containers' resolvers are the host's.
    pub disable_dns: bool,
    /// The bridge's name; chosen if none is given.
    pub bridge: Option<String>,
    /// The largest packet, bytes; 1500 if none is given.
    pub mtu: Option<u32>,
    /// What the user wants to remember.
    pub labels: BTreeMap<String, String>,
    /// Not an error if a network of this name is there: it is given.
    pub ignore_existing: bool,
}

/// Addresses from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRange {
    /// The lowest.
    pub first: IpAddr,
    /// The highest.
    pub last: IpAddr,
}

/// A network as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// 32 random bytes in hexadecimal: two networks of one name, one after the other, are two.
    pub id: String,
    /// `bridge`.
    pub driver: String,
    /// The bridge's name on the host.
    #[serde(rename = "network_interface")]
    pub bridge: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Its subnets, IPv4 first.
    pub subnets: Vec<Subnet>,
    /// No way out, and none in.
    pub internal: bool,
    /// Names are answered.
    pub dns_enabled: bool,
    /// The largest packet, bytes.
    pub mtu: u32,
    /// What the user wants to remember.
    pub labels: BTreeMap<String, String>,
}

/// Addresses of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// All of them.
    pub subnet: IpNet,
    /// The bridge's.
    pub gateway: IpAddr,
    /// Where containers' addresses are chosen from, if not everywhere.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub range: Option<AddressRange>,
}

/// The container that joins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its id: letters and digits.
    pub id: String,
    /// Its name, by which others find it.
    pub name: String,
    /// Its host name: a line in its own hosts file.
    pub hostname: String,
}

/// One network that a container joins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The network's name.
    pub network: String,
    /// The device's name in the container; the first free of `eth0`, `eth1` … if none is given.
    pub interface: Option<String>,
    /// Its IPv4 address; chosen if none is given.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address; chosen if none is given.
    pub ipv6: Option<Ipv6Addr>,
    /// Its hardware address; made from the IP address if none is given.
    pub mac: Option<MacAddress>,
    /// More names by which others on this network find it.
    pub aliases: Vec<String>,
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

/// What travels through a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Ports of the host that lead to ports of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The host's address; every address of the host if none is given.
    pub host_address: Option<IpAddr>,
    /// The host's ports: as many as the container's, or more, of which a free one is taken for one of the container;
    /// none: any free one.
    pub host: Option<(u16, u16)>,
    /// The container's ports, first and last.
    pub container: (u16, u16),
    /// Of this protocol.
    pub protocol: Protocol,
}

/// One port as it became.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The host's address; `0.0.0.0` or `::` for all of a family.
    pub host_ip: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// Where it leads.
    pub container_ip: IpAddr,
    /// The container's port.
    pub container_port: u16,
    /// Of this protocol.
    pub protocol: Protocol,
}

/// How a container finds names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsOptions {
    /// Name servers instead of the host's.
    pub servers: Vec<IpAddr>,
    /// Search domains instead of the host's; a single `.`: none.
    pub search: Vec<String>,
    /// Options of `resolv.conf` instead of the host's.
    pub options: Vec<String>,
    /// Lines of the hosts file; a name for [`HostAddress::Gateway`] is the host itself.
    pub hosts: Vec<(String, HostAddress)>,
    /// The host's `resolv.conf`, from which what is not given above comes; nothing does if it is empty.
    pub host_resolv_conf: PathBuf,
}

/// What an added host leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostAddress {
    /// An address.
    Address(IpAddr),
    /// The host, as the container's first network reaches it (`host-gateway`).
    Gateway,
}

/// What a container got.
#[derive(Debug)]
pub struct Attachment {
    /// A device for each network, in the order of the joins.
    pub interfaces: Vec<Interface>,
    /// Its published ports.
    pub ports: Vec<PublishedPort>,
    /// The text of its `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// The text of its `/etc/hosts`.
    pub hosts: String,
    /// Whether a [`NameServer`](crate::NameServer) has to run for it: `resolv_conf` names it.
    pub needs_name_server: bool,
    /// Holds the published ports against other programs of the host; to be kept as long as the container lives.
    pub reserved: Vec<OwnedFd>,
}

/// A container's device on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The network.
    pub network: String,
    /// The device's name in the container.
    pub name: String,
    /// Its address and the subnet's length.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub addresses: Vec<IpNet>,
    /// What its default routes lead to; empty if another network's device has them, or the network has no way out.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub gateways: Vec<IpAddr>,
    /// The host's own addresses on this network.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub host: Vec<IpAddr>,
    /// Its hardware address.
    pub mac: MacAddress,
    /// More names by which others on this network find it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub aliases: Vec<String>,
}

/// A container on a network, as `inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its device.
    pub interface: Interface,
    /// The ports it publishes through this network.
    pub ports: Vec<PublishedPort>,
}
