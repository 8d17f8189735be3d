//! Archives good and bad, over real HTTP with real signatures.

#[path = "common/archive.rs"]
mod archive;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use archive::{Archive, Fault, Fixture, request};
use ctk_packages::{HostSources, Locked, PackagesError, Request, Scripts, SignedBy, fetch, install, resolve};
use ctk_plan::{Address, Cancel, Kind, Reporter, Silent, Step};

fn step() -> Step {
    Reporter::new(Address::new(Kind::Image, "t"), Arc::new(Silent)).step("t")
}

fn resolved(host: &HostSources, request: &Request, cache: &Path) -> Result<Locked, PackagesError> {
    resolve(request, host, cache, &step(), &Cancel::new())
}

fn fetched(host: &HostSources, locked: &Locked, cache: &Path) -> Result<Vec<std::path::PathBuf>, PackagesError> {
    fetch(locked, host, None, cache, &step(), &Cancel::new())
}

/// Files in a cache, `partial/` included.
fn files(cache: &Path) -> usize {
    let Ok(entries) = fs::read_dir(cache) else { return 0 };
    entries.flatten().map(|e| if e.path().is_dir() { files(&e.path()) } else { 1 }).sum()
}

fn able() -> bool {
    let root = rustix::process::geteuid().is_root();
    let tools = ["gpg", "dpkg-deb", "xz"].iter().all(|t| Path::new("/usr/bin").join(t).exists());
    if root && tools {
        return true;
    }
    assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs root, gpg, dpkg-deb and xz");
    println!("skipped: needs root, gpg, dpkg-deb and xz");
    false
}

/// An archive with `app`, which needs `lib`.
fn small() -> Archive {
    let mut archive = Archive::new();
    let lib = Fixture { files: &[("usr/lib/lib.so", "library"), ("lib/deep/x", "x")], ..Fixture::default() };
    archive.add("lib", "1.0+x~1-1", lib);
    let app = Fixture {
        control: "Depends: lib (>= 1.0)\n",
        files: &[("usr/bin/app", &"app".repeat(40_000)), ("etc/app.conf", "a=1\n")],
        scripts: &[("conffiles", "/etc/app.conf\n")],
        ..Fixture::default()
    };
    archive.add("app", "2", app);
    archive
}

#[test]
fn resolved_fetched_and_unpacked() {
    if !able() {
        return;
    }
    let archive = small();
    archive.publish("Acquire-By-Hash: yes\nValid-Until: Sat, 11 Jul 2099 10:16:37 UTC\n");
    let (cache, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let host = archive.host();
    let locked = resolved(&host, &request(&["app"]), cache.path()).unwrap();
    let names: Vec<_> = locked.packages.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["lib", "app"]);
    assert_eq!(locked.epoch_seconds, 1_783_764_997);
    assert!(archive.requests().iter().any(|r| r.contains("by-hash/SHA256")));
    let text = serde_json::to_string(&locked).unwrap();
    assert!(!text.contains("127.0.0.1") && serde_json::from_str::<Locked>(&text).unwrap() == locked);

    let debs = fetched(&host, &locked, cache.path()).unwrap();
    archive.requests();
    assert_eq!(fetched(&host, &locked, cache.path()).unwrap(), debs);
    assert_eq!(archive.requests(), Vec::<String>::new(), "the second fetch is served from the cache");

    install(&locked, &debs, root.path(), Scripts::None, &step(), &Cancel::new()).unwrap();
    assert_eq!(fs::read_link(root.path().join("lib")).unwrap(), Path::new("usr/lib"));
    assert_eq!(fs::read_to_string(root.path().join("usr/lib/deep/x")).unwrap(), "x");
    let status = fs::read_to_string(root.path().join("var/lib/dpkg/status")).unwrap();
    assert!(status.starts_with("Package: app\nStatus: install ok installed\nPriority: optional\n"), "{status}");
    assert!(
        status.contains("\nConffiles:\n /etc/app.conf 86a53f01cf2b6a93d0a6fdd9bcb0b5bb\n")
            || status.contains("Conffiles:\n /etc/app.conf "),
        "{status}"
    );
    for args in [["--verify", "app"], ["--listfiles", "lib"], ["--audit", "app"]] {
        let root = format!("--root={}", root.path().display());
        let out = std::process::Command::new("dpkg").arg(root).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{args:?}: {text}");
        assert!(args[0] != "--verify" || text.is_empty(), "{text}");
    }
}

