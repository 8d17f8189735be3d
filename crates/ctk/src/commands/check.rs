//! `ctk check`: every mistake of the project file at once.

use clap::Args;

use super::output;
use super::project::ProjectArgs;
use crate::context::Context;
use crate::failure::Failure;

/// Find every mistake of the project file
#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    project: ProjectArgs,
}

impl Check {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let session = self.project.open(context)?;
        eprint!("{}", context.explain(session.check())?);
        let project = session.project();
        let (files, resources) = (project.files.len(), project.resources.len());
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        output(&format!(
            "{}: {resources} resource{} in {files} file{}, no mistakes\n",
            project.name,
            plural(resources),
            plural(files)
        ))
    }
}
