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
    /// Users shown as others (`config.md#posix-platform-mounts`).
    #[serde(rename = "uidMappings", default, skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// Groups shown as others.
    #[serde(rename = "gidMappings", default, skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
}

/// Ids inside and outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// The first inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// The first outside.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

impl Mount {
    /// A mount of `kind` at `destination` with `options`.
    pub fn new(kind: &str, source: &str, destination: &str, options: &[&str]) -> Mount {
        Mount {
            destination: destination.into(),
            kind: Some(kind.into()),
            source: Some(source.into()),
            options: options.iter().map(|o| (*o).into()).collect(),
            uid_mappings: Vec::new(),
            gid_mappings: Vec::new(),
        }
    }
}
