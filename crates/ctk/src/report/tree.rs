//! A pipeline's run on a terminal: what ended scrolls up; below it what runs, each with its last line, and what waits,
//! each with what for.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ctk_pipeline::run::record::HeaderStep;
use ctk_pipeline::run::{Ending, Event, Watch};

use super::duration;
use super::live::{clean, fit, terminal_columns};

/// Ten frames a second look alive and cost nothing.
const FRAME: Duration = Duration::from_millis(100);
/// Running steps that are shown at once; more are counted.
const RUNNING_SHOWN: usize = 12;
/// Waiting steps that are shown at once; more are counted.
const WAITING_SHOWN: usize = 6;
/// Lines of a failed step that are shown; its log has all.
const LOG_SHOWN_LINES: usize = 40;

/// Sends events to the painter, which ends with the watch.
pub struct Tree {
    events: Option<Sender<Event>>,
    painter: Option<JoinHandle<()>>,
}

impl Tree {
    /// Starts the painter.
    pub fn new(steps: &[HeaderStep]) -> Tree {
        let (events, received) = channel();
        let view = View::new(steps);
        let painter = std::thread::spawn(move || paint(view, received));
        Tree { events: Some(events), painter: Some(painter) }
    }
}

impl Watch for Tree {
    fn hear(&self, event: &Event) {
        if let Some(events) = &self.events {
            let _ = events.send(event.clone());
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.events = None;
        if let Some(painter) = self.painter.take() {
            let _ = painter.join();
        }
    }
}

struct Row {
    label: String,
    line: String,
    needs: Vec<usize>,
    started: Option<Instant>,
    attempt: u32,
    log: std::collections::VecDeque<String>,
}

struct View {
    rows: Vec<Row>,
    running: BTreeSet<usize>,
    waiting: BTreeSet<usize>,
    /// Lines that stay: written once, above what is repainted.
    finished: Vec<String>,
    /// Rows of the last frame that the next one overwrites.
    painted_rows: usize,
}

fn paint(mut view: View, events: Receiver<Event>) {
    let mut painted = Instant::now();
    loop {
        match events.recv_timeout(FRAME) {
            Ok(event) => view.take(event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if painted.elapsed() >= FRAME {
            view.frame();
            painted = Instant::now();
        }
    }
    view.running.clear();
    view.waiting.clear();
    view.frame();
}

impl View {
    fn new(steps: &[HeaderStep]) -> View {
        let row = |step: &HeaderStep| Row {
            label: step.label.clone(),
            line: step.line.clone(),
            needs: step.needs.clone(),
            started: None,
            attempt: 1,
            log: std::collections::VecDeque::new(),
        };
        View {
            rows: steps.iter().map(row).collect(),
            running: BTreeSet::new(),
            waiting: (0..steps.len()).collect(),
            finished: Vec::new(),
            painted_rows: 0,
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::StepStarted { step, attempt } => {
                self.waiting.remove(&step);
                self.running.insert(step);
                if let Some(row) = self.rows.get_mut(step) {
                    (row.started, row.attempt) = (Some(Instant::now()), attempt);
                }
            }
            Event::StepLog { step, line, .. } => {
                let Some(row) = self.rows.get_mut(step) else { return };
                if row.log.len() == LOG_SHOWN_LINES {
                    row.log.pop_front();
                }
                row.log.push_back(line);
            }
            Event::StepFinished { step, attempt, ending, seconds, message, .. } => {
                self.waiting.remove(&step);
                self.running.remove(&step);
                let Some(row) = self.rows.get_mut(step) else { return };
                let log = std::mem::take(&mut row.log);
                if matches!(ending, Ending::Failed | Ending::TimedOut) {
                    self.finished.extend(log.iter().map(|line| format!("    │ {line}")));
                }
                let line: String = row.line.chars().take(60).collect();
                let how = super::pipeline::how(ending, attempt, seconds, message.as_deref());
                self.finished.push(format!("{} {} {line}: {how}", ending.mark(), row.label));
            }
            Event::Pushed { image, digest } => self.finished.push(format!("↑ {image} {digest}")),
            Event::Uploaded { file, to } => self.finished.push(format!("↑ {file} to {to}")),
            Event::Warning { message, .. } => self.finished.push(format!("! {message}")),
            Event::RunStarted { run, name, steps, .. } => {
                self.finished.push(format!("run {run}: {name}, {steps} steps"));
            }
            Event::RunFinished { .. } => {}
        }
    }

    /// What is repainted: rows of at most so many columns.
    fn lines(&self, columns: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for row in self.running.iter().take(RUNNING_SHOWN).filter_map(|step| self.rows.get(*step)) {
            let took = row.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
            let again = if row.attempt > 1 { format!(", try {}", row.attempt) } else { String::new() };
            let head = format!("▸ {} {}{again} ", row.label, duration(took));
            lines.push(fit(&(head + &row.line), columns));
            lines.extend(row.log.back().map(|line| fit(&format!("    │ {line}"), columns)));
        }
        if self.running.len() > RUNNING_SHOWN {
            lines.push(format!("  … and {} more run", self.running.len() - RUNNING_SHOWN));
        }
        for row in self.waiting.iter().take(WAITING_SHOWN).filter_map(|step| self.rows.get(*step)) {
            let open = |need: &&usize| self.running.contains(need) || self.waiting.contains(need);
            let needs: Vec<&str> = row
                .needs
                .iter()
                .filter(open)
                .filter_map(|need| self.rows.get(*need))
                .map(|row| row.label.split(' ').next().unwrap_or_default())
                .collect();
            let after = if needs.is_empty() { String::new() } else { format!(" ← {}", needs.join(" ")) };
            lines.push(fit(&format!("○ {}{after}", row.label), columns));
        }
        if self.waiting.len() > WAITING_SHOWN {
            lines.push(format!("  … and {} more wait", self.waiting.len() - WAITING_SHOWN));
        }
        lines
    }

    fn frame(&mut self) {
        let mut text = String::new();
        if self.painted_rows > 0 {
            // To the first row of the last frame, and clear from there.
            let _ = write!(text, "\x1b[{}F\x1b[J", self.painted_rows);
        }
        for line in self.finished.drain(..) {
            let _ = writeln!(text, "{}", clean(&line));
        }
        let lines = self.lines(terminal_columns());
        self.painted_rows = lines.len();
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
        let mut terminal = std::io::stderr().lock();
        let _ = terminal.write_all(text.as_bytes());
        let _ = terminal.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(number: usize, needs: &[usize]) -> HeaderStep {
        HeaderStep { label: format!("#{number}"), needs: needs.to_vec(), line: "base: true".into() }
    }

    #[test]
    fn what_runs_and_what_waits_is_seen() {
        let mut view = View::new(&[step(0, &[]), step(1, &[0]), step(2, &[0, 1])]);
        view.take(Event::StepStarted { step: 0, attempt: 1 });
        view.take(Event::StepLog { step: 0, stream: ctk_plan::Stream::Out, line: "hello\x1b[2J".into() });
        let lines = view.lines(80);
        assert!(lines[0].starts_with("▸ #0 ") && lines[0].ends_with(" base: true"), "{lines:?}");
        assert_eq!(lines[1..], ["    │ hello[2J", "○ #1 ← #0", "○ #2 ← #0 #1"]);
        view.take(Event::StepFinished {
            step: 0,
            attempt: 1,
            ending: Ending::Failed,
            seconds: 0.5,
            exit_code: Some(3),
            message: Some("exit code 3".into()),
            output: None,
            definition: String::new(),
        });
        assert_eq!(view.finished[1], "✗ #0 base: true: failed in 500 ms: exit code 3");
        assert_eq!(view.lines(80), ["○ #1", "○ #2 ← #1"]);
    }
}
