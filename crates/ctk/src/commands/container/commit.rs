//! `ctk commit`: what a container changed becomes a layer of a new image.

use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ctk_layer::Compression;
use ctk_monitor::{Config, Container, time};
use ctk_oci::{Descriptor, Digest, Document, History, ImageConfig, Manifest, Platform, RootFs, media_type};
use ctk_plan::Cancel;
use ctk_snapshot::{Packed, Snapshots};
use ctk_store::{Ref, Store};

use super::reach::{Still, for_reading, is_within, mount_points, own_tree};
use super::{Desk, change};
use crate::commands::{output, store_name};
use crate::context::Context;
use crate::failure::Failure;

/// Make an image of what a container changed
#[derive(Args)]
pub struct Commit {
    /// A remark for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Who made it
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,
    /// Change what the image says, as a line of a Dockerfile: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `HEALTHCHECK`,
    /// `LABEL`, `ONBUILD`, `STOPSIGNAL`, `USER`, `VOLUME`, `WORKDIR`
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Whether it stands still meanwhile
    #[arg(short, long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pause: bool,
    /// How the manifest is written
    #[arg(short, long, value_enum, default_value_t = Format::Oci)]
    format: Format,
    /// One layer of all its files, instead of one more
    #[arg(short, long)]
    squash: bool,
    /// Write the image's id into a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Accepted because fingers know it: nothing is told anyway
    #[arg(short, long, hide = true)]
    quiet: bool,
    /// Which
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The image's name [default: its digest]
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// As the OCI specifies it.
    Oci,
    /// As docker's registries had it before.
    Docker,
}

impl Commit {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let desk = Desk::open(context);
        let cancel = context.cancel_on_interrupt();
        let name = self.image.as_deref().map(store_name).transpose()?;
        if name.as_ref().is_some_and(|name| name.digest().is_some()) {
            return Err(Failure::sentence("an image that is made has a name, and no digest yet", None));
        }
        let container = desk.find(&self.container)?;
        let config = container.config()?;
        let store = context.store()?;
        let (below, mut image) = parent(&store, &config)?;
        for text in &self.change {
            change::apply(&mut image.config, text)?;
        }
        let packed = {
            let _still = Still::new(&desk, &container, self.pause)?;
            self.pack(&store, &container, &config, &cancel)?
        };
        let layers = match self.squash {
            true => Vec::new(),
            false => below.map(|manifest| manifest.layers).unwrap_or_default(),
        };
        self.fill_in(&mut image, &config, &packed);
        let manifest = self.write(&store, &image, layers, packed.descriptor)?;
        let name = name.map_or_else(|| manifest.0.digest.to_string(), |name| name.to_string());
        store.set_reference(&name, &Ref::new(manifest.0))?;
        let id = manifest.1.to_string();
        if let Some(path) = &self.iidfile {
            std::fs::write(path, &id).map_err(Failure::during(format!("cannot write --iidfile {}", path.display())))?;
        }
        output(&format!("{id}\n"))
    }

    /// Its own layer, or all its files, as a blob; without what is mounted.
    fn pack(&self, store: &Store, container: &Container, config: &Config, cancel: &Cancel) -> Result<Packed, Failure> {
        let mounted = mount_points(container)?;
        let skip = |path: &[u8], stat: &rustix::fs::Stat| {
            let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
            // What the image has at such a place is still below it.
            is_within(path, &mounted) && !(self.squash && directory)
        };
        let snapshots = Snapshots::open(store);
        if self.squash {
            let root = for_reading(container, config)?;
            return Ok(snapshots.pack_changes(root.file(), true, Compression::GZIP, &skip, cancel)?);
        }
        let Some(tree) = own_tree(container, config)? else {
            let what = format!("container {} has no layer of its own: its root is a folder", config.name);
            return Err(Failure::sentence(what, Some("`--squash` makes an image of all its files")));
        };
        Ok(snapshots.pack_changes(tree.as_fd(), true, Compression::GZIP, &skip, cancel)?)
    }

    fn fill_in(&self, image: &mut ImageConfig, config: &Config, packed: &Packed) {
        let created = Some(time::text(time::now()));
        if self.squash {
            image.rootfs = RootFs::default();
            image.history.clear();
        }
        image.rootfs.diff_ids.push(packed.diff_id.clone());
        image.created.clone_from(&created);
        if self.author.is_some() {
            image.author.clone_from(&self.author);
        }
        image.history.push(History {
            created,
            created_by: Some(config.command.join(" ")),
            author: self.author.clone(),
            comment: self.message.clone(),
            empty_layer: false,
        });
    }

    /// Config and manifest; gives the manifest's descriptor and the config's digest.
    fn write(
        &self,
        store: &Store,
        image: &ImageConfig,
        mut layers: Vec<Descriptor>,
        own: Descriptor,
    ) -> Result<(Descriptor, Digest), Failure> {
        layers.push(own);
        let docker = self.format == Format::Docker;
        for layer in &mut layers {
            let compression = media_type::layer_compression(&layer.media_type);
            layer.media_type = match compression {
                Some(ctk_oci::media_type::LayerCompression::Gzip) if docker => media_type::DOCKER_LAYER_GZIP.into(),
                Some(ctk_oci::media_type::LayerCompression::None) if docker => media_type::DOCKER_LAYER.into(),
                Some(_) if docker => {
                    let what = format!("layer {} is compressed as docker's format does not know it", layer.digest);
                    return Err(Failure::sentence(what, Some("leave `--format docker` out, or use `--squash`")));
                }
                Some(compression) => compression.media_type().into(),
                None => layer.media_type.clone(),
            };
        }
        let config_type = if docker { media_type::DOCKER_CONFIG } else { media_type::CONFIG };
        let config = store.put(config_type, Document::new(image.clone()).bytes())?;
        let id = config.digest.clone();
        let mut manifest = Manifest::image(config, layers);
        let manifest_type = if docker { media_type::DOCKER_MANIFEST } else { media_type::MANIFEST };
        manifest.media_type = Some(manifest_type.into());
        Ok((store.put(manifest_type, Document::new(manifest).bytes())?, id))
    }
}

/// The image that a container was made of; an empty one for a folder.
fn parent(store: &Store, config: &Config) -> Result<(Option<Manifest>, ImageConfig), Failure> {
    let Some((digest, _)) = &config.image_digests else {
        let host = Platform::host();
        let image = ImageConfig {
            architecture: host.architecture.clone(),
            os: host.os.clone(),
            variant: host.variant.clone(),
            ..ImageConfig::default()
        };
        return Ok((None, image));
    };
    let digest: Digest = digest.parse()?;
    let Some(size) = store.size(&digest)? else {
        return Err(Failure::sentence(format!("the image of container {} is gone from the store", config.name), None));
    };
    let descriptor = Descriptor::new(media_type::MANIFEST, digest, size);
    let manifest = store.document::<Manifest>("image manifest", &descriptor)?.into_value();
    let image = store.document::<ImageConfig>("image config", &manifest.config)?.into_value();
    Ok((Some(manifest), image))
}
