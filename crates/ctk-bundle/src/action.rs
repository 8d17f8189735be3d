//! What a container's first process does between its making and its program, as values: a plan is a list of these.

use std::ffi::{CStr, CString};
use std::fmt;

use crate::Error;
use crate::spec::{Hook, IdMapping};

/// One thing to do, and the field of `config.json` that asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// As `mounts[3]`; empty if nobody had to ask.
    pub field: String,
    /// What.
    pub action: Action,
}

/// A mount of something that exists already.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bind {
    /// A path of the host.
    pub source: CString,
    /// A path of the container.
    pub at: CString,
    /// With the mounts below it.
    pub recursive: bool,
    /// `MOUNT_ATTR_…` of the mount itself.
    pub set: u64,
    /// `MOUNT_ATTR_…` of the mount itself.
    pub clear: u64,
    /// `MOUNT_ATTR_…` of it and all below.
    pub set_all: u64,
    /// `MOUNT_ATTR_…` of it and all below.
    pub clear_all: u64,
    /// `MS_…` propagation, or 0.
    pub propagation: u64,
    /// Ids shown as others: recursively, user ids, group ids.
    pub map: Option<(bool, Vec<IdMapping>, Vec<IdMapping>)>,
    /// Only what is at this path of it, resolved inside when the mount is made.
    pub inside: Option<String>,
    /// Options of an overlay that is made instead of showing the source.
    pub overlay: Vec<(String, String)>,
}

/// A file system made for the container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fresh {
    /// Its type.
    pub kind: CString,
    /// Its options; an empty value stands for a flag.
    pub options: Vec<(CString, CString)>,
    /// `MOUNT_ATTR_…`.
    pub attributes: u64,
    /// `MS_…` propagation, or 0.
    pub propagation: u64,
    /// A path of the container.
    pub at: CString,
    /// Whether a symbolic link on the way is an error.
    pub no_links: bool,
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Nobody else may look into the process before it is its program.
    Hide,
    /// Waits until its ids are mapped.
    AwaitMappings,
    /// Waits until it was moved into its cgroup.
    AwaitMove,
    /// Becomes root of its user namespace.
    BecomeRoot {
        /// Whether supplementary groups must be dropped; else as far as that is allowed.
        groups: bool,
    },
    /// Goes into the container's cgroups.
    JoinCgroups,
    /// Takes new namespaces.
    Unshare {
        /// `CLONE_NEW…`.
        namespaces: u32,
    },
    /// Joins a namespace.
    Join {
        /// `CLONE_NEW…`.
        namespace: u32,
        /// Its file.
        path: CString,
    },
    /// Joins namespaces of the container's first process.
    JoinContainer,
    /// A session keyring.
    Keyring(CString),
    /// The loopback interface.
    Loopback,
    /// The host name.
    HostName(String),
    /// The NIS domain name.
    DomainName(String),
    /// A kernel setting.
    Setting {
        /// Below `/proc/sys`.
        path: CString,
        /// Its value.
        value: String,
    },
    /// How mounts of the host show here.
    Propagation(u64),
    /// Attaches the root.
    PlaceRoot {
        /// Where it is prepared.
        at: CString,
    },
    /// Shows something of the host.
    Bind(Bind),
    /// Makes and attaches a file system.
    Fresh(Fresh),
    /// Makes and attaches a tmpfs that holds what the directory held.
    CopyUp(Fresh),
    /// Shows a cgroup of the container: which of its hierarchies, and where.
    CgroupDirectory {
        /// The name of its directory on the host.
        name: String,
        /// A path of the container.
        at: CString,
    },
    /// Changes attributes of a mount.
    Remount {
        /// Where.
        at: CString,
        /// With all below.
        recursive: bool,
        /// `MOUNT_ATTR_…`.
        set: u64,
        /// `MS_…` propagation, or 0.
        propagation: u64,
    },
    /// Makes a directory.
    Directory {
        /// Where.
        at: CString,
    },
    /// Makes a device node.
    Node {
        /// Where.
        at: CString,
        /// With the type.
        mode: u32,
        /// Major and minor number.
        device: (u32, u32),
        /// User and group.
        owner: (u32, u32),
    },
    /// Makes a link.
    Link {
        /// Where it leads.
        target: CString,
        /// Where it is.
        at: CString,
    },
    /// Waits while the runtime runs hooks and moves network devices.
    HostHooks,
    /// Runs a hook.
    Hook(PreparedHook),
    /// Makes the root the only one.
    Enter {
        /// By `pivot_root`.
        pivot: bool,
    },
    /// Opens a terminal and makes it the standard streams.
    Terminal {
        /// Its owner.
        owner: (u32, u32),
        /// Lines and columns.
        size: (u16, u16),
        /// Whether `/dev/console` shows it.
        console: bool,
    },
    /// Hides a path.
    Mask(CString),
    /// Makes a path read-only.
    ReadOnly(CString),
    /// Starts a session.
    Session,
    /// Takes the terminal.
    TakeTerminal,
    /// A resource limit.
    Rlimit {
        /// Its name.
        name: String,
        /// `RLIMIT_…`.
        resource: u32,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
    },
    /// The execution domain.
    Personality(u64),
    /// Priority of input and output.
    IoPriority(u32),
    /// Scheduling policy, as `struct sched_attr`.
    Scheduler(Vec<u8>),
    /// The processors it may run on.
    Affinity(Vec<u64>),
    /// Where memory comes from.
    MemoryPolicy {
        /// Mode and flags.
        mode: u32,
        /// One bit each.
        nodes: Vec<u64>,
    },
    /// What a program can ever have.
    BoundingSet(u64),
    /// Files that survive: those below this number.
    CloseFrom(u32),
    /// The file mode creation mask.
    Umask(u32),
    /// Changes to the working directory.
    WorkingDirectory(CString),
    /// Default signals.
    ResetSignals,
    /// Confines system calls.
    Seccomp,
    /// Gives up changing mounts, or reaching others, by Landlock.
    Landlock {
        /// `LANDLOCK_ACCESS_FS_…`, kept below the root.
        files: u64,
        /// `LANDLOCK_SCOPE_…`.
        scoped: u64,
    },
    /// Keeps capabilities while the user changes.
    KeepCapabilities,
    /// Supplementary groups.
    Groups {
        /// Their ids.
        groups: Vec<u32>,
        /// Whether it is as good that they may not be changed.
        optional: bool,
    },
    /// The group.
    Gid(u32),
    /// The user.
    Uid(u32),
    /// Capability sets: effective, permitted, inheritable, ambient.
    Capabilities([u64; 4]),
    /// No new privileges from here on.
    NoNewPrivileges,
    /// Asks for a label of the security module.
    Label {
        /// The file of `/proc/thread-self/attr`.
        path: CString,
        /// The label.
        text: String,
    },
    /// Looks whether the program is there.
    Look,
    /// Says that everything is ready, and waits for the start.
    Started,
    /// Becomes the program.
    Execute,
}

