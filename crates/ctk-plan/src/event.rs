//! The story of an apply, as data. Libraries emit events; only the binary prints them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::Address;

/// One thing that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A unit began to run.
    UnitStarted {
        /// Which.
        address: Address,
    },
    /// A unit ended.
    UnitFinished {
        /// Which.
        address: Address,
        /// How.
        outcome: Outcome,
        /// Wall time in seconds.
        seconds: f64,
    },
    /// A step inside a unit began: an instruction, a download, an assertion.
    StepStarted {
        /// The unit.
        address: Address,
        /// Unique within the process.
        step: StepId,
        /// For people, e.g. `[build 2/5] RUN make`.
        name: String,
    },
    /// How far a step is.
    StepProgress {
        /// Which step.
        step: StepId,
        /// Units done.
        done: u64,
        /// Units in all, when known.
        total: Option<u64>,
        /// What is counted.
        unit: ProgressUnit,
    },
    /// A line that a step's process wrote, without its end of line.
    StepLog {
        /// Which step.
        step: StepId,
        /// Where it was written.
        stream: Stream,
        /// The line, invalid UTF-8 replaced.
        line: String,
    },
    /// A step ended.
    StepFinished {
        /// Which step.
        step: StepId,
        /// How.
        outcome: Outcome,
        /// Wall time in seconds.
        seconds: f64,
    },
    /// Something the user should know that fails nothing.
    Warning {
        /// The unit, if it is about one.
        address: Option<Address>,
        /// One sentence.
        message: String,
    },
}

/// How a unit or a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It ran and succeeded.
    Done,
    /// Its result was already there.
    Cached,
    /// It failed; the message is one line.
    Failed(String),
    /// It never ran, because something it needs failed.
    Skipped,
    /// The user stopped it.
    Cancelled,
}

/// What a progress counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProgressUnit {
    /// Bytes.
    Bytes,
    /// Things: packages, layers, files.
    Items,
}

/// A standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Names a step within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct StepId(pub u64);

/// Receives events; called from any thread, must not block for long.
pub trait Sink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: Event);

    /// Leaves the terminal alone from now on, or takes it back. Returns when that is so.
    fn pause(&self, _paused: bool) {}
}

/// A sink that hears nothing.
pub struct Silent;

impl Sink for Silent {
    fn emit(&self, _event: Event) {}
}

/// Tells the story of one unit. Cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    address: Address,
    sink: Arc<dyn Sink>,
}

static NEXT_STEP: AtomicU64 = AtomicU64::new(1);

impl Reporter {
    /// A reporter for `address`.
    pub fn new(address: Address, sink: Arc<dyn Sink>) -> Reporter {
        Reporter { address, sink }
    }

    /// The unit it speaks of.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Begins a step; dropping the handle unfinished reports it as cancelled.
    pub fn step(&self, name: impl Into<String>) -> Step {
        let id = StepId(NEXT_STEP.fetch_add(1, Ordering::Relaxed));
        self.sink.emit(Event::StepStarted { address: self.address.clone(), step: id, name: name.into() });
        Step { id, sink: self.sink.clone(), started: std::time::Instant::now(), finished: false }
    }

    /// Warns about this unit.
    pub fn warn(&self, message: impl Into<String>) {
        self.sink.emit(Event::Warning { address: Some(self.address.clone()), message: message.into() });
    }
}

/// A step under way.
pub struct Step {
    id: StepId,
    sink: Arc<dyn Sink>,
    started: std::time::Instant,
    finished: bool,
}

impl Step {
    /// Reports how far it is.
    pub fn progress(&self, done: u64, total: Option<u64>, unit: ProgressUnit) {
        self.sink.emit(Event::StepProgress { step: self.id, done, total, unit });
    }

    /// Reports a line of output.
    pub fn log(&self, stream: Stream, line: impl Into<String>) {
        self.sink.emit(Event::StepLog { step: self.id, stream, line: line.into() });
    }

    /// Ends it.
    pub fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    /// Ends it by a result and passes the result on.
    pub fn conclude<T, E: std::fmt::Display>(self, result: Result<T, E>) -> Result<T, E> {
        let outcome = match &result {
            Ok(_) => Outcome::Done,
            Err(error) => Outcome::Failed(error.to_string()),
        };
        self.finish(outcome);
        result
    }

    fn end(&mut self, outcome: Outcome) {
        self.finished = true;
        let seconds = Duration::as_secs_f64(&self.started.elapsed());
        self.sink.emit(Event::StepFinished { step: self.id, outcome, seconds });
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished {
            self.end(Outcome::Cancelled);
        }
    }
}
