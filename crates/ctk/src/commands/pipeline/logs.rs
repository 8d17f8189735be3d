//! `ctk pipeline logs`: what steps printed.

use clap::Args;
use ctk_pipeline::run::Record;

use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Show what steps of a run printed
#[derive(Args)]
pub struct Logs {
    /// The run: its id or the beginning of it [default: the latest]
    #[arg(default_value = "latest")]
    run: String,
    /// Steps, by number or id [default: all]
    steps: Vec<String>,
    /// Seconds since the run began before each line
    #[arg(short, long)]
    timestamps: bool,
}

impl Logs {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let record = super::records(context).find(&self.run).map_err(super::of_run)?;
        let chosen: Vec<usize> = match self.steps.is_empty() {
            true => (0..record.header.steps.len()).collect(),
            false => self.steps.iter().map(|step| number(&record, step)).collect::<Result<_, _>>()?,
        };
        let several = chosen.len() > 1;
        for step in chosen {
            // Lines of one log at a time: a log may be larger than memory should hold.
            for (at, _, line) in record.lines(step) {
                let time = if self.timestamps { format!("{at:9.3} ") } else { String::new() };
                let label = if several { format!("{}: ", record.header.steps[step].label) } else { String::new() };
                output(&format!("{time}{label}{line}\n"))?;
            }
        }
        Ok(())
    }
}

/// The step that is called so.
fn number(record: &Record, text: &str) -> Result<usize, Failure> {
    let steps = &record.header.steps;
    let number = text.trim_start_matches('#').parse::<usize>().ok().filter(|number| *number < steps.len());
    let id = format!("\"{text}\"");
    let found = number.or_else(|| steps.iter().position(|step| step.label.ends_with(&id)));
    found.ok_or_else(|| {
        let labels: Vec<&str> = steps.iter().map(|step| step.label.as_str()).collect();
        let hint = format!("its steps are {}", labels.join(", "));
        Failure::sentence(format!("run `{}` has no step `{text}`", record.header.id), Some(&hint))
    })
}
