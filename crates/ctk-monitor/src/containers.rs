//! The containers of a store: a directory each, and a link for each name. No database and no lock for all.
//!
//! ```text
//! containers/names/<name>    a link to the id: whoever makes it first has the name
//! containers/<id>/lock       locked by who makes it, by its monitor, by who removes it; the kernel drops it with them
//!                 edit       locked for a moment by who changes container.json
//!                 container.json  state.json  lease
//!                 bundle/    config.json and an empty root, for the runtime
//!                 layer/     its own layer, and what overlay needs
//!                 overlays/  the same for mounts that are overlays
//!                 secrets/   its secrets
//!                 init       the first program, if one was asked for with --init
//!                 etc/       hosts, hostname, resolv.conf
//!                 runtime/   what the runtime writes down
//!                 log, log.1, …
//!                 control    the monitor's socket
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ctk_bundle::state::Kept;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::{CONTAINERS, DOCUMENT_BYTES, NAME_CHARACTERS};
use crate::state::{State, Status};
use crate::{Config, Error};

const NAMES: &str = "names";
const LOCK: &str = "lock";
const CONFIG: &str = "container.json";
const STATE: &str = "state.json";
/// How directories begin that are on their way out.
const GONE: &str = ".gone-";

/// All containers of a store.
#[derive(Clone, Debug)]
pub struct Containers {
    root: PathBuf,
}

/// One container's directory.
#[derive(Clone, Debug)]
pub struct Container {
    id: String,
    directory: PathBuf,
}

/// A container's directory that nobody else works with: none runs, none removes it.
pub struct Locked {
    container: Container,
    _lock: File,
}

impl std::ops::Deref for Locked {
    type Target = Container;

    fn deref(&self) -> &Container {
        &self.container
    }
}

impl Containers {
    /// Those below `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Containers {
        Containers { root: root.into() }
    }

    /// Where they are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the directory of a new container, and takes its name. It is none before its configuration is written; what
    /// was begun and not finished goes when the lock does, at the next [`Containers::clean`].
    pub fn reserve(&self, id: &str, name: &str) -> Result<Locked, Error> {
        check_name(name)?;
        let names = self.root.join(NAMES);
        let builder = |recursive: bool| {
            let mut builder = DirBuilder::new();
            builder.mode(0o700).recursive(recursive);
            builder
        };
        let directory = self.root.join(id);
        match builder(false).create(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                builder(true).create(&names).map_err(Error::file("make", &names))?;
                builder(false).create(&directory).map_err(Error::file("make", &directory))?;
            }
            other => other.map_err(Error::file("make", &directory))?,
        }
        let path = directory.join(LOCK);
        let lock = File::options().write(true).create_new(true).open(&path).map_err(Error::file("make", &path))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(Error::file("lock", &path))?;
        let container = Container { id: id.into(), directory };
        if let Err(error) = self.take_name(name, id) {
            self.hide(&container).remove();
            return Err(error);
        }
        Ok(Locked { container, _lock: lock })
    }

    fn take_name(&self, name: &str, id: &str) -> Result<(), Error> {
        let link = self.root.join(NAMES).join(name);
        loop {
            match symlink(id, &link) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let names = self.root.join(NAMES);
                    DirBuilder::new()
                        .mode(0o700)
                        .recursive(true)
                        .create(&names)
                        .map_err(Error::file("make", &names))?;
                    continue;
                }
                Err(error) => return Err(Error::file("make", &link)(error)),
            }
            let owner = match fs::read_link(&link) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(Error::file("read", &link))?,
            };
            if self.root.join(&owner).join(LOCK).exists() {
                let id = owner.to_string_lossy().chars().take(12).collect();
                return Err(Error::Taken { name: name.into(), id });
            }
            // Left by one that was removed halfway.
            let _ = fs::remove_file(&link);
        }
    }

    /// The container that is called so: by name, by id, by the beginning of its id.
    pub fn find(&self, name: &str) -> Result<Container, Error> {
        let missing = || Error::Missing { name: name.into() };
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(missing());
        }
        if let Ok(id) = fs::read_link(self.root.join(NAMES).join(name))
            && let Some(found) = self.at(&id.to_string_lossy())
        {
            return Ok(found);
        }
        if let Some(found) = self.at(name) {
            return Ok(found);
        }
        if !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut found = self.list()?;
        found.retain(|container| container.id.starts_with(name));
        match found.len() {
            0 => Err(missing()),
            1 => found.pop().ok_or_else(missing),
            _ => {
                let ids: Vec<&str> = found.iter().filter_map(|container| container.id.get(..12)).collect();
                Err(Error::Ambiguous { name: name.into(), ids: ids.join(", ") })
            }
        }
    }

    fn at(&self, id: &str) -> Option<Container> {
        let directory = self.root.join(id);
        let whole = id != NAMES && directory.join(CONFIG).exists();
        whole.then(|| Container { id: id.into(), directory })
    }

    /// All that are whole, in no order.
    pub fn list(&self) -> Result<Vec<Container>, Error> {
        let ids = self.entries()?;
        Ok(ids.iter().filter(|name| !name.starts_with('.')).filter_map(|id| self.at(id)).collect())
    }

    fn entries(&self) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(Error::file("list", &self.root))?,
        };
        let names = entries.take(CONTAINERS).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| name != NAMES).collect())
    }

    /// Gives a container another name.
    pub fn rename(&self, container: &Container, name: &str) -> Result<(), Error> {
        check_name(name)?;
        let _edit = container.edit()?;
        let mut config = container.config()?;
        if config.name == name {
            return Ok(());
        }
        self.take_name(name, &container.id)?;
        let before = std::mem::replace(&mut config.name, name.into());
        let written = container.write(CONFIG, &config);
        if written.is_ok() {
            crate::events::tell(&self.root, &config, "rename", &[("oldName", before.clone())]);
        }
        let gone = if written.is_ok() { &before } else { name };
        let _ = fs::remove_file(self.root.join(NAMES).join(gone));
        written
    }

    /// Removes a container that does not run, and what the runtime knows of it. Volumes are not its own.
    pub fn remove(&self, locked: Locked) -> Result<(), Error> {
        self.put_away(locked).remove();
        Ok(())
    }

    /// Removes a container that does not run; its files are out of sight, and take their time.
    pub(crate) fn put_away(&self, locked: Locked) -> Gone {
        let container = &locked.container;
        if let Ok(config) = container.config() {
            crate::events::tell(&self.root, &config, "remove", &[]);
            let link = self.root.join(NAMES).join(&config.name);
            if fs::read_link(&link).is_ok_and(|id| id.as_os_str() == container.id.as_str()) {
                let _ = fs::remove_file(link);
            }
        }
        // Whatever the runtime kept: cgroups, and processes that outlived the first.
        let _ = ctk_bundle::container::delete(&container.runtime_root(), &container.id, true);
        self.hide(container)
    }

    fn hide(&self, container: &Container) -> Gone {
        let gone = self.root.join(format!("{GONE}{}", container.id));
        if fs::rename(&container.directory, &gone).is_err() {
            let _ = fs::remove_dir_all(&container.directory);
        }
        Gone(gone)
    }

    /// Removes what was begun and never finished, or not removed to the end, by processes that are gone.
    pub fn clean(&self) -> Result<(), Error> {
        for name in self.entries()? {
            let directory = self.root.join(&name);
            // Events are in files whose names begin with a dot, too.
            if name.starts_with(GONE) {
                let _ = fs::remove_dir_all(directory);
            } else if !name.starts_with('.') && !directory.join(CONFIG).exists() {
                let container = Container { id: name, directory };
                // Between its making and its locking there is a moment: that one is left alone.
                if container.directory.join(LOCK).exists() && container.try_lock()?.is_some() {
                    self.hide(&container).remove();
                }
            }
        }
        Ok(())
    }
}

