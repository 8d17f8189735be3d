//! Starting containers, and what can be done with them while they run.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ctk_oci::Mount;
use ctk_plan::Cancel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::cgroup::Cgroups;
use crate::launcher::on_launcher;
use crate::limits::POLL_MS;
use crate::mounts::{self, PreparedKind, Stubs};
use crate::prepared::{NEW_PID, NewPlace, Place, Plan, PreparedProcess};
use crate::state::State;
use crate::{Error, Launch, NetworkNamespace, Process, ProcessStdio, Root};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Not well, after the kernel killed a process of the container for want of memory.
    Oom,
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The process ended.
    Ended(Exit),
    /// We were told to stop; it still runs.
    Cancelled,
    /// The deadline came; it still runs.
    OutOfTime,
}

/// A directory for one container's files, made and locked before the container starts; see [`reserve`].
pub struct Reservation {
    state: State,
}

impl Reservation {
    /// The directory; gone when the container is.
    pub fn directory(&self) -> &Path {
        self.state.directory()
    }
}

/// Reserves an id in a state directory. The caller may put files into [`Reservation::directory`], to mount them.
pub fn reserve(state_dir: &Path, id: &str) -> Result<Reservation, Error> {
    Ok(Reservation { state: State::create(state_dir, id)? })
}

/// A running container. Dropping it kills it and removes what it left.
pub struct Running {
    process: Joined,
    terminal: Option<OwnedFd>,
    left: Mutex<Option<Left>>,
    membership: Vec<PathBuf>,
}

/// What must go when the container has ended.
struct Left {
    state: State,
    cgroups: Cgroups,
    stubs: Stubs,
    root: Option<OwnedFd>,
}

impl Drop for Left {
    fn drop(&mut self) {
        self.cgroups.remove();
        if let Some(root) = self.root.take() {
            self.stubs.remove(&root);
        }
        self.state.remove();
    }
}

/// Starts a container: one `clone3`, and back once its program was executed. An error names the step that failed, and
/// nothing is left of the container.
pub fn start(launch: Launch<'_>, reservation: Reservation) -> Result<Running, Error> {
    let state = reservation.state;
    let mut left = Left { state, cgroups: Cgroups::default(), stubs: Stubs::default(), root: None };
    left.cgroups = Cgroups::create(&launch.id, launch.cgroup_parent.as_deref(), &launch.limits)?;
    let membership = left.cgroups.paths();
    left.state.keep_cgroups(&membership)?;
    let joined = left.cgroups.membership()?;
    let own_network = !matches!(launch.network, NetworkNamespace::Host);
    let prepared = mounts::prepare_all(&launch.mounts, own_network)?;
    make_mount_points(&launch, &prepared, &mut left)?;
    let terminal = match (&launch.stdio, prepared.iter().find(|mount| mount.at.as_bytes() == b"/dev/pts")) {
        (ProcessStdio::Files { .. }, _) => None,
        (ProcessStdio::Terminal, Some(mounts::Prepared { what: PreparedKind::Tree(devpts), .. })) => {
            Some(mounts::terminal(devpts, launch.process.uid)?)
        }
        (ProcessStdio::Terminal, _) => {
            return Err(Error::InvalidLaunch("a terminal needs devpts at /dev/pts".into()));
        }
    };
    let (terminal, files) = match (terminal, launch.stdio) {
        (Some((ours, theirs)), _) => {
            let copy = || theirs.try_clone().map_err(Error::Clone);
            let files = [copy()?, copy()?, copy()?];
            (Some(ours), files)
        }
        (None, ProcessStdio::Files { input, output, error }) => (None, [input, output, error]),
        (None, ProcessStdio::Terminal) => return Err(Error::InvalidLaunch("no terminal".into())),
    };
    let texts = |list: &[String]| list.iter().map(|one| mounts::text(one)).collect::<Result<Vec<_>, _>>();
    let network = match launch.network {
        NetworkNamespace::Join(namespace) => Some(namespace.try_clone().map_err(Error::Clone)?),
        NetworkNamespace::Host | NetworkNamespace::New => None,
    };
    let place = NewPlace {
        new_network: matches!(launch.network, NetworkNamespace::New),
        network,
        hostname: launch.hostname,
        root: launch.root.0,
        mounts: prepared,
        masked: texts(&launch.masked_paths)?,
        read_only: texts(&launch.read_only_paths)?,
        cwd: mounts::text(&launch.process.cwd)?,
        console: terminal.is_some(),
    };
    let plan = Arc::new(Plan {
        place: Place::New(Box::new(place)),
        process: PreparedProcess::new(&launch.process, files, terminal.is_some())?,
        unified: joined.unified,
        limits_by_unified: joined.limits_by_unified,
        procs: joined.legacy,
        die_with_parent: true,
    });
    let theirs = Arc::clone(&plan);
    let child = on_launcher(move || theirs.start())
        .ok_or_else(|| Error::Clone(std::io::Error::other("the launcher thread did not start")))??;
    // From here on a drop kills it.
    let pid = child.pid;
    let (pidfd, executed) = child.executed();
    let running = Running {
        process: Joined { pid, pidfd, exit: Mutex::new(None) },
        terminal,
        left: Mutex::new(Some(left)),
        membership,
    };
    running.lock_left().as_ref().map_or(Ok(()), |left| left.state.keep_pid(running.pid()))?;
    executed.map_err(|failure| plan.explain(failure))?;
    Ok(running)
}

