//! `SOURCE_DATE_EPOCH=context`: the date of every kind of context, on the command line and in a project.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ctk_e2e::git::{self, git};
use ctk_e2e::{Output, World, contains, eventually, free_port, has_programs, is_root, run};

use super::caches::Server;
use super::failures::with_busybox;

/// What `git` of the cases commits at: 2020.
const COMMITTED: i64 = 1_577_836_800;
const DOCKERFILE: &str =
    "ARG SOURCE_DATE_EPOCH\nFROM scratch\nARG SOURCE_DATE_EPOCH\nCOPY . /\nLABEL date=$SOURCE_DATE_EPOCH\n";

fn world() -> Option<World> {
    (is_root() && has_programs(&["busybox", "git", "tar"])).then(World::new)
}

fn shell(folder: &Path, script: &str) {
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(folder);
    run(command).ok();
}

/// A repository in the project's folder: `app` is older than the rest of it.
fn commit(world: &World) {
    let folder = world.project();
    world.write("app/Dockerfile", DOCKERFILE).write("app/file", "1");
    git(&folder, &["init", "-q"]);
    git(&folder, &["add", "app"]);
    git(&folder, &["commit", "-qm", "app"]);
    later(world, "other", 1_600_000_000);
}

/// A commit of the file `name` at `seconds`.
fn later(world: &World, name: &str, seconds: i64) {
    world.write(name, seconds.to_string());
    let add = format!("git add {name}; GIT_COMMITTER_DATE='{seconds} +0000' GIT_AUTHOR_DATE='{seconds} +0000' ");
    shell(&world.project(), &(add + "git -c user.name=a -c user.email=a@example.test commit -qm x"));
}

/// `ctk build` of these words, dated by the context.
fn build(world: &World, words: &[&str], stdin: Option<&str>) -> Output {
    let mut command =
        world.command(&[&["build", "-t", "app", "--build-arg=SOURCE_DATE_EPOCH=context"], words].concat());
    if let Some(name) = stdin {
        command.stdin(fs::File::open(world.path(&format!("project/{name}"))).unwrap());
    }
    run(command)
}

/// The image is of that date, which its instructions see as a number.
fn dated(world: &World, name: &str, seconds: i64) {
    let config = world.ctk(&["inspect", "--config", name]).ok();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let date = world.peer("date", &["-u", "-d", &format!("@{seconds}"), "+%FT%TZ"]).ok();
    assert_eq!(config["created"], date.trim());
    assert_eq!(config["config"]["Labels"]["date"], seconds.to_string());
}

#[test]
fn a_folder_is_as_old_as_the_commit_that_touched_it() {
    let Some(world) = world() else { return };
    commit(&world);
    let words = ["app"];
    let first = build(&world, &words, None).ok();
    dated(&world, "localhost/app", COMMITTED);
    // A commit beside it, or another way to the same files, is the same image.
    later(&world, "more", 1_700_000_000);
    assert_eq!(build(&world, &words, None).ok(), first);
    shell(&world.project(), "git clone -q . clone && git clone -q --depth 1 file://$PWD shallow");
    assert_eq!(build(&world, &["clone/app"], None).ok(), first);
    // The end of a shallow clone seems to have touched everything.
    contains(&build(&world, &["shallow/app"], None).fails(1), &["the clone is shallow", "seconds since 1970"]);
    later(&world, "app/file", 1_650_000_000);
    build(&world, &words, None).ok();
    dated(&world, "localhost/app", 1_650_000_000);
    // As a variable, and as the default of an ARG.
    world.ctk(&["build", "-t", "switch", "--source-date-epoch=context", "app"]).ok();
    dated(&world, "localhost/switch", 1_650_000_000);
    let mut command = world.command(&["build", "-t", "app", "app"]);
    command.env("SOURCE_DATE_EPOCH", "context");
    run(command).ok();
    dated(&world, "localhost/app", 1_650_000_000);
    world.write("app/Dockerfile", DOCKERFILE.replacen("EPOCH\n", "EPOCH=context\n", 1));
    world.ctk(&["build", "-t", "app", "app"]).ok();
    dated(&world, "localhost/app", 1_650_000_000);
    fs::remove_dir_all(world.path("project/.git")).unwrap();
    let said = world.ctk(&["build", "-t", "app", "app"]).fails(1);
    contains(
        &said,
        &[
            "the context `app` has no date",
            "it is in no git work tree",
            "Set it to seconds",
            "ARG SOURCE_DATE_EPOCH=context",
        ],
    );
    contains(&world.ctk(&["build", "--build-arg=SOURCE_DATE_EPOCH=soon", "app"]).fails(1), &["or `context`"]);
    let late = "--build-arg=SOURCE_DATE_EPOCH=99999999999999";
    contains(&world.ctk(&["build", late, "app"]).fails(1), &["`99999999999999`", "before the year 10000"]);
}

