//! `ctk pipeline carry-out`: the child that does a step's command. It ends with the process that started it.

use std::io::Write;
use std::os::unix::process::CommandExt;

use clap::Args;
use ctk_pipeline::run::native::Order;
use ctk_pipeline::run::storage;

use crate::commands::output;
use crate::failure::Failure;

/// Carry out what a step asks of our own programs
#[derive(Args)]
pub struct CarryOut {
    /// What, as JSON
    order: String,
}

impl CarryOut {
    pub fn run(self) -> Result<(), Failure> {
        let order: Order = serde_json::from_str(&self.order)?;
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        match order {
            Order::Become { words } => {
                let Some((program, rest)) = words.split_first() else {
                    return Err(Failure::sentence("there is nothing to carry out", None));
                };
                let file = if program == "ctk" { "/proc/self/exe" } else { program.as_str() };
                let mut command = std::process::Command::new(file);
                let error = command.arg0(program).args(rest).exec();
                Err(Failure::during(format!("cannot run `{program}`"))(error))
            }
            Order::Fetch(fetch) => match storage::fetch(&fetch) {
                Ok(bytes) => match &fetch.output {
                    Some(path) => std::fs::write(path, bytes).map_err(Failure::during(format!("cannot write {path}"))),
                    None => Ok(std::io::stdout().lock().write_all(&bytes)?),
                },
                Err((code, why)) => {
                    eprintln!("error: cannot fetch {}: {why}", fetch.url);
                    Err(Failure::Exit(u8::try_from(code).unwrap_or(1)))
                }
            },
            Order::Storage { storage, mapping } => {
                let say = |line: String| drop(output(&(line + "\n")));
                storage::carry_out(&storage, &mapping, &say).map_err(|why| Failure::sentence(why, None))
            }
        }
    }
}
