//! Contexts: which files of a host directory an instruction reads, and what is in them.
//!
//! Paths are resolved by the kernel inside the directory's own descriptor; a symbolic link that points out of it leads
//! to its root. What the ignore patterns exclude does not exist.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ctk_buildgraph::{KeyHasher, Selection};
use ctk_dockerfile::{Ignore, PathPattern};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2, readlinkat, statat};
use rustix::io::Errno;

use crate::index::ContentDigest;
use crate::limits::{CONTEXT_DEPTH, CONTEXT_ENTRIES};
use crate::{BuildError, StatIndex};

/// A directory of the host with its ignore patterns.
pub(crate) struct Context {
    pub path: PathBuf,
    root: OwnedFd,
    ignore: Ignore,
    /// What it is, for people.
    name: String,
    /// In trees of images owners, times and attributes count; times only up to this second.
    details_until: Option<i64>,
    /// Paths in it that are no part of it.
    outputs: Vec<String>,
}

/// A file, directory or link that an instruction reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the context, with `/`; empty for the context itself.
    pub path: String,
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner, time and attributes, where they count: in trees of images.
    detail: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Directory,
    File(ContentDigest),
    Link(String),
    /// Sockets, pipes, devices: they have no content to copy.
    Special,
}

/// One source path of an instruction and what lies below it, itself first, sorted.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The path or pattern of the instruction that found it.
    pub pattern: String,
    /// As it was named or matched.
    pub named: String,
    /// Where it is, with a named link followed.
    pub path: String,
    pub entries: Vec<Entry>,
}

