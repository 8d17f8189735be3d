//! Reads tar streams: ustar, PAX, GNU long names and sparse files. The `tar` crate decodes the header fields; framing is ours,
//! so that no two readers can disagree about where an entry ends.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};

use tar::{EntryType, Header};

use crate::entry::{display, resolved_path};
use crate::limits::{EXTENDED_HEADER_MAX_BYTES, PATH_MAX_BYTES};
use crate::sparse::{self, Sparse};
use crate::{Entry, EntryKind, LayerError, Time, clean_path, pax};

const BLOCK: u64 = 512;
/// Where a header says what its entry is.
const TYPE_OFFSET: usize = 156;
/// The largest size that 11 octal digits hold; writers put it, or 0, where PAX `size` says the truth.
const OCTAL_SIZE_MAX: u64 = 0o77_777_777_777;

/// Gives the entries of a tar stream, one after the other; after each, [`Read`] gives its bytes.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut tar = ctk_layer::TarReader::new(std::fs::File::open("layer.tar")?);
/// while let Some(entry) = tar.next_entry()? {
///     println!("{}", entry.display());
///     std::io::copy(&mut tar, &mut std::io::sink())?; // or skip it: the next entry does
/// }
/// # Ok(()) }
/// ```
pub struct TarReader<R> {
    stream: R,
    offset: u64,
    /// Bytes of the current entry not read yet.
    left: u64,
    /// Padding after the current entry.
    padding: u64,
    /// The current entry's holes, if it has any; `left` counts what is stored.
    sparse: Option<Sparse>,
    global: BTreeMap<Vec<u8>, Vec<u8>>,
    ended: bool,
    paths: Paths,
}

#[derive(Clone, Copy, PartialEq)]
enum Paths {
    Clean,
    Resolved,
    Raw,
}

impl<R: Read> TarReader<R> {
    /// Reads `stream`, which should be buffered or give large pieces by itself.
    pub fn new(stream: R) -> TarReader<R> {
        let (offset, left, padding) = (0, 0, 0);
        let (sparse, global) = (None, BTreeMap::new());
        TarReader { stream, offset, left, padding, sparse, global, ended: false, paths: Paths::Clean }
    }

    /// Keeps [`Entry::path`] and hard link targets as written, for archives that are not unpacked by their names.
    pub fn with_raw_paths(self) -> TarReader<R> {
        TarReader { paths: Paths::Raw, ..self }
    }

    /// Takes `..` in names, where it stays inside: what is before it goes. For archives that are no layers.
    pub fn with_resolved_paths(self) -> TarReader<R> {
        TarReader { paths: Paths::Resolved, ..self }
    }

