//! The command line: one file a command, one line here.

mod apply;
mod artifact;
mod build;
mod check;
pub mod container;
mod copy;
mod delete;
mod destroy;
mod fmt;
mod gc;
mod graph;
mod images;
mod init;
mod inspect;
mod load;
mod login;
mod logout;
mod network;
mod pipeline;
mod plan;
pub mod project;
mod pull;
mod push;
mod referrers;
mod registry;
mod rmi;
mod save;
mod sync;
mod tags;
mod test;
mod update;
mod why;

pub use build::advice;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

use crate::context::Context;
use crate::failure::Failure;
use crate::report::Progress;

/// Builds, runs, tests and pushes container images from one declarative file, without a daemon.
#[derive(Parser)]
#[command(name = "ctk", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Builds, runs, tests and pushes container images from one declarative file, without a daemon.
#[derive(Parser)]
#[command(name = "ctk", version, max_term_width = 100, arg_required_else_help = true)]
struct Help {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Shown,
}

impl Arguments {
    /// This process's; else help, or what is wrong with them.
    pub fn read() -> Result<Arguments, clap::Error> {
        Arguments::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayVersion => error,
            _ => Help::try_parse().err().unwrap_or(error),
        })
    }
}

/// What every command understands.
#[derive(Args)]
pub struct Global {
    /// The store's folder [default: /var/lib/ctk, or below $XDG_DATA_HOME for others than root]
    #[arg(long, global = true, env = "CTK_ROOT", value_name = "DIR", help_heading = "Global options")]
    pub root: Option<PathBuf>,
    /// How progress is told on standard error [default: auto, or what BUILDKIT_PROGRESS says]
    #[arg(long, global = true, env = "CTK_PROGRESS", value_enum, help_heading = "Global options")]
    pub progress: Option<Progress>,
    /// Registries' configuration: mirrors, insecure hosts [default: ctk's and containers' own files]
    #[arg(long, global = true, env = "CTK_REGISTRIES", value_name = "FILE", help_heading = "Global options")]
    pub registries: Option<PathBuf>,
    /// Working directory, as if started there
    #[arg(short = 'C', long = "directory", global = true, value_name = "DIR", help_heading = "Global options")]
    pub directory: Option<PathBuf>,
}

impl Global {
    /// Those for a store, and nothing else said.
    pub fn of_store(root: &std::path::Path) -> Global {
        Global { root: Some(root.to_owned()), progress: Some(Progress::Quiet), registries: None, directory: None }
    }
}

