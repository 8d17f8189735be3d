//! `ctk init`: a project file that fits what is here.

use std::fs;
use std::path::{Path, PathBuf};

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
        fs::write(&path, ctk_project::starter(&facts(&folder)))?;
        output(&format!("wrote {}\n", path.display()))
    }
}

/// What stands in the folder.
fn facts(folder: &Path) -> Facts {
    let has = |name: &str| folder.join(name).is_file();
    let name = folder.file_name().map_or("project".into(), |name| name.to_string_lossy().into_owned());
    // The package's name is the binary's, unless the manifest says otherwise; a virtual manifest has none.
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    let package = manifest.split("[package]").nth(1).unwrap_or_default();
    let cargo = package.lines().find_map(|line| {
        let value = line.trim().strip_prefix("name")?.trim_start().strip_prefix('=')?;
        Some(value.trim().trim_matches('"').to_owned())
    });
    Facts { name, dockerfile: has("Dockerfile"), cargo, package_json: has("package.json"), go_mod: has("go.mod") }
}
