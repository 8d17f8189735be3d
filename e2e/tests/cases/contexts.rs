//! Contexts of every kind on the command line: repositories, URLs, archives, standard input, images; what BuildKit makes
//! of the same; what is said when there is none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ctk_e2e::differences::compare;
use ctk_e2e::front::{Fault, Front};
use ctk_e2e::git::{self, Daemon};
use ctk_e2e::image::Image;
use ctk_e2e::peers::Peers;
use ctk_e2e::{Output, World, bases, contains, eventually, free_port, has_programs, is_root, run};

/// A world and the servers of its contexts. Everything is below `work`.
struct Site {
    world: World,
    work: PathBuf,
    daemon: Daemon,
    smart: Front,
    www: Front,
    registry: String,
    server: Child,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A build: its words, its standard input, and files of its tree with what they hold.
struct Case {
    name: &'static str,
    words: String,
    stdin: Option<&'static str>,
    /// `path=content` for a file, `!path` for none.
    expected: &'static str,
}

fn site() -> Option<Site> {
    if !is_root() || !has_programs(&["busybox", "git", "tar"]) {
        return None;
    }
    let world = World::new();
    let work = world.path("work");
    bases::write(&work.join("bases"));
    let daemon = git::repositories(&work.join("git"));
    for (path, text) in [
        ("ctx/Dockerfile", "FROM scratch\nCOPY . /all\n"),
        ("ctx/file", "local"),
        ("ctx/left", "x"),
        ("ctx/.dockerignore", "left\n"),
        ("ctx/sub/Dockerfile", "FROM scratch\nCOPY file /sub\n"),
        ("named/file", "named"),
        ("named/left", "x"),
        ("named/.dockerignore", "left\n"),
        ("from/Dockerfile", "FROM scratch\nCOPY --from=other . /other\n"),
        ("image/Dockerfile", "FROM other\nCOPY Dockerfile /d\n"),
        ("www/Dockerfile", "FROM scratch\nCOPY --from=other . /other\n"),
        ("www/alone", "FROM scratch\nLABEL a=b\n"),
        ("www/all", "FROM scratch\nCOPY . /url\n"),
        ("third/file", "third"),
    ] {
        let path = work.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::create_dir_all(work.join("empty")).unwrap();
    shell(
        &work,
        "tar -cf in.tar -C ctx . && tar -czf www/ctx.tar.gz -C ctx . && cp in.tar www/ && tar -cJf www/named.tar.xz -C named . && head -c 150 www/ctx.tar.gz > www/short.tar.gz",
    );
    let registry = format!("127.0.0.1:{}", free_port());
    let mut server = world.command(&["registry", "serve", "--listen", &registry, "--storage", "registry"]);
    let server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually(Duration::from_secs(10), "the registry answers", || std::net::TcpStream::connect(&registry).is_ok());
    let (smart, www) = (Front::of_repositories(work.join("git")), Front::of_folder(work.join("www")));
    let site = Site { world, work, daemon, smart, www, registry, server };
    site.ctk(&["--push", "-t", &format!("{}/acme/other:1", site.registry), "third", "-f", "ctx/Dockerfile"], None).ok();
    Some(site)
}

fn shell(folder: &Path, script: &str) {
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(folder);
    run(command).ok();
}

/// Runs `command` with the file `stdin` as its standard input.
fn fed(mut command: Command, stdin: Option<&Path>) -> Output {
    match stdin {
        Some(path) => command.stdin(fs::File::open(path).unwrap()),
        None => command.stdin(Stdio::null()),
    };
    run(command)
}

impl Site {
    fn text(&self, text: &str) -> String {
        let text = text.replace("@GIT@", &format!("git://{}", self.daemon.host));
        let text = text.replace("@SMART@", &format!("http://{}", self.smart.host));
        text.replace("@WWW@", &format!("http://{}", self.www.host)).replace("@REGISTRY@", &self.registry)
    }

    /// `ctk build` in the folder `work`; the words may name servers.
    fn ctk(&self, words: &[&str], stdin: Option<&str>) -> Output {
        let words: Vec<String> = words.iter().map(|word| self.text(word)).collect();
        let words: Vec<&str> = ["build"].into_iter().chain(words.iter().map(String::as_str)).collect();
        let mut command = self.world.command(&words);
        command.current_dir(&self.work);
        fed(command, stdin.map(|name| self.work.join(name)).as_deref())
    }

    fn fails(&self, words: &str, stdin: Option<&str>, parts: &[&str]) {
        let said = self.ctk(&words.split(' ').collect::<Vec<_>>(), stdin).fails(1);
        contains(
            &said,
            &parts
                .iter()
                .map(|part| self.text(part))
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        );
    }

    /// Everything that was asked of the servers since the last call; the daemon's log is its own.
    fn asked(&self) -> Vec<String> {
        [self.smart.requests(), self.www.requests()].concat()
    }

    fn built(&self, case: &Case) -> Vec<(String, Image)> {
        let out = format!("out/{}", case.name);
        let to = format!("--output=type=oci,dest={out},tar=false");
        fs::create_dir_all(self.work.join("out")).unwrap();
        let words: Vec<&str> = ["--progress=plain", &to].into_iter().chain(case.words.split(' ')).collect();
        let output = self.ctk(&words, case.stdin);
        assert!(output.status.success(), "{}: {}", case.name, output.story());
        images(case, &self.work.join(out))
    }
}

fn images(case: &Case, layout: &Path) -> Vec<(String, Image)> {
    let platforms = case.words.split(' ').find_map(|word| word.strip_prefix("--platform=")).unwrap_or("linux/amd64");
    let image = |name: &str| (name.to_owned(), Image::of_layout(layout, name).unwrap());
    platforms.split(',').map(image).collect()
}

/// Every kind that can be built.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, words: &str, stdin, expected| {
        cases.push(Case { name, words: words.to_owned(), stdin, expected });
    };
    // Repositories.
    add("git", "@GIT@/whole.git", None, "/all/file=two /all/x=x /all/sub/deep/leaf=leaf !/all/.git");
    add("git-tag", "@GIT@/whole.git#v1", None, "/all/file=one");
    add("git-branch", "@GIT@/whole.git#side", None, "/all/side=side");
    add("git-full-ref", "@GIT@/whole.git#refs/heads/side", None, "/all/side=side");
    add("git-folder", "@GIT@/whole.git#main:sub", None, "/sub/deep/leaf=leaf");
    add("git-folder-alone", "@GIT@/whole.git#:sub", None, "/sub/deep/leaf=leaf");
    add("git-other-file", "-f other.dockerfile @GIT@/whole.git#v1", None, "/other=one");
    add("git-file-in-folder", "-f sub/Dockerfile @GIT@/whole.git", None, "/sub/file=two");
    add("git-smart-http", "@SMART@/whole.git#side", None, "/all/side=side");
    add("git-query-branch", "@SMART@/whole.git?branch=side", None, "/all/side=side");
    add("git-query-tag-folder", "@SMART@/whole.git?tag=v1&subdir=sub", None, "/sub/deep/leaf=leaf");
    add("git-query-ref", "@GIT@/whole.git?ref=v1", None, "/all/file=one");
    add("git-keeps", "--build-arg BUILDKIT_CONTEXT_KEEP_GIT_DIR=1 @GIT@/whole.git#v1", None, "/all/.git/HEAD=");
    add("git-stdin-file", "-f - @GIT@/whole.git#v1", Some("ctx/Dockerfile"), "/all/file=one");
    add("git-url-file", "-f @WWW@/all @GIT@/whole.git#v1", None, "/url/file=one");
    // URLs.
    add("http-tar", "@WWW@/in.tar", None, "/all/file=local /all/left=x");
    add("http-tar-gz", "@WWW@/ctx.tar.gz", None, "/all/file=local /all/left=x");
    add("http-tar-other-file", "-f sub/Dockerfile @WWW@/ctx.tar.gz", None, "/sub=local");
    add("http-dockerfile", "@WWW@/alone", None, "");
    add("http-file-alone", "-f @WWW@/all ctx", None, "/url/file=local !/url/left");
    // Standard input.
    add("stdin-tar", "-", Some("in.tar"), "/all/file=local /all/left=x");
    add("stdin-tar-gz", "-", Some("www/ctx.tar.gz"), "/all/file=local");
    add("stdin-tar-other-file", "-f sub/Dockerfile -", Some("in.tar"), "/sub=local");
    add("stdin-dockerfile", "-", Some("www/alone"), "");
    add("stdin-dockerfile-for-folder", "-f - ctx", Some("www/all"), "/url/file=local !/url/left");
    // Named contexts.
    let named = |source: &str| format!("--build-context other={source} from");
    add("named-folder", &named("named"), None, "/other/file=named !/other/left");
    add("named-git", &named("@GIT@/whole.git#v1:sub"), None, "/other/deep/leaf=leaf");
    add("named-git-http", &named("@SMART@/whole.git#side"), None, "/other/side=side");
    add("named-http-tar", &named("@WWW@/named.tar.xz"), None, "/other/context=bytes");
    add("named-http-file", &named("@WWW@/alone"), None, "/other/context=FROM");
    add("named-layout", &named("oci-layout://bases/base"), None, "/other/etc/arch=amd64");
    add("named-layout-tag", &named("oci-layout://bases/base:latest"), None, "/other/etc/arch=amd64");
    add("named-registry", &named("docker-image://@REGISTRY@/acme/other:1"), None, "/other/all/file=third");
    add("named-scratch-stage", &named("named --build-context unused=empty"), None, "/other/file=named");
    add("named-as-base", "--build-context other=oci-layout://bases/base image", None, "/etc/arch=amd64 /d=FROM");
    add("named-for-http-dockerfile", "--build-context other=named @WWW@/Dockerfile", None, "/other/file=named");
    let two = "--platform=linux/amd64,linux/arm64 --build-context other=oci-layout://bases/several image";
    add("platforms", two, None, "");
    let other =
        "--platform=linux/amd64,linux/arm64 --build-context other=named --build-context other::linux/arm64=third from";
    add("platform-of-its-own", other, None, "");
    cases
}

