//! All automation of this workspace: `cargo xtask <command>`.

mod bench;
mod ci;
mod codegen;
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
    Bench(bench::Bench),
    /// Apply the project's own containers.kdl through the library API.
    Images {
        /// Only say what would happen.
        #[arg(long)]
        plan: bool,
    },
}

fn main() -> ExitCode {
    let root = workspace_root();
    let result = match Arguments::parse().task {
        Task::Ci => ci::ci(&root),
        Task::Tidy => tidy::tidy(&root),
        Task::Codegen(codegen) => codegen.run(&root),
        Task::New(new) => new.create(&root),
        Task::E2e { filter } => ci::e2e(&root, filter.as_deref()),
        Task::Bench(bench) => bench.run(&root),
        Task::Images { plan } => images::images(&root, plan),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
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
