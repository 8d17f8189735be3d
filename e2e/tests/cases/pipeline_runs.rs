//! Pipelines that run. `e2e/test_data/pipelines/*.yaml` are data: each is run, and what its first lines say is checked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ctk_e2e::{World, contains, eventually, free_port, has, has_programs, is_root, workspace};
use serde_json::Value;

/// No output of any run, record or file may have it.
const SECRET: &str = "the-secret-7f3a91";

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A world whose store has the image `base`: a shell and its usual programs.
fn world() -> Option<World> {
    if !is_root() || !has_programs(&["busybox", "git"]) {
        return None;
    }
    let world = World::new();
    let busybox = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("busybox"))
        .find(|path| path.exists())?;
    let folder = world.path("base");
    fs::create_dir(&folder).unwrap();
    fs::copy(busybox, folder.join("busybox")).unwrap();
    let text = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";
    fs::write(folder.join("Dockerfile"), text).unwrap();
    world.ctk(&["build", "-t", "base", folder.to_str().unwrap()]).ok();
    Some(world)
}

fn listening(mut command: Command, port: u16) -> Server {
    let server = Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let address = format!("127.0.0.1:{port}");
    eventually(Duration::from_secs(30), "the server answers", || std::net::TcpStream::connect(&address).is_ok());
    server
}

fn registry(world: &World, name: &str) -> (Server, String) {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let storage = world.path(name);
    let command = world.command(&["registry", "serve", "--listen", &address, "--storage", storage.to_str().unwrap()]);
    (listening(command, port), address)
}

/// Ends `ctk`'s children, which a killed one leaves to nobody.
fn processes_with(text: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let line = |entry: fs::DirEntry| {
        let bytes = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
        line.contains(text).then_some(line)
    };
    entries.flatten().filter_map(line).collect()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Where files below a folder have a text.
fn having(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                todo.push(entry.path());
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).unwrap_or_default();
                let has = bytes.windows(text.len()).any(|part| part == text.as_bytes());
                found.extend(has.then(|| entry.path()));
            }
        }
    }
    found
}

