//! `ctk update`: move lock file entries to what their names mean now, and show the difference.

use clap::Args;

use super::output;
use super::project::WorkArgs;
use crate::context::Context;
use crate::failure::Failure;

/// Move lock file entries to what their names mean now
#[derive(Args)]
pub struct Update {
    /// Only entries of these addresses, groups or patterns [default: all]
    addresses: Vec<String>,
    #[command(flatten)]
    work: WorkArgs,
    /// Only show the difference
    #[arg(long)]
    dry_run: bool,
}

impl Update {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let session = self.work.open(context)?;
        let only = context.explain(session.select(&self.addresses))?;
        let cancel = context.cancel_on_interrupt();
        let sink = context.sink();
        let changes = session.update(&only, self.dry_run, sink, &cancel);
        context.end_story();
        let changes = context.explain(changes)?;
        if changes.is_empty() {
            return output("every entry is as it was\n");
        }
        output(&changes.iter().map(|change| format!("{change}\n")).collect::<String>())
    }
}
