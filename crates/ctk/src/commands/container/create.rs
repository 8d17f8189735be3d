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
    pub options: MakeOptions,
    /// An image, by a name in the store or in a registry, or `image:NAME` of the project; then a command and its
    /// arguments, instead of the image's. Whatever stands behind the image is the command's.
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND]")]
    pub words: Vec<String>,
}

impl Create {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let (image, command) = self.words.split_first().expect("clap requires one");
        let made = make(context, &desk, &self.options, image, None, command, super::run::asked())?;
        output(&format!("{}\n", made.config.id))
    }
}
