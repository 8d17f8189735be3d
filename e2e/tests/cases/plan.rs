//! Plans, their reasons and exit codes; drift; targets; the commands around the project file.

use std::fs;

use ctk_e2e::{Output, World, contains, has_programs};
use serde_json::Value;

use super::failures::with_busybox;

/// Two images, a test of each, a push.
const PROJECT: &str = r#"
var "word" default="one"
image "app" {
    context "." { ignore "*.log" }
    stage "final" from="busybox" {
        copy "src" to="/src/"
        run "/bin/busybox echo ${word} > /word"
    }
}
image "other" { stage "final" from="busybox" { env X="1" }; }
test "app" image="app" {
    command "word" "/bin/busybox" "cat" "/word" { stdout equals="${word}\n" }
    file "/src/a.txt" type="file"
}
test "other" image="other" { config { env X="1" }; }
push "app" image="app" needs="test:app" { to "oci:dist" { tag "v1" "latest"; }; }
group "light" "image:other" "test:other"
"#;

fn world() -> Option<World> {
    let world = with_busybox(PROJECT)?;
    world.write("src/a.txt", "a").write("src/b.txt", "b").write("noise.log", "x");
    Some(world)
}

fn json(output: Output) -> Value {
    let text = output.ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Addresses that a plan would run.
fn running(plan: &Value) -> Vec<&str> {
    let units = plan["units"].as_array().unwrap();
    units.iter().filter(|unit| unit["action"] == "run").map(|unit| unit["address"].as_str().unwrap()).collect()
}

/// The unit of a plan.
fn unit<'a>(plan: &'a Value, address: &str) -> &'a Value {
    plan["units"].as_array().unwrap().iter().find(|unit| unit["address"] == address).unwrap()
}

fn nothing_to_do(output: Output) {
    contains(&(output.err.clone() + &output.out), &["nothing to do"]);
    output.ok();
}

#[test]
fn codes_and_reasons_of_a_plan() {
    let Some(world) = world() else { return };
    let plan = json(world.ctk(&["plan", "--json"]));
    assert_eq!(running(&plan), ["image:busybox", "image:app", "image:other", "test:app", "test:other", "push:app"]);
    assert_eq!(unit(&plan, "image:busybox")["reasons"][0]["reason"], "new");
    contains(&world.ctk(&["plan"]).ok(), &["+ image:app", "new", "image:busybox changes", "oci:dist:v1 is not there"]);
    world.ctk(&["plan", "--detailed-exitcode"]).fails(2);
    assert!(!world.project().join("dist").exists() && world.ctk(&["images", "-q"]).ok().is_empty());

    world.ctk(&["apply"]).ok();
    contains(&world.ctk(&["plan", "--detailed-exitcode"]).ok(), &["nothing to do", "= image:app"]);
    contains(&world.ctk(&["why", "image:app"]).ok(), &["= image:app", "nothing changed", "src/a.txt"]);

    // One file: named, with what follows from it and nothing else.
    world.write("src/b.txt", "changed").write("noise.log", "louder");
    let plan = json(world.ctk(&["plan", "--json"]));
    assert_eq!(running(&plan), ["image:app", "test:app", "push:app"]);
    let changes = &unit(&plan, "image:app")["reasons"][0];
    assert_eq!(changes["reason"], "input-changed");
    assert!(changes.to_string().contains("src/b.txt") && !changes.to_string().contains("a.txt"), "{changes}");
    let text = world.ctk(&["plan"]).ok();
    contains(&text, &["~ image:app", "src/b.txt changed (", "image:app changes", "= image:other"]);
    contains(
        &world.ctk(&["why", "image:app"]).ok(),
        &["~ image:app", "because src/b.txt changed", "needs image:busybox"],
    );
    contains(&world.ctk(&["why", "test:app"]).ok(), &["because image:app changes"]);
    let why = json(world.ctk(&["why", "image:app", "--json"]));
    assert!(why["inputs"].to_string().contains("src/b.txt"), "{why}");
    world.write("src/b.txt", "b");
    contains(&world.ctk(&["plan"]).ok(), &["nothing to do"]);

    // A new file, a file that is gone, another mode, another variable.
    world.write("src/new.txt", "n");
    contains(&world.ctk(&["plan"]).ok(), &["src/new.txt"]);
    fs::remove_file(world.project().join("src/new.txt")).unwrap();
    fs::rename(world.project().join("src/a.txt"), world.path("a.txt")).unwrap();
    contains(&world.ctk(&["plan"]).ok(), &["src/a.txt"]);
    fs::rename(world.path("a.txt"), world.project().join("src/a.txt")).unwrap();
    world.peer("chmod", &["755", "src/a.txt"]).ok();
    contains(&world.ctk(&["plan"]).ok(), &["src/a.txt changed"]);
    world.peer("chmod", &["644", "src/a.txt"]).ok();
    let plan = json(world.ctk(&["plan", "--json", "--var", "word=two"]));
    assert_eq!(running(&plan), ["image:app", "test:app", "push:app"]);
    contains(
        &world.ctk(&["plan", "--detailed-exitcode", "--var", "wort=two"]).fails(1),
        &["wort", "did you mean `--var word"],
    );
    contains(&world.ctk(&["plan", "--detailed-exitcode", "--target", "image:ap"]).fails(1), &["image:ap", "image:app"]);
    contains(&world.ctk(&["why", "image:nix"]).fails(1), &["image:nix"]);
    world.ctk(&["plan", "--no-such-option"]).fails(64);
    nothing_to_do(world.ctk(&["apply"]));
}

