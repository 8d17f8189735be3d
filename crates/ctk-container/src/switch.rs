//! A private network for tests: a bridge in a network namespace of its own, and a pair of devices per member.
//!
//! ```text
//!   switch's namespace            member's namespace
//!   br0 10.90.0.1/24 ── port2 ═══ eth0 10.90.0.2/24
//!                    └─ port3 ═══ eth0 10.90.0.3/24
//! ```
//! The namespaces have no names: they live as long as somebody holds them, so a killed process leaves none behind.
//! Members find each other by `/etc/hosts`, rewritten in place whenever somebody joins.

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ctk_netlink::{Bridge, Device, End, LOOPBACK, Netlink, Pair};
use ipnet::IpNet;

use crate::Error;
use crate::files::host_lines;
use crate::limits::SWITCH_MEMBERS;

const SUBNET: [u8; 3] = [10, 90, 0];
const PREFIX: u8 = 24;
const BRIDGE: u32 = 2;
/// The index of a member's device in its own namespace.
const MEMBER_DEVICE: u32 = 2;
/// A member's last address byte plus this is the index of its port, clear of the bridge's.
const FIRST_PORT: u32 = 1000;
const NEW_NETWORK: u32 = 0x4000_0000;

/// A private network: members reach each other by name, and nothing else. The host's network is not touched. Dropping
/// it removes it once its members are gone.
pub struct Switch {
    inner: Arc<Inner>,
}

struct Inner {
    namespace: OwnedFd,
    table: Mutex<Table>,
}

struct Table {
    netlink: Netlink,
    members: Vec<Member>,
}

struct Member {
    last_byte: u8,
    names: Vec<String>,
    hosts: Option<(PathBuf, String)>,
}

/// A member's place on the network. Dropping it unplugs it.
pub(crate) struct Port {
    inner: Arc<Inner>,
    namespace: OwnedFd,
    last_byte: u8,
}

impl Switch {
    /// A new, empty network.
    pub fn new() -> Result<Switch, Error> {
        let (namespace, mut netlink) = new_namespace().map_err(failed("a network namespace"))?;
        let set_up = |netlink: &mut Netlink| {
            netlink.up(LOOPBACK)?;
            netlink.add_bridge(&Bridge { name: "br0", index: Some(BRIDGE), mac: None, mtu: None })?;
            netlink.up(BRIDGE)?;
            netlink.add_address(BRIDGE, address_in_subnet(1))
        };
        set_up(&mut netlink).map_err(failed("the bridge"))?;
        let table = Mutex::new(Table { netlink, members: Vec::new() });
        Ok(Switch { inner: Arc::new(Inner { namespace, table }) })
    }

    /// The address behind a member's name.
    pub fn address(&self, name: &str) -> Option<Ipv4Addr> {
        let table = self.inner.lock();
        let member = table.members.iter().find(|member| member.names.iter().any(|n| n == name))?;
        Some(address(member.last_byte))
    }

    /// Opens a connection from inside the network to a member, by name or address.
    pub fn connect(&self, host: &str, port: u16, timeout: Duration) -> Result<TcpStream, Error> {
        let known = host.parse::<IpAddr>().ok().or_else(|| self.address(host).map(IpAddr::V4));
        let ip = known.ok_or_else(|| Error::UnknownMember { name: host.into() })?;
        let target = SocketAddr::new(ip, port);
        let connect = || TcpStream::connect_timeout(&target, timeout);
        inside(&self.inner.namespace, connect).map_err(|source| Error::Connect { host: host.into(), port, source })
    }

