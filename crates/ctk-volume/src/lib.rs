//! Volumes: folders of containers that outlive them. No database and no lock for all.
//!
//! ```text
//! volumes/<name>/lock         shared by who makes a container with it, exclusive by who fills or removes it
//!                volume.json  what it is
//!                data/        what is in it
//!                filling      there while it gets what an image has: what is left of that is none of anybody's
//! volumes/.new-…  .gone-…     on their way in and out
//! ```
//! A volume appears by one rename and is complete then. Who uses it is not written here: the containers say so.

mod error;
pub mod limits;
mod options;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, RenameFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use error::Error;
pub use options::{Backing, Read, read};

use crate::limits::{DESCRIPTION_BYTES, LOCK_WAIT, NAME_CHARACTERS, VOLUMES};

const LOCK: &str = "lock";
const DESCRIPTION: &str = "volume.json";
const DATA: &str = "data";
const FILLING: &str = "filling";
const NEW: &str = ".new-";
const GONE: &str = ".gone-";

/// `volume.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// When it was made, in nanoseconds since 1970.
    pub created: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// As docker's `local` driver has them; see [`read`].
    pub options: BTreeMap<String, String>,
    /// Whether it was made for one container that did not name it.
    pub anonymous: bool,
    /// Whether no container ever had it: then its folder becomes the first one's user's.
    pub fresh: bool,
}

/// All volumes of a store.
#[derive(Clone, Debug)]
pub struct Volumes {
    root: PathBuf,
}

/// One volume.
#[derive(Clone, Debug)]
pub struct Volume {
    name: String,
    directory: PathBuf,
}

/// A volume that nobody removes as long as this is there.
#[derive(Debug)]
pub struct Held {
    volume: Volume,
    lock: File,
}

impl std::ops::Deref for Held {
    type Target = Volume;

    fn deref(&self) -> &Volume {
        &self.volume
    }
}

