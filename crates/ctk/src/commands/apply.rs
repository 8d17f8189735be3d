//! `ctk apply`: make what the project file declares so. Twice in a row does nothing the second time.

use std::collections::BTreeSet;

use clap::Args;
use ctk_apply::{Applied, Request, Session};
use ctk_plan::{Action, Address, Kind};

use super::output;
use super::project::WorkArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::report::duration;

/// Make what the project file declares so
#[derive(Args)]
pub struct Apply {
    #[command(flatten)]
    work: WorkArgs,
    /// Only these addresses, groups or patterns, and what they need
    #[arg(short, long = "target", value_name = "ADDRESS")]
    targets: Vec<String>,
    /// Do it even if nothing changed
    #[arg(long)]
    force: bool,
    /// Use no earlier result of a build
    #[arg(long)]
    no_cache: bool,
    /// Write the results of tests as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<std::path::PathBuf>,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

impl Apply {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let session = self.work.open(context)?;
        let only = context.explain(session.select(&self.targets))?;
        let outputs = Outputs { junit: self.junit, json: self.json };
        carry_out(context, &session, Ask { only, force: self.force, no_cache: self.no_cache, kind: None }, &outputs)
    }
}

/// What is carried out.
pub struct Ask {
    /// Only these and what they need; everything if empty.
    pub only: BTreeSet<Address>,
    /// Even if nothing changed.
    pub force: bool,
    /// Without earlier results of builds.
    pub no_cache: bool,
    /// `build`, `test` and `push` force only their own kind.
    pub kind: Option<Kind>,
}

/// Where results go besides the summary.
#[derive(Default)]
pub struct Outputs {
    /// JUnit XML of the tests.
    pub junit: Option<std::path::PathBuf>,
    /// JSON to standard output.
    pub json: bool,
}

/// Applies, tells the story, and says in one line what was done.
pub fn carry_out(context: &Context, session: &Session, ask: Ask, outputs: &Outputs) -> Result<(), Failure> {
    let started = std::time::Instant::now();
    let mut request = Request { only: ask.only, no_cache: ask.no_cache, ..Request::default() };
    if ask.force || ask.no_cache {
        let named = |address: &Address| request.only.is_empty() || request.only.contains(address);
        let of_kind = |address: &Address| ask.kind.is_none_or(|kind| kind == address.kind);
        let addresses = session.project().resources.iter().map(|resource| &resource.address);
        request.force = addresses.filter(|address| named(address) && of_kind(address)).cloned().collect();
    }
    let plan = context.explain(session.plan(&request))?;
    if !plan.has_changes() {
        return report(session, &Applied::nothing(plan), started, outputs);
    }
    let cancel = context.cancel_on_interrupt();
    let sink = context.sink();
    let applied = session.apply(&request, sink, &cancel);
    context.end_story();
    match applied {
        Ok(applied) => report(session, &applied, started, outputs),
        Err(error) => {
            if let Some(path) = &outputs.junit {
                write_junit(path, session, error.reports())?;
            }
            context.explain(Err(error))
        }
    }
}

fn report(session: &Session, applied: &Applied, started: std::time::Instant, outputs: &Outputs) -> Result<(), Failure> {
    if let Some(path) = &outputs.junit {
        write_junit(path, session, &applied.reports)?;
    }
    if outputs.json {
        return output(&(serde_json::to_string_pretty(&applied.plan)? + "\n"));
    }
    let ran = applied.plan.units.iter().filter(|unit| unit.action == Action::Run).count();
    let kept = applied.plan.units.len() - ran;
    let took = duration(started.elapsed().as_secs_f64());
    let name = &session.project().name;
    match ran {
        0 => output(&format!("{name}: nothing to do, {kept} unchanged ({took})\n")),
        _ => output(&format!("{name}: {ran} done, {kept} unchanged ({took})\n")),
    }
}

fn write_junit(path: &std::path::Path, session: &Session, reports: &[ctk_check::Report]) -> Result<(), Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::sentence(format!("cannot write {}: {error}", path.display()), None);
    std::fs::write(path, ctk_check::junit(&session.project().name, reports)).map_err(|error| failed(&error))
}
