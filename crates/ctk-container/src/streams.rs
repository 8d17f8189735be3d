//! Input and output of a process: pipes, and the threads at our ends of them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ctk_plan::Stream;
use ctk_runtime::ProcessStdio;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Error;
use crate::limits::{DRAIN_SECONDS, LINE_BYTES, POLL_MS};
use crate::options::{LineSink, Stdin, Stdio};

/// Our side of a process's streams.
pub(crate) struct Streams {
    reader: Option<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

impl Streams {
    /// Makes both sides.
    pub(crate) fn open(stdio: Stdio, stdin: Stdin) -> Result<(Streams, ProcessStdio), Error> {
        open(stdio, stdin).map_err(Error::SetUpStreams)
    }

    /// Starts the thread that reads lines; gives the ends that are written to.
    fn read_to(&mut self, sink: LineSink) -> io::Result<(OwnedFd, OwnedFd)> {
        let ((out, out_write), (err, err_write)) = (io::pipe()?, io::pipe()?);
        let ended = Arc::clone(&self.ended);
        let thread = std::thread::Builder::new().name("ctk-output".into());
        let sources = vec![Source::new(out, Stream::Out), Source::new(err, Stream::Err)];
        self.reader = Some(thread.spawn(move || read_lines(sources, &sink, &ended))?);
        Ok((out_write.into(), err_write.into()))
    }

    /// Passes on what the ended process left in its pipes.
    pub(crate) fn finish(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(reader) = self.reader.take() {
            // A sink that panicked has told its story already.
            let _ = reader.join();
        }
    }
}

fn open(stdio: Stdio, stdin: Stdin) -> io::Result<(Streams, ProcessStdio)> {
    let mut streams = Streams { reader: None, ended: Arc::default() };
    let (output, error) = match stdio {
        Stdio::Terminal => return Ok((streams, ProcessStdio::Terminal)),
        Stdio::Inherit => (io::stdout().as_fd().try_clone_to_owned()?, io::stderr().as_fd().try_clone_to_owned()?),
        Stdio::Null => (null()?, null()?),
        Stdio::Files { out, err } => (out, err),
        Stdio::Lines(sink) => streams.read_to(sink)?,
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

/// Reads what a process writes, line by line. Its ends of the pipes are given to the process.
pub struct LineReader {
    streams: Streams,
}

impl LineReader {
    /// A reader whose lines go to `sink`, and the ends for standard output and standard error. Lines beyond
    /// [`LINE_BYTES`] are split; an unfinished last line is passed too.
    pub fn start(sink: LineSink) -> io::Result<(LineReader, OwnedFd, OwnedFd)> {
        let mut streams = Streams { reader: None, ended: Arc::default() };
        let (out, err) = streams.read_to(sink)?;
        Ok((LineReader { streams }, out, err))
    }

    /// Passes on what the ended process left in its pipes, and returns when that is done.
    pub fn finish(&mut self) {
        self.streams.finish();
    }
}

/// A pipe and what came through it without a newline yet.
struct Source {
    pipe: io::PipeReader,
    stream: Stream,
    lines: Lines,
}

impl Source {
    fn new(pipe: io::PipeReader, stream: Stream) -> Source {
        Source { pipe, stream, lines: Lines::default() }
    }
}

/// Reads all pipes to their ends: one thread for both streams, so that their lines come in about the order in which
/// they were written.
fn read_lines(mut sources: Vec<Source>, sink: &LineSink, ended: &AtomicBool) {
    let mut buffer = vec![0; LINE_BYTES];
    // Time that went by in waiting since the process ended: a slow listener is no reason to stop.
    let mut waited = Duration::ZERO;
    while !sources.is_empty() {
        let timeout = Timespec { tv_sec: 0, tv_nsec: POLL_MS * 1_000_000 };
        let mut files: Vec<_> = sources.iter().map(|source| PollFd::new(&source.pipe, PollFlags::IN)).collect();
        let asked = Instant::now();
        // Before the question: what it wrote between a silent answer and its end is still to be read.
        let has_ended = ended.load(Ordering::SeqCst);
        let ready = poll(&mut files, Some(&timeout));
        let ready_files: Vec<bool> = files.iter().map(|file| !file.revents().is_empty()).collect();
        if has_ended {
            // Somebody else may hold a pipe open: then silence ends it, or the clock.
            waited += asked.elapsed();
            if ready == Ok(0) || waited > DRAIN_SECONDS {
                break;
            }
        }
        if !matches!(ready, Ok(1..)) {
            continue;
        }
        let mut each = ready_files.into_iter();
        sources.retain_mut(|source| {
            let ready = each.next().unwrap_or(false);
            let open = !ready || source.read(&mut buffer, sink);
            if !open {
                source.lines.finish(&mut |line| sink(source.stream, line));
            }
            open
        });
    }
    for source in &mut sources {
        source.lines.finish(&mut |line| sink(source.stream, line));
    }
}

impl Source {
    /// Passes on what is there; `false` at the end.
    fn read(&mut self, buffer: &mut [u8], sink: &LineSink) -> bool {
        match self.pipe.read(buffer) {
            Ok(0) => false,
            Ok(count) => {
                let stream = self.stream;
                self.lines.push(buffer.get(..count).unwrap_or(&[]), &mut |line| sink(stream, line));
                true
            }
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }
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
