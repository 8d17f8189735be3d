//! `ctk create`: a container that is made and not started.

use clap::Args;

use super::Desk;
use super::make::make;
use super::options::MakeOptions;
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Make a container without starting it
#[derive(Args)]
pub struct Create {
    #[command(flatten)]
    options: MakeOptions,
    /// A name in the store or in a registry, or `image:NAME` of the project
    image: String,
    /// The command and its arguments, instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Create {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let made = make(context, &desk, &self.options, &self.image, &self.command, super::run::asked())?;
        output(&format!("{}\n", made.config.id))
    }
}
