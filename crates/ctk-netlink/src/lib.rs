//! Network devices, addresses and routes by rtnetlink (`rtnetlink(7)`): one blocking socket, one request at a time, each
//! acknowledged. Errors are the kernel's own; what was tried is the caller's to say.

pub mod limits;
mod moving;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, State,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

pub use moving::move_device;

use crate::limits::{CARRIER_WAIT, NETLINK_BYTES, NETLINK_MESSAGES};

/// The loopback device of every network namespace.
pub const LOOPBACK: u32 = 1;

/// A connection to the network namespace of the thread that opened it, whichever thread uses it.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// A bridge that is to be.
#[derive(Clone, Copy, Debug)]
pub struct Bridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its index; without one, the kernel's choice.
    pub index: Option<u32>,
    /// Its hardware address; without one, that of its lowest port, which changes with them.
    pub mac: Option<[u8; 6]>,
    /// The largest packet, bytes; without one, that of its ports.
    pub mtu: Option<u32>,
}

/// One end of a pair of devices that is to be.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its index; without one, the kernel's choice.
    pub index: Option<u32>,
    /// Its hardware address; without one, the kernel's choice.
    pub mac: Option<[u8; 6]>,
}

/// A pair of devices that is to be.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The end here.
    pub here: End<'a>,
    /// Index of the bridge that it is a port of.
    pub bridge: u32,
    /// The other end.
    pub there: End<'a>,
    /// The other end's namespace.
    pub namespace: BorrowedFd<'a>,
    /// The largest packet, bytes; without one, the kernel's choice.
    pub mtu: Option<u32>,
}

/// Which device.
#[derive(Clone, Copy, Debug)]
pub enum Device<'a> {
    /// By its name.
    Name(&'a str),
    /// By its index.
    Index(u32),
}

impl Netlink {
    /// A connection to the network namespace that the calling thread is in.
    pub fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Makes a bridge, still down.
    pub fn add_bridge(&mut self, bridge: &Bridge<'_>) -> io::Result<()> {
        let end = End { name: bridge.name, index: bridge.index, mac: bridge.mac };
        let mut link = link_of(&end, bridge.mtu);
        link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.create(Message::NewLink(link))
    }

    /// Makes a pair of devices, both still down: one end here, on the bridge; the other in a namespace.
    pub fn add_pair(&mut self, pair: &Pair<'_>) -> io::Result<()> {
        let mut peer = link_of(&pair.there, pair.mtu);
        peer.attributes.push(LinkAttribute::NetNsFd(pair.namespace.as_raw_fd()));
        let mut link = link_of(&pair.here, pair.mtu);
        link.attributes.push(LinkAttribute::Controller(pair.bridge));
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.create(Message::NewLink(link))
    }

