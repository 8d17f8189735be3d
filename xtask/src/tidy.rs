//! The rules that the compiler cannot check, from `cargo metadata` and the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, MetadataCommand};
use regex::Regex;

use crate::codegen::codes;

/// A file of code longer than this has a seam that somebody should find.
const FILE_LIMIT_LINES: usize = 800;

/// A crate with fewer lines of code has not been written yet.
const CRATE_MINIMUM_LINES: usize = 50;

/// The rings, lowest first; edges only go down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ring {
    Vocabulary,
    Logic,
    System,
    Stage,
    Apply,
    Top,
}

/// Where each crate stands. A crate that is not here is an error: decide first.
const RINGS: &[(&str, Ring)] = &[
    ("ctk-oci", Ring::Vocabulary),
    ("ctk-syntax", Ring::Vocabulary),
    ("ctk-dag", Ring::Vocabulary),
    ("ctk-project", Ring::Logic),
    ("ctk-buildgraph", Ring::Logic),
    ("ctk-dockerfile", Ring::Logic),
    ("ctk-distribution", Ring::Logic),
    ("ctk-layer", Ring::Logic),
    ("ctk-erofs", Ring::Logic),
    ("ctk-plan", Ring::Logic),
    ("ctk-sys", Ring::System),
    ("ctk-netlink", Ring::System),
    ("ctk-http", Ring::System),
    ("ctk-store", Ring::System),
    ("ctk-snapshot", Ring::System),
    ("ctk-runtime", Ring::System),
    ("ctk-bundle", Ring::System),
    ("ctk-container", Ring::System),
    ("ctk-network", Ring::System),
    ("ctk-monitor", Ring::System),
    ("ctk-volume", Ring::System),
    ("ctk-client", Ring::System),
    ("ctk-cache", Ring::System),
    ("ctk-packages", Ring::System),
    ("ctk-build", Ring::Stage),
    ("ctk-check", Ring::Stage),
    ("ctk-push", Ring::Stage),
    ("ctk-service", Ring::Stage),
    ("ctk-pipeline", Ring::Stage),
    ("ctk-registry", Ring::Stage),
    ("ctk-apply", Ring::Apply),
    ("ctk", Ring::Top),
    ("ctk-runtime-static", Ring::Top),
    ("xtask", Ring::Top),
    // The binary is its subject, not its dependency; the benches take their peers from it.
    ("ctk-e2e", Ring::Apply),
    ("example-xtask", Ring::Top),
];

/// What vocabulary and logic never reach directly: async runtimes, HTTP, system calls, clocks.
const IMPURE: &[&str] = &["tokio", "reqwest", "hyper", "axum", "rustix", "nix", "libc", "jiff", "rustls"];

/// Folders in which a feature is a file and a line in `mod.rs`.
const LEAF_FOLDERS: &[&str] = &[
    "crates/ctk-dockerfile/src/instructions",
    "crates/ctk-build/src/ops",
    "crates/ctk-check/src/assertions",
    "crates/ctk-push/src/targets",
    "crates/ctk/src/commands",
];

/// Packages for another way to build what stands in `ctk`.
const SHARED_SOURCE: &[&str] = &["ctk-runtime-static"];

/// Runs every check; all complaints at once.
pub fn tidy(root: &Path) -> Result<(), String> {
    let mut complaints = Vec::new();
    rings(root, &mut complaints)?;
    let sources = sources(root);
    for path in &sources {
        let text = fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        source_file(&name, &text, &mut complaints);
    }
    crates_have_code(root, &mut complaints);
    let files = kept_files(root)?;
    no_path_of_this_checkout(root, &files, &mut complaints);
    links(root, &files, &mut complaints);
    for folder in LEAF_FOLDERS {
        leaf_table(root, folder, &mut complaints);
    }
    error_pages(root, &sources, &mut complaints);
    for complaint in &complaints {
        eprintln!("tidy: {complaint}");
    }
    match complaints.len() {
        0 => Ok(()),
        count => Err(format!("tidy: {count} complaints")),
    }
}

