//! `ctk artifact`: files in registries, alone or attached to an image.

mod attach;
mod files;
mod pull;
mod push;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::failure::Failure;

/// Files in registries, alone or attached to an image
#[derive(Args)]
pub struct Artifact {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Push files under a name of their own
    Push(push::Push),
    /// Push files that refer to an image: its SBOM, signature, report
    Attach(attach::Attach),
    /// Fetch the files of an artifact into a folder
    Pull(pull::Pull),
}

impl Artifact {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            Command::Push(push) => push.run(context),
            Command::Attach(attach) => attach.run(context),
            Command::Pull(pull) => pull.run(context),
        }
    }
}
