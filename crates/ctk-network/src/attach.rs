//! Containers come and go.
//!
//! What is written down comes before what the kernel is told, and goes after it: whoever is killed in between leaves a
//! file from which everything that may be left can be found and removed. How they go: [`crate::leave`].

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;

use ctk_netlink::{Bridge, End, LOOPBACK, Netlink, Pair, index_of, wait_until_heard};
use ipnet::IpNet;

use crate::leave::{Lonely, finish_device, settle};
use crate::limits::{ALIASES, JOINS};
use crate::member::{self, Here, Record};
use crate::namespace::inside;
use crate::networks::{is_device_name, is_name, remove_device};
use crate::nft::Nft;
use crate::publish::{Published, is_taken, publish};
use crate::resolv::{self, ResolvConf};
use crate::{
    Attachment, DnsOptions, Endpoint, Error, Interface, Join, MacAddress, Network, Networks, Port, PublishedPort,
    conntrack, files, host, names, rules, subnets,
};

impl Networks {
    /// Joins the container whose network namespace this is to networks, in this order, and publishes its ports on the
    /// first that has a way out. Called in the host's network namespace. What an earlier container of this id left is
    /// removed first; on an error, everything is as before.
    pub fn attach(
        &self,
        endpoint: &Endpoint,
        namespace: BorrowedFd<'_>,
        joins: &[Join],
        ports: &[Port],
        dns: &DnsOptions,
    ) -> Result<Attachment, Error> {
        match self.try_attach(endpoint, namespace, joins, ports, dns) {
            // It may be that of a container that is gone.
            Err(Error::PortUsed { .. }) => {
                self.recover()?;
                self.try_attach(endpoint, namespace, joins, ports, dns)
            }
            other => other,
        }
    }

    fn try_attach(
        &self,
        endpoint: &Endpoint,
        namespace: BorrowedFd<'_>,
        joins: &[Join],
        ports: &[Port],
        dns: &DnsOptions,
    ) -> Result<Attachment, Error> {
        check(endpoint, joins)?;
        let networks = joins.iter().map(|join| self.get(&join.network)).collect::<Result<Vec<Network>, Error>>()?;
        let names: HashSet<&str> = networks.iter().map(|network| network.name.as_str()).collect();
        if names.len() < networks.len() {
            let twice = networks.iter().find(|one| networks.iter().filter(|other| one.name == other.name).count() > 1);
            let network = twice.map(|one| one.name.clone()).unwrap_or_default();
            return Err(Error::AlreadyJoined { container: endpoint.name.clone(), network });
        }
        let publishes = networks.iter().position(|network| !network.internal);
        if publishes.is_none() && !ports.is_empty() {
            let reason =
                if networks.is_empty() { "the container is on no network" } else { "its networks are internal" };
            return Err(Error::Unpublishable { reason: reason.into() });
        }
        self.detach(&endpoint.id)?;
        let result = self.join_all(endpoint, namespace, joins, &networks, publishes, ports, dns);
        if result.is_err() {
            // The first error is the one to tell.
            let _ = self.detach(&endpoint.id);
        }
        result
    }

    #[expect(clippy::too_many_arguments, reason = "the second half of one function")]
    fn join_all(
        &self,
        endpoint: &Endpoint,
        namespace: BorrowedFd<'_>,
        joins: &[Join],
        networks: &[Network],
        publishes: Option<usize>,
        ports: &[Port],
        dns: &DnsOptions,
    ) -> Result<Attachment, Error> {
        let mut taken = inside(namespace, devices)?;
        let mut interfaces: Vec<Interface> = Vec::new();
        let mut published = Published::default();
        for (position, (join, network)) in joins.iter().zip(networks).enumerate() {
            let name = device_name(join.interface.as_deref(), &taken)?;
            let ports = if publishes == Some(position) { ports } else { &[] };
            let (interface, more) = self.join(endpoint, namespace, join, network, &name, ports)?;
            published.ports.extend(more.ports);
            published.reserved.extend(more.reserved);
            taken.push(name);
            interfaces.push(interface);
        }
        choose_default_routes(&mut interfaces);
        inside(namespace, || configure(&interfaces, true))?;
        for network in networks {
            wait_until_running(endpoint, network)?;
        }
        let needs_name_server = networks.iter().any(|network| network.dns_enabled);
        let resolv_conf = if needs_name_server {
            ResolvConf::of(dns)?.text(&[IpAddr::V4(names::ADDRESS)], true)
        } else {
            resolv::host_resolv_conf(dns, false)?
        };
        Ok(Attachment {
            hosts: resolv::hosts(endpoint, &interfaces, dns)?,
            interfaces,
            ports: published.ports,
            resolv_conf,
            needs_name_server,
            reserved: published.reserved,
        })
    }

