//! Repositories as sources and contexts: real ones, over git's own servers.

mod common;
#[path = "common/server.rs"]
mod server;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Bench, chain};
use ctk_build::ContextDecl;
use ctk_buildgraph::ContextSource;
use server::{Repository, Server};

struct Rig {
    bench: Bench,
    server: Server,
    repository: Repository,
    first: String,
    second: String,
}

fn rig() -> Rig {
    let bench = Bench::new();
    let root = bench.folder.path().join("served");
    let repository = Repository::new(root.join("r.git"));
    repository
        .write("a.txt", "one\n")
        .write("bin/tool", "#!/bin/sh\n")
        .write("docs/Dockerfile", "FROM scratch\nCOPY . /d\n");
    std::fs::set_permissions(repository.0.join("bin/tool"), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink("a.txt", repository.0.join("link")).unwrap();
    let first = repository.commit("one");
    repository.git(&["tag", "light"]);
    repository.git(&["tag", "-a", "v1.0", "-m", "a release"]);
    repository.git(&["branch", "older"]);
    repository.write("a.txt", "two\n");
    let second = repository.commit("two");
    let server = Server::new(&root);
    Rig { bench, server, repository, first, second }
}

impl Rig {
    fn url(&self) -> String {
        self.server.url("git/r.git/.git")
    }

    fn add(&self, rest: &str) -> String {
        format!("FROM scratch\nADD {}{rest} /src\n", self.url())
    }

    /// The file that says which commit it is.
    fn text(&self, rest: &str) -> String {
        let built = self.bench.built(&self.add(rest));
        self.bench.text(&built, "src/a.txt")
    }
}

#[test]
fn files_as_git_has_them() {
    let rig = rig();
    let built = rig.bench.built(&rig.add(""));
    let tree = rig.bench.tree(&built);
    assert_eq!(tree.read("src/a.txt", 100).unwrap(), b"two\n");
    let mode = |path: &str| tree.stat_link(path).unwrap().unwrap().mode & 0o7777;
    assert_eq!((mode("src/a.txt"), mode("src/bin/tool"), mode("src/bin")), (0o644, 0o755, 0o755));
    assert!(tree.stat("src/.git").unwrap().is_none());
    // The commit's date is the image's.
    assert_eq!(rig.bench.config(&built).created.as_deref(), Some("2024-05-06T07:08:09Z"));
    let again = rig.bench.built(&rig.add(""));
    assert_eq!((again.executed, &again.descriptor), (0, &built.descriptor));
}

#[test]
fn every_kind_of_ref() {
    let rig = rig();
    assert_eq!(rig.text("#main"), "two\n");
    assert_eq!(rig.text("#older"), "one\n");
    assert_eq!(rig.text("#light"), "one\n");
    assert_eq!(rig.text("#v1.0"), "one\n");
    assert_eq!(rig.text("#refs/heads/older"), "one\n");
    assert_eq!(rig.text("?branch=older"), "one\n");
    assert_eq!(rig.text("?tag=v1.0"), "one\n");
    assert_eq!(rig.text(&format!("#{}", rig.first)), "one\n");
    assert_eq!(rig.text(&format!("#{}", &rig.first[..9])), "one\n");
    assert_eq!(rig.text(&format!("?checksum={}", &rig.second[..12])), "two\n");
    assert_eq!(rig.text(&format!("?ref=main&commit={}&fetch-by-commit", rig.second)), "two\n");
}

#[test]
fn a_folder_of_it() {
    let rig = rig();
    let built = rig.bench.built(&rig.add("#main:docs"));
    assert_eq!(rig.bench.text(&built, "src/Dockerfile"), "FROM scratch\nCOPY . /d\n");
    let failure = rig.bench.failure(&rig.add("#main:doc"));
    assert!(failure.contains("has no folder `doc`; did you mean `docs`?"), "{failure}");
}

#[test]
fn what_is_not_there() {
    let rig = rig();
    let failure = rig.bench.failure(&rig.add("#mian"));
    assert!(failure.contains("has no branch, tag or commit `mian`; did you mean `main`?"), "{failure}");
    let failure = rig.bench.failure(&rig.add("?ref=main&checksum=abcdef"));
    assert!(failure.contains(&format!("is commit {}, not abcdef", rig.second)), "{failure}");
    let failure = rig.bench.failure(&format!("FROM scratch\nADD --checksum={} {}#main /\n", rig.first, rig.url()));
    assert!(failure.contains("not"), "{failure}");
    let failure = rig.bench.failure(&format!("FROM scratch\nADD {} /\n", rig.server.url("git/nothing.git")));
    assert!(failure.contains("cannot fetch") && failure.contains("not found"), "{failure}");
    let failure = rig.bench.failure(&rig.add("?tags=v1"));
    assert!(failure.contains("`tags` is nothing that can be said of a repository; did you mean `tag`?"), "{failure}");
}

#[test]
fn a_ref_stays_what_it_was_until_the_lock_is_gone() {
    let rig = rig();
    assert_eq!(rig.text("#main"), "two\n");
    rig.repository.write("a.txt", "three\n").commit("three");
    assert_eq!(rig.text("#main"), "two\n");
    rig.bench.lock.0.lock().unwrap().clear();
    rig.server.seen();
    assert_eq!(rig.text("#main"), "three\n");
    // What is here already is not fetched again.
    rig.server.seen();
    assert_eq!(rig.text(&format!("#{}", rig.second)), "two\n");
    let seen = rig.server.seen();
    assert!(seen.is_empty(), "{seen:?}");
}

#[test]
fn a_server_of_plain_files() {
    let rig = rig();
    let bare = rig.server.root.join("dumb.git");
    rig.repository.git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    Repository(bare).git(&["update-server-info"]);
    for (rest, text) in [("", "two\n"), ("#v1.0", "one\n"), (&format!("#{}", rig.first), "one\n")] {
        let url = rig.server.url("files/dumb.git");
        let built = rig.bench.built(&format!("FROM scratch\nADD {url}{rest} /src\n"));
        assert_eq!(rig.bench.text(&built, "src/a.txt"), text);
    }
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // The daemon's children, too.
        let _ = rustix::process::kill_process_group(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::KILL,
        );
        let _ = self.0.wait();
    }
}

