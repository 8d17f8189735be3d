//! Mounts made before the container exists: detached trees that its process only has to attach.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use ctk_oci::Mount;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};

use crate::{Error, in_user_namespace};

/// `MOUNT_ATTR_NOSYMFOLLOW` is left out on purpose: images need links.
const READ_ONLY: u64 = 0x01;
const NO_SUID: u64 = 0x02;
const NO_DEVICES: u64 = 0x04;
const NO_EXEC: u64 = 0x08;
const NO_ATIME: u64 = 0x10;
const STRICT_ATIME: u64 = 0x20;

/// A mount, ready to be attached.
pub(crate) struct Prepared {
    pub(crate) at: CString,
    pub(crate) directory: bool,
    pub(crate) no_links: bool,
    pub(crate) what: PreparedKind,
}

/// Where a prepared mount comes from.
pub(crate) enum PreparedKind {
    /// It exists already.
    Tree(OwnedFd),
    /// It belongs to the container's namespaces, so its process makes it.
    Fresh { kind: CString, options: Vec<(CString, CString)>, attributes: u64, optional: bool },
}

/// Options split into attributes of the mount and options of the file system.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options<'a> {
    attributes: u64,
    recursive: bool,
    rest: Vec<(&'a str, &'a str)>,
}

fn split(options: &[String]) -> Options<'_> {
    let mut split = Options::default();
    for option in options {
        match option.as_str() {
            "ro" | "rro" | "readonly" => split.attributes |= READ_ONLY,
            "rw" => split.attributes &= !READ_ONLY,
            "nosuid" => split.attributes |= NO_SUID,
            "nodev" => split.attributes |= NO_DEVICES,
            "noexec" => split.attributes |= NO_EXEC,
            "noatime" => split.attributes |= NO_ATIME,
            "strictatime" => split.attributes |= STRICT_ATIME,
            "rbind" => split.recursive = true,
            // Defaults, or without meaning for a container's private mounts.
            "bind" | "suid" | "dev" | "exec" | "relatime" | "defaults" | "private" | "rprivate" | "slave"
            | "rslave" | "" => {}
            other => split.rest.push(other.split_once('=').unwrap_or((other, ""))),
        }
    }
    split
}

/// A mounted root file system that no process is in yet. Dropping it unmounts it.
#[derive(Debug)]
pub struct Root(pub(crate) OwnedFd);

impl Root {
    /// Mounts it, detached: kind `overlay` with `lowerdir=a:b` (or `lowerdir+=a` several times), `upperdir=`,
    /// `workdir=` options, or kind `bind` of a directory. Without `devices`, device nodes on it cannot be opened: so it
    /// must be for images that nobody vouches for, as long as the container has no device cgroup.
    pub fn mount(mount: &Mount, devices: bool) -> Result<Root, Error> {
        let failed = |what: &str, e: Errno| Error::MountRoot { what: what.into(), source: e.into() };
        let mut options = split(&mount.options);
        if !devices {
            options.attributes |= NO_DEVICES;
        }
        match mount.kind.as_deref() {
            Some("overlay") => overlay(&options).map(Root).map_err(|(what, e)| failed(&what, e)),
            Some("bind") | None => {
                let source = mount.source.as_deref().unwrap_or("");
                bind(source, options.recursive, options.attributes).map(Root).map_err(|e| failed(source, e))
            }
            Some(other) => Err(Error::InvalidLaunch(format!("the root cannot be of type `{other}`"))),
        }
    }

    /// Mounts the overlay that these options say, detached: `lowerdir=` once a directory, `upperdir=`, `workdir=`, …
    pub fn overlay(options: &[(&str, &str)]) -> Result<Root, Error> {
        let options = Options { rest: options.to_vec(), ..Options::default() };
        overlay(&options).map(Root).map_err(|(what, e)| Error::MountRoot { what, source: e.into() })
    }

    /// What is at a path, resolved inside, as a mount of its own.
    pub fn part(self, path: &str) -> Result<Root, Error> {
        part(self.0, path).map(Root).map_err(|e| Error::MountRoot { what: path.into(), source: e.into() })
    }