    /// Joins a running container to one more network. Its default routes stay as they are, unless it had none.
    pub fn connect(&self, endpoint: &Endpoint, namespace: BorrowedFd<'_>, join: &Join) -> Result<Interface, Error> {
        check(endpoint, std::slice::from_ref(join))?;
        let network = self.get(&join.network)?;
        let taken = inside(namespace, devices)?;
        let name = device_name(join.interface.as_deref(), &taken)?;
        let has_route = self.interfaces(&endpoint.id)?.iter().any(|interface| !interface.gateways.is_empty());
        let (mut interface, _) = self.join(endpoint, namespace, join, &network, &name, &[])?;
        if has_route {
            interface.gateways.clear();
        }
        let configured = inside(namespace, || configure(std::slice::from_ref(&interface), false));
        if let Err(error) = configured.and_then(|()| wait_until_running(endpoint, &network)) {
            let _ = self.leave(&endpoint.id, &network.name);
            return Err(error);
        }
        Ok(interface)
    }

    /// A container's devices, by network.
    pub fn interfaces(&self, id: &str) -> Result<Vec<Interface>, Error> {
        Ok(self.records_of(id)?.into_iter().map(|record| record.interface).collect())
    }

    /// A container's published ports.
    pub fn ports(&self, id: &str) -> Result<Vec<PublishedPort>, Error> {
        Ok(self.records_of(id)?.into_iter().flat_map(|record| record.ports).collect())
    }

    pub(crate) fn records_of(&self, id: &str) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        for name in self.names()? {
            records.extend(if is_name(id) { files::load(&self.folder(&name).member(id))? } else { None });
        }
        Ok(records)
    }

    /// One network: an address, a pair of devices, ports. The container's end is still down.
    fn join(
        &self,
        endpoint: &Endpoint,
        namespace: BorrowedFd<'_>,
        join: &Join,
        network: &Network,
        name: &str,
        ports: &[Port],
    ) -> Result<(Interface, Published), Error> {
        let _lock = self.lock(true)?;
        let folder = self.folder(&network.name);
        if !folder.definition().exists() {
            return Err(Error::UnknownNetwork { name: network.name.clone(), near: String::new() });
        }
        let _lock = folder.lock()?;
        let here = Here::now()?;
        let records = settle(self, network, &folder, &here, Lonely::Stays)?;
        if records.iter().any(|record| record.id == endpoint.id) {
            return Err(Error::AlreadyJoined { container: endpoint.name.clone(), network: network.name.clone() });
        }
        let addresses = choose_addresses(network, join, &records, &folder.last_given())?;
        let interface = Interface {
            network: network.name.clone(),
            name: name.into(),
            gateways: if network.internal { Vec::new() } else { network.subnets.iter().map(|s| s.gateway).collect() },
            host: network.subnets.iter().map(|subnet| subnet.gateway).collect(),
            mac: join.mac.unwrap_or_else(|| mac_of(addresses[0].addr())),
            aliases: join.aliases.clone(),
            addresses,
        };
        let plain: Vec<IpAddr> = interface.addresses.iter().map(IpNet::addr).collect();
        let published = publish(ports, &plain)?;
        let record = Record {
            id: endpoint.id.clone(),
            name: endpoint.name.clone(),
            device: host_device(&endpoint.id, network),
            interface,
            ports: published.ports.clone(),
            boot: here.boot.clone(),
            namespace: here.namespace,
            inside: host::identity(namespace)?,
        };
        finish_device(&folder, &record.device, &here)?;
        files::save(&folder.member(&record.id), &record, false)?;
        let made = self.make(network, &record, &records, namespace);
        if let Err(error) = made {
            let _ = remove_device(&record.device);
            files::remove(&folder.member(&record.id))?;
            let _ = settle(self, network, &folder, &here, Lonely::Goes);
            return Err(error);
        }
        folder.give(&plain)?;
        self.changed()?;
        Ok((record.interface, published))
    }

    fn make(
        &self,
        network: &Network,
        record: &Record,
        others: &[Record],
        namespace: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let nft = host::filter()?;
        let mut netlink = Netlink::open().map_err(kernel("open a connection to the network"))?;
        let bridge = ensure_bridge(&nft, &mut netlink, network, others)?;
        let pair = Pair {
            here: End { name: &record.device, index: None, mac: None },
            bridge,
            there: End { name: &record.interface.name, index: None, mac: Some(record.interface.mac.0) },
            namespace,
            mtu: Some(network.mtu),
        };
        netlink.add_pair(&pair).map_err(kernel(format!("make a pair of devices for `{}`", network.name)))?;
        let index = index_of(&record.device).map_err(kernel("find the pair of devices"))?.unwrap_or_default();
        no_ipv6(&record.device)?;
        netlink.up_port(index).map_err(kernel("bring a pair of devices up"))?;
        add_ports(&nft, &record.ports)
    }
}

