//! One life of a container: its process, its streams, its end.

use std::collections::VecDeque;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ctk_bundle::attend;
use ctk_bundle::container::{self, Made, Options};
use ctk_bundle::plan::Switches;
use ctk_bundle::spec::{IdMapping, Process, Spec};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::config::Config;
use crate::containers::Container;
use crate::foreign;
use crate::limits::INPUT_BUFFER_BYTES;
use crate::{Error, time};

/// A container's process and our ends of its streams.
pub(super) struct Run {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) started: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) terminal: bool,
    /// Whether its streams are those of who started it.
    pub(super) foreground: bool,
    /// Whether its input ends with that of the first who is attached to it.
    pub(super) input_once: bool,
    input: Option<OwnedFd>,
    unread: VecDeque<u8>,
    input_ended: bool,
    pub(super) out: Option<OwnedFd>,
    pub(super) err: Option<OwnedFd>,
    /// How it ended, and when we saw it; what it left in its streams comes after that.
    pub(super) ended: Option<(Ended, Instant)>,
    /// When it wrote something last.
    pub(super) last_read: Instant,
    pub(super) out_of_time: bool,
    /// Its first process, as its configuration has it.
    pub(super) process: Option<Process>,
    /// Whether its processes have ids among those of others.
    pub(super) shares_pids: bool,
    /// Whether nothing happened for a while after its start.
    pub(super) settled: bool,
    /// What the runtime could not do as it was asked.
    pub(super) warnings: Vec<String>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// As a shell tells it.
    Code(i32),
    /// Nobody saw how: it was not our child.
    Unseen,
}

/// Our ends, and the container's.
struct Pipes {
    ours: [Option<OwnedFd>; 3],
    theirs: [OwnedFd; 3],
}

impl Run {
    /// Makes the container and starts it; `prepare` is called in between, when its namespaces are there.
    pub(super) fn start(
        container: &Container,
        config: &Config,
        foreground: bool,
        prepare: Option<&mut dyn FnMut(i32) -> Result<(), Error>>,
    ) -> Result<Run, Error> {
        let (spec, text) = container::read_bundle(&container.bundle())?;
        let mounted = root(&config.root, &spec)?;
        fresh_overlays(container)?;
        if let Some(runtime) = &config.runtime {
            return Run::start_foreign(runtime, container, config, foreground, prepare, spec, mounted);
        }
        let (mut ours, theirs) = match config.terminal {
            true => (None, None),
            false => {
                let Pipes { ours, theirs } = pipes(config, foreground, &spec)?;
                (Some(ours), Some(theirs))
            }
        };
        let (mine, console) = match config.terminal {
            true => {
                let (mine, theirs) = attend::console_pair()?;
                (Some(mine), Some(theirs))
            }
            false => (None, None),
        };
        let options = Options {
            root: container.runtime_root(),
            id: container.id().into(),
            bundle: container.bundle(),
            configuration: Some((spec, text)),
            switches: Switches { waits: prepare.is_some(), ..Switches::default() },
            console,
            pid_file: None,
            now: time::text(time::now()),
            owner: String::new(),
            mounted: Some(mounted),
            systemd: None,
        };
        // Left by a monitor that was killed.
        let _ = container::delete(&options.root, &options.id, true);
        let made = match theirs {
            Some([input, output, error]) => with_streams([&input, &output, &error], || container::create(options)),
            None => container::create(options).map_err(Error::from),
        };
        let Made { kept, pidfd, spec, warnings } = made?;
        let pid = kept.record.pid;
        let up = (|| {
            match prepare {
                Some(prepare) => {
                    drop(kept);
                    prepare(pid)?;
                    container::start(&container.runtime_root(), container.id())?;
                }
                None => container::poststart(&kept, &spec)?,
            }
            mine.map(|socket| attend::receive_terminal(&socket)).transpose().map_err(Error::from)
        })();
        let terminal = match up {
            Ok(terminal) => terminal,
            Err(error) => {
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                reap(&pidfd);
                let starved = container.kept().is_ok_and(|kept| kept.record.cgroups.oom_kills() > 0);
                let error = if starved { out_of_memory() } else { error };
                let _ = container::delete(&container.runtime_root(), container.id(), true);
                return Err(error);
            }
        };
        let streams = our_ends(terminal, ours.take())?;
        Ok(Run { warnings, ..Run::started(pid, pidfd, spec, streams, config, foreground) })
    }

