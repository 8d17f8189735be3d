//! Reading a log: all of it or its end, and what is added meanwhile.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::thread::sleep;

use memchr::{memchr, memrchr};

use super::{Stream, older};
use crate::Error;
use crate::limits::{FOLLOW_POLL, LOG_FILES_MAX};
use crate::time::{self, TEXT_BYTES};

const BLOCK: usize = 256 * 1024;

/// Which entries.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Not before this time, in nanoseconds since 1970.
    pub since: Option<u64>,
    /// Not after.
    pub until: Option<u64>,
    /// Only so many lines at the end of what there is.
    pub tail: Option<u64>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Only this stream.
    pub stream: Option<Stream>,
}

/// Gives a log's lines to `out`, many at once. `goes_on` is asked when the end is reached: as long as it says so, what
/// is added is waited for; after it said no, what was added until then is read. `out` ends it all by `false`.
pub fn read(
    path: &Path,
    filter: &Filter,
    goes_on: &mut dyn FnMut() -> bool,
    out: &mut dyn FnMut(Stream, &[u8]) -> bool,
) -> Result<(), Error> {
    let failed = |source| Error::File { attempt: "read", path: path.to_owned(), source };
    let mut place = match filter.tail {
        None => oldest(path),
        Some(lines) => tail(path, lines),
    }
    .map_err(failed)?;
    let mut shown = Shown::new(filter);
    let mut last_round = false;
    loop {
        if let Some((file, offset)) = &mut place {
            if !shown.rest_of(file, offset, out).map_err(failed)? || shown.over {
                return Ok(());
            }
            if let Some(next) = newer(path, file).map_err(failed)? {
                place = Some((next, 0));
                continue;
            }
        } else {
            place = oldest(path).map_err(failed)?;
            if place.is_some() {
                continue;
            }
        }
        if last_round {
            return Ok(());
        }
        match goes_on() {
            true => sleep(FOLLOW_POLL),
            false => last_round = true,
        }
    }
}

type Place = Option<(File, u64)>;