#[test]
fn repositories_archives_and_files() {
    let Some(world) = world() else { return };
    let folder = world.project();
    world
        .write("ctx/Dockerfile", DOCKERFILE)
        .write("ctx/file", "1")
        .write("www/alone", DOCKERFILE.replace("COPY . /\n", ""));
    shell(
        &folder,
        "touch -d @1500000000 ctx/Dockerfile; touch -d @1500000100 ctx/file ctx; tar -cf in.tar -C ctx .; \
         tar -czf www/ctx.tar.gz -C ctx .; touch -d @1510000000 www/*",
    );
    build(&world, &["-"], Some("in.tar")).ok();
    dated(&world, "localhost/app", 1_500_000_100);
    let said = build(&world, &["-"], Some("ctx/Dockerfile")).fails(1);
    contains(&said, &["the main context has no date: it has no files"]);
    let port = free_port();
    let mut command = Command::new("busybox");
    command.args(["httpd", "-f", "-p", &format!("127.0.0.1:{port}"), "-h", "www"]).current_dir(&folder);
    let _server = Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    eventually(Duration::from_secs(10), "the server answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    build(&world, &[&format!("http://127.0.0.1:{port}/ctx.tar.gz")], None).ok();
    dated(&world, "localhost/app", 1_500_000_100);
    build(&world, &[&format!("http://127.0.0.1:{port}/alone")], None).ok();
    dated(&world, "localhost/app", 1_510_000_000);
    let daemon = git::repositories(&folder.join("git"));
    world.write("from-git", DOCKERFILE);
    let words =
        ["-f", &world.path("project/from-git").display().to_string(), &format!("git://{}/repo.git", daemon.host)];
    build(&world, &words.map(str::to_owned).each_ref().map(String::as_str), None).ok();
    let config = world.ctk(&["inspect", "--config", "localhost/app"]).ok();
    let newest = git(&folder.join("git/repo.git"), &["log", "-1", "--format=%ct"]);
    contains(&config, &[&format!("\"date\": \"{newest}\"")]);
}

#[test]
fn a_repository_of_a_project_is_asked_once() {
    let Some(world) = world() else { return };
    let folder = world.project();
    let daemon = git::repositories(&folder.join("git"));
    let context = format!("git://{}/repo.git", daemon.host);
    world.write("Dockerfile", DOCKERFILE.replacen("EPOCH\n", "EPOCH=context\n", 1));
    let path = world.path("project/Dockerfile").display().to_string();
    world.write("containers.kdl", format!("project \"case\"\nimage \"app\" dockerfile={path:?} context={context:?}\n"));
    world.ctk(&["apply"]).ok();
    let newest = git(&folder.join("git/repo.git"), &["log", "-1", "--format=%ct"]);
    dated(&world, "localhost/case/app", newest.parse().unwrap());
    contains(&world.ctk(&["apply"]).story(), &["nothing to do"]);
    // Another store knows the commit by the lock file, and looks at it again for its date.
    let mut command = world.command(&["apply", "--locked"]);
    command.env("CTK_ROOT", world.path("other"));
    run(command).ok();
    drop(daemon);
    contains(&world.ctk(&["apply"]).story(), &["nothing to do"]);
}

#[test]
fn a_project_plans_with_the_number() {
    let project = r#"
image "app" dockerfile="app/Dockerfile" context="app" {
    arg "SOURCE_DATE_EPOCH" "context"
}
image "native" {
    context "app" { ignore "Dockerfile"; }
    arg "SOURCE_DATE_EPOCH" "context"
    stage "final" from="busybox" {
        arg "SOURCE_DATE_EPOCH"
        copy "file" to="/"
        run "/bin/busybox echo $SOURCE_DATE_EPOCH > /date"
    }
}
"#;
    let Some(world) = with_busybox(project).filter(|_| has_programs(&["git"])) else { return };
    commit(&world);
    world.ctk(&["apply"]).ok();
    dated(&world, "localhost/case/app", COMMITTED);
    let date = world.ctk(&["run", "--rm", "localhost/case/native", "/bin/busybox", "cat", "/date"]).ok();
    assert_eq!(date, "1577836800\n");
    // A commit elsewhere changes nothing; one of the same files changes the date, and nothing else does.
    later(&world, "more", 1_700_000_000);
    contains(&world.ctk(&["plan"]).ok(), &["nothing to do"]);
    shell(
        &world.project(),
        "echo x > app/new; git add app; git rm -qf --cached app/new; rm app/new; cp app/file app/again; git add app; \
         GIT_COMMITTER_DATE='1650000000 +0000' git -c user.name=a -c user.email=a@example.test commit -qm again; rm app/again",
    );
    contains(&world.ctk(&["why", "image:native"]).story(), &["SOURCE_DATE_EPOCH of the context"]);
    world.ctk(&["apply"]).ok();
    dated(&world, "localhost/case/app", 1_650_000_000);
    // The variable dates all images of a project.
    let with = |words: &[&str], text: &str| {
        let mut command = world.command(words);
        command.env("SOURCE_DATE_EPOCH", text);
        run(command)
    };
    world.write("containers.kdl", world.read("containers.kdl").replace("arg \"SOURCE_DATE_EPOCH\" \"context\"", ""));
    with(&["apply"], "context").ok();
    contains(&with(&["plan"], "context").ok(), &["nothing to do"]);
    contains(&with(&["plan"], "soon").fails(1), &["SOURCE_DATE_EPOCH is `soon`"]);
}
