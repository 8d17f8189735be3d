//! `ctk init`: a project file that fits what is here.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use ctk_project::Facts;

use super::output;
use super::project::PROJECT_FILE;
use crate::context::Context;
use crate::failure::Failure;

/// Write a containers.kdl that fits this folder
#[derive(Args)]
pub struct Init {
    /// The folder
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

impl Init {
    pub fn run(self, _context: &Context) -> Result<(), Failure> {
        let path = self.folder.join(PROJECT_FILE);
        if path.exists() && !self.force {
            let text = format!("{} is there already", path.display());
            return Err(Failure::sentence(text, Some("edit it, or replace it with --force")));
        }
        let folder = self.folder.canonicalize()?;
        let facts = Facts::of(&names(&folder)?, folder.file_name().and_then(|name| name.to_str()));
        fs::write(&path, ctk_project::starter(&facts))?;
        output(&format!("wrote {}\n", path.display()))
    }
}

fn names(folder: &std::path::Path) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}
