//! The record of a run: a folder that outlives the process.
//!
//! ```text
//! <store>/pipelines/<id>/
//!     run.json        what is run: Header
//!     events          what happened: an Event a line, without the lines that steps print
//!     lock            locked by the process that runs it
//!     logs/<step>     what a step printed: `<seconds> o|e <line>`
//!     workspace/  home/  volumes/<name>/  outputs/<step>/
//! ```
//! An event is in the file before anybody hears of it: a process that is killed leaves a record that is true.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ctk_plan::Stream;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::error::on;
use super::event::{Ending, Event};
use super::job::Job;
use super::{RunError, limits};

/// Changes when older records cannot be read any more.
const FORMAT: u32 = 1;

/// What is run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Of the record.
    pub format: u32,
    /// The run's id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Seconds since 1970.
    pub began: f64,
    /// The folder that it was started in.
    pub directory: PathBuf,
    /// What its caller needs to read the same again.
    pub again: serde_json::Value,
    /// The steps.
    pub steps: Vec<HeaderStep>,
}

/// A step, for those who look at the record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeaderStep {
    /// What it is called.
    pub label: String,
    /// The steps that it waits for.
    pub needs: Vec<usize>,
    /// What it does.
    pub line: String,
}

/// An event and when it was, in seconds since the run began first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Timed {
    /// When.
    pub at: f64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// All runs of a store.
#[derive(Clone, Debug)]
pub struct Records {
    folder: PathBuf,
}

/// One run, as somebody else sees it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its folder.
    pub folder: PathBuf,
    /// What is run.
    pub header: Header,
    /// What happened.
    pub events: Vec<Timed>,
    /// Whether a process runs it now.
    pub running: bool,
}

/// How far a step is.
#[derive(Clone, Debug, PartialEq)]
pub struct StepState {
    /// How it ended; none: it did not.
    pub ending: Option<Ending>,
    /// Tries.
    pub attempts: u32,
    /// When the last try began, in seconds since the run began.
    pub began: Option<f64>,
    /// How long the last try took.
    pub seconds: f64,
    /// Of its process.
    pub exit_code: Option<i32>,
    /// Why it failed.
    pub message: Option<String>,
    /// The SHA-256 of its definition then.
    pub definition: String,
}

/// The present, in seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

impl Records {
    /// Those of the store in `root`.
    pub fn of_store(root: &Path) -> Records {
        Records { folder: root.join("pipelines") }
    }

