//! `ctk pipeline ls`: runs, the newest first.

use clap::Args;
use serde_json::json;

use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;
use crate::report::duration;

/// List runs, the newest first
#[derive(Args)]
pub struct Ls {
    /// At most so many
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,
    /// For programs: one JSON document
    #[arg(long)]
    json: bool,
}

/// A moment as people write it.
pub fn moment(seconds: f64) -> String {
    let time = jiff::Timestamp::from_millisecond((seconds * 1000.0) as i64).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

impl Ls {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let mut all = super::records(context).all().map_err(super::of_run)?;
        all.reverse();
        all.truncate(self.limit.unwrap_or(usize::MAX));
        if self.json {
            let list: Vec<_> = all
                .iter()
                .map(|run| {
                    json!({ "id": run.header.id, "name": run.header.name, "state": run.state(), "began": run.header.began,
                            "seconds": run.last(), "steps": run.header.steps.len(), "folder": run.folder })
                })
                .collect();
            return output(&(serde_json::to_string_pretty(&list)? + "\n"));
        }
        let width = all.iter().map(|run| run.header.id.len()).max().unwrap_or(2);
        let mut text = format!("{:width$}  {:19}  {:12}  {:>9}  NAME\n", "RUN", "BEGAN", "STATE", "TOOK");
        for run in &all {
            let (began, took) = (moment(run.header.began), duration(run.last()));
            text +=
                &format!("{:width$}  {began:19}  {:12}  {took:>9}  {}\n", run.header.id, run.state(), run.header.name);
        }
        output(&text)
    }
}
