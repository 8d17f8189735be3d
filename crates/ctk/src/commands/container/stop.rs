//! `ctk stop`: ask containers to end, and kill them if they do not.

use clap::Args;

use super::parse::number;
use super::{Desk, each, is_alive};
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Stop running containers
#[derive(Args)]
pub struct Stop {
    /// How long they may take, in seconds [default: their own]
    #[arg(short, long, value_name = "SECONDS", visible_alias = "timeout", value_parser = number::<u64>)]
    time: Option<u64>,
    /// Ask by this signal [default: their own]
    #[arg(short, long, value_name = "SIGNAL", value_parser = super::parse::signal)]
    signal: Option<i32>,
    /// No error for a container that is not there
    #[arg(short, long)]
    ignore: bool,
    /// All that run
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Which: names or ids
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

impl Stop {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let there = |name: &String| !self.ignore || desk.containers.find(name).is_ok();
        let names: Vec<String> = self.containers.iter().filter(|name| there(name)).cloned().collect();
        let chosen = desk.chosen(&names, self.all, is_alive)?;
        // All at once: each may take its whole time.
        let results: Vec<Result<String, String>> = std::thread::scope(|scope| {
            let desk = &desk;
            let (signal, time) = (self.signal, self.time);
            let stop = |container| {
                move || -> Result<String, String> {
                    let name = ctk_monitor::Container::config(container).map(|config| config.name);
                    desk.stop(container, signal, time).map_err(|failure| failure.text())?;
                    name.map_err(|error| error.line())
                }
            };
            let threads: Vec<_> = chosen.iter().map(|container| scope.spawn(stop(container))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(String::new()))).collect()
        });
        let mut results = results.into_iter();
        each(&chosen, |_| match results.next() {
            Some(Ok(name)) => output(&format!("{name}\n")),
            Some(Err(text)) => Err(Failure::Explained(text)),
            None => Ok(()),
        })
    }
}
