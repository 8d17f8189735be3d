//! Patterns of paths: `*`, `?` and `[…]` within a name, `**` for any folders between.

use std::fs;
use std::path::{Path, PathBuf};

use super::RunError;
use super::error::on;
use super::limits::{ARTIFACT_FILES, DEPTH_LEVELS};
use crate::glob::Glob;

#[derive(Clone, Debug)]
enum Part {
    /// `**`
    Folders,
    Name(Glob),
}

/// A pattern of paths.
#[derive(Clone, Debug)]
pub(crate) struct PathGlob(Vec<Part>);

impl PathGlob {
    /// `a/*/b`, `**/x.xml`; empty parts and `.` mean nothing.
    pub fn new(text: &str) -> PathGlob {
        let parts = text.split('/').filter(|part| !part.is_empty() && *part != ".");
        PathGlob(parts.map(|part| if part == "**" { Part::Folders } else { Part::Name(Glob::new(part)) }).collect())
    }

    /// Whether it is that path, as names from the top.
    pub fn matches(&self, path: &[&str]) -> bool {
        fn at(parts: &[Part], path: &[&str]) -> bool {
            match (parts.split_first(), path.split_first()) {
                (None, None) => true,
                (None, Some(_)) => false,
                (Some((Part::Folders, rest)), _) => {
                    at(rest, path) || path.split_first().is_some_and(|(_, below)| at(parts, below))
                }
                (Some((Part::Name(_), _)), None) => false,
                (Some((Part::Name(glob), rest)), Some((name, below))) => {
                    glob.matches(&name.chars().collect::<Vec<_>>()) && at(rest, below)
                }
            }
        }
        at(&self.0, path)
    }

    /// Whether something below the folder `path` may match.
    fn leads_through(&self, path: &[&str]) -> bool {
        for (part, name) in self.0.iter().zip(path) {
            match part {
                Part::Folders => return true,
                Part::Name(glob) if !glob.matches(&name.chars().collect::<Vec<_>>()) => return false,
                Part::Name(_) => {}
            }
        }
        self.0.len() > path.len() || self.0.iter().any(|part| matches!(part, Part::Folders))
    }
}

/// The files below `root` that one of the patterns names, sorted, relative to `root`. A pattern that names a folder
/// means all files below it. Links are files here: nobody follows them out of the workspace.
pub(crate) fn files(root: &Path, patterns: &[String]) -> Result<Vec<String>, RunError> {
    let globs: Vec<PathGlob> = patterns.iter().map(|pattern| PathGlob::new(pattern)).collect();
    let mut found = Vec::new();
    walk(root, &mut Vec::new(), &globs, false, &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(
    folder: &Path,
    names: &mut Vec<String>,
    globs: &[PathGlob],
    inside: bool,
    found: &mut Vec<String>,
) -> Result<(), RunError> {
    if names.len() >= DEPTH_LEVELS || found.len() >= ARTIFACT_FILES {
        return Ok(());
    }
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(on("list", folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(on("list", folder))?;
        // A name that is no UTF-8 fits no pattern.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let is_folder = entry.file_type().map_err(on("look at", entry.path()))?.is_dir();
        names.push(name);
        let path: Vec<&str> = names.iter().map(String::as_str).collect();
        let is = inside || globs.iter().any(|glob| glob.matches(&path));
        if !is_folder && is {
            found.push(names.join("/"));
        } else if is_folder && (is || globs.iter().any(|glob| glob.leads_through(&path))) {
            walk(&entry.path(), names, globs, is, found)?;
        }
        names.pop();
    }
    Ok(())
}

/// A path of the workspace as steps write it, as one of ours; none if it leads out.
pub(crate) fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let path = path.strip_prefix("/workspace").filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path);
    let mut out = root.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            return None;
        }
        out.push(part);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let glob = PathGlob::new(pattern);
        let is = |path: &&&str| glob.matches(&path.split('/').collect::<Vec<_>>());
        assert_eq!(yes.iter().filter(|path| !is(path)).count(), 0, "{pattern}: {yes:?}");
        assert_eq!(no.iter().filter(is).count(), 0, "{pattern}: {no:?}");
    }

    #[test]
    fn patterns_of_paths() {
        check("*.xml", &["a.xml"], &["a/b.xml", "a.xm"]);
        check("**/*.xml", &["a.xml", "a/b.xml", "a/b/c.xml"], &["a/b"]);
        check("a/**", &["a/b", "a/b/c", "a"], &["b/a"]);
        check("./dist/*.whl", &["dist/x.whl"], &["x.whl"]);
        check("a/**/z", &["a/z", "a/b/c/z"], &["a/b/c"]);
    }

    #[test]
    fn files_below_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a/x.xml", "a/b/y.xml", "out/z", "z"] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let check = |pattern: &str, expected: &[&str]| {
            assert_eq!(files(folder.path(), &[pattern.to_owned()]).unwrap(), expected, "{pattern}");
        };
        check("**/*.xml", &["a/b/y.xml", "a/x.xml"]);
        check("out", &["out/z"]);
        check("/z", &["z"]);
        check("gone/*", &[]);
    }

    #[test]
    fn nothing_leads_out_of_the_workspace() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(below(Path::new("/w"), path), expected.map(PathBuf::from), "{path}");
        };
        check("a/./b", Some("/w/a/b"));
        check("/workspace/a", Some("/w/a"));
        check("/workspaces/a", Some("/w/workspaces/a"));
        check("a/../b", None);
    }
}
