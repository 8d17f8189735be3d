//! `ctk why`: every input behind a decision, and what changed for each step of a build.
//!
//! ```text
//! ctk why image:api           the image: its inputs, and the steps that have to run
//! ctk why image:api/build     the steps of one stage
//! ctk why image:api/build/3   one step, as progress lines number them: `[build 3/5]`
//! ```

use std::collections::BTreeSet;

use clap::Args;
use ctk_apply::Explained;
use ctk_plan::{Address, Kind};
use ctk_syntax::nearest;

use super::output;
use super::project::WorkArgs;
use crate::context::Context;
use crate::failure::Failure;

/// Say why a resource would change
#[derive(Args)]
pub struct Why {
    /// The resource; `image:NAME/STAGE` is a stage of an image, `image:NAME/STAGE/NUMBER` a step
    address: String,
    #[command(flatten)]
    work: WorkArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Why {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let session = self.work.open(context)?;
        let (word, part) = split(&session, &self.address);
        let only = context.explain(session.select(&[word]))?;
        let request = ctk_apply::Request { only: only.clone(), ..ctk_apply::Request::default() };
        let (plan, units) = context.explain(session.explain(&request))?;
        let mut explained = context.explain(session.explain_builds(&plan, &only))?;
        if let Some((stage, number)) = &part {
            is_there(&explained, stage, *number)?;
            explained = explained.iter().map(|all| all.part(stage, *number)).collect();
            return output(&match self.json {
                true => serde_json::to_string_pretty(&explained)? + "\n",
                false => explained.iter().map(ToString::to_string).collect(),
            });
        }
        let mut text = String::new();
        for address in &only {
            let (Some(planned), Some(unit)) = (plan.unit(address), units.iter().find(|unit| unit.address == *address))
            else {
                continue;
            };
            if self.json {
                let steps: Vec<_> = explained.iter().filter(|one| one.image == address.to_string()).collect();
                let value = serde_json::json!({
                    "unit": planned,
                    "inputs": unit.inputs,
                    "needs": unit.needs,
                    "explained": steps,
                });
                text += &(serde_json::to_string_pretty(&value)? + "\n");
                continue;
            }
            text += &format!("{} {address}\n", planned.mark());
            match planned.reasons.as_slice() {
                [] => text += "  nothing changed since it was applied\n",
                reasons => reasons.iter().for_each(|reason| text += &format!("  because {}\n", full(reason))),
            }
            for one in explained.iter().filter(|one| one.image == address.to_string()) {
                text += &one.to_string().lines().map(|line| format!("  {line}\n")).collect::<String>();
            }
            text += &format!("  fingerprint {}\n", planned.fingerprint);
            for need in &unit.needs {
                text += &format!("  needs {need}\n");
            }
            for (input, digest) in &unit.inputs {
                text += &format!("  {input} {digest}\n");
            }
        }
        output(&text)
    }
}

/// The address of an image, and of what follows its name the stage and the step. What is an address is nothing else.
fn split(session: &ctk_apply::Session, word: &str) -> (String, Option<(String, Option<usize>)>) {
    let is_image = |word: &str| {
        let name = word.strip_prefix("image:").unwrap_or(word);
        session.project().get(&Address::new(Kind::Image, name)).is_some()
    };
    let whole = (word.to_owned(), None);
    if is_image(word) {
        return whole;
    }
    let Some((before, last)) = word.rsplit_once('/') else { return whole };
    if is_image(before) {
        return (before.to_owned(), Some((last.to_owned(), None)));
    }
    match (before.rsplit_once('/'), last.parse()) {
        (Some((image, stage)), Ok(number)) if is_image(image) => {
            (image.to_owned(), Some((stage.to_owned(), Some(number))))
        }
        _ => whole,
    }
}

/// An error if no image that is explained has the stage, or the stage the step.
fn is_there(explained: &[Explained], stage: &str, number: Option<usize>) -> Result<(), Failure> {
    let waits = explained.iter().any(|one| !one.waits.is_empty());
    // Of a Dockerfile that is to be fetched nothing is known.
    if waits && explained.iter().all(|one| one.stages.is_empty()) {
        return Ok(());
    }
    let image = explained.first().map_or("", |one| one.image.as_str());
    let stages: Vec<_> = explained.iter().flat_map(|one| &one.stages).collect();
    let Some((stage, _)) = stages.iter().find(|(name, _)| name.eq_ignore_ascii_case(stage)) else {
        let near = nearest(stage, stages.iter().map(|(name, _)| name.as_str()));
        let hint = near.map(|near| format!("did you mean `{near}`?")).or_else(|| {
            let names: BTreeSet<_> = stages.iter().map(|(name, _)| format!("`{name}`")).collect();
            let names: Vec<_> = names.into_iter().collect();
            (!names.is_empty()).then(|| format!("there are {}", names.join(", ")))
        });
        let what = if waits { "has" } else { "needs" };
        return Err(Failure::sentence(format!("`{stage}` is no stage that `{image}` {what}"), hint.as_deref()));
    };
    let numbers: BTreeSet<_> = stages.iter().filter(|(name, _)| name == stage).flat_map(|(_, all)| *all).collect();
    match number {
        Some(number) if !waits && !numbers.contains(&number) => {
            let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
            let hint = format!("its steps are {}", numbers.join(", "));
            Err(Failure::sentence(format!("stage `{stage}` of `{image}` has no step {number}"), Some(&hint)))
        }
        _ => Ok(()),
    }
}

/// A reason with everything behind it, not only the first.
fn full(reason: &ctk_plan::Reason) -> String {
    match reason {
        ctk_plan::Reason::InputChanged { changes } => {
            changes.iter().map(|change| change.to_string()).collect::<Vec<_>>().join("\n          ")
        }
        other => other.to_string(),
    }
}
