//! `config.json` becomes a plan: which namespaces, and what the container's first process does in which order. Pure: no
//! file is looked at, so that a plan is text for tests and `--log-level debug`.

use std::collections::BTreeSet;
use std::fmt;

use crate::Error;
use crate::action::{Action, Bind, Fresh, NAMESPACES, PreparedHook, Task, ids, text};
use crate::options::{self, Options};
use crate::process;
use crate::rdt::{self, Rdt};
use crate::spec::{Device, IdMapping, Linux, Mount, Namespace, Process, Spec};

/// What a plan depends on beside the bundle.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Absolute path of the bundle.
    pub bundle: String,
    /// The container's name.
    pub id: String,
    /// Names of the version 1 hierarchies, as below `/sys/fs/cgroup`, with their other names; and whether there is a
    /// version 2 one that alone is in use.
    pub cgroups: HostCgroups,
    /// Whether this process may make device nodes: it is root outside of any user namespace.
    pub makes_nodes: bool,
    /// Capabilities that this process has; nobody passes on more.
    pub capabilities: u64,
    /// Whether the kernel has AppArmor in use.
    pub apparmor: bool,
    /// Whether the kernel has SELinux in use.
    pub selinux: bool,
    /// The version of Landlock; 0 if it is not in use.
    pub landlock: u32,
    /// Switches of the command line.
    pub switches: Switches,
}

/// Cgroup hierarchies of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostCgroups {
    /// Version 2 alone, or none.
    #[default]
    Unified,
    /// Version 1, maybe with version 2 beside it: directory names, and other names for them.
    Legacy {
        /// Names of directories.
        names: Vec<String>,
        /// (link, directory).
        links: Vec<(String, String)>,
    },
}

/// Switches of `create` and `run`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// `--no-new-keyring`.
    pub no_new_keyring: bool,
    /// `--preserve-fds`.
    pub preserve_fds: u32,
    /// Whether the process waits to be started.
    pub waits: bool,
    /// Whether systemd may have to move the process into its cgroup; set by `create`.
    pub moved: bool,
}

/// What becomes of a bundle.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Absolute path of the root.
    pub rootfs: String,
    /// `CLONE_NEW…` flags of new namespaces, without the cgroup one, which comes later.
    pub namespaces: u32,
    /// Namespaces that the runtime itself joins before it makes the process: flag, path, field.
    pub joined: Vec<(u32, String, String)>,
    /// The user namespace to make the process in, if that is there already: path, field. Then `joined` are joined as a
    /// member of it where they must be.
    pub user: Option<(String, String)>,
    /// Mapped user and group ids: of a new user namespace, or what one that is there must have.
    pub mappings: Option<(Vec<IdMapping>, Vec<IdMapping>)>,
    /// Lines of `/proc/self/timens_offsets`.
    pub time_offsets: Vec<String>,
    /// Network devices that move into the container: name here, name there.
    pub net_devices: Vec<(String, String)>,
    /// Shares of caches and memory bandwidth.
    pub rdt: Option<Rdt>,
    /// What the process does.
    pub tasks: Vec<Task>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "root {}", self.rootfs)?;
        writeln!(f, "new {}", crate::action::namespace_words(self.namespaces))?;
        if let Some((path, _)) = &self.user {
            writeln!(f, "join user {path}")?;
        }
        for (flag, path, _) in &self.joined {
            writeln!(f, "join {} {path}", crate::action::namespace_words(*flag))?;
        }
        if let Some((uid, gid)) = &self.mappings {
            let word = if self.user.is_some() { "check" } else { "map" };
            writeln!(f, "{word} uid {} gid {}", ids(uid), ids(gid))?;
        }
        for line in &self.time_offsets {
            writeln!(f, "time {line}")?;
        }
        for (name, new) in &self.net_devices {
            writeln!(f, "network device {name} as {new}")?;
        }
        if let Some(rdt) = &self.rdt {
            writeln!(f, "{rdt}")?;
        }
        for task in &self.tasks {
            match task.field.is_empty() {
                true => writeln!(f, "{}", task.action)?,
                false => writeln!(f, "{}  # {}", task.action, task.field)?,
            }
        }
        Ok(())
    }
}

