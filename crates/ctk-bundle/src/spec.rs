//! `config.json` of the OCI runtime specification 1.3, for Linux. Unknown fields are passed over, as the specification
//! wants; `null` is as good as nothing, as Go writes it.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize};

/// The version of the specification that this follows.
pub const VERSION: &str = "1.3.0";

/// A list; `null` is an empty one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List(Vec::new())
    }
}

impl<T> Deref for List<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<'a, T> IntoIterator for &'a List<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> std::slice::Iter<'a, T> {
        self.0.iter()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<List<T>, D::Error> {
        Ok(List(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default()))
    }
}

/// Words by name; `null` is none.
pub type Words = Option<BTreeMap<String, String>>;

macro_rules! structure {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident : $kind:ty),* $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[allow(missing_docs)]
        pub struct $name { $($(#[$field_about])* pub $field: $kind),* }
    };
}

structure!(
    /// The whole file (`config.md`).
    Spec {
        oci_version: String,
        process: Option<Process>,
        root: Option<Root>,
        hostname: Option<String>,
        domainname: Option<String>,
        mounts: List<Mount>,
        hooks: Option<Hooks>,
        annotations: Words,
        linux: Option<Linux>,
        vm: Option<serde_json::Value>,
    }
);

structure!(
    /// `process` (`config.md#process`); also what `exec --process` reads.
    Process {
        terminal: bool,
        console_size: Option<ConsoleSize>,
        user: User,
        args: List<String>,
        env: List<String>,
        cwd: String,
        capabilities: Option<Capabilities>,
        rlimits: List<Rlimit>,
        no_new_privileges: bool,
        apparmor_profile: Option<String>,
        oom_score_adj: Option<i32>,
        scheduler: Option<Scheduler>,
        selinux_label: Option<String>,
        io_priority: Option<IoPriority>,
        #[serde(rename = "execCPUAffinity")]
        exec_cpu_affinity: Option<ExecAffinity>,
    }
);

structure!(
    /// `process.consoleSize`, in characters.
    ConsoleSize { height: u16, width: u16 }
);

structure!(
    /// `process.user`.
    User {
        uid: u32,
        gid: u32,
        umask: Option<u32>,
        additional_gids: List<u32>,
    }
);

structure!(
    /// `process.capabilities`: names as `CAP_CHOWN`.
    Capabilities {
        bounding: List<String>,
        effective: List<String>,
        inheritable: List<String>,
        permitted: List<String>,
        ambient: List<String>,
    }
);

structure!(
    /// An entry of `process.rlimits`.
    Rlimit {
        #[serde(rename = "type")]
        kind: String,
        soft: u64,
        hard: u64,
    }
);

structure!(
    /// `process.scheduler`.
    Scheduler {
        policy: String,
        nice: Option<i32>,
        priority: Option<i32>,
        flags: List<String>,
        runtime: Option<u64>,
        deadline: Option<u64>,
        period: Option<u64>,
    }
);

structure!(
    /// `process.ioPriority`.
    IoPriority { class: String, priority: i32 }
);

structure!(
    /// `process.execCPUAffinity`.
    ExecAffinity {
        initial: Option<String>,
        #[serde(rename = "final")]
        last: Option<String>,
    }
);

structure!(
    /// `root`.
    Root { path: String, readonly: bool }
);

structure!(
    /// An entry of `mounts`.
    Mount {
        destination: String,
        #[serde(rename = "type")]
        kind: Option<String>,
        source: Option<String>,
        options: List<String>,
        uid_mappings: List<IdMapping>,
        gid_mappings: List<IdMapping>,
    }
);

structure!(
    /// An entry of `linux.uidMappings` and the like.
    IdMapping {
        #[serde(rename = "containerID")]
        container_id: u32,
        #[serde(rename = "hostID")]
        host_id: u32,
        size: u32,
    }
);

structure!(
    /// `hooks`.
    Hooks {
        prestart: List<Hook>,
        create_runtime: List<Hook>,
        create_container: List<Hook>,
        start_container: List<Hook>,
        poststart: List<Hook>,
        poststop: List<Hook>,
    }
);

structure!(
    /// A hook.
    Hook {
        path: String,
        args: List<String>,
        env: List<String>,
        timeout: Option<i64>,
    }
);

structure!(
    /// `linux` (`config-linux.md`).
    Linux {
        uid_mappings: List<IdMapping>,
        gid_mappings: List<IdMapping>,
        sysctl: Words,
        resources: Option<Resources>,
        cgroups_path: Option<String>,
        namespaces: List<Namespace>,
        devices: List<Device>,
        net_devices: Option<BTreeMap<String, NetDevice>>,
        seccomp: Option<Seccomp>,
        rootfs_propagation: Option<String>,
        masked_paths: List<String>,
        readonly_paths: List<String>,
        mount_label: Option<String>,
        intel_rdt: Option<IntelRdt>,
        personality: Option<Personality>,
        time_offsets: Option<BTreeMap<String, TimeOffset>>,
        memory_policy: Option<MemoryPolicy>,
    }
);

structure!(
    /// An entry of `linux.namespaces`.
    Namespace {
        #[serde(rename = "type")]
        kind: String,
        path: Option<String>,
    }
);

structure!(
    /// An entry of `linux.devices`.
    Device {
        #[serde(rename = "type")]
        kind: String,
        path: String,
        major: Option<i64>,
        minor: Option<i64>,
        file_mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    }
);

structure!(
    /// An entry of `linux.netDevices`.
    NetDevice { name: Option<String> }
);

structure!(
    /// `linux.intelRdt`.
    IntelRdt {
        #[serde(rename = "closID")]
        clos_id: Option<String>,
        schemata: List<String>,
        l3_cache_schema: Option<String>,
        mem_bw_schema: Option<String>,
        enable_monitoring: bool,
    }
);

structure!(
    /// `linux.personality`.
    Personality { domain: String, flags: List<String> }
);

structure!(
    /// An entry of `linux.timeOffsets`.
    TimeOffset { secs: i64, nanosecs: u32 }
);

structure!(
    /// `linux.memoryPolicy`.
    MemoryPolicy { mode: String, nodes: Option<String>, flags: List<String> }
);

structure!(
    /// `linux.seccomp`.
    Seccomp {
        default_action: String,
        default_errno_ret: Option<u32>,
        architectures: List<String>,
        flags: List<String>,
        listener_path: Option<String>,
        listener_metadata: Option<String>,
        syscalls: List<Syscalls>,
    }
);

structure!(
    /// An entry of `linux.seccomp.syscalls`.
    Syscalls {
        names: List<String>,
        action: String,
        errno_ret: Option<u32>,
        args: List<SyscallArgument>,
    }
);

structure!(
    /// A comparison of an argument.
    SyscallArgument {
        index: u32,
        value: u64,
        value_two: u64,
        op: String,
    }
);

structure!(
    /// `linux.resources`; also what `update --resources` reads.
    Resources {
        devices: List<DeviceRule>,
        memory: Option<Memory>,
        cpu: Option<Cpu>,
        pids: Option<Pids>,
        #[serde(rename = "blockIO")]
        block_io: Option<BlockIo>,
        hugepage_limits: List<HugePage>,
        network: Option<Network>,
        rdma: Option<BTreeMap<String, Rdma>>,
        unified: Words,
    }
);

structure!(
    /// An entry of `linux.resources.devices`.
    DeviceRule {
        allow: bool,
        #[serde(rename = "type")]
        kind: Option<String>,
        major: Option<i64>,
        minor: Option<i64>,
        access: Option<String>,
    }
);

structure!(
    /// `linux.resources.memory`, in bytes; -1 is unlimited.
    Memory {
        limit: Option<i64>,
        reservation: Option<i64>,
        swap: Option<i64>,
        kernel: Option<i64>,
        #[serde(rename = "kernelTCP")]
        kernel_tcp: Option<i64>,
        swappiness: Option<u64>,
        #[serde(rename = "disableOOMKiller")]
        disable_oom_killer: Option<bool>,
        use_hierarchy: Option<bool>,
        check_before_update: Option<bool>,
    }
);

structure!(
    /// `linux.resources.cpu`.
    Cpu {
        shares: Option<u64>,
        quota: Option<i64>,
        burst: Option<u64>,
        period: Option<u64>,
        realtime_runtime: Option<i64>,
        realtime_period: Option<u64>,
        cpus: Option<String>,
        mems: Option<String>,
        idle: Option<i64>,
    }
);

structure!(
    /// `linux.resources.pids`.
    Pids { limit: Option<i64> }
);

structure!(
    /// `linux.resources.blockIO`.
    BlockIo {
        weight: Option<u16>,
        leaf_weight: Option<u16>,
        weight_device: List<WeightDevice>,
        throttle_read_bps_device: List<ThrottleDevice>,
        throttle_write_bps_device: List<ThrottleDevice>,
        #[serde(rename = "throttleReadIOPSDevice")]
        throttle_read_iops_device: List<ThrottleDevice>,
        #[serde(rename = "throttleWriteIOPSDevice")]
        throttle_write_iops_device: List<ThrottleDevice>,
    }
);

structure!(
    /// A weight of a block device.
    WeightDevice { major: i64, minor: i64, weight: Option<u16>, leaf_weight: Option<u16> }
);

structure!(
    /// A rate of a block device.
    ThrottleDevice { major: i64, minor: i64, rate: u64 }
);

structure!(
    /// An entry of `linux.resources.hugepageLimits`.
    HugePage { page_size: String, limit: u64 }
);

structure!(
    /// `linux.resources.network`.
    Network {
        #[serde(rename = "classID")]
        class_id: Option<u32>,
        priorities: List<Priority>,
    }
);

structure!(
    /// A priority of a network interface.
    Priority { name: String, priority: u32 }
);

structure!(
    /// An entry of `linux.resources.rdma`.
    Rdma { hca_handles: Option<u32>, hca_objects: Option<u32> }
);

/// Where a JSON text is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The field, as `process.args[0]`; empty for the text as a whole.
    pub field: String,
    /// What is wrong, with the line and column.
    pub reason: String,
}

