//! A `pipeline` node of a project as a value: steps of our own, or a Cloud Build file.
//!
//! ```kdl
//! pipeline "release" jobs=4 timeout="1h" {
//!     secret "token" from="file:token.txt"
//!     step "fetch" git="https://example.com/assets.git" ref="v2" into="assets"
//!     step "lint" image="rust:1.95" { run "cargo clippy" }
//!     step "unit" image="image:api" needs="fetch" { run "cargo test"; retry 2; timeout "10m" }
//!     artifact "report" from="report.xml"
//! }
//! pipeline "ci" cloudbuild="cloudbuild.yaml" { substitution "_ENV" "prod" }
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ctk_plan::Address;
use ctk_project::{HealthProbe, Image, Project, Resource, service_words};
use ctk_syntax::{Diagnostic, Diagnostics, Node, Reader, Spanned, nearest};

use crate::builders::{Action, Command, Git, Storage};
use crate::cloudbuild::{Artifact, Volume};
use crate::codes;
use crate::run::job::{Retry, Service, StepCache, When};
use crate::run::secrets::parse_source;
use crate::run::{Job, SecretSource, Task, TaskWork};

/// How long a service may take until it is ready, if nothing is said.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Tries of a step, besides the first.
const RETRIES_MAX: i128 = 100;
/// Steps of a pipeline that run at once.
const JOBS_MAX: i128 = 10_000;

/// A decoded `pipeline` resource.
#[derive(Clone, Debug)]
pub struct PipelineDecl {
    /// Its address.
    pub address: Address,
    /// Its steps.
    pub steps: Steps,
    /// Patterns of JUnit reports below the workspace.
    pub junit: Vec<String>,
    /// URLs that are told of the beginning and the end.
    pub webhooks: Vec<String>,
}

/// Where the steps are.
#[derive(Clone, Debug)]
pub enum Steps {
    /// Here.
    Own(Box<Job>),
    /// In a Cloud Build file.
    CloudBuild {
        /// Below the folder of the project's file.
        file: PathBuf,
        /// `_NAME` and value.
        substitutions: BTreeMap<String, String>,
    },
}

/// A step before its needs are numbers.
struct Draft {
    task: Task,
    name: Spanned<String>,
    needs: Vec<Spanned<String>>,
}

/// Reads a `pipeline` resource. `local` is the name under which the store keeps an image of the project. All mistakes
/// at once.
pub fn decode(
    project: &Project,
    resource: &Resource,
    local: &dyn Fn(&Address) -> String,
) -> Result<PipelineDecl, Diagnostics> {
    let mut diagnostics = Diagnostics::new();
    let decl = read(project, resource, local, &mut diagnostics);
    diagnostics.sort();
    match decl {
        Some(decl) => diagnostics.into_result(decl),
        None => Err(diagnostics),
    }
}