    /// Every run whose record can be read, the newest last.
    pub fn all(&self) -> Result<Vec<Record>, RunError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(on("list", &self.folder))?,
        };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            // One that is being made has no header yet.
            found.extend(name.to_str().and_then(|id| self.read(id).ok()));
        }
        found.sort_by(|a, b| a.header.began.total_cmp(&b.header.began).then_with(|| a.header.id.cmp(&b.header.id)));
        Ok(found)
    }

    /// The run whose id begins so; `latest` is the newest.
    pub fn find(&self, id: &str) -> Result<Record, RunError> {
        let none = || RunError::NoRun { id: id.into() };
        if id == "latest" {
            return self.all()?.pop().ok_or_else(none);
        }
        let plain = !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !plain {
            return Err(none());
        }
        if self.folder.join(id).join("run.json").exists() {
            return self.read(id);
        }
        let mut found: Vec<String> = match fs::read_dir(&self.folder) {
            Err(_) => Vec::new(),
            Ok(entries) => entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect(),
        };
        found.retain(|name| name.starts_with(id) || name.ends_with(id));
        found.sort();
        match found.as_slice() {
            [one] => self.read(one),
            [] => Err(none()),
            _ => Err(RunError::ManyRuns { id: id.into(), found }),
        }
    }

    fn read(&self, id: &str) -> Result<Record, RunError> {
        let folder = self.folder.join(id);
        let path = folder.join("run.json");
        let bytes = fs::read(&path).map_err(on("read", &path))?;
        let wrong = |why: String| RunError::Record { id: id.into(), why };
        let header: Header = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if header.format != FORMAT {
            return Err(wrong(format!("it has format {}, expected {FORMAT}", header.format)));
        }
        let events = File::open(folder.join("events")).map(events).unwrap_or_default();
        let running = match File::open(folder.join("lock")) {
            Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockShared).is_err(),
            Err(_) => false,
        };
        Ok(Record { folder, header, events, running })
    }

    /// Begins the record of a new run.
    pub fn begin(&self, id: &str, job: &Job, directory: &Path, again: serde_json::Value) -> Result<Journal, RunError> {
        use std::os::unix::fs::DirBuilderExt;
        let folder = self.folder.join(id);
        let make =
            |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(on("make", path));
        make(&folder)?;
        let lock = take(&folder, id)?;
        for name in ["logs", "workspace", "home", "volumes", "outputs", "scripts", "root"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(on("make", &path))?;
        }
        let header = Header {
            format: FORMAT,
            id: id.into(),
            name: job.name.clone(),
            began: now(),
            directory: directory.into(),
            again,
            steps: header_steps(job),
        };
        write_header(&folder, &header)?;
        Journal::open(folder, lock, header)
    }

    /// Goes on with a run that no process has.
    pub fn resume(&self, id: &str, job: &Job) -> Result<(Journal, Record), RunError> {
        let found = self.find(id)?;
        let id = found.header.id.clone();
        let lock = take(&found.folder, &id)?;
        // Somebody may have gone on with it before we had the lock.
        let mut record = self.read(&id)?;
        record.running = false;
        // One that was killed before it began has half a workspace.
        if record.events.is_empty() || !record.folder.join("workspace").is_dir() {
            return Err(RunError::NoWorkspace { id });
        }
        record.header.steps = header_steps(job);
        write_header(&record.folder, &record.header)?;
        Ok((Journal::open(record.folder.clone(), lock, record.header.clone())?, record))
    }

    /// Removes what finished or was left longer ago than `age`, in seconds; gives back the ids. Runs of living
    /// processes stay.
    pub fn prune(&self, age: Duration, dry: bool) -> Result<Vec<String>, RunError> {
        let mut gone = Vec::new();
        for record in self.all()? {
            if record.running || record.header.began + record.last() + age.as_secs_f64() > now() {
                continue;
            }
            if !dry {
                // Its lock keeps others from going on with it meanwhile.
                let Ok(_lock) = take(&record.folder, &record.header.id) else { continue };
                remove(&record.folder)?;
            }
            gone.push(record.header.id);
        }
        if !dry {
            super::cache::prune(&self.folder, age);
        }
        Ok(gone)
    }
}

/// The steps of a job, as a record has them.
pub fn header_steps(job: &Job) -> Vec<HeaderStep> {
    let step =
        |task: &super::job::Task| HeaderStep { label: task.label(), needs: task.needs.clone(), line: task.line() };
    job.tasks.iter().map(step).collect()
}

fn write_header(folder: &Path, header: &Header) -> Result<(), RunError> {
    let (new, path) = (folder.join("run.json.new"), folder.join("run.json"));
    let text = serde_json::to_vec_pretty(header).unwrap_or_default();
    fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).map_err(on("write", &path))
}

/// Removes what a run that succeeded leaves besides its record: nobody goes on with it.
pub fn clear(journal: &Journal) -> Result<(), RunError> {
    ["workspace", "home", "volumes", "scripts", "outputs"]
        .iter()
        .try_for_each(|name| remove(&journal.folder.join(name)))
}

/// Removes a folder and all below it.
pub(crate) fn remove(folder: &Path) -> Result<(), RunError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(on("remove", folder)),
    }
}

fn take(folder: &Path, id: &str) -> Result<File, RunError> {
    let path = folder.join("lock");
    let lock = File::options().write(true).create(true).truncate(false).open(&path).map_err(on("open", &path))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(RunError::Running { id: id.into() }),
        Err(error) => Err(on("lock", &path)(error.into())),
    }
}

/// The events of a journal. A last line that is not whole was being written when the process was killed.
fn events(file: File) -> Vec<Timed> {
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    lines.filter_map(|line| serde_json::from_str(&line).ok()).collect()
}

impl Record {
    /// When something happened last, in seconds since the run began.
    pub fn last(&self) -> f64 {
        self.events.last().map_or(0.0, |event| event.at)
    }

    /// How the run ended; none: it runs, or its process was killed.
    pub fn ending(&self) -> Option<Ending> {
        match self.events.last()?.event {
            Event::RunFinished { ending, .. } => Some(ending),
            _ => None,
        }
    }

