//! What of a folder is no part of the source: what `.gcloudignore` says, else what the `.gitignore` of each folder says.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::limits::IGNORE_BYTES;
use super::paths::PathGlob;

/// A line of such a file.
#[derive(Clone, Debug)]
struct Rule {
    /// `!`: taken after all.
    takes: bool,
    folders_only: bool,
    glob: PathGlob,
}

/// The rules of a source.
#[derive(Debug)]
pub(crate) struct Ignore {
    root: PathBuf,
    /// `.gcloudignore`, which stands alone.
    whole: Option<Vec<Rule>>,
    folders: Mutex<HashMap<Vec<u8>, Arc<Vec<Rule>>>>,
}

impl Ignore {
    /// Those of the source in `root`.
    pub fn of(root: &Path) -> Ignore {
        let whole = read(&root.join(".gcloudignore")).map(|text| {
            let mut all = String::new();
            for line in text.lines() {
                match line.strip_prefix("#!include:") {
                    Some(name) if !name.contains("..") => {
                        all += &read(&root.join(name.trim())).unwrap_or_default();
                    }
                    _ => all += line,
                }
                all.push('\n');
            }
            rules(&all)
        });
        Ignore { root: root.into(), whole, folders: Mutex::default() }
    }

    /// Whether the path, relative to the root, is left out. What is below a folder that is left out is not asked about.
    pub fn skips(&self, path: &[u8], is_folder: bool) -> bool {
        // A name that is no UTF-8 fits no rule.
        let Ok(path) = std::str::from_utf8(path) else { return false };
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        if let Some(rules) = &self.whole {
            return says(rules, &names, is_folder).unwrap_or(false);
        }
        // The nearest file has the last word.
        for depth in (0..names.len()).rev() {
            let rules = self.of_folder(&names[..depth]);
            if let Some(skips) = says(&rules, &names[depth..], is_folder) {
                return skips;
            }
        }
        false
    }

    fn of_folder(&self, names: &[&str]) -> Arc<Vec<Rule>> {
        let key = names.join("/").into_bytes();
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let found = folders.entry(key).or_insert_with(|| {
            let path = names.iter().fold(self.root.clone(), |path, name| path.join(name));
            Arc::new(read(&path.join(".gitignore")).map(|text| rules(&text)).unwrap_or_default())
        });
        Arc::clone(found)
    }
}

fn read(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    (metadata.is_file() && metadata.len() <= IGNORE_BYTES).then_some(())?;
    Some(String::from_utf8_lossy(&std::fs::read(path).ok()?).into_owned())
}

fn rules(text: &str) -> Vec<Rule> {
    text.lines().filter_map(rule).collect()
}

fn rule(line: &str) -> Option<Rule> {
    let mut line = line.trim_start();
    // A space at the end counts if there is a backslash before it.
    while line.ends_with([' ', '\t', '\r']) && !line.ends_with("\\ ") {
        line = &line[..line.len() - 1];
    }
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (takes, line) = match line.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (folders_only, line) = match line.strip_suffix('/') {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let glob = match line.contains('/') {
        true => PathGlob::new(line),
        false => PathGlob::new(&format!("**/{line}")),
    };
    Some(Rule { takes, folders_only, glob })
}

fn says(rules: &[Rule], path: &[&str], is_folder: bool) -> Option<bool> {
    let fits = |rule: &&Rule| (is_folder || !rule.folders_only) && rule.glob.matches(path);
    rules.iter().rev().find(fits).map(|rule| !rule.takes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(files: &[(&str, &str)], skipped: &[&str], taken: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let ignore = Ignore::of(folder.path());
        let skips = |path: &&&str| ignore.skips(path.trim_end_matches('/').as_bytes(), path.ends_with('/'));
        assert_eq!(skipped.iter().filter(|path| !skips(path)).collect::<Vec<_>>(), Vec::<&&str>::new(), "taken");
        assert_eq!(taken.iter().filter(skips).collect::<Vec<_>>(), Vec::<&&str>::new(), "skipped");
    }

    #[test]
    fn as_git_has_it() {
        let top = "target/\n*.log\n!keep.log\n/only-here\n# a comment\ndoc/*.txt\n";
        check(
            &[(".gitignore", top), ("sub/.gitignore", "!*.log\nown\n")],
            &["target/", "a/target/", "x.log", "a/x.log", "only-here", "doc/a.txt", "sub/own", "sub/a/own"],
            &["target", "keep.log", "a/only-here", "a/doc/a.txt", "sub/x.log", "own"],
        );
    }

    #[test]
    fn gcloud_has_a_file_of_its_own() {
        let own = "#!include:.gitignore\n.git\n!b\n";
        check(&[(".gitignore", "a\nb\n"), (".gcloudignore", own)], &["a", ".git/"], &["b", "c"]);
        check(&[(".gitignore", "a\n"), (".gcloudignore", "x\n")], &["x"], &["a"]);
    }
}
