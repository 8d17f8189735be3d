//! A registry over HTTP, and what is expected of its answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ctk_oci::{Algorithm, Descriptor, Digest, Document, Manifest, media_type};

/// One line of the table.
pub struct Check {
    pub id: String,
    /// Where the specification says so.
    pub clause: &'static str,
    pub run: Box<dyn Fn(&Peer) -> Outcome + Send + Sync>,
}

pub type Outcome = Result<(), String>;

pub fn add(
    checks: &mut Vec<Check>,
    id: impl Into<String>,
    clause: &'static str,
    run: impl Fn(&Peer) -> Outcome + Send + Sync + 'static,
) {
    checks.push(Check { id: id.into(), clause, run: Box::new(run) });
}

pub fn ensure(holds: bool, what: impl Into<String>) -> Outcome {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// A registry, and a repository in it that nobody else uses; further ones are below it.
pub struct Peer {
    host: String,
    pub repository: String,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub asked: String,
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub fn needs(&self, name: &str) -> Result<&str, String> {
        self.header(name).ok_or_else(|| format!("{}: {} without `{name}`", self.asked, self.status))
    }

    /// One of these statuses.
    pub fn is(&self, statuses: &[u16]) -> Outcome {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(200)]).into_owned();
        ensure(statuses.contains(&self.status), format!("{}: {}, not {statuses:?}: {body}", self.asked, self.status))
    }

    /// One of these statuses, and an error body with this code.
    pub fn fails(&self, statuses: &[u16], code: &str) -> Outcome {
        self.is(statuses)?;
        let value = self.json()?;
        let first = value["errors"][0]["code"].as_str().unwrap_or_default().to_owned();
        ensure(first == code, format!("{}: code `{first}`, not {code}", self.asked))
    }

    pub fn has(&self, name: &str, value: &str) -> Outcome {
        let found = self.needs(name)?;
        ensure(found == value, format!("{}: `{name}: {found}`, not {value}", self.asked))
    }

    pub fn json(&self) -> Result<serde_json::Value, String> {
        serde_json::from_slice(&self.body).map_err(|error| format!("{}: no JSON: {error}", self.asked))
    }
}

/// What tests upload: bytes that differ.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    super::common::noise(seed, length)
}

pub fn digest(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut digester = algorithm.digester();
    digester.update(bytes);
    digester.finish()
}

/// Adds to the query of a location.
pub fn with(location: &str, query: &str) -> String {
    format!("{location}{}{query}", if location.contains('?') { '&' } else { '?' })
}

impl Peer {
    pub fn new(host: &str, repository: &str) -> Peer {
        Peer { host: host.into(), repository: repository.into() }
    }

    /// Another repository.
    pub fn beside(&self, part: &str) -> Peer {
        Peer::new(&self.host, &format!("{}/{part}", self.repository))
    }

    /// `path` from `/` on or, without a slash in front, within the repository.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, String> {
        // Locations may be whole.
        let path = path.strip_prefix(&format!("http://{}", self.host)).unwrap_or(path);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/v2/{}/{path}", self.repository) };
        let asked = format!("{method} {path}");
        let failed = |error: std::io::Error| format!("{asked}: {error}");
        let mut stream = TcpStream::connect(&self.host).map_err(failed)?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(failed)?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.host);
        if !body.is_empty() || ["POST", "PUT", "PATCH"].contains(&method) {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        if path.contains("/manifests/") && !headers.iter().any(|(name, _)| *name == "Accept") {
            head += &format!("Accept: {}\r\n", media_type::ACCEPTED_MANIFESTS.join(", "));
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).map_err(failed)?;
        // A refusal may come before the body was read: then the answer counts, not the broken pipe.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Err(format!("{asked}: no answer ({read:?})"));
        };
        let body = answer.split_off(end + 4);
        let head = String::from_utf8_lossy(&answer).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| format!("{asked}: no status"))?;
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { unchunk(&body).ok_or("malformed chunks")? } else { body };
        Ok(Answer { asked, status, head, body })
    }

    pub fn get(&self, path: &str) -> Result<Answer, String> {
        self.ask("GET", path, &[], b"")
    }

    pub fn head(&self, path: &str) -> Result<Answer, String> {
        self.ask("HEAD", path, &[], b"")
    }

    pub fn delete(&self, path: &str) -> Result<Answer, String> {
        self.ask("DELETE", path, &[], b"")
    }

    /// Opens an upload; gives its location.
    pub fn open(&self) -> Result<String, String> {
        let answer = self.ask("POST", "blobs/uploads/", &[], b"")?;
        answer.is(&[202])?;
        answer.needs("location").map(str::to_owned)
    }

    /// Adds a chunk from `from` on; gives the next location.
    pub fn chunk(&self, location: &str, from: usize, bytes: &[u8]) -> Result<String, String> {
        let range = format!("{from}-{}", from + bytes.len() - 1);
        let headers = [("Content-Range", range.as_str()), ("Content-Type", "application/octet-stream")];
        let answer = self.ask("PATCH", location, &headers, bytes)?;
        answer.is(&[202])?;
        answer.needs("location").map(str::to_owned)
    }

    /// Ends an upload with the last bytes.
    pub fn close(&self, location: &str, digest: &Digest, bytes: &[u8]) -> Result<Answer, String> {
        let headers = [("Content-Type", "application/octet-stream")];
        self.ask("PUT", &with(location, &format!("digest={digest}")), &headers, bytes)
    }

    /// Pushes a blob.
    pub fn blob(&self, bytes: &[u8]) -> Result<Descriptor, String> {
        let descriptor = Descriptor::of("application/octet-stream", bytes);
        self.close(&self.open()?, &descriptor.digest, bytes)?.is(&[201])?;
        Ok(descriptor)
    }

    /// Puts a manifest by tag or digest.
    pub fn put(&self, target: &str, kind: &str, bytes: &[u8]) -> Result<Answer, String> {
        self.ask("PUT", &format!("manifests/{target}"), &[("Content-Type", kind)], bytes)
    }

    /// An image whose config and layer are pushed; `number` makes it another one.
    pub fn image(&self, number: u64) -> Result<Manifest, String> {
        let mut config = self.blob(format!("{{\"number\":{number}}}").as_bytes())?;
        config.media_type = media_type::CONFIG.into();
        let mut layer = self.blob(&bytes(number + 77, 300))?;
        layer.media_type = media_type::LAYER_GZIP.into();
        Ok(Manifest::image(config, vec![layer]))
    }

    /// Pushes an image as `tag`.
    pub fn tagged(&self, tag: &str, number: u64) -> Result<Descriptor, String> {
        self.push(tag, self.image(number)?)
    }

    pub fn push(&self, target: &str, manifest: Manifest) -> Result<Descriptor, String> {
        let bytes = Document::new(manifest).bytes().to_vec();
        let descriptor = Descriptor::of(media_type::MANIFEST, &bytes);
        let target = if target.is_empty() { descriptor.digest.to_string() } else { target.to_owned() };
        self.put(&target, media_type::MANIFEST, &bytes)?.is(&[201])?;
        Ok(descriptor)
    }
}

fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let length =
            usize::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?.split(';').next()?.trim(), 16).ok()?;
        bytes = &bytes[end + 2..];
        if length == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(bytes.get(..length)?);
        bytes = bytes.get(length + 2..)?;
    }
}
