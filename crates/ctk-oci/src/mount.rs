//! A mount as the runtime specification writes it (`config.md#mounts`).

use serde::{Deserialize, Serialize};

/// One mount of a container: the joint between what prepares file trees and what mounts them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container, resolved inside its root.
    pub destination: String,
    /// Filesystem type: `bind`, `overlay`, `tmpfs`, `proc`, …
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What is mounted: a host path for `bind`, a label otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// As fstab writes them: `ro`, `rbind`, `nosuid`, `size=64k`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Mount {
    /// A mount of `kind` at `destination` with `options`.
    pub fn new(kind: &str, source: &str, destination: &str, options: &[&str]) -> Mount {
        Mount {
            destination: destination.into(),
            kind: Some(kind.into()),
            source: Some(source.into()),
            options: options.iter().map(|o| (*o).into()).collect(),
        }
    }
}
