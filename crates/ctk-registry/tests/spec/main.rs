//! The distribution specification as a table of checks, over HTTP, against any registry: ours passes all of them,
//! `docker-registry` all but those of `docker-registry.txt`, each with its reason. That proves the checks as much as
//! the registries.
//!
//! `CTK_SPEC_HOST=HOST:PORT cargo test -p ctk-registry --test spec ours` asks another one instead of ours.

mod blobs;
mod lists;
mod manifests;
mod names;
mod peer;
mod uploads;

#[path = "../../../ctk-client/tests/common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ctk_registry::{ServeOptions, serve};
use peer::{Check, Peer};

/// The bar of the suite.
const CHECKS_AT_LEAST: usize = 300;

fn all() -> Vec<Check> {
    let mut checks = Vec::new();
    names::table(&mut checks);
    blobs::table(&mut checks);
    uploads::table(&mut checks);
    manifests::table(&mut checks);
    lists::table(&mut checks);
    checks
}

/// Runs every check in repositories of its own, several at once; gives those that failed.
fn run(host: &str) -> Vec<(String, String)> {
    let checks = all();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(check) = checks.get(number) else { break };
                    let peer = Peer::new(host, &format!("spec/r{number}"));
                    if let Err(reason) = (check.run)(&peer) {
                        let found = (number, check.id.clone(), format!("{reason} [{}]", check.clause));
                        failed.lock().unwrap().push(found);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    failed.into_iter().map(|(_, id, reason)| (id, reason)).collect()
}

#[test]
fn the_table_is_large_and_names_no_check_twice() {
    let checks = all();
    let ids: BTreeSet<&str> = checks.iter().map(|check| check.id.as_str()).collect();
    assert_eq!(ids.len(), checks.len(), "two checks of one name");
    assert!(ids.len() >= CHECKS_AT_LEAST, "{} checks", ids.len());
    println!("{} checks", ids.len());
}

#[test]
fn ours_passes_all() {
    if let Ok(host) = std::env::var("CTK_SPEC_HOST") {
        let failed = run(&host);
        assert!(failed.is_empty(), "{} of {} failed at {host}:\n{}", failed.len(), all().len(), show(&failed));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = serve(ServeOptions::new("127.0.0.1:0".parse().unwrap(), directory.path())).unwrap();
    let failed = run(&server.host());
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), show(&failed));
    server.storage().empty_trash().unwrap();
    assert_eq!(server.storage().check(true).unwrap().faults, [], "after all that");
}

#[test]
fn docker_registry_passes_all_but_its_known_differences() {
    if !common::has("docker-registry") {
        return;
    }
    let registry = common::DockerRegistry::start("");
    let failed = run(&registry.host);
    let known: Vec<(&str, &str)> = include_str!("docker-registry.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once("  ").expect("a check, two spaces, a reason"))
        .collect();
    let fits = |pattern: &str, id: &str| match pattern.strip_suffix('*') {
        Some(start) => id.starts_with(start),
        None => pattern == id,
    };
    let surprising: Vec<_> = failed.iter().filter(|(id, _)| !known.iter().any(|(p, _)| fits(p, id))).cloned().collect();
    assert!(surprising.is_empty(), "{} are new:\n{}", surprising.len(), show(&surprising));
    for (pattern, _) in &known {
        assert!(failed.iter().any(|(id, _)| fits(pattern, id)), "`{pattern}` is no difference any more");
    }
}

fn show(failed: &[(String, String)]) -> String {
    failed.iter().map(|(id, reason)| format!("{id}: {reason}\n")).collect()
}
