//! A host of its own for each test: network namespaces that nobody else sees, and real packets between them.
#![allow(dead_code)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ctk_network::{Attachment, DnsOptions, Endpoint, Error, Join, NameServer, NetworkOptions, Networks, Port};

const NEW_NETWORK: u32 = 0x4000_0000;

/// The calling thread's new host: a loopback, and `uplink` to a namespace that plays the rest of the world.
///
/// ```text
/// host: uplink 192.0.2.1/24, 2001:db8::1/64 ═══ world: 192.0.2.2/24, 2001:db8::2/64
/// ```
pub struct Lab {
    pub directory: tempfile::TempDir,
    pub networks: Networks,
    pub world: OwnedFd,
    pub host: OwnedFd,
}

/// `None`, and a word about it, where there can be no such host.
pub fn lab() -> Option<Lab> {
    let found = |program: &str| ["/usr/sbin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(program).exists());
    let missing = if !rustix::process::geteuid().is_root() {
        "root"
    } else if !found("ip") {
        "ip (iproute2)"
    } else if !found("nft") {
        "nft (nftables)"
    } else {
        return Some(make());
    };
    assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs {missing}");
    eprintln!("skipped: needs {missing}");
    None
}

fn make() -> Lab {
    ctk_sys::unshare(NEW_NETWORK).unwrap();
    ip("link set lo up");
    let world = namespace();
    for setting in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
        fs::write(setting, "0").unwrap();
    }
    ip("link add uplink type veth peer name world0");
    ip("link set uplink addrgenmode none");
    move_device("world0", &world);
    ip("addr add 192.0.2.1/24 dev uplink");
    ip("-6 addr add 2001:db8::1/64 dev uplink nodad");
    ip("link set uplink up");
    within(&world, || {
        ip("link set lo up");
        ip("addr add 192.0.2.2/24 dev world0");
        ip("-6 addr add 2001:db8::2/64 dev world0 nodad");
        ip("link set world0 up");
        // It knows no way to the containers.
    });
    eventually("the world is there", || {
        ip("link show uplink").contains("state UP") && ip("-6 route show table local").contains("local 2001:db8::1")
    });
    let directory = tempfile::tempdir().unwrap();
    let networks = Networks::open(&directory.path().join("networks")).unwrap();
    let host = File::open("/proc/thread-self/ns/net").unwrap().into();
    Lab { directory, networks, world, host }
}

fn move_device(name: &str, to: &OwnedFd) {
    // `ip` takes a path; ours is a descriptor of this process.
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(to));
    ip(&format!("link set {name} netns {path}"));
}

/// A new network namespace with nothing up.
pub fn namespace() -> OwnedFd {
    std::thread::spawn(|| {
        ctk_sys::unshare(NEW_NETWORK).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap().into()
    })
    .join()
    .unwrap()
}

/// Does something inside a namespace.
pub fn within<T: Send>(namespace: &OwnedFd, job: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let enter = || {
            ctk_sys::set_controlling_namespace(namespace.as_fd(), NEW_NETWORK).unwrap();
            job()
        };
        scope.spawn(enter).join().unwrap()
    })
}

pub fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

pub fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_ascii_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A namespace that is a container, for as long as it is held.
pub struct Box_ {
    pub id: String,
    pub namespace: OwnedFd,
    pub attachment: Attachment,
}

impl Lab {
    pub fn network(&self, name: &str, change: impl FnOnce(&mut NetworkOptions)) {
        let mut options = NetworkOptions { name: name.into(), ..NetworkOptions::default() };
        change(&mut options);
        self.networks.create(&options).unwrap();
    }

    pub fn try_attach(&self, name: &str, joins: &[Join], ports: &[&str]) -> Result<Box_, Error> {
        let namespace = namespace();
        let ports = ports.iter().map(|text| text.parse()).collect::<Result<Vec<Port>, Error>>()?;
        let endpoint = endpoint(name);
        let attachment = self.networks.attach(&endpoint, namespace.as_fd(), joins, &ports, &self.dns())?;
        Ok(Box_ { id: endpoint.id, namespace, attachment })
    }

    #[track_caller]
    pub fn attach(&self, name: &str, networks: &[&str], ports: &[&str]) -> Box_ {
        let joins: Vec<Join> = networks.iter().map(|network| join(network)).collect();
        self.try_attach(name, &joins, ports).unwrap()
    }

