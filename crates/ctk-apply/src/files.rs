//! The project's files on disk, for the parser that touches none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ctk_project::Files;
use ctk_syntax::matches_glob;

/// No project file of this size was written by a person.
const PROJECT_FILE_LIMIT_BYTES: u64 = 8 << 20;
/// Folders that `**` walks at most; more means the pattern starts too high up.
const GLOB_LIMIT_FOLDERS: usize = 100_000;

/// Files below a folder.
pub struct DiskFiles {
    root: PathBuf,
}

impl DiskFiles {
    /// Files below `root`.
    pub fn new(root: &Path) -> DiskFiles {
        DiskFiles { root: root.to_path_buf() }
    }
}

impl Files for DiskFiles {
    fn read(&self, path: &str) -> io::Result<String> {
        let path = self.root.join(path);
        if fs::metadata(&path)?.len() > PROJECT_FILE_LIMIT_BYTES {
            let text = format!("larger than {PROJECT_FILE_LIMIT_BYTES} bytes (project file limit)");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        ctk_store::read_given_text(&path)
    }

    fn glob(&self, pattern: &str) -> io::Result<Vec<String>> {
        let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let mut found = Vec::new();
        let mut folders = 0;
        self.walk("", &parts, &mut found, &mut folders)?;
        found.sort();
        found.dedup();
        Ok(found)
    }
}

impl DiskFiles {
    fn walk(&self, folder: &str, parts: &[&str], found: &mut Vec<String>, folders: &mut usize) -> io::Result<()> {
        *folders += 1;
        if *folders > GLOB_LIMIT_FOLDERS {
            return Err(io::Error::other(format!(
                "more than {GLOB_LIMIT_FOLDERS} folders to look through (glob limit)"
            )));
        }
        let Some((first, rest)) = parts.split_first() else { return Ok(()) };
        if *first == "**" {
            self.walk(folder, rest, found, folders)?;
        }
        // A plain name needs no listing, and may be `..`.
        if !first.contains(['*', '?', '[']) {
            return self.step(folder, first, rest, found, folders);
        }
        for entry in fs::read_dir(self.root.join(folder))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            if *first == "**" {
                if entry.file_type()?.is_dir() {
                    self.walk(&join(folder, name), parts, found, folders)?;
                }
            } else if matches_glob(first, name) {
                self.step(folder, name, rest, found, folders)?;
            }
        }
        Ok(())
    }

    fn step(
        &self,
        folder: &str,
        name: &str,
        rest: &[&str],
        found: &mut Vec<String>,
        folders: &mut usize,
    ) -> io::Result<()> {
        let path = join(folder, name);
        let full = self.root.join(&path);
        if rest.is_empty() {
            if full.is_file() {
                found.push(path);
            }
            Ok(())
        } else if full.is_dir() {
            self.walk(&path, rest, found, folders)
        } else {
            Ok(())
        }
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_find_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["b/x.kdl", "a/x.kdl", "a/deep/x.kdl", "a/y.kdl", ".hidden/x.kdl"] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let files = DiskFiles::new(folder.path());
        let check = |pattern: &str, expected: &[&str]| assert_eq!(files.glob(pattern).unwrap(), expected, "{pattern}");
        check("*/x.kdl", &["a/x.kdl", "b/x.kdl"]);
        check("**/x.kdl", &["a/deep/x.kdl", "a/x.kdl", "b/x.kdl"]);
        check("./a/*.kdl", &["a/x.kdl", "a/y.kdl"]);
        check("a/x.kdl", &["a/x.kdl"]);
        check("c/*", &[]);
    }
}
