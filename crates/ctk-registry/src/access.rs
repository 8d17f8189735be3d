//! Who may: everybody, or the users of an htpasswd file.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use base64::Engine as _;
use ctk_oci::Digest;
use tokio::sync::Semaphore;

use crate::{PASSWORD_CACHE_LIMIT, PASSWORD_CHECKS_LIMIT, RegistryError};

/// Who may read and write.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everybody who reaches the socket.
    Open,
    /// The users of this file of `user:bcrypt-hash` lines (`htpasswd -B`), by Basic authentication.
    Htpasswd(PathBuf),
}

/// [`Access`], loaded.
pub(crate) struct Guard {
    users: Option<HashMap<String, String>>,
    /// Digests of credentials that bcrypt accepted. Only in memory.
    accepted: Mutex<HashSet<Digest>>,
    checks: Semaphore,
    /// Verified when the user is unknown, so that the answer takes as long.
    decoy: String,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

impl Guard {
    pub(crate) fn load(access: &Access) -> Result<Guard, RegistryError> {
        let users = match access {
            Access::Open => None,
            Access::Htpasswd(path) => Some(read(path)?),
        };
        let decoy = users.iter().flat_map(HashMap::values).next().cloned().unwrap_or_default();
        let (accepted, checks) = (Mutex::default(), Semaphore::new(PASSWORD_CHECKS_LIMIT));
        Ok(Guard { users, accepted, checks, decoy })
    }

    /// Whether the value of an `Authorization` header opens the door.
    pub(crate) async fn admits(&self, authorization: Option<&str>) -> bool {
        let Some(users) = &self.users else { return true };
        let Some((user, password)) = authorization.and_then(basic) else { return false };
        let hash = users.get(&user);
        let key = Digest::of(format!("{user}\0{password}\0{}", hash.map_or("", String::as_str)).as_bytes());
        if hash.is_some() && self.accepted.lock().expect("no holder panics").contains(&key) {
            return true;
        }
        let Ok(_permit) = self.checks.acquire().await else { return false };
        let (known, hash) = (hash.is_some(), hash.cloned().unwrap_or_else(|| self.decoy.clone()));
        let verified = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false)).await;
        if !known || !verified.unwrap_or(false) {
            return false;
        }
        let mut accepted = self.accepted.lock().expect("no holder panics");
        if accepted.len() >= PASSWORD_CACHE_LIMIT {
            accepted.clear();
        }
        accepted.insert(key);
        true
    }
}

fn basic(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(base64::prelude::BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.into(), password.into()))
}

fn read(path: &Path) -> Result<HashMap<String, String>, RegistryError> {
    let fail = |reason: String| RegistryError::Passwords { path: path.into(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let mut users = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once(':') {
            Some((user, hash)) if !user.is_empty() && ["$2a$", "$2b$", "$2y$"].iter().any(|p| hash.starts_with(p)) => {
                users.insert(user.to_owned(), hash.to_owned());
            }
            _ => {
                return Err(fail(format!("line {} is no `user:bcrypt-hash`; write it with `htpasswd -B`", number + 1)));
            }
        }
    }
    if users.is_empty() {
        return Err(fail("it names no user".into()));
    }
    Ok(users)
}
