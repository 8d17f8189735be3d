//! Buckets, repositories and the web: where they are on this machine, and what is copied from and to them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig, WriteMultipart};
use serde::{Deserialize, Serialize};

use super::error::chain;
use super::execute::Run;
use super::limits::{PACKAGE_BYTES, WEBHOOK};
use super::paths;
use crate::builders::{Fetch, Storage};

/// Larger objects are sent in parts of this size.
const PART_BYTES: usize = 8 << 20;
/// Failures are tried again so often, and for so long.
const RETRIES: usize = 3;
const RETRY_TIME: Duration = Duration::from_secs(30);

/// Where things are that a file names by their place in the cloud: the front of an address, and what stands for it here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mapping(pub BTreeMap<String, String>);

/// A place, as it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Here {
    /// A folder or file.
    Folder(PathBuf),
    /// A bucket, and what all its keys begin with.
    Bucket(String, String),
    /// A server.
    Web(String),
}

impl Mapping {
    /// `FROM=TO`; the longest `FROM` that fits counts.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        match text.split_once('=') {
            Some((from, to)) if from.contains("://") && !to.is_empty() => {
                self.0.insert(from.trim_end_matches('/').to_owned(), to.trim_end_matches('/').to_owned());
                Ok(())
            }
            _ => Err("expected ADDRESS=PLACE, e.g. `gs://bucket=out` or `gs://bucket=s3://bucket`".into()),
        }
    }

    /// Where an address is.
    pub(crate) fn here(&self, address: &str) -> Result<Here, String> {
        let fits = |from: &&String| {
            address.strip_prefix(from.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let longest = self.0.keys().filter(fits).max_by_key(|from| from.len());
        let to = match longest {
            Some(from) => format!("{}{}", self.0[from], &address[from.len()..]),
            None => address.to_owned(),
        };
        match to.split_once("://") {
            None => Ok(Here::Folder(to.into())),
            Some(("s3", rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                Ok(Here::Bucket(bucket.into(), prefix.trim_matches('/').into()))
            }
            Some(("http" | "https", _)) => Ok(Here::Web(to)),
            Some(("gs", rest)) => {
                let bucket = rest.split('/').next().unwrap_or_default();
                Err(format!(
                    "bucket `gs://{bucket}` is not here; say what stands for it: `--map gs://{bucket}=FOLDER`, or `=s3://BUCKET`"
                ))
            }
            Some((scheme, _)) => Err(format!("`{scheme}://` is no place that is known here")),
        }
    }
}

/// Gives `object_store` the client that all of ctk uses.
#[derive(Debug)]
struct Ours(reqwest::Client);

impl HttpConnector for Ours {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

fn bucket(name: &str) -> Result<AmazonS3, String> {
    let client = ctk_http::client(&ctk_http::Options::default()).map_err(|error| chain(&error))?;
    let variable =
        |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIME, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(name)
        .with_region(variable(&["AWS_REGION", "AWS_DEFAULT_REGION"]).unwrap_or("us-east-1".into()))
        .with_retry(retry)
        .with_http_connector(Ours(client));
    if let Some(endpoint) = variable(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]) {
        let plain = endpoint.starts_with("http://");
        builder = builder.with_virtual_hosted_style_request(false).with_allow_http(plain).with_endpoint(endpoint);
    }
    if let Some(id) = variable(&["AWS_ACCESS_KEY_ID"]) {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = variable(&["AWS_SECRET_ACCESS_KEY"]) {
        builder = builder.with_secret_access_key(secret);
    }
    if let Some(token) = variable(&["AWS_SESSION_TOKEN"]) {
        builder = builder.with_token(token);
    }
    builder.build().map_err(|error| chain(&error))
}

fn key(prefix: &str, name: &str) -> Key {
    Key::from(format!("{prefix}/{name}").trim_matches('/'))
}

/// Writes a file to a place, under a name below it.
pub(crate) fn put(here: &Here, name: &str, file: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    match here {
        Here::Folder(folder) => {
            let to = below(folder, name)?;
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
            }
            fs::copy(file, &to).map(drop).map_err(|error| format!("{} to {}: {error}", file.display(), to.display()))
        }
        Here::Bucket(name_of_bucket, prefix) => {
            use std::io::Read;
            let objects = bucket(name_of_bucket)?;
            let key = key(prefix, name);
            let mut source = fs::File::open(file).map_err(failed)?;
            let size = source.metadata().map_err(failed)?.len();
            let mut parts = Vec::new();
            let mut next = move || -> std::io::Result<Vec<u8>> {
                let mut part = Vec::with_capacity(PART_BYTES.min(size as usize));
                (&mut source).take(PART_BYTES as u64).read_to_end(&mut part)?;
                Ok(part)
            };
            parts.push(next().map_err(failed)?);
            ctk_http::runtime().block_on(async {
                if size <= PART_BYTES as u64 {
                    let payload = PutPayload::from(parts.pop().unwrap_or_default());
                    return objects.put(&key, payload).await.map(drop).map_err(|error| chain(&error));
                }
                let upload = objects.put_multipart(&key).await.map_err(|error| chain(&error))?;
                let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
                let mut part = parts.pop().unwrap_or_default();
                while !part.is_empty() {
                    upload.wait_for_capacity(2).await.map_err(|error| chain(&error))?;
                    upload.put(part.into());
                    part = next().map_err(failed)?;
                }
                upload.finish().await.map(drop).map_err(|error| chain(&error))
            })
        }
        Here::Web(url) => {
            let bytes = fs::read(file).map_err(failed)?;
            http("PUT", &format!("{url}/{name}"), &[], Some(bytes)).map(drop)
        }
    }
}

/// The names of all files of a place, sorted.
fn list(here: &Here) -> Result<Vec<String>, String> {
    match here {
        Here::Folder(folder) if folder.is_file() => Ok(vec![String::new()]),
        Here::Folder(folder) => paths::files(folder, &["**".into()]).map_err(|error| chain(&error)),
        Here::Bucket(name, prefix) => {
            let objects = bucket(name)?;
            let prefix_key = (!prefix.is_empty()).then(|| Key::from(prefix.as_str()));
            ctk_http::runtime().block_on(async {
                let found = objects.list_with_delimiter(None).await;
                // Asked only whether it is there: an empty one and none look the same below.
                found.map_err(|error| chain(&error))?;
                let mut names = Vec::new();
                let mut todo = vec![prefix_key.clone()];
                while let Some(folder) = todo.pop() {
                    let found = objects.list_with_delimiter(folder.as_ref()).await.map_err(|error| chain(&error))?;
                    names.extend(found.objects.into_iter().map(|one| one.location.to_string()));
                    todo.extend(found.common_prefixes.into_iter().map(Some));
                }
                if let Some(own) = &prefix_key
                    && objects.head(own).await.is_ok()
                {
                    names.push(own.to_string());
                }
                let cut = |name: String| {
                    name.strip_prefix(prefix.as_str()).unwrap_or(&name).trim_start_matches('/').to_owned()
                };
                let mut names: Vec<String> = names.into_iter().map(cut).collect();
                names.sort();
                names.dedup();
                Ok(names)
            })
        }
        Here::Web(url) => Err(format!("what is at {url} cannot be listed")),
    }
}

/// Reads a file of a place.
fn get(here: &Here, name: &str) -> Result<Vec<u8>, String> {
    match here {
        Here::Folder(folder) => {
            let path = if name.is_empty() { folder.clone() } else { below(folder, name)? };
            fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
        }
        Here::Bucket(bucket_name, prefix) => {
            let objects = bucket(bucket_name)?;
            let key = key(prefix, name);
            let read = async {
                let found = objects.get(&key).await?;
                found.bytes().await
            };
            ctk_http::runtime().block_on(read).map(|bytes| bytes.to_vec()).map_err(|error| chain(&error))
        }
        Here::Web(url) => http("GET", &format!("{url}/{name}"), &[], None),
    }
}

fn remove(here: &Here, name: &str) -> Result<(), String> {
    match here {
        Here::Folder(folder) => {
            let path = if name.is_empty() { folder.clone() } else { below(folder, name)? };
            fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))
        }
        Here::Bucket(bucket_name, prefix) => {
            let objects = bucket(bucket_name)?;
            let key = key(prefix, name);
            ctk_http::runtime().block_on(objects.delete(&key)).map_err(|error| chain(&error))
        }
        Here::Web(url) => Err(format!("what is at {url} cannot be removed")),
    }
}

