//! Devices that go into another network namespace, with their addresses.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};

use crate::{NO_DEVICE, Netlink, name_of};

/// Moves the device `name` of the namespace of `here` into that of `there`, which `namespace` is a file of, as `new`, which
/// may be a pattern as `lan%d`; gives it its permanent addresses of global scope again, and brings it up.
pub fn move_device(
    here: &mut Netlink,
    there: &mut Netlink,
    namespace: BorrowedFd<'_>,
    name: &str,
    new: &str,
) -> io::Result<()> {
    let links = here.links()?;
    let link = links.iter().find(|link| name_of(link) == Some(name));
    let index = link.ok_or(no_device())?.header.index;
    // Addresses go when a device moves: those that somebody gave it are given again.
    let addresses: Vec<AddressMessage> = here.addresses()?.into_iter().filter(|one| is_kept(one, index)).collect();
    let before: Vec<u32> = there.links()?.iter().map(|link| link.header.index).collect();
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    link.attributes.push(LinkAttribute::IfName(new.into()));
    here.request(Message::SetLink(link), NLM_F_ACK)?;
    // The number may be another, and the name one that the kernel found for a pattern.
    let moved = there.links()?.into_iter().find(|link| !before.contains(&link.header.index));
    let index = moved.ok_or(no_device())?.header.index;
    for address in addresses {
        let mut message = AddressMessage::default();
        message.header.family = address.header.family;
        message.header.prefix_len = address.header.prefix_len;
        message.header.scope = address.header.scope;
        message.header.index = index;
        message.attributes = address.attributes.into_iter().filter(is_address).collect();
        there.request(Message::NewAddress(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)?;
    }
    there.up(index)
}

fn no_device() -> io::Error {
    io::Error::from_raw_os_error(NO_DEVICE)
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
