//! The OCI runtime specification as checks, made of its MUSTs. They run with `ctk-runtime` and, to prove the checks
//! themselves, with crun and runc of the package archive. `e2e/test_data/runtime/` has most of them as data; a check
//! that an older peer is known not to pass says why in `except`.

use std::fs;
use std::time::Duration;

use ctk_e2e::bundle::{Bundle, Runtime};
use ctk_e2e::{eventually, has_programs, is_root, workspace};
use serde_json::{Value, json};

/// Whether a check of `name` fails with this runtime, and how.
fn fails(check: &Value, runtime: Runtime) -> Option<String> {
    let bundle = Bundle::new(runtime);
    let mut config = check["config"].clone();
    if let Some(script) = check["run"].as_str() {
        let args = &mut config["process"]["args"];
        if args.is_null() {
            *args = json!(["sh", "-c", script]);
        }
    }
    bundle.configure(&config);
    let output = bundle.quietly(&["run", "--bundle", &bundle.path("").display().to_string(), &bundle.id]);
    let story = |what: &str| Some(format!("{} with {}: {what}\n{}", check["name"], runtime.name(), output.story()));
    if check["fails"] == json!(true) {
        if output.status.success() {
            return story("should have failed");
        }
        return bundle.status().and_then(|status| story(&format!("left a container that is {status}")));
    }
    let code = check["code"].as_i64().unwrap_or(0);
    if i64::from(output.code()) != code {
        return story(&format!("should have ended with {code}"));
    }
    if let Some(expected) = check["out"].as_str().map(|text| bundle.replace(text))
        && output.out != expected
    {
        return story(&format!("should have said\n{expected}"));
    }
    if let Some(expected) = check["file"].as_str().map(|text| bundle.replace(text)) {
        let found = fs::read_to_string(bundle.path("out")).unwrap_or_default();
        if found != expected {
            return story(&format!("hooks should have written\n{expected}\nand wrote\n{found}"));
        }
    }
    bundle.status().and_then(|status| story(&format!("left a container that is {status}")))
}

