//! What files are, in few bytes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use ctk_buildgraph::KeyHasher;
use ctk_buildgraph::pattern::DeepPattern;
use rustix::fs::{Mode, OFlags, ResolveFlags, Stat, fstat, openat2};
use rustix::io::Errno;

use super::walk::{Content, Folder, Member, Tree, Walk};
use super::{Context, Entry, EntryKind, Found, shown};
use crate::BuildError;
use crate::index::{ContentDigest, untouched};
use crate::limits::{NAMED_FILES, READ_ATTEMPTS};

impl Walk<'_> {
    /// A source with what lies below it.
    pub fn source(&self, named: Vec<u8>, path: Vec<u8>, wanted: Option<&DeepPattern>) -> Result<Found, BuildError> {
        let mut tree = match self.tree(&path, wanted)? {
            Some(tree) => tree,
            None => {
                let (entries, folders, linked) = (Some(Vec::new()), Vec::new(), Vec::new());
                return Ok(Found { named, path, entries, folders, count: 0, digest: [0; 32], linked });
            }
        };
        self.read(&path, &mut tree)?;
        if let Some(member) = tree.single {
            let digest = members(std::slice::from_ref(&member));
            let entry =
                Entry { path: path.clone(), mode: member.mode(), kind: member.kind, detail: member.detail.into() };
            let (entries, folders, linked) = (Some(vec![entry]), Vec::new(), Vec::new());
            return Ok(Found { named, path, entries, folders, count: 1, digest, linked });
        }
        if !tree.whole {
            for folder in &mut tree.folders {
                let content = std::mem::replace(&mut folder.content, Content::Members(Vec::new()));
                folder.content = content.collapsed();
            }
        }
        let linked = std::mem::take(&mut tree.linked);
        let summed = Summed::new(tree);
        let linked = same_files(linked);
        let (count, digest) = summed.root(&linked);
        let whole = summed.tree.whole;
        let folders = if whole { Vec::new() } else { summed.folders() };
        let entries = whole.then(|| summed.entries(count));
        Ok(Found { named, path, entries, folders, count, digest, linked })
    }

    /// Reads the files whose digests the index does not know, several at once, and tells it.
    fn read(&self, source: &[u8], tree: &mut Tree) -> Result<(), BuildError> {
        if let Some(member) = tree.single.as_mut().filter(|member| member.unread) {
            self.context.read(source, member)?;
            if let Some(shelf) = self.shelf {
                self.note(shelf, self.single_name(&member.stat), std::slice::from_ref(member));
            }
        }
        let mut unread: Vec<(Vec<u8>, &mut Member)> = Vec::new();
        let mut changed = Vec::new();
        for (id, folder) in tree.folders.iter_mut().enumerate() {
            let Folder { path, content: Content::Members(members), .. } = folder else { continue };
            let before = unread.len();
            let members = members.iter_mut().filter(|member| member.unread);
            unread.extend(members.map(|member| (super::join(path, &member.name), member)));
            if unread.len() > before {
                changed.push(id);
            }
        }
        if unread.is_empty() {
            return Ok(());
        }
        let threads = super::walk::threads().min(unread.len());
        let waiting = Mutex::new(unread.into_iter());
        let failed: Mutex<Option<BuildError>> = Mutex::new(None);
        let next = || match &*failed.lock().expect("no panic while locked") {
            Some(_) => None,
            None => waiting.lock().expect("no panic while locked").next(),
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((path, member)) = next() {
                        if let Err(error) = self.context.read(&path, member) {
                            failed.lock().expect("no panic while locked").get_or_insert(error);
                        }
                    }
                });
            }
        });
        if let Some(error) = failed.into_inner().expect("no panic while locked") {
            return Err(error);
        }
        for folder in changed.into_iter().map(|id| &tree.folders[id]) {
            if let (Content::Members(members), Some(shelf)) = (&folder.content, self.shelf) {
                self.note(shelf, folder.name, members);
            }
        }
        Ok(())
    }
}

impl Context {
    /// Reads a file between two stats of it that are the same, so that digest and stat belong together.
    fn read(&self, path: &[u8], member: &mut Member) -> Result<(), BuildError> {
        let failed = |e: std::io::Error| BuildError::read("read", self.at(path))(e);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..READ_ATTEMPTS {
            let fd = openat2(&self.root, path, flags, Mode::empty(), resolve).map_err(|e| failed(e.into()))?;
            let before = fstat(&fd).map_err(|e| failed(e.into()))?;
            let attributes = if self.details.is_none() { attributes(&fd, false) } else { Ok(String::new()) };
            let attributes = attributes.map_err(|e| failed(e.into()))?;
            let file = File::from(fd);
            let content = hash(&file).map_err(failed)?;
            let after = fstat(&file).map_err(|e| failed(e.into()))?;
            if !untouched(&before, &after) || !is_file(&after) {
                continue;
            }
            let digest = with_attributes(content, &attributes);
            member.kind = EntryKind::File(*digest.as_bytes());
            *member.stat = after;
            member.unread = false;
            return Ok(());
        }
        Err(failed(std::io::Error::other("it changed each time while it was read")))
    }
}

