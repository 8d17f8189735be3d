//! A package archive of our own: real `.deb` files by `dpkg-deb`, real signatures by `gpg`, served on loopback.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use ctk_packages::{HostSources, Request, SignedBy, Source, Variant};
use sha2::{Digest, Sha256};

/// What the server does wrong with one request for a path.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers with this status line and further header lines.
    Status(&'static str),
    /// Announces the whole body and breaks off after that many bytes.
    Short(usize),
    /// Serves these bytes instead.
    Instead(Vec<u8>),
}

#[derive(Default)]
struct Served {
    faults: HashMap<String, VecDeque<Fault>>,
    always: HashMap<String, Fault>,
    log: Vec<String>,
}

/// An archive with one suite, `test`, and one component, `main`.
pub struct Archive {
    pub dir: tempfile::TempDir,
    home: tempfile::TempDir,
    port: u16,
    served: Arc<Mutex<Served>>,
    packages: Vec<String>,
}

/// What a `.deb` of the archive holds.
#[derive(Default)]
pub struct Fixture<'a> {
    /// Further lines of `control`.
    pub control: &'a str,
    /// Paths and contents.
    pub files: &'a [(&'a str, &'a str)],
    /// Paths and the host's files to copy there.
    pub binaries: &'a [(&'a str, &'a str)],
    /// Control files: `postinst`, `conffiles`, …
    pub scripts: &'a [(&'a str, &'a str)],
}

pub fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

impl Archive {
    pub fn new() -> Archive {
        let home = tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").unwrap();
        let served = Arc::new(Mutex::new(Served::default()));
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (root, shared) = (dir.path().to_path_buf(), served.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, shared) = (root.clone(), shared.clone());
                std::thread::spawn(move || {
                    let _ = serve(stream, &root, &shared);
                });
            }
        });
        let archive = Archive { dir, home, port, served, packages: Vec::new() };
        archive.key("archive@example.test", "trusted.gpg");
        archive
    }

    fn gpg(&self, args: &[&str]) {
        let mut all =
            vec!["--homedir", self.home.path().to_str().unwrap(), "--batch", "--yes", "--quiet", "--passphrase", ""];
        all.extend(["--pinentry-mode", "loopback"]);
        all.extend(args);
        run("gpg", &all);
    }

    /// Makes a key and exports its public half into a file of the archive's directory.
    pub fn key(&self, user: &str, file: &str) -> PathBuf {
        self.gpg(&["--quick-generate-key", user, "ed25519", "sign", "never"]);
        let path = self.dir.path().join(file);
        self.gpg(&["--output", path.to_str().unwrap(), "--export", user]);
        path
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn fault(&self, path: &str, faults: &[Fault]) {
        self.served.lock().unwrap().faults.insert(path.into(), faults.iter().cloned().collect());
    }

    pub fn always(&self, path: &str, fault: Fault) {
        self.served.lock().unwrap().always.insert(path.into(), fault);
    }

    /// Paths asked for since the last call, with a Range where there was one.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.served.lock().unwrap().log)
    }

    /// Builds a package into the pool.
    pub fn add(&mut self, name: &str, version: &str, fixture: Fixture<'_>) -> PathBuf {
        let tree = tempfile::tempdir().unwrap();
        let debian = tree.path().join("DEBIAN");
        fs::create_dir(&debian).unwrap();
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: T <t@example.test>\nPriority: optional\nSection: misc\n{}Description: a test\n of {name}\n",
            fixture.control
        );
        fs::write(debian.join("control"), &control).unwrap();
        for (path, content) in fixture.files {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        for (path, source) in fixture.binaries {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::copy(source, path).unwrap();
        }
        for (script, content) in fixture.scripts {
            let path = debian.join(script);
            fs::write(&path, content).unwrap();
            if content.starts_with("#!") {
                run("chmod", &["755", path.to_str().unwrap()]);
            }
        }
        let file = format!("pool/{name}_{version}.deb");
        let path = self.dir.path().join(&file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        run("dpkg-deb", &["--root-owner-group", "-b", tree.path().to_str().unwrap(), path.to_str().unwrap()]);
        let bytes = fs::read(&path).unwrap();
        self.packages.push(format!("{control}Filename: {file}\nSize: {}\nSHA256: {}\n", bytes.len(), sha256(&bytes)));
        path
    }

    /// Writes indexes and the signed release file; `fields` are further lines of it.
    pub fn publish(&self, fields: &str) {
        let release = self.release(fields);
        let suite = self.dir.path().join("dists/test");
        let (plain, signed) = (suite.join("Release"), suite.join("InRelease"));
        fs::write(&plain, release).unwrap();
        let (plain, signed) = (plain.to_str().unwrap(), signed.to_str().unwrap());
        self.gpg(&["--local-user", "archive@example.test", "--output", signed, "--clearsign", plain]);
    }

    /// As [`Archive::publish`], with `Release` and `Release.gpg` and no `InRelease`.
    pub fn publish_detached(&self) {
        let suite = self.dir.path().join("dists/test");
        let plain = suite.join("Release");
        fs::create_dir_all(&suite).unwrap();
        fs::write(&plain, self.release("")).unwrap();
        let signature = suite.join("Release.gpg");
        let (plain, signature) = (plain.to_str().unwrap(), signature.to_str().unwrap());
        self.gpg(&["--local-user", "archive@example.test", "--armor", "--output", signature, "--detach-sign", plain]);
    }

    fn release(&self, fields: &str) -> String {
        let binary = self.dir.path().join("dists/test/main/binary-amd64");
        fs::create_dir_all(&binary).unwrap();
        let index = self.packages.join("\n");
        fs::write(binary.join("Packages"), &index).unwrap();
        run("xz", &["-kf", binary.join("Packages").to_str().unwrap()]);
        let mut lines = String::new();
        for name in ["Packages", "Packages.xz"] {
            let bytes = fs::read(binary.join(name)).unwrap();
            lines.push_str(&format!(" {} {} main/binary-amd64/{name}\n", sha256(&bytes), bytes.len()));
            let by_hash = binary.join("by-hash/SHA256");
            fs::create_dir_all(&by_hash).unwrap();
            fs::write(by_hash.join(sha256(&bytes)), bytes).unwrap();
        }
        format!(
            "Origin: T\nSuite: test\nCodename: testing\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n{fields}Architectures: amd64\nComponents: main\nSHA256:\n{lines}"
        )
    }

    /// The host's configuration: this archive alone.
    pub fn host(&self) -> HostSources {
        self.host_with(&self.url(), SignedBy::Files(vec![self.dir.path().join("trusted.gpg")]))
    }

    pub fn host_with(&self, uri: &str, signed_by: SignedBy) -> HostSources {
        let source = Source {
            uris: vec![uri.into()],
            suites: vec!["test".into()],
            components: vec!["main".into()],
            signed_by,
            ..Source::default()
        };
        HostSources { sources: vec![source], check_valid_until: true, ..HostSources::default() }
    }
}

