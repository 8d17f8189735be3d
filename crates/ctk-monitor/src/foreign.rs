//! Containers that another OCI runtime runs (`runtime.md#lifecycle`): runc, crun, runsc. It is called by its command line;
//! its root is mounted for it in mounts of the monitor's own, so that nothing of it is seen outside.

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use ctk_bundle::attend;
use ctk_bundle::cgroup::{self, Cgroups};
use ctk_runtime::Root;
use rustix::fs::CWD;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use crate::Error;
use crate::containers::Container;
use crate::limits::DOCUMENT_BYTES;
use crate::monitor::open_directory;

/// `CLONE_NEWNS`.
const NEW_MOUNTS: u32 = 0x0002_0000;

/// A command of the runtime about a container.
pub(crate) fn command(runtime: &Path, container: &Container, words: &[&str]) -> Command {
    let mut command = Command::new(runtime);
    command.arg("--root").arg(container.runtime_root()).arg("--log").arg(container.directory().join("runtime.log"));
    command.args(["--log-format", "json"]).args(words).stdin(Stdio::null());
    command
}

/// Runs a command to its end; what the runtime said goes into the error.
pub(crate) fn run(mut command: Command, runtime: &Path, container: &Container) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Monitor { program: runtime.to_owned(), source };
    let output = command.output().map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let log = fs::read_to_string(container.directory().join("runtime.log")).unwrap_or_default();
    let told = log.lines().rev().find_map(|line| {
        let entry: Value = serde_json::from_str(line).ok()?;
        let is_error = entry.get("level").and_then(Value::as_str).is_none_or(|level| level.starts_with("err"));
        is_error.then(|| entry.get("msg").and_then(Value::as_str).map(str::to_owned))?
    });
    let said = told.unwrap_or_else(|| String::from_utf8_lossy(&output.stderr).trim().to_owned());
    let code = match said.to_ascii_lowercase() {
        said if said.contains("not found") || said.contains("no such file") => 127,
        said if said.contains("permission denied") => 126,
        _ => 125,
    };
    Err(Error::Refused { message: format!("{}: {said}", runtime.display()), code })
}

/// A container that a runtime made: its first process, and its terminal if it has one.
pub(crate) struct Created {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) terminal: Option<OwnedFd>,
}

/// Makes a container that waits for its start.
pub(crate) fn create(
    runtime: &Path,
    container: &Container,
    root: Root,
    streams: Option<[OwnedFd; 3]>,
) -> Result<Created, Error> {
    let failed = |what| move |errno: rustix::io::Errno| Error::file(what, runtime)(errno);
    // The container's first process is the runtime's child, whose end we have to see.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(failed("wait for children of"))?;
    own_mounts().map_err(failed("make mounts for"))?;
    let place = container.bundle().join("rootfs");
    let _ = unmount(&place, UnmountFlags::DETACH);
    move_mount(root.into_fd(), "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|errno| Error::file("mount the root at", &place)(errno))?;
    let pid_file = container.directory().join("pid");
    let _ = fs::remove_file(container.directory().join("runtime.log"));
    let mut command = command(runtime, container, &["create", "--bundle"]);
    command.arg(container.bundle()).arg("--pid-file").arg(&pid_file);
    let held = open_directory(container.directory())?;
    let console = match &streams {
        Some(_) => None,
        None => {
            // Its path may be longer than addresses of sockets are.
            let path = format!("/proc/{}/fd/{}/console", std::process::id(), held.as_raw_fd());
            let _ = fs::remove_file(&path);
            let listener = UnixListener::bind(&path).map_err(Error::file("listen at", &path))?;
            command.arg("--console-socket").arg(&path);
            Some(listener)
        }
    };
    command.arg(container.id());
    match streams {
        // Not `output`, which would hold its streams.
        Some([input, output, error]) => {
            command.stdin(input).stdout(output).stderr(error);
            let status = command.status().map_err(|source| Error::Monitor { program: runtime.to_owned(), source })?;
            drop(command);
            if !status.success() {
                let mut nothing = Command::new("false");
                nothing.stdin(Stdio::null());
                return Err(run(nothing, runtime, container)
                    .err()
                    .unwrap_or_else(|| Error::Missing { name: container.id().into() }));
            }
        }
        None => drop(run(command, runtime, container)?),
    }
    let terminal = match console {
        Some(listener) => {
            let (socket, _) = listener.accept().map_err(Error::file("receive", "the terminal"))?;
            let _ = fs::remove_file(container.directory().join("console"));
            Some(attend::receive_terminal(&OwnedFd::from(socket))?)
        }
        None => None,
    };
    let mut text = String::new();
    let read = fs::File::open(&pid_file).and_then(|file| file.take(DOCUMENT_BYTES).read_to_string(&mut text));
    read.map_err(Error::file("read", &pid_file))?;
    let pid =
        text.trim().parse::<i32>().ok().and_then(Pid::from_raw).ok_or_else(|| Error::Refused {
            message: format!("{} wrote no process id", runtime.display()),
            code: 125,
        })?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(failed("look at the process of"))?;
    Ok(Created { pid: pid.as_raw_nonzero().get(), pidfd, terminal })
}

/// Mounts that nobody else sees; those of the host's that come later are here, too. Once for a process.
fn own_mounts() -> Result<(), rustix::io::Errno> {
    use std::sync::Once;
    static DONE: Once = Once::new();
    let mut result = Ok(());
    DONE.call_once(|| {
        result = ctk_sys::unshare(NEW_MOUNTS)
            .and_then(|()| mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM));
    });
    result
}

/// Removes what a runtime knows of a container, and its root.
pub(crate) fn delete(runtime: &Path, container: &Container) {
    let mut command = command(runtime, container, &["delete", "--force"]);
    command.arg(container.id()).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = command.status();
    let _ = unmount(container.bundle().join("rootfs"), UnmountFlags::DETACH);
}

/// The cgroups that a container asks for, whoever made them.
pub(crate) fn cgroups(container: &Container) -> Result<Cgroups, Error> {
    let (spec, _) = ctk_bundle::container::read_bundle(&container.bundle())?;
    let path = spec.linux.as_ref().and_then(|linux| linux.cgroups_path.as_deref());
    Ok(Cgroups::place(&cgroup::hierarchies(), path, container.id())?)
}
