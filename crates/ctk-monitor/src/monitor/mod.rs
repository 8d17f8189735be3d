//! What a monitor does: one loop over everything that can happen to a container.
//!
//! ```text
//! run.rs       one life of the container: process, streams, end
//! clients.rs   those who talk to us
//! ending.rs    what comes after its end
//! health.rs    checks
//! ```
//! It waits in one `poll`: for the process (a pidfd), its streams, clients, signals, and the next thing that is due. It
//! never waits for anything else, but for what it starts itself and for the disk.

mod clients;
mod ending;
mod health;
mod run;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with};

use self::clients::{Client, Waits};
use self::health::Checks;
use self::run::{Ended, Run};
use crate::config::{Config, OnFailure};
use crate::containers::{Container, Containers, Locked};
use crate::limits::{CHUNK_BYTES, CLIENTS, DRAIN, KILL_WAIT, RESTART_PAUSE, RESTART_SETTLED, SETTLED};
use crate::log::{Stream, Writer};
use crate::protocol::{Answer, CLOSED, ERR, IN, IN_END, OUT, REQUEST, Request, SIGNAL, SIZE, Streams, Until};
use crate::state::{HealthState, HealthStatus, State, Status};
use crate::{Error, time};

/// What sets up a container's networks, where it has any. Called while its process exists and its program does not run
/// yet.
pub trait Networking {
    /// Joins the namespace of process `pid`; gives what is written into the state.
    fn attach(&mut self, container: &Container, config: &Config, pid: i32) -> Result<serde_json::Value, String>;
    /// Goes on for a container that runs already, whose monitor was killed.
    fn resume(&mut self, container: &Container, config: &Config, pid: i32) -> Result<serde_json::Value, String>;
    /// Undoes that, before it is attached again or after it could not be; safe to repeat. Somebody else may have started
    /// the container again meanwhile.
    fn detach(&mut self, container: &Container, config: &Config);
    /// Joins another network, or leaves one, while the program runs.
    fn change(
        &mut self,
        container: &Container,
        config: &Config,
        pid: i32,
        what: &serde_json::Value,
    ) -> Result<serde_json::Value, String>;
    /// The end for good: when it returns, its names, addresses and ports are others' to take. Nobody else starts the
    /// container or removes it meanwhile; its directory may go after this.
    fn let_go(&mut self, container: &Container, config: &Config);
    /// What comes after that and takes its time. Nobody waits for it.
    fn clean_up(&mut self);
}

struct Monitor<'a> {
    containers: Containers,
    locked: Option<Locked>,
    container: Container,
    config: Config,
    state: State,
    log: Writer,
    clients: Vec<Client>,
    run: Option<Run>,
    checks: Option<Checks>,
    stopping: Option<Stopping>,
    /// When it is started again.
    next: Option<Instant>,
    /// Whether who made this process has not said yet that the container is to be started.
    awaited: bool,
    pause: Duration,
    networking: &'a mut dyn Networking,
    buffer: Vec<u8>,
}

/// A container that was asked to end.
#[derive(Clone, Copy)]
struct Stopping {
    /// When it is killed.
    deadline: Instant,
    killed: bool,
    /// Whether it is started again then.
    again: bool,
}

/// Looks after the container in `directory` until it has ended for good. `channel` is the socket to who started us; none
/// to take over a container that runs already. Gives the exit code of the process.
pub fn monitor(directory: &Path, channel: Option<OwnedFd>, networking: &mut dyn Networking) -> u8 {
    let adopts = channel.is_none();
    let mut starter = channel.map(Client::new);
    let refuse = |starter: &mut Option<Client>, error: &Error| {
        if let Some(client) = starter {
            client.refuse(error.line(), 125);
            clients::finish(std::slice::from_mut(client));
        }
        1
    };
    let begun = (|| {
        // Whoever owned our terminal may go.
        let _ = rustix::process::setsid();
        let _ = rustix::process::chdir("/");
        let container = Container::of(directory);
        let locked = container.lock_within(Duration::from_secs(5))?.ok_or_else(|| Error::Status {
            attempt: "start",
            name: container.config().map_or_else(|_| container.id().into(), |config| config.name),
            status: "running, or being removed",
        })?;
        let config = container.config()?;
        let state = container.written_state()?;
        let listener = listen_at(directory)?;
        let signals = ctk_bundle::attend::hold_signals()?;
        Ok((container, locked, config, state, listener, signals))
    })();
    let (container, locked, config, state, listener, signals) = match begun {
        Ok(begun) => begun,
        Err(error) => return refuse(&mut starter, &error),
    };
    let containers = Containers::new(directory.parent().unwrap_or(directory));
    let log = Writer::open(&container.log(), config.log);
    let mut monitor = Monitor {
        containers,
        locked: Some(locked),
        container,
        config,
        state,
        log,
        clients: starter.into_iter().collect(),
        run: None,
        checks: None,
        stopping: None,
        next: None,
        awaited: !adopts,
        pause: RESTART_PAUSE,
        networking,
        buffer: vec![0; CHUNK_BYTES],
    };
    monitor.state.monitor = std::process::id() as i32;
    if adopts {
        monitor.adopt();
    }
    if let Err(error) = monitor.look_after(&listener, &signals) {
        monitor.state.error = error.line();
        monitor.end();
    }
    0
}

