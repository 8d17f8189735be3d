//! `ctk pipeline lint|plan|graph`: exit codes, what goes to which stream, what git and the command line give. What files
//! mean is in the corpus of `ctk-pipeline`.

use ctk_e2e::{World, contains, has_programs};
use serde_json::Value;

const FILE: &str = "\
steps:
- id: build
  name: gcr.io/cloud-builders/docker
  args: [build, -t, 'gcr.io/$PROJECT_ID/app:$SHORT_SHA', --build-arg, 'BRANCH=$BRANCH_NAME', .]
- id: test
  name: 'gcr.io/$PROJECT_ID/app:$SHORT_SHA'
  args: ['$_WHAT', '$REPO_FULL_NAME', '$TAG_NAME']
substitutions: {_WHAT: all}
images: ['gcr.io/$PROJECT_ID/app:$SHORT_SHA']
";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn substitutions_of_a_pipeline_come_from_git_and_the_command_line() {
    if !has_programs(&["git"]) {
        return;
    }
    let world = World::new();
    world.write("cloudbuild.yaml", FILE);
    let git = |words: &[&str]| {
        let identity = ["-c", "user.name=me", "-c", "user.email=me@example.com"];
        world.peer("git", &[&identity[..], words].concat()).ok()
    };
    git(&["init", "-q", "-b", "work"]);
    git(&["remote", "add", "origin", "git@git.example.com:acme/shop.git"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "first"]);
    git(&["tag", "v1"]);
    let commit = git(&["rev-parse", "HEAD"]);
    let short = &commit[..7];
    let plan = json(&world.ctk(&["pipeline", "plan", "--json", "--project", "acme"]).ok());
    let build = &plan["steps"][0]["work"]["commands"][0];
    assert_eq!(build["tags"][0], format!("gcr.io/acme/app:{short}"));
    assert_eq!(build["args"]["BRANCH"], "work");
    let test = &plan["steps"][1];
    assert_eq!(test["work"]["made_by"], 0);
    assert_eq!(test["waits_for"], serde_json::json!([0]));
    assert_eq!(test["work"]["args"], serde_json::json!(["all", "acme/shop", "v1"]));
    let given = ["--substitutions", "_WHAT=a,b,SHORT_SHA=given", "--project", "acme"];
    let text = world.ctk(&[&["pipeline", "plan"], &given[..]].concat()).ok();
    contains(&text, &["ctk build --tag gcr.io/acme/app:given", "run gcr.io/acme/app:given (of #0) a,b acme/shop v1"]);
    let refused = world.ctk(&["pipeline", "plan", "--substitutions", "PROJECT_ID=x"]).fails(1);
    contains(&refused, &["`PROJECT_ID` cannot be given", "COMMIT_SHA"]);
}

#[test]
fn mistakes_of_a_pipeline_have_places_and_exit_codes() {
    let world = World::new();
    contains(&world.ctk(&["pipeline", "lint"]).fails(1), &["there is no cloudbuild.yaml"]);
    world.write("cloudbuild.yaml", "steps:\n- name: busybox\n  args: hello\n");
    let warned = world.ctk(&["pipeline", "lint"]);
    contains(&warned.err, &["warning[pipeline::no-list]", "cloudbuild.yaml:3:9"]);
    contains(&warned.ok(), &["cloudbuild.yaml: 1 step, 1 warning"]);
    contains(&world.ctk(&["pipeline", "lint", "--strict"]).fails(1), &["pipeline::no-list"]);
    world.write("other.json", "{\"steps\": [{\"name\": \"busybox\", \"arg\": []}]}\n");
    let output = world.ctk(&["pipeline", "lint", "--json", "other.json"]);
    let document = json(&output.out);
    output.fails(1);
    let first = &document["diagnostics"][0];
    assert_eq!((&first["code"], &first["labels"][0]["line"]), (&"pipeline::unknown-field".into(), &1.into()));
    // What cannot be carried out has a plan, and fails.
    let docker = "steps:\n- name: docker\n  args: [compose, up]\n- name: busybox\n";
    world.write("compose.yaml", docker);
    let output = world.ctk(&["pipeline", "plan", "compose.yaml"]);
    contains(&output.out, &["#0  at once", "cannot be carried out", "#1  after #0"]);
    contains(&output.fails(1), &["error[pipeline::builder]", "compose.yaml:3:10"]);
    let graph = world.ctk(&["pipeline", "graph", "--format", "json", "cloudbuild.yaml"]).ok();
    assert_eq!(json(&graph)[0]["waits_for"], serde_json::json!([]));
}
