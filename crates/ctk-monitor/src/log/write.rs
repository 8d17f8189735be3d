//! Writing a log.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use memchr::memchr;

use super::{Stream, older};
use crate::config::Log;
use crate::limits::LOG_LINE_BYTES;
use crate::time;

/// The end of a container's log.
pub struct Writer {
    path: PathBuf,
    options: Log,
    file: Option<File>,
    bytes: u64,
    buffer: Vec<u8>,
    lost: u64,
}

impl Writer {
    /// Goes on with the log at `path`, which begins with the first entry. An entry that a crash cut off is ended.
    pub fn open(path: &Path, options: Log) -> Writer {
        let mut writer = Writer { path: path.to_owned(), options, file: None, bytes: 0, buffer: Vec::new(), lost: 0 };
        if let Ok(metadata) = fs::metadata(path) {
            writer.bytes = metadata.len();
            if !ends_whole(path, metadata.len()) {
                writer.buffer.push(b'\n');
            }
        }
        writer
    }

    /// Bytes of output that there was no room for.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Adds what a container wrote. A full disk loses it, and is told in the log as soon as there is room again; the
    /// container goes on.
    pub fn add(&mut self, stream: Stream, bytes: &[u8]) {
        if !self.options.kept || bytes.is_empty() {
            return;
        }
        let head = format!("{} {} ", time::text(time::now()), stream.word());
        let mut rest = bytes;
        while !rest.is_empty() {
            let line = memchr(b'\n', rest);
            let length = line.unwrap_or(rest.len()).min(LOG_LINE_BYTES);
            let ends = line == Some(length);
            self.buffer.extend_from_slice(head.as_bytes());
            self.buffer.extend_from_slice(if ends { b"F " } else { b"P " });
            self.buffer.extend_from_slice(rest.get(..length).unwrap_or_default());
            self.buffer.push(b'\n');
            rest = rest.get(length + usize::from(ends)..).unwrap_or_default();
        }
        match self.flush() {
            Ok(()) => {}
            Err(_) => {
                self.lost += bytes.len() as u64;
                self.buffer.clear();
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.options.file_bytes > 0 && self.bytes >= self.options.file_bytes {
            self.turn_over()?;
        }
        if self.file.is_none() {
            self.file = Some(File::options().append(true).create(true).open(&self.path)?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.lost > 0 {
            let told = format!(
                "{} stderr F ctk: the log had no room, {} bytes of output are missing here\n",
                time::text(time::now()),
                self.lost
            );
            self.buffer.splice(0..0, told.bytes());
        }
        match file.write_all(&self.buffer) {
            Ok(()) => {
                self.bytes += self.buffer.len() as u64;
                self.buffer.clear();
                self.lost = 0;
                Ok(())
            }
            Err(error) => {
                // No half an entry.
                let _ = file.set_len(self.bytes);
                Err(error)
            }
        }
    }

    fn turn_over(&mut self) -> io::Result<()> {
        self.file = None;
        let most = self.options.files.max(1) - 1;
        if most == 0 {
            fs::remove_file(&self.path)?;
        }
        for number in (0..most).rev() {
            match fs::rename(older(&self.path, number), older(&self.path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.bytes = 0;
        Ok(())
    }
}

fn ends_whole(path: &Path, length: u64) -> bool {
    use std::os::unix::fs::FileExt;
    let mut last = [0];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut last, length.saturating_sub(1)));
    length == 0 || read.is_ok_and(|()| last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| line[time::TEXT_BYTES + 1..].to_owned()).collect()
    }

    #[test]
    fn lines_and_parts_of_lines_are_entries() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut writer = Writer::open(&path, Log::default());
        writer.add(Stream::Out, b"one\ntwo\n\nhalf");
        writer.add(Stream::Err, b"oops\n");
        writer.add(Stream::Out, b" whole\n");
        let expected =
            ["stdout F one", "stdout F two", "stdout F ", "stdout P half", "stderr F oops", "stdout F  whole"];
        assert_eq!(contents(&path), expected);
        writer.add(Stream::Out, &[b'x'; LOG_LINE_BYTES + 1]);
        let lines = contents(&path);
        assert_eq!(lines[6].len() - "stdout P ".len(), LOG_LINE_BYTES);
        assert_eq!(lines[7], "stdout P x");
    }

    #[test]
    fn a_large_log_goes_on_in_another_file_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut writer = Writer::open(&path, Log { kept: true, file_bytes: 100, files: 3 });
        for number in 0..20 {
            writer.add(Stream::Out, format!("line {number}\n").as_bytes());
        }
        let names = ["log", "log.1", "log.2"].map(|name| contents(&folder.path().join(name)));
        assert_eq!(names[0].last().unwrap(), "stdout F line 19");
        assert!(!folder.path().join("log.3").exists());
        let all: Vec<_> = names.iter().rev().flatten().cloned().collect();
        let expected: Vec<_> = (20 - all.len()..20).map(|n| format!("stdout F line {n}")).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn what_a_crash_cut_off_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "2026-01-02T03:04:05.123456789Z stdout F cut of").unwrap();
        Writer::open(&path, Log::default()).add(Stream::Out, b"next\n");
        assert_eq!(contents(&path), ["stdout F cut of", "stdout F next"]);
    }
}
