//! What all commands that read a project file share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use ctk_apply::{Options, Session};

use crate::context::Context;
use crate::failure::Failure;

/// The name that is looked for, here and in the folders above.
pub const PROJECT_FILE: &str = "containers.kdl";

/// Which project, and its variables.
#[derive(Args, Clone, Default)]
pub struct ProjectArgs {
    /// The project file [default: containers.kdl here or in a folder above]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Set a variable of the project
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    pub vars: Vec<(String, String)>,
}

/// How a plan or an apply is made.
#[derive(Args, Clone, Default)]
pub struct WorkArgs {
    #[command(flatten)]
    pub project: ProjectArgs,
    /// Add nothing to the lock file; a missing entry is an error
    #[arg(long)]
    pub locked: bool,
    /// Things done at once [default: the number of CPUs]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
}

/// `NAME=VALUE`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() { Err("expected NAME=VALUE".into()) } else { Ok((name.into(), value.into())) }
}

impl ProjectArgs {
    /// Where the project file is.
    pub fn find(&self) -> Result<PathBuf, Failure> {
        if let Some(file) = &self.file {
            return Ok(if file.is_dir() { file.join(PROJECT_FILE) } else { file.clone() });
        }
        let here = std::env::current_dir()?;
        let found = here.ancestors().map(|folder| folder.join(PROJECT_FILE)).find(|path| path.is_file());
        found.ok_or_else(|| no_project(&here))
    }

    /// Opens the project.
    pub fn open(&self, context: &Context) -> Result<Session, Failure> {
        let options = Options { variables: self.variables(), ..context.options() };
        context.opened(Session::open(&self.find()?, options))
    }

    /// The variables given; the last value of a name counts.
    pub fn variables(&self) -> BTreeMap<String, String> {
        self.vars.iter().cloned().collect()
    }
}

impl WorkArgs {
    /// Opens the project.
    pub fn open(&self, context: &Context) -> Result<Session, Failure> {
        let mut options = Options { variables: self.project.variables(), locked: self.locked, ..context.options() };
        if let Some(jobs) = self.jobs {
            options.jobs = jobs.into();
        }
        context.opened(Session::open(&self.project.find()?, options))
    }
}

fn no_project(here: &Path) -> Failure {
    let text = format!("there is no {PROJECT_FILE} in {} or above it", here.display());
    Failure::sentence(text, Some("`ctk init` writes one"))
}
