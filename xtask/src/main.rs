//! All automation of this workspace: `cargo xtask <command>`.

#[cfg(feature = "whole")]
mod bench;
mod ci;
mod codegen;
#[cfg(feature = "whole")]
mod images;
mod new;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "All automation of this workspace")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must be green: format, lints, tidy, tests, documentation, end-to-end cases.
    Ci,
    /// Check the rules that the compiler cannot: rings, leaf tables, file sizes, error pages.
    Tidy,
    /// Write the pages that are made from the code: commands, error codes, outputs of examples.
    Codegen(codegen::Codegen),
    /// Start a new leaf: one file and its line in the folder's table.
    New(new::New),
    /// Build the release binary and run the end-to-end cases with it.
    E2e {
        /// Only cases whose name contains this.
        filter: Option<String>,
    },
    /// Compare with the peers installed on this machine and print the table of docs/performance.md.
    #[cfg(feature = "whole")]
    Bench(bench::Bench),
    /// Compare with the peers installed on this machine and print the table of docs/performance.md.
    #[cfg(not(feature = "whole"))]
    #[command(disable_help_flag = true)]
    Bench(Words),
    /// Apply the project's own containers.kdl through the library API.
    #[cfg(feature = "whole")]
    Images {
        /// Only say what would happen.
        #[arg(long)]
        plan: bool,
    },
    /// Apply the project's own containers.kdl through the library API.
    #[cfg(not(feature = "whole"))]
    #[command(disable_help_flag = true)]
    Images(Words),
}

/// Whatever was said: for the program with all tasks.
#[cfg(not(feature = "whole"))]
#[derive(clap::Args)]
struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _words: Vec<String>,
}

fn main() -> ExitCode {
    let root = workspace_root();
    let result = match Arguments::parse().task {
        Task::Ci => ci::ci(&root),
        Task::Tidy => tidy::tidy(&root),
        Task::Codegen(codegen) => codegen.run(&root),
        Task::New(new) => new.create(&root),
        Task::E2e { filter } => ci::e2e(&root, filter.as_deref()),
        #[cfg(feature = "whole")]
        Task::Bench(bench) => bench.run(&root),
        #[cfg(feature = "whole")]
        Task::Images { plan } => images::images(&root, plan),
        #[cfg(not(feature = "whole"))]
        Task::Bench(_) | Task::Images(_) => whole(&root),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The same task by the program that has all.
#[cfg(not(feature = "whole"))]
fn whole(root: &Path) -> Result<(), String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(["run", "--quiet", "--package", "xtask", "--features", "whole", "--"]);
    run(command.args(std::env::args_os().skip(1)))
}

/// The folder of the workspace's `Cargo.toml`.
fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace").to_path_buf()
}

/// Runs `command` and says what failed.
fn run(command: &mut Command) -> Result<(), String> {
    let line = describe(command);
    eprintln!("xtask: {line}");
    let status = command.status().map_err(|error| format!("cannot run {line}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{line}: {status}")) }
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
