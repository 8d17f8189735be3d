//! Contexts: which files of a host directory an instruction reads, and what is in them.
//!
//! Paths are resolved by the kernel inside the directory's own descriptor; a symbolic link that points out of it leads
//! to its root. What the ignore patterns exclude does not exist. Names are bytes, as the kernel has them.

mod digest;
mod names;
#[cfg(test)]
mod tests;
mod walk;

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ctk_buildgraph::Selection;
use ctk_buildgraph::pattern::{DeepPattern, PathPattern};
use ctk_dockerfile::{BadPattern, Ignore};
use ctk_snapshot::Made;
use ctk_syntax::nearest;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

pub(crate) use digest::{digest_of, file_words, same_content, visit_words};
pub(crate) use names::{below, join, shown};

use crate::index::ContentDigest;
use crate::{BuildError, StatIndex};
use walk::Walk;

/// A directory of the host with its ignore patterns.
pub(crate) struct Context {
    pub path: PathBuf,
    root: OwnedFd,
    ignore: Ignore,
    /// What it is, for people.
    name: String,
    /// In trees of images owners, times and attributes count, but not the times at which the files were made.
    details: Option<Made>,
    /// Paths in it that are no part of it.
    outputs: Vec<Vec<u8>>,
}

/// A file, directory or link that an instruction reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the context, with `/`; empty for the context itself.
    pub path: Vec<u8>,
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner, time and attributes, where they count: in trees of images.
    detail: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Directory,
    /// Digest of its content and of its `user.` attributes.
    File(ContentDigest),
    Link(Vec<u8>),
    /// A pipe, socket or device: its type and its number.
    Special(u32, u64),
}