fn rings(root: &Path, complaints: &mut Vec<String>) -> Result<(), String> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .map_err(|e| format!("cargo metadata: {e}"))?;
    let rings: BTreeMap<&str, Ring> = RINGS.iter().copied().collect();
    let architecture = fs::read_to_string(root.join("docs/ARCHITECTURE.md")).unwrap_or_default();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let Some(&ring) = rings.get(name) else {
            complaints.push(format!("{name} stands in no ring: add it to RINGS in xtask/src/tidy.rs"));
            continue;
        };
        if ring < Ring::Apply && !architecture.contains(name) {
            complaints.push(format!("{name} is not on the map: docs/ARCHITECTURE.md"));
        }
        let manifest = fs::read_to_string(&package.manifest_path).unwrap_or_default();
        // The one crate with unsafe code has lints of its own: the workspace's forbid it.
        if name != "ctk-sys" && !manifest.contains("[lints]\nworkspace = true") {
            complaints.push(format!("{name} does not take the workspace's lints"));
        }
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            let needs = dependency.name.as_str();
            if ring <= Ring::Logic && IMPURE.contains(&needs) {
                complaints.push(format!("{name} is pure and may not depend on {needs}"));
            }
            let Some(&below) = rings.get(needs) else { continue };
            let same_ring_is_fine = matches!(ring, Ring::Logic | Ring::System);
            if below > ring || (below == ring && !same_ring_is_fine) {
                complaints.push(format!("{name} ({ring:?}) may not depend on {needs} ({below:?})"));
            }
        }
        for line in manifest.lines().filter(|line| line.contains("version = \"") && !line.starts_with("version")) {
            complaints.push(format!("{name}: versions stand in the workspace's Cargo.toml only: {line}"));
        }
    }
    Ok(())
}

fn source_file(name: &str, text: &str, complaints: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > FILE_LIMIT_LINES {
        complaints.push(format!("{name} has {lines} lines; find the seam (limit {FILE_LIMIT_LINES})"));
    }
    let first = text.lines().next().unwrap_or_default();
    if !first.starts_with("//!") && !first.starts_with("#!") {
        complaints.push(format!("{name} does not begin with what it is for (`//!`)"));
    }
    // Written in two parts, so that this file keeps its own rule.
    for (start, end) in [("todo", "!("), ("unimplemented", "!("), ("dbg", "!("), ("#[", "ignore")] {
        if text.contains(&format!("{start}{end}")) {
            complaints.push(format!("{name} has a `{start}{end}`"));
        }
    }
    let lower_ring = !["crates/ctk/", "xtask/", "e2e/", "examples/"].iter().any(|top| name.starts_with(top));
    let is_test = name.contains("/tests/") || name.contains("/examples/") || name.contains("/benches/");
    if lower_ring && !is_test {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in ["println!(", "eprintln!(", "std::process::exit("] {
            if code.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(word)) {
                complaints.push(format!("{name}: only the binary may {word}…)"));
            }
        }
    }
}

/// A crate that is only a name is a promise that somebody relies on.
fn crates_have_code(root: &Path, complaints: &mut Vec<String>) {
    for entry in fs::read_dir(root.join("crates")).into_iter().flatten().flatten() {
        if SHARED_SOURCE.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let texts = walk(&entry.path().join("src"), "rs").into_iter().filter_map(|path| fs::read_to_string(path).ok());
        let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
        let lines: usize = texts.map(|text| text.lines().filter(is_code).count()).sum();
        if lines < CRATE_MINIMUM_LINES {
            complaints.push(format!("{} has {lines} lines of code", entry.path().display()));
        }
    }
}

/// What git keeps, or would keep.
fn kept_files(root: &Path) -> Result<Vec<String>, String> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let files = git.output().map_err(|e| format!("cannot run git: {e}"))?.stdout;
    let names = String::from_utf8_lossy(&files);
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// Nobody else's checkout stands where ours does.
fn no_path_of_this_checkout(root: &Path, files: &[String], complaints: &mut Vec<String>) {
    if root.components().count() < 3 {
        // `/src` and the like: people write that.
        return;
    }
    let here = root.display().to_string();
    for name in files {
        if fs::read_to_string(root.join(name)).is_ok_and(|text| text.contains(&here)) {
            complaints.push(format!("{name} names {here}, which is elsewhere on other machines"));
        }
    }
}

/// Links of Markdown pages that stay in the tree lead to files, and to headings of them.
fn links(root: &Path, files: &[String], complaints: &mut Vec<String>) {
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("a valid pattern");
    for name in files.iter().filter(|name| name.ends_with(".md")) {
        let Ok(text) = fs::read_to_string(root.join(name)) else { continue };
        let folder = Path::new(name).parent().unwrap_or(Path::new(""));
        for target in link.captures_iter(&text).map(|found| found[1].to_owned()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = target.split_once('#').map_or((target.as_str(), None), |(p, h)| (p, Some(h)));
            let path = if path.is_empty() { root.join(name) } else { root.join(folder).join(path) };
            let exists = match heading {
                None => path.exists(),
                Some(heading) => fs::read_to_string(&path).is_ok_and(|text| headings(&text).any(|h| h == heading)),
            };
            if !exists {
                complaints.push(format!("{name}: the link to {target} leads nowhere"));
            }
        }
    }
}

