//! What is a hit, what is a miss, and what is said of it: real builds, one line of a table each.

mod common;
#[path = "common/server.rs"]
mod server;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{Bench, can_run, chain};
use ctk_build::{Cause, Explained, ImageDecl};
use ctk_plan::{Address, Kind};
use ctk_store::Ref;
use server::{Repository, Server};

/// One image in a folder of its own, so that no case finds another's results.
struct Site<'a> {
    bench: &'a mut Bench,
    decl: ImageDecl,
    folder: PathBuf,
}

/// A tools stage, a stage that copies and is given an argument, and one that takes from it.
const USUAL: &str = "\
FROM busybox AS tools
RUN echo CASE > /case
FROM tools AS build
ARG USED=1
COPY src /src
RUN echo $USED > /used
FROM tools
ARG LATER=1
COPY --from=build /src/a /used /
RUN echo $LATER > /later
";

impl Site<'_> {
    fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn dockerfile(&self, text: &str) {
        self.write("Dockerfile", &text.replace("CASE", &self.folder.display().to_string()));
    }

    /// The same with `from` replaced.
    fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("Dockerfile")).unwrap();
        assert!(text.contains(from), "{from}");
        self.write("Dockerfile", &text.replace(from, to));
    }

    fn arg(&mut self, name: &str, value: &str) {
        self.decl.args.insert(name.into(), value.into());
    }

    /// What was said before the build ran, and how many operations ran.
    fn build(&mut self) -> (Explained, usize) {
        let built = self.bench.run(&self.decl).unwrap_or_else(|error| panic!("{}", chain(&error)));
        let mut told = self.bench.explained.take();
        assert_eq!(told.len(), 1);
        (told.remove(0), built.executed)
    }
}

type Deed = fn(&mut Site<'_>);

struct Case {
    name: &'static str,
    /// On top of the usual files, before the first build.
    before: Deed,
    /// Between the builds.
    change: Deed,
    /// `step: cause` for each step that has a cause of its own, in order; none for a hit.
    expected: &'static [&'static str],
}

