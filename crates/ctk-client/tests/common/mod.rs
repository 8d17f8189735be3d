//! A real registry, images to move, and a proxy that breaks things on order.
#![allow(dead_code, missing_docs)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ctk_client::{Client, ClientOptions, Copied, CopyFrom, CopyOptions, CopyTo, Retry};
use ctk_oci::{Descriptor, Document, Index, Manifest, Platform, Reference, media_type};
use ctk_plan::Cancel;
use ctk_store::Store;

/// Whether a program is there; without it the test is skipped, or fails where everything is required.
pub fn has(program: &str) -> bool {
    let found =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(program).is_file());
    if !found {
        assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs {program}");
        println!("skipped: needs {program}");
    }
    found
}

/// `docker-registry` on a free port of loopback.
pub struct DockerRegistry {
    child: Child,
    pub host: String,
    _root: tempfile::TempDir,
}

impl DockerRegistry {
    /// Starts it with further lines of its YAML configuration.
    pub fn start(extra: &str) -> DockerRegistry {
        DockerRegistry::start_on("127.0.0.1", "", extra)
    }

    /// Starts it on an address, with further keys of its `http` section.
    pub fn start_on(ip: &str, http: &str, extra: &str) -> DockerRegistry {
        for _ in 0..20 {
            let root = tempfile::tempdir().unwrap();
            let port = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
            let host = format!("{ip}:{port}");
            let storage = root.path().join("data");
            let config = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage:\n  delete: {{enabled: true}}\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '{host}'{http}}}\n{extra}\n",
                storage.display()
            );
            let path = root.path().join("config.yml");
            std::fs::write(&path, config).unwrap();
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let deadline = Instant::now() + Duration::from_secs(10);
            while Instant::now() < deadline {
                // Another test may have been faster to take the port: then this one exits.
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                let up = TcpStream::connect(&host).is_ok();
                std::thread::sleep(Duration::from_millis(30));
                if up && child.try_wait().unwrap().is_none() {
                    return DockerRegistry { child, host, _root: root };
                }
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry does not start");
    }

    pub fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.host).parse().unwrap()
    }

    /// Where it keeps everything.
    pub fn folder(&self) -> PathBuf {
        self._root.path().join("data")
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn options() -> ClientOptions {
    let retry = Retry { attempts: 5, first_delay: Duration::from_millis(10), longest_delay: Duration::from_millis(50) };
    ClientOptions { retry, ..ClientOptions::default() }
}

pub fn client() -> Client {
    Client::new(options())
}

/// From registry to registry.
pub fn copy(
    client: &Client,
    from: &Reference,
    to: &Reference,
    options: CopyOptions<'_>,
) -> Result<Copied, ctk_client::ClientError> {
    client.transfer(CopyFrom::Registry(from), CopyTo::Registry(to), options, None, &never())
}

pub fn never() -> Cancel {
    Cancel::new()
}

pub fn store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    (root, store)
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// An image of `layers` layers with a file of `bytes` bytes each.
pub fn image(store: &Store, architecture: &str, seed: u64, layers: usize, bytes: usize) -> Descriptor {
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    for layer in 0..layers {
        let mut tar = tar::Builder::new(Vec::new());
        let data = noise(seed * 1000 + layer as u64, bytes);
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("file-{layer}"), &data[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        diff_ids.push(ctk_oci::Digest::of(&tar).to_string());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        descriptors.push(store.put(media_type::LAYER_GZIP, &gzip.finish().unwrap()).unwrap());
    }
    let diff_ids: Vec<String> = diff_ids.iter().map(|d| format!("{d:?}")).collect();
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Cmd":["/file-0"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    );
    let config = store.put(media_type::CONFIG, config.as_bytes()).unwrap();
    let manifest = Document::new(Manifest::image(config, descriptors));
    store.put(media_type::MANIFEST, manifest.bytes()).unwrap()
}

/// An index of an image for amd64 and one for arm64.
pub fn index(store: &Store, seed: u64, layers: usize, bytes: usize) -> Descriptor {
    let mut members = Vec::new();
    for (place, architecture) in ["amd64", "arm64"].into_iter().enumerate() {
        let mut member = image(store, architecture, seed + place as u64, layers, bytes);
        member.platform = Some(Platform::new("linux", architecture));
        members.push(member);
    }
    store.put(media_type::INDEX, Document::new(Index::new(members)).bytes()).unwrap()
}

/// What the proxy does to a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Ends the connection after that many bytes of the answer.
    CutAnswer(usize),
    /// Ends the connection after that many bytes of the request's body.
    CutRequest(usize),
    /// Answers itself.
    Answer(String),
    /// Changes the byte at this place of the answer.
    Spoil(usize),
}

/// A fault for the next `times` requests whose first line contains `on`.
#[derive(Clone, Debug)]
pub struct Order {
    pub on: &'static str,
    pub times: usize,
    pub fault: Fault,
}

/// A proxy in front of a registry: one request a connection, faults on order.
pub struct Proxy {
    pub host: String,
    orders: Arc<Mutex<Vec<Order>>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn before(upstream: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (orders, seen) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (upstream, shared) = (upstream.to_owned(), (orders.clone(), seen.clone()));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (upstream, (orders, seen)) = (upstream.clone(), shared.clone());
                std::thread::spawn(move || {
                    let _ = serve(stream, &upstream, &orders, &seen);
                });
            }
        });
        Proxy { host, orders, seen }
    }

    pub fn order(&self, on: &'static str, times: usize, fault: Fault) {
        self.orders.lock().unwrap().push(Order { on, times, fault });
    }

    /// Heads of the requests so far that contain `text`.
    pub fn seen(&self, text: &str) -> Vec<String> {
        self.seen.lock().unwrap().iter().filter(|head| head.contains(text)).cloned().collect()
    }

    pub fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.host).parse().unwrap()
    }
}

