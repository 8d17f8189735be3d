//! Sparse files as GNU tar writes them: a map says where the stored bytes belong, the rest is zeros.
//!
//! Four ways to write the map (GNU tar's manual, "Storing Sparse Files"): in the header and in blocks behind it (the old
//! one, kind `S`), in PAX records (0.0: a record a number; 0.1: one list), or in front of the data (1.0).

use std::collections::BTreeMap;
use std::io;

use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

use crate::LayerError;
use crate::limits::{SPARSE_SEGMENTS_MAX, SPARSE_SIZE_MAX_BYTES};

/// Records of an entry by key.
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Where the next byte of a sparse file comes from.
pub struct Sparse {
    /// Offsets and lengths, in order; the first that is not read to its end comes next.
    segments: std::vec::IntoIter<(u64, u64)>,
    next: (u64, u64),
    at: u64,
    size: u64,
}

/// How the PAX records of an entry say that it is sparse.
pub enum Form {
    /// The map is among them.
    Records,
    /// The map is in front of the data.
    Data,
}

/// Whether and how the records speak of a sparse file. The error is what is wrong with them.
pub fn form(records: &Records) -> Result<Option<Form>, String> {
    let text = |key: &str| records.get(key.as_bytes()).map(|value| String::from_utf8_lossy(value));
    match (text("GNU.sparse.major").as_deref(), text("GNU.sparse.minor").as_deref()) {
        (None, None) | (Some("0"), Some("0" | "1")) => {
            Ok(records.contains_key(&b"GNU.sparse.map"[..]).then_some(Form::Records))
        }
        (Some("1"), Some("0")) => Ok(Some(Form::Data)),
        (major, minor) => {
            let (major, minor) = (major.unwrap_or("none"), minor.unwrap_or("none"));
            Err(format!("sparse files of version {major}.{minor} are unknown"))
        }
    }
}

/// Adds a record, gathering the numbers of version 0.0 as the list that version 0.1 has.
pub fn add_record(records: &mut Records, key: &[u8], value: &[u8]) {
    match key {
        b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
            let map = records.entry(b"GNU.sparse.map".to_vec()).or_default();
            if !map.is_empty() {
                map.push(b',');
            }
            map.extend_from_slice(value);
        }
        _ => {
            records.insert(key.to_vec(), value.to_vec());
        }
    }
}

impl Sparse {
    /// A file of `size` bytes with these segments, of which `stored` bytes follow. The error is what is wrong with them.
    fn new(segments: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Sparse, String> {
        if size > SPARSE_SIZE_MAX_BYTES {
            return Err(format!("a sparse file of {size} bytes is larger than {SPARSE_SIZE_MAX_BYTES} bytes"));
        }
        let (mut end, mut sum) = (0u64, 0u64);
        for (offset, length) in &segments {
            match offset.checked_add(*length) {
                Some(to) if *offset >= end && to <= size => end = to,
                _ => return Err("the map of a sparse file is out of order or leaves the file".into()),
            }
            sum += length;
        }
        if sum != stored {
            return Err(format!("the map of a sparse file has {sum} bytes, and {stored} are stored"));
        }
        let mut segments = segments.into_iter();
        let next = segments.next().unwrap_or((size, 0));
        Ok(Sparse { segments, next, at: 0, size })
    }

    /// By the header of the old kind and the blocks that continue it.
    pub fn of_header(
        header: &GnuHeader,
        stored: u64,
        block: &mut impl FnMut() -> Result<[u8; 512], LayerError>,
        bad: &impl Fn(String) -> LayerError,
    ) -> Result<Sparse, LayerError> {
        let number = |number: io::Result<u64>| number.map_err(|error| bad(error.to_string()));
        let mut segments = Vec::new();
        let mut add = |all: &[GnuSparseHeader]| -> Result<(), LayerError> {
            for one in all.iter().filter(|one| !one.is_empty()) {
                segments.push((number(one.offset())?, number(one.length())?));
            }
            if segments.len() > SPARSE_SEGMENTS_MAX { Err(bad(too_many())) } else { Ok(()) }
        };
        add(&header.sparse)?;
        let mut more = header.is_extended();
        while more {
            let mut next = GnuExtSparseHeader::new();
            next.as_mut_bytes().copy_from_slice(&block()?);
            add(&next.sparse)?;
            more = next.is_extended();
        }
        Sparse::new(segments, number(header.real_size())?, stored).map_err(bad)
    }

    /// By the list among the records. The error is what is wrong with them.
    pub fn of_records(records: &Records, stored: u64) -> Result<Sparse, String> {
        let map = &records[&b"GNU.sparse.map"[..]];
        let numbers: Vec<u64> = map.split(|b| *b == b',').map(number).collect::<Option<_>>().ok_or_else(malformed)?;
        let size = records.get(&b"GNU.sparse.size"[..]).and_then(|value| number(value)).ok_or_else(malformed)?;
        let (pairs, []) = numbers.as_chunks::<2>() else { return Err(malformed()) };
        if pairs.len() > SPARSE_SEGMENTS_MAX {
            return Err(too_many());
        }
        Sparse::new(pairs.iter().map(|[offset, length]| (*offset, *length)).collect(), size, stored)
    }

    /// By what is in front of the data: the number of segments and then their numbers, a line each, filled to whole
    /// blocks. `stored` bytes follow in all; gives also how many of them the map was.
    pub fn of_data(
        records: &Records,
        stored: u64,
        block: &mut impl FnMut() -> Result<[u8; 512], LayerError>,
        bad: &impl Fn(String) -> LayerError,
    ) -> Result<(Sparse, u64), LayerError> {
        let size = records.get(&b"GNU.sparse.realsize"[..]).and_then(|value| number(value));
        let size = size.ok_or_else(|| bad(malformed()))?;
        let (mut numbers, mut line, mut read) = (Vec::new(), Vec::new(), 0u64);
        let mut expected = None;
        while expected.is_none_or(|expected| numbers.len() < expected) {
            // The longest number has 20 digits.
            if read + 512 > stored || line.len() > 20 {
                return Err(bad(malformed()));
            }
            read += 512;
            for byte in block()? {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                let found = number(&line).ok_or_else(|| bad(malformed()))?;
                line.clear();
                match expected {
                    None if found > SPARSE_SEGMENTS_MAX as u64 => return Err(bad(too_many())),
                    None => expected = Some(2 * found as usize),
                    Some(_) => numbers.push(found),
                }
                if expected == Some(numbers.len()) {
                    break;
                }
            }
        }
        let segments = numbers.as_chunks::<2>().0.iter().map(|[offset, length]| (*offset, *length)).collect();
        Ok((Sparse::new(segments, size, stored - read).map_err(bad)?, read))
    }

    /// Bytes of the file, holes and all.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Gives the next bytes of the file: zeros, or what `stored` gives.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        stored: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        while self.at == self.next.0 + self.next.1 && self.at < self.size {
            self.next = self.segments.next().unwrap_or((self.size, 0));
        }
        let (offset, length) = self.next;
        let up_to = |end: u64| buffer.len().min(usize::try_from(end - self.at).unwrap_or(usize::MAX));
        let n = if self.at < offset {
            let n = up_to(offset);
            buffer[..n].fill(0);
            n
        } else {
            let n = up_to(offset + length);
            if n == 0 { 0 } else { stored(&mut buffer[..n])? }
        };
        self.at += n as u64;
        Ok(n)
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn malformed() -> String {
    "the map of a sparse file is malformed".into()
}

fn too_many() -> String {
    format!("the map of a sparse file has more than {SPARSE_SEGMENTS_MAX} segments")
}
