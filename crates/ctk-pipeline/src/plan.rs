//! What a build becomes: each step with its work, as data that programs read, too.

use std::collections::{BTreeMap, BTreeSet};

use ctk_syntax::{Diagnostic, Diagnostics};
use serde::Serialize;

use crate::builders::{self, Command, Recognised};
use crate::cloudbuild::{Artifact, Build, Dependency, Note, Secret, Step, Volume};
use crate::codes;

/// Changes when the meaning of a plan's JSON does.
pub const FORMAT: u32 = 1;

/// What a build becomes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: u32,
    /// The steps, in the order of the file.
    pub steps: Vec<PlannedStep>,
    /// Images that are pushed at the end.
    pub images: Vec<String>,
    /// What is uploaded at the end.
    pub artifacts: Vec<Artifact>,
    /// What is fetched at the beginning.
    pub dependencies: Vec<Dependency>,
    /// Secret variables by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Substitutions by name.
    pub substitutions: BTreeMap<String, String>,
    /// Words that find the build again.
    pub tags: Vec<String>,
    /// How long all of it may take.
    pub timeout_seconds: f64,
    /// What of the file is not carried out here.
    pub notes: Vec<Note>,
}

/// A step and its work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedStep {
    /// Its place, from 0.
    pub number: usize,
    /// What others wait for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The steps that must have ended before it begins. Those that others of them wait for are left out.
    pub waits_for: Vec<usize>,
    /// What is done.
    pub work: Work,
    /// Absolute, inside of the step.
    pub directory: String,
    /// Variables by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Names of secret variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret_env: Vec<String>,
    /// Folders shared with other steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// How long it may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// Whether the build goes on when it fails.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_failure: bool,
    /// Exit codes with which the build goes on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_exit_codes: Vec<i64>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Work {
    /// Our builder, client and runtime do it.
    Native {
        /// The image that it is written for.
        image: String,
        /// One after the other.
        commands: Vec<Command>,
    },
    /// A container of the image.
    Container {
        /// The image.
        image: String,
        /// The step that makes the image.
        #[serde(skip_serializing_if = "Option::is_none")]
        made_by: Option<usize>,
        /// Instead of the image's.
        #[serde(skip_serializing_if = "Option::is_none")]
        entrypoint: Option<String>,
        /// Arguments; none: the image's own.
        args: Vec<String>,
    },
    /// A container of the image with a script.
    Script {
        /// The image.
        image: String,
        /// The step that makes the image.
        #[serde(skip_serializing_if = "Option::is_none")]
        made_by: Option<usize>,
        /// What reads it: what its first line says, or `/bin/sh`.
        interpreter: String,
        /// The script.
        script: String,
    },
    /// Nothing that can be done without a Docker daemon.
    Refused {
        /// The image.
        image: String,
        /// Why.
        why: String,
    },
}

/// The plan of a build. What cannot be carried out is an error in the diagnostics, and in the plan.
pub fn plan(build: &Build) -> (Plan, Diagnostics) {
    let mut diagnostics = Diagnostics::new();
    let mut made: BTreeMap<String, usize> = BTreeMap::new();
    let mut steps = Vec::with_capacity(build.steps.len());
    for step in &build.steps {
        let work = work(step, &made, &mut diagnostics);
        if let Work::Native { commands, .. } = &work {
            for image in commands.iter().flat_map(|command| command.action.makes()) {
                made.insert(latest(image), step.number);
            }
        }
        steps.push(PlannedStep {
            number: step.number,
            id: step.id.as_ref().map(|id| id.value.clone()),
            waits_for: step.waits_for.clone(),
            work,
            directory: step.directory.clone(),
            env: step.env.clone(),
            secret_env: step.secret_env.iter().map(|name| name.value.clone()).collect(),
            volumes: step.volumes.clone(),
            timeout_seconds: step.timeout.map(|timeout| timeout.as_secs_f64()),
            allow_failure: step.allow_failure,
            allow_exit_codes: step.allow_exit_codes.clone(),
        });
    }
    races(build, &steps, &mut diagnostics);
    unmade(build, &steps, &made, &mut diagnostics);
    let plan = Plan {
        format: FORMAT,
        steps,
        images: build.images.iter().map(|image| image.value.clone()).collect(),
        artifacts: build.artifacts.clone(),
        dependencies: build.dependencies.clone(),
        secrets: build.secrets.clone(),
        substitutions: build.substitutions.clone(),
        tags: build.tags.clone(),
        timeout_seconds: build.timeout.as_secs_f64(),
        notes: build.notes.clone(),
    };
    diagnostics.sort();
    (plan, diagnostics)
}

