//! `linux.netDevices`: network devices of the runtime's network namespace that go into the container's, with their
//! addresses (`config-linux.md#network-devices`). By rtnetlink: one blocking socket for each namespace.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::Error;
use crate::limits::{NETLINK_BYTES, NETLINK_MESSAGES};

const NEW_NETWORK: u32 = libc::CLONE_NEWNET as u32;

/// Moves devices into the network namespace of a process; what the list has is the name here and the name there.
pub(crate) fn move_all(devices: &[(String, String)], pid: i32) -> Result<(), Error> {
    if devices.is_empty() {
        return Ok(());
    }
    let failed = |source| Error::Step { step: "talk to the network".into(), field: "linux.netDevices".into(), source };
    let open = |path: &str| {
        let path = std::ffi::CString::new(path).unwrap_or_default();
        crate::launch::namespace(&path, "linux.netDevices")
    };
    let (own, theirs) = (open("/proc/self/ns/net")?, open(&format!("/proc/{pid}/ns/net"))?);
    let mut here = Netlink::open().map_err(failed)?;
    ctk_sys::set_controlling_namespace(theirs.as_fd(), NEW_NETWORK).map_err(|e| failed(e.into()))?;
    let there = Netlink::open();
    ctk_sys::set_controlling_namespace(own.as_fd(), NEW_NETWORK).map_err(|e| failed(e.into()))?;
    let mut there = there.map_err(failed)?;
    devices.iter().try_for_each(|(name, new)| {
        move_one(&mut here, &mut there, &theirs, name, new).map_err(|source| Error::Step {
            step: format!("move the network device `{name}` into the container as `{new}`"),
            field: format!("linux.netDevices.{name}"),
            source,
        })
    })
}

fn move_one(here: &mut Netlink, there: &mut Netlink, theirs: &OwnedFd, name: &str, new: &str) -> io::Result<()> {
    let links = here.links()?;
    let link = links.iter().find(|link| name_of(link) == Some(name));
    let index = link.ok_or(io::Error::from_raw_os_error(libc::ENODEV))?.header.index;
    // Addresses go when a device moves: those that somebody gave it are given again.
    let addresses: Vec<AddressMessage> = here.addresses()?.into_iter().filter(|one| is_kept(one, index)).collect();
    let before: Vec<u32> = there.links()?.iter().map(|link| link.header.index).collect();
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(LinkAttribute::NetNsFd(theirs.as_raw_fd()));
    link.attributes.push(LinkAttribute::IfName(new.into()));
    here.request(Message::SetLink(link), NLM_F_ACK)?;
    // The number may be another, and the name one that the kernel found for a pattern.
    let moved = there.links()?.into_iter().find(|link| !before.contains(&link.header.index));
    let index = moved.ok_or(io::Error::from_raw_os_error(libc::ENODEV))?.header.index;
    for address in addresses {
        let mut message = AddressMessage::default();
        message.header.family = address.header.family;
        message.header.prefix_len = address.header.prefix_len;
        message.header.scope = address.header.scope;
        message.header.index = index;
        message.attributes = address.attributes.into_iter().filter(is_address).collect();
        there.request(Message::NewAddress(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)?;
    }
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    there.request(Message::SetLink(link), NLM_F_ACK).map(drop)
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes
        .iter()
        .find_map(|one| if let LinkAttribute::IfName(name) = one { Some(name.as_str()) } else { None })
}

/// Permanent addresses that count everywhere; others the kernel or a server gave, and gives again.
fn is_kept(address: &AddressMessage, index: u32) -> bool {
    let header = &address.header;
    header.index == index
        && header.scope == AddressScope::Universe
        && header.flags.contains(AddressHeaderFlags::Permanent)
}

fn is_address(attribute: &AddressAttribute) -> bool {
    matches!(attribute, AddressAttribute::Address(_) | AddressAttribute::Local(_) | AddressAttribute::Broadcast(_))
}

/// A connection to the network namespace in which it was opened.
struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    fn links(&mut self) -> io::Result<Vec<LinkMessage>> {
        let all = self.request(Message::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(all.into_iter().filter_map(|one| if let Message::NewLink(link) = one { Some(link) } else { None }).collect())
    }

    fn addresses(&mut self) -> io::Result<Vec<AddressMessage>> {
        let all = self.request(Message::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        Ok(all
            .into_iter()
            .filter_map(|one| if let Message::NewAddress(one) = one { Some(one) } else { None })
            .collect())
    }

    /// Sends a request and gives what comes back until its acknowledgement or the end of the list.
    fn request(&mut self, message: Message, flags: u16) -> io::Result<Vec<Message>> {
        self.sequence += 1;
        let mut packet = NetlinkMessage::from(message);
        packet.header.flags = NLM_F_REQUEST | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut all = Vec::new();
        while all.len() < NETLINK_MESSAGES {
            let mut answer = Vec::with_capacity(NETLINK_BYTES);
            self.socket.recv(&mut answer, 0)?;
            let mut rest = answer.as_slice();
            while !rest.is_empty() {
                let parsed = NetlinkMessage::<Message>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                // Each begins at a multiple of four bytes.
                let length = (parsed.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(length..).unwrap_or_default();
                if parsed.header.sequence_number != self.sequence {
                    continue;
                }
                match parsed.payload {
                    NetlinkPayload::Done(_) => return Ok(all),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(all),
                        Some(code) => return Err(io::Error::from_raw_os_error(code.get().abs())),
                    },
                    NetlinkPayload::InnerMessage(message) => all.push(message),
                    _ => {}
                }
            }
        }
        Err(io::Error::from_raw_os_error(libc::E2BIG))
    }
}
