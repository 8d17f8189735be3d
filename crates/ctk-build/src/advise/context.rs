//! What of the context goes into the image, or decides whether a step is cached, without need.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;

use ctk_buildgraph::{FileAction, Op};

use super::order::{first_line, listed};
use super::{Advice, Flaw, Scene};
use crate::BuildError;
use crate::context::shown;

/// Directories that no image needs, and what has to lie beside one for it to be one.
const IGNORED: [(&str, &str); 16] = [
    (".git", ""),
    (".hg", ""),
    (".svn", ""),
    ("node_modules", ""),
    ("target", "Cargo.toml"),
    ("target", "pom.xml"),
    ("__pycache__", ""),
    (".venv", ""),
    (".tox", ""),
    (".pytest_cache", ""),
    (".mypy_cache", ""),
    (".gradle", ""),
    (".terraform", ""),
    (".next", "package.json"),
    ("dist", "package.json"),
    ("bower_components", ""),
];

/// Names at the context's top that an image hardly needs.
const HARDLY: [&str; 17] = [
    "Dockerfile",
    "Containerfile",
    ".dockerignore",
    ".gitignore",
    ".github",
    ".gitlab-ci.yml",
    ".editorconfig",
    ".idea",
    ".vscode",
    "docker-compose.yml",
    "compose.yaml",
    "containers.kdl",
    "containers.lock",
    "README.md",
    "CHANGELOG.md",
    "docs",
    "doc",
];

pub(super) fn look(scene: &Scene<'_>, advice: &mut Vec<Advice>) -> Result<(), BuildError> {
    let graph = &scene.job.plan.lowered.graph;
    let needed = graph.reachable(scene.job.plan.lowered.image.vertex);
    let mut told = BTreeSet::new();
    for (step, id) in scene.steps.steps.iter().zip(&needed) {
        let Op::File { actions, .. } = &graph.get(*id).op else { continue };
        for action in actions {
            let FileAction::Copy { selection: Some(selection), .. } = action else { continue };
            let found = scene.job.contexts.find_all(selection)?;
            let context = scene.job.contexts.get(&selection.context)?;
            let bytes_of = |path: &[u8]| {
                let path = context.path.join(std::ffi::OsStr::from_bytes(path));
                path.symlink_metadata().map_or(0, |stat| if stat.is_file() { stat.len() } else { 0 })
            };
            let entries: Vec<&[u8]> = found
                .iter()
                .flat_map(|found| found.entries.iter().flatten())
                .map(|entry| entry.path.as_slice())
                .collect();
            let mut ignorable: BTreeMap<String, u64> = BTreeMap::new();
            let mut unneeded: BTreeMap<String, u64> = BTreeMap::new();
            let mut tops = BTreeSet::new();
            for path in &entries {
                if let Some(directory) = ignored(path, &context.path) {
                    *ignorable.entry(directory).or_default() += bytes_of(path);
                    continue;
                }
                let top = shown(path.split(|b| *b == b'/').next().unwrap_or_default());
                if HARDLY.contains(&top.as_str()) {
                    *unneeded.entry(top).or_default() += bytes_of(path);
                } else if !top.is_empty() {
                    tops.insert(top);
                }
            }
            ignorable.retain(|directory, _| told.insert(directory.clone()));
            for (pattern, (directories, bytes)) in patterns(&ignorable) {
                advice.push(Advice {
                    rule: Flaw::MissingIgnore,
                    message: format!("`{}` takes {} of the context", first_line(&step.written), few(&directories)),
                    hint: format!("write `{pattern}` into .dockerignore"),
                    place: step.place.clone(),
                    bytes: Some(bytes),
                    seconds: None,
                });
            }
            let whole = found.iter().any(|found| found.path.is_empty());
            let bytes: u64 = unneeded.values().sum();
            if whole && !unneeded.is_empty() && told.insert(format!("all {}", step.written)) {
                let names: Vec<&String> = unneeded.keys().collect();
                let few: Vec<&String> = tops.iter().collect();
                let hint = match few.as_slice() {
                    [] => "name what is needed".to_owned(),
                    few if few.len() <= 8 => format!("copy {} instead", listed(few)),
                    _ => format!("name what is needed, or write {} into .dockerignore", listed(&names)),
                };
                advice.push(Advice {
                    rule: Flaw::CopyAll,
                    message: format!("`{}` takes {} too", first_line(&step.written), listed(&names)),
                    hint,
                    place: step.place.clone(),
                    bytes: Some(bytes),
                    seconds: None,
                });
            }
        }
    }
    Ok(())
}

/// Patterns that ignore these directories, with those that each ignores and their bytes: several of a name that means
/// the same everywhere have one.
fn patterns(directories: &BTreeMap<String, u64>) -> BTreeMap<String, (Vec<&str>, u64)> {
    let name = |directory: &str| directory.rsplit('/').next().unwrap_or(directory).to_owned();
    let everywhere = |name: &str| IGNORED.iter().any(|(ignored, beside)| *ignored == name && beside.is_empty());
    let mut patterns: BTreeMap<String, (Vec<&str>, u64)> = BTreeMap::new();
    for (directory, bytes) in directories {
        let own = name(directory);
        let several = directories.keys().filter(|other| name(other) == own).count() > 1;
        let pattern = if several && everywhere(&own) { format!("**/{own}") } else { directory.clone() };
        let entry = patterns.entry(pattern).or_default();
        entry.0.push(directory);
        entry.1 += bytes;
    }
    patterns
}

/// The first few, and how many there are besides.
fn few(directories: &[&str]) -> String {
    match directories {
        [one, two, more @ ..] if more.len() > 1 => format!("`{one}`, `{two}` and {} more", more.len()),
        few => listed(few),
    }
}

/// The directory of [`IGNORED`] that a path is or lies in.
fn ignored(path: &[u8], root: &std::path::Path) -> Option<String> {
    let mut end = 0;
    for part in path.split(|b| *b == b'/') {
        let start = end;
        end = start + part.len() + usize::from(start + part.len() < path.len());
        let directory = &path[..start + part.len()];
        let is = |(name, beside): &(&str, &str)| {
            let parent = root.join(std::ffi::OsStr::from_bytes(&path[..start]));
            part == name.as_bytes() && (beside.is_empty() || parent.join(beside).exists())
        };
        if IGNORED.iter().any(is) && root.join(std::ffi::OsStr::from_bytes(directory)).is_dir() {
            return Some(shown(directory));
        }
    }
    None
}