    /// The same by another runtime.
    fn start_foreign(
        runtime: &Path,
        container: &Container,
        config: &Config,
        foreground: bool,
        prepare: Option<&mut dyn FnMut(i32) -> Result<(), Error>>,
        spec: Spec,
        mounted: ctk_runtime::Root,
    ) -> Result<Run, Error> {
        foreign::delete(runtime, container);
        let (ours, theirs) = match config.terminal {
            true => (None, None),
            false => {
                let Pipes { ours, theirs } = pipes(config, foreground, &spec)?;
                (Some(ours), Some(theirs))
            }
        };
        let made = foreign::create(runtime, container, mounted, theirs);
        let up = made.and_then(|created| {
            prepare.map_or(Ok(()), |prepare| prepare(created.pid))?;
            let mut command = foreign::command(runtime, container, &["start"]);
            command.arg(container.id());
            foreign::run(command, runtime, container).map(|_| created)
        });
        let created = up.inspect_err(|_| foreign::delete(runtime, container))?;
        let streams = our_ends(created.terminal, ours)?;
        Ok(Run::started(created.pid, created.pidfd, spec, streams, config, foreground))
    }

    /// One that has just been started, with our ends of its streams.
    fn started(
        pid: i32,
        pidfd: OwnedFd,
        spec: Spec,
        [input, out, err]: [Option<OwnedFd>; 3],
        config: &Config,
        foreground: bool,
    ) -> Run {
        let now = Instant::now();
        Run {
            pid,
            pidfd,
            started: now,
            deadline: (config.timeout_millis > 0).then(|| now + Duration::from_millis(config.timeout_millis)),
            terminal: config.terminal,
            foreground,
            input_once: false,
            input,
            unread: VecDeque::new(),
            input_ended: false,
            out,
            err,
            ended: None,
            last_read: now,
            out_of_time: false,
            shares_pids: shares_pids(&spec),
            process: spec.process,
            settled: false,
            warnings: Vec::new(),
        }
    }

    /// Takes over a container whose monitor was killed: it runs, and its streams are found again.
    pub(super) fn adopt(container: &Container) -> Result<Option<Run>, Error> {
        let kept = container.kept()?;
        let Some(pidfd) = kept.process() else { return Ok(None) };
        let (pid, spec) = (kept.record.pid, kept.config()?);
        drop(kept);
        // A pipe can be opened again by whoever may look at the process.
        let stream = |number: u32| {
            let path = format!("/proc/{pid}/fd/{number}");
            let pipe = fs::metadata(&path).is_ok_and(|m| std::os::unix::fs::FileTypeExt::is_fifo(&m.file_type()));
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            pipe.then(|| rustix::fs::open(&path, flags, Mode::empty()).ok()).flatten()
        };
        let (out, err) = (stream(1), stream(2));
        Ok(Some(Run {
            pid,
            pidfd,
            started: Instant::now(),
            deadline: None,
            terminal: false,
            foreground: false,
            input_once: false,
            input: None,
            unread: VecDeque::new(),
            input_ended: true,
            out,
            err,
            ended: None,
            last_read: Instant::now(),
            out_of_time: false,
            shares_pids: shares_pids(&spec),
            process: spec.process,
            settled: false,
            warnings: Vec::new(),
        }))
    }

