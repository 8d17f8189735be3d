//! What is run: steps that are already decided, whichever language they were written in.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::builders::{self, Action, Command};
use crate::cloudbuild::{Artifact, Dependency, Secret, Volume};
use crate::plan::{Plan, PlannedStep, Work};

/// A pipeline, ready to be run.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// How people call it.
    pub name: String,
    /// In the order in which they are written.
    pub tasks: Vec<Task>,
    /// Fetched before the steps.
    pub dependencies: Vec<Dependency>,
    /// Images that must be there after the steps, and are pushed.
    pub images: Vec<String>,
    /// Uploaded after the steps.
    pub artifacts: Vec<Artifact>,
    /// Secret variables by name, and where they are from.
    pub secrets: BTreeMap<String, SecretSource>,
    /// `BUILD_ID` and `PROJECT_ID`, for those who report.
    pub labels: BTreeMap<String, String>,
    /// How long all of it may take.
    pub timeout: Option<Duration>,
    /// Whether the first failure stops all that runs.
    pub fail_fast: bool,
    /// Steps that run at once, at most.
    pub at_once: Option<usize>,
}

/// Where the value of a secret is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum SecretSource {
    /// A secret of a cloud: only a stand-in of this machine has its value.
    Cloud {
        /// What it is called there.
        name: String,
    },
    /// A variable of our environment.
    Env {
        /// Which.
        name: String,
    },
    /// A file; a last newline is cut off.
    File {
        /// Which.
        path: String,
    },
    /// What a command prints; a last newline is cut off.
    Command {
        /// For `/bin/sh -c`.
        line: String,
    },
    /// A field of a secret in Vault, as `VAULT_ADDR` and `VAULT_TOKEN` reach it.
    Vault {
        /// Below `/v1/`.
        path: String,
        /// Which.
        field: String,
    },
}

/// When a step runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// What it needs succeeded, and nothing stopped the run.
    #[default]
    Success,
    /// Something before it failed.
    Failure,
    /// In any case.
    Always,
    /// Its condition does not hold.
    Never,
}

/// What is tried again, how often and when.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Retry {
    /// Times after the first.
    pub times: u32,
    /// Before the second try.
    pub pause: Duration,
    /// The pause grows by this each time.
    pub factor: f64,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { times: 0, pause: Duration::from_secs(1), factor: 2.0 }
    }
}

/// A container beside a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Service {
    /// Its name on the step's network.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Instead of the image's command.
    pub args: Vec<String>,
    /// Its variables.
    pub env: BTreeMap<String, String>,
    /// A command inside that succeeds when it is ready.
    pub ready: Vec<String>,
    /// How long it may take until it is.
    pub within: Duration,
}

/// A step.
#[derive(Clone, Debug, Serialize)]
pub struct Task {
    /// Its place, from 0.
    pub number: usize,
    /// What others call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Steps that must have ended before, by number.
    pub needs: Vec<usize>,
    /// What is done.
    pub work: TaskWork,
    /// Absolute, inside of the step.
    pub directory: String,
    /// Variables by name.
    pub env: BTreeMap<String, String>,
    /// Names of secret variables, and of the secrets that they have.
    pub secret_env: BTreeMap<String, String>,
    /// Folders shared with other steps.
    pub volumes: Vec<Volume>,
    /// Of each try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Whether the run goes on when it fails.
    pub allow_failure: bool,
    /// Exit codes with which the run goes on.
    pub allow_exit_codes: Vec<i64>,
    /// How often it is tried.
    pub retry: Retry,
    /// When it runs.
    pub when: When,
    /// No two steps of a group run at once, in any run on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Containers beside it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// Paths below the workspace on which its result depends: if they, its image and its command are those of an
    /// earlier success, that one's outputs are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<StepCache>,
}

/// What a cached step reads and makes, as patterns below the workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StepCache {
    /// Read.
    pub reads: Vec<String>,
    /// Made.
    pub makes: Vec<String>,
}

/// What a step does.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TaskWork {
    /// Our builder, client and runtime, and small programs of ours.
    Native {
        /// One after the other.
        commands: Vec<Command>,
    },
    /// A container.
    Container {
        /// Its image.
        image: String,
        /// Instead of the image's.
        entrypoint: Option<Vec<String>>,
        /// Instead of the image's command, if there are any.
        args: Vec<String>,
        /// A file that is run instead of both.
        script: Option<String>,
    },
    /// A file of the web, whose content is known.
    Download {
        /// Where it is.
        url: String,
        /// Its SHA-256.
        sha256: Option<String>,
        /// The file below the workspace.
        into: String,
    },
    /// What cannot be carried out.
    Refused {
        /// Why.
        why: String,
    },
}

