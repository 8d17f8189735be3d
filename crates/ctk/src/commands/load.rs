//! `ctk load`: images from an OCI layout or an archive into the store.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use clap::Args;
use ctk_oci::Reference;
use ctk_store::{Imported, Ref, StoreError, import_archive, import_layout};

use super::output;
use crate::context::Context;
use crate::failure::Failure;

/// Read images from an OCI layout or a docker archive
#[derive(Args)]
pub struct Load {
    /// An OCI layout's folder, or an archive of either kind, compressed or not [default: standard input]
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// The same, as docker and podman spell it
    #[arg(short, long, value_name = "PATH", conflicts_with = "path")]
    input: Option<PathBuf>,
    /// Name the only image so, instead of as the archive does
    #[arg(short, long, value_name = "NAME")]
    tag: Option<String>,
}

impl Load {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let store = context.store()?;
        let imported = match self.path.or(self.input) {
            Some(path) if path.is_dir() => import_layout(&store, &path, &cancel)?,
            Some(path) => {
                let name = path.display().to_string();
                let file = File::open(&path).map_err(Failure::during(format!("cannot open {name}")))?;
                import_archive(&store, &name, file, &cancel).map_err(|error| malformed(&name, error))?
            }
            None => {
                let name = "standard input";
                import_archive(&store, name, io::stdin(), &cancel).map_err(|error| malformed(name, error))?
            }
        };
        let mut changes = Vec::new();
        let mut text = String::new();
        for image in names(&imported, self.tag.as_deref())? {
            let (name, descriptor) = image;
            text += &match &name {
                Some(name) => format!("{name} {}\n", descriptor.digest),
                None => format!("{}\n", descriptor.digest),
            };
            // Without any name the digest is one: an image that was asked for must not vanish with the next gc.
            let name = name.unwrap_or_else(|| format!("localhost/loaded@{}", descriptor.digest));
            changes.push((name, Some(Ref::new(descriptor))));
        }
        store.update_references(&changes)?;
        output(&text)
    }
}

/// What is wrong with the stream alone does not say which stream.
fn malformed(name: &str, error: StoreError) -> Failure {
    match error {
        StoreError::Layer(_) => Failure::during(format!("cannot load {name}"))(error),
        error => error.into(),
    }
}

type Named = Vec<(Option<String>, ctk_oci::Descriptor)>;

fn names(imported: &[Imported], tag: Option<&str>) -> Result<Named, Failure> {
    let full = |name: &str| -> Result<String, Failure> { Ok(super::store_name(name)?.to_string()) };
    match (tag, imported) {
        (Some(tag), [only]) => Ok(vec![(Some(full(tag)?), only.descriptor.clone())]),
        (Some(_), all) => {
            let text = format!("--tag names one image, and there are {}", all.len());
            Err(Failure::sentence(text, None))
        }
        (None, all) => {
            let mut named = Vec::new();
            for image in all {
                let usable: Vec<String> = image.names.iter().filter_map(|name| archive_name(name)).collect();
                if usable.is_empty() {
                    named.push((None, image.descriptor.clone()));
                }
                named.extend(usable.into_iter().map(|name| (Some(name), image.descriptor.clone())));
            }
            Ok(named)
        }
    }
}

/// Layouts often name an image by its tag alone; that becomes `localhost/loaded:TAG`.
fn archive_name(name: &str) -> Option<String> {
    let reference: Reference =
        if name.contains(['/', ':']) { name.parse() } else { format!("localhost/loaded:{name}").parse() }.ok()?;
    Some(reference.or_latest().to_string())
}
