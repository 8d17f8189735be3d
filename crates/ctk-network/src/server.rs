//! The name server of one container: in its network namespace at 127.0.0.11, run by its monitor.
//!
//! It answers for the containers on the same networks and passes everything else on to the host's name servers, from
//! the host's network namespace. Its sockets have ports of their own; the packet filter in the container's namespace
//! leads port 53 of 127.0.0.11 there. So a container can serve names at port 53 itself.
//!
//! Questions over UDP wait in one loop, without threads. Who asks over TCP, which is rare, gets a thread.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use simple_dns::{Packet, RCODE};

use crate::limits::{DNS_ATTEMPT, DNS_CONNECTIONS, DNS_IDLE, DNS_PENDING, DNS_SERVERS, DNS_UDP_BYTES};
use crate::names::{ADDRESS, Names, Verdict, failure, generation};
use crate::namespace::inside;
use crate::networks::random;
use crate::nft::{Batch, IPV4, Nft};
use crate::resolv::ResolvConf;
use crate::{DnsOptions, Error, Networks, rules};

const PORT: u16 = 53;

/// Answers names in one container's network namespace.
pub struct NameServer {
    udp: UdpSocket,
    tcp: TcpListener,
    shared: Arc<Shared>,
}

/// What the loop and the threads know.
struct Shared {
    networks: Networks,
    id: String,
    options: DnsOptions,
    known: Mutex<(Option<Vec<u8>>, Names)>,
    turn: AtomicUsize,
    threads: AtomicUsize,
}

impl NameServer {
    /// Opens its sockets in the container's network namespace, whose loopback is up. `options` say who is asked what it
    /// does not know. It may be opened again, when an earlier one ended.
    pub fn open(
        networks: &Networks,
        id: &str,
        namespace: BorrowedFd<'_>,
        options: &DnsOptions,
    ) -> Result<NameServer, Error> {
        let failed = |source| Error::Kernel { attempt: "open the container's name server".into(), source };
        let (udp, tcp) = inside(namespace, || {
            let udp = UdpSocket::bind((ADDRESS, 0)).map_err(failed)?;
            let tcp = TcpListener::bind((ADDRESS, 0)).map_err(failed)?;
            let ports = (udp.local_addr().map_err(failed)?.port(), tcp.local_addr().map_err(failed)?.port());
            match redirect(ports) {
                Ok(()) => Ok((udp, tcp)),
                // Without a packet filter it is there itself, and the container cannot be.
                Err(_) => Ok((
                    UdpSocket::bind((ADDRESS, PORT)).map_err(failed)?,
                    TcpListener::bind((ADDRESS, PORT)).map_err(failed)?,
                )),
            }
        })?;
        udp.set_nonblocking(true).map_err(failed)?;
        tcp.set_nonblocking(true).map_err(failed)?;
        let shared = Shared {
            networks: networks.clone(),
            id: id.into(),
            options: options.clone(),
            known: Mutex::new((None, Names::load(networks, id)?)),
            turn: AtomicUsize::new(0),
            threads: AtomicUsize::new(0),
        };
        Ok(NameServer { udp, tcp, shared: Arc::new(shared) })
    }

    /// Answers until `cancel` can be read from, or is closed at its other end. To be called in the host's network
    /// namespace.
    pub fn run(self, cancel: BorrowedFd<'_>) -> Result<(), Error> {
        let mut loop_ = Loop { server: self, pending: Vec::new(), streams: Vec::new() };
        let result = loop_.run(cancel);
        for stream in loop_.streams.iter().filter_map(std::sync::Weak::upgrade) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        result.map_err(|source| Error::Kernel { attempt: "answer the container's questions for names".into(), source })
    }
}

/// In the container's namespace: port 53 leads to these.
fn redirect((udp, tcp): (u16, u16)) -> io::Result<()> {
    let nft = Nft::open()?;
    let mut batch = Batch::new(IPV4);
    // An earlier name server's goes in the same moment.
    if nft.userdata(IPV4, rules::NAMES_TABLE)?.is_some() {
        batch.remove_table(rules::NAMES_TABLE);
    }
    rules::names(&mut batch, udp, tcp);
    nft.commit(batch)
}