#[test]
fn every_kind_of_context() {
    let Some(site) = site() else { return };
    let digest = layout_digest(&site.work.join("bases/configured"));
    let mut all = cases();
    let words = format!("--build-context other=oci-layout://bases/configured@{digest} from");
    all.push(Case { name: "named-layout-digest", words, stdin: None, expected: "/other/etc/arch=amd64" });
    let commit = git::git(&site.work.join("git/whole.git"), &["rev-parse", "v1"]);
    let words = format!("@SMART@/whole.git?ref=v1&checksum={}", &commit[..10]);
    all.push(Case { name: "git-checksum", words, stdin: None, expected: "/all/file=one" });
    let words = format!("@SMART@/whole.git#{commit}");
    all.push(Case { name: "git-commit", words, stdin: None, expected: "/all/file=one" });
    for case in &all {
        for (_, image) in site.built(case) {
            let lines = image.tree.lines();
            for expected in case.expected.split(' ').filter(|text| !text.is_empty()) {
                match expected.split_once('=') {
                    None => assert!(!lines.contains_key(&expected[1..]), "{}: {expected}: {lines:#?}", case.name),
                    Some((path, text)) => {
                        let line = lines.get(path).unwrap_or_else(|| panic!("{}: {path}: {lines:#?}", case.name));
                        assert!(line.contains(text), "{}: {path} {line}", case.name);
                    }
                }
            }
        }
    }
}

