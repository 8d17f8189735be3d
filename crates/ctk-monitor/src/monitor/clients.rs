//! Those who talk to a monitor: what they sent and what they have not read yet.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use serde::Serialize;

use crate::limits::{CLIENT_BUFFER_BYTES, FAREWELL};
use crate::protocol::{self, ANSWER, Answer, REFUSED, Refusal, Streams, Until};

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// Nothing: it has asked for nothing yet, or was answered.
    Nothing,
    /// The start of the container.
    Start,
    /// Its end, by a stop.
    Stop,
    /// Its start after a stop.
    Again,
    /// What it said.
    Until(Until),
    /// The result of a check.
    Check,
}

/// One client.
pub(super) struct Client {
    socket: OwnedFd,
    received: Vec<u8>,
    unsent: Vec<u8>,
    pub(super) attached: Option<Streams>,
    pub(super) waits: Waits,
    pub(super) gone: bool,
}

impl Client {
    /// Of a connected socket that does not block.
    pub(super) fn new(socket: OwnedFd) -> Client {
        Client { socket, received: Vec::new(), unsent: Vec::new(), attached: None, waits: Waits::Nothing, gone: false }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether something waits to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether so much waits that the container has to wait, too.
    pub(super) fn is_full(&self) -> bool {
        self.unsent.len() > CLIENT_BUFFER_BYTES
    }

    /// Takes what it sent; the whole frames are given to `hear`. A client that breaks the rules is gone.
    pub(super) fn read(&mut self, buffer: &mut [u8], frames: &mut Vec<(u8, Vec<u8>)>) {
        match rustix::io::read(&self.socket, &mut *buffer) {
            Ok(0) => self.gone = true,
            Ok(count) => self.received.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.gone = true,
        }
        let mut taken = 0;
        loop {
            match protocol::first(self.received.get(taken..).unwrap_or_default()) {
                Ok(Some((kind, bytes, length))) => {
                    frames.push((kind, bytes.to_vec()));
                    taken += length;
                }
                Ok(None) => break,
                Err(()) => {
                    self.gone = true;
                    break;
                }
            }
        }
        self.received.drain(..taken);
    }

    /// Sends a frame, or as much of it as the client takes; the rest later.
    pub(super) fn send(&mut self, kind: u8, bytes: &[u8]) {
        protocol::put(&mut self.unsent, kind, bytes);
        self.flush();
    }

    pub(super) fn send_json<T: Serialize>(&mut self, kind: u8, value: &T) {
        protocol::put_json(&mut self.unsent, kind, value);
        self.flush();
    }

    pub(super) fn answer(&mut self, answer: &Answer) {
        self.waits = Waits::Nothing;
        self.send_json(ANSWER, answer);
    }

    pub(super) fn refuse(&mut self, message: impl Into<String>, code: u8) {
        self.waits = Waits::Nothing;
        self.send_json(REFUSED, &Refusal { message: message.into(), code });
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) {
        use rustix::net::{SendFlags, send};
        let mut sent = 0;
        while sent < self.unsent.len() {
            let rest = self.unsent.get(sent..).unwrap_or_default();
            match send(&self.socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.gone = true;
                    self.unsent.clear();
                    return;
                }
            }
        }
        self.unsent.drain(..sent);
        if self.unsent.is_empty() {
            // Not kept for good by one that was slow once.
            self.unsent.shrink_to(64 * 1024);
        }
    }
}

/// Sends what waits to all of them: to who is attached as long as he is there, to others for some seconds.
pub(super) fn finish(clients: &mut [Client]) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let others = Instant::now() + FAREWELL;
    loop {
        let patient = |client: &Client| client.attached.is_some() || Instant::now() < others;
        let waiting: Vec<usize> = (0..clients.len())
            .filter(|index| clients.get(*index).is_some_and(|c| c.has_unsent() && !c.gone && patient(c)))
            .collect();
        if waiting.is_empty() {
            return;
        }
        let sockets = waiting.iter().filter_map(|index| clients.get(*index));
        let mut files: Vec<PollFd<'_>> =
            sockets.map(|client| PollFd::from_borrowed_fd(client.socket.as_fd(), PollFlags::OUT)).collect();
        let limit = Timespec { tv_sec: 1, tv_nsec: 0 };
        if !matches!(poll(&mut files, Some(&limit)), Ok(_) | Err(Errno::INTR)) {
            return;
        }
        drop(files);
        waiting.iter().for_each(|index| clients.get_mut(*index).map_or((), Client::flush));
    }
}