    /// Where its input goes, if there is something to write.
    pub(super) fn wants_input(&self) -> Option<BorrowedFd<'_>> {
        if self.unread.is_empty() { None } else { self.input.as_ref().map(AsFd::as_fd) }
    }

    /// Whether more input may be taken from clients.
    pub(super) fn takes_input(&self) -> bool {
        self.unread.len() < INPUT_BUFFER_BYTES
    }

    /// Adds to its input.
    pub(super) fn give(&mut self, bytes: &[u8]) {
        if self.input.is_some() && !self.input_ended {
            self.unread.extend(bytes);
            self.write_input();
        }
    }

    /// Ends its input, once it has read what is there. A terminal's never ends.
    pub(super) fn end_input(&mut self) {
        if !self.terminal {
            self.input_ended = true;
            self.write_input();
        }
    }

    /// Writes what it takes of its input.
    pub(super) fn write_input(&mut self) {
        while let Some(input) = &self.input
            && !self.unread.is_empty()
        {
            match rustix::io::write(input, self.unread.as_slices().0) {
                Ok(count) => drop(self.unread.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // It does not read any more.
                Err(_) => {
                    self.unread.clear();
                    self.input = None;
                }
            }
        }
        if self.input_ended {
            self.input = None;
        }
    }

    /// The terminal's size.
    pub(super) fn resize(&self, rows: u16, columns: u16) {
        if let (true, Some(terminal)) = (self.terminal, &self.out) {
            let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = rustix::termios::tcsetwinsize(terminal, size);
        }
    }

    /// Sends a signal to its first process. No error if it has ended.
    pub(super) fn signal(&self, signal: i32) {
        let _ = ctk_sys::signal_process(self.pidfd.as_fd(), signal);
    }

    /// Takes note of its end.
    pub(super) fn see_end(&mut self) {
        if self.ended.is_none() {
            let ended = match reap(&self.pidfd) {
                Ended::Unseen => seen_of_other(self.pid, &self.pidfd),
                seen => seen,
            };
            self.ended = Some((ended, Instant::now()));
            self.input = None;
        }
    }
}

fn out_of_memory() -> Error {
    let message = "it ran out of memory before its program began: its limit is too small".into();
    Error::Refused { message, code: 137 }
}

/// Whether its processes have ids among those of others: then the first one's end is not the end of the rest.
fn shares_pids(spec: &Spec) -> bool {
    let own = |namespace: &ctk_bundle::spec::Namespace| {
        namespace.kind == "pid" && namespace.path.as_deref().unwrap_or_default().is_empty()
    };
    !spec.linux.as_ref().is_some_and(|linux| linux.namespaces.iter().any(own))
}

/// How a process ended, once it has.
pub(super) fn reap(pidfd: &OwnedFd) -> Ended {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Ended::Code(code),
                    (_, signal) => Ended::Code(128 + signal.unwrap_or(0)),
                };
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(_) => return Ended::Unseen,
        }
    }
}

/// How somebody else's child ended: the process table says it until its parent collects it, and from then on its pidfd
/// (linux 6.15).
fn seen_of_other(pid: i32, pidfd: &OwnedFd) -> Ended {
    let of_zombie = fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|text| zombie_status(&text));
    // Not collected after that, so the number was its own.
    let of_zombie = of_zombie.filter(|_| ctk_sys::signal_process(pidfd.as_fd(), 0).is_ok());
    match of_zombie.or_else(|| ctk_sys::exit_status_of_other(pidfd.as_fd())) {
        Some(status) => Ended::Code(match status & 0x7f {
            0 => status >> 8 & 0xff,
            signal => 128 + signal,
        }),
        None => Ended::Unseen,
    }
}

/// `exit_code` of `/proc/PID/stat` (proc(5), field 52) of a process that has ended.
fn zombie_status(text: &str) -> Option<i32> {
    // Behind the name, which may be anything, in parentheses.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    (fields.next()? == "Z").then_some(())?;
    fields.nth(52 - 4)?.parse().ok()
}

