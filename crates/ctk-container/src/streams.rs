//! Input and output of a process: pipes, and the threads at our ends of them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use ctk_plan::Stream;
use ctk_runtime::ProcessStdio;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Error;
use crate::limits::{DRAIN_SECONDS, LINE_BYTES, POLL_MS};
use crate::options::{LineSink, Stdin, Stdio};

/// Our side of a process's streams.
pub(crate) struct Streams {
    readers: Vec<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

impl Streams {
    /// Makes both sides.
    pub(crate) fn open(stdio: Stdio, stdin: Stdin) -> Result<(Streams, ProcessStdio), Error> {
        open(stdio, stdin).map_err(Error::SetUpStreams)
    }

    /// Passes on what the ended process left in its pipes.
    pub(crate) fn finish(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        for reader in self.readers.drain(..) {
            // A sink that panicked has told its story already.
            let _ = reader.join();
        }
    }
}

fn open(stdio: Stdio, stdin: Stdin) -> io::Result<(Streams, ProcessStdio)> {
    let mut streams = Streams { readers: Vec::new(), ended: Arc::default() };
    let (output, error) = match stdio {
        Stdio::Terminal => return Ok((streams, ProcessStdio::Terminal)),
        Stdio::Inherit => (io::stdout().as_fd().try_clone_to_owned()?, io::stderr().as_fd().try_clone_to_owned()?),
        Stdio::Null => (null()?, null()?),
        Stdio::Files { out, err } => (out, err),
        Stdio::Lines(sink) => {
            let out = streams.line_reader(Stream::Out, &sink)?;
            let err = streams.line_reader(Stream::Err, &sink)?;
            (out, err)
        }
    };
    let input = match stdin {
        Stdin::Null => null()?,
        Stdin::Inherit => io::stdin().as_fd().try_clone_to_owned()?,
        Stdin::File(file) => file,
        Stdin::Bytes(bytes) => {
            let (read, write) = io::pipe()?;
            // Ends when all is written or the process is gone; nobody waits for it.
            std::thread::Builder::new().name("ctk-stdin".into()).spawn(move || {
                let mut write = write;
                let _ = write.write_all(&bytes);
            })?;
            read.into()
        }
    };
    Ok((streams, ProcessStdio::files(input, output, error)))
}

fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

impl Streams {
    fn line_reader(&mut self, stream: Stream, sink: &LineSink) -> io::Result<OwnedFd> {
        let (read, write) = io::pipe()?;
        let (sink, ended) = (Arc::clone(sink), Arc::clone(&self.ended));
        let thread = std::thread::Builder::new().name("ctk-output".into());
        self.readers.push(thread.spawn(move || read_lines(read, stream, &sink, &ended))?);
        Ok(write.into())
    }
}

fn read_lines(mut pipe: io::PipeReader, stream: Stream, sink: &LineSink, ended: &AtomicBool) {
    let mut lines = Lines::default();
    let mut buffer = vec![0; LINE_BYTES];
    let mut give_up: Option<Instant> = None;
    loop {
        let timeout = Timespec { tv_sec: 0, tv_nsec: POLL_MS * 1_000_000 };
        let ready = poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timeout));
        if ended.load(Ordering::SeqCst) {
            // Somebody else may hold the pipe open: then silence ends it, or the clock.
            let deadline = *give_up.get_or_insert_with(|| Instant::now() + DRAIN_SECONDS);
            if ready == Ok(0) || Instant::now() > deadline {
                break;
            }
        }
        if ready == Ok(0) || ready == Err(rustix::io::Errno::INTR) {
            continue;
        }
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => lines.push(buffer.get(..count).unwrap_or(&[]), &mut |line| sink(stream, line)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    lines.finish(&mut |line| sink(stream, line));
}

/// Bytes into lines.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8], out: &mut dyn FnMut(&str)) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (line, after) = bytes.split_at(end);
            self.rest.extend_from_slice(line);
            self.emit(out);
            bytes = after.get(1..).unwrap_or(&[]);
        }
        self.rest.extend_from_slice(bytes);
        while self.rest.len() >= LINE_BYTES {
            let after = self.rest.split_off(LINE_BYTES);
            self.emit(out);
            self.rest = after;
        }
    }

    fn emit(&mut self, out: &mut dyn FnMut(&str)) {
        let line = self.rest.strip_suffix(b"\r").unwrap_or(&self.rest);
        out(&String::from_utf8_lossy(line));
        self.rest.clear();
    }

    fn finish(&mut self, out: &mut dyn FnMut(&str)) {
        if !self.rest.is_empty() {
            self.emit(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&str], expected: &[&str]) {
        let mut found = Vec::new();
        let mut lines = Lines::default();
        for chunk in chunks {
            lines.push(chunk.as_bytes(), &mut |line| found.push(line.to_string()));
        }
        lines.finish(&mut |line| found.push(line.to_string()));
        assert_eq!(found, expected);
    }

    #[test]
    fn chunks_become_lines() {
        check(&["a\nb", "c\n", "\nlast"], &["a", "bc", "", "last"]);
        check(&["a\r\n"], &["a"]);
        check(&[], &[]);
        let long = "x".repeat(LINE_BYTES + 1);
        check(&[&long], &[&long[1..], "x"]);
    }
}
