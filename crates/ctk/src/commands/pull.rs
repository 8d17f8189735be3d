//! `ctk pull`: an image from a registry into the store, under its name.

use clap::Args;
use ctk_oci::{Platform, Reference};
use ctk_plan::{Address, Kind, Reporter};
use ctk_store::{Depth, Ref};

use super::output;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// Fetch an image into the store
#[derive(Args)]
pub struct Pull {
    /// The images
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<Reference>,
    /// Only the image for this platform [default: this machine's]
    #[arg(long)]
    platform: Option<Platform>,
    /// Every platform of an index
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
}

impl Pull {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let store = context.store()?;
        let client = context.client();
        let platform = (!self.all_platforms).then(|| self.platform.unwrap_or_else(Platform::host));
        let mut text = String::new();
        for reference in self.references {
            let reference = reference.or_latest();
            let name = reference.to_string();
            let reporter = Reporter::new(Address::new(Kind::Image, name.as_str()), context.sink());
            let step = reporter.step("pull");
            let pulled = client.pull(&reference, platform.as_ref(), Depth::Layers, &store, Some(&step), &cancel);
            let pulled = step.conclude(pulled);
            let descriptor = pulled.inspect_err(|_| context.end_story()).map_err(of_client)?;
            text += &format!("{name} {}\n", descriptor.digest);
            store.set_reference(&name, &Ref::new(descriptor))?;
        }
        context.end_story();
        output(&text)
    }
}
