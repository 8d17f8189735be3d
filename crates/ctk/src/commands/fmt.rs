//! `ctk fmt`: one layout for all project files.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use ctk_syntax::Sources;

use super::output;
use super::project::ProjectArgs;
use crate::context::Context;
use crate::failure::Failure;

/// Format project files; comments stay
#[derive(Args)]
pub struct Fmt {
    /// Files to format [default: the project's file and what it includes]
    files: Vec<PathBuf>,
    /// Only say which files would change, and exit with 1 if any would
    #[arg(long)]
    check: bool,
}

impl Fmt {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let mut files = self.files.clone();
        if files.is_empty() {
            let main = ProjectArgs::default().find()?;
            let folder = main.parent().map(PathBuf::from).unwrap_or_default();
            // A project with mistakes can be formatted all the same, file by file.
            match ProjectArgs::default().open(context) {
                Ok(session) => files.extend(session.project().files.iter().map(|file| folder.join(file))),
                Err(_) => files.push(main),
            }
        }
        let mut changed = Vec::new();
        for path in files {
            let failed = |verb: &str, e: std::io::Error| {
                Failure::sentence(format!("cannot {verb} {}: {e}", path.display()), None)
            };
            let text = ctk_store::read_given_text(&path).map_err(|e| failed("read", e))?;
            let mut sources = Sources::new();
            let id = sources.add(path.display().to_string(), text.clone());
            let formatted = match ctk_project::format(&mut sources, id) {
                Ok(formatted) => formatted,
                Err(mistakes) => return Err(Failure::Explained(mistakes.render(&sources, context.color()))),
            };
            if formatted == text {
                continue;
            }
            if !self.check {
                // Beside and renamed: an interrupted format loses nothing.
                let part = path.with_extension(format!("part-{}", std::process::id()));
                let kept = fs::metadata(&path).map_err(|e| failed("read", e))?.permissions();
                fs::write(&part, formatted).map_err(|e| failed("write", e))?;
                fs::set_permissions(&part, kept).map_err(|e| failed("write", e))?;
                fs::rename(&part, &path).map_err(|e| failed("write", e))?;
            }
            changed.push(path);
        }
        output(&changed.iter().map(|path| format!("{}\n", path.display())).collect::<String>())?;
        if self.check && !changed.is_empty() { Err(Failure::Exit(1)) } else { Ok(()) }
    }
}