    /// In a word.
    pub fn state(&self) -> &'static str {
        match (self.running, self.ending()) {
            (true, _) => "running",
            (false, Some(ending)) => ending.word(),
            (false, None) => "interrupted",
        }
    }

    /// Its steps, in order.
    pub fn steps(&self) -> Vec<StepState> {
        let none = StepState {
            ending: None,
            attempts: 0,
            began: None,
            seconds: 0.0,
            exit_code: None,
            message: None,
            definition: String::new(),
        };
        let mut steps = vec![none; self.header.steps.len()];
        for timed in &self.events {
            match &timed.event {
                Event::StepStarted { step, attempt } => {
                    let Some(state) = steps.get_mut(*step) else { continue };
                    *state = StepState { attempts: *attempt, began: Some(timed.at), ..state.clone() };
                    state.ending = None;
                }
                Event::StepFinished { step, ending, seconds, exit_code, message, definition, .. } => {
                    let Some(state) = steps.get_mut(*step) else { continue };
                    // That it was kept says nothing about how it was.
                    if *ending == Ending::Kept {
                        state.ending = Some(Ending::Kept);
                        continue;
                    }
                    state.ending = Some(*ending);
                    state.seconds = *seconds;
                    state.exit_code = *exit_code;
                    state.message = message.clone();
                    state.definition = definition.clone();
                }
                _ => {}
            }
        }
        steps
    }

    /// Where a step's log is.
    pub fn log(&self, step: usize) -> PathBuf {
        self.folder.join("logs").join(step.to_string())
    }

    /// What a step printed: seconds since the run began, where to, and the line.
    pub fn lines(&self, step: usize) -> impl Iterator<Item = (f64, Stream, String)> {
        let file = File::open(self.log(step)).ok().map(BufReader::new);
        file.into_iter().flat_map(|file| file.lines().map_while(Result::ok)).filter_map(|line| {
            let (time, rest) = line.split_once(' ')?;
            let (stream, text) = rest.split_once(' ')?;
            let stream = if stream == "e" { Stream::Err } else { Stream::Out };
            Some((time.parse().ok()?, stream, text.to_owned()))
        })
    }
}

/// The record of a run, as the process that runs it writes it.
pub struct Journal {
    /// The run's folder.
    pub folder: PathBuf,
    /// What is run.
    pub header: Header,
    file: Mutex<File>,
    _lock: File,
}

impl Journal {
    fn open(folder: PathBuf, lock: File, header: Header) -> Result<Journal, RunError> {
        let path = folder.join("events");
        let mut file = File::options().append(true).create(true).open(&path).map_err(on("open", &path))?;
        // After a process that was killed while it wrote a line.
        let torn = fs::read(&path).is_ok_and(|bytes| bytes.last().is_some_and(|byte| *byte != b'\n'));
        if torn {
            file.write_all(b"\n").map_err(on("write", &path))?;
        }
        Ok(Journal { folder, header, file: Mutex::new(file), _lock: lock })
    }

    /// Seconds since the run began.
    pub fn elapsed(&self) -> f64 {
        (now() - self.header.began).max(0.0)
    }

    /// Writes an event down. A disk that is full loses it: the run itself goes on.
    pub fn write(&self, event: &Event) {
        let timed = Timed { at: (self.elapsed() * 1000.0).round() / 1000.0, event: event.clone() };
        let mut line = serde_json::to_string(&timed).unwrap_or_default();
        line.push('\n');
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = file.write_all(line.as_bytes());
    }

    /// A step's log, to which what it prints is added.
    pub fn log(&self, step: usize) -> Result<Log, RunError> {
        let path = self.folder.join("logs").join(step.to_string());
        let file = File::options().append(true).create(true).open(&path).map_err(on("open", &path))?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        Ok(Log { file: Mutex::new((file, size)), path, began: self.header.began })
    }
}

/// What a step prints, as it is written down.
pub struct Log {
    file: Mutex<(File, u64)>,
    /// Where it is.
    pub path: PathBuf,
    began: f64,
}

impl Log {
    /// Adds a line.
    pub fn add(&self, stream: Stream, line: &str) {
        let letter = if stream == Stream::Err { 'e' } else { 'o' };
        let text = format!("{:.3} {letter} {line}\n", (now() - self.began).max(0.0));
        let mut held = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (file, size) = &mut *held;
        if *size > limits::LOG_BYTES {
            return;
        }
        *size += text.len() as u64;
        let _ = file.write_all(text.as_bytes());
        if *size > limits::LOG_BYTES {
            let _ = file.write_all(b"0 e (the log is full; what comes later is only shown)\n");
        }
    }
}
