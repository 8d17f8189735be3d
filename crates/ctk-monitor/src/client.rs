//! Talking to a monitor: to start a container, to stop it, to sit at its streams.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ctk_bundle::attend;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::tcgetwinsize;

use crate::Error;
use crate::containers::Container;
use crate::monitor::open_directory;
use crate::protocol::{
    ANSWER, Answer, CLOSED, ERR, EXIT, Exit, IN, IN_END, OUT, REFUSED, REQUEST, Refusal, Request, SIGNAL, SIZE,
    Streams, receive, send,
};

/// A connection to a container's monitor.
pub struct Client {
    name: String,
    stream: UnixStream,
    /// The monitor, if we made it.
    child: Option<Child>,
}

/// Sitting at a container's streams.
pub struct Attached<'a> {
    /// Our standard input, if it is passed on.
    pub input: Option<BorrowedFd<'a>>,
    /// Where its standard output goes.
    pub output: BorrowedFd<'a>,
    /// Where its standard error goes.
    pub error: BorrowedFd<'a>,
    /// Whether it has a terminal, and ours becomes raw.
    pub terminal: bool,
    /// Bytes that mean: go away, and let it run. Empty for none.
    pub detach_keys: &'a [u8],
    /// Whether signals are passed on. Else an interrupt means: go away.
    pub signals: Option<&'a OwnedFd>,
}

/// How sitting at a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It has ended.
    Exited(Exit),
    /// We went away.
    Detached,
}

/// Starts a container that does not run, by a monitor of its own: `program` is `ctk-runtime`. Comes back when the
/// container's program was executed; with `attach`, the client sits at its streams from the beginning.
pub fn start(container: &Container, program: &Path, attach: Option<Streams>) -> Result<(Client, Answer), Error> {
    let (ours, theirs) = UnixStream::pair().map_err(Error::file("make", "a pair of sockets"))?;
    let child = spawn(container, program, Stdio::from(OwnedFd::from(theirs)))?;
    let name = container.id().chars().take(12).collect();
    let mut client = Client { name, stream: ours, child: Some(child) };
    let answer = client.request(&Request::Start { attach }).map_err(|error| match error {
        Error::Conversation { name, .. } => {
            let what = "went away before the container was started (are `ctk` and `ctk-runtime` of one version?)";
            Error::Conversation { name, what }
        }
        other => other,
    })?;
    Ok((client, answer))
}

/// Has a new monitor look after a container that runs.
pub(crate) fn take_over(container: &Container, program: &Path) -> Result<(), Error> {
    spawn(container, program, Stdio::null()).map(drop)
}

fn spawn(container: &Container, program: &Path, channel: Stdio) -> Result<Child, Error> {
    let failed = |source| Error::Monitor { program: program.to_owned(), source };
    let mut command = Command::new(program);
    command.arg0("ctk-runtime").arg("monitor").arg(container.directory());
    command.stdin(channel).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(failed)
}