/// A name below a folder, which leads nowhere else.
fn below(folder: &Path, name: &str) -> Result<PathBuf, String> {
    match name.split('/').any(|part| part == "..") {
        true => Err(format!("`{name}` leads out of {}", folder.display())),
        false => Ok(folder.join(name.trim_start_matches('/'))),
    }
}

/// One request; an answer that is no success is an error that says what it was.
pub(crate) fn http(
    method: &str,
    url: &str,
    headers: &[(String, String)],
    body: Option<Vec<u8>>,
) -> Result<Vec<u8>, String> {
    let (status, bytes) = exchange(method, url, headers, body, true)?;
    match (200..300).contains(&status) {
        true => Ok(bytes),
        false => {
            let text = String::from_utf8_lossy(&bytes);
            let first: String = text.trim().chars().take(300).collect();
            Err(format!("{method} {url}: status {status} {first}").trim_end().to_owned())
        }
    }
}

fn exchange(
    method: &str,
    url: &str,
    headers: &[(String, String)],
    body: Option<Vec<u8>>,
    follows: bool,
) -> Result<(u16, Vec<u8>), String> {
    let options = ctk_http::Options { no_redirects: !follows, ..ctk_http::Options::default() };
    let client = ctk_http::client(&options).map_err(|error| chain(&error))?;
    let method = reqwest::Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is no method"))?;
    ctk_http::runtime().block_on(async {
        let mut request = client.request(method, url);
        for (name, value) in headers {
            request = request.header(name.as_str(), value.as_str());
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let mut answer = request.send().await.map_err(|error| chain(&error))?;
        let status = answer.status().as_u16();
        let mut bytes: Vec<u8> = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| chain(&error))? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > PACKAGE_BYTES {
                return Err(format!("{url}: more than {PACKAGE_BYTES} bytes"));
            }
        }
        Ok((status, bytes))
    })
}