/// Adds tasks.
pub(crate) struct Tasks(pub(crate) Vec<Task>);

impl Tasks {
    pub(crate) fn add(&mut self, field: impl Into<String>, action: Action) {
        self.0.push(Task { field: field.into(), action });
    }
}

const PRIVATE: u64 = libc::MS_PRIVATE;
const NEW_MOUNT: u32 = libc::CLONE_NEWNS as u32;
const NEW_USER: u32 = libc::CLONE_NEWUSER as u32;
const NEW_CGROUP: u32 = libc::CLONE_NEWCGROUP as u32;
const NEW_NETWORK: u32 = libc::CLONE_NEWNET as u32;
const NEW_PID: u32 = libc::CLONE_NEWPID as u32;
const NEW_TIME: u32 = 0x80;
const NEW_UTS: u32 = libc::CLONE_NEWUTS as u32;
const NEW_IPC: u32 = libc::CLONE_NEWIPC as u32;

/// Plans a container.
pub fn plan(spec: &Spec, host: &Host) -> Result<Plan, Error> {
    check_version(&spec.oci_version)?;
    if spec.vm.is_some() {
        return Err(Error::config("vm", "virtual machines are not supported"));
    }
    if spec.annotations.as_ref().is_some_and(|all| all.contains_key("")) {
        return Err(Error::config("annotations", "a key is empty"));
    }
    let none = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&none);
    let Some(root) = spec.root.as_ref().filter(|root| !root.path.is_empty()) else {
        return Err(Error::config("root.path", "is needed"));
    };
    let rootfs = match root.path.starts_with('/') {
        true => root.path.clone(),
        false => format!("{}/{}", host.bundle.trim_end_matches('/'), root.path),
    };
    let (new, mut by_path) = namespaces(&linux.namespaces)?;
    let mut tasks = Tasks(Vec::with_capacity(96));
    let mappings = user_namespace(linux, new, &by_path)?;
    let joined_user = by_path.iter().position(|(flag, _, _)| *flag == NEW_USER);
    let joined_user = joined_user.map(|index| by_path.remove(index)).map(|(_, path, field)| (path, field));
    let users = new & NEW_USER != 0 || joined_user.is_some();
    let (early, late): (Vec<_>, Vec<_>) = by_path.into_iter().partition(|(flag, _, _)| {
        // The process ids that children get, and with new users everything whose owner they are not.
        *flag == NEW_PID || (users && *flag != NEW_MOUNT)
    });
    if users {
        tasks.add("", Action::JoinCgroups);
        if mappings.is_some() {
            tasks.add("linux.uidMappings", Action::AwaitMappings);
        } else if host.switches.moved {
            tasks.add("", Action::AwaitMove);
        }
        tasks.add("", Action::Hide);
    } else {
        // Before it is where other processes of the container can see it (CVE-2019-5736).
        tasks.add("", Action::Hide);
        tasks.add("", Action::JoinCgroups);
        if host.switches.moved {
            tasks.add("", Action::AwaitMove);
        }
    }
    for (namespace, path, field) in late {
        tasks.add(field.clone(), Action::Join { namespace, path: text(&path, &field)? });
    }
    if users {
        let field = joined_user.as_ref().map_or("linux.uidMappings", |(_, field)| field);
        tasks.add(field, Action::BecomeRoot { groups: host.makes_nodes });
    }
    if new & NEW_CGROUP != 0 {
        // After the cgroups were joined, so that they are the root that the container sees.
        tasks.add("linux.namespaces", Action::Unshare { namespaces: NEW_CGROUP });
    }
    if !host.switches.no_new_keyring {
        tasks.add("", Action::Keyring(text(&format!("_ses.{}", host.id), "id")?));
    }
    if new & NEW_NETWORK != 0 {
        tasks.add("", Action::Loopback);
    }
    names(spec, new, &mut tasks)?;
    settings(linux, new, &mut tasks)?;
    if let Some(process) = &spec.process {
        labels(process, host, &mut tasks)?;
    }
    roots(spec, linux, host, &rootfs, &mut tasks)?;
    if let Some(process) = &spec.process {
        process::tasks(process, spec, host, false, &mut tasks)?;
        if host.switches.waits {
            tasks.add("process.args", Action::Look);
            tasks.add("", Action::Started);
        }
        hooks(spec, "startContainer", &mut tasks)?;
        process::last(process, linux, &mut tasks);
    } else if host.switches.waits {
        tasks.add("", Action::Started);
    }
    Ok(Plan {
        rootfs,
        namespaces: new & !NEW_CGROUP,
        joined: early,
        user: joined_user,
        mappings,
        time_offsets: time_offsets(linux, new)?,
        net_devices: net_devices(linux)?,
        rdt: linux.intel_rdt.as_ref().map(|rdt| rdt::plan(rdt, &host.id)).transpose()?,
        tasks: tasks.0,
    })
}

