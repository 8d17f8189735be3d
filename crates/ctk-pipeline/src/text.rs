//! A plan for people.

use std::fmt::Write as _;

use crate::builders::{Action, line};
use crate::cloudbuild::{Artifact, Secret};
use crate::plan::{Plan, PlannedStep, Work};

/// Lines of a script that are shown.
const SCRIPT_LINES: usize = 3;

/// The plan as lines; ends with a newline.
pub fn text(plan: &Plan) -> String {
    let mut out = String::new();
    for dependency in &plan.dependencies {
        let what = dependency.repository.as_deref().unwrap_or("an empty workspace");
        let revision = dependency.revision.as_ref().map(|revision| format!(" at {revision}")).unwrap_or_default();
        let path = dependency.path.as_ref().map(|path| format!(" into {path}")).unwrap_or_default();
        let _ = writeln!(out, "  fetch {what}{revision}{path}");
    }
    for step in &plan.steps {
        one(step, &mut out);
    }
    for image in &plan.images {
        let _ = writeln!(out, "  push  {image}");
    }
    for artifact in &plan.artifacts {
        let _ = match artifact {
            Artifact::Objects { location, paths } => writeln!(out, "  upload {} to {location}", paths.join(" ")),
            Artifact::Maven { repository, path, coordinates } => {
                writeln!(out, "  upload {path} to {repository} as {}", coordinates.join(":"))
            }
            Artifact::Go { repository, module, .. } => {
                writeln!(out, "  upload {} to {}", module.join("@"), repository.join(" ").trim_end())
            }
            Artifact::Python { repository, paths } => writeln!(out, "  upload {} to {repository}", paths.join(" ")),
            Artifact::Npm { repository, path } => writeln!(out, "  upload {path} to {repository}"),
        };
    }
    for (name, secret) in &plan.secrets {
        let from = match secret {
            Secret::Manager { version } => version,
            Secret::Encrypted { key } => key,
        };
        let _ = writeln!(out, "  secret {name} from {from}");
    }
    for note in &plan.notes {
        let _ = writeln!(out, "  note  {}: {}", note.field, note.text);
    }
    let count = plan.steps.len();
    let timeout = plan.timeout_seconds;
    let _ = writeln!(out, "{count} step{}, at most {timeout} s", if count == 1 { "" } else { "s" });
    out
}

fn one(step: &PlannedStep, out: &mut String) {
    let id = step.id.as_ref().map(|id| format!(" \"{id}\"")).unwrap_or_default();
    let waits = match step.waits_for.as_slice() {
        [] => "at once".to_owned(),
        steps => {
            let numbers: Vec<String> = steps.iter().map(|number| format!("#{number}")).collect();
            format!("after {}", numbers.join(" "))
        }
    };
    let _ = writeln!(out, "  #{}{id}  {waits}", step.number);
    let mut tell = |text: &str| {
        let _ = writeln!(out, "      {text}");
    };
    let image = |image: &str, made_by: &Option<usize>| match made_by {
        Some(number) => format!("{image} (of #{number})"),
        None => image.to_owned(),
    };
    match &step.work {
        Work::Native { commands, .. } => {
            for command in commands {
                let end = match (command.ends_if_it_fails, command.may_fail) {
                    (true, _) => "  || exit 0",
                    (false, true) => "  || true",
                    (false, false) => "",
                };
                match &command.action {
                    Action::Nothing { why } => tell(&format!("nothing: {why}")),
                    Action::Push { image, all_tags: true } => tell(&format!("ctk push {image}, every tag{end}")),
                    action => tell(&format!("{}{end}", line(&action.words()))),
                }
                if let Action::Build(build) = &command.action
                    && !build.ignored.is_empty()
                {
                    tell(&format!("without effect: {}", build.ignored.join(" ")));
                }
            }
        }
        Work::Container { image: name, made_by, entrypoint, args } => {
            let name = image(name, made_by);
            let entrypoint =
                entrypoint.as_ref().map(|one| format!(" --entrypoint {}", line(std::slice::from_ref(one))));
            tell(format!("run {name}{} {}", entrypoint.unwrap_or_default(), line(args)).trim_end());
        }
        Work::Script { image: name, made_by, interpreter, script } => {
            tell(&format!("run {} with a script for {interpreter}", image(name, made_by)));
            let lines: Vec<&str> =
                script.lines().filter(|line| !line.starts_with("#!") && !line.trim().is_empty()).collect();
            lines.iter().take(SCRIPT_LINES).for_each(|line| tell(&format!("| {line}")));
            if lines.len() > SCRIPT_LINES {
                tell(&format!("| … {} more", lines.len() - SCRIPT_LINES));
            }
        }
        Work::Refused { image, why } => tell(&format!("cannot be carried out: {image}: {why}")),
    }
    if step.directory != "/workspace" {
        tell(&format!("in {}", step.directory));
    }
    if !step.env.is_empty() {
        let pairs: Vec<String> = step.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        tell(&format!("env {}", line(&pairs)));
    }
    if !step.secret_env.is_empty() {
        tell(&format!("secrets {}", step.secret_env.join(" ")));
    }
    for volume in &step.volumes {
        tell(&format!("volume {} at {}", volume.name, volume.path));
    }
    if let Some(timeout) = step.timeout_seconds {
        tell(&format!("at most {timeout} s"));
    }
    if step.allow_failure {
        tell("may fail");
    }
    if !step.allow_exit_codes.is_empty() {
        let codes: Vec<String> = step.allow_exit_codes.iter().map(i64::to_string).collect();
        tell(&format!("may exit with {}", codes.join(" ")));
    }
}
