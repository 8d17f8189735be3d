//! The cases of `test_data/dockerfiles`, built by us, by `docker build` and by `buildah bud`: the same trees and
//! configs, or an accepted difference.

use std::fmt::Write;

use ctk_e2e::corpus::{Site, cases, each};
use ctk_e2e::differences::{Accepted, compare};
use ctk_e2e::{has_programs, is_root};

#[test]
fn dockerfiles_build_to_what_others_build_them_to() {
    if !is_root() || !has_programs(&["mmdebstrap", "unshare", "nsenter", "busybox"]) {
        return;
    }
    let all = cases();
    let site = Site::new(&all, true);
    let accepted = Accepted::read();
    let builders = std::env::var("CTK_BUILDERS").unwrap_or_else(|_| "buildkit buildah".into());
    let told = each(&all, 8, |case| {
        let ours = site.ctk(case);
        let mut told = String::new();
        for builder in builders.split(' ') {
            let (theirs, loosely) = match builder {
                "buildkit" => (site.buildkit(case), false),
                _ if ours.is_err() => continue,
                _ => (site.buildah(case), true),
            };
            if let (Err(ours), Err(theirs)) = (&ours, &theirs) {
                eprintln!("refused by both: {}\n{ours}\n{theirs}", case.name);
            }
            for difference in compare(&ours, &theirs, &site.base, loosely) {
                if !accepted.accepts(&case.name, builder, &difference.what) {
                    let (what, ours, theirs) = (difference.what, difference.ours.trim(), difference.theirs.trim());
                    writeln!(told, "{} {builder} {what}\n    ctk: {ours}\n    {builder}: {theirs}", case.name).unwrap();
                }
            }
        }
        told
    });
    let mut told: String = told.concat();
    if std::env::var_os("CTK_CASES").is_none() {
        accepted.stale().into_iter().for_each(|line| writeln!(told, "stale: {line}").unwrap());
    }
    if let Some(path) = std::env::var_os("CTK_REPORT") {
        std::fs::write(path, &told).unwrap();
    }
    assert!(told.is_empty(), "{told}");
}