pub(crate) fn kernel(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let attempt = attempt.into();
    move |source| Error::Kernel { attempt, source }
}

fn check(endpoint: &Endpoint, joins: &[Join]) -> Result<(), Error> {
    if !is_name(&endpoint.id) {
        let expected = "letters, digits, `_`, `.` and `-`";
        return Err(Error::Invalid { what: "container id", text: endpoint.id.clone(), expected });
    }
    if joins.len() > JOINS {
        return Err(Error::TooMany { what: "networks of one container", limit: JOINS });
    }
    for join in joins {
        if join.aliases.len() > ALIASES {
            return Err(Error::TooMany { what: "aliases on one network", limit: ALIASES });
        }
        if let Some(alias) = join.aliases.iter().find(|alias| !names::is_host_name(alias)) {
            let expected = "a host name: letters, digits, `_` and `-`, parts of at most 63 between dots";
            return Err(Error::Invalid { what: "network alias", text: alias.clone(), expected });
        }
    }
    Ok(())
}

/// The bridge's index. It is made with the first member, and again if somebody took it away.
fn ensure_bridge(nft: &Nft, netlink: &mut Netlink, network: &Network, others: &[Record]) -> Result<u32, Error> {
    let name = &network.bridge;
    let index = index_of(name).map_err(kernel("look for the bridge"))?;
    let is_ready = host::is_ready(nft, name)?;
    match index {
        Some(index) if is_ready => return Ok(index),
        // Nobody of ours is on it: it is somebody else's.
        Some(_) if others.is_empty() => {
            return Err(Error::DeviceExists { name: name.clone(), place: "on the host that is not ours" });
        }
        _ => {}
    }
    host::set_up(nft, network)?;
    if !is_ready {
        // Somebody emptied the packet filter: what others were promised is told again.
        for record in others {
            add_ports(nft, &record.ports).or_else(|error| match error {
                Error::PortUsed { .. } => Ok(()),
                error => Err(error),
            })?;
        }
    }
    let index = match index {
        Some(index) => index,
        None => make_bridge(netlink, network)?,
    };
    Ok(index)
}