/// A hook in C strings.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedHook {
    /// The program.
    pub path: CString,
    /// Its arguments with its name.
    pub args: Vec<CString>,
    /// Its environment.
    pub env: Vec<CString>,
    /// Seconds; negative: for ever.
    pub timeout: i64,
}

impl PreparedHook {
    /// Checks a hook.
    pub fn new(hook: &Hook, field: &str) -> Result<PreparedHook, Error> {
        if !hook.path.starts_with('/') {
            return Err(Error::config(&format!("{field}.path"), format!("`{}` is not absolute", hook.path)));
        }
        if hook.timeout.is_some_and(|seconds| seconds <= 0) {
            return Err(Error::config(&format!("{field}.timeout"), "must be more than 0 seconds"));
        }
        let all = |list: &[String], name: &str| {
            list.iter()
                .enumerate()
                .map(|(i, one)| text(one, &format!("{field}.{name}[{i}]")))
                .collect::<Result<Vec<_>, _>>()
        };
        let path = text(&hook.path, &format!("{field}.path"))?;
        let mut args = all(&hook.args, "args")?;
        if args.is_empty() {
            args.push(path.clone());
        }
        Ok(PreparedHook { path, args, env: all(&hook.env, "env")?, timeout: hook.timeout.unwrap_or(-1) })
    }
}

/// A C string; a NUL inside is a mistake of the field. The text itself is not shown: it may be a secret.
pub fn text(text: &str, field: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::config(field, "has a NUL inside"))
}

fn show(text: &CStr) -> std::borrow::Cow<'_, str> {
    text.to_string_lossy()
}

/// `MOUNT_ATTR_…` as words.
fn attribute_words(attributes: u64) -> String {
    let names = [
        (0x01, "ro"),
        (0x02, "nosuid"),
        (0x04, "nodev"),
        (0x08, "noexec"),
        (0x10, "noatime"),
        (0x20, "strictatime"),
        (0x80, "nodiratime"),
        (0x20_0000, "nosymfollow"),
    ];
    let words: Vec<&str> = names.iter().filter(|(bit, _)| attributes & bit != 0).map(|(_, name)| *name).collect();
    words.join(",")
}

