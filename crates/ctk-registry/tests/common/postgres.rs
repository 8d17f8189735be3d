//! A PostgreSQL server of a test's own: from the package archive, by an ordinary user, below a temporary folder.
#![allow(dead_code)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that ends with the test.
pub struct Server {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
    programs: PathBuf,
}

/// What the server's superuser is let in by.
pub const PASSWORD: &str = "of the test";

fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    found.retain(|folder| folder.join("initdb").is_file());
    found.sort();
    found.pop()
}

/// A command that runs as an ordinary user: the server refuses to be root's.
fn ordinary(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    command
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

impl Server {
    /// Starts one; without the programs the test is skipped, or fails where everything is required.
    pub fn start() -> Option<Server> {
        let Some(programs) = programs() else {
            assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs postgresql");
            println!("skipped: needs postgresql");
            return None;
        };
        let mut folder = tempfile::Builder::new().prefix("ctk-pg").tempdir_in("/tmp").unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let password = folder.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        if is_root() {
            use std::os::unix::fs::{PermissionsExt, chown};
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            chown(&data, Some(65534), Some(65534)).unwrap();
        }
        let mut command = ordinary(&programs.join("initdb"));
        command.args(["-U", "registry", "--auth=scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8", "-D"]);
        command.arg(&data).arg("--pwfile").arg(&password);
        let made = command.current_dir("/").output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut command = ordinary(&programs.join("postgres"));
            command.arg("-D").arg(&data).args(["-c", "listen_addresses=127.0.0.1", "-c", &format!("port={port}")]);
            command.args(["-c", "unix_socket_directories=", "-c", "max_connections=60", "-c", "shared_buffers=16MB"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
            let child = command.spawn().unwrap();
            let mut server = Server { child, port, folder, programs: programs.clone() };
            let deadline = Instant::now() + Duration::from_secs(60);
            while server.child.try_wait().unwrap().is_none() {
                if server.psql("postgres", "SELECT 1").is_some() {
                    return Some(server);
                }
                assert!(Instant::now() < deadline, "postgres does not start");
                std::thread::sleep(Duration::from_millis(100));
            }
            // Another one was faster to take the port.
            folder = std::mem::replace(&mut server.folder, tempfile::tempdir().unwrap());
        }
        panic!("postgres finds no port");
    }

    fn psql(&self, database: &str, sql: &str) -> Option<String> {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-X", "-q", "-t", "-A", "-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "registry"]);
        let output = command.env("PGPASSWORD", PASSWORD).args(["-d", database, "-c", sql]).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a statement as the superuser.
    pub fn run(&self, database: &str, sql: &str) -> String {
        self.psql(database, sql).unwrap_or_else(|| panic!("{sql}"))
    }

    /// The URL of a new database, without its password.
    pub fn url(&self, name: &str) -> String {
        self.run("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://registry@127.0.0.1:{}/{name}", self.port)
    }

    /// Ends every connection of others, as a server does that is started again.
    pub fn drop_connections(&self) {
        self.run(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL",
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
