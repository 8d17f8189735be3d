//! `ctk start` and `ctk restart`: containers that do not run, and those that do.

use clap::Args;
use ctk_monitor::config::RestartPolicy;
use ctk_monitor::protocol::{Answer, Request};
use ctk_monitor::{Client, Config, Container};

use super::parse::number;
use super::{Desk, attach, detach_keys, each};
use crate::commands::output;
use crate::context::Context;
use crate::failure::Failure;

/// Start containers that do not run
#[derive(Args)]
pub struct Start {
    /// Sit at its standard streams
    #[arg(short, long)]
    attach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// The keys that let it run and give the terminal back
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: String,
    /// All that do not run
    #[arg(long, conflicts_with = "containers")]
    all: bool,
    /// All whose restart policy is `always`, and `unless-stopped` but for those that somebody stopped: at the start of
    /// the machine
    #[arg(long, conflicts_with_all = ["containers", "all"])]
    by_policy: bool,
    /// Which: names or ids
    #[arg(required_unless_present_any = ["all", "by_policy"])]
    containers: Vec<String>,
}

/// Stop containers if they run, and start them
#[derive(Args)]
pub struct Restart {
    /// How long they may take to end, in seconds [default: their own]
    #[arg(short, long, value_name = "SECONDS", visible_alias = "timeout", value_parser = number::<u64>)]
    time: Option<u64>,
    /// All of them
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// All that run
    #[arg(long, conflicts_with_all = ["containers", "all"])]
    running: bool,
    /// Which: names or ids
    #[arg(required_unless_present_any = ["all", "running"])]
    containers: Vec<String>,
}

/// Starts what a container needs.
pub fn required(desk: &Desk, config: &Config) -> Result<(), Failure> {
    let names = config.asked.get("requires").and_then(|names| names.as_array()).cloned().unwrap_or_default();
    for name in names.iter().filter_map(|name| name.as_str()) {
        let needed = desk.find(name)?;
        if !desk.settle(&needed)?.status.is_alive() {
            start(desk, &needed)?;
        }
    }
    Ok(())
}

/// Starts one in the background.
pub fn start(desk: &Desk, container: &Container) -> Result<(), Failure> {
    required(desk, &container.config()?)?;
    let (_, answer) = ctk_monitor::start(container, &desk.program, None)?;
    warn(&answer);
    Ok(())
}

/// What the runtime could not do as it was asked.
pub fn warn(answer: &Answer) {
    answer.text.lines().for_each(|line| eprintln!("warning: {line}"));
}

impl Start {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let chosen = match self.by_policy {
            true => desk
                .all()?
                .into_iter()
                .filter(|(_, config, state)| {
                    !state.status.is_alive()
                        && match config.restart.policy {
                            RestartPolicy::Always => true,
                            RestartPolicy::UnlessStopped => !state.stopped,
                            RestartPolicy::No | RestartPolicy::OnFailure => false,
                        }
                })
                .map(|(container, ..)| container)
                .collect(),
            false => desk.chosen(&self.containers, self.all, |state| !state.status.is_alive())?,
        };
        if self.attach || self.interactive {
            let [container] = chosen.as_slice() else {
                return Err(Failure::sentence("--attach is for one container at a time", None));
            };
            return self.sit(&desk, container);
        }
        each(&chosen, |container| {
            let config = container.config()?;
            if desk.settle(container)?.status.is_alive() {
                return output(&format!("{}\n", config.name));
            }
            start(&desk, container)?;
            output(&format!("{}\n", config.name))
        })
    }

    fn sit(&self, desk: &Desk, container: &Container) -> Result<(), Failure> {
        use ctk_monitor::protocol::Streams;
        use std::os::fd::AsFd;
        let keys = detach_keys(&self.detach_keys)?;
        let config = container.config()?;
        if let Some(mut client) = desk.connect(container)?.1 {
            let ask = |client: &mut Client, streams| client.request(&Request::Attach(streams)).map(drop);
            return attach::sit(&mut client, &config, self.interactive, true, &keys, ask)?.run(client);
        }
        required(desk, &config)?;
        let size = config.terminal.then(|| ctk_monitor::window(std::io::stdin().as_fd())).flatten();
        let input = self.interactive && config.interactive;
        let streams = Streams { input, output: true, error: true, size };
        let (mut client, answer) = ctk_monitor::start(container, &desk.program, Some(streams))?;
        warn(&answer);
        attach::sit(&mut client, &config, self.interactive, true, &keys, |_, _| Ok(()))?.run(client)
    }
}

impl Restart {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let running = self.running;
        let chosen = desk.chosen(&self.containers, self.all || running, |state| !running || state.status.is_alive())?;
        each(&chosen, |container| {
            let config = container.config()?;
            match desk.connect(container)?.1 {
                Some(mut client) => {
                    client.request(&Request::Stop { signal: None, seconds: self.time, again: true })?;
                }
                None => start(&desk, container)?,
            }
            output(&format!("{}\n", config.name))
        })
    }
}
