//! A view that is repainted in place: finished things scroll up, running ones stay below.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ctk_plan::{Address, Event, Outcome, ProgressUnit, Sink, StepId};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::plain::ended;
use super::{duration, size};

/// Ten frames a second look alive and cost nothing.
const FRAME: Duration = Duration::from_millis(100);
/// Running steps shown at once; more are counted.
const STEPS_SHOWN: usize = 12;
/// Lines of a step's output kept to be shown when it fails.
const LOG_KEPT_LINES: usize = 40;

enum Message {
    Event(Event),
    /// Whether it is paused; dropped when that is done.
    Pause(bool, Sender<()>),
}

/// Sends events to the painter, which ends with the sink.
pub struct Live {
    events: Option<Sender<Message>>,
    painter: Option<JoinHandle<()>>,
}

impl Live {
    /// Starts the painter.
    pub fn new() -> Live {
        let (events, received) = channel();
        let painter = std::thread::spawn(move || paint(received));
        Live { events: Some(events), painter: Some(painter) }
    }
}

impl Sink for Live {
    fn emit(&self, event: Event) {
        if let Some(events) = &self.events {
            let _ = events.send(Message::Event(event));
        }
    }

    fn pause(&self, paused: bool) {
        let (done, is_done) = channel();
        if let Some(events) = &self.events
            && events.send(Message::Pause(paused, done)).is_ok()
        {
            let _ = is_done.recv();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.events = None;
        if let Some(painter) = self.painter.take() {
            let _ = painter.join();
        }
    }
}

struct Running {
    address: Address,
    name: String,
    started: Instant,
    progress: Option<(u64, Option<u64>, ProgressUnit)>,
    log: Vec<String>,
}

#[derive(Default)]
struct View {
    steps: BTreeMap<StepId, Running>,
    /// Lines that stay: written once, above the running steps.
    finished: Vec<String>,
    /// Rows of the last frame that the next one overwrites.
    painted_rows: usize,
}

fn paint(events: Receiver<Message>) {
    let mut view = View::default();
    let mut dirty = false;
    let mut painted = Instant::now();
    let mut paused = false;
    loop {
        match events.recv_timeout(FRAME) {
            Ok(Message::Event(event)) => {
                view.take(event);
                dirty = true;
            }
            Ok(Message::Pause(now, done)) => {
                if now && !paused {
                    view.leave();
                }
                paused = now;
                drop(done);
            }
            Err(RecvTimeoutError::Timeout) => dirty = dirty || !view.steps.is_empty(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if dirty && !paused && painted.elapsed() >= FRAME {
            view.frame();
            dirty = false;
            painted = Instant::now();
        }
    }
    view.steps.clear();
    view.frame();
}

impl View {
    fn take(&mut self, event: Event) {
        match event {
            Event::UnitStarted { .. } => {}
            Event::UnitFinished { address, outcome, seconds } => {
                self.finished.push(format!("{} {address}: {}", mark(&outcome), ended(&outcome, seconds)));
            }
            Event::StepStarted { address, step, name } => {
                let running = Running { address, name, started: Instant::now(), progress: None, log: Vec::new() };
                self.steps.insert(step, running);
            }
            Event::StepProgress { step, done, total, unit } => {
                if let Some(running) = self.steps.get_mut(&step) {
                    running.progress = Some((done, total, unit));
                }
            }
            Event::StepLog { step, line, .. } => {
                if let Some(running) = self.steps.get_mut(&step) {
                    if running.log.len() == LOG_KEPT_LINES {
                        running.log.remove(0);
                    }
                    running.log.push(line);
                }
            }
            Event::StepFinished { step, outcome, seconds } => {
                let Some(running) = self.steps.remove(&step) else { return };
                if let Outcome::Failed(_) = outcome {
                    let lines = running.log.iter().map(|line| format!("    │ {line}"));
                    self.finished.extend(lines);
                }
                let text =
                    format!("  {} {} {}: {}", mark(&outcome), running.address, running.name, ended(&outcome, seconds));
                self.finished.push(text);
            }
            Event::Warning { address, message } => {
                let about = address.map(|a| format!("{a}: ")).unwrap_or_default();
                self.finished.push(format!("! {about}{message}"));
            }
        }
    }

    /// Writes what is finished and nothing that would be repainted.
    fn leave(&mut self) {
        let steps = std::mem::take(&mut self.steps);
        self.frame();
        self.steps = steps;
    }

    fn frame(&mut self) {
        let width = terminal_columns();
        let mut text = String::new();
        if self.painted_rows > 0 {
            // To the first row of the last frame, and clear from there.
            let _ = write!(text, "\x1b[{}F\x1b[J", self.painted_rows);
        }
        for line in self.finished.drain(..) {
            let _ = writeln!(text, "{}", clean(&line));
        }
        self.painted_rows = 0;
        for running in self.steps.values().take(STEPS_SHOWN) {
            let _ = writeln!(text, "{}", fit(&running.line(), width));
            self.painted_rows += 1;
            if let Some(line) = running.log.last() {
                let _ = writeln!(text, "{}", fit(&format!("    │ {line}"), width));
                self.painted_rows += 1;
            }
        }
        if self.steps.len() > STEPS_SHOWN {
            let _ = writeln!(text, "  … and {} more", self.steps.len() - STEPS_SHOWN);
            self.painted_rows += 1;
        }
        let mut terminal = std::io::stderr().lock();
        let _ = terminal.write_all(text.as_bytes());
        let _ = terminal.flush();
    }
}

impl Running {
    fn line(&self) -> String {
        let elapsed = duration(self.started.elapsed().as_secs_f64());
        let progress = match self.progress {
            Some((done, Some(total), unit)) if total > 0 => {
                let filled = (done.min(total) * 20 / total) as usize;
                format!(
                    " {}{} {}/{}",
                    "━".repeat(filled),
                    "╌".repeat(20 - filled),
                    amount(done, unit),
                    amount(total, unit)
                )
            }
            Some((done, _, unit)) => format!(" {}", amount(done, unit)),
            None => String::new(),
        };
        format!("  ▸ {} {}{progress} {elapsed}", self.address, self.name)
    }
}

fn amount(count: u64, unit: ProgressUnit) -> String {
    match unit {
        ProgressUnit::Bytes => size(count),
        ProgressUnit::Items => count.to_string(),
    }
}

fn mark(outcome: &Outcome) -> char {
    match outcome {
        Outcome::Done => '✓',
        Outcome::Cached => '=',
        Outcome::Failed(_) => '✗',
        Outcome::Skipped | Outcome::Cancelled => '-',
    }
}

/// A line without control characters: what a build prints must not steer the terminal.
pub(super) fn clean(line: &str) -> String {
    line.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| !c.is_control()).collect()
}

/// A clean line that takes one row at most.
pub(super) fn fit(line: &str, columns: usize) -> String {
    let line = clean(line);
    if line.width() < columns {
        return line;
    }
    let mut used = 0;
    let kept = line.chars().take_while(|c| {
        used += c.width().unwrap_or(0);
        used + 1 < columns
    });
    kept.collect::<String>() + "…"
}

pub(super) fn terminal_columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.map_or(80, |size| if size.ws_col == 0 { 80 } else { size.ws_col.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_never_wraps_and_never_steers() {
        assert_eq!(fit("short", 80), "short");
        assert_eq!(fit("abcdefghij", 6), "abcd…");
        assert_eq!(fit("日本語日本語", 6), "日本…");
        assert_eq!(fit("a\x1b[31mb\tc", 80), "a[31mb c");
    }
}