impl Context {
    /// Opens a context; `ignore` are the patterns that count.
    pub fn open(path: &Path, ignore: Ignore) -> Result<Context, BuildError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| BuildError::read("open context", path)(e.into()))?;
        Ok(Context {
            path: path.to_owned(),
            root,
            ignore,
            name: "the context".into(),
            details_until: None,
            outputs: Vec::new(),
        })
    }

    /// The same without these paths, and without directories that hold nothing else.
    pub fn without(self, outputs: Vec<String>) -> Context {
        Context { outputs, ..self }
    }

    /// The tree of an image.
    pub fn tree(root: OwnedFd, name: &str, epoch: i64) -> Context {
        let ignore = Ignore::default();
        Context {
            path: PathBuf::from("/"),
            root,
            ignore,
            name: name.to_owned(),
            details_until: Some(epoch),
            outputs: Vec::new(),
        }
    }

    /// The directory itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Whether nothing is excluded.
    pub fn is_whole(&self) -> bool {
        self.ignore.is_empty()
    }

    /// What `selection` names, each source with all that lies below it.
    pub fn find(&self, selection: &Selection, index: &StatIndex, now: i64) -> Result<Vec<Found>, BuildError> {
        let exclude = Ignore::new(selection.exclude.iter().map(String::as_str));
        let mut found = Vec::new();
        let mut unread = Vec::new();
        let mut count = 0;
        for path in &selection.paths {
            let sources = self.expand(path)?;
            if sources.is_empty() && !PathPattern::has_wildcard(path) {
                let ignored = self.ignore.matches(path);
                let container = match selection.context.as_str() {
                    "" => self.name.clone(),
                    name => format!("context `{name}`"),
                };
                return Err(BuildError::SourceMissing { path: path.clone(), container, ignored });
            }
            for (named, source) in sources {
                let mut walk =
                    Walk { context: self, exclude: &exclude, index, entries: Vec::new(), unread: Vec::new(), count };
                walk.source(&source)?;
                count = walk.count;
                let vain = walk.entries.len() == 1 && self.leads_to_output(&source);
                if vain && PathPattern::has_wildcard(path) {
                    continue;
                }
                unread.extend(walk.unread.into_iter().map(|(at, stat)| (found.len(), at, stat)));
                found.push(Found { pattern: path.clone(), named, path: source, entries: walk.entries });
            }
        }
        self.read_all(&mut found, unread, index, now)?;
        Ok(found)
    }

    /// The paths that a pattern means: existing, not ignored, named links followed, sorted.
    fn expand(&self, pattern: &str) -> Result<Vec<(String, String)>, BuildError> {
        let pattern = pattern.trim_matches('/');
        let candidates = if !PathPattern::has_wildcard(pattern) {
            vec![pattern.replace("/./", "/").trim_start_matches("./").to_owned()]
        } else {
            let pattern = PathPattern::new(pattern);
            let prefix = pattern.plain_prefix();
            let mut matched = Vec::new();
            if let Some(directory) = self.open_directory(&prefix)? {
                self.matching(&directory, &prefix, &pattern, 0, &mut matched)?;
            }
            matched.sort();
            matched
        };
        let mut out = Vec::new();
        for candidate in candidates {
            if !candidate.is_empty()
                && candidate != "."
                && self.ignore.matches(&candidate)
                && self.ignore.prunes(&candidate)
            {
                continue;
            }
            if let Some(real) = self.follow(&candidate)? {
                out.push((candidate, real));
            }
        }
        Ok(out)
    }

    fn matching(
        &self,
        directory: &OwnedFd,
        prefix: &str,
        pattern: &PathPattern,
        depth: usize,
        out: &mut Vec<String>,
    ) -> Result<(), BuildError> {
        if depth > CONTEXT_DEPTH {
            return Ok(());
        }
        for Listed { name, kind, faithful } in self.names(directory.as_fd(), prefix)? {
            let path = join(prefix, &name);
            if self.outputs.contains(&path) {
                continue;
            }
            if pattern.matches(&path) && !self.ignore.matches(&path) {
                if !faithful {
                    return Err(BuildError::Name { path: self.path.join(path) });
                }
                out.push(path.clone());
            }
            if !faithful {
                continue;
            }
            if kind == FileType::Directory
                && pattern.may_reach(&path)
                && !(self.ignore.matches(&path) && self.ignore.prunes(&path))
            {
                let below = self.open_below(directory.as_fd(), &name, &path)?;
                self.matching(&below, &path, pattern, depth + 1, out)?;
            }
        }
        Ok(())
    }

    fn leads_to_output(&self, path: &str) -> bool {
        self.outputs.iter().any(|output| output.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    }

    fn open_directory(&self, path: &str) -> Result<Option<OwnedFd>, BuildError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let at = if path.is_empty() { "." } else { path };
        match openat2(&self.root, at, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(BuildError::read("open", self.path.join(path))(e.into())),
        }
    }

    fn open_below(&self, parent: BorrowedFd<'_>, name: &str, path: &str) -> Result<OwnedFd, BuildError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(parent, name, flags, Mode::empty()).map_err(|e| BuildError::read("open", self.path.join(path))(e.into()))
    }

    /// Names and types of a directory's entries, sorted.
    fn names(&self, directory: BorrowedFd<'_>, path: &str) -> Result<Vec<Listed>, BuildError> {
        let read = |e: Errno| BuildError::read("list", self.path.join(path))(e.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = entry.file_name().to_string_lossy();
            let faithful = matches!(name, std::borrow::Cow::Borrowed(_));
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown if faithful => FileType::from_raw_mode(self.stat(directory, &name, path)?.st_mode),
                kind => kind,
            };
            names.push(Listed { name: name.into_owned(), kind, faithful });
        }
        names.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(names)
    }

    fn stat(&self, directory: BorrowedFd<'_>, name: &str, path: &str) -> Result<Stat, BuildError> {
        let read = |e: Errno| BuildError::read("stat", self.path.join(path).join(name))(e.into());
        statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(read)
    }

    /// The path itself, or where the link leads that it is; none if there is nothing.
    fn follow(&self, path: &str) -> Result<Option<String>, BuildError> {
        let at = if path.is_empty() { "." } else { path };
        match openat2(
            &self.root,
            at,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        ) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(BuildError::read("open", self.path.join(path))(e.into())),
            Ok(_) => {}
        }
        let mut path = if path == "." { String::new() } else { path.to_owned() };
        for _ in 0..CONTEXT_DEPTH {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let at = if path.is_empty() { "." } else { &path };
            let Ok(fd) =
                openat2(&self.root, at, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
            else {
                return Ok(None);
            };
            let Ok(target) = readlinkat(&fd, "", Vec::new()) else { break };
            let target = target.to_string_lossy().into_owned();
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            path = normal(parent, &target);
        }
        Ok(Some(path))
    }

    /// Reads the files whose digest the index does not know, several at once.
    fn read_all(
        &self,
        found: &mut [Found],
        unread: Vec<(usize, usize, Stat)>,
        index: &StatIndex,
        now: i64,
    ) -> Result<(), BuildError> {
        if unread.is_empty() {
            return Ok(());
        }
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<(usize, usize, ContentDigest)>> = Mutex::new(Vec::with_capacity(unread.len()));
        let failed: Mutex<Option<BuildError>> = Mutex::new(None);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(unread.len()).min(8);
        let shared: &[Found] = found;
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((source, at, stat)) = unread.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let path = &shared[*source].entries[*at].path;
                        match self.digest(path) {
                            Ok(digest) => {
                                index.put(stat, digest, now);
                                results.lock().expect("no panic while locked").push((*source, *at, digest));
                            }
                            Err(error) => {
                                failed.lock().expect("no panic while locked").get_or_insert(error);
                                return;
                            }
                        }
                    }
                });
            }
        });
        if let Some(error) = failed.into_inner().expect("no panic while locked") {
            return Err(error);
        }
        for (source, at, digest) in results.into_inner().expect("no panic while locked") {
            found[source].entries[at].kind = EntryKind::File(digest);
        }
        Ok(())
    }

    fn digest(&self, path: &str) -> Result<ContentDigest, BuildError> {
        let read = |e: std::io::Error| BuildError::read("read", self.path.join(path))(e);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let fd = openat2(&self.root, path, flags, Mode::empty(), resolve).map_err(|e| read(e.into()))?;
        hash_file(File::from(fd)).map_err(read)
    }

    /// A small text file of the context, if it is there.
    pub fn small_file(root: &Path, name: &Path) -> Result<Option<String>, BuildError> {
        let path = root.join(name);
        let file = match File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(BuildError::read("open", &path))?,
        };
        let mut text = Vec::new();
        // One byte more than a Dockerfile may have, so that its parser sees that it is too large.
        let beyond = crate::limits::SMALL_FILE_BYTES + 1;
        file.take(beyond).read_to_end(&mut text).map_err(BuildError::read("read", &path))?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }
}

