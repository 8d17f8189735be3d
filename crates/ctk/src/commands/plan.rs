//! `ctk plan`: what apply would do, and why. Changes nothing.

use clap::Args;
use ctk_plan::Action;

use super::output;
use super::project::WorkArgs;
use crate::context::Context;
use crate::failure::{Failure, code};

/// Say what apply would do, and why
#[derive(Args)]
pub struct Plan {
    #[command(flatten)]
    work: WorkArgs,
    /// Only these addresses, groups or patterns, and what they need
    #[arg(short, long = "target", value_name = "ADDRESS")]
    targets: Vec<String>,
    /// Say of every build which steps would run, and what changed
    #[arg(long)]
    explain: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Exit with 0 if there is nothing to do, with 2 if there is
    #[arg(long)]
    detailed_exitcode: bool,
}

impl Plan {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let session = self.work.open(context)?;
        let only = context.explain(session.select(&self.targets))?;
        let request = ctk_apply::Request { only, ..ctk_apply::Request::default() };
        let plan = context.explain(session.plan(&request))?;
        let mut explained = Vec::new();
        if self.explain {
            let run = plan.units.iter().filter(|unit| unit.action == Action::Run);
            let images = run.map(|unit| unit.address.clone()).collect();
            explained = context.explain(session.explain_builds(&plan, &images))?;
        }
        if self.json {
            let mut told = serde_json::to_value(&plan)?;
            if self.explain {
                told["explained"] = serde_json::to_value(&explained)?;
            }
            output(&(serde_json::to_string_pretty(&told)? + "\n"))?;
        } else if plan.has_changes() {
            output(&plan.to_string())?;
        } else {
            output(&format!("{plan}nothing to do\n"))?;
        }
        if !self.json {
            output(&explained.iter().map(|explained| format!("\n{explained}")).collect::<String>())?;
        }
        if self.detailed_exitcode && plan.has_changes() { Err(Failure::Exit(code::CHANGES)) } else { Ok(()) }
    }
}
