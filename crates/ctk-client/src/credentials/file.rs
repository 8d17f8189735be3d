//! `config.json` and `auth.json`: read leniently, written so that nothing else in them changes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::{HUB_KEY, is_hub};
use crate::{CREDENTIALS_LIMIT_BYTES, ClientError, Credentials, Secret};

/// One file, whole. Not `Debug`: it is full of secrets.
pub(crate) struct AuthFile {
    path: PathBuf,
    root: Map<String, Value>,
}

impl AuthFile {
    /// Reads the file; `None` when it is not there.
    pub(crate) fn read(path: &Path) -> Result<Option<AuthFile>, ClientError> {
        let mut text = Vec::new();
        match File::open(path).and_then(|f| f.take(CREDENTIALS_LIMIT_BYTES).read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(ClientError::file("read", path)(error)),
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(Some(AuthFile { path: path.into(), root: Map::new() }));
        }
        let root = serde_json::from_slice(&text).map_err(|error| ClientError::File {
            action: "read",
            path: path.into(),
            // The place, not the text: it may hold secrets.
            reason: format!("no JSON object (line {}, column {})", error.line(), error.column()),
        })?;
        Ok(Some(AuthFile { path: path.into(), root }))
    }

    pub(crate) fn new(path: &Path) -> AuthFile {
        AuthFile { path: path.into(), root: Map::new() }
    }

    /// The helper that this file names for a host: `credHelpers`, else `credsStore`.
    pub(crate) fn helper(&self, host: &str) -> Option<&str> {
        let helpers = self.root.get("credHelpers").and_then(Value::as_object);
        let own = helpers.and_then(|helpers| helpers.iter().find(|(key, _)| names_host(key, host))).map(|(_, v)| v);
        own.or_else(|| self.root.get("credsStore")).and_then(Value::as_str).filter(|name| !name.is_empty())
    }

    /// Credentials of the longest key that fits `host/repository`.
    pub(crate) fn credentials(&self, host: &str, repository: &str) -> Result<Option<Credentials>, ClientError> {
        let Some(auths) = self.root.get("auths").and_then(Value::as_object) else { return Ok(None) };
        let mut name = format!("{host}/{repository}");
        loop {
            let found = auths.iter().find(|(key, _)| **key == name || (!name.contains('/') && names_host(key, &name)));
            if let Some((_, entry)) = found
                && let Some(credentials) = self.entry(&name, entry)?
            {
                return Ok(Some(credentials));
            }
            match name.rfind('/') {
                Some(slash) => name.truncate(slash),
                None => return Ok(None),
            }
        }
    }

