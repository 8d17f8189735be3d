//! An ordinary user's container: through pasta, through slirp4netns, through neither.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::*;
use ctk_network::{DnsOptions, Relay, RelayOptions};

const NEW_MOUNTS: u32 = 0x0002_0000;
const USER: &str = "65534";

/// Not a test: what an ordinary user's process does. `CTK_NETWORK_RELAY` is the folder, the container's process and
/// where programs are; it says how it went in the file `said`.
#[test]
fn user() {
    let Ok(text) = std::env::var("CTK_NETWORK_RELAY") else { return };
    let [folder, pid, programs] = text.split(',').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let ports = ["8080:7000", "8080:7000/udp", "127.0.0.1:8081:7000"].map(|text| text.parse().unwrap());
    let endpoint = endpoint("one");
    let options = RelayOptions {
        folder: Path::new(folder),
        programs: &[PathBuf::from(programs)],
        namespace: &PathBuf::from(format!("/proc/{pid}/ns/net")),
        user_namespace: &PathBuf::from(format!("/proc/{pid}/ns/user")),
        ports: &ports,
        dns: &DnsOptions::default(),
        endpoint: &endpoint,
    };
    let said = match Relay::start(&options) {
        Ok(relay) => format!("{} {}", relay.program, relay.resolv_conf.trim()),
        Err(error) => error.to_string(),
    };
    std::fs::write(Path::new(folder).join("said"), said).unwrap();
}

struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Ordinary {
    lab: Lab,
    folder: tempfile::TempDir,
    container: Sleeper,
    space: std::os::fd::OwnedFd,
}

impl Drop for Ordinary {
    fn drop(&mut self) {
        let _ = Relay::stop_left(self.folder.path());
    }
}

fn as_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups"]).arg(program);
    command.stdin(Stdio::null());
    command
}

/// A container of an ordinary user, on a host whose `/dev/net/tun` has this mode.
fn ordinary(tun_mode: &str) -> Option<Ordinary> {
    let lab = lab()?;
    // Not by the address that others ask from: old versions of pasta answer for their gateway themselves.
    within(&lab.world, || ip("addr add 192.0.2.7/24 dev world0"));
    ip("route add default via 192.0.2.7");
    ctk_sys::unshare(NEW_MOUNTS).unwrap();
    run("mount", "--make-rprivate /");
    let folder = tempfile::tempdir().unwrap();
    let tun = folder.path().join("tun");
    run("mknod", &format!("-m {tun_mode} {} c 10 200", tun.display()));
    run("mount", &format!("--bind {} /dev/net/tun", tun.display()));
    run("chown", &format!("{USER} {}", folder.path().display()));
    let mut container = as_user(Path::new("unshare"));
    let container = container.args(["--user", "--map-root-user", "--net", "sleep", "100"]).spawn().unwrap();
    let container = Sleeper(container);
    let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let path = format!("/proc/{}/ns/net", container.0.id());
    eventually("the container has its namespace", || std::fs::read_link(&path).is_ok_and(|link| link != own));
    let space = std::fs::File::open(&path).unwrap().into();
    Some(Ordinary { lab, folder, container, space })
}

impl Ordinary {
    /// What the user's process said.
    fn relay(&self, programs: &str) -> String {
        let text = format!("{},{},{programs}", self.folder.path().display(), self.container.0.id());
        // A copy, where every user may read it.
        let copy = self.folder.path().join("user");
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        let mut command = as_user(&copy);
        command.args(["--exact", "user"]).env("CTK_NETWORK_RELAY", text).stdout(Stdio::null());
        assert!(command.status().unwrap().success());
        std::fs::read_to_string(self.folder.path().join("said")).unwrap()
    }

    fn programs(&self, name: &str) -> Option<String> {
        let found = Path::new("/usr/bin").join(name);
        if !found.exists() {
            assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs {name}");
            eprintln!("skipped: needs {name}");
            return None;
        }
        let folder = self.folder.path().join("programs");
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(found, folder.join(name)).unwrap();
        Some(folder.display().to_string())
    }

    fn processes(&self) -> usize {
        let folder = self.folder.path().display().to_string();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let named = |entry: &std::fs::DirEntry| {
            let text = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(&format!("{folder}/relay"))
        };
        all.filter(named).count()
    }
}

