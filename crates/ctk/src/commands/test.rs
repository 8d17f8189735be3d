//! `ctk test`: apply, cut to the project's tests and what they need.

use clap::Args;
use ctk_plan::Kind;

use super::apply::{Ask, Outputs, carry_out};
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
    /// Do it even if nothing changed
    #[arg(long)]
    force: bool,
    /// Use no earlier result of a build
    #[arg(long)]
    no_cache: bool,
    /// Write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<std::path::PathBuf>,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

impl Test {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let session = self.work.open(context)?;
        let only = context.explain(session.select_kind(Kind::Test, &self.names))?;
        let ask = Ask { only, force: self.force, no_cache: self.no_cache, kind: Some(Kind::Test) };
        carry_out(context, &session, ask, &Outputs { junit: self.junit, json: self.json })
    }
}
