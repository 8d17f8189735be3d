//! Makes a minbase root from the host's own sources and says where the time goes.
//!
//! `cargo run --release -p ctk-packages --example minbase -- SUITE CACHE ROOT [PACKAGE…]`, as root.

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ctk_packages::{HostSources, Request, Scripts, Variant, fetch, install, resolve};
use ctk_plan::{Address, Cancel, Event, Kind, Reporter, Sink};

struct Lines;

impl Sink for Lines {
    fn emit(&self, event: Event) {
        if let Event::StepLog { line, .. } = event {
            eprintln!("  | {line}");
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [suite, cache, root, install_words @ ..] = args.as_slice() else {
        return Err("usage: minbase SUITE CACHE ROOT [PACKAGE…]".into());
    };
    let (cache, root) = (Path::new(cache), Path::new(root));
    std::fs::create_dir_all(root)?;
    let reporter = Reporter::new(Address::new(Kind::Image, "minbase"), Arc::new(Lines));
    let cancel = Cancel::new();
    let start = Instant::now();
    let mut last = start;
    let mut lap = |what: &str| {
        eprintln!("{what:>10} {:6.3} s", last.elapsed().as_secs_f64());
        last = Instant::now();
    };
    let host = HostSources::read(Path::new("/etc/apt"), Path::new("/usr/share/keyrings"))?;
    lap("sources");
    let request = Request {
        distro: "debian".into(),
        suite: suite.clone(),
        architecture: "amd64".into(),
        variant: Variant::Minbase,
        install: install_words.to_vec(),
        now_seconds: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64,
        ..Request::default()
    };
    let locked = resolve(&request, &host, cache, &reporter.step("resolve"), &cancel)?;
    lap("resolve");
    let files = fetch(&locked, &host, None, cache, &reporter.step("fetch"), &cancel)?;
    lap("fetch");
    let runner = common::Chroot { root: root.into() };
    let done = install(&locked, &files, root, Scripts::Run(&runner), &reporter.step("install"), &cancel)?;
    lap("install");
    let total = start.elapsed().as_secs_f64();
    let (packages, bytes) = (locked.packages.len(), done.bytes >> 20);
    eprintln!("     total {total:6.3} s: {packages} packages, {} entries, {bytes} MiB", done.entries);
    Ok(())
}