#[test]
fn pipelines_of_the_folder_run_as_they_say() {
    let Some(world) = world() else { return };
    let folder = workspace().join("e2e/test_data/pipelines");
    let www = world.path("www");
    fs::create_dir(&www).unwrap();
    fs::write(www.join("page"), "from the web\n").unwrap();
    let port = free_port();
    let mut command = Command::new("busybox");
    command.args(["httpd", "-f", "-p", &format!("127.0.0.1:{port}"), "-h"]).arg(&www);
    let _web = listening(command, port);
    let (_first, registry_address) = registry(&world, "registry");
    let (_second, other_address) = registry(&world, "other");
    let out = world.path("out");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".yaml").map(str::to_owned))
        .collect();
    names.sort();
    if let Ok(only) = std::env::var("CTK_CASES") {
        names.retain(|name| only.split_whitespace().any(|part| name.contains(part)));
    }
    assert!(std::env::var_os("CTK_CASES").is_some() || names.len() >= 40, "{}", names.len());
    let failures = Mutex::new(Vec::new());
    let (next, wrong) = (AtomicUsize::new(0), &failures);
    let run = |name: &str| {
        let text = fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
        let text = text
            .replace("@REGISTRY@", &registry_address)
            .replace("@OTHER@", &other_address)
            .replace("@OUT@", out.to_str().unwrap())
            .replace("_HTTP: ''", &format!("_HTTP: '127.0.0.1:{port}'"));
        let source = world.path(&format!("case-{name}"));
        copy(&folder.join("context"), &source);
        let file = world.path(&format!("{name}.yaml"));
        fs::write(&file, &text).unwrap();
        let mut command = world.command(&["--progress", "plain", "pipeline", "run", file.to_str().unwrap()]);
        command.current_dir(&source).env("THE_SECRET", SECRET).env("USER_NAME", "me");
        let mut expected: Vec<(&str, &str)> = Vec::new();
        for line in text.lines().map_while(|line| line.strip_prefix("# ")) {
            match line.split_once(": ") {
                Some(("options", words)) => drop(command.args(words.split_whitespace())),
                Some(pair) => expected.push(pair),
                None => {}
            }
        }
        let output = ctk_e2e::run(command);
        let code = expected.iter().find(|(key, _)| *key == "exit").map_or(0, |(_, code)| code.parse().unwrap());
        let mut complaints = Vec::new();
        if output.code() != code {
            complaints.push(format!("exit code {}, expected {code}", output.code()));
        }
        let id = output.out.lines().last().and_then(|line| line.split(' ').next()).unwrap_or("latest").to_owned();
        for (key, value) in expected {
            let good = match key {
                "says" => output.err.contains(value),
                "not" => !output.err.contains(&format!(": {value}")),
                "out" => output.out.contains(value),
                "lines" => output.err.lines().filter(|line| line.starts_with("Step #")).count().to_string() == value,
                "shows" => world.ctk(&["pipeline", "show", "--json", &id]).out.contains(value),
                "keeps" | "made" => {
                    let (path, content) = value.split_once(' ').unwrap();
                    let root = if key == "made" { &out } else { &source };
                    fs::read_to_string(root.join(path)).is_ok_and(|text| text.trim() == content)
                }
                _ => true,
            };
            if !good {
                complaints.push(format!("{key}: {value}"));
            }
        }
        if !complaints.is_empty() {
            wrong.lock().unwrap().push(format!("=== {name}: {}\n{}", complaints.join("; "), output.story()));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::SeqCst)) {
                    run(name);
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(having(world.store(), SECRET), Vec::<PathBuf>::new(), "a secret is in the store");
    // As base64 of `me:password-8d1c`, or as it is.
    for text in ["password-8d1c", "bWU6cGFzc3dvcmQtOGQxYw"] {
        assert_eq!(having(&world.path("store/pipelines"), text), Vec::<PathBuf>::new(), "a login is in a record");
    }
    let left = fs::read_dir(world.store().join("run")).into_iter().flatten().flatten().count();
    assert_eq!(left, 0, "containers are left");
}