#[test]
fn targets_and_groups() {
    let Some(world) = world() else { return };
    world.ctk(&["apply", "--target", "light"]).ok();
    let images = world.ctk(&["images"]).ok();
    assert!(images.contains("case/other") && images.contains("case/busybox") && !images.contains("case/app"));
    nothing_to_do(world.ctk(&["apply", "--target", "test:other"]));
    world.ctk(&["build", "app"]).ok();
    assert!(!world.project().join("dist").exists());
    let plan = json(world.ctk(&["plan", "--json", "--target", "push:*"]));
    assert_eq!(running(&plan), ["test:app", "push:app"]);
    world.ctk(&["test"]).ok();
    let said = world.ctk(&["push"]);
    contains(&(said.err.clone() + &said.out), &["1 done"]);
    nothing_to_do(world.ctk(&["apply"]));
}

#[test]
fn what_moved_outside_is_shown_and_repaired() {
    if !has_programs(&["skopeo"]) {
        return;
    }
    let Some(world) = world() else { return };
    world.ctk(&["apply"]).ok();
    let digest = |tag: &str| {
        let format = ["inspect", "--format", "{{.Digest}}", &format!("oci:dist:{tag}")];
        world.peer("skopeo", &format).ok()
    };
    let wanted = digest("v1");
    // Somebody else moves a tag, and takes another away.
    world.ctk(&["save", "image:other", "--format", "oci-dir", "-o", "moved"]).ok();
    let name = world.peer("skopeo", &["list-tags", "oci:moved"]);
    drop(name);
    world.ctk(&["copy", "store:localhost/case/other:latest", "oci:dist:v1"]).ok();
    assert_ne!(digest("v1"), wanted);
    let plan = json(world.ctk(&["plan", "--json"]));
    assert_eq!(running(&plan), ["push:app"]);
    assert_eq!(unit(&plan, "push:app")["reasons"][0]["reason"], "drifted");
    contains(&world.ctk(&["plan"]).ok(), &["! push:app", "oci:dist:v1 moved outside this project"]);
    world.ctk(&["plan", "--detailed-exitcode"]).fails(2);
    world.ctk(&["apply"]).ok();
    assert_eq!((digest("v1"), digest("latest")), (wanted.clone(), wanted.clone()));
    nothing_to_do(world.ctk(&["apply"]));

    fs::remove_dir_all(world.project().join("dist")).unwrap();
    contains(&world.ctk(&["plan"]).ok(), &["push:app", "oci:dist:v1"]);
    world.ctk(&["apply"]).ok();
    assert_eq!(digest("latest"), wanted);
}