#[test]
fn pasta_keeps_the_clients_address() {
    let Some(ordinary) = ordinary("666") else { return };
    let Some(programs) = ordinary.programs("pasta") else { return };
    assert_eq!(ordinary.relay(&programs), "pasta nameserver 169.254.1.1");
    within(&ordinary.space, || serve(7000));
    within(&ordinary.lab.world, || serve(7001));
    let host = ip_of("192.0.2.1");
    // Old versions of pasta lose an answer that comes together with the end of its connection, now and then.
    let is_kept = || within(&ordinary.lab.world, || ask_tcp(host, 8080)) == "192.0.2.2";
    eventually("the client's address is kept", is_kept);
    assert_eq!(within(&ordinary.lab.world, || ask_udp(host, 8080)), "192.0.2.2");
    assert_eq!(within(&ordinary.lab.world, || ask_tcp(host, 8081)), "ConnectionRefused");
    assert!(ask_tcp(ip_of("127.0.0.1"), 8081).parse::<std::net::IpAddr>().is_ok());
    assert_eq!(within(&ordinary.space, || ask_tcp(ip_of("192.0.2.2"), 7001)), "192.0.2.1");
    assert!(within(&ordinary.space, || ip("addr show eth0")).contains("192.0.2.1"));
    // The host's loopback is not the container's, by no address.
    serve(7002);
    assert_ne!(within(&ordinary.space, || ask_tcp(ip_of("192.0.2.2"), 7002)), "127.0.0.1");
    assert_eq!(ordinary.processes(), 1);
    // Its monitor is gone: whoever finds the container dead ends what it left, at once, and somebody else's number in the
    // file harms nobody.
    std::fs::write(ordinary.folder.path().join("relay.pid"), std::process::id().to_string()).unwrap();
    Relay::stop_left(ordinary.folder.path()).unwrap();
    assert_eq!(ordinary.processes(), 0);
    Relay::stop_left(ordinary.folder.path()).unwrap();
}

#[test]
fn slirp4netns_is_the_second_choice() {
    let Some(ordinary) = ordinary("666") else { return };
    let Some(programs) = ordinary.programs("slirp4netns") else { return };
    assert_eq!(ordinary.relay(&programs), "slirp4netns nameserver 10.0.2.3");
    within(&ordinary.space, || serve(7000));
    within(&ordinary.lab.world, || serve(7001));
    let host = ip_of("192.0.2.1");
    assert_eq!(within(&ordinary.lab.world, || ask_tcp(host, 8080)), "192.0.2.2");
    assert_eq!(within(&ordinary.lab.world, || ask_udp(host, 8080)), "192.0.2.2");
    assert_eq!(ask_tcp(ip_of("127.0.0.1"), 8081), "10.0.2.2");
    assert_eq!(within(&ordinary.lab.world, || ask_tcp(host, 8081)), "ConnectionRefused");
    assert_eq!(within(&ordinary.space, || ask_tcp(ip_of("192.0.2.2"), 7001)), "192.0.2.1");
    Relay::stop_left(ordinary.folder.path()).unwrap();
    assert_eq!(ordinary.processes(), 0);
}

#[test]
fn what_is_missing_is_said() {
    let Some(ordinary) = ordinary("600") else { return };
    assert_eq!(
        ordinary.relay("/nowhere"),
        "the network of an ordinary user's container needs pasta (package passt) or slirp4netns; without, there are \
         --network none and host"
    );
    let Some(programs) = ordinary.programs("pasta") else { return };
    assert_eq!(
        ordinary.relay(&programs),
        "the network of an ordinary user's container needs /dev/net/tun with mode 0666: ask the administrator for \
         `chmod 0666 /dev/net/tun`"
    );
}

#[test]
fn a_port_in_use_is_said_before_anything_starts() {
    let Some(ordinary) = ordinary("666") else { return };
    let Some(programs) = ordinary.programs("pasta") else { return };
    let _taken = std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
    assert_eq!(ordinary.relay(&programs), "the host's tcp port 8080 on 0.0.0.0 is already in use");
    assert_eq!(ordinary.processes(), 0);
}
