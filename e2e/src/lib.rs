//! The harness of the end-to-end cases: a world of its own for each, the real binary, peers that are required.
//!
//! A case makes a [`World`], writes or copies a project into it, runs `ctk` there and looks at what came out, best
//! through somebody else's eyes ([`World::peer`]). Nothing leaves the machine except to its package mirrors.

pub mod agreed;
pub mod bases;
pub mod bundle;
pub mod corpus;
pub mod differences;
pub mod emulator;
pub mod engine;
pub mod front;
pub mod git;
pub mod image;
pub mod listing;
pub mod machine;
pub mod ordinary;
pub mod peers;
pub mod sshd;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The folder of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e is a folder of the workspace")
}

/// Where Cargo builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The binary under test: `CTK_BINARY`, else what was built last.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CTK_BINARY") {
        return path.into();
    }
    let built = ["release/ctk", "debug/ctk"].map(|name| target().join(name)).into_iter().filter(|path| path.exists());
    let modified = |path: &PathBuf| fs::metadata(path).and_then(|m| m.modified()).ok();
    built.max_by_key(modified).expect("build ctk first: `cargo build --release --package ctk`")
}

/// Whether `ability` is there; if not, says so, and fails where `CTK_TEST_REQUIRE=1` requires everything.
pub fn has(ability: &str, there: bool) -> bool {
    if !there {
        assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs {ability}, and CTK_TEST_REQUIRE is set");
        eprintln!("skipped: needs {ability}");
    }
    there
}

/// Whether every one of `programs` is installed.
pub fn has_programs(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    programs.iter().all(|program| has(program, found(program)))
}

/// Whether we are root, which building and running need here.
pub fn is_root() -> bool {
    has("root", rustix::process::geteuid().is_root())
}

/// What a process printed and how it ended.
pub struct Output {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What was run.
    pub line: String,
    /// How long it took.
    pub took: Duration,
}

impl Output {
    /// The exit code; 128 + signal if a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Asserts success and gives standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{}", self.story());
        self.out
    }

    /// Asserts this exit code and gives standard error.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code(), code, "{}", self.story());
        self.err
    }

    /// Everything, for a failed assertion.
    pub fn story(&self) -> String {
        format!("{}\n{}\n--- out\n{}\n--- err\n{}", self.line, self.status, self.out, self.err)
    }
}

/// Asserts that `text` has every one of `parts`.
#[track_caller]
pub fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

/// A folder for a project, a home and a store.
pub struct World {
    folder: TempDir,
    store: PathBuf,
    user: Option<ordinary::User>,
}

impl World {
    /// A world with a store of its own.
    pub fn new() -> World {
        let folder = tempfile::Builder::new().prefix("ctk-e2e-").tempdir_in("/var/tmp").expect("a temporary folder");
        fs::create_dir_all(folder.path().join("project")).expect("a project folder");
        fs::create_dir_all(folder.path().join("home")).expect("a home folder");
        let store = folder.path().join("store");
        World { folder, store, user: None }
    }

    /// A world that shares its store with others, so that OS packages are fetched and bases built once.
    pub fn shared() -> World {
        let mut world = World::new();
        world.store = target().join("e2e-store");
        world
    }

