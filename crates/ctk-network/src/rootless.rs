//! The network of an ordinary user's container: a program of the user's copies packets between the container's device
//! and the user's own sockets. `pasta` where it is installed: clients keep their addresses. `slirp4netns` else.
//!
//! Both need `/dev/net/tun`. The program outlives a killed monitor, since it holds the namespace that it works for: its
//! number is kept in the container's folder, and [`Relay::stop_left`] ends it for whoever finds the container dead.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Access;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;

use crate::limits::{HELPER_END, HELPER_START, STATE_FILE_BYTES};
use crate::publish::publish;
use crate::resolv::{self, ResolvConf};
use crate::{DnsOptions, Endpoint, Error, Port, Protocol, PublishedPort, files};

/// How the names of the programs begin: pasta is `pasta.avx2` on some machines.
const PROGRAMS: [&str; 2] = ["pasta", "slirp4netns"];
const TUN: &str = "/dev/net/tun";
/// Where pasta answers for the host's name servers, whatever their addresses are there.
const PASTA_NAMES: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Where slirp4netns does, and what it gives the container.
const SLIRP_NAMES: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
const SLIRP_CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
const NUMBER: &str = "relay.pid";
const LOG: &str = "relay.log";
const CONTROL: &str = "relay.socket";

/// What a relay is to do.
#[derive(Clone, Debug)]
pub struct RelayOptions<'a> {
    /// The container's own folder, for three small files.
    pub folder: &'a Path,
    /// Folders in which programs are searched, in this order.
    pub programs: &'a [PathBuf],
    /// The container's network namespace, e.g. `/proc/PID/ns/net`.
    pub namespace: &'a Path,
    /// The user namespace that it belongs to.
    pub user_namespace: &'a Path,
    /// Ports to publish.
    pub ports: &'a [Port],
    /// How names are found.
    pub dns: &'a DnsOptions,
    /// The container.
    pub endpoint: &'a Endpoint,
}

/// A program that is the network of one container.
#[derive(Debug)]
pub struct Relay {
    /// `pasta` or `slirp4netns`.
    pub program: &'static str,
    /// The published ports.
    pub ports: Vec<PublishedPort>,
    /// The text of the container's `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// The text of its `/etc/hosts`.
    pub hosts: String,
    held: Held,
}

/// The process of a relay. It is ended by this even where its folder is gone.
#[derive(Debug)]
pub(crate) struct Held {
    folder: PathBuf,
    process: Option<OwnedFd>,
}

impl Held {
    /// Who works for the container of this folder, if somebody does.
    pub(crate) fn find(folder: &Path) -> Result<Held, Error> {
        let bytes = files::read(&folder.join(NUMBER), 64)?.unwrap_or_default();
        let pid = String::from_utf8_lossy(&bytes).trim().parse().ok().and_then(Pid::from_raw);
        let process = pid.and_then(|pid| own_process(pid, folder)).or_else(|| search(folder));
        Ok(Held { folder: folder.into(), process })
    }

    /// Ends it, and removes its files. Its ports are free then.
    pub(crate) fn end(self) -> Result<(), Error> {
        if let Some(process) = &self.process {
            // Already gone is as good.
            let _ = pidfd_send_signal(process, Signal::KILL);
            let limit = Timespec { tv_sec: HELPER_END.as_secs() as i64, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit));
        }
        [CONTROL, LOG, NUMBER].into_iter().try_for_each(|name| files::remove(&self.folder.join(name)).map(drop))
    }
}

