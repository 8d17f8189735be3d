//! What a monitor and its clients say to each other, over its socket.
//!
//! A frame is a byte that says what it is, four bytes of length (little endian), and so many bytes. The client begins
//! with a [`Request`]; the monitor answers with [`ANSWER`] or [`REFUSED`], when there is something to answer. Who is
//! attached gets [`OUT`] and [`ERR`] and sends [`IN`], until [`EXIT`].

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::limits::FRAME_BYTES;

/// From the client: a [`Request`], as JSON.
pub const REQUEST: u8 = b'?';
/// From the client: bytes for standard input.
pub const IN: u8 = b'i';
/// From the client: standard input has ended.
pub const IN_END: u8 = b'e';
/// From the client who started it: nobody reads this stream any more, [`OUT`] or [`ERR`].
pub const CLOSED: u8 = b'c';
/// From the client: the terminal's size, rows and columns, two bytes each.
pub const SIZE: u8 = b'z';
/// From the client: a signal for the first process, four bytes.
pub const SIGNAL: u8 = b's';
/// From the monitor: done; an [`Answer`] as JSON.
pub const ANSWER: u8 = b'!';
/// From the monitor: not done; a [`Refusal`] as JSON.
pub const REFUSED: u8 = b'x';
/// From the monitor: bytes of standard output, or of the terminal.
pub const OUT: u8 = b'o';
/// From the monitor: bytes of standard error.
pub const ERR: u8 = b'E';
/// From the monitor: the container has ended and will not be started again; an [`Exit`] as JSON.
pub const EXIT: u8 = b'q';

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// Start the container; only from who started the monitor. Answered when its program runs.
    Start {
        /// Whether the client is attached at once, and to what.
        attach: Option<Streams>,
    },
    /// Be attached.
    Attach(Streams),
    /// Stop it. Answered when it has ended.
    Stop {
        /// Instead of the container's own.
        signal: Option<i32>,
        /// Instead of the container's own.
        seconds: Option<u64>,
        /// Whether it is started again then.
        again: bool,
    },
    /// Send it a signal. One that ends it means that it is not started again.
    Kill {
        /// Which.
        signal: i32,
    },
    /// Wait for something. Answered when that is so.
    Wait {
        /// For what.
        until: Until,
    },
    /// Check its health now. Answered with the result.
    Check,
    /// Read the configuration anew: somebody changed it.
    Reload,
    /// Join a network, or leave it: what it says is for who sets networks up.
    Network(serde_json::Value),
}

/// What a client is attached to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// Standard input.
    pub input: bool,
    /// Standard output.
    pub output: bool,
    /// Standard error.
    pub error: bool,
    /// The terminal's rows and columns, if the client has one.
    pub size: Option<(u16, u16)>,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// It has ended and will not be started again.
    Exited,
    /// Its health is good.
    Healthy,
}

/// What a monitor gives back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The container's first process.
    pub pid: i32,
    /// Of what was asked for: an exit code.
    pub code: i32,
    /// Of what was asked for: what it says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// Why a monitor does not do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For people.
    pub message: String,
    /// 127 for a program that is not there, 126 for one that cannot be executed, else 125.
    pub code: u8,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// As a shell tells it.
    pub code: i32,
    /// Whether it was for want of memory.
    pub out_of_memory: bool,
    /// Whether it ran longer than it may.
    pub out_of_time: bool,
}

/// Puts a frame behind what is to be written.
pub(crate) fn put(buffer: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    buffer.push(kind);
    buffer.extend((bytes.len() as u32).to_le_bytes());
    buffer.extend(bytes);
}

/// The same with JSON.
pub(crate) fn put_json<T: Serialize>(buffer: &mut Vec<u8>, kind: u8, value: &T) {
    put(buffer, kind, &serde_json::to_vec(value).unwrap_or_default());
}

/// Writes a frame.
pub(crate) fn send(mut to: impl Write, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(bytes.len() + 5);
    put(&mut frame, kind, bytes);
    to.write_all(&frame)
}

/// Reads a frame; none at the end.
pub(crate) fn receive(mut from: impl Read, bytes: &mut Vec<u8>) -> io::Result<Option<u8>> {
    let mut head = [0; 5];
    let mut have = 0;
    while have < head.len() {
        match from.read(head.get_mut(have..).unwrap_or_default()) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let [kind, length @ ..] = head;
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is larger than frames are"));
    }
    bytes.resize(length, 0);
    from.read_exact(bytes)?;
    Ok(Some(kind))
}

/// A frame's kind and bytes, and how many bytes it takes as a whole.
pub(crate) type Frame<'a> = (u8, &'a [u8], usize);

/// The first frame in a buffer; none if it is not whole yet.
pub(crate) fn first(buffer: &[u8]) -> Result<Option<Frame<'_>>, ()> {
    let Some(([kind, length @ ..], rest)) = buffer.split_first_chunk::<5>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > FRAME_BYTES {
        return Err(());
    }
    Ok(rest.get(..length).map(|bytes| (*kind, bytes, 5 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut buffer = Vec::new();
        put(&mut buffer, OUT, b"hello");
        put(&mut buffer, IN_END, b"");
        for cut in 0..10 {
            assert_eq!(first(&buffer[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(first(&buffer), Ok(Some((OUT, &b"hello"[..], 10))));
        let (mut from, mut bytes) = (&buffer[..], Vec::new());
        assert_eq!(receive(&mut from, &mut bytes).unwrap(), Some(OUT));
        assert_eq!(bytes, b"hello");
        assert_eq!(receive(&mut from, &mut bytes).unwrap(), Some(IN_END));
        assert_eq!(receive(&mut from, &mut bytes).unwrap(), None);
        assert_eq!(first(&[OUT, 255, 255, 255, 255]), Err(()));
    }
}