#[test]
fn a_result_that_is_gone_is_made_again() {
    let Some(world) = world() else { return };
    world.ctk(&["apply"]).ok();
    let before = world.ctk(&["images", "--quiet", "case/app"]).ok();
    world.ctk(&["rmi", "localhost/case/app:latest"]).ok();
    world.ctk(&["gc", "--all"]).ok();
    let plan = world.ctk(&["plan"]).ok();
    contains(&plan, &["image:app", "no longer in the store"]);
    world.ctk(&["apply"]).ok();
    assert_eq!(world.ctk(&["images", "--quiet", "case/app"]).ok(), before, "the same inputs gave another image");
    nothing_to_do(world.ctk(&["apply"]));
    // A store that is gone as a whole.
    fs::remove_dir_all(world.store()).unwrap();
    world.ctk(&["apply"]).ok();
    assert_eq!(world.ctk(&["images", "--quiet", "case/app"]).ok(), before);
    assert_eq!(world.ctk(&["run", "image:app", "/bin/busybox", "cat", "/word"]).ok(), "one\n");
    nothing_to_do(world.ctk(&["apply"]));
    // Only the name is gone.
    world.ctk(&["rmi", "localhost/case/app:latest"]).ok();
    world.ctk(&["apply"]).ok();
    assert_eq!(world.ctk(&["images", "--quiet", "case/app"]).ok(), before, "the name did not come back");
}

