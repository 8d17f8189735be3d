//! `ctk test`: apply, cut to the project's tests and what they need.

use clap::Args;
use ctk_apply::Besides;
use ctk_plan::Kind;

use super::apply::{Again, Ask, Outputs, carry_out};
use super::project::WorkArgs;
use crate::context::Context;
use crate::failure::Failure;

/// What `ctk test` takes
#[derive(Args)]
pub struct Test {
    /// Names or addresses of tests [default: all]
    #[arg(value_name = "TEST")]
    names: Vec<String>,
    #[command(flatten)]
    work: WorkArgs,
    #[command(flatten)]
    again: Again,
    #[command(flatten)]
    outputs: Outputs,
}

impl Test {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let session = self.work.open(context)?;
        let only = context.explain(session.select_kind(Kind::Test, &self.names))?;
        let ask = Ask { only, again: self.again, kind: Some(Kind::Test), besides: Besides::default() };
        carry_out(context, &session, ask, &self.outputs)
    }
}
