//! `ctk tags`: the tags of a repository.

use clap::Args;
use ctk_push::sync::{Requirement, Selection};

use super::output;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// List the tags of a repository
#[derive(Args)]
pub struct Tags {
    /// `HOST/REPOSITORY`
    repository: String,
    /// Only those that fit one of these, with `*`, `?` and `[…]`
    #[arg(value_name = "PATTERN")]
    patterns: Vec<String>,
    /// None that fits this; may be repeated
    #[arg(long, value_name = "PATTERN")]
    not: Vec<String>,
    /// Only versions that fit: `>=1.2, <2`, `^1`, `~1.2`
    #[arg(long, value_name = "REQUIREMENT", value_parser = requirement)]
    semver: Option<Requirement>,
    /// Only so many, the newest by version
    #[arg(long, value_name = "N")]
    newest: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn requirement(text: &str) -> Result<Requirement, String> {
    Requirement::parse(text)
}

impl Tags {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let repository = context.full_name(&self.repository, &cancel)?;
        let mut tags = context.client().tags(&repository, &cancel).map_err(of_client)?;
        let selects =
            !self.patterns.is_empty() || !self.not.is_empty() || self.semver.is_some() || self.newest.is_some();
        if selects {
            let (semver, newest) = (self.semver, self.newest);
            let selection = Selection { tags: self.patterns, not: self.not, regex: None, semver, newest };
            tags = selection.select(&tags).map_err(|reason| {
                Failure::sentence(
                    format!("no tags of `{}/{}`: {reason}", repository.registry(), repository.repository()),
                    None,
                )
            })?;
        }
        if self.json {
            return output(&(serde_json::to_string_pretty(&tags)? + "\n"));
        }
        output(&tags.iter().map(|tag| format!("{tag}\n")).collect::<String>())
    }
}