#[test]
fn a_killed_run_is_gone_on_with() {
    let Some(world) = world() else { return };
    let file = "steps:\n- {id: once, name: base, args: [sh, -c, 'echo once >> /builder/home/log']}\n\
        - {id: slow, name: base, args: [sh, -c, 'test -e go || touch waiting; until test -e go; do sleep 0.05; done; cat /builder/home/log']}\n";
    world.write("cloudbuild.yaml", file);
    let mut child = world.spawn(&["--progress", "plain", "pipeline", "run"]);
    let state = || {
        let list: Value = serde_json::from_str(&world.ctk(&["pipeline", "ls", "--json"]).out).unwrap_or_default();
        (
            list[0]["id"].as_str().unwrap_or_default().to_owned(),
            list[0]["state"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let mut folder = PathBuf::new();
    eventually(Duration::from_secs(20), "the second step runs", || {
        folder = world.store().join("pipelines").join(state().0).join("workspace");
        folder.join("waiting").exists()
    });
    assert_eq!(state().1, "running");
    contains(&world.ctk(&["pipeline", "run", "--resume", "latest"]).fails(1), &["is running"]);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually(Duration::from_secs(5), "its container ends with it", || {
        processes_with("touch waiting; until").is_empty()
    });
    let (id, now) = state();
    assert_eq!(now, "interrupted");
    contains(&world.ctk(&["pipeline", "show", &id]).ok(), &["#0 \"once\"", "succeeded", "#1 \"slow\"", "interrupted"]);
    fs::write(folder.join("go"), "").unwrap();
    let output = world.ctk(&["--progress", "plain", "pipeline", "run", "--resume", &id[..12]]);
    contains(&output.err, &["Finished Step #0 - \"once\": kept", "Step #1 - \"slow\": once"]);
    assert_eq!(output.err.matches(": once\n").count(), 1, "{}", output.err);
    output.ok();
    contains(&world.ctk(&["pipeline", "run", "--resume", &id]).fails(1), &["there is nothing to go on with"]);
    assert_eq!(fs::read_dir(world.store().join("run")).into_iter().flatten().count(), 0);
    // What step printed is there by number and by name.
    assert_eq!(world.ctk(&["pipeline", "logs", &id, "slow"]).ok(), "once\n");
    contains(&world.ctk(&["pipeline", "logs", &id, "none"]).fails(1), &["has no step `none`", "#0 \"once\""]);
    assert_eq!(world.ctk(&["pipeline", "prune", "--keep-age", "0s"]).ok(), format!("{id}\n"));
    assert_eq!(world.ctk(&["pipeline", "ls", "--json"]).ok(), "[]\n");
}

#[test]
fn an_interrupt_reaches_steps_and_ends_those_that_ignore_it() {
    let Some(world) = world() else { return };
    let file = "steps:\n\
        - {id: deaf, name: base, args: [sh, -c, 'trap \"\" TERM; touch deaf; while :; do sleep 0.05; done'], waitFor: ['-']}\n\
        - {id: good, name: base, args: [sh, -c, 'trap \"echo bye; exit 0\" TERM; touch good; while :; do sleep 0.05; done'], waitFor: ['-']}\n";
    world.write("cloudbuild.yaml", file);
    let child = world.spawn(&["--progress", "plain", "pipeline", "run", "--grace", "1s"]);
    let pipelines = world.store().join("pipelines");
    eventually(Duration::from_secs(20), "both run", || {
        let run = fs::read_dir(&pipelines).into_iter().flatten().flatten().next();
        run.is_some_and(|run| ["deaf", "good"].iter().all(|name| run.path().join("workspace").join(name).exists()))
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let began = std::time::Instant::now();
    let output = child.wait_with_output().unwrap();
    let took = began.elapsed();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{err}");
    contains(&err, &["\"good\": bye", "Finished Step #0 - \"deaf\": cancelled", "--resume"]);
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(8), "{took:?}");
    assert_eq!(processes_with("touch deaf"), Vec::<String>::new());
}

#[test]
fn a_thousand_steps() {
    let Some(world) = world() else { return };
    let mut file = String::from("steps:\n");
    for number in 0..1000 {
        // Ten rows side by side.
        let wait = if number < 10 { "-".to_owned() } else { format!("s{}", number - 10) };
        file +=
            &format!("- {{id: s{number}, name: base, args: [echo, 'number {number} ends'], waitFor: ['{wait}']}}\n");
    }
    world.write("cloudbuild.yaml", &file);
    let output = world.ctk(&["--progress", "plain", "pipeline", "run", "--html", "report.html"]);
    let lines: BTreeSet<&str> = output.err.lines().filter(|line| line.contains(": number ")).collect();
    assert_eq!(lines.len(), 1000, "{}", output.err.len());
    contains(&output.out, &["succeeded: 1000 steps"]);
    contains(&output.err, &["warning[pipeline::"]);
    output.ok();
    let html = world.read("report.html");
    contains(&html, &["<!doctype html>", "#999 &quot;s999&quot;"]);
}

#[test]
fn artifacts_go_to_a_bucket_and_to_repositories() {
    let Some(world) = world() else { return };
    let find = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(name).exists())
    };
    if !has("moto_server (a server with S3's protocol)", find("moto_server")) {
        return;
    }
    let port = free_port();
    let address = format!("http://127.0.0.1:{port}");
    let mut command = Command::new("moto_server");
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    let _server = listening(command, port);
    let made = world.peer("curl", &["-sf", "-X", "PUT", &format!("{address}/artifacts")]);
    made.ok();
    let file = "steps:\n- {name: base, args: [sh, -c, 'echo one > a.txt; dd if=/dev/zero of=big.txt bs=1M count=9']}\n\
        - {name: gcr.io/cloud-builders/gsutil, args: [cp, a.txt, 'gs://acme/deep/copy']}\n\
        - {name: gcr.io/cloud-builders/gsutil, args: [cp, 'gs://acme/deep/copy', back]}\n\
        - {name: base, args: [cat, back]}\n\
        artifacts: {objects: {location: 'gs://acme/out', paths: ['*.txt']}}\n";
    world.write("cloudbuild.yaml", file);
    let mut command =
        world.command(&["--progress", "plain", "pipeline", "run", "--map", "gs://acme=s3://artifacts/acme"]);
    command.env("AWS_ENDPOINT_URL", &address).env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b");
    let output = ctk_e2e::run(command);
    contains(&output.err, &["Step #3: one", "uploaded a.txt to gs://acme/out"]);
    output.ok();
    let again = "steps:\n- {name: gcr.io/cloud-builders/gsutil, args: [-m, rsync, -r, 'gs://acme', all]}\n\
        - {name: base, args: [sh, -c, 'cat all/out/a.txt all/deep/copy; cat all/out/big.txt | wc -c; ls all/out']}\n";
    world.write("again.yaml", again);
    let words = ["--progress", "plain", "pipeline", "run", "again.yaml", "--map", "gs://acme=s3://artifacts/acme"];
    let mut command = world.command(&words);
    command.env("AWS_ENDPOINT_URL", &address).env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b");
    let said = ctk_e2e::run(command).err;
    contains(&said, &["Step #1: one\nStep #1: one\nStep #1: 9437184\n", "Step #1: artifacts-"]);
}

const PROJECT: &str = r#"
project "shop"
var "branch" default="main"

image "tool" dockerfile="tool/Dockerfile" context="tool"

pipeline "all" timeout="2m" {
    env GLOBAL="all steps"
    secret "word" from="env:THE_SECRET"
    secret "filed" from="file:secret.txt"
    secret "printed" from="command:echo printed-secret"
    secret "vaulted" from="vault:kv/data/app#token"
    step "repo" git="REPO" ref="first" into="repo"
    step "page" url="http://HTTP/page" sha256="SUM" into="page.txt"
    step "stored" bucket="gs://stored/deep" into="stored"
    step "unit" image="image:tool" needs="repo" "page" "stored" {
        matrix { os "debian" "alpine"; size "1" "2" }
        run "echo unit ${matrix.os} ${matrix.size} $(cat repo/file page.txt stored/x /tool) $$GLOBAL"
    }
    step "after" image="localhost/base" needs="unit" { run "echo" "all" "units ended" }
    step "secrets" image="localhost/base" {
        secret "word" env="A"; secret "filed" env="B"; secret "printed" env="C"; secret "vaulted" env="D"
        run "test $${#A}-$${#B}-$${#C}-$${#D} = 17-12-14-14"
        run "echo seen $$A $$B $$C $$D"
    }
    step "served" image="localhost/base" {
        service "web" image="localhost/base" {
            command "sh" "-c" "mkdir -p /www; sleep 0.2; echo served by $$NAME > /www/index.html; exec httpd -f -p 80 -h /www"
            env NAME="web"
            health exec="wget -q -O - http://127.0.0.1/" within="20s"
        }
        run "wget -q -O - http://web/"
    }
    step "flaky" image="localhost/base" {
        retry 3 pause="10ms"
        run "echo x >> tries; test $(wc -l < tries) -ge 3"
    }
    step "never" image="localhost/base" { if "${branch}" is="release"; run "echo never runs" }
    step "behind" image="localhost/base" needs="never" { if "${branch}" not="release"; run "echo behind it" }
    step "first" image="localhost/base" { group "one"; run "test ! -e busy; touch busy; sleep 0.2; rm busy" }
    step "second" image="localhost/base" { group "one"; run "test ! -e busy; touch busy; sleep 0.2; rm busy" }
    step "late" image="localhost/base" { allow-failure; timeout "300ms"; run "sleep 60" }
    step "codes" image="localhost/base" { allow-exit 3 4; run "exit 4" }
    artifact "report" from="repo/*"
    artifact "out" from="page.txt" to="OUT"
}

pipeline "fails" fail-fast=#false {
    step "bad" image="localhost/base" { run "exit 9" }
    step "side" image="localhost/base" { run "sleep 0.3; echo side went on" }
    step "clean" image="localhost/base" needs="bad" { when "always"; run "echo cleaned" }
    step "mail" image="localhost/base" needs="side" "bad" { when "failure"; run "echo told" }
    step "next" image="localhost/base" needs="bad" { run "echo never runs" }
}

pipeline "cached" {
    step "make" image="localhost/base" { reads "input/**"; makes "made/**"; run "echo making; mkdir -p made; cp input/a made/b" }
    step "use" image="localhost/base" needs="make" { run "cat made/b" }
}

pipeline "ci" cloudbuild="ci/cloudbuild.yaml" { substitution "_ENV" "prod" }
"#;

#[test]
fn pipelines_of_the_project() {
    let Some(world) = world() else { return };
    let www = world.path("www");
    fs::create_dir_all(www.join("v1/kv/data")).unwrap();
    fs::write(www.join("page"), "page\n").unwrap();
    fs::write(www.join("v1/kv/data/app"), r#"{"data": {"data": {"token": "vaulted-secret"}}}"#).unwrap();
    let port = free_port();
    let mut command = Command::new("busybox");
    command.args(["httpd", "-f", "-p", &format!("127.0.0.1:{port}"), "-h"]).arg(&www);
    let _web = listening(command, port);
    let repo = world.path("repo");
    fs::create_dir(&repo).unwrap();
    fs::write(repo.join("file"), "cloned\n").unwrap();
    let git = |words: &[&str]| {
        let own = ["-C", repo.to_str().unwrap(), "-c", "user.name=me", "-c", "user.email=me@example.com"];
        world.peer("git", &[&own[..], words].concat()).ok()
    };
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "one"]);
    git(&["tag", "first"]);
    fs::create_dir_all(world.path("bucket/deep")).unwrap();
    fs::write(world.path("bucket/deep/x"), "stored\n").unwrap();
    let sum = ctk_oci::Digest::of(b"page\n").to_string();
    let file = PROJECT
        .replace("REPO", repo.to_str().unwrap())
        .replace("HTTP", &format!("127.0.0.1:{port}"))
        .replace("SUM", sum.trim_start_matches("sha256:"))
        .replace("to=\"OUT\"", &format!("to=\"{}\"", world.path("out").display()));
    world.write("containers.kdl", file).write("secret.txt", "filed-secret\n").write("input/a", "one\n");
    let base = fs::read_to_string(world.path("base/Dockerfile")).unwrap();
    world.write("tool/Dockerfile", base + "RUN [\"/bin/sh\", \"-c\", \"echo tool > /tool\"]\n");
    fs::copy(world.path("base/busybox"), world.project().join("tool/busybox")).unwrap();
    let ci = "steps:\n- {name: base, args: [echo, $_ENV, $PROJECT_ID]}\n";
    world.write("ci/cloudbuild.yaml", ci);
    world.ctk(&["check"]).ok();
    let map = format!("gs://stored={}", world.path("bucket").display());
    let run = |words: &[&str]| {
        let mut command = world.command(&[&["--progress", "plain", "pipeline", "run"], words].concat());
        command.env("THE_SECRET", SECRET).env("VAULT_ADDR", format!("http://127.0.0.1:{port}")).env("VAULT_TOKEN", "t");
        ctk_e2e::run(command)
    };
    let output = run(&["all", "--map", &map]);
    contains(
        &output.err,
        &[
            "\"unit[os=debian,size=1]\": unit debian 1 cloned page stored tool all steps\n",
            "\"unit[os=alpine,size=2]\": unit alpine 2 cloned page stored tool all steps\n",
            "\"after\": all units ended",
            "\"secrets\": seen *** *** *** ***\n",
            "\"served\": served by web",
            "Finished Step #10 - \"flaky\": succeeded in",
            "try 3",
            "\"never\": skipped",
            "\"behind\": behind it",
            "\"late\": failed, which is allowed",
            "\"codes\": failed, which is allowed",
        ],
    );
    let id = output.out.split(' ').next().unwrap().to_owned();
    output.ok();
    let record = world.store().join("pipelines").join(&id);
    assert_eq!(fs::read_to_string(record.join("artifacts/report/file")).unwrap(), "cloned\n");
    assert_eq!(fs::read_to_string(world.path("out/page.txt")).unwrap(), "page\n");
    for secret in [SECRET, "filed-secret", "printed-secret", "vaulted-secret"] {
        assert_eq!(having(world.store(), secret), Vec::<PathBuf>::new(), "{secret} is in the store");
    }

    let output = run(&["fails"]);
    contains(
        &output.err,
        &["\"side\": side went on", "\"clean\": cleaned", "\"mail\": told", "\"next\": skipped", "exit code 9"],
    );
    output.fails(1);

    contains(&run(&["cached"]).err, &["\"make\": making", "\"use\": one"]);
    let again = run(&["pipeline:cached"]).err;
    contains(&again, &["\"make\": cached", "\"use\": one"]);
    world.write("input/a", "two\n");
    contains(&run(&["cached"]).err, &["\"make\": making", "\"use\": two"]);

    let planned = world.ctk(&["pipeline", "plan", "cached"]).ok();
    contains(&planned, &["#0 \"make\"  at once", "#1 \"use\"  after #0\n      localhost/base: cat made/b"]);
    assert_eq!(world.ctk(&["pipeline", "graph", "cached"]).ok(), "#0 make\n#1 use ← #0 make\n");
    contains(&world.ctk(&["pipeline", "plan", "ci"]).ok(), &["run base echo prod local"]);
    contains(&run(&["ci", "--project", "acme"]).err, &["Step #0: prod acme"]);
    contains(&run(&["cii"]).fails(1), &["no pipeline `cii`", "all, cached, ci, fails"]);
    contains(&run(&[]).fails(1), &["it is not clear which pipeline"]);
    contains(&world.ctk(&["pipeline", "plan", "none.yaml"]).fails(1), &["cannot read none.yaml", "cloudbuild.yaml"]);
    // Applying does nothing about pipelines.
    let applied = world.ctk(&["--progress", "plain", "apply"]);
    assert!(!applied.err.contains("pipeline:"), "{}", applied.err);
    applied.ok();

    let wrong = "pipeline \"x\" {\n    step \"a\" image=\"localhost/base\" needs=\"b\" { run \"x\" }\n    step \"bb\" image=\"localhost/base\" needs=\"a\" { runn \"x\" }\n    step \"c\"\n}\n";
    world.write("containers.kdl", wrong);
    contains(
        &world.ctk(&["check"]).fails(1),
        &["no step `b`", "did you mean `bb`?", "did you mean `run`?", "step `c` does nothing"],
    );
}

