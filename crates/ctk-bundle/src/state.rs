//! What is written down about a container: a directory of its own below the state root, with a lock that each verb holds
//! while it works, and never longer.
//!
//! `<root>/<id>/lock`, `state.json` (replaced by a rename), `config.json` as it was read, and for a container that waits
//! for its start the named pipes `start` and `report`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, flock};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::cgroup::Cgroups;
use crate::limits::{CONFIG_BYTES, CONTAINERS, ID_CHARACTERS, STATE_BYTES};
use crate::spec::{self, Spec};
use crate::systemd::Scope;

/// What a container is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Made, and waiting for its start.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl Status {
    /// As the specification writes it.
    pub fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Of the bundle.
    pub oci_version: String,
    /// Its name.
    pub id: String,
    /// What it was last made: created or running.
    pub status: Status,
    /// Its first process; 0 before there is one.
    pub pid: i32,
    /// When that started, in ticks since boot: pids come again.
    pub start_time: u64,
    /// Absolute path.
    pub bundle: String,
    /// Absolute path.
    pub rootfs: String,
    /// RFC 3339.
    pub created: String,
    /// Who made it.
    pub owner: String,
    /// As in the configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Its cgroups.
    pub cgroups: Cgroups,
    /// The unit of systemd's that they belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// The class of service of its caches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt_class: Option<PathBuf>,
    /// What goes with it of those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rdt_own: Vec<PathBuf>,
    /// Steps after the start, for explaining: number, words, field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<(usize, String, String)>,
}

/// The state that the specification defines (`runtime.md#state`).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the specification.
    pub oci_version: String,
    /// Its name.
    pub id: String,
    /// As the specification's words; and `paused`.
    pub status: Status,
    /// Its first process, as the reader sees it; left out when there is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub pid: i32,
    /// Absolute path.
    pub bundle: String,
    /// Absolute path.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rootfs: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// Who made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// As in the configuration.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

/// A container's directory, locked.
pub struct Kept {
    directory: PathBuf,
    lock: File,
    /// What `state.json` says.
    pub record: Record,
}

const LOCK: &str = "lock";
const STATE: &str = "state.json";
const CONFIG: &str = "config.json";
/// The pipe at which a created container waits.
pub(crate) const START: &str = "start";
/// The pipe through which it reports after that.
pub(crate) const REPORT: &str = "report";

/// Checks a name: letters, digits and `_ + - .`, as every runtime has them.
pub fn check_id(id: &str) -> Result<(), Error> {
    let wrong = |reason| Err(Error::Id { id: id.into(), reason });
    if id.is_empty() {
        return wrong("it is empty");
    }
    if id == "." || id == ".." {
        return wrong("it is a directory of every directory");
    }
    if id.len() > ID_CHARACTERS {
        return wrong("it is longer than 200 characters");
    }
    match id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.')) {
        true => Ok(()),
        false => wrong("only letters, digits and _ + - . may be in it"),
    }
}

