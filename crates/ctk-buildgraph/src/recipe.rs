//! What a person wrote: stages of instructions, before any meaning.
//!
//! Both frontends make one. In a Dockerfile's recipe texts still hold `$variables`; in a native
//! one they are literal, because the project file's own interpolation came first
//! ([`Recipe::expansion`]).

use ctk_syntax::Span;
use serde::Serialize;

use crate::lint::Checks;
use crate::{Access, BaseName, Device, NetworkMode, SecurityMode, Sharing};

/// A file's stages.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// In order; a stage may use any other, but not in a circle.
    pub stages: Vec<RecipeStage>,
    /// `ARG`s before the first stage.
    pub globals: Vec<Arg>,
    /// Whether texts hold variables.
    pub expansion: Expansion,
    /// Which lint rules count.
    pub checks: Checks,
    /// The text that the origins point into, to find a word's own place; empty for a native one.
    pub source: String,
}

/// Whether texts of a recipe hold variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expansion {
    /// Texts are what they are.
    #[default]
    Literal,
    /// As in a Dockerfile: `$NAME`, `${NAME…}`, quotes.
    Dockerfile(Escape),
}

/// The character that takes a meaning away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escape {
    /// `\`
    #[default]
    Backslash,
    /// `` ` ``
    Backtick,
}

impl Escape {
    /// The character.
    pub fn char(self) -> char {
        match self {
            Escape::Backslash => '\\',
            Escape::Backtick => '`',
        }
    }
}

/// A stage.
#[derive(Clone, Debug)]
pub struct RecipeStage {
    /// Lower-case in a Dockerfile's.
    pub name: Option<String>,
    /// What a comment `# name description` above it says.
    pub description: Option<String>,
    /// What it begins with.
    pub from: From,
    /// `--platform` as written.
    pub platform: Option<String>,
    /// In order.
    pub statements: Vec<Statement>,
    /// Where its first line stands.
    pub origin: Option<Span>,
}

/// Where a stage, a copy or a mount takes files from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// The main context (copies and mounts only).
    Context,
    /// A name to be looked up: named context, stage, `scratch`, image reference.
    Text(String),
    /// A stage of this recipe.
    Stage(usize),
    /// A named context.
    Named(String),
    /// An image.
    Base(BaseName),
    /// Nothing.
    Scratch,
}

/// An instruction and its place.
#[derive(Clone, Debug)]
pub struct Statement {
    /// What.
    pub instruction: Instruction,
    /// For progress lines, e.g. `RUN make`; one line.
    pub text: String,
    /// Where.
    pub origin: Option<Span>,
}

/// The instructions of both languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// `ADD`
    Add(Copy),
    /// `ARG`
    Arg(Vec<Arg>),
    /// `CMD`
    Cmd(Command),
    /// `COPY`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `ENV`: names and values.
    Env(Vec<(String, String)>),
    /// `EXPOSE`: `port[-port][/protocol]`.
    Expose(Vec<String>),
    /// `HEALTHCHECK`
    Healthcheck(Health),
    /// `LABEL`: names and values.
    Label(Vec<(String, String)>),
    /// `MAINTAINER`
    Maintainer(String),
    /// `ONBUILD`: the instruction as Dockerfile text.
    Onbuild(String),
    /// OS packages: native only.
    Packages(PackagesSpec),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    Stopsignal(String),
    /// `USER`
    User(String),
    /// An account to create, then `USER`: native only.
    UserEntry(UserEntry),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `WORKDIR`
    Workdir(String),
}

/// A build argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Its name.
    pub name: String,
    /// Its default, not expanded.
    pub default: Option<String>,
    /// What a comment `# name description` above it says.
    pub description: Option<String>,
    /// Where.
    pub origin: Option<Span>,
}

/// A command in one of the two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A line for the stage's shell.
    Shell(String),
    /// Program and arguments.
    Exec(Vec<String>),
}