    /// Removes a device; its peer goes with it. Whether it was there.
    pub fn remove(&mut self, device: Device<'_>) -> io::Result<bool> {
        let mut link = LinkMessage::default();
        match device {
            Device::Name(name) => link.attributes.push(LinkAttribute::IfName(name.into())),
            Device::Index(index) => link.header.index = index,
        }
        match self.request(Message::DelLink(link), NLM_F_ACK) {
            Err(error) if error.raw_os_error() == Some(NO_DEVICE) => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// Brings a device up.
    pub fn up(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.request(Message::SetLink(link), NLM_F_ACK).map(drop)
    }

    /// Brings a bridge's port up. What comes in by it may leave by it: to a container that asks for its own published
    /// port, where the kernel filters what bridges pass on (`br_netfilter`).
    pub fn up_port(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
        ]));
        self.request(Message::NewLink(link), NLM_F_ACK).map(drop)
    }

    /// Waits until packets pass a device that was brought up: the kernel sees to it some time later, or when it is asked
    /// (`linkwatch_sync_dev`, since 6.9). Until then they are lost, and asked for again a second later.
    pub fn wait_until_running(&mut self, index: u32) -> io::Result<()> {
        let until = Instant::now() + CARRIER_WAIT;
        loop {
            let mut link = LinkMessage::default();
            link.header.index = index;
            let answers = self.request(Message::GetLink(link), NLM_F_ACK)?;
            let is_running = answers.iter().any(|one| match one {
                Message::NewLink(link) => link.attributes.contains(&LinkAttribute::OperState(State::Up)),
                _ => false,
            });
            // What does not come up is no error of ours: somebody takes it down, or the kernel is busy.
            if is_running || Instant::now() > until {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Gives a device an address. An IPv6 address is there at once: nobody else on our bridges can have it.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.index = index;
        message.header.prefix_len = address.prefix_len();
        message.attributes.push(AddressAttribute::Local(address.addr()));
        message.attributes.push(AddressAttribute::Address(address.addr()));
        match address {
            IpNet::V4(net) if net.prefix_len() < 31 => {
                message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
            }
            IpNet::V4(_) => {}
            IpNet::V6(_) => message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad)),
        }
        self.create(Message::NewAddress(message))
    }

    /// Makes the default route of a family.
    pub fn add_default_route(&mut self, gateway: IpAddr) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(gateway);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Gateway(match gateway {
            IpAddr::V4(address) => RouteAddress::Inet(address),
            IpAddr::V6(address) => RouteAddress::Inet6(address),
        }));
        self.create(Message::NewRoute(message))
    }

    /// Where this namespace knows a way to, the default routes aside.
    pub fn destinations(&mut self) -> io::Result<Vec<IpNet>> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers = self.request(Message::GetRoute(message), NLM_F_DUMP)?;
            all.extend(answers.into_iter().filter_map(|one| match one {
                Message::NewRoute(route) => destination(&route),
                _ => None,
            }));
        }
        Ok(all)
    }

    /// Names of all devices.
    pub fn devices(&mut self) -> io::Result<Vec<String>> {
        Ok(self.links()?.iter().filter_map(name_of).map(String::from).collect())
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

    fn create(&mut self, message: Message) -> io::Result<()> {
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
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
        Err(io::Error::from_raw_os_error(rustix::io::Errno::TOOBIG.raw_os_error()))
    }
}

fn link_of(end: &End<'_>, mtu: Option<u32>) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = end.index.unwrap_or(0);
    link.attributes.push(LinkAttribute::IfName(end.name.into()));
    link.attributes.extend(end.mac.map(|mac| LinkAttribute::Address(mac.into())));
    link.attributes.extend(mtu.map(LinkAttribute::Mtu));
    link
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes
        .iter()
        .find_map(|one| if let LinkAttribute::IfName(name) = one { Some(name.as_str()) } else { None })
}

const NO_DEVICE: i32 = rustix::io::Errno::NODEV.raw_os_error();

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let length = route.header.destination_prefix_length;
    let address = route.attributes.iter().find_map(|one| match one {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    IpNet::new(address, length).ok().filter(|_| length > 0)
}

/// Waits until neighbours who ask for an IPv6 address of a device are heard: the kernel joins the group in which they
/// ask (RFC 4291, 2.7.1) some time after the address is there. A question that comes before is repeated a second later.
pub fn wait_until_heard(device: &str, address: Ipv6Addr) -> io::Result<()> {
    let [.., a, b, c] = address.octets();
    let group = format!("ff0200000000000000000001ff{a:02x}{b:02x}{c:02x}");
    let until = Instant::now() + CARRIER_WAIT;
    loop {
        // A number, the device, the group, how often.
        let groups = fs::read_to_string("/proc/thread-self/net/igmp6")?;
        let is_joined = groups.lines().any(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            words.next() == Some(device) && words.next() == Some(&group)
        });
        if is_joined || Instant::now() > until {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The index of a device in the calling thread's namespace.
pub fn index_of(name: &str) -> io::Result<Option<u32>> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice::name_to_index, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    match name_to_index(&socket, name) {
        Ok(index) => Ok(Some(index)),
        Err(rustix::io::Errno::NODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
