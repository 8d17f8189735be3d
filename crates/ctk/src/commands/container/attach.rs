//! `ctk attach`: sit at the streams of a container that runs.

use std::os::fd::{AsFd, OwnedFd};

use clap::Args;
use ctk_monitor::protocol::{Request, Streams};
use ctk_monitor::{Attached, Client};

use super::{Desk, detach_keys};
use crate::context::Context;
use crate::failure::Failure;

/// Sit at the standard streams of a running container
#[derive(Args)]
pub struct Attach {
    /// The keys that let it run and give the terminal back
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: String,
    /// Do not pass standard input on
    #[arg(long)]
    no_stdin: bool,
    /// Whether signals that we get are passed on
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Which: a name or an id
    container: String,
}

/// From now on signals are read from a file.
pub fn hold_signals() -> Result<OwnedFd, Failure> {
    Ok(ctk_monitor::hold_signals()?)
}

impl Attach {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let keys = detach_keys(&self.detach_keys)?;
        let container = desk.find(&self.container)?;
        let (state, client) = desk.connect(&container)?;
        let config = container.config()?;
        let Some(mut client) = client else {
            let what = format!("container {} is {}, so there is nothing to sit at", config.name, state.status.word());
            return Err(Failure::sentence(what, Some(&format!("`ctk start --attach {}`", config.name))));
        };
        sit(&mut client, &config, !self.no_stdin, self.sig_proxy, &keys, |client, streams| {
            client.request(&Request::Attach(streams)).map(drop)
        })
        .and_then(|at| at.run(client))
    }
}

/// Where we sit.
pub struct Seat<'a> {
    input: bool,
    terminal: bool,
    keys: &'a [u8],
    signals: Option<OwnedFd>,
}

/// Takes a seat: `ask` asks the monitor for it.
pub fn sit<'a>(
    client: &mut Client,
    config: &ctk_monitor::Config,
    input: bool,
    sig_proxy: bool,
    keys: &'a [u8],
    ask: impl FnOnce(&mut Client, Streams) -> Result<(), ctk_monitor::Error>,
) -> Result<Seat<'a>, Failure> {
    let terminal = config.terminal;
    let input = input && config.interactive;
    let signals = sig_proxy.then(hold_signals).transpose()?;
    let size = terminal.then(|| ctk_monitor::window(std::io::stdin().as_fd())).flatten();
    ask(client, Streams { input, output: true, error: true, size })?;
    Ok(Seat { input, terminal, keys: if terminal { keys } else { &[] }, signals })
}

impl Seat<'_> {
    /// Sits until the container ends or we go.
    pub fn run(self, client: Client) -> Result<(), Failure> {
        let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let at = Attached {
            input: self.input.then(|| input.as_fd()),
            output: output.as_fd(),
            error: error.as_fd(),
            terminal: self.terminal,
            detach_keys: self.keys,
            signals: self.signals.as_ref(),
        };
        super::run::ended(client.sit(&at)?)
    }
}
