//! The same image in another form: compression, media types, annotations, smaller layers.

use std::collections::{BTreeMap, BTreeSet};

use ctk_layer::Compression;
use ctk_oci::media_type::{self, LayerCompression};
use ctk_oci::{Descriptor, Digest, Document, Index, Manifest, Platform};

use super::annotation::{Annotation, Level};
use super::{ExportError, Image};
use crate::packing::{Ground, Packing, pack_layers};

/// How an exported image differs from the one that was built. The default is not at all.
#[derive(Clone, Debug, Default)]
pub struct Form {
    /// How its own layers are compressed, and with `force` those of its bases.
    pub compression: Option<Compression>,
    /// `compression-level`.
    pub level: Option<i64>,
    /// `layer-size`: the most bytes of its own layers' tars, and with `force` of those of its bases.
    pub layer_limit_bytes: Option<u64>,
    /// Whether layers of bases are packed anew too.
    pub force: bool,
    /// Whether media types are docker's instead of OCI's.
    pub docker_types: Option<bool>,
    /// Annotations.
    pub annotations: Vec<Annotation>,
    /// `source-date-epoch`; concerns the build.
    pub epoch_seconds: Option<i64>,
}

impl Form {
    /// Whether layers are packed anew.
    pub(crate) fn packs(&self) -> bool {
        !self.packing().is_as_built()
    }

    /// What is done, for people.
    pub fn title(&self) -> String {
        match self.packing().title() {
            title if title.is_empty() => "annotate".to_owned(),
            title => title,
        }
    }

    fn packing(&self) -> Packing {
        let level = self.level.is_some();
        Packing { compression: self.compression, level, layer_limit_bytes: self.layer_limit_bytes }
    }

    /// The image so, with `more` annotations, its new documents in the store. Safe to repeat.
    pub fn apply(&self, image: &Image<'_>, more: &[Annotation], ground: Ground<'_>) -> Result<Descriptor, ExportError> {
        let annotations: Vec<&Annotation> = self.annotations.iter().chain(more).collect();
        let several = media_type::is_index(&image.descriptor.media_type);
        if !several && annotations.iter().any(|a| matches!(a.level, Level::Index | Level::IndexDescriptor)) {
            let text = "an image of one platform has no index to annotate; annotate its manifest, or name several `--platform`s";
            return Err(ExportError::Refused(text.into()));
        }
        if self.docker_types == Some(true) && matches!(self.compression, Some(Compression::Zstd { .. })) {
            let text = "docker's media types know no zstd; add `oci-mediatypes=true`";
            return Err(ExportError::Refused(text.into()));
        }
        let built = || image.manifests.iter().map(|(platform, _)| platform);
        let asked = annotations.iter().filter_map(|a| a.platform.as_ref());
        if let Some(other) = asked.into_iter().find(|asked| !built().any(|platform| platform == *asked)) {
            let text = format!(
                "an annotation is for {other}, and the image is for {}",
                built().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            );
            // As BuildKit: what is built for one platform alone may be annotated for others.
            match several {
                true => return Err(ExportError::Refused(text)),
                false => ground.reporter.warn(text),
            }
        }
        let of = |level: Level, platform: Option<&Platform>| -> BTreeMap<String, String> {
            let wanted = annotations.iter().filter(|a| a.level == level);
            let here = wanted.filter(|a| a.platform.is_none() || a.platform.as_ref() == platform);
            here.map(|a| (a.key.clone(), a.value.clone())).collect()
        };
        let docker = self.docker_types == Some(true);
        let mut members = Vec::new();
        for (platform, manifest) in image.manifests {
            let mut made =
                self.manifest(manifest, image.base_layers, of(Level::Manifest, Some(platform)), docker, ground)?;
            made.annotations.extend(of(Level::ManifestDescriptor, Some(platform)));
            made.platform = Some(platform.clone());
            members.push(made);
        }
        if !several {
            let mut only = members.swap_remove(0);
            only.platform = None;
            return Ok(only);
        }
        let media_type = if docker { media_type::DOCKER_LIST } else { media_type::INDEX };
        let mut index = Index::new(members);
        index.media_type = Some(media_type.into());
        index.annotations = of(Level::Index, None);
        let mut made = ground.store.put(media_type, Document::new(index).bytes())?;
        made.annotations = of(Level::IndexDescriptor, None);
        Ok(made)
    }

    fn manifest(
        &self,
        from: &Descriptor,
        base_layers: &BTreeSet<Digest>,
        annotations: BTreeMap<String, String>,
        docker: bool,
        ground: Ground<'_>,
    ) -> Result<Descriptor, ExportError> {
        let built = ground.store.document::<Manifest>("image manifest", from)?.into_value();
        let mut manifest = built.clone();
        let packing = self.packing();
        let how = |layer: &Descriptor| match base_layers.contains(&layer.digest) {
            true if !self.force => Packing::default(),
            true => Packing { level: false, ..packing },
            false => packing,
        };
        pack_layers(ground, &mut manifest, &how, &|_| {})?;
        for layer in &mut manifest.layers {
            if docker {
                layer.media_type = match media_type::layer_compression(&layer.media_type) {
                    Some(LayerCompression::Gzip) => media_type::DOCKER_LAYER_GZIP.into(),
                    Some(LayerCompression::None) => media_type::DOCKER_LAYER.into(),
                    _ => {
                        let text = "a base's layer is in zstd, which docker's media types do not know; add `force-compression=true,compression=gzip` or `oci-mediatypes=true`";
                        return Err(ExportError::Refused(text.into()));
                    }
                };
            }
        }
        let (kind, config) = match docker {
            true => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
            false => (media_type::MANIFEST, media_type::CONFIG),
        };
        manifest.media_type = Some(kind.into());
        manifest.config.media_type = config.into();
        manifest.annotations.extend(annotations);
        if manifest == built {
            return Ok(from.clone());
        }
        Ok(ground.store.put(kind, Document::new(manifest).bytes())?)
    }
}
