//! `--debug`: a shell on our terminal where a step failed.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, Weak};

use ctk_apply::{Debugger, Shell};
use ctk_plan::Sink;

use crate::context::Context;
use crate::failure::Failure;

/// Our terminal, used by one shell at a time. Results may go elsewhere: what the shell shows goes to standard error.
pub struct Terminal {
    /// Not held: the story ends with its last holder.
    sink: Weak<dyn Sink>,
    one: Mutex<()>,
}

impl Terminal {
    /// The terminal that we have; an error if there is none.
    pub fn open(context: &Context) -> Result<Arc<dyn Debugger + Send>, Failure> {
        for (name, there) in
            [("standard input", std::io::stdin().is_terminal()), ("standard error", std::io::stderr().is_terminal())]
        {
            if !there {
                let hint = "run it in a terminal, or leave `--debug` out: a failed step says its last lines";
                let text = format!("`--debug` opens a shell, and {name} is no terminal");
                return Err(Failure::sentence(text, Some(hint)));
            }
        }
        Ok(Arc::new(Terminal { sink: Arc::downgrade(&context.sink()), one: Mutex::new(()) }))
    }
}

impl Debugger for Terminal {
    fn failed(&self, failure: &str, shell: &mut Shell<'_>) {
        let Ok(_one) = self.one.lock() else { return };
        let sink = self.sink.upgrade();
        let pause = |paused| sink.iter().for_each(|sink| sink.pause(paused));
        pause(true);
        eprint!("{failure}");
        eprintln!("A shell in the state before this step; what it changes is thrown away, `exit` ends it.");
        if let Err(error) = shell(std::io::stdin().as_fd(), std::io::stderr().as_fd()) {
            eprint!("{}", Failure::from(error).text());
        }
        pause(false);
    }
}