    /// The mount, to open files below it.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The same for a container with users of its own: what belongs to user 0 in a lower layer belongs to the root of the
    /// user namespace. Each is shown through a mount that maps ids (linux 5.19). The upper directory holds ids as the
    /// host sees them: overlay writes there as who mounted it, whom a mapping would leave without a number.
    pub fn mount_mapped(mount: &Mount, devices: bool, namespace: BorrowedFd<'_>) -> Result<Root, Error> {
        let failed = |what: &str, e: Errno| Error::MountRoot { what: what.into(), source: e.into() };
        let mut views: Vec<(String, OwnedFd)> = Vec::new();
        let mut view = |path: &str| -> Result<String, Error> {
            if let Some((_, file)) = views.iter().find(|(known, _)| known == path) {
                return Ok(format!("/proc/self/fd/{}", file.as_raw_fd()));
            }
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let image = crate::overlay::image(path).map_err(|e| failed(path, e))?;
            let tree = image.map_or_else(|| open_tree(CWD, path, flags), Ok).map_err(|e| failed(path, e))?;
            ctk_sys::mount_map_ids(tree.as_fd(), namespace, false)
                .map_err(|e| failed(&format!("{path} with mapped ids"), e))?;
            let shown = format!("/proc/self/fd/{}", tree.as_raw_fd());
            views.push((path.to_owned(), tree));
            Ok(shown)
        };
        let mut mapped = mount.clone();
        match mount.kind.as_deref() {
            Some("overlay") => {
                for option in &mut mapped.options {
                    let Some((name, path)) = option.split_once('=') else { continue };
                    if matches!(name, "lowerdir" | "lowerdir+") {
                        *option = format!("{name}={}", view(path)?);
                    }
                }
                Root::mount(&mapped, devices)
            }
            _ => {
                let root = Root::mount(mount, devices)?;
                ctk_sys::mount_map_ids(root.0.as_fd(), namespace, true)
                    .map_err(|e| failed(mount.source.as_deref().unwrap_or(""), e))?;
                Ok(root)
            }
        }
    }

    /// The mount itself, e.g. to open files below it.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// The root of a running process.
    pub fn of_process(pid: i32) -> Option<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()).ok().map(Root)
    }

    /// The regular file at a path, resolved inside the root; at most `limit` bytes of it. `None` if there is none.
    pub fn read_file(&self, path: &str, limit: u64) -> Option<Vec<u8>> {
        use std::io::Read;
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&self.0, path, flags, Mode::empty(), INSIDE).ok()?;
        let status = rustix::fs::fstat(&file).ok()?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return None;
        }
        let mut bytes = Vec::new();
        std::fs::File::from(file).take(limit).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// The option of an overlay of which only this path, resolved inside, is mounted.
const SUBPATH: &str = "subpath";

/// How `/sys` of the machine is shown.
const SHOWN: [&str; 5] = ["rbind", "ro", "nosuid", "nodev", "noexec"];

/// What a launch's mounts become, in order. A `dev` with the option `nodev` is followed by the usual nodes, each a mount
/// of its own: any other node made there cannot be opened. So is every `dev` in a user namespace, where nobody makes nodes.
pub(crate) fn prepare_all(mounts: &[Mount], own_network: bool) -> Result<Vec<Prepared>, Error> {
    let mut all = Vec::with_capacity(mounts.len());
    for mount in mounts {
        let kind = mount.kind.as_deref();
        // Whoever has no rights on a network has none on what `/sys` shows of it: the machine's own is shown, read-only.
        if kind == Some("sysfs") && in_user_namespace() && !own_network {
            all.push(prepare(&Mount::new("bind", "/sys", &mount.destination, &SHOWN))?);
            continue;
        }
        all.push(prepare(mount)?);
        if kind == Some("dev") && (in_user_namespace() || mount.options.iter().any(|option| option == "nodev")) {
            for (name, _, _) in NODES {
                let place = format!("{}/{name}", mount.destination);
                all.push(prepare(&Mount::new("bind", &format!("/dev/{name}"), &place, &["nosuid", "noexec"]))?);
            }
        }
    }
    Ok(all)
}

