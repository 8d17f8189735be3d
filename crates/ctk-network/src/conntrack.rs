//! Connections that the kernel remembers.
//!
//! A translation is looked up with the first packet of a connection and remembered with it. UDP has no connections that
//! end: who sends on and on from one port would go on reaching a container that is gone, or the host itself from before
//! the port was published. And whoever opens a TCP connection just as a container goes would knock at its old address
//! for two minutes. So such memories are removed when a port comes or goes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use ctk_netlink::limits::{NETLINK_BYTES, NETLINK_MESSAGES};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::PublishedPort;
use crate::nft::{DONE, ERROR, attribute, messages};

const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const REQUEST_ACK: u16 = 1 | 4;
const DUMP: u16 = 0x300;

/// Removes what is remembered of packets to these ports. Nobody waits for it to work: a kernel without it remembers
/// nothing, or forgets by itself after some minutes of silence.
pub(crate) fn forget(ports: &[PublishedPort]) {
    for is_ipv6 in [false, true] {
        let ports: Vec<&PublishedPort> = ports.iter().filter(|port| port.host_ip.is_ipv6() == is_ipv6).collect();
        if !ports.is_empty() {
            let _ = forget_of(&ports, if is_ipv6 { 10 } else { 2 });
        }
    }
}

fn forget_of(ports: &[&PublishedPort], family: u8) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&message(GET, REQUEST_ACK | DUMP, family, &[]), 0)?;
    let mut doomed = Vec::new();
    read(&socket, |payload| {
        let tuple = |kind| attribute(payload, kind).and_then(Tuple::parse);
        if let (Some(original), Some(reply)) = (tuple(TUPLE_ORIGINAL), tuple(TUPLE_REPLY))
            && ports.iter().any(|port| is_of(port, &original, &reply))
        {
            doomed.extend(attribute(payload, TUPLE_ORIGINAL).map(<[u8]>::to_vec));
        }
    })?;
    for tuple in doomed {
        let mut attributes = Vec::new();
        crate::nft::nest(&mut attributes, TUPLE_ORIGINAL, |to| to.extend_from_slice(&tuple));
        socket.send(&message(DELETE, REQUEST_ACK, family, &attributes), 0)?;
        // It may have ended by itself meanwhile.
        let _ = read(&socket, |_| {});
    }
    Ok(())
}

/// Whether it goes to the container, or went to the host by the port that is the container's now.
fn is_of(port: &PublishedPort, original: &Tuple, reply: &Tuple) -> bool {
    if original.protocol != port.protocol.number() {
        return false;
    }
    if (reply.source, reply.source_port) == (port.container_ip, port.container_port) {
        return true;
    }
    let is_plain = reply.source == original.destination && reply.destination == original.source;
    let is_there = port.host_ip.is_unspecified() || port.host_ip == original.destination;
    // Only an address of this host can be bound.
    is_plain
        && is_there
        && original.destination_port == port.host_port
        && UdpSocket::bind((original.destination, 0)).is_ok()
}

struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
}

impl Tuple {
    fn parse(bytes: &[u8]) -> Option<Tuple> {
        let (ip, protocol) = (attribute(bytes, 1)?, attribute(bytes, 2)?);
        let address = |ipv4, ipv6| match (attribute(ip, ipv4), attribute(ip, ipv6)) {
            (Some(bytes), _) => Some(IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?))),
            (_, bytes) => Some(IpAddr::V6(Ipv6Addr::from(*bytes?.first_chunk::<16>()?))),
        };
        let port = |kind| Some(u16::from_be_bytes(*attribute(protocol, kind)?.first_chunk::<2>()?));
        Some(Tuple {
            source: address(1, 3)?,
            destination: address(2, 4)?,
            protocol: *attribute(protocol, 1)?.first()?,
            source_port: port(2)?,
            destination_port: port(3)?,
        })
    }
}

fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&((20 + attributes.len()) as u32).to_ne_bytes());
    bytes.extend_from_slice(&(SUBSYSTEM | kind).to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, family, 0, 0, 0]);
    bytes.extend_from_slice(attributes);
    bytes
}

fn read(socket: &Socket, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    for _ in 0..NETLINK_MESSAGES {
        let mut answer = Vec::with_capacity(NETLINK_BYTES);
        socket.recv(&mut answer, 0)?;
        for (kind, _, payload) in messages(&answer) {
            match kind {
                DONE => return Ok(()),
                ERROR => {
                    let code = payload.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                    return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                kind if kind == SUBSYSTEM | NEW => each(payload.get(4..).unwrap_or_default()),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    fn tuple(source: &str, destination: &str) -> Tuple {
        let (source, destination): (std::net::SocketAddr, std::net::SocketAddr) =
            (source.parse().unwrap(), destination.parse().unwrap());
        Tuple {
            source: source.ip(),
            destination: destination.ip(),
            protocol: 17,
            source_port: source.port(),
            destination_port: destination.port(),
        }
    }

    #[test]
    fn only_what_concerns_the_port_is_forgotten() {
        let port = PublishedPort {
            host_ip: "0.0.0.0".parse().unwrap(),
            host_port: 53,
            container_ip: "10.88.0.2".parse().unwrap(),
            container_port: 5353,
            protocol: Protocol::Udp,
        };
        let check = |original: (&str, &str), reply: (&str, &str)| {
            is_of(&port, &tuple(original.0, original.1), &tuple(reply.0, reply.1))
        };
        // Translated to the container.
        assert!(check(("192.0.2.7:999", "192.0.2.1:53"), ("10.88.0.2:5353", "192.0.2.7:999")));
        // To the host itself, from before.
        assert!(check(("127.0.0.1:999", "127.0.0.1:53"), ("127.0.0.1:53", "127.0.0.1:999")));
        // Through the host, or from it, to a name server elsewhere.
        assert!(!check(("10.88.0.3:999", "192.0.2.53:53"), ("192.0.2.53:53", "192.0.2.1:999")));
        assert!(!check(("192.0.2.1:999", "192.0.2.53:53"), ("192.0.2.53:53", "192.0.2.1:999")));
        // Another container.
        assert!(!check(("192.0.2.7:999", "192.0.2.1:54"), ("10.88.0.3:5353", "192.0.2.7:999")));
    }

    #[test]
    fn a_tuple_that_is_cut_off_is_none() {
        assert!(crate::nft::attributes(&[9, 0, 1, 0, 1]).next().is_none());
        assert!(Tuple::parse(&[]).is_none());
    }
}
