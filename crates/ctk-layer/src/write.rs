//! Writes tar streams: the same entries give the same bytes, everywhere and always.
//!
//! Plain ustar where it suffices and PAX records where it doesn't: names over 100 bytes, sizes over 8 GiB,
//! nanoseconds, large ids, extended attributes. Owners are numbers; names of owners stay empty.

use std::io::{Read, Write};

use tar::{EntryType, Header};

use crate::{Entry, EntryKind, LayerError, pax};

const OCTAL_7_MAX: u64 = 0o7_777_777;
const OCTAL_11_MAX: u64 = 0o77_777_777_777;
const NAME_BYTES: usize = 100;
/// Two blocks of zeros end an archive.
pub(crate) const END_BYTES: u64 = 1024;

/// Writes entries in the order given; sort them to be deterministic.
pub struct TarWriter<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// Writes to `out`, in pieces of up to 64 KiB.
    pub fn new(out: W) -> TarWriter<W> {
        TarWriter { out, buffer: vec![0; 64 << 10] }
    }

    /// Writes `entry`, and for a file exactly `entry.size()` bytes of `data`.
    ///
    /// [`LayerError::SizeChanged`] when `data` ends early; the stream is then useless.
    pub fn append(&mut self, entry: &Entry, data: impl Read) -> Result<(), LayerError> {
        self.head(entry)?;
        if let EntryKind::File { size } = entry.kind {
            self.data(entry, size, data)?;
        }
        Ok(())
    }

    /// Writes the end of the archive and gives the stream back.
    pub fn finish(mut self) -> Result<W, LayerError> {
        self.out.write_all(&[0; END_BYTES as usize]).map_err(LayerError::Write)?;
        Ok(self.out)
    }

    fn head(&mut self, entry: &Entry) -> Result<(), LayerError> {
        let mut header = Header::new_ustar();
        let mut records = Vec::new();
        let mut path = if entry.path.is_empty() { b".".to_vec() } else { entry.path.clone() };
        if entry.kind == EntryKind::Directory {
            path.push(b'/');
        }
        let name = &mut header.as_ustar_mut().expect("just made as ustar").name;
        if path.len() <= NAME_BYTES {
            name[..path.len()].copy_from_slice(&path);
        } else {
            name.copy_from_slice(&path[..NAME_BYTES]);
            pax::push(&mut records, b"path", &path);
        }
        if let EntryKind::Symlink { target } | EntryKind::HardLink { target } = &entry.kind {
            let field = &mut header.as_ustar_mut().expect("just made as ustar").linkname;
            if target.len() <= NAME_BYTES {
                field[..target.len()].copy_from_slice(target);
            } else {
                field.copy_from_slice(&target[..NAME_BYTES]);
                pax::push(&mut records, b"linkpath", target);
            }
        }
        let mut number = |key: &str, value: u64, limit: u64| {
            if value > limit {
                pax::push(&mut records, key.as_bytes(), value.to_string().as_bytes());
                return 0;
            }
            value
        };
        header.set_size(number("size", entry.size(), OCTAL_11_MAX));
        header.set_uid(number("uid", u64::from(entry.uid), OCTAL_7_MAX));
        header.set_gid(number("gid", u64::from(entry.gid), OCTAL_7_MAX));
        let time = entry.mtime;
        let plain = time.nanos == 0 && (0..=OCTAL_11_MAX as i64).contains(&time.seconds);
        header.set_mtime(time.seconds.clamp(0, OCTAL_11_MAX as i64) as u64);
        if !plain {
            pax::push(&mut records, b"mtime", time_text(time.seconds, time.nanos).as_bytes());
        }
        for (key, value) in &entry.xattrs {
            pax::push(&mut records, &[b"SCHILY.xattr.", &key[..]].concat(), value);
        }
        header.set_mode(entry.mode & 0o7777);
        let mut device = None;
        header.set_entry_type(match entry.kind {
            EntryKind::File { .. } => EntryType::Regular,
            EntryKind::Directory => EntryType::Directory,
            EntryKind::Symlink { .. } => EntryType::Symlink,
            EntryKind::HardLink { .. } => EntryType::Link,
            EntryKind::Fifo => EntryType::Fifo,
            EntryKind::CharDevice { major, minor } => {
                device = Some((major, minor));
                EntryType::Char
            }
            EntryKind::BlockDevice { major, minor } => {
                device = Some((major, minor));
                EntryType::Block
            }
        });
        if let Some((major, minor)) = device {
            let set = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
            set.map_err(LayerError::Write)?;
        }
        header.set_cksum();
        if !records.is_empty() {
            self.extended(&records)?;
        }
        self.out.write_all(header.as_bytes()).map_err(LayerError::Write)
    }

    fn extended(&mut self, records: &[u8]) -> Result<(), LayerError> {
        let mut header = Header::new_ustar();
        header.as_ustar_mut().expect("just made as ustar").name[..12].copy_from_slice(b"PaxHeaders.0");
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(LayerError::Write)?;
        self.out.write_all(records).map_err(LayerError::Write)?;
        self.pad(records.len() as u64)
    }

    fn data(&mut self, entry: &Entry, size: u64, mut data: impl Read) -> Result<(), LayerError> {
        let mut left = size;
        while left > 0 {
            let want = left.min(self.buffer.len() as u64) as usize;
            match data.read(&mut self.buffer[..want]) {
                Ok(0) => {
                    let (expected, found) = (size, size - left);
                    return Err(LayerError::SizeChanged { path: entry.display(), expected, found });
                }
                Ok(n) => {
                    self.out.write_all(&self.buffer[..n]).map_err(LayerError::Write)?;
                    left -= n as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(LayerError::Read(e)),
            }
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> Result<(), LayerError> {
        let padding = (size.next_multiple_of(512) - size) as usize;
        self.out.write_all(&[0; 512][..padding]).map_err(LayerError::Write)
    }
}

/// Bytes that [`TarWriter::append`] writes for `entry`: its heads, its data and what fills the last block.
pub(crate) fn entry_bytes(entry: &Entry) -> Result<u64, LayerError> {
    let mut heads = TarWriter { out: Vec::new(), buffer: Vec::new() };
    heads.head(entry)?;
    Ok(heads.out.len() as u64 + entry.size().next_multiple_of(512))
}

fn time_text(seconds: i64, nanos: u32) -> String {
    let (sign, whole, nanos) = match (seconds < 0, nanos) {
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
        (false, nanos) => ("", seconds.unsigned_abs(), nanos),
    };
    let text = format!("{sign}{whole}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