fn read(
    project: &Project,
    resource: &Resource,
    local: &dyn Fn(&Address) -> String,
    diagnostics: &mut Diagnostics,
) -> Option<PipelineDecl> {
    let mut reader = Reader::new(&resource.node, diagnostics);
    reader.arg_str("a name");
    // Read by the project.
    reader.opt_prop("needs");
    let junit = texts(&mut reader, "junit", "a pattern of files");
    let webhooks = texts(&mut reader, "webhook", "a URL");
    if let Some(file) = reader.opt_prop_str("cloudbuild") {
        let mut substitutions = BTreeMap::new();
        for node in reader.every("substitution") {
            let mut child = reader.child(node);
            if let (Some(name), Some(value)) = (child.arg_str("a name"), child.arg_text("a value")) {
                substitutions.insert(name.value, value.value);
            }
            child.finish();
        }
        reader.finish();
        let file = resource.directory.join(file.value);
        let steps = Steps::CloudBuild { file, substitutions };
        return Some(PipelineDecl { address: resource.address.clone(), steps, junit, webhooks });
    }
    let jobs = reader.opt_prop_int("jobs", 1..=JOBS_MAX).map(|jobs| jobs.value as usize);
    let timeout = reader.opt_prop_duration("timeout").map(|timeout| timeout.value);
    let fail_fast = reader.opt_prop_bool("fail-fast").is_none_or(|fast| fast.value);
    let mut job = Job { name: resource.address.to_string(), timeout, fail_fast, at_once: jobs, ..Job::default() };
    let env = env(&mut reader);
    for node in reader.every("secret") {
        let mut child = reader.child(node);
        let name = child.arg_str("a name");
        let from = child.prop_str("from");
        child.finish();
        let (Some(name), Some(from)) = (name, from) else { continue };
        match parse_source(&from.value) {
            Ok(source) => drop(job.secrets.insert(name.value, source)),
            Err(why) => reader.error(codes::BAD_VALUE, from.span, format!("`{from}` is no place of a secret"), why),
        }
    }
    for node in reader.every("artifact") {
        let mut child = reader.child(node);
        let name = child.arg_str("a name");
        let from = child.prop_str("from");
        let to = child.opt_prop_str("to");
        child.finish();
        let (Some(name), Some(from)) = (name, from) else { continue };
        let location = to.map_or_else(|| format!("record:{name}"), |to| to.value);
        job.artifacts.push(Artifact::Objects { location, paths: vec![from.value] });
    }
    let nodes = reader.every("step");
    if nodes.is_empty() {
        let span = reader.span();
        let what = "the pipeline has no steps";
        reader.error(codes::MISSING_FIELD, span, what, "expected `step`, or `cloudbuild=FILE`");
    }
    let mut drafts: Vec<Draft> = Vec::new();
    for node in nodes {
        let number = drafts.len();
        drafts.extend(step(project, resource, local, node, number, &env, reader.diagnostics()));
    }
    reader.finish();
    connect(&mut drafts, diagnostics);
    for draft in &mut drafts {
        // What is not declared has a stand-in on the command line.
        for secret in draft.task.secret_env.values() {
            let cloud = SecretSource::Cloud { name: secret.clone() };
            job.secrets.entry(secret.clone()).or_insert(cloud);
        }
    }
    job.tasks = drafts.into_iter().map(|draft| draft.task).collect();
    let steps = Steps::Own(Box::new(job));
    Some(PipelineDecl { address: resource.address.clone(), steps, junit, webhooks })
}

/// Names become numbers. `unit` means every `unit[…]` of a matrix, too.
fn connect(drafts: &mut [Draft], diagnostics: &mut Diagnostics) {
    let names: Vec<Spanned<String>> = drafts.iter().map(|draft| draft.name.clone()).collect();
    for (number, name) in names.iter().enumerate() {
        if let Some(first) = names[..number].iter().find(|other| other.value == name.value) {
            let said = format!("step `{name}` is declared twice");
            diagnostics.push(Diagnostic::error(codes::CONFLICT, said).at(name.span, "again").at(first.span, "first"));
        }
    }
    for (number, draft) in drafts.iter_mut().enumerate() {
        for need in &draft.needs {
            let fits = |name: &str| name == need.value || name.starts_with(&format!("{}[", need.value));
            let found: Vec<usize> =
                (0..names.len()).filter(|other| *other != number && fits(&names[*other].value)).collect();
            if found.is_empty() {
                let said = format!("no step `{need}`");
                let near = nearest(&need.value, names.iter().map(|name| name.value.as_str()));
                let mistake = Diagnostic::error(codes::BAD_WAIT, said);
                diagnostics.push(mistake.at_or_nearest(need.span, near, "`needs` names steps of this pipeline"));
            }
            draft.task.needs.extend(found);
        }
        draft.task.needs.sort_unstable();
        draft.task.needs.dedup();
    }
    let mut graph = ctk_dag::Graph::new();
    for draft in drafts.iter() {
        graph.insert(draft.task.number);
        draft.task.needs.iter().for_each(|need| graph.need(draft.task.number, *need));
    }
    if graph.order().is_err() {
        // One that is on the way back to itself.
        let back = drafts.iter().find(|draft| {
            let (mut seen, mut todo) = (Vec::new(), draft.task.needs.clone());
            while let Some(at) = todo.pop() {
                if !seen.contains(&at) {
                    seen.push(at);
                    todo.extend(&drafts[at].task.needs);
                }
            }
            seen.contains(&draft.task.number)
        });
        if let Some(draft) = back {
            let said = format!("step `{}` needs itself, by way of others", draft.name);
            diagnostics.push(Diagnostic::error(codes::BAD_WAIT, said).at(draft.name.span, "this one"));
        }
    }
}