    /// The next entry, or `None` after the last. Bytes of the previous entry that nobody read are skipped.
    ///
    /// The end is the first zero block; call [`TarReader::finish`] to read what follows it. A stream that ends
    /// between two entries without zero blocks is accepted, as all tar readers do.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, LayerError> {
        if self.ended {
            return Ok(None);
        }
        self.skip()?;
        let mut local: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        loop {
            let at = self.offset;
            let Some(header) = self.header()? else {
                self.ended = true;
                return Ok(None);
            };
            let bad = |reason: String| LayerError::Header { offset: at, reason };
            let size = header.entry_size().map_err(|e| bad(e.to_string()))?;
            match header.entry_type() {
                EntryType::XHeader | EntryType::XGlobalHeader => {
                    let block = self.extension(at, size)?;
                    let records = pax::parse(&block).ok_or_else(|| bad("malformed PAX records".into()))?;
                    let global = header.entry_type() == EntryType::XGlobalHeader;
                    let target = if global { &mut self.global } else { &mut local };
                    for (key, value) in records {
                        sparse::add_record(target, key, value);
                    }
                    if global {
                        let of_one = |key: &[u8]| matches!(key, b"path" | b"linkpath" | b"size");
                        target.retain(|key, _| !of_one(key) && !key.starts_with(b"GNU.sparse."));
                    }
                }
                EntryType::GNULongName | EntryType::GNULongLink => {
                    let key: &[u8] = if header.entry_type() == EntryType::GNULongName { b"path" } else { b"linkpath" };
                    let mut name = self.extension(at, size)?;
                    name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
                    local.entry(key.to_vec()).or_insert(name);
                }
                _ => {
                    for (key, value) in &self.global {
                        local.entry(key.clone()).or_insert_with(|| value.clone());
                    }
                    return self.entry(at, &header, size, local).map(Some);
                }
            }
        }
    }

    /// Reads to the end of the stream, so that a hash or a verifying reader under it sees everything.
    pub fn finish(mut self) -> Result<R, LayerError> {
        self.skip()?;
        std::io::copy(&mut self.stream, &mut std::io::sink()).map_err(LayerError::Read)?;
        Ok(self.stream)
    }

    fn entry(
        &mut self,
        at: u64,
        header: &Header,
        header_size: u64,
        records: BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<Entry, LayerError> {
        let bad = |reason: String| LayerError::Header { offset: at, reason };
        let number = |key: &str| -> Result<Option<u64>, LayerError> {
            let Some(text) = records.get(key.as_bytes()) else { return Ok(None) };
            let parsed = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
            parsed.map(Some).ok_or_else(|| bad(format!("PAX `{key}` is no number")))
        };
        // The name in the header of a sparse file is made up, for readers that know none.
        let named = records.get(&b"GNU.sparse.name"[..]).or_else(|| records.get(&b"path"[..]));
        let raw_path = named.cloned().unwrap_or_else(|| header.path_bytes().into_owned());
        let path = self.path(&raw_path, at)?;
        let link = || -> Vec<u8> {
            let short = || header.link_name_bytes().map(|l| l.into_owned()).unwrap_or_default();
            records.get(&b"linkpath"[..]).cloned().unwrap_or_else(short)
        };
        let size = match number("size")? {
            Some(size) if size != header_size && header_size != 0 && header_size != OCTAL_SIZE_MAX => {
                return Err(bad(format!("PAX size {size} contradicts the header's {header_size}")));
            }
            Some(size) => size,
            None => header_size,
        };
        let device = |field: std::io::Result<Option<u32>>| field.ok().flatten().unwrap_or(0);
        let (major, minor) = (device(header.device_major()), device(header.device_minor()));
        let mut stored = size;
        // Archives from before POSIX have no type for directories: they are files whose name ends with a slash.
        let old = header.as_bytes()[TYPE_OFFSET] == 0;
        let kind = match header.entry_type() {
            EntryType::Regular if old && raw_path.ends_with(b"/") => EntryKind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                (self.sparse, stored) = self.sparse(at, header, size, &records)?;
                EntryKind::File { size: self.sparse.as_ref().map_or(size, Sparse::size) }
            }
            EntryType::Directory => EntryKind::Directory,
            EntryType::Symlink => EntryKind::Symlink { target: bounded(link(), at)? },
            EntryType::Link => EntryKind::HardLink { target: self.path(&link(), at)? },
            EntryType::Char => EntryKind::CharDevice { major, minor },
            EntryType::Block => EntryKind::BlockDevice { major, minor },
            EntryType::Fifo => EntryKind::Fifo,
            other => {
                let kind = format!("`{}`", char::from(other.as_byte()).escape_default());
                return Err(LayerError::Kind { path: display(&path), kind });
            }
        };
        // Data after anything but a file would be read as headers by readers that trust the kind.
        self.left = if header.entry_type() == EntryType::Link { 0 } else { stored };
        self.padding = self.left.next_multiple_of(BLOCK) - self.left;
        let owner = |pax: Option<u64>, field: std::io::Result<u64>, what: &str| -> Result<u32, LayerError> {
            let id = pax.map_or_else(|| field.map_err(|e| bad(e.to_string())), Ok)?;
            u32::try_from(id).map_err(|_| bad(format!("{what} {id} is larger than 32 bits")))
        };
        let mtime = match records.get(&b"mtime"[..]) {
            Some(text) => pax_time(text).ok_or_else(|| bad("PAX `mtime` is no time".into()))?,
            None => Time::seconds(header.mtime().unwrap_or(0) as i64),
        };
        let uid = owner(number("uid")?, header.uid(), "uid")?;
        let gid = owner(number("gid")?, header.gid(), "gid")?;
        let mode = header.mode().map_err(|e| bad(e.to_string()))? & 0o7777;
        let xattr = |(key, value): (Vec<u8>, Vec<u8>)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value));
        let xattrs = records.into_iter().filter_map(xattr).collect();
        Ok(Entry { path, kind, mode, uid, gid, mtime, xattrs })
    }

    /// The holes of a file of `size` stored bytes, and how many of these are its data.
    fn sparse(
        &mut self,
        at: u64,
        header: &Header,
        size: u64,
        records: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<(Option<Sparse>, u64), LayerError> {
        let bad = |reason: String| LayerError::Header { offset: at, reason };
        let mut block = || -> Result<[u8; BLOCK as usize], LayerError> {
            let mut block = [0; BLOCK as usize];
            let read = self.stream.read_exact(&mut block);
            read.map_err(|error| cut(error, self.offset))?;
            self.offset += BLOCK;
            Ok(block)
        };
        if header.entry_type() == EntryType::GNUSparse {
            let header = header.as_gnu().ok_or_else(|| bad("a sparse file without GNU's header".into()))?;
            return Ok((Some(Sparse::of_header(header, size, &mut block, &bad)?), size));
        }
        Ok(match sparse::form(records).map_err(bad)? {
            None => (None, size),
            Some(sparse::Form::Records) => (Some(Sparse::of_records(records, size).map_err(bad)?), size),
            Some(sparse::Form::Data) => {
                let (sparse, map) = Sparse::of_data(records, size, &mut block, &bad)?;
                (Some(sparse), size - map)
            }
        })
    }

    fn path(&self, raw: &[u8], at: u64) -> Result<Vec<u8>, LayerError> {
        match self.paths {
            Paths::Clean => clean_path(raw, at),
            Paths::Resolved => resolved_path(raw, at),
            Paths::Raw => bounded(raw.to_vec(), at),
        }
    }

    fn header(&mut self) -> Result<Option<Header>, LayerError> {
        let at = self.offset;
        let mut block = [0u8; BLOCK as usize];
        let mut have = 0;
        while have < block.len() {
            match self.stream.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(LayerError::Truncated { offset: at + have as u64 }),
                Ok(n) => have += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(LayerError::Read(e)),
            }
        }
        self.offset += BLOCK;
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block);
        // The sum counts the checksum field itself as eight spaces; some old writers summed signed bytes.
        let fields = block[..148].iter().chain(&block[156..]);
        let unsigned = 256 + fields.clone().map(|b| u32::from(*b)).sum::<u32>();
        let signed = 256 + fields.map(|b| i32::from(*b as i8)).sum::<i32>();
        match header.cksum() {
            Ok(sum) if sum == unsigned || i64::from(sum) == i64::from(signed) => Ok(Some(header.clone())),
            _ => Err(LayerError::Header { offset: at, reason: "the checksum is wrong".into() }),
        }
    }

    fn extension(&mut self, at: u64, size: u64) -> Result<Vec<u8>, LayerError> {
        if size > EXTENDED_HEADER_MAX_BYTES {
            let limit = EXTENDED_HEADER_MAX_BYTES;
            return Err(LayerError::Limit { offset: at, what: "the extended header", limit });
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
        let mut block = vec![0; size as usize];
        self.read_exact(&mut block).map_err(|e| cut(e, self.offset))?;
        self.skip()?;
        Ok(block)
    }

    /// Skips the rest of the entry and its padding.
    fn skip(&mut self) -> Result<(), LayerError> {
        self.sparse = None;
        let mut waste = [0u8; 8192];
        let mut left = std::mem::take(&mut self.left) + std::mem::take(&mut self.padding);
        while left > 0 {
            let want = left.min(waste.len() as u64) as usize;
            match self.stream.read(&mut waste[..want]) {
                Ok(0) => return Err(LayerError::Truncated { offset: self.offset }),
                Ok(n) => {
                    left -= n as u64;
                    self.offset += n as u64;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(LayerError::Read(e)),
            }
        }
        Ok(())
    }
}

fn cut(error: std::io::Error, offset: u64) -> LayerError {
    match error.kind() {
        ErrorKind::UnexpectedEof => LayerError::Truncated { offset },
        _ => LayerError::Read(error),
    }
}

impl<R: Read> Read for TarReader<R> {
    /// The current entry's bytes; fails with `UnexpectedEof` when the stream ends inside it.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.sparse.take() {
            None => self.stored(buffer),
            Some(mut sparse) => {
                let read = sparse.read(buffer, |buffer| self.stored(buffer));
                self.sparse = Some(sparse);
                read
            }
        }
    }
}

