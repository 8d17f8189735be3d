//! `ctk pipeline graph`: which step waits for which.

use clap::{Args, ValueEnum};

use super::FileArgs;
use crate::context::Context;
use crate::failure::Failure;

/// Show which step waits for which
#[derive(Args)]
pub struct Graph {
    #[command(flatten)]
    file: FileArgs,
    /// For whom
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For Graphviz.
    Dot,
    /// For Markdown renderers.
    Mermaid,
    /// For programs: steps and edges.
    Json,
}

impl Graph {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        self.file.look()?.show(context, |plan| self.format.of(plan))
    }
}

impl Format {
    fn of(self, plan: &ctk_pipeline::Plan) -> Result<String, Failure> {
        let format = match self {
            Format::Text => ctk_pipeline::Format::Text,
            Format::Dot => ctk_pipeline::Format::Dot,
            Format::Mermaid => ctk_pipeline::Format::Mermaid,
            Format::Json => {
                let steps: Vec<_> = plan
                    .steps
                    .iter()
                    .map(
                        |step| serde_json::json!({ "number": step.number, "id": step.id, "waits_for": step.waits_for }),
                    )
                    .collect();
                return Ok(serde_json::to_string_pretty(&steps)? + "\n");
            }
        };
        Ok(ctk_pipeline::graph(plan, format))
    }
}