impl Relay {
    /// Starts it, and comes back when the container's device `eth0` is up. Blocks for some 40 ms.
    pub fn start(options: &RelayOptions<'_>) -> Result<Relay, Error> {
        let find = |name: &str| options.programs.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        let (pasta, slirp) = (find("pasta"), find("slirp4netns"));
        if pasta.is_none() && slirp.is_none() {
            return Err(Error::Unsupported {
                what: "the network of an ordinary user's container".into(),
                needs: "needs pasta (package passt) or slirp4netns; without, there are --network none and host".into(),
            });
        }
        if rustix::fs::access(TUN, Access::READ_OK | Access::WRITE_OK).is_err() {
            return Err(Error::Unsupported {
                what: "the network of an ordinary user's container".into(),
                needs: format!("needs {TUN} with mode 0666: ask the administrator for `chmod 0666 {TUN}`"),
            });
        }
        Relay::stop_left(options.folder)?;
        // That they are free and ours to take is said by us, with the port; the program takes them again.
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let ports = publish(options.ports, if pasta.is_some() { &any } else { &any[..1] })?.ports;
        let started = match (&pasta, &slirp) {
            (Some(pasta), _) => start_pasta(pasta, options, &ports),
            (None, Some(slirp)) => start_slirp(slirp, options, &ports),
            (None, None) => Ok(()),
        };
        if let Err(error) = started {
            // The first error is the one to tell.
            let _ = Relay::stop_left(options.folder);
            return Err(error);
        }
        let is_pasta = pasta.is_some();
        let conf = ResolvConf::of(options.dns)?;
        let names = if is_pasta { PASTA_NAMES } else { SLIRP_NAMES };
        let servers = if options.dns.servers.is_empty() { vec![IpAddr::V4(names)] } else { conf.servers.clone() };
        Ok(Relay {
            program: if is_pasta { "pasta" } else { "slirp4netns" },
            ports,
            resolv_conf: conf.text(&servers, false),
            hosts: resolv::hosts(options.endpoint, &[], options.dns)?,
            held: Held::find(options.folder)?,
        })
    }

    /// Ends it.
    pub fn stop(self) -> Result<(), Error> {
        self.held.end()
    }

    /// Ends the relay of a container whose folder this is, if one is left. Harmless if there is none.
    pub fn stop_left(folder: &Path) -> Result<(), Error> {
        Held::find(folder)?.end()
    }

    pub(crate) fn into_held(self) -> Held {
        self.held
    }
}

/// The process of this number, if it is our relay: numbers are given again, but nobody else names our folder.
fn own_process(pid: Pid, folder: &Path) -> Option<OwnedFd> {
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let arguments = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
    let folder = folder.to_str()?.as_bytes();
    let mut words = arguments.split(|byte| *byte == 0);
    let program = words.next().and_then(|word| word.rsplit(|byte| *byte == b'/').next()).unwrap_or_default();
    // The monitor names the folder, too.
    let is_relay = PROGRAMS.iter().any(|name| program.starts_with(name.as_bytes()));
    let is_own = is_relay && words.any(|word| word.windows(folder.len()).any(|part| part == folder));
    is_own.then_some(process)
}

/// The same without its number, which is written when the program is up: its monitor may have been killed before that.
fn search(folder: &Path) -> Option<OwnedFd> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let mut numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    numbers.find_map(|pid| own_process(pid, folder))
}

fn log(options: &RelayOptions<'_>) -> Result<(PathBuf, Stdio), Error> {
    let path = options.folder.join(LOG);
    let file = fs::File::create(&path).map_err(files::failed("make", &path))?;
    Ok((path, file.into()))
}

/// What it said, as the cause of an error.
fn failed(program: &str, log: &Path) -> Error {
    let said = files::read(log, STATE_FILE_BYTES).ok().flatten().unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    // It tries to reach the system's log first, and is told off about that.
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.contains("syslog"));
    let said = lines.collect::<Vec<_>>().join("; ");
    let said = if said.is_empty() { "it ended without a word".to_owned() } else { said };
    Error::Kernel { attempt: format!("start {program}"), source: io::Error::other(said) }
}

/// The network namespace, as standard input of the program: we may open it where a program that gave up what it could
/// do may not.
const AS_INPUT: &str = "/proc/self/fd/0";

fn namespace(options: &RelayOptions<'_>) -> Result<Stdio, Error> {
    Ok(fs::File::open(options.namespace).map_err(files::failed("open", options.namespace))?.into())
}

/// Whether we are in this user namespace: nobody can join the one that he is in.
fn is_ours(user_namespace: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| fs::metadata(path).map(|stat| (stat.dev(), stat.ino())).ok();
    identity(user_namespace) == identity(Path::new("/proc/self/ns/user"))
}

