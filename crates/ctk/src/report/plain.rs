//! One line for each thing that happened: for logs.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;

use ctk_plan::{Address, Event, Outcome, Sink, StepId};

use super::duration;

/// Writes lines as events come; remembers the names of open steps.
pub struct Plain<W> {
    state: Mutex<State<W>>,
}

struct State<W> {
    out: W,
    steps: HashMap<StepId, (Address, String)>,
}

impl<W: Write> Plain<W> {
    /// Lines to `out`.
    pub fn new(out: W) -> Plain<W> {
        Plain { state: Mutex::new(State { out, steps: HashMap::new() }) }
    }
}

impl<W: Write + Send> Sink for Plain<W> {
    fn emit(&self, event: Event) {
        let mut state = self.state.lock().expect("no holder panics");
        let State { out, steps } = &mut *state;
        let line = match event {
            Event::UnitStarted { address } => format!("{address}: started"),
            Event::UnitFinished { address, outcome, seconds } => format!("{address}: {}", ended(&outcome, seconds)),
            Event::StepStarted { address, step, name } => {
                let line = format!("{address}: {name}");
                steps.insert(step, (address, name));
                line
            }
            Event::StepProgress { .. } => return,
            Event::StepLog { step, line, .. } => match steps.get(&step) {
                Some((address, _)) => format!("{address}: | {line}"),
                None => format!("| {line}"),
            },
            Event::StepFinished { step, outcome, seconds } => match steps.remove(&step) {
                Some((address, name)) => format!("{address}: {name}: {}", ended(&outcome, seconds)),
                None => return,
            },
            Event::Warning { address: Some(address), message } => format!("warning: {address}: {message}"),
            Event::Warning { address: None, message } => format!("warning: {message}"),
        };
        let _ = writeln!(out, "{line}");
    }
}

/// How something ended, in words.
pub fn ended(outcome: &Outcome, seconds: f64) -> String {
    match outcome {
        Outcome::Done => format!("done in {}", duration(seconds)),
        Outcome::Cached => "cached".into(),
        Outcome::Failed(message) => format!("failed after {}: {message}", duration(seconds)),
        Outcome::Skipped => "skipped".into(),
        Outcome::Cancelled => "cancelled".into(),
    }
}
