//! What a plan's tasks need opened before the process exists: trees of bind mounts, mapped ids.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::Error;
use crate::action::Bind;
use crate::spec::IdMapping;

/// A mount that a task attaches.
pub(crate) enum Opened {
    /// Nothing had to be opened.
    Nothing,
    /// A detached tree; whether its root is a directory.
    Tree(OwnedFd, bool),
    /// A bind mount that only the process itself may make; whether it is of a directory.
    ByChild(bool),
}

fn step(what: String, field: &str) -> impl FnOnce(Errno) -> Error {
    let field = field.to_owned();
    move |errno| Error::Step { step: what, field, source: errno.into() }
}

/// The root: a bind mount of its directory with everything below, so that it is a mount to pivot to. None if only the
/// process may make it, in its user namespace.
pub(crate) fn root(path: &str, propagation_kept: bool) -> Result<Option<OwnedFd>, Error> {
    let what = || format!("open the root file system `{path}`");
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = match open_tree(CWD, path, flags) {
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => return Ok(None),
        other => other.map_err(step(what(), "root.path"))?,
    };
    if !is_directory(&tree).map_err(step(what(), "root.path"))? {
        return Err(step(what(), "root.path")(Errno::NOTDIR));
    }
    if !propagation_kept {
        // As a mount made inside of a tree of slaves would be: what the host mounts there appears, nothing goes back.
        ctk_sys::mount_change(tree.as_fd(), true, 0, 0, libc::MS_SLAVE).map_err(step(what(), "root.path"))?;
    }
    Ok(Some(tree))
}

/// The tree of a bind mount, with its attributes.
pub(crate) fn bind(bind: &Bind, field: &str) -> Result<Opened, Error> {
    let what = || format!("open `{}`", bind.source.to_string_lossy());
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if bind.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let source = bind.source.as_c_str();
    let opened = match (&bind.inside, bind.overlay.as_slice()) {
        (None, _) => open_tree(CWD, source, flags),
        (Some(inside), []) => inside_of(source, inside, flags),
        (Some(inside), options) => {
            let options: Vec<(&str, &str)> = options.iter().map(|(name, value)| (&name[..], &value[..])).collect();
            let tree = ctk_runtime::Root::overlay(&options).and_then(|whole| whole.part(inside));
            return match tree {
                Ok(tree) => {
                    let tree = tree.into_fd();
                    let directory = is_directory(&tree).map_err(step(what(), field))?;
                    attributes(tree.as_fd(), bind, field)?;
                    Ok(Opened::Tree(tree, directory))
                }
                Err(ctk_runtime::Error::MountRoot { what, source }) => {
                    let step = format!("mount the overlay at `{}`: {what}", bind.at.to_string_lossy());
                    Err(Error::Step { step, field: field.into(), source })
                }
                Err(error) => Err(Error::config(field, error.to_string())),
            };
        }
    };
    let tree = match opened {
        Ok(tree) => tree,
        // Not root here, but the process will be in its user namespace.
        Err(Errno::PERM | Errno::INVAL) if bind.map.is_none() => {
            let status = rustix::fs::stat(source).map_err(step(what(), field))?;
            return Ok(Opened::ByChild(FileType::from_raw_mode(status.st_mode) == FileType::Directory));
        }
        Err(errno) => return Err(step(what(), field)(errno)),
    };
    let directory = is_directory(&tree).map_err(step(what(), field))?;
    if let Some((recursive, uid, gid)) = &bind.map {
        let namespace = user_namespace(uid, gid)?;
        ctk_sys::mount_map_ids(tree.as_fd(), namespace.as_fd(), *recursive)
            .map_err(step(format!("map ids of `{}`", bind.source.to_string_lossy()), field))?;
    }
    attributes(tree.as_fd(), bind, field)?;
    Ok(Opened::Tree(tree, directory))
}

/// The tree at a path below `source`, whatever links are on the way.
fn inside_of(source: &std::ffi::CStr, path: &str, flags: OpenTreeFlags) -> Result<OwnedFd, Errno> {
    let path = path.trim_start_matches('/');
    let path = if path.is_empty() { "." } else { path };
    let whole = rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(&whole, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside)?;
    open_tree(&found, "", flags | OpenTreeFlags::AT_EMPTY_PATH)
}

fn attributes(tree: BorrowedFd<'_>, bind: &Bind, field: &str) -> Result<(), Error> {
    let failed = |errno| step(format!("set the options of `{}`", bind.at.to_string_lossy()), field)(errno);
    // Without a word it is a slave: it gets what the host mounts later, and gives nothing back.
    let propagation = if bind.propagation == 0 { libc::MS_SLAVE | libc::MS_REC } else { bind.propagation };
    let (kind, deep) = (propagation & !libc::MS_REC, propagation & libc::MS_REC != 0);
    ctk_sys::mount_change(tree, deep, 0, 0, kind).map_err(failed)?;
    if bind.set_all | bind.clear_all != 0 {
        ctk_sys::mount_change(tree, true, bind.set_all, bind.clear_all, 0).map_err(failed)?;
    }
    if bind.set | bind.clear != 0 {
        ctk_sys::mount_change(tree, false, bind.set, bind.clear, 0).map_err(failed)?;
    }
    Ok(())
}

