//! `ctk save`: images out of the store, for other tools.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ctk_oci::Platform;
use ctk_store::{Aside, Export, Name, export_docker_archive, export_layout, export_layout_archive};

use crate::context::Context;
use crate::failure::Failure;

/// Write an image to an OCI layout or a docker archive
#[derive(Args)]
pub struct Save {
    /// Names in the store, or `image:NAME` of the project
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Where to [default: standard output]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// How
    #[arg(long, value_enum, default_value_t = Format::DockerArchive)]
    format: Format,
    /// Which member of an index a docker archive takes [default: this machine's]
    #[arg(long)]
    platform: Option<Platform>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// What `docker save` writes.
    DockerArchive,
    /// An OCI layout as a tar stream.
    OciArchive,
    /// An OCI layout's folder.
    OciDir,
}

impl Save {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let store = context.store()?;
        let mut exports = Vec::new();
        for image in &self.images {
            let (name, descriptor) = context.require(&store, image)?;
            exports.push(Export { name: Some(Name::of(&name)), descriptor });
        }
        let platform = self.platform.unwrap_or_else(Platform::host);
        if self.format == Format::OciDir {
            let Some(path) = self.output else {
                return Err(Failure::sentence("an OCI layout's folder needs a path", Some("add `--output PATH`")));
            };
            let failed = Failure::during(format!("cannot write {}", path.display()));
            return export_layout(&store, &path, &exports, &cancel).map_err(failed);
        }
        let write = |to: &mut dyn Write| match self.format {
            Format::OciArchive => export_layout_archive(&store, to, &exports, &cancel).map(drop),
            _ => export_docker_archive(&store, to, &exports, &platform, &cancel).map(drop),
        };
        match &self.output {
            Some(path) => {
                // Beside the target and renamed, so that a failure leaves no half archive under its name.
                let attempt = format!("cannot write {}", path.display());
                let failed = |error: io::Error| Failure::during(&attempt)(error);
                let aside = Aside::new(path).map_err(failed)?;
                write(&mut aside.file()).map_err(Failure::during(&attempt))?;
                aside.keep().map_err(failed)
            }
            None if io::stdout().is_terminal() => {
                Err(Failure::sentence("an archive is no text for a terminal", Some("add `--output PATH`, or redirect")))
            }
            None => Ok(write(&mut io::stdout().lock())?),
        }
    }
}