#[test]
fn reports_of_tests_as_junit_and_json() {
    let Some(world) = world() else { return };
    let junit = || world.read("junit.xml");
    let told = json(world.ctk(&["test", "--json", "--junit", "junit.xml"]));
    assert_eq!(told["tests"].as_array().unwrap().len(), 2, "{told}");
    let all =
        ["<testsuites name=\"case\" tests=\"3\"", "failures=\"0\"", "command word", "file /src/a.txt", "test:other"];
    contains(&junit(), &all);
    // What passed before is told again, although it does not run again.
    let told = json(world.ctk(&["test", "--json", "--junit", "junit.xml"]));
    assert!(running(&told).is_empty() && told["tests"].as_array().unwrap().len() == 2, "{told}");
    contains(&junit(), &all);

    let project = world.read("containers.kdl").replace("cat\" \"/word\"", "echo\" \"<&\\u{1b}\"");
    world.write("containers.kdl", project);
    let output = world.ctk(&["test", "--json", "--junit", "junit.xml"]);
    let told: Value = serde_json::from_str(&output.out).unwrap_or_else(|e| panic!("{e}: {}", output.story()));
    contains(&output.fails(1), &["test:app", "containers.kdl:", "word"]);
    assert_eq!(told["failures"][0]["address"], "test:app");
    assert_eq!(told["failures"][0]["code"], "test::failed");
    let assertions =
        &told["tests"].as_array().unwrap().iter().find(|t| t["address"] == "test:app").unwrap()["assertions"];
    let results: Vec<&str> =
        assertions.as_array().unwrap().iter().map(|a| a["outcome"]["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["failed", "passed"], "{assertions}");
    contains(&junit(), &["failures=\"1\"", "&lt;&amp;", "test:other"]);
    assert!(!junit().contains('\u{1b}'));
    if has_programs(&["python3"]) {
        world.peer("python3", &["-c", "import xml.dom.minidom as m; m.parse('junit.xml')"]).ok();
    }
    world.ctk(&["test", "--junit", "/no/such/folder/x.xml"]).fails(1);
}

#[test]
fn fmt_keeps_comments_and_meaning() {
    let Some(world) = world() else { return };
    world.ctk(&["apply"]).ok();
    let ugly = world
        .read("containers.kdl")
        .replace("    ", "  \t ")
        .replace(
            "stage \"final\" from=\"busybox\" {\n",
            "/* before */ stage   \"final\"   from=\"busybox\"   { // after\n",
        )
        .replace("push \"app\"", "// über den Push 🚀\n\n\n\npush   \"app\"");
    world.write("containers.kdl", &ugly);
    world.ctk(&["fmt", "--check"]).fails(1);
    assert_eq!(world.read("containers.kdl"), ugly);
    world.ctk(&["fmt"]).ok();
    let once = world.read("containers.kdl");
    assert_ne!(once, ugly);
    contains(
        &once,
        &[
            "/* before */",
            "// after",
            "// über den Push 🚀",
            "    /* before */ stage \"final\" from=\"busybox\" { // after\n",
        ],
    );
    world.ctk(&["fmt"]).ok();
    world.ctk(&["fmt", "--check"]).ok();
    assert_eq!(world.read("containers.kdl"), once);
    world.ctk(&["check"]).ok();
    nothing_to_do(world.ctk(&["apply"]));
    // What is no KDL is left alone.
    world.write("containers.kdl", "image \"x {\n");
    contains(&world.ctk(&["fmt"]).fails(1), &["containers.kdl:1"]);
    assert_eq!(world.read("containers.kdl"), "image \"x {\n");
}

#[test]
fn init_writes_what_check_accepts() {
    type Files<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Files<'_>, &[&str]); 5] = [
        (&[], &["image"]),
        (&[("Dockerfile", "FROM scratch\nCOPY x /x\n"), ("x", "x")], &["dockerfile=\"Dockerfile\""]),
        (&[("Cargo.toml", "[package]\nname = \"carrot\"\nversion = \"0.1.0\"\n")], &["carrot"]),
        (&[("package.json", "{\"name\": \"x\"}")], &["image"]),
        (&[("go.mod", "module example.test/x\n")], &["image"]),
    ];
    for (files, parts) in cases {
        let world = World::new();
        for (name, content) in files {
            world.write(name, content);
        }
        contains(&world.ctk(&["init"]).ok(), &["containers.kdl"]);
        contains(&world.read("containers.kdl"), parts);
        world.ctk(&["check"]).ok();
        world.ctk(&["fmt", "--check"]).ok();
        world.ctk(&["graph"]).ok();
        let before = world.read("containers.kdl");
        contains(&world.ctk(&["init"]).fails(1), &["containers.kdl", "--force"]);
        assert_eq!(world.read("containers.kdl"), before);
    }
}

#[test]
fn graphs() {
    let Some(world) = world() else { return };
    contains(&world.ctk(&["graph"]).ok(), &["image:app", "← image:busybox", "push:app", "test:app"]);
    let dot = world.ctk(&["graph", "--format", "dot"]).ok();
    contains(&dot, &["digraph", "\"test:app\" -> \"push:app\"", "image:busybox"]);
    assert_eq!(dot.matches('{').count(), dot.matches('}').count());
    let mermaid = world.ctk(&["graph", "--format", "mermaid"]).ok();
    contains(&mermaid, &["flowchart LR", "[\"test:app\"]", " --> "]);
    contains(&world.ctk(&["graph", "--format", "png"]).fails(64), &["dot", "mermaid"]);
}

#[test]
fn a_listing_of_everything_is_valid_json() {
    let Some(world) = world() else { return };
    let output = world.ctk(&["--progress", "json", "apply"]);
    let lines: Vec<Value> = output.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() > 10, "{}", output.story());
    output.ok();
    let images = json(world.ctk(&["images", "--json"]));
    assert_eq!(images.as_array().unwrap().len(), 3, "{images}");
    assert_eq!(world.ctk(&["--progress", "quiet", "apply", "--force"]).err, "");
}

#[test]
fn another_directory_is_entered_first() {
    let Some(world) = world() else { return };
    world.write("elsewhere/containers.kdl", "project \"elsewhere\"\n");
    contains(&world.ctk(&["-C", "elsewhere", "apply"]).ok(), &["elsewhere: nothing to do"]);
    let refused = world.ctk(&["plan", "-C", "nowhere"]);
    assert_eq!(refused.code(), 1);
    contains(&refused.err, &["cannot enter nowhere", "No such file or directory"]);
}