impl Shared {
    fn answer(&self, question: &[u8], over_tcp: bool) -> Verdict {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // What is written is compared before what is read: a change in between is read again next time.
        let now = generation(&self.networks);
        if known.0 != now {
            // A folder that cannot be read now says nothing new.
            if let Ok(names) = Names::load(&self.networks, &self.id) {
                *known = (now, names);
            }
        }
        known.1.answer(question, over_tcp, self.turn.fetch_add(1, Ordering::Relaxed))
    }

    /// The name servers that are asked: the host's may change while the container runs.
    fn servers(&self) -> Vec<SocketAddr> {
        let servers = ResolvConf::of(&self.options).map(|conf| conf.servers).unwrap_or_default();
        servers.into_iter().take(DNS_SERVERS).map(|address| SocketAddr::new(address, PORT)).collect()
    }
}

struct Loop {
    server: NameServer,
    pending: Vec<Pending>,
    streams: Vec<std::sync::Weak<TcpStream>>,
}

/// A question that somebody else was asked.
struct Pending {
    client: SocketAddr,
    question: Vec<u8>,
    /// Those that were not asked yet, the next last.
    servers: Vec<SocketAddr>,
    socket: UdpSocket,
    id: [u8; 2],
    until: Instant,
}

impl Loop {
    fn run(&mut self, cancel: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            let mut fds = vec![
                PollFd::from_borrowed_fd(cancel, PollFlags::IN),
                PollFd::new(&self.server.udp, PollFlags::IN),
                PollFd::new(&self.server.tcp, PollFlags::IN),
            ];
            fds.extend(self.pending.iter().map(|pending| PollFd::new(&pending.socket, PollFlags::IN)));
            let wait = self.pending.iter().map(|pending| pending.until).min();
            let wait = wait.map(|until| timespec(until.saturating_duration_since(Instant::now())));
            match poll(&mut fds, wait.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(fds);
            if ready[0] {
                return Ok(());
            }
            self.hear(&ready[3..]);
            if ready[1] {
                self.questions();
            }
            if ready[2] {
                self.accept();
            }
        }
    }