fn make_bridge(netlink: &mut Netlink, network: &Network) -> Result<u32, Error> {
    let name = &network.bridge;
    let failed = || kernel(format!("make the bridge `{name}`"));
    // A subnet that was free when the network was made may have an owner now: its packets must not be ours.
    let routes = netlink.destinations().map_err(failed())?;
    for subnet in &network.subnets {
        if let Some(other) = routes.iter().find(|other| subnets::overlap(other, &subnet.subnet)) {
            return Err(Error::Overlap { subnet: subnet.subnet, other: *other, owner: "the host's routes".into() });
        }
    }
    let bridge = Bridge { name, index: None, mac: Some(mac_of(network.subnets[0].gateway).0), mtu: Some(network.mtu) };
    netlink.add_bridge(&bridge).map_err(failed())?;
    let index = index_of(name).map_err(failed())?.unwrap_or_default();
    if network.subnets.iter().any(|subnet| subnet.gateway.is_ipv6()) {
        with_ipv6(name)?;
    } else {
        no_ipv6(name)?;
    }
    // So that the host reaches published ports by 127.0.0.1; the rules keep the containers from doing the same.
    host::set(&format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"), "1")?;
    for subnet in &network.subnets {
        let address = IpNet::new(subnet.gateway, subnet.subnet.prefix_len()).unwrap_or(subnet.subnet);
        netlink.add_address(index, address).map_err(failed())?;
    }
    netlink.up(index).map_err(failed())?;
    Ok(index)
}

/// A device with IPv6 addresses that we give, and nobody else. They, and the one that the kernel gives it, are there at
/// once: until it has looked for twins of the latter, for a second or two, it would not ask for neighbours at all.
fn with_ipv6(device: &str) -> Result<(), Error> {
    for (setting, value) in [("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_dad", "0")] {
        host::set(&format!("/proc/sys/net/ipv6/conf/{device}/{setting}"), value)?;
    }
    Ok(())
}

/// A device that needs no IPv6 address of its own. Nothing to do in a kernel without IPv6.
fn no_ipv6(device: &str) -> Result<(), Error> {
    match host::set(&format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "1") {
        Err(Error::Unsupported { .. }) => Ok(()),
        other => other,
    }
}

fn add_ports(nft: &Nft, ports: &[PublishedPort]) -> Result<(), Error> {
    if ports.is_empty() {
        return Ok(());
    }
    let mut batch = rules::batch();
    for (set, elements) in rules::ports(ports) {
        batch.add(rules::TABLE, set, &elements, true);
    }
    nft.commit(batch).map_err(|source| match ports {
        [port, ..] if is_taken(&source) => {
            Error::PortUsed { address: port.host_ip, port: port.host_port, protocol: port.protocol }
        }
        _ => Error::Kernel { attempt: "publish ports".into(), source },
    })?;
    conntrack::forget(ports);
    Ok(())
}

/// The devices of the calling thread's namespace.
fn devices() -> Result<Vec<String>, Error> {
    Netlink::open().and_then(|mut netlink| netlink.devices()).map_err(kernel("list the container's devices"))
}

fn device_name(wanted: Option<&str>, taken: &[String]) -> Result<String, Error> {
    let is_free = |name: &str| taken.iter().all(|other| other != name);
    match wanted {
        Some(name) if !is_device_name(name) => {
            let expected = "at most 15 letters, digits and signs, without `/`, `:` and `%`";
            Err(Error::Invalid { what: "interface name", text: name.into(), expected })
        }
        Some(name) if !is_free(name) => Err(Error::DeviceExists { name: name.into(), place: "in the container" }),
        Some(name) => Ok(name.into()),
        None => {
            let mut names = (0..=taken.len()).map(|number| format!("eth{number}"));
            names.find(|name| is_free(name)).ok_or(Error::TooMany { what: "networks of one container", limit: JOINS })
        }
    }
}

/// One address of each of the network's subnets.
fn choose_addresses(
    network: &Network,
    join: &Join,
    records: &[Record],
    last_given: &[IpAddr],
) -> Result<Vec<IpNet>, Error> {
    let used = member::used(records);
    let all: Vec<IpNet> = network.subnets.iter().map(|subnet| subnet.subnet).collect();
    let wanted = [join.ipv4.map(IpAddr::V4), join.ipv6.map(IpAddr::V6)];
    for address in wanted.into_iter().flatten() {
        if !all.iter().any(|net| subnets::is_usable(net, address)) {
            return Err(Error::OutOfRange { what: "address", address, subnets: all });
        }
        let owner = records.iter().find(|record| record.addresses().any(|other| other == address));
        let owner = owner.map(|record| format!("`{}`", record.name));
        let is_gateway = network.subnets.iter().any(|subnet| subnet.gateway == address);
        if let Some(owner) = owner.or(is_gateway.then(|| "the host".into())) {
            return Err(Error::AddressUsed { address, network: network.name.clone(), owner });
        }
    }
    let one = |subnet: &crate::Subnet| {
        let given = wanted.into_iter().flatten().find(|address| subnet.subnet.contains(address));
        let last = last_given.iter().find(|address| subnet.subnet.contains(*address)).copied();
        let address = given.or_else(|| subnets::next_free(subnet, &used, last));
        let address =
            address.ok_or_else(|| Error::Exhausted { network: network.name.clone(), subnet: subnet.subnet })?;
        Ok(IpNet::new(address, subnet.subnet.prefix_len()).unwrap_or(subnet.subnet))
    };
    network.subnets.iter().map(one).collect()
}

/// Each address always has the same: neighbours who remember it are right.
fn mac_of(address: IpAddr) -> MacAddress {
    let [a, b, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let mut hasher = DefaultHasher::new();
            address.hash(&mut hasher);
            Ipv4Addr::from(hasher.finish() as u32).octets()
        }
    };
    MacAddress([0x0a, 0x63, a, b, c, d])
}