#[test]
fn gits_own_protocol() {
    let rig = rig();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("git");
    command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
    command.args(["daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1"]);
    command.arg(format!("--port={port}")).arg(format!("--base-path={}", rig.server.root.display()));
    command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
    let _daemon = Daemon(command.stdin(Stdio::null()).spawn().unwrap());
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "git daemon does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    for (rest, text) in [("#main", "two\n"), ("#v1.0", "one\n"), (&format!("#{}", rig.first), "one\n")] {
        let built = rig.bench.built(&format!("FROM scratch\nADD git://127.0.0.1:{port}/r.git{rest} /src\n"));
        assert_eq!(rig.bench.text(&built, "src/a.txt"), text);
    }
}

#[test]
fn submodules_come_too() {
    let rig = rig();
    let inner = Repository::new(rig.server.root.join("inner.git"));
    inner.write("inner.txt", "inner\n").commit("inner");
    let middle = Repository::new(rig.server.root.join("middle.git"));
    middle.write("middle.txt", "middle\n");
    let url = rig.server.url("git/inner.git/.git");
    middle.git(&["submodule", "add", "-q", &url, "below/inner"]);
    middle.commit("middle");
    // Relative to this repository's own address.
    let module = "[submodule \"m\"]\n\tpath = libs/m\n\turl = ../../middle.git/.git\n";
    rig.repository.write(".gitmodules", module);
    let commit = middle.git(&["rev-parse", "HEAD"]);
    rig.repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},libs/m")]);
    rig.repository.git(&["add", ".gitmodules"]);
    rig.repository.git(&["commit", "-q", "-m", "modules"]);
    let built = rig.bench.built(&rig.add(""));
    assert_eq!(rig.bench.text(&built, "src/libs/m/middle.txt"), "middle\n");
    assert_eq!(rig.bench.text(&built, "src/libs/m/below/inner/inner.txt"), "inner\n");
    let tree = rig.bench.tree(&built);
    assert!(tree.stat("src/libs/m/.git").unwrap().is_none());
    let built = rig.bench.built(&rig.add("?submodules=false"));
    let tree = rig.bench.tree(&built);
    assert_eq!(tree.list("src/libs/m").unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_submodule_on_this_machine_is_refused() {
    let rig = rig();
    let secret = Repository::new(rig.bench.folder.path().join("secret"));
    let commit = secret.write("s", "s").commit("s");
    let module = format!("[submodule \"m\"]\n\tpath = m\n\turl = {}\n", secret.0.display());
    rig.repository.write(".gitmodules", &module);
    rig.repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},m")]);
    rig.repository.git(&["add", ".gitmodules"]);
    rig.repository.git(&["commit", "-q", "-m", "modules"]);
    let failure = rig.bench.failure(&rig.add(""));
    assert!(failure.contains("'file' not allowed"), "{failure}");
}

#[test]
fn its_repository_is_kept_if_asked() {
    let rig = rig();
    let text = format!("FROM scratch\nADD --keep-git-dir=true {}#v1.0 /src\n", rig.url());
    let built = rig.bench.built(&text);
    let out = rig.bench.folder.path().join("out");
    let tree = rig.bench.tree(&built);
    copy_tree(&tree, "src", &out);
    let copy = Repository(out);
    assert_eq!(copy.git(&["rev-parse", "HEAD"]), rig.first);
    assert_eq!(copy.git(&["describe", "--tags"]), "v1.0");
    assert_eq!(copy.git(&["status", "--porcelain"]), "");
    assert_eq!(copy.git(&["remote", "get-url", "origin"]), rig.url());
    assert_eq!(copy.git(&["fsck"]), "");
    // The same bytes in another store.
    let other = Bench::new();
    assert_eq!(other.built(&text).descriptor, built.descriptor);
}