/// The anchors that GitHub gives a page's headings.
fn headings(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

fn leaf_table(root: &Path, folder: &str, complaints: &mut Vec<String>) {
    let path = root.join(folder);
    let Ok(table) = fs::read_to_string(path.join("mod.rs")) else {
        complaints.push(format!("{folder} has no mod.rs with its table"));
        return;
    };
    let Ok(entries) = fs::read_dir(&path) else { return };
    for entry in entries.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(name) = file.strip_suffix(".rs").filter(|name| *name != "mod") else { continue };
        if !table.contains(&format!("mod {name};")) {
            complaints.push(format!("{folder}/{file} is not declared in mod.rs"));
        } else if !table.contains(&format!("{name}::")) && !table.contains(&format!("pub mod {name};")) {
            // What leaves share is `pub mod` and needs no line.
            complaints.push(format!("{folder}/{file} has no line in the table of mod.rs"));
        }
    }
}

/// Codes stand in files named `codes.rs`. Each has a page, each page a code, and each code somebody who gives it.
fn error_pages(root: &Path, sources: &[PathBuf], complaints: &mut Vec<String>) {
    let codes: BTreeSet<String> = codes(root).into_keys().collect();
    let constant = Regex::new(r#"\b([A-Z0-9_]+)(?:: &str)? = "[a-z0-9]+::"#).expect("a valid pattern");
    let texts =
        sources.iter().filter(|path| !path.ends_with("codes.rs")).filter_map(|path| fs::read_to_string(path).ok());
    let code = texts.collect::<Vec<_>>().concat();
    for path in sources.iter().filter(|path| path.ends_with("codes.rs")) {
        let text = fs::read_to_string(path).unwrap_or_default();
        for found in constant.captures_iter(&text).filter(|found| !code.contains(&format!("codes::{}", &found[1]))) {
            complaints.push(format!(
                "{}: nothing gives {}",
                path.strip_prefix(root).unwrap_or(path).display(),
                &found[1]
            ));
        }
    }
    let mut pages = BTreeSet::new();
    let folder = root.join("docs/errors");
    for path in walk(&folder, "md") {
        let name = path.strip_prefix(&folder).unwrap_or(&path).with_extension("");
        if name.components().count() == 2 {
            pages.insert(name.display().to_string().replace('/', "::"));
        }
    }
    complaints.extend(
        codes.difference(&pages).map(|c| format!("error {c} has no page: docs/errors/{}.md", c.replace("::", "/"))),
    );
    complaints.extend(
        pages.difference(&codes).map(|c| format!("docs/errors/{}.md describes no error code", c.replace("::", "/"))),
    );
}

pub fn sources(root: &Path) -> Vec<PathBuf> {
    ["crates", "xtask", "e2e", "examples"].iter().flat_map(|folder| walk(&root.join(folder), "rs")).collect()
}

pub fn walk(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "target") {
                    waiting.push(path);
                }
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_become_anchors() {
        let found: Vec<String> = headings("# The `lock` file\ntext\n## 401, or 403?\n").collect();
        assert_eq!(found, ["the-lock-file", "401-or-403"]);
    }

    #[track_caller]
    fn check(name: &str, text: &str, expected: &[&str]) {
        let mut complaints = Vec::new();
        source_file(name, text, &mut complaints);
        assert_eq!(complaints, expected);
    }

    #[test]
    fn sources_keep_the_rules() {
        let print = format!("//! A.\nfn f() {{ print{}\"\") }}\n", "ln!(");
        check("crates/ctk-oci/src/lib.rs", &print, &["crates/ctk-oci/src/lib.rs: only the binary may println!(…)"]);
        check("crates/ctk/src/main.rs", &print, &[]);
        check(
            "crates/ctk/src/main.rs",
            "fn f() {}\n",
            &["crates/ctk/src/main.rs does not begin with what it is for (`//!`)"],
        );
        let unfinished = format!("//! A.\nfn f() {{ to{}) }}\n", "do!(");
        check(
            "crates/ctk/src/main.rs",
            &unfinished,
            &[format!("crates/ctk/src/main.rs has a `to{}`", "do!(").as_str()],
        );
    }
}