pub fn request(install: &[&str]) -> Request {
    Request {
        distro: "debian".into(),
        suite: "test".into(),
        architecture: "amd64".into(),
        variant: Variant::Custom,
        install: install.iter().map(ToString::to_string).collect(),
        now_seconds: 1_800_000_000,
        ..Request::default()
    }
}

fn serve(stream: TcpStream, root: &Path, served: &Mutex<Served>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split_whitespace().nth(1).unwrap_or("/").trim_start_matches('/').replace("%2B", "+");
        let mut start = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            if let Some(range) = header.to_ascii_lowercase().strip_prefix("range: bytes=") {
                start = range.trim().trim_end_matches('-').parse().unwrap_or(0);
            }
            if header.trim().is_empty() {
                break;
            }
        }
        let fault = {
            let mut served = served.lock().unwrap();
            served.log.push(if start > 0 { format!("{path} from {start}") } else { path.clone() });
            let next = served.faults.get_mut(&path).and_then(VecDeque::pop_front);
            next.or_else(|| served.always.get(&path).cloned())
        };
        let body = match &fault {
            Some(Fault::Status(status)) => {
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            }
            Some(Fault::Instead(bytes)) => bytes.clone(),
            _ => match fs::read(root.join(&path)) {
                Ok(bytes) => bytes,
                Err(_) => {
                    write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
                    continue;
                }
            },
        };
        let part = &body[start.min(body.len())..];
        let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", part.len())?;
        if let Some(Fault::Short(n)) = fault {
            stream.write_all(&part[..n.min(part.len())])?;
            return stream.shutdown(std::net::Shutdown::Both);
        }
        stream.write_all(part)?;
    }
}
