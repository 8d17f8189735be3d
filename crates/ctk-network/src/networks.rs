//! The networks of one folder.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ctk_netlink::{Device, Netlink};
use ipnet::IpNet;

use crate::leave::{self, Lonely};
use crate::limits::{NETWORK_NAME_BYTES, NETWORKS};
use crate::member::{Folder, Here};
use crate::{AddressRange, Error, Member, Network, NetworkOptions, Subnet, files, subnets};

/// The network that is there without being made.
pub const DEFAULT_NETWORK: &str = "ctk";

/// Names that `--network` has another meaning for.
const RESERVED: [&str; 9] = ["bridge", "container", "default", "host", "none", "ns", "pasta", "private", "slirp4netns"];

/// Networks and their members, written down below a folder. Several processes may use it at once, and may be killed.
#[derive(Clone, Debug)]
pub struct Networks {
    pub(crate) directory: PathBuf,
}

impl Networks {
    /// The networks of a folder, which is made if it is not there.
    pub fn open(directory: &Path) -> Result<Networks, Error> {
        let networks = Networks { directory: directory.into() };
        let folder = networks.by_name();
        fs::create_dir_all(&folder).map_err(files::failed("make", &folder))?;
        Ok(networks)
    }

    fn by_name(&self) -> PathBuf {
        self.directory.join("by-name")
    }

    pub(crate) fn folder(&self, name: &str) -> Folder {
        Folder(self.by_name().join(name))
    }

    /// Excludes those who make and remove networks; they exclude everybody.
    pub(crate) fn lock(&self, shared: bool) -> Result<files::Lock, Error> {
        files::lock(self.directory.join("lock"), shared)
    }

    /// Everybody who reads members sees that something is other.
    pub(crate) fn changed(&self) -> Result<(), Error> {
        files::replace(&self.directory.join("changed"), &random()?.to_be_bytes(), false)
    }

    /// Names of all networks, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>, Error> {
        let mut names = files::names(&self.by_name())?;
        names.retain(|name| self.folder(name).definition().exists());
        Ok(names)
    }

    /// All networks, by name.
    pub fn list(&self) -> Result<Vec<Network>, Error> {
        let mut all = Vec::new();
        for name in self.names()? {
            all.extend(files::load(&self.folder(&name).definition())?);
        }
        Ok(all)
    }

    /// The network of this name; the default one, also as `bridge` and `default`, is made if it is not there. By its id,
    /// or the beginning of it, too.
    pub fn get(&self, name: &str) -> Result<Network, Error> {
        let name = if matches!(name, "bridge" | "default") { DEFAULT_NETWORK } else { name };
        if is_name(name) {
            if let Some(network) = files::load(&self.folder(name).definition())? {
                return Ok(network);
            }
            if name == DEFAULT_NETWORK {
                let options = NetworkOptions { name: name.into(), ignore_existing: true, ..NetworkOptions::default() };
                return self.create(&options);
            }
        }
        let mut by_id = self.list()?.into_iter().filter(|network| name.len() >= 4 && network.id.starts_with(name));
        match (by_id.next(), by_id.next()) {
            (Some(network), None) => Ok(network),
            _ => {
                let names = self.names()?;
                let near = ctk_syntax::nearest(name, names.iter().map(String::as_str));
                let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                Err(Error::UnknownNetwork { name: name.into(), near })
            }
        }
    }

    /// Makes a network. The host is not touched until its first container comes.
    pub fn create(&self, options: &NetworkOptions) -> Result<Network, Error> {
        check_name(&options.name)?;
        let _lock = self.lock(false)?;
        let all = self.list()?;
        if let Some(network) = all.iter().find(|network| network.name == options.name) {
            return if options.ignore_existing {
                Ok(network.clone())
            } else {
                Err(Error::NetworkExists { name: options.name.clone() })
            };
        }
        if all.len() >= NETWORKS {
            return Err(Error::TooMany { what: "networks", limit: NETWORKS });
        }
        let failed = |source| Error::Kernel { attempt: "list the host's routes and devices".into(), source };
        let mut netlink = Netlink::open().map_err(failed)?;
        let routes = netlink.destinations().map_err(failed)?;
        let network = Network {
            name: options.name.clone(),
            id: id()?,
            driver: "bridge".into(),
            bridge: bridge(options, &all, &netlink.devices().map_err(failed)?)?,
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs()),
            subnets: subnets_of(options, &all, &routes)?,
            internal: options.internal,
            dns_enabled: !options.disable_dns,
            mtu: mtu(options)?,
            labels: options.labels.clone(),
        };
        let folder = self.folder(&network.name);
        let members = folder.members();
        fs::create_dir_all(&members).map_err(files::failed("make", &members))?;
        files::save(&folder.definition(), &network, true)?;
        Ok(network)
    }

    /// Removes a network that nobody is on.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let _lock = self.lock(false)?;
        let network = self.get_existing(name)?;
        self.remove_unused(&network)?.map_err(|members| Error::NetworkInUse { name: network.name.clone(), members })
    }

    /// Removes all networks that nobody is on, but the default one. Their names.
    pub fn prune(&self) -> Result<Vec<String>, Error> {
        let _lock = self.lock(false)?;
        let mut removed = Vec::new();
        for network in self.list()? {
            if network.name != DEFAULT_NETWORK && self.remove_unused(&network)?.is_ok() {
                removed.push(network.name);
            }
        }
        Ok(removed)
    }

    /// Who is on a network, by id.
    pub fn members(&self, name: &str) -> Result<Vec<Member>, Error> {
        let _lock = self.lock(true)?;
        let network = self.get_existing(name)?;
        let folder = self.folder(&network.name);
        let _lock = folder.lock()?;
        let here = Here::now()?;
        let mut members = Vec::new();
        for record in folder.records()? {
            if record.standing(&here)? == crate::member::Standing::There {
                members.push(record.into_member());
            }
        }
        Ok(members)
    }

    /// Removes what killed processes and earlier boots left, on the host and in the folder.
    pub fn recover(&self) -> Result<(), Error> {
        let _lock = self.lock(true)?;
        for name in self.names()? {
            let Some(network) = files::load::<Network>(&self.folder(&name).definition())? else { continue };
            let folder = self.folder(&name);
            let _lock = folder.lock()?;
            leave::settle(self, &network, &folder, &Here::now()?, Lonely::Goes)?;
        }
        Ok(())
    }

    /// Not the default one by its name alone: nobody who removes or looks makes it.
    fn get_existing(&self, name: &str) -> Result<Network, Error> {
        if matches!(name, DEFAULT_NETWORK | "bridge" | "default") && !self.folder(DEFAULT_NETWORK).definition().exists()
        {
            return Err(Error::UnknownNetwork { name: name.into(), near: String::new() });
        }
        self.get(name)
    }

    /// The names of its members, if there are some.
    fn remove_unused(&self, network: &Network) -> Result<Result<(), Vec<String>>, Error> {
        let folder = self.folder(&network.name);
        let records = leave::settle(self, network, &folder, &Here::now()?, Lonely::Goes)?;
        if !records.is_empty() {
            return Ok(Err(records.into_iter().map(|record| record.name).collect()));
        }
        // The definition first: without it, it is no network, whatever is left of the folder.
        files::remove(&folder.definition())?;
        fs::remove_dir_all(&folder.0).map_err(files::failed("remove", &folder.0))?;
        Ok(Ok(()))
    }
}