/// One source path of an instruction and what lies below it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// As it was named or matched.
    pub named: Vec<u8>,
    /// Where it is, with links followed.
    pub path: Vec<u8>,
    /// Itself and what lies below it, sorted, if there is not too much to name.
    pub entries: Option<Vec<Entry>>,
    /// Without the entries: its directories, and of each how many files are in it and a digest of these.
    folders: Vec<(Vec<u8>, usize, ContentDigest)>,
    /// How many there are.
    pub count: usize,
    /// Of all of it.
    digest: ContentDigest,
    /// Files that are the same as an earlier one, with its path.
    linked: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Found {
    /// All that was found. The source must have been asked for with all of it.
    pub fn all(&self) -> &[Entry] {
        self.entries.as_deref().expect("all of it was asked for")
    }
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
            details: None,
            outputs: Vec::new(),
        })
    }

    /// The same without these paths, and without directories that hold nothing else.
    pub fn without(self, outputs: Vec<String>) -> Context {
        Context { outputs: outputs.into_iter().map(String::into_bytes).collect(), ..self }
    }

    /// The tree of an image.
    pub fn tree(root: OwnedFd, name: &str, made: Made) -> Context {
        let ignore = Ignore::default();
        Context {
            path: PathBuf::from("/"),
            root,
            ignore,
            name: name.to_owned(),
            details: Some(made),
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
        self.look(selection, index, now, usize::MAX)
    }

    /// The same, but of a source with more than `keep` entries only the digest. `now` is nanoseconds since 1970.
    pub fn look(
        &self,
        selection: &Selection,
        index: &StatIndex,
        now: i64,
        keep: usize,
    ) -> Result<Vec<Found>, BuildError> {
        let exclude = Ignore::new(selection.exclude.iter().map(String::as_str)).map_err(|bad| bad_exclude(&bad))?;
        let shelf = match self.details {
            Some(_) => None,
            None => {
                let stat = rustix::fs::fstat(&self.root);
                Some(index.shelf(&stat.map_err(|e| BuildError::read("stat", &self.path)(e.into()))?))
            }
        };
        let patterns = format!("{:?} {exclude:?} {:?}", self.ignore, self.outputs);
        let patterns = blake3::hash(patterns.as_bytes()).as_bytes()[..8].try_into().expect("8 bytes");
        let patterns = u64::from_le_bytes(patterns);
        // With very many directories there are too many files, too, most likely.
        let first = if shelf.as_ref().is_some_and(|shelf| shelf.len() > keep) { 0 } else { keep };
        let walk =
            Walk { context: self, exclude: &exclude, shelf: shelf.as_deref(), now, keep: first, most: keep, patterns };
        let mut found = Vec::new();
        for path in &selection.paths {
            if selection.parents {
                found.extend(self.with_parents(path, &walk, selection)?);
                continue;
            }
            let pattern = PathPattern::has_wildcard(path);
            let sources = self.expand(path)?;
            if sources.is_empty() && !pattern {
                return Err(self.missing(path, selection));
            }
            for named in sources {
                let Some(source) = self.follow(&named)? else { return Err(self.missing(&shown(&named), selection)) };
                let one = walk.source(named, source, None)?;
                // An ignored directory may hold what was taken back; without that it does not exist.
                let gone = one.count == 0 || (one.count == 1 && self.ignore.matches(&one.path));
                let vain = one.count <= 1 && self.leads_to_output(&one.path);
                match (gone || (vain && pattern), pattern) {
                    (true, true) => {}
                    (true, false) => return Err(self.missing(path, selection)),
                    (false, _) => found.push(one),
                }
            }
        }
        Ok(found)
    }

    /// What `--parents` takes: from the directories before `/./`, or from the root, what matches the rest.
    fn with_parents(&self, path: &str, walk: &Walk<'_>, selection: &Selection) -> Result<Vec<Found>, BuildError> {
        let (base, pattern) = path.split_once("/./").unwrap_or(("", path));
        let clean = |path: &str| ctk_buildgraph::pattern::clean(&format!("/{path}"))[1..].to_owned();
        let (base, pattern) = (clean(base), clean(pattern));
        let wanted = (!pattern.is_empty()).then(|| DeepPattern::new(&pattern).map_err(|_| bad_source(path)));
        let wanted = wanted.transpose()?;
        let several = PathPattern::has_wildcard(&base);
        let required = !several && !PathPattern::has_wildcard(&pattern);
        let bases = if several { self.expand(&base)? } else { vec![base.into_bytes()] };
        let mut taken = Vec::new();
        for named in bases {
            let Some(source) = self.follow(&named)? else { return Err(self.missing(path, selection)) };
            let found = walk.source(named, source, wanted.as_ref())?;
            match found.count {
                0 | 1 if wanted.is_some() && required => return Err(self.missing(path, selection)),
                0 | 1 if wanted.is_some() => {}
                _ => taken.push(found),
            }
        }
        Ok(taken)
    }

    fn missing(&self, path: &str, selection: &Selection) -> BuildError {
        let container = match selection.context.as_str() {
            "" => self.name.clone(),
            name => format!("context `{name}`"),
        };
        let plain = path.trim_matches('/');
        let real = self.follow(plain.as_bytes()).ok().flatten();
        let there = real.is_some();
        let ignored = real.is_some_and(|real| self.ignore.matches(plain.as_bytes()) || self.ignore.matches(&real));
        let near = if there { None } else { self.near(plain) };
        BuildError::SourceMissing { path: path.to_owned(), container, ignored, near }
    }

    /// What is there and called almost so.
    fn near(&self, path: &str) -> Option<String> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.open_directory(parent.as_bytes()).ok()??;
        let names = self.names(directory.as_fd(), parent.as_bytes()).ok()?;
        let names: Vec<String> = names.into_iter().filter_map(|listed| String::from_utf8(listed.name).ok()).collect();
        let near = nearest(name, names.iter().map(String::as_str))?;
        let near = if parent.is_empty() { near.to_owned() } else { format!("{parent}/{near}") };
        (!self.ignore.matches(near.as_bytes())).then_some(near)
    }

    /// Names and digests of the user's attributes that a file has, as its digest counts them; empty for what is none.
    pub fn attributes(&self, path: &[u8]) -> String {
        let Some(file) = self.open_file(path) else { return String::new() };
        digest::attributes(&file, false).unwrap_or_default()
    }

    /// A file to read from, if it is one and there.
    pub fn open_file(&self, path: &[u8]) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags, Mode::empty(), resolve).ok()
    }

    /// The host's path of one in the context.
    fn at(&self, path: &[u8]) -> PathBuf {
        self.path.join(std::ffi::OsStr::from_bytes(path))
    }

    fn is_output(&self, path: &[u8]) -> bool {
        self.outputs.iter().any(|output| output == path)
    }

    fn leads_to_output(&self, path: &[u8]) -> bool {
        self.outputs
            .iter()
            .any(|output| output.strip_prefix(path).is_some_and(|rest| path.is_empty() || rest.first() == Some(&b'/')))
    }

    /// A small text file of the context, if it is there. Nothing is waited for but a pipe that was handed over.
    pub fn small_file(root: &Path, name: &Path) -> Result<Option<Vec<u8>>, BuildError> {
        let path = root.join(name);
        let file = match ctk_store::open_given(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(BuildError::read("open", &path))?,
        };
        let mut text = Vec::new();
        // One byte more than a Dockerfile may have, so that its parser sees that it is too large.
        let beyond = crate::limits::SMALL_FILE_BYTES + 1;
        file.take(beyond).read_to_end(&mut text).map_err(BuildError::read("read", &path))?;
        Ok(Some(text))
    }
}

fn bad_exclude(bad: &BadPattern) -> BuildError {
    BuildError::BadOption(format!("`{}` is no pattern to exclude: {}", bad.text, bad.error))
}

fn bad_source(path: &str) -> BuildError {
    BuildError::BadOption(format!("`{path}` is no pattern"))
}