/// The root, mounted for this life.
fn root(root: &ctk_oci::Mount, spec: &Spec) -> Result<ctk_runtime::Root, Error> {
    let root = fresh_work(root)?;
    let mappings = spec.linux.as_ref().map(|linux| (&linux.uid_mappings, &linux.gid_mappings));
    match mappings.filter(|(uid, _)| !uid.is_empty() && !ctk_runtime::is_ordinary()) {
        None => Ok(ctk_runtime::Root::mount(&root, true)?),
        Some((uid, gid)) => {
            own_upper(&root, uid, gid)?;
            let namespace = ctk_bundle::user_namespace(uid, gid)?;
            Ok(ctk_runtime::Root::mount_mapped(&root, true, namespace.as_fd())?)
        }
    }
}

/// The top of a container's own layer belongs to whom it belongs to in the container, as the host sees him.
fn own_upper(root: &ctk_oci::Mount, uid: &[IdMapping], gid: &[IdMapping]) -> Result<(), Error> {
    let Some(upper) = root.options.iter().find_map(|option| option.strip_prefix("upperdir=")) else { return Ok(()) };
    let failed = |errno: Errno| Error::file("give away", upper)(errno);
    let stat = rustix::fs::stat(upper).map_err(failed)?;
    let is_outside = |id: u32, list: &[IdMapping]| list.iter().any(|m| id >= m.host_id && id - m.host_id < m.size);
    if is_outside(stat.st_uid, uid) && is_outside(stat.st_gid, gid) {
        return Ok(());
    }
    let (owner, group) = (Uid::from_raw(outside(stat.st_uid, uid)), Gid::from_raw(outside(stat.st_gid, gid)));
    rustix::fs::chown(upper, Some(owner), Some(group)).map_err(failed)
}

/// An id of the container as the host sees it.
fn outside(id: u32, list: &[IdMapping]) -> u32 {
    let inside = |m: &&IdMapping| id >= m.container_id && id - m.container_id < m.size;
    list.iter().find(inside).map_or(id, |m| m.host_id + (id - m.container_id))
}

/// An overlay wants an empty work directory that is new.
fn fresh_work(root: &ctk_oci::Mount) -> Result<ctk_oci::Mount, Error> {
    let mut root = root.clone();
    for option in &mut root.options {
        if let Some(work) = option.strip_prefix("workdir=") {
            let path = Path::new(work);
            // Whatever a mount before left there: the kernel's own, which nobody needs after it.
            match fs::remove_dir_all(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", path)(error));
                }
                _ => {}
            }
            fs::create_dir(path).map_err(Error::file("make", path))?;
        }
    }
    Ok(root)
}

/// The same for overlays over something else than the root; some begin empty each time.
fn fresh_overlays(container: &Container) -> Result<(), Error> {
    for number in 0.. {
        let overlay = container.overlay(number);
        if !overlay.exists() {
            break;
        }
        let again = |path: &Path| match fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
            _ => Ok(()),
        };
        let work = overlay.join("work");
        again(&work)?;
        fs::create_dir(&work).map_err(Error::file("make", &work))?;
        if overlay.join("discard").exists() {
            // The directory itself has the owner and the mode of what it covers.
            let written = overlay.join("fs");
            for entry in fs::read_dir(&written).map_err(Error::file("list", &written))?.flatten() {
                let path = entry.path();
                match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    true => again(&path)?,
                    false => fs::remove_file(&path).map_err(Error::file("remove", &path))?,
                }
            }
        }
    }
    Ok(())
}

/// Our ends of a container's streams: both directions of its terminal, or its pipes.
fn our_ends(terminal: Option<OwnedFd>, pipes: Option<[Option<OwnedFd>; 3]>) -> Result<[Option<OwnedFd>; 3], Error> {
    match terminal {
        Some(terminal) => {
            unblock(&terminal)?;
            let copy = terminal.try_clone().map_err(Error::file("copy", "the terminal"))?;
            Ok([Some(copy), Some(terminal), None])
        }
        None => Ok(pipes.unwrap_or_default()),
    }
}