/// The digest of a file with this content and these attributes.
fn with_attributes(content: blake3::Hash, attributes: &str) -> blake3::Hash {
    match attributes.is_empty() {
        true => content,
        false => blake3::Hasher::new().update(content.as_bytes()).update(attributes.as_bytes()).finalize(),
    }
}

/// Whether a file that has a word of [`visit_words`] with this digest had the content that `file` has, and `attributes`.
pub(crate) fn same_content(file: OwnedFd, attributes: &str, digest: &str) -> bool {
    hash(&File::from(file)).is_ok_and(|content| short(with_attributes(content, attributes).as_bytes()) == digest)
}

fn is_file(stat: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
}

fn hash(mut file: &File) -> std::io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0u8; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            n => hasher.update(&buffer[..n]),
        };
    }
}

/// Names and values of a file's extended attributes: all, or the user's.
pub(super) fn attributes(file: &OwnedFd, all: bool) -> rustix::io::Result<String> {
    let mut small = [0u8; 256];
    let mut large = Vec::new();
    let names = match rustix::fs::flistxattr(file.as_fd(), &mut small[..]) {
        Ok(length) => &small[..length],
        Err(Errno::RANGE) => {
            large.reserve(64 << 10);
            rustix::fs::flistxattr(file.as_fd(), rustix::buffer::spare_capacity(&mut large))?;
            &large[..]
        }
        Err(Errno::OPNOTSUPP) => return Ok(String::new()),
        Err(e) => return Err(e),
    };
    let mut text = String::new();
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty() && (all || name.starts_with(b"user."))) {
        let mut value = Vec::with_capacity(64 << 10);
        rustix::fs::fgetxattr(file.as_fd(), name, rustix::buffer::spare_capacity(&mut value))?;
        text.push_str(&format!(" {}={}", String::from_utf8_lossy(name), blake3::hash(&value).to_hex()));
    }
    Ok(text)
}

/// Digest of what is in a directory and is none.
pub(super) fn members(members: &[Member]) -> ContentDigest {
    let mut hasher = KeyHasher::new("members");
    for member in members {
        hasher.part(&member.name).part(describe(&member.kind, member.mode()).as_bytes());
        hasher.part(member.detail.as_bytes());
    }
    hasher.bytes()
}

fn describe(kind: &EntryKind, mode: u32) -> String {
    match kind {
        EntryKind::Directory => format!("d{mode:o}"),
        EntryKind::File(digest) => format!("f{mode:o} {}", blake3::Hash::from_bytes(*digest).to_hex()),
        EntryKind::Link(target) => format!("l {}", shown(target)),
        EntryKind::Special(kind, device) => format!("s{:o} {device}", kind | mode),
    }
}

