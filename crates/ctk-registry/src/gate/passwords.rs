//! The users of an htpasswd file.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, RwLock};

use base64::Engine as _;
use ctk_oci::Digest;
use tokio::sync::Semaphore;

use crate::{PASSWORD_CACHE_LIMIT, PASSWORD_CHECKS_LIMIT, PASSWORD_COST, RegistryError};

/// The users of a file, who may change while we serve.
pub(crate) struct Passwords {
    path: PathBuf,
    users: RwLock<HashMap<String, String>>,
    /// Digests of credentials that bcrypt accepted, with the hash that they were compared with: a changed password
    /// is another entry. Only in memory.
    accepted: Mutex<HashSet<Digest>>,
    checks: Semaphore,
    /// Verified when the user is unknown, so that the answer takes as long.
    decoy: String,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passwords({})", self.path.display())
    }
}

impl Passwords {
    pub(crate) fn load(path: &Path) -> Result<Passwords, RegistryError> {
        let users = read(path)?;
        let decoy = users.values().next().cloned().unwrap_or_default();
        let (accepted, checks) = (Mutex::default(), Semaphore::new(PASSWORD_CHECKS_LIMIT));
        Ok(Passwords { path: path.into(), users: RwLock::new(users), accepted, checks, decoy })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again; a file that cannot be read leaves the users as they were.
    pub(crate) fn reload(&self) -> Result<(), RegistryError> {
        let users = read(&self.path)?;
        *self.users.write().expect("no holder panics") = users;
        Ok(())
    }

    /// The user that the value of an `Authorization` header proves to be.
    pub(crate) async fn admits(&self, authorization: &str) -> Option<String> {
        let (user, password) = basic(authorization)?;
        self.admits_pair(&user, &password).await
    }

    /// What changes with the password of a user; `None` when there is no such user.
    pub(crate) fn mark(&self, user: &str) -> Option<String> {
        let users = self.users.read().expect("no holder panics");
        users.get(user).map(|hash| Digest::of(hash.as_bytes()).hex()[..16].to_owned())
    }

    /// The user, if this is the password.
    pub(crate) async fn admits_pair(&self, user: &str, password: &str) -> Option<String> {
        let (user, password) = (user.to_owned(), password.to_owned());
        let hash = self.users.read().expect("no holder panics").get(&user).cloned();
        let key = Digest::of(format!("{user}\0{password}\0{}", hash.as_deref().unwrap_or("")).as_bytes());
        if hash.is_some() && self.accepted.lock().expect("no holder panics").contains(&key) {
            return Some(user);
        }
        let _permit = self.checks.acquire().await.ok()?;
        let (known, hash) = (hash.is_some(), hash.unwrap_or_else(|| self.decoy.clone()));
        let verified = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false)).await;
        if !known || !verified.unwrap_or(false) {
            return None;
        }
        let mut accepted = self.accepted.lock().expect("no holder panics");
        if accepted.len() >= PASSWORD_CACHE_LIMIT {
            accepted.clear();
        }
        accepted.insert(key);
        Some(user)
    }
}

/// Gives a user of a file a new password, or makes the user and the file. Other lines stay as they are.
pub fn add_password(path: &Path, user: &str, password: &str) -> Result<(), RegistryError> {
    let fail = |reason: String| RegistryError::Passwords { path: path.into(), reason };
    if user.is_empty() || user.contains([':', '\n', '\r']) || user.trim() != user || user.starts_with('#') {
        return Err(fail("a user's name is not empty and holds no `:`".into()));
    }
    if password.is_empty() || password.len() > PASSWORD_LIMIT_BYTES {
        return Err(fail(format!("a password has 1 to {PASSWORD_LIMIT_BYTES} bytes: bcrypt reads no more")));
    }
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(fail(error.to_string())),
    };
    let hash = bcrypt::hash(password, PASSWORD_COST).map_err(|error| fail(error.to_string()))?;
    let line = format!("{user}:{hash}");
    let mut lines: Vec<&str> =
        text.lines().filter(|known| known.split_once(':').is_none_or(|(name, _)| name.trim() != user)).collect();
    lines.push(&line);
    write(path, &(lines.join("\n") + "\n")).map_err(|error| fail(error.to_string()))
}

/// bcrypt reads this much of a password.
const PASSWORD_LIMIT_BYTES: usize = 72;

/// For the owner only, whole or not at all.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| std::fs::rename(&temporary, path));
    if renamed.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    renamed
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_added_changed_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        add_password(&path, "me", "one").unwrap();
        add_password(&path, "you", "two").unwrap();
        let runtime = ctk_http::runtime();
        let header = |user: &str, password: &str| {
            format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}")))
        };
        let passwords = Passwords::load(&path).unwrap();
        let admits = |user: &str, password: &str| runtime.block_on(passwords.admits(&header(user, password)));
        assert_eq!(admits("me", "one").as_deref(), Some("me"));
        assert_eq!((admits("me", "two"), admits("nobody", "one")), (None, None));
        add_password(&path, "me", "new").unwrap();
        passwords.reload().unwrap();
        assert_eq!((admits("me", "one"), admits("me", "new").as_deref()), (None, Some("me")));
        assert_eq!(admits("you", "two").as_deref(), Some("you"));
        std::fs::write(&path, "me:plain").unwrap();
        assert!(passwords.reload().is_err());
        assert_eq!(admits("me", "new").as_deref(), Some("me"));
        for wrong in ["", "a:b", "a\nb", " a", "#a"] {
            assert!(add_password(&path, wrong, "x").is_err(), "{wrong:?}");
        }
        assert!(add_password(&path, "a", &"x".repeat(73)).is_err());
    }
}
