//! The walk over a source: what of it is there.
//!
//! Directories are looked through by several threads, each opened by its path inside the context. Of a directory whose
//! files' stats are as the index knows them only the digest is kept, unless the files themselves are wanted.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};

use ctk_buildgraph::pattern::DeepPattern;
use ctk_dockerfile::{Above, Ignore};
use ctk_layer::Time;
use rustix::fs::{FileType, Mode, OFlags, RawDir, Stat, openat, readlinkat};
use rustix::io::Errno;

use super::digest::attributes;
use super::{Context, EntryKind, join};
use crate::BuildError;
use crate::index::{ContentDigest, FileKey, FolderKey, FolderName, Shelf, settled, stamps};
use crate::limits::{CONTEXT_DEPTH, CONTEXT_ENTRIES, CONTEXT_THREADS};

/// Bytes of names that the kernel gives at once.
const LIST_BYTES: usize = 32 << 10;
/// Directories that wait before another thread is worth its start.
const WAITING_PER_THREAD: usize = 4;

/// Threads for one context. Asking the kernel means reading files of cgroups: it is done once.
pub(super) fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from).min(CONTEXT_THREADS))
}

/// How a walk goes.
pub(super) struct Walk<'a> {
    pub context: &'a Context,
    pub exclude: &'a Ignore,
    /// What is known already; nothing of trees of images.
    pub shelf: Option<&'a Shelf>,
    /// Nanoseconds since 1970.
    pub now: i64,
    /// Of up to so many files each is kept; of more only digests.
    pub keep: usize,
    /// What `keep` is in the end, should that have been a guess.
    pub most: usize,
    /// Hash of all patterns.
    pub patterns: u64,
}

/// What was found below a source.
pub(super) struct Tree {
    /// Directories, parents before what is in them; the first is the source.
    pub folders: Vec<Folder>,
    /// Everything in it.
    pub count: usize,
    /// A source that is no directory.
    pub single: Option<Member>,
    /// Files with several names: device and inode, and the path of each.
    pub linked: Vec<((u64, u64), Vec<u8>)>,
    /// Whether all members were kept.
    pub whole: bool,
}

/// A directory.
pub(super) struct Folder {
    pub path: Vec<u8>,
    pub parent: usize,
    /// As the index calls it.
    pub name: FolderName,
    pub mode: u32,
    pub detail: String,
    /// Whether it exists only for the sake of what was taken below it.
    pub vain: bool,
    pub content: Content,
}

/// What is in a directory that is no directory.
pub(super) enum Content {
    /// Their number and digest.
    Digest(usize, ContentDigest),
    /// Each, sorted.
    Members(Vec<Member>),
}

/// Something that is no directory.
#[derive(Clone)]
pub(super) struct Member {
    pub name: Box<[u8]>,
    pub kind: EntryKind,
    pub stat: Box<Stat>,
    pub detail: Box<str>,
    /// The digest is to come.
    pub unread: bool,
}

impl Member {
    pub fn mode(&self) -> u32 {
        self.stat.st_mode & 0o7777
    }
}

/// A directory to be looked through.
struct Task {
    path: Vec<u8>,
    /// Below the source.
    inside: Vec<u8>,
    parent: usize,
    ignored: Above,
    excluded: Above,
    /// Whether `--parents` still looks for its pattern.
    seeking: bool,
    vain: bool,
    depth: usize,
}

/// What came of a task.
struct Looked {
    folder: Folder,
    below: Vec<Task>,
    linked: Vec<((u64, u64), Vec<u8>)>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Task>,
    working: usize,
    threads: usize,
    folders: Vec<Option<Folder>>,
    linked: Vec<((u64, u64), Vec<u8>)>,
    failed: Option<BuildError>,
}

struct Shared<'a> {
    walk: &'a Walk<'a>,
    wanted: Option<&'a DeepPattern>,
    state: Mutex<State>,
    changed: Condvar,
    count: AtomicUsize,
    keep: usize,
    keeping: AtomicBool,
}

