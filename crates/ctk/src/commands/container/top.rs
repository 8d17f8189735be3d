//! `ctk top`: the processes of a container.

use std::os::unix::process::CommandExt;

use clap::Args;

use super::Desk;
use crate::context::Context;
use crate::failure::Failure;

/// Show the processes of a container
#[derive(Args)]
pub struct Top {
    /// Which: a name or an id
    container: String,
    /// Options of ps [default: -ef]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS-OPTION")]
    options: Vec<String>,
}

impl Top {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let container = desk.find(&self.container)?;
        let state = desk.settle(&container)?;
        if state.pid == 0 {
            let what = format!("container {} is {}, and has no processes", self.container, state.status.word());
            return Err(Failure::sentence(what, None));
        }
        let config = container.config()?;
        let program = config.runtime.as_ref().unwrap_or(&desk.program);
        let mut command = std::process::Command::new(program);
        if config.runtime.is_none() {
            command.arg0("ctk-runtime");
        }
        command.arg("--root").arg(container.runtime_root()).arg("ps").arg(container.id());
        let error = command.args(&self.options).exec();
        Err(Failure::during(format!("cannot run {}", program.display()))(error))
    }
}
