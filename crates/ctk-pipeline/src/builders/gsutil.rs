//! `gsutil cp`, `rsync` and `rm`, and `gcloud storage` with the same verbs.

use serde::{Deserialize, Serialize};

use super::Action;
use super::options::{Known, line, switch, value};

/// What is done with objects of buckets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Storage {
    /// Copy files or objects.
    Copy {
        /// Paths, `gs://` URLs, patterns of both.
        from: Vec<String>,
        /// A path or a `gs://` URL.
        to: String,
        /// With folders.
        recursive: bool,
        /// Leave what is there.
        keep: bool,
    },
    /// Make one folder like another.
    Sync {
        /// The one.
        from: String,
        /// The other.
        to: String,
        /// With folders inside.
        recursive: bool,
        /// Remove what is only there.
        delete: bool,
        /// What is left out, a pattern of names.
        exclude: Option<String>,
    },
    /// Remove objects.
    Remove {
        /// Which.
        objects: Vec<String>,
        /// With what is below.
        recursive: bool,
    },
}

const CLIENT: &[Known] = &[
    switch('m', &["m"]),
    switch('q', &["q"]),
    switch('D', &["D"]),
    value('h', &["h"]),
    value('o', &["o"]),
    value('u', &["u"]),
    value('i', &["i"]),
];

const COPY: &[Known] = &[
    switch('r', &["recursive", "recurse"]),
    switch('R', &["recursive"]),
    switch('n', &["no-clobber"]),
    switch('z', &["gzip"]),
    switch('Z', &["gzip-all"]),
    switch('j', &["gzip-encoded"]),
    switch('P', &["preserve-posix"]),
    switch('p', &["preserve-acl"]),
    switch('c', &["continue-on-error"]),
    value('a', &["predefined-acl", "canned-acl"]),
    value('\0', &["cache-control"]),
    value('\0', &["content-type"]),
];

const SYNC: &[Known] = &[
    switch('r', &["recursive"]),
    switch('R', &["recursive"]),
    switch('d', &["delete-unmatched-destination-objects"]),
    value('x', &["exclude"]),
    switch('c', &["checksums-only"]),
    switch('C', &["continue-on-error"]),
    switch('P', &["preserve-posix"]),
];

/// What `gsutil` is asked for.
pub(super) fn read(args: &[String]) -> Result<Action, String> {
    let client = line("gsutil", args, CLIENT, true)?;
    verb("gsutil", &client.words)
}

/// What `gcloud` is asked for, if it is about storage.
pub(super) fn read_gcloud(args: &[String]) -> Result<Action, String> {
    match args.split_first() {
        Some((first, rest)) if first == "storage" => verb("gcloud storage", rest),
        _ => Err("`gcloud` that is not `gcloud storage`".into()),
    }
}

fn verb(program: &str, words: &[String]) -> Result<Action, String> {
    let Some((verb, rest)) = words.split_first() else { return Err(format!("`{program}` without a command")) };
    let name = format!("{program} {verb}");
    match verb.as_str() {
        "cp" => {
            let line = line(&name, rest, COPY, false)?;
            // What it is stored as is part of the object, and has to be the same.
            for kept in ["gzip", "gzip-all", "gzip-encoded", "predefined-acl", "cache-control", "content-type"] {
                if line.last(kept).is_some() {
                    return Err(format!("`{name} --{kept}`"));
                }
            }
            let Some((to, from)) = line.words.split_last().filter(|(_, from)| !from.is_empty()) else {
                return Err(format!("`{name}` takes what to copy, and where to"));
            };
            let (recursive, keep) = (line.is("recursive"), line.is("no-clobber"));
            Ok(Action::Storage(Storage::Copy { from: from.to_vec(), to: to.clone(), recursive, keep }))
        }
        "rsync" => {
            let line = line(&name, rest, SYNC, false)?;
            let [from, to] = line.words.as_slice() else { return Err(format!("`{name}` takes two folders")) };
            Ok(Action::Storage(Storage::Sync {
                from: from.clone(),
                to: to.clone(),
                recursive: line.is("recursive"),
                delete: line.is("delete-unmatched-destination-objects"),
                exclude: line.last("exclude"),
            }))
        }
        "rm" => {
            let known = [switch('r', &["recursive"]), switch('R', &["recursive"]), switch('f', &["force"])];
            let line = line(&name, rest, &known, false)?;
            if line.words.is_empty() {
                return Err(format!("`{name}` without an object"));
            }
            Ok(Action::Storage(Storage::Remove { recursive: line.is("recursive"), objects: line.words }))
        }
        other => Err(format!("`{program} {other}`")),
    }
}

impl Storage {
    pub(super) fn texts(&mut self, change: &mut dyn FnMut(&mut String)) {
        match self {
            Storage::Copy { from, to, .. } => from.iter_mut().chain([to]).for_each(change),
            Storage::Sync { from, to, exclude, .. } => {
                change(from);
                change(to);
                exclude.iter_mut().for_each(change);
            }
            Storage::Remove { objects, .. } => objects.iter_mut().for_each(change),
        }
    }

    pub(super) fn words(&self) -> Vec<String> {
        let mut words = vec!["gsutil".to_owned()];
        let mut put = |parts: &[&str]| words.extend(parts.iter().map(|part| (*part).to_owned()));
        match self {
            Storage::Copy { from, to, recursive, keep } => {
                put(&["cp"]);
                put(if *recursive { &["-r"] } else { &[] });
                put(if *keep { &["-n"] } else { &[] });
                words.extend(from.iter().cloned());
                words.push(to.clone());
            }
            Storage::Sync { from, to, recursive, delete, exclude } => {
                put(&["rsync"]);
                put(if *recursive { &["-r"] } else { &[] });
                put(if *delete { &["-d"] } else { &[] });
                exclude.iter().for_each(|pattern| put(&["-x", pattern]));
                put(&[from, to]);
            }
            Storage::Remove { objects, recursive } => {
                put(&["rm"]);
                put(if *recursive { &["-r"] } else { &[] });
                words.extend(objects.iter().cloned());
            }
        }
        words
    }
}
