//! `ctk pipeline run --explain`: where a run here and one in Cloud Build could differ.

use ctk_pipeline::builders::{Action, line};
use ctk_pipeline::run::storage::Mapping;
use ctk_pipeline::run::{Job, SecretSource, TaskWork};

use super::Looked;

/// What could differ, a line each, by the step it is about.
pub fn text(looked: Option<&Looked>, job: &Job, privileged: bool, mapping: &Mapping) -> String {
    let mut out = String::new();
    let mut say = |about: &str, text: String| out += &format!("{about}: {text}\n");
    let plan = looked.and_then(|looked| looked.plan.as_ref());
    if let Some(plan) = plan {
        let is_empty = |name: &&&str| plan.substitutions.get(**name).is_none_or(String::is_empty);
        let empty: Vec<&str> = ctk_pipeline::cloudbuild::BUILT_IN.iter().filter(is_empty).copied().collect();
        if !empty.is_empty() {
            say("substitutions", format!("empty here, and set by triggers: {}", empty.join(" ")));
        }
    }
    if let Some(changed) = changed_files() {
        say("source", format!("{changed} files are not as they are committed; a trigger builds what is committed"));
    }
    say("source", "what `.gcloudignore`, else `.gitignore`, names is not in the workspace; `.git` is".into());
    if !privileged {
        say("steps", "run with the rights of `ctk run`; those of Cloud Build are privileged: `--privileged`".into());
    }
    say("network", "steps are on this machine's network, with no metadata server of the cloud".into());
    if std::env::consts::ARCH != "x86_64" {
        say("machine", format!("this is {}, Cloud Build's are x86_64", std::env::consts::ARCH));
    }
    for note in plan.map(|plan| plan.notes.as_slice()).unwrap_or_default() {
        say(&note.field, note.text.clone());
    }
    for (name, source) in &job.secrets {
        if let SecretSource::Cloud { name: cloud } = source {
            say(&format!("secret {name}"), format!("is {cloud} there, and what `--secret {name}=…` says here"));
        }
    }
    for task in &job.tasks {
        let about = format!("step {}", task.label());
        match &task.work {
            TaskWork::Native { commands } => {
                for command in commands {
                    match &command.action {
                        Action::Nothing { why } => say(&about, format!("does nothing here: {why}")),
                        Action::Storage(_) => say(&about, "copies to and from what `--map` says".into()),
                        action => say(&about, format!("is done by `{}`, not by its image", line(&action.words()))),
                    }
                }
            }
            TaskWork::Container { image, .. } if !image.contains('@') => {
                say(&about, format!("image `{image}` is what the store has of that name; a digest would pin it"));
            }
            TaskWork::Refused { why } => say(&about, format!("cannot be carried out here: {why}")),
            _ => {}
        }
    }
    for artifact in &job.artifacts {
        if let ctk_pipeline::cloudbuild::Artifact::Objects { location, .. } = artifact {
            let bucket = location.trim_end_matches('/');
            let here = mapping.0.iter().find(|(from, _)| bucket.starts_with(from.as_str()));
            let to = here.map_or("nowhere: `--map` says where".to_owned(), |(_, to)| to.clone());
            say("artifacts", format!("{bucket} is {to}"));
        }
    }
    out
}

/// How many files git calls changed; none where there is no work tree or no change.
fn changed_files() -> Option<usize> {
    let output = std::process::Command::new("git").args(["status", "--porcelain"]).output().ok()?;
    let count = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    (output.status.success() && count > 0).then_some(count)
}