/// Mount points that stay in the root.
const KEPT_STUBS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// What every container has below them.
const USUAL_BELOW: [&str; 4] = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/sys/fs/cgroup"];

/// Whether somebody asked for this mount below `directory`; devices do not count.
fn is_asked_for_below(directory: &str, mount: &Mount) -> bool {
    mount.destination.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
        && !USUAL_BELOW.contains(&mount.destination.as_str())
        && mount.source.as_deref() != Some(&mount.destination)
}

/// Makes mount points in the root where they are missing; those inside of other mounts are left to the container.
fn make_mount_points(launch: &Launch<'_>, prepared: &[mounts::Prepared], left: &mut Left) -> Result<(), Error> {
    let root = &launch.root.0;
    for (index, mount) in launch.mounts.iter().enumerate() {
        let inside = launch.mounts.iter().take(index).any(|above| {
            let above = above.destination.trim_end_matches('/');
            mount.destination.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
        });
        let own = prepared.iter().find(|p| p.at.as_bytes() == mount.destination.as_bytes());
        let directory = own.is_none_or(|p| p.directory);
        // Whoever else builds leaves these in the layer, and a root without them is of little use; but goes with a mount
        // point below it, if it was made for that.
        let mut kept = Stubs::default();
        let path = mount.destination.as_str();
        let stays = KEPT_STUBS.contains(&path) && !launch.mounts.iter().any(|mount| is_asked_for_below(path, mount));
        let stubs = if stays { &mut kept } else { &mut left.stubs };
        if !inside {
            // An error here shows again, with a better place, when the container tries.
            let _ = stubs.make(root, &mount.destination, directory);
        }
    }
    if launch.root_read_only {
        let _ = Stubs::default().make(root, &launch.process.cwd, true);
        const READ_ONLY: u64 = 1;
        ctk_sys::mount_set_attributes(root.as_fd(), false, READ_ONLY)
            .map_err(|e| Error::MountRoot { what: "read-only".into(), source: e.into() })?;
    } else {
        left.root = Some(root.try_clone().map_err(Error::Clone)?);
    }
    Ok(())
}

impl Running {
    /// The process id of its first process, as we see it.
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Our end of its terminal.
    pub fn terminal(&self) -> Option<&OwnedFd> {
        self.terminal.as_ref()
    }

    /// Waits until it ends, the deadline comes or we are told to stop. When it has ended, its cgroups and files are
    /// removed before this returns. Safe to repeat, from any thread.
    pub fn wait(&self, cancel: &Cancel, deadline: Option<Instant>) -> Result<Waited, Error> {
        let waited = self.process.wait(cancel, deadline)?;
        let Waited::Ended(exit) = waited else { return Ok(waited) };
        Ok(Waited::Ended(self.ended(exit)))
    }

    /// How it ended, if it has; does not wait.
    pub fn try_wait(&self) -> Result<Option<Exit>, Error> {
        Ok(self.process.try_wait()?.map(|exit| self.ended(exit)))
    }

    fn ended(&self, exit: Exit) -> Exit {
        let mut left = self.lock_left();
        let Some(rest) = left.take() else { return self.process.remembered().unwrap_or(exit) };
        let exit = if exit != Exit::Code(0) && rest.cgroups.oom_kills() > 0 { Exit::Oom } else { exit };
        self.process.remember(exit);
        drop(rest);
        exit
    }

    /// A file inside it, at most `limit` bytes; `None` if there is none.
    pub fn read_file(&self, path: &str, limit: u64) -> Option<Vec<u8>> {
        Root::of_process(self.pid())?.read_file(path, limit)
    }

