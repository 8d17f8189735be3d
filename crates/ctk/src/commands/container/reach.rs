//! The files of a container from outside: as it sees them while it runs, and as it would when it does not.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use ctk_monitor::state::Status;
use ctk_monitor::{Config, Container};
use ctk_oci::Mount;
use ctk_runtime::Root;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, move_mount, open_tree};
use serde_json::Value;

use super::Desk;
use crate::failure::Failure;

/// `CLONE_NEWNS`: what a thread unshares to mount unseen.
const NEW_MOUNTS: u32 = 0x0002_0000;
/// `MOUNT_ATTR_RDONLY`.
const READ_ONLY: u64 = 1;

/// Its `config.json`.
pub fn specification(container: &Container) -> Result<Value, Failure> {
    let path = container.bundle().join("config.json");
    let text = std::fs::read(&path).map_err(Failure::during(format!("cannot read {}", path.display())))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Where something is mounted in it.
pub fn mount_points(container: &Container) -> Result<Vec<String>, Failure> {
    let specification = specification(container)?;
    let mounts = specification.get("mounts").and_then(Value::as_array).cloned().unwrap_or_default();
    let place = |mount: &Value| Some(mount.get("destination")?.as_str()?.trim_matches('/').to_owned());
    Ok(mounts.iter().filter_map(place).collect())
}

/// Whether a path, relative to the root, is one of these or below one.
pub fn is_within(path: &[u8], places: &[String]) -> bool {
    places.iter().any(|place| match path.strip_prefix(place.as_bytes()) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"/"),
        None => false,
    })
}

/// Ids of a container as the host has them.
pub fn outside(container: &Container, ids: (u32, u32)) -> Result<(u32, u32), Failure> {
    let specification = specification(container)?;
    let map = |field: &str, id: u32| {
        let list = specification.pointer(field).and_then(Value::as_array).cloned().unwrap_or_default();
        let found = list.iter().find_map(|map| {
            let number = |name: &str| map.get(name).and_then(Value::as_u64).map(|number| number as u32);
            let (inside, outside, size) = (number("containerID")?, number("hostID")?, number("size")?);
            (id >= inside && id - inside < size).then(|| outside + (id - inside))
        });
        found.unwrap_or(id)
    };
    Ok((map("/linux/uidMappings", ids.0), map("/linux/gidMappings", ids.1)))
}

/// Does something with the root of a container, its mounts among what is there. One that does not run cannot be started
/// meanwhile.
pub fn with_root<T: Send>(
    desk: &Desk,
    container: &Container,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let config = container.config()?;
    let state = desk.settle(container)?;
    if state.status.is_alive() {
        return work(running(container, &config)?.as_fd());
    }
    let Some(locked) = container.lock_within(Duration::from_secs(10))? else {
        let what = format!("somebody else works with container {}", config.name);
        return Err(Failure::sentence(what, Some("try again")));
    };
    let mounts: Vec<Mount> = match specification(&locked)?.get_mut("mounts") {
        Some(mounts) => serde_json::from_value(mounts.take())?,
        None => Vec::new(),
    };
    let done = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let root = unseen(&locked, &config, &mounts).map_err(packed)?;
            work(root.as_fd()).map_err(packed)
        });
        thread.join().unwrap_or_else(|_| Err((String::from("error: a thread ended early\n"), 1)))
    });
    done.map_err(unpacked)
}

/// A failure as it goes from one thread to another: what is said of it, and the exit code.
fn packed(failure: Failure) -> (String, u8) {
    (failure.text(), failure.exit_code())
}

fn unpacked((text, code): (String, u8)) -> Failure {
    match code {
        crate::failure::code::INTERRUPTED => Failure::Interrupted,
        _ => Failure::Explained(text),
    }
}

/// The root of its first process.
fn running(container: &Container, config: &Config) -> Result<OwnedFd, Failure> {
    let gone = || {
        let what = format!("container {} is just being started, or ends", config.name);
        Failure::sentence(what, Some("try again"))
    };
    let kept = container.kept()?;
    let _process = kept.process().ok_or_else(gone)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("/proc/{}/root", kept.record.pid), flags, Mode::empty()).map_err(|_| gone())?;
    // It still is, so the number was its own all the time.
    kept.process().ok_or_else(gone)?;
    Ok(root)
}

/// Its root with what it has mounted, where nobody else sees it.
fn unseen(container: &Container, config: &Config, mounts: &[Mount]) -> Result<OwnedFd, Failure> {
    let failed = |what: &str| Failure::during(format!("cannot mount {what} of container {}", config.name));
    ctk_sys::unshare(NEW_MOUNTS).map_err(failed("the root"))?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).map_err(failed("the root"))?;
    let root = Root::mount(&fresh_work(&config.root)?, true)?.into_fd();
    let place = container.bundle().join("rootfs");
    move_mount(&root, "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(failed("the root"))?;
    for mount in mounts {
        let tree = tree(mount)
            .map_err(Failure::during(format!("cannot mount {} of container {}", mount.destination, config.name)))?;
        let Some(tree) = tree else { continue };
        let directory = is_directory(&tree).map_err(failed(&mount.destination))?;
        make_place(&root, &mount.destination, directory)?;
        let at = inside(root.as_fd(), &mount.destination).map_err(failed(&mount.destination))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&tree, "", &at, "", flags).map_err(failed(&mount.destination))?;
    }
    Ok(root)
}

fn inside(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = path.trim_start_matches('/');
    rustix::fs::openat2(
        root,
        if path.is_empty() { "." } else { path },
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
}

fn is_directory(file: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) == FileType::Directory)
}