fn step(
    project: &Project,
    resource: &Resource,
    local: &dyn Fn(&Address) -> String,
    node: &Node,
    number: usize,
    global: &BTreeMap<String, String>,
    diagnostics: &mut Diagnostics,
) -> Option<Draft> {
    let mut reader = Reader::new(node, diagnostics);
    let name = reader.arg_str("a name")?;
    let mut needs: Vec<Spanned<String>> = reader.opt_prop_str("needs").into_iter().collect();
    // `needs="a" "b"`: what stands behind the first is an argument to KDL.
    while let Some(value) = reader.opt_arg() {
        needs.extend(reader.text(value, "the name of a step"));
    }
    for child in reader.every("needs") {
        let mut child = reader.child(child);
        needs.extend(child.args_text_some("the name of a step"));
        child.finish();
    }
    let into = reader.opt_prop_str("into");
    let sources = [reader.opt_prop_str("git"), reader.opt_prop_str("url"), reader.opt_prop_str("bucket")];
    let reference = reader.opt_prop_str("ref");
    let sha256 = reader.opt_prop_str("sha256");
    let image = reader.opt_prop_str("image");
    let image = image.and_then(|image| resolve(project, resource, local, &image, reader.diagnostics()));
    let is_source = sources.iter().any(Option::is_some);
    let given = sources.iter().filter(|source| source.is_some()).count() + usize::from(image.is_some());
    if given > 1 {
        reader.error(codes::CONFLICT, name.span, format!("step `{name}` is several things"), ONE_OF);
    }
    let mut own_env = global.clone();
    own_env.extend(env(&mut reader));
    let mut secret_env = BTreeMap::new();
    for child in reader.every("secret") {
        let mut child = reader.child(child);
        let secret = child.arg_str("a name");
        let variable = child.prop_str("env");
        child.finish();
        if let (Some(secret), Some(variable)) = (secret, variable) {
            secret_env.insert(variable.value, secret.value);
        }
    }
    let mut volumes = Vec::new();
    for child in reader.every("volume") {
        let mut child = reader.child(child);
        if let (Some(name), Some(path)) = (child.arg_str("a name"), child.arg_str("a path")) {
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) && !name.starts_with('.');
            if !plain || !path.starts_with('/') {
                child.error(
                    codes::BAD_VALUE,
                    name.span,
                    "no volume",
                    "expected a name of letters, and an absolute path",
                );
            }
            volumes.push(Volume { name: name.value, path: path.value });
        }
        child.finish();
    }
    let (commands, script) = commands(&mut reader);
    let entrypoint = list(&mut reader, "entrypoint");
    let args = list(&mut reader, "args");
    let directory = word(&mut reader, "workdir").map_or_else(
        || "/workspace".to_owned(),
        |path| if path.starts_with('/') { path.value } else { format!("/workspace/{path}") },
    );
    let timeout = reader.opt_child("timeout").and_then(|child| {
        let mut child = reader.child(child);
        let time = child.arg_duration("a time");
        child.finish();
        time.map(|time| time.value)
    });
    let retry = retry(&mut reader);
    let whens = [("success", When::Success), ("failure", When::Failure), ("always", When::Always)];
    let mut when = reader.opt_child("when").map_or(When::Success, |child| {
        let mut child = reader.child(child);
        let found = child.arg_one_of("`success`, `failure` or `always`", &whens);
        child.finish();
        found.map_or(When::Success, |found| found.value)
    });
    for child in reader.every("if") {
        let mut child = reader.child(child);
        let value = child.arg_text("a text");
        let (is, not) = (child.opt_prop_text("is"), child.opt_prop_text("not"));
        let span = child.span();
        let holds = match (&value, &is, &not) {
            (Some(value), Some(is), None) => value.value == is.value,
            (Some(value), None, Some(not)) => value.value != not.value,
            (Some(value), None, None) => !matches!(value.value.as_str(), "" | "false" | "0"),
            (None, ..) => true,
            (Some(_), Some(_), Some(_)) => {
                child.error(codes::CONFLICT, span, "`if` with `is` and `not`", "one of them");
                true
            }
        };
        child.finish();
        if !holds {
            when = When::Never;
        }
    }
    let group = word(&mut reader, "group").map(|group| group.value);
    let allow_failure = reader.opt_child("allow-failure").is_some_and(|child| {
        let mut child = reader.child(child);
        let is = child.arg_flag("whether it may");
        child.finish();
        is
    });
    let mut allow_exit_codes = Vec::new();
    for child in reader.every("allow-exit") {
        let mut child = reader.child(child);
        while let Some(value) = child.opt_arg() {
            allow_exit_codes.extend(child.int(value, "an exit code", 1..=255).map(|code| code.value as i64));
        }
        child.finish();
    }
    let (reads, makes) =
        (texts(&mut reader, "reads", "a pattern of files"), texts(&mut reader, "makes", "a pattern of files"));
    let cache = (!reads.is_empty()).then_some(StepCache { reads, makes });
    let mut services = Vec::new();
    for child in reader.every("service") {
        services.extend(service(project, resource, local, child, reader.diagnostics()));
    }
    let work = match (image, is_source) {
        (Some(image), false) => container(image, entrypoint, args, commands, script),
        (None, false) => {
            reader.error(codes::MISSING_FIELD, name.span, format!("step `{name}` does nothing"), ONE_OF);
            TaskWork::Refused { why: "it does nothing".into() }
        }
        (_, true) => source(&sources, reference, sha256, into.as_ref(), &name, &mut reader),
    };
    if let (Some(into), false) = (&into, is_source) {
        reader.error(codes::CONFLICT, into.span, "`into` is for steps that fetch", "this one runs an image");
    }
    reader.finish();
    let task = Task {
        number,
        id: Some(name.value.clone()),
        needs: Vec::new(),
        work,
        directory,
        env: own_env,
        secret_env,
        volumes,
        timeout,
        allow_failure,
        allow_exit_codes,
        retry,
        when,
        group,
        services,
        cache,
    };
    Some(Draft { task, name, needs })
}