const fn case(name: &'static str, before: Deed, change: Deed, expected: &'static [&'static str]) -> Case {
    Case { name, before, change, expected }
}

fn nothing(_: &mut Site<'_>) {}

fn mark(site: &Site<'_>, value: &[u8]) {
    rustix::fs::setxattr(site.path("src/a"), "user.mark", value, rustix::fs::XattrFlags::empty()).unwrap();
}

fn retag(site: &mut Site<'_>, text: &str) {
    let decl = ImageDecl::dockerfile(Address::new(Kind::Image, "base"), "moving/Dockerfile", "moving");
    site.bench.write("moving/Dockerfile", &format!("FROM busybox\nRUN echo {text} > /base\n"));
    let built = site.bench.run(&decl).unwrap_or_else(|error| panic!("{}", chain(&error)));
    site.bench.explained.take();
    site.bench.store.set_reference("docker.io/library/moving:latest", &Ref::new(built.descriptor)).unwrap();
    site.bench.lock.0.lock().unwrap().retain(|name, _| !name.contains("moving"));
}

const COPY: &str = "COPY src /src";

const CASES: &[Case] = &[
    case("nothing changed", nothing, nothing, &[]),
    case("content", nothing, |s| s.write("src/a", "other"), &["COPY src /src: src/a: content changed"]),
    case(
        "mode",
        nothing,
        |s| std::fs::set_permissions(s.path("src/a"), std::fs::Permissions::from_mode(0o755)).unwrap(),
        &["COPY src /src: src/a: mode 644 → 755"],
    ),
    case(
        "mode of a directory",
        nothing,
        |s| std::fs::set_permissions(s.path("src/sub"), std::fs::Permissions::from_mode(0o700)).unwrap(),
        &["COPY src /src: src/sub: mode 755 → 700"],
    ),
    case(
        "link target",
        nothing,
        |s| {
            std::fs::remove_file(s.path("src/link")).unwrap();
            symlink("elsewhere", s.path("src/link")).unwrap();
        },
        &["COPY src /src: src/link: link target a → elsewhere"],
    ),
    case(
        "touched",
        nothing,
        |s| std::fs::File::open(s.path("src/a")).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap(),
        &[],
    ),
    case(
        "renamed",
        nothing,
        |s| std::fs::rename(s.path("src/sub/b"), s.path("src/sub/c")).unwrap(),
        &["COPY src /src: src/sub/c: renamed from src/sub/b"],
    ),
    case("added", nothing, |s| s.write("src/new", "new"), &["COPY src /src: src/new: added"]),
    case(
        "removed",
        nothing,
        |s| std::fs::remove_file(s.path("src/sub/b")).unwrap(),
        &["COPY src /src: src/sub/b: removed"],
    ),
    case(
        "file became a directory",
        nothing,
        |s| {
            std::fs::remove_file(s.path("src/sub/b")).unwrap();
            std::fs::create_dir(s.path("src/sub/b")).unwrap();
        },
        &["COPY src /src: src/sub/b: is something else (file, directory or link)"],
    ),
    case(
        "empty directory added",
        nothing,
        |s| std::fs::create_dir(s.path("src/empty")).unwrap(),
        &["COPY src /src: src/empty: added"],
    ),
    case(
        "attribute",
        |s| mark(s, b"1"),
        |s| mark(s, b"2"),
        &["COPY src /src: src/a: extended attribute user.mark changed"],
    ),
    case(
        "attribute added",
        nothing,
        |s| mark(s, b"2"),
        &["COPY src /src: src/a: extended attribute user.mark changed"],
    ),
    case(
        "attribute removed",
        |s| mark(s, b"1"),
        |s| rustix::fs::removexattr(s.path("src/a"), "user.mark").unwrap(),
        &["COPY src /src: src/a: extended attribute user.mark changed"],
    ),
    case(
        "content of a file with an attribute",
        |s| mark(s, b"1"),
        |s| s.write("src/a", "other"),
        &["COPY src /src: src/a: content changed"],
    ),
    case(
        "content and attribute",
        |s| mark(s, b"1"),
        |s| {
            s.write("src/a", "other");
            mark(s, b"2");
        },
        &["COPY src /src: src/a: content changed"],
    ),
    case(
        "attribute of a directory",
        nothing,
        |s| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(s.path("src/sub"), "user.mark", b"1", flags).unwrap();
        },
        &["COPY src /src: src/sub: extended attribute user.mark changed"],
    ),
    case(
        "hard link",
        |s| s.write("src/sub/c", "b"),
        |s| {
            std::fs::remove_file(s.path("src/sub/c")).unwrap();
            std::fs::hard_link(s.path("src/sub/b"), s.path("src/sub/c")).unwrap();
        },
        &["COPY src /src: src/sub/c: is the same file as src/sub/b now (a hard link)"],
    ),
    case("owner", nothing, |s| std::os::unix::fs::chown(s.path("src/a"), Some(1234), Some(1234)).unwrap(), &[]),
    case("ignored file", |s| s.write(".dockerignore", "src/*.log\n"), |s| s.write("src/x.log", "log"), &[]),
    case("ignore file without effect", nothing, |s| s.write(".dockerignore", "nothing/like/this\n"), &[]),
    case(
        "ignore file with effect",
        nothing,
        |s| s.write(".dockerignore", "src/sub/b\n"),
        &["COPY src /src: src/sub/b: removed"],
    ),
    case("file outside of what is copied", nothing, |s| s.write("README", "other"), &[]),
    case("argument that nobody declares", nothing, |s| s.arg("NOBODY", "2"), &[]),
    case(
        "argument that RUN sees",
        nothing,
        |s| s.arg("USED", "2"),
        &["RUN echo $USED > /used: argument USED: `1` → `2`"],
    ),
    case(
        "argument of a later stage",
        nothing,
        |s| s.arg("LATER", "2"),
        &["RUN echo $LATER > /later: argument LATER: `1` → `2`"],
    ),
    case(
        "argument declared after the last use",
        |s| s.edit("RUN echo $LATER > /later\n", "RUN echo $LATER > /later\nARG END=1\n"),
        |s| s.arg("END", "2"),
        &[],
    ),
    case(
        "argument in a COPY",
        |s| s.edit(COPY, "ARG DIR=one\nCOPY src /src\nCOPY README /$DIR"),
        |s| s.arg("DIR", "two"),
        &["COPY README /$DIR: argument DIR: `one` → `two`", "RUN echo $USED > /used: argument DIR: `one` → `two`"],
    ),
    case(
        "argument that is a secret",
        |s| s.edit(COPY, "ARG API_TOKEN=sesame\nCOPY src /src"),
        |s| s.arg("API_TOKEN", "mellon"),
        &["RUN echo $USED > /used: argument API_TOKEN changed (its values are not shown)"],
    ),
    case(
        "environment variable",
        |s| s.edit(COPY, "ENV LEVEL=1\nCOPY src /src"),
        |s| s.edit("LEVEL=1", "LEVEL=2"),
        &["RUN echo $USED > /used: environment variable LEVEL: `1` → `2`"],
    ),
    case(
        "working directory",
        |s| s.edit("RUN echo $LATER", "WORKDIR /tmp\nRUN echo $LATER"),
        |s| s.edit("WORKDIR /tmp", "WORKDIR /etc"),
        &[
            "WORKDIR /etc: instruction changed: `WORKDIR /tmp` (Dockerfile:10:1) → `WORKDIR /etc`",
            "RUN echo $LATER > /later: working directory: `/tmp` → `/etc`",
        ],
    ),
    case(
        "user",
        |s| s.edit("RUN echo $LATER > /later", "USER app\nRUN echo $LATER > /tmp/later"),
        |s| s.edit("USER app", "USER root"),
        &["RUN echo $LATER > /tmp/later: user: `app` → `root`"],
    ),
    case("label", nothing, |s| s.edit("ARG LATER", "LABEL new=1\nARG LATER"), &[]),
    case(
        "base moved",
        |s| {
            retag(s, "one");
            s.edit("FROM busybox AS tools", "FROM moving AS tools");
        },
        |s| retag(s, "two"),
        &["RUN echo FOLDER > /case: base docker.io/library/moving:latest moved: sha256:"],
    ),
    case(
        "base changed",
        |s| retag(s, "one"),
        |s| s.edit("FROM busybox AS tools", "FROM moving AS tools"),
        &["RUN echo FOLDER > /case: base changed: docker.io/library/busybox:latest (sha256:"],
    ),
    case("comment", nothing, |s| s.edit(COPY, "# Sources.\nCOPY src /src"), &[]),
    case("blank lines and case", nothing, |s| s.edit(COPY, "\n\ncopy   src   /src"), &[]),
    case(
        "stage renamed",
        nothing,
        |s| {
            s.edit("AS build", "AS compile");
            s.edit("--from=build", "--from=compile");
        },
        &[],
    ),
    case(
        "reordered",
        |s| s.edit(COPY, "RUN echo 1 > /1\nRUN echo 2 > /2\nCOPY src /src"),
        |s| s.edit("RUN echo 1 > /1\nRUN echo 2 > /2", "RUN echo 2 > /2\nRUN echo 1 > /1"),
        &[
            "RUN echo 2 > /2: it stands after `RUN echo FOLDER > /case`; it stood after `RUN echo 1 > /1`",
            "RUN echo 1 > /1: it stands after `RUN echo 2 > /2`; it stood after `RUN echo FOLDER > /case`",
            "COPY src /src: it stands after `RUN echo 1 > /1`; it stood after `RUN echo 2 > /2`",
        ],
    ),
    case(
        "instruction",
        nothing,
        |s| s.edit("RUN echo $USED > /used", "RUN echo +$USED > /used"),
        &[
            "RUN echo +$USED > /used: instruction changed: `RUN echo $USED > /used` (Dockerfile:6:1) → `RUN echo +$USED > /used`",
        ],
    ),
    case(
        "instruction added",
        nothing,
        |s| s.edit("ARG LATER=1\n", "ARG LATER=1\nRUN echo new > /new\n"),
        &[
            "RUN echo new > /new: the step is new",
            "COPY --from=build /src/a /used /: it stands after `RUN echo new > /new`; it stood after `RUN echo FOLDER > /case`",
        ],
    ),
    case(
        "heredoc",
        |s| s.edit("RUN echo $LATER > /later", "RUN <<EOF\necho one > /1\necho two > /2\nEOF"),
        |s| s.edit("echo two", "echo zwei"),
        &["RUN <<EOF: instruction changed: `echo two > /2` (Dockerfile:10:1) → `echo zwei > /2`"],
    ),
    case(
        "heredoc of a COPY",
        |s| s.edit("RUN echo $LATER > /later", "COPY <<EOF /text\none\nEOF"),
        |s| s.edit("one\nEOF", "two\nEOF"),
        &["COPY <<EOF /text: instruction changed: `one` (Dockerfile:10:1) → `two`"],
    ),
    case(
        "value of a secret",
        |s| {
            s.edit("RUN echo $LATER", "RUN --mount=type=secret,id=token echo $LATER");
            s.bench.secrets.0.insert("token".into(), "sesame".into());
        },
        |s| drop(s.bench.secrets.0.insert("token".into(), "mellon".into())),
        &[],
    ),
    case("proxy", |s| s.arg("HTTP_PROXY", "http://one"), |s| s.arg("HTTP_PROXY", "http://two"), &[]),
    case(
        "content of a cache mount",
        |s| s.edit("RUN echo $LATER", "RUN --mount=type=cache,target=/c date >> /c/dates; echo $LATER"),
        |s| {
            s.write("other/Dockerfile", "FROM busybox\nRUN --mount=type=cache,target=/c echo 1 > /c/more\n");
            let path = s.path("other/Dockerfile");
            let decl = ImageDecl::dockerfile(Address::new(Kind::Image, "other"), path.to_str().unwrap(), ".");
            s.bench.run(&decl).unwrap();
            s.bench.explained.take();
        },
        &[],
    ),
    case(
        "platform",
        nothing,
        |s| s.decl.platforms = vec!["linux/amd64/v2".parse().unwrap()],
        &[
            "RUN echo FOLDER > /case: platform: `linux/amd64` → `linux/amd64/v2`",
            "RUN echo $USED > /used: platform: `linux/amd64` → `linux/amd64/v2`",
            "RUN echo $LATER > /later: platform: `linux/amd64` → `linux/amd64/v2`",
        ],
    ),
    case(
        "mount",
        |s| s.edit("RUN echo $LATER", "RUN --mount=type=cache,target=/c echo $LATER"),
        |s| s.edit("target=/c", "target=/d"),
        &[
            "RUN --mount=type=cache,target=/d echo $LATER > /later: instruction changed: `RUN --mount=type=cache,target=/c echo $LATER > /later` (Dockerfile:10:1) → `RUN --mount=type=cache,target=/d echo $LATER > /later`",
        ],
    ),
    case(
        "argument in a mount",
        |s| s.edit("RUN echo $LATER", "ARG AT=/c\nRUN --mount=type=cache,target=$AT env -u AT echo $LATER"),
        |s| s.arg("AT", "/d"),
        &["RUN --mount=type=cache,target=$AT env -u AT echo $LATER > /later: argument AT: `/c` → `/d`"],
    ),
    case(
        "stage built anew",
        nothing,
        |s| s.bench.no_cache_stages = vec!["build".into()],
        &["COPY src /src: --no-cache-filter build", "RUN echo $USED > /used: --no-cache-filter build"],
    ),
];

/// `step: cause` for every cause that is no other step's, with the folder's name taken out.
fn causes(told: &Explained, folder: &Path) -> Vec<String> {
    let own = |cause: &&Cause| !matches!(cause, Cause::Step { .. });
    let steps = told.steps.iter().flat_map(|step| {
        let text = step.name.split_once("] ").map_or(step.name.as_str(), |(_, text)| text);
        step.causes.iter().filter(own).map(move |cause| format!("{text}: {cause}"))
    });
    steps.map(|line| line.replace(&folder.display().to_string(), "FOLDER")).collect()
}

fn site<'a>(bench: &'a mut Bench, name: &str) -> Site<'a> {
    let folder = bench.project().join(name);
    let decl = ImageDecl::dockerfile(Address::new(Kind::Image, "test"), format!("{name}/Dockerfile"), name);
    let site = Site { bench, decl, folder };
    site.dockerfile(USUAL);
    site.write("src/a", "a");
    site.write("src/sub/b", "b");
    site.write("README", "read me");
    symlink("a", site.path("src/link")).unwrap();
    site
}

