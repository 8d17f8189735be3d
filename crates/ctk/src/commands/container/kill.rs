//! `ctk kill`: send signals.

use clap::Args;
use ctk_monitor::protocol::Request;

use super::{Desk, each, is_alive};
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Send a signal to running containers
#[derive(Args)]
pub struct Kill {
    /// Which signal
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = super::parse::signal)]
    signal: i32,
    /// All that run
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Which: names or ids
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

impl Kill {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let chosen = desk.chosen(&self.containers, self.all, is_alive)?;
        each(&chosen, |container| {
            let config = container.config()?;
            let (state, client) = desk.connect(container)?;
            let Some(mut client) = client else {
                let what = format!("container {} is {}, so nobody hears a signal", config.name, state.status.word());
                return Err(Failure::sentence(what, None));
            };
            client.request_within(&Request::Kill { signal: self.signal }, ctk_monitor::limits::ANSWER)?;
            output(&format!("{}\n", config.name))
        })
    }
}