/// The files of a container that is removed. Dropped, they are left to whoever cleans up next.
pub(crate) struct Gone(PathBuf);

impl Gone {
    pub(crate) fn remove(self) {
        let _ = fs::remove_dir_all(self.0);
    }
}

/// Checks a name as docker and podman have them.
pub fn check_name(name: &str) -> Result<(), Error> {
    let wrong = |reason| Err(Error::Name { name: name.into(), reason });
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    match name.chars().next() {
        None => return wrong("it is empty"),
        Some(first) if !first.is_ascii_alphanumeric() => return wrong("it must begin with a letter or a digit"),
        Some(_) => {}
    }
    if name.len() > NAME_CHARACTERS {
        return wrong("it is longer than 128 characters");
    }
    match name.chars().all(inner) {
        true => Ok(()),
        false => wrong("only letters, digits and _ . - may be in it"),
    }
}

impl Container {
    /// The one in this directory, for its monitor.
    pub fn of(directory: &Path) -> Container {
        let id = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Container { id, directory: directory.to_owned() }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The bundle of the runtime.
    pub fn bundle(&self) -> PathBuf {
        self.directory.join("bundle")
    }

    /// Where the runtime writes it down.
    pub fn runtime_root(&self) -> PathBuf {
        self.directory.join("runtime")
    }

    /// Its log; older files have a number behind.
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// The folder of its own layer.
    pub fn layer(&self) -> PathBuf {
        self.directory.join("layer")
    }

    /// The folder of an overlay over something else than its root: `fs` and `work`, which is made anew at each start. With
    /// a file `discard` in it, what was written is gone then, too.
    pub fn overlay(&self, number: usize) -> PathBuf {
        self.directory.join("overlays").join(number.to_string())
    }

    /// The folder of its secrets, which nobody but root may read.
    pub fn secrets(&self) -> PathBuf {
        self.directory.join("secrets")
    }

    /// The file of that name that shows up below `/etc`.
    pub fn etc(&self, name: &str) -> PathBuf {
        self.directory.join("etc").join(name)
    }

    /// What it is.
    pub fn config(&self) -> Result<Config, Error> {
        self.read(CONFIG)
    }

    /// Writes what it is; the first time makes it a container.
    pub fn write_config(&self, config: &Config) -> Result<(), Error> {
        self.write(CONFIG, config)
    }

    /// Changes what it is; nobody else does at the same time.
    pub fn change(&self, change: impl FnOnce(&mut Config)) -> Result<Config, Error> {
        let _edit = self.edit()?;
        let mut config = self.config()?;
        change(&mut config);
        self.write(CONFIG, &config)?;
        Ok(config)
    }

    fn edit(&self) -> Result<File, Error> {
        let path = self.directory.join("edit");
        let file = File::options().append(true).create(true).open(&path).map_err(Error::file("open", &path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(Error::file("lock", &path))?;
        Ok(file)
    }

    /// What its monitor wrote last.
    pub(crate) fn written_state(&self) -> Result<State, Error> {
        if !self.directory.join(STATE).exists() {
            return Ok(State::default());
        }
        self.read(STATE)
    }

    pub(crate) fn write_state(&self, state: &State) -> Result<(), Error> {
        self.write(STATE, state)
    }

    /// What it does at the moment. A container whose monitor is gone has ended, or nobody looks after it:
    /// [`crate::settle`] does something about that.
    pub fn state(&self) -> Result<State, Error> {
        let mut state = self.written_state()?;
        if state.status == Status::Running && self.is_frozen() {
            state.status = Status::Paused;
        }
        Ok(state)
    }

    fn is_frozen(&self) -> bool {
        // Without its lock: whoever only looks waits for nobody.
        let records = ctk_bundle::state::list(&self.runtime_root()).unwrap_or_default();
        match records.is_empty() {
            true => crate::foreign::cgroups(self).is_ok_and(|cgroups| cgroups.is_frozen()),
            false => records.iter().any(|record| record.status() == ctk_bundle::state::Status::Paused),
        }
    }

    /// What the runtime knows of it, locked for a moment.
    pub fn kept(&self) -> Result<Kept, Error> {
        Ok(Kept::open(&self.runtime_root(), &self.id)?)
    }

    /// Whether somebody works with it: its monitor, or who removes it.
    pub fn is_locked(&self) -> bool {
        let Ok(file) = File::open(self.directory.join(LOCK)) else { return false };
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    }

    /// Locks it, if nobody else has. Those who only look hold the lock for microseconds: they are waited for.
    pub fn try_lock(&self) -> Result<Option<Locked>, Error> {
        self.lock_within(Duration::from_millis(50))
    }

    /// Locks it, and waits so long for that.
    pub fn lock_within(&self, limit: Duration) -> Result<Option<Locked>, Error> {
        let path = self.directory.join(LOCK);
        let deadline = Instant::now() + limit;
        loop {
            let lock = match File::options().write(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Error::Missing { name: self.id.clone() });
                }
                other => other.map_err(Error::file("open", &path))?,
            };
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    let same = fs::metadata(&path).is_ok_and(|now| lock.metadata().is_ok_and(|m| m.ino() == now.ino()));
                    if same {
                        return Ok(Some(Locked { container: self.clone(), _lock: lock }));
                    }
                }
                Err(Errno::WOULDBLOCK) if Instant::now() >= deadline => return Ok(None),
                Err(Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(2)),
                Err(errno) => return Err(Error::file("lock", &path)(errno)),
            }
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        use std::io::Read;
        let path = self.directory.join(name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Missing { name: self.id.chars().take(12).collect() });
            }
            other => other.map_err(Error::file("open", &path))?,
        };
        let mut bytes = Vec::new();
        file.take(DOCUMENT_BYTES).read_to_end(&mut bytes).map_err(Error::file("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Document { path, source })
    }

    /// Whole or not at all.
    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let path = self.directory.join(name);
        let new = self.directory.join(format!("{name}.new"));
        let text = serde_json::to_vec(value).map_err(|source| Error::Document { path: path.clone(), source })?;
        fs::write(&new, text).map_err(Error::file("write", &new))?;
        fs::rename(&new, &path).map_err(Error::file("replace", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "web-1", "A.b_c", "0"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a/b", "a b", "ä", &"x".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_belongs_to_one_and_comes_free_again() {
        let folder = tempfile::tempdir().unwrap();
        let all = Containers::new(folder.path().join("containers"));
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let first = all.reserve(&a, "web").unwrap();
        assert!(matches!(all.reserve(&b, "web"), Err(Error::Taken { .. })));
        assert!(all.list().unwrap().is_empty(), "not written yet");
        assert!(first.is_locked());
        drop(first);
        all.clean().unwrap();
        let again = all.reserve(&b, "web").unwrap();
        assert!(again.directory().join("lock").exists());
        assert!(!folder.path().join("containers").join(&a).exists());
    }
}