impl Walk<'_> {
    /// The path and all below it, or with a pattern what below it matches, with all below that, and the directories on
    /// the way. None if there is nothing.
    pub fn tree(&self, path: &[u8], wanted: Option<&DeepPattern>) -> Result<Option<Tree>, BuildError> {
        let tree = self.tree_of(path, wanted, self.keep)?;
        let guessed = self.keep < self.most;
        match tree {
            Some(tree) if guessed && !tree.whole && tree.count <= self.most => self.tree_of(path, wanted, self.most),
            tree => Ok(tree),
        }
    }

    fn tree_of(&self, path: &[u8], wanted: Option<&DeepPattern>, keep: usize) -> Result<Option<Tree>, BuildError> {
        let split = path.iter().rposition(|b| *b == b'/');
        let (parent, name) = split.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
        let Some(directory) = self.context.open_directory(parent)? else { return Ok(None) };
        let stat = match name {
            b"" => rustix::fs::fstat(&directory).map_err(|e| BuildError::read("stat", &self.context.path)(e.into()))?,
            name => self.context.stat(directory.as_fd(), name, parent)?,
        };
        let mut tree = Tree { folders: Vec::new(), count: 0, single: None, linked: Vec::new(), whole: true };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let mut member = Member { name: name.into(), ..Member::new(stat) };
            let known = self.shelf.and_then(|shelf| {
                let name = self.single_name(&member.stat);
                shelf.block(&name).get(&FileKey::of(&member.stat))
            });
            self.describe(&mut member, &directory, path, known)?;
            tree.single = Some(member);
            return Ok(Some(tree));
        }
        let mut ignored = Above::default();
        for end in path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([path.len()]) {
            if end > 0 {
                ignored = self.context.ignore.enter(&path[..end], &ignored).1;
            }
        }
        let first = Task {
            path: path.to_owned(),
            inside: Vec::new(),
            parent: 0,
            ignored,
            excluded: Above::default(),
            seeking: wanted.is_some(),
            vain: false,
            depth: 0,
        };
        let shared = Shared {
            walk: self,
            wanted,
            state: Mutex::new(State { waiting: vec![first], threads: 1, ..State::default() }),
            changed: Condvar::new(),
            count: AtomicUsize::new(0),
            keep,
            keeping: AtomicBool::new(keep > 0),
        };
        std::thread::scope(|scope| shared.work(scope));
        let state = shared.state.into_inner().expect("no panic while locked");
        if let Some(error) = state.failed {
            return Err(error);
        }
        tree.whole = shared.keeping.into_inner();
        tree.linked = state.linked;
        tree.count = shared.count.into_inner();
        tree.folders = state.folders.into_iter().map(|folder| folder.expect("each was looked through")).collect();
        Ok(Some(tree))
    }

    /// How a source that is no directory is called in the index.
    pub fn single_name(&self, stat: &Stat) -> FolderName {
        FolderName { device: stat.st_dev, inode: stat.st_ino, patterns: 0 }
    }

    /// How a directory is called in the index.
    pub fn folder_name(&self, stat: &Stat) -> FolderName {
        FolderName { device: stat.st_dev, inode: stat.st_ino, patterns: self.patterns }
    }

    /// Fills in what a member is; `known` is its digest, if it is a file and that is known.
    fn describe(
        &self,
        member: &mut Member,
        directory: &OwnedFd,
        path: &[u8],
        known: Option<ContentDigest>,
    ) -> Result<(), BuildError> {
        let at = || self.context.at(path);
        let stat = &member.stat;
        let kind = FileType::from_raw_mode(stat.st_mode);
        member.kind = match kind {
            FileType::RegularFile => EntryKind::File(known.unwrap_or_default()),
            FileType::Symlink => {
                let read = |e: Errno| BuildError::read("read link", at())(e.into());
                EntryKind::Link(readlinkat(directory, &*member.name, Vec::new()).map_err(read)?.into_bytes())
            }
            _ => EntryKind::Special(stat.st_mode & !0o7777, stat.st_rdev),
        };
        member.unread = kind == FileType::RegularFile && known.is_none();
        if let Some(made) = &self.context.details {
            let mut detail = owner(stat);
            let time = Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 };
            if let Some(Time { seconds, nanos }) = made.content(time) {
                detail += &format!(" {seconds}.{nanos:09}");
            }
            if kind == FileType::RegularFile {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let read = |e: Errno| BuildError::read("read attributes of", at())(e.into());
                let file = openat(directory, &*member.name, flags, Mode::empty()).map_err(read)?;
                detail += &attributes(&file, true).map_err(read)?;
            }
            member.detail = detail.into();
        }
        Ok(())
    }
}

fn owner(stat: &Stat) -> String {
    format!(" {}:{}", stat.st_uid, stat.st_gid)
}

impl Member {
    fn new(stat: Stat) -> Member {
        let kind = EntryKind::Directory;
        Member { name: Box::default(), kind, stat: Box::new(stat), detail: Box::default(), unread: false }
    }
}

