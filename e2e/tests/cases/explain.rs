//! Why steps run, as the binary tells it: before anything runs, beside what then runs, and in every shape.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, SystemTime};

use ctk_e2e::front::Front;
use ctk_e2e::git::git;
use ctk_e2e::{Output, World, contains, eventually, free_port, has_programs, is_root, run};
use serde_json::Value;

/// Tools, a stage that builds with them and is given an argument, and one that takes from it. `CASE` keeps the images of
/// different cases apart, which have one store.
const USUAL: &str = "\
FROM scratch AS tools
COPY --chmod=755 busybox /bin/busybox
COPY --chmod=755 busybox /bin/sh
RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]
RUN echo CASE > /case
FROM tools AS build
ARG VERSION=1
COPY src /src
RUN cat /src/a > /out && echo $VERSION >> /out
FROM tools
COPY --from=build /out /out
";

const PROJECT: &str = "project \"case\"\nimage \"api\" dockerfile=\"Dockerfile\" { context \".\"; }\n";

/// A project in a folder of its own.
struct Site<'a> {
    world: &'a World,
    folder: PathBuf,
}

impl Site<'_> {
    fn new<'a>(world: &'a World, name: &str) -> Site<'a> {
        let site = Site { world, folder: world.project().join(name) };
        for (path, text) in [("containers.kdl", PROJECT), ("src/sub/b", "b\n"), ("README", "read me\n")] {
            site.write(path, text);
        }
        site.write("src/a", &format!("{name}\n"));
        site.write("Dockerfile", &USUAL.replace("CASE", name));
        symlink("a", site.path("src/link")).unwrap();
        fs::copy("/usr/bin/busybox", site.path("busybox")).expect("a static busybox");
        site
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The file with `from` replaced.
    fn edit(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(path)).unwrap();
        assert!(text.contains(from), "{from}");
        self.write(path, &text.replace(from, to));
    }

    fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn attribute(&self, path: &str, name: &str, value: &str) {
        self.world.peer("setfattr", &["-n", name, "-v", value, self.path(path).to_str().unwrap()]).ok();
    }

    fn ctk(&self, words: &[&str]) -> Output {
        let mut command = self.world.command(words);
        command.current_dir(&self.folder);
        run(command)
    }
}

/// Kills the server when the case ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Digests are no part of what is expected.
fn plain(text: &str) -> String {
    let is_digest = |word: &str| word.len() >= 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut plain = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        plain += if is_digest(bare) { "HEX" } else { bare };
        plain += &word[bare.len()..];
    }
    plain
}

/// What is said of the image's steps, without the lines before it.
fn told(text: &str) -> String {
    let at = text.find("image:api for linux/amd64").unwrap_or_else(|| panic!("nothing is explained in:\n{text}"));
    plain(&text[at..])
}

