//! Packages, as their repositories take them.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

use super::limits::PACKAGE_BYTES;
use super::storage::http;

/// The MD5 of bytes, as Cloud Build writes it down.
pub(crate) fn md5_base64(bytes: &[u8]) -> String {
    STANDARD.encode(Md5::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > PACKAGE_BYTES {
        return Err(format!("{} is no file of at most {PACKAGE_BYTES} bytes", path.display()));
    }
    fs::read(path).map_err(failed)
}

/// Name and password of a repository: those of the address, else `CTK_REPOSITORY_USER` and `…_PASSWORD`.
fn credentials(url: &str) -> (String, Vec<(String, String)>) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (pair, host) = match host.rsplit_once('@') {
        Some((pair, host)) => (Some(pair.to_owned()), host),
        None => (None, host),
    };
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let pair = pair.or_else(|| {
        let password = variable("CTK_REPOSITORY_PASSWORD")?;
        Some(format!("{}:{password}", variable("CTK_REPOSITORY_USER").unwrap_or_else(|| "oauth2accesstoken".into())))
    });
    let header = pair.map(|pair| ("Authorization".to_owned(), format!("Basic {}", STANDARD.encode(pair))));
    (format!("{scheme}://{host}/{path}").trim_end_matches('/').to_owned(), header.into_iter().collect())
}

/// Uploads a wheel or a source archive (the upload API of PyPI, as twine speaks it).
pub(crate) fn python(url: &str, file: &Path) -> Result<(), String> {
    let bytes = read(file)?;
    let file_name = file.file_name().and_then(|name| name.to_str()).ok_or("a package's name is no UTF-8")?;
    let (stem, kind, version_of) = match (file_name.strip_suffix(".whl"), file_name.strip_suffix(".tar.gz")) {
        (Some(stem), _) => (stem, "bdist_wheel", stem.split('-').nth(2).unwrap_or("py3")),
        (None, Some(stem)) => (stem, "sdist", "source"),
        (None, None) => return Err(format!("{file_name} is no wheel and no source archive")),
    };
    let (name, rest) = match kind {
        "sdist" => stem.rsplit_once('-'),
        _ => stem.split_once('-'),
    }
    .ok_or_else(|| format!("{file_name} has no version in its name"))?;
    let version = rest.split('-').next().unwrap_or(rest);
    let sha256 = ctk_oci::Digest::of(&bytes).to_string();
    let md5 = hex(&Md5::digest(&bytes));
    let fields = [
        (":action", "file_upload"),
        ("protocol_version", "1"),
        ("metadata_version", "2.1"),
        ("name", name),
        ("version", version),
        ("filetype", kind),
        ("pyversion", version_of),
        ("md5_digest", md5.as_str()),
        ("sha256_digest", sha256.trim_start_matches("sha256:")),
    ];
    // A line that the content does not have.
    let boundary = format!("ctk{:016x}{:016x}", RandomState::new().build_hasher().finish(), bytes.len());
    let mut body = Vec::with_capacity(bytes.len() + 2048);
    for (name, value) in fields {
        let part = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    let part = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"content\"; filename=\"{file_name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    );
    body.extend_from_slice(part.as_bytes());
    body.extend_from_slice(&bytes);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let (url, mut headers) = credentials(url);
    headers.push(("Content-Type".into(), format!("multipart/form-data; boundary={boundary}")));
    http("POST", &format!("{url}/"), &headers, Some(body)).map(drop)
}

/// The files of a Maven artifact, by their names in the repository: the file, a description, and their checksums.
pub(crate) fn maven(scratch: &Path, file: &Path, coordinates: &[String; 3]) -> Result<Vec<(String, PathBuf)>, String> {
    let [group, artifact, version] = coordinates;
    let bytes = read(file)?;
    let kind = file.extension().and_then(|kind| kind.to_str()).unwrap_or("jar");
    let folder = format!("{}/{artifact}/{version}/{artifact}-{version}", group.replace('.', "/"));
    let description = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n  \
         <modelVersion>4.0.0</modelVersion>\n  <groupId>{group}</groupId>\n  <artifactId>{artifact}</artifactId>\n  \
         <version>{version}</version>\n  <packaging>{kind}</packaging>\n</project>\n"
    );
    let own = scratch.join("maven");
    fs::create_dir_all(&own).map_err(|error| format!("{}: {error}", own.display()))?;
    let mut files = Vec::new();
    let mut add = |ending: &str, bytes: &[u8]| -> Result<(), String> {
        let path = own.join(format!("{artifact}-{version}{}", ending.replace('/', "-")));
        fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        files.push((format!("{folder}{ending}"), path));
        Ok(())
    };
    for (ending, content) in [(format!(".{kind}"), bytes.as_slice()), (".pom".to_owned(), description.as_bytes())] {
        add(&ending, content)?;
        add(&format!("{ending}.md5"), hex(&Md5::digest(content)).as_bytes())?;
        let sha256 = ctk_oci::Digest::of(content).to_string();
        add(&format!("{ending}.sha256"), sha256.trim_start_matches("sha256:").as_bytes())?;
    }
    Ok(files)
}