/// What it has mounted there, if that is there without it: folders, files and images, but no file systems of its own.
fn tree(mount: &Mount) -> Result<Option<OwnedFd>, std::io::Error> {
    let value = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
    let is_bind = mount.kind.as_deref() == Some("bind");
    let tree = match mount.kind.as_deref() {
        Some("bind") => {
            let source = mount.source.as_deref().unwrap_or_default();
            let whole = match rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
                // It went away; whoever starts the container is told.
                Err(rustix::io::Errno::NOENT) => return Ok(None),
                other => other?,
            };
            let part = match value("subpath") {
                Some(path) => inside(whole.as_fd(), path)?,
                None => whole,
            };
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH
                | OpenTreeFlags::AT_RECURSIVE;
            open_tree(&part, "", flags)?
        }
        Some("overlay") => {
            let options: Vec<(&str, &str)> = mount.options.iter().filter_map(|option| option.split_once('=')).collect();
            let (own, _): (Vec<_>, Vec<_>) = options.into_iter().partition(|(name, _)| *name != "subpath");
            let whole = Root::overlay(&own).and_then(|whole| whole.part(value("subpath").unwrap_or("/")));
            whole.map_err(std::io::Error::other)?.into_fd()
        }
        _ => return Ok(None),
    };
    if is_bind && mount.options.iter().any(|option| option == "ro" || option == "rro") {
        ctk_sys::mount_set_attributes(tree.as_fd(), true, READ_ONLY)?;
    }
    Ok(Some(tree))
}

/// What the runtime would make to mount something there.
fn make_place(root: &OwnedFd, path: &str, directory: bool) -> Result<(), Failure> {
    if inside(root.as_fd(), path).is_ok() {
        return Ok(());
    }
    let mode = if directory { 0o755 } else { 0o644 };
    let new = ctk_snapshot::copy::Attributes { owner: (0, 0), mode, mtime: None };
    match directory {
        true => ctk_snapshot::copy::mkdir(root.as_fd(), path.as_bytes(), &new, true)?,
        false => ctk_snapshot::copy::mkfile(root.as_fd(), path.as_bytes(), b"", &new, 0o755)?,
    }
    Ok(())
}

/// Overlay wants a work directory that is new.
fn fresh_work(root: &Mount) -> Result<Mount, Failure> {
    for option in &root.options {
        if let Some(work) = option.strip_prefix("workdir=") {
            let failed = || Failure::during(format!("cannot make {work}"));
            match std::fs::remove_dir_all(work) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed()(error)),
                _ => std::fs::create_dir(work).map_err(failed())?,
            }
        }
    }
    Ok(root.clone())
}

/// The folder of its own layer; none for one whose root is a folder of the host.
pub fn own_layer(config: &Config) -> Option<&Path> {
    config.root.options.iter().find_map(|option| option.strip_prefix("upperdir=")).map(Path::new)
}

/// The tree of its own layer, with ids as it sees them; none for one whose root is a folder of the host.
pub fn own_tree(container: &Container, config: &Config) -> Result<Option<OwnedFd>, Failure> {
    let Some(path) = own_layer(config) else { return Ok(None) };
    let failed = |errno: rustix::io::Errno| Failure::during(format!("cannot open {}", path.display()))(errno);
    let specification = specification(container)?;
    // The other way round: what the host has becomes what the container sees.
    let back = |field: &str| -> Vec<ctk_bundle::spec::IdMapping> {
        let list = specification.pointer(field).and_then(Value::as_array).cloned().unwrap_or_default();
        let one = |map: &Value| {
            let number = |name: &str| map.get(name)?.as_u64().and_then(|number| u32::try_from(number).ok());
            let (container_id, host_id) = (number("hostID")?, number("containerID")?);
            Some(ctk_bundle::spec::IdMapping { container_id, host_id, size: number("size")? })
        };
        list.iter().filter_map(one).collect()
    };
    let (users, groups) = (back("/linux/uidMappings"), back("/linux/gidMappings"));
    if users.is_empty() || !rustix::process::geteuid().is_root() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        return Ok(Some(rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?));
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags).map_err(failed)?;
    let namespace = ctk_bundle::user_namespace(&users, &groups)?;
    ctk_sys::mount_map_ids(tree.as_fd(), namespace.as_fd(), false).map_err(failed)?;
    Ok(Some(tree))
}

/// Its root without its mounts, for reading, with ids as it sees them. It may run meanwhile, but what it changes may be
/// seen or not.
pub fn for_reading(container: &Container, config: &Config) -> Result<Root, Failure> {
    let mut mount = config.root.clone();
    let own = own_tree(container, config)?;
    if let Some(own) = &own {
        let own = format!("lowerdir=/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(own));
        mount.options.retain(|option| {
            !option.starts_with("upperdir=") && !option.starts_with("workdir=") && option != "volatile"
        });
        mount.options.insert(0, own);
    }
    Ok(Root::mount(&mount, true)?)
}

/// A container that stands still as long as this is there.
pub struct Still<'a>(Option<&'a Container>);

impl<'a> Still<'a> {
    /// Has a container that runs stand still, if that is `wanted`.
    pub fn new(desk: &Desk, container: &'a Container, wanted: bool) -> Result<Still<'a>, Failure> {
        if !wanted || desk.settle(container)?.status != Status::Running {
            return Ok(Still(None));
        }
        match ctk_monitor::freeze(container, true) {
            Ok(()) => Ok(Still(Some(container))),
            // As with others: most ordinary users have no cgroup that they could freeze.
            Err(error) if ctk_runtime::is_ordinary() => {
                eprintln!("ctk: the container is not paused meanwhile: {}", error.line());
                Ok(Still(None))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        if let Some(container) = self.0 {
            let _ = ctk_monitor::freeze(container, false);
        }
    }
}
