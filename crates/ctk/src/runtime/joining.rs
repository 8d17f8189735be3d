//! What `ctk` writes down about a container's networks, and asks its monitor about them.

use std::path::PathBuf;

use ctk_network::{Join, Request};
use serde::{Deserialize, Serialize};

/// The networks of a container, in its config.
#[derive(Serialize, Deserialize)]
pub struct Asked {
    /// What it asks of them.
    pub request: Request,
    /// The folder of networks; none for an ordinary user.
    pub networks: Option<PathBuf>,
    /// Folders in which an ordinary user's relay is searched.
    #[serde(default)]
    pub programs: Vec<PathBuf>,
    /// Whether its `/etc/hosts` is ours to write.
    pub hosts: bool,
    /// Whether its `/etc/resolv.conf` is.
    pub resolv_conf: bool,
}

/// A change while it runs.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It joins one more network.
    Connect(Join),
    /// It leaves a network.
    Disconnect(String),
}
