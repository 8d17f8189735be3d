//! The project's own file and the examples decode.

use std::io;
use std::path::{Path, PathBuf};

use ctk_plan::Kind;
use ctk_project::{Files, Inputs, no_git, parse};
use ctk_syntax::Sources;

/// A folder on disk; the only pattern of the examples is `a/*/b`.
struct Folder(PathBuf);

impl Files for Folder {
    fn read(&self, path: &str) -> io::Result<String> {
        std::fs::read_to_string(self.0.join(path))
    }

    fn glob(&self, pattern: &str) -> io::Result<Vec<String>> {
        let Some((before, after)) = pattern.split_once("/*/") else { return Ok(vec![pattern.into()]) };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.0.join(before))? {
            let path = format!("{before}/{}/{after}", entry?.file_name().to_string_lossy());
            if self.0.join(&path).exists() {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut all = vec![root.clone()];
    for entry in std::fs::read_dir(root.join("examples")).unwrap() {
        let folder = entry.unwrap().path();
        if folder.join("containers.kdl").exists() {
            all.push(folder);
        }
    }
    all
}

#[test]
fn the_examples_decode() {
    let mut count = 0;
    for folder in folders() {
        let mut sources = Sources::new();
        let inputs = Inputs { vars: Default::default(), env: &|_| None, git: &no_git, default_name: "example".into() };
        let text = std::fs::read_to_string(folder.join("containers.kdl")).unwrap();
        let (project, diagnostics) = parse(&mut sources, "containers.kdl", text, &Folder(folder.clone()), &inputs);
        assert!(!diagnostics.has_errors(), "{}: {}", folder.display(), diagnostics.render(&sources, false));
        for resource in project.of_kind(Kind::Test) {
            let decl = ctk_check::decode(&project, resource);
            let decl = decl.unwrap_or_else(|d| panic!("{}: {}", folder.display(), d.render(&sources, false)));
            assert!(!decl.assertions.is_empty());
            count += 1;
        }
    }
    assert!(count >= 4, "{count}");
}