impl Volumes {
    /// Those below `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Volumes {
        Volumes { root: root.into() }
    }

    /// Makes a volume; [`Error::Taken`] if there is one of that name.
    pub fn create(&self, description: &Description) -> Result<Held, Error> {
        let name = description.name.as_str();
        check_name(name)?;
        let read = read(&description.options)?;
        let (held, directory) = self.prepare(description, &read)?;
        let to = self.root.join(name);
        match rustix::fs::renameat_with(rustix::fs::CWD, &directory, rustix::fs::CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Held { volume: Volume { name: name.into(), directory: to }, ..held }),
            Err(errno) => {
                let _ = fs::remove_dir_all(&directory);
                match errno {
                    Errno::EXIST => Err(Error::Taken { name: name.into() }),
                    errno => Err(Error::file("make", &to)(errno)),
                }
            }
        }
    }

    /// A volume under a name that nobody looks for.
    fn prepare(&self, description: &Description, read: &Read) -> Result<(Held, PathBuf), Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(Error::file("make", &self.root))?;
        let mut number = 0;
        let directory = loop {
            let directory = self.root.join(format!("{NEW}{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => break directory,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(Error::file("make", &directory)(error)),
            }
        };
        let volume = Volume { name: description.name.clone(), directory: directory.clone() };
        let lock = volume.open_lock(true)?;
        flock(&lock, FlockOperation::LockShared).map_err(Error::file("lock", &directory))?;
        let data = directory.join(DATA);
        DirBuilder::new().mode(0o755).create(&data).map_err(Error::file("make", &data))?;
        // Whatever the caller's umask is.
        fs::set_permissions(&data, PermissionsExt::from_mode(0o755)).map_err(Error::file("chmod", &data))?;
        if let Some((uid, gid)) = read.owner {
            std::os::unix::fs::chown(&data, Some(uid), Some(gid)).map_err(Error::file("chown", &data))?;
        }
        let fresh = description.fresh && read.owner.is_none();
        volume.write(&Description { fresh, ..description.clone() })?;
        Ok((Held { volume, lock }, directory))
    }

    /// The volume of exactly this name; `None` if there is none.
    pub fn get(&self, name: &str) -> Option<Volume> {
        let directory = self.root.join(name);
        let there = check_name(name).is_ok() && directory.join(DESCRIPTION).exists();
        there.then(|| Volume { name: name.into(), directory })
    }

    /// The volume that is called so, or whose name begins so.
    pub fn find(&self, name: &str) -> Result<Volume, Error> {
        if let Some(found) = self.get(name) {
            return Ok(found);
        }
        let all = self.list()?;
        let found: Vec<&Volume> =
            all.iter().filter(|volume| !name.is_empty() && volume.name.starts_with(name)).collect();
        match found.as_slice() {
            [] => {
                let near = ctk_syntax::nearest(name, all.iter().map(Volume::name)).map(str::to_owned);
                Err(Error::Missing { name: name.into(), near })
            }
            [one] => Ok(Volume::clone(one)),
            several => {
                let names: Vec<&str> = several.iter().map(|volume| volume.name()).take(8).collect();
                Err(Error::Ambiguous { name: name.into(), names: names.join(", ") })
            }
        }
    }

    /// The volume of this name, held; made by `description` if it is not there.
    pub fn hold(&self, name: &str, description: impl FnOnce() -> Description) -> Result<Held, Error> {
        check_name(name)?;
        let described = description();
        loop {
            if let Some(volume) = self.get(name)
                && let Some(held) = volume.lock(FlockOperation::NonBlockingLockShared, LOCK_WAIT)?
            {
                return Ok(held);
            }
            match self.create(&described) {
                Err(Error::Taken { .. }) => {}
                other => return other,
            }
        }
    }

    /// All volumes, by name.
    pub fn list(&self) -> Result<Vec<Volume>, Error> {
        let mut names = self.entries()?;
        names.sort_unstable();
        Ok(names.iter().filter_map(|name| self.get(name)).collect())
    }

    fn entries(&self) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(Error::file("list", &self.root))?,
        };
        Ok(entries.take(VOLUMES).filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }

    /// Removes a volume, if `users` says that nobody has it; it is asked when nobody can begin to.
    pub fn remove<E: From<Error>>(
        &self,
        volume: &Volume,
        users: impl FnOnce() -> Result<Vec<String>, E>,
    ) -> Result<(), E> {
        let name = volume.name();
        let Some(held) = volume.lock(FlockOperation::NonBlockingLockExclusive, LOCK_WAIT)? else {
            return Err(Error::Missing { name: name.into(), near: None }.into());
        };
        let users = users()?;
        if !users.is_empty() {
            return Err(Error::InUse { name: name.into(), users: users.join(", ") }.into());
        }
        let gone = self.root.join(format!("{GONE}{name}"));
        let _ = fs::remove_dir_all(&gone);
        fs::rename(&held.directory, &gone).map_err(Error::file("remove", &held.directory))?;
        Ok(fs::remove_dir_all(&gone).map_err(Error::file("remove", &gone))?)
    }

    /// Removes what was begun and never finished, or not removed to the end, by processes that are gone.
    pub fn clean(&self) -> Result<(), Error> {
        for name in self.entries()? {
            if !name.starts_with(NEW) && !name.starts_with(GONE) {
                continue;
            }
            let directory = self.root.join(&name);
            let lock = File::options().write(true).open(directory.join(LOCK));
            let free = match &lock {
                Ok(lock) => flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
                // Between its making and its locking there is a moment: a new one is left alone.
                Err(_) => name.starts_with(GONE),
            };
            if free {
                let _ = fs::remove_dir_all(directory);
            }
        }
        Ok(())
    }
}

/// Checks a name as docker and podman have them.
pub fn check_name(name: &str) -> Result<(), Error> {
    let wrong = |reason| Err(Error::Name { name: name.into(), reason });
    match name.chars().next() {
        None => return wrong("it is empty"),
        Some(first) if !first.is_ascii_alphanumeric() => return wrong("it must begin with a letter or a digit"),
        Some(_) => {}
    }
    if name.len() > NAME_CHARACTERS {
        return wrong("it is longer than 128 characters");
    }
    match name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')) {
        true => Ok(()),
        false => wrong("only letters, digits and _ . - may be in it"),
    }
}