/// Any 1.x is as good as this one: what it adds may be passed over.
fn check_version(version: &str) -> Result<(), Error> {
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<Option<u32>> = numbers.split('.').map(|part| part.parse().ok()).collect();
    match parts.as_slice() {
        [Some(1), Some(_), Some(_)] => Ok(()),
        [Some(_), Some(_), Some(_)] => Err(Error::config(
            "ociVersion",
            format!("version {version} is not supported; this is {}", crate::spec::VERSION),
        )),
        _ => Err(Error::config("ociVersion", format!("`{version}` is no version"))),
    }
}

type ByPath = Vec<(u32, String, String)>;

fn namespaces(list: &[Namespace]) -> Result<(u32, ByPath), Error> {
    let mut seen = 0;
    let mut new = 0;
    let mut by_path = Vec::new();
    for (index, namespace) in list.iter().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        let Some((_, flag)) = NAMESPACES.iter().find(|(name, _)| *name == namespace.kind) else {
            return Err(Error::config(&format!("{field}.type"), format!("unknown namespace `{}`", namespace.kind)));
        };
        if seen & flag != 0 {
            return Err(Error::config(&field, format!("a second `{}` namespace", namespace.kind)));
        }
        seen |= flag;
        match namespace.path.as_deref().filter(|path| !path.is_empty()) {
            None => new |= flag,
            Some(path) if path.starts_with('/') => by_path.push((*flag, path.into(), format!("{field}.path"))),
            Some(path) => return Err(Error::config(&format!("{field}.path"), format!("`{path}` is not absolute"))),
        }
    }
    if seen & NEW_MOUNT == 0 {
        return Err(Error::config("linux.namespaces", "a `mount` namespace is needed: mounts would be the host's"));
    }
    Ok((new, by_path))
}

type Mappings = (Vec<IdMapping>, Vec<IdMapping>);

fn user_namespace(linux: &Linux, new: u32, by_path: &ByPath) -> Result<Option<Mappings>, Error> {
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    let joined = by_path.iter().any(|(flag, _, _)| *flag == NEW_USER);
    if new & NEW_USER == 0 {
        return match mapped {
            // Those of the namespace, said once more: they are compared, and `idmap` of mounts uses them.
            true if joined => Ok(Some((linux.uid_mappings.to_vec(), linux.gid_mappings.to_vec()))),
            true => Err(Error::config("linux.uidMappings", "needs a `user` namespace in linux.namespaces")),
            false => Ok(None),
        };
    }
    for (list, field) in [(&linux.uid_mappings, "linux.uidMappings"), (&linux.gid_mappings, "linux.gidMappings")] {
        if list.is_empty() {
            return Err(Error::config(field, "is needed with a new `user` namespace"));
        }
        if let Some(index) = list.iter().position(|mapping| mapping.size == 0) {
            return Err(Error::config(&format!("{field}[{index}].size"), "must not be 0"));
        }
    }
    Ok(Some((linux.uid_mappings.to_vec(), linux.gid_mappings.to_vec())))
}

fn time_offsets(linux: &Linux, new: u32) -> Result<Vec<String>, Error> {
    let Some(offsets) = linux.time_offsets.as_ref().filter(|offsets| !offsets.is_empty()) else {
        return Ok(Vec::new());
    };
    if new & NEW_TIME == 0 {
        return Err(Error::config("linux.timeOffsets", "needs a new `time` namespace in linux.namespaces"));
    }
    let line = |(clock, offset): (&String, &crate::spec::TimeOffset)| match clock.as_str() {
        "monotonic" | "boottime" => Ok(format!("{clock} {} {}", offset.secs, offset.nanosecs)),
        other => Err(Error::config(&format!("linux.timeOffsets.{other}"), "is neither monotonic nor boottime")),
    };
    offsets.iter().map(line).collect()
}

