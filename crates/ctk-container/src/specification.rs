//! An image's config and the caller's wishes become `config.json` of the OCI runtime specification.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ctk_oci::{ContainerConfig, Mount};
use ctk_runtime::Capabilities;
use serde_json::{Map, Value, json};

use crate::container::{MASKED, READ_ONLY, account, capabilities, command, environment, workdir};
use crate::{Error, Security};

/// Where the init program appears in a container that wants one.
pub const INIT: &str = "/run/ctk-init";

/// What a caller wants of a container that is run by an OCI runtime. [`Wanted::default`] is the usual, confined one.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Replaces the image's CMD.
    pub args: Option<Vec<String>>,
    /// Replaces the image's ENTRYPOINT; then the image's CMD is ignored, too.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value` on top of the image's environment.
    pub env: Vec<String>,
    /// `NAME=value` that the image's environment and `env` go before.
    pub host_env: Vec<String>,
    /// Nothing of the image's environment, and of the usual one only `HOME` and `HOSTNAME`.
    pub unset_all_env: bool,
    /// Names that the image sets and the container does not get.
    pub unset_env: Vec<String>,
    /// Replaces the image's USER.
    pub user: Option<String>,
    /// Further groups, by name or number.
    pub groups: Vec<String>,
    /// Replaces the image's WORKDIR.
    pub workdir: Option<String>,
    /// The host name.
    pub hostname: String,
    /// The NIS domain name.
    pub domainname: Option<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// The file mode creation mask.
    pub umask: Option<u32>,
    /// Whether its root is read-only.
    pub read_only: bool,
    /// Its mounts besides those that every container has; one at the same place replaces that.
    pub mounts: Vec<Mount>,
    /// Bytes of `/dev/shm`; 64 MiB if none.
    pub shm_bytes: Option<u64>,
    /// Devices that it gets.
    pub devices: Vec<Device>,
    /// Rules of devices on top of those: `c 1:3 rwm`.
    pub device_rules: Vec<String>,
    /// Everything that the machine has, and nothing masked.
    pub privileged: bool,
    /// Capabilities and what else confines it.
    pub security: Security,
    /// Its filter of system calls, if not the default one: `null` for none.
    pub seccomp: Option<Value>,
    /// Its AppArmor profile.
    pub apparmor: Option<String>,
    /// Its SELinux label.
    pub label: Option<String>,
    /// Further paths that it must not read.
    pub mask: Vec<String>,
    /// Paths that are masked or read-only as a rule, and are not here; `ALL` for all.
    pub unmask: Vec<String>,
    /// `linux.resources` but for devices.
    pub resources: Map<String, Value>,
    /// How likely it is killed for want of memory.
    pub oom_score_adj: Option<i32>,
    /// `RLIMIT_…`, soft and hard.
    pub rlimits: Vec<(String, u64, u64)>,
    /// Kernel settings of its namespaces.
    pub sysctl: BTreeMap<String, String>,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// Ids inside, ids outside, how many; empty for no user namespace.
    pub uid_mappings: Vec<(u32, u32, u32)>,
    /// The same for groups.
    pub gid_mappings: Vec<(u32, u32, u32)>,
    /// Where its cgroups are.
    pub cgroups_path: String,
    /// The file of the host that is its first process (a copy of `ctk_sys::INIT`), and starts what the image starts.
    pub init: Option<PathBuf>,
    /// For the runtime and its hooks.
    pub annotations: BTreeMap<String, String>,
    /// Hooks by their kind, as the specification writes them.
    pub hooks: Map<String, Value>,
}

/// A device of the host in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where it appears.
    pub path: String,
    /// `c` or `b`.
    pub kind: char,
    /// Its number.
    pub major: u32,
    /// Its number.
    pub minor: u32,
    /// Some of `rwm`.
    pub access: String,
    /// Its mode's permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// The namespaces of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Of the network.
    pub network: Namespace,
    /// Of process ids.
    pub pid: Namespace,
    /// Of System V IPC and message queues.
    pub ipc: Namespace,
    /// Of the host name.
    pub uts: Namespace,
    /// Of cgroups.
    pub cgroup: Namespace,
    /// Of users; [`Namespace::Private`] only with mappings.
    pub user: Namespace,
}

/// One namespace of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Namespace {
    /// A new one.
    #[default]
    Private,
    /// The host's.
    Host,
    /// The one at this path.
    Path(PathBuf),
}

