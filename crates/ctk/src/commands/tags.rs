//! `ctk tags`: the tags of a repository.

use clap::Args;
use ctk_oci::Reference;

use super::output;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// List the tags of a repository
#[derive(Args)]
pub struct Tags {
    /// `HOST/REPOSITORY`
    repository: Reference,
}

impl Tags {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let tags = context.client().tags(&self.repository, &cancel).map_err(of_client)?;
        output(&tags.iter().map(|tag| format!("{tag}\n")).collect::<String>())
    }
}
