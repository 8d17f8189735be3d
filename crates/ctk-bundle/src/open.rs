//! What a plan's tasks need opened before the process exists: trees of bind mounts, mapped ids, copies.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};

use crate::Error;
use crate::action::{Bind, Fresh};
use crate::limits::{COPY_UP_DEPTH, COPY_UP_ENTRIES};
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
    let tree = match open_tree(CWD, source, flags) {
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
fn user_namespace(uid: &[IdMapping], gid: &[IdMapping]) -> Result<OwnedFd, Error> {
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

/// A tmpfs with a copy of what a directory of the root holds.
pub(crate) fn copy_up(fresh: &Fresh, root: &OwnedFd, field: &str) -> Result<OwnedFd, Error> {
    let place = fresh.at.to_string_lossy().into_owned();
    let failed = |errno| step(format!("copy `{place}` into its tmpfs"), field)(errno);
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    for (key, value) in &fresh.options {
        match value.is_empty() {
            true => fsconfig_set_flag(context.as_fd(), key.as_c_str()).map_err(failed)?,
            false => fsconfig_set_string(context.as_fd(), key.as_c_str(), value.as_c_str()).map_err(failed)?,
        }
    }
    fsconfig_create(context.as_fd()).map_err(failed)?;
    let read_only = fresh.attributes & crate::options::READ_ONLY;
    let flags = MountAttrFlags::from_bits_retain((fresh.attributes & !read_only) as u32);
    let tree = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(failed)?;
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat2(root, fresh.at.as_c_str(), directory, Mode::empty(), INSIDE) {
        Ok(from) => {
            let mut left = COPY_UP_ENTRIES;
            // What `fsmount` gives is only a path.
            let to = rustix::fs::openat(&tree, ".", directory, Mode::empty()).map_err(failed)?;
            copy(&from, &to, 0, &mut left).map_err(failed)?;
            let mode_given = fresh.options.iter().any(|(key, _)| key.as_bytes() == b"mode");
            same_attributes(&from, &to, !mode_given).map_err(failed)?;
        }
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let propagation = if fresh.propagation == 0 { libc::MS_PRIVATE } else { fresh.propagation & !libc::MS_REC };
    ctk_sys::mount_change(tree.as_fd(), false, read_only, 0, propagation).map_err(failed)?;
    Ok(tree)
}

fn same_attributes(from: &OwnedFd, to: &OwnedFd, mode: bool) -> Result<(), Errno> {
    let status = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(status.st_uid)), Some(Gid::from_raw(status.st_gid)))?;
    if mode {
        rustix::fs::fchmod(to, Mode::from_raw_mode(status.st_mode))?;
    }
    Ok(())
}

fn copy(from: &OwnedFd, to: &OwnedFd, depth: usize, left: &mut usize) -> Result<(), Errno> {
    if depth > COPY_UP_DEPTH {
        return Err(Errno::LOOP);
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        *left = left.checked_sub(1).ok_or(Errno::FBIG)?;
        let status = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(status.st_mode);
        let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | nofollow;
                let (inner, outer) = (
                    rustix::fs::openat(from, name, flags, Mode::empty())?,
                    rustix::fs::openat(to, name, flags, Mode::empty())?,
                );
                copy(&inner, &outer, depth + 1, left)?;
                same_attributes(&inner, &outer, true)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | nofollow;
                let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | nofollow;
                let target = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
                let mut reader = fs::File::from(source);
                let mut writer = fs::File::from(target);
                io::copy(&mut reader, &mut writer)
                    .map_err(|e| e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))?;
                same_attributes(&reader.into(), &writer.into(), true)?;
            }
            FileType::Symlink => {
                let target: CString = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target.as_c_str(), to, name)?;
                own(to, name, &status)?;
            }
            kind => {
                rustix::fs::mknodat(to, name, kind, mode, status.st_rdev)?;
                rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
                own(to, name, &status)?;
            }
        }
    }
    Ok(())
}

fn own(to: &OwnedFd, name: &std::ffi::CStr, status: &rustix::fs::Stat) -> Result<(), Errno> {
    let owner = (Some(Uid::from_raw(status.st_uid)), Some(Gid::from_raw(status.st_gid)));
    rustix::fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
}

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