/// Reads JSON. What does not fit is looked for again, slowly, to name the field.
pub fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, Wrong> {
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let result = serde_path_to_error::deserialize::<_, T>(&mut deserializer);
    match result {
        Ok(value) => match deserializer.end() {
            Ok(()) => Ok(value),
            Err(error) => Err(Wrong { field: String::new(), reason: error.to_string() }),
        },
        Err(error) => {
            let path = error.path().to_string();
            let field = if matches!(path.as_str(), "." | "?") { String::new() } else { path };
            Err(Wrong { field, reason: error.into_inner().to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_have_a_place() {
        let wrong = read::<Spec>(r#"{"process": {"args": ["a", 7]}}"#).unwrap_err();
        assert_eq!(wrong.field, "process.args[1]");
        assert!(wrong.reason.starts_with("invalid type: integer `7`, expected a string"), "{}", wrong.reason);
        assert_eq!(read::<Spec>("{").unwrap_err().field, "");
        assert_eq!(read::<Spec>("{} x").unwrap_err().field, "");
    }

    #[test]
    fn null_is_nothing_and_the_unknown_is_passed_over() {
        let spec: Spec = read(r#"{"ociVersion":"1.9.0","mounts":null,"process":null,"hat":{"on":1}}"#).unwrap();
        assert_eq!(spec, Spec { oci_version: "1.9.0".into(), ..Spec::default() });
    }
}
