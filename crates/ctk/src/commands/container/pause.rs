//! `ctk pause` and `ctk unpause`: containers whose processes stand still.

use clap::Args;
use ctk_monitor::state::Status;

use super::{Desk, each};
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Have all processes of containers stand still
#[derive(Args)]
pub struct Pause {
    /// All that run
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Which: names or ids
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

/// Let them go on
#[derive(Args)]
pub struct Unpause {
    /// All that stand still
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Which: names or ids
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

impl Pause {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        freeze(context, &self.containers, self.all, true)
    }
}

impl Unpause {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        freeze(context, &self.containers, self.all, false)
    }
}

fn freeze(context: &Context, names: &[String], all: bool, frozen: bool) -> Result<(), Failure> {
    let desk = Desk::open(context);
    let wanted = if frozen { Status::Running } else { Status::Paused };
    let chosen = desk.chosen(names, all, |state| state.status == wanted)?;
    each(&chosen, |container| {
        let config = container.config()?;
        let state = desk.settle(container)?;
        if state.status != wanted {
            let what = format!("container {} is {}, not {}", config.name, state.status.word(), wanted.word());
            return Err(Failure::sentence(what, None));
        }
        ctk_monitor::freeze(container, frozen)?;
        let what = if frozen { "pause" } else { "unpause" };
        ctk_monitor::events::tell(desk.containers.root(), &config, what, &[]);
        output(&format!("{}\n", config.name))
    })
}
