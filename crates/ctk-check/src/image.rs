//! An image, unpacked and ready to be looked at and run.

use ctk_oci::{Descriptor, Document, ImageConfig, Index, Manifest, Mount, media_type};

use crate::error::CheckError;
use crate::run::TestRequest;
use crate::tree::Tree;

/// An image whose layers are unpacked.
pub(crate) struct Image {
    pub config: ImageConfig,
}

/// A root of its own: the image's files, and changes that vanish with it.
pub(crate) struct Root {}

impl Image {
    pub fn open(request: &TestRequest<'_>, descriptor: &Descriptor) -> Result<Image, CheckError> {
        let failed = |source| CheckError::ReadImage { image: descriptor.digest.to_string(), source };
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
                    return Err(CheckError::NoPlatform { image, platform: request.platform.clone() });
                }
            };
        }
        let manifest: Document<Manifest> = request.store.document("image manifest", &descriptor).map_err(failed)?;
        let config: Document<ImageConfig> =
            request.store.document("image config", &manifest.value().config).map_err(failed)?;
        Ok(Image { config: config.into_value() })
    }

    pub fn fresh_root(&self) -> Result<Root, CheckError> {
        Ok(Root {})
    }

    pub fn unpacked_bytes(&self) -> Result<u64, CheckError> {
        Ok(0)
    }
}

impl Root {
    pub fn mount(&self) -> Mount {
        Mount::new("", "", "", &[])
    }
    pub fn tree(&self) -> Result<Tree, CheckError> {
        unreachable!()
    }
}