/// `app` and `app:latest` are one image.
fn latest(image: &str) -> String {
    let slash = image.rfind('/').map_or(0, |at| at + 1);
    match image[slash..].contains([':', '@']) {
        true => image.to_owned(),
        false => format!("{image}:latest"),
    }
}

fn work(step: &Step, made: &BTreeMap<String, usize>, diagnostics: &mut Diagnostics) -> Work {
    let image = step.name.value.clone();
    let made_by = made.get(&latest(&image)).copied();
    let args: Vec<String> = step.args.iter().map(|arg| arg.value.clone()).collect();
    let entrypoint = step.entrypoint.as_ref().map(|entrypoint| entrypoint.value.clone());
    let recognised = match (&step.script, made_by) {
        // An image that this build makes is what the build says, whatever it is called.
        (_, Some(_)) => Recognised::Ordinary,
        (Some(script), None) => builders::recognise_script(&image, script),
        (None, None) => builders::recognise(&image, entrypoint.as_deref(), &args),
    };
    match recognised {
        Recognised::Native(commands) => Work::Native { image, commands },
        Recognised::Refused(why) => {
            let place = step.script.as_ref().map(|script| script.span);
            let place = place.or_else(|| Some(step.args.first()?.span.to(step.args.last()?.span)));
            let said = format!("{}: {why}", name(step));
            let mistake = Diagnostic::error(codes::BUILDER, said)
                .at(place.unwrap_or(step.name.span), "this cannot be carried out");
            diagnostics.push(mistake.hint("ctk itself carries such steps out, without a Docker daemon; docs/guide-pipeline.md lists what it knows"));
            Work::Refused { image, why }
        }
        Recognised::Ordinary => match &step.script {
            Some(script) => {
                let interpreter = match script.strip_prefix("#!") {
                    Some(rest) => rest.lines().next().unwrap_or_default().trim().to_owned(),
                    None => "/bin/sh".into(),
                };
                Work::Script { image, made_by, interpreter, script: script.value.clone() }
            }
            None => Work::Container { image, made_by, entrypoint, args },
        },
    }
}

/// `step 2`, `step 2 "test"`.
fn name(step: &Step) -> String {
    match &step.id {
        Some(id) => format!("step {} \"{}\"", step.number, id.value),
        None => format!("step {}", step.number),
    }
}

/// Steps whose image another makes, and that do not wait for it.
fn races(build: &Build, steps: &[PlannedStep], diagnostics: &mut Diagnostics) {
    for (step, planned) in build.steps.iter().zip(steps) {
        let (Work::Container { made_by, .. } | Work::Script { made_by, .. }) = &planned.work else { continue };
        let Some(maker) = *made_by else { continue };
        let (mut seen, mut todo) = (BTreeSet::new(), planned.waits_for.clone());
        while let Some(at) = todo.pop() {
            if seen.insert(at) {
                todo.extend(&steps[at].waits_for);
            }
        }
        if !seen.contains(&maker) {
            let said = format!("step {maker} makes this image, and {} does not wait for it", name(step));
            let mistake = Diagnostic::warning(codes::SUSPICIOUS, said).at(step.name.span, "may not be there yet");
            diagnostics.push(mistake.hint("name that step's id in `waitFor`"));
        }
    }
}

/// Images that are to be pushed, and that no step seems to make: said only when every step is known.
fn unmade(build: &Build, steps: &[PlannedStep], made: &BTreeMap<String, usize>, diagnostics: &mut Diagnostics) {
    let native = steps.iter().all(|step| matches!(step.work, Work::Native { .. }));
    let loads = steps.iter().any(|step| match &step.work {
        Work::Native { commands, .. } => commands.iter().any(|one| matches!(one.action, builders::Action::Load { .. })),
        _ => false,
    });
    // What is called by a variable may be any of them.
    let open = made.keys().any(|name| name.contains("${"));
    for image in build.images.iter().filter(|_| native && !loads && !open) {
        if !made.contains_key(&latest(&image.value)) {
            let names = made.keys().map(String::as_str);
            let said = format!("no step makes image `{}`", image.value);
            let mistake = Diagnostic::warning(codes::SUSPICIOUS, said);
            let near = ctk_syntax::nearest(&image.value, names);
            diagnostics.push(mistake.at_or_nearest(image.span, near, "there will be nothing to push"));
        }
    }
}
