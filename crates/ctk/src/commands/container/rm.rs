//! `ctk rm`: remove containers.

use clap::Args;

use super::parse::number;
use super::{Desk, each, is_over};
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Remove containers
#[derive(Args)]
pub struct Rm {
    /// Stop and remove those that run, too; no error for one that is not there
    #[arg(short, long)]
    force: bool,
    /// How long they may take to end, in seconds, with --force
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10, visible_alias = "timeout", value_parser = number::<u64>)]
    time: u64,
    /// Remove their anonymous volumes, too
    #[arg(short, long)]
    volumes: bool,
    /// No error for a container that is not there
    #[arg(short, long)]
    ignore: bool,
    /// All that do not run; with --force, all
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Which: names or ids
    #[arg(required_unless_present = "all", value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Rm {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        if self.all {
            let chosen = desk.chosen(&[], true, |state| self.force || is_over(state))?;
            return each(&chosen, |container| self.remove(&desk, container));
        }
        let mut failed = false;
        for name in &self.containers {
            let result = match desk.containers.find(name) {
                Err(ctk_monitor::Error::Missing { .. }) if self.force || self.ignore => Ok(()),
                Err(error @ ctk_monitor::Error::Missing { .. }) => {
                    // Images were removed by this word once.
                    let image = context.store().ok().and_then(|store| context.find(&store, name).ok().flatten());
                    let hint = match image {
                        Some(_) => format!("there is an image of that name; `ctk rmi {name}` removes it"),
                        None => "`ctk ps --all` lists them".into(),
                    };
                    Err(Failure::sentence(error.to_string(), Some(&hint)))
                }
                Err(error) => Err(error.into()),
                Ok(container) => self.remove(&desk, &container),
            };
            if let Err(failure) = result {
                eprint!("{}", failure.text());
                failed = true;
            }
        }
        if failed { Err(Failure::Exit(1)) } else { Ok(()) }
    }

    fn remove(&self, desk: &Desk, container: &ctk_monitor::Container) -> Result<(), Failure> {
        let name = container.config()?.name;
        desk.remove(container, self.force, self.time, self.volumes)?;
        output(&format!("{name}\n"))
    }
}