const ONE_OF: &str = "expected one of `image=`, `git=`, `url=`, `bucket=`";

fn resolve(
    project: &Project,
    resource: &Resource,
    local: &dyn Fn(&Address) -> String,
    image: &Spanned<String>,
    diagnostics: &mut Diagnostics,
) -> Option<String> {
    match project.resolve_image(resource, image) {
        Ok(Image::Project(address)) => Some(local(&address)),
        Ok(Image::Reference(reference)) => Some(reference.to_string()),
        Err(diagnostic) => {
            diagnostics.push(diagnostic);
            None
        }
    }
}

/// `run "a line"` for the shell, or `run "program" "argument"`; several are one script. And `script "…"`.
fn commands(reader: &mut Reader<'_, '_>) -> (Vec<Vec<String>>, Option<String>) {
    let mut all = Vec::new();
    for node in reader.every("run") {
        let mut child = reader.child(node);
        let words: Vec<String> = child.args_text_some("a command").into_iter().map(|word| word.value).collect();
        child.finish();
        if !words.is_empty() {
            all.push(words);
        }
    }
    let script = word(reader, "script").map(|script| script.value);
    (all, script)
}

fn container(
    image: String,
    entrypoint: Vec<String>,
    args: Vec<String>,
    commands: Vec<Vec<String>>,
    script: Option<String>,
) -> TaskWork {
    let entrypoint = (!entrypoint.is_empty()).then_some(entrypoint);
    if let Some(script) = script {
        return TaskWork::Container { image, entrypoint: None, args: Vec::new(), script: Some(script) };
    }
    match commands.as_slice() {
        [] => TaskWork::Container { image, entrypoint, args, script: None },
        [words] if words.len() > 1 => {
            TaskWork::Container { image, entrypoint: Some(words.clone()), args: Vec::new(), script: None }
        }
        several => {
            let lines: Vec<String> = several
                .iter()
                .map(|words| match words.as_slice() {
                    [line] => line.clone(),
                    words => crate::builders::line(words),
                })
                .collect();
            let script = format!("set -e\n{}\n", lines.join("\n"));
            TaskWork::Container { image, entrypoint: None, args: Vec::new(), script: Some(script) }
        }
    }
}

