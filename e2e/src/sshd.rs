//! A real `sshd` on loopback that lets root in by a key of its own.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{eventually, free_port, run};

/// The server; it ends with this value.
pub struct Sshd {
    process: Child,
    folder: PathBuf,
    /// An address of loopback that is this server's alone; it listens at port 22, too.
    pub host: String,
    /// The other port.
    pub port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Sshd {
    /// Starts one that keeps its things in `folder`.
    pub fn start(folder: &Path) -> Sshd {
        fs::create_dir_all(folder).expect("a folder");
        // Where it separates privileges.
        fs::create_dir_all("/run/sshd").expect("a folder");
        for name in ["host", "user"] {
            key(&folder.join(name));
        }
        fs::copy(folder.join("user.pub"), folder.join("authorized")).expect("a key");
        let id = std::process::id();
        let host = format!("127.{}.{}.{}", 1 + id / 65536 % 250, id / 256 % 256, 1 + id % 250);
        let port = free_port();
        let process = serve(folder, &host, port);
        Sshd { process, folder: folder.to_owned(), host, port }
    }

    /// The private key that it lets in.
    pub fn key(&self) -> PathBuf {
        self.folder.join("user")
    }

    /// Another server takes its place: the same names, another key of the host.
    pub fn change_host_key(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for name in ["host", "host.pub"] {
            fs::remove_file(self.folder.join(name)).expect("a key");
        }
        key(&self.folder.join("host"));
        self.process = serve(&self.folder, &self.host, self.port);
    }
}

fn key(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path);
    run(command).ok();
}

fn serve(folder: &Path, host: &str, port: u16) -> Child {
    let at = folder.display();
    let config = format!(
        "Port {port}\nPort 22\nListenAddress {host}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nPidFile none\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
         SetEnv PATH=/usr/local/bin:/usr/bin:/bin\n"
    );
    let path = folder.join("config");
    fs::write(&path, config).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    let log = fs::File::create(folder.join("log")).expect("a log");
    let mut command = Command::new("/usr/sbin/sshd");
    let command = command.args(["-D", "-e", "-f"]).arg(&path);
    let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("sshd");
    eventually(Duration::from_secs(10), "sshd answers", || TcpStream::connect((host, port)).is_ok());
    process
}

/// An `ssh-agent`; it ends with this value.
pub struct Agent {
    process: Child,
    /// Where it listens.
    pub socket: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Agent {
    /// One that listens at `socket` and holds `keys`.
    pub fn start(socket: &Path, keys: &[PathBuf]) -> Agent {
        let mut command = Command::new("ssh-agent");
        let process = command.args(["-D", "-a"]).arg(socket).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let agent = Agent { process: process.expect("ssh-agent"), socket: socket.to_owned() };
        // The socket is there before anybody listens at it.
        eventually(Duration::from_secs(10), "the agent listens", || UnixStream::connect(socket).is_ok());
        for key in keys {
            let mut command = Command::new("ssh-add");
            command.arg("-q").arg(key).env("SSH_AUTH_SOCK", socket);
            run(command).ok();
        }
        agent
    }
}
