//! `ctk export`: all files of a container as a tar archive, without its mounts.

use std::path::PathBuf;

use clap::Args;

use super::Desk;
use super::reach::{Still, for_reading};
use super::volume::to_archive;
use crate::context::Context;
use crate::failure::Failure;

/// Write all files of a container as a tar archive, without what is mounted in it
#[derive(Args)]
pub struct Export {
    /// Where to [default: standard output]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Which
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Export {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let cancel = context.cancel_on_interrupt();
        let container = desk.find(&self.container)?;
        let _still = Still::new(&desk, &container, true)?;
        let root = for_reading(&container, &container.config()?)?;
        to_archive(self.output.as_deref(), |out| {
            let mut tar = ctk_layer::TarWriter::new(out);
            ctk_snapshot::archive(root.file(), (b"", false), b"", &mut tar, &cancel)?;
            tar.finish()?;
            Ok(())
        })
    }
}
