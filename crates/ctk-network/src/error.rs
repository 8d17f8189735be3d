//! What can go wrong with networks.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::Protocol;

/// Why a network or a container's place on it could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody's text is not what it should be.
    #[error("invalid {what} `{text}`; expected {expected}")]
    Invalid {
        /// What it should be.
        what: &'static str,
        /// As it was given.
        text: String,
        /// What is right.
        expected: &'static str,
    },
    /// Something is named that is not there.
    #[error("no network `{name}`{near}")]
    UnknownNetwork {
        /// As it was given.
        name: String,
        /// `; did you mean …?`, if something like it is there.
        near: String,
    },
    /// A network of this name is there.
    #[error("a network `{name}` exists already")]
    NetworkExists {
        /// The name.
        name: String,
    },
    /// The network has members.
    #[error("the network `{name}` is used by {}", .members.join(", "))]
    NetworkInUse {
        /// The network.
        name: String,
        /// Names of its members.
        members: Vec<String>,
    },
    /// A subnet has addresses that are another's.
    #[error("the subnet {subnet} overlaps {other} of {owner}")]
    Overlap {
        /// What was asked for.
        subnet: IpNet,
        /// What is there.
        other: IpNet,
        /// Whose it is.
        owner: String,
    },
    /// No private range is free.
    #[error("no free {family} subnet is left in the ranges that networks are chosen from")]
    NoSubnet {
        /// IPv4 or IPv6.
        family: &'static str,
    },
    /// An address lies outside.
    #[error("the {what} {address} is not in {}", list(.subnets))]
    OutOfRange {
        /// Which address.
        what: &'static str,
        /// The address.
        address: IpAddr,
        /// Where it should be.
        subnets: Vec<IpNet>,
    },
    /// An address has an owner.
    #[error("the address {address} is already used on the network `{network}` by {owner}")]
    AddressUsed {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// Who has it.
        owner: String,
    },
    /// No address is free.
    #[error("the network `{network}` has no free address left in {subnet}")]
    Exhausted {
        /// The network.
        network: String,
        /// Its subnet.
        subnet: IpNet,
    },
    /// A container cannot be on a network twice.
    #[error("the container `{container}` is already on the network `{network}`")]
    AlreadyJoined {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// A container is not where it should leave.
    #[error("the container `{container}` is not on the network `{network}`")]
    NotJoined {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// A device's name is taken.
    #[error("there is already a device `{name}` {place}")]
    DeviceExists {
        /// The name.
        name: String,
        /// On the host or in the container.
        place: &'static str,
    },
    /// A port of the host is taken.
    #[error("the host's {protocol} port {port} on {address} is already in use")]
    PortUsed {
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
        /// The protocol.
        protocol: Protocol,
    },
    /// No port of the range is free.
    #[error("no {protocol} port of the host is free from {first} to {last}")]
    NoPort {
        /// The first that was tried.
        first: u16,
        /// The last that was tried.
        last: u16,
        /// The protocol.
        protocol: Protocol,
    },
    /// The host has no such address, or may not use the port.
    #[error("failed to take the host's {protocol} port {port} on {address}")]
    TakePort {
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
        /// The protocol.
        protocol: Protocol,
        /// Why.
        source: io::Error,
    },
    /// Ports are to be published, but nothing leads to the container.
    #[error("cannot publish ports: {reason}")]
    Unpublishable {
        /// Why.
        reason: String,
    },
    /// Something needs another user, kernel or program.
    #[error("{what} {needs}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What it needs.
        needs: String,
    },
    /// There are too many of something.
    #[error("{what}: more than the limit of {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// What is written down could not be read or written.
    #[error("failed to {attempt} `{path}`")]
    State {
        /// What we tried.
        attempt: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("failed to {attempt}")]
    Kernel {
        /// What we tried.
        attempt: String,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::UnknownNetwork { .. } => "`ctk network ls` lists them; `ctk network create` makes one".into(),
            Error::NetworkExists { .. } => "choose another name, or pass --ignore".into(),
            Error::NetworkInUse { .. } => "stop these containers, or disconnect them, first".into(),
            Error::Overlap { .. } => "choose another --subnet, or none: a free one is found".into(),
            Error::NoSubnet { .. } => "remove networks (`ctk network prune`), or choose a --subnet".into(),
            Error::AddressUsed { .. } => "choose another address, or none: a free one is found".into(),
            Error::Exhausted { .. } => "stop containers, or make a network with a larger --subnet".into(),
            Error::PortUsed { .. } => {
                "stop what uses it, choose another port, or give the container's port only: a free one is found".into()
            }
            Error::TakePort { source, .. } if source.kind() == io::ErrorKind::AddrNotAvailable => {
                "the host has no such address".into()
            }
            Error::TakePort { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "ports below net.ipv4.ip_unprivileged_port_start are root's".into()
            }
            Error::Kernel { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "networks need root; an ordinary user's containers go through pasta".into()
            }
            _ => return None,
        })
    }
}

fn list(subnets: &[IpNet]) -> String {
    let subnets: Vec<String> = subnets.iter().map(IpNet::to_string).collect();
    subnets.join(" or ")
}