#[test]
fn hits_and_misses() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    bench.explained.take();
    let mut wrong = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        let mut site = site(&mut bench, &format!("case{number}"));
        (case.before)(&mut site);
        let (first, ran) = site.build();
        assert!(ran > 0 && first.missing() > 0, "{}: not the first build", case.name);
        let (again, ran) = site.build();
        assert!(ran == 0 && again.missing() == 0, "{}: the second build ran {ran}\n{again}", case.name);
        (case.change)(&mut site);
        let (told, ran) = site.build();
        let seen = causes(&told, &site.folder);
        let alike = seen.len() == case.expected.len()
            && seen.iter().zip(case.expected).all(|(seen, wanted)| {
                let seen = seen.replace("FOLDER/Dockerfile", "Dockerfile");
                let seen = seen.replace(&format!("case{number}/Dockerfile"), "Dockerfile");
                seen == *wanted || (wanted.ends_with("sha256:") && seen.starts_with(wanted))
            });
        let hit = case.expected.is_empty();
        if !alike || hit != (ran == 0) || hit != (told.missing() == 0) {
            wrong.push(format!("{}: {ran} ran\n  wanted {:#?}\n  seen {seen:#?}", case.name, case.expected));
        }
        bench.no_cache_stages.clear();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_nearest_build_is_compared_with() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    bench.explained.take();
    let mut site = site(&mut bench, "nearest");
    let (told, _) = site.build();
    assert_eq!(causes(&told, &site.folder)[0], "RUN echo FOLDER > /case: first build");
    // Another version of everything, and back: nothing runs.
    site.write("src/a", "version two");
    site.write("src/sub/b", "version two");
    site.write("src/more", "version two");
    site.build();
    site.write("src/a", "a");
    site.write("src/sub/b", "b");
    std::fs::remove_file(site.path("src/more")).unwrap();
    assert_eq!(site.build().1, 0);
    // The one change is one against the version in force, although another was built last.
    site.write("src/a", "changed");
    let (told, _) = site.build();
    assert_eq!(causes(&told, &site.folder), ["COPY src /src: src/a: content changed"]);
}