/// An npm package, packed.
pub(crate) struct Npm {
    /// Its name.
    pub name: String,
    version: String,
    manifest: serde_json::Value,
    /// The archive.
    pub file: PathBuf,
}

/// Runs a program of this machine; its error says how it failed.
fn program(name: &str, words: &[&str], folder: &Path) -> Result<(), String> {
    let mut command = std::process::Command::new(name);
    let output = command.args(words).current_dir(folder).stdin(std::process::Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run {name}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Packs the folder of an npm package.
pub(crate) fn npm(scratch: &Path, folder: &Path) -> Result<Npm, String> {
    let bytes = read(&folder.join("package.json"))?;
    let manifest: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| format!("package.json cannot be read: {error}"))?;
    let text = |name: &str| {
        manifest[name].as_str().map(str::to_owned).ok_or_else(|| format!("package.json has no text `{name}`"))
    };
    let (name, version) = (text("name")?, text("version")?);
    let own = scratch.join("npm");
    fs::create_dir_all(&own).map_err(|error| format!("{}: {error}", own.display()))?;
    let file = own.join(format!("{}-{version}.tgz", name.trim_start_matches('@').replace('/', "-")));
    let to = file.to_str().ok_or("the record's folder is no UTF-8")?;
    let words = [
        "--create",
        "--gzip",
        "--file",
        to,
        "--sort=name",
        "--mtime=@499162500",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--exclude=./node_modules",
        "--exclude=./.git",
        "--transform=s,^\\.,package,",
        ".",
    ];
    program("tar", &words, folder)?;
    Ok(Npm { name, version, manifest, file })
}

impl Npm {
    /// What npm calls the archive.
    pub fn file_name(&self) -> String {
        format!("{}-{}.tgz", self.name.trim_start_matches('@').replace('/', "-"), self.version)
    }

    /// Publishes it (the registry API of npm).
    pub fn publish(&self, url: &str) -> Result<(), String> {
        let bytes = read(&self.file)?;
        let (url, mut headers) = credentials(url);
        if let Ok(token) = std::env::var("NPM_TOKEN") {
            headers.push(("Authorization".into(), format!("Bearer {token}")));
        }
        let file = self.name.rsplit('/').next().unwrap_or(&self.name);
        let file = format!("{file}-{}.tgz", self.version);
        let mut version = self.manifest.clone();
        version["_id"] = format!("{}@{}", self.name, self.version).into();
        version["dist"] = serde_json::json!({
            "integrity": format!("sha512-{}", STANDARD.encode(sha2::Sha512::digest(&bytes))),
            "tarball": format!("{url}/{}/-/{file}", self.name),
        });
        let attachment = serde_json::json!({
            "content_type": "application/octet-stream", "data": STANDARD.encode(&bytes), "length": bytes.len(),
        });
        let one = |key: &str, value: serde_json::Value| {
            serde_json::Value::Object([(key.to_owned(), value)].into_iter().collect())
        };
        let document = serde_json::json!({
            "_id": self.name,
            "name": self.name,
            "dist-tags": { "latest": self.version },
            "versions": one(&self.version, version),
            "_attachments": one(&file, attachment),
        });
        headers.push(("Content-Type".into(), "application/json".into()));
        let path = self.name.replace('/', "%2f");
        http("PUT", &format!("{url}/{path}"), &headers, Some(document.to_string().into_bytes())).map(drop)
    }
}

/// The files of a Go module, as a module proxy serves them.
pub(crate) fn go(scratch: &Path, folder: &Path, module: &[String; 2]) -> Result<Vec<(String, PathBuf)>, String> {
    let [path, version] = module;
    let own = scratch.join("go");
    let _ = fs::remove_dir_all(&own);
    let root = own.join(format!("{path}@{version}"));
    fs::create_dir_all(&root).map_err(|error| format!("{}: {error}", root.display()))?;
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| "a path is no UTF-8".to_owned());
    program("cp", &["-a", "--", &format!("{}/.", text(folder)?), &text(&root)?], &own)?;
    let _ = fs::remove_dir_all(root.join(".git"));
    let archive = own.join("module.zip");
    let names =
        super::paths::files(&own, &[format!("{path}@{version}")]).map_err(|error| super::error::chain(&error))?;
    fs::write(&archive, zip(&own, &names)?).map_err(|error| format!("{}: {error}", archive.display()))?;
    let info = own.join("info");
    let line = serde_json::json!({ "Version": version }).to_string();
    fs::write(&info, line).map_err(|error| format!("{}: {error}", info.display()))?;
    // Capitals are written with a `!`: not every disk can tell them apart.
    let escaped: String = path
        .chars()
        .flat_map(|c| match c.is_ascii_uppercase() {
            true => vec!['!', c.to_ascii_lowercase()],
            false => vec![c],
        })
        .collect();
    let name = |ending: &str| format!("{escaped}/@v/{version}.{ending}");
    Ok(vec![(name("mod"), root.join("go.mod")), (name("info"), info), (name("zip"), archive)])
}

