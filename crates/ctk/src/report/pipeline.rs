//! The story of a pipeline's run on standard error: live on a terminal, else lines as Cloud Build writes them; JSON
//! lines, or the words of GitHub's runners.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ctk_pipeline::run::record::{HeaderStep, now};
use ctk_pipeline::run::{Ending, Event, Watch, event::Deaf};

use super::tree::Tree;
use super::{Progress, duration};

/// Who tells the story of this run. `github` is whether GitHub reads along.
pub fn watch(progress: Progress, github: bool, steps: &[HeaderStep], logs: PathBuf) -> Arc<dyn Watch> {
    let labels: Vec<String> = steps.iter().map(|step| step.label.clone()).collect();
    match progress {
        Progress::Live => Arc::new(Tree::new(steps)),
        Progress::Auto if std::io::stderr().is_terminal() => Arc::new(Tree::new(steps)),
        Progress::Auto if github => Arc::new(GitHub { labels, logs, turn: Mutex::new(()) }),
        Progress::Auto | Progress::Plain => Arc::new(Plain { labels, out: Mutex::new(std::io::stderr()) }),
        Progress::Json | Progress::Rawjson => Arc::new(Json),
        Progress::Quiet => Arc::new(Deaf),
    }
}

/// Lines, each with its step.
struct Plain<W> {
    labels: Vec<String>,
    out: Mutex<W>,
}

/// `Step #0 - "build"`, as Cloud Build writes it.
fn cloud_label(labels: &[String], step: usize) -> String {
    let label = labels.get(step).map_or("", String::as_str);
    match label.split_once(' ') {
        Some((number, id)) => format!("Step {number} - {id}"),
        None => format!("Step {label}"),
    }
}

/// How a step ended, in words.
pub(super) fn how(ending: Ending, attempt: u32, seconds: f64, message: Option<&str>) -> String {
    let mut text = ending.word().to_owned();
    if attempt > 0 {
        text += &format!(" in {}", duration(seconds));
    }
    if attempt > 1 {
        text += &format!(", try {attempt}");
    }
    if let Some(message) = message.filter(|_| !matches!(ending, Ending::Succeeded)) {
        text += &format!(": {message}");
    }
    text
}

impl<W: Write + Send> Watch for Plain<W> {
    fn hear(&self, event: &Event) {
        let label = |step: usize| cloud_label(&self.labels, step);
        let text = match event {
            Event::RunStarted { run, name, steps, resumed } => {
                let word = if *resumed { "resumed" } else { "started" };
                format!("run {run}: {name} {word}, {steps} steps")
            }
            Event::StepStarted { step, attempt: 1 } => format!("Starting {}", label(*step)),
            Event::StepStarted { step, attempt } => format!("Starting {}, try {attempt}", label(*step)),
            Event::StepLog { step, line, .. } => format!("{}: {line}", label(*step)),
            Event::StepFinished { step, ending, attempt, seconds, message, .. } => {
                format!("Finished {}: {}", label(*step), how(*ending, *attempt, *seconds, message.as_deref()))
            }
            Event::Pushed { image, digest } => format!("pushed {image} {digest}"),
            Event::Uploaded { file, to } => format!("uploaded {file} to {to}"),
            Event::Warning { step: Some(step), message } => format!("warning: {}: {message}", label(*step)),
            Event::Warning { step: None, message } => format!("warning: {message}"),
            Event::RunFinished { ending, seconds, .. } => {
                format!("run {} in {}", ending.word(), duration(*seconds))
            }
        };
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // One write a line: what others write does not come between.
        let _ = out.write_all((text + "\n").as_bytes());
    }
}

/// One JSON object a line.
struct Json;

impl Watch for Json {
    fn hear(&self, event: &Event) {
        let Ok(mut value) = serde_json::to_value(event) else { return };
        value["time"] = ((now() * 1000.0).round() / 1000.0).into();
        let _ = std::io::stderr().lock().write_all(format!("{value}\n").as_bytes());
    }
}

/// A group for each step when it has ended: groups of steps that run at once would be one.
struct GitHub {
    labels: Vec<String>,
    logs: PathBuf,
    turn: Mutex<()>,
}

/// A text as a value of a command of GitHub's runners.
fn command_text(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

impl Watch for GitHub {
    fn hear(&self, event: &Event) {
        let label = |step: usize| cloud_label(&self.labels, step);
        let text = match event {
            Event::RunStarted { run, name, .. } => format!("run {run}: {name}\n"),
            Event::StepStarted { step, .. } => format!("Starting {}\n", label(*step)),
            Event::StepLog { .. } => return,
            Event::StepFinished { step, ending, attempt, seconds, message, .. } => {
                let how = how(*ending, *attempt, *seconds, message.as_deref());
                let mut text = format!("::group::{}: {}\n", label(*step), command_text(&how));
                // What a step prints gives no commands.
                let word = format!("ctk-{step}-{}", std::process::id());
                text += &format!("::stop-commands::{word}\n");
                let log = std::fs::read_to_string(self.logs.join(step.to_string())).unwrap_or_default();
                for line in log.lines() {
                    let line = line.splitn(3, ' ').nth(2).unwrap_or_default();
                    text += &format!("{line}\n");
                }
                text += &format!("::{word}::\n::endgroup::\n");
                if matches!(ending, Ending::Failed | Ending::TimedOut) {
                    let title = command_text(&label(*step)).replace([',', ':'], " ");
                    text += &format!("::error title={title}::{}\n", command_text(&how));
                }
                text
            }
            Event::Pushed { image, digest } => format!("pushed {image} {digest}\n"),
            Event::Uploaded { file, to } => format!("uploaded {file} to {to}\n"),
            Event::Warning { message, .. } => format!("::warning::{}\n", command_text(message)),
            Event::RunFinished { ending, seconds, .. } => {
                format!("run {} in {}\n", ending.word(), duration(*seconds))
            }
        };
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use ctk_plan::Stream;

    use super::*;

    #[test]
    fn lines_are_those_of_cloud_build() {
        let plain = Plain { labels: vec!["#0 \"build\"".into(), "#1".into()], out: Mutex::new(Vec::new()) };
        let finished = |step, ending, message: Option<&str>| Event::StepFinished {
            step,
            attempt: 1,
            ending,
            seconds: 0.5,
            exit_code: None,
            message: message.map(str::to_owned),
            output: None,
            definition: String::new(),
        };
        plain.hear(&Event::StepStarted { step: 0, attempt: 1 });
        plain.hear(&Event::StepLog { step: 0, stream: Stream::Out, line: "hello".into() });
        plain.hear(&finished(0, Ending::Succeeded, None));
        plain.hear(&finished(1, Ending::Failed, Some("exit code 3")));
        let text = String::from_utf8(plain.out.into_inner().unwrap()).unwrap();
        assert_eq!(
            text,
            "Starting Step #0 - \"build\"\nStep #0 - \"build\": hello\nFinished Step #0 - \"build\": succeeded in 500 ms\n\
             Finished Step #1: failed in 500 ms: exit code 3\n"
        );
    }
}