fn propagation_words(flags: u64) -> String {
    let names = [
        (libc::MS_SHARED, "shared"),
        (libc::MS_SLAVE, "slave"),
        (libc::MS_PRIVATE, "private"),
        (libc::MS_UNBINDABLE, "unbindable"),
    ];
    let name = names.iter().find(|(bit, _)| flags & bit != 0).map_or("", |(_, name)| name);
    format!("{}{name}", if flags & libc::MS_REC != 0 { "r" } else { "" })
}

/// Namespaces by their flags.
pub const NAMESPACES: [(&str, u32); 8] = [
    ("cgroup", libc::CLONE_NEWCGROUP as u32),
    ("ipc", libc::CLONE_NEWIPC as u32),
    ("mount", libc::CLONE_NEWNS as u32),
    ("network", libc::CLONE_NEWNET as u32),
    ("pid", libc::CLONE_NEWPID as u32),
    ("time", 0x80),
    ("user", libc::CLONE_NEWUSER as u32),
    ("uts", libc::CLONE_NEWUTS as u32),
];

/// Names of the namespaces that flags stand for.
pub fn namespace_words(flags: u32) -> String {
    let words: Vec<&str> = NAMESPACES.iter().filter(|(_, bit)| flags & bit != 0).map(|(name, _)| *name).collect();
    words.join(" and ")
}