    fn entry(&self, name: &str, entry: &Value) -> Result<Option<Credentials>, ClientError> {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credentials::Identity(Secret::new(token))));
        }
        if let Some(token) = text("registrytoken") {
            return Ok(Some(Credentials::Bearer(Secret::new(token))));
        }
        if let Some(auth) = text("auth") {
            let decoded = BASE64_STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
            let Some((user, password)) = pair else {
                let reason = format!("the `auth` of `{name}` is no base64 of `user:password`");
                return Err(ClientError::File { action: "read", path: self.path.clone(), reason });
            };
            // Some writers end the password with NUL bytes (docker/cli `DecodeAuth`).
            let password = Secret::new(password.trim_end_matches('\0'));
            return Ok(Some(Credentials::Basic { user: user.into(), password }));
        }
        match (text("username"), text("password")) {
            (Some(user), Some(password)) => {
                Ok(Some(Credentials::Basic { user: user.into(), password: Secret::new(password) }))
            }
            _ => Ok(None),
        }
    }

    /// Sets or removes what is kept for a host; `true` if something changed.
    pub(crate) fn set(&mut self, host: &str, credentials: Option<&Credentials>) -> bool {
        let entry = credentials.map(|credentials| match credentials {
            Credentials::Basic { user, password } => {
                json!({ "auth": BASE64_STANDARD.encode(format!("{user}:{}", password.expose())) })
            }
            Credentials::Identity(token) => json!({ "identitytoken": token.expose() }),
            Credentials::Bearer(token) => json!({ "registrytoken": token.expose() }),
        });
        let auths = self.root.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        let auths = auths.as_object_mut().expect("made one above");
        let before = auths.len();
        auths.retain(|key, _| !names_host(key, host));
        let removed = auths.len() != before;
        match entry {
            Some(entry) => {
                let key = if is_hub(host) { HUB_KEY.to_owned() } else { host.to_owned() };
                auths.insert(key, entry);
                true
            }
            None => removed,
        }
    }

    /// Writes the file: whole or not at all, for the owner only.
    pub(crate) fn write(&self) -> Result<(), ClientError> {
        // A symbolic link stays one: its target is replaced.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let failed = |path: &Path| ClientError::file("write", path.to_owned());
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(failed(directory))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = directory.join(format!(".{name}.{}.tmp", std::process::id()));
        let text = serde_json::to_vec_pretty(&self.root).expect("plain data serialises");
        let _ = fs::remove_file(&temporary);
        let written = File::options().create_new(true).write(true).mode(0o600).open(&temporary).and_then(|mut file| {
            file.write_all(&text)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(directory)?.sync_all()
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(failed(&path))
    }
}

/// Whether a key of an auth file means this host: docker writes URLs, podman names.
fn names_host(key: &str, host: &str) -> bool {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    bare == host || (is_hub(bare) && is_hub(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> AuthFile {
        AuthFile { path: "auth.json".into(), root: serde_json::from_str(text).unwrap() }
    }

    fn user(file: &AuthFile, host: &str, repository: &str) -> Option<String> {
        match file.credentials(host, repository).unwrap() {
            Some(Credentials::Basic { user, .. }) => Some(user),
            Some(other) => Some(format!("{other:?}")),
            None => None,
        }
    }

    #[test]
    fn keys_of_all_writers() {
        let file = file(
            r#"{"auths":{
                "https://index.docker.io/v1/":{"auth":"aHViOnA="},
                "quay.io":{"auth":"cXVheTpw"}, "quay.io/acme":{"auth":"YWNtZTpw"}, "quay.io/acme/api":{},
                "http://plain.lan:5000/v2/":{"username":"plain","password":"p"},
                "token.lan":{"identitytoken":"t"}},
              "credHelpers":{"h.lan":"one"}}"#,
        );
        assert_eq!(user(&file, "docker.io", "library/debian").as_deref(), Some("hub"));
        assert_eq!(user(&file, "registry-1.docker.io", "library/debian").as_deref(), Some("hub"));
        assert_eq!(user(&file, "quay.io", "acme/api").as_deref(), Some("acme"));
        assert_eq!(user(&file, "quay.io", "acmes").as_deref(), Some("quay"));
        assert_eq!(user(&file, "plain.lan:5000", "x").as_deref(), Some("plain"));
        assert_eq!(user(&file, "token.lan", "x").as_deref(), Some("Identity(Secret(…))"));
        assert_eq!(user(&file, "other.lan", "x"), None);
        assert_eq!(file.helper("h.lan"), Some("one"));
        assert_eq!(file.helper("quay.io"), None);
    }

    #[test]
    fn what_is_not_ours_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/config.json");
        let mut fresh = AuthFile::new(&path);
        fresh.root.insert("psFormat".into(), json!("x"));
        let credentials = Credentials::Basic { user: "me".into(), password: Secret::new("p:w") };
        assert!(fresh.set("a.lan", Some(&credentials)));
        fresh.write().unwrap();
        let mut again = AuthFile::read(&path).unwrap().unwrap();
        assert_eq!(again.root.get("psFormat"), Some(&json!("x")));
        assert_eq!(again.credentials("a.lan", "x").unwrap(), Some(credentials));
        assert!(again.set("a.lan", None) && !again.set("a.lan", None));
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn malformed_files_name_the_place_and_no_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, "{\"auths\": {\"x\": hunter2}}").unwrap();
        let Err(error) = AuthFile::read(&path) else { panic!("read") };
        let text = format!("{error} {error:?}");
        assert!(text.contains("config.json") && !text.contains("hunter2"), "{text}");
    }
}
