//! A small HTTP server on loopback that does wrong what a case tells it to: in front of a folder, of git repositories,
//! or of a real registry.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ctk_oci::Digest;

/// What the server is asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// How many requests of this method for this path came before; uploads in a repository count as one path.
    pub earlier: usize,
}

/// What it does instead of answering well.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers with this status line, further header lines after `\r\n`, and no body.
    Status(&'static str),
    /// Answers 200 with these bytes.
    Instead(Vec<u8>),
    /// Sends the right answer, but hangs up after that many bytes of the body.
    Short(usize),
    /// Sends that many bytes of the right answer's body, and then nothing for a minute.
    Stall(usize),
    /// Changes the last byte of the right body.
    Flipped,
}

/// Says what goes wrong with a request, if anything does.
type Decide = Box<dyn FnMut(&Asked) -> Option<Fault> + Send>;

enum Behind {
    Folder(PathBuf),
    Repositories(PathBuf),
    Server(String),
}

struct Shared {
    behind: Behind,
    decide: Mutex<Decide>,
    log: Mutex<Vec<String>>,
    unchanged: AtomicUsize,
}

/// The server; it lives as long as the process.
pub struct Front {
    /// `127.0.0.1:PORT`.
    pub host: String,
    shared: Arc<Shared>,
}

impl Front {
    /// Serves the files of `folder`.
    pub fn of_folder(folder: impl Into<PathBuf>) -> Front {
        Front::start(Behind::Folder(folder.into()))
    }

    /// Serves the git repositories of `folder`, by git's own backend.
    pub fn of_repositories(folder: impl Into<PathBuf>) -> Front {
        Front::start(Behind::Repositories(folder.into()))
    }

    /// Passes everything on to the server at `host`.
    pub fn before(host: &str) -> Front {
        Front::start(Behind::Server(host.to_owned()))
    }

    fn start(behind: Behind) -> Front {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = listener.local_addr().expect("its address").to_string();
        let shared = Shared {
            behind,
            decide: Mutex::new(Box::new(|_| None)),
            log: Mutex::default(),
            unchanged: AtomicUsize::new(0),
        };
        let shared = Arc::new(shared);
        let of_thread = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = of_thread.clone();
                // A client that went away is no news.
                std::thread::spawn(move || drop(answer(stream, &shared)));
            }
        });
        Front { host, shared }
    }

    /// From now on `decide` says what goes wrong.
    pub fn fault(&self, decide: impl FnMut(&Asked) -> Option<Fault> + Send + 'static) {
        *self.shared.decide.lock().expect("no holder panics") = Box::new(decide);
        self.requests();
    }

    /// From now on nothing goes wrong.
    pub fn heal(&self) {
        self.fault(|_| None);
    }

    /// How often a file was asked for that the asker has (RFC 9110, section 13.1.2), since the last call.
    pub fn unchanged(&self) -> usize {
        self.shared.unchanged.swap(0, Ordering::Relaxed)
    }

    /// `METHOD path` of every request since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.log.lock().expect("no holder panics"))
    }
}

/// One request, one answer, and the connection ends.
fn answer(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut client = BufReader::new(stream.try_clone()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if client.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line == "\r\n" {
            break;
        }
        head.push(line);
    }
    let mut words = head[0].split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let line = format!("{method} {path}");
    let earlier = {
        let mut log = shared.log.lock().expect("no holder panics");
        log.push(line.clone());
        log.iter().filter(|one| same(one) == same(&line)).count() - 1
    };
    let asked = Asked { method, path, earlier };
    let fault = (shared.decide.lock().expect("no holder panics"))(&asked);
    match (&fault, &shared.behind) {
        (Some(Fault::Status(status)), _) => reply(stream, client, &head, status, b""),
        (Some(Fault::Instead(body)), _) => reply(stream, client, &head, "200 OK", body),
        (_, Behind::Folder(folder)) => {
            let file = folder.join(plain(&asked.path));
            let tag = fs::read(&file).map(|bytes| format!("\"{}\"", Digest::of(&bytes))).unwrap_or_default();
            let has = |line: &String| line.to_ascii_lowercase().starts_with("if-none-match:") && line.contains(&tag);
            if fault.is_none() && !tag.is_empty() && head.iter().any(has) {
                shared.unchanged.fetch_add(1, Ordering::Relaxed);
                return reply(stream, client, &head, &format!("304 Not Modified\r\nETag: {tag}"), b"");
            }
            serve(stream, client, &head, &file, &tag, fault)
        }
        (_, Behind::Repositories(folder)) => {
            let (status, fields, body) = crate::git::http_backend(folder, &head, &mut client)?;
            let fields = fields.trim_end();
            reply(stream, client, &head, &format!("{status}\r\n{fields}"), &body)
        }
        (_, Behind::Server(host)) => pass(stream, client, &head, host, fault),
    }
}