    pub fn dns(&self) -> DnsOptions {
        DnsOptions { host_resolv_conf: self.resolv_conf(), ..DnsOptions::default() }
    }

    pub fn resolv_conf(&self) -> PathBuf {
        self.directory.path().join("resolv.conf")
    }

    /// Runs the container's name server until what comes back is dropped.
    pub fn name_server(&self, of: &Box_) -> Running {
        self.name_server_with(of, &self.dns())
    }

    pub fn name_server_with(&self, of: &Box_, dns: &DnsOptions) -> Running {
        let server = NameServer::open(&self.networks, &of.id, of.namespace.as_fd(), dns).unwrap();
        let (stop, cancel) = rustix::pipe::pipe().map(|(read, write)| (write, read)).unwrap();
        // A new thread is in the namespace of the one that starts it.
        let thread = std::thread::spawn(move || server.run(cancel.as_fd()).unwrap());
        Running { stop: Some(stop), thread: Some(thread) }
    }

    /// Everything that a network could leave behind.
    pub fn state(&self) -> State {
        let mut text = ip("-d addr") + &ip("route show table all") + &ip("-6 route show table all");
        text += &ip("rule");
        text += &run("nft", "list ruleset");
        let mut settings = Vec::new();
        collect(Path::new("/proc/sys/net/ipv4"), &mut settings);
        collect(Path::new("/proc/sys/net/ipv6"), &mut settings);
        settings.sort();
        State(text + &settings.join("\n"))
    }
}

/// What `ip`, `nft` and the kernel's settings say.
#[derive(PartialEq, Eq)]
pub struct State(pub String);

impl State {
    /// Nothing but what was before.
    #[track_caller]
    pub fn is_again(&self, before: &State) {
        let other = |one: &State, other: &State| -> Vec<String> {
            let lines = one.0.lines().filter(|line| !other.0.lines().any(|known| known == *line));
            lines.map(str::to_owned).collect()
        };
        let (new, gone) = (other(self, before), other(before, self));
        assert!(self == before, "new: {new:#?}\ngone: {gone:#?}");
    }
}

fn collect(folder: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, into);
        } else if let Ok(text) = fs::read_to_string(&path) {
            // Counters and random keys.
            if !["route/flush", "stat_refresh", "secret", "tcp_fastopen_key"].iter().any(|one| path.ends_with(one)) {
                into.push(format!("{} {}", path.display(), text.trim()));
            }
        }
    }
}

pub struct Running {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

pub fn endpoint(name: &str) -> Endpoint {
    let id = format!("{:0<64}", name.bytes().map(|byte| format!("{byte:02x}")).collect::<String>());
    Endpoint { id, name: name.into(), hostname: name.into() }
}

pub fn join(network: &str) -> Join {
    Join { network: network.into(), ..Join::default() }
}

impl Box_ {
    pub fn address(&self, network: usize, ipv6: bool) -> IpAddr {
        let addresses = &self.attachment.interfaces[network].addresses;
        addresses.iter().map(|net| net.addr()).find(|address| address.is_ipv6() == ipv6).unwrap()
    }

    /// A service that tells each who connects from where.
    pub fn serve(&self, port: u16) {
        within(&self.namespace, || serve(port));
    }
}

/// Answers TCP and UDP at a port with the address that the client has here.
pub fn serve(port: u16) {
    let tcp = TcpListener::bind(("::", port)).unwrap();
    let udp = UdpSocket::bind(("::", port)).unwrap();
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().map_while(Result::ok) {
            let peer = stream.peer_addr().unwrap();
            let _ = stream.read_exact(&mut [0]);
            let _ = stream.write_all(peer.ip().to_canonical().to_string().as_bytes());
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(peer.ip().to_canonical().to_string().as_bytes(), peer);
        }
    });
}

/// What a service says over TCP; an error's kind if it cannot be reached.
pub fn ask_tcp(address: IpAddr, port: u16) -> String {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_millis(700))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"?")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    ask().unwrap_or_else(|error| format!("{:?}", error.kind()))
}

/// The same over UDP.
pub fn ask_udp(address: IpAddr, port: u16) -> String {
    let ask = || {
        let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(Duration::from_millis(700)))?;
        socket.connect((address, port))?;
        socket.send(b"?")?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    ask().unwrap_or_else(|error| format!("{:?}", error.kind()))
}

/// Waits until something is so; a device goes some time after its namespace.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn ip_of(text: &str) -> IpAddr {
    text.parse().unwrap()
}