#[test]
fn results_that_are_gone_and_builds_that_failed() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    bench.explained.take();
    let mut site = site(&mut bench, "gone");
    site.edit("RUN echo $LATER > /later", "RUN test -e /nowhere");
    assert!(site.bench.run(&site.decl).is_err());
    site.bench.explained.take();
    // What was built stays known, what failed was never finished.
    assert!(site.bench.run(&site.decl).is_err());
    let told = site.bench.explained.take().remove(0);
    assert_eq!(causes(&told, &site.folder), ["RUN test -e /nowhere: it was never finished"]);
    site.edit("RUN test -e /nowhere", "RUN echo $LATER > /later");
    site.build();
    for namespace in ["build-definition", "build-content"] {
        for key in site.bench.store.record_keys(namespace).unwrap() {
            site.bench.store.remove_record(namespace, &key).unwrap();
        }
    }
    let (told, _) = site.build();
    let seen = causes(&told, &site.folder);
    assert_eq!(seen.len(), 5, "{seen:?}");
    assert!(seen.iter().all(|line| line.ends_with("its earlier result is no longer in the store")), "{seen:?}");
}

#[test]
fn what_comes_from_elsewhere() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    bench.explained.take();
    let root = bench.folder.path().join("served");
    let repository = Repository::new(root.join("r.git"));
    repository.write("a.txt", "one\n").commit("one");
    std::fs::write(root.join("file.txt"), "one").unwrap();
    let server = Server::new(&root);
    let (file, git) = (server.url("files/file.txt"), server.url("git/r.git/.git"));
    let mut site = site(&mut bench, "elsewhere");
    site.dockerfile(&format!("FROM scratch\nADD {file} /file\nADD {git} /checkout\n"));
    site.build();
    assert_eq!(site.build().1, 0);
    let forget = |site: &Site<'_>| site.bench.lock.0.lock().unwrap().clear();
    forget(&site);
    assert_eq!(site.build().1, 0, "the same is there");
    std::fs::write(root.join("file.txt"), "changed").unwrap();
    // The server tells by seconds whether it changed.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    std::fs::File::open(root.join("file.txt")).unwrap().set_modified(later).unwrap();
    forget(&site);
    let seen = causes(&site.build().0, &site.folder);
    assert!(seen.iter().any(|line| line.starts_with(&format!("ADD {file} /file: {file}: `sha256:"))), "{seen:#?}");
    assert!(!seen.iter().any(|line| line.starts_with("ADD") && line.contains(".git:")), "{seen:#?}");
    repository.write("a.txt", "two\n").commit("two");
    forget(&site);
    let seen = causes(&site.build().0, &site.folder);
    assert!(seen.iter().any(|line| line.starts_with(&format!("ADD {git} /checkout: {git}"))), "{seen:#?}");
}

