//! `--metadata-file` and `--iidfile`: what came out, for programs, under buildx's names.

use ctk_apply::adhoc::Exported;
use ctk_oci::Descriptor;
use serde_json::{Map, Value, json};

/// The object that buildx writes.
pub fn metadata(exported: &Exported) -> Value {
    let mut object = Map::new();
    if exported.is_image {
        let descriptor = Descriptor { platform: exported.platform.clone(), ..exported.image.clone() };
        object.insert("containerimage.descriptor".into(), json!(descriptor));
        object.insert("containerimage.digest".into(), json!(exported.image.digest));
        if let Some(config) = &exported.config {
            object.insert("containerimage.config.digest".into(), json!(config));
        }
        if !exported.names.is_empty() {
            object.insert("image.name".into(), json!(exported.names.join(",")));
        }
    }
    Value::Object(object)
}