/// Names of network devices here and there (`config-linux.md#network-devices`).
fn net_devices(linux: &Linux) -> Result<Vec<(String, String)>, Error> {
    /// `IFNAMSIZ` without the null.
    const LIMIT: usize = 15;
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, device) in linux.net_devices.iter().flatten() {
        let field = format!("linux.netDevices.{name}");
        if !linux.namespaces.iter().any(|namespace| namespace.kind == "network") {
            return Err(Error::config(
                &field,
                "needs a `network` namespace in linux.namespaces: it would stay where it is",
            ));
        }
        let new = device.name.as_deref().filter(|new| !new.is_empty()).unwrap_or(name);
        for (word, field) in [(name.as_str(), field.clone()), (new, format!("{field}.name"))] {
            let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
            if word.is_empty() || word.len() > LIMIT || matches!(word, "." | "..") || word.contains(bad) {
                return Err(Error::config(&field, format!("`{word}` is no name of a network device")));
            }
        }
        if !new.contains('%') && all.iter().any(|(_, other)| other == new) {
            return Err(Error::config(&format!("{field}.name"), format!("a second `{new}`")));
        }
        all.push((name.clone(), new.into()));
    }
    Ok(all)
}

fn names(spec: &Spec, new: u32, tasks: &mut Tasks) -> Result<(), Error> {
    let joined = spec.linux.as_ref().is_some_and(|linux| linux.namespaces.iter().any(|n| n.kind == "uts"));
    for (name, field) in [(&spec.hostname, "hostname"), (&spec.domainname, "domainname")] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { continue };
        if new & NEW_UTS == 0 && !joined {
            return Err(Error::config(field, "needs a `uts` namespace in linux.namespaces: it would be the host's"));
        }
        tasks.add(
            field,
            if field == "hostname" { Action::HostName(name.into()) } else { Action::DomainName(name.into()) },
        );
    }
    Ok(())
}

/// Settings that are each namespace's own; others would change the host.
fn settings(linux: &Linux, new: u32, tasks: &mut Tasks) -> Result<(), Error> {
    let has = |kind: &str, flag: u32| new & flag != 0 || linux.namespaces.iter().any(|n| n.kind == kind);
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    for (name, value) in linux.sysctl.iter().flatten() {
        let field = format!("linux.sysctl.{name}");
        // As sysctl(8): a name with a slash before the first dot has its separators swapped.
        let slashes = name.find('/').is_some_and(|slash| name.find('.').is_none_or(|dot| slash < dot));
        let (path, dotted) = match slashes {
            true => (name.clone(), name.replace('.', "\u{1}").replace('/', ".").replace('\u{1}', "/")),
            false => (name.replace('/', "\u{1}").replace('.', "/").replace('\u{1}', "."), name.clone()),
        };
        let needs = if dotted.starts_with("net.") {
            ("network", NEW_NETWORK)
        } else if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            ("ipc", NEW_IPC)
        } else if dotted == "kernel.domainname" {
            ("uts", NEW_UTS)
        } else {
            let why = if dotted == "kernel.hostname" { "use `hostname`" } else { "it is not a namespace's own" };
            return Err(Error::config(&field, format!("this setting would be the host's: {why}")));
        };
        if !has(needs.0, needs.1) {
            return Err(Error::config(&field, format!("needs a `{}` namespace: it would be the host's", needs.0)));
        }
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(Error::config(&field, "is no name of a setting"));
        }
        tasks.add(&field, Action::Setting { path: text(&path, &field)?, value: value.clone() });
    }
    Ok(())
}

