//! Containers that outlive their maker: one file a command, and what they share.
//!
//! ```text
//! options.rs, parse.rs              what is asked for, as text
//! make.rs and limits, namespaces,   text becomes a container's directory
//!   security, network, files, image
//! run, start, stop, …               the commands
//! ```

pub mod attach;
mod change;
pub mod commit;
pub mod cp;
pub mod create;
mod devices;
pub mod diff;
pub mod events;
pub mod exec;
pub mod export;
mod files;
pub mod healthcheck;
mod identity;
mod image;
pub mod inspect;
pub mod kill;
pub mod limits;
pub mod logs;
mod make;
mod mounts;
mod namespaces;
mod network;
pub mod options;
pub mod parse;
pub mod pause;
pub mod port;
pub mod prune;
pub mod ps;
mod reach;
pub mod rename;
pub mod rm;
pub mod run;
pub mod secrets;
mod security;
pub mod services;
pub mod start;
pub mod stats;
pub mod stop;
mod table;
mod template;
pub mod top;
pub mod update;
pub mod volume;
pub mod wait;
mod zone;

use std::path::PathBuf;
use std::time::Duration;

use ctk_monitor::state::{State, Status};
use ctk_monitor::{Client, Container, Containers, protocol};

pub use table::{Table, shown};

use crate::context::Context;
use crate::failure::Failure;

/// Where containers are found, and what looks after them.
pub struct Desk {
    /// All of them.
    pub containers: Containers,
    /// The monitor's program.
    pub program: PathBuf,
    root: PathBuf,
}

impl Desk {
    /// That of the user's store.
    pub fn open(context: &Context) -> Desk {
        let root = context.options().store;
        Desk { containers: Containers::new(root.join("containers")), program: program(), root }
    }

    /// The container that is called so.
    pub fn find(&self, name: &str) -> Result<Container, Failure> {
        self.containers.find(name).map_err(|error| match error {
            missing @ ctk_monitor::Error::Missing { .. } => {
                Failure::sentence(missing.to_string(), Some("`ctk ps --all` lists them"))
            }
            other => other.into(),
        })
    }

    /// What a container does; what a killed monitor left is put in order first.
    pub fn settle(&self, container: &Container) -> Result<State, Failure> {
        Ok(self.settled(container)?)
    }

    fn settled(&self, container: &Container) -> Result<State, ctk_monitor::Error> {
        ctk_monitor::settle(&self.containers, container, &self.program, |container| network::leave(container))
    }

    /// What a container does, and a connection to its monitor if it has one: never one without the other.
    pub fn connect(&self, container: &Container) -> Result<(State, Option<Client>), Failure> {
        const PAUSE: Duration = Duration::from_millis(2);
        loop {
            let state = self.settle(container)?;
            if !state.status.is_alive() {
                return Ok((state, None));
            }
            match Client::connect(container)? {
                Some(client) => return Ok((state, Some(client))),
                // On its way in or out.
                None => std::thread::sleep(PAUSE),
            }
        }
    }

