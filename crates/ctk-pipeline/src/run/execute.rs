//! The run itself: what may start is started, what ended is written down, and in the end images and artifacts go out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ctk_container::LineSink;
use ctk_plan::{Cancel, Stream};
use ctk_snapshot::Snapshots;
use ctk_store::{Fetch, Lock, Store};

use super::course::{Course, Move};
use super::event::{Ending, Event, Watch};
use super::images::{Images, names};
use super::job::{Job, Task, TaskWork};
use super::limits::{GRACE, OUTPUT_BYTES, PAUSE_MAX, STEPS_AT_ONCE};
use super::native::{self, Order, Program};
use super::places::LOGINS;
use super::record::{Journal, Log, Record, StepState};
use super::secrets::{Pieces, Redactor};
use super::stop::{Reason, Stops};
use super::{RunError, artifacts, cache, container, storage};

/// How often the run looks whether the user has had enough.
const POLL: Duration = Duration::from_millis(50);

/// How a run is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Steps that run at once, at most.
    pub at_once: usize,
    /// Between the signal that asks a step to end and the one that ends it.
    pub grace: Duration,
    /// Whether steps may do to the machine what they like, as in Cloud Build.
    pub privileged: bool,
    /// Whether images and artifacts go out at the end.
    pub push: bool,
    /// Where buckets and repositories are here.
    pub mapping: storage::Mapping,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            at_once: STEPS_AT_ONCE,
            grace: GRACE,
            privileged: false,
            push: true,
            mapping: storage::Mapping::default(),
        }
    }
}

/// Everything that a run is made of.
pub struct Request<'a> {
    /// What is run.
    pub job: &'a Job,
    /// Its record.
    pub journal: &'a Journal,
    /// What the record said before; none: it is new.
    pub earlier: Option<&'a Record>,
    /// How.
    pub settings: &'a Settings,
    /// Where images are.
    pub store: &'a Store,
    /// Where they are unpacked.
    pub snapshots: &'a Snapshots,
    /// Brings those that are not there.
    pub fetch: &'a dyn Fetch,
    /// Where running containers are written down.
    pub state: &'a Path,
    /// Our own binary.
    pub program: &'a Program,
    /// Values of the secrets, by variable.
    pub secrets: &'a BTreeMap<String, String>,
    /// Hears of everything.
    pub watch: Arc<dyn Watch>,
    /// Stops it.
    pub cancel: &'a Cancel,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// In a word.
    pub ending: Ending,
    /// What failed, the first first: the step, if it was one, and why.
    pub failures: Vec<(Option<usize>, String)>,
}

/// How a try of a step ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended {
    /// Of its process.
    pub code: Option<i32>,
    /// Why it is not good.
    pub message: Option<String>,
    /// Whether it took too long.
    pub late: bool,
}

impl Ended {
    pub fn with_code(code: i32) -> Ended {
        Ended { code: Some(code), message: (code != 0).then(|| format!("exit code {code}")), late: false }
    }

    pub fn failed(code: i32, message: String) -> Ended {
        Ended { code: Some(code), message: Some(message), late: false }
    }

    /// It had no process.
    pub fn broken(message: String) -> Ended {
        Ended { code: None, message: Some(message), late: false }
    }

    pub fn late(message: String) -> Ended {
        Ended { code: None, message: Some(message), late: true }
    }

    pub fn is_good(&self) -> bool {
        self.message.is_none()
    }
}

/// A run that is going on.
pub(crate) struct Run<'a> {
    pub request: &'a Request<'a>,
    pub images: Images<'a>,
    pub stops: Stops,
    teller: Arc<Teller>,
    logs: Mutex<BTreeMap<usize, Arc<Log>>>,
    hosts: Mutex<Vec<(String, IpAddr)>>,
    started: Mutex<bool>,
}

/// Tells what happens, without secrets.
struct Teller {
    watch: Arc<dyn Watch>,
    redactor: Redactor,
    /// Of steps in the middle of a long line, by the step and whether it is on standard error.
    pieces: Mutex<BTreeMap<(usize, bool), Pieces>>,
}

