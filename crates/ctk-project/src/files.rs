//! What the world must bring.

use std::collections::BTreeMap;
use std::io;

use ctk_syntax::matches_glob;

/// Reads the files that a project includes. Paths are relative to the project's folder, with `/`.
pub trait Files {
    /// The text of a file.
    fn read(&self, path: &str) -> io::Result<String>;

    /// Paths of the files that match a pattern such as `services/*/containers.kdl`, sorted. `*` stays within one
    /// name, `**` is any number of folders.
    fn glob(&self, pattern: &str) -> io::Result<Vec<String>>;
}

/// What a project depends on besides its files.
pub struct Inputs<'a> {
    /// Values given on the command line (`--var name=value`).
    pub vars: BTreeMap<String, String>,
    /// Looks up an environment variable, for `var … env="NAME"`.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Looks up `sha`, `short`, `branch`, `tag`, `dirty` of the git work tree; asked only when used. The error is one
    /// sentence.
    pub git: &'a dyn Fn(&str) -> Result<String, String>,
    /// The project's name when no `project` node gives one: the folder's name.
    pub default_name: String,
}

/// The answer to every question about git where there is no git.
pub fn no_git(_name: &str) -> Result<String, String> {
    Err("this folder is in no git work tree".into())
}

/// Files in memory, for tests and editors.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles(pub BTreeMap<String, String>);

impl Files for MemoryFiles {
    fn read(&self, path: &str) -> io::Result<String> {
        self.0.get(path).cloned().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
    }

    fn glob(&self, pattern: &str) -> io::Result<Vec<String>> {
        Ok(self.0.keys().filter(|path| path_matches(pattern, path)).cloned().collect())
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    fn walk(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern.split_first(), path.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => walk(rest, path) || path.split_first().is_some_and(|(_, p)| walk(pattern, p)),
            (Some((first, rest)), Some((name, others))) => matches_glob(first, name) && walk(rest, others),
            _ => false,
        }
    }
    walk(&pattern.split('/').collect::<Vec<_>>(), &path.split('/').collect::<Vec<_>>())
}