/// Something that is fetched into the workspace.
fn source(
    sources: &[Option<Spanned<String>>; 3],
    reference: Option<Spanned<String>>,
    sha256: Option<Spanned<String>>,
    into: Option<&Spanned<String>>,
    name: &Spanned<String>,
    reader: &mut Reader<'_, '_>,
) -> TaskWork {
    let [git, url, bucket] = sources;
    let into = match into {
        Some(into) => into.value.clone(),
        None => {
            reader.error(codes::MISSING_FIELD, name.span, format!("step `{name}` fetches to nowhere"), "add `into=`");
            String::new()
        }
    };
    let native = |actions: Vec<Action>| TaskWork::Native { commands: actions.into_iter().map(Command::of).collect() };
    let inside = |words: &[&str]| {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Action::Git(Git::Inside { folder: Some(into.clone()), words })
    };
    if let Some(url) = git {
        let reference = reference.map_or_else(|| "HEAD".to_owned(), |reference| reference.value);
        let init = Action::Git(Git::Inside { folder: None, words: vec!["init".into(), "-q".into(), into.clone()] });
        // Behind `--` nothing is an option.
        let fetch = inside(&["fetch", "-q", "--depth=1", "--", &url.value, &reference]);
        return native(vec![init, fetch, inside(&["checkout", "-q", "FETCH_HEAD"])]);
    }
    if let Some(url) = url {
        let sha256 = sha256.map(|sum| sum.value);
        return TaskWork::Download { url: url.value.clone(), sha256, into };
    }
    let from = bucket.as_ref().map(|bucket| bucket.value.clone()).unwrap_or_default();
    native(vec![Action::Storage(Storage::Sync { from, to: into, recursive: true, delete: false, exclude: None })])
}

fn service(
    project: &Project,
    resource: &Resource,
    local: &dyn Fn(&Address) -> String,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<Service> {
    let mut reader = Reader::new(node, diagnostics);
    let name = reader.arg_str("a name");
    let image = reader.prop_str("image");
    let image = image.and_then(|image| resolve(project, resource, local, &image, reader.diagnostics()));
    let words = service_words(&mut reader);
    let (mut ready, mut within) = (Vec::new(), READY_WITHIN);
    if let Some(health) = words.health {
        match health.probe.value {
            HealthProbe::Exec(line) => ready = vec!["/bin/sh".into(), "-c".into(), line],
            HealthProbe::Http(_) | HealthProbe::Tcp(_) => {
                let said = "a service of a step tells its health by a command inside it";
                reader.error(codes::BAD_VALUE, health.probe.span, said, "expected `exec=`");
            }
        }
        within = health.within.map_or(within, |within| within.value);
    }
    reader.finish();
    Some(Service {
        name: name?.value,
        image: image?,
        args: words.command.unwrap_or_default(),
        env: words.env.into_iter().collect(),
        ready,
        within,
    })
}

/// `retry 2 pause="1s" factor=2`.
fn retry(reader: &mut Reader<'_, '_>) -> Retry {
    let Some(node) = reader.opt_child("retry") else { return Retry::default() };
    let mut child = reader.child(node);
    let times = child.arg_int("how often", 0..=RETRIES_MAX).map_or(0, |times| times.value as u32);
    let pause = child.opt_prop_duration("pause").map(|pause| pause.value);
    let factor = child.opt_prop_int("factor", 1..=100).map(|factor| factor.value as f64);
    child.finish();
    let usual = Retry::default();
    Retry { times, pause: pause.unwrap_or(usual.pause), factor: factor.unwrap_or(usual.factor) }
}

fn env(reader: &mut Reader<'_, '_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for node in reader.every("env") {
        let mut child = reader.child(node);
        all.extend(child.all_props_text().into_iter().map(|(name, value)| (name.value, value.value)));
        child.finish();
    }
    all
}

fn texts(reader: &mut Reader<'_, '_>, name: &str, what: &str) -> Vec<String> {
    let mut all = Vec::new();
    for node in reader.every(name) {
        let mut child = reader.child(node);
        all.extend(child.args_text_some(what).into_iter().map(|text| text.value));
        child.finish();
    }
    all
}

fn list(reader: &mut Reader<'_, '_>, name: &str) -> Vec<String> {
    let Some(node) = reader.opt_child(name) else { return Vec::new() };
    let mut child = reader.child(node);
    let words = child.args_text("an argument").into_iter().map(|word| word.value).collect();
    child.finish();
    words
}

fn word(reader: &mut Reader<'_, '_>, name: &str) -> Option<Spanned<String>> {
    let node = reader.opt_child(name)?;
    let mut child = reader.child(node);
    let text = child.arg_text("a text");
    child.finish();
    text
}
