//! `ctk build`: apply, cut to the project's images and what they need.

use clap::Args;
use ctk_plan::Kind;

use super::apply::{Again, Ask, Outputs, carry_out};
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
    #[command(flatten)]
    again: Again,
}

impl Build {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let session = self.work.open(context)?;
        let only = context.explain(session.select_kind(Kind::Image, &self.names))?;
        let ask = Ask { only, again: self.again, kind: Some(Kind::Image) };
        carry_out(context, &session, ask, &Outputs::default())
    }
}
