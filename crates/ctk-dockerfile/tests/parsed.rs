//! The cases of `e2e/test_data/dockerfiles` that have a file `parsed` parse to what it says: mistakes and warnings, then
//! global arguments, stages and instructions. `CTK_BLESS=1` writes them, also for new cases about the language.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use ctk_dockerfile::parse;
use ctk_syntax::Sources;

/// Areas whose cases are about the language.
const AREAS: [&str; 5] = ["parser", "directives", "heredoc", "json-form", "onbuild"];

#[test]
fn dockerfiles_parse_to_their_goldens() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../e2e/test_data/dockerfiles");
    let bless = std::env::var_os("CTK_BLESS").is_some();
    let mut failed = String::new();
    let mut seen = 0;
    for case in folders(&root).iter().flat_map(|area| folders(area)) {
        let golden = case.join("parsed");
        let new = bless && AREAS.iter().any(|area| case.parent().is_some_and(|parent| parent.ends_with(area)));
        if !new && !golden.exists() {
            continue;
        }
        let text = std::fs::read(case.join("Dockerfile")).unwrap();
        let parsed = print(&String::from_utf8_lossy(&text));
        seen += 1;
        if bless {
            std::fs::write(&golden, parsed).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap() != parsed {
            writeln!(failed, "{}\n{parsed}", golden.display()).unwrap();
        }
    }
    assert!(failed.is_empty(), "{failed}");
    assert!(seen > 100, "only {seen} cases");
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders
}

fn print(text: &str) -> String {
    let mut sources = Sources::new();
    let id = sources.add("Dockerfile", text);
    let (file, diagnostics) = parse(&sources, id);
    let mut out = diagnostics.render(&sources, false);
    if diagnostics.has_errors() {
        return out;
    }
    for arg in &file.recipe.globals {
        writeln!(out, "ARG {:?} {:?}", arg.name, arg.default).unwrap();
    }
    for stage in &file.recipe.stages {
        writeln!(out, "FROM {:?} as {:?} platform {:?}", stage.from, stage.name, stage.platform).unwrap();
        for statement in &stage.statements {
            writeln!(out, "    {:?}", statement.instruction).unwrap();
        }
    }
    out
}
