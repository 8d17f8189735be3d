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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::limits::AGENT_MESSAGE_BYTES;
use crate::ops::Work;
use crate::{BuildError, SshSource};

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;

/// Where the agent of this name listens, if there is one.
pub(super) fn agent(work: &Work<'_>, id: &str) -> Result<Option<PathBuf>, BuildError> {
    match work.job.request.run.ssh.get(id) {
        None => Ok(None),
        Some(SshSource::Agent(socket)) => Ok(Some(socket.clone())),
        Some(SshSource::Keys(_)) => Err(BuildError::AgentKeys { id: id.to_owned() }),
    }
}

/// A socket that leads to an agent. Dropping it removes it; connections that are open end with their container.
pub(super) struct Forward {
    path: PathBuf,
    over: Arc<AtomicBool>,
}

impl Forward {
    pub fn listen(path: &Path, agent: PathBuf, mode: u32, owner: (u32, u32)) -> Result<Forward, BuildError> {
        // Asked now, so that the error names the agent instead of coming from inside the container.
        UnixStream::connect(&agent).map_err(BuildError::read("reach the ssh agent at", &agent))?;
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
                let (Ok(connection), agent) = (connection, agent.clone()) else { continue };
                // Whoever hangs up ends the conversation; there is nobody to tell.
                let talk = move || UnixStream::connect(agent).and_then(|agent| relay(&connection, &agent));
                let _ = std::thread::Builder::new().name("ctk-ssh".into()).spawn(talk);
            }
        };
        let thread = std::thread::Builder::new().name("ctk-ssh-agent".into()).spawn(serve);
        thread.map_err(BuildError::read("listen at", path))?;
        Ok(Forward { path: path.to_owned(), over })
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