    /// The same for an ordinary user, who owns it all.
    pub fn of(user: ordinary::User) -> World {
        let mut world = World::new();
        world.user = Some(user);
        fs::create_dir(world.path("run")).expect("a folder");
        fs::set_permissions(world.path("run"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("a mode");
        fs::set_permissions(world.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
        world.give(world.folder.path());
        world
    }

    /// The ordinary user's world with a store that further cases share; root's is another one.
    pub fn shared_of(user: ordinary::User) -> World {
        let mut world = World::of(user);
        world.store = target().join("e2e-store-ordinary");
        fs::create_dir_all(&world.store).expect("a folder");
        if let Some(user) = &world.user {
            std::os::unix::fs::chown(&world.store, Some(user.uid), Some(user.uid)).expect("an owner");
        }
        world
    }

    /// The ordinary user whose world it is.
    pub fn user(&self) -> Option<&ordinary::User> {
        self.user.as_ref()
    }

    /// Gives a path and all below to whose world it is.
    pub fn give(&self, path: &Path) {
        if let Some(user) = &self.user {
            user.give(path);
        }
    }

    /// The project's folder.
    pub fn project(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    /// The store's folder.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// A path beside the project.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &World {
        let path = self.project().join(name);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder");
        fs::write(&path, content).expect("a file");
        self.give(&self.project());
        self
    }

    /// Reads a file of the project.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.project().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Copies a folder of the workspace, without what applying it there left behind.
    pub fn copy(&self, folder: &str) -> &World {
        let status = Command::new("cp").arg("-a").arg(workspace().join(folder).join(".")).arg(self.project()).status();
        assert!(status.expect("cp").success());
        for left in ["dist", ".ctk"] {
            let _ = fs::remove_dir_all(self.project().join(left));
        }
        self.give(&self.project());
        self
    }

    /// `ctk` in the project's folder, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.user {
            Some(user) => user.command(binary()),
            None => Command::new(binary()),
        };
        command.args(arguments).current_dir(self.project()).stdin(Stdio::null());
        command.env("CTK_ROOT", &self.store).env("HOME", self.folder.path().join("home"));
        command.env_remove("DOCKER_CONFIG").env_remove("REGISTRY_AUTH_FILE").env("NO_COLOR", "1");
        // Nothing touches the host's network, unless a case is about networks.
        command.env("CTK_NETWORK", "none");
        command
    }

    /// Runs `ctk` in the project's folder.
    pub fn ctk(&self, arguments: &[&str]) -> Output {
        run(self.command(arguments))
    }

    /// Starts `ctk` and leaves it running.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ctk")
    }

    /// Runs somebody else's program in the project's folder, as whose world it is.
    pub fn peer<S: AsRef<OsStr>>(&self, program: &str, arguments: &[S]) -> Output {
        let mut command = match &self.user {
            Some(user) => user.command(program),
            None => Command::new(program),
        };
        command.args(arguments).current_dir(self.project()).env("HOME", self.folder.path().join("home"));
        if self.user.is_some() {
            command.env("XDG_RUNTIME_DIR", self.path("run"));
        }
        run(command)
    }

    /// podman with storage of this world's own.
    pub fn podman(&self, arguments: &[&str]) -> Output {
        let (root, run_root) = (self.path("podman"), self.path("podman-run"));
        let own = ["--root".into(), root.into_os_string(), "--runroot".into(), run_root.into_os_string()];
        let arguments: Vec<_> = own.into_iter().chain(arguments.iter().map(Into::into)).collect();
        self.peer("podman", &arguments)
    }
}

impl Default for World {
    fn default() -> World {
        World::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What a failed case left running.
        if self.store.join("containers").exists() && self.store.starts_with(self.folder.path()) {
            let _ = self.command(&["rm", "--all", "--force", "--time", "0"]).stdout(Stdio::null()).status();
        }
        // podman keeps its storage mounted.
        let storage = self.path("podman");
        if storage.exists() {
            let overlay = storage.join("overlay");
            let _ = Command::new("umount").arg("-l").arg(overlay).stderr(Stdio::null()).status();
        }
    }
}

/// Runs `command` to its end.
pub fn run(mut command: Command) -> Output {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let started = Instant::now();
    let output = command.output().unwrap_or_else(|error| panic!("{line}: {error}"));
    Output {
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        status: output.status,
        line,
        took: started.elapsed(),
    }
}

/// Asks `ready` until it says yes; panics after `limit`.
#[track_caller]
pub fn eventually(limit: Duration, what: &str, mut ready: impl FnMut() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A port of the loopback interface that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}