/// What Vault at `address` has at `/v1/PATH`.
pub fn ask_vault(address: &str, token: &str, path: &str) -> Result<Vec<u8>, String> {
    let url = format!("{}/v1/{path}", address.trim_end_matches('/'));
    http("GET", &url, &[("X-Vault-Token".to_owned(), token.to_owned())], None)
}

/// Tells a webhook; an answer that is no success is an error.
pub fn tell(url: &str, body: &serde_json::Value) -> Result<(), String> {
    let url = url.to_owned();
    let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
    let (sender, receiver) = std::sync::mpsc::channel();
    let (body, asked) = (body.to_string().into_bytes(), url.clone());
    // Who does not answer in time is not waited for.
    std::thread::spawn(move || sender.send(http("POST", &asked, &headers, Some(body)).map(drop)));
    receiver.recv_timeout(WEBHOOK).unwrap_or_else(|_| Err(format!("POST {url}: no answer within {WEBHOOK:?}")))
}

/// What a curl step asks for; what it prints is given back. The error's number is curl's.
pub fn fetch(fetch: &Fetch) -> Result<Vec<u8>, (i32, String)> {
    const REFUSED: i32 = 22;
    const FAILED: i32 = 7;
    let mut headers = Vec::new();
    for line in &fetch.headers {
        let (name, value) = line.split_once(':').ok_or((FAILED, format!("`{line}` is no header")))?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let is_typed = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if fetch.body.is_some() && !is_typed {
        headers.push(("Content-Type".into(), "application/x-www-form-urlencoded".into()));
    }
    let mut tries = 0;
    loop {
        let body = fetch.body.clone().map(String::into_bytes);
        let answer = exchange(&fetch.method, &fetch.url, &headers, body, fetch.follows);
        let again = |status: u16| matches!(status, 408 | 429 | 500 | 502 | 503 | 504);
        let error = match answer {
            Ok((status, bytes)) if status < 400 || !(fetch.fails || again(status) && tries < fetch.retries) => {
                return Ok(bytes);
            }
            Ok((status, _)) if !again(status) => return Err((REFUSED, format!("status {status}"))),
            Ok((status, _)) => (REFUSED, format!("status {status}")),
            Err(why) => (FAILED, why),
        };
        if tries >= fetch.retries {
            return Err(error);
        }
        std::thread::sleep(Duration::from_secs(1 << tries.min(6)));
        tries += 1;
    }
}

/// A file of the web whose content is known, into the workspace.
pub(crate) fn download(run: &Run<'_>, url: &str, sha256: Option<&str>, into: &str) -> Result<(), String> {
    let workspace = run.request.journal.folder.join("workspace");
    let path = paths::below(&workspace, into).ok_or_else(|| format!("`{into}` leads out of the workspace"))?;
    let bytes = match run.request.settings.mapping.here(url)? {
        Here::Web(url) => http("GET", &url, &[], None)?,
        here => get(&here, "")?,
    };
    if let Some(expected) = sha256 {
        let found = ctk_oci::Digest::of(&bytes).to_string();
        let found = found.trim_start_matches("sha256:");
        if found != expected.trim_start_matches("sha256:") {
            return Err(format!("{url} has the SHA-256 {found}, expected {expected}"));
        }
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
    }
    fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// A source or destination of a copy.
fn place(text: &str, mapping: &Mapping) -> Result<Here, String> {
    match text.contains("://") {
        true => mapping.here(text.trim_end_matches('/')),
        false => Ok(Here::Folder(text.trim_end_matches('/').into())),
    }
}

/// What a gsutil step asks for. Each file that is copied or removed is told to `say`.
pub fn carry_out(storage: &Storage, mapping: &Mapping, say: &dyn Fn(String)) -> Result<(), String> {
    match storage {
        Storage::Copy { from, to, recursive, keep } => {
            let target = place(to, mapping)?;
            let existing = match &target {
                Here::Folder(folder) => folder.is_dir(),
                _ => {
                    to.ends_with('/')
                        || to.trim_end_matches('/').matches('/').count() == 2
                        || !list(&target)?.is_empty()
                }
            };
            let into = to.ends_with('/') || from.len() > 1 || existing;
            for source in from {
                copy(source, &target, to, into, *recursive, *keep, mapping, say)?;
            }
            Ok(())
        }
        Storage::Sync { from, to, recursive, delete, exclude } => {
            let (source, target) = (place(from, mapping)?, place(to, mapping)?);
            let left_out = exclude.as_deref().map(paths::PathGlob::new);
            let takes = |name: &String| {
                (*recursive || !name.contains('/'))
                    && left_out.as_ref().is_none_or(|glob| !glob.matches(&name.split('/').collect::<Vec<_>>()))
            };
            let names: Vec<String> = list(&source)?.into_iter().filter(takes).collect();
            for name in &names {
                transfer(&source, name, &target, name)?;
                say(format!("copied {name} to {to}"));
            }
            if *delete {
                for name in list(&target)?.into_iter().filter(takes).filter(|name| !names.contains(name)) {
                    remove(&target, &name)?;
                    say(format!("removed {name} from {to}"));
                }
            }
            Ok(())
        }
        Storage::Remove { objects, recursive } => {
            for object in objects {
                let (here, names) = expand(object, *recursive, mapping)?;
                if names.is_empty() {
                    return Err(format!("nothing is at {object}"));
                }
                for name in names {
                    remove(&here, &name)?;
                    say(format!("removed {object} {name}").trim_end().to_owned());
                }
            }
            Ok(())
        }
    }
}

/// The files that a word names, and the place that they are below.
fn expand(word: &str, recursive: bool, mapping: &Mapping) -> Result<(Here, Vec<String>), String> {
    let pattern = word.find(['*', '?', '[']);
    let Some(at) = pattern else {
        let here = place(word, mapping)?;
        let names = list(&here)?;
        let names = names.into_iter().filter(|name| name.is_empty() || recursive).collect();
        return Ok((here, names));
    };
    let (front, rest) = word.split_at(word[..at].rfind('/').map_or(0, |slash| slash + 1));
    let here = place(if front.is_empty() { "." } else { front }, mapping)?;
    let glob = paths::PathGlob::new(rest);
    let fits = |name: &String| {
        let parts: Vec<&str> = name.split('/').collect();
        glob.matches(&parts) || recursive && (1..parts.len()).any(|length| glob.matches(&parts[..length]))
    };
    Ok((here.clone(), list(&here)?.into_iter().filter(fits).collect()))
}

#[expect(clippy::too_many_arguments, reason = "what a copy is made of")]
fn copy(
    word: &str,
    target: &Here,
    to: &str,
    into: bool,
    recursive: bool,
    keep: bool,
    mapping: &Mapping,
    say: &dyn Fn(String),
) -> Result<(), String> {
    let (source, names) = expand(word, recursive, mapping)?;
    if names.is_empty() {
        let hint = if recursive { "" } else { "; folders are copied with -r" };
        return Err(format!("nothing is at {word}{hint}"));
    }
    let last = word.trim_end_matches('/').rsplit('/').next().unwrap_or(word);
    let is_pattern = word.contains(['*', '?', '[']);
    for name in names {
        let below = match (name.as_str(), into) {
            ("", true) => last.to_owned(),
            ("", false) => String::new(),
            (name, _) if is_pattern && !recursive => name.rsplit('/').next().unwrap_or(name).to_owned(),
            (name, _) if is_pattern => name.to_owned(),
            (name, true) => format!("{last}/{name}"),
            (name, false) => name.to_owned(),
        };
        if keep && get(target, &below).is_ok() {
            continue;
        }
        transfer(&source, &name, target, &below)?;
        say(format!("copied {word} {name} to {to} {below}").replace("  ", " ").trim_end().to_owned());
    }
    Ok(())
}

fn transfer(source: &Here, name: &str, target: &Here, below_target: &str) -> Result<(), String> {
    if let Here::Folder(folder) = source {
        let path = if name.is_empty() { folder.clone() } else { below(folder, name)? };
        return match (target, below_target) {
            (Here::Folder(to), "") => {
                write(to, &fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?)
            }
            _ => put(target, below_target, &path),
        };
    }
    let bytes = get(source, name)?;
    match target {
        Here::Folder(to) if below_target.is_empty() => write(to, &bytes),
        Here::Folder(to) => write(&below(to, below_target)?, &bytes),
        target => {
            let file = std::env::temp_dir().join(format!("ctk-transfer-{}", std::process::id()));
            write(&file, &bytes)?;
            let put = put(target, below_target, &file);
            let _ = fs::remove_file(&file);
            put
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let made = parent.map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, bytes));
    made.map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_somewhere() {
        let mut mapping = Mapping::default();
        for text in ["gs://a=/tmp/a", "gs://a/deep=s3://b/c/", "https://pkg.example.com/repo=http://127.0.0.1:1"] {
            mapping.add(text).unwrap();
        }
        assert!(mapping.add("gs://a").is_err());
        let check = |address: &str, expected: Here| assert_eq!(mapping.here(address).unwrap(), expected);
        check("gs://a/x", Here::Folder("/tmp/a/x".into()));
        check("gs://a/deep/x", Here::Bucket("b".into(), "c/x".into()));
        check("https://pkg.example.com/repo/x", Here::Web("http://127.0.0.1:1/x".into()));
        check("https://other.example.com/", Here::Web("https://other.example.com/".into()));
        assert!(mapping.here("gs://ab/x").unwrap_err().contains("--map gs://ab=FOLDER"));
    }

    #[test]
    fn copies_between_folders() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut mapping = Mapping::default();
        mapping.add(&format!("gs://b={}", path("bucket").display())).unwrap();
        for name in ["src/a.txt", "src/sub/b.txt"] {
            write(&path(name), name.as_bytes()).unwrap();
        }
        let src = path("src").display().to_string();
        let copy = |from: &str, to: &str, recursive: bool| {
            let from = vec![from.replace("SRC", &src)];
            carry_out(&Storage::Copy { from, to: to.into(), recursive, keep: false }, &mapping, &|_| {})
        };
        copy("SRC/*.txt", "gs://b/flat/", false).unwrap();
        copy("SRC", "gs://b/", true).unwrap();
        copy("SRC/a.txt", "gs://b/one", false).unwrap();
        assert!(copy("SRC", "gs://b/two", false).unwrap_err().contains("with -r"));
        let found = list(&Here::Folder(path("bucket"))).unwrap();
        assert_eq!(found, ["flat/a.txt", "one", "src/a.txt", "src/sub/b.txt"]);
        let sync = Storage::Sync {
            from: "gs://b/src".into(),
            to: path("back").display().to_string(),
            recursive: true,
            delete: true,
            exclude: None,
        };
        write(&path("back/old"), b"").unwrap();
        carry_out(&sync, &mapping, &|_| {}).unwrap();
        assert_eq!(list(&Here::Folder(path("back"))).unwrap(), ["a.txt", "sub/b.txt"]);
    }
}
