//! `ctk inspect`: an image's documents, exactly as they are kept, in one JSON value.

use clap::Args;
use ctk_oci::{Manifest, media_type};
use serde_json::{Value, json};

use super::images::manifests;
use super::output;
use crate::context::Context;
use crate::failure::Failure;

/// The largest manifest that the distribution specification asks registries to take.
const MANIFEST_LIMIT_BYTES: u64 = 4 << 20;

/// Show an image's manifest and config
#[derive(Args)]
pub struct Inspect {
    /// A name in the store, or `image:NAME` of the project
    image: String,
    /// Print the manifest's or index's bytes as they are
    #[arg(long, conflicts_with = "config")]
    raw: bool,
    /// Print the config only
    #[arg(long)]
    config: bool,
}

impl Inspect {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let store = context.store()?;
        let (name, found) = context.require(&store, &self.image)?;
        let bytes = store.read(&found, MANIFEST_LIMIT_BYTES)?;
        if self.raw {
            return output(&String::from_utf8_lossy(&bytes));
        }
        let mut images = Vec::new();
        for descriptor in manifests(&store, &found)? {
            let manifest = store.document::<Manifest>("image manifest", &descriptor)?;
            let config: Value = match store.contains(&manifest.value().config.digest)? {
                true => store.document("image config", &manifest.value().config)?.into_value(),
                false => Value::Null,
            };
            let manifest: Value = serde_json::from_slice(manifest.bytes())?;
            images.push(json!({ "digest": descriptor.digest, "manifest": manifest, "config": config }));
        }
        let value = match (self.config, images.len()) {
            (true, 1) => images.remove(0)["config"].take(),
            (true, _) => images.iter_mut().map(|image| image["config"].take()).collect(),
            (false, _) => json!({
                "name": name,
                "descriptor": found,
                "index": media_type::is_index(&found.media_type),
                "images": images,
            }),
        };
        output(&(serde_json::to_string_pretty(&value)? + "\n"))
    }
}