fn start_pasta(program: &Path, options: &RelayOptions<'_>, ports: &[PublishedPort]) -> Result<(), Error> {
    let (path, log) = log(options)?;
    let mut command = Command::new(program);
    command.args(["--config-net", "--quiet", "--no-map-gw", "--ns-ifname", "eth0"]);
    command.args(["--dns-forward", &PASTA_NAMES.to_string()]);
    // Nothing by itself: neither the container's ports on the host, nor the host's in the container.
    for (protocol, option, other) in [(Protocol::Tcp, "-t", "-T"), (Protocol::Udp, "-u", "-U")] {
        let mut forwards: Vec<String> =
            ports.iter().filter(|port| port.protocol == protocol).map(pasta_forward).collect();
        forwards.sort();
        forwards.dedup();
        if forwards.is_empty() {
            forwards.push("none".into());
        }
        for forward in forwards {
            command.args([option, &forward]);
        }
        command.args([other, "none"]);
    }
    if let Some(port) = ports.iter().find(|port| port.protocol == Protocol::Sctp) {
        let reason = format!("pasta does not pass SCTP on (port {})", port.host_port);
        return Err(Error::Unpublishable { reason });
    }
    command.arg("--pid").arg(options.folder.join(NUMBER));
    match is_ours(options.user_namespace) {
        true => command.arg("--netns-only"),
        false => command.arg("--userns").arg(options.user_namespace),
    };
    command.arg("--netns").arg(AS_INPUT);
    command.stdin(namespace(options)?).stdout(Stdio::null()).stderr(log);
    // It goes to the background when everything is set up.
    let status = command.status().map_err(|source| Error::Kernel { attempt: "start pasta".into(), source })?;
    if status.success() { Ok(()) } else { Err(failed("pasta", &path)) }
}

/// `[ADDRESS/]HOST:CONTAINER`.
fn pasta_forward(port: &PublishedPort) -> String {
    let address = if port.host_ip.is_unspecified() { String::new() } else { format!("{}/", port.host_ip) };
    format!("{address}{}:{}", port.host_port, port.container_port)
}

fn start_slirp(program: &Path, options: &RelayOptions<'_>, ports: &[PublishedPort]) -> Result<(), Error> {
    let (path, log) = log(options)?;
    let control = options.folder.join(CONTROL);
    let mut command = Command::new(program);
    command.args(["--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path"]);
    if !is_ours(options.user_namespace) {
        command.arg(format!("--userns-path={}", options.user_namespace.display()));
    }
    command.arg(format!("--api-socket={}", control.display())).arg(AS_INPUT).arg("eth0");
    command.stdin(namespace(options)?).stdout(Stdio::null()).stderr(log);
    let mut child = command.spawn().map_err(|source| Error::Kernel { attempt: "start slirp4netns".into(), source })?;
    files::replace(&options.folder.join(NUMBER), child.id().to_string().as_bytes(), false)?;
    let until = Instant::now() + HELPER_START;
    // It opens its socket when the device is up.
    while UnixStream::connect(&control).is_err() {
        if Instant::now() > until || child.try_wait().ok().flatten().is_some() {
            return Err(failed("slirp4netns", &path));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    ports.iter().try_for_each(|port| slirp_forward(&control, port))
}

fn slirp_forward(control: &Path, port: &PublishedPort) -> Result<(), Error> {
    let ask = || {
        let mut stream = UnixStream::connect(control)?;
        stream.set_read_timeout(Some(HELPER_START))?;
        let request = json!({ "execute": "add_hostfwd", "arguments": {
            "proto": port.protocol, "host_addr": port.host_ip, "host_port": port.host_port,
            "guest_addr": SLIRP_CONTAINER, "guest_port": port.container_port,
        }});
        stream.write_all(request.to_string().as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        match answer.get("error") {
            Some(error) => Err(io::Error::other(error.to_string())),
            None => Ok(()),
        }
    };
    ask().map_err(|source| Error::Kernel { attempt: format!("publish port {}", port.host_port), source })
}
