//! Scaffolds: a feature is a file and a line in its folder's table.

use std::fs;
use std::path::Path;

use clap::{Args, ValueEnum};

/// What to start.
#[derive(Args)]
pub struct New {
    /// The kind of leaf.
    kind: Leaf,
    /// Its name, in kebab-case; for an error page `area/name`.
    name: String,
}

/// The kinds of leaves.
#[derive(Clone, Copy, ValueEnum)]
enum Leaf {
    /// An instruction of the Dockerfile frontend.
    Instruction,
    /// An operation of the builder.
    Op,
    /// An assertion of tests.
    Assertion,
    /// A push target.
    Target,
    /// A command of the binary.
    Command,
    /// The page of an error code.
    Error,
}

impl Leaf {
    fn folder(self) -> &'static str {
        match self {
            Leaf::Instruction => "crates/ctk-dockerfile/src/instructions",
            Leaf::Op => "crates/ctk-build/src/ops",
            Leaf::Assertion => "crates/ctk-check/src/assertions",
            Leaf::Target => "crates/ctk-push/src/targets",
            Leaf::Command => "crates/ctk/src/commands",
            Leaf::Error => "docs/errors",
        }
    }
}

impl New {
    /// Writes the file and, for code, declares it in the folder's table. Refuses to overwrite.
    pub fn create(&self, root: &Path) -> Result<(), String> {
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name_is_valid = self.name.split('/').all(|part| !part.is_empty() && part.chars().all(valid));
        if !name_is_valid {
            return Err(format!("`{}` is no kebab-case name", self.name));
        }
        let folder = root.join(self.kind.folder());
        let (path, text) = match self.kind {
            Leaf::Error => (folder.join(format!("{}.md", self.name)), error_page(&self.name)),
            _ => (folder.join(format!("{}.rs", module(&self.name))), source(&self.name)),
        };
        if path.exists() {
            return Err(format!("{} is there already", path.display()));
        }
        fs::create_dir_all(path.parent().unwrap_or(&folder)).map_err(|e| format!("cannot make a folder: {e}"))?;
        fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        eprintln!("xtask: wrote {}", path.display());
        match self.kind {
            Leaf::Error => Ok(()),
            _ => declare(&folder.join("mod.rs"), &module(&self.name)),
        }
    }
}

fn module(name: &str) -> String {
    name.replace(['-', '/'], "_")
}

fn source(name: &str) -> String {
    format!("//! `{name}`: what it gives, in one sentence; then its shape, decoding, behaviour and tests.\n")
}

/// `cargo xtask codegen` fills in what `ctk` prints.
fn error_page(name: &str) -> String {
    let code = name.replace('/', "::");
    format!(
        "# {code}\n\nWhat went wrong, in one sentence.\n\n## Example\n\n```kdl\nimage \"app\"\n```\n\n\
         ```console\n$ ctk check\n```\n\n## What to do\n"
    )
}

/// Adds `mod name;` in sorted place; the table line beneath it is the author's.
fn declare(table: &Path, name: &str) -> Result<(), String> {
    let text = fs::read_to_string(table).map_err(|e| format!("cannot read {}: {e}", table.display()))?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let declaration = format!("mod {name};");
    let is_declaration = |line: &String| line.trim_start_matches("pub ").starts_with("mod ") && line.ends_with(';');
    let place = lines.iter().position(|line| is_declaration(line) && *line > declaration);
    let after_last = || lines.iter().rposition(is_declaration).map_or(lines.len(), |last| last + 1);
    let place = place.unwrap_or_else(after_last);
    lines.insert(place, declaration);
    fs::write(table, lines.join("\n") + "\n").map_err(|e| format!("cannot write {}: {e}", table.display()))?;
    eprintln!("xtask: declared it in {}; add its line to the table there", table.display());
    Ok(())
}