/// The same of a folder, which is called by its place: only the steps.
fn told_of_folder(text: &str) -> String {
    let at = text.rfind(" for linux/amd64:\n").unwrap_or_else(|| panic!("nothing is explained in:\n{text}"));
    let lines = text[at..].lines().skip(1).take_while(|line| line.starts_with("  "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// `[STEP] INSTRUCTION: cause` for every cause, but for steps that only follow others.
fn causes(told: &str) -> Vec<String> {
    let (mut step, mut causes) = ("", Vec::new());
    for line in told.lines() {
        match (line.strip_prefix("    "), line.strip_prefix("  ")) {
            (Some(cause), _) if cause.ends_with(" runs before it") => {}
            (Some(cause), _) => causes.push(format!("{step}: {cause}")),
            (None, Some(name)) => step = name.split("  ").next().unwrap(),
            (None, None) => {}
        }
    }
    causes
}

/// How many steps a build did, of what it told line by line.
fn ran(output: &Output) -> usize {
    output.err.lines().filter(|line| line.contains(": [") && line.contains(": done in")).count()
}

type Deed = fn(&Site<'_>);

struct Case {
    name: &'static str,
    /// Before the first build.
    before: Deed,
    /// Between it and the question.
    change: Deed,
    /// What is said, but of steps that only follow others.
    expected: &'static [&'static str],
    /// How many steps run then.
    runs: usize,
}

fn nothing(_: &Site<'_>) {}

const fn case(name: &'static str, before: Deed, change: Deed, expected: &'static [&'static str], runs: usize) -> Case {
    Case { name, before, change, expected, runs }
}

const CASES: &[Case] = &[
    case("nothing", nothing, nothing, &[], 0),
    case(
        "touched",
        nothing,
        |s| fs::File::open(s.path("src/a")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap(),
        &[],
        0,
    ),
    case("outside", nothing, |s| s.write("README", "other\n"), &[], 0),
    case("ignored", |s| s.write(".dockerignore", "src/*.log\n"), |s| s.write("src/x.log", "x\n"), &[], 0),
    case(
        "argument-of-nobody",
        nothing,
        |s| s.edit("containers.kdl", "context", "arg \"NOBODY\" \"2\"; context"),
        &[],
        0,
    ),
    case(
        "argument-unused",
        |s| s.edit("Dockerfile", "/out /out\n", "/out /out\nARG LATE=1\n"),
        |s| s.edit("Dockerfile", "LATE=1", "LATE=2"),
        &[],
        0,
    ),
    case("comment", nothing, |s| s.edit("Dockerfile", "COPY src", "# Sources.\ncopy  src"), &[], 0),
    case(
        "content",
        nothing,
        |s| s.write("src/a", "changed\n"),
        &["[build 2/3] COPY src /src: src/a: content changed"],
        3,
    ),
    case(
        "content-unused",
        nothing,
        |s| s.write("src/sub/b", "changed\n"),
        &["[build 2/3] COPY src /src: src/sub/b: content changed"],
        2,
    ),
    case("mode", nothing, |s| s.mode("src/a", 0o755), &["[build 2/3] COPY src /src: src/a: mode 644 → 755"], 2),
    case(
        "mode-of-a-directory",
        nothing,
        |s| s.mode("src/sub", 0o700),
        &["[build 2/3] COPY src /src: src/sub: mode 755 → 700"],
        2,
    ),
    case(
        "link",
        nothing,
        |s| {
            fs::remove_file(s.path("src/link")).unwrap();
            symlink("sub/b", s.path("src/link")).unwrap()
        },
        &["[build 2/3] COPY src /src: src/link: link target a → sub/b"],
        2,
    ),
    case(
        "kind",
        nothing,
        |s| {
            fs::remove_file(s.path("src/link")).unwrap();
            s.write("src/link", "a")
        },
        &["[build 2/3] COPY src /src: src/link: is something else (file, directory or link)"],
        2,
    ),
    case(
        "renamed",
        nothing,
        |s| fs::rename(s.path("src/sub/b"), s.path("src/sub/c")).unwrap(),
        &["[build 2/3] COPY src /src: src/sub/c: renamed from src/sub/b"],
        2,
    ),
    case("added", nothing, |s| s.write("src/new", "new\n"), &["[build 2/3] COPY src /src: src/new: added"], 2),
    case(
        "removed",
        nothing,
        |s| fs::remove_file(s.path("src/sub/b")).unwrap(),
        &["[build 2/3] COPY src /src: src/sub/b: removed"],
        2,
    ),
    case(
        "attribute",
        |s| s.attribute("src/a", "user.mark", "1"),
        |s| s.attribute("src/a", "user.mark", "2"),
        &["[build 2/3] COPY src /src: src/a: extended attribute user.mark changed"],
        2,
    ),
    case(
        "attribute-new",
        nothing,
        |s| s.attribute("src/a", "user.mark", "2"),
        &["[build 2/3] COPY src /src: src/a: extended attribute user.mark changed"],
        2,
    ),
    case(
        "hard-link",
        |s| s.write("src/sub/c", "b\n"),
        |s| {
            fs::remove_file(s.path("src/sub/c")).unwrap();
            fs::hard_link(s.path("src/sub/b"), s.path("src/sub/c")).unwrap();
        },
        &["[build 2/3] COPY src /src: src/sub/c: is the same file as src/sub/b now (a hard link)"],
        2,
    ),
    case(
        "argument",
        |s| s.edit("containers.kdl", "context", "arg \"VERSION\" \"1\"; context"),
        |s| s.edit("containers.kdl", "\"1\"", "\"2\""),
        &["[build 3/3] RUN cat /src/a > /out && echo $VERSION >> /out: argument VERSION: `1` → `2`"],
        2,
    ),
    case(
        "argument-default",
        nothing,
        |s| s.edit("Dockerfile", "VERSION=1", "VERSION=2"),
        &["[build 3/3] RUN cat /src/a > /out && echo $VERSION >> /out: argument VERSION: `1` → `2`"],
        2,
    ),
    case(
        "argument-secret",
        |s| s.edit("Dockerfile", "COPY src", "ARG API_TOKEN=sesame\nCOPY src"),
        |s| s.edit("Dockerfile", "sesame", "mellon"),
        &[
            "[build 3/3] RUN cat /src/a > /out && echo $VERSION >> /out: argument API_TOKEN changed (its values are not shown)",
        ],
        1,
    ),
    case(
        "environment",
        |s| s.edit("Dockerfile", "COPY src", "ENV LEVEL=1\nCOPY src"),
        |s| s.edit("Dockerfile", "LEVEL=1", "LEVEL=2"),
        &["[build 3/3] RUN cat /src/a > /out && echo $VERSION >> /out: environment variable LEVEL: `1` → `2`"],
        1,
    ),
    case(
        "instruction",
        nothing,
        |s| s.edit("Dockerfile", "RUN cat /src/a", "RUN cat /src/sub/b"),
        &[
            "[build 3/3] RUN cat /src/sub/b > /out && echo $VERSION >> /out: instruction changed: `RUN cat /src/a > /out && echo $VERSION >> /out` (Dockerfile:9:1) → `RUN cat /src/sub/b > /out && echo $VERSION >> /out`",
        ],
        2,
    ),
    case(
        "heredoc",
        |s| s.edit("Dockerfile", "COPY --from=build /out /out", "COPY <<EOF /text\none\nEOF"),
        |s| s.edit("Dockerfile", "one\nEOF", "two\nEOF"),
        &["[stage-2 2/2] COPY <<EOF /text: instruction changed: `one` (Dockerfile:11:1) → `two`"],
        1,
    ),
    case(
        "new-step",
        nothing,
        |s| s.edit("Dockerfile", "COPY src", "RUN echo 1 > /1\nCOPY src"),
        &[
            "[build 2/4] RUN echo 1 > /1: the step is new",
            "[build 3/4] COPY src /src: it stands after `RUN echo 1 > /1`; it stood after `RUN echo new-step > /case`",
        ],
        2,
    ),
    case(
        "order",
        |s| s.edit("Dockerfile", "COPY src", "RUN echo 1 > /1\nRUN echo 2 > /2\nCOPY src"),
        |s| s.edit("Dockerfile", "RUN echo 1 > /1\nRUN echo 2 > /2", "RUN echo 2 > /2\nRUN echo 1 > /1"),
        &[
            "[build 2/5] RUN echo 2 > /2: it stands after `RUN echo order > /case`; it stood after `RUN echo 1 > /1`",
            "[build 3/5] RUN echo 1 > /1: it stands after `RUN echo 2 > /2`; it stood after `RUN echo order > /case`",
            "[build 4/5] COPY src /src: it stands after `RUN echo 1 > /1`; it stood after `RUN echo 2 > /2`",
        ],
        3,
    ),
    case(
        "user",
        |s| {
            s.edit("Dockerfile", "COPY src", "RUN mkdir -m 777 /tmp\nCOPY src");
            s.edit("Dockerfile", "RUN cat", "USER 7\nRUN cat");
            s.edit("Dockerfile", "/out", "/tmp/out")
        },
        |s| s.edit("Dockerfile", "USER 7", "USER 0"),
        &["[build 4/4] RUN cat /src/a > /tmp/out && echo $VERSION >> /tmp/out: user: `7` → `0`"],
        2,
    ),
    case(
        "directory",
        |s| s.edit("Dockerfile", "RUN cat", "WORKDIR /one\nRUN cat"),
        |s| s.edit("Dockerfile", "/one", "/two"),
        &[
            "[build 3/4] WORKDIR /two: instruction changed: `WORKDIR /one` (Dockerfile:9:1) → `WORKDIR /two`",
            "[build 4/4] RUN cat /src/a > /out && echo $VERSION >> /out: working directory: `/one` → `/two`",
        ],
        2,
    ),
    case(
        "network",
        |s| s.edit("Dockerfile", "RUN cat", "RUN --network=none cat"),
        |s| s.edit("Dockerfile", "=none", "=default"),
        &["[build 3/3] RUN --network=default cat /src/a > /out && echo $VERSION >> /out: network: `none` → `default`"],
        1,
    ),
    case(
        "mount",
        |s| s.edit("Dockerfile", "RUN cat", "RUN --mount=type=cache,target=/c cat"),
        |s| s.edit("Dockerfile", "target=/c", "target=/d"),
        &[
            "[build 3/3] RUN --mount=type=cache,target=/d cat /src/a > /out && echo $VERSION >> /out: instruction changed: `RUN --mount=type=cache,target=/c cat /src/a > /out && echo $VERSION >> /out` (Dockerfile:9:1) → `RUN --mount=type=cache,target=/d cat /src/a > /out && echo $VERSION >> /out`",
        ],
        1,
    ),
    case(
        "platform",
        |s| s.edit("containers.kdl", "context", "platforms \"linux/amd64\"; context"),
        |s| s.edit("containers.kdl", "linux/amd64", "linux/amd64/v2"),
        &[
            "[tools 4/5] RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]: platform: `linux/amd64` → `linux/amd64/v2`",
            "[tools 5/5] RUN echo platform > /case: platform: `linux/amd64` → `linux/amd64/v2`",
            "[build 3/3] RUN cat /src/a > /out && echo $VERSION >> /out: platform: `linux/amd64` → `linux/amd64/v2`",
        ],
        3,
    ),
];

/// Begins the line under a step that did not run because its inputs had the same content.
const AFTER_ALL: &str = "cached after all: ";

#[test]
fn every_miss_is_named_before_it_runs_and_no_other_step_runs() {
    if !is_root() || !has_programs(&["busybox", "setfattr"]) {
        return;
    }
    let world = World::new();
    let mut wrong = Vec::new();
    for case in CASES {
        let site = Site::new(&world, case.name);
        (case.before)(&site);
        site.ctk(&["apply"]).ok();
        contains(&site.ctk(&["plan", "--explain"]).ok(), &["nothing to do"]);
        (case.change)(&site);
        let plan = site.ctk(&["plan", "--explain"]).ok();
        let applied = site.ctk(&["apply", "--explain"]);
        let said = if plan.ends_with("nothing to do\n") { String::new() } else { told(&plan) };
        let after = if said.is_empty() { String::new() } else { told(&applied.err) };
        let (causes, runs) = (causes(&said), ran(&applied));
        // Afterwards the same is said, and of steps that did not run after all that, too.
        let counted = |line: &&str| !line.ends_with("cached") && !line.trim_start().starts_with(AFTER_ALL);
        let alike = after.lines().filter(counted).eq(said.lines().filter(counted));
        let listed = after.lines().filter(|line| line.starts_with("  [")).count();
        let after_all = after.lines().filter(|line| line.trim_start().starts_with(AFTER_ALL)).count();
        if !alike || listed != runs + after_all || runs != case.runs || causes != case.expected {
            wrong.push(format!("{}: {runs} ran, {causes:#?}\n{said}--- after it\n{after}", case.name));
        }
        applied.ok();
        contains(&site.ctk(&["plan"]).ok(), &["nothing to do"]);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_came_from_elsewhere_and_moved() {
    if !is_root() || !has_programs(&["busybox", "git"]) {
        return;
    }
    let world = World::new();
    // A base in a registry, one in a layout, a file at a URL, a repository.
    let base = |word: &str| {
        world.write("base/Dockerfile", format!("FROM scratch\nCOPY word /{word}\n"));
        world.write("base/word", word);
    };
    let registry = format!("127.0.0.1:{}", free_port());
    let listen = ["registry", "serve", "--listen", &registry, "--storage", "registry"];
    let _server = Server(world.spawn(&listen));
    eventually(Duration::from_secs(10), "the registry answers", || std::net::TcpStream::connect(&registry).is_ok());
    let name = format!("{registry}/acme/base:1");
    let push = || drop(world.ctk(&["build", "--push", "-t", &name, "base"]).ok());
    let layout =
        || drop(world.ctk(&["build", "-q", "-t", "base", "-o", "type=oci,tar=false,dest=all/layout", "base"]).ok());
    let repository = world.path("git/r.git");
    fs::create_dir_all(&repository).unwrap();
    git(&repository, &["init", "-q", "-b", "main"]);
    let commit = |text: &str| {
        fs::write(repository.join("file"), text).unwrap();
        git(&repository, &["add", "."]);
        git(&repository, &["commit", "-q", "-m", text]);
    };
    fs::create_dir_all(world.path("www")).unwrap();
    let file = |text: &str| fs::write(world.path("www/file.txt"), text).unwrap();
    let (www, smart) = (Front::of_folder(world.path("www")), Front::of_repositories(world.path("git")));
    let (url, repository) = (format!("http://{}/file.txt", www.host), format!("http://{}/r.git/.git", smart.host));

    base("one");
    push();
    layout();
    commit("one");
    file("one");
    let site = Site::new(&world, "all");
    site.write(
        "Dockerfile",
        &format!(
            "FROM {name} AS pulled\nCOPY README /pulled\nFROM local AS tree\nCOPY README /local\nFROM scratch\nADD {url} /file\nADD {repository} /git\nCOPY --from=pulled /pulled /\nCOPY --from=tree /local /\n"
        ),
    );
    site.write(
        "containers.kdl",
        &PROJECT.replace("context \".\"", "context \".\"; context \"local\" \"oci-layout://layout\""),
    );
    let waits = told(&site.ctk(&["plan", "--explain"]).ok());
    let waited = ["is fetched\n", "is asked what it means\n", "is downloaded\n"];
    contains(&waits, &waited.map(|what| what));
    site.ctk(&["apply"]).ok();
    contains(&site.ctk(&["plan", "--explain"]).ok(), &["nothing to do"]);
    let explained = || causes(&told(&site.ctk(&["plan", "--explain"]).ok()));

    base("two");
    layout();
    let moved = "moved: sha256:HEX → sha256:HEX";
    assert_eq!(explained(), [format!("[tree 2/2] COPY README /local: base oci-layout://layout {moved}")]);
    site.ctk(&["apply"]).ok();
    // What moved elsewhere counts when the lock file says so.
    push();
    commit("two");
    file("two, which is longer");
    contains(&site.ctk(&["plan", "--explain"]).ok(), &["nothing to do"]);
    site.ctk(&["update"]).ok();
    assert_eq!(
        explained(),
        [
            format!("ADD {url}: {url}: `sha256:HEX` → `sha256:HEX`"),
            format!("[stage-2 2/5] ADD {url} /file: {url}: `sha256:HEX` → `sha256:HEX`"),
            format!("ADD {repository}: {repository}: `HEX` → `HEX`"),
            format!("[stage-2 3/5] ADD {repository} /git: {repository}: `HEX` → `HEX`"),
            format!("[pulled 2/2] COPY README /pulled: base {name} {moved}"),
        ]
    );
}

#[test]
fn on_a_base_that_moved_everything_runs_that_sees_it() {
    if !is_root() || !has_programs(&["busybox"]) {
        return;
    }
    let world = World::new();
    let site = Site::new(&world, "moved");
    let base = |word: &str| {
        world.write("base/Dockerfile", "FROM scratch\nCOPY word /word\n").write("base/word", format!("{word}\n"));
        let output = "type=oci,tar=false,dest=moved/layout";
        world.ctk(&["build", "-q", "-t", "base", "-o", output, "base"]).ok();
    };
    let text = "FROM local\nCOPY --chmod=755 busybox /bin/sh\nRUN read word < /word; echo $word moved > /seen\n";
    site.write("Dockerfile", text);
    let layout = "context \".\" { ignore \"layout\"; }; context \"local\" \"oci-layout://layout\"";
    site.write("containers.kdl", &PROJECT.replace("context \".\"", layout));
    let seen = || site.ctk(&["run", "image:api", "/bin/sh", "-c", "read line < /seen; echo $line"]).ok();
    base("one");
    let first = site.ctk(&["apply"]);
    assert_eq!((ran(&first), seen().as_str()), (2, "one moved\n"));
    // The same again is no other base.
    base("one");
    contains(&site.ctk(&["plan"]).ok(), &["nothing to do"]);
    base("two");
    let said = causes(&told(&site.ctk(&["plan", "--explain"]).ok()));
    let moved = "base oci-layout://layout moved: sha256:HEX → sha256:HEX";
    assert_eq!(said, [format!("[stage-0 2/3] COPY --chmod=755 busybox /bin/sh: {moved}")]);
    // What was copied meets nothing that changed.
    let second = site.ctk(&["apply"]);
    assert_eq!((ran(&second), seen().as_str()), (1, "two moved\n"));
    // Back to what is known.
    base("one");
    let third = site.ctk(&["apply"]);
    assert_eq!((ran(&third), seen().as_str()), (0, "one moved\n"));
}

#[test]
fn without_a_result_it_says_why_there_is_none() {
    if !is_root() || !has_programs(&["busybox"]) {
        return;
    }
    let world = World::new();
    let site = Site::new(&world, "none");
    let explained = |words: &[&str]| told(&site.ctk(words).ok());
    let every = |text: &str, cause: &str| {
        let causes = causes(text);
        assert_eq!(causes.len(), 7, "{text}");
        assert!(causes.iter().all(|line| line.ends_with(cause)), "{text}");
    };
    every(&explained(&["plan", "--explain"]), ": first build");
    site.edit("Dockerfile", "RUN cat", "RUN test -e /go && cat");
    let failed = site.ctk(&["apply", "--explain"]);
    every(&told(&failed.err), ": first build");
    contains(
        &failed.fails(1),
        &[
            "RUN test -e /go",
            "Dockerfile:9:1",
            "hint: `ctk build image:api --debug` opens a shell in the state before it",
        ],
    );
    let unfinished = [
        "[build 3/3] RUN test -e /go && cat /src/a > /out && echo $VERSION >> /out: it was never finished",
        "[stage-2 2/2] COPY --from=build /out /out: it was never finished",
    ];
    assert_eq!(causes(&explained(&["plan", "--explain"])), unfinished);
    site.edit("Dockerfile", "RUN test -e /go && cat", "RUN cat");
    site.ctk(&["apply"]).ok();
    // The results go, what is remembered of them stays.
    for records in ["build-definition", "build-content", "build-runs"] {
        fs::remove_dir_all(world.store().join("records").join(records)).unwrap();
    }
    site.write("src/a", "changed\n");
    let gone = causes(&explained(&["plan", "--explain"]));
    assert_eq!(
        gone[0],
        "[tools 2/5] COPY --chmod=755 busybox /bin/busybox: its earlier result is no longer in the store"
    );
    assert_eq!(gone[4], "[build 2/3] COPY src /src: src/a: content changed");
    site.ctk(&["apply"]).ok();
    contains(&site.ctk(&["why", "image:api"]).ok(), &["nothing changed since it was applied", "every step is cached"]);
    let anew = site.ctk(&["apply", "--no-cache", "--explain", "--force"]);
    every(&told(&anew.err), ": --no-cache");
    assert_eq!(ran(&anew), 7);
    let stage = site.ctk(&["build", ".", "--no-cache-filter", "build", "--explain"]);
    let told = told_of_folder(&stage.err);
    assert_eq!(
        causes(&told)[..2],
        [
            "[build 2/3] COPY src /src: --no-cache-filter build",
            "[build 3/3] RUN cat /src/a > /out && echo $VERSION >> /out: --no-cache-filter build"
        ]
    );
}

#[test]
fn one_of_very_many_files_is_named() {
    if !is_root() || !has_programs(&["busybox", "setfattr"]) {
        return;
    }
    let world = World::new();
    let site = Site::new(&world, "many");
    site.write("Dockerfile", "FROM scratch\nCOPY src /src\n");
    // More than a fingerprint names.
    for n in 0..15_000 {
        site.write(&format!("src/d{}/f{n}", n % 100), &n.to_string());
    }
    site.ctk(&["apply"]).ok();
    contains(&site.ctk(&["plan"]).ok(), &["nothing to do"]);
    site.write("src/d77/f77", "changed");
    let plan = site.ctk(&["plan", "--explain"]).ok();
    contains(&plan, &["  ~ image:api  build   src/d77/ changed ("]);
    let one = "  [stage-0 2/2] COPY src /src  Dockerfile:2:1\n    src/d77/f77: content changed\n";
    assert_eq!(told(&plan), format!("image:api for linux/amd64:\n{one}"));
    assert_eq!(site.ctk(&["why", "image:api/stage-0"]).ok(), told(&plan));
    // Several, in several ways.
    fs::remove_file(site.path("src/d7/f7")).unwrap();
    fs::rename(site.path("src/d8/f8"), site.path("src/d9/g")).unwrap();
    site.attribute("src/d9/f9", "user.mark", "1");
    site.mode("src/d10/f10", 0o755);
    site.write("src/new/deep", "new");
    let said = causes(&told(&site.ctk(&["plan", "--explain"]).ok()));
    let expected = [
        "src/d10/f10: mode 644 → 755",
        "src/d7/f7: removed",
        "src/d77/f77: content changed",
        "src/d9/f9: extended attribute user.mark changed",
        "src/d9/g: renamed from src/d8/f8",
        "src/new: added",
        "src/new/deep: added",
    ];
    assert_eq!(said, expected.map(|cause| format!("[stage-0 2/2] COPY src /src: {cause}")));
}

/// All that is said after one file changed.
const WHOLE: &str = "  [build 2/3] COPY src /src  Dockerfile:8:1
    src/a: content changed
  [build 3/3] RUN cat /src/a > /out && echo $VERSION >> /out  Dockerfile:9:1
    [build 2/3] COPY src /src runs before it
  [stage-2 2/2] COPY --from=build /out /out  Dockerfile:11:1
    [build 3/3] RUN cat /src/a > /out && echo $VERSION >> /out runs before it
  4 steps are cached
";

#[test]
fn every_command_tells_the_same() {
    if !is_root() || !has_programs(&["busybox"]) {
        return;
    }
    let world = World::new();
    let site = Site::new(&world, "shapes");
    site.ctk(&["apply"]).ok();
    site.ctk(&["build", "."]).ok();
    site.write("src/a", "changed\n");
    let whole = format!("image:api for linux/amd64:\n{WHOLE}");
    let plan = site.ctk(&["plan", "--explain"]).ok();
    contains(&plan, &["  ~ image:api  build   src/a changed ("]);
    assert_eq!(told(&plan), whole);
    let why = site.ctk(&["why", "image:api"]).ok();
    let indented: String = whole.lines().map(|line| format!("  {line}\n")).collect();
    contains(&why, &["~ image:api\n  because src/a changed (", &indented, "\n  file src/sub/b 644:"]);
    // A stage, and a step of it.
    let (stage, last) = (&WHOLE[..WHOLE.find("  [stage-2").unwrap()], &WHOLE[WHOLE.find("  [build 3").unwrap()..]);
    assert_eq!(site.ctk(&["why", "image:api/build"]).ok(), format!("image:api for linux/amd64:\n{stage}"));
    assert_eq!(site.ctk(&["why", "api/BUILD"]).ok(), format!("image:api for linux/amd64:\n{stage}"));
    let step = &last[..last.find("  [stage-2").unwrap()];
    assert_eq!(site.ctk(&["why", "image:api/build/3"]).ok(), format!("image:api for linux/amd64:\n{step}"));
    assert_eq!(site.ctk(&["why", "image:api/tools"]).ok(), "image:api for linux/amd64:\n  every step is cached\n");
    // A folder, before and after.
    assert_eq!(told_of_folder(&site.ctk(&["build", ".", "--call", "explain"]).ok()), WHOLE);
    let json = |output: Output| serde_json::from_str::<Value>(&output.ok()).unwrap();
    let steps = json(site.ctk(&["why", "image:api", "--json"]))["explained"][0]["steps"].clone();
    let causes: Vec<&Value> = steps.as_array().unwrap().iter().map(|step| &step["causes"]).collect();
    assert_eq!(*causes[4], serde_json::json!([{ "cause": "file", "path": "src/a", "change": "content" }]), "{steps:#}");
    assert_eq!(*causes[5], serde_json::json!([{ "cause": "step", "step": "[build 2/3] COPY src /src" }]));
    assert_eq!(
        (&steps[0]["cached"], &steps[4]["place"], &steps[4]["number"]),
        (&true.into(), &"Dockerfile:8:1".into(), &2.into())
    );
    assert_eq!(json(site.ctk(&["plan", "--explain", "--json"]))["explained"][0]["steps"], steps);
    assert_eq!(json(site.ctk(&["build", ".", "--call", "explain,format=json"]))[0]["steps"], steps);
    let one = json(site.ctk(&["why", "image:api/build", "--json"]));
    assert_eq!(one[0]["steps"], serde_json::json!([steps[4], steps[5]]));
    // What runs is what was told.
    assert_eq!(json(site.ctk(&["build", ".", "--explain=json"]))[0]["steps"], steps);
    site.write("src/a", "changed again\n");
    assert_eq!(json(site.ctk(&["apply", "--explain", "--json"]))["explained"][0]["steps"], steps);
    site.write("src/a", "and again\n");
    let built = site.ctk(&["build", ".", "--explain"]);
    assert_eq!((ran(&built), told_of_folder(&built.err).as_str()), (3, WHOLE));
    site.ctk(&["build", "image:api"]).ok();
    contains(&site.ctk(&["build", "image:api", "--explain"]).out, &["nothing to do"]);
}

#[test]
fn a_stage_or_step_that_is_not_there() {
    if !is_root() || !has_programs(&["busybox"]) {
        return;
    }
    let world = World::new();
    let site = Site::new(&world, "wrong");
    contains(
        &site.ctk(&["why", "image:api/biuld"]).fails(1),
        &["`biuld` is no stage that `image:api` needs", "did you mean `build`?"],
    );
    contains(&site.ctk(&["why", "image:api/nothing"]).fails(1), &["hint: there are `build`, ", "`tools`"]);
    contains(
        &site.ctk(&["why", "image:api/build/9"]).fails(1),
        &["stage `build` of `image:api` has no step 9", "its steps are 2, 3"],
    );
    // Nor while nothing can be said of the steps.
    site.write("Dockerfile", "FROM localhost:9/none:1 AS build\nRUN true\nFROM build\nRUN true\n");
    contains(
        &site.ctk(&["why", "image:api/biuld/2"]).fails(1),
        &["`biuld` is no stage that `image:api` has", "did you mean `build`?"],
    );
    contains(&site.ctk(&["why", "image:api/build/2"]).ok(), &["not known before localhost:9/none:1 is fetched"]);
    contains(&site.ctk(&["why", "image:apo/build"]).fails(1), &["`image:apo/build` names nothing of this project"]);
    contains(&site.ctk(&["build", ".", "--explain=yaml"]).fails(64), &["yaml", "json"]);
}

/// A project as people write it first: everything is copied, then installed; what is built with stays.
const CARELESS: &str = "\
FROM scratch AS node
COPY --chmod=755 busybox /bin/busybox
RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]
COPY --chmod=755 npm /bin/npm
FROM node
WORKDIR /app
COPY web .
RUN npm ci
RUN head -c 60000 /bin/busybox > /download && head -c 90000 /bin/busybox > /usr/bin/make
RUN rm -rf /download
RUN chown 7 index.js
";

/// A program that installs: seconds, a file, and what it leaves.
const NPM: &str = "#!/bin/sh\nsleep 1; mkdir -p /usr/bin /root/.npm; head -c 40000 /bin/busybox > /root/.npm/x\n";

#[test]
fn advice_names_what_it_costs_and_what_to_do() {
    if !is_root() || !has_programs(&["busybox"]) {
        return;
    }
    let world = World::new();
    let site = Site::new(&world, "advice");
    site.write("Dockerfile", CARELESS);
    site.write("npm", NPM);
    site.write("web/index.js", &"x".repeat(20_000));
    site.write("web/package.json", "{}\n");
    site.write("web/node_modules/a/index.js", &"y".repeat(50_000));
    let hidden = |text: &str| {
        let line = |line: &str| match line.split_once(" s  ") {
            Some((_, rest)) => format!("SECONDS  {rest}\n"),
            None => format!("{line}\n"),
        };
        text.lines().skip_while(|line| !line.starts_with("image:")).skip(1).map(line).collect::<String>()
    };
    let expected = "\
SECONDS  `npm ci` runs again whenever a file of `COPY web .` changes  Dockerfile:8:1
             copy `package.json` first, run it, and copy the rest after it
    90.0 kB  `RUN head -c 60000 /bin/busybox > /download && head -c 90000 /bin/busybox > /usr/bin/make` puts tools for building into the image: `usr/bin/make`  Dockerfile:9:1
             build in a stage of its own, and copy what it makes into one without them
    60.0 kB  `download` of `RUN head -c 60000 /bin/busybox > /download && head -c 90000 /bin/busybox > /usr/bin/make` is removed by `RUN rm -rf /download`, and stays in the layer  Dockerfile:9:1
             make and remove them in one RUN, or build in another stage and copy the result
    50.0 kB  `COPY web .` takes `web/node_modules` of the context  Dockerfile:7:1
             write `web/node_modules` into .dockerignore
    40.0 kB  `RUN npm ci` leaves /root/.npm  Dockerfile:8:1
             npm's downloads: `npm cache clean --force` in the same RUN, or a cache mount
    20.0 kB  `app/index.js` of `RUN chown 7 index.js` is in the layer of `COPY web .` already  Dockerfile:11:1
             give owner and mode when it is copied: `COPY --chown=… --chmod=…`
";
    assert_eq!(hidden(&site.ctk(&["build", ".", "--advise"]).ok()), expected);
    // The same of the project's image, and for programs.
    assert_eq!(hidden(&site.ctk(&["build", "image:api", "--no-cache", "--advise"]).ok()), expected);
    let json = |words: &[&str]| serde_json::from_str::<Value>(&site.ctk(words).ok()).unwrap();
    for words in [&["build", ".", "--advise=json"][..], &["build", "image:api", "--advise=json"]] {
        let told = json(words);
        let rules: Vec<&str> =
            told[0]["advice"].as_array().unwrap().iter().map(|one| one["rule"].as_str().unwrap()).collect();
        assert_eq!(rules, ["order", "build-tools", "deleted", "missing-ignore", "package-cache", "duplicate"]);
        assert_eq!(told[0]["advice"][1]["bytes"], 90_000);
        assert!(told[0]["advice"][0]["seconds"].as_f64().unwrap() >= 1.0, "{told:#}");
    }
    // Who heeds it hears nothing more.
    site.write(".dockerignore", "**/node_modules\n");
    site.write(
        "Dockerfile",
        "FROM scratch AS node\nCOPY --chmod=755 busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nCOPY --chmod=755 npm /bin/npm\nFROM node\nWORKDIR /app\nCOPY web/package.json .\nRUN --mount=type=cache,target=/root/.npm npm ci\nCOPY --chown=7 web .\n",
    );
    assert_eq!(hidden(&site.ctk(&["build", ".", "--advise"]).ok()), "  nothing to advise\n");
}