/// A zip archive whose files are stored as they are.
fn zip(folder: &Path, names: &[String]) -> Result<Vec<u8>, String> {
    // No flags, stored, midnight, the first of January 1980: a module is the same whenever it is packed.
    const STORED_IN_1980: [u8; 8] = [0, 0, 0, 0, 0, 0, 0x21, 0];
    let (mut out, mut central) = (Vec::new(), Vec::new());
    let mut count: u16 = 0;
    for name in names {
        let bytes = read(&folder.join(name))?;
        let too_large = || format!("{name} makes the archive too large");
        let size = u32::try_from(bytes.len()).map_err(|_| too_large())?;
        let offset = u32::try_from(out.len()).map_err(|_| too_large())?;
        let length = u16::try_from(name.len()).map_err(|_| too_large())?;
        let mut shared = vec![20, 0];
        shared.extend_from_slice(&STORED_IN_1980);
        shared.extend_from_slice(&crc32(&bytes).to_le_bytes());
        shared.extend_from_slice(&size.to_le_bytes());
        shared.extend_from_slice(&size.to_le_bytes());
        shared.extend_from_slice(&length.to_le_bytes());
        shared.extend_from_slice(&[0, 0]);
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&shared);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&bytes);
        central.extend_from_slice(b"PK\x01\x02\x14\x00");
        central.extend_from_slice(&shared);
        central.extend_from_slice(&[0; 10]);
        central.extend_from_slice(&offset.to_le_bytes());
        central.extend_from_slice(name.as_bytes());
        count = count.checked_add(1).ok_or_else(too_large)?;
    }
    let offset = u32::try_from(out.len()).map_err(|_| "the archive is too large".to_owned())?;
    let size = u32::try_from(central.len()).map_err(|_| "the archive is too large".to_owned())?;
    out.extend_from_slice(&central);
    out.extend_from_slice(b"PK\x05\x06\x00\x00\x00\x00");
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    Ok(out)
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_others() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(md5_base64(b""), "1B2M2Y8AsgTpgAmY7PhCfg==");
    }

    #[test]
    fn credentials_stand_in_the_address() {
        let (url, headers) = credentials("http://me:word@127.0.0.1:1/repo/");
        assert_eq!(url, "http://127.0.0.1:1/repo");
        assert_eq!(headers, [("Authorization".to_owned(), "Basic bWU6d29yZA==".to_owned())]);
    }
}
