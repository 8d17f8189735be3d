//! A conversation with CRIU, which writes processes down and makes them again: `criu swrk` answers at a socket.
//!
//! Requests and answers are messages of protocol buffers (`rpc.proto` of CRIU): fields of a number and a kind, numbers in
//! groups of 7 bits, texts and messages with their length before them. While it works it notifies: each notification is
//! answered, and may bring a file.

use std::ffi::CString;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use ctk_sys::{Child, Pointer, Start, Step};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
};

use crate::Error;
use crate::limits::{CRIU_LOG_BYTES, CRIU_MESSAGE_BYTES};

/// The program, as the caller finds it.
#[derive(Clone, Debug)]
pub struct Criu {
    /// Paths to try.
    pub candidates: Vec<CString>,
    /// Its environment: it runs `iptables-restore`, `ip` and the like.
    pub environment: Vec<CString>,
}

/// The oldest that will do: it knows process ids of a namespace by path, and pidfds.
pub const OLDEST: (u64, u64) = (3, 15);
/// The oldest that gives restored processes another label.
pub(crate) const LABELS: (u64, u64) = (3, 16);

/// A message that is being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(Vec<u8>);

impl Fields {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A number or, as 0 and 1, a truth value.
    pub(crate) fn number(&mut self, field: u64, value: u64) -> &mut Fields {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    /// A switch that is on; one that is off is left out.
    pub(crate) fn on(&mut self, field: u64, on: bool) -> &mut Fields {
        if on { self.number(field, 1) } else { self }
    }

    /// A text.
    pub(crate) fn text(&mut self, field: u64, text: &str) -> &mut Fields {
        self.varint(field << 3 | 2);
        self.varint(text.len() as u64);
        self.0.extend(text.as_bytes());
        self
    }

    /// A message.
    pub(crate) fn message(&mut self, field: u64, message: &Fields) -> &mut Fields {
        self.varint(field << 3 | 2);
        self.varint(message.0.len() as u64);
        self.0.extend(&message.0);
        self
    }
}

/// A field's value.
enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message; none if it is none.
fn parts(mut bytes: &[u8]) -> Option<Vec<(u64, Part<'_>)>> {
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let fixed = |bytes: &mut &[u8], count| {
            let (_, rest) = bytes.split_at_checked(count)?;
            *bytes = rest;
            Some(Part::Number(0))
        };
        let part = match key & 7 {
            0 => Part::Number(varint(&mut bytes)?),
            1 => fixed(&mut bytes, 8)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (found, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Part::Bytes(found)
            }
            5 => fixed(&mut bytes, 4)?,
            _ => return None,
        };
        all.push((key >> 3, part));
    }
    Some(all)
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Write processes down.
    Dump = 1,
    /// Make them again.
    Restore = 2,
    /// Write memory down that does not change, while they run.
    PreDump = 4,
    /// About something on its way.
    Notify = 6,
    /// What kernel and CRIU can do.
    Features = 9,
    /// Which release it is.
    Version = 10,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    kind: u64,
    success: bool,
    restored: i32,
    script: String,
    pid: i32,
    message: String,
    errno: i32,
    tracks_memory: bool,
    version: (u64, u64),
}