/// The oldest file that there is.
fn oldest(path: &Path) -> io::Result<Place> {
    let mut found = None;
    for number in 0..=LOG_FILES_MAX {
        match File::open(older(path, number)) {
            Ok(file) => found = Some((file, 0)),
            // Between two renames the first is missing.
            Err(error) if error.kind() == io::ErrorKind::NotFound && number > 0 => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The file that was begun after `file`; none if that is the last.
fn newer(path: &Path, file: &File) -> io::Result<Option<File>> {
    let inode = file.metadata()?.ino();
    let is = |number: u32| fs::metadata(older(path, number)).is_ok_and(|found| found.ino() == inode);
    if is(0) {
        return Ok(None);
    }
    for number in 1..=LOG_FILES_MAX {
        if is(number) {
            return Ok(File::open(older(path, number - 1)).ok());
        }
        if !older(path, number).exists() {
            break;
        }
    }
    // It is gone altogether: the oldest that is left.
    Ok(oldest(path)?.map(|(file, _)| file))
}

/// Where the last `lines` lines begin.
fn tail(path: &Path, lines: u64) -> io::Result<Place> {
    let mut found: Place = None;
    let mut counter = Counter { left: lines, ..Counter::default() };
    for number in 0..=LOG_FILES_MAX {
        let file = match File::open(older(path, number)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && number == 0 => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        let start = counter.back(&file)?;
        let enough = start > 0 || counter.done;
        found = Some((file, start));
        if enough {
            break;
        }
    }
    Ok(found)
}

/// Counts lines from the end.
#[derive(Default)]
struct Counter {
    left: u64,
    /// Whether the entry behind the one that is looked at began something: the very end counts as such.
    seen_any: bool,
    done: bool,
}

impl Counter {
    /// Goes back through a file; gives the offset of the first entry that counts.
    fn back(&mut self, file: &File) -> io::Result<u64> {
        let mut end = file.metadata()?.len();
        let mut rest: Vec<u8> = Vec::new();
        // Bytes `end..` are behind us; `rest` are those before a line that were not whole yet.
        let mut line_end = end;
        while end > 0 {
            let start = end.saturating_sub(BLOCK as u64);
            let mut block = vec![0; (end - start) as usize];
            file.read_exact_at(&mut block, start)?;
            block.extend_from_slice(&rest);
            // Whole entries are those after a newline of this block, and the first one of the file.
            let mut upto = block.len();
            if line_end == start + upto as u64 && block.last() == Some(&b'\n') {
                upto -= 1;
            }
            loop {
                let begin = match memrchr(b'\n', block.get(..upto).unwrap_or_default()) {
                    Some(at) => at + 1,
                    None if start == 0 => 0,
                    None => break,
                };
                if self.enough(block.get(begin..upto).unwrap_or_default()) {
                    return Ok(line_end);
                }
                line_end = start + begin as u64;
                if begin == 0 {
                    return Ok(0);
                }
                upto = begin - 1;
            }
            block.truncate(upto);
            rest = block;
            end = start;
        }
        Ok(0)
    }

    /// Takes the entry before those that were taken; whether it is one too many.
    fn enough(&mut self, entry: &[u8]) -> bool {
        let ends_line = Entry::parse(entry).is_none_or(|entry| entry.ends);
        if ends_line || !self.seen_any {
            if self.left == 0 {
                self.done = true;
                return true;
            }
            self.left -= 1;
        }
        self.seen_any = true;
        false
    }
}

/// One entry of a log.
struct Entry<'a> {
    time: &'a [u8],
    stream: Stream,
    ends: bool,
    text: &'a [u8],
}

impl<'a> Entry<'a> {
    fn parse(line: &'a [u8]) -> Option<Entry<'a>> {
        let (time, rest) = (line.get(..TEXT_BYTES)?, line.get(TEXT_BYTES + 1..)?);
        let (stream, rest) = match rest.split_at_checked(7)? {
            (b"stdout ", rest) => (Stream::Out, rest),
            (b"stderr ", rest) => (Stream::Err, rest),
            _ => return None,
        };
        let (ends, text) = match rest.split_at_checked(2)? {
            (b"F ", text) => (true, text),
            (b"P ", text) => (false, text),
            _ => return None,
        };
        Some(Entry { time, stream, ends, text })
    }
}

/// What becomes of entries.
struct Shown<'a> {
    filter: &'a Filter,
    since: Option<String>,
    until: Option<String>,
    over: bool,
    out: Vec<u8>,
    stream: Stream,
    /// Whether what comes next begins a line, of either stream.
    begins: [bool; 2],
}

impl<'a> Shown<'a> {
    fn new(filter: &'a Filter) -> Shown<'a> {
        let (since, until) = (filter.since.map(time::text), filter.until.map(time::text));
        Shown { filter, since, until, over: false, out: Vec::new(), stream: Stream::Out, begins: [true; 2] }
    }

    /// Everything from an offset to the end of a file as it is now; an entry without an end is left for later.
    fn rest_of(
        &mut self,
        file: &File,
        offset: &mut u64,
        out: &mut dyn FnMut(Stream, &[u8]) -> bool,
    ) -> io::Result<bool> {
        let mut buffer: Vec<u8> = Vec::with_capacity(BLOCK);
        loop {
            let have = buffer.len();
            buffer.resize(have + BLOCK, 0);
            let count = read_at(file, buffer.get_mut(have..).unwrap_or_default(), *offset + have as u64)?;
            buffer.truncate(have + count);
            let whole = memrchr(b'\n', &buffer).map_or(0, |at| at + 1);
            let mut rest = buffer.get(..whole).unwrap_or_default();
            while let Some(end) = memchr(b'\n', rest) {
                if !self.entry(rest.get(..end).unwrap_or_default(), out) {
                    return Ok(false);
                }
                rest = rest.get(end + 1..).unwrap_or_default();
            }
            *offset += whole as u64;
            buffer.drain(..whole);
            if count == 0 {
                return Ok(self.flush(out));
            }
        }
    }

    fn entry(&mut self, line: &[u8], out: &mut dyn FnMut(Stream, &[u8]) -> bool) -> bool {
        // What is not ours is passed over: a line that a crash cut in its head.
        let Some(Entry { time, stream, ends, text }) = Entry::parse(line) else { return true };
        if self.since.as_ref().is_some_and(|since| time < since.as_bytes())
            || self.filter.stream.is_some_and(|wanted| wanted != stream)
        {
            return true;
        }
        if self.until.as_ref().is_some_and(|until| time > until.as_bytes()) {
            self.over = true;
            return self.flush(out);
        }
        if (stream != self.stream || self.out.len() > BLOCK) && !self.flush(out) {
            return false;
        }
        self.stream = stream;
        let [of_out, of_err] = &mut self.begins;
        let begins = if stream == Stream::Out { of_out } else { of_err };
        if self.filter.timestamps && *begins {
            self.out.extend_from_slice(time);
            self.out.push(b' ');
        }
        self.out.extend_from_slice(text);
        if ends {
            self.out.push(b'\n');
        }
        *begins = ends;
        true
    }

    fn flush(&mut self, out: &mut dyn FnMut(Stream, &[u8]) -> bool) -> bool {
        let goes_on = self.out.is_empty() || out(self.stream, &self.out);
        self.out.clear();
        goes_on
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Log;
    use crate::log::Writer;

    fn written(file_bytes: u64, pieces: &[(Stream, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(&folder.path().join("log"), Log { kept: true, file_bytes, files: LOG_FILES_MAX });
        for (stream, piece) in pieces {
            writer.add(*stream, piece.as_bytes());
        }
        folder
    }

    fn shown(folder: &tempfile::TempDir, filter: &Filter) -> String {
        let mut text = String::new();
        read(&folder.path().join("log"), filter, &mut || false, &mut |stream, bytes| {
            for line in std::str::from_utf8(bytes).unwrap().split_inclusive('\n') {
                text.push_str(if stream == Stream::Err { "!" } else { "" });
                text.push_str(line);
            }
            true
        })
        .unwrap();
        text
    }

    #[test]
    fn what_was_written_is_read() {
        let pieces = [(Stream::Out, "a\nb\nhal"), (Stream::Out, "f\n"), (Stream::Err, "e\n"), (Stream::Out, "no end")];
        for file_bytes in [0, 1, 60] {
            let folder = written(file_bytes, &pieces);
            assert_eq!(shown(&folder, &Filter::default()), "a\nb\nhalf\n!e\nno end", "{file_bytes}");
            for (tail, expected) in [
                (0, ""),
                (1, "no end"),
                (2, "!e\nno end"),
                (3, "half\n!e\nno end"),
                (4, "b\nhalf\n!e\nno end"),
                (9, "a\nb\nhalf\n!e\nno end"),
            ] {
                let filter = Filter { tail: Some(tail), ..Filter::default() };
                assert_eq!(shown(&folder, &filter), expected, "{file_bytes} {tail}");
            }
            let only = Filter { stream: Some(Stream::Err), ..Filter::default() };
            assert_eq!(shown(&folder, &only), "!e\n");
            let future = Filter { since: Some(u64::MAX / 2), ..Filter::default() };
            assert_eq!(shown(&folder, &future), "");
            let past = Filter { until: Some(1), ..Filter::default() };
            assert_eq!(shown(&folder, &past), "");
            let times = shown(&folder, &Filter { timestamps: true, ..Filter::default() });
            assert_eq!(times.matches('Z').count(), 5, "{times}");
        }
    }

    #[test]
    fn the_end_of_a_large_log_is_found() {
        let lines: Vec<String> = (0..20_000).map(|n| format!("this is line number {n}\n")).collect();
        let pieces: Vec<_> = lines.iter().map(|line| (Stream::Out, line.as_str())).collect();
        let folder = written(300_000, &pieces);
        for tail in [1, 5, 9_999, 20_000] {
            let filter = Filter { tail: Some(tail), ..Filter::default() };
            assert_eq!(shown(&folder, &filter), lines[20_000 - tail as usize..].concat(), "{tail}");
        }
    }

    #[test]
    fn what_is_added_is_waited_for_through_all_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut writer = Writer::open(&path, Log { kept: true, file_bytes: 200, files: 1000 });
        let (mut number, mut text) = (0, String::new());
        let mut goes_on = || {
            for _ in 0..10 {
                writer.add(Stream::Out, format!("{number}\n").as_bytes());
                number += 1;
            }
            number < 100
        };
        read(&path, &Filter::default(), &mut goes_on, &mut |_, bytes| {
            text.push_str(std::str::from_utf8(bytes).unwrap());
            true
        })
        .unwrap();
        assert_eq!(text, (0..100).map(|n| format!("{n}\n")).collect::<String>());
    }
}
