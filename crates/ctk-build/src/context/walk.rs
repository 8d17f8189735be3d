//! The walk over a source: what of it is there.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ctk_buildgraph::pattern::DeepPattern;
use ctk_dockerfile::{Above, Ignore};
use rustix::fs::{FileType, Mode, OFlags, Stat, openat, readlinkat};
use rustix::io::Errno;

use super::digest::attributes;
use super::names::Listed;
use super::{Context, Entry, EntryKind, Unread, join};
use crate::limits::{CONTEXT_DEPTH, CONTEXT_ENTRIES};
use crate::{BuildError, StatIndex};

pub(super) struct Walk<'a> {
    context: &'a Context,
    exclude: &'a Ignore,
    index: &'a StatIndex,
    entries: Vec<Entry>,
    unread: Vec<(usize, Stat)>,
    /// Files with several names: where the first is.
    linked: HashMap<(u64, u64), usize>,
    count: usize,
}

/// What is known on the way down.
struct Level<'a> {
    /// In the context.
    path: &'a [u8],
    /// Below the source.
    inside: &'a [u8],
    ignored: Above,
    excluded: Above,
    /// What `--parents` still looks for.
    wanted: Option<&'a DeepPattern>,
    depth: usize,
}

impl<'a> Walk<'a> {
    pub fn new(context: &'a Context, exclude: &'a Ignore, index: &'a StatIndex) -> Walk<'a> {
        let (entries, unread, linked) = (Vec::new(), Vec::new(), HashMap::new());
        Walk { context, exclude, index, entries, unread, linked, count: 0 }
    }

    /// What the last source leaves to be read, as that of source number `source`.
    pub fn take_unread(&mut self, source: usize) -> Unread {
        self.unread.drain(..).map(|(at, stat)| (source, at, stat)).collect()
    }

    /// The path and all below it.
    pub fn source(&mut self, path: &[u8]) -> Result<Vec<Entry>, BuildError> {
        self.begin(path, None)
    }

    /// The directory `path`, and what below it matches with all below that, and the directories on the way. The error
    /// is none if the pattern cannot be understood.
    pub fn matching(&mut self, path: &[u8], pattern: &str) -> Result<Vec<Entry>, Option<BuildError>> {
        let pattern = DeepPattern::new(pattern).map_err(|_| None)?;
        self.begin(path, Some(&pattern)).map_err(Some)
    }

    fn begin(&mut self, path: &[u8], wanted: Option<&DeepPattern>) -> Result<Vec<Entry>, BuildError> {
        self.linked.clear();
        let split = path.iter().rposition(|b| *b == b'/');
        let (parent, name) = split.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
        let Some(directory) = self.context.open_directory(parent)? else { return Ok(Vec::new()) };
        let stat = match name {
            b"" => rustix::fs::fstat(&directory).map_err(|e| BuildError::read("stat", &self.context.path)(e.into()))?,
            name => self.context.stat(directory.as_fd(), name, parent)?,
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            self.one(directory.as_fd(), name, path.to_vec(), &stat)?;
            return Ok(std::mem::take(&mut self.entries));
        }
        self.push(path.to_vec(), EntryKind::Directory, &stat)?;
        let mut ignored = Above::default();
        for end in path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([path.len()]) {
            if end > 0 {
                ignored = self.context.ignore.enter(&path[..end], &ignored).1;
            }
        }
        if let Some(inside) = self.context.open_directory(path)? {
            let excluded = Above::default();
            self.directory(&inside, &Level { path, inside: b"", ignored, excluded, wanted, depth: 0 })?;
        }
        Ok(std::mem::take(&mut self.entries))
    }

    fn directory(&mut self, directory: &OwnedFd, level: &Level<'_>) -> Result<(), BuildError> {
        if level.depth > CONTEXT_DEPTH {
            let path = self.context.at(level.path);
            return Err(BuildError::ContextTooLarge {
                path,
                limit: CONTEXT_DEPTH,
                unit: "directories below each other",
            });
        }
        let context = self.context;
        for Listed { name, kind } in context.names(directory.as_fd(), level.path)? {
            let path = join(level.path, &name);
            if context.outputs.contains(&path) || kind == FileType::Socket {
                continue;
            }
            let inside =
                if self.exclude.is_empty() && level.wanted.is_none() { Vec::new() } else { join(level.inside, &name) };
            let found = level.wanted.is_none_or(|pattern| pattern.matches(&inside));
            if kind != FileType::Directory {
                let out = !found
                    || context.ignore.matches_below(&path, &level.ignored)
                    || self.exclude.matches_below(&inside, &level.excluded);
                if !out {
                    let stat = context.stat(directory.as_fd(), &name, level.path)?;
                    self.one(directory.as_fd(), &name, path, &stat)?;
                }
                continue;
            }
            let (out, ignored) = context.ignore.enter(&path, &level.ignored);
            let (left, excluded) = self.exclude.enter(&inside, &level.excluded);
            let pruned = (out && context.ignore.prunes(&path))
                || (left && self.exclude.prunes(&inside))
                || level.wanted.is_some_and(|pattern| !found && !pattern.may_reach(&inside));
            if pruned {
                continue;
            }
            let vain = out || left || !found || context.leads_to_output(&path);
            let stat = context.stat(directory.as_fd(), &name, level.path)?;
            let before = self.entries.len();
            self.push(path.clone(), EntryKind::Directory, &stat)?;
            let below = context.open_below(directory.as_fd(), &name, &path)?;
            self.describe(&below, &path, false)?;
            let wanted = level.wanted.filter(|_| !found);
            let (path, inside, depth) = (&path[..], &inside[..], level.depth + 1);
            self.directory(&below, &Level { path, inside, ignored, excluded, wanted, depth })?;
            // What is left out itself exists only for the sake of what was taken below it, and what was made for an
            // output for the sake of what else is there.
            if vain && self.entries.len() == before + 1 {
                self.entries.pop();
            }
        }
        Ok(())
    }

    fn one(&mut self, directory: BorrowedFd<'_>, name: &[u8], path: Vec<u8>, stat: &Stat) -> Result<(), BuildError> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => match self.index.get(stat) {
                Some(digest) => EntryKind::File(digest),
                None => {
                    self.unread.push((self.entries.len(), *stat));
                    EntryKind::File([0; 32])
                }
            },
            FileType::Symlink => {
                let read = |e: Errno| BuildError::read("read link", self.context.at(&path))(e.into());
                EntryKind::Link(readlinkat(directory, name, Vec::new()).map_err(read)?.into_bytes())
            }
            _ => EntryKind::Special(stat.st_mode & !0o7777, stat.st_rdev),
        };
        let file = matches!(kind, EntryKind::File(_));
        if file && self.context.details_until.is_some() {
            self.push(path.clone(), kind, stat)?;
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let read = |e: Errno| BuildError::read("read attributes of", self.context.at(&path))(e.into());
            let file = openat(directory, name, flags, Mode::empty()).map_err(read)?;
            return self.describe(&file, &path, true);
        }
        self.push(path, kind, stat)
    }

    /// Adds the attributes to the last entry. Those of a context's files are part of their digests.
    fn describe(&mut self, opened: &OwnedFd, path: &[u8], all: bool) -> Result<(), BuildError> {
        let read = |e: Errno| BuildError::read("read attributes of", self.context.at(path))(e.into());
        let all = all || self.context.details_until.is_some();
        let attributes = attributes(opened, all).map_err(read)?;
        if let Some(entry) = self.entries.last_mut().filter(|_| !attributes.is_empty()) {
            entry.detail.get_or_insert_default().push_str(&attributes);
        }
        Ok(())
    }

    fn push(&mut self, path: Vec<u8>, kind: EntryKind, stat: &Stat) -> Result<(), BuildError> {
        self.count += 1;
        if self.count > CONTEXT_ENTRIES {
            let path = self.context.path.clone();
            return Err(BuildError::ContextTooLarge { path, limit: CONTEXT_ENTRIES, unit: "files" });
        }
        let detail = self.context.details_until.map(|epoch| {
            // A directory's own time changes with what is made in it; only files' times are content.
            let time = if kind == EntryKind::Directory { epoch } else { stat.st_mtime.min(epoch) };
            format!(" {}:{} {time}", stat.st_uid, stat.st_gid)
        });
        let mut same_as = None;
        if stat.st_nlink > 1 && kind != EntryKind::Directory {
            let first = *self.linked.entry((stat.st_dev, stat.st_ino)).or_insert(self.entries.len());
            same_as = (first != self.entries.len()).then_some(first);
        }
        self.entries.push(Entry { path, kind, mode: stat.st_mode & 0o7777, same_as, detail });
        Ok(())
    }
}
