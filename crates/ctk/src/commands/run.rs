//! `ctk run`: a command in a new container, from the process itself. Its exit code is ours.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Args, ValueEnum};
use ctk_container::{Container, ExitStatus, Limits, Network, RunOptions, Stdin, Stdio};
use ctk_oci::{Descriptor, ImageConfig, Index, Manifest, Mount, Platform, media_type};
use ctk_plan::{Address, Cancel, Kind, Reporter};
use ctk_snapshot::Snapshots;
use ctk_store::{Depth, Fetch, Store};

use super::images::manifests;
use super::project::{ProjectArgs, pair};
use crate::context::Context;
use crate::failure::{Failure, code};
use crate::signals;

/// Run a command in a new container
#[derive(Args)]
pub struct Run {
    /// A name in the store or in a registry, or `image:NAME` of the project
    image: String,
    /// The command and its arguments, instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable; a name alone takes our value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file, one NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Run in this folder
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// Use this program instead of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Mount a folder or file of the host
    #[arg(short, long, value_name = "HOST:PATH[:ro]")]
    volume: Vec<String>,
    /// Mount a temporary file system
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// What it can reach
    #[arg(long, value_enum, default_value_t = Net::None)]
    network: Net,
    /// Its host name
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Make its root read-only
    #[arg(long)]
    read_only: bool,
    /// Memory it may use, e.g. `512MiB`; 0 is no limit
    #[arg(short, long, value_name = "SIZE", value_parser = bytes)]
    memory: Option<u64>,
    /// CPUs it may use, e.g. `1.5`; 0 is no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = cpu_millis)]
    cpus: Option<u64>,
    /// Processes it may have; 0 or -1 is no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Give it a capability
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Take a capability from it
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// Stop it after this long, e.g. `30s`; 0 is no limit
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// When to fetch the image
    #[arg(long, value_enum, default_value_t = Pull::Missing)]
    pull: Pull,
    /// Which member of an index [default: this machine's]
    #[arg(long)]
    platform: Option<Platform>,
    /// Containers are always removed; accepted because fingers know it
    #[arg(long, hide = true)]
    rm: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Net {
    /// Its own loopback only.
    None,
    /// The host's network.
    Host,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Pull {
    /// Fetch it each time.
    Always,
    /// Fetch it if it is not in the store.
    Missing,
    /// Never fetch it.
    Never,
}

impl Run {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let status = match self.start(context) {
            Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            Err(failure) => Started::Refused(code::RUN_FAILED, failure),
            Ok(status) => status,
        };
        match status {
            Started::Ended(ExitStatus::Code(0)) => Ok(()),
            Started::Ended(status) => {
                match status {
                    ExitStatus::Oom => eprintln!("ctk: the container ran out of memory"),
                    ExitStatus::TimedOut => eprintln!("ctk: the container ran longer than --timeout allows"),
                    _ => {}
                }
                Err(Failure::Exit(status.shell_code() as u8))
            }
            Started::Refused(exit, failure) => {
                eprint!("{}", failure.text());
                Err(Failure::Exit(exit))
            }
        }
    }

    fn start(&self, context: &Context) -> Result<Started, Failure> {
        let cancel = Cancel::new();
        let store = context.store()?;
        ctk_container::cleanup_stale(&context.state_directory())?;
        let (name, descriptor) = self.image(context, &store, &cancel)?;
        let (manifest, config) = documents(&store, &name, &descriptor, self.platform.as_ref())?;
        let snapshots = Snapshots::open(&store);
        let layers = snapshots.unpack_image(&manifest, None, &cancel)?;
        let view = snapshots.view(&layers)?;

        let mut options = RunOptions::new(view.root_mount()?, &config.config, context.state_directory());
        self.fill(context, &mut options)?;
        let terminal = self.tty;
        // Before the container starts: a signal that comes between waits for it.
        let target = Target::default();
        let hears = target.clone();
        signals::forward(move |signal| hears.signal(signal));
        let container = match ctk_container::run(options) {
            Ok(container) => container,
            Err(error) => {
                let exit = refusal_code(&error);
                return Ok(Started::Refused(exit, error.into()));
            }
        };
        let container = Arc::new(container);
        target.start(container.clone());
        let status = match terminal {
            true => {
                ctk_container::relay_terminal(&container, std::io::stdin().as_fd(), std::io::stdout().as_fd(), &cancel)?
            }
            false => container.wait(&cancel)?,
        };
        Ok(Started::Ended(status))
    }

    /// The image in the store; built or fetched if it is not there.
    fn image(&self, context: &Context, store: &Store, cancel: &Cancel) -> Result<(String, Descriptor), Failure> {
        let found = match self.pull {
            Pull::Always if !self.image.starts_with("image:") => None,
            _ => context.find(store, &self.image)?,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        if let Some(name) = self.image.strip_prefix("image:") {
            let session = ProjectArgs::default().open(context)?;
            let only = context.explain(session.select_kind(Kind::Image, &[name.to_owned()]))?;
            let request = ctk_apply::Request { only, ..ctk_apply::Request::default() };
            let applied = session.apply(&request, context.sink(), cancel);
            context.explain(applied)?;
            return context.require(store, &self.image);
        }
        let reference = self.image.parse::<ctk_oci::Reference>()?.or_latest();
        // `localhost` without a port names what only the store has.
        if self.pull == Pull::Never || reference.registry() == "localhost" {
            return context.require(store, &self.image);
        }
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let reporter = Reporter::new(Address::new(Kind::Image, reference.to_string()), context.sink());
        let fetch = ctk_client::RegistryFetch::new(context.client());
        let fetched = fetch.fetch(&reference, Some(&platform), Depth::Layers, store, &reporter, cancel);
        context.end_story();
        let descriptor = fetched.map_err(|error| {
            let denied = matches!(error, ctk_store::FetchError::Denied { .. });
            let hint = denied.then(|| format!("`ctk login {}`", reference.registry()));
            Failure::Error { code: None, error: Box::new(error), hint }
        })?;
        store.set_reference(&reference.to_string(), &ctk_store::Ref::new(descriptor.clone()))?;
        Ok((reference.to_string(), descriptor))
    }

    fn fill(&self, context: &Context, options: &mut RunOptions<'_>) -> Result<(), Failure> {
        options.args = (!self.command.is_empty()).then(|| self.command.clone());
        options.entrypoint = self.entrypoint.as_ref().map(|program| vec![program.clone()]);
        for file in &self.env_file {
            let text = ctk_store::read_given_text(file)
                .map_err(|e| Failure::sentence(format!("cannot read {}: {e}", file.display()), None))?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            for line in lines {
                let (name, value) =
                    pair(line).map_err(|e| Failure::sentence(format!("{}: `{line}`: {e}", file.display()), None))?;
                options.env.push(format!("{name}={value}"));
            }
        }
        for entry in &self.env {
            match entry.contains('=') {
                true => options.env.push(entry.clone()),
                false => options.env.extend(context.environment().get(entry).map(|value| format!("{entry}={value}"))),
            }
        }
        options.user = self.user.clone();
        options.workdir = self.workdir.clone();
        options.hostname = self.hostname.clone();
        options.read_only = self.read_only;
        options.timeout = self.timeout.filter(|timeout| !timeout.is_zero());
        options.security.add_capabilities = self.cap_add.clone();
        options.security.drop_capabilities = self.cap_drop.clone();
        options.limits = Limits {
            memory_bytes: self.memory.filter(|bytes| *bytes > 0),
            cpu_millis: self.cpus.filter(|millis| *millis > 0),
            pids: self.pids_limit.and_then(|pids| u64::try_from(pids).ok()).filter(|pids| *pids > 0),
            ..Limits::default()
        };
        options.network = match self.network {
            Net::None => Network::None,
            Net::Host => Network::Host,
        };
        for volume in &self.volume {
            options.mounts.push(volume_mount(volume)?);
        }
        for tmpfs in &self.tmpfs {
            let (path, settings) = tmpfs.split_once(':').unwrap_or((tmpfs, ""));
            let settings: Vec<&str> = settings.split(',').filter(|s| !s.is_empty()).collect();
            options.mounts.push(Mount::new("tmpfs", "tmpfs", path, &settings));
        }
        options.stdin = if self.interactive { Stdin::Inherit } else { Stdin::Null };
        if self.tty {
            if !std::io::stdin().is_terminal() {
                return Err(Failure::sentence("--tty needs a terminal on standard input", Some("leave --tty out")));
            }
            options.stdio = Stdio::Terminal;
        }
        Ok(())
    }
}

/// Who signals go to: the container, once there is one.
#[derive(Clone, Default)]
struct Target(Arc<Mutex<Signalled>>);

#[derive(Default)]
struct Signalled {
    container: Option<Arc<Container>>,
    waiting: Vec<i32>,
}

impl Target {
    fn signal(&self, signal: i32) {
        let mut state = self.0.lock().expect("no holder panics");
        match &state.container {
            // It may have ended a moment ago.
            Some(container) => drop(container.signal(signal)),
            None => state.waiting.push(signal),
        }
    }

    fn start(&self, container: Arc<Container>) {
        let mut state = self.0.lock().expect("no holder panics");
        for signal in std::mem::take(&mut state.waiting) {
            drop(container.signal(signal));
        }
        state.container = Some(container);
    }
}

enum Started {
    Ended(ExitStatus),
    Refused(u8, Failure),
}

/// 127 if there is no such program, 126 if it cannot be executed, as shells say; 125 for everything else.
fn refusal_code(error: &ctk_container::Error) -> u8 {
    match error {
        ctk_container::Error::Runtime(ctk_runtime::Error::Execute { source, .. }) => match source.kind() {
            std::io::ErrorKind::NotFound => code::NOT_FOUND,
            _ => code::NOT_EXECUTABLE,
        },
        _ => code::RUN_FAILED,
    }
}

/// The manifest and config for `platform`.
fn documents(
    store: &Store,
    name: &str,
    descriptor: &Descriptor,
    platform: Option<&Platform>,
) -> Result<(Manifest, ImageConfig), Failure> {
    let host = Platform::host();
    let asked = platform;
    let platform = platform.unwrap_or(&host);
    let members = Index::new(manifests(store, descriptor)?);
    let chosen = match media_type::is_index(&descriptor.media_type) {
        true => members.select(platform),
        false => members.manifests.first(),
    };
    let none = || {
        let hint = "`ctk inspect` shows its platforms here; `--pull always` asks the registry";
        Failure::sentence(format!("`{name}` has no image for {platform}"), Some(hint))
    };
    let chosen = chosen.ok_or_else(none)?;
    let manifest = store.document::<Manifest>("image manifest", chosen)?.into_value();
    let config = store.document::<ImageConfig>("image config", &manifest.config)?.into_value();
    // An image alone says in its config what it is for.
    if asked.is_some_and(|platform| platform.rank(&config.platform()).is_none()) {
        return Err(none());
    }
    Ok((manifest, config))
}

/// `HOST:PATH[:ro|rw]`.
fn volume_mount(text: &str) -> Result<Mount, Failure> {
    let wrong = || Failure::sentence(format!("`{text}` is no volume; expected HOST:PATH[:ro]"), None);
    let parts: Vec<&str> = text.split(':').collect();
    let (host, path, mode) = match parts.as_slice() {
        [host, path] => (host, path, "rw"),
        [host, path, mode @ ("ro" | "rw")] => (host, path, *mode),
        _ => return Err(wrong()),
    };
    if !path.starts_with('/') {
        return Err(wrong());
    }
    let source =
        Path::new(host).canonicalize().map_err(|e| Failure::sentence(format!("cannot mount {host}: {e}"), None))?;
    Ok(Mount::new("bind", &source.to_string_lossy(), path, &["rbind", mode]))
}

fn bytes(text: &str) -> Result<u64, String> {
    ctk_syntax::parse_size(text).ok_or_else(|| "expected a size such as `512MiB`".into())
}

/// Thousandths of a CPU.
fn cpu_millis(text: &str) -> Result<u64, String> {
    let cpus: Option<f64> = text.parse().ok().filter(|cpus| (0.0..=100_000.0).contains(cpus));
    cpus.map(|cpus| (cpus * 1000.0) as u64).ok_or_else(|| "expected a number such as `1.5`".into())
}

fn duration(text: &str) -> Result<Duration, String> {
    ctk_syntax::parse_duration(text).ok_or_else(|| "expected a duration such as `30s`".into())
}
