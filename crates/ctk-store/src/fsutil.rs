//! Small steps on files that are either done or not.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use ctk_oci::Digest;
use ctk_plan::Cancel;
use rustix::fs::{FlockOperation, IFlags, flock, ioctl_getflags, ioctl_setflags};

use crate::StoreError;
use crate::error::Context;
use crate::limits::{FILE_NAME_MAX_BYTES, LOCK_POLL_MILLISECONDS};

/// Makes a rename or a creation in `directory` durable.
pub fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory).and_then(|d| d.sync_all()).context("sync", directory)
}

/// Makes `directory` and its parents, without an error if they are there.
pub fn make_directory(directory: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(directory).context("create directory", directory)
}

/// Lets nobody but the owner into `directory`. That it isn't there is no error.
pub fn make_private(directory: &Path) -> Result<(), StoreError> {
    let mode = match fs::metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.context("stat", directory)?.permissions().mode(),
    };
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(mode & 0o700)).context("close to others", directory)
}

/// Asks the filesystem to put what is made in `directory` far from each other, as it does in the root of a disk. ext4
/// puts a new directory and its files beside its parent, and passes one by one over inodes that were freed a moment ago:
/// right after thousands of files were removed there, making as many takes ten times as long. Where there is no such
/// attribute, nothing is lost.
pub fn scatter(directory: &Path) {
    let Ok(open) = fs::File::open(directory) else { return };
    if let Ok(flags) = ioctl_getflags(&open)
        && !flags.contains(IFlags::TOPDIR)
    {
        let _ = ioctl_setflags(&open, flags | IFlags::TOPDIR);
    }
}

/// Replaces `path` by `bytes`: by a rename, so readers see the old or the new; durably.
pub fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(temporary)?;
        file.write_all(bytes)?;
        file.sync_data()
    };
    let written = write().and_then(|()| fs::rename(temporary, path));
    if written.is_err() {
        // The write's error matters more than that of cleaning up after it.
        let _ = fs::remove_file(temporary);
    }
    written.context("write", path)?;
    sync_directory(path.parent().expect("paths in the store have parents"))
}

/// Replaces `path` by `bytes` as [`replace`] does, without waiting for the disk: for what may get lost.
pub fn put_in_place(path: &Path, temporary: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let written = fs::write(temporary, bytes).and_then(|()| fs::rename(temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(temporary);
    }
    written.context("write", path)
}

/// A file's bytes, or `None` if there is no such file.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).context("read", path),
    }
}

/// Removes a file; that it is already gone is no error.
pub fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).context("remove", path),
        _ => Ok(()),
    }
}

/// Removes a tree; that it is already gone is no error.
pub fn remove_tree(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => remove_if_there(path),
        Err(e) => Err(e).context("remove", path),
        Ok(()) => Ok(()),
    }
}

/// The names in a directory; none if it isn't there.
pub fn names(directory: &Path) -> Result<Vec<String>, StoreError> {
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).context("list", directory),
    };
    let mut names = Vec::new();
    for entry in listing {
        // Everything the store makes has an ASCII name; whatever else lies there is not ours.
        if let Ok(name) = entry.context("list", directory)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A file name for any text: unreserved characters stay, others become `%XX`; long ones are named by digest.
pub fn file_name(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            b'.' | b':' | b'@' | b'+' if !name.is_empty() => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if name.is_empty() || name.len() > FILE_NAME_MAX_BYTES {
        name = format!("%{}", Digest::of(text.as_bytes()).hex());
    }
    name
}

/// Opens `path` for locking, making it if needed.
pub fn open_lock_file(path: &Path) -> Result<File, StoreError> {
    let open = |path| OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path);
    open(path).context("open", path)
}

/// Locks `file` without waiting; `false` when another open file has it.
pub fn try_lock(file: &File, path: &Path) -> Result<bool, StoreError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e).context("lock", path),
    }
}

/// Waits for a lock of `file`, looking for a cancellation now and then.
pub fn wait_lock(file: &File, path: &Path, cancel: &Cancel) -> Result<(), StoreError> {
    while !try_lock(file, path)? {
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        std::thread::sleep(Duration::from_millis(LOCK_POLL_MILLISECONDS));
    }
    Ok(())
}

/// Whether the open `file` still is what `path` names: a lock file may have been removed while we waited for it.
pub fn still_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Takes the lock named by `path`: a file that exists only while somebody wants it.
pub fn take_named(path: &Path, cancel: &Cancel) -> Result<File, StoreError> {
    loop {
        let file = open_lock_file(path)?;
        wait_lock(&file, path, cancel)?;
        if still_there(&file, path) {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_has_a_file_name() {
        let check = |text: &str, expected: &str| assert_eq!(file_name(text), expected);
        check("docker.io/library/x:1", "docker.io%2Flibrary%2Fx:1");
        check("..", "%2E.");
        check(".hidden", "%2Ehidden");
        check("ü", "%C3%BC");
        assert_eq!(file_name(&"x".repeat(300)).len(), 65);
        assert_eq!(file_name("").len(), 65);
    }
}