/// As it follows "failed to".
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Hide => write!(f, "hide from other processes"),
            Action::AwaitMove => write!(f, "wait to be moved into its cgroup"),
            Action::AwaitMappings => write!(f, "wait for the mapping of ids"),
            Action::BecomeRoot { groups: true } => write!(f, "become root of the user namespace"),
            Action::BecomeRoot { groups: false } => {
                write!(f, "become root of the user namespace, without groups where that is allowed")
            }
            Action::JoinCgroups => write!(f, "join the container's cgroups"),
            Action::Unshare { namespaces } => write!(f, "make a {} namespace", namespace_words(*namespaces)),
            Action::Join { namespace, path } => {
                write!(f, "join the {} namespace `{}`", namespace_words(*namespace), show(path))
            }
            Action::JoinContainer => write!(f, "join the container's namespaces"),
            Action::Keyring(name) => write!(f, "join the session keyring `{}`", show(name)),
            Action::Loopback => write!(f, "bring up the loopback interface"),
            Action::HostName(name) => write!(f, "set the host name `{name}`"),
            Action::DomainName(name) => write!(f, "set the domain name `{name}`"),
            Action::Setting { path, value } => {
                write!(f, "set the kernel setting `{}` to `{value}`", show(path).replace('/', "."))
            }
            Action::Propagation(flags) => write!(f, "make the host's mounts {}", propagation_words(*flags)),
            Action::PlaceRoot { at } => write!(f, "attach the root file system at `{}`", show(at)),
            Action::Bind(bind) => {
                write!(
                    f,
                    "{} `{}` to `{}`",
                    if bind.recursive { "rbind" } else { "bind" },
                    show(&bind.source),
                    show(&bind.at)
                )?;
                if let Some(inside) = &bind.inside {
                    write!(f, " inside `{inside}`")?;
                }
                for (name, value) in &bind.overlay {
                    write!(f, " {name}={value}")?;
                }
                let parts = [
                    (" set ", bind.set, " "),
                    (" clear ", bind.clear, " "),
                    (" set all ", bind.set_all, " "),
                    (" clear all ", bind.clear_all, " "),
                ];
                for (word, bits, _) in parts.iter().filter(|(_, bits, _)| *bits != 0) {
                    write!(f, "{word}{}", attribute_words(*bits))?;
                }
                if bind.propagation != 0 {
                    write!(f, " {}", propagation_words(bind.propagation))?;
                }
                match &bind.map {
                    Some((recursive, uid, gid)) => {
                        write!(f, " {} uid {} gid {}", if *recursive { "ridmap" } else { "idmap" }, ids(uid), ids(gid))
                    }
                    None => Ok(()),
                }
            }
            Action::Fresh(fresh) => write!(f, "mount {fresh}"),
            Action::CopyUp(fresh) => write!(f, "mount, with what is there, {fresh}"),
            Action::CgroupDirectory { name, at } => write!(f, "show the cgroup of `{name}` at `{}`", show(at)),
            Action::Remount { at, recursive, set, propagation } => {
                let what = [
                    attribute_words(*set),
                    if *propagation == 0 { String::new() } else { propagation_words(*propagation) },
                ];
                let what: Vec<&str> = what.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
                write!(f, "make {}`{}` {}", if *recursive { "all of " } else { "" }, show(at), what.join(" "))
            }
            Action::Directory { at } => write!(f, "make the directory `{}`", show(at)),
            Action::Node { at, mode, device, owner } => {
                let kind = match mode & libc::S_IFMT {
                    libc::S_IFCHR => "character device",
                    libc::S_IFBLK => "block device",
                    _ => "pipe",
                };
                let (major, minor) = device;
                write!(
                    f,
                    "make the {kind} `{}` {major}:{minor} {:04o} {}:{}",
                    show(at),
                    mode & 0o7777,
                    owner.0,
                    owner.1
                )
            }
            Action::Link { target, at } => write!(f, "link `{}` to `{}`", show(at), show(target)),
            Action::HostHooks => write!(f, "wait for the runtime's hooks"),
            Action::Hook(hook) => write!(f, "run the hook `{}`", show(&hook.path)),
            Action::Enter { pivot: true } => write!(f, "enter the root file system"),
            Action::Enter { pivot: false } => write!(f, "enter the root file system by chroot"),
            Action::Terminal { owner, size, console } => {
                write!(f, "open a terminal of {}x{} for {}:{}", size.0, size.1, owner.0, owner.1)?;
                if *console { write!(f, " with /dev/console") } else { Ok(()) }
            }
            Action::Mask(path) => write!(f, "mask `{}`", show(path)),
            Action::ReadOnly(path) => write!(f, "make `{}` read-only", show(path)),
            Action::Session => write!(f, "start a session"),
            Action::TakeTerminal => write!(f, "take the terminal"),
            Action::Rlimit { name, soft, hard, .. } => write!(f, "set the resource limit {name} to {soft}:{hard}"),
            Action::Personality(persona) => write!(f, "set the personality {persona:#x}"),
            Action::IoPriority(value) => write!(f, "set the I/O priority {value:#x}"),
            Action::Scheduler(_) => write!(f, "set the scheduling policy"),
            Action::Affinity(mask) => write!(f, "set the processors {mask:x?}"),
            Action::MemoryPolicy { mode, nodes } => write!(f, "set the memory policy {mode:#x} {nodes:x?}"),
            Action::BoundingSet(set) => write!(f, "drop capabilities outside {set:#x}"),
            Action::CloseFrom(from) => write!(f, "close files from {from} on"),
            Action::Umask(mask) => write!(f, "set the file mode mask {mask:04o}"),
            Action::WorkingDirectory(path) => write!(f, "change to the working directory `{}`", show(path)),
            Action::ResetSignals => write!(f, "reset signals"),
            Action::Seccomp => write!(f, "confine system calls"),
            Action::Landlock { files, scoped } => {
                write!(f, "give up by landlock: {}", crate::landlock::words(*files, *scoped))
            }
            Action::KeepCapabilities => write!(f, "keep capabilities"),
            Action::Groups { groups, optional: false } => write!(f, "set the groups {groups:?}"),
            Action::Groups { groups, optional: true } => write!(f, "set the groups {groups:?} where that is allowed"),
            Action::Gid(gid) => write!(f, "become group {gid}"),
            Action::Uid(uid) => write!(f, "become user {uid}"),
            Action::Capabilities([effective, permitted, inheritable, ambient]) => {
                write!(f, "set the capabilities {effective:#x} {permitted:#x} {inheritable:#x} {ambient:#x}")
            }
            Action::NoNewPrivileges => write!(f, "give up new privileges"),
            Action::Label { path, text } => write!(f, "set the label `{text}` by {}", show(path)),
            Action::Look => write!(f, "find the program"),
            Action::Started => write!(f, "wait for the start"),
            Action::Execute => write!(f, "execute the program"),
        }
    }
}

impl fmt::Display for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at `{}`", show(&self.kind), show(&self.at))?;
        let words = attribute_words(self.attributes);
        if !words.is_empty() {
            write!(f, " {words}")?;
        }
        for (name, value) in &self.options {
            match value.is_empty() {
                true => write!(f, " {}", show(name))?,
                false => write!(f, " {}={}", show(name), show(value))?,
            }
        }
        if self.propagation != 0 {
            write!(f, " {}", propagation_words(self.propagation))?;
        }
        Ok(())
    }
}

/// As `uid_map` of `/proc` has them, in one line.
pub fn ids(list: &[IdMapping]) -> String {
    let one = |m: &IdMapping| format!("{}:{}:{}", m.container_id, m.host_id, m.size);
    list.iter().map(one).collect::<Vec<_>>().join(",")
}