/// The digest that the index of a layout names.
fn layout_digest(layout: &Path) -> String {
    let index = fs::read_to_string(layout.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

/// What BuildKit does otherwise: its repositories have the time of the build in them; its whole file of a URL cannot be
/// copied by `.`; its command line knows no platform in a context's name, only its frontend does.
const NOT_COMPARED: [&str; 4] = ["git-keeps", "named-http-tar", "named-http-file", "platform-of-its-own"];

#[test]
fn contexts_as_buildkit_has_them() {
    if !has_programs(&["mmdebstrap", "unshare", "nsenter"]) {
        return;
    }
    let Some(site) = site() else { return };
    let peers = Peers::start(&site.work);
    let base = Image::of_layout(&site.work.join("bases/base"), "linux/amd64").unwrap();
    let mut told = String::new();
    for case in cases() {
        if NOT_COMPARED.contains(&case.name) {
            continue;
        }
        let ours = Ok(site.built(&case));
        let to = format!("--output=type=oci,dest=out/buildkit-{},tar=false,compression=uncompressed", case.name);
        let words = site.text(&case.words);
        let feed = case.stdin.unwrap_or("/dev/null");
        let script = format!("cd /run/work && docker-buildx build --provenance=false '{to}' \"$@\" < '{feed}'");
        let words: Vec<&str> = ["-c", &script, "sh"].into_iter().chain(words.split(' ')).collect();
        let output = peers.inside("sh", &words);
        let theirs = match output.status.success() {
            true => Ok(images(&case, &site.work.join(format!("out/buildkit-{}", case.name)))),
            false => Err(output.err),
        };
        for difference in compare(&ours, &theirs, &base, false) {
            told += &format!(
                "{}: {}\n    ctk: {}\n    buildkit: {}\n",
                case.name, difference.what, difference.ours, difference.theirs
            );
        }
    }
    assert!(told.is_empty(), "{told}");
}

#[test]
fn a_second_build_fetches_and_runs_nothing() {
    let Some(site) = site() else { return };
    for case in cases() {
        let words: Vec<&str> = ["-t", "x"].into_iter().chain(case.words.split(' ')).collect();
        let first = site.ctk(&words, case.stdin).ok();
        site.asked();
        site.www.unchanged();
        let again = site.ctk(&[&["--progress=plain"], &words[..]].concat(), case.stdin);
        for step in ["check out", "FROM", "COPY", "download"] {
            let done = again.err.lines().find(|line| line.contains(step) && line.contains(": done"));
            let asked_only = step == "download" && site.www.unchanged() > 0;
            assert!(done.is_none() || asked_only, "{}: {}", case.name, again.err);
        }
        assert_eq!(again.ok(), first, "{}", case.name);
        // What a ref means is asked, files are not; what a URL gives is asked for only if it changed.
        let asked = site.asked();
        assert!(!asked.iter().any(|line| line.contains("POST") && !line.contains("upload-pack")), "{asked:?}");
    }
}

#[test]
fn what_is_not_there_is_said() {
    let Some(site) = site() else { return };
    site.ctk(&["-t", "kept", "ctx"], None).ok();
    let images = site.world.ctk(&["images"]).ok();
    site.fails(
        "@GIT@/whole.git#sied",
        None,
        &["@GIT@/whole.git has no branch, tag or commit `sied`", "did you mean `side`?"],
    );
    site.fails("@SMART@/whole.git#:sbu", None, &["has no folder `sbu`", "did you mean `sub`?"]);
    site.fails("@SMART@/none.git", None, &["cannot fetch @SMART@/none.git", "not found"]);
    site.fails("@SMART@/whole.git?brnch=side", None, &["`brnch`", "did you mean `branch`?"]);
    site.fails("@SMART@/whole.git?ref=v1&checksum=0123456", None, &["is commit", "not 0123456"]);
    site.fails("-f nope @GIT@/whole.git", None, &["`nope` does not exist in the context"]);
    site.fails("@WWW@/none.tar.gz", None, &["@WWW@/none.tar.gz", "404"]);
    site.fails("-f @WWW@/none ctx", None, &["@WWW@/none", "404"]);
    site.fails("@WWW@/short.tar.gz", None, &["@WWW@/short.tar.gz"]);
    site.fails("--build-context other=nope from", None, &["nope"]);
    site.fails(
        "--build-context other=oci-layout://bases/base:nope from",
        None,
        &["bases/base:nope", "no image `nope`"],
    );
    site.fails("--build-context other=oci-layout://nope from", None, &["nope"]);
    site.fails("--build-context other=docker-image://@REGISTRY@/acme/none from", None, &["acme/none"]);
    site.fails("--build-context other=htp://x from", None, &["did you mean `http"]);
    site.fails("--build-context other from", None, &["`name=source`"]);
    let nobody = format!("127.0.0.1:{}", free_port());
    site.fails(&format!("git://{nobody}/x.git"), None, &[&nobody, "refused"]);
    site.fails(&format!("http://{nobody}/x.tar"), None, &[&nobody, "refused"]);
    site.fails(&format!("http://{nobody}/x.git"), None, &[&nobody, "onnect"]);
    site.fails(&format!("-f http://{nobody}/x ctx"), None, &[&nobody, "efused"]);
    site.fails("-", Some("www/short.tar.gz"), &["standard input"]);
    site.www.fault(|_| Some(Fault::Short(100)));
    site.fails("@WWW@/in.tar", None, &["cannot download @WWW@/in.tar"]);
    site.www.heal();
    site.ctk(&["@WWW@/in.tar"], None).ok();
    assert_eq!(site.world.ctk(&["images"]).ok().lines().filter(|line| line.contains("kept")).count(), 1);
    assert!(images.contains("kept"));
}

/// A project of three images: of a repository, of a URL, of a layout with triggers.
const PROJECT: &str = r#"project "p"
image "git" dockerfile="Dockerfile" context="@SMART@/whole.git#main"
image "url" dockerfile="Dockerfile" context="@WWW@/ctx.tar.gz"
image "file" dockerfile="@WWW@/all" context="ctx"
image "tree" {
    context "side" "@SMART@/whole.git#side"
    stage "final" from="scratch" { copy "side" to="/side" from="side"; add "@WWW@/alone" to="/alone"; }
}
"#;

#[test]
fn what_is_locked_moves_when_it_is_told_to() {
    let Some(site) = site() else { return };
    let project = |words: &[&str]| {
        let mut command = site.world.command(words);
        command.current_dir(&site.work);
        run(command)
    };
    fs::write(site.work.join("containers.kdl"), site.text(PROJECT)).unwrap();
    // Not read before it is here, and that is said.
    let unread = project(&["check"]);
    contains(
        &unread.err,
        &["the Dockerfile of `image:git` was not read", "the Dockerfile of `image:url` was not read"],
    );
    contains(&unread.ok(), &["no mistakes"]);
    assert_eq!(site.asked(), [""; 0]);
    project(&["apply"]).ok();
    site.asked();
    let again = project(&["apply"]);
    contains(&(again.err.clone() + &again.out), &["nothing to do"]);
    assert!(!project(&["check"]).err.contains("was not read"));
    assert_eq!(site.asked(), [""; 0]);

    // Everything moves on; only what is named is asked for.
    let repository = site.work.join("git/whole");
    for branch in ["main", "side"] {
        git::git(&repository, &["checkout", "-q", branch]);
        fs::write(repository.join("side"), "moved").unwrap();
        git::git(&repository, &["add", "."]);
        git::git(&repository, &["commit", "-q", "-m", "moved"]);
        git::git(&repository, &["push", "-q", "../whole.git", branch]);
    }
    fs::write(site.work.join("www/all"), "FROM scratch\nCOPY . /moved\nUSER \"\n").unwrap();
    let lock = || fs::read_to_string(site.work.join("containers.lock")).unwrap();
    let (before, side) = (lock(), git::git(&repository, &["rev-parse", "side"]));
    let main = git::git(&repository, &["rev-parse", "main"]);
    let said = project(&["update", "image:git"]).ok();
    assert!(said.contains(&main) && !said.contains(&side), "{said}");
    assert!(lock().contains(&main) && !lock().contains(&side) && lock() != before);
    assert!(site.www.requests().is_empty());
    assert!(project(&["update", "image:tree", "--dry-run"]).ok().contains(&side));
    assert!(!lock().contains(&side));
    // What the server says is as before is not sent again.
    site.www.unchanged();
    contains(&project(&["update", "image:url"]).ok(), &["every entry is as it was"]);
    assert_eq!(site.www.unchanged(), 1);
    // A Dockerfile with a mistake: nothing moves.
    let (kept, failed) = (lock(), project(&["update", "image:file"]).fails(1));
    contains(&failed, &["/all:3"]);
    assert_eq!(lock(), kept);
    contains(&project(&["plan", "--json"]).ok(), &["image:git"]);
}

#[test]
fn triggers_of_a_layout_are_planned_for() {
    let Some(site) = site() else { return };
    let text = "project \"p\"\nimage \"x\" dockerfile=\"image/Dockerfile\" context=\"t\" { context \"other\" \"oci-layout://bases/triggers\"; }\n";
    fs::create_dir_all(site.work.join("t")).unwrap();
    fs::write(site.work.join("containers.kdl"), text).unwrap();
    for name in ["Dockerfile", "a.txt", "b.log"] {
        fs::write(site.work.join("t").join(name), "1").unwrap();
    }
    let plan = |code| {
        let mut command = site.world.command(&["plan", "--json"]);
        command.current_dir(&site.work);
        let output = run(command);
        assert_eq!(output.code(), code, "{}", output.story());
        output.out
    };
    plan(0);
    let mut command = site.world.command(&["apply"]);
    command.current_dir(&site.work);
    run(command).ok();
    fs::write(site.work.join("t/b.log"), "2").unwrap();
    assert!(!plan(0).contains("\"action\": \"run\"") && !plan(0).contains("\"action\":\"run\""));
    // `ONBUILD COPY *.txt` reads it.
    fs::write(site.work.join("t/a.txt"), "2").unwrap();
    contains(&plan(0), &["a.txt", "run"]);
}
