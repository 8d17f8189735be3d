//! `ctk tags`: the tags of a repository.

use clap::Args;

use super::output;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// List the tags of a repository
#[derive(Args)]
pub struct Tags {
    /// `HOST/REPOSITORY`
    repository: String,
}

impl Tags {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let repository = context.full_name(&self.repository, &cancel)?;
        let tags = context.client().tags(&repository, &cancel).map_err(of_client)?;
        output(&tags.iter().map(|tag| format!("{tag}\n")).collect::<String>())
    }
}
