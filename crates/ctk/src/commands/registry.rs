//! `ctk registry`: the embedded registry, for good instead of only while an apply runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use ctk_plan::Kind;
use ctk_registry::{Access, ServeOptions, serve};

use super::output;
use super::project::ProjectArgs;
use crate::context::Context;
use crate::failure::Failure;

/// Requests under way when the server is stopped have so long to end.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The embedded registry
#[derive(Args)]
pub struct Registry {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until interrupted
    Serve(Serve),
}

/// Serve until interrupted
#[derive(Args)]
pub struct Serve {
    /// A registry of the project; not needed with --listen and --storage
    name: Option<String>,
    /// Address and port
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Folder of its blobs and manifests
    #[arg(long, value_name = "FOLDER")]
    storage: Option<PathBuf>,
    /// Only for users of this file of `user:bcrypt-hash` lines
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// Refuse deletions
    #[arg(long)]
    no_delete: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

impl Registry {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let Command::Serve(command) = self.command;
        let mut options = match (command.listen, &command.storage) {
            (Some(listen), Some(storage)) if command.name.is_none() => ServeOptions::new(listen, storage),
            (listen, storage) => {
                let session = command.project.open(context)?;
                let names: Vec<String> = command.name.clone().into_iter().collect();
                let chosen = context.explain(session.select_kind(Kind::Registry, &names))?;
                let mut registries = session.registries().filter(|(address, _)| chosen.contains(*address));
                let (Some((_, declared)), None) = (registries.next(), registries.next()) else {
                    let hint = "name one registry of the project, or give --listen and --storage";
                    return Err(Failure::sentence("it is not clear which registry to serve", Some(hint)));
                };
                let mut options = declared.serve_options();
                options.listen = listen.unwrap_or(options.listen);
                options.storage = storage.clone().unwrap_or(options.storage);
                options
            }
        };
        if let Some(file) = command.htpasswd {
            options.access = Access::Htpasswd(file);
        }
        options.delete = options.delete && !command.no_delete;
        let cancel = context.cancel_on_interrupt();
        let server = serve(options)?;
        output(&format!("serving on {}\n", server.local_addr()))?;
        while !cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(50));
        }
        server.shutdown(STOP_GRACE);
        Ok(())
    }
}