/// The socket at which clients come. Its path may be longer than addresses of sockets are.
fn listen_at(directory: &Path) -> Result<OwnedFd, Error> {
    let path = directory.join("control");
    let failed = |errno: Errno| Error::file("listen at", &path)(errno);
    let _ = std::fs::remove_file(&path);
    let held = open_directory(directory)?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/control", std::os::fd::AsRawFd::as_raw_fd(&held)))
        .map_err(failed)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
    bind(&socket, &address).map_err(failed)?;
    listen(&socket, 128).map_err(failed)?;
    Ok(socket)
}

pub(crate) fn open_directory(directory: &Path) -> Result<OwnedFd, Error> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::empty()).map_err(Error::file("open", directory))
}

/// Who may be ready.
#[derive(Clone, Copy)]
enum Source {
    Listener,
    Signals,
    Process,
    Out,
    Err,
    Input,
    Check,
    CheckOutput,
    Client(usize),
}

impl Monitor<'_> {
    fn look_after(&mut self, listener: &OwnedFd, signals: &OwnedFd) -> Result<(), Error> {
        loop {
            let now = Instant::now();
            let due = self.act(now)?;
            if self.is_over() {
                self.end();
                return Ok(());
            }
            let ready = self.wait(listener, signals, due)?;
            for (source, events) in ready {
                self.handle(source, events, listener, signals)?;
            }
            self.clients.retain(|client| !client.gone);
        }
    }

    /// Whether nothing can happen any more: it does not run and will not, and nobody is there who wanted that.
    fn is_over(&self) -> bool {
        let awaited = self.awaited && !self.clients.is_empty();
        self.run.is_none() && self.next.is_none() && !awaited
    }

    fn wait(
        &mut self,
        listener: &OwnedFd,
        signals: &OwnedFd,
        due: Option<Instant>,
    ) -> Result<Vec<(Source, PollFlags)>, Error> {
        let mut sources = vec![Source::Signals];
        let mut files = vec![PollFd::new(signals, PollFlags::IN)];
        if self.clients.len() < CLIENTS {
            sources.push(Source::Listener);
            files.push(PollFd::new(listener, PollFlags::IN));
        }
        let full = self.is_waiting_for_clients();
        if let Some(run) = &self.run {
            if run.ended.is_none() {
                sources.push(Source::Process);
                files.push(PollFd::new(&run.pidfd, PollFlags::IN));
            }
            for (source, stream) in [(Source::Out, &run.out), (Source::Err, &run.err)] {
                if let Some(stream) = stream.as_ref().filter(|_| !full) {
                    sources.push(source);
                    files.push(PollFd::new(stream, PollFlags::IN));
                }
            }
            if let Some(input) = run.wants_input() {
                sources.push(Source::Input);
                files.push(PollFd::from_borrowed_fd(input, PollFlags::OUT));
            }
        }
        if let Some((process, output)) = self.checks.as_ref().and_then(Checks::files) {
            sources.extend([Source::Check, Source::CheckOutput]);
            files.push(PollFd::new(process, PollFlags::IN));
            files.push(PollFd::new(output, PollFlags::IN));
        }
        let takes = self.run.as_ref().is_none_or(Run::takes_input);
        for (index, client) in self.clients.iter().enumerate() {
            let mut wanted = PollFlags::empty();
            if takes || !client.attached.is_some_and(|streams| streams.input) {
                wanted |= PollFlags::IN;
            }
            if client.has_unsent() {
                wanted |= PollFlags::OUT;
            }
            sources.push(Source::Client(index));
            files.push(PollFd::from_borrowed_fd(client.socket(), wanted));
        }
        let is_new = self.run.as_ref().is_some_and(|run| !run.settled);
        let settles = is_new.then(|| Instant::now() + SETTLED);
        let due = due.into_iter().chain(settles).min();
        let limit = due.map(|due| {
            let rest = due.saturating_duration_since(Instant::now());
            Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() }
        });
        match poll(&mut files, limit.as_ref()) {
            Ok(0) if is_new => {
                if let Some(run) = &mut self.run {
                    run.settled = true;
                }
                // From now on it sleeps most of the time.
                ctk_sys::give_memory_back();
                return Ok(Vec::new());
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::file("wait for", "events")(errno)),
        }
        let events = files.iter().map(PollFd::revents);
        Ok(sources.into_iter().zip(events).filter(|(_, events)| !events.is_empty()).collect())
    }

    fn handle(
        &mut self,
        source: Source,
        events: PollFlags,
        listener: &OwnedFd,
        signals: &OwnedFd,
    ) -> Result<(), Error> {
        match source {
            Source::Listener => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                if let Ok(socket) = accept_with(listener, flags) {
                    self.clients.push(Client::new(socket));
                }
            }
            Source::Signals => self.hear(signals),
            Source::Process => {
                if let Some(run) = &mut self.run {
                    run.see_end();
                }
                // With the ids of others, the end of the first process is not that of the rest.
                if self.run.as_ref().is_some_and(|run| run.shares_pids) {
                    self.kill_the_rest();
                }
                // What it wrote before its end is in its pipes already.
                self.read_stream(Stream::Out);
                self.read_stream(Stream::Err);
            }
            Source::Out => self.read_stream(Stream::Out),
            Source::Err => self.read_stream(Stream::Err),
            Source::Input => {
                if let Some(run) = &mut self.run {
                    run.write_input();
                }
            }
            Source::CheckOutput => {
                if let Some(checks) = &mut self.checks {
                    checks.read_output();
                }
            }
            Source::Check => {
                let (Some(checks), Some(run), Some(health)) = (&mut self.checks, &self.run, &self.config.health) else {
                    return Ok(());
                };
                if let Some(checked) = checks.end(run, health) {
                    self.checked(checked)?;
                }
            }
            Source::Client(index) => {
                let mut frames = Vec::new();
                if let Some(client) = self.clients.get_mut(index) {
                    if events.contains(PollFlags::OUT) {
                        client.flush();
                    }
                    if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                        client.read(&mut self.buffer, &mut frames);
                    }
                }
                for (kind, bytes) in frames {
                    self.frame(index, kind, &bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Whether so much is unread by a client that the container has to wait.
    fn is_waiting_for_clients(&self) -> bool {
        self.clients.iter().any(|client| client.attached.is_some() && client.is_full())
    }

    /// Passes on what the container wrote: to its log, and to who is attached.
    fn read_stream(&mut self, stream: Stream) {
        let Some(run) = &mut self.run else { return };
        let file = match stream {
            Stream::Out => &mut run.out,
            Stream::Err => &mut run.err,
        };
        let Some(open) = file else { return };
        match rustix::io::read(&*open, &mut self.buffer) {
            Ok(0) => *file = None,
            Ok(count) => {
                run.last_read = Instant::now();
                let bytes = self.buffer.get(..count).unwrap_or_default();
                self.log.add(stream, bytes);
                let kind = if stream == Stream::Out { OUT } else { ERR };
                for client in &mut self.clients {
                    let wants = |s: Streams| if stream == Stream::Out { s.output } else { s.error };
                    if client.attached.is_some_and(wants) {
                        client.send(kind, bytes);
                    }
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A terminal whose other end is closed.
            Err(_) => *file = None,
        }
    }

    /// Does what is due, and says when the next thing is.
    fn act(&mut self, now: Instant) -> Result<Option<Instant>, Error> {
        if self.next.is_some_and(|next| now >= next) {
            self.next = None;
            self.state.restarts += 1;
            if let Err(error) = self.start(false) {
                self.state.error = error.line();
                self.ended(125, false, false, true)?;
            }
        }
        // Whoever reads slowly gets everything, however long it takes him.
        let waits = self.is_waiting_for_clients();
        let mut due = self.next;
        let mut sooner = |at: Instant| due = Some(due.map_or(at, |due| due.min(at)));
        if let Some(run) = &mut self.run {
            if let Some((ended, when)) = run.ended {
                let drained = run.out.is_none() && run.err.is_none();
                let silent = when.max(run.last_read) + DRAIN;
                if drained || !waits && now >= silent {
                    let out_of_time = run.out_of_time;
                    let ran = when.duration_since(run.started);
                    self.pause = if ran >= RESTART_SETTLED { RESTART_PAUSE } else { self.pause };
                    let (code, seen) = match ended {
                        Ended::Code(code) => (code, true),
                        Ended::Unseen => (-1, false),
                    };
                    if !seen {
                        self.state.error = "its monitor was killed; how it ended was not seen".into();
                    }
                    self.ended(code, out_of_time, true, code != 0)?;
                    return self.act(now);
                }
                if !waits {
                    sooner(silent);
                }
            } else if let Some(deadline) = run.deadline {
                if now >= deadline {
                    run.out_of_time = true;
                    run.deadline = None;
                    run.signal(libc::SIGKILL);
                } else {
                    sooner(deadline);
                }
            }
        }
        if let (Some(stopping), Some(run)) = (&mut self.stopping, &self.run) {
            match (stopping.killed, now >= stopping.deadline) {
                (false, true) => {
                    stopping.killed = true;
                    stopping.deadline = now + KILL_WAIT;
                    run.signal(libc::SIGKILL);
                    self.kill_the_rest();
                    sooner(now + KILL_WAIT);
                }
                (_, false) => sooner(stopping.deadline),
                (true, true) => {}
            }
        }
        if let (Some(checks), Some(run), Some(health)) = (&mut self.checks, &self.run, &self.config.health)
            && run.ended.is_none()
        {
            let checked = checks.act(&self.container, run, health);
            sooner(checks.due());
            if let Some(checked) = checked {
                self.checked(checked)?;
            }
        }
        Ok(due)
    }

    /// Thaws and kills all of its processes: a frozen one hears nothing.
    fn kill_the_rest(&self) {
        if let Ok(kept) = self.container.kept() {
            if kept.record.cgroups.is_frozen() {
                let _ = kept.record.cgroups.freeze(false);
            }
            kept.record.cgroups.signal(libc::SIGKILL);
        }
    }

    /// Starts it. In the `foreground`, somebody sits at its streams and they are his: when he closes them, they are closed.
    fn start(&mut self, foreground: bool) -> Result<(), Error> {
        let joins = matches!(self.config.network, crate::config::Network::Joined(_));
        let (container, config, networking) = (&self.container, &self.config, &mut *self.networking);
        let mut network = serde_json::Value::Null;
        let mut prepare = |pid: i32| {
            let attached = networking.attach(container, config, pid);
            network = attached.map_err(|message| Error::Refused { message, code: 125 })?;
            Ok(())
        };
        let prepare = joins.then_some(&mut prepare as &mut dyn FnMut(i32) -> Result<(), Error>);
        let run = match Run::start(container, config, foreground, prepare) {
            Ok(run) => run,
            Err(error) => {
                if joins {
                    self.networking.detach(&self.container, &self.config);
                }
                return Err(error);
            }
        };
        self.state.status = Status::Running;
        self.state.pid = run.pid;
        self.state.started = time::now();
        self.state.error.clear();
        self.state.oom_killed = false;
        self.state.stopped = false;
        self.state.network = network;
        self.state.health = self.config.health.as_ref().map(|_| HealthState::default());
        self.checks = self.config.health.as_ref().map(Checks::new);
        if let Some(path) = &self.config.pid_file {
            ctk_bundle::container::write_pid(path, run.pid)?;
        }
        self.run = Some(run);
        self.tell("start", &[]);
        let answer = Answer { pid: self.state.pid, ..Answer::default() };
        self.clients.iter_mut().filter(|client| client.waits == Waits::Again).for_each(|client| client.answer(&answer));
        self.container.write_state(&self.state)
    }

    fn tell(&self, what: &str, more: &[(&str, String)]) {
        crate::events::tell(self.containers.root(), &self.config, what, more);
    }

    fn adopt(&mut self) {
        match Run::adopt(&self.container) {
            Ok(Some(run)) => {
                self.state.pid = run.pid;
                self.state.status = Status::Running;
                self.checks = self.config.health.as_ref().map(Checks::new);
                if matches!(self.config.network, crate::config::Network::Joined(_)) {
                    match self.networking.resume(&self.container, &self.config, run.pid) {
                        Ok(network) => self.state.network = network,
                        Err(message) => self.state.error = message,
                    }
                }
                self.run = Some(run);
                let _ = self.container.write_state(&self.state);
            }
            Ok(None) | Err(_) => {
                self.state.error = "its monitor was killed; how it ended was not seen".into();
                self.state.exit_code = -1;
                self.state.status = Status::Exited;
            }
        }
    }

    fn hear(&mut self, signals: &OwnedFd) {
        let mut record = [0_u8; 128];
        while let Ok(128) = rustix::io::read(signals, &mut record) {
            let number = record.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes) as i32);
            // The machine goes down, or somebody wants us gone: so does the container, in good order.
            if number == libc::SIGTERM && self.stopping.is_none() {
                self.stop(None, None, false);
            }
        }
    }

    fn stop(&mut self, signal: Option<i32>, seconds: Option<u64>, again: bool) {
        let seconds = seconds.unwrap_or(self.config.stop_seconds);
        self.stopping =
            Some(Stopping { deadline: Instant::now() + Duration::from_secs(seconds), killed: false, again });
        self.state.stopped = !again;
        self.tell(if again { "restart" } else { "stop" }, &[]);
        match &self.run {
            Some(run) => {
                run.signal(signal.unwrap_or(self.config.stop_signal));
                if self.state.status == Status::Running {
                    self.state.status = Status::Stopping;
                    let _ = self.container.write_state(&self.state);
                }
                // A frozen one would hear it when it is too late.
                if let Ok(kept) = self.container.kept()
                    && kept.record.cgroups.is_frozen()
                {
                    let _ = kept.record.cgroups.freeze(false);
                }
            }
            None => {
                self.stopping = None;
                if again {
                    self.next = Some(Instant::now());
                } else {
                    self.next = None;
                    self.state.status = Status::Exited;
                }
            }
        }
    }

    fn frame(&mut self, index: usize, kind: u8, bytes: &[u8]) -> Result<(), Error> {
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        let attached = client.attached.unwrap_or_default();
        match kind {
            REQUEST => match serde_json::from_slice(bytes) {
                Ok(request) => return self.request(index, request),
                Err(error) => client.refuse(format!("a request that cannot be understood: {error}"), 125),
            },
            IN if attached.input => {
                if let Some(run) = &mut self.run {
                    run.give(bytes);
                }
            }
            IN_END if attached.input => {
                if let Some(run) = self.run.as_mut().filter(|run| run.input_once) {
                    run.end_input();
                }
            }
            CLOSED => {
                if let Some(run) = self.run.as_mut().filter(|run| run.foreground) {
                    let stream = if bytes == [ERR] { &mut run.err } else { &mut run.out };
                    *stream = None;
                }
            }
            SIZE => {
                if let (Some(run), [r0, r1, c0, c1]) = (&self.run, bytes) {
                    run.resize(u16::from_le_bytes([*r0, *r1]), u16::from_le_bytes([*c0, *c1]));
                }
            }
            SIGNAL => {
                if let (Some(run), Some(number)) = (&self.run, bytes.first_chunk::<4>()) {
                    run.signal(i32::from_le_bytes(*number));
                }
            }
            _ => client.gone = true,
        }
        Ok(())
    }

    fn request(&mut self, index: usize, request: Request) -> Result<(), Error> {
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        let pid = self.run.as_ref().map_or(0, |run| run.pid);
        match request {
            Request::Start { .. } if self.run.is_some() => client.refuse("it runs already", 125),
            Request::Start { attach } => {
                client.attached = attach;
                client.waits = Waits::Start;
                self.awaited = false;
                self.state.restarts = 0;
                match self.start(attach.is_some()) {
                    Ok(()) => {
                        let mut answer = Answer { pid: self.state.pid, ..Answer::default() };
                        if let Some(run) = &mut self.run {
                            answer.text = run.warnings.join("\n");
                            run.input_once = attach.is_some_and(|streams| streams.input);
                            if let Some((rows, columns)) = attach.and_then(|streams| streams.size) {
                                run.resize(rows, columns);
                            }
                        }
                        if let Some(client) = self.clients.get_mut(index) {
                            client.answer(&answer);
                        }
                    }
                    Err(error) => {
                        self.state.error = error.line();
                        self.state.exit_code = i32::from(refusal_code(&error));
                        self.state.status = Status::Exited;
                        if let Some(client) = self.clients.get_mut(index) {
                            client.attached = None;
                            client.refuse(error.line(), refusal_code(&error));
                        }
                    }
                }
            }
            Request::Attach(streams) => {
                client.attached = Some(streams);
                client.answer(&Answer { pid, ..Answer::default() });
                if let (Some(run), Some((rows, columns))) = (&self.run, streams.size) {
                    run.resize(rows, columns);
                }
            }
            Request::Stop { signal, seconds, again } => {
                client.waits = if again { Waits::Again } else { Waits::Stop };
                self.stop(signal, seconds, again);
            }
            Request::Kill { signal } => match &self.run {
                Some(run) => {
                    if signal == libc::SIGKILL || signal == self.config.stop_signal {
                        self.state.stopped = true;
                    }
                    run.signal(signal);
                    client.answer(&Answer { pid, ..Answer::default() });
                    self.tell("kill", &[("signal", signal.to_string())]);
                    if signal == libc::SIGKILL {
                        self.kill_the_rest();
                    }
                }
                None => client.refuse("it does not run", 125),
            },
            Request::Wait { until } => {
                let healthy = self.state.health.as_ref().is_some_and(|h| h.status == HealthStatus::Healthy);
                match until {
                    Until::Healthy if self.config.health.is_none() => client.refuse("it has no health check", 125),
                    Until::Healthy if healthy => client.answer(&Answer { pid, ..Answer::default() }),
                    until => client.waits = Waits::Until(until),
                }
            }
            Request::Check => match &mut self.checks {
                Some(checks) => {
                    client.waits = Waits::Check;
                    checks.hurry();
                }
                None => client.refuse("it has no health check", 125),
            },
            Request::Reload => match self.container.config() {
                Ok(config) => {
                    self.config = config;
                    client.answer(&Answer { pid, ..Answer::default() });
                }
                Err(error) => client.refuse(error.line(), 125),
            },
            Request::Network(what) => {
                match self.networking.change(&self.container, &self.config, pid, &what) {
                    Ok(network) => {
                        self.state.network = network;
                        client.answer(&Answer { pid, ..Answer::default() });
                    }
                    Err(message) => client.refuse(message, 125),
                }
                self.container.write_state(&self.state)?;
            }
        }
        Ok(())
    }

    /// Takes note of a check.
    fn checked(&mut self, checked: crate::state::Checked) -> Result<(), Error> {
        let (Some(health), Some(run)) = (&self.config.health, &self.run) else { return Ok(()) };
        let settled = run.started.elapsed() >= Duration::from_millis(health.start_millis);
        let (retries, on_failure) = (health.retries, health.on_failure);
        let answer = Answer { pid: run.pid, code: checked.exit_code, text: checked.output.clone() };
        let before = self.state.health.as_ref().map(|health| health.status);
        let state = self.state.health.get_or_insert_default();
        let became_unhealthy = health::judge(state, checked, retries, settled);
        let healthy = state.status == HealthStatus::Healthy;
        for client in &mut self.clients {
            match client.waits {
                Waits::Check => client.answer(&answer),
                Waits::Until(Until::Healthy) if healthy => client.answer(&answer),
                _ => {}
            }
        }
        let health = state.status;
        self.container.write_state(&self.state)?;
        if before != Some(health) {
            self.tell("health_status", &[("health", health.word().to_owned())]);
        }
        if became_unhealthy {
            match on_failure {
                OnFailure::None => {}
                OnFailure::Kill => run_signal(&self.run, libc::SIGKILL),
                OnFailure::Stop => self.stop(None, None, false),
                OnFailure::Restart => self.stop(None, None, true),
            }
        }
        Ok(())
    }
}

fn run_signal(run: &Option<Run>, signal: i32) {
    if let Some(run) = run {
        run.signal(signal);
    }
}

/// What a container that ran longer than it may gives back, as `timeout(1)` does.
const OUT_OF_TIME: i32 = 124;

/// 127 for a program that is not there, 126 for one that cannot be executed, else 125, as docker has it.
fn refusal_code(error: &Error) -> u8 {
    match error {
        Error::Bundle(ctk_bundle::Error::Step { field, source, .. }) if field == "process.args" => {
            if source.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }
        }
        Error::Refused { code, .. } => *code,
        _ => 125,
    }
}
