//! Published ports at `::1` of the host itself.
//!
//! Packets to any other address are led to the container by the packet filter, 127.0.0.1 included. For `::1` the kernel
//! has no such thing (there is no `route_localnet` for IPv6), so a thread of the container's monitor copies: the sockets
//! that hold the ports listen, and only clients at `::1` are answered. The container sees the host's address on its
//! network, as it does of clients at 127.0.0.1.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::limits::{LOOPBACK_BYTES, LOOPBACK_CONNECT, LOOPBACK_CONNECTIONS, LOOPBACK_FLOW_IDLE, LOOPBACK_FLOWS};
use crate::{Error, Protocol, PublishedPort};

/// A thread that copies. Dropping it stops it, and ends its connections.
#[derive(Debug)]
pub(crate) struct Loopback {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Loopback {
    /// Begins to listen at those of the `reserved` sockets that `::1` is among the addresses of; none if there are none.
    pub(crate) fn start(reserved: &[OwnedFd], ports: &[PublishedPort]) -> Result<Option<Loopback>, Error> {
        let failed = |source| Error::Kernel { attempt: "listen at published ports of ::1".into(), source };
        let mut copier = Copier::default();
        for socket in reserved {
            copier.add(socket, ports).map_err(failed)?;
        }
        if copier.listeners.is_empty() && copier.datagrams.is_empty() {
            return Ok(None);
        }
        let (cancel, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        let run = move || copier.run(cancel.as_fd());
        let thread = std::thread::Builder::new().name("ctk-loopback".into()).stack_size(256 * 1024).spawn(run);
        Ok(Some(Loopback { stop: Some(stop), thread: Some(thread.map_err(failed)?) }))
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Default)]
struct Copier {
    listeners: Vec<(TcpListener, SocketAddr)>,
    datagrams: Vec<(UdpSocket, SocketAddr)>,
    /// Clients over UDP: the socket that they came to, and the one by which the container is asked for them.
    flows: Vec<Flow>,
    streams: Vec<Weak<TcpStream>>,
    connections: Arc<AtomicUsize>,
}

struct Flow {
    from: usize,
    client: SocketAddr,
    socket: UdpSocket,
    last: Instant,
}

#[derive(Clone, Copy)]
enum Source {
    Listener(usize),
    Datagrams(usize),
    Flow(usize),
}

impl Copier {
    fn add(&mut self, socket: &OwnedFd, ports: &[PublishedPort]) -> io::Result<()> {
        let Ok(bound) = SocketAddr::try_from(rustix::net::getsockname(socket)?) else { return Ok(()) };
        let IpAddr::V6(address) = bound.ip() else { return Ok(()) };
        let protocol = match rustix::net::sockopt::socket_protocol(socket)? {
            Some(rustix::net::ipproto::TCP) => Protocol::Tcp,
            Some(rustix::net::ipproto::UDP) => Protocol::Udp,
            _ => return Ok(()),
        };
        let is_it = |port: &&PublishedPort| {
            port.host_ip == bound.ip() && port.host_port == bound.port() && port.protocol == protocol
        };
        let found = ports.iter().find(is_it).filter(|_| address.is_unspecified() || address == Ipv6Addr::LOCALHOST);
        let Some(port) = found else { return Ok(()) };
        let target = SocketAddr::new(port.container_ip, port.container_port);
        let socket = socket.try_clone()?;
        match protocol {
            Protocol::Tcp => {
                rustix::net::listen(&socket, 128)?;
                let listener = TcpListener::from(socket);
                listener.set_nonblocking(true)?;
                self.listeners.push((listener, target));
            }
            _ => {
                let socket = UdpSocket::from(socket);
                socket.set_nonblocking(true)?;
                self.datagrams.push((socket, target));
            }
        }
        Ok(())
    }