/// `COPY` and `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Where from.
    pub from: From,
    /// What.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub dest: String,
    /// `--chown`
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`
    pub exclude: Vec<String>,
    /// `--checksum` of `ADD`.
    pub checksum: Option<String>,
    /// `--keep-git-dir` of `ADD`.
    pub keep_git_dir: bool,
    /// `--unpack` of `ADD`.
    pub unpack: Option<bool>,
}

impl Copy {
    /// A plain copy of `sources` from `from` to `dest`.
    pub fn new(from: From, sources: Vec<CopySource>, dest: impl Into<String>) -> Copy {
        Copy {
            from,
            sources,
            dest: dest.into(),
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            checksum: None,
            keep_git_dir: false,
            unpack: None,
        }
    }
}

/// A source of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// A path, a pattern, or for `ADD` a URL.
    Path(String),
    /// A file written in place.
    Inline(Heredoc),
}

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// Its name, without quotes.
    pub name: String,
    /// Its text, tabs stripped if so asked.
    pub content: String,
    /// Whether variables in it are expanded.
    pub expand: bool,
}

/// `RUN`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What runs.
    pub command: Command,
    /// Here-documents after the line.
    pub heredocs: Vec<RunHeredoc>,
    /// `--mount`
    pub mounts: Vec<WrittenMount>,
    /// `--network`
    pub network: NetworkMode,
    /// `--security`
    pub security: SecurityMode,
    /// `--device`
    pub devices: Vec<Device>,
    /// Seconds it may take.
    pub timeout_seconds: Option<u64>,
}

/// A here-document of a `RUN` and how it was introduced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHeredoc {
    /// The document.
    pub document: Heredoc,
    /// The introducing word, e.g. `<<-"EOF"`, as it stands in the line.
    pub word: String,
    /// Its body as written.
    pub raw: String,
}

/// A mount of a `RUN` as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WrittenMount {
    /// `--mount=key=value,…` of a Dockerfile: any value may hold variables. See [`crate::mount_of`].
    Options(Vec<MountOption>),
    /// One without variables.
    Plain(RunMount),
}

/// `key=value` or `key` of a `--mount`; the key in small letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOption {
    /// Its name.
    pub key: String,
    /// What follows the `=`.
    pub value: Option<String>,
}

/// `RUN --mount`, without variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMount {
    /// Where, relative to the working directory; a secret may have none.
    pub target: Option<String>,
    /// Whether the process may write.
    pub access: Access,
    /// What.
    pub kind: RunMountKind,
}

/// What a `RUN --mount` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunMountKind {
    /// Files of a stage, image or context.
    Bind {
        /// Whose.
        from: From,
        /// Path within it.
        source: String,
    },
    /// A directory that survives builds.
    Cache {
        /// Its name; by default the target.
        id: Option<String>,
        /// Who may use it at once.
        sharing: Sharing,
        /// Where its first content comes from; nothing by default.
        from: Option<From>,
        /// Path within it; empty for all of it.
        source: String,
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
    /// A secret.
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
    /// The socket of an ssh agent.
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

/// `HEALTHCHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// The base's check is switched off.
    None,
    /// A check.
    Check {
        /// What runs.
        command: Command,
        /// Nanoseconds between checks; 0 is the default.
        interval: i64,
        /// Nanoseconds a check may take.
        timeout: i64,
        /// Nanoseconds at the start in which failures do not count.
        start_period: i64,
        /// Nanoseconds between checks during the start period.
        start_interval: i64,
        /// Failures in a row that make it unhealthy.
        retries: i64,
    },
}

/// An account to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserEntry {
    /// Name of the user and of its group.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Home directory; not created.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// OS packages to install.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PackagesSpec {
    /// e.g. `debian`.
    pub distro: String,
    /// e.g. `bookworm`.
    pub suite: String,
    /// e.g. `main`; empty is the distribution's default.
    pub components: Vec<String>,
    /// What is there without being named.
    pub variant: String,
    /// Names to install besides those.
    pub install: Vec<String>,
    /// Repository; none means the host's own.
    pub mirror: Option<String>,
    /// Keyring that signs the repository; none means the host's own.
    pub keyring: Option<String>,
    /// Whether maintainer scripts run.
    pub scripts: bool,
    /// Whether recommended packages come too.
    pub recommends: bool,
}
