//! Operations: what a vertex does. Everything here decides a cache key unless it says otherwise.

use std::fmt;

use ctk_oci::{Digest, Platform, Reference};
use ctk_plan::Address;
use serde::Serialize;

use crate::{GitSource, OciLayout};

/// What an image to build on is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BaseName {
    /// An image in a registry or in the store.
    Reference(Reference),
    /// An image of the same project.
    Project(Address),
    /// A stage of an image of the same project.
    ProjectStage(Address, String),
    /// An image of an OCI layout on this machine.
    Layout(OciLayout),
}

impl fmt::Display for BaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BaseName::Reference(reference) => reference.fmt(f),
            BaseName::Project(address) => address.fmt(f),
            BaseName::ProjectStage(address, stage) => write!(f, "{address}/{stage}"),
            BaseName::Layout(layout) => layout.fmt(f),
        }
    }
}

impl Serialize for BaseName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A base for a platform.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseRequest {
    /// Which image.
    pub name: BaseName,
    /// `os/architecture[/variant]` of the wanted manifest.
    pub platform: String,
}

impl BaseRequest {
    /// `name` for `platform`.
    pub fn new(name: BaseName, platform: &Platform) -> BaseRequest {
        BaseRequest { name, platform: platform.to_string() }
    }
}

/// One operation. Input 0 of an [`Op::Exec`] or [`Op::File`] is the tree it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "op")]
pub enum Op {
    /// The empty tree.
    Scratch,
    /// An image's tree. Its key is the manifest's digest; the name is for people.
    Image {
        /// How it was named.
        #[serde(skip)]
        name: BaseName,
        /// The manifest for the platform.
        manifest: Digest,
    },
    /// A directory of the host; its consumers' [`Selection`]s are what counts in keys.
    Local {
        /// Name of the context; `""` is the main one.
        #[serde(skip)]
        context: String,
    },
    /// A file from the web: a tree with that one file. Its key is the digest; the place is for who fetches it.
    Http {
        /// Where from.
        #[serde(skip)]
        url: String,
        /// Name of the file in the tree.
        file_name: String,
        /// What it is.
        digest: Digest,
    },
    /// A checkout.
    Git {
        /// Of what.
        source: GitSource,
        /// Which commit, with all its digits.
        commit: String,
    },
    /// A file that is in the store.
    Blob {
        /// Which.
        digest: Digest,
        /// Name of the file in the tree; none for an archive, whose files are the tree.
        file_name: Option<String>,
    },
    /// A process whose changes are the layer.
    Exec(Box<Exec>),
    /// File operations whose changes are the layer.
    File {
        /// In order.
        actions: Vec<FileAction>,
        /// Apply to an empty tree and lay the result over input 0, whatever that is.
        link: bool,
    },
    /// A tree of OS packages.
    Packages {
        /// Which stage of the recipe says so; finds the locked list.
        #[serde(skip)]
        stage: String,
        /// Digest of the locked list.
        locked: String,
        /// Whether maintainer scripts run.
        scripts: bool,
    },
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exec {
    /// What it runs on.
    pub platform: Platform,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Standard input; empty when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// `NAME=value`, sorted as the config has them.
    pub env: Vec<String>,
    /// Environment that must not decide the key: proxies.
    #[serde(skip)]
    pub unkeyed_env: Vec<String>,
    /// Absolute path.
    pub cwd: String,
    /// `user[:group]`, names or ids; empty is root.
    pub user: String,
    /// Mounts, in order.
    pub mounts: Vec<ExecMount>,
    /// Which network it sees.
    pub network: NetworkMode,
    /// How far it is confined.
    #[serde(skip_serializing_if = "SecurityMode::is_sandbox")]
    pub security: SecurityMode,
    /// Devices of the host that it sees.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// What the whole build gives every process.
    #[serde(skip_serializing_if = "ExecSettings::is_default")]
    pub settings: ExecSettings,
    /// Seconds it may take. Not part of the key.
    #[serde(skip)]
    pub timeout_seconds: Option<u64>,
}

/// What the whole build gives every process, as far as it counts in keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExecSettings {
    /// Another host name than the usual one.
    pub hostname: Option<String>,
    /// Names added to `/etc/hosts`; where they lead does not count.
    pub host_names: Vec<String>,
    /// Bytes of `/dev/shm`.
    pub shm_size_bytes: Option<u64>,
    /// `name=soft:hard`.
    pub ulimits: Vec<String>,
    /// The cgroup above the process' own.
    pub cgroup_parent: Option<String>,
}

impl ExecSettings {
    fn is_default(&self) -> bool {
        *self == ExecSettings::default()
    }
}

/// How far a process is confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecurityMode {
    /// As every build.
    #[default]
    Sandbox,
    /// Hardly: all capabilities and devices.
    Insecure,
}

impl SecurityMode {
    fn is_sandbox(&self) -> bool {
        *self == SecurityMode::Sandbox
    }
}

/// A device of the host that a process sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// A path of the host.
    pub name: String,
    /// Whether its absence is an error.
    pub required: bool,
}