#[test]
fn webhooks_and_machines_hear_of_a_run() {
    let Some(world) = world() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut bodies = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = Vec::new();
            let mut buffer = [0; 4096];
            // Its body is the last that comes, and ends with a brace.
            while !text.ends_with(b"}") {
                let count = stream.read(&mut buffer).unwrap();
                text.extend_from_slice(&buffer[..count]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            let text = String::from_utf8(text).unwrap();
            bodies.push(serde_json::from_str::<Value>(text.split("\r\n\r\n").nth(1).unwrap()).unwrap());
        }
        bodies
    });
    let file = "steps:\n- {id: one, name: base, args: [sh, -c, 'echo ::error::none; echo line; exit 2']}\n";
    world.write("cloudbuild.yaml", file);
    let hook = format!("http://{address}/hook");
    let output = world.ctk(&["--progress", "json", "pipeline", "run", "--webhook", &hook]);
    let events: Vec<Value> = output.err.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(names, ["run-started", "step-started", "step-log", "step-log", "step-finished", "run-finished"]);
    assert_eq!((&events[3]["line"], &events[4]["exit_code"]), (&"line".into(), &2.into()));
    output.fails(1);
    let bodies = heard.join().unwrap();
    assert_eq!((&bodies[0]["event"], &bodies[0]["steps"]), (&"started".into(), &1.into()));
    assert_eq!((&bodies[1]["state"], &bodies[1]["step"]), (&"failed".into(), &"#0 \"one\"".into()));
    let mut command = world.command(&["pipeline", "run"]);
    command.env("GITHUB_ACTIONS", "true");
    let said = ctk_e2e::run(command).fails(1);
    contains(
        &said,
        &[
            "::group::Step #0 - \"one\"",
            "::stop-commands::",
            "\nline\n",
            "::endgroup::",
            "::error title=Step #0 - \"one\"::failed",
        ],
    );
    // Neither is there one: it is a warning.
    let output = world.ctk(&["--progress", "plain", "pipeline", "run", "--webhook", &hook]);
    contains(&output.err, &["warning: a webhook was not told"]);
    let explained = world.ctk(&["pipeline", "run", "--explain"]).ok();
    // A store may be named from where one is.
    let mut command = world.command(&["--root", "../store", "--progress", "plain", "pipeline", "run", "--source", "."]);
    command.env_remove("CTK_ROOT");
    contains(&ctk_e2e::run(command).fails(1), &["Step #0 - \"one\": line", "failed: exit code 2"]);
    contains(&explained, &["step #0 \"one\": image `base` is what the store has", "substitutions: empty here"]);
}

