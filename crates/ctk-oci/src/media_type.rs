//! Media types of manifests, configs and layers, OCI's and Docker's.

/// OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image config.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Uncompressed layer.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Layer in gzip.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Layer in zstd.
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The empty JSON object `{}` (image-spec 1.1, `manifest.md#guidance-for-an-empty-descriptor`).
pub const EMPTY_JSON: &str = "application/vnd.oci.empty.v1+json";
/// Docker's manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's gzip layer.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker's uncompressed layer.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker's layer that a registry need not hold.
pub const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// The manifest and index types to send in `Accept`, best first.
pub const ACCEPTED_MANIFESTS: [&str; 4] = [INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/// Whether `media_type` is an OCI index or a Docker manifest list.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_LIST)
}

/// Whether `media_type` is a manifest of one image or artifact.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | DOCKER_MANIFEST)
}

/// How a layer's tar stream is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerCompression {
    /// Plain tar.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// zstd (RFC 8878).
    Zstd,
}

/// The compression that a layer's media type names; `None` for a type that is no layer.
pub fn layer_compression(media_type: &str) -> Option<LayerCompression> {
    match media_type {
        LAYER | DOCKER_LAYER => Some(LayerCompression::None),
        LAYER_GZIP | DOCKER_LAYER_GZIP | DOCKER_FOREIGN_LAYER => Some(LayerCompression::Gzip),
        LAYER_ZSTD => Some(LayerCompression::Zstd),
        _ => match media_type.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar") {
            Some("") => Some(LayerCompression::None),
            Some("+gzip") => Some(LayerCompression::Gzip),
            Some("+zstd") => Some(LayerCompression::Zstd),
            _ => None,
        },
    }
}

impl LayerCompression {
    /// The OCI media type of a layer in this compression.
    pub fn media_type(self) -> &'static str {
        match self {
            LayerCompression::None => LAYER,
            LayerCompression::Gzip => LAYER_GZIP,
            LayerCompression::Zstd => LAYER_ZSTD,
        }
    }
}
