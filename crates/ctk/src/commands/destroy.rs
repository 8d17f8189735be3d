//! `ctk destroy`: stop what `ctk apply` started.

use clap::Args;
use ctk_plan::Kind;

use super::output;
use super::project::WorkArgs;
use crate::context::Context;
use crate::failure::Failure;

/// Stop and remove the services of the project
#[derive(Args)]
pub struct Destroy {
    /// Only these services [default: all, and those that the file declares no more]
    services: Vec<String>,
    #[command(flatten)]
    work: WorkArgs,
}

impl Destroy {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let session = self.work.open(context)?;
        let only = match self.services.is_empty() {
            true => std::collections::BTreeSet::new(),
            false => context.explain(session.select_kind(Kind::Service, &self.services))?,
        };
        let gone = context.explain(session.destroy(&only))?;
        if only.is_empty() {
            super::network::remove_of_project(context, &session.project().name)?;
        }
        if gone.is_empty() {
            return output("nothing runs\n");
        }
        output(&gone.iter().map(|name| format!("{name}\n")).collect::<String>())
    }
}
