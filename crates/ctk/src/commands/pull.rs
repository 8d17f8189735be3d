//! `ctk pull`: an image from a registry into the store, under its name.

use std::collections::HashMap;
use std::sync::{Mutex, mpsc};

use clap::Args;
use ctk_client::Client;
use ctk_oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, Platform, Reference};
use ctk_plan::{Address, Cancel, Kind, Outcome, Reporter, Step};
use ctk_snapshot::{SnapshotError, Snapshots};
use ctk_store::{Depth, Ref, Store};

use super::images::manifests;
use super::output;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// Layers unpacked at once while others arrive: each keeps a core busy, and some of the disk.
const UNPACK_AT_ONCE: usize = 2;

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
            let fetch = Fetch { client: &client, reference: &reference, platform: platform.as_ref(), store: &store };
            let pulled = match self.unpack {
                true => fetch.unpacking(&step, &cancel),
                false => fetch.all(&|_| (), &step, &cancel),
            };
            step.finish(match &pulled {
                Ok(_) => Outcome::Done,
                Err(failure) => Outcome::Failed(failure.text().lines().next().unwrap_or_default().into()),
            });
            let descriptor = pulled.inspect_err(|_| context.end_story())?;
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

/// An image on its way.
struct Fetch<'a> {
    client: &'a Client,
    reference: &'a Reference,
    platform: Option<&'a Platform>,
    store: &'a Store,
}

impl Fetch<'_> {
    fn all(&self, arrived: &dyn Fn(&Descriptor), step: &Step, cancel: &Cancel) -> Result<Descriptor, Failure> {
        let Fetch { client, reference, platform, store } = self;
        let pulled = client.pull_telling(reference, *platform, Depth::Layers, store, arrived, Some(step), cancel);
        pulled.map_err(of_client)
    }

    /// Each layer is unpacked as soon as it is here. What fails there is found by who unpacks the rest.
    fn unpacking(&self, step: &Step, cancel: &Cancel) -> Result<Descriptor, Failure> {
        let Fetch { client, reference, platform, store } = self;
        let root = client.pull(reference, *platform, Depth::Config, store, None, cancel).map_err(of_client)?;
        let mut diff_ids: HashMap<Digest, (Descriptor, DiffId)> = HashMap::new();
        for image in manifests(store, &root)?.iter().filter(|image| is_image(image)) {
            let manifest = store.document::<Manifest>("image manifest", image)?.into_value();
            // An artifact's config is no image config, and its layers are no trees.
            let Ok(config) = store.document::<ImageConfig>("image config", &manifest.config) else { continue };
            for (layer, diff_id) in manifest.layers.into_iter().zip(&config.value().rootfs.diff_ids) {
                diff_ids.insert(layer.digest.clone(), (layer, diff_id.clone()));
            }
        }
        let (sender, receiver) = mpsc::channel::<Digest>();
        let (receiver, snapshots) = (Mutex::new(receiver), Snapshots::open(store));
        let root = self.reference.with_digest(root.digest);
        std::thread::scope(|scope| {
            for _ in 0..UNPACK_AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let next = receiver.lock().expect("no holder panics").recv();
                        let Ok(digest) = next else { return };
                        if let Some((layer, diff_id)) = diff_ids.get(&digest) {
                            // Done again, and told, after all have arrived.
                            let _ = snapshots.unpack_arrived(layer, diff_id, cancel);
                        }
                    }
                });
            }
            let arrived = move |blob: &Descriptor| {
                // Nobody listens only when all of them ended.
                let _ = sender.send(blob.digest.clone());
            };
            Fetch { reference: &root, ..*self }.all(&arrived, step, cancel)
        })
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
