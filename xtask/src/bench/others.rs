//! A registry on loopback and the peers that push to it and pull from it.

use std::cell::{Cell, RefCell};
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use ctk_e2e::peers::Peers;

use super::Ground;

/// `docker-registry` with an empty folder, and a Docker daemon; both end with this.
pub struct Others {
    /// `127.0.0.1:PORT`.
    pub registry: String,
    /// What the daemon sees as `/run/work`.
    pub work: PathBuf,
    process: Child,
    peers: RefCell<Option<Peers>>,
    rounds: Cell<u32>,
}

impl Others {
    /// Starts the registry; the daemon starts when it is first asked for.
    pub fn start(ground: &Ground) -> Result<Rc<Others>, String> {
        let registry = format!("127.0.0.1:{}", ctk_e2e::free_port());
        let folder = tempfile::tempdir_in(&ground.scratch).map_err(|error| error.to_string())?.keep();
        let config = folder.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{registry}\"}}\n",
            folder.join("registry").display()
        );
        fs::write(&config, text).map_err(|error| format!("cannot write {}: {error}", config.display()))?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().map_err(|error| format!("cannot run docker-registry: {error}"))?;
        ctk_e2e::eventually(Duration::from_secs(20), "docker-registry answers", || {
            TcpStream::connect(&registry).is_ok()
        });
        let work = folder.join("work");
        fs::create_dir(&work).map_err(|error| error.to_string())?;
        let (peers, rounds) = (RefCell::default(), Cell::default());
        Ok(Rc::new(Others { registry, work, process, peers, rounds }))
    }

    /// A number that was not given before.
    pub fn next(&self) -> u32 {
        self.rounds.set(self.rounds.get() + 1);
        self.rounds.get()
    }

    /// A daemon that has seen nothing yet, in place of the one before; what that one kept stays on the disk, because
    /// whoever comes after thousands of deletions pays for them.
    pub fn fresh_daemon(&self) {
        let mut peers = self.peers.borrow_mut();
        *peers = None;
        let _ = fs::rename(self.work.join("docker"), self.work.join(format!("docker-{}", self.next())));
        *peers = Some(Peers::start(&self.work));
    }

    /// `docker-buildx` with these words; the daemon is started if there is none.
    pub fn buildx(&self, words: &[&str]) -> Command {
        if self.peers.borrow().is_none() {
            self.fresh_daemon();
        }
        self.peers.borrow().as_ref().expect("just started").command("docker-buildx", words)
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
