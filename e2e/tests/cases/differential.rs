//! The cases of `test_data/dockerfiles`, built by us, by `docker build` and by `buildah bud`: the same trees and
//! configs, or an accepted difference.

use std::fmt::Write;
use std::sync::Mutex;

use ctk_e2e::agreed::Agreed;
use ctk_e2e::corpus::{Case, Outcome, Site, cases, each};
use ctk_e2e::differences::{Accepted, Difference, compare};
use ctk_e2e::{has_programs, is_root};

#[test]
fn dockerfiles_build_to_what_others_build_them_to() {
    if !is_root() || !has_programs(&["mmdebstrap", "unshare", "nsenter", "busybox"]) {
        return;
    }
    let all = cases();
    let site = Site::new(&all, true);
    let accepted = Accepted::read();
    let agreed = Agreed::of(&all, &accepted, &site.builders());
    let whole = std::env::var_os("CTK_CASES").is_none();
    // Chosen cases are asked about, and all of them when the record is to be written.
    let is_asked_all = !whole || std::env::var("CTK_ASK").is_ok_and(|word| word == "all");
    let asked = if is_asked_all { all } else { Agreed::read().open(&agreed, all) };
    let builders = std::env::var("CTK_BUILDERS").unwrap_or_else(|_| "buildkit buildah".into());
    let refused = Mutex::new(String::new());
    let told = each(&asked, 8, |case| {
        let ours = site.ctk(case);
        let mut told = String::new();
        for builder in builders.split(' ') {
            let (build, loosely): (fn(&Site, &Case) -> Outcome, _) = match builder {
                "buildkit" => (Site::buildkit, false),
                _ if ours.is_err() => continue,
                _ => (Site::buildah, true),
            };
            let differences = |theirs: &Outcome| {
                let mut differences = compare(&ours, theirs, &site.base, loosely);
                differences.retain(|difference| !accepted.accepts(&case.name, builder, &difference.what));
                differences
            };
            let mut theirs = build(&site, case);
            let mut found = differences(&theirs);
            if !found.is_empty() {
                // Of a builder that fails under load, the second word counts; ours has one only.
                theirs = build(&site, case);
                found = differences(&theirs);
            }
            if let (Err(ours), Err(theirs)) = (&ours, &theirs) {
                refused.lock().unwrap().push_str(&format!("{}\n{ours}\n{theirs}\n", case.name));
            }
            for Difference { what, ours, theirs } in found {
                let (ours, theirs) = (ours.trim(), theirs.trim());
                writeln!(told, "{} {builder} {what}\n    ctk: {ours}\n    {builder}: {theirs}", case.name).unwrap();
            }
        }
        told
    });
    let mut told: String = told.concat();
    if whole && is_asked_all {
        accepted.stale().into_iter().for_each(|line| writeln!(told, "stale: {line}").unwrap());
    }
    if let Some(path) = std::env::var_os("CTK_REPORT") {
        std::fs::write(path, format!("{told}\nRefused by both:\n{}", refused.into_inner().unwrap())).unwrap();
    }
    assert!(told.is_empty(), "{told}");
    if whole && is_asked_all && std::env::var_os("CTK_BLESS").is_some() {
        agreed.write();
    }
}
