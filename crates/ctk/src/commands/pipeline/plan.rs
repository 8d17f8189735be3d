//! `ctk pipeline plan`: what each step becomes.

use clap::Args;

use super::FileArgs;
use crate::context::Context;
use crate::failure::Failure;

/// Say what each step of a file becomes
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
        self.file.look()?.show(context, |plan| match self.json {
            true => Ok(serde_json::to_string_pretty(plan)? + "\n"),
            false => Ok(ctk_pipeline::text(plan)),
        })
    }
}