#[test]
fn what_is_linked_waits_for_nothing_and_the_same_content_is_cached() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    bench.explained.take();
    let mut site = site(&mut bench, "linked");
    site.dockerfile(
        "FROM busybox\nRUN echo one > /case\nCOPY --link README /linked\nCOPY --link src /src\nRUN echo > /after\n",
    );
    site.build();
    let outlook = |told: &Explained| -> Vec<(bool, bool, Vec<String>)> {
        let steps = told.steps.iter().skip_while(|step| !step.name.contains("RUN"));
        steps.map(|s| (s.cached, s.same_content, s.causes.iter().map(ToString::to_string).collect())).collect()
    };
    // Other files below: the copies are the same.
    site.edit("RUN echo one", "RUN echo other");
    let (told, ran) = site.build();
    let steps = outlook(&told);
    assert_eq!((steps.len(), ran), (4, 2), "{told}");
    assert!(!steps[0].0 && steps[0].2[0].starts_with("instruction changed"), "{told}");
    assert_eq!(steps[1..3], [(true, false, vec![]), (true, false, vec![])], "{told}");
    assert_eq!(steps[3], (false, false, vec!["[stage-0 2/5] RUN echo other > /case runs before it".into()]), "{told}");
    // The same files below, by another command; and one of the copies is another.
    site.edit("RUN echo other", "RUN true; echo other");
    site.write("README", "changed");
    let (told, ran) = site.build();
    let steps = outlook(&told);
    assert_eq!(ran, 3, "{told}");
    assert_eq!((steps[1].0, &steps[1].2), (false, &vec!["README: content changed".to_owned()]), "{told}");
    assert_eq!(steps[2], (true, false, vec![]), "{told}");
    assert_eq!(steps[3].2, ["[stage-0 3/5] COPY --link README /linked runs before it"], "{told}");
    // The command's layer has the same files: nothing on top of it runs.
    site.edit("RUN true; echo other", "RUN echo other");
    site.edit("RUN echo other", "RUN true; true; echo other");
    let (told, ran) = site.build();
    assert_eq!(ran, 1, "{told}");
    let before = vec!["[stage-0 2/5] RUN true; true; echo other > /case runs before it".into()];
    assert_eq!(outlook(&told)[3], (true, true, before), "{told}");
    assert!(told.to_string().contains("cached after all: what it is made of has content"), "{told}");
    // A copy that is gone from the store is not said to wait for what it is put onto.
    for key in site.bench.store.record_keys("build-content").unwrap() {
        site.bench.store.remove_record("build-content", &key).unwrap();
    }
    site.edit("RUN true; true; echo other", "RUN echo another");
    let (told, _) = site.build();
    assert_eq!(outlook(&told)[2].2, ["its earlier result is no longer in the store"], "{told}");
}
