//! The seam to whoever can run a process inside the new root.

/// One process to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptCommand {
    /// Program, looked up in the root by absolute path, and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// What it reads on standard input.
    pub stdin: Vec<u8>,
}

/// How the process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptOutput {
    /// Exit code; 128 + signal for a killed one.
    pub code: i32,
    /// Standard output and standard error together, in order.
    pub output: Vec<u8>,
}

/// Runs processes inside the new root: root user, `/` is the root, `/proc`, `/dev` (null, zero, full, random, urandom,
/// tty, fd) and a writable `/tmp` are there, no network needed. What it mounts is gone afterwards; between two
/// runs this crate writes into the root, so an overlay is mounted anew for each run.
pub trait RunInRoot: Sync {
    /// Runs `command` to its end. An error means that nothing could be run; a failing process is no error.
    fn run(&self, command: &ScriptCommand) -> Result<ScriptOutput, Box<dyn std::error::Error + Send + Sync>>;
}

/// What to do with maintainer scripts.
#[derive(Clone, Copy, Default)]
pub enum Scripts<'a> {
    /// Run them in the new root.
    Run(&'a dyn RunInRoot),
    /// Files only; packages that have something to configure are marked `unpacked`.
    #[default]
    None,
}
