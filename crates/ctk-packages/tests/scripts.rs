//! Maintainer scripts in a root of our own making: order, environment, triggers, failures.

#[path = "common/archive.rs"]
mod archive;
#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use archive::{Archive, Fixture, request};
use common::Chroot;
use ctk_packages::{PackagesError, Scripts, fetch, install, resolve};
use ctk_plan::{Address, Cancel, Kind, Reporter, Silent, Step};

const SHELL: &str = "/usr/bin/busybox";

fn step() -> Step {
    Reporter::new(Address::new(Kind::Image, "t"), Arc::new(Silent)).step("t")
}

fn able() -> bool {
    let tools = ["gpg", "dpkg-deb", "xz", "busybox", "unshare"].iter().all(|t| Path::new("/usr/bin").join(t).exists());
    if rustix::process::geteuid().is_root() && tools {
        return true;
    }
    assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs root, gpg, dpkg-deb, xz, busybox");
    println!("skipped: needs root, gpg, dpkg-deb, xz, busybox");
    false
}

/// A root with a shell and the packages `a` (which needs `b`) and `b`, with these scripts.
fn installed(a: &[(&str, &str)], b: &[(&str, &str)]) -> (tempfile::TempDir, Result<(), PackagesError>) {
    let mut archive = Archive::new();
    let shell = Fixture { control: "Essential: yes\n", binaries: &[("bin/sh", SHELL)], ..Fixture::default() };
    archive.add("shell", "1", shell);
    archive.add(
        "a",
        "1",
        Fixture { control: "Depends: b\n", files: &[("usr/share/a", "a")], scripts: a, ..Fixture::default() },
    );
    archive.add("b", "1", Fixture { control: "Depends: shell\nMulti-Arch: same\n", scripts: b, ..Fixture::default() });
    archive.publish("");
    let root = tempfile::tempdir().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let (host, cancel) = (archive.host(), Cancel::new());
    let locked = resolve(&request(&["a"]), &host, cache.path(), &step(), &cancel).unwrap();
    let files = fetch(&locked, &host, None, cache.path(), &step(), &cancel).unwrap();
    let runner = Chroot { root: root.path().into() };
    let done = install(&locked, &files, root.path(), Scripts::Run(&runner), &step(), &cancel).map(|_| ());
    (root, done)
}

const SAY: &str =
    "#!/bin/sh\necho \"$DPKG_MAINTSCRIPT_PACKAGE/$DPKG_MAINTSCRIPT_NAME/$DPKG_MAINTSCRIPT_ARCH: $*\" >>/said\n";

#[test]
fn needs_are_configured_first_and_triggers_last() {
    if !able() {
        return;
    }
    let a = [("preinst", SAY), ("postinst", SAY), ("triggers", "activate-noawait news\n")];
    let b = [("postinst", SAY), ("triggers", "interest-noawait news\ninterest /usr/share\n")];
    let (root, done) = installed(&a, &b);
    done.unwrap();
    let said = fs::read_to_string(root.path().join("said")).unwrap();
    let expected = "a/preinst/amd64: install\nb/postinst/amd64: configure \na/postinst/amd64: configure \nb/postinst/amd64: triggered news\n";
    assert_eq!(said, expected);
    let read = |path: &str| fs::read_to_string(root.path().join("var/lib/dpkg").join(path)).unwrap();
    assert_eq!(read("triggers/news"), "b:amd64/noawait\n");
    assert_eq!(read("triggers/File"), "/usr/share b:amd64\n");
    assert_eq!(read("status").matches("Status: install ok installed").count(), 3);
    assert!(read("info/b:amd64.list").starts_with("/.\n"));
    for helper in ["usr/sbin/policy-rc.d", "usr/lib/.ctk-scripts"] {
        assert!(!root.path().join(helper).exists(), "{helper}");
    }
}

#[test]
fn a_failing_script_is_named_with_its_words() {
    if !able() {
        return;
    }
    let (_root, done) = installed(&[("postinst", "#!/bin/sh\necho no such luck >&2\nexit 7\n")], &[("postinst", SAY)]);
    let error = done.unwrap_err();
    assert!(matches!(&error, PackagesError::Script { package, .. } if package == "a"));
    assert_eq!(error.to_string(), "package a: the postinst script failed with exit code 7:\nno such luck");
}

#[test]
fn a_root_without_a_shell_is_an_error() {
    if !able() {
        return;
    }
    let mut archive = Archive::new();
    archive.add("a", "1", Fixture { scripts: &[("postinst", SAY)], ..Fixture::default() });
    archive.publish("");
    let (root, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (host, cancel) = (archive.host(), Cancel::new());
    let locked = resolve(&request(&["a"]), &host, cache.path(), &step(), &cancel).unwrap();
    let files = fetch(&locked, &host, None, cache.path(), &step(), &cancel).unwrap();
    let runner = Chroot { root: root.path().into() };
    let error = install(&locked, &files, root.path(), Scripts::Run(&runner), &step(), &cancel).unwrap_err();
    assert!(error.to_string().contains("exit code 127"), "{error}");
}
