//! `ctk inspect`: all about containers; or an image's documents, exactly as they are kept, in one JSON value.

use clap::{Args, ValueEnum};
use ctk_oci::{Descriptor, Index, Manifest, Platform, Reference, media_type};
use serde_json::{Value, json};

use super::container::{self, Desk};
use super::images::manifests;
use super::output;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// The largest config fetched from a registry, in bytes; real ones are some kilobytes.
const CONFIG_LIMIT_BYTES: u64 = 8 << 20;

/// The largest manifest that the distribution specification asks registries to take.
const MANIFEST_LIMIT_BYTES: u64 = 4 << 20;

/// Show all about a container, or an image's manifest and config
#[derive(Args)]
pub struct Inspect {
    /// A container's name or id; an image's name in the store, or `image:NAME` of the project; or `docker://REFERENCE`, an
    /// image in its registry
    #[arg(required = true, value_name = "CONTAINER|IMAGE")]
    names: Vec<String>,
    /// Which of them is meant, if there are both
    #[arg(long, value_enum, value_name = "KIND")]
    r#type: Option<Type>,
    /// A template as `{{.State.Status}}`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Print the manifest's or index's bytes as they are
    #[arg(long, conflicts_with = "config")]
    raw: bool,
    /// Print the config only
    #[arg(long)]
    config: bool,
    /// Of an index in a registry only the image for this platform
    #[arg(long)]
    platform: Option<Platform>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Type {
    /// A container.
    Container,
    /// An image.
    Image,
}

impl Inspect {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let mut containers = Vec::new();
        for name in &self.names {
            if let Some(reference) = name.strip_prefix("docker://") {
                self.remote(context, reference)?;
                continue;
            }
            let found = match self.r#type {
                Some(Type::Image) => None,
                Some(Type::Container) => Some(desk.find(name)?),
                None => desk.containers.find(name).ok(),
            };
            match found {
                Some(container) => {
                    let state = desk.settle(&container)?;
                    containers.push(container::inspect::inspect(&container, &container.config()?, &state));
                }
                None if self.r#type.is_none() && context.find(&context.store()?, name)?.is_none() => {
                    let what = format!("there is no container and no image `{name}`");
                    return Err(Failure::sentence(what, Some("`ctk ps --all` and `ctk images` list them")));
                }
                None => self.image(context, name)?,
            }
        }
        match (&self.format, containers.is_empty()) {
            (_, true) => Ok(()),
            (None, false) => output(&(serde_json::to_string_pretty(&containers)? + "\n")),
            (format, false) => containers.iter().try_for_each(|one| output(&container::shown(one, format.as_deref())?)),
        }
    }

    fn image(&self, context: &Context, image: &str) -> Result<(), Failure> {
        let store = context.store()?;
        let (name, found) = context.require(&store, image)?;
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
        self.show(name, &found, images)
    }

    /// An image that stays in its registry: its manifests and configs alone are fetched.
    fn remote(&self, context: &Context, reference: &str) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let reference = context.full_name(reference, &cancel)?.or_latest();
        let client = context.client();
        let get =
            |reference: &Reference| client.manifest(reference, self.platform.as_ref(), &cancel).map_err(of_client);
        let (found, bytes) = get(&reference)?;
        if self.raw {
            return output(&String::from_utf8_lossy(&bytes));
        }
        let malformed = || Failure::during(format!("the manifest of `{reference}` is malformed"));
        let mut members = vec![(found.clone(), bytes)];
        if media_type::is_index(&found.media_type) {
            let index: Index = serde_json::from_slice(&members.remove(0).1).map_err(malformed())?;
            for member in index.manifests {
                members.push((member.clone(), get(&reference.with_digest(member.digest))?.1));
            }
        }
        let mut images = Vec::new();
        for (descriptor, bytes) in members {
            let manifest: Value = serde_json::from_slice(&bytes).map_err(malformed())?;
            // An index in an index has no config.
            let config = manifest.get("config").map(|config| serde_json::from_value::<Descriptor>(config.clone()));
            let config = match config.transpose().map_err(malformed())? {
                Some(config) if config.size <= CONFIG_LIMIT_BYTES => {
                    let mut bytes = Vec::new();
                    client.fetch_blob(&reference, &config, &mut bytes, None, &cancel).map_err(of_client)?;
                    // An artifact's config may be anything.
                    serde_json::from_slice(&bytes).unwrap_or(Value::Null)
                }
                _ => Value::Null,
            };
            images.push(json!({ "digest": descriptor.digest, "manifest": manifest, "config": config }));
        }
        self.show(reference.to_string(), &found, images)
    }

    fn show(&self, name: String, found: &Descriptor, mut images: Vec<Value>) -> Result<(), Failure> {
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
        output(&container::shown(&value, self.format.as_deref())?)
    }
}