/// The process as it will be: program and arguments, and who it is.
#[derive(Clone, Debug)]
pub struct Specified {
    /// `config.json`.
    pub config: Value,
    /// Program and arguments.
    pub command: Vec<String>,
    /// User and group.
    pub ids: (u32, u32),
}

/// Makes `config.json`. `read` gives files of the image's root (`/etc/passwd`, `/etc/group`).
pub fn specify(
    wanted: &Wanted,
    image: &ContainerConfig,
    read: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Result<Specified, Error> {
    let caps = match wanted.privileged {
        true => Capabilities::from_bits(u64::MAX),
        false => capabilities(&wanted.security)?,
    };
    let mut args = command(image, wanted.entrypoint.as_deref(), wanted.args.as_deref())?;
    let shown = args.clone();
    if wanted.init.is_some() {
        args.splice(0..0, [INIT.to_owned()]);
    }
    let cwd = workdir(wanted.workdir.as_deref().unwrap_or(&image.working_dir))?;
    let user = wanted.user.clone().unwrap_or_else(|| image.user.clone());
    let mut account = account(&user, read)?;
    for group in &wanted.groups {
        let gid = crate::user::group(group, &read("/etc/group").unwrap_or_default())?;
        if !account.groups.contains(&gid) {
            account.groups.push(gid);
        }
    }
    let named = Some(wanted.hostname.as_str()).filter(|name| !name.is_empty());
    let of_image = image.env.iter().filter(|_| !wanted.unset_all_env);
    let base = ContainerConfig { env: wanted.host_env.iter().chain(of_image).cloned().collect(), ..image.clone() };
    let mut env = environment(&base, &wanted.env, &account.home, named, wanted.terminal)?;
    if wanted.unset_all_env {
        // Ours as well, but for what says who and where one is.
        let stays = |entry: &String| ["HOME=", "HOSTNAME="].iter().any(|begin| entry.starts_with(begin));
        env.retain(|entry| stays(entry) || wanted.env.contains(entry) || wanted.host_env.contains(entry));
    }
    env.retain(|entry| !wanted.unset_env.iter().any(|name| entry.split('=').next() == Some(name)));
    let names: Vec<String> = Capabilities::names()
        .iter()
        .filter(|name| Capabilities::parse(name).is_some_and(|one| caps.has(one)))
        .map(|name| format!("CAP_{}", name.trim_start_matches("CAP_")))
        .collect();
    // Who is not root has what the image's files give him, and what was asked for by name.
    let asked: Vec<&String> = match account.uid {
        0 => names.iter().collect(),
        _ => {
            let given = |name: &&String| {
                let same = |asked: &String| {
                    asked.trim_start_matches("CAP_").eq_ignore_ascii_case(name.trim_start_matches("CAP_"))
                };
                wanted.security.add_capabilities.iter().any(same)
            };
            names.iter().filter(given).collect()
        }
    };
    let mut process = json!({
        "terminal": wanted.terminal,
        "user": { "uid": account.uid, "gid": account.gid, "additionalGids": account.groups },
        "args": args,
        "env": env,
        "cwd": cwd,
        "capabilities": {
            "bounding": names, "effective": asked, "permitted": asked,
            "inheritable": [], "ambient": [],
        },
        "noNewPrivileges": wanted.security.no_new_privileges,
        "rlimits": wanted.rlimits.iter().map(|(kind, soft, hard)| json!({ "type": kind, "soft": soft, "hard": hard }))
            .collect::<Vec<_>>(),
    });
    if account.uid != 0 && !asked.is_empty() {
        // Only as ambient ones do they outlive the execution of the program.
        set(&mut process, &["capabilities", "inheritable"], json!(asked));
        set(&mut process, &["capabilities", "ambient"], json!(asked));
    }
    if let Some(umask) = wanted.umask {
        set(&mut process, &["user", "umask"], json!(umask));
    }
    if let Some(adjustment) = wanted.oom_score_adj {
        set(&mut process, &["oomScoreAdj"], json!(adjustment));
    }
    if let Some(profile) = &wanted.apparmor {
        set(&mut process, &["apparmorProfile"], json!(profile));
    }
    if let Some(label) = &wanted.label {
        set(&mut process, &["selinuxLabel"], json!(label));
    }
    let mut config = json!({
        "ociVersion": "1.2.0",
        "process": process,
        "root": { "path": "rootfs", "readonly": wanted.read_only },
        "mounts": mounts(wanted, Standing::here()),
        "annotations": wanted.annotations,
        "linux": linux(wanted, caps),
    });
    if wanted.namespaces.uts != Namespace::Host {
        set(&mut config, &["hostname"], json!(wanted.hostname));
        if let Some(domain) = &wanted.domainname {
            set(&mut config, &["domainname"], json!(domain));
        }
    }
    if !wanted.hooks.is_empty() {
        set(&mut config, &["hooks"], Value::Object(wanted.hooks.clone()));
    }
    Ok(Specified { config, command: shown, ids: (account.uid, account.gid) })
}

/// User and group of a container's process.
pub fn ids(
    wanted: &Wanted,
    image: &ContainerConfig,
    read: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Result<(u32, u32), Error> {
    let account = account(wanted.user.as_deref().unwrap_or(&image.user), read)?;
    Ok((account.uid, account.gid))
}

/// Names of all capabilities, as the specification writes them.
pub fn all_capabilities() -> Vec<String> {
    Capabilities::names().iter().map(|name| format!("CAP_{}", name.trim_start_matches("CAP_"))).collect()
}

fn set(value: &mut Value, path: &[&str], to: Value) {
    match path {
        [] => *value = to,
        [name, rest @ ..] => {
            if let Some(object) = value.as_object_mut() {
                set(object.entry(*name).or_insert(Value::Null), rest, to);
            }
        }
    }
}

/// What a container cannot have mounted because of where we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    /// We are in a user namespace: the machine's network is not ours.
    ordinary: bool,
    /// Nobody else is in it: there is no group of terminals.
    alone: bool,
    /// The host's message queues are at `/dev/mqueue`.
    queues: bool,
}

impl Standing {
    fn here() -> Standing {
        let ordinary = ctk_runtime::in_user_namespace();
        // Not every host has its queues mounted.
        let queues = std::path::Path::new("/dev/mqueue").is_dir();
        Standing { ordinary, alone: ordinary && ctk_runtime::rootless::is_alone(), queues }
    }
}

/// What every container has mounted, and what this one has.
fn mounts(wanted: &Wanted, standing: Standing) -> Vec<Mount> {
    let shm = wanted.shm_bytes.unwrap_or(64 << 20);
    let system = if wanted.privileged { "rw" } else { "ro" };
    let mut all = vec![
        Mount::new("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"]),
        Mount::new("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        Mount::new(
            "devpts",
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        Mount::new("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", system]),
        Mount::new("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", system]),
    ];
    let has_tty_group = |(inside, _, count): &(u32, u32, u32)| *inside <= 5 && 5 - inside < *count;
    let unmapped = !wanted.gid_mappings.is_empty() && !wanted.gid_mappings.iter().any(has_tty_group);
    if let (Some(terminals), true) = (all.get_mut(2), standing.alone || unmapped) {
        terminals.options.retain(|option| option != "gid=5");
    }
    match wanted.namespaces.ipc {
        Namespace::Host => {
            all.push(Mount::new("bind", "/dev/shm", "/dev/shm", &["rbind", "nosuid", "noexec", "nodev"]));
            if standing.queues {
                all.push(Mount::new("bind", "/dev/mqueue", "/dev/mqueue", &["rbind", "nosuid", "noexec", "nodev"]));
            }
        }
        _ => {
            let options = ["nosuid", "noexec", "nodev", "mode=1777", &format!("size={shm}")];
            all.push(Mount::new("tmpfs", "shm", "/dev/shm", &options));
            all.push(Mount::new("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]));
        }
    }
    let users = wanted.namespaces.user == Namespace::Private && !wanted.uid_mappings.is_empty();
    if wanted.namespaces.network == Namespace::Host && (users || standing.ordinary) {
        // Only who owns the network namespace may mount a new one.
        let options = ["rbind", "nosuid", "noexec", "nodev", if wanted.privileged { "rw" } else { "rro" }];
        if let Some(sys) = all.get_mut(3) {
            *sys = Mount::new("bind", "/sys", "/sys", &options);
        }
    }
    if let Some(init) = &wanted.init {
        all.push(Mount::new("bind", &init.to_string_lossy(), INIT, &["bind", "ro", "nosuid", "nodev"]));
    }
    all.retain(|ours| !wanted.mounts.iter().any(|theirs| theirs.destination == ours.destination));
    // Parents before what is mounted below them.
    let mut own = wanted.mounts.clone();
    own.sort_by_key(|mount| mount.destination.split('/').filter(|part| !part.is_empty()).count());
    all.extend(own);
    all
}

/// Kernel settings: those that were asked for, and in a network of its own what docker gives everybody: `ping` and low
/// ports without a capability.
fn sysctl(wanted: &Wanted, mapped: bool) -> BTreeMap<String, String> {
    let mut all = wanted.sysctl.clone();
    if wanted.namespaces.network == Namespace::Private {
        // Groups that are not mapped cannot be named.
        let groups = if mapped || ctk_runtime::in_user_namespace() { "0 0" } else { "0 2147483647" };
        for (name, value) in [("net.ipv4.ping_group_range", groups), ("net.ipv4.ip_unprivileged_port_start", "0")] {
            if Path::new("/proc/sys").join(name.replace('.', "/")).exists() {
                all.entry(name.into()).or_insert_with(|| value.into());
            }
        }
    }
    all
}

fn linux(wanted: &Wanted, caps: Capabilities) -> Value {
    let mut namespaces = vec![json!({ "type": "mount" })];
    let mut add = |kind: &str, namespace: &Namespace| match namespace {
        Namespace::Private => namespaces.push(json!({ "type": kind })),
        Namespace::Host => {}
        Namespace::Path(path) => namespaces.push(json!({ "type": kind, "path": path })),
    };
    let all = &wanted.namespaces;
    add("network", &all.network);
    add("pid", &all.pid);
    add("ipc", &all.ipc);
    add("uts", &all.uts);
    add("cgroup", &all.cgroup);
    let mapped = !wanted.uid_mappings.is_empty();
    if mapped || matches!(all.user, Namespace::Path(_)) {
        add("user", &all.user);
    }
    let visible = |path: &&&str| !wanted.unmask.iter().any(|open| open == "ALL" || covers(open, path));
    let confined = wanted.security.mask_paths && !wanted.privileged;
    let list = |paths: &[&'static str]| -> Vec<String> {
        if confined { paths.iter().filter(visible).map(|path| (*path).to_owned()).collect() } else { Vec::new() }
    };
    let mut masked = list(&MASKED);
    masked.extend(wanted.mask.iter().cloned());
    let mut resources = wanted.resources.clone();
    resources.insert("devices".into(), device_rules(wanted));
    let devices: Vec<Value> = wanted
        .devices
        .iter()
        .map(|device| {
            json!({
                "path": device.path, "type": device.kind.to_string(), "major": device.major, "minor": device.minor,
                "fileMode": device.mode, "uid": device.uid, "gid": device.gid,
            })
        })
        .collect();
    let mut linux = json!({
        "namespaces": namespaces,
        "cgroupsPath": wanted.cgroups_path,
        "resources": resources,
        "devices": devices,
        "sysctl": sysctl(wanted, mapped),
        "maskedPaths": masked,
        "readonlyPaths": list(&READ_ONLY),
    });
    if mapped {
        let ids = |list: &[(u32, u32, u32)]| -> Value {
            let one = |(inside, outside, count): &(u32, u32, u32)| json!({ "containerID": inside, "hostID": outside, "size": count });
            list.iter().map(one).collect()
        };
        set(&mut linux, &["uidMappings"], ids(&wanted.uid_mappings));
        set(&mut linux, &["gidMappings"], ids(&wanted.gid_mappings));
    }
    let seccomp = match &wanted.seccomp {
        Some(Value::Null) => None,
        Some(profile) => Some(profile.clone()),
        None if wanted.privileged || !wanted.security.seccomp => None,
        None => Some(ctk_runtime::default_profile_document(caps)),
    };
    if let Some(seccomp) = seccomp {
        set(&mut linux, &["seccomp"], seccomp);
    }
    linux
}

/// Whether a pattern (a path, or one that ends with `*`) means a path.
fn covers(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => pattern.trim_end_matches('/') == path,
    }
}

