//! `ctk pipeline prune`: records of old runs go.

use std::time::Duration;

use clap::Args;

use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Remove records of old runs, with their logs and workspaces, and kept results of steps
#[derive(Args)]
pub struct Prune {
    /// Keep runs that ended within this time, e.g. `7d`
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "14d")]
    keep_age: Duration,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    ctk_syntax::parse_duration(text).ok_or_else(|| "expected a duration such as `12h` or `7d`".into())
}

impl Prune {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let gone = super::records(context).prune(self.keep_age, self.dry_run).map_err(super::of_run)?;
        if !self.dry_run {
            super::remove_containers(context, &gone)?;
        }
        output(&gone.iter().map(|id| format!("{id}\n")).collect::<String>())
    }
}
