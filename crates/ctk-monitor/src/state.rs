//! What a container does at the moment: `state.json`, which only its monitor writes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a container is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, and never started.
    #[default]
    Created,
    /// Being started.
    Starting,
    /// Running.
    Running,
    /// Its processes are frozen. Nobody writes this down: it is seen.
    Paused,
    /// Waiting for its next start.
    Restarting,
    /// Asked to end.
    Stopping,
    /// Ended.
    Exited,
}

impl Status {
    /// As people see it.
    pub fn word(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Starting => "starting",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Stopping => "stopping",
            Status::Exited => "exited",
        }
    }

    /// Whether there is a process, or will be one without anybody's doing.
    pub fn is_alive(self) -> bool {
        !matches!(self, Status::Created | Status::Exited)
    }
}

/// `state.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// What it is.
    pub status: Status,
    /// Its first process; 0 if there is none.
    pub pid: i32,
    /// Its monitor; 0 if there is none.
    pub monitor: i32,
    /// When it was started last, in nanoseconds since 1970; 0 for never.
    pub started: u64,
    /// When it ended last; 0 for never.
    pub finished: u64,
    /// As a shell tells it: 128 and the signal, 137 for out of memory.
    pub exit_code: i32,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// Why it could not be started, or how it ended without anybody seeing it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// How often it was started again by its policy.
    pub restarts: u32,
    /// Whether somebody stopped it.
    pub stopped: bool,
    /// Bytes of output that the log had no room for.
    pub log_lost_bytes: u64,
    /// Its health, if somebody asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthState>,
    /// What it got of its networks.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub network: Value,
}

/// What is known of a container's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Nothing yet.
    #[default]
    Starting,
    /// The last check succeeded.
    Healthy,
    /// Several in a row failed.
    Unhealthy,
}

impl HealthStatus {
    /// As people see it.
    pub fn word(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// A container's health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthState {
    /// What it is.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failures: u32,
    /// The last results, the oldest first.
    pub log: Vec<Checked>,
}

/// One check of a container's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// In nanoseconds since 1970.
    pub start: u64,
    /// In nanoseconds since 1970.
    pub end: u64,
    /// As a shell tells it; -1 if it took too long or could not be run.
    pub exit_code: i32,
    /// The beginning of what it wrote.
    pub output: String,
}
