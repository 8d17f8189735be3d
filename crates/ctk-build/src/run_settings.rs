//! What every RUN of a build is given besides what its instruction says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use ctk_buildgraph::NetworkMode;

/// The switches of a build that concern its RUN instructions. As with BuildKit the network, the names of added hosts,
/// `/dev/shm`, ulimits and the parent cgroup are part of cache keys; addresses, resources, agents and entitlements are
/// not. The default is what a build without switches does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunSettings {
    /// `--network`: the network of instructions that name none themselves.
    pub network: NetworkMode,
    /// `--add-host`: further lines of `/etc/hosts`, in order.
    pub add_hosts: Vec<(String, HostAddress)>,
    /// `--shm-size`: bytes of `/dev/shm`; 64 MiB if not given.
    pub shm_size_bytes: Option<u64>,
    /// `--ulimit`, in order; a later one of the same name wins.
    pub ulimits: Vec<Ulimit>,
    /// `--resource` and the older switches for the same.
    pub resources: Resources,
    /// `--cgroup-parent`: the cgroup below which containers' own are made, relative to the hierarchy's root.
    pub cgroup_parent: Option<String>,
    /// `--ssh` by id.
    pub ssh: BTreeMap<String, SshSource>,
    /// `--allow`.
    pub entitlements: Entitlements,
}

/// Where an added host name leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAddress {
    /// There.
    Address(IpAddr),
    /// `host-gateway`: to the machine that builds.
    Gateway,
}

/// A resource limit of processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// `nofile`, `nproc`, …: `RLIMIT_*` in small letters.
    pub name: String,
    /// Soft limit; `None` is unlimited.
    pub soft: Option<u64>,
    /// Hard limit; `None` is unlimited.
    pub hard: Option<u64>,
}

/// Limits by cgroups; `None` is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Bytes of memory and swap together; -1 is unlimited swap.
    pub memory_swap_bytes: Option<i64>,
    /// Relative weight, 2 to 262144; the usual is 1024.
    pub cpu_shares: Option<u64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time in each period; -1 is unlimited.
    pub cpu_quota: Option<i64>,
    /// Processors that may be used: `0-3,5`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used: `0-3,5`.
    pub cpuset_mems: Option<String>,
}

/// Where `RUN --mount=type=ssh` leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshSource {
    /// To the agent that listens there.
    Agent(PathBuf),
    /// To an agent that holds these private keys (files).
    Keys(Vec<PathBuf>),
}

/// What RUN instructions may ask for that is not allowed unless somebody says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `network.host`: `RUN --network=host`.
    pub network_host: bool,
    /// `security.insecure`: `RUN --security=insecure`.
    pub security_insecure: bool,
    /// `device` is the name `*`, `device=NAME` is that name.
    pub devices: BTreeSet<String>,
}

impl Entitlements {
    /// What there is to be allowed; a single device is `device=NAME`.
    pub const KNOWN: [&'static str; 3] = ["network.host", "security.insecure", "device"];

    /// Allows what a word of `--allow` or of an `allow` node names. Gives whether there is such a thing.
    pub fn add(&mut self, word: &str) -> bool {
        match word.split_once('=') {
            None if word == "network.host" => self.network_host = true,
            None if word == "security.insecure" => self.security_insecure = true,
            None if word == "device" => {
                self.devices.insert("*".into());
            }
            Some(("device", device)) if !device.is_empty() => {
                // `name=…,alias=…` is CDI's; the name is what counts here.
                let name = device.split(',').next().unwrap_or_default();
                self.devices.insert(name.strip_prefix("name=").unwrap_or(name).into());
            }
            _ => return false,
        }
        true
    }

    /// Whether a device of this name may be given.
    pub fn has_device(&self, name: &str) -> bool {
        self.devices.contains("*") || self.devices.contains(name)
    }
}