#[test]
fn every_way_to_name_keys_and_places() {
    if !able() {
        return;
    }
    let archive = small();
    archive.publish("");
    let trusted = archive.dir.path().join("trusted.gpg");
    let check = |uri: &str, signed_by: SignedBy, keyrings: &[&Path]| {
        let mut host = archive.host_with(uri, signed_by);
        host.keyrings = keyrings.iter().map(|k| k.to_path_buf()).collect();
        let cache = tempfile::tempdir().unwrap();
        let locked = resolved(&host, &request(&["app"]), cache.path()).unwrap();
        assert_eq!(fetched(&host, &locked, cache.path()).unwrap().len(), 2);
    };
    let out = std::process::Command::new("gpg")
        .args(["--show-keys", "--with-colons", trusted.to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let print = text.lines().find(|l| l.starts_with("fpr")).unwrap().split(':').nth(9).unwrap().to_string();
    let armored = std::process::Command::new("gpg")
        .args(["--enarmor"])
        .stdin(fs::File::open(&trusted).unwrap())
        .output()
        .unwrap();
    let armored = String::from_utf8(armored.stdout).unwrap().replace("ARMORED FILE", "PUBLIC KEY BLOCK");
    check(&archive.url(), SignedBy::Host, &[&trusted]);
    check(&archive.url(), SignedBy::Fingerprints(vec![print]), &[&trusted]);
    check(&archive.url(), SignedBy::Inline(armored), &[]);
    check(&format!("file:{}", archive.dir.path().display()), SignedBy::Files(vec![trusted.clone()]), &[]);
    // A mirror of one's own, with a keyring of one's own, on a host without sources.
    let host = HostSources::default();
    let cache = tempfile::tempdir().unwrap();
    let own = Request { mirror: Some(archive.url()), keyring: Some(trusted.clone()), ..request(&["app"]) };
    let locked = resolved(&host, &own, cache.path()).unwrap();
    fetch(&locked, &host, Some(&archive.url()), cache.path(), &step(), &Cancel::new()).unwrap();

    let detached = small();
    detached.publish_detached();
    let cache = tempfile::tempdir().unwrap();
    resolved(&detached.host(), &request(&["app"]), cache.path()).unwrap();
    fs::remove_file(detached.dir.path().join("dists/test/Release.gpg")).unwrap();
    let error = resolved(&detached.host(), &request(&["app"]), cache.path()).unwrap_err();
    assert!(error.to_string().contains("carries no signature"), "{error}");
}

#[test]
fn a_mirror_that_stumbles_is_asked_again() {
    if !able() {
        return;
    }
    let archive = small();
    archive.publish("");
    let cache = tempfile::tempdir().unwrap();
    let host = archive.host();
    archive.fault(
        "dists/test/InRelease",
        &[Fault::Status("429 Too Many Requests\r\nRetry-After: 0"), Fault::Status("503 Busy")],
    );
    let locked = resolved(&host, &request(&["app"]), cache.path()).unwrap();
    archive.requests();
    archive.fault("pool/app_2.deb", &[Fault::Short(300), Fault::Status("500 Oops"), Fault::Short(100)]);
    fetched(&host, &locked, cache.path()).unwrap();
    let asked: Vec<_> = archive.requests().into_iter().filter(|r| r.contains("app_2")).collect();
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert!(asked[1].ends_with(" from 300"), "the second try goes on where the first ended: {asked:?}");
}

/// One bad archive, one error that names what and where, and nothing left in the cache.
fn check(publish: &str, spoil: impl Fn(&Archive), install: &[&str], expected: &[&str], most: usize) {
    if !able() {
        return;
    }
    let archive = small();
    archive.publish(publish);
    spoil(&archive);
    let cache = tempfile::tempdir().unwrap();
    let host = archive.host();
    let error = resolved(&host, &request(install), cache.path())
        .and_then(|locked| fetched(&host, &locked, cache.path()))
        .expect_err("this archive is bad")
        .to_string();
    for part in expected {
        assert!(error.contains(part), "expected `{part}` in: {error}");
    }
    // Whole files that came beside the bad one may stay; nothing half.
    assert_eq!(files(&cache.path().join("partial")), 0, "partial files left after: {error}");
    assert!(files(&cache.path().join("sha256")) <= most, "too many files in the cache after: {error}");
}

fn rewrite(archive: &Archive, path: &str, from: &str, to: &str) {
    let path = archive.dir.path().join(path);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

const IN_RELEASE: &str = "dists/test/InRelease";

#[test]
fn a_changed_release_file_is_refused() {
    let spoil = |a: &Archive| rewrite(a, IN_RELEASE, "Origin: T", "Origin: U");
    check("", spoil, &["app"], &["dists/test/InRelease: bad signature by key", "trusted.gpg"], 0);
    let spoil = |a: &Archive| fs::write(a.dir.path().join(IN_RELEASE), "Suite: test\n").unwrap();
    check("", spoil, &["app"], &["dists/test/InRelease: not a signed message"], 0);
}

#[test]
fn an_unknown_key_is_refused() {
    let spoil = |a: &Archive| {
        fs::remove_file(a.dir.path().join("trusted.gpg")).unwrap();
        a.key("somebody@example.test", "trusted.gpg");
    };
    check("", spoil, &["app"], &["dists/test/InRelease: signed by unknown key ", "trusted.gpg"], 0);
    let spoil = |a: &Archive| fs::write(a.dir.path().join("trusted.gpg"), "nonsense").unwrap();
    check("", spoil, &["app"], &["keyring ", "trusted.gpg holds no usable key"], 0);
}

#[test]
fn a_stale_or_wrong_release_file_is_refused() {
    let stale = "Valid-Until: Sun, 12 Jul 2026 10:16:37 UTC\n";
    check(stale, |_| {}, &["app"], &["InRelease: expired on Sun, 12 Jul 2026"], 0);
    if !able() {
        return;
    }
    let archive = small();
    archive.publish("");
    fs::rename(archive.dir.path().join("dists/test"), archive.dir.path().join("dists/other")).unwrap();
    let mut host = archive.host();
    host.sources[0].suites = vec!["other".into()];
    let cache = tempfile::tempdir().unwrap();
    let asked = Request { suite: "other".into(), ..request(&["app"]) };
    let error = resolved(&host, &asked, cache.path()).unwrap_err().to_string();
    assert!(error.contains("expected the release file of `other`, got that of suite `test`"), "{error}");
    let error = resolved(&host, &request(&["app"]), cache.path()).unwrap_err().to_string();
    assert!(error.contains("no package source offers suite `test`") && error.contains("other"), "{error}");
}

#[test]
fn wrong_digests_are_refused() {
    let spoil = |a: &Archive| {
        let bytes = fs::read(a.dir.path().join("dists/test/main/binary-amd64/Packages.xz")).unwrap();
        a.always("dists/test/main/binary-amd64/Packages.xz", Fault::Instead(vec![b'x'; bytes.len()]));
    };
    check("", spoil, &["app"], &["main/binary-amd64/Packages.xz: expected sha256 ", ", got "], 0);
    let spoil = |a: &Archive| {
        let bytes = fs::read(a.dir.path().join("pool/app_2.deb")).unwrap();
        a.always("pool/app_2.deb", Fault::Instead(vec![b'x'; bytes.len()]));
    };
    // The index and the other package are whole and stay.
    check("", spoil, &["app"], &["pool/app_2.deb: expected sha256 "], 2);
    let spoil = |a: &Archive| a.always("pool/app_2.deb", Fault::Instead(vec![b'x'; 1 << 20]));
    check("", spoil, &["app"], &["pool/app_2.deb is larger than "], 2);
}

#[test]
fn mirrors_that_fail_are_named() {
    check(
        "",
        |a| {
            a.always(IN_RELEASE, Fault::Status("404 Not Found"));
            a.always("dists/test/Release", Fault::Status("404 Not Found"));
        },
        &["app"],
        &["http://127.0.0.1", "InRelease", "404 Not Found"],
        0,
    );
    check(
        "",
        |a| a.always("pool/app_2.deb", Fault::Status("404 Not Found")),
        &["app"],
        &["pool/app_2.deb: the mirror answered 404"],
        2,
    );
    check(
        "",
        |a| a.always("pool/app_2.deb", Fault::Status("500 Oops")),
        &["app"],
        &["pool/app_2.deb: the mirror answered 500"],
        2,
    );
    check(
        "",
        |a| a.always("pool/app_2.deb", Fault::Short(0)),
        &["app"],
        &["cannot download http://", "pool/app_2.deb"],
        2,
    );
}

#[test]
fn what_cannot_be_had_is_explained() {
    check("", |_| {}, &["ap"], &["no package `ap` in test; did you mean `app`?"], 1);
    check("", |_| {}, &["app=3"], &["no version `3` of package `app`; there is 2"], 1);
    check("", |_| {}, &["app", "lib=9"], &["no version `9` of package `lib`; there is 1.0+x~1-1"], 1);
    if !able() {
        return;
    }
    let mut archive = small();
    archive.add("big", "1", Fixture { control: "Depends: lib (>= 2), nolib\n", ..Fixture::default() });
    archive.publish("");
    let cache = tempfile::tempdir().unwrap();
    let error = resolved(&archive.host(), &request(&["big"]), cache.path()).unwrap_err().to_string();
    assert_eq!(error, "big is asked for, big needs lib (>= 2), but test has lib 1.0+x~1-1");
}

#[test]
fn bad_package_files_are_refused() {
    if !able() {
        return;
    }
    let mut archive = small();
    archive.add("thief", "1", Fixture { files: &[("usr/bin/app", "mine")], ..Fixture::default() });
    archive.add(
        "heir",
        "1",
        Fixture { control: "Replaces: app\n", files: &[("usr/bin/app", "heir")], ..Fixture::default() },
    );
    archive.publish("");
    let cache = tempfile::tempdir().unwrap();
    let host = archive.host();
    let whole = |words: &[&str]| {
        let locked = resolved(&host, &request(words), cache.path()).unwrap();
        let debs = fetched(&host, &locked, cache.path()).unwrap();
        (locked, debs)
    };
    let into = |locked: &Locked, debs: &[std::path::PathBuf]| {
        let root = tempfile::tempdir().unwrap();
        install(locked, debs, root.path(), Scripts::None, &step(), &Cancel::new()).map(|_| root)
    };
    let (locked, debs) = whole(&["app"]);
    let bytes = fs::read(&debs[1]).unwrap();
    for (keep, expected) in
        [(bytes.len() - 200, "is truncated: data.tar"), (70, "is truncated"), (3, "is truncated: it has 3 bytes")]
    {
        let short = cache.path().join("short.deb");
        fs::write(&short, &bytes[..keep]).unwrap();
        let error = into(&locked, &[debs[0].clone(), short]).unwrap_err().to_string();
        assert!(error.contains("package app: ") && error.contains("short.deb") && error.contains(expected), "{error}");
    }
    let mut flipped = bytes.clone();
    let at = flipped.len() - 100;
    flipped[at] ^= 0xff;
    let path = cache.path().join("flipped.deb");
    fs::write(&path, flipped).unwrap();
    let error = into(&locked, &[debs[0].clone(), path]).unwrap_err().to_string();
    assert!(error.contains("flipped.deb has a broken data.tar"), "{error}");
    let error = into(&locked, &[debs[1].clone(), debs[0].clone()]).unwrap_err().to_string();
    assert!(error.contains("package lib: ") && error.contains("is app 2, not lib"), "{error}");

    let (locked, debs) = whole(&["app", "thief"]);
    let error = into(&locked, &debs).unwrap_err().to_string();
    assert_eq!(error, "packages app and thief both ship /usr/bin/app");
    let (locked, debs) = whole(&["app", "heir"]);
    let root = into(&locked, &debs).unwrap();
    assert_eq!(fs::read_to_string(root.path().join("usr/bin/app")).unwrap(), "heir");
    let list = fs::read_to_string(root.path().join("var/lib/dpkg/info/app.list")).unwrap();
    assert!(!list.contains("/usr/bin/app\n"), "{list}");
}

#[test]
fn cancelling_leaves_nothing_behind() {
    if !able() {
        return;
    }
    let archive = small();
    archive.publish("");
    let cache = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let error = resolve(&request(&["app"]), &archive.host(), cache.path(), &step(), &cancel).unwrap_err();
    assert!(matches!(error, PackagesError::Cancelled), "{error}");
}

#[test]
fn passwords_in_urls_are_not_shown() {
    if !able() {
        return;
    }
    let archive = small();
    archive.publish("");
    archive.always(IN_RELEASE, Fault::Status("401 Unauthorized"));
    let uri = archive.url().replace("://", "://user:secret@");
    let host = archive.host_with(&uri, SignedBy::Files(vec![archive.dir.path().join("trusted.gpg")]));
    let cache = tempfile::tempdir().unwrap();
    let error = resolved(&host, &request(&["app"]), cache.path()).unwrap_err().to_string();
    assert!(error.contains("user:***@") && error.contains("401") && !error.contains("secret"), "{error}");
}
