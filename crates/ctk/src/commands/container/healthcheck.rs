//! `ctk healthcheck run`: a health check at once.

use clap::{Args, Subcommand};
use ctk_monitor::protocol::Request;

use super::Desk;
use crate::context::Context;
use crate::failure::Failure;

/// Check the health of a container now
#[derive(Args)]
pub struct Healthcheck {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the container's check now: exit code 0 when it is well, else 1
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// Which: a name or an id
    container: String,
}

impl Healthcheck {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let Command::Run(Run { container: name }) = self.command;
        let desk = Desk::open(context);
        let container = desk.find(&name)?;
        let (state, client) = desk.connect(&container)?;
        let Some(mut client) = client else {
            let what = format!("container {name} is {}, so it cannot be checked", state.status.word());
            return Err(Failure::sentence(what, Some(&format!("`ctk start {name}`"))));
        };
        let answer = client.request(&Request::Check)?;
        if answer.code == 0 {
            return Ok(());
        }
        if !answer.text.is_empty() {
            eprintln!("{}", answer.text.trim_end());
        }
        eprintln!("unhealthy");
        Err(Failure::Exit(1))
    }
}
