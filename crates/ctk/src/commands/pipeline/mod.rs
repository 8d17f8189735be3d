//! `ctk pipeline`: Cloud Build files as they are, and pipelines of the project.

mod carry_out;
mod explain;
mod graph;
mod lint;
mod logs;
mod ls;
mod plan;
mod project;
mod prune;
mod run;
mod show;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ctk_pipeline::cloudbuild::GIVEN_BUILT_IN;
use ctk_pipeline::{Inputs, Plan};
use ctk_syntax::{Diagnostics, Sources};

use crate::commands::container::Desk;
use crate::commands::{Trees, output};
use crate::context::Context;
use crate::failure::Failure;

/// Pipelines: Cloud Build files as they are, and those of the project
#[derive(Args)]
pub struct Pipeline {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a file's steps, or a pipeline of the project
    Run(Box<run::Run>),
    /// List runs
    Ls(ls::Ls),
    /// Show how a run went, step by step
    Show(show::Show),
    /// Show what steps of a run printed
    Logs(logs::Logs),
    /// Remove records of old runs
    Prune(prune::Prune),
    /// Say what each step of a file, or of a pipeline of the project, becomes
    Plan(plan::Plan),
    /// Find every mistake of a file
    Lint(lint::Lint),
    /// Show which step waits for which
    Graph(graph::Graph),
    /// Carry out what a step asks of our own programs
    #[command(hide = true)]
    CarryOut(carry_out::CarryOut),
}

impl Pipeline {
    /// What it has to do with trees of images.
    pub fn trees(&self) -> Trees {
        match &self.command {
            Command::Run(run) if run.only_explains() => Trees::Untouched,
            Command::Run(_) => Trees::Made,
            // The files of workspaces have their steps' owners.
            Command::Prune(_) => Trees::Handled,
            _ => Trees::Untouched,
        }
    }

    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            Command::Plan(command) => command.run(context),
            Command::Lint(command) => command.run(context),
            Command::Graph(command) => command.run(context),
            Command::Run(command) => command.run(context),
            Command::Ls(command) => command.run(context),
            Command::Show(command) => command.run(context),
            Command::Logs(command) => command.run(context),
            Command::Prune(command) => command.run(context),
            Command::CarryOut(command) => command.run(),
        }
    }
}

/// A file, and what its substitutions are made of
#[derive(Args, Clone)]
struct FileArgs {
    /// The file, YAML or JSON [default: cloudbuild.yaml, else cloudbuild.yml, else cloudbuild.json]
    file: Option<PathBuf>,
    /// Set substitutions: `_NAME=VALUE`, several with commas; also COMMIT_SHA, BRANCH_NAME and such
    #[arg(long, value_name = "NAME=VALUE,…")]
    substitutions: Vec<String>,
    /// PROJECT_ID
    #[arg(long, value_name = "ID", env = "CLOUDSDK_CORE_PROJECT", default_value = "local")]
    project: String,
    /// LOCATION
    #[arg(long, value_name = "REGION", default_value = "global")]
    region: String,
    /// BUILD_ID
    #[arg(long, value_name = "ID", default_value = "00000000-0000-0000-0000-000000000000")]
    build_id: String,
    /// Read it as a trigger does: unmatched and unused substitutions are fine, `dynamicSubstitutions` is on
    #[arg(long)]
    trigger: bool,
    /// The event of the trigger, JSON with `body` at its top
    #[arg(long, value_name = "FILE", requires = "trigger")]
    payload: Option<PathBuf>,
}

const FILES: [&str; 3] = ["cloudbuild.yaml", "cloudbuild.yml", "cloudbuild.json"];

/// A file that was read.
struct Looked {
    sources: Sources,
    /// How it is called.
    name: String,
    plan: Option<Plan>,
    diagnostics: Diagnostics,
}

impl FileArgs {
    /// The same for a file that the project names, with substitutions of its own: those of the command line count more.
    fn of(&self, file: PathBuf, substitutions: &BTreeMap<String, String>) -> FileArgs {
        let mut own = FileArgs { file: Some(file), ..self.clone() };
        let given = substitutions.iter().map(|(name, value)| format!("{name}={value}"));
        own.substitutions.splice(0..0, given);
        own
    }

    fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let found = FILES.iter().map(PathBuf::from).find(|path| path.is_file());
        found.ok_or_else(|| {
            let hint = "name the file: `ctk pipeline plan FILE`";
            Failure::sentence(format!("there is no {} here", FILES.join(", no ")), Some(hint))
        })
    }

    /// Reads the file; what is wrong with it is in the diagnostics.
    fn look(&self) -> Result<Looked, Failure> {
        let path = self.path()?;
        let name = path.display().to_string();
        let bytes = std::fs::read(&path).map_err(|error| {
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound => Some(format!("without a name it is {}", FILES.join(", else "))),
                _ => None,
            };
            match Failure::during::<std::io::Error>(format!("cannot read {name}"))(error) {
                Failure::Error { code, error, .. } => Failure::Error { code, error, hint },
                failure => failure,
            }
        })?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let inputs = self.inputs(folder)?;
        let mut sources = Sources::new();
        let id = sources.add_bytes(name.clone(), &bytes);
        let (build, mut diagnostics) = ctk_pipeline::read(&sources, id, &inputs);
        let plan = build.map(|build| {
            let (plan, more) = ctk_pipeline::plan(&build);
            diagnostics.extend(more);
            plan
        });
        diagnostics.sort();
        Ok(Looked { sources, name, plan, diagnostics })
    }

    fn inputs(&self, folder: &Path) -> Result<Inputs, Failure> {
        let mut built_in = of_git(folder);
        let options = [("PROJECT_ID", &self.project), ("LOCATION", &self.region), ("BUILD_ID", &self.build_id)];
        built_in.extend(options.map(|(name, value)| (name.to_owned(), value.clone())));
        let given = given(&self.substitutions).map_err(|text| {
            let hint = format!("names begin with `_`, or are of {}", GIVEN_BUILT_IN.join(", "));
            Failure::sentence(text, Some(&hint))
        })?;
        for (name, value) in given.iter().filter(|(name, _)| !name.starts_with('_')) {
            built_in.insert(name.clone(), value.clone());
        }
        let payload = self.payload.as_deref().map(payload).transpose()?;
        let given = given.into_iter().filter(|(name, _)| name.starts_with('_')).collect();
        Ok(Inputs { given, built_in, trigger: self.trigger, payload })
    }
}

fn payload(path: &Path) -> Result<serde_json::Value, Failure> {
    let attempt = format!("cannot read {}", path.display());
    let bytes = std::fs::read(path).map_err(Failure::during(attempt.clone()))?;
    serde_json::from_slice(&bytes).map_err(Failure::during(attempt))
}

/// `A=b,C=d`: a comma before something that is no `NAME=` belongs to the value.
fn given(lists: &[String]) -> Result<BTreeMap<String, String>, String> {
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for list in lists {
        let mut last: Option<String> = None;
        for part in list.split(',') {
            match (part.split_once('='), &last) {
                (Some((name, value)), _) if is_name(name) => {
                    let own = name.starts_with('_') && name.len() > 1;
                    if !own && !GIVEN_BUILT_IN.contains(&name) {
                        return Err(format!("substitution `{name}` cannot be given"));
                    }
                    found.insert(name.to_owned(), value.to_owned());
                    last = Some(name.to_owned());
                }
                (_, Some(name)) => {
                    let value = found.get_mut(name).expect("it was put there");
                    value.push(',');
                    value.push_str(part);
                }
                _ => return Err(format!("`{part}` is no substitution; expected `_NAME=VALUE`")),
            }
        }
    }
    Ok(found)
}