    /// Adds a member with a namespace of its own.
    pub(crate) fn plug(&self, names: &[String]) -> Result<Port, Error> {
        let (namespace, mut theirs) = new_namespace().map_err(failed("a member's namespace"))?;
        let mut table = self.inner.lock();
        let taken = |name: &&String| table.members.iter().any(|member| member.names.contains(name));
        if let Some(name) = names.iter().find(taken) {
            return Err(Error::NameTaken { name: name.clone() });
        }
        let free = (2..=254).find(|byte| table.members.iter().all(|member| member.last_byte != *byte));
        let last_byte = free.ok_or(Error::NetworkFull { limit: SWITCH_MEMBERS })?;
        let name = format!("port{last_byte}");
        let index = FIRST_PORT + u32::from(last_byte);
        let pair = Pair {
            here: End { name: &name, index: Some(index), mac: None },
            bridge: BRIDGE,
            there: End { name: "eth0", index: Some(MEMBER_DEVICE), mac: None },
            namespace: namespace.as_fd(),
            mtu: None,
        };
        table.netlink.add_pair(&pair).map_err(failed("a pair of devices"))?;
        // From here on a drop unplugs it.
        table.members.push(Member { last_byte, names: names.to_vec(), hosts: None });
        let up = table.netlink.up(index);
        drop(table);
        let port = Port { inner: Arc::clone(&self.inner), namespace, last_byte };
        up.map_err(failed("a port of the bridge"))?;
        let set_up = |netlink: &mut Netlink| {
            netlink.up(LOOPBACK)?;
            netlink.add_address(MEMBER_DEVICE, address_in_subnet(last_byte))?;
            netlink.up(MEMBER_DEVICE)
        };
        set_up(&mut theirs).map_err(failed("a member's device"))?;
        self.inner.rewrite_hosts(&mut self.inner.lock());
        Ok(port)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every member who is there. In place: the file is mounted into a container, so it must stay the same one.
    fn rewrite_hosts(&self, table: &mut Table) {
        let names: Vec<(String, IpAddr)> = table
            .members
            .iter()
            .flat_map(|m| m.names.iter().map(|name| (name.clone(), IpAddr::V4(address(m.last_byte)))))
            .collect();
        let lines = host_lines(&names);
        for (path, base) in table.members.iter().filter_map(|member| member.hosts.as_ref()) {
            let Ok(mut file) = File::options().write(true).open(path) else { continue };
            let text = format!("{base}{lines}");
            let _ = file.write_all(text.as_bytes()).and_then(|()| file.set_len(text.len() as u64));
        }
    }
}

impl Port {
    pub(crate) fn address(&self) -> Ipv4Addr {
        address(self.last_byte)
    }

    pub(crate) fn namespace(&self) -> &OwnedFd {
        &self.namespace
    }

    /// Keeps a hosts file, which begins with `base`, up to date with the members' names.
    pub(crate) fn keep_hosts_in(&self, path: &Path, base: &str) -> Result<(), Error> {
        let mut table = self.inner.lock();
        if let Some(member) = table.members.iter_mut().find(|member| member.last_byte == self.last_byte) {
            member.hosts = Some((path.into(), base.into()));
        }
        self.inner.rewrite_hosts(&mut table);
        Ok(())
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let mut table = self.inner.lock();
        table.members.retain(|member| member.last_byte != self.last_byte);
        // Gone already if the member's namespace was the last to hold it.
        let _ = table.netlink.remove(Device::Index(FIRST_PORT + u32::from(self.last_byte)));
        self.inner.rewrite_hosts(&mut table);
    }
}

fn address(last_byte: u8) -> Ipv4Addr {
    let [a, b, c] = SUBNET;
    Ipv4Addr::new(a, b, c, last_byte)
}

fn address_in_subnet(last_byte: u8) -> IpNet {
    IpNet::new_assert(address(last_byte).into(), PREFIX)
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::SetUpNetwork { what: what.into(), source }
}

/// A new network namespace and a connection to it. Made on a thread of its own, which it leaves.
fn new_namespace() -> io::Result<(OwnedFd, Netlink)> {
    on_thread(|| {
        ctk_sys::unshare(NEW_NETWORK)?;
        let namespace = File::open("/proc/thread-self/ns/net")?;
        Ok((namespace.into(), Netlink::open()?))
    })
}

/// Does something on a thread of its own inside a network namespace.
fn inside<T: Send>(namespace: &OwnedFd, job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_thread(|| {
        ctk_sys::set_controlling_namespace(namespace.as_fd(), NEW_NETWORK)?;
        job()
    })
}

fn on_thread<T: Send>(job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("ctk-network".into()).spawn_scoped(scope, job)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the network thread failed")))
    })
}
