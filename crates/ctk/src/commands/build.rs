//! `ctk build`: apply, cut to the project's images and what they need.

use clap::Args;
use ctk_plan::Kind;

use super::apply::{Ask, Outputs, carry_out};
use super::project::WorkArgs;
use crate::context::Context;
use crate::failure::Failure;

/// What `ctk build` takes
#[derive(Args)]
pub struct Build {
    /// Names or addresses of images [default: all]
    #[arg(value_name = "IMAGE")]
    names: Vec<String>,
    #[command(flatten)]
    work: WorkArgs,
    /// Do it even if nothing changed
    #[arg(long)]
    force: bool,
    /// Use no earlier result of a build
    #[arg(long)]
    no_cache: bool,
}

impl Build {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let session = self.work.open(context)?;
        let only = context.explain(session.select_kind(Kind::Image, &self.names))?;
        let ask = Ask { only, force: self.force, no_cache: self.no_cache, kind: Some(Kind::Image) };
        carry_out(context, &session, ask, &Outputs::default())
    }
}