    /// What one client meets, the others do not hear.
    fn run(mut self, cancel: BorrowedFd<'_>) {
        let mut buffer = vec![0; LOOPBACK_BYTES];
        loop {
            let mut sources = Vec::new();
            let mut files = vec![PollFd::from_borrowed_fd(cancel, PollFlags::IN)];
            for (index, (listener, _)) in self.listeners.iter().enumerate() {
                sources.push(Source::Listener(index));
                files.push(PollFd::new(listener, PollFlags::IN));
            }
            for (index, (socket, _)) in self.datagrams.iter().enumerate() {
                sources.push(Source::Datagrams(index));
                files.push(PollFd::new(socket, PollFlags::IN));
            }
            for (index, flow) in self.flows.iter().enumerate() {
                sources.push(Source::Flow(index));
                files.push(PollFd::new(&flow.socket, PollFlags::IN));
            }
            let limit = Timespec { tv_sec: LOOPBACK_FLOW_IDLE.as_secs() as i64, tv_nsec: 0 };
            let _ = poll(&mut files, (!self.flows.is_empty()).then_some(&limit));
            let mut ready = files.iter().map(|file| !file.revents().is_empty());
            if ready.next() == Some(true) {
                break;
            }
            let ready: Vec<Source> = sources.iter().zip(ready).filter(|(_, is)| *is).map(|(s, _)| *s).collect();
            for source in ready {
                match source {
                    Source::Listener(index) => self.accept(index),
                    Source::Datagrams(index) => self.ask(index, &mut buffer),
                    Source::Flow(index) => self.answer(index, &mut buffer),
                }
            }
            self.flows.retain(|flow| flow.last.elapsed() < LOOPBACK_FLOW_IDLE);
        }
        for stream in self.streams.iter().filter_map(Weak::upgrade) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn accept(&mut self, index: usize) {
        let Some((listener, target)) = self.listeners.get(index) else { return };
        let Ok((client, from)) = listener.accept() else { return };
        self.streams.retain(|stream| stream.strong_count() > 0);
        // The packet filter has led everybody else elsewhere, unless somebody emptied it.
        if from.ip() != Ipv6Addr::LOCALHOST || self.connections.load(Ordering::Relaxed) >= LOOPBACK_CONNECTIONS {
            return;
        }
        let (client, target, connections) = (Arc::new(client), *target, Arc::clone(&self.connections));
        self.streams.push(Arc::downgrade(&client));
        connections.fetch_add(1, Ordering::Relaxed);
        let counted = Arc::clone(&connections);
        let copy = move || {
            let _ = connect(&client, target);
            let _ = client.shutdown(Shutdown::Both);
            counted.fetch_sub(1, Ordering::Relaxed);
        };
        let thread = std::thread::Builder::new().name("ctk-loopback".into()).stack_size(256 * 1024);
        if thread.spawn(copy).is_err() {
            connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn ask(&mut self, index: usize, buffer: &mut [u8]) {
        let Some((socket, target)) = self.datagrams.get(index) else { return };
        let Ok((count, client)) = socket.recv_from(buffer) else { return };
        if client.ip() != Ipv6Addr::LOCALHOST {
            return;
        }
        let known = self.flows.iter().position(|flow| flow.from == index && flow.client == client);
        let flow = match known {
            Some(known) => known,
            None => {
                let opened = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(|socket| {
                    socket.connect(target)?;
                    socket.set_nonblocking(true).map(|()| socket)
                });
                let Ok(socket) = opened else { return };
                if self.flows.len() >= LOOPBACK_FLOWS {
                    // The one that was silent longest.
                    let oldest = self.flows.iter().enumerate().min_by_key(|(_, flow)| flow.last).map(|(at, _)| at);
                    oldest.map(|at| self.flows.swap_remove(at));
                }
                self.flows.push(Flow { from: index, client, socket, last: Instant::now() });
                self.flows.len() - 1
            }
        };
        if let Some(flow) = self.flows.get_mut(flow) {
            flow.last = Instant::now();
            let _ = flow.socket.send(buffer.get(..count).unwrap_or_default());
        }
    }

    fn answer(&mut self, index: usize, buffer: &mut [u8]) {
        let Some(flow) = self.flows.get_mut(index) else { return };
        let Some((socket, _)) = self.datagrams.get(flow.from) else { return };
        if let Ok(count) = flow.socket.recv(buffer) {
            flow.last = Instant::now();
            let _ = socket.send_to(buffer.get(..count).unwrap_or_default(), flow.client);
        }
    }
}

/// What one side sent and the other has not taken yet.
struct Way {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    told: bool,
}

impl Way {
    fn new() -> Way {
        Way { buffer: vec![0; LOOPBACK_BYTES], start: 0, end: 0, ended: false, told: false }
    }

    fn has_room(&self) -> bool {
        self.start == self.end && !self.ended
    }

    fn has_some(&self) -> bool {
        self.start < self.end
    }

    fn step(&mut self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        let again = |error: &io::Error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
        if self.has_room() {
            match from.read(&mut self.buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => (self.start, self.end) = (0, count),
                Err(error) if again(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if self.has_some() {
            match to.write(self.buffer.get(self.start..self.end).unwrap_or_default()) {
                Ok(count) => self.start += count,
                Err(error) if again(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if self.ended && !self.has_some() && !self.told {
            self.told = true;
            to.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }
}

/// Copies both ways until both have ended.
fn connect(client: &TcpStream, target: SocketAddr) -> io::Result<()> {
    let container = TcpStream::connect_timeout(&target, LOOPBACK_CONNECT)?;
    client.set_nonblocking(true)?;
    container.set_nonblocking(true)?;
    let (mut there, mut back) = (Way::new(), Way::new());
    while !(there.told && back.told) {
        let wanted = |reads: &Way, writes: &Way| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reads.has_room());
            flags.set(PollFlags::OUT, writes.has_some());
            flags
        };
        let (first, second) = (wanted(&there, &back), wanted(&back, &there));
        // One of whom nothing is wanted would only say again and again that it has hung up.
        let mut files: Vec<PollFd<'_>> = Vec::with_capacity(2);
        for (stream, flags) in [(client, first), (&container, second)] {
            if !flags.is_empty() {
                files.push(PollFd::new(stream, flags));
            }
        }
        match poll(&mut files, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        there.step(client, &container)?;
        back.step(&container, client)?;
    }
    Ok(())
}
