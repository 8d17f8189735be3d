//! `ctk prune`: remove what does not run.

use clap::Args;

use super::{Desk, each, is_over};
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Remove all containers that do not run
#[derive(Args)]
pub struct Prune {
    /// Only those: `until=DURATION`, `label=NAME[=VALUE]`, `label!=NAME[=VALUE]`
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Nobody is asked; accepted because fingers know it
    #[arg(short, long, hide = true)]
    force: bool,
}

impl Prune {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        desk.containers.clean()?;
        let filters = super::ps::filters(&self.filter)?;
        let mut chosen = Vec::new();
        for (container, config, state) in desk.all()? {
            if is_over(&state) && filters.iter().all(|filter| filter.takes(&config, &state)) {
                chosen.push(container);
            }
        }
        each(&chosen, |container| {
            desk.remove(container, false, 0, true)?;
            output(&format!("{}\n", container.id()))
        })
    }
}
