//! Staying with a process in the foreground: signals go to it, its terminal is ours, its end is ours.
//!
//! Signals are held back before the process is made and read from a file, and its end is read from its pidfd: whatever
//! comes first, nothing is missed.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::Error;
use crate::container::{Exit, reap};

/// From now on this process hears no signal but through this file.
pub fn hold_signals() -> Result<OwnedFd, Error> {
    ctk_sys::signal_file().map_err(|e| Error::file("make", "a file of signals")(e.into()))
}

/// A pair of sockets: one for the process, which sends its terminal, one for us.
pub fn console_pair() -> Result<(OwnedFd, OwnedFd), Error> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| Error::file("make", "a pair of sockets")(e.into()))
}

/// The terminal that a process sent.
pub fn receive_terminal(socket: &OwnedFd) -> Result<OwnedFd, Error> {
    let failed = |e: Errno| Error::file("receive", "the terminal")(e.into());
    let mut text = [0_u8; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC).map_err(failed)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message
            && let Some(file) = files.into_iter().next()
        {
            return Ok(file);
        }
    }
    Err(failed(Errno::PIPE))
}

/// Sends a file through somebody's socket.
pub fn send_file(socket: &OwnedFd, file: BorrowedFd<'_>) -> Result<(), Error> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file];
    control.push(SendAncillaryMessage::ScmRights(&files));
    let text = [std::io::IoSlice::new(b"pidfd")];
    sendmsg(socket, &text, &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(|e| Error::file("send", "the pidfd")(e.into()))
}

/// Our terminal in raw mode, until this is dropped.
pub struct Raw<'a>(BorrowedFd<'a>, Termios);

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, OptionalActions::Now, &self.1);
    }
}

/// Puts a terminal into raw mode; none if it is no terminal.
pub fn raw(input: BorrowedFd<'_>) -> Option<Raw<'_>> {
    let before = tcgetattr(input).ok()?;
    let mut now = before.clone();
    now.make_raw();
    tcsetattr(input, OptionalActions::Now, &now).ok()?;
    Some(Raw(input, before))
}

/// Passes signals, input and output on until the process ends.
pub fn attend(
    pidfd: &OwnedFd,
    signals: &OwnedFd,
    terminal: Option<&OwnedFd>,
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
) -> Result<Exit, Error> {
    let raw = terminal.and_then(|terminal| {
        resize(terminal, input);
        raw(input)
    });
    let mut reads = terminal.is_some();
    loop {
        let mut files = vec![PollFd::new(pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if let Some(terminal) = terminal {
            files.push(PollFd::new(terminal, PollFlags::IN));
            if reads {
                files.push(PollFd::from_borrowed_fd(input, PollFlags::IN));
            }
        }
        match poll(&mut files, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(Error::file("wait for", "the process")(e.into())),
        }
        let ready = |index: usize| files.get(index).is_some_and(|file: &PollFd<'_>| !file.revents().is_empty());
        if let Some(terminal) = terminal {
            if ready(2) {
                let _ = pass(terminal.as_fd(), output);
            }
            if ready(3) {
                reads = pass(input, terminal.as_fd());
            }
        }
        if ready(1) {
            hear(signals, pidfd, terminal, input);
        }
        if ready(0) {
            if let Some(terminal) = terminal {
                drain(terminal, output);
            }
            drop(raw);
            return reap(pidfd);
        }
    }
}

/// What is left in a terminal whose other end is closed.
fn drain(terminal: &OwnedFd, output: BorrowedFd<'_>) {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        let mut files = [PollFd::new(terminal, PollFlags::IN)];
        let there = poll(&mut files, Some(&now)).is_ok_and(|count| count > 0);
        if !there || !pass(terminal.as_fd(), output) {
            return;
        }
    }
}

/// Some bytes from one to another; whether there may be more.
fn pass(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0_u8; 8192];
    let count = match rustix::io::read(from, &mut buffer) {
        Ok(0) => return false,
        Ok(count) => count,
        Err(Errno::INTR | Errno::AGAIN) => return true,
        Err(_) => return false,
    };
    let mut rest = buffer.get(..count).unwrap_or_default();
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

fn resize(terminal: &OwnedFd, input: BorrowedFd<'_>) {
    if let Ok(size) = tcgetwinsize(input) {
        let _ = tcsetwinsize(terminal, size);
    }
}

fn hear(signals: &OwnedFd, pidfd: &OwnedFd, terminal: Option<&OwnedFd>, input: BorrowedFd<'_>) {
    let mut record = [0_u8; 128];
    while let Ok(128) = rustix::io::read(signals, &mut record) {
        let Some(number) = record.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes) as i32) else { return };
        match number {
            // Of our own.
            libc::SIGCHLD | libc::SIGURG | libc::SIGPIPE => {}
            libc::SIGWINCH => {
                if let Some(terminal) = terminal {
                    resize(terminal, input);
                }
            }
            _ => drop(ctk_sys::signal_process(pidfd.as_fd(), number)),
        }
    }
}