fn pipes(config: &Config, foreground: bool, spec: &Spec) -> Result<Pipes, Error> {
    let failed = |errno: Errno| Error::file("make", "a pipe")(errno);
    let owner = owner(spec);
    let null = || ctk_bundle::container::null_file().map_err(Error::from);
    let (our_input, input) = match config.interactive {
        false => (None, null()?),
        true => {
            let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
            unblock(&write)?;
            give_to(&read, owner);
            (Some(write), read)
        }
    };
    let output = || -> Result<(OwnedFd, OwnedFd), Error> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
        unblock(&read)?;
        give_to(&write, owner);
        if foreground {
            return Ok((read, write));
        }
        // Open for reading, too: should we be killed, the container's writes wait for our successor, instead of killing
        // it because nobody reads.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&write));
        let both = rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap_or(write);
        Ok((read, both))
    };
    let ((our_out, out), (our_err, err)) = (output()?, output()?);
    Ok(Pipes { ours: [our_input, Some(our_out), Some(our_err)], theirs: [input, out, err] })
}

/// The container's user, as this side sees it: who may open `/dev/stdout` again.
fn owner(spec: &Spec) -> (u32, u32) {
    let user = spec.process.as_ref().map(|process| (process.user.uid, process.user.gid)).unwrap_or_default();
    let Some(linux) = &spec.linux else { return user };
    (outside(user.0, &linux.uid_mappings), outside(user.1, &linux.gid_mappings))
}

fn give_to(pipe: &OwnedFd, (uid, gid): (u32, u32)) {
    // An ordinary user owns what he needs to own already.
    let _ = rustix::fs::fchown(pipe, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
}

fn unblock(file: &OwnedFd) -> Result<(), Error> {
    let failed = |errno: Errno| Error::file("set up", "a stream")(errno);
    let flags = rustix::fs::fcntl_getfl(file).map_err(failed)?;
    rustix::fs::fcntl_setfl(file, flags | OFlags::NONBLOCK).map_err(failed)
}

/// A child inherits our standard streams: for as long as it takes, they are the container's.
pub(super) fn with_streams<T>(
    streams: [&OwnedFd; 3],
    make: impl FnOnce() -> Result<T, ctk_bundle::Error>,
) -> Result<T, Error> {
    let failed = |errno: Errno| Error::file("set up", "standard streams")(errno);
    let [input, output, error] = streams;
    rustix::stdio::dup2_stdin(input).map_err(failed)?;
    rustix::stdio::dup2_stdout(output).map_err(failed)?;
    rustix::stdio::dup2_stderr(error).map_err(failed)?;
    let made = make();
    let null = ctk_bundle::container::null_file()?;
    rustix::stdio::dup2_stdin(&null).map_err(failed)?;
    rustix::stdio::dup2_stdout(&null).map_err(failed)?;
    rustix::stdio::dup2_stderr(&null).map_err(failed)?;
    Ok(made?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_table_tells_how_a_process_ended() {
        let stat = |state, code| format!("7 (a) b) {state} 1 2 {}{code}\n", "0 ".repeat(52 - 6));
        let (fine, running) = (stat("Z", "2304"), stat("S", "0"));
        assert_eq!((zombie_status(&fine), zombie_status(&running), zombie_status("")), (Some(2304), None, None));
    }

    #[test]
    fn a_process_of_somebody_else_is_seen_to_end() {
        // The shell's child, which it does not collect: `exec` makes it one that never waits.
        let script = "sh -c 'sleep 0.2; exit 9' & echo $!; exec sleep 1";
        let mut shell = std::process::Command::new("sh");
        let mut shell = shell.args(["-c", script]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(shell.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        let pid: i32 = line.trim().parse().unwrap();
        let other = rustix::process::Pid::from_raw(pid).unwrap();
        let pidfd = rustix::process::pidfd_open(other, rustix::process::PidfdFlags::empty()).unwrap();
        let mut files = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut files, None).unwrap();
        assert_eq!((reap(&pidfd), seen_of_other(pid, &pidfd)), (Ended::Unseen, Ended::Code(9)));
        shell.wait().unwrap();
        // Collected by now, or soon: the kernel tells it still, if it can; nobody is told what is not so.
        assert!(matches!(seen_of_other(pid, &pidfd), Ended::Code(9) | Ended::Unseen));
    }
}