/// BLAKE3 of a file's content.
pub(crate) fn hash_file(mut file: File) -> std::io::Result<ContentDigest> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0u8; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(*hasher.finalize().as_bytes()),
            n => hasher.update(&buffer[..n]),
        };
    }
}

/// An entry of a directory.
struct Listed {
    name: String,
    kind: FileType,
    /// Whether the name is UTF-8. If not, `name` only resembles it: good enough for patterns, not for opening.
    faithful: bool,
}

struct Walk<'a> {
    context: &'a Context,
    exclude: &'a Ignore,
    index: &'a StatIndex,
    entries: Vec<Entry>,
    unread: Vec<(usize, Stat)>,
    count: usize,
}

impl Walk<'_> {
    fn source(&mut self, path: &str) -> Result<(), BuildError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(directory) = self.context.open_directory(parent)? else { return Ok(()) };
        let stat = match name {
            "" => rustix::fs::fstat(&directory).map_err(|e| BuildError::read("stat", &self.context.path)(e.into()))?,
            name => self.context.stat(directory.as_fd(), name, parent)?,
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.push(path.to_owned(), EntryKind::Directory, &stat)?;
            let Some(inside) = self.context.open_directory(path)? else { return Ok(()) };
            return self.directory(&inside, path, "", 0);
        }
        if self.exclude.matches(name) {
            return Ok(());
        }
        self.one(directory.as_fd(), name, path, &stat)
    }

    fn directory(&mut self, directory: &OwnedFd, path: &str, inside: &str, depth: usize) -> Result<(), BuildError> {
        if depth > CONTEXT_DEPTH {
            let path = self.context.path.join(path);
            return Err(BuildError::ContextTooLarge {
                path,
                limit: CONTEXT_DEPTH,
                unit: "directories below each other",
            });
        }
        for Listed { name, kind, faithful } in self.context.names(directory.as_fd(), path)? {
            let (path, inside) = (join(path, &name), join(inside, &name));
            let ignored = self.context.ignore.matches(&path);
            let out = ignored || self.exclude.matches(&inside);
            if self.context.outputs.contains(&path) {
                continue;
            }
            let vain = out || self.context.leads_to_output(&path);
            let pruned = (ignored && self.context.ignore.prunes(&path))
                || (self.exclude.matches(&inside) && self.exclude.prunes(&inside));
            if pruned || (out && kind != FileType::Directory) {
                continue;
            }
            if !faithful {
                return Err(BuildError::Name { path: self.context.path.join(path) });
            }
            let stat = self.context.stat(directory.as_fd(), &name, "")?;
            if kind != FileType::Directory {
                self.one(directory.as_fd(), &name, &path, &stat)?;
                continue;
            }
            let before = self.entries.len();
            self.push(path.clone(), EntryKind::Directory, &stat)?;
            let below = self.context.open_below(directory.as_fd(), &name, &path)?;
            self.directory(&below, &path, &inside, depth + 1)?;
            // An ignored directory exists only for the sake of what was taken back below it, and one that was made for
            // an output for the sake of what else is there.
            if vain && self.entries.len() == before + 1 {
                self.entries.pop();
            }
        }
        Ok(())
    }

    fn one(&mut self, directory: BorrowedFd<'_>, name: &str, path: &str, stat: &Stat) -> Result<(), BuildError> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => match self.index.get(stat) {
                Some(digest) => EntryKind::File(digest),
                None => {
                    self.unread.push((self.entries.len(), *stat));
                    EntryKind::File([0; 32])
                }
            },
            FileType::Symlink => {
                let read = |e: Errno| BuildError::read("read link", self.context.path.join(path))(e.into());
                EntryKind::Link(readlinkat(directory, name, Vec::new()).map_err(read)?.to_string_lossy().into_owned())
            }
            _ => EntryKind::Special,
        };
        self.push(path.to_owned(), kind, stat)?;
        if self.context.details_until.is_some() && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let read = |e: Errno| BuildError::read("read attributes of", self.context.path.join(path))(e.into());
            let file = openat(directory, name, flags, Mode::empty()).map_err(read)?;
            let attributes = attributes(&file).map_err(read)?;
            if let Some(detail) = self.entries.last_mut().and_then(|e| e.detail.as_mut()) {
                detail.push_str(&attributes);
            }
        }
        Ok(())
    }

    fn push(&mut self, path: String, kind: EntryKind, stat: &Stat) -> Result<(), BuildError> {
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
        self.entries.push(Entry { path, kind, mode: stat.st_mode & 0o7777, detail });
        Ok(())
    }
}