/// 64 bits of chance.
pub(crate) fn random() -> Result<u64, Error> {
    use std::io::Read;
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 8];
    let mut file = fs::File::open(path).map_err(files::failed("open", path))?;
    file.read_exact(&mut bytes).map_err(files::failed("read", path))?;
    Ok(u64::from_ne_bytes(bytes))
}

fn id() -> Result<String, Error> {
    Ok(format!("{:016x}{:016x}{:016x}{:016x}", random()?, random()?, random()?, random()?))
}

pub(crate) fn is_name(name: &str) -> bool {
    let is_ordinary = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    name.len() <= NETWORK_NAME_BYTES
        && name.bytes().all(is_ordinary)
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

fn check_name(name: &str) -> Result<(), Error> {
    if RESERVED.contains(&name) {
        let expected = "a name that --network has no other meaning for";
        return Err(Error::Invalid { what: "name of a network", text: name.into(), expected });
    }
    if !is_name(name) {
        let expected = "at most 128 letters, digits, `_`, `.` and `-`, a letter or digit first";
        return Err(Error::Invalid { what: "name of a network", text: name.into(), expected });
    }
    Ok(())
}

/// What the kernel takes as a device's name, and shows without quotes.
pub(crate) fn is_device_name(name: &str) -> bool {
    let is_ordinary = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    !matches!(name, "" | "." | ".." | "all" | "default") && name.len() <= 15 && name.bytes().all(is_ordinary)
}

fn bridge(options: &NetworkOptions, all: &[Network], devices: &[String]) -> Result<String, Error> {
    let is_taken = |name: &str| all.iter().any(|one| one.bridge == name) || devices.iter().any(|one| one == name);
    match &options.bridge {
        Some(name) if !is_device_name(name) => {
            let expected = "at most 15 letters, digits and signs, without `/`, `:` and `%`";
            Err(Error::Invalid { what: "name of a bridge", text: name.clone(), expected })
        }
        Some(name) if is_taken(name) => {
            Err(Error::DeviceExists { name: name.clone(), place: "on the host, or of another network" })
        }
        Some(name) => Ok(name.clone()),
        None => (0..).map(|number| format!("ctk{number}")).find(|name| !is_taken(name)).ok_or(NO_NAME),
    }
}

/// Not seen: there are more numbers than networks.
const NO_NAME: Error = Error::TooMany { what: "networks", limit: NETWORKS };

fn mtu(options: &NetworkOptions) -> Result<u32, Error> {
    let has_ipv6 = options.ipv6 || options.subnets.iter().any(|net| matches!(net, IpNet::V6(_)));
    // RFC 791 and RFC 8200 say the least; a packet's length has 16 bits.
    let least = if has_ipv6 { 1280 } else { 68 };
    match options.mtu {
        None => Ok(1500),
        Some(mtu) if (least..=65535).contains(&mtu) => Ok(mtu),
        Some(mtu) => {
            let expected = "68 to 65535 bytes, at least 1280 with IPv6";
            Err(Error::Invalid { what: "MTU", text: mtu.to_string(), expected })
        }
    }
}

/// The subnets that were asked for, completed and checked, IPv4 first.
fn subnets_of(options: &NetworkOptions, all: &[Network], routes: &[IpNet]) -> Result<Vec<Subnet>, Error> {
    let others: Vec<IpNet> = all.iter().flat_map(|one| one.subnets.iter().map(|subnet| subnet.subnet)).collect();
    let used: Vec<IpNet> = others.iter().chain(routes).copied().collect();
    let mut nets: Vec<IpNet> = options.subnets.iter().map(IpNet::trunc).collect();
    nets.sort_by_key(|net| matches!(net, IpNet::V6(_)));
    for net in &nets {
        check_subnet(net)?;
        let owner = |network: &&Network| network.subnets.iter().any(|one| subnets::overlap(&one.subnet, net));
        if let Some(network) = all.iter().find(owner) {
            let other = network.subnets.iter().map(|one| one.subnet).find(|other| subnets::overlap(other, net));
            let owner = format!("the network `{}`", network.name);
            return Err(Error::Overlap { subnet: *net, other: other.unwrap_or(*net), owner });
        }
        if let Some(other) = routes.iter().find(|other| subnets::overlap(other, net)) {
            return Err(Error::Overlap { subnet: *net, other: *other, owner: "the host's routes".into() });
        }
    }
    let count = |is_ipv6: bool| nets.iter().filter(|net| matches!(net, IpNet::V6(_)) == is_ipv6).count();
    if count(false) > 1 || count(true) > 1 {
        return Err(Error::TooMany { what: "subnets of one family on a network", limit: 1 });
    }
    if nets.is_empty() {
        let net = subnets::free_ipv4(&used, options.name == DEFAULT_NETWORK);
        nets.push(net.ok_or(Error::NoSubnet { family: "IPv4" })?.into());
    }
    if options.ipv6 && !nets.iter().any(|net| matches!(net, IpNet::V6(_))) {
        let net = subnets::free_ipv6(&used, random()?);
        nets.push(net.ok_or(Error::NoSubnet { family: "IPv6" })?.into());
    }
    let outside = |what, address| Error::OutOfRange { what, address, subnets: nets.clone() };
    let is_inside = |address: IpAddr| nets.iter().any(|net| subnets::is_usable(net, address));
    if let Some(gateway) = options.gateways.iter().find(|gateway| !is_inside(**gateway)) {
        return Err(outside("gateway", *gateway));
    }
    let in_one = |range: &AddressRange| nets.iter().any(|net| net.contains(&range.first) && net.contains(&range.last));
    if let Some(range) = options.ranges.iter().find(|range| !in_one(range)) {
        return Err(outside("range that begins at", range.first));
    }
    let complete = |net: &IpNet| Subnet {
        subnet: *net,
        gateway: *options.gateways.iter().find(|one| net.contains(*one)).unwrap_or(&subnets::first(net)),
        range: options.ranges.iter().find(|range| net.contains(&range.first)).copied(),
    };
    Ok(nets.iter().map(complete).collect())
}

fn check_subnet(net: &IpNet) -> Result<(), Error> {
    let address = net.network();
    let is_special = match net {
        IpNet::V4(net) => net.network().is_link_local() || net.prefix_len() < 2,
        IpNet::V6(net) => net.network().is_unicast_link_local() || net.prefix_len() < 4,
    };
    let is_small = net.max_prefix_len() - net.prefix_len() == 0;
    if is_special || is_small || address.is_loopback() || address.is_multicast() || address.is_unspecified() {
        let expected = "a subnet of ordinary addresses, at least two, such as 10.89.7.0/24 or fd00:1::/64";
        return Err(Error::Invalid { what: "subnet", text: net.to_string(), expected });
    }
    Ok(())
}

/// Removes a device and says whether it was there.
pub(crate) fn remove_device(name: &str) -> Result<bool, Error> {
    let failed = |source| Error::Kernel { attempt: format!("remove the device `{name}`"), source };
    if ctk_netlink::index_of(name).map_err(failed)?.is_none() {
        return Ok(false);
    }
    Netlink::open().and_then(|mut netlink| netlink.remove(Device::Name(name))).map_err(failed)
}
