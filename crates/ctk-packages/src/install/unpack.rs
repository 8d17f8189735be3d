//! `data.tar` of many packages at once, straight into the root.
//!
//! The result does not depend on which thread was faster: of a file in several packages the one whose package
//! `Replaces` the other stays, a directory has the owner, mode and time of the first package in the locked order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ctk_plan::{Cancel, ProgressUnit, Step};
use md5::{Digest, Md5};
use rustix::fs::{self, AtFlags, Dev, FileType, Gid, Mode, Uid};

use crate::apt::relation;
use crate::cache::hex;
use crate::install::deb::Deb;
use crate::install::rootfs::{LastDirectory, Meta, Root, create, split, times};
use crate::{PackagesError, limits};

/// Top-level directories that are links into `usr` (merged-/usr).
pub(crate) const ALIASES: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32"];

/// What unpacking one package made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unpacked {
    /// Paths as the package names them, in its order: `/.`, `/usr`, …
    pub(crate) list: Vec<String>,
    /// MD5 of regular files by path without the leading slash, where somebody needs it.
    pub(crate) md5: BTreeMap<String, String>,
    /// Paths that another package replaces.
    pub(crate) lost: HashSet<String>,
}

/// Everything shared between the threads.
pub(crate) struct Unpacker<'a> {
    pub(crate) root: &'a Root,
    pub(crate) epoch_seconds: i64,
    pub(crate) cancel: &'a Cancel,
    pub(crate) step: &'a Step,
    /// Names that exist as links into `usr`.
    pub(crate) aliases: &'a [&'a str],
    /// Path to where it is diverted, and the package that may still use the path.
    pub(crate) diversions: HashMap<String, (String, String)>,
    pub(crate) claims: Mutex<HashMap<String, usize>>,
    pub(crate) directories: Mutex<BTreeMap<String, (usize, Meta)>>,
    pub(crate) bytes: AtomicU64,
    pub(crate) entries: AtomicU64,
}

/// A file that is already there from a package that has to yield.
struct Contested {
    path: String,
    winner: usize,
}

