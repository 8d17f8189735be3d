//! `ctk login`: credentials, tried on the registry and kept where docker and podman find them too.

use std::io::{BufRead, IsTerminal, Read, Write};

use clap::Args;
use ctk_client::{Credentials, LoginPlace, Secret};

use super::output;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// Remember credentials for a registry
#[derive(Args)]
pub struct Login {
    /// The registry's host, with its port if it has one
    host: String,
    /// The user's name [default: asked for]
    #[arg(short, long)]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
}

impl Login {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let terminal = std::io::stdin().is_terminal();
        if !terminal && !self.password_stdin {
            return Err(Failure::sentence(
                "there is no terminal to ask on",
                Some("use --username and --password-stdin"),
            ));
        }
        let username = match self.username {
            Some(username) => username,
            None if self.password_stdin => {
                return Err(Failure::sentence("--password-stdin needs --username", None));
            }
            None => ask("Username: ", false)?,
        };
        let password = if self.password_stdin {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text)?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        } else {
            ask("Password: ", true)?
        };
        let credentials = Credentials::Basic { user: username, password: Secret::new(password) };
        let place = match context.client().login(&self.host, &credentials, &cancel).map_err(of_client)? {
            LoginPlace::File(path) => path.display().to_string(),
            LoginPlace::Helper(name) => format!("the credential helper {name}"),
        };
        output(&format!("logged in to {}; kept in {place}\n", self.host))
    }
}

/// Asks on the terminal; a secret is not shown.
fn ask(question: &str, secret: bool) -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    eprint!("{question}");
    std::io::stderr().flush()?;
    let shown = tcgetattr(&stdin)?;
    if secret {
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if secret {
        tcsetattr(&stdin, OptionalActions::Flush, &shown)?;
        eprintln!();
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
