//! Pipelines of the project: which is meant, and what its steps are.

use std::fmt::Write as _;
use std::path::Path;

use ctk_apply::Session;
use ctk_pipeline::project::PipelineDecl;
use ctk_pipeline::run::Job;

use super::FILES;
use crate::commands::project::ProjectArgs;
use crate::context::Context;
use crate::failure::Failure;

/// The pipeline of the project that `file` names, if it is no file: none for a file, or where there is no project. With
/// no name it is the only pipeline, unless there is a file that is looked for.
pub fn find(
    context: &Context,
    file: Option<&Path>,
    vars: &[(String, String)],
) -> Result<Option<(Session, PipelineDecl)>, Failure> {
    let project = ProjectArgs { file: None, vars: vars.to_vec() };
    let has_project = project.find().is_ok();
    let name = match file {
        Some(path) if path.is_file() || !has_project => return Ok(None),
        Some(path) => Some(path.display().to_string()),
        None if !has_project || FILES.iter().any(|name| Path::new(name).is_file()) => return Ok(None),
        None => None,
    };
    let session = project.open(context)?;
    let all: Vec<String> = session.pipelines().map(|(address, _)| address.name.clone()).collect();
    let wanted = match (&name, all.as_slice()) {
        (Some(name), _) => name.trim_start_matches("pipeline:").to_owned(),
        (None, [only]) => only.clone(),
        (None, []) => return Ok(None),
        (None, _) => {
            let hint = format!("its pipelines are {}", all.join(", "));
            return Err(Failure::sentence("it is not clear which pipeline of the project to run", Some(&hint)));
        }
    };
    let found = session.pipelines().find(|(address, _)| address.name == wanted).map(|(_, decl)| decl.clone());
    match found {
        Some(decl) => Ok(Some((session, decl))),
        // A file that is not there says so itself.
        None if wanted.contains(['.', '/']) => Ok(None),
        None => {
            let hint = match all.is_empty() {
                true => "the project has no pipelines".to_owned(),
                false => format!("its pipelines are {}", all.join(", ")),
            };
            Err(Failure::sentence(format!("there is no file and no pipeline `{wanted}`"), Some(&hint)))
        }
    }
}

/// The steps of a pipeline for people; ends with a newline.
pub fn text(job: &Job) -> String {
    let mut out = String::new();
    for task in &job.tasks {
        let after: Vec<String> = task.needs.iter().map(|need| format!("#{need}")).collect();
        let after = if after.is_empty() { "at once".to_owned() } else { format!("after {}", after.join(" ")) };
        let _ = writeln!(out, "  {}  {after}\n      {}", task.label(), task.line());
        for service in &task.services {
            let _ = writeln!(out, "      beside {} of {}", service.name, service.image);
        }
    }
    let count = job.tasks.len();
    let _ = writeln!(out, "{count} step{}", if count == 1 { "" } else { "s" });
    out
}