/// What may be done with devices: nothing, but with the usual ones (which runtimes add) and with those that were given.
fn device_rules(wanted: &Wanted) -> Value {
    if wanted.privileged || wanted.security.devices {
        return json!([{ "allow": true, "access": "rwm" }]);
    }
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    for device in &wanted.devices {
        rules.push(json!({
            "allow": true, "type": device.kind.to_string(), "major": device.major, "minor": device.minor,
            "access": device.access,
        }));
    }
    for rule in &wanted.device_rules {
        let words: Vec<&str> = rule.split_whitespace().collect();
        let [kind, numbers, access] = words.as_slice() else { continue };
        let (major, minor) = numbers.split_once(':').unwrap_or((numbers, "*"));
        let mut one = json!({ "allow": true, "type": kind, "access": access });
        for (name, text) in [("major", major), ("minor", minor)] {
            if let Ok(number) = text.parse::<i64>() {
                set(&mut one, &[name], json!(number));
            }
        }
        rules.push(one);
    }
    Value::Array(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specified(wanted: &Wanted) -> Value {
        let image = ContainerConfig { cmd: Some(vec!["sh".into()]), ..ContainerConfig::default() };
        let files = |path: &str| match path {
            "/etc/passwd" => Some(b"root:x:0:0::/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n".to_vec()),
            "/etc/group" => Some(b"audio:x:29:\n".to_vec()),
            _ => None,
        };
        specify(wanted, &image, &files).unwrap().config
    }

    #[test]
    fn the_usual_one_is_confined() {
        let config = specified(&Wanted { hostname: "box".into(), ..Wanted::default() });
        assert_eq!(config["process"]["args"], json!(["sh"]));
        assert_eq!(config["hostname"], "box");
        let kinds: Vec<&str> =
            config["linux"]["namespaces"].as_array().unwrap().iter().map(|n| n["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["mount", "network", "pid", "ipc", "uts", "cgroup"]);
        assert!(config["linux"]["maskedPaths"].as_array().unwrap().contains(&json!("/proc/kcore")));
        assert!(config["linux"]["seccomp"].is_object());
        assert!(!config["process"]["capabilities"]["bounding"].as_array().unwrap().contains(&json!("CAP_SYS_ADMIN")));
        assert_eq!(config["linux"]["resources"]["devices"][0]["allow"], false);
    }

    #[test]
    fn a_privileged_one_is_not() {
        let config = specified(&Wanted { privileged: true, ..Wanted::default() });
        assert!(config["linux"]["seccomp"].is_null());
        assert_eq!(config["linux"]["maskedPaths"], json!([]));
        assert!(config["process"]["capabilities"]["bounding"].as_array().unwrap().contains(&json!("CAP_SYS_ADMIN")));
    }

    #[test]
    fn a_user_has_the_capabilities_that_he_was_given_by_name() {
        let security = Security { add_capabilities: vec!["net_admin".into()], ..Security::default() };
        let wanted = Wanted {
            user: Some("web".into()),
            groups: vec!["audio".into(), "7".into()],
            security,
            ..Wanted::default()
        };
        let process = &specified(&wanted)["process"];
        assert_eq!(process["user"], json!({ "uid": 33, "gid": 33, "additionalGids": [33, 29, 7] }));
        assert_eq!(process["capabilities"]["effective"], json!(["CAP_NET_ADMIN"]));
        assert_eq!(process["capabilities"]["ambient"], json!(["CAP_NET_ADMIN"]));
        assert!(process["capabilities"]["bounding"].as_array().unwrap().len() > 5);
    }

    #[test]
    fn what_is_mounted_at_the_same_place_wins_and_parents_come_first() {
        let wanted = Wanted {
            mounts: vec![
                Mount::new("bind", "/b", "/data/below", &["rbind"]),
                Mount::new("bind", "/a", "/data", &["rbind"]),
                Mount::new("tmpfs", "tmpfs", "/dev/shm", &[]),
            ],
            unmask: vec!["/proc/k*".into()],
            ..Wanted::default()
        };
        let config = specified(&wanted);
        let places: Vec<&str> =
            config["mounts"].as_array().unwrap().iter().map(|m| m["destination"].as_str().unwrap()).collect();
        assert_eq!(places.iter().filter(|place| **place == "/dev/shm").count(), 1);
        let at = |wanted: &str| places.iter().position(|place| *place == wanted).unwrap();
        assert!(at("/data") < at("/data/below"));
        assert!(!config["linux"]["maskedPaths"].as_array().unwrap().contains(&json!("/proc/kcore")));
    }
}