/// The name of the host's end of a pair: found again by who knows the container and the network.
fn host_device(id: &str, network: &Network) -> String {
    let mut hasher = DefaultHasher::new();
    (id, &network.id).hash(&mut hasher);
    format!("ctkv{:011x}", hasher.finish() >> 20)
}

/// The first network with a gateway of a family has the default route of that family.
fn choose_default_routes(interfaces: &mut [Interface]) {
    let (mut ipv4, mut ipv6) = (false, false);
    for interface in interfaces {
        interface.gateways.retain(|gateway| {
            let has = if gateway.is_ipv6() { &mut ipv6 } else { &mut ipv4 };
            !std::mem::replace(has, true)
        });
    }
}

/// In the container's namespace: addresses and routes.
fn configure(interfaces: &[Interface], is_new: bool) -> Result<(), Error> {
    let mut netlink = Netlink::open().map_err(kernel("open a connection to the container's network"))?;
    if is_new {
        netlink.up(LOOPBACK).map_err(kernel("bring the container's loopback up"))?;
    }
    for interface in interfaces {
        let failed = || kernel(format!("set up the container's `{}`", interface.name));
        let index = index_of(&interface.name).map_err(failed())?;
        let index =
            index.ok_or_else(|| failed()(io::Error::from_raw_os_error(rustix::io::Errno::NODEV.raw_os_error())))?;
        if interface.addresses.iter().any(|net| net.addr().is_ipv6()) {
            with_ipv6(&interface.name)?;
        }
        for address in &interface.addresses {
            netlink.add_address(index, *address).map_err(failed())?;
        }
        netlink.up(index).map_err(failed())?;
        for gateway in &interface.gateways {
            netlink.add_default_route(*gateway).map_err(failed())?;
        }
        netlink.wait_until_running(index).map_err(failed())?;
        for address in &interface.addresses {
            if let IpAddr::V6(address) = address.addr() {
                wait_until_heard(&interface.name, address).map_err(failed())?;
            }
        }
    }
    Ok(())
}

/// On the host: the other end, and the bridge that has its first port.
fn wait_until_running(endpoint: &Endpoint, network: &Network) -> Result<(), Error> {
    for device in [&host_device(&endpoint.id, network), &network.bridge] {
        let failed = || kernel(format!("wait for the device `{device}`"));
        if let Some(index) = index_of(device).map_err(failed())? {
            Netlink::open().and_then(|mut netlink| netlink.wait_until_running(index)).map_err(failed())?;
        }
    }
    for subnet in &network.subnets {
        if let IpAddr::V6(gateway) = subnet.gateway {
            let failed = kernel(format!("wait for the device `{}`", network.bridge));
            wait_until_heard(&network.bridge, gateway).map_err(failed)?;
        }
    }
    Ok(())
}

/// Brings the loopback of a namespace up: a container without a network has it.
pub fn bring_loopback_up(namespace: BorrowedFd<'_>) -> Result<(), Error> {
    inside(namespace, || configure(&[], true))
}
