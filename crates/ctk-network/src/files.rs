//! The folder in which networks and their members are written down.
//!
//! ```text
//! lock                    held by those who make and remove networks, shared by all others
//! changed                 other text whenever a member came or went
//! by-name/NAME/network    what it is, JSON
//! by-name/NAME/lock       held while members come and go
//! by-name/NAME/last       the addresses given last: the next are searched behind them
//! by-name/NAME/members/ID who is there, JSON
//! by-name/NAME/leaving/DEVICE.NUMBER  who is no longer, but whose device may be; held by who removes that
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::limits::STATE_FILE_BYTES;

/// A file that excludes others as long as it is open.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "closing it unlocks")] File);

pub(crate) fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::State { attempt, path, source }
}

/// Waits until nobody else holds it; `shared` ones do not exclude each other.
pub(crate) fn lock(path: PathBuf, shared: bool) -> Result<Lock, Error> {
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(failed("open", &path))?;
    let operation = if shared { FlockOperation::LockShared } else { FlockOperation::LockExclusive };
    flock(&file, operation).map_err(|error| failed("lock", &path)(error.into()))?;
    Ok(Lock(file))
}

/// Holds a file that is there, if nobody else does.
pub(crate) fn try_lock(path: &Path) -> Result<Option<Lock>, Error> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed("open", path))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed("lock", path)(error.into())),
    }
}

/// A file's bytes, at most as many; `None` if it is not there.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed("open", path))?,
    };
    let length = file.metadata().map_err(failed("read", path))?.len();
    let mut bytes = Vec::with_capacity(length.min(limit) as usize + 1);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > limit {
        let source = io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {limit} bytes"));
        return Err(failed("read", path)(source));
    }
    Ok(Some(bytes))
}

/// What a file of ours says; `None` if it is not there.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let Some(bytes) = read(path, STATE_FILE_BYTES)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&bytes).map_err(|error| failed("read", path)(error.into()))?;
    Ok(Some(parsed))
}

/// Writes a file as a whole: others see the old one or the new one. `durable`: it is on the disk when this returns; else
/// it may be empty after a power cut.
pub(crate) fn save<T: Serialize>(path: &Path, value: &T, durable: bool) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|error| failed("write", path)(error.into()))?;
    replace(path, &bytes, durable)
}

/// Makes each unfinished file another one.
static UNFINISHED: AtomicU64 = AtomicU64::new(0);

/// Writes a file as a whole.
pub(crate) fn replace(path: &Path, bytes: &[u8], durable: bool) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = UNFINISHED.fetch_add(1, Ordering::Relaxed);
    let unfinished = parent.join(format!(".{name}.{}.{number}", std::process::id()));
    let write = || {
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        if durable {
            file.sync_all()?;
            fs::rename(&unfinished, path)?;
            return File::open(parent)?.sync_all();
        }
        Ok(ctk_sys::put_in_place(unfinished.as_path(), path)?)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&unfinished);
        failed("write", path)(error)
    })
}

/// Removes a file; whether it was there.
pub(crate) fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|()| true).map_err(failed("remove", path)),
    }
}

/// Names in a folder, sorted, without those that begin with a dot; none if it is not there.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed("read", path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("read", path))?.file_name();
        names.extend(name.into_string().ok().filter(|name| !name.starts_with('.')));
    }
    names.sort();
    Ok(names)
}
