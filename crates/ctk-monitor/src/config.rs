//! What a container is, for whoever looks after it: `container.json`. It changes only when somebody changes it: a new
//! name, other limits, another restart policy.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ctk_oci::Mount;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limits::{LOG_FILE_BYTES, LOG_FILES};

/// `container.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Unique among the containers of the store.
    pub name: String,
    /// When it was made, in nanoseconds since 1970.
    pub created: u64,
    /// The image's name as it was given; empty for a root that is no image.
    #[serde(default)]
    pub image: String,
    /// The digest of the image's manifest, and of its config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digests: Option<(String, String)>,
    /// The layers below its own, the lowest first.
    #[serde(default)]
    pub layers: Vec<String>,
    /// Program and arguments, as the process gets them.
    pub command: Vec<String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The root file system, for the runtime: an overlay with a layer of its own, or a directory.
    pub root: Mount,
    /// Whether it has a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// Whether its standard input stays open.
    #[serde(default)]
    pub interactive: bool,
    /// Whether it goes when it ends, with its anonymous volumes.
    #[serde(default)]
    pub remove: bool,
    /// Asks it to end.
    pub stop_signal: i32,
    /// How long it may take then, in seconds.
    pub stop_seconds: u64,
    /// When it is started again.
    #[serde(default)]
    pub restart: Restart,
    /// Killed after so many milliseconds; 0 is no limit.
    #[serde(default)]
    pub timeout_millis: u64,
    /// What is kept of what it writes.
    #[serde(default)]
    pub log: Log,
    /// How its health is found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// What it can reach; the part of this that is about bridges is for who sets them up.
    pub network: Network,
    /// Another OCI runtime that runs it; ours if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<PathBuf>,
    /// Volumes that belong to it alone.
    #[serde(default)]
    pub anonymous_volumes: Vec<String>,
    /// Named volumes that it uses.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Where its process id is written while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<PathBuf>,
    /// What else was asked for, as `inspect` shows it.
    #[serde(default)]
    pub asked: Value,
}

impl Config {
    /// The first twelve digits of its id, as people see it.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// When a container is started again after it ended by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When it failed.
    OnFailure,
    /// Always.
    Always,
    /// Always; and not at the start of the machine if somebody had stopped it.
    UnlessStopped,
}

impl RestartPolicy {
    /// As people write it.
    pub fn word(self) -> &'static str {
        match self {
            RestartPolicy::No => "no",
            RestartPolicy::OnFailure => "on-failure",
            RestartPolicy::Always => "always",
            RestartPolicy::UnlessStopped => "unless-stopped",
        }
    }
}

/// A restart policy and its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// When.
    pub policy: RestartPolicy,
    /// How often at most, for [`RestartPolicy::OnFailure`]; 0 is no bound.
    pub most: u32,
}

/// What is kept of a container's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// Whether anything is.
    pub kept: bool,
    /// Bytes before the next file is begun; 0 is no bound.
    pub file_bytes: u64,
    /// Files, the one that is written among them.
    pub files: u32,
}

impl Default for Log {
    fn default() -> Log {
        Log { kept: true, file_bytes: LOG_FILE_BYTES, files: LOG_FILES }
    }
}

/// What a container can reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Its own loopback.
    #[default]
    None,
    /// What the host reaches.
    Host,
    /// A network namespace that is there already: of another container, or by its path.
    Namespace(PathBuf),
    /// The networks that this describes.
    Joined(Value),
}

/// How a container's health is found out (docker's image specification, `Healthcheck`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Program and arguments, run in the container.
    pub command: Vec<String>,
    /// Between the end of a check and the next, in milliseconds.
    pub interval_millis: u64,
    /// For one check, in milliseconds.
    pub timeout_millis: u64,
    /// How many failures in a row make it unhealthy.
    pub retries: u32,
    /// Failures in so many milliseconds after the start do not count.
    pub start_millis: u64,
    /// The interval until then, in milliseconds.
    pub start_interval_millis: u64,
    /// What happens when it becomes unhealthy.
    pub on_failure: OnFailure,
}

impl Health {
    /// The interval, or that of the start.
    pub(crate) fn interval(&self, starting: bool) -> Duration {
        Duration::from_millis(if starting { self.start_interval_millis } else { self.interval_millis })
    }
}

/// What happens to an unhealthy container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Nothing but that it is told.
    #[default]
    None,
    /// It is killed; its restart policy says what comes then.
    Kill,
    /// It is stopped and started again.
    Restart,
    /// It is stopped.
    Stop,
}
