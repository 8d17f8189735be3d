//! `ctk graph`: what needs what.

use clap::{Args, ValueEnum};

use super::output;
use super::project::ProjectArgs;
use crate::context::Context;
use crate::failure::Failure;

/// Show what needs what
#[derive(Args)]
pub struct Graph {
    #[command(flatten)]
    project: ProjectArgs,
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
}

impl Graph {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let session = self.project.open(context)?;
        let format = match self.format {
            Format::Text => ctk_project::Format::Text,
            Format::Dot => ctk_project::Format::Dot,
            Format::Mermaid => ctk_project::Format::Mermaid,
        };
        output(&ctk_project::graph(session.project(), format))
    }
}
