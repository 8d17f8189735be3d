//! Entries of a layer and what they change.

use std::collections::BTreeMap;

use crate::LayerError;
use crate::limits::PATH_MAX_BYTES;

/// A point in time: seconds since 1970 and nanoseconds after that second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since the epoch; negative before it.
    pub seconds: i64,
    /// 0 to 999 999 999, counted forward from `seconds` also before the epoch.
    pub nanos: u32,
}

impl Time {
    /// A whole second.
    pub fn seconds(seconds: i64) -> Time {
        Time { seconds, nanos: 0 }
    }

    /// The earlier of `self` and `epoch` seconds; unchanged without an epoch.
    pub fn clamp_to(self, epoch: Option<i64>) -> Time {
        match epoch {
            Some(epoch) => self.min(Time::seconds(epoch)),
            None => self,
        }
    }
}

/// One tar entry, with names as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative path without `.`, `..`, or doubled, leading or trailing slashes. Empty: the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky: at most `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of content.
    pub mtime: Time,
    /// Extended attributes: `security.capability`, `user.…`, `system.posix_acl_access`, …
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The kinds of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file; its bytes follow.
    File {
        /// How many bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link; the target is kept as written.
    Symlink {
        /// Any bytes.
        target: Vec<u8>,
    },
    /// Another name of an entry before it in this layer.
    HardLink {
        /// That entry's path, in the form of [`Entry::path`].
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

impl Entry {
    /// A root-owned entry without times or attributes.
    pub fn new(path: impl Into<Vec<u8>>, kind: EntryKind, mode: u32) -> Entry {
        Entry { path: path.into(), kind, mode, uid: 0, gid: 0, mtime: Time::default(), xattrs: BTreeMap::new() }
    }

    /// Bytes that follow the header.
    pub fn size(&self) -> u64 {
        match self.kind {
            EntryKind::File { size } => size,
            _ => 0,
        }
    }

    /// The path for people, invalid UTF-8 replaced.
    pub fn display(&self) -> String {
        display(&self.path)
    }
}

pub(crate) fn display(path: &[u8]) -> String {
    if path.is_empty() { "/".into() } else { String::from_utf8_lossy(path).into_owned() }
}

/// What an entry of a layer does (`layer.md#representing-changes`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It adds or replaces what it names.
    Put,
    /// It hides this path of lower layers.
    Whiteout(Vec<u8>),
    /// It hides everything that lower layers have in this directory.
    Opaque(Vec<u8>),
    /// AUFS bookkeeping (`.wh..wh.…`): no change at all.
    Nothing,
}

/// What the entry named `path` does in a layer.
///
/// A file named `.wh.` alone hides nothing that could be named; it counts as bookkeeping.
pub fn change_of(path: &[u8]) -> Change {
    let (parent, name) = split(path);
    let Some(hidden) = name.strip_prefix(b".wh.") else { return Change::Put };
    if hidden == b".wh..opq" {
        return Change::Opaque(parent.to_vec());
    }
    if hidden.is_empty() || hidden.starts_with(b".wh.") || hidden == b"." || hidden == b".." {
        return Change::Nothing;
    }
    Change::Whiteout(join(parent, hidden))
}

/// The name of the entry that hides `path`.
pub fn whiteout_name(path: &[u8]) -> Vec<u8> {
    let (parent, name) = split(path);
    join(parent, &[b".wh.", name].concat())
}

/// The name of the entry that makes directory `path` opaque.
pub fn opaque_name(path: &[u8]) -> Vec<u8> {
    join(path, b".wh..wh..opq")
}

/// `a/b/c` → `a/b`, `c`.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// `raw` as an [`Entry::path`]: `.` and superfluous slashes go, a leading slash means the root.
///
/// `offset` names the entry in errors. Refused: `..`, NUL bytes, more than 4096 bytes, a component over 255.
pub fn clean_path(raw: &[u8], offset: u64) -> Result<Vec<u8>, LayerError> {
    clean(raw, raw, offset)
}

/// [`clean_path`], with `..` taking away what is before it. Refused where it leads out.
pub(crate) fn resolved_path(raw: &[u8], offset: u64) -> Result<Vec<u8>, LayerError> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in raw.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.pop().is_none() => {
                return Err(LayerError::Path {
                    offset,
                    path: display(raw),
                    reason: "its `..` lead out of the archive",
                });
            }
            b".." => {}
            part => parts.push(part),
        }
    }
    clean(&parts.join(&b'/'), raw, offset)
}

fn clean(path: &[u8], raw: &[u8], offset: u64) -> Result<Vec<u8>, LayerError> {
    let refuse = |reason| LayerError::Path { offset, path: display(raw), reason };
    let mut clean = Vec::with_capacity(path.len());
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(refuse("it holds `..`")),
            _ if part.contains(&0) => return Err(refuse("it holds a NUL byte")),
            _ if part.len() > 255 => return Err(refuse("a component is longer than 255 bytes")),
            _ => {}
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(part);
    }
    if clean.len() >= PATH_MAX_BYTES {
        return Err(refuse("it is longer than 4095 bytes"));
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_changes() {
        let check = |path: &str, expected: Change| assert_eq!(change_of(path.as_bytes()), expected, "{path}");
        check("etc/passwd", Change::Put);
        check("etc/.wh.passwd", Change::Whiteout(b"etc/passwd".to_vec()));
        check(".wh.a", Change::Whiteout(b"a".to_vec()));
        check("etc/.wh..wh..opq", Change::Opaque(b"etc".to_vec()));
        check(".wh..wh..opq", Change::Opaque(b"".to_vec()));
        check(".wh..wh.plnk", Change::Nothing);
        check("x/.wh.", Change::Nothing);
        check("x/.wh...", Change::Nothing);
    }

    #[test]
    fn names_of_whiteouts_round_trip() {
        for path in [&b"a"[..], b"a/b", b"a/\xff"] {
            assert_eq!(change_of(&whiteout_name(path)), Change::Whiteout(path.to_vec()));
            assert_eq!(change_of(&opaque_name(path)), Change::Opaque(path.to_vec()));
        }
    }

    #[test]
    fn paths_are_cleaned_or_refused() {
        let check = |raw: &str, expected: Option<&str>| {
            assert_eq!(clean_path(raw.as_bytes(), 0).ok(), expected.map(|e| e.as_bytes().to_vec()), "{raw}");
        };
        check("./", Some(""));
        check("/a//b/./c/", Some("a/b/c"));
        check("a/../b", None);
        check("..", None);
        check("a\0b", None);
        check("a...b/..c", Some("a...b/..c"));
        check(&"x".repeat(256), None);
    }
}