    /// Answers of others, and those that did not come.
    fn hear(&mut self, ready: &[bool]) {
        let now = Instant::now();
        for (position, mut pending) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            let is_ready = ready.get(position).copied().unwrap_or(false);
            match if is_ready { pending.receive() } else { Heard::Nothing } {
                Heard::Answer(bytes) => drop(self.server.udp.send_to(&bytes, pending.client)),
                Heard::Nothing if pending.until > now => self.pending.push(pending),
                Heard::Nothing => self.ask(pending.client, pending.question, pending.servers, None),
                Heard::Failed(bytes) => self.ask(pending.client, pending.question, pending.servers, bytes),
            }
        }
    }

    fn questions(&mut self) {
        let mut buffer = [0; DNS_UDP_BYTES];
        // As many as may wait; then others have their turn.
        for _ in 0..DNS_PENDING {
            let Ok((length, client)) = self.server.udp.recv_from(&mut buffer) else { return };
            let question = &buffer[..length];
            match self.server.shared.answer(question, false) {
                Verdict::Answer(bytes) => drop(self.server.udp.send_to(&bytes, client)),
                Verdict::Forward if self.pending.len() < DNS_PENDING => {
                    let mut servers = self.server.shared.servers();
                    servers.reverse();
                    self.ask(client, question.into(), servers, None);
                }
                Verdict::Forward => self.fail(client, question, None),
                Verdict::Ignore => {}
            }
        }
    }

    /// Asks the next server, or says that there is none; `last` is what the one before said.
    fn ask(&mut self, client: SocketAddr, question: Vec<u8>, mut servers: Vec<SocketAddr>, last: Option<Vec<u8>>) {
        while let Some(server) = servers.pop() {
            if let Ok((socket, id)) = send(server, &question) {
                let until = Instant::now() + DNS_ATTEMPT;
                self.pending.push(Pending { client, question, servers, socket, id, until });
                return;
            }
        }
        self.fail(client, &question, last);
    }

    fn fail(&self, client: SocketAddr, question: &[u8], last: Option<Vec<u8>>) {
        if let Some(bytes) = last.or_else(|| failure(question)) {
            let _ = self.server.udp.send_to(&bytes, client);
        }
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.server.tcp.accept() else { return };
        let shared = Arc::clone(&self.server.shared);
        if shared.threads.load(Ordering::Relaxed) >= DNS_CONNECTIONS {
            // Closed: the client may come again.
            return;
        }
        self.streams.retain(|stream| stream.strong_count() > 0);
        let stream = Arc::new(stream);
        self.streams.push(Arc::downgrade(&stream));
        shared.threads.fetch_add(1, Ordering::Relaxed);
        let counted = Arc::clone(&shared);
        let serve = move || {
            // Whoever closes or breaks the connection has heard enough.
            let _ = serve(&stream, &shared);
            shared.threads.fetch_sub(1, Ordering::Relaxed);
        };
        if std::thread::Builder::new().name("ctk-names".into()).stack_size(128 * 1024).spawn(serve).is_err() {
            counted.threads.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    // Up to the next millisecond, so that it is over when we wake.
    let duration = duration + Duration::from_millis(1);
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}

/// Sends a question from a port that only the kernel knows, with a number that only we know: who cannot see it cannot
/// answer in the server's name.
fn send(server: SocketAddr, question: &[u8]) -> io::Result<(UdpSocket, [u8; 2])> {
    let any: IpAddr = if server.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    let [a, b, ..] = random().map_err(io::Error::other)?.to_ne_bytes();
    let mut bytes = question.to_vec();
    bytes[..2].copy_from_slice(&[a, b]);
    socket.send(&bytes)?;
    Ok((socket, [a, b]))
}

enum Heard {
    Answer(Vec<u8>),
    /// The server cannot, in its own words if it said so.
    Failed(Option<Vec<u8>>),
    Nothing,
}

impl Pending {
    fn receive(&mut self) -> Heard {
        let mut buffer = [0; DNS_UDP_BYTES];
        match self.socket.recv(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Heard::Nothing,
            // Nobody listens there.
            Err(_) => Heard::Failed(None),
            Ok(length) => {
                let bytes = &mut buffer[..length];
                if !is_answer(bytes, self.id, &self.question) {
                    return Heard::Nothing;
                }
                bytes[..2].copy_from_slice(&self.question[..2]);
                // It cannot, does not, or will not: another may.
                let code = Packet::parse(bytes).map(|packet| packet.rcode());
                if let Ok(RCODE::ServerFailure | RCODE::NotImplemented | RCODE::Refused) = code {
                    return Heard::Failed(Some(bytes.to_vec()));
                }
                Heard::Answer(bytes.to_vec())
            }
        }
    }
}

/// Whether it answers this question, asked with this number.
fn is_answer(bytes: &[u8], id: [u8; 2], question: &[u8]) -> bool {
    if bytes.len() < 12 || bytes[..2] != id || bytes[2] & 0x80 == 0 {
        return false;
    }
    let (Ok(answer), Ok(asked)) = (Packet::parse(bytes), Packet::parse(question)) else {
        // What the parser does not know may be right: the number and the port were.
        return true;
    };
    match (answer.questions.as_slice(), asked.questions.as_slice()) {
        // Some errors come without the question.
        ([], _) => true,
        ([one], [other]) => {
            let name = |name: &simple_dns::Name<'_>| name.to_string().to_ascii_lowercase();
            name(&one.qname) == name(&other.qname) && one.qtype == other.qtype
        }
        _ => false,
    }
}

/// One connection: questions one after the other.
fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(DNS_IDLE))?;
    stream.set_write_timeout(Some(DNS_IDLE))?;
    loop {
        let question = read_message(stream)?;
        let answer = match shared.answer(&question, true) {
            Verdict::Answer(bytes) => Some(bytes),
            Verdict::Forward => forward(&question, &shared.servers()).or_else(|| failure(&question)),
            Verdict::Ignore => None,
        };
        let Some(answer) = answer else { return Ok(()) };
        write_message(stream, &answer)?;
    }
}

fn forward(question: &[u8], servers: &[SocketAddr]) -> Option<Vec<u8>> {
    servers.iter().find_map(|server| {
        let ask = || -> io::Result<Vec<u8>> {
            let stream = TcpStream::connect_timeout(server, DNS_ATTEMPT)?;
            stream.set_read_timeout(Some(DNS_ATTEMPT))?;
            stream.set_write_timeout(Some(DNS_ATTEMPT))?;
            write_message(&stream, question)?;
            read_message(&stream)
        };
        let id = *question.first_chunk::<2>()?;
        ask().ok().filter(|bytes| is_answer(bytes, id, question))
    })
}

/// A message over TCP has its length before it (RFC 1035, 4.2.2).
fn read_message(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn write_message(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat())
}
