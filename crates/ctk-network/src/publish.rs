//! Ports of the host that lead to a container: which, and that nobody else takes them.
//!
//! The packet filter leads packets to the container; no socket of the host ever sees one. But a socket is bound to each
//! port all the same, so that a port in use is an error here, and later there where somebody else wants it.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt};

use crate::limits::{PORT_ATTEMPTS, PORTS_PUBLISHED};
use crate::{Error, Port, Protocol, PublishedPort};

/// Ports as they became, and what holds them.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) ports: Vec<PublishedPort>,
    pub(crate) reserved: Vec<OwnedFd>,
}

/// Takes the ports that were asked for. `addresses` are the container's on the network that publishes them.
pub(crate) fn publish(wanted: &[Port], addresses: &[IpAddr]) -> Result<Published, Error> {
    let mut published = Published::default();
    let mut seen = HashSet::new();
    for port in wanted.iter().filter(|port| seen.insert(format!("{port:?}"))) {
        let count = port.container.1 - port.container.0;
        for step in 0..=count {
            one(port, step, addresses, &mut published)?;
            if published.ports.len() > PORTS_PUBLISHED {
                return Err(Error::TooMany { what: "ports published by one container", limit: PORTS_PUBLISHED });
            }
        }
    }
    Ok(published)
}

fn one(port: &Port, step: u16, addresses: &[IpAddr], published: &mut Published) -> Result<(), Error> {
    let pairs = ends(port.host_address, addresses)?;
    let container_port = port.container.0 + step;
    let is_choice = port.host.is_none_or(|host| host.1 - host.0 != port.container.1 - port.container.0);
    let (first, last) = match (port.host, is_choice) {
        (Some((first, _)), false) => (first + step, first + step),
        (Some(host), true) => host,
        (None, _) => (0, 0),
    };
    let candidates: Vec<u16> = match port.host {
        None => vec![0; PORT_ATTEMPTS],
        Some(_) => (first..=last).collect(),
    };
    let attempts = candidates.len();
    for (attempt, candidate) in candidates.into_iter().enumerate() {
        match take(&pairs, candidate, port.protocol) {
            Ok((taken, sockets)) => {
                published.reserved.extend(sockets);
                published.ports.extend(pairs.iter().map(|(host_ip, container_ip)| PublishedPort {
                    host_ip: *host_ip,
                    host_port: taken,
                    container_ip: *container_ip,
                    container_port,
                    protocol: port.protocol,
                }));
                return Ok(());
            }
            Err(Error::PortUsed { .. }) if attempts > 1 && attempt + 1 < attempts => {}
            Err(Error::PortUsed { .. }) if attempts > 1 => break,
            Err(error) => return Err(error),
        }
    }
    let (first, last) = if first == 0 { (1, u16::MAX) } else { (first, last) };
    Err(Error::NoPort { first, last, protocol: port.protocol })
}

/// The host's address and the container's, for each family that both have.
fn ends(host: Option<IpAddr>, addresses: &[IpAddr]) -> Result<Vec<(IpAddr, IpAddr)>, Error> {
    let of = |is_ipv6: bool| addresses.iter().find(|address| address.is_ipv6() == is_ipv6).copied();
    if let Some(host) = host {
        let Some(container) = of(host.is_ipv6()) else {
            let family = if host.is_ipv6() { "IPv6" } else { "IPv4" };
            return Err(Error::Unpublishable {
                reason: format!("the host's address {host} is {family}, and the container's network has none"),
            });
        };
        return Ok(vec![(host, container)]);
    }
    let all = [(IpAddr::V4(Ipv4Addr::UNSPECIFIED), of(false)), (IpAddr::V6(Ipv6Addr::UNSPECIFIED), of(true))];
    Ok(all.into_iter().filter_map(|(host, container)| Some((host, container?))).collect())
}

/// Takes one port on all these addresses of the host; 0 is any.
fn take(pairs: &[(IpAddr, IpAddr)], port: u16, protocol: Protocol) -> Result<(u16, Vec<OwnedFd>), Error> {
    let (mut taken, mut sockets) = (port, Vec::new());
    for (address, _) in pairs {
        match reserve(*address, taken, protocol) {
            Ok((socket, bound)) => {
                taken = bound;
                sockets.push(socket);
            }
            Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if protocol == Protocol::Sctp => {
                let needs = "needs a kernel that speaks it, for the container, too (module `sctp`, CONFIG_IP_SCTP)";
                return Err(Error::Unsupported { what: "a published port of SCTP".into(), needs: needs.into() });
            }
            Err(Errno::ADDRINUSE) => return Err(Error::PortUsed { address: *address, port: taken, protocol }),
            Err(error) => {
                return Err(Error::TakePort { address: *address, port: taken, protocol, source: error.into() });
            }
        }
    }
    Ok((taken, sockets))
}

/// Takes the ports of a container that runs again. One that somebody else took meanwhile leads to the container all the
/// same.
pub(crate) fn hold(ports: &[PublishedPort]) -> Vec<OwnedFd> {
    let one = |port: &PublishedPort| reserve(port.host_ip, port.host_port, port.protocol).ok();
    ports.iter().filter_map(one).map(|(socket, _)| socket).collect()
}

/// Binds a socket that does not listen: what nothing leads to a container is refused, not left waiting.
fn reserve(address: IpAddr, port: u16, protocol: Protocol) -> Result<(OwnedFd, u16), Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(number))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // TCP: connections of the host's own past that wait for their last packets are no obstacle to us (the option), while
    // our socket stays one to everybody who listens, options or not (its absence afterwards).
    if protocol == Protocol::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &SocketAddr::new(address, port))?;
    if protocol == Protocol::Tcp {
        sockopt::set_socket_reuseaddr(&socket, false)?;
    }
    let bound = rustix::net::getsockname(&socket)?;
    let bound = SocketAddr::try_from(bound).map_err(|_| Errno::INVAL)?;
    Ok((socket, bound.port()))
}

/// The kernel's word for a port that another container of the host publishes.
pub(crate) fn is_taken(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EXIST.raw_os_error())
}
