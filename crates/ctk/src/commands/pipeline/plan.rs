//! `ctk pipeline plan`: what each step becomes.

use clap::Args;
use ctk_pipeline::project::Steps;

use super::FileArgs;
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Say what each step of a file, or of a pipeline of the project, becomes
#[derive(Args)]
pub struct Plan {
    #[command(flatten)]
    file: FileArgs,
    /// For programs: one JSON document
    #[arg(long)]
    json: bool,
}

impl Plan {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let found = super::project::find(context, self.file.file.as_deref(), &[])?;
        if let Some((session, decl)) = found {
            return match decl.steps {
                Steps::Own(job) if self.json => output(&(serde_json::to_string_pretty(&job.tasks)? + "\n")),
                Steps::Own(job) => output(&super::project::text(&job)),
                Steps::CloudBuild { file, substitutions } => {
                    let file = self.file.of(session.directory().join(file), &substitutions);
                    Plan { file, json: self.json }.run(context)
                }
            };
        }
        self.file.look()?.show(context, |plan| match self.json {
            true => Ok(serde_json::to_string_pretty(plan)? + "\n"),
            false => Ok(ctk_pipeline::text(plan)),
        })
    }
}
