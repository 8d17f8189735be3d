//! What is written down about a running container, so that whoever comes after a killed process can clean up.
//!
//! `<state_dir>/<id>/lock` is locked as long as the process that started the container lives. It says `cgroup PATH` for
//! each cgroup directory, and `pid NUMBER START` for its first process and when that started, a line each.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::Error;
use crate::cgroup::Cgroups;
use crate::limits::{LOCK_ATTEMPTS, STALE_CONTAINERS, STATE_BYTES};

/// The name of the file that is locked.
const LOCK: &str = "lock";

/// The directory of one container.
#[derive(Debug)]
pub(crate) struct State {
    directory: PathBuf,
    lock: File,
}

impl State {
    pub(crate) fn create(state_dir: &Path, id: &str) -> Result<State, Error> {
        let usable = !id.is_empty() && !id.starts_with('.') && !id.contains('/') && id.len() <= 128;
        if !usable {
            return Err(Error::InvalidLaunch(format!("`{id}` cannot be an id")));
        }
        let directory = state_dir.join(id);
        let keep = |path: &Path, source| Error::KeepState { path: path.into(), source };
        let path = directory.join(LOCK);
        // A cleanup may look at the directory between our making and locking it: then make it anew.
        for _ in 0..LOCK_ATTEMPTS {
            fs::create_dir_all(&directory).map_err(|e| keep(&directory, e))?;
            // Not truncated: it may be that of a running container.
            let lock = match File::options().append(true).create(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|e| keep(&path, e))?,
            };
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    continue;
                }
                Err(other) => return Err(keep(&path, other.into())),
            }
            let same = fs::metadata(&path).is_ok_and(|now| lock.metadata().is_ok_and(|held| held.ino() == now.ino()));
            if same {
                return Ok(State { directory, lock });
            }
        }
        Err(Error::Busy { id: id.into() })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn keep_cgroups(&self, paths: &[PathBuf]) -> Result<(), Error> {
        if paths.is_empty() {
            return Ok(());
        }
        self.keep(&paths.iter().map(|path| format!("cgroup {}\n", path.display())).collect::<String>())
    }

    pub(crate) fn keep_pid(&self, pid: i32) -> Result<(), Error> {
        self.keep(&format!("pid {pid} {}\n", start_time(pid).unwrap_or(0)))
    }

    fn keep(&self, text: &str) -> Result<(), Error> {
        let failed = |source| Error::KeepState { path: self.directory.join(LOCK), source };
        (&self.lock).write_all(text.as_bytes()).map_err(failed)
    }

    /// Forgets the container. Files that the caller put there go too.
    pub(crate) fn remove(&self) {
        let _ = remove_directory(&self.directory);
    }
}

/// Removes the directory of a container whose lock the caller holds. The lock goes last: a removal that is killed halfway
/// leaves a directory that [`cleanup_stale`] recognizes.
fn remove_directory(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    fs::remove_file(directory.join(LOCK))?;
    fs::remove_dir(directory)
}

/// Kills and removes what containers of killed processes left behind in a state directory: processes, cgroups, files.
/// Gives back how many there were. Containers of living processes stay.
pub fn cleanup_stale(state_dir: &Path) -> Result<usize, Error> {
    let keep = |source| Error::KeepState { path: state_dir.into(), source };
    let entries = match fs::read_dir(state_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(keep(error)),
    };
    let mut cleaned = 0;
    for entry in entries.take(STALE_CONTAINERS) {
        let entry = entry.map_err(keep)?;
        // No container's id begins with a dot: what does is somebody else's.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let directory = entry.path();
        let lock = match File::open(directory.join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Its maker was killed before it could lock it. One that still lives makes it anew; one that has its
                // lock by now keeps it, as only an empty directory goes.
                cleaned += usize::from(fs::remove_dir(&directory).is_ok());
                continue;
            }
            Err(_) => continue,
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let mut text = String::new();
        let _ = (&lock).take(STATE_BYTES).read_to_string(&mut text);
        let find = |word: &'static str| text.lines().filter_map(move |line| line.strip_prefix(word));
        find("pid ").for_each(kill_recorded);
        let mut cgroups = Cgroups::adopt(find("cgroup ").map(PathBuf::from).collect());
        if !cgroups.paths().is_empty() {
            cgroups.kill();
        }
        if cgroups.remove() && remove_directory(&directory).is_ok() {
            cleaned += 1;
        }
    }
    Ok(cleaned)
}

fn kill_recorded(text: &str) {
    let Some((pid, started)) = text.split_once(' ') else { return };
    let (Ok(number), Ok(started)) = (pid.parse::<i32>(), started.parse::<u64>()) else { return };
    let Some(pid) = Pid::from_raw(number) else { return };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    // The number may belong to another process by now; the start time tells.
    if started != 0 && start_time(number) == Some(started) {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
}

/// Field 22 of `/proc/<pid>/stat`: clock ticks since boot.
fn start_time(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}