impl<'a> Shared<'a> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while locked")
    }

    /// Looks through directories until none is left; more threads come when many wait.
    fn work<'scope>(&'scope self, scope: &'scope std::thread::Scope<'scope, '_>) {
        let most = threads();
        let mut buffer = vec![MaybeUninit::uninit(); LIST_BYTES];
        let mut state = self.lock();
        loop {
            if state.failed.is_some() || (state.waiting.is_empty() && state.working == 0) {
                self.changed.notify_all();
                return;
            }
            let Some(task) = state.waiting.pop() else {
                state = self.changed.wait(state).expect("no panic while locked");
                continue;
            };
            if state.threads < most && state.waiting.len() >= state.threads * WAITING_PER_THREAD {
                state.threads += 1;
                scope.spawn(|| self.work(scope));
            }
            state.working += 1;
            let id = state.folders.len();
            state.folders.push(None);
            drop(state);
            let result = self.folder(task, id, &mut buffer);
            state = self.lock();
            state.working -= 1;
            match result {
                Ok(Some(Looked { folder, below, linked })) => {
                    let idle = state.waiting.is_empty() || state.working == 0;
                    state.folders[id] = Some(folder);
                    state.linked.extend(linked);
                    // Taken from the end: the first in order first.
                    state.waiting.extend(below.into_iter().rev());
                    if idle {
                        self.changed.notify_all();
                    }
                }
                // It went while it was looked for: it is not there.
                Ok(None) => state.folders[id] = Some(Folder::gone()),
                Err(error) => drop(state.failed.get_or_insert(error)),
            }
        }
    }

    fn folder(&self, task: Task, id: usize, buffer: &mut [MaybeUninit<u8>]) -> Result<Option<Looked>, BuildError> {
        let Walk { context, exclude, .. } = *self.walk;
        let Task { path, inside, parent, ignored, excluded, seeking, vain, depth } = task;
        if depth > CONTEXT_DEPTH {
            let path = context.at(&path);
            return Err(BuildError::ContextTooLarge {
                path,
                limit: CONTEXT_DEPTH,
                unit: "directories below each other",
            });
        }
        let failed = |action, e: Errno| BuildError::read(action, context.at(&path))(e.into());
        let Some(directory) = context.open_folder(&path)? else { return Ok(None) };
        let own = rustix::fs::fstat(&directory).map_err(|e| failed("stat", e))?;
        let mut detail = String::new();
        if context.details.is_some() {
            // A directory's own time changes with what is made in it; only files' times are content.
            detail += &owner(&own);
        }
        if depth > 0 {
            let all = context.details.is_some();
            detail += &attributes(&directory, all).map_err(|e| failed("read attributes of", e))?;
        }
        let wanted = self.wanted.filter(|_| seeking);
        let (mut members, mut below, mut linked) = (Vec::new(), Vec::new(), Vec::new());
        let mut whole_path = path.clone();
        if !whole_path.is_empty() {
            whole_path.push(b'/');
        }
        let prefix = whole_path.len();
        let mut list = RawDir::new(&directory, buffer);
        while let Some(entry) = list.next() {
            let entry = entry.map_err(|e| failed("list", e))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            whole_path.truncate(prefix);
            whole_path.extend_from_slice(name);
            let path = &whole_path[..];
            let stat = || match rustix::fs::statat(&directory, entry.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            {
                Err(Errno::NOENT) => Ok(None),
                stat => stat.map(Some).map_err(|e| BuildError::read("stat", context.at(path))(e.into())),
            };
            let mut known = None;
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let Some(stat) = stat()? else { continue };
                    known = Some(stat);
                    FileType::from_raw_mode(stat.st_mode)
                }
                kind => kind,
            };
            if kind == FileType::Socket || context.is_output(path) {
                continue;
            }
            let inside = if exclude.is_empty() && wanted.is_none() { Vec::new() } else { join(&inside, name) };
            let found = wanted.is_none_or(|pattern| pattern.matches(&inside));
            if kind != FileType::Directory {
                let out =
                    !found || context.ignore.matches_below(path, &ignored) || exclude.matches_below(&inside, &excluded);
                let Some(stat) = (if out { None } else { known.map_or_else(stat, |stat| Ok(Some(stat)))? }) else {
                    continue;
                };
                if stat.st_nlink > 1 {
                    linked.push(((stat.st_dev, stat.st_ino), path.to_owned()));
                }
                members.push(Member { name: name.into(), ..Member::new(stat) });
                continue;
            }
            let (out, ignored) = context.ignore.enter(path, &ignored);
            let (left, excluded) = exclude.enter(&inside, &excluded);
            let pruned = (out && context.ignore.prunes(path))
                || (left && exclude.prunes(&inside))
                || wanted.is_some_and(|pattern| !found && !pattern.may_reach(&inside));
            if !pruned {
                let vain = out || left || !found || context.leads_to_output(path);
                let (path, parent, seeking) = (path.to_owned(), id, wanted.is_some() && !found);
                below.push(Task { path, inside, parent, ignored, excluded, seeking, vain, depth: depth + 1 });
            }
        }
        below.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        members.sort_unstable_by(|a, b| a.name.cmp(&b.name));

        let count = 1 + members.len() + self.count.fetch_add(1 + members.len(), Ordering::Relaxed);
        if count > CONTEXT_ENTRIES {
            let path = context.path.clone();
            return Err(BuildError::ContextTooLarge { path, limit: CONTEXT_ENTRIES, unit: "files" });
        }
        if count > self.keep {
            self.keeping.store(false, Ordering::Relaxed);
        }
        let content = self.content(&directory, &path, &own, members)?;
        let (name, mode) = (self.walk.folder_name(&own), own.st_mode & 0o7777);
        Ok(Some(Looked { folder: Folder { path, parent, name, mode, detail, vain, content }, below, linked }))
    }

    /// What the index or the files themselves say of a directory's members.
    fn content(
        &self,
        directory: &OwnedFd,
        path: &[u8],
        own: &Stat,
        mut members: Vec<Member>,
    ) -> Result<Content, BuildError> {
        if members.is_empty() {
            return Ok(Content::Members(members));
        }
        let walk = self.walk;
        let keeping = self.keeping.load(Ordering::Relaxed);
        let name = walk.folder_name(own);
        if let Some(shelf) = walk.shelf.filter(|_| !keeping)
            && let Some(digest) = shelf.folder(&name, &folder_key(&members))
        {
            return Ok(Content::Digest(members.len(), digest));
        }
        let block = walk.shelf.map(|shelf| shelf.block(&name));
        for member in &mut members {
            let known = block.as_ref().and_then(|block| {
                let file = FileType::from_raw_mode(member.stat.st_mode) == FileType::RegularFile;
                file.then(|| block.get(&FileKey::of(&member.stat))).flatten()
            });
            let path = join(path, &member.name);
            walk.describe(member, directory, &path, known)?;
        }
        if members.iter().any(|member| member.unread) {
            return Ok(Content::Members(members));
        }
        if let Some(shelf) = walk.shelf.filter(|shelf| shelf.folder(&name, &folder_key(&members)).is_none()) {
            walk.note(shelf, name, &members);
        }
        let content = Content::Members(members);
        Ok(if keeping { content } else { content.collapsed() })
    }
}

