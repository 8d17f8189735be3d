//! A web server on loopback: files below `/files/` with the time of their change, those that end with `.tagged` also with
//! an entity tag, `/to/<port>/<path>` leads to another
//! server, repositories below `/git/` by git's own `http-backend`.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use ctk_oci::Digest;

/// Serves until the process ends.
pub struct Server {
    pub port: u16,
    pub root: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Requests so far.
    seen: Mutex<Vec<String>>,
    /// What `Authorization` must be.
    wanted: Mutex<Option<String>>,
    down: Mutex<bool>,
}

impl Server {
    pub fn new(root: &Path) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared: Arc<Shared> = Arc::default();
        let (given, root) = (shared.clone(), root.to_owned());
        let served = root.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, root) = (given.clone(), served.clone());
                std::thread::spawn(move || answer(stream, &root, &shared));
            }
        });
        Server { port, root, shared }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Requests since the last call.
    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.seen.lock().unwrap())
    }

    pub fn require(&self, authorization: &str) {
        *self.shared.wanted.lock().unwrap() = Some(authorization.to_owned());
    }

    /// Refuses everything from now on.
    pub fn go_down(&self) {
        *self.shared.down.lock().unwrap() = true;
    }
}

fn answer(stream: TcpStream, root: &Path, shared: &Shared) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let mut words = line.split_whitespace();
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let body = body(&mut reader, &headers)?;
        let authorised = headers.get("authorization").map(|value| format!(" as {value}")).unwrap_or_default();
        shared.seen.lock().unwrap().push(format!("{method} {target}{authorised}"));
        let wanted = shared.wanted.lock().unwrap().clone();
        let reply = if *shared.down.lock().unwrap() {
            b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n".to_vec()
        } else if wanted.is_some() && headers.get("authorization") != wanted.as_ref() {
            b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n".to_vec()
        } else if target.starts_with("/git/") {
            backend(root, &method, &target, &headers, &body)?
        } else if let Some((port, path)) = target.strip_prefix("/to/").and_then(|to| to.split_once('/')) {
            let location = format!("Location: http://localhost:{port}/{path}");
            format!("HTTP/1.1 302 There\r\n{location}\r\nContent-Length: 0\r\n\r\n").into_bytes()
        } else {
            let path = target.split('?').next()?.trim_start_matches("/files/").replace("%20", " ");
            file(&root.join(path), &headers)
        };
        writer.write_all(&reply).ok()?;
    }
}

fn file(path: &Path, headers: &BTreeMap<String, String>) -> Vec<u8> {
    let Ok(bytes) = std::fs::read(path) else {
        return b"HTTP/1.1 404 Nothing\r\nContent-Length: 0\r\n\r\n".to_vec();
    };
    let changed = httpdate::fmt_http_date(std::fs::metadata(path).and_then(|m| m.modified()).unwrap());
    let tag = path.extension().is_some_and(|end| end == "tagged").then(|| format!("\"{}\"", Digest::of(&bytes)));
    let same = match (headers.get("if-none-match"), &tag) {
        (Some(known), Some(tag)) => known == tag,
        _ => headers.get("if-modified-since") == Some(&changed),
    };
    let (status, bytes) = match same {
        true => ("304 As before", Vec::new()),
        false => ("200 OK", bytes),
    };
    let tag = tag.map(|tag| format!("ETag: {tag}\r\n")).unwrap_or_default();
    let length = bytes.len();
    let head = format!("HTTP/1.1 {status}\r\n{tag}Last-Modified: {changed}\r\nContent-Length: {length}\r\n\r\n");
    [head.into_bytes(), bytes].concat()
}

fn body(reader: &mut impl BufRead, headers: &BTreeMap<String, String>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = headers.get("content-length") {
        body.resize(length.parse().ok()?, 0);
        reader.read_exact(&mut body).ok()?;
    } else if headers.get("transfer-encoding").is_some_and(|v| v == "chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            body.extend(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    }
    Some(body)
}

/// RFC 3875.
fn backend(
    root: &Path,
    method: &str,
    target: &str,
    headers: &BTreeMap<String, String>,
    body: &[u8],
) -> Option<Vec<u8>> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut command = Command::new("git");
    command.arg("http-backend").env_clear().env("PATH", "/usr/bin:/bin");
    command.env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1").env("GIT_CONFIG_NOSYSTEM", "1");
    command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
    command.env("PATH_INFO", path.trim_start_matches("/git")).env("QUERY_STRING", query).env("REQUEST_METHOD", method);
    for (name, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        headers.get(name).map(|value| command.env(variable, value));
    }
    command.env("CONTENT_LENGTH", body.len().to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().ok()?;
    let mut stdin = child.stdin.take()?;
    let bytes = body.to_vec();
    let feeding = std::thread::spawn(move || stdin.write_all(&bytes));
    let mut out = Vec::new();
    child.stdout.take()?.read_to_end(&mut out).ok()?;
    let _ = feeding.join();
    child.wait().ok()?;
    let split = out.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&out[..split]).into_owned();
    let status = head.lines().find_map(|l| l.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let kept = head.lines().filter(|l| !l.starts_with("Status: ")).collect::<Vec<_>>().join("\r\n");
    let length = out.len() - split - 4;
    let mut reply = format!("HTTP/1.1 {status}\r\n{kept}\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    reply.extend(&out[split + 4..]);
    Some(reply)
}

/// A repository with a working tree, made by the real `git`.
pub struct Repository(pub PathBuf);

impl Repository {
    pub fn new(path: PathBuf) -> Repository {
        std::fs::create_dir_all(&path).unwrap();
        let repository = Repository(path);
        repository.git(&["init", "-q", "-b", "main"]);
        repository
    }

    pub fn git(&self, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(args).current_dir(&self.0).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent");
        for (name, value) in [("AUTHOR", "A"), ("COMMITTER", "A")] {
            command.env(format!("GIT_{name}_NAME"), value).env(format!("GIT_{name}_EMAIL"), "a@example.org");
            command.env(format!("GIT_{name}_DATE"), "2024-05-06T07:08:09Z");
        }
        let output = command.args(["--"; 0]).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn write(&self, path: &str, text: &str) -> &Repository {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// Commits everything; gives the commit.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }
}