/// Labels of the security module, asked for through the host's `/proc`: an image's own may be anything.
pub(crate) fn labels(process: &Process, host: &Host, tasks: &mut Tasks) -> Result<(), Error> {
    let wanted = [
        (&process.apparmor_profile, "process.apparmorProfile", host.apparmor, "apparmor/exec", "exec ", "AppArmor"),
        (&process.selinux_label, "process.selinuxLabel", host.selinux, "exec", "", "SELinux"),
    ];
    for (label, field, there, file, prefix, module) in wanted {
        let Some(label) = label.as_deref().filter(|label| !label.is_empty()) else { continue };
        if !there {
            // What is not confined at all is unconfined.
            if label == "unconfined" {
                continue;
            }
            let reason = format!("{module} is not in use in this kernel; leave it out");
            return Err(Error::Unsupported { what: format!("{field} `{label}`"), reason });
        }
        let path = text(&format!("/proc/thread-self/attr/{file}"), field)?;
        tasks.add(field, Action::Label { path, text: format!("{prefix}{label}") });
    }
    Ok(())
}

fn roots(spec: &Spec, linux: &Linux, host: &Host, rootfs: &str, tasks: &mut Tasks) -> Result<(), Error> {
    let readonly = spec.root.as_ref().is_some_and(|root| root.readonly);
    if let Some(label) = linux.mount_label.as_deref().filter(|label| !label.is_empty() && !host.selinux) {
        return Err(Error::Unsupported {
            what: format!("linux.mountLabel `{label}`"),
            reason: "SELinux is not in use in this kernel; leave it out".into(),
        });
    }
    let propagation = match linux.rootfs_propagation.as_deref().unwrap_or_default() {
        "" => 0,
        word => {
            let found = options::parse(&[word.to_owned()]).propagation;
            if found == 0 {
                let reason = format!("`{word}` is none of shared, slave, private, unbindable");
                return Err(Error::config("linux.rootfsPropagation", reason));
            }
            found
        }
    };
    // Always: nothing mounted here reaches the host through the old root.
    tasks.add("", Action::Propagation(libc::MS_SLAVE | libc::MS_REC));
    let container_hooks = spec.hooks.as_ref().is_some_and(|hooks| !hooks.create_container.is_empty());
    let place = if container_hooks { rootfs } else { "/" };
    tasks.add("root.path", Action::PlaceRoot { at: text(place, "root.path")? });
    for (index, mount) in spec.mounts.iter().enumerate() {
        add_mount(mount, &format!("mounts[{index}]"), linux, host, tasks)?;
    }
    devices(spec, linux, host, tasks)?;
    let no_hooks = crate::spec::Hooks::default();
    let hooks_of = spec.hooks.as_ref().unwrap_or(&no_hooks);
    let net_devices = linux.net_devices.as_ref().is_some_and(|devices| !devices.is_empty());
    let waits = net_devices || linux.intel_rdt.is_some();
    // Hooks of the process itself wait too, and so does what a seccomp listener is told: the runtime writes what they
    // read when it knows the process.
    let listener = linux.seccomp.as_ref().is_some_and(|seccomp| seccomp.listener_path.is_some());
    let own = !hooks_of.create_container.is_empty() || !hooks_of.start_container.is_empty() || listener;
    if !hooks_of.prestart.is_empty() || !hooks_of.create_runtime.is_empty() || waits || own {
        tasks.add("hooks", Action::HostHooks);
    }
    hooks(spec, "createContainer", tasks)?;
    tasks.add("root", Action::Enter { pivot: !host.switches.no_pivot });
    if let Some(process) = &spec.process {
        // Nothing is changed that is there already.
        tasks.add("process.cwd", Action::Directory { at: process::directory(process)? });
        if process.terminal {
            tasks.add("process.terminal", process::terminal(process, true));
        }
    }
    if propagation != 0 {
        let root = text("/", "")?;
        tasks.add(
            "linux.rootfsPropagation",
            Action::Remount { at: root, recursive: propagation & libc::MS_REC != 0, set: 0, propagation },
        );
    }
    if readonly {
        let at = text("/", "")?;
        tasks.add("root.readonly", Action::Remount { at, recursive: false, set: options::READ_ONLY, propagation: 0 });
    }
    for (index, path) in linux.readonly_paths.iter().enumerate() {
        let field = format!("linux.readonlyPaths[{index}]");
        tasks.add(&field, Action::ReadOnly(absolute(path, &field)?));
    }
    for (index, path) in linux.masked_paths.iter().enumerate() {
        let field = format!("linux.maskedPaths[{index}]");
        tasks.add(&field, Action::Mask(absolute(path, &field)?));
    }
    Ok(())
}

