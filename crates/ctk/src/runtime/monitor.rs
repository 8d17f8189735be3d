//! `ctk-runtime monitor DIRECTORY`: looks after one container that outlives its maker.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use ctk_monitor::config::Network;
use ctk_monitor::{Config, Container};
use ctk_network::{Joined, Leaving, Networks, Place, Session};
use rustix::fs::FileType;
use serde::Deserialize;
use serde_json::Value;

use super::joining::{Asked, Change};

/// Standard input is the socket to who wants the container started; without one, a container that runs is taken over.
pub fn main(directory: Option<&OsString>) -> ExitCode {
    let Some(directory) = directory else { return ExitCode::from(1) };
    // Whoever waits for the end of a pipe that our maker held does not wait for us.
    let _ = ctk_sys::close_files_from(3);
    // What a container could reach of us while it is made is a view that nobody can write.
    if super::seal().is_err() {
        return ExitCode::from(1);
    }
    let input = std::io::stdin();
    let stat = rustix::fs::fstat(&input);
    let is_socket = stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket);
    let channel = is_socket.then(|| input.as_fd().try_clone_to_owned().ok()).flatten();
    if let Some(channel) = &channel {
        let null = ctk_bundle::container::null_file();
        let moved = null.is_ok_and(|null| rustix::stdio::dup2_stdin(null).is_ok());
        if !moved || rustix::io::ioctl_fionbio(channel, true).is_err() {
            return ExitCode::from(1);
        }
    }
    ExitCode::from(ctk_monitor::monitor(Path::new(directory), channel, &mut Networking::default()))
}

/// Networks of one container.
#[derive(Default)]
struct Networking {
    session: Option<Session>,
    joined: Joined,
    leaving: Leaving,
}

impl Networking {
    fn asked(config: &Config) -> Result<Asked, String> {
        let Network::Joined(value) = &config.network else { return Err("the container joins no networks".into()) };
        Asked::deserialize(value).map_err(|error| format!("its networks cannot be read: {error}"))
    }

    fn open(asked: &Asked) -> Result<Option<Networks>, String> {
        asked.networks.as_deref().map(Networks::open).transpose().map_err(said)
    }

    fn shown(&self) -> Value {
        serde_json::to_value(&self.joined).unwrap_or_default()
    }
}

impl ctk_monitor::Networking for Networking {
    fn attach(&mut self, container: &Container, config: &Config, pid: i32) -> Result<Value, String> {
        let asked = Networking::asked(config)?;
        let networks = Networking::open(&asked)?;
        let programs = asked.programs.as_slice();
        let place = Place { networks: networks.as_ref(), folder: container.directory(), programs, pid };
        let (session, joined) = Session::start(&asked.request, &place).map_err(said)?;
        self.session = Some(session);
        // In place: the container has these very files mounted.
        for (is_wanted, name, text) in
            [(asked.hosts, "hosts", &joined.hosts), (asked.resolv_conf, "resolv.conf", &joined.resolv_conf)]
        {
            if is_wanted {
                let path = container.etc(name);
                std::fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            }
        }
        self.joined = Joined { resolv_conf: String::new(), hosts: String::new(), ..joined };
        Ok(self.shown())
    }

    fn resume(&mut self, container: &Container, config: &Config, pid: i32) -> Result<Value, String> {
        let asked = Networking::asked(config)?;
        let networks = Networking::open(&asked)?;
        let place = Place { networks: networks.as_ref(), folder: container.directory(), programs: &[], pid };
        let session = Session::resume(&asked.request, &place).map_err(said)?;
        self.joined = Joined {
            interfaces: session.interfaces().map_err(said)?,
            ports: networks.map_or(Ok(Vec::new()), |networks| networks.ports(container.id())).map_err(said)?,
            ..Joined::default()
        };
        self.session = Some(session);
        Ok(self.shown())
    }

    fn detach(&mut self, _: &Container, _: &Config) {
        // Whatever is left, the next who comes to the network finds.
        if let Some(Ok(leaving)) = self.session.take().map(Session::end) {
            leaving.remove_devices();
        }
    }

    fn change(&mut self, _: &Container, _: &Config, _: i32, what: &Value) -> Result<Value, String> {
        let session = self.session.as_mut().ok_or("it was started without a network that others could join")?;
        match Change::deserialize(what).map_err(|error| error.to_string())? {
            Change::Connect(join) => drop(session.connect(&join).map_err(said)?),
            Change::Disconnect(network) => session.disconnect(&network).map_err(said)?,
        }
        self.joined.interfaces = session.interfaces().map_err(said)?;
        Ok(self.shown())
    }

    fn let_go(&mut self, container: &Container, config: &Config) {
        match self.session.take() {
            Some(session) => self.leaving = session.end().unwrap_or_default(),
            // Nobody went on with it: the container ended before its new monitor looked at it.
            None => {
                let networks = Networking::asked(config).and_then(|asked| Networking::open(&asked));
                let _ =
                    networks.map(|networks| Session::end_of(container.id(), networks.as_ref(), container.directory()));
            }
        }
    }

    fn clean_up(&mut self) {
        std::mem::take(&mut self.leaving).clean_up();
    }
}

/// An error with its causes and what to do, in one line.
fn said(error: ctk_network::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
    let mut text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
    if let Some(hint) = error.hint() {
        text.push_str(&format!(" ({hint})"));
    }
    text
}