impl Task {
    /// `#3`, `#3 "test"`.
    pub fn label(&self) -> String {
        match &self.id {
            Some(id) => format!("#{} \"{id}\"", self.number),
            None => format!("#{}", self.number),
        }
    }

    /// What it does, in one line.
    pub fn line(&self) -> String {
        match &self.work {
            TaskWork::Native { commands } => {
                let lines: Vec<String> = commands.iter().map(|one| command_line(&one.action)).collect();
                lines.join(" && ")
            }
            TaskWork::Container { image, script: Some(script), .. } => {
                let tells = |line: &&str| !line.trim().is_empty() && !line.starts_with("#!") && *line != "set -e";
                let lines = || script.lines().filter(tells);
                let more = if lines().count() > 1 { " …" } else { "" };
                format!("{image}: {}{more}", lines().next().unwrap_or_default().trim())
            }
            TaskWork::Container { image, entrypoint, args, script: None } => {
                let words: Vec<String> = entrypoint.iter().flatten().chain(args).cloned().collect();
                let line = builders::line(&words);
                let line = line.split_once('\n').map_or(line.as_str(), |(first, _)| first);
                format!("{image}: {line}").trim_end_matches([' ', ':']).to_owned()
            }
            TaskWork::Download { url, .. } => format!("fetch {url}"),
            TaskWork::Refused { why } => why.clone(),
        }
    }

    /// What says whether it is the same step as in another run.
    pub fn definition(&self) -> String {
        let mut same = self.clone();
        same.number = 0;
        same.needs = Vec::new();
        serde_json::to_string(&same).unwrap_or_default()
    }
}

/// What is carried out, as one would write it.
pub(crate) fn command_line(action: &Action) -> String {
    match action {
        Action::Nothing { why } => format!("nothing: {why}"),
        action => builders::line(&action.words()),
    }
}

impl Job {
    /// What a Cloud Build file's plan asks for.
    pub fn of_plan(name: &str, plan: &Plan) -> Job {
        let source = |secret: &Secret| SecretSource::Cloud {
            name: match secret {
                Secret::Manager { version } => version.clone(),
                Secret::Encrypted { key } => key.clone(),
            },
        };
        let labels = ["BUILD_ID", "PROJECT_ID"].into_iter().filter_map(|name| {
            let value = plan.substitutions.get(name)?;
            Some((name.to_owned(), value.clone()))
        });
        Job {
            name: name.to_owned(),
            tasks: plan.steps.iter().map(task).collect(),
            dependencies: plan.dependencies.clone(),
            images: plan.images.clone(),
            artifacts: plan.artifacts.clone(),
            secrets: plan.secrets.iter().map(|(name, secret)| (name.clone(), source(secret))).collect(),
            labels: labels.collect(),
            timeout: Some(Duration::from_secs_f64(plan.timeout_seconds)),
            fail_fast: true,
            at_once: None,
        }
    }
}

fn task(step: &PlannedStep) -> Task {
    let work = match &step.work {
        Work::Native { commands, .. } => TaskWork::Native { commands: commands.clone() },
        Work::Container { image, entrypoint, args, .. } => TaskWork::Container {
            image: image.clone(),
            entrypoint: entrypoint.clone().map(|one| vec![one]),
            args: args.clone(),
            script: None,
        },
        Work::Script { image, script, .. } => TaskWork::Container {
            image: image.clone(),
            entrypoint: None,
            args: Vec::new(),
            script: Some(script.clone()),
        },
        Work::Refused { why, .. } => TaskWork::Refused { why: why.clone() },
    };
    Task {
        number: step.number,
        id: step.id.clone(),
        needs: step.waits_for.clone(),
        work,
        directory: step.directory.clone(),
        env: step.env.clone(),
        secret_env: step.secret_env.iter().map(|name| (name.clone(), name.clone())).collect(),
        volumes: step.volumes.clone(),
        timeout: step.timeout_seconds.map(Duration::from_secs_f64),
        allow_failure: step.allow_failure,
        allow_exit_codes: step.allow_exit_codes.clone(),
        retry: Retry::default(),
        when: When::Success,
        group: None,
        services: Vec::new(),
        cache: None,
    }
}