impl Answer {
    fn read(bytes: &[u8]) -> Option<Answer> {
        let mut answer = Answer::default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for (field, part) in parts(bytes)? {
            match (field, part) {
                (1, Part::Number(kind)) => answer.kind = kind,
                (2, Part::Number(success)) => answer.success = success != 0,
                (4, Part::Bytes(bytes)) => {
                    for (field, part) in parts(bytes)? {
                        if let (1, Part::Number(pid)) = (field, part) {
                            answer.restored = pid as i32;
                        }
                    }
                }
                (5, Part::Bytes(bytes)) => {
                    for (field, part) in parts(bytes)? {
                        match (field, part) {
                            (1, Part::Bytes(name)) => answer.script = text(name),
                            (2, Part::Number(pid)) => answer.pid = pid as i32,
                            _ => {}
                        }
                    }
                }
                (7, Part::Number(errno)) => answer.errno = errno as i32,
                (8, Part::Bytes(bytes)) => {
                    for (field, part) in parts(bytes)? {
                        if let (1, Part::Number(on)) = (field, part) {
                            answer.tracks_memory = on != 0;
                        }
                    }
                }
                (9, Part::Bytes(bytes)) => answer.message = text(bytes),
                (10, Part::Bytes(bytes)) => {
                    for (field, part) in parts(bytes)? {
                        match (field, part) {
                            (1, Part::Number(major)) => answer.version.0 = major,
                            (2, Part::Number(minor)) => answer.version.1 = minor,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Some(answer)
    }
}

/// Something that CRIU says on its way, with the file that came along.
pub(crate) struct Notification {
    /// As `setup-namespaces`.
    pub(crate) script: String,
    /// The process that is restored.
    pub(crate) pid: i32,
    /// The master side of a terminal.
    pub(crate) file: Option<OwnedFd>,
}

/// Where images and logs are: absolute paths of directories.
pub(crate) struct Directories {
    /// Of images.
    pub(crate) images: PathBuf,
    /// Of logs, if they are elsewhere.
    pub(crate) work: Option<PathBuf>,
    /// The log.
    pub(crate) log: PathBuf,
}

/// Where a request is carried out.
#[derive(Default)]
pub(crate) struct Place<'a> {
    /// `CLONE_NEW…` for CRIU itself.
    pub(crate) namespaces: u32,
    /// A version 2 cgroup to be born in.
    pub(crate) cgroup: Option<i32>,
    /// What is done before it runs.
    pub(crate) steps: &'a [Step<'a>],
}

/// A process of CRIU's that waits for its request.
struct Conversation {
    socket: Option<OwnedFd>,
    child: Child,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // Without us it gives up.
        self.socket = None;
        let by = rustix::process::WaitId::PidFd(self.child.pidfd());
        let _ = rustix::process::waitid(by, rustix::process::WaitIdOptions::EXITED);
    }
}

impl Criu {
    /// Whether it is there and new enough for `what`.
    pub(crate) fn check(&self, what: &str, oldest: (u64, u64)) -> Result<(), Error> {
        let mut request = Fields::default();
        request.number(1, Kind::Version as u64);
        let answer = self.ask(|_| Ok(request), &Place::default(), &mut |_| Ok(()))?;
        match answer.version >= oldest {
            true => Ok(()),
            false => {
                let ((major, minor), (oldest, of)) = (answer.version, oldest);
                let reason = format!("`criu` is of version {major}.{minor}; version {oldest}.{of} or newer is needed");
                Err(Error::Unsupported { what: what.into(), reason })
            }
        }
    }

    /// Whether kernel and CRIU tell which memory has changed.
    pub(crate) fn tracks_memory(&self) -> Result<bool, Error> {
        let (mut request, mut features) = (Fields::default(), Fields::default());
        features.number(1, 1);
        request.number(1, Kind::Features as u64).message(5, &features);
        Ok(self.ask(|_| Ok(request), &Place::default(), &mut |_| Ok(()))?.tracks_memory)
    }

    /// Has a request carried out, and gives the process that was restored. What goes wrong is explained with the log.
    pub(crate) fn run(
        &self,
        kind: Kind,
        mut options: Fields,
        directories: &Directories,
        place: &Place<'_>,
        notified: &mut dyn FnMut(Notification) -> Result<(), Error>,
    ) -> Result<i32, Error> {
        let mut open = Vec::new();
        let request = |pid| {
            for (field, path) in [(1, Some(&directories.images)), (17, directories.work.as_ref())] {
                let Some(path) = path else { continue };
                // As it is in the mount namespace of CRIU, which mounts there.
                let there = format!("/proc/{pid}/root{}", path.display());
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let file = rustix::fs::open(&there, flags, Mode::empty());
                let file = file.map_err(|e| Error::file("open", path)(e.into()))?;
                options.number(field, file.as_raw_fd() as u64);
                open.push(file);
            }
            let mut request = Fields::default();
            request.number(1, kind as u64).message(2, &options);
            Ok(request)
        };
        let answer = self.ask(request, place, notified)?;
        if answer.success && answer.kind == kind as u64 {
            return Ok(answer.restored);
        }
        let attempt = if kind == Kind::Restore { "restore" } else { "checkpoint" };
        let mut told = errors(&directories.log);
        if told.is_empty() {
            let errno = io::Error::from_raw_os_error(answer.errno);
            told.push(if answer.message.is_empty() { errno.to_string() } else { answer.message });
        }
        Err(Error::Criu { attempt, reason: told.join("; "), log: directories.log.clone() })
    }

    fn ask(
        &self,
        request: impl FnOnce(i32) -> Result<Fields, Error>,
        place: &Place<'_>,
        notified: &mut dyn FnMut(Notification) -> Result<(), Error>,
    ) -> Result<Answer, Error> {
        let failed = |e: io::Error| Error::File { attempt: "talk with", path: "criu".into(), source: e };
        let conversation = self.start(place)?;
        let Some(socket) = &conversation.socket else { return Err(failed(io::ErrorKind::NotConnected.into())) };
        let send = |fields: &Fields| {
            rustix::net::send(socket, &fields.0, SendFlags::NOSIGNAL).map(drop).map_err(|errno| match errno {
                Errno::PIPE | Errno::CONNRESET => failed(ended()),
                other => failed(other.into()),
            })
        };
        send(&request(conversation.child.pid)?)?;
        let mut problem = None;
        loop {
            let (bytes, file) = receive(socket).map_err(failed)?;
            let answer = Answer::read(&bytes).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
            if answer.kind != Kind::Notify as u64 || !answer.success {
                if answer.kind == Kind::PreDump as u64 {
                    // It waits for what comes after; that will be another's.
                    let pidfd = conversation.child.pidfd();
                    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
                }
                return problem.map_or(Ok(answer), Err);
            }
            let result = notified(Notification { script: answer.script, pid: answer.pid, file });
            let mut reply = Fields::default();
            reply.number(1, Kind::Notify as u64).number(3, result.is_ok().into());
            problem = problem.or(result.err());
            send(&reply)?;
        }
    }

    fn start(&self, place: &Place<'_>) -> Result<Conversation, Error> {
        let failed = |e: Errno| Error::Clone(e.into());
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.map_err(failed)?;
        // Only this process is there, and only its child inherits.
        fcntl_setfd(&theirs, FdFlags::empty()).map_err(failed)?;
        let number = CString::new(theirs.as_raw_fd().to_string()).unwrap_or_default();
        let words = [c"criu", c"swrk", number.as_c_str()];
        let arguments: Vec<Pointer<'_>> =
            words.iter().map(|word| Pointer::new(word)).chain(std::iter::once(Pointer::END)).collect();
        let environment: Vec<Pointer<'_>> =
            self.environment.iter().map(|word| Pointer::new(word)).chain(std::iter::once(Pointer::END)).collect();
        let candidates: Vec<_> = self.candidates.iter().map(CString::as_c_str).collect();
        let mut steps = place.steps.to_vec();
        steps.push(Step::ResetSignals);
        steps.push(Step::Execute { candidates: &candidates, arguments: &arguments, environment: &environment });
        let start = Start { namespaces: place.namespaces.into(), cgroup: place.cgroup, steps: &steps };
        let child = ctk_sys::start(&start).map_err(failed)?;
        let told = child.told();
        let conversation = Conversation { socket: Some(ours), child };
        match told {
            None => Ok(conversation),
            Some(failure) if failure.step + 1 == steps.len() => Err(Error::Unsupported {
                what: "checkpoint and restore".into(),
                reason: format!(
                    "the program `criu` cannot be run ({}); install CRIU {}.{} or newer (the package `criu`), or name it \
                     with --criu",
                    io::Error::from_raw_os_error(failure.errno),
                    OLDEST.0,
                    OLDEST.1
                ),
            }),
            Some(failure) => Err(Error::Step {
                step: "prepare the root for CRIU".into(),
                field: "root.path".into(),
                source: io::Error::from_raw_os_error(failure.errno),
            }),
        }
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it ended without an answer")
}

fn receive(socket: &OwnedFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0; CRIU_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let count = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            // It ended without reading what we sent.
            Err(Errno::CONNRESET) => break 0,
            other => break other?.bytes,
        }
    };
    if count == 0 {
        return Err(ended());
    }
    bytes.truncate(count);
    let mut found = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            found = files.into_iter().next();
        }
    }
    Ok((bytes, found))
}