#[test]
fn an_ordinary_user_runs_pipelines() {
    use ctk_e2e::ordinary::User;
    if !User::can_be() || !has_programs(&["busybox"]) {
        return;
    }
    let world = World::of(User::new("carla", 54_341, Some((900_000, 65_536))));
    world.write("app/busybox", fs::read("/usr/bin/busybox").unwrap());
    let text = "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";
    world.write("app/Dockerfile", text);
    let file = "steps:\n\
        - {name: docker, args: [build, -t, base, app]}\n\
        - {name: base, args: [sh, -c, 'id -u; echo mine > file; chown 7:7 file; pwd']}\n\
        - {name: base, args: [sh, -c, 'cat file; exit 5']}\n";
    world.write("cloudbuild.yaml", file);
    let output = world.ctk(&["--progress", "plain", "pipeline", "run"]);
    contains(&output.err, &["Step #1: 0\nStep #1: /workspace\n", "Step #2: mine", "step #2 failed: exit code 5"]);
    output.fails(1);
    world.write("cloudbuild.yaml", file.replace("exit 5", "exit 0"));
    world.ctk(&["pipeline", "run", "--resume", "latest"]).ok();
    contains(&world.ctk(&["pipeline", "show"]).ok(), &["kept"]);
    assert_eq!(world.ctk(&["pipeline", "prune", "--keep-age", "0s"]).ok().lines().count(), 1);
}

