//! `ctk push`: push resources of the project, or an image of the store to a registry.

use clap::Args;
use ctk_apply::Besides;
use ctk_client::PushOptions;
use ctk_oci::Reference;
use ctk_plan::{Address, Kind, Reporter};

use super::apply::{Again, Ask, Outputs, carry_out};
use super::output;
use super::project::WorkArgs;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// Push an image from the store, or push resources of the project
#[derive(Args)]
pub struct Push {
    /// `push:NAME` of the project, or a name in the store [default: every push of the project]
    name: Option<String>,
    /// Where to, if it is not the image's own name
    to: Option<Reference>,
    #[command(flatten)]
    work: WorkArgs,
}

impl Push {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match &self.name {
            Some(name) if self.to.is_some() || !name.starts_with("push:") => self.push_image(context, name),
            _ => {
                let session = self.work.open(context)?;
                let names: Vec<String> = self.name.into_iter().collect();
                let only = context.explain(session.select_kind(Kind::Push, &names))?;
                let ask = Ask { only, again: Again::default(), kind: Some(Kind::Push), besides: Besides::default() };
                carry_out(context, &session, ask, &Outputs::default())
            }
        }
    }

    fn push_image(&self, context: &Context, name: &str) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let store = context.store()?;
        let (found, descriptor) = context.require(&store, name)?;
        let to = match &self.to {
            Some(to) => to.clone(),
            None => found.parse()?,
        };
        let to = to.or_latest();
        let reporter = Reporter::new(Address::new(Kind::Image, to.to_string()), context.sink());
        let step = reporter.step("push");
        let pushed = context.client().push(&to, &descriptor, &store, &PushOptions::default(), Some(&step), &cancel);
        let pushed = step.conclude(pushed);
        context.end_story();
        pushed.map_err(of_client)?;
        output(&format!("{to} {}\n", descriptor.digest))
    }
}
