//! `ctk pull`: an image from a registry into the store, under its name.

use clap::Args;
use ctk_oci::{Descriptor, Manifest, Platform};
use ctk_plan::{Address, Cancel, Kind, Reporter, Step};
use ctk_snapshot::{SnapshotError, Snapshots};
use ctk_store::{Depth, Ref, Store};

use super::images::manifests;
use super::output;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// Fetch an image into the store
#[derive(Args)]
pub struct Pull {
    /// The images
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<String>,
    /// Only the image for this platform [default: this machine's]
    #[arg(long)]
    platform: Option<Platform>,
    /// Every platform of an index
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Unpack the layers, too, so that the first container need not wait for it
    #[arg(long)]
    unpack: bool,
}

impl Pull {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let store = context.store()?;
        let client = context.client();
        let platform = (!self.all_platforms).then(|| self.platform.unwrap_or_else(Platform::host));
        let mut text = String::new();
        for reference in self.references {
            let reference = context.full_name(&reference, &cancel)?.or_latest();
            let name = reference.to_string();
            let reporter = Reporter::new(Address::new(Kind::Image, name.as_str()), context.sink());
            let step = reporter.step("pull");
            let pulled = client.pull(&reference, platform.as_ref(), Depth::Layers, &store, Some(&step), &cancel);
            let pulled = step.conclude(pulled);
            let descriptor = pulled.inspect_err(|_| context.end_story()).map_err(of_client)?;
            if self.unpack {
                let mut images = manifests(&store, &descriptor)?;
                images.retain(is_image);
                let step = reporter.step("unpack");
                let unpacked = unpack(&store, &images, &step, &cancel);
                let unpacked = step.conclude(unpacked);
                unpacked.inspect_err(|_| context.end_story())?;
            }
            text += &format!("{name} {}\n", descriptor.digest);
            store.set_reference(&name, &Ref::new(descriptor))?;
        }
        context.end_story();
        output(&text)
    }
}

/// The layers of these images that are not unpacked yet.
fn unpack(store: &Store, images: &[Descriptor], step: &Step, cancel: &Cancel) -> Result<(), SnapshotError> {
    let snapshots = Snapshots::open(store);
    for image in images {
        let manifest = store.document::<Manifest>("image manifest", image)?;
        snapshots.unpack_image(manifest.value(), Some(step), cancel)?;
    }
    Ok(())
}

/// Attestations, whose layers are documents, say `unknown`.
fn is_image(member: &Descriptor) -> bool {
    member.artifact_type.is_none() && member.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
}