fn copy_tree(tree: &ctk_snapshot::TreeView, from: &str, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for name in tree.list(from).unwrap() {
        let name = String::from_utf8(name).unwrap();
        let (path, to) = (format!("{from}/{name}"), to.join(&name));
        let node = tree.stat_link(&path).unwrap().unwrap();
        match &node.kind {
            ctk_snapshot::NodeKind::Directory => copy_tree(tree, &path, &to),
            ctk_snapshot::NodeKind::Symlink(_) => std::os::unix::fs::symlink("a.txt", &to).unwrap(),
            _ => {
                std::fs::write(&to, tree.read(&path, 1 << 20).unwrap()).unwrap();
                std::fs::set_permissions(&to, std::fs::Permissions::from_mode(node.mode & 0o7777)).unwrap();
            }
        }
    }
}

#[test]
fn times_of_the_commit() {
    let rig = rig();
    let built = rig.bench.built(&format!(
        "FROM scratch AS src\nADD {0}?mtime=commit /src\nFROM busybox\nCOPY --from=src /src /src\nRUN stat -c %Y /src/a.txt /src/bin > /times\n",
        rig.url()
    ));
    assert_eq!(rig.bench.text(&built, "times"), "1714979289\n1714979289\n");
}

#[test]
fn tokens_are_sent_and_never_shown() {
    let mut rig = rig();
    // x-access-token:hush
    rig.server.require("basic eC1hY2Nlc3MtdG9rZW46aHVzaA==");
    let failure = rig.bench.failure(&rig.add(""));
    assert!(failure.contains("could not read Username") || failure.contains("terminal prompts disabled"), "{failure}");
    rig.bench.secrets.0.insert("GIT_AUTH_TOKEN".into(), "wrong".into());
    let failure = rig.bench.failure(&rig.add(""));
    assert!(!failure.contains("wrong") && !failure.contains("d3Jvbmc"), "{failure}");
    rig.bench.secrets.0.insert("GIT_AUTH_TOKEN".into(), "hush\n".into());
    assert_eq!(rig.text(""), "two\n");
    assert!(!rig.bench.log().contains("hush"));
    let host = format!("GIT_AUTH_TOKEN.127.0.0.1:{}", rig.server.port);
    rig.server.require("Bearer other");
    rig.bench.secrets.0.insert(host.replace("TOKEN", "HEADER"), "Bearer other".into());
    assert_eq!(rig.text("#older"), "one\n");
}

#[test]
fn without_git() {
    let mut rig = rig();
    rig.bench.environment.insert("PATH".into(), "/nonexistent".into());
    let failure = rig.bench.failure(&rig.add(""));
    assert!(failure.contains("needs the `git` program"), "{failure}");
}

#[test]
fn stopped_in_the_middle() {
    let bench = Bench::new();
    // Listens, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/r.git", silent.local_addr().unwrap());
    let cancel = bench.cancel.clone();
    std::thread::spawn(move || {
        let _held = silent.accept();
        cancel.cancel();
        std::thread::sleep(Duration::from_secs(30));
    });
    let began = Instant::now();
    let error = bench.dockerfile(&format!("FROM scratch\nADD {url} /\n")).unwrap_err();
    assert!(error.is_cancelled(), "{}", chain(&error));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_repository_is_the_main_context() {
    let rig = rig();
    rig.repository.write("dockerfile", "FROM scratch\nCOPY . /all\n").write(".dockerignore", "bin\n").commit("context");
    let mut decl = rig.bench.decl();
    decl.source = ctk_build::RecipeSource::InContext { path: "Dockerfile".into(), origin: None };
    let source = ContextSource::parse(&rig.url()).unwrap();
    decl.contexts.insert(String::new(), ContextDecl::from_source(source, None).unwrap());

    let seen = rig.bench.observe(&decl).unwrap();
    assert_eq!(seen.unresolved.len(), 1, "{seen:?}");
    let built = rig.bench.run(&decl).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(rig.bench.text(&built, "all/a.txt"), "two\n");
    // Only local contexts ignore files.
    assert!(rig.bench.tree(&built).stat("all/bin/tool").unwrap().is_some());

    rig.server.go_down();
    let seen = rig.bench.observe(&decl).unwrap();
    assert!(seen.unresolved.is_empty(), "{seen:?}");
    let again = rig.bench.run(&decl).unwrap();
    assert_eq!((again.executed, again.descriptor), (0, built.descriptor));

    decl.source = ctk_build::RecipeSource::InContext { path: "docs/Dockerfil".into(), origin: None };
    let failure = chain(&rig.bench.run(&decl).unwrap_err());
    assert!(failure.contains("`docs/Dockerfil` does not exist in the context"), "{failure}");
}
