//! `ctk why`: every input behind a decision.

use clap::Args;

use super::output;
use super::project::WorkArgs;
use crate::context::Context;
use crate::failure::Failure;

/// Say why a resource would change
#[derive(Args)]
pub struct Why {
    /// The resource
    address: String,
    #[command(flatten)]
    work: WorkArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Why {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let session = self.work.open(context)?;
        let only = context.explain(session.select(std::slice::from_ref(&self.address)))?;
        let request = ctk_apply::Request { only: only.clone(), ..ctk_apply::Request::default() };
        let (plan, units) = context.explain(session.explain(&request))?;
        let mut text = String::new();
        for address in &only {
            let (Some(planned), Some(unit)) = (plan.unit(address), units.iter().find(|unit| unit.address == *address))
            else {
                continue;
            };
            if self.json {
                let value = serde_json::json!({ "unit": planned, "inputs": unit.inputs, "needs": unit.needs });
                text += &(serde_json::to_string_pretty(&value)? + "\n");
                continue;
            }
            text += &format!("{} {address}\n", planned.mark());
            match planned.reasons.as_slice() {
                [] => text += "  nothing changed since it was applied\n",
                reasons => reasons.iter().for_each(|reason| text += &format!("  because {}\n", full(reason))),
            }
            text += &format!("  fingerprint {}\n", planned.fingerprint);
            for need in &unit.needs {
                text += &format!("  needs {need}\n");
            }
            for (input, digest) in &unit.inputs {
                text += &format!("  {input} {digest}\n");
            }
        }
        output(&text)
    }
}

/// A reason with everything behind it, not only the first.
fn full(reason: &ctk_plan::Reason) -> String {
    match reason {
        ctk_plan::Reason::InputChanged { changes } => {
            changes.iter().map(|change| change.to_string()).collect::<Vec<_>>().join("\n          ")
        }
        other => other.to_string(),
    }
}