fn absolute(path: &str, field: &str) -> Result<std::ffi::CString, Error> {
    if !path.starts_with('/') {
        return Err(Error::config(field, format!("`{path}` is not absolute")));
    }
    text(path, field)
}

/// A path of a mount: absolute (older bundles are forgiven), without `..`, so that its parents can be made one by one.
fn destination(mount: &Mount, field: &str) -> Result<String, Error> {
    if mount.destination.is_empty() {
        return Err(Error::config(&format!("{field}.destination"), "is needed"));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in mount.destination.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

fn add_mount(mount: &Mount, field: &str, linux: &Linux, host: &Host, tasks: &mut Tasks) -> Result<(), Error> {
    let place = destination(mount, field)?;
    let at = text(&place, field)?;
    let options = options::parse(&mount.options);
    let kind = mount.kind.as_deref().unwrap_or_default();
    let source = mount.source.as_deref().unwrap_or_default();
    let map = id_map(mount, &options, linux, field)?;
    // Not of the specification: the part of a tree that is shown, which nobody can lead astray by a link. An overlay of
    // which a part is shown is made by the runtime, for it may be where the container cannot go.
    let inside = options.data.iter().find(|(name, _)| name == "subpath").map(|(_, value)| value.clone());
    if kind == "overlay" && inside.is_some() {
        let overlay = options.data.iter().filter(|(name, _)| name != "subpath").cloned().collect();
        let Options { set, clear, set_all, clear_all, propagation, .. } = options;
        let source = text("overlay", field)?;
        let bind = Bind { source, at, set, clear, set_all, clear_all, propagation, inside, overlay, ..Bind::default() };
        tasks.add(field, Action::Bind(bind));
        return Ok(());
    }
    if options.bind.is_some() || kind == "bind" {
        if source.is_empty() {
            return Err(Error::config(&format!("{field}.source"), "is needed for a bind mount"));
        }
        // There is no file system to tell it to: passed over, a misspelt `ro` would be a mount that can be written.
        let known = |word: &str| word.is_empty() || word.starts_with("subpath=") || options::is_known(word);
        if let Some(index) = mount.options.iter().position(|word| !known(word)) {
            let word = mount.options.get(index).map(String::as_str).unwrap_or_default();
            return Err(Error::config(
                &format!("{field}.options[{index}]"),
                format!("`{word}` is no option of a bind mount"),
            ));
        }
        let source = match source.starts_with('/') {
            true => source.to_owned(),
            false => format!("{}/{source}", host.bundle.trim_end_matches('/')),
        };
        let Options { set, clear, set_all, clear_all, propagation, .. } = options;
        let recursive = options.bind.unwrap_or(false);
        let source = text(&source, field)?;
        let bind = Bind {
            source,
            at,
            recursive,
            set,
            clear,
            set_all,
            clear_all,
            propagation,
            map,
            inside,
            overlay: Vec::new(),
        };
        tasks.add(field, Action::Bind(bind));
        return Ok(());
    }
    if map.is_some() {
        return Err(Error::config(field, "ids can be mapped for bind mounts only"));
    }
    let mut data = Vec::new();
    for (name, value) in &options.data {
        data.push((text(name, field)?, text(value, field)?));
    }
    if kind.is_empty() {
        return Err(Error::config(&format!("{field}.type"), "is needed"));
    }
    if kind == "cgroup" || kind == "cgroup2" {
        let inside = linux.namespaces.iter().any(|namespace| namespace.kind == "cgroup");
        cgroup_mount(&place, field, &options, host, inside, tasks)?;
        return Ok(());
    }
    // What `mount` and `df` show.
    let label = if source.is_empty() { kind } else { source };
    let mut with_source = vec![(text("source", field)?, text(label, field)?)];
    // File systems that are made from nothing have no labels of their own; those of the kernel's have rules for that.
    let context = linux.mount_label.as_deref().filter(|label| !label.is_empty());
    if let Some(label) = context.filter(|_| !matches!(kind, "proc" | "sysfs" | "mqueue")) {
        with_source.push((text("context", "linux.mountLabel")?, text(label, "linux.mountLabel")?));
    }
    with_source.append(&mut data);
    let fresh = Fresh {
        kind: text(kind, field)?,
        options: with_source,
        attributes: options.set | options.set_all,
        propagation: options.propagation,
        at: at.clone(),
        // What decides what others see goes where it says, not where a link of the image leads.
        no_links: matches!(kind, "proc" | "sysfs") || place == "/dev" || place.starts_with("/dev/"),
    };
    if kind == "proc" && place.matches('/').count() > 1 {
        let reason = "proc can be mounted on a directory of the root only";
        return Err(Error::config(&format!("{field}.destination"), reason));
    }
    let copies = kind == "tmpfs" && options.copy_up;
    tasks.add(field, if copies { Action::CopyUp(fresh) } else { Action::Fresh(fresh) });
    Ok(())
}

type Map = (bool, Vec<IdMapping>, Vec<IdMapping>);

fn id_map(mount: &Mount, options: &Options, linux: &Linux, field: &str) -> Result<Option<Map>, Error> {
    let own = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    match (own, options.map) {
        (false, None) => Ok(None),
        (true, recursive) => {
            if mount.uid_mappings.is_empty() || mount.gid_mappings.is_empty() {
                return Err(Error::config(field, "uidMappings and gidMappings are needed together"));
            }
            Ok(Some((recursive == Some(true), mount.uid_mappings.to_vec(), mount.gid_mappings.to_vec())))
        }
        (false, Some(recursive)) => {
            if linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty() {
                return Err(Error::config(field, "`idmap` needs mappings of the mount or of the container"));
            }
            Ok(Some((recursive, linux.uid_mappings.to_vec(), linux.gid_mappings.to_vec())))
        }
    }
}

fn cgroup_mount(
    place: &str,
    field: &str,
    options: &Options,
    host: &Host,
    in_cgroup_namespace: bool,
    tasks: &mut Tasks,
) -> Result<(), Error> {
    let at = text(place, field)?;
    let HostCgroups::Legacy { names, links } = &host.cgroups else {
        if !in_cgroup_namespace {
            // The same tree as the host's. A new mount of it outside of any cgroup namespace makes the kernel wait for
            // all processors, ten milliseconds and more; showing the mount that is there costs nothing.
            let safe = options.set | options.set_all;
            let source = text("/sys/fs/cgroup", field)?;
            tasks.add(field, Action::Bind(Bind { source, at, set: safe, propagation: PRIVATE, ..Bind::default() }));
            return Ok(());
        }
        let fresh = Fresh {
            kind: text("cgroup2", field)?,
            options: vec![(text("source", field)?, text("cgroup2", field)?)],
            attributes: options.set | options.set_all,
            propagation: options.propagation,
            at,
            no_links: true,
        };
        tasks.add(field, Action::Fresh(fresh));
        return Ok(());
    };
    let pair = |name: &str, value: &str| Ok::<_, Error>((text(name, field)?, text(value, field)?));
    tasks.add(
        field,
        Action::Fresh(Fresh {
            kind: text("tmpfs", field)?,
            options: vec![pair("source", "tmpfs")?, pair("mode", "755")?],
            attributes: (options.set | options.set_all) & !options::READ_ONLY,
            propagation: options.propagation,
            at: at.clone(),
            no_links: true,
        }),
    );
    for name in names {
        let at = text(&format!("{place}/{name}"), field)?;
        tasks.add(field, Action::CgroupDirectory { name: name.clone(), at });
    }
    for (link, name) in links {
        let (at, target) = (text(&format!("{place}/{link}"), field)?, text(name, field)?);
        tasks.add(field, Action::Link { target, at });
    }
    if (options.set | options.set_all) & options::READ_ONLY != 0 {
        tasks.add(field, Action::Remount { at, recursive: true, set: options::READ_ONLY, propagation: 0 });
    }
    Ok(())
}

/// Devices that every container has (`config-linux.md#default-devices`).
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

fn devices(spec: &Spec, linux: &Linux, host: &Host, tasks: &mut Tasks) -> Result<(), Error> {
    // A /dev of the host has its own.
    let of_host = spec.mounts.iter().rev().find(|mount| mount.destination.trim_end_matches('/') == "/dev");
    if of_host
        .is_some_and(|mount| mount.kind.as_deref() == Some("bind") || options::parse(&mount.options).bind.is_some())
    {
        return Ok(());
    }
    let users = linux.namespaces.iter().any(|namespace| namespace.kind == "user");
    let bind = users || !host.makes_nodes;
    let mut seen = BTreeSet::new();
    let mut add = |path: &str, kind: u32, numbers: (u32, u32), mode: u32, owner: (u32, u32), field: &str| {
        if !seen.insert(path.to_owned()) {
            return Ok(());
        }
        let at = text(path, field)?;
        let action = match bind && kind != libc::S_IFIFO {
            true => Action::Bind(Bind { source: at.clone(), at, ..Bind::default() }),
            false => Action::Node { at, mode: kind | mode, device: numbers, owner },
        };
        if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !matches!(*parent, "" | "/dev"))
            && matches!(action, Action::Node { .. })
        {
            tasks.add(field, Action::Directory { at: text(parent, field)? });
        }
        tasks.add(field, action);
        Ok(())
    };
    for (index, device) in linux.devices.iter().enumerate() {
        let field = format!("linux.devices[{index}]");
        let (kind, numbers) = device_numbers(device, &field)?;
        if !device.path.starts_with('/') || device.path.split('/').any(|part| part == "..") {
            return Err(Error::config(&format!("{field}.path"), format!("`{}` is not absolute", device.path)));
        }
        let mode = device.file_mode.unwrap_or(0o666) & 0o7777;
        add(&device.path, kind, numbers, mode, (device.uid.unwrap_or(0), device.gid.unwrap_or(0)), &field)?;
    }
    for (name, major, minor) in DEVICES {
        add(&format!("/dev/{name}"), libc::S_IFCHR, (major, minor), 0o666, (0, 0), "")?;
    }
    for (target, link) in LINKS {
        tasks.add("", Action::Link { target: text(target, "")?, at: text(link, "")? });
    }
    Ok(())
}

fn device_numbers(device: &Device, field: &str) -> Result<(u32, (u32, u32)), Error> {
    let kind = match device.kind.as_str() {
        "c" | "u" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        "p" => return Ok((libc::S_IFIFO, (0, 0))),
        other => return Err(Error::config(&format!("{field}.type"), format!("`{other}` is none of b, c, p, u"))),
    };
    let number = |value: Option<i64>, name: &str| {
        let field = format!("{field}.{name}");
        let value = value.ok_or_else(|| Error::config(&field, format!("is needed for type `{}`", device.kind)))?;
        u32::try_from(value).map_err(|_| Error::config(&field, format!("{value} is no device number")))
    };
    Ok((kind, (number(device.major, "major")?, number(device.minor, "minor")?)))
}

fn hooks(spec: &Spec, kind: &str, tasks: &mut Tasks) -> Result<(), Error> {
    let Some(hooks) = &spec.hooks else { return Ok(()) };
    let list = if kind == "createContainer" { &hooks.create_container } else { &hooks.start_container };
    for (index, hook) in list.iter().enumerate() {
        let field = format!("hooks.{kind}[{index}]");
        tasks.add(&field, Action::Hook(PreparedHook::new(hook, &field)?));
    }
    Ok(())
}

/// Checks what only the runtime itself runs.
pub fn check_hooks(spec: &Spec) -> Result<(), Error> {
    let Some(hooks) = &spec.hooks else { return Ok(()) };
    let kinds = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (kind, list) in kinds {
        for (index, hook) in list.iter().enumerate() {
            PreparedHook::new(hook, &format!("hooks.{kind}[{index}]"))?;
        }
    }
    Ok(())
}

/// The process of a plan, if it has one that can be started.
pub fn process(spec: &Spec) -> Result<&Process, Error> {
    spec.process.as_ref().ok_or_else(|| Error::config("process", "is needed to start the container"))
}
