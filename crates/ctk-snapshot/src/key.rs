//! Names of unpacked layers.

use std::fmt;
use std::str::FromStr;

use ctk_oci::DiffId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names an unpacked layer: `diff:<hex>` by what is in it, `op:<hex>` by how it was built.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerKey(String);

/// A text that is no layer key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no layer key; expected `diff:` or `op:` and 32 to 128 lower-case hex digits")]
pub struct LayerKeyError(String);

impl LayerKey {
    /// The layer whose tar has this diffID.
    pub fn diff(diff_id: &DiffId) -> LayerKey {
        LayerKey(format!("diff:{}", diff_id.0.hex()))
    }

    /// The layer that the operation with key `hex` makes.
    pub fn op(hex: &str) -> Result<LayerKey, LayerKeyError> {
        format!("op:{hex}").parse()
    }

    /// `diff:<hex>` or `op:<hex>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The layer's directory in the store's `layers/`.
    pub(crate) fn directory(&self) -> String {
        ctk_store::layer_name(&self.0)
    }
}

impl fmt::Display for LayerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LayerKey {
    type Err = LayerKeyError;

    fn from_str(text: &str) -> Result<LayerKey, LayerKeyError> {
        let hex = text.strip_prefix("diff:").or_else(|| text.strip_prefix("op:"));
        let good =
            |hex: &str| (32..=128).contains(&hex.len()) && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match hex {
            Some(hex) if good(hex) => Ok(LayerKey(text.into())),
            _ => Err(LayerKeyError(text.into())),
        }
    }
}

impl Serialize for LayerKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for LayerKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LayerKey, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