/// Runs the checks of a file.
fn checks(name: &str) {
    if !is_root() || !has_programs(&["unshare", "busybox"]) {
        return;
    }
    let path = workspace().join(format!("e2e/test_data/runtime/{name}.json"));
    let checks: Vec<Value> = serde_json::from_str(&fs::read_to_string(path).expect("checks")).expect("JSON");
    let only = std::env::var("CTK_CHECK").ok();
    let mut wrong = Vec::new();
    for runtime in Runtime::all() {
        for check in &checks {
            let excepted = !check["except"][runtime.name()].is_null();
            let chosen = only.as_deref().is_none_or(|only| check["name"].as_str() == Some(only));
            if chosen && !excepted {
                wrong.extend(fails(check, runtime));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n\n{}", wrong.len(), checks.len(), wrong.join("\n\n"));
}

#[test]
fn processes_are_as_the_specification_says() {
    checks("process");
}

#[test]
fn namespaces_are_as_the_specification_says() {
    checks("namespaces");
}

#[test]
fn mounts_are_as_the_specification_says() {
    checks("mounts");
}

#[test]
fn linux_is_as_the_specification_says() {
    checks("linux");
}

#[test]
fn hooks_are_as_the_specification_says() {
    checks("hooks");
}

/// Checks that hold, by name; the others are told at the end.
struct Held {
    runtime: Runtime,
    wrong: Vec<String>,
}

/// What peers of the package archive are known not to do.
const EXCEPTED: &[(Runtime, &str)] =
    &[(Runtime::Crun, "exec --env"), (Runtime::Crun, "kill of an unknown signal is an error")];

impl Held {
    fn check(&mut self, name: &str, holds: bool) {
        if !holds && !EXCEPTED.contains(&(self.runtime, name)) {
            self.wrong.push(format!("{}: {name}", self.runtime.name()));
        }
    }
}

fn lifecycle(runtime: Runtime) -> Vec<String> {
    let mut held = Held { runtime, wrong: Vec::new() };
    let bundle = Bundle::new(runtime);
    let id = bundle.id.clone();
    bundle.configure(&json!({
        "process": { "args": ["sh", "-c", "echo ran > /tmp/ran; trap 'exit 7' TERM; while true; do sleep 0.05; done"] },
        "root": { "readonly": false },
        "annotations": { "org.example.key": "value" },
    }));
    let ran = bundle.path("rootfs/tmp/ran");
    let own = |arguments: &[&str]| bundle.quietly(arguments).status.success();
    held.check("state of none is an error", !own(&["state", &id]));
    held.check("start of none is an error", !own(&["start", &id]));
    held.check("kill of none is an error", !own(&["kill", &id, "KILL"]));
    held.check("delete of none is an error", !own(&["delete", &id]));
    held.check("delete --force of none is none", own(&["delete", "--force", &id]));
    held.check("create without a name is an error", !own(&["create"]));
    held.check("create with a path as name is an error", !own(&["create", "a/b"]));
    let pid_file = bundle.path("pid").display().to_string();
    held.check("create", own(&["create", "--pid-file", &pid_file, &id]));
    held.check("create does not run the program", !ran.exists());
    held.check("a second create of the name is an error", !own(&["create", &id]));
    let state: Value = serde_json::from_str(&bundle.runtime(&["state", &id]).out).unwrap_or_default();
    held.check("state.ociVersion", state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")));
    held.check("state.id", state["id"] == json!(id));
    held.check("state.status is created", state["status"] == json!("created"));
    let pid = state["pid"].as_i64().unwrap_or(0);
    held.check("state.pid", pid > 0 && fs::metadata(format!("/proc/{pid}")).is_ok());
    held.check(
        "state.bundle",
        state["bundle"].as_str() == bundle.path("").to_str().map(|path| path.trim_end_matches('/')),
    );
    held.check("state.annotations", state["annotations"]["org.example.key"] == json!("value"));
    held.check("the pid file", fs::read_to_string(&pid_file).is_ok_and(|text| text.trim() == pid.to_string()));
    // Changes of the configuration after create have no effect.
    bundle.configure(&json!({ "process": { "args": ["false"] } }));
    held.check("start", own(&["start", &id]));
    eventually(Duration::from_secs(20), "the program", || ran.exists());
    held.check("state.status is running", bundle.status().as_deref() == Some("running"));
    held.check("a second start is an error", !own(&["start", &id]));
    held.check("a failed start changes nothing", bundle.status().as_deref() == Some("running"));
    held.check("delete of a running one is an error", !own(&["delete", &id]));
    held.check("a failed delete changes nothing", bundle.status().as_deref() == Some("running"));
    held.check("exec", bundle.runtime(&["exec", &id, "echo", "inside"]).out == "inside\n");
    held.check("exec gives the exit code", bundle.runtime(&["exec", &id, "sh", "-c", "exit 9"]).code() == 9);
    let missing = bundle.runtime(&["exec", &id, "no-such-program"]);
    held.check("exec of what is not there is an error", !missing.status.success() && !missing.err.is_empty());
    held.check("exec --user", bundle.runtime(&["exec", "--user", "5:6", &id, "id", "-u"]).out == "5\n");
    held.check("exec --cwd", bundle.runtime(&["exec", "--cwd", "/etc", &id, "cat", "inside"]).out == "yes\n");
    held.check("exec --env", bundle.runtime(&["exec", "--env", "A=b", &id, "sh", "-c", "echo $A"]).out == "b\n");
    let process = json!({ "args": ["sh", "-c", "pwd; id -u"], "cwd": "/tmp", "env": ["PATH=/bin"], "user": { "uid": 3, "gid": 3 } });
    fs::write(bundle.path("process.json"), process.to_string()).expect("a file");
    let file = bundle.path("process.json").display().to_string();
    held.check("exec --process", bundle.runtime(&["exec", "--process", &file, &id]).out == "/tmp\n3\n");
    let exec_pid = bundle.path("exec-pid").display().to_string();
    held.check("exec --detach", own(&["exec", "--detach", "--pid-file", &exec_pid, &id, "sleep", "60"]));
    held.check("exec --pid-file", fs::read_to_string(&exec_pid).is_ok_and(|text| text.trim().parse::<u32>().is_ok()));
    held.check("pause", own(&["pause", &id]));
    held.check("state.status is paused", bundle.status().as_deref() == Some("paused"));
    held.check("resume", own(&["resume", &id]));
    held.check("it runs after resume", bundle.status().as_deref() == Some("running"));
    let list: Value = serde_json::from_str(&bundle.runtime(&["list", "--format", "json"]).out).unwrap_or_default();
    held.check("list", list[0]["id"] == json!(id) && list[0]["status"] == json!("running"));
    let pids: Value = serde_json::from_str(&bundle.runtime(&["ps", "--format", "json", &id]).out).unwrap_or_default();
    held.check("ps", pids.as_array().is_some_and(|pids| pids.contains(&json!(pid)) && pids.len() >= 2));
    held.check("update", own(&["update", "--pids-limit", "50", &id]));
    let limit = bundle.runtime(&["exec", &id, "cat", "/sys/fs/cgroup/pids/pids.max"]);
    held.check("a limit after update", limit.out == "50\n");
    held.check("kill of an unknown signal is an error", !own(&["kill", &id, "SIGHAT"]));
    held.check("kill", own(&["kill", &id, "TERM"]));
    eventually(Duration::from_secs(20), "its end", || bundle.status().as_deref() == Some("stopped"));
    held.check("kill of a stopped one is an error", !own(&["kill", &id, "KILL"]));
    held.check("start of a stopped one is an error", !own(&["start", &id]));
    held.check("exec in a stopped one is an error", !own(&["exec", &id, "true"]));
    held.check("delete", own(&["delete", &id]));
    held.check("nothing is left", bundle.status().is_none());
    held.check("its name is free", own(&["create", &id]));
    held.check("a created one can be killed", own(&["kill", &id, "KILL"]));
    eventually(Duration::from_secs(20), "its end", || bundle.status().as_deref() == Some("stopped"));
    held.check("and deleted", own(&["delete", &id]));
    held.check("one for force", own(&["create", &id]) && own(&["start", &id]));
    held.check("delete --force of a running one", own(&["delete", "--force", &id]) && bundle.status().is_none());
    held.wrong
}

#[test]
fn lives_are_as_the_specification_says() {
    if !is_root() || !has_programs(&["unshare", "busybox"]) {
        return;
    }
    let wrong: Vec<String> = Runtime::all().into_iter().flat_map(lifecycle).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