impl Unpacker<'_> {
    /// Unpacks the packages with these numbers.
    pub(crate) fn unpack(
        &self,
        debs: &[Deb<'_>],
        numbers: &[usize],
    ) -> Result<HashMap<usize, Unpacked>, PackagesError> {
        let mut order = numbers.to_vec();
        order.sort_by_key(|n| std::cmp::Reverse(debs[*n].package.size));
        let next = AtomicUsize::new(0);
        let done = AtomicU64::new(0);
        let results = Mutex::new(HashMap::new());
        let contested = Mutex::new(Vec::new());
        let failure: Mutex<Option<(usize, PackagesError)>> = Mutex::new(None);
        let threads = std::thread::available_parallelism().map_or(2, usize::from).min(order.len().max(1));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(number) = order.get(at).copied() else { return };
                        if lock(&failure).is_some() {
                            return;
                        }
                        match self.one(debs, number, &contested, None) {
                            Ok(unpacked) => {
                                lock(&results).insert(number, unpacked);
                                let n = done.fetch_add(1, Ordering::Relaxed) + 1;
                                self.step.progress(n, Some(order.len() as u64), ProgressUnit::Items);
                            }
                            Err(error) => {
                                // The first package in order is named, whichever thread came first.
                                let mut slot = lock(&failure);
                                if slot.as_ref().is_none_or(|(n, _)| number < *n) {
                                    *slot = Some((number, error));
                                }
                                return;
                            }
                        }
                    }
                });
            }
        });
        if let Some((_, error)) = into_inner(failure) {
            return Err(error);
        }
        let mut by_winner: BTreeMap<usize, HashSet<String>> = BTreeMap::new();
        for Contested { path, winner } in into_inner(contested) {
            by_winner.entry(winner).or_default().insert(path);
        }
        for (winner, paths) in by_winner {
            self.one(debs, winner, &Mutex::new(Vec::new()), Some(&paths))?;
        }
        Ok(into_inner(results))
    }

    /// Owner, mode and time of all directories, after everything is in them.
    pub(crate) fn finish_directories(&self) -> Result<(), PackagesError> {
        for (path, (_, meta)) in lock(&self.directories).iter().rev() {
            let set = self.root.set_directory(path, meta);
            set.map_err(|source| PackagesError::Root { path: format!("/{path}"), source })?;
        }
        Ok(())
    }

    fn one(
        &self,
        debs: &[Deb<'_>],
        number: usize,
        contested: &Mutex<Vec<Contested>>,
        only: Option<&HashSet<String>>,
    ) -> Result<Unpacked, PackagesError> {
        let deb = &debs[number];
        let bad =
            |what: String| PackagesError::Archive { package: deb.package.name.clone(), path: deb.path.clone(), what };
        let broken = |e: io::Error| bad(format!("has a broken data.tar: {e}"));
        let conffiles: HashSet<String> = conffiles(deb).into_iter().collect();
        let all_md5 = deb.file("md5sums").is_none();
        let mut unpacked = Unpacked::default();
        let mut last = LastDirectory::default();
        let mut archive = tar::Archive::new(deb.data()?);
        for entry in archive.entries().map_err(broken)? {
            if self.cancel.is_cancelled() {
                return Err(PackagesError::Cancelled);
            }
            let mut entry = entry.map_err(broken)?;
            let raw = entry.path_bytes().into_owned();
            let shown = String::from_utf8(raw).map_err(|e| bad(format!("has a path that is not UTF-8: {e}")))?;
            let path =
                relative(&shown).ok_or_else(|| bad(format!("has the path `{shown}`, which leads out of the root")))?;
            let listed = if path.is_empty() { "/.".to_string() } else { format!("/{path}") };
            let target = self.divert(&self.canonical(&path), &deb.package.name);
            let kind = entry.header().entry_type();
            let meta = Meta {
                mode: entry.header().mode().map_err(broken)? & 0o7777,
                uid: entry.header().uid().map_err(broken)? as u32,
                gid: entry.header().gid().map_err(broken)? as u32,
                mtime_seconds: (entry.header().mtime().map_err(broken)? as i64).min(self.epoch_seconds),
            };
            let failed = |source: io::Error| PackagesError::Unpack {
                package: deb.package.name.clone(),
                path: format!("/{target}"),
                source,
            };
            if only.is_none() {
                unpacked.list.push(listed.clone());
                self.entries.fetch_add(1, Ordering::Relaxed);
            }
            if kind.is_dir() {
                if !self.aliases.contains(&target.as_str()) && only.is_none() {
                    self.root.directory(&target).map_err(failed)?;
                    let mut directories = lock(&self.directories);
                    let slot = directories.entry(target).or_insert((number, meta));
                    if number < slot.0 {
                        *slot = (number, meta);
                    }
                }
                continue;
            }
            match only {
                Some(paths) if !paths.contains(&target) => continue,
                Some(_) => {}
                None => match self.claim(debs, number, &target)? {
                    Claim::Mine => {}
                    Claim::Lost => {
                        unpacked.lost.insert(listed);
                        continue;
                    }
                    Claim::Contested => {
                        lock(contested).push(Contested { path: target.clone(), winner: number });
                        // Its digest is still wanted; its content follows when all threads are done.
                        if kind.is_file() && (all_md5 || conffiles.contains(&path)) {
                            let mut hasher = Md5::new();
                            io::copy(&mut entry, &mut HashOnly(&mut hasher)).map_err(broken)?;
                            unpacked.md5.insert(path, hex(&hasher.finalize()));
                        }
                        continue;
                    }
                },
            }
            let (parent_path, name) = split(&target);
            let parent = last.get(self.root, parent_path).map_err(failed)?;
            if kind.is_file() || kind.is_contiguous() {
                let want_md5 = all_md5 || conffiles.contains(&path);
                let mut file = create(&parent, name).map_err(failed)?;
                let mut hasher = want_md5.then(Md5::new);
                let copied = copy(&mut entry, &mut file, hasher.as_mut());
                let size = copied.map_err(|e| match e {
                    CopyError::Read(e) => broken(e),
                    CopyError::Write(e) => failed(e),
                    CopyError::TooLarge => bad(format!("has a file larger than {} bytes: /{path}", limits::FILE_BYTES)),
                })?;
                self.bytes.fetch_add(size, Ordering::Relaxed);
                if (meta.uid, meta.gid) != (0, 0) {
                    let owned = fs::fchown(&file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
                    owned.map_err(|e| failed(e.into()))?;
                }
                fs::fchmod(&file, Mode::from_raw_mode(meta.mode)).map_err(|e| failed(e.into()))?;
                fs::futimens(&file, &times(meta.mtime_seconds)).map_err(|e| failed(e.into()))?;
                if let Some(hasher) = hasher {
                    unpacked.md5.insert(path, hex(&hasher.finalize()));
                }
                continue;
            }
            let made = match kind {
                tar::EntryType::Symlink => {
                    let link =
                        entry.link_name_bytes().ok_or_else(|| bad(format!("has a link without target: /{path}")))?;
                    replacing(&parent, name, || fs::symlinkat(&*link, &parent, name))
                }
                tar::EntryType::Link => {
                    let link =
                        entry.link_name_bytes().ok_or_else(|| bad(format!("has a link without target: /{path}")))?;
                    let link = String::from_utf8_lossy(&link).into_owned();
                    let from = relative(&link)
                        .ok_or_else(|| bad(format!("links to `{link}`, which leads out of the root")))?;
                    let from = self.divert(&self.canonical(&from), &deb.package.name);
                    let (from_parent, from_name) = split(&from);
                    let from_parent = self.root.directory(from_parent).map_err(failed)?;
                    replacing(&parent, name, || fs::linkat(&from_parent, from_name, &parent, name, AtFlags::empty()))
                }
                tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => {
                    let (kind, device) = match kind {
                        tar::EntryType::Char => (FileType::CharacterDevice, true),
                        tar::EntryType::Block => (FileType::BlockDevice, true),
                        _ => (FileType::Fifo, false),
                    };
                    let number = |n: io::Result<Option<u32>>| n.ok().flatten().unwrap_or(0);
                    let header = entry.header();
                    let dev: Dev = match device {
                        true => fs::makedev(number(header.device_major()), number(header.device_minor())),
                        false => 0,
                    };
                    replacing(&parent, name, || fs::mknodat(&parent, name, kind, Mode::from_raw_mode(meta.mode), dev))
                }
                other => return Err(bad(format!("has an entry of type {other:?}: /{path}"))),
            };
            made.map_err(|e| failed(e.into()))?;
            if kind != tar::EntryType::Link {
                let owned = fs::chownat(
                    &parent,
                    name,
                    Some(Uid::from_raw(meta.uid)),
                    Some(Gid::from_raw(meta.gid)),
                    AtFlags::SYMLINK_NOFOLLOW,
                );
                owned.map_err(|e| failed(e.into()))?;
                if kind != tar::EntryType::Symlink {
                    let mode = fs::chmodat(&parent, name, Mode::from_raw_mode(meta.mode), AtFlags::empty());
                    mode.map_err(|e| failed(e.into()))?;
                }
                let timed = fs::utimensat(&parent, name, &times(meta.mtime_seconds), AtFlags::SYMLINK_NOFOLLOW);
                timed.map_err(|e| failed(e.into()))?;
            }
        }
        // What follows the last entry is padding; reading it makes the decompressor check its checksums.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;
        Ok(unpacked)
    }

    fn claim(&self, debs: &[Deb<'_>], number: usize, path: &str) -> Result<Claim, PackagesError> {
        let mut claims = lock(&self.claims);
        let Some(other) = claims.get(path).copied() else {
            claims.insert(path.into(), number);
            return Ok(Claim::Mine);
        };
        let (mine, theirs) = (&debs[number], &debs[other]);
        // Packages of several architectures share files of equal content.
        let shared = mine.package.name == theirs.package.name && other < number;
        if shared || replaces(theirs, mine) {
            return Ok(Claim::Lost);
        }
        if mine.package.name == theirs.package.name || replaces(mine, theirs) {
            claims.insert(path.into(), number);
            return Ok(Claim::Contested);
        }
        let mut names = [mine.package.name.clone(), theirs.package.name.clone()];
        names.sort();
        let [first, second] = names;
        Err(PackagesError::FileConflict { first, second, path: format!("/{path}") })
    }

    /// Where a path that the package lists really is: `/lib/x` is `usr/lib/x`.
    pub(crate) fn place(&self, listed: &str, package: &str) -> String {
        self.divert(&self.canonical(listed.trim_start_matches('/')), package)
    }

    /// The path behind the links of merged-/usr.
    fn canonical(&self, path: &str) -> String {
        match path.split_once('/') {
            Some((first, _)) if self.aliases.contains(&first) => format!("usr/{path}"),
            _ => path.to_string(),
        }
    }

    fn divert(&self, path: &str, package: &str) -> String {
        match self.diversions.get(path) {
            Some((to, owner)) if owner != package => to.clone(),
            _ => path.to_string(),
        }
    }
}

enum Claim {
    Mine,
    Lost,
    Contested,
}

/// Paths in `conffiles`, without the leading slash.
pub(crate) fn conffiles(deb: &Deb<'_>) -> Vec<String> {
    let text = String::from_utf8_lossy(deb.file("conffiles").unwrap_or_default()).into_owned();
    let paths = text.lines().map(str::trim).filter(|l| l.starts_with('/'));
    paths.map(|l| l.trim_start_matches('/').to_string()).collect()
}

fn replaces(winner: &Deb<'_>, loser: &Deb<'_>) -> bool {
    let text = crate::apt::deb822::Stanza(&winner.control).get("Replaces").unwrap_or_default();
    let provides = crate::apt::deb822::Stanza(&loser.control).get("Provides").unwrap_or_default();
    relation::list(text).any(|r| {
        (r.name == loser.package.name && r.accepts(&loser.package.version))
            || (r.version.is_none() && relation::list(provides).any(|p| p.name == r.name))
    })
}

/// `./usr/bin/x` as `usr/bin/x`; none for a path that leads out of the root.
fn relative(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn replacing(
    parent: &impl std::os::fd::AsFd,
    name: &str,
    make: impl Fn() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    match make() {
        Err(rustix::io::Errno::EXIST) => {
            fs::unlinkat(parent, name, AtFlags::empty())?;
            make()
        }
        other => other,
    }
}

enum CopyError {
    Read(io::Error),
    Write(io::Error),
    TooLarge,
}

fn copy(from: &mut impl Read, to: &mut impl Write, mut hasher: Option<&mut Md5>) -> Result<u64, CopyError> {
    let mut buffer = [0; 64 << 10];
    let mut size = 0;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(size),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(CopyError::Read(e)),
        };
        size += n as u64;
        if size > limits::FILE_BYTES {
            return Err(CopyError::TooLarge);
        }
        if let Some(hasher) = &mut hasher {
            hasher.update(&buffer[..n]);
        }
        to.write_all(&buffer[..n]).map_err(CopyError::Write)?;
    }
}

struct HashOnly<'a>(&'a mut Md5);

impl Write for HashOnly<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for (path, expected) in
            [("./usr//bin/x", Some("usr/bin/x")), ("./", Some("")), ("/etc", Some("etc")), ("./a/../b", None)]
        {
            assert_eq!(relative(path).as_deref(), expected, "{path}");
        }
    }
}