/// Names and values of a file's extended attributes.
fn attributes(file: &OwnedFd) -> rustix::io::Result<String> {
    let mut names = Vec::with_capacity(4096);
    match rustix::fs::flistxattr(file, rustix::buffer::spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP) => return Ok(String::new()),
        Err(e) => return Err(e),
    }
    let mut text = String::new();
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = Vec::with_capacity(64 << 10);
        rustix::fs::fgetxattr(file, name, rustix::buffer::spare_capacity(&mut value))?;
        text.push_str(&format!(" {}={}", String::from_utf8_lossy(name), blake3::hash(&value).to_hex()));
    }
    Ok(text)
}

impl Entry {
    fn describe(&self) -> String {
        match &self.kind {
            EntryKind::Directory => format!("d{:o}", self.mode),
            EntryKind::File(digest) => format!("f{:o} {}", self.mode, blake3::Hash::from_bytes(*digest).to_hex()),
            EntryKind::Link(target) => format!("l {target}"),
            EntryKind::Special => "s".into(),
        }
    }
}

/// Digest of what a selection gives.
pub(crate) fn digest_of(found: &[Found]) -> String {
    let mut hasher = KeyHasher::new("selection");
    for source in found {
        hasher.part(source.path.as_bytes());
        for entry in &source.entries {
            hasher.part(entry.path.as_bytes()).part(entry.describe().as_bytes());
            hasher.part(entry.detail.as_deref().unwrap_or_default().as_bytes());
        }
    }
    hasher.finish().to_string()
}

/// A short word for each file, for a fingerprint that can tell which one changed.
pub(crate) fn file_words(found: &[Found], into: &mut BTreeMap<String, String>) {
    for entry in found.iter().flat_map(|f| &f.entries) {
        if entry.path.is_empty() {
            continue;
        }
        let word = match &entry.kind {
            EntryKind::File(digest) => {
                format!("{:o}:{}", entry.mode, &blake3::Hash::from_bytes(*digest).to_hex()[..32])
            }
            _ => entry.describe(),
        };
        into.insert(entry.path.clone(), word);
    }
}

pub(crate) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}

/// `target` as seen from the directory `parent`, within the root.
fn normal(parent: &str, target: &str) -> String {
    let whole = if target.starts_with('/') { target.to_owned() } else { format!("{parent}/{target}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