fn is_directory(file: &OwnedFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) == FileType::Directory)
}

/// A user namespace that nobody lives in, for its mappings.
pub fn user_namespace(uid: &[IdMapping], gid: &[IdMapping]) -> Result<OwnedFd, Error> {
    let failed = |e: Errno| Error::Clone(e.into());
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
    let steps = [ctk_sys::Step::Await { file: read.as_raw_fd(), other: write.as_raw_fd() }];
    let start = ctk_sys::Start { namespaces: libc::CLONE_NEWUSER as u64, cgroup: None, steps: &steps };
    let child = ctk_sys::start(&start).map_err(failed)?;
    let result = write_mappings(child.pid, uid, gid).and_then(|()| {
        let path = format!("/proc/{}/ns/user", child.pid);
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| Error::file("open", path)(e.into()))
    });
    let _ = rustix::process::pidfd_send_signal(child.pidfd(), rustix::process::Signal::KILL);
    let by = rustix::process::WaitId::PidFd(child.pidfd());
    let _ = rustix::process::waitid(by, rustix::process::WaitIdOptions::EXITED);
    result
}

/// Writes `uid_map` and `gid_map` of a process in a new user namespace.
pub(crate) fn write_mappings(pid: i32, uid: &[IdMapping], gid: &[IdMapping]) -> Result<(), Error> {
    let text = |list: &[IdMapping]| {
        list.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect::<String>()
    };
    let put = |name: &str, text: &str, field: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::write(&path, text).map_err(|source| Error::Step {
            step: format!("write `{path}`"),
            field: field.into(),
            source,
        })
    };
    let direct = put("gid_map", &text(gid), "linux.gidMappings");
    let denied =
        |error: &Error| matches!(error, Error::Step { source, .. } if source.kind() == io::ErrorKind::PermissionDenied);
    match direct {
        // Not root: only its own ids, and only without a way to drop groups; or the helpers, who know /etc/subgid.
        Err(error) if denied(&error) => {
            if helper("newgidmap", pid, gid).is_err() {
                put("setgroups", "deny", "linux.gidMappings")?;
                put("gid_map", &text(gid), "linux.gidMappings")?;
            }
        }
        other => other?,
    }
    match put("uid_map", &text(uid), "linux.uidMappings") {
        Err(error) if denied(&error) => helper("newuidmap", pid, uid).map_err(|_| error),
        other => other,
    }
}

/// Compares the ids of a user namespace that was joined with those that the configuration says it has.
pub(crate) fn check_mappings(pid: i32, path: &str, uid: &[IdMapping], gid: &[IdMapping]) -> Result<(), Error> {
    for (name, wanted, field) in [("uid_map", uid, "linux.uidMappings"), ("gid_map", gid, "linux.gidMappings")] {
        let file = format!("/proc/{pid}/{name}");
        let text = fs::read_to_string(&file).map_err(Error::file("read", &file))?;
        let found: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let one = |m: &IdMapping| [m.container_id, m.host_id, m.size].map(|number| number.to_string());
        if !found.iter().eq(wanted.iter().map(one).collect::<Vec<_>>().iter()) {
            let has = found.iter().map(|line| line.join(":")).collect::<Vec<_>>().join(",");
            let reason = format!("the namespace `{path}` has {has}; say the same or leave the mappings out");
            return Err(Error::config(field, reason));
        }
    }
    Ok(())
}

fn helper(program: &str, pid: i32, mappings: &[IdMapping]) -> io::Result<()> {
    let mut command = std::process::Command::new(program);
    command.arg(pid.to_string()).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    for mapping in mappings {
        command.args([mapping.container_id, mapping.host_id, mapping.size].map(|number| number.to_string()));
    }
    match command.stderr(std::process::Stdio::null()).status()?.success() {
        true => Ok(()),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

/// A cgroup, as a tree to attach.
pub(crate) fn cgroup(path: &std::path::Path, field: &str) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags).map_err(step(format!("open `{}`", path.display()), field))?;
    let safe = crate::options::NO_SUID | crate::options::NO_DEVICES | crate::options::NO_EXEC;
    ctk_sys::mount_change(tree.as_fd(), false, safe, 0, libc::MS_PRIVATE)
        .map_err(step(format!("set the options of `{}`", path.display()), field))?;
    Ok(tree)
}

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// The home of a user, as `/etc/passwd` below `root` has it.
pub fn home(root: &std::path::Path, uid: u32) -> String {
    /// An account file is text written by people.
    const LIMIT: u64 = 4 * 1024 * 1024;
    let find = || -> Option<String> {
        use std::io::Read;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::open(std::ffi::OsStr::from_bytes(root.as_os_str().as_bytes()), flags, Mode::empty()).ok()?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&root, "etc/passwd", flags, Mode::empty(), INSIDE).ok()?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file).ok()?.st_mode) != FileType::RegularFile {
            return None;
        }
        let mut text = Vec::new();
        fs::File::from(file).take(LIMIT).read_to_end(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text);
        text.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.get(2)?.parse::<u32>().ok()? == uid).then(|| fields.get(5).map(|home| (*home).to_owned()))?
        })
    };
    find().filter(|home| !home.is_empty()).unwrap_or_else(|| "/".into())
}