impl<R: Read> TarReader<R> {
    /// The current entry's bytes as they are stored.
    fn stored(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let want = self.left.min(buffer.len() as u64) as usize;
        if want == 0 {
            return Ok(0);
        }
        let n = self.stream.read(&mut buffer[..want])?;
        if n == 0 {
            return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "the tar stream is cut short inside a file"));
        }
        self.left -= n as u64;
        self.offset += n as u64;
        Ok(n)
    }
}

fn bounded(path: Vec<u8>, at: u64) -> Result<Vec<u8>, LayerError> {
    if path.len() >= PATH_MAX_BYTES || path.contains(&0) {
        let reason = "it is longer than 4095 bytes or holds a NUL byte";
        return Err(LayerError::Path { offset: at, path: display(&path), reason });
    }
    Ok(path)
}

/// `-12.5` → seconds -13, nanos 500 000 000.
fn pax_time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok()? } else { return None };
    if whole.starts_with('-') && nanos > 0 {
        return Some(Time { seconds: seconds.checked_sub(1)?, nanos: 1_000_000_000 - nanos });
    }
    Some(Time { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_count_forward() {
        let check = |text: &str, expected: Option<(i64, u32)>| {
            assert_eq!(pax_time(text.as_bytes()).map(|t| (t.seconds, t.nanos)), expected, "{text}");
        };
        check("12", Some((12, 0)));
        check("12.000000001", Some((12, 1)));
        check("-1.5", Some((-2, 500_000_000)));
        check("-0.25", Some((-1, 750_000_000)));
        check("1.x", None);
    }
}