impl Teller {
    fn line(&self, log: &Log, step: usize, stream: Stream, line: &str) {
        // A line that is longer comes in pieces.
        let goes_on = line.len() >= ctk_container::limits::LINE_BYTES;
        let mut pieces = lock(&self.pieces);
        let key = (step, stream == Stream::Err);
        let line = match pieces.get_mut(&key) {
            Some(own) => own.next(&self.redactor, line, goes_on),
            None if goes_on => pieces.entry(key).or_default().next(&self.redactor, line, true),
            None => self.redactor.clean(line),
        };
        if !goes_on {
            pieces.remove(&key);
        }
        drop(pieces);
        log.add(stream, &line);
        self.watch.hear(&Event::StepLog { step, stream, line: line.into_owned() });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs it. The error is that it could not be made; how it ended is in the outcome and in the record.
pub fn run(request: &Request<'_>) -> Result<Outcome, RunError> {
    ctk_container::cleanup_stale(request.state).map_err(RunError::Cleanup)?;
    let pulls = Cancel::new();
    let run = Run {
        request,
        images: Images::new(request.store, request.snapshots, request.fetch, &pulls),
        stops: Stops::new(request.settings.grace),
        teller: Arc::new(Teller {
            watch: Arc::clone(&request.watch),
            redactor: Redactor::new(request.secrets.values()),
            pieces: Mutex::default(),
        }),
        logs: Mutex::default(),
        hosts: Mutex::default(),
        started: Mutex::default(),
    };
    let began = Instant::now();
    let header = &request.journal.header;
    run.tell(Event::RunStarted {
        run: header.id.clone(),
        name: header.name.clone(),
        steps: request.job.tasks.len(),
        resumed: request.earlier.is_some(),
    });
    let deadline = request.job.timeout.map(|timeout| began + timeout);
    let mut failures = run.steps(deadline)?;
    if *lock(&run.started) {
        run.remove_containers();
    }
    let stopped = run.stops.reason();
    if failures.is_empty() && stopped.is_none() && request.settings.push {
        failures.extend(run.deliver().err().map(|message| (None, message)));
    }
    let ending = match stopped {
        Some(Reason::Cancel) => Ending::Cancelled,
        _ if request.cancel.is_cancelled() => Ending::Cancelled,
        Some(Reason::Time) => Ending::TimedOut,
        _ if failures.is_empty() => Ending::Succeeded,
        _ => Ending::Failed,
    };
    if ending == Ending::TimedOut {
        let timeout = request.job.timeout.unwrap_or_default();
        failures.insert(0, (None, format!("the run took longer than its timeout, {timeout:?}")));
    }
    let message = failures.first().map(|(step, why)| match step {
        Some(step) => format!("step {} {}", request.job.tasks[*step].label(), why),
        None => why.clone(),
    });
    run.tell(Event::RunFinished { ending, seconds: began.elapsed().as_secs_f64(), message });
    Ok(Outcome { ending, failures })
}

/// A step's try that ended, as its thread tells.
struct Done {
    number: usize,
    ending: Ending,
    message: Option<String>,
}

impl<'a> Run<'a> {
    /// Writes it down, and tells the user.
    pub fn tell(&self, event: Event) {
        let event = match event {
            Event::Warning { step, message } => {
                Event::Warning { step, message: self.teller.redactor.clean(&message).into_owned() }
            }
            event => event,
        };
        self.request.journal.write(&event);
        self.request.watch.hear(&event);
    }

    /// Prints a line of a step.
    pub fn say(&self, task: &Task, stream: Stream, line: &str) {
        if let Ok(log) = self.log(task.number) {
            self.teller.line(&log, task.number, stream, line);
        }
    }

    /// Takes the lines of a step's process.
    pub fn sink(&self, task: &Task) -> LineSink {
        let (teller, number) = (Arc::clone(&self.teller), task.number);
        let log = self.log(number);
        Arc::new(move |stream, line| {
            if let Ok(log) = &log {
                teller.line(log, number, stream, line);
            }
        })
    }

    fn log(&self, number: usize) -> Result<Arc<Log>, RunError> {
        let mut logs = lock(&self.logs);
        if let Some(log) = logs.get(&number) {
            return Ok(Arc::clone(log));
        }
        let log = Arc::new(self.request.journal.log(number)?);
        logs.insert(number, Arc::clone(&log));
        Ok(log)
    }

    /// Names that steps find in `/etc/hosts`.
    pub fn hosts(&self) -> Vec<(String, IpAddr)> {
        lock(&self.hosts).clone()
    }

    pub fn add_host(&self, name: String, address: IpAddr) {
        let mut hosts = lock(&self.hosts);
        hosts.retain(|(other, _)| *other != name);
        hosts.push((name, address));
    }

    /// A step started containers of its own.
    pub fn started_containers(&self) {
        *lock(&self.started) = true;
    }

    /// Removes what steps started in the background.
    fn remove_containers(&self) {
        let filter = format!("label={}={}", native::LABEL, self.request.journal.header.id);
        let (_, ids) = native::quietly(self, &["ctk", "ps", "--all", "--quiet", "--filter", &filter]);
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            native::quietly(self, &[&["ctk", "rm", "--force", "--time", "0"], ids.as_slice()].concat());
        }
    }

    /// Where logins of steps are.
    pub fn logins(&self) -> PathBuf {
        match Path::new(LOGINS).is_dir() {
            true => LOGINS.into(),
            false => self.request.journal.folder.join("home/.docker"),
        }
    }

    /// Our own binary, about to carry out an order.
    pub fn child(&self, order: &Order) -> Result<Command, String> {
        let program = self.request.program;
        let logins = self.logins();
        std::fs::create_dir_all(&logins).map_err(|error| format!("cannot make {}: {error}", logins.display()))?;
        let text = serde_json::to_string(order).map_err(|error| error.to_string())?;
        let mut command = Command::new(&program.path);
        command.args(&program.words).arg(text).envs(program.env.iter().map(|(name, value)| (name, value)));
        command.env("REGISTRY_AUTH_FILE", logins.join("config.json")).current_dir(self.folder("/workspace"));
        Ok(command)
    }

    /// A folder as steps know it, for a process in our own view of the files.
    pub fn folder(&self, path: &str) -> PathBuf {
        let below = path.strip_prefix("/workspace").filter(|rest| rest.is_empty() || rest.starts_with('/'));
        match below {
            // The view may have been made without it, as in tests of this crate.
            Some(rest) if !Path::new("/workspace").is_dir() => {
                self.request.journal.folder.join("workspace").join(rest.trim_start_matches('/'))
            }
            _ => PathBuf::from(path),
        }
    }

    /// Gives an image of the store another name.
    pub fn tag(&self, from: &str, to: &str) -> Result<(), String> {
        let store = self.request.store;
        let (_, descriptor) =
            super::images::stored(store, from)?.ok_or_else(|| format!("the store has no image `{from}`"))?;
        // Behind the name as it is written comes the full one.
        let name = names(to).into_iter().nth(1).unwrap_or_else(|| to.to_owned());
        store.set_reference(&name, &ctk_store::Ref::new(descriptor)).map_err(|error| super::error::chain(&error))
    }

    /// Every name in the store of a repository.
    pub fn tags_of(&self, image: &str) -> Vec<String> {
        let repositories: Vec<String> = names(image).iter().map(|name| repository(name).to_owned()).collect();
        let all = self.request.store.references().unwrap_or_default();
        all.into_iter()
            .map(|(name, _)| name)
            .filter(|name| repositories.iter().any(|own| own == repository(name)))
            .collect()
    }

    /// Runs the steps; gives back those that failed.
    fn steps(&self, deadline: Option<Instant>) -> Result<Vec<(Option<usize>, String)>, RunError> {
        let tasks = &self.request.job.tasks;
        let at_once = self.request.job.at_once.unwrap_or(usize::MAX).min(self.request.settings.at_once);
        let mut course = Course::new(tasks, at_once)?;
        let earlier = self.request.earlier.map(Record::steps).unwrap_or_default();
        let kept = |task: &Task| is_kept(task, earlier.get(task.number));
        let mut failures: Vec<(Option<usize>, String)> = Vec::new();
        let (sender, receiver) = channel::<Done>();
        let is_over = Mutex::new(false);
        std::thread::scope(|scope| {
            let mut enforced = None;
            loop {
                while let Some(made) = course.next(self.stops.reason(), &kept) {
                    match made {
                        Move::Leave(number, ending) => self.leave(&tasks[number], ending),
                        Move::Start(number) => {
                            let (task, sender) = (&tasks[number], sender.clone());
                            let thread = std::thread::Builder::new().name(format!("step {number}"));
                            if let Err(error) = thread.spawn_scoped(scope, move || drop(sender.send(self.tries(task))))
                            {
                                self.leave(task, Ending::Failed);
                                course.ended(number, Ending::Failed);
                                failures.push((Some(number), format!("cannot have a thread: {error}")));
                            }
                        }
                    }
                }
                if course.running() == 0 {
                    break;
                }
                if let Ok(done) = receiver.recv_timeout(POLL) {
                    course.ended(done.number, done.ending);
                    if matches!(done.ending, Ending::Failed | Ending::TimedOut) {
                        failures.push((Some(done.number), done.message.unwrap_or_default()));
                        if self.request.job.fail_fast {
                            self.stops.stop(Reason::Failure);
                        }
                    }
                }
                let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                match self.stops.reason() {
                    Some(Reason::Cancel) => {}
                    _ if self.request.cancel.is_cancelled() => self.stops.stop(Reason::Cancel),
                    Some(Reason::Time) => {}
                    _ if late => self.stops.stop(Reason::Time),
                    _ => {}
                }
                // Each reason reaches further than the one before it.
                let reason = self.stops.reason();
                if reason != enforced {
                    enforced = reason;
                    // Steps that run in any case after a failure may still need theirs.
                    if matches!(reason, Some(Reason::Cancel | Reason::Time)) {
                        self.images.cancel.cancel();
                    }
                    let is_over = &is_over;
                    let thread = std::thread::Builder::new().name("grace".into());
                    let _ = thread.spawn_scoped(scope, move || self.stops.enforce(&|| *lock(is_over)));
                }
            }
            *lock(&is_over) = true;
            self.stops.wake();
        });
        Ok(failures)
    }

    /// A step that never runs in this run.
    fn leave(&self, task: &Task, ending: Ending) {
        self.tell(Event::StepFinished {
            step: task.number,
            attempt: 0,
            ending,
            seconds: 0.0,
            exit_code: None,
            message: None,
            output: None,
            definition: String::new(),
        });
    }

    fn tries(&self, task: &Task) -> Done {
        let group = match &task.group {
            None => None,
            Some(group) => match self.enter_group(task, group) {
                Ok(lock) => Some(lock),
                Err(message) => return self.finish(task, 1, Ended::broken(message), Duration::ZERO, None),
            },
        };
        let key = task.cache.as_ref().and_then(|_| cache::key(self, task));
        if let Some(key) = &key
            && cache::restore(self, task, key)
        {
            self.leave(task, Ending::Cached);
            return Done { number: task.number, ending: Ending::Cached, message: None };
        }
        let mut attempt = 1;
        let mut pause = task.retry.pause;
        loop {
            let began = Instant::now();
            self.tell(Event::StepStarted { step: task.number, attempt });
            let ended = self.attempt(task);
            let stopped = self.stops.ends(task);
            if ended.is_good() || stopped.is_some() || attempt > task.retry.times {
                drop(group);
                return self.finish(task, attempt, ended, began.elapsed(), key.as_deref());
            }
            let why = ended.message.unwrap_or_default();
            let message = format!("try {attempt} of {} failed: {why}; the next in {pause:?}", task.retry.times + 1);
            self.tell(Event::Warning { step: Some(task.number), message });
            self.pause(task, pause);
            pause = pause.mul_f64(task.retry.factor.clamp(1.0, 100.0)).min(PAUSE_MAX);
            attempt += 1;
        }
    }

    fn enter_group(&self, task: &Task, group: &str) -> Result<Lock, String> {
        // The store's locks ask a token; ours has more reasons than the user.
        let token = Cancel::new();
        let (done, is_done) = channel::<()>();
        std::thread::scope(|scope| {
            let token = &token;
            scope.spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = is_done.recv_timeout(POLL) {
                    if self.stops.ends(task).is_some() || self.request.cancel.is_cancelled() {
                        token.cancel();
                    }
                }
            });
            let lock = self.request.store.lock(&format!("pipeline group {group}"), token);
            drop(done);
            lock.map_err(|error| super::error::chain(&error))
        })
    }

    fn pause(&self, task: &Task, pause: Duration) {
        let until = Instant::now() + pause;
        while self.stops.ends(task).is_none() && !self.request.cancel.is_cancelled() {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return;
            }
            std::thread::sleep(rest.min(POLL));
        }
    }

    fn attempt(&self, task: &Task) -> Ended {
        if let Err(error) = self.log(task.number) {
            return Ended::broken(super::error::chain(&error));
        }
        match &task.work {
            TaskWork::Native { commands } => native::run(self, task, commands),
            TaskWork::Container { .. } => container::run(self, task),
            TaskWork::Download { url, sha256, into } => match storage::download(self, url, sha256.as_deref(), into) {
                Ok(()) => Ended::with_code(0),
                Err(message) => Ended::broken(message),
            },
            TaskWork::Refused { why } => Ended::broken(format!("cannot be carried out: {why}")),
        }
    }

    fn finish(&self, task: &Task, attempt: u32, ended: Ended, took: Duration, key: Option<&str>) -> Done {
        let allowed = match task.allow_exit_codes.is_empty() {
            true => task.allow_failure,
            false => ended.code.is_some_and(|code| task.allow_exit_codes.contains(&i64::from(code))),
        };
        let ending = match (ended.is_good(), self.stops.ends(task)) {
            (true, _) => Ending::Succeeded,
            (false, Some(Reason::Time)) => Ending::TimedOut,
            (false, Some(_)) => Ending::Cancelled,
            (false, None) if allowed => Ending::Allowed,
            (false, None) if ended.late => Ending::TimedOut,
            (false, None) => Ending::Failed,
        };
        // A run that is out of time says so itself.
        let cancelled = ending == Ending::TimedOut && !ended.late;
        let ending = if cancelled { Ending::Cancelled } else { ending };
        if let (Ending::Succeeded, Some(key)) = (ending, key)
            && let Err(message) = cache::keep(self, task, key)
        {
            self.tell(Event::Warning {
                step: Some(task.number),
                message: format!("its result is not kept: {message}"),
            });
        }
        // What was kept back of a line that never ended.
        for stream in [Stream::Out, Stream::Err] {
            let is_open = lock(&self.teller.pieces).contains_key(&(task.number, stream == Stream::Err));
            if is_open {
                self.say(task, stream, "");
            }
        }
        let message = ended.message.as_deref().map(|message| self.teller.redactor.clean(message).into_owned());
        lock(&self.logs).remove(&task.number);
        self.tell(Event::StepFinished {
            step: task.number,
            attempt,
            ending,
            seconds: took.as_secs_f64(),
            exit_code: ended.code,
            message: message.clone(),
            output: self.output(task),
            definition: definition(task),
        });
        Done { number: task.number, ending, message }
    }

    /// What the step wrote for the build.
    fn output(&self, task: &Task) -> Option<String> {
        use std::io::Read;
        let path = self.request.journal.folder.join("outputs").join(task.number.to_string()).join("output");
        // A link would lead out of it.
        let metadata = std::fs::symlink_metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
        let mut bytes = Vec::with_capacity(metadata.len().min(OUTPUT_BYTES) as usize);
        std::fs::File::open(&path).ok()?.take(OUTPUT_BYTES).read_to_end(&mut bytes).ok()?;
        Some(self.teller.redactor.clean(&String::from_utf8_lossy(&bytes)).into_owned())
    }

    /// Images and artifacts go out; the error is the first that cannot.
    fn deliver(&self) -> Result<(), String> {
        let job = self.request.job;
        // All must be there before the first goes.
        let mut found = Vec::new();
        for image in &job.images {
            let stored = super::images::stored(self.request.store, image)?;
            let stored = stored.ok_or_else(|| format!("no step made image `{image}`, which is to be pushed"))?;
            found.push((image, stored));
        }
        for (image, (name, descriptor)) in found {
            self.try_again(&format!("push `{image}`"), || {
                let (succeeded, text) = native::quietly(self, &["ctk", "push", &name]);
                match succeeded {
                    true => Ok(()),
                    false => Err(self.teller.redactor.clean(text.trim()).into_owned()),
                }
            })?;
            self.tell(Event::Pushed { image: image.clone(), digest: descriptor.digest.to_string() });
        }
        for artifact in &job.artifacts {
            artifacts::deliver(self, artifact)?;
        }
        Ok(())
    }

    /// Does something that others have a part in, several times if need be.
    pub fn try_again<T>(&self, what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
        let mut pause = Duration::from_millis(500);
        let mut tries = 1;
        loop {
            let why = match attempt() {
                Ok(value) => return Ok(value),
                Err(why) => why,
            };
            if tries >= super::limits::UPLOAD_TRIES || self.request.cancel.is_cancelled() {
                return Err(format!("failed to {what}: {why}"));
            }
            let message = format!("failed to {what}, try {tries}: {}", why.lines().next().unwrap_or_default());
            self.tell(Event::Warning { step: None, message });
            std::thread::sleep(pause);
            pause *= 2;
            tries += 1;
        }
    }
}

/// A name without tag and digest.
fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    name[slash..].find(':').map_or(name, |at| &name[..slash + at])
}

/// The SHA-256 of what a step is.
fn definition(task: &Task) -> String {
    ctk_oci::Digest::of(task.definition().as_bytes()).to_string()
}

/// Whether a step need not be run again, if all that it needs was kept: it succeeded, and is the same. What only logs in
/// is done again: what it left is not kept.
fn is_kept(task: &Task, earlier: Option<&StepState>) -> bool {
    let Some(earlier) = earlier else { return false };
    let logs_in = match &task.work {
        TaskWork::Native { commands } => {
            commands.iter().any(|one| matches!(one.action, crate::builders::Action::Login { .. }))
        }
        _ => false,
    };
    let same = earlier.definition.is_empty() || earlier.definition == definition(task);
    earlier.ending.is_some_and(Ending::is_good) && same && !logs_in
}
