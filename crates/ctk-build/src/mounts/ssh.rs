//! The socket of an ssh agent, forwarded.
//!
//! The protocol (draft-ietf-sshm-ssh-agent) is messages with a length of four bytes in front, the first byte of each
//! its type; every request has one answer. A build may list keys and sign with them. It may not add, remove or lock
//! any: what else it asks is answered with a failure and never reaches the agent.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::limits::AGENT_MESSAGE_BYTES;
use crate::ops::Work;
use crate::{BuildError, SshSource};

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
const REMOVE_ALL_IDENTITIES: u8 = 19;
/// An agent listens within milliseconds; a machine that is busy may give it no time for seconds.
const AGENT_START_LIMIT: Duration = Duration::from_secs(30);
const AGENT_START_PAUSE: Duration = Duration::from_millis(10);

/// The agent of this name, if there is one; `place` is where one of our own may listen.
pub(super) fn agent(
    work: &Work<'_>,
    id: &str,
    place: impl FnOnce() -> Result<PathBuf, BuildError>,
) -> Result<Option<Agent>, BuildError> {
    match work.job.request.run.ssh.get(id) {
        None => Ok(None),
        Some(SshSource::Agent(socket)) => Ok(Some(Agent { socket: socket.clone(), own: None })),
        Some(SshSource::Keys(keys)) => {
            let failed = |reason: String| BuildError::AgentKeys { id: id.to_owned(), reason };
            Agent::with(keys, place()?).map(Some).map_err(failed)
        }
    }
}

/// An agent to be asked.
pub(super) struct Agent {
    socket: PathBuf,
    /// What one of our own lives as long as.
    own: Option<Child>,
}

impl Agent {
    /// An `ssh-agent` of our own that holds these keys. It ends with a program that waits for us to close its input:
    /// however we end, it does not stay.
    fn with(keys: &[PathBuf], socket: PathBuf) -> Result<Agent, String> {
        let mut command = program("ssh-agent");
        let held = command
            .arg("-a")
            .arg(&socket)
            .arg("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut own = held.spawn().map_err(|e| format!("OpenSSH's `ssh-agent` does not start: {e}"))?;
        let started = listens(&mut own, &socket);
        let agent = Agent { socket, own: Some(own) };
        started?;
        for key in keys {
            let mut command = program("ssh-add");
            let adding = command.arg("-q").arg(key).env("SSH_AUTH_SOCK", &agent.socket).stdin(Stdio::null());
            let output = adding.output().map_err(|e| format!("OpenSSH's `ssh-add` does not start: {e}"))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(format!("`ssh-add {}` failed: {}", key.display(), said.trim()));
            }
        }
        Ok(agent)
    }
}

/// Waits until the agent that was started can be asked.
fn listens(agent: &mut Child, socket: &Path) -> Result<(), String> {
    let began = Instant::now();
    while UnixStream::connect(socket).is_err() {
        if let Ok(Some(status)) = agent.try_wait() {
            let mut said = String::new();
            let _ = agent.stderr.take().map(|stderr| stderr.take(AGENT_MESSAGE_BYTES as u64).read_to_string(&mut said));
            return Err(format!("OpenSSH's `ssh-agent` ended at once: {status}: {}", said.trim()));
        }
        if began.elapsed() > AGENT_START_LIMIT {
            return Err(format!("OpenSSH's `ssh-agent` did not listen within {} s", AGENT_START_LIMIT.as_secs()));
        }
        std::thread::sleep(AGENT_START_PAUSE);
    }
    Ok(())
}

impl Drop for Agent {
    fn drop(&mut self) {
        let Some(own) = &mut self.own else { return };
        // The agent looks for us every ten seconds only; its keys go now.
        if let Ok(mut connection) = UnixStream::connect(&self.socket) {
            let _ =
                write_message(&mut connection, &[REMOVE_ALL_IDENTITIES]).and_then(|()| read_message(&mut connection));
        }
        drop(own.stdin.take());
        let _ = own.wait();
    }
}

/// One of the host's programs, with nothing of our environment.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command
}

/// A socket that leads to an agent. Dropping it removes it; connections that are open end with their container.
pub(super) struct Forward {
    path: PathBuf,
    over: Arc<AtomicBool>,
    _agent: Agent,
}

impl Forward {
    pub fn listen(path: &Path, agent: Agent, mode: u32, owner: (u32, u32)) -> Result<Forward, BuildError> {
        let socket = agent.socket.clone();
        // Asked now, so that the error names the agent instead of coming from inside the container.
        UnixStream::connect(&socket).map_err(BuildError::read("reach the ssh agent at", &socket))?;
        let listener = UnixListener::bind(path).map_err(BuildError::read("listen at", path))?;
        chown(path, Some(owner.0), Some(owner.1)).map_err(BuildError::read("chown", path))?;
        std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(BuildError::read("chmod", path))?;
        let over = Arc::new(AtomicBool::new(false));
        let ended = over.clone();
        let serve = move || {
            for connection in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(connection), socket) = (connection, socket.clone()) else { continue };
                // Whoever hangs up ends the conversation; there is nobody to tell.
                let talk = move || UnixStream::connect(socket).and_then(|agent| relay(&connection, &agent));
                let _ = std::thread::Builder::new().name("ctk-ssh".into()).spawn(talk);
            }
        };
        let thread = std::thread::Builder::new().name("ctk-ssh-agent".into()).spawn(serve);
        thread.map_err(BuildError::read("listen at", path))?;
        Ok(Forward { path: path.to_owned(), over, _agent: agent })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Passes requests on, one by one, until somebody hangs up.
fn relay(mut client: &UnixStream, mut agent: &UnixStream) -> io::Result<()> {
    loop {
        let request = read_message(&mut client)?;
        let answer = match request.first() {
            Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => {
                write_message(&mut agent, &request)?;
                read_message(&mut agent)?
            }
            _ => vec![FAILURE],
        };
        write_message(&mut client, &answer)?;
    }
}

fn read_message(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > AGENT_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut message = vec![0; length];
    from.read_exact(&mut message)?;
    Ok(message)
}

fn write_message(to: &mut impl Write, message: &[u8]) -> io::Result<()> {
    to.write_all(&(message.len() as u32).to_be_bytes())?;
    to.write_all(message)
}
