//! `ctk run`: a command in a new container. In the foreground its exit code is ours.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use clap::Args;
use ctk_monitor::protocol::{Exit, Streams};
use ctk_monitor::{Attached, Ending};

use super::make::make;
use super::options::MakeOptions;
use super::{Desk, detach_keys};
use crate::commands::output;
use crate::context::Context;
use crate::failure::{Failure, code};

/// Run a command in a new container
#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    options: MakeOptions,
    /// Let it run, and print its id
    #[arg(short, long)]
    detach: bool,
    /// Be attached to these only: `stdin`, `stdout`, `stderr`
    #[arg(short, long, value_name = "STREAM", conflicts_with = "detach")]
    attach: Vec<String>,
    /// Say nothing of fetching the image
    #[arg(short, long)]
    quiet: bool,
    /// The keys that let it run and give the terminal back
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: String,
    /// Whether signals that we get are passed on
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// An image, by a name in the store or in a registry, or `image:NAME` of the project; then a command and its
    /// arguments, instead of the image's. Whatever stands behind the image is the command's.
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND]")]
    words: Vec<String>,
}

/// The command line, as `inspect` shows it.
pub fn asked() -> serde_json::Value {
    std::env::args().collect::<Vec<_>>().into()
}

impl Run {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let refused = |failure: Failure| match failure {
            Failure::Interrupted => Failure::Interrupted,
            failure => {
                eprint!("{}", failure.text());
                Failure::Exit(code::RUN_FAILED)
            }
        };
        if self.quiet {
            context.be_quiet();
        }
        let desk = Desk::open(context);
        let keys = detach_keys(&self.detach_keys).map_err(refused)?;
        if self.options.process.tty && !self.detach && !std::io::stdin().is_terminal() {
            let hint = Some("leave --tty out");
            return Err(refused(Failure::sentence("--tty needs a terminal on standard input", hint)));
        }
        let streams = self.streams().map_err(refused)?;
        let (image, command) = self.words.split_first().expect("clap requires one");
        let made = make(context, &desk, &self.options, image, None, command, asked()).map_err(refused)?;
        super::start::required(&desk, &made.config).map_err(refused)?;
        // Whatever comes from now on is for the container.
        let signals = match self.detach || !self.sig_proxy {
            true => None,
            false => Some(super::attach::hold_signals().map_err(refused)?),
        };
        let started = ctk_monitor::start(&made.container, &desk.program, streams);
        let (client, answer) = match started {
            Ok(started) => started,
            Err(error) => {
                let exit = match &error {
                    ctk_monitor::Error::Refused { code, .. } => *code,
                    _ => code::RUN_FAILED,
                };
                eprint!("{}", Failure::from(error).text());
                return Err(Failure::Exit(exit));
            }
        };
        super::start::warn(&answer);
        let Some(streams) = streams else { return output(&format!("{}\n", made.config.id)) };
        let (input, out, err) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let at = Attached {
            input: streams.input.then(|| input.as_fd()),
            output: out.as_fd(),
            error: err.as_fd(),
            terminal: self.options.process.tty,
            detach_keys: if self.options.process.tty { &keys } else { &[] },
            signals: signals.as_ref(),
        };
        ended(client.sit(&at).map_err(|error| refused(error.into()))?)
    }

    /// What we are attached to; none in the background.
    fn streams(&self) -> Result<Option<Streams>, Failure> {
        if self.detach {
            return Ok(None);
        }
        let process = &self.options.process;
        let size = process.tty.then(|| ctk_monitor::window(std::io::stdin().as_fd())).flatten();
        let mut streams = Streams { input: process.interactive, output: true, error: true, size };
        if !self.attach.is_empty() {
            let known = ["stdin", "stdout", "stderr"];
            if let Some(word) = self.attach.iter().find(|word| !known.contains(&word.to_ascii_lowercase().as_str())) {
                let what = format!("--attach `{word}` is none of stdin, stdout, stderr");
                return Err(Failure::sentence(what, None));
            }
            let has = |name: &str| self.attach.iter().any(|word| word.eq_ignore_ascii_case(name));
            streams.input = has("stdin");
            streams.output = has("stdout");
            streams.error = has("stderr");
        }
        Ok(Some(streams))
    }
}

/// An ending as an exit code.
pub fn ended(ending: Ending) -> Result<(), Failure> {
    let Ending::Exited(Exit { code, out_of_memory, out_of_time }) = ending else { return Ok(()) };
    if out_of_memory {
        eprintln!("ctk: the container ran out of memory");
    }
    if out_of_time {
        eprintln!("ctk: the container ran longer than --timeout allows");
    }
    match code {
        0 => Ok(()),
        code => Err(Failure::Exit(code as u8)),
    }
}