#[test]
fn what_steps_start_in_the_background_ends_with_the_run() {
    let Some(world) = world() else { return };
    let port = free_port();
    let file = format!(
        "steps:\n\
        - {{name: docker, args: [run, -d, --network=cloudbuild, --name, web, base, sh, -c, 'echo hi > /index.html; exec httpd -f -p {port} -h /']}}\n\
        - {{name: base, args: [sh, -c, 'for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://web:{port}/ && exit 0; sleep 0.2; done; exit 1']}}\n"
    );
    world.write("cloudbuild.yaml", &file);
    let output = world.ctk(&["--progress", "plain", "pipeline", "run"]);
    contains(&output.err, &["Step #1: hi"]);
    output.ok();
    assert_eq!(world.ctk(&["ps", "--all", "--quiet"]).ok(), "");
    // Whoever goes on with a run that was killed, or removes it, ends what it left.
    world.write("cloudbuild.yaml", file.replace("wget", "touch on; sleep 60; wget"));
    let mut child = world.spawn(&["pipeline", "run"]);
    let pipelines = world.store().join("pipelines");
    let runs_on = || {
        let all = fs::read_dir(&pipelines).into_iter().flatten().flatten();
        all.map(|run| run.path().join("workspace/on")).any(|path| path.exists())
    };
    eventually(Duration::from_secs(20), "the second step runs", runs_on);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(world.ctk(&["ps", "--quiet"]).ok(), "");
    world.ctk(&["pipeline", "prune", "--keep-age", "0s"]).ok();
    assert_eq!(world.ctk(&["ps", "--all", "--quiet"]).ok(), "");
}
