//! `ctk update`: move lock file entries to what their names mean now, and show the difference; or, with limits,
//! change those of containers.

use clap::Args;
use ctk_monitor::config::Restart;

use super::container::{self, options::LimitOptions};
use super::output;
use super::project::WorkArgs;
use crate::context::Context;
use crate::failure::Failure;

/// Move lock file entries to what their names mean now; or change limits of containers
#[derive(Args)]
pub struct Update {
    /// Only entries of these addresses, groups or patterns [default: all]; with limits, these containers
    addresses: Vec<String>,
    #[command(flatten)]
    work: WorkArgs,
    /// Only show the difference
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    limits: LimitOptions,
    /// Another restart policy of containers: `no`, `on-failure[:TIMES]`, `always`, `unless-stopped`
    #[arg(long, value_name = "POLICY", value_parser = container::parse::restart)]
    restart: Option<Restart>,
}

impl Update {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        if self.restart.is_some() || !container::limits::resources(&self.limits)?.is_empty() {
            return container::update::update(context, &self.addresses, &self.limits, self.restart);
        }
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
