//! One container's networks from its start to its end, as its monitor holds them.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use crate::loopback::Loopback;
use crate::rootless::Held;
use crate::{
    DEFAULT_NETWORK, DnsOptions, Endpoint, Error, Interface, Join, Leaving, NameServer, Networks, Port, PublishedPort,
    Relay, RelayOptions, files, publish,
};

/// What a container asks of its networks, to be written down with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The container.
    pub endpoint: Endpoint,
    /// The networks that it joins, in this order.
    pub joins: Vec<Join>,
    /// The ports that it publishes.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// How it finds names.
    #[serde(default)]
    pub dns: DnsOptions,
}

/// Where a session works.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The networks; `None` for an ordinary user, whose container goes through a relay.
    pub networks: Option<&'a Networks>,
    /// The container's own folder.
    pub folder: &'a Path,
    /// Folders in which the relay's program is searched.
    pub programs: &'a [PathBuf],
    /// A process in the container's network namespace.
    pub pid: i32,
}

/// What a container got, to be written down and shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Its devices; none through a relay, which names them as it likes.
    pub interfaces: Vec<Interface>,
    /// Its published ports.
    pub ports: Vec<PublishedPort>,
    /// The relay's program, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub relay: Option<String>,
    /// The text of its `/etc/resolv.conf`.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub resolv_conf: String,
    /// The text of its `/etc/hosts`.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub hosts: String,
}

/// A container's networks, held. Dropping it stops answering names, and leaves the container on its networks: a monitor
/// that is killed does the same, and [`Session::resume`] goes on. [`Session::end`] takes the container off.
#[derive(Debug)]
pub struct Session {
    request: Request,
    networks: Option<Networks>,
    relay: Option<Held>,
    /// The container's; not needed where a relay is at work.
    namespace: Option<OwnedFd>,
    /// Held: the ports are ours as long as these are open.
    reserved: Vec<OwnedFd>,
    answering: Option<Answering>,
    loopback: Option<Loopback>,
}

/// A name server at work. Dropping it stops it.
#[derive(Debug)]
struct Answering {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    /// Joins the networks, publishes the ports, and answers names from a thread of its own. On an error everything is
    /// as before.
    pub fn start(request: &Request, place: &Place<'_>) -> Result<(Session, Joined), Error> {
        let mut session = Session {
            request: request.clone(),
            networks: place.networks.cloned(),
            relay: None,
            namespace: place.networks.map(|_| namespace(place.pid)).transpose()?,
            reserved: Vec::new(),
            answering: None,
            loopback: None,
        };
        let Some(networks) = place.networks else {
            let (joined, held) = relay(request, place)?;
            session.relay = Some(held);
            return Ok((session, joined));
        };
        let Request { endpoint, joins, ports, dns } = request;
        let got = networks.attach(endpoint, session.bridges()?.1, joins, ports, dns)?;
        session.reserved = got.reserved;
        let copying = Loopback::start(&session.reserved, &got.ports).map(|copying| session.loopback = copying);
        if let Err(error) = copying.and_then(|()| session.answer()) {
            let _ = networks.detach(&endpoint.id);
            return Err(error);
        }
        let (interfaces, ports) = (got.interfaces, got.ports);
        let joined = Joined { interfaces, ports, relay: None, resolv_conf: got.resolv_conf, hosts: got.hosts };
        Ok((session, joined))
    }

    /// Goes on for a container that runs, after its monitor was killed: names are answered again.
    pub fn resume(request: &Request, place: &Place<'_>) -> Result<Session, Error> {
        let ports =
            place.networks.map(|networks| networks.ports(&request.endpoint.id)).transpose()?.unwrap_or_default();
        let mut session = Session {
            request: request.clone(),
            networks: place.networks.cloned(),
            relay: if place.networks.is_none() { Some(Held::find(place.folder)?) } else { None },
            namespace: place.networks.map(|_| namespace(place.pid)).transpose()?,
            reserved: publish::hold(&ports),
            answering: None,
            loopback: None,
        };
        session.loopback = Loopback::start(&session.reserved, &ports)?;
        session.answer()?;
        Ok(session)
    }

