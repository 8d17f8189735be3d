//! `ctk pipeline show`: how a run went.

use clap::Args;
use ctk_pipeline::run::{Ending, Event, Record};
use serde_json::json;

use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;
use crate::report::duration;

/// Show how a run went, step by step
#[derive(Args)]
pub struct Show {
    /// The run: its id or the beginning of it [default: the latest]
    #[arg(default_value = "latest")]
    run: String,
    /// For programs: one JSON document
    #[arg(long, conflicts_with = "html")]
    json: bool,
    /// Write it as one HTML file, with its timeline
    #[arg(long, value_name = "FILE")]
    html: Option<std::path::PathBuf>,
}

impl Show {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let record = super::records(context).find(&self.run).map_err(super::of_run)?;
        if let Some(path) = &self.html {
            let html = ctk_pipeline::run::html(&record);
            return std::fs::write(path, html).map_err(Failure::during(format!("cannot write {}", path.display())));
        }
        match self.json {
            true => output(&(serde_json::to_string_pretty(&document(&record))? + "\n")),
            false => output(&text(&record)),
        }
    }
}

fn document(record: &Record) -> serde_json::Value {
    let steps: Vec<_> = record
        .header
        .steps
        .iter()
        .zip(record.steps())
        .enumerate()
        .map(|(number, (step, state))| {
            json!({ "number": number, "label": step.label, "needs": step.needs, "line": step.line,
                    "state": state.ending, "attempts": state.attempts, "began": state.began,
                    "seconds": state.seconds, "exit_code": state.exit_code, "message": state.message,
                    "log": record.log(number) })
        })
        .collect();
    json!({ "id": record.header.id, "name": record.header.name, "state": record.state(), "began": record.header.began,
            "seconds": record.last(), "folder": record.folder, "steps": steps, "events": record.events })
}

fn text(record: &Record) -> String {
    let header = &record.header;
    let began = super::ls::moment(header.began);
    let mut text = format!(
        "run {}: {}\n  {}, began {began}, {}\n",
        header.id,
        header.name,
        record.state(),
        duration(record.last())
    );
    for (step, state) in header.steps.iter().zip(record.steps()) {
        let (mark, how) = match state.ending {
            None if state.began.is_some() && record.running => ('▸', "running".to_owned()),
            None if state.began.is_some() => ('!', "interrupted".to_owned()),
            None => (' ', "waits".to_owned()),
            Some(ending) => (ending.mark(), ending.word().to_owned()),
        };
        let mut line = format!("  {mark} {:24} {how}", step.label);
        if state.attempts > 0 && state.ending.is_some() {
            line += &format!(" in {}", duration(state.seconds));
        }
        if let Some(message) = state.message.filter(|_| state.ending != Some(Ending::Succeeded)) {
            line += &format!(": {message}");
        }
        text += &(line + "\n");
    }
    for timed in &record.events {
        match &timed.event {
            Event::Pushed { image, digest } => text += &format!("  pushed {image} {digest}\n"),
            Event::Uploaded { file, to } => text += &format!("  uploaded {file} to {to}\n"),
            Event::Warning { message, .. } => text += &format!("  ! {message}\n"),
            _ => {}
        }
    }
    if let Some(Event::RunFinished { message: Some(message), .. }) = record.events.last().map(|timed| &timed.event) {
        text += &format!("  {message}\n");
    }
    text
}