    /// Sends a signal to its first process; no error if that has ended.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        self.process.signal(signal)
    }

    /// Kills everything in it.
    pub fn kill(&self) {
        let _ = self.process.signal(libc::SIGKILL);
        if let Some(left) = self.lock_left().as_ref() {
            left.cgroups.kill();
        }
    }

    /// Starts another process inside. It ends with the container at the latest.
    pub fn join(&self, process: &Process, stdio: ProcessStdio) -> Result<Joined, Error> {
        let ProcessStdio::Files { input, output, error } = stdio else {
            return Err(Error::InvalidLaunch("a terminal for a further process is not supported".into()));
        };
        let pidfd = self.process.pidfd.try_clone().map_err(Error::Clone)?;
        let cgroups = Cgroups::adopt(self.membership.clone()).membership()?;
        let plan = Plan {
            place: Place::Existing(pidfd),
            process: PreparedProcess::new(process, [input, output, error], false)?,
            unified: cgroups.unified,
            limits_by_unified: cgroups.limits_by_unified,
            procs: cgroups.legacy,
            die_with_parent: false,
        };
        // A thread of its own: where its children's process ids come from is a property of the thread.
        let result = std::thread::scope(|scope| {
            let started = scope.spawn(|| {
                ctk_sys::set_controlling_namespace(self.process.pidfd.as_fd(), NEW_PID).map_err(|e| Error::Step {
                    step: "join the container's process ids (has it ended?)".into(),
                    source: e.into(),
                })?;
                plan.start()
            });
            started.join()
        });
        let child = result.map_err(|_| Error::Clone(std::io::Error::other("the starting thread failed")))??;
        let pid = child.pid;
        let (pidfd, executed) = child.executed();
        let joined = Joined { pid, pidfd, exit: Mutex::new(None) };
        executed.map_err(|failure| plan.explain(failure))?;
        Ok(joined)
    }

    fn lock_left(&self) -> MutexGuard<'_, Option<Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.lock_left().is_some() {
            self.kill();
            let _ = self.process.wait(&Cancel::new(), None);
        }
    }
}

/// A process that we started: the first of a container, or a further one. Dropping it kills it.
pub struct Joined {
    pid: i32,
    pidfd: OwnedFd,
    exit: Mutex<Option<Exit>>,
}

impl Joined {
    /// Its process id, as we see it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    fn failed(&self, attempt: &'static str, errno: Errno) -> Error {
        Error::Control { attempt, pid: self.pid, source: errno.into() }
    }

    /// Waits until it ends, the deadline comes or we are told to stop. Safe to repeat, from any thread.
    pub fn wait(&self, cancel: &Cancel, deadline: Option<Instant>) -> Result<Waited, Error> {
        loop {
            if let Some(exit) = self.try_wait()? {
                return Ok(Waited::Ended(exit));
            }
            if cancel.is_cancelled() {
                return Ok(Waited::Cancelled);
            }
            let mut pause_ms = POLL_MS;
            if let Some(deadline) = deadline {
                let rest = deadline.saturating_duration_since(Instant::now());
                if rest.is_zero() {
                    return Ok(Waited::OutOfTime);
                }
                pause_ms = pause_ms.min(i64::try_from(rest.as_millis()).unwrap_or(POLL_MS) + 1);
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: pause_ms * 1_000_000 };
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed("wait for", errno)),
            }
        }
    }

    /// How it ended, if it has; does not wait.
    pub fn try_wait(&self) -> Result<Option<Exit>, Error> {
        let mut known = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() {
            return Ok(*known);
        }
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(None) | Err(Errno::INTR) => Ok(None),
            Ok(Some(status)) => {
                *known = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Some(Exit::Code(code)),
                    (_, Some(signal)) => Some(Exit::Signal(signal)),
                    _ => None,
                };
                Ok(*known)
            }
            Err(errno) => Err(self.failed("wait for", errno)),
        }
    }

    fn remember(&self, exit: Exit) {
        *self.exit.lock().unwrap_or_else(PoisonError::into_inner) = Some(exit);
    }

    fn remembered(&self) -> Option<Exit> {
        *self.exit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends it a signal; no error if it has ended.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        let Some(signal) = Signal::from_named_raw(signal) else {
            return Err(self.failed("signal", Errno::INVAL));
        };
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(self.failed("signal", errno)),
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if self.remembered().is_none() {
            let _ = self.signal(libc::SIGKILL);
            let _ = self.wait(&Cancel::new(), None);
        }
    }
}

/// Makes pipes among the standard streams of a process its user's: who is not root opens `/dev/stdout` anew, as shells
/// do, and a pipe is only for its owner. Other files stay whose they are: they may be somebody's, and their owner shows. As
/// far as it is allowed.
pub fn give_pipes<'a>(streams: impl IntoIterator<Item = BorrowedFd<'a>>, uid: u32) {
    for stream in streams {
        let is_pipe = |status: &rustix::fs::Stat| FileType::from_raw_mode(status.st_mode) == FileType::Fifo;
        if rustix::fs::fstat(stream).is_ok_and(|status| is_pipe(&status) && status.st_uid != uid) {
            let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None);
        }
    }
}

/// A file that is always empty and takes everything.
pub fn null_file() -> Result<OwnedFd, Error> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, Mode::empty()).map_err(|e| Error::PrepareMount {
        destination: "/dev/null".into(),
        what: "open".into(),
        source: e.into(),
    })
}