/// What git says about the work tree that `folder` is in; nothing where there is none.
fn of_git(folder: &Path) -> BTreeMap<String, String> {
    let ask = |arguments: &[&str]| {
        let output = std::process::Command::new("git").current_dir(folder).args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let mut found = BTreeMap::new();
    let mut put = |name: &str, value: Option<String>| found.extend(value.map(|value| (name.to_owned(), value)));
    let Some(commit) = ask(&["rev-parse", "--verify", "HEAD"]) else { return found };
    let branch = ask(&["symbolic-ref", "--short", "--quiet", "HEAD"]);
    let tag = ask(&["describe", "--tags", "--exact-match", "HEAD"]);
    let remote = ask(&["remote", "get-url", "origin"]);
    let full = remote.map(|url| {
        let path = url.trim_end_matches('/').trim_end_matches(".git").replace(':', "/");
        let parts: Vec<&str> = path.rsplit('/').take(2).collect();
        parts.into_iter().rev().collect::<Vec<_>>().join("/")
    });
    put("SHORT_SHA", commit.get(..7).map(str::to_owned));
    put("REVISION_ID", Some(commit.clone()));
    put("COMMIT_SHA", Some(commit));
    put("REF_NAME", branch.clone().or(tag.clone()));
    put("BRANCH_NAME", branch);
    put("TAG_NAME", tag);
    put("REPO_NAME", full.as_ref().and_then(|full| full.rsplit('/').next()).map(str::to_owned));
    put("REPO_FULL_NAME", full);
    found
}

impl Looked {
    /// Prints what `show` makes of the plan, then what is said about the file. A file with steps that cannot be
    /// carried out has a plan, and fails.
    fn show(self, context: &Context, show: impl FnOnce(&Plan) -> Result<String, Failure>) -> Result<(), Failure> {
        let said = self.diagnostics.render(&self.sources, context.color());
        if let Some(plan) = &self.plan {
            output(&show(plan)?)?;
        }
        if self.diagnostics.has_errors() {
            return Err(Failure::Explained(said));
        }
        eprint!("{said}");
        Ok(())
    }
}

/// A path that means the same wherever we are. One that cannot be said so stays.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Runs of this store.
fn records(context: &Context) -> ctk_pipeline::run::Records {
    ctk_pipeline::run::Records::of_store(&absolute(context.options().store))
}

/// Removes containers that steps of these runs started in the background, and that no process looks after any more.
pub fn remove_containers(context: &Context, runs: &[String]) -> Result<(), Failure> {
    let desk = Desk::open(context);
    for (container, config, _) in desk.all()? {
        let of_run = config.labels.get(ctk_pipeline::run::native::LABEL);
        if of_run.is_some_and(|run| runs.contains(run)) {
            desk.remove_if_there(container.id())?;
        }
    }
    Ok(())
}

/// An error of a run, with what to do about it.
fn of_run(error: ctk_pipeline::run::RunError) -> Failure {
    use ctk_pipeline::run::RunError;
    let hint = match &error {
        RunError::NoRun { .. } => Some("`ctk pipeline ls` lists them".to_owned()),
        RunError::NoSecret { env, .. } => Some(format!(
            "say what stands for it: `--secret {env}=env:NAME`, `file:PATH`, `command:LINE` or `vault:PATH#FIELD`"
        )),
        RunError::Hidden { .. } => Some("name a place elsewhere; `--root` is the store's".into()),
        RunError::NoWorkspace { .. } => {
            Some("run the file anew: a run that succeeded leaves nothing to go on with".into())
        }
        RunError::Running { .. } => Some("`ctk pipeline show` says how far it is".into()),
        _ => None,
    };
    Failure::Error { code: None, error: Box::new(error), hint }
}

#[cfg(test)]
mod tests {
    use super::given;

    #[test]
    fn substitutions_are_split_at_names() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            let found = given(&[text.to_owned()]).unwrap();
            let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(found, expected, "{text}");
        };
        check("_A=1", &[("_A", "1")]);
        check("_A=1,_B=x=y", &[("_A", "1"), ("_B", "x=y")]);
        check("_A=1,2,3,_B=", &[("_A", "1,2,3"), ("_B", "")]);
        check("COMMIT_SHA=abc,_A=", &[("COMMIT_SHA", "abc"), ("_A", "")]);
    }

    #[test]
    fn what_cannot_be_given_is_said() {
        let wrong = |text: &str| given(&[text.to_owned()]).unwrap_err();
        assert_eq!(wrong("PROJECT_ID=x"), "substitution `PROJECT_ID` cannot be given");
        assert_eq!(wrong("FOO=x"), "substitution `FOO` cannot be given");
        assert_eq!(wrong("a=b"), "`a=b` is no substitution; expected `_NAME=VALUE`");
    }
}
