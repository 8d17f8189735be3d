//! `.deb`: an `ar` archive of `debian-binary`, `control.tar` and `data.tar` (deb(5)).

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::{LockedPackage, PackagesError, limits};

/// A package file whose control part has been read.
pub(crate) struct Deb<'a> {
    pub(crate) package: &'a LockedPackage,
    pub(crate) path: PathBuf,
    /// The `control` file.
    pub(crate) control: String,
    /// The other control files: name, content, executable.
    pub(crate) files: Vec<(String, Vec<u8>, bool)>,
    data: Member,
}

#[derive(Clone, Debug)]
struct Member {
    name: String,
    offset: u64,
    size: u64,
}

impl<'a> Deb<'a> {
    /// Opens a package file and reads its control part.
    pub(crate) fn open(path: &Path, package: &'a LockedPackage) -> Result<Deb<'a>, PackagesError> {
        let bad = |what: String| PackagesError::Archive { package: package.name.clone(), path: path.into(), what };
        let mut file = File::open(path).map_err(|e| bad(format!("cannot be opened: {e}")))?;
        let size = file.metadata().map_err(|e| bad(format!("cannot be opened: {e}")))?.len();
        let members = members(&mut file, size).map_err(bad)?;
        let find = |prefix: &str| members.iter().find(|m| m.name.starts_with(prefix)).cloned();
        if members.first().is_none_or(|m| m.name != "debian-binary") {
            return Err(bad("is no Debian package: it does not begin with debian-binary".into()));
        }
        let control_member = find("control.tar").ok_or_else(|| bad("has no control.tar".into()))?;
        let data = find("data.tar").ok_or_else(|| bad("has no data.tar".into()))?;
        let mut deb = Deb { package, path: path.into(), control: String::new(), files: Vec::new(), data };
        let reader = deb.reader(&control_member)?.take(limits::CONTROL_BYTES);
        let mut archive = tar::Archive::new(reader);
        let broken = |e: io::Error| bad(format!("has a broken control.tar: {e}"));
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_string();
            if name.is_empty() || name.contains('/') {
                return Err(bad(format!("has a control file with the name `{name}`")));
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(broken)?;
            let executable = entry.header().mode().is_ok_and(|m| m & 0o111 != 0);
            if name == "control" {
                deb.control = String::from_utf8_lossy(&content).into_owned();
            } else {
                deb.files.push((name, content, executable));
            }
        }
        deb.files.sort();
        let stanza = crate::apt::deb822::Stanza(&deb.control);
        let says = (stanza.get("Package"), stanza.get("Version"));
        if says != (Some(&package.name), Some(&package.version)) {
            return Err(bad(format!(
                "is {} {}, not {} {}",
                says.0.unwrap_or("nameless"),
                says.1.unwrap_or("without version"),
                package.name,
                package.version
            )));
        }
        Ok(deb)
    }

    /// The content of a control file.
    pub(crate) fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(n, _, _)| n == name).map(|(_, content, _)| content.as_slice())
    }

    /// The uncompressed `data.tar`.
    pub(crate) fn data(&self) -> Result<Box<dyn Read>, PackagesError> {
        self.reader(&self.data)
    }

    fn reader(&self, member: &Member) -> Result<Box<dyn Read>, PackagesError> {
        let bad =
            |what: String| PackagesError::Archive { package: self.package.name.clone(), path: self.path.clone(), what };
        let open = || -> io::Result<_> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(member.offset))?;
            Ok(BufReader::with_capacity(128 << 10, file).take(member.size))
        };
        let raw = open().map_err(|e| bad(format!("cannot be read: {e}")))?;
        Ok(match member.name.rsplit_once(".tar").map(|(_, rest)| rest) {
            Some("") => Box::new(raw),
            Some(".gz") => Box::new(flate2::read::MultiGzDecoder::new(raw)),
            Some(".xz") => Box::new(liblzma::read::XzDecoder::new_multi_decoder(raw)),
            Some(".zst") => {
                Box::new(zstd::stream::read::Decoder::new(raw).map_err(|e| bad(format!("cannot be read: {e}")))?)
            }
            _ => return Err(bad(format!("has {}, compressed in a way this program does not know", member.name))),
        })
    }
}

fn members(file: &mut File, size: u64) -> Result<Vec<Member>, String> {
    let mut magic = [0; 8];
    file.read_exact(&mut magic).map_err(|_| format!("is truncated: it has {size} bytes"))?;
    if &magic != b"!<arch>\n" {
        return Err("is no Debian package: it does not begin with `!<arch>`".into());
    }
    let mut members = Vec::new();
    let mut offset = 8;
    while offset < size {
        let mut header = [0; 60];
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut header));
        read.map_err(|_| format!("is truncated in a member header at byte {offset}"))?;
        let text = |from: usize, to: usize| String::from_utf8_lossy(&header[from..to]).trim().to_string();
        let length: u64 = text(48, 58).parse().map_err(|_| format!("has a broken member header at byte {offset}"))?;
        let name = text(0, 16).trim_end_matches('/').to_string();
        offset += 60;
        if offset + length > size {
            return Err(format!("is truncated: {name} should end at byte {}, the file at {size}", offset + length));
        }
        members.push(Member { name, offset, size: length });
        offset += length + length % 2;
    }
    Ok(members)
}
