//! `packages { absent "curl"; present "libssl3" }`: what the image's package database says is installed.
//!
//! Read are `/var/lib/dpkg/status` and the files of `/var/lib/dpkg/status.d` (images without a package manager).

use std::collections::BTreeMap;

use ctk_syntax::Reader;

use super::Assertion;
use crate::error::CheckError;
use crate::limits;
use crate::report::{AssertionOutcome, Mismatch};
use crate::words;
use crate::world::World;

#[derive(Debug)]
struct Packages {
    present: Vec<String>,
    absent: Vec<String>,
}

pub(super) fn decode(reader: &mut Reader<'_, '_>) -> Option<Box<dyn Assertion>> {
    let mut lists = [Vec::new(), Vec::new()];
    for (word, list) in ["present", "absent"].into_iter().zip(&mut lists) {
        for node in reader.every(word) {
            let mut child = reader.child(node);
            list.extend(words::values(child.args_text_some("a package")));
            child.finish();
        }
    }
    let [present, absent] = lists;
    let asks = !reader.node().children.is_empty();
    words::asks_something(reader, asks, "a block, e.g. `{ absent \"curl\" }`");
    asks.then(|| Box::new(Packages { present, absent }) as Box<dyn Assertion>)
}

impl Assertion for Packages {
    fn name(&self) -> String {
        String::new()
    }

    fn check(&self, world: &World<'_>) -> Result<AssertionOutcome, CheckError> {
        let tree = world.tree();
        let mut installed = BTreeMap::new();
        if let Some(bytes) = tree.read("/var/lib/dpkg/status", limits::PACKAGE_STATUS_BYTES)? {
            parse(&String::from_utf8_lossy(&bytes), &mut installed);
        }
        for name in tree.list("/var/lib/dpkg/status.d")? {
            if let Some(bytes) = tree.read(&format!("/var/lib/dpkg/status.d/{name}"), limits::PACKAGE_STATUS_BYTES)? {
                parse(&String::from_utf8_lossy(&bytes), &mut installed);
            }
        }
        Ok(AssertionOutcome::of(self.compare(&installed)))
    }
}

impl Packages {
    fn compare(&self, installed: &BTreeMap<String, String>) -> Vec<Mismatch> {
        let mut mismatches = Vec::new();
        for name in self.present.iter().filter(|name| !installed.contains_key(*name)) {
            let seen = format!("not among {} packages", installed.len());
            mismatches.push(Mismatch::new(format!("package {name}"), "installed", seen));
        }
        for name in &self.absent {
            if let Some(version) = installed.get(name) {
                mismatches.push(Mismatch::new(
                    format!("package {name}"),
                    "not installed",
                    format!("version {version}"),
                ));
            }
        }
        mismatches
    }
}

/// Adds the installed packages of a dpkg status file: name to version. A paragraph without `Status` (in `status.d`)
/// counts as installed.
fn parse(status: &str, installed: &mut BTreeMap<String, String>) {
    for paragraph in status.split("\n\n") {
        let field = |name: &str| {
            paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|v| v.trim().to_string()))
        };
        let here = field("Status").is_none_or(|status| status.ends_with(" installed"));
        if let (Some(name), true) = (field("Package"), here) {
            installed.insert(name, field("Version").unwrap_or_else(|| "unknown".into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let status = "Package: curl\nStatus: deinstall ok config-files\nVersion: 7\n\n\
                      Package: libssl3\nStatus: install ok installed\nVersion: 3.0.1-1\nDescription: a\n Package: no\n\n\
                      Package: tzdata\nVersion: 2024a\n";
        let mut installed = BTreeMap::new();
        parse(status, &mut installed);
        assert_eq!(installed.keys().collect::<Vec<_>>(), ["libssl3", "tzdata"]);
        let wanted = Packages { present: vec!["curl".into()], absent: vec!["libssl3".into(), "gcc".into()] };
        let found: Vec<String> = wanted.compare(&installed).iter().map(Mismatch::to_string).collect();
        assert_eq!(
            found,
            [
                "package curl: expected installed, saw not among 2 packages",
                "package libssl3: expected not installed, saw version 3.0.1-1"
            ]
        );
    }
}