    /// Joins one more network.
    pub fn connect(&mut self, join: &Join) -> Result<Interface, Error> {
        let (networks, namespace) = self.bridges()?;
        let interface = networks.connect(&self.request.endpoint, namespace, join)?;
        if self.answering.is_none() {
            self.answer()?;
        }
        Ok(interface)
    }

    /// Leaves a network.
    pub fn disconnect(&mut self, network: &str) -> Result<(), Error> {
        self.bridges()?.0.disconnect(&self.request.endpoint.id, network)
    }

    /// Takes the container off its networks: its addresses, ports and names are others' to take. What remains are
    /// devices. One that was started again under the same id meanwhile is not touched.
    pub fn end(mut self) -> Result<Leaving, Error> {
        drop(self.answering.take());
        drop(self.loopback.take());
        if let Some(relay) = self.relay.take() {
            return relay.end().map(|()| Leaving::default());
        }
        let (networks, namespace) = self.bridges()?;
        networks.let_go_namespace(&self.request.endpoint.id, namespace)
    }

    /// Where the container is now.
    pub fn interfaces(&self) -> Result<Vec<Interface>, Error> {
        self.networks.as_ref().map_or(Ok(Vec::new()), |networks| networks.interfaces(&self.request.endpoint.id))
    }

    /// The same for a container whose monitor was killed. Harmless to repeat.
    pub fn end_of(id: &str, networks: Option<&Networks>, folder: &Path) -> Result<(), Error> {
        match networks {
            Some(networks) => networks.detach(id),
            None => Relay::stop_left(folder),
        }
    }

    fn bridges(&self) -> Result<(&Networks, BorrowedFd<'_>), Error> {
        match (&self.networks, &self.namespace) {
            (Some(networks), Some(namespace)) => Ok((networks, namespace.as_fd())),
            _ => Err(no_bridges()),
        }
    }

    fn answer(&mut self) -> Result<(), Error> {
        let Ok((networks, namespace)) = self.bridges() else { return Ok(()) };
        let id = &self.request.endpoint.id;
        let mut has_names = false;
        for interface in networks.interfaces(id)? {
            has_names |= networks.get(&interface.network)?.dns_enabled;
        }
        if !has_names {
            return Ok(());
        }
        let server = NameServer::open(networks, id, namespace, &self.request.dns)?;
        let failed = |source| Error::Kernel { attempt: "start the container's name server".into(), source };
        let (cancel, stop) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        // What it meets later, nobody hears: names are not found then, and a container that needs them says so.
        let run = move || drop(server.run(cancel.as_fd()));
        let thread = std::thread::Builder::new().name("ctk-names".into()).stack_size(256 * 1024).spawn(run);
        self.answering = Some(Answering { stop: Some(stop), thread: Some(thread.map_err(failed)?) });
        Ok(())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn namespace(pid: i32) -> Result<OwnedFd, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let file = File::open(&path).map_err(files::failed("open", &path))?;
    Ok(file.into())
}

fn no_bridges() -> Error {
    Error::Unsupported {
        what: "a network of an ordinary user's container".into(),
        needs: "can only be the default one: bridges need root".into(),
    }
}

/// An ordinary user's: the default network is the relay's; there are no others.
fn relay(request: &Request, place: &Place<'_>) -> Result<(Joined, Held), Error> {
    let is_default = |join: &Join| {
        let plain = Join { network: join.network.clone(), aliases: join.aliases.clone(), ..Join::default() };
        *join == plain
            && [DEFAULT_NETWORK, "bridge", "default", "pasta", "slirp4netns"].contains(&join.network.as_str())
    };
    match request.joins.as_slice() {
        [join] if is_default(join) => {}
        _ => return Err(no_bridges()),
    }
    let relay = Relay::start(&RelayOptions {
        folder: place.folder,
        programs: place.programs,
        namespace: &PathBuf::from(format!("/proc/{}/ns/net", place.pid)),
        user_namespace: &PathBuf::from(format!("/proc/{}/ns/user", place.pid)),
        ports: &request.ports,
        dns: &request.dns,
        endpoint: &request.endpoint,
    })?;
    let joined = Joined {
        interfaces: Vec::new(),
        ports: relay.ports.clone(),
        relay: Some(relay.program.to_owned()),
        resolv_conf: relay.resolv_conf.clone(),
        hosts: relay.hosts.clone(),
    };
    Ok((joined, relay.into_held()))
}