impl Volume {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of what is in it; empty for one that is mounted from elsewhere.
    pub fn data(&self) -> PathBuf {
        self.directory.join(DATA)
    }

    /// What it is.
    pub fn description(&self) -> Result<Description, Error> {
        use io::Read;
        let path = self.directory.join(DESCRIPTION);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Missing { name: self.name.clone(), near: None });
            }
            other => other.map_err(Error::file("read", &path))?,
        };
        let mut text = Vec::new();
        file.take(DESCRIPTION_BYTES).read_to_end(&mut text).map_err(Error::file("read", &path))?;
        serde_json::from_slice(&text).map_err(|source| Error::Description { path, source })
    }

    fn write(&self, description: &Description) -> Result<(), Error> {
        let path = self.directory.join(DESCRIPTION);
        let new = self.directory.join(".volume.json");
        let text =
            serde_json::to_vec(description).map_err(|source| Error::Description { path: path.clone(), source })?;
        fs::write(&new, text).map_err(Error::file("write", &new))?;
        fs::rename(&new, &path).map_err(Error::file("write", &path))
    }

    fn open_lock(&self, new: bool) -> Result<File, Error> {
        let path = self.directory.join(LOCK);
        File::options().read(true).write(true).create_new(new).open(&path).map_err(Error::file("open", &path))
    }

    /// Locked, or `None` if it went away meanwhile.
    fn lock(&self, how: FlockOperation, limit: Duration) -> Result<Option<Held>, Error> {
        let path = self.directory.join(LOCK);
        let deadline = Instant::now() + limit;
        loop {
            let lock = match self.open_lock(false) {
                Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            match flock(&lock, how) {
                Ok(()) if same(&lock, &path) => return Ok(Some(Held { volume: self.clone(), lock })),
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) if Instant::now() >= deadline => {
                    return Err(Error::Busy { name: self.name.clone() });
                }
                Err(Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(5)),
                Err(errno) => return Err(Error::file("lock", &path)(errno)),
            }
        }
    }
}

fn same(file: &File, path: &Path) -> bool {
    let there = fs::metadata(path).map(|there| (there.dev(), there.ino()));
    let here = file.metadata().map(|here| (here.dev(), here.ino()));
    there.is_ok_and(|there| here.is_ok_and(|here| here == there))
}

/// What becomes of an empty volume when a container gets it.
pub struct Filling<'a> {
    /// Fills its folder, whose path it is given; whether the image has something there.
    pub fill: &'a mut dyn FnMut(&Path) -> Result<bool, io::Error>,
    /// Who has it if the image has nothing.
    pub owner: (u32, u32),
}