/// Sends a terminal through somebody's socket, with its name.
pub(crate) fn send_terminal(socket: &OwnedFd, file: &OwnedFd) -> Result<(), Error> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage};
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&files));
    rustix::net::sendmsg(socket, &[IoSlice::new(b"/dev/ptmx")], &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(|e| Error::file("send", "the terminal")(e.into()))
}

/// What a log says went wrong: `(00.01) Error (criu/mount.c:7): words` as the words.
fn errors(log: &Path) -> Vec<String> {
    /// The last ones: what led there, and what came of it.
    const SHOWN: usize = 3;
    /// It tries things, and says so in the same way; and at the end, what everybody knows.
    const USUAL: [&str; 4] = ["rlimit: Can't setup", "tun: Unable to create tun", "Dumping FAILED", "Restoring FAILED"];
    let Ok(mut file) = fs::File::open(log) else { return Vec::new() };
    let mut text = Vec::new();
    let _ = io::Read::read_to_end(&mut io::Read::take(&mut file, CRIU_LOG_BYTES), &mut text);
    let text = String::from_utf8_lossy(&text);
    fn words(line: &str) -> Option<&str> {
        let (_, rest) = line.split_once("Error (")?;
        Some(rest.split_once("): ")?.1.trim())
    }
    let all: Vec<&str> = text.lines().filter_map(words).collect();
    let told = |words: &&&str| !words.is_empty() && USUAL.iter().all(|usual| !words.starts_with(usual));
    let found: Vec<String> = all.iter().filter(told).map(|words| (*words).to_owned()).collect();
    found.get(found.len().saturating_sub(SHOWN)..).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_protocol_buffers() {
        let (mut all, mut inner) = (Fields::default(), Fields::default());
        inner.text(1, "/a").text(2, "/b");
        all.number(1, 300).on(2, false).on(3, true).message(23, &inner);
        let bytes = [8, 0xac, 2, 24, 1, 0xba, 1, 8, 10, 2, b'/', b'a', 18, 2, b'/', b'b'];
        assert_eq!(all.0, bytes);
    }

    #[test]
    fn answers_are_read() {
        let (mut all, mut inner) = (Fields::default(), Fields::default());
        inner.text(1, "setup-namespaces").number(2, 77);
        all.number(1, 6).number(2, 1).message(5, &inner);
        let expected =
            Answer { kind: 6, success: true, script: "setup-namespaces".into(), pid: 77, ..Answer::default() };
        assert_eq!(Answer::read(&all.0), Some(expected));
        let (mut all, mut inner) = (Fields::default(), Fields::default());
        inner.number(1, 3).number(2, 17).text(3, "0");
        all.number(1, 10).number(2, 1).message(10, &inner);
        assert_eq!(Answer::read(&all.0).unwrap().version, (3, 17));
        assert_eq!(Answer::read(&[0xff; 12]), None);
        assert_eq!(Answer::read(&[10, 200, 1]), None);
    }

    #[test]
    fn a_log_says_what_went_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("dump.log");
        let text = "(00.01) Running\n(00.02) Error (criu/tty.c:1): tty: Found dangling tty\n(00.03) Warn  (x): y\n\
                    (00.04) Error (criu/cr-dump.c:9): Dumping FAILED.\n";
        fs::write(&log, text).unwrap();
        assert_eq!(errors(&log), ["tty: Found dangling tty"]);
        assert!(errors(&folder.path().join("none")).is_empty());
    }

    #[test]
    fn a_missing_program_is_told() {
        let criu = Criu { candidates: vec![c"/no/criu".into()], environment: Vec::new() };
        let told = criu.check("x", OLDEST).unwrap_err().to_string();
        assert!(
            told.starts_with("checkpoint and restore is not supported: the program `criu` cannot be run"),
            "{told}"
        );
        // One that does not speak.
        let criu = Criu { candidates: vec![c"/bin/true".into()], environment: Vec::new() };
        assert!(
            criu.check("x", OLDEST).unwrap_err().line().starts_with("failed to talk with `criu`: it ended without")
        );
    }
}
