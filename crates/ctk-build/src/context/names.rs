//! Paths of a context: which exist, what they match, where links lead.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ctk_buildgraph::pattern::PathPattern;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2, readlinkat, statat};
use rustix::io::Errno;

use super::Context;
use crate::BuildError;
use crate::limits::{CONTEXT_DEPTH, CONTEXT_LINKS};

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// An entry of a directory.
pub(super) struct Listed {
    pub name: Vec<u8>,
    pub kind: FileType,
}

impl Context {
    /// The paths that a source means: existing or not if it is plain, matched ones sorted. None if it is plain and not
    /// there.
    pub(super) fn expand(&self, pattern: &str) -> Result<Vec<Vec<u8>>, BuildError> {
        let plain = ctk_buildgraph::pattern::clean(&format!("/{pattern}")).as_bytes()[1..].to_vec();
        if !PathPattern::has_wildcard(pattern) {
            return Ok(if self.follow(&plain)?.is_some() { vec![plain] } else { Vec::new() });
        }
        let bad = |error| BuildError::BadOption(format!("`{pattern}` is no pattern: {error}"));
        let parsed = PathPattern::new(pattern).map_err(bad)?;
        let prefix = parsed.plain_prefix();
        let depth = if prefix.is_empty() { 0 } else { prefix.split(|b| *b == b'/').count() };
        let mut matched = Vec::new();
        if let Some(directory) = self.open_directory(&prefix)? {
            self.matching(&directory, &prefix, &parsed, depth, &mut matched)?;
        }
        Ok(matched)
    }

    fn matching(
        &self,
        directory: &OwnedFd,
        prefix: &[u8],
        pattern: &PathPattern,
        depth: usize,
        out: &mut Vec<Vec<u8>>,
    ) -> Result<(), BuildError> {
        if depth > CONTEXT_DEPTH {
            return Ok(());
        }
        for Listed { name, kind } in self.names(directory.as_fd(), prefix)? {
            if !pattern.takes(depth, &name) {
                continue;
            }
            let path = join(prefix, &name);
            if self.outputs.contains(&path) || (self.ignore.matches(&path) && self.ignore.prunes(&path)) {
                continue;
            }
            if depth + 1 == pattern.depth() {
                out.push(path);
            } else if kind == FileType::Directory {
                let below = self.open_below(directory.as_fd(), &name, &path)?;
                self.matching(&below, &path, pattern, depth + 1, out)?;
            }
        }
        Ok(())
    }

    pub(super) fn open_directory(&self, path: &[u8]) -> Result<Option<OwnedFd>, BuildError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let at = if path.is_empty() { b"." } else { path };
        match openat2(&self.root, at, flags, Mode::empty(), INSIDE) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(BuildError::read("open", self.at(path))(e.into())),
        }
    }

    /// The directory at a path without links; none if it went.
    pub(super) fn open_folder(&self, path: &[u8]) -> Result<Option<OwnedFd>, BuildError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let at = if path.is_empty() { b"." } else { path };
        match openat2(&self.root, at, flags, Mode::empty(), INSIDE | ResolveFlags::NO_SYMLINKS) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(e) => Err(BuildError::read("open", self.at(path))(e.into())),
        }
    }

    pub(super) fn open_below(&self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<OwnedFd, BuildError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(parent, name, flags, Mode::empty()).map_err(|e| BuildError::read("open", self.at(path))(e.into()))
    }

    /// Names and types of a directory's entries, sorted.
    pub(super) fn names(&self, directory: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Listed>, BuildError> {
        let read = |e: Errno| BuildError::read("list", self.at(path))(e.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => FileType::from_raw_mode(self.stat(directory, name, path)?.st_mode),
                kind => kind,
            };
            names.push(Listed { name: name.to_vec(), kind });
        }
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(names)
    }

    pub(super) fn stat(&self, directory: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<Stat, BuildError> {
        let read = |e: Errno| BuildError::read("stat", self.at(&join(path, name)))(e.into());
        statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(read)
    }

    /// The path with all links in it followed; none if there is nothing.
    pub(super) fn follow(&self, path: &[u8]) -> Result<Option<Vec<u8>>, BuildError> {
        let open = |path: &[u8], flags, resolve| {
            let at = if path.is_empty() { b"." } else { path };
            openat2(&self.root, at, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty(), resolve)
        };
        match open(path, OFlags::empty(), INSIDE | ResolveFlags::NO_SYMLINKS) {
            Ok(_) => return Ok(Some(path.to_vec())),
            Err(Errno::LOOP) => {}
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(BuildError::read("open", self.at(path))(e.into())),
        }
        let mut real: Vec<u8> = Vec::new();
        let mut ahead: Vec<Vec<u8>> = path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            match &part[..] {
                b"" | b"." => continue,
                b".." => {
                    real.truncate(real.iter().rposition(|b| *b == b'/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let next = join(&real, &part);
            let fd = match open(&next, OFlags::NOFOLLOW, INSIDE) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                Err(e) => return Err(BuildError::read("open", self.at(&next))(e.into())),
            };
            let Ok(target) = readlinkat(&fd, "", Vec::new()) else {
                real = next;
                continue;
            };
            links += 1;
            if links > CONTEXT_LINKS {
                return Err(BuildError::read("follow the links of", self.at(path))(Errno::LOOP.into()));
            }
            if target.as_bytes().starts_with(b"/") {
                real.clear();
            }
            ahead.extend(target.as_bytes().split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
        }
        Ok(Some(real))
    }
}

pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// A path below a source, relative to it.
pub(crate) fn below<'p>(source: &[u8], path: &'p [u8]) -> &'p [u8] {
    let rest = path.strip_prefix(source).unwrap_or(path);
    rest.strip_prefix(b"/").unwrap_or(rest)
}

/// A path as text; bytes that are none as `\xff`.
pub(crate) fn shown(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}
