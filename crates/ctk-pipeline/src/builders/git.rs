//! `git`: what a build does with repositories.

use serde::Serialize;

use super::Action;
use super::options::{Known, line, switch, value};

/// What is done with a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Git {
    /// Fetch a repository into a new folder.
    Clone {
        /// Where it is.
        url: String,
        /// The folder; none: called as the repository.
        folder: Option<String>,
        /// A branch or tag.
        branch: Option<String>,
        /// Commits of history.
        depth: Option<String>,
        /// With its submodules.
        submodules: bool,
        /// Other options, as they are written.
        options: Vec<String>,
    },
    /// Something inside of one that is there, as it is written.
    Inside {
        /// The folder.
        folder: Option<String>,
        /// The command and its arguments.
        words: Vec<String>,
    },
}

const CLIENT: &[Known] =
    &[value('C', &["C"]), value('c', &["c"]), value('\0', &["git-dir"]), value('\0', &["work-tree"])];

const CLONE: &[Known] = &[
    value('b', &["branch"]),
    value('\0', &["depth"]),
    switch('\0', &["recursive", "recurse-submodules"]),
    switch('\0', &["single-branch"]),
    switch('\0', &["no-single-branch"]),
    switch('\0', &["no-checkout"]),
    switch('n', &["no-checkout"]),
    switch('\0', &["no-tags"]),
    switch('\0', &["mirror"]),
    switch('\0', &["bare"]),
    switch('\0', &["shallow-submodules"]),
    value('\0', &["filter"]),
    value('o', &["origin"]),
    value('c', &["config"]),
    switch('q', &["quiet"]),
    switch('v', &["verbose"]),
    switch('\0', &["progress"]),
    value('j', &["jobs"]),
];

/// What `git` is asked for.
pub(super) fn read(args: &[String]) -> Result<Action, String> {
    let client = line("git", args, CLIENT, true)?;
    let folder = client.last("C");
    let Some((verb, rest)) = client.words.split_first() else { return Err("`git` without a command".into()) };
    match verb.as_str() {
        "clone" => clone(rest),
        "fetch" | "pull" | "checkout" | "switch" | "reset" | "submodule" | "config" | "rev-parse" | "log"
        | "describe" | "status" | "diff" | "tag" | "branch" | "remote" | "show" | "init" | "add" | "commit"
        | "push" | "merge" | "clean" | "lfs" | "ls-files" | "ls-remote" | "rev-list" | "archive" | "apply" => {
            let given = client.options.iter().filter(|(name, _)| *name != "C");
            let mut words: Vec<String> = Vec::new();
            for (name, value) in given {
                match *name {
                    "c" => words.extend(["-c".into(), value.clone()]),
                    name => words.push(format!("--{name}={value}")),
                }
            }
            words.extend(client.words.iter().cloned());
            Ok(Action::Git(Git::Inside { folder, words }))
        }
        other => Err(format!("`git {other}` is not known here")),
    }
}

fn clone(args: &[String]) -> Result<Action, String> {
    let line = line("git clone", args, CLONE, false)?;
    let (url, folder) = match line.words.as_slice() {
        [url] => (url.clone(), None),
        [url, folder] => (url.clone(), Some(folder.clone())),
        [] => return Err("`git clone` without a repository".into()),
        words => return Err(format!("`git clone` with {} words", words.len())),
    };
    let named = ["branch", "depth", "recursive", "quiet", "verbose", "progress", "jobs"];
    let others: Vec<&str> = CLONE.iter().map(|known| known.names[0]).filter(|name| !named.contains(name)).collect();
    Ok(Action::Git(Git::Clone {
        url,
        folder,
        branch: line.last("branch"),
        depth: line.last("depth"),
        submodules: line.last("recursive").is_some(),
        options: line.among(CLONE, &others),
    }))
}

impl Git {
    pub(super) fn texts(&mut self, change: &mut dyn FnMut(&mut String)) {
        match self {
            Git::Clone { url, folder, branch, depth, options, .. } => {
                change(url);
                folder.iter_mut().chain(branch).chain(depth).chain(options).for_each(change);
            }
            Git::Inside { folder, words } => folder.iter_mut().chain(words).for_each(change),
        }
    }

    pub(super) fn words(&self) -> Vec<String> {
        let mut words = vec!["git".to_owned()];
        match self {
            Git::Clone { url, folder, branch, depth, submodules, options } => {
                words.push("clone".into());
                words.extend(branch.iter().flat_map(|branch| ["--branch".to_owned(), branch.clone()]));
                words.extend(depth.iter().flat_map(|depth| ["--depth".to_owned(), depth.clone()]));
                words.extend(submodules.then(|| "--recurse-submodules".to_owned()));
                words.extend(options.iter().cloned());
                words.push(url.clone());
                words.extend(folder.iter().cloned());
            }
            Git::Inside { folder, words: own } => {
                words.extend(folder.iter().flat_map(|folder| ["-C".to_owned(), folder.clone()]));
                words.extend(own.iter().cloned());
            }
        }
        words
    }
}
