//! `ctk pipeline graph`: which step waits for which.

use clap::{Args, ValueEnum};
use ctk_pipeline::project::Steps;

use super::FileArgs;
use crate::commands::output;
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
        let found = super::project::find(context, self.file.file.as_deref(), &[])?;
        let file = match found {
            None => self.file,
            Some((session, decl)) => match decl.steps {
                Steps::Own(job) => {
                    let steps = job.tasks.iter().map(|task| (task.number, task.id.as_deref(), task.needs.as_slice()));
                    return output(&self.format.of(|format| ctk_pipeline::job_graph(&job, format), steps)?);
                }
                Steps::CloudBuild { file, substitutions } => {
                    self.file.of(session.directory().join(file), &substitutions)
                }
            },
        };
        file.look()?.show(context, |plan| {
            let steps = plan.steps.iter().map(|step| (step.number, step.id.as_deref(), step.waits_for.as_slice()));
            self.format.of(|format| ctk_pipeline::graph(plan, format), steps)
        })
    }
}

impl Format {
    /// The drawing that `draw` makes, or the steps with their numbers, ids and waits.
    fn of<'a>(
        self,
        draw: impl FnOnce(ctk_pipeline::Format) -> String,
        steps: impl Iterator<Item = (usize, Option<&'a str>, &'a [usize])>,
    ) -> Result<String, Failure> {
        let format = match self {
            Format::Text => ctk_pipeline::Format::Text,
            Format::Dot => ctk_pipeline::Format::Dot,
            Format::Mermaid => ctk_pipeline::Format::Mermaid,
            Format::Json => {
                let step =
                    |(number, id, waits_for)| serde_json::json!({ "number": number, "id": id, "waits_for": waits_for });
                let steps: Vec<_> = steps.map(step).collect();
                return Ok(serde_json::to_string_pretty(&steps)? + "\n");
            }
        };
        Ok(draw(format))
    }
}