impl Content {
    /// Without the members.
    pub fn collapsed(self) -> Content {
        match self {
            Content::Members(members) => Content::Digest(members.len(), super::digest::members(&members)),
            digest => digest,
        }
    }
}

impl Walk<'_> {
    /// Notes a directory whose files were all read.
    pub fn note(&self, shelf: &Shelf, name: FolderName, members: &[Member]) {
        let whole = members.iter().all(|member| settled(&member.stat, self.now));
        let files = members.iter().filter(|member| settled(&member.stat, self.now));
        let files = files.filter_map(|member| match member.kind {
            EntryKind::File(digest) => Some((FileKey::of(&member.stat), digest)),
            _ => None,
        });
        let key = whole.then(|| folder_key(members));
        shelf.put(name, key, super::digest::members(members), &mut files.collect());
    }
}

/// All that stats say of a directory's members: if it is the same, so is their digest.
fn folder_key(members: &[Member]) -> FolderKey {
    let mut bytes = Vec::with_capacity(members.len() * 80);
    for member in members {
        bytes.extend_from_slice(&(member.name.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&member.name);
        bytes.extend_from_slice(&member.stat.st_mode.to_le_bytes());
        bytes.extend_from_slice(&member.stat.st_rdev.to_le_bytes());
        stamps(&member.stat).iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    }
    blake3::hash(&bytes).as_bytes()[..16].try_into().expect("16 bytes")
}

impl Folder {
    fn gone() -> Folder {
        let name = FolderName { device: 0, inode: 0, patterns: 0 };
        let content = Content::Members(Vec::new());
        Folder { path: Vec::new(), parent: 0, name, mode: 0, detail: String::new(), vain: true, content }
    }
}

impl Tree {
    /// The directories of each directory, sorted.
    pub fn children(&self) -> HashMap<usize, Vec<usize>> {
        let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
        for (id, folder) in self.folders.iter().enumerate().skip(1) {
            children.entry(folder.parent).or_default().push(id);
        }
        for below in children.values_mut() {
            below.sort_unstable_by(|a, b| self.folders[*a].path.cmp(&self.folders[*b].path));
        }
        children
    }
}