impl Client {
    /// Connects to the monitor of a container; none if it has no monitor, so does not run.
    pub fn connect(container: &Container) -> Result<Option<Client>, Error> {
        let held = open_directory(container.directory())?;
        // The path may be longer than addresses of sockets are.
        let stream = match UnixStream::connect(format!("/proc/self/fd/{}/control", held.as_raw_fd())) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            other => other.map_err(Error::file("connect to", container.directory().join("control")))?,
        };
        Ok(Some(Client { name: container.id().chars().take(12).collect(), stream, child: None }))
    }

    /// Asks, and waits for the answer as long as it takes.
    pub fn request(&mut self, request: &Request) -> Result<Answer, Error> {
        let text = serde_json::to_vec(request).unwrap_or_default();
        send(&self.stream, REQUEST, &text).map_err(|_| self.lost())?;
        let mut bytes = Vec::new();
        match receive(&self.stream, &mut bytes) {
            Ok(Some(ANSWER)) => serde_json::from_slice(&bytes).map_err(|_| self.confused()),
            Ok(Some(REFUSED)) => {
                let Refusal { message, code } = serde_json::from_slice(&bytes).map_err(|_| self.confused())?;
                // Once it has said no, it removes what is to be removed.
                self.wait_for_child();
                Err(Error::Refused { message, code })
            }
            Ok(Some(_)) => Err(self.confused()),
            Ok(None) | Err(_) => Err(self.lost()),
        }
    }

    /// The same, but not longer than `limit`.
    pub fn request_within(&mut self, request: &Request, limit: Duration) -> Result<Answer, Error> {
        self.stream.set_read_timeout(Some(limit)).map_err(|_| self.lost())?;
        self.request(request)
    }

    fn lost(&self) -> Error {
        Error::Conversation { name: self.name.clone(), what: "went away" }
    }

    fn confused(&self) -> Error {
        Error::Conversation { name: self.name.clone(), what: "said what nobody can understand" }
    }

    fn wait_for_child(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
    }

    /// Passes on what there is to pass on, until the container has ended or we go away.
    pub fn sit(self, at: &Attached<'_>) -> Result<Ending, Error> {
        let _raw = at.input.filter(|_| at.terminal).and_then(attend::raw);
        let mut input = at.input;
        let mut keys = Keys { wanted: at.detach_keys, seen: 0 };
        let (mut frame, mut buffer) = (Vec::new(), vec![0; 32 * 1024]);
        loop {
            let mut files = vec![PollFd::new(&self.stream, PollFlags::IN)];
            files.extend(at.signals.map(|signals| PollFd::new(signals, PollFlags::IN)));
            files.extend(input.map(|input| PollFd::from_borrowed_fd(input, PollFlags::IN)));
            match poll(&mut files, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return Err(self.lost()),
            }
            let ready: Vec<bool> = files.iter().map(|file| !file.revents().is_empty()).collect();
            let mut ready = ready.into_iter();
            let from_monitor = ready.next().unwrap_or(false);
            if at.signals.is_some() && ready.next().unwrap_or(false) {
                self.hear(at);
            }
            if let Some(open) = input.filter(|_| ready.next().unwrap_or(false)) {
                match rustix::io::read(open, &mut buffer) {
                    Ok(0) => {
                        input = None;
                        let _ = send(&self.stream, IN_END, &[]);
                    }
                    Ok(count) => {
                        let (pass, detached) = keys.look(buffer.get(..count).unwrap_or_default());
                        if !pass.is_empty() {
                            let _ = send(&self.stream, IN, &pass);
                        }
                        if detached {
                            return Ok(Ending::Detached);
                        }
                    }
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(_) => input = None,
                }
            }
            if !from_monitor {
                continue;
            }
            match receive(&self.stream, &mut frame) {
                Ok(Some(OUT)) => self.pass_on(at.output, OUT, &frame),
                Ok(Some(ERR)) => self.pass_on(at.error, ERR, &frame),
                Ok(Some(EXIT)) => {
                    return serde_json::from_slice(&frame).map(Ending::Exited).map_err(|_| self.confused());
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Err(self.lost()),
            }
        }
    }

    fn pass_on(&self, to: BorrowedFd<'_>, stream: u8, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match rustix::io::write(to, bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => drop(poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None)),
                Err(_) => {
                    // Nobody reads us: then nobody reads the container.
                    let _ = send(&self.stream, CLOSED, &[stream]);
                    return;
                }
            }
        }
    }

    fn hear(&self, at: &Attached<'_>) {
        let Some(signals) = at.signals else { return };
        let mut record = [0_u8; 128];
        while let Ok(128) = rustix::io::read(signals, &mut record) {
            let number = record.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes) as i32);
            match number {
                // Of our own.
                libc::SIGCHLD | libc::SIGURG | libc::SIGPIPE => {}
                libc::SIGWINCH => {
                    if let Some(size) = at.input.filter(|_| at.terminal).and_then(window) {
                        let [rows, columns] = [size.0.to_le_bytes(), size.1.to_le_bytes()];
                        let _ = send(&self.stream, SIZE, &[rows, columns].concat());
                    }
                }
                number => drop(send(&self.stream, SIGNAL, &number.to_le_bytes())),
            }
        }
    }
}

/// Rows and columns of a terminal; none if it is none.
pub fn window(terminal: BorrowedFd<'_>) -> Option<(u16, u16)> {
    tcgetwinsize(terminal.as_fd()).ok().map(|size| (size.ws_row, size.ws_col))
}

/// Looks for the bytes that mean: go away.
struct Keys<'a> {
    wanted: &'a [u8],
    seen: usize,
}

impl Keys<'_> {
    /// What is to be passed on of some input, and whether the keys were in it. A beginning of them is held back until it
    /// is clear what it is.
    fn look(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.wanted.get(self.seen) == Some(byte) {
                self.seen += 1;
                if self.seen == self.wanted.len() {
                    return (pass, true);
                }
                continue;
            }
            pass.extend_from_slice(self.wanted.get(..self.seen).unwrap_or_default());
            self.seen = usize::from(self.wanted.first() == Some(byte) && self.wanted.len() > 1);
            if self.seen == 0 {
                pass.push(*byte);
            }
        }
        (pass, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_wherever_they_are_cut() {
        let check = |chunks: &[&[u8]], expected: &[u8], found: bool| {
            let (mut keys, mut passed, mut detached) = (Keys { wanted: &[16, 17], seen: 0 }, Vec::new(), false);
            for chunk in chunks {
                let (pass, now) = keys.look(chunk);
                passed.extend(pass);
                detached |= now;
            }
            assert_eq!((passed.as_slice(), detached), (expected, found), "{chunks:?}");
        };
        check(&[b"ab"], b"ab", false);
        check(&[&[b'a', 16, 17, b'b']], b"a", true);
        check(&[&[16], &[17]], b"", true);
        check(&[&[16], b"x"], &[16, b'x'], false);
        check(&[&[16, 16, 17]], &[16], true);
    }
}