impl Kept {
    /// Makes the directory of a new container.
    pub(crate) fn create(root: &Path, record: Record, config: &str) -> Result<Kept, Error> {
        check_id(&record.id)?;
        let directory = root.join(&record.id);
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o711);
        let made = match builder.create(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(Error::file("make", root))?;
                builder.create(&directory)
            }
            other => other,
        };
        match made {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists { id: record.id });
            }
            Err(error) => return Err(Error::file("make", directory)(error)),
        }
        let path = directory.join(LOCK);
        let lock = File::options().write(true).create_new(true).open(&path).map_err(|error| {
            // A full disk.
            let _ = fs::remove_dir(&directory);
            Error::file("make", &path)(error)
        })?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|e| Error::file("lock", path)(e.into()))?;
        let path = directory.join(CONFIG);
        let kept = Kept { directory, lock, record };
        let result = fs::write(&path, config).map_err(Error::file("write", path)).and_then(|()| kept.write());
        if result.is_err() {
            kept.remove();
        }
        result.map(|()| kept)
    }

    /// Opens and locks an existing one.
    pub fn open(root: &Path, id: &str) -> Result<Kept, Error> {
        check_id(id)?;
        let directory = root.join(id);
        let missing = || Error::Missing { id: id.into() };
        let path = directory.join(LOCK);
        loop {
            let lock = match File::options().write(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
                other => other.map_err(Error::file("open", &path))?,
            };
            flock(&lock, FlockOperation::LockExclusive).map_err(|e| Error::file("lock", &path)(e.into()))?;
            // Removed, or removed and made anew, while we waited.
            match fs::metadata(&path) {
                Ok(now) if lock.metadata().is_ok_and(|held| held.ino() == now.ino()) => {
                    let record = read_record(&directory)?.ok_or_else(missing)?;
                    return Ok(Kept { directory, lock, record });
                }
                Ok(_) => {}
                Err(_) => return Err(missing()),
            }
        }
    }

    /// The number of the lock's file, for a process that must not keep it.
    pub(crate) fn lock_number(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.lock)
    }

    /// Lets others at the container, whoever has a copy of the lock's file.
    pub(crate) fn unlock(self) {
        let _ = rustix::fs::flock(&self.lock, rustix::fs::FlockOperation::Unlock);
    }

    /// Writes `state.json`, whole or not at all.
    pub(crate) fn write(&self) -> Result<(), Error> {
        let path = self.directory.join(STATE);
        let new = self.directory.join("state.json.new");
        let text = serde_json::to_string(&self.record).unwrap_or_default();
        fs::write(&new, text).map_err(Error::file("write", &new))?;
        ctk_sys::put_in_place(&new, &path).map_err(|e| Error::file("replace", path)(e.into()))
    }

    /// The configuration as it was when the container was made.
    pub fn config(&self) -> Result<Spec, Error> {
        let path = self.directory.join(CONFIG);
        let text = crate::cgroup::read_limited(&path, CONFIG_BYTES).map_err(Error::file("read", &path))?;
        parse(&text)
    }

    /// Makes the pipes of a container that waits.
    pub(crate) fn make_pipes(&self) -> Result<(OwnedFd, OwnedFd), Error> {
        let make = |name: &str| {
            let path = self.directory.join(name);
            let failed = |e: rustix::io::Errno| Error::file("make", &path)(e.into());
            rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).map_err(failed)?;
            rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)
        };
        Ok((make(START)?, make(REPORT)?))
    }

    /// Opens a pipe of a container that waits, without waiting.
    pub(crate) fn open_pipe(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Error> {
        let path = self.directory.join(name);
        let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| Error::file("open", path)(e.into()))
    }

    /// Removes the pipes.
    pub(crate) fn remove_pipes(&self) {
        for name in [START, REPORT] {
            let _ = fs::remove_file(self.directory.join(name));
        }
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where `restore` shows the root, in a mount namespace of its own.
    pub(crate) fn root_place(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Removes the directory. The lock goes last.
    pub(crate) fn remove(&self) {
        for name in [START, REPORT, "state.json.new", CONFIG, STATE, LOCK] {
            let _ = fs::remove_file(self.directory.join(name));
        }
        let _ = fs::remove_dir(self.root_place());
        let _ = fs::remove_dir(&self.directory);
    }

    /// What it is now.
    pub fn status(&self) -> Status {
        self.record.status()
    }

    /// The state that the specification defines.
    pub fn state(&self) -> State {
        self.record.state()
    }

    /// Its first process, if that still is.
    pub fn process(&self) -> Option<OwnedFd> {
        self.record.process()
    }
}

/// Reads and checks the text of a `config.json`.
pub fn parse(text: &str) -> Result<Spec, Error> {
    spec::read(text).map_err(|wrong| Error::Config { field: wrong.field, reason: wrong.reason })
}

fn read_record(directory: &Path) -> Result<Option<Record>, Error> {
    let path = directory.join(STATE);
    let mut text = String::new();
    match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("open", path)(error)),
        Ok(file) => file.take(STATE_BYTES).read_to_string(&mut text).map_err(Error::file("read", &path))?,
    };
    let record = serde_json::from_str(&text).map_err(|e| Error::file("understand", path)(e.into()))?;
    Ok(Some(record))
}

impl Record {
    /// What it is now.
    pub fn status(&self) -> Status {
        match self.pid {
            0 => Status::Creating,
            _ if self.process().is_none() => Status::Stopped,
            _ if self.cgroups.is_frozen() => Status::Paused,
            _ => self.status,
        }
    }

    /// Its first process, if that still is: not a zombie, and not another that got its number.
    pub fn process(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.pid)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // After the pidfd: what it is of cannot be exchanged any more.
        (start_time(self.pid)? == self.start_time).then_some(pidfd)
    }

    /// The state that the specification defines.
    pub fn state(&self) -> State {
        let status = self.status();
        State {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            status,
            pid: if status == Status::Stopped { 0 } else { self.pid },
            bundle: self.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: self.created.clone(),
            owner: self.owner.clone(),
            annotations: self.annotations.clone(),
        }
    }
}

/// Every container of a state root, by name, without locking any.
pub fn list(root: &Path) -> Result<Vec<Record>, Error> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::file("read", root))?,
    };
    let mut records = Vec::new();
    for entry in entries.take(CONTAINERS).flatten() {
        // One that is being made or removed has no state.
        if let Ok(Some(record)) = read_record(&entry.path()) {
            records.push(record);
        }
    }
    records.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(records)
}

/// Field 22 of `/proc/<pid>/stat`: clock ticks since boot; none for a process that has ended.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    if ended { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names() {
        for good in ["a", "A-b_c+d.9", "..."] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(201)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn this_process_has_a_start() {
        assert!(start_time(std::process::id() as i32).is_some());
        assert_eq!(start_time(0), None);
    }
}
