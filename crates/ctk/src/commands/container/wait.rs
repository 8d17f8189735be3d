//! `ctk wait`: until containers end, or are well.

use std::time::Duration;

use clap::{Args, ValueEnum};
use ctk_monitor::Container;
use ctk_monitor::protocol::{Request, Until};

use super::{Desk, each};
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Wait until containers end, and print their exit codes
#[derive(Args)]
pub struct Wait {
    /// For what
    #[arg(long, value_enum, default_value_t = Condition::Stopped)]
    condition: Condition,
    /// Not longer than this, e.g. `30s`
    #[arg(long, value_name = "DURATION", value_parser = super::parse::duration)]
    timeout: Option<Duration>,
    /// Which: names or ids
    #[arg(required = true)]
    containers: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Condition {
    /// It has ended, and will not be started again.
    #[value(alias = "exited", alias = "not-running")]
    Stopped,
    /// Its health check succeeds.
    Healthy,
    /// It is gone.
    Removed,
}

impl Wait {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let chosen = desk.chosen(&self.containers, false, |_| true)?;
        each(&chosen, |container| self.one(&desk, container))
    }

    fn one(&self, desk: &Desk, container: &Container) -> Result<(), Failure> {
        let (state, client) = desk.connect(container)?;
        let until = match self.condition {
            Condition::Healthy => Until::Healthy,
            Condition::Stopped | Condition::Removed => Until::Exited,
        };
        let code = match client {
            Some(mut client) => {
                let request = Request::Wait { until };
                let answer = match self.timeout {
                    None => client.request(&request),
                    Some(limit) => client.request_within(&request, limit),
                };
                match answer {
                    Ok(answer) => answer.code,
                    Err(error) if !container.is_locked() && until == Until::Exited => match container.state() {
                        Ok(state) => state.exit_code,
                        Err(_) => return Err(error.into()),
                    },
                    Err(ctk_monitor::Error::Conversation { .. }) if self.timeout.is_some() => {
                        let what = "it took longer than --timeout allows";
                        return Err(Failure::sentence(what, None));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            None if until == Until::Healthy => {
                let what = format!("container {} is {}", self.containers.join(" "), state.status.word());
                return Err(Failure::sentence(what, None));
            }
            None => state.exit_code,
        };
        if self.condition == Condition::Removed {
            while container.directory().exists() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        output(&format!("{code}\n"))
    }
}
