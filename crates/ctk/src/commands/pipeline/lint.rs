//! `ctk pipeline lint`: every mistake of a file at once.

use clap::Args;
use serde_json::json;

use super::FileArgs;
use crate::commands::output;
use crate::context::Context;
use crate::failure::{Failure, code};

/// Find every mistake of a file
#[derive(Args)]
pub struct Lint {
    #[command(flatten)]
    file: FileArgs,
    /// For programs: one JSON document on standard output, whether there are mistakes or not
    #[arg(long)]
    json: bool,
    /// Warnings fail, too
    #[arg(long)]
    strict: bool,
}

impl Lint {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let looked = self.file.look()?;
        let fails = looked.diagnostics.has_errors() || self.strict && !looked.diagnostics.is_empty();
        if self.json {
            let reports: Vec<_> = looked.diagnostics.iter().map(|one| one.report(&looked.sources)).collect();
            let steps = looked.plan.as_ref().map(|plan| plan.steps.len());
            let document = json!({ "file": looked.name, "steps": steps, "diagnostics": reports });
            output(&(serde_json::to_string_pretty(&document)? + "\n"))?;
            return if fails { Err(Failure::Exit(code::FAILURE)) } else { Ok(()) };
        }
        let said = looked.diagnostics.render(&looked.sources, context.color());
        if fails {
            return Err(Failure::Explained(said));
        }
        eprint!("{said}");
        let steps = looked.plan.map_or(0, |plan| plan.steps.len());
        let warnings = looked.diagnostics.len();
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let end = match warnings {
            0 => "no mistakes".to_owned(),
            count => format!("{count} warning{}", plural(count)),
        };
        output(&format!("{}: {steps} step{}, {end}\n", looked.name, plural(steps)))
    }
}