/// Makes a mount or its recipe.
fn prepare(mount: &Mount) -> Result<Prepared, Error> {
    let destination = mount.destination.as_str();
    let failed = |what: &str, e: Errno| Error::PrepareMount {
        destination: destination.into(),
        what: what.into(),
        source: e.into(),
    };
    if !destination.starts_with('/') || destination.split('/').any(|part| part == "..") {
        return Err(Error::InvalidLaunch(format!("the mount point `{destination}` is not an absolute path")));
    }
    let at = text(destination)?;
    let options = split(&mount.options);
    match mount.kind.as_deref() {
        Some("bind") | None => {
            let source = mount.source.as_deref().unwrap_or("");
            let tree = bind(source, options.recursive, options.attributes).map_err(|e| failed(source, e))?;
            let directory = is_directory(&tree).map_err(|e| failed(source, e))?;
            Ok(Prepared { at, directory, no_links: false, what: PreparedKind::Tree(tree) })
        }
        Some("overlay") => {
            let whole = overlay(&options).map_err(|(what, e)| failed(&what, e))?;
            let tree = match options.rest.iter().find(|(key, _)| *key == SUBPATH) {
                Some((_, path)) => part(whole, path).map_err(|e| failed(path, e))?,
                None => whole,
            };
            let directory = is_directory(&tree).map_err(|e| failed("overlay", e))?;
            Ok(Prepared { at, directory, no_links: false, what: PreparedKind::Tree(tree) })
        }
        Some("dev") => {
            let guarded = options.attributes & NO_DEVICES != 0 || in_user_namespace();
            let tree = devices(guarded).map_err(|(what, e)| failed(what, e))?;
            Ok(Prepared { at, directory: true, no_links: true, what: PreparedKind::Tree(tree) })
        }
        Some("tmpfs") => {
            let tree = fresh("tmpfs", &options.rest, options.attributes).map_err(|e| failed("tmpfs", e))?;
            Ok(Prepared { at, directory: true, no_links: false, what: PreparedKind::Tree(tree) })
        }
        Some("devpts") => {
            let mut rest = options.rest.clone();
            let tree = match fresh("devpts", &rest, options.attributes) {
                // The group of terminals is nobody in a user namespace of few ids.
                Err(Errno::INVAL) if in_user_namespace() => {
                    rest.retain(|(key, _)| *key != "gid");
                    fresh("devpts", &rest, options.attributes)
                }
                other => other,
            };
            let tree = tree.map_err(|e| failed("devpts", e))?;
            Ok(Prepared { at, directory: true, no_links: true, what: PreparedKind::Tree(tree) })
        }
        Some(kind @ ("proc" | "sysfs" | "mqueue" | "cgroup2")) => {
            let mut list = vec![(c"source".to_owned(), text(kind)?)];
            for (key, value) in options.rest.iter().filter(|(key, _)| *key != "optional") {
                list.push((text(key)?, text(value)?));
            }
            let optional = options.rest.iter().any(|(key, _)| *key == "optional");
            let what =
                PreparedKind::Fresh { kind: text(kind)?, options: list, attributes: options.attributes, optional };
            Ok(Prepared { at, directory: true, no_links: true, what })
        }
        Some(other) => Err(Error::InvalidLaunch(format!("`{destination}` cannot be a mount of type `{other}`"))),
    }
}

/// A C string of it. What cannot be one is told as far as it is no value: that may be a secret.
pub(crate) fn text(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| {
        let shown = match text.split_once('=') {
            Some((name, _)) => format!("the value of `{}`", name.escape_debug()),
            None => format!("`{}`", text.escape_debug()),
        };
        Error::InvalidLaunch(format!("{shown} has a NUL inside"))
    })
}