    /// All containers with what they do, the newest first. Those that go away meanwhile are not there.
    pub fn all(&self) -> Result<Vec<(Container, ctk_monitor::Config, State)>, Failure> {
        let mut all = Vec::new();
        for container in self.containers.list()? {
            let read = self.settled(&container).and_then(|state| Ok((container.config()?, state)));
            match read {
                Ok((config, state)) => all.push((container, config, state)),
                Err(ctk_monitor::Error::Missing { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        all.sort_by_key(|(_, config, _)| std::cmp::Reverse(config.created));
        Ok(all)
    }

    /// The containers that `names` mean, or all that `wanted` says, if `everything` is meant.
    pub fn chosen(
        &self,
        names: &[String],
        everything: bool,
        wanted: impl Fn(&State) -> bool,
    ) -> Result<Vec<Container>, Failure> {
        if everything {
            let all = self.all()?;
            return Ok(all.into_iter().filter(|(_, _, state)| wanted(state)).map(|(one, ..)| one).collect());
        }
        names.iter().map(|name| self.find(name)).collect()
    }

    /// Stops a container that runs; after `seconds` it is killed. Gives back its exit code.
    pub fn stop(&self, container: &Container, signal: Option<i32>, seconds: Option<u64>) -> Result<i32, Failure> {
        let (state, client) = self.connect(container)?;
        let Some(mut client) = client else { return Ok(state.exit_code) };
        let request = protocol::Request::Stop { signal, seconds, again: false };
        let code = match client.request(&request) {
            Ok(answer) => answer.code,
            // It ended by itself at the same time.
            Err(ctk_monitor::Error::Conversation { .. }) => return Ok(container.state().map_or(0, |s| s.exit_code)),
            Err(error) => return Err(error.into()),
        };
        Ok(code)
    }

    /// Removes a container with its anonymous volumes; one that runs only if `force`.
    pub fn remove(&self, container: &Container, force: bool, seconds: u64, volumes: bool) -> Result<(), Failure> {
        let config = container.config()?;
        let state = self.settle(container)?;
        if state.status.is_alive() {
            if !force {
                let what = format!("container {} is {}", config.name, state.status.word());
                return Err(Failure::sentence(what, Some("stop it first, or remove it with --force")));
            }
            self.stop(container, None, Some(seconds))?;
        }
        // Its monitor may still be on its way out.
        match container.lock_within(Duration::from_secs(10)) {
            Ok(Some(locked)) => {
                network::leave_relay(&locked);
                self.containers.remove(locked)?;
            }
            Ok(None) => {
                let what = format!("somebody else works with container {}", config.name);
                return Err(Failure::sentence(what, Some("try again")));
            }
            // It was made to go when it ends.
            Err(ctk_monitor::Error::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if volumes || config.remove {
            self.containers.remove_volumes(&config)?;
        }
        Ok(())
    }

    /// Removes the container of that name, whatever it does.
    pub fn remove_if_there(&self, name: &str) -> Result<(), Failure> {
        match self.containers.find(name) {
            Ok(container) => self.remove(&container, true, 0, true),
            Err(ctk_monitor::Error::Missing { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The first free range of ids that containers with users of their own get: 65536 from above the ordinary users'.
    pub fn automatic_range(&self) -> Result<(u32, u32), Failure> {
        const FIRST: u32 = 1 << 29;
        const COUNT: u32 = 1 << 16;
        let mut taken = Vec::new();
        for container in self.containers.list()? {
            let path = container.bundle().join("config.json");
            let Ok(text) = std::fs::read(&path) else { continue };
            let Ok(config) = serde_json::from_slice::<serde_json::Value>(&text) else { continue };
            let first = config.pointer("/linux/uidMappings/0/hostID").and_then(serde_json::Value::as_u64);
            taken.extend(first.map(|first| first as u32));
        }
        let free = (0..16_384).map(|index| FIRST + index * COUNT).find(|first| !taken.contains(first));
        free.map(|first| (first, COUNT)).ok_or_else(|| Failure::sentence("no range of ids is free", None))
    }
}

/// The small program beside ours, or ours under its name.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let beside = own.with_file_name("ctk-runtime");
    if beside.exists() { beside } else { own }
}

/// Says who is meant and goes on with the others: the failures of all of them, as one.
pub fn each(containers: &[Container], mut work: impl FnMut(&Container) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut failed = false;
    for container in containers {
        if let Err(failure) = work(container) {
            eprint!("{}", failure.text());
            failed = true;
        }
    }
    if failed { Err(Failure::Exit(1)) } else { Ok(()) }
}

/// Whether a container runs or will.
pub fn is_alive(state: &State) -> bool {
    state.status.is_alive()
}

/// What `ctk ps` and `ctk wait` say of an end.
pub fn is_over(state: &State) -> bool {
    matches!(state.status, Status::Exited | Status::Created)
}

/// The bytes of keys such as `ctrl-p,ctrl-q`.
pub fn detach_keys(text: &str) -> Result<Vec<u8>, Failure> {
    let one = |key: &str| match key.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([letter @ b'a'..=b'z']) => Some(letter - b'a' + 1),
        Some([mark @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]) => Some(mark - b'@'),
        Some(_) => None,
        None => match key.as_bytes() {
            [byte] => Some(*byte),
            _ => None,
        },
    };
    let keys: Option<Vec<u8>> = text.split(',').filter(|key| !key.is_empty()).map(one).collect();
    keys.ok_or_else(|| {
        let what = format!("--detach-keys `{text}` cannot be understood");
        Failure::sentence(what, Some("keys are letters and `ctrl-LETTER`, with commas: `ctrl-p,ctrl-q`"))
    })
}