/// Files that are the same as one before, with the first one's path.
fn same_files(mut linked: Vec<((u64, u64), Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    linked.sort_unstable_by(|a, b| a.1.cmp(&b.1));
    let mut first: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut same = Vec::new();
    for (file, path) in linked {
        match first.get(&file) {
            Some(first) => same.push((path, first.clone())),
            None => drop(first.insert(file, path)),
        }
    }
    same
}

/// A tree with a digest of each directory and all below it; none if nothing was taken there.
struct Summed {
    tree: Tree,
    children: HashMap<usize, Vec<usize>>,
    digests: Vec<Option<(usize, ContentDigest)>>,
}

impl Summed {
    fn new(tree: Tree) -> Summed {
        let children = tree.children();
        let mut digests: Vec<Option<(usize, ContentDigest)>> = vec![None; tree.folders.len()];
        // What is in a directory comes after it.
        for (id, folder) in tree.folders.iter().enumerate().rev() {
            let (mut count, content) = match &folder.content {
                Content::Digest(count, digest) => (*count, *digest),
                Content::Members(all) => (all.len(), members(all)),
            };
            let mut hasher = KeyHasher::new("directory");
            hasher.part(format!("d{:o}", folder.mode).as_bytes()).part(folder.detail.as_bytes()).part(&content);
            for child in children.get(&id).into_iter().flatten() {
                let Some((below, digest)) = digests[*child] else { continue };
                hasher.part(last_name(&tree.folders[*child].path)).part(&digest);
                count += below;
            }
            digests[id] = (id == 0 || !folder.vain || count > 0).then(|| (count + 1, hasher.bytes()));
        }
        Summed { tree, children, digests }
    }

    fn root(&self, linked: &[(Vec<u8>, Vec<u8>)]) -> (usize, ContentDigest) {
        let (count, digest) = self.digests[0].expect("the source itself is there");
        let mut hasher = KeyHasher::new("source");
        hasher.part(&digest);
        for (path, first) in linked {
            hasher.part(path).part(first);
        }
        (count, hasher.bytes())
    }

    /// Each directory that is taken, with what is in it and is none; nothing if there are too many.
    fn folders(&self) -> Vec<(Vec<u8>, usize, ContentDigest)> {
        if self.tree.folders.len() > NAMED_FILES {
            return Vec::new();
        }
        let taken = self.tree.folders.iter().zip(&self.digests).filter(|(_, digest)| digest.is_some());
        let each = taken.filter_map(|(folder, _)| {
            let Content::Digest(count, content) = &folder.content else { return None };
            let mut hasher = KeyHasher::new("folder");
            hasher.part(format!("d{:o}", folder.mode).as_bytes()).part(folder.detail.as_bytes()).part(content);
            Some((folder.path.clone(), *count, hasher.bytes()))
        });
        each.collect()
    }

    fn entries(self, count: usize) -> Vec<Entry> {
        let Summed { mut tree, children, digests } = self;
        let mut entries = Vec::with_capacity(count);
        list(0, &mut tree.folders, &children, &digests, &mut entries);
        entries
    }
}

/// A directory and what is below it, each name in its place.
fn list(
    id: usize,
    folders: &mut [Folder],
    children: &HashMap<usize, Vec<usize>>,
    digests: &[Option<(usize, ContentDigest)>],
    into: &mut Vec<Entry>,
) {
    let folder = &mut folders[id];
    let (path, mode) = (folder.path.clone(), folder.mode);
    let detail = std::mem::take(&mut folder.detail);
    let members = match std::mem::replace(&mut folder.content, Content::Members(Vec::new())) {
        Content::Members(members) => members,
        Content::Digest(..) => Vec::new(),
    };
    let mut members = members.into_iter().peekable();
    let file = |member: Member| Entry {
        path: super::join(&path, &member.name),
        mode: member.mode(),
        kind: member.kind,
        detail: member.detail.into(),
    };
    into.push(Entry { path: path.clone(), kind: EntryKind::Directory, mode, detail });
    for child in children.get(&id).into_iter().flatten().filter(|child| digests[**child].is_some()) {
        let name = last_name(&folders[*child].path);
        while let Some(member) = members.next_if(|member| *member.name < *name) {
            into.push(file(member));
        }
        list(*child, folders, children, digests, into);
    }
    into.extend(members.map(file));
}

fn last_name(path: &[u8]) -> &[u8] {
    &path[path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1)..]
}

/// Digest of what a selection gives.
pub(crate) fn digest_of(found: &[Found]) -> String {
    let mut hasher = KeyHasher::new("selection");
    for source in found {
        // The name decides what the copy is called, the path where it is.
        hasher.part(&source.named).part(&source.path).part(&source.digest);
    }
    hasher.finish().to_string()
}

/// A short word for each file, for a fingerprint that can tell which one changed; one for each directory where they are
/// too many.
pub(crate) fn file_words(found: &[Found], into: &mut BTreeMap<String, String>) {
    visit_words(found, |path, word| drop(into.insert(path, word)));
}

/// The same one by one, always in the same order.
pub(crate) fn visit_words(found: &[Found], mut visit: impl FnMut(String, String)) {
    for source in found.iter().filter(|source| source.named != source.path) {
        visit(shown(&source.named), format!("l {}", shown(&source.path)));
    }
    for source in found {
        let Some(entries) = &source.entries else {
            source.folder_words(&mut visit);
            continue;
        };
        let linked: HashMap<&[u8], &[u8]> = source.linked.iter().map(|(path, first)| (&path[..], &first[..])).collect();
        for entry in entries.iter().filter(|entry| !entry.path.is_empty()) {
            let mut word = match &entry.kind {
                EntryKind::File(digest) => format!("{:o}:{}", entry.mode, short(digest)),
                _ => format!("{}{}", describe(&entry.kind, entry.mode), entry.detail),
            };
            if let Some(first) = linked.get(&entry.path[..]) {
                word.push_str(&format!("={}", shown(first)));
            }
            visit(shown(&entry.path), word);
        }
    }
}

fn short(digest: &ContentDigest) -> String {
    blake3::Hash::from_bytes(*digest).to_hex()[..32].to_owned()
}

impl Found {
    /// A word for each directory; one for all where even they are too many.
    fn folder_words(&self, visit: &mut impl FnMut(String, String)) {
        let name = |path: &[u8]| if path.is_empty() { "./".to_owned() } else { format!("{}/", shown(path)) };
        let mut folders = self.folders.iter();
        let Some((_, count, first)) = folders.next() else {
            return visit(name(&self.path), format!("{} files and directories:{}", self.count, short(&self.digest)));
        };
        // Which files are the same is no property of one directory.
        let mut hasher = KeyHasher::new("folder");
        hasher.part(first);
        for (path, first) in &self.linked {
            hasher.part(path).part(first);
        }
        visit(name(&self.path), format!("{count} files:{}", short(&hasher.bytes())));
        for (path, count, digest) in folders {
            visit(name(path), format!("{count} files:{}", short(digest)));
        }
    }
}