fn serve(
    mut client: TcpStream,
    upstream: &str,
    orders: &Mutex<Vec<Order>>,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let (head, body) = read_head(&mut client)?;
    let line = head.lines().next().unwrap_or_default().to_owned();
    seen.lock().unwrap().push(head.clone());
    let fault = {
        let mut orders = orders.lock().unwrap();
        let found = orders.iter_mut().find(|order| order.times > 0 && line.contains(order.on));
        found.map(|order| {
            order.times -= 1;
            order.fault.clone()
        })
    };
    if let Some(Fault::Answer(text)) = &fault {
        client.write_all(text.as_bytes())?;
        let _ = client.shutdown(Shutdown::Write);
        let _ = client.set_read_timeout(Some(Duration::from_millis(500)));
        let _ = std::io::copy(&mut client, &mut std::io::sink());
        return Ok(());
    }
    let mut server = TcpStream::connect(upstream)?;
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    server.write_all(head.as_bytes())?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let up_limit = if let Some(Fault::CutRequest(n)) = fault { Some(n) } else { None };
    let client_end = client.try_clone()?;
    std::thread::spawn(move || {
        let mut left = up_limit.unwrap_or(usize::MAX);
        let first = body.len().min(left);
        let mut going = to_server.write_all(&body[..first]).is_ok();
        left -= first;
        let mut buffer = [0; 16 * 1024];
        while going && left > 0 {
            match from_client.read(&mut buffer) {
                Ok(0) | Err(_) => going = false,
                Ok(n) => {
                    let n = n.min(left);
                    left -= n;
                    going = to_server.write_all(&buffer[..n]).is_ok();
                }
            }
        }
        if up_limit.is_some() {
            let _ = client_end.shutdown(Shutdown::Both);
            let _ = to_server.shutdown(Shutdown::Both);
        }
    });
    let mut at = 0;
    let mut buffer = [0; 16 * 1024];
    loop {
        let n = match server.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        let mut piece = &mut buffer[..n];
        match fault {
            Some(Fault::CutAnswer(limit)) if at + n > limit => piece = &mut piece[..limit.saturating_sub(at)],
            Some(Fault::Spoil(place)) if (at..at + n).contains(&place) => piece[place - at] ^= 0x55,
            _ => {}
        }
        let length = piece.len();
        client.write_all(piece)?;
        if length < n {
            break;
        }
        at += n;
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    Ok(())
}

/// A request's head with its empty line, and what came with it of the body.
pub fn read_head(stream: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), body));
        }
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}

/// A server of `answer(head, body) -> raw answer`, one request a connection. Bodies up to what came with the head.
pub fn little_server(answer: impl Fn(&str) -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let Ok((head, body)) = read_head(&mut stream) else { continue };
            let text = answer(&format!("{head}{}", String::from_utf8_lossy(&body)));
            let _ = stream.write_all(text.as_bytes());
            let _ = stream.shutdown(Shutdown::Write);
        }
    });
    address
}

pub fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

/// One request over its own connection: status, head, body.
pub fn ask(host: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let (head, mut rest) = read_head(&mut stream).unwrap();
    stream.read_to_end(&mut rest).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), rest)
}

/// Runs a program; its output is shown when it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

pub fn write_executable(path: &Path, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

/// An htpasswd file of one user.
pub fn htpasswd(directory: &Path, user: &str, password: &str) -> PathBuf {
    let path = directory.join("htpasswd");
    let text = run(Command::new("htpasswd").args(["-nbB", "-C", "4", user, password]));
    std::fs::write(&path, text.trim()).unwrap();
    path
}