impl Held {
    /// Gives an empty volume what the image has; one that a killed process left half filled is emptied first. A volume
    /// that nobody had before and that stays empty becomes its first user's.
    pub fn first_use(&self, filling: Filling<'_>) -> Result<(), Error> {
        let data = self.data();
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            if !self.description()?.fresh && !self.wants_filling()? {
                return self.share();
            }
            match flock(&self.lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {}
                Err(Errno::WOULDBLOCK) => return Err(Error::Busy { name: self.name.clone() }),
                Err(errno) => return Err(Error::file("lock", &self.directory)(errno)),
            }
            // Nobody who waits for it may keep others from having it.
            flock(&self.lock, FlockOperation::Unlock).map_err(Error::file("unlock", &self.directory))?;
            std::thread::sleep(Duration::from_millis(2));
        }
        if !same(&self.lock, &self.directory.join(LOCK)) {
            return Err(Error::Missing { name: self.name.clone(), near: None });
        }
        let filled = self.fill(&data, filling);
        let shared = self.share();
        filled.and(shared)
    }

    fn share(&self) -> Result<(), Error> {
        flock(&self.lock, FlockOperation::LockShared).map_err(Error::file("lock", &self.directory))?;
        match same(&self.lock, &self.directory.join(LOCK)) {
            true => Ok(()),
            false => Err(Error::Missing { name: self.name.clone(), near: None }),
        }
    }

    fn wants_filling(&self) -> Result<bool, Error> {
        let data = self.data();
        let mut entries = fs::read_dir(&data).map_err(Error::file("list", &data))?;
        Ok(entries.next().is_none() || self.directory.join(FILLING).exists())
    }

    fn fill(&self, data: &Path, filling: Filling<'_>) -> Result<(), Error> {
        let description = self.description()?;
        let marker = self.directory.join(FILLING);
        if self.wants_filling()? {
            if marker.exists() {
                empty(data).map_err(Error::file("empty", data))?;
            }
            File::create(&marker).map_err(Error::file("make", &marker))?;
            let found = (filling.fill)(data).map_err(Error::file("fill", data))?;
            if !found && description.fresh {
                let (uid, gid) = filling.owner;
                std::os::unix::fs::chown(data, Some(uid), Some(gid)).map_err(Error::file("chown", data))?;
            }
            fs::remove_file(&marker).map_err(Error::file("remove", &marker))?;
        }
        match description.fresh {
            true => self.write(&Description { fresh: false, ..description }),
            false => Ok(()),
        }
    }
}

/// Removes what is in a folder, and not the folder.
fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(name: &str) -> Description {
        Description { name: name.into(), fresh: true, ..Description::default() }
    }

    fn own() -> (u32, u32) {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }

    #[test]
    fn a_name_is_taken_once_and_found_by_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(folder.path().join("volumes"));
        assert!(volumes.list().unwrap().is_empty());
        drop(volumes.create(&described("data")).unwrap());
        assert!(matches!(volumes.create(&described("data")), Err(Error::Taken { .. })));
        drop(volumes.create(&described("date")).unwrap());
        assert_eq!(volumes.find("data").unwrap().name(), "data");
        assert!(matches!(volumes.find("dat"), Err(Error::Ambiguous { .. })));
        assert!(volumes.find("dato").unwrap_err().to_string().contains("did you mean"));
        for bad in ["", ".x", "a/b", "ü", "../x"] {
            assert!(matches!(volumes.create(&described(bad)), Err(Error::Name { .. })), "{bad}");
        }
        assert_eq!(volumes.list().unwrap().len(), 2);
    }

    #[test]
    fn one_that_is_used_stays() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(folder.path());
        let volume = Volume::clone(&volumes.create(&described("data")).unwrap());
        let used = volumes.remove::<Error>(&volume, || Ok(vec!["web".into()])).unwrap_err();
        assert_eq!(used.to_string(), "volume data is used by web");
        volumes.remove::<Error>(&volume, || Ok(Vec::new())).unwrap();
        assert!(volumes.get("data").is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_empty_one_is_filled_once_and_a_half_filled_one_anew() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(folder.path());
        let held = volumes.hold("data", || described("data")).unwrap();
        let mut fill = |data: &Path| fs::write(data.join("x"), "1").map(|()| true);
        held.first_use(Filling { fill: &mut fill, owner: own() }).unwrap();
        assert!(!held.description().unwrap().fresh);
        let mut never = |_: &Path| panic!("it is not empty");
        held.first_use(Filling { fill: &mut never, owner: own() }).unwrap();
        // Killed in between.
        fs::write(held.data().join("half"), "").unwrap();
        File::create(held.directory.join(FILLING)).unwrap();
        held.first_use(Filling { fill: &mut fill, owner: own() }).unwrap();
        assert!(!held.data().join("half").exists() && held.data().join("x").exists());
    }

    #[test]
    fn what_was_begun_goes_when_its_maker_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(folder.path());
        let (held, directory) = volumes.prepare(&described("x"), &read(&BTreeMap::new()).unwrap()).unwrap();
        volumes.clean().unwrap();
        assert!(directory.exists());
        drop(held);
        volumes.clean().unwrap();
        assert!(!directory.exists());
    }
}