fn bind(source: &str, recursive: bool, attributes: u64) -> Result<OwnedFd, Errno> {
    if !source.starts_with('/') {
        return Err(Errno::INVAL);
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let (tree, recursive) = match recursive {
        true => (open_tree(CWD, source, flags | OpenTreeFlags::AT_RECURSIVE)?, true),
        false => match open_tree(CWD, source, flags) {
            // In a user namespace nobody may see what the machine's mounts below it cover.
            Err(Errno::INVAL) if in_user_namespace() => {
                (open_tree(CWD, source, flags | OpenTreeFlags::AT_RECURSIVE)?, true)
            }
            other => (other?, false),
        },
    };
    ctk_sys::mount_set_attributes(tree.as_fd(), recursive, attributes)?;
    Ok(tree)
}

fn fresh(kind: &str, options: &[(&str, &str)], attributes: u64) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What `mount` and `df` show.
    fsconfig_set_string(context.as_fd(), "source", kind)?;
    for (key, value) in options {
        match *value {
            "" => fsconfig_set_flag(context.as_fd(), *key)?,
            value => fsconfig_set_string(context.as_fd(), *key, value)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    mounted(&context, attributes)
}

fn mounted(context: &OwnedFd, attributes: u64) -> Result<OwnedFd, Errno> {
    let flags = MountAttrFlags::from_bits_retain(attributes as u32);
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

fn overlay(options: &Options<'_>) -> Result<OwnedFd, (String, Errno)> {
    let mut lowers = Vec::new();
    for (key, value) in &options.rest {
        match *key {
            "lowerdir" => lowers.extend(split_lowers(value)),
            "lowerdir+" => lowers.push((*value).to_string()),
            _ => {}
        }
    }
    let others = options.rest.iter().filter(|(key, _)| !matches!(*key, "lowerdir" | "lowerdir+" | SUBPATH));
    let mut others: Vec<_> = others.copied().collect();
    if in_user_namespace() {
        // Notes that others than root may write. With them redirects cannot be, so they need not be forbidden.
        others.retain(|option| *option != ("redirect_dir", "off") && *option != ("metacopy", "off"));
        others.push(("userxattr", ""));
    }
    crate::overlay::overlay(&lowers, &others, options.attributes)
}

/// Splits at colons that no backslash escapes.
fn split_lowers(value: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        let part = match character {
            '\\' => characters.next(),
            ':' => {
                parts.push(String::new());
                None
            }
            other => Some(other),
        };
        if let (Some(c), Some(last)) = (part, parts.last_mut()) {
            last.push(c);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// A path of a mounted tree, resolved inside of it, as a mount of its own. The tree's file system lives as long.
fn part(whole: OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return Ok(whole);
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = |whole: &OwnedFd| {
        let found = rustix::fs::openat2(whole, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), INSIDE)?;
        open_tree(&found, "", flags)
    };
    match clone(&whole) {
        // Before linux 6.15 only what is attached somewhere can be cloned: a thread attaches it where nobody sees it.
        Err(Errno::INVAL) => crate::overlay::attached(whole, clone),
        result => result,
    }
}

/// Name, major and minor number of the devices that every container has.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// A `/dev` with the nodes, links and mount points that the runtime specification asks for (`config-linux.md`, default
/// devices), and nothing of the host's. A guarded one has empty files to mount nodes on.
fn devices(guarded: bool) -> Result<OwnedFd, (&'static str, Errno)> {
    const LINKS: [(&str, &str); 5] = [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ];
    let attributes = NO_SUID | STRICT_ATIME | if guarded { NO_DEVICES } else { 0 };
    let tree = fresh("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes).map_err(|e| ("tmpfs", e))?;
    let all = Mode::from_raw_mode(0o666);
    for (name, major, minor) in NODES {
        if guarded {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&tree, name, flags, all).map_err(|e| (name, e))?;
            continue;
        }
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(&tree, name, FileType::CharacterDevice, all, device).map_err(|e| (name, e))?;
        // The process's umask applied.
        rustix::fs::chmodat(&tree, name, all, AtFlags::empty()).map_err(|e| (name, e))?;
    }
    for (target, name) in LINKS {
        rustix::fs::symlinkat(target, &tree, name).map_err(|e| (name, e))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdirat(&tree, name, Mode::from_raw_mode(0o755)).map_err(|e| (name, e))?;
    }
    Ok(tree)
}

/// Both ends of a new terminal of a detached `devpts`.
pub(crate) fn terminal(devpts: &OwnedFd, uid: u32) -> Result<(OwnedFd, OwnedFd), Error> {
    use rustix::pty::OpenptFlags;
    let failed = |what, e: Errno| Error::OpenTerminal { what, source: e.into() };
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::openat(devpts, "ptmx", flags, Mode::empty()).map_err(|e| failed("ptmx", e))?;
    rustix::pty::unlockpt(&master).map_err(|e| failed("unlock", e))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(|e| failed("other end", e))?;
    let group = None::<Gid>;
    rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), group).map_err(|e| failed("owner", e))?;
    Ok((master, slave))
}

fn is_directory(file: &OwnedFd) -> Result<bool, Errno> {
    let status = rustix::fs::fstat(file)?;
    Ok(FileType::from_raw_mode(status.st_mode) == FileType::Directory)
}

/// Mount points that were missing in a root and made for the container; removed again if they stayed empty, so that a
/// build's layer does not hold them.
#[derive(Debug, Default)]
pub(crate) struct Stubs {
    made: Vec<(String, bool)>,
}

/// Links followed to make a mount point: as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// A path without `.`, `..` and doubled slashes; `..` of a link's parent counts as written.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

impl Stubs {
    /// Makes what is missing of `path`; a link that leads nowhere gets something to lead to.
    pub(crate) fn make(&mut self, root: &OwnedFd, path: &str, directory: bool) -> io::Result<()> {
        self.make_within(root, path, directory, LINKS_MAX)
    }

    fn make_within(&mut self, root: &OwnedFd, path: &str, directory: bool, links: usize) -> io::Result<()> {
        if exists(root, path) {
            return Ok(());
        }
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut prefix = String::new();
        for (index, part) in parts.iter().enumerate() {
            let parent = open(root, if prefix.is_empty() { "/" } else { &prefix })?;
            prefix = format!("{prefix}/{part}");
            if exists(root, &prefix) {
                continue;
            }
            let as_directory = directory || index + 1 < parts.len();
            if let Ok(target) = rustix::fs::readlinkat(&parent, *part, Vec::new()) {
                let target = target.to_str().map_err(|_| io::Error::from(Errno::ILSEQ))?;
                let target = match target.starts_with('/') {
                    true => plain(target),
                    false => plain(&format!("{}/{target}", &prefix[..prefix.len() - part.len()])),
                };
                let left = links.checked_sub(1).ok_or(io::Error::from(Errno::LOOP))?;
                self.make_within(root, &target, as_directory, left)?;
                continue;
            }
            let before = rustix::fs::fstat(&parent)?;
            let mode = Mode::from_raw_mode(if as_directory { 0o755 } else { 0o644 });
            let result = if as_directory {
                rustix::fs::mkdirat(&parent, *part, mode)
            } else {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&parent, *part, flags, mode).map(drop)
            };
            result?;
            rustix::fs::chmodat(&parent, *part, mode, AtFlags::empty())?;
            keep_times(&parent, &before);
            self.made.push((prefix.clone(), as_directory));
        }
        Ok(())
    }

    /// Removes what is still empty.
    pub(crate) fn remove(&mut self, root: &OwnedFd) {
        while let Some((path, directory)) = self.made.pop() {
            let Some((parent, name)) = path.rsplit_once('/') else { continue };
            let Ok(parent) = open(root, if parent.is_empty() { "/" } else { parent }) else { continue };
            let Ok(before) = rustix::fs::fstat(&parent) else { continue };
            let removed = if directory {
                rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)
            } else {
                match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(status) if status.st_size == 0 => rustix::fs::unlinkat(&parent, name, AtFlags::empty()),
                    _ => continue,
                }
            };
            if removed.is_ok() {
                keep_times(&parent, &before);
            }
        }
    }
}

