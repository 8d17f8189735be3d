//! An image, unpacked and ready to be looked at and run.

use std::os::fd::AsFd;

use ctk_oci::{Descriptor, Document, ImageConfig, Index, Manifest, Mount, media_type};
use ctk_snapshot::{Ephemeral, LayerKey, SnapshotError, Snapshots, TreeView};

use crate::error::CheckError;
use crate::run::TestRequest;
use crate::tree::{Tree, bytes_below};

/// An image whose layers are unpacked.
pub(crate) struct Image {
    /// Its config.
    pub config: ImageConfig,
    digest: String,
    layers: Vec<LayerKey>,
    snapshots: Snapshots,
}

/// A root of its own: the image's files, and changes that vanish with it. Must outlive the container over it.
pub(crate) struct Root {
    mount: Mount,
    _ephemeral: Ephemeral,
}

/// An image's files for reading, as long as it lives.
pub(crate) struct Files {
    /// The files.
    pub tree: Tree,
    _view: TreeView,
}

impl Image {
    /// Reads the image's documents and unpacks the layers that are not unpacked yet.
    pub fn open(request: &TestRequest<'_>, descriptor: &Descriptor) -> Result<Image, CheckError> {
        let failed = |source| CheckError::ReadImage { image: descriptor.digest.to_string(), source: Box::new(source) };
        let mut descriptor = descriptor.clone();
        if media_type::is_index(&descriptor.media_type) {
            let index: Document<Index> = request.store.document("image index", &descriptor).map_err(failed)?;
            let best = index
                .value()
                .manifests
                .iter()
                .filter_map(|member| Some((request.platform.rank(member.platform.as_ref()?)?, member)))
                .min_by_key(|(rank, _)| *rank);
            descriptor = match best {
                Some((_, member)) => member.clone(),
                None => {
                    let image = descriptor.digest.to_string();
                    return Err(CheckError::NoPlatform { image, platform: Box::new(request.platform.clone()) });
                }
            };
        }
        let manifest: Document<Manifest> = request.store.document("image manifest", &descriptor).map_err(failed)?;
        let config: Document<ImageConfig> =
            request.store.document("image config", &manifest.value().config).map_err(failed)?;
        let digest = descriptor.digest.to_string();
        let step = request.reporter.step(format!("unpack {}", descriptor.digest.short()));
        let layers = request.snapshots.unpack_image(manifest.value(), Some(&step), request.cancel);
        let layers = step.conclude(layers.map_err(|source| unpacked(&digest, source)))?;
        Ok(Image { config: config.into_value(), digest, layers, snapshots: request.snapshots.clone() })
    }

    /// A root that nobody else writes to.
    pub fn fresh_root(&self) -> Result<Root, CheckError> {
        let ephemeral = self.snapshots.view(&self.layers).map_err(|source| unpacked(&self.digest, source))?;
        let mount = ephemeral.root_mount().map_err(|source| unpacked(&self.digest, source))?;
        Ok(Root { mount, _ephemeral: ephemeral })
    }

    /// Its files, unchanged by any container.
    pub fn files(&self) -> Result<Files, CheckError> {
        let view = self.snapshots.tree(&self.layers).map_err(|source| unpacked(&self.digest, source))?;
        let root = view.root().try_clone_to_owned();
        let root = root.map_err(|source| CheckError::Io { action: "keep the image's root open", source })?;
        Ok(Files { tree: Tree::new(root), _view: view })
    }

    /// Bytes of the files of all its layers, each layer for itself.
    pub fn unpacked_bytes(&self) -> Result<u64, CheckError> {
        let mut total = 0;
        for layer in &self.layers {
            let view = self.snapshots.tree(std::slice::from_ref(layer));
            let view = view.map_err(|source| unpacked(&self.digest, source))?;
            total += bytes_below(view.root().as_fd())?;
        }
        Ok(total)
    }
}

impl Root {
    /// For the runtime.
    pub fn mount(&self) -> Mount {
        self.mount.clone()
    }
}

fn unpacked(image: &str, source: SnapshotError) -> CheckError {
    match source {
        SnapshotError::Cancelled => CheckError::Cancelled,
        source => CheckError::Unpack { image: image.into(), source: Box::new(source) },
    }
}
