//! `ctk images`: the names in the store.

use clap::Args;
use ctk_oci::{Descriptor, ImageConfig, Index, Manifest, media_type};
use ctk_store::{Ref, Store};
use serde::Serialize;

use super::output;
use crate::context::Context;
use crate::failure::Failure;
use crate::report::size;

/// List the images of the store
#[derive(Args)]
pub struct Images {
    /// Only names that contain this
    filter: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print digests only
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

#[derive(Serialize)]
struct Row {
    name: String,
    digest: String,
    platforms: Vec<String>,
    created: Option<String>,
    size_bytes: u64,
}

impl Images {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let store = context.store()?;
        let mut rows = Vec::new();
        for (name, found) in store.references()? {
            if self.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str())) {
                rows.push(row(&store, name, &found)?);
            }
        }
        if self.json {
            return output(&(serde_json::to_string_pretty(&rows)? + "\n"));
        }
        if self.quiet {
            return output(&rows.iter().map(|row| format!("{}\n", row.digest)).collect::<String>());
        }
        // An image without a name is kept under its digest.
        for row in rows.iter_mut().filter(|row| row.name == row.digest) {
            row.name = "<none>".into();
        }
        let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(4);
        let mut text = format!("{:width$}  {:19}  {:>10}  {:20}  PLATFORMS\n", "NAME", "DIGEST", "SIZE", "CREATED");
        for row in rows {
            let digest: String = row.digest.chars().take(19).collect();
            let created = row.created.unwrap_or_default();
            let platforms = row.platforms.join(", ");
            text +=
                &format!("{:width$}  {digest:19}  {:>10}  {created:20}  {platforms}\n", row.name, size(row.size_bytes));
        }
        output(&text)
    }
}

/// What the name stands for, as far as it is in the store.
fn row(store: &Store, name: String, found: &Ref) -> Result<Row, Failure> {
    let mut row =
        Row { name, digest: found.descriptor.digest.to_string(), platforms: Vec::new(), created: None, size_bytes: 0 };
    for manifest in manifests(store, &found.descriptor)? {
        let manifest = store.document::<Manifest>("image manifest", &manifest)?.into_value();
        row.size_bytes += manifest.config.size + manifest.layers.iter().map(|layer| layer.size).sum::<u64>();
        if !store.contains(&manifest.config.digest)? {
            continue;
        }
        // An artifact's config is no image config; it has neither platform nor date.
        let Ok(config) = store.document::<ImageConfig>("image config", &manifest.config) else { continue };
        let config = config.into_value();
        row.platforms.push(config.platform().to_string());
        row.created = row.created.or(config.created);
    }
    Ok(row)
}

/// The manifests behind `descriptor` that are in the store: itself, or the members of an index.
pub fn manifests(store: &Store, descriptor: &Descriptor) -> Result<Vec<Descriptor>, Failure> {
    if !media_type::is_index(&descriptor.media_type) {
        return Ok(vec![descriptor.clone()]);
    }
    let members = store.document::<Index>("image index", descriptor)?.into_value().manifests;
    let mut present = Vec::new();
    for member in members {
        if store.contains(&member.digest)? {
            present.push(member);
        }
    }
    Ok(present)
}