/// Gives a directory back the times it had. A path descriptor cannot be used for it directly.
fn keep_times(directory: &OwnedFd, before: &rustix::fs::Stat) {
    let time = |seconds: i64, nanoseconds: u64| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.try_into().unwrap_or_default(),
    };
    let times = rustix::fs::Timestamps {
        last_access: time(before.st_atime, before.st_atime_nsec),
        last_modification: time(before.st_mtime, before.st_mtime_nsec),
    };
    let _ = rustix::fs::utimensat(directory, ".", &times, AtFlags::empty());
}

fn open(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), INSIDE)
}

fn exists(root: &OwnedFd, path: &str) -> bool {
    open(root, path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_directories_split_at_bare_colons() {
        assert_eq!(split_lowers(r"/a:/b\:c:/d\\e"), ["/a", "/b:c", r"/d\e"]);
        assert_eq!(split_lowers("/only"), ["/only"]);
    }

    #[test]
    fn options_are_attributes_or_for_the_file_system() {
        let options = ["ro", "nosuid", "size=1m", "rbind", "userxattr"].map(String::from);
        let found = split(&options);
        assert_eq!((found.attributes, found.recursive), (READ_ONLY | NO_SUID, true));
        assert_eq!(found.rest, [("size", "1m"), ("userxattr", "")]);
    }
}