/// The part of a request line that is the same when a client starts an upload anew.
fn same(line: &str) -> &str {
    line.find("/uploads/").map_or(line, |at| &line[..at])
}

/// A path without its leading slash and percent signs.
fn plain(path: &str) -> String {
    let mut parts = path.trim_start_matches('/').split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.extend(byte.or(Some(b'%')));
        bytes.extend(&part.as_bytes()[if byte.is_some() { 2 } else { 0 }..]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn reply(
    mut stream: TcpStream,
    mut client: BufReader<TcpStream>,
    head: &[String],
    status: &str,
    body: &[u8],
) -> io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    if !head[0].starts_with("HEAD") {
        stream.write_all(body)?;
    }
    stream.shutdown(Shutdown::Write)?;
    // Closing with unread bytes would reset the connection and lose the answer.
    io::copy(&mut client, &mut io::sink()).map(drop)
}

fn serve(
    mut stream: TcpStream,
    client: BufReader<TcpStream>,
    head: &[String],
    file: &std::path::Path,
    tag: &str,
    fault: Option<Fault>,
) -> io::Result<()> {
    let Ok(mut body) = fs::read(file) else { return reply(stream, client, head, "404 Not Found", b"") };
    match fault {
        Some(Fault::Short(bytes)) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
            stream.write_all(&body[..bytes.min(body.len())])?;
            stream.shutdown(Shutdown::Both)
        }
        Some(_) => {
            if let Some(last) = body.last_mut() {
                *last ^= 1;
            }
            reply(stream, client, head, "200 OK", &body)
        }
        None => reply(stream, client, head, &format!("200 OK\r\nETag: {tag}"), &body),
    }
}

/// Both directions at once, as bytes; only the answer is looked at.
fn pass(
    mut stream: TcpStream,
    mut client: BufReader<TcpStream>,
    head: &[String],
    host: &str,
    fault: Option<Fault>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(host)?;
    for line in head.iter().filter(|line| !line.to_ascii_lowercase().starts_with("connection:")) {
        server.write_all(line.as_bytes())?;
    }
    server.write_all(b"Connection: close\r\n\r\n")?;
    let mut upward = server.try_clone()?;
    std::thread::spawn(move || io::copy(&mut client, &mut upward));
    let mut answer = BufReader::new(server);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if answer.read_line(&mut line)? == 0 {
            break;
        }
        stream.write_all(line.as_bytes())?;
    }
    match fault {
        Some(Fault::Short(bytes)) => {
            io::copy(&mut answer.take(bytes as u64), &mut stream)?;
        }
        Some(Fault::Stall(bytes)) => {
            io::copy(&mut answer.take(bytes as u64), &mut stream)?;
            std::thread::sleep(Duration::from_secs(60));
        }
        Some(_) => {
            let mut body = Vec::new();
            answer.read_to_end(&mut body)?;
            if let Some(last) = body.last_mut() {
                *last ^= 1;
            }
            stream.write_all(&body)?;
        }
        None => drop(io::copy(&mut answer, &mut stream)?),
    }
    stream.shutdown(Shutdown::Both)
}