macro_rules! commands {
    ($($(#[$meta:meta])* $name:ident($type:ty);)*) => {
        // Only the options of the command that is meant are looked at: those of all cost a millisecond.
        /// What to do.
        #[derive(Subcommand)]
        #[command(defer = true)]
        pub enum Command {
            $($(#[$meta])* $name($type),)*
        }

        // The same for those who are to read it: so global options come last in a command's help.
        #[derive(Subcommand)]
        enum Shown {
            $($(#[$meta])* $name($type),)*
        }

        impl Command {
            /// Does it.
            pub fn run(self, context: &Context) -> Result<(), Failure> {
                match self { $(Command::$name(command) => command.run(context),)* }
            }
        }
    };
}

commands! {
    /// Write a containers.kdl that fits this folder
    Init(init::Init);
    /// Find every mistake of the project file
    Check(check::Check);
    /// Format project files; comments stay
    Fmt(fmt::Fmt);
    /// Show what needs what
    Graph(graph::Graph);
    /// Say what apply would do, and why
    Plan(plan::Plan);
    /// Make what the project file declares so
    Apply(apply::Apply);
    /// Stop and remove the services of the project
    Destroy(destroy::Destroy);
    /// Say why a resource would change
    Why(why::Why);
    /// Move lock file entries to what their names mean now; or change limits of containers
    Update(Box<update::Update>);
    /// Build images of the project, or a folder with a Dockerfile
    Build(Box<build::Build>);
    /// Run tests of the project
    Test(test::Test);
    /// Push an image from the store, or push resources of the project
    Push(push::Push);
    /// Pipelines: Cloud Build files as they are
    Pipeline(pipeline::Pipeline);
    /// Run a command in a new container
    Run(Box<container::run::Run>);
    /// Make a container without starting it
    Create(Box<container::create::Create>);
    /// List containers
    Ps(container::ps::Ps);
    /// Run a command in a running container
    Exec(container::exec::Exec);
    /// Show what a container wrote
    Logs(container::logs::Logs);
    /// Sit at the standard streams of a running container
    Attach(container::attach::Attach);
    /// Start containers that do not run
    Start(container::start::Start);
    /// Stop running containers
    Stop(container::stop::Stop);
    /// Stop containers if they run, and start them
    Restart(container::start::Restart);
    /// Send a signal to running containers
    Kill(container::kill::Kill);
    /// Have all processes of containers stand still
    Pause(container::pause::Pause);
    /// Let them go on
    Unpause(container::pause::Unpause);
    /// Wait until containers end, and print their exit codes
    Wait(container::wait::Wait);
    /// Show the processes of a container
    Top(container::top::Top);
    /// Show what containers use, again and again
    Stats(container::stats::Stats);
    /// Show where ports of containers are published
    Port(container::port::Port);
    /// Show what happens to containers
    Events(container::events::Events);
    /// Check the health of a container now
    Healthcheck(container::healthcheck::Healthcheck);
    /// Give a container another name
    Rename(container::rename::Rename);
    /// Remove containers
    Rm(container::rm::Rm);
    /// Remove all containers that do not run
    Prune(container::prune::Prune);
    /// Copy files between containers and the host
    Cp(container::cp::Cp);
    /// Show what a container changed of its image
    Diff(container::diff::Diff);
    /// Make an image of what a container changed
    Commit(container::commit::Commit);
    /// Write all files of a container as a tar archive
    Export(container::export::Export);
    /// Volumes: folders of containers that outlive them
    Volume(container::volume::Volumes);
    /// Secrets that containers are shown
    Secret(container::secrets::Secrets);
    /// Fetch an image into the store
    Pull(pull::Pull);
    /// Copy an image between registries, the store, layouts and archives
    Copy(copy::Copy);
    /// Copy many images from registry to registry, as a file lists them
    Sync(sync::Sync);
    /// List the tags of a repository
    Tags(tags::Tags);
    /// List what refers to an image: signatures, SBOMs, attestations
    Referrers(referrers::Referrers);
    /// Delete tags or manifests from a registry
    Delete(delete::Delete);
    /// Files in registries, alone or attached to an image
    Artifact(artifact::Artifact);
    /// Remember credentials for a registry
    Login(login::Login);
    /// Forget credentials of a registry
    Logout(logout::Logout);
    /// List the images of the store
    Images(images::Images);
    /// Show all about a container, or an image's manifest and config
    Inspect(inspect::Inspect);
    /// Remove names of images from the store
    Rmi(rmi::Rmi);
    /// Free what nothing needs any more
    Gc(gc::Gc);
    /// Read images from an OCI layout or a docker archive
    Load(load::Load);
    /// Write an image to an OCI layout or a docker archive
    Save(save::Save);
    /// Networks of containers
    Network(network::Network);
    /// The embedded registry
    Registry(registry::Registry);
}

/// What a command has to do with trees of images, whose files have many owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trees {
    /// Nothing.
    Untouched,
    /// It moves or removes those that are there.
    Handled,
    /// It makes some, or runs containers on them.
    Made,
}

impl Command {
    /// What it has to do with them.
    pub fn trees(&self) -> Trees {
        match self {
            Command::Apply(_) | Command::Build(_) | Command::Test(_) => Trees::Made,
            Command::Pipeline(pipeline) => pipeline.trees(),
            Command::Run(_) | Command::Create(_) | Command::Start(_) | Command::Restart(_) => Trees::Made,
            Command::Push(_) | Command::Pull(_) | Command::Copy(_) | Command::Save(_) | Command::Load(_) => {
                Trees::Handled
            }
            // Whoever looks at containers puts in order what killed monitors left, and so does who removes them.
            Command::Ps(_) | Command::Inspect(_) | Command::Stop(_) | Command::Wait(_) | Command::Stats(_) => {
                Trees::Handled
            }
            Command::Gc(_) | Command::Rm(_) | Command::Rmi(_) | Command::Prune(_) | Command::Destroy(_) => {
                Trees::Handled
            }
            // What is in containers and volumes has their owners.
            Command::Cp(_) | Command::Diff(_) | Command::Commit(_) | Command::Export(_) => Trees::Handled,
            Command::Volume(_) | Command::Secret(_) => Trees::Handled,
            _ => Trees::Untouched,
        }
    }
}

/// Results go to standard output. Whoever closed it no longer wants them.
pub fn output(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::sentence(format!("cannot write to standard output: {error}"), None))
        }
        _ => Ok(()),
    }
}

/// The full name under which the store keeps what the user calls `name`; a name without a host is local.
pub fn store_name(name: &str) -> Result<ctk_oci::Reference, Failure> {
    let first = name.split(['/', '@']).next().unwrap_or_default();
    let has_host = name.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let name = if has_host { name.to_owned() } else { format!("localhost/{name}") };
    Ok(name.parse::<ctk_oci::Reference>()?.or_latest())
}