/// Which network a process sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// What the builder gives by default.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// A mount of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExecMount {
    /// Absolute path, or none for a secret that is only a variable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether the process may write.
    pub access: Access,
    /// What is mounted.
    pub kind: MountKind,
}

/// Whether a process may write to a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Only read.
    ReadOnly,
    /// Write; for bind mounts the changes are thrown away.
    ReadWrite,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountKind {
    /// A tree of another vertex.
    Bind {
        /// Index into the vertex' inputs.
        input: usize,
        /// Path within it.
        source: String,
        /// What of a local context it reads.
        #[serde(skip)]
        selection: Option<Selection>,
    },
    /// A directory that survives builds.
    Cache {
        /// Names it.
        id: String,
        /// Who may use it at once.
        sharing: Sharing,
        /// Index into the vertex' inputs of what its first content comes from.
        #[serde(skip_serializing_if = "Option::is_none")]
        input: Option<usize>,
        /// Path within it; empty for all of it.
        #[serde(skip_serializing_if = "String::is_empty")]
        source: String,
        /// What of a local context its first content is.
        #[serde(skip)]
        selection: Option<Selection>,
        /// Mode of a new one.
        mode: u32,
        /// Owner of a new one.
        uid: u32,
        /// Group of a new one.
        gid: u32,
    },
    /// Memory.
    Tmpfs {
        /// Limit in bytes.
        size_bytes: Option<u64>,
    },
    /// A file written in place.
    Inline {
        /// Its text.
        content: String,
        /// Its mode.
        mode: u32,
    },
    /// A secret: never in a key, never in a layer; only its name and place count.
    Secret {
        /// Which.
        id: String,
        /// Variable to give it in.
        env: Option<String>,
        /// Whether its absence is an error.
        required: bool,
        /// Mode of the file.
        mode: u32,
        /// Owner of the file.
        uid: u32,
        /// Group of the file.
        gid: u32,
    },
    /// The socket of an ssh agent; `SSH_AUTH_SOCK` of the process names the first one.
    Ssh {
        /// Which.
        id: String,
        /// Whether its absence is an error.
        required: bool,
        /// Mode of the socket.
        mode: u32,
        /// Owner of the socket.
        uid: u32,
        /// Group of the socket.
        gid: u32,
    },
}

/// Who may use a cache directory at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Everybody.
    #[default]
    Shared,
    /// One at a time; a second user gets a directory of its own.
    Private,
    /// One at a time; a second user waits.
    Locked,
}

/// `user[:group]` of a copy, resolved in the tree that is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Owner(pub String);

/// What becomes of symbolic links among sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Follow {
    /// A named source that is a link is followed; links below it are kept.
    Named,
    /// Links are kept.
    Never,
}

/// One change to a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileAction {
    /// Copies files from another vertex' tree.
    Copy {
        /// Index into the vertex' inputs.
        input: usize,
        /// What a local context gives; its content counts in the key.
        #[serde(skip)]
        selection: Option<Selection>,
        /// Paths or patterns below the input's root, without leading `/`.
        sources: Vec<String>,
        /// Absolute path; a trailing `/` means a directory.
        dest: String,
        /// Owner of everything copied; none means root for what comes from a local context, and as it is for other
        /// trees.
        owner: Option<Owner>,
        /// Mode of everything copied: octal or symbolic.
        mode: Option<String>,
        /// Patterns to leave out.
        exclude: Vec<String>,
        /// Keep the sources' parent directories, from the `./` pivot on.
        parents: bool,
        /// Links among the named sources.
        follow: Follow,
        /// Unpack sources that are archives.
        extract: bool,
    },
    /// Makes a directory and its parents.
    Mkdir {
        /// Absolute path.
        path: String,
        /// Mode of new directories.
        mode: u32,
        /// Owner of new directories.
        owner: Option<Owner>,
    },
    /// Writes a file.
    Mkfile {
        /// Absolute path; a trailing `/` or an existing directory takes `name` below it.
        dest: String,
        /// The file's own name.
        name: String,
        /// Its text.
        content: String,
        /// Mode; none means 0644.
        mode: Option<String>,
        /// Owner; none means root.
        owner: Option<Owner>,
    },
    /// Removes a path and all below it.
    Rm {
        /// Absolute path.
        path: String,
        /// Whether its absence is an error.
        required: bool,
    },
    /// Adds an account to `/etc/passwd`, `/etc/group` (and `/etc/shadow` where there is one).
    AddUser {
        /// Name of the user, and of the group.
        name: String,
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Home directory.
        home: String,
        /// Login shell.
        shell: String,
    },
}

/// What an operation reads of a local context.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Selection {
    /// Name of the context; `""` is the main one.
    pub context: String,
    /// Paths or patterns below its root; an empty one is all of it.
    pub paths: Vec<String>,
    /// Patterns left out.
    pub exclude: Vec<String>,
    /// Whether what a path matches keeps its directories, and `**` is any number of them.
    pub parents: bool,
}
