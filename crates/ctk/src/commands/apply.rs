//! `ctk apply`: make what the project file declares so. Twice in a row does nothing the second time.

use std::collections::BTreeSet;

use clap::Args;
use ctk_apply::{Applied, ApplyError, Besides, Explained, Explanations, Request, Session, UnitFailure};
use ctk_check::Report;
use ctk_plan::{Action, Address, Kind, Plan};
use serde_json::{Value, json};

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
    #[command(flatten)]
    again: Again,
    #[command(flatten)]
    outputs: Outputs,
}

impl Apply {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let session = self.work.open(context)?;
        let only = context.explain(session.select(&self.targets))?;
        carry_out(
            context,
            &session,
            Ask { only, again: self.again, kind: None, besides: Besides::default() },
            &self.outputs,
        )
    }
}

/// What is carried out.
pub struct Ask {
    /// Only these and what they need; everything if empty.
    pub only: BTreeSet<Address>,
    /// What is done again.
    pub again: Again,
    /// `build`, `test` and `push` force only their own kind.
    pub kind: Option<Kind>,
    /// What is done besides.
    pub besides: Besides,
}

/// What is done although its result is there.
#[derive(Args, Clone, Copy, Default)]
pub struct Again {
    /// Do it even if nothing changed
    #[arg(long)]
    pub force: bool,
    /// Use no earlier result of a build
    #[arg(long)]
    pub no_cache: bool,
}

/// Where results go besides the summary.
#[derive(Args, Clone, Default)]
pub struct Outputs {
    /// Write the results of tests as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<std::path::PathBuf>,
    /// Say of every build which steps ran, and what changed
    #[arg(long)]
    pub explain: bool,
    /// Print what was done as JSON
    #[arg(long)]
    pub json: bool,
    /// Whether standard output is somebody else's, who writes data to it: the summary is no part of that.
    #[arg(skip)]
    pub aside: bool,
}

/// Applies, tells the story, and says in one line what was done.
pub fn carry_out(context: &Context, session: &Session, ask: Ask, outputs: &Outputs) -> Result<(), Failure> {
    let started = std::time::Instant::now();
    let explain = outputs.explain.then(Explanations::default);
    let mut request = Request {
        only: ask.only,
        no_cache: ask.again.no_cache,
        besides: ask.besides,
        explain: explain.clone(),
        ..Request::default()
    };
    if ask.again.force || ask.again.no_cache || request.besides.verify {
        let named = |address: &Address| request.only.is_empty() || request.only.contains(address);
        let of_kind = |address: &Address| ask.kind.is_none_or(|kind| kind == address.kind);
        let addresses = session.project().resources.iter().map(|resource| &resource.address);
        request.force = addresses.filter(|address| named(address) && of_kind(address)).cloned().collect();
    }
    let plan = context.explain(session.plan(&request))?;
    if !plan.has_changes() {
        context.explain(session.restore_names(&plan))?;
        return report(session, &Applied::nothing(plan), started, outputs);
    }
    let cancel = context.cancel_on_interrupt();
    let sink = context.sink();
    let applied = session.apply(&request, sink, &cancel);
    context.end_story();
    let explained = explain.map(|explain| explain.take()).unwrap_or_default();
    if !outputs.json {
        explained.iter().for_each(|explained| eprint!("{explained}"));
    }
    match applied {
        Ok(applied) if outputs.json => tell(
            session,
            &applied.plan,
            &applied.reports,
            outputs,
            with(json!({ "published": applied.published }), &explained, outputs),
        ),
        Ok(applied) => report(session, &applied, started, outputs),
        Err(error) => {
            let more = with(json!({ "failures": failures(&error) }), &explained, outputs);
            tell(session, &plan, error.reports(), outputs, more)?;
            context.explain(Err(error))
        }
    }
}

fn report(session: &Session, applied: &Applied, started: std::time::Instant, outputs: &Outputs) -> Result<(), Failure> {
    let more = with(json!({ "published": applied.published }), &[], outputs);
    tell(session, &applied.plan, &applied.reports, outputs, more)?;
    if outputs.json {
        return Ok(());
    }
    let ran = applied.plan.units.iter().filter(|unit| unit.action == Action::Run).count();
    let kept = applied.plan.units.len() - ran;
    let took = duration(started.elapsed().as_secs_f64());
    let name = &session.project().name;
    let text = match ran {
        0 => format!("{name}: nothing to do, {kept} unchanged ({took})\n"),
        _ => format!("{name}: {ran} done, {kept} unchanged ({took})\n"),
    };
    if outputs.aside {
        eprint!("{text}");
        return Ok(());
    }
    output(&text)
}

/// Writes what programs read: every test's report, also of those that passed earlier, and the plan with `more`.
fn tell(session: &Session, plan: &Plan, ran: &[Report], outputs: &Outputs, more: Value) -> Result<(), Failure> {
    if outputs.junit.is_none() && !outputs.json {
        return Ok(());
    }
    let mut reports = session.kept_reports(plan).map_err(|error| Failure::Explained(error.explain(false)))?;
    reports.extend(ran.iter().cloned());
    if let Some(path) = &outputs.junit {
        let attempt = format!("cannot write {}", path.display());
        std::fs::write(path, ctk_check::junit(&session.project().name, &reports)).map_err(Failure::during(attempt))?;
    }
    if outputs.json {
        let mut told = json!({ "units": plan.units, "tests": reports });
        if let (Some(told), Value::Object(more)) = (told.as_object_mut(), more) {
            told.extend(more);
        }
        output(&(serde_json::to_string_pretty(&told)? + "\n"))?;
    }
    Ok(())
}

/// `value` with what builds said of themselves, if that was asked for.
fn with(mut value: Value, explained: &[Explained], outputs: &Outputs) -> Value {
    if outputs.explain {
        value["explained"] = json!(explained);
    }
    value
}

/// What failed, as data.
fn failures(error: &ApplyError) -> Vec<Value> {
    let ApplyError::Failed { failures, .. } = error else { return Vec::new() };
    let one = |failure: &UnitFailure| json!({ "address": failure.address, "code": failure.code, "text": failure.text });
    failures.iter().map(one).collect()
}
