//! A real distribution from the host's own sources: installed twice alike, working inside.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use common::Chroot;
use ctk_packages::{HostSources, Request, Scripts, fetch, install, resolve};
use ctk_plan::{Address, Cancel, Kind, Reporter, Silent, Step};

const SUITE: &str = "bookworm";

fn step() -> Step {
    Reporter::new(Address::new(Kind::Image, "t"), Arc::new(Silent)).step("t")
}

/// Every path with its kind, mode, owner, time, links and content.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(directory: &Path, root: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = match meta.file_type() {
                t if t.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
                t if t.is_file() => format!("{:?}", blake(&fs::read(&path).unwrap())),
                _ => String::new(),
            };
            let links = if meta.is_dir() { 0 } else { meta.nlink() };
            let all = (meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec(), links, content);
            found.insert(path.strip_prefix(root).unwrap().into(), format!("{all:?}"));
            if meta.is_dir() {
                walk(&path, root, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

fn blake(bytes: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).to_vec()
}

fn inside(root: &Path, setup: &str, command: &str) -> String {
    let script =
        format!("set -e; mount -t proc proc {0}/proc; {setup}\nexec chroot {0} sh -c '{command}' 2>&1", root.display());
    let out = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command}: {text}");
    text
}

#[test]
fn minbase_twice_alike_and_alive() {
    let skip = |what: &str| {
        assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs {what}");
        println!("skipped: needs {what}");
    };
    if !rustix::process::geteuid().is_root() {
        return skip("root");
    }
    let host = HostSources::read(Path::new("/etc/apt"), Path::new("/usr/share/keyrings")).unwrap();
    if !host.sources.iter().any(|s| s.suites.iter().any(|n| n == SUITE)) {
        return skip("a host with sources of bookworm");
    }
    let work = tempfile::tempdir().unwrap();
    let cache = work.path().join("cache");
    let request = Request {
        distro: "debian".into(),
        suite: SUITE.into(),
        architecture: "amd64".into(),
        now_seconds: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64,
        ..Request::default()
    };
    let cancel = Cancel::new();
    let locked = resolve(&request, &host, &cache, &step(), &cancel).unwrap();
    let files = fetch(&locked, &host, None, &cache, &step(), &cancel).unwrap();
    let mut trees = Vec::new();
    for name in ["one", "two"] {
        let root = work.path().join(name);
        fs::create_dir(&root).unwrap();
        let runner = Chroot { root: root.clone() };
        install(&locked, &files, &root, Scripts::Run(&runner), &step(), &cancel).unwrap();
        trees.push(tree(&root));
    }
    let differ: Vec<_> = trees[0].iter().filter(|(path, what)| trees[1].get(*path) != Some(what)).collect();
    assert!(differ.is_empty() && trees[0].len() == trees[1].len(), "{differ:#?}");
    assert!(trees[0].values().all(|v| !v.is_empty()));

    let root = work.path().join("two");
    assert_eq!(inside(&root, "", "dpkg --verify; dpkg --audit"), "");
    let listed = inside(&root, "", "dpkg -l");
    assert_eq!(listed.lines().filter(|l| l.starts_with("ii ")).count(), locked.packages.len(), "{listed}");
    // The host's own configuration, as a RUN step gets it.
    let mut setup = String::new();
    let further = ["/etc/resolv.conf", "/etc/hosts"].map(|p| (PathBuf::from(p), PathBuf::from(p)));
    let mounts = host.mounts.iter().map(|m| (m.source.clone(), m.destination.clone())).chain(further);
    for (source, destination) in mounts.filter(|(s, _)| s.exists()) {
        let target = format!("{}{}", root.display(), destination.display());
        let make = if source.is_dir() {
            format!("mkdir -p {target}")
        } else {
            format!("mkdir -p $(dirname {target}); touch {target}")
        };
        setup.push_str(&format!("{make}; mount --bind {} {target}\n", source.display()));
    }
    setup.push_str(&format!("mount --rbind /dev {}/dev\n", root.display()));
    inside(&root, &setup, "apt-get -q update && apt-get -q install -y --no-install-recommends hello && hello");
    assert_eq!(inside(&root, "", "dpkg --verify; dpkg --audit"), "");
}
