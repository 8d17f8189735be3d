//! Layers that are complete, but perhaps not on the disk yet.
//!
//! Waiting for the disk after each layer means waiting for everything else that anybody wrote to its filesystem. So a
//! new layer says which boot of the machine it belongs to: while that lasts, what was written is what is read, on disk
//! or not. When the last handle goes, a process of its own, which nobody waits for, syncs the filesystem once and takes
//! the mark off. A layer that is still marked after the machine went down is not believed: it is removed, and made
//! again when it is wanted.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::OnceLock;

use ctk_store::Store;
use ctk_sys::{Start, Step, start};
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::SnapshotError;
use crate::error::Context;
use crate::extract::open_directory;
use crate::snapshots::Info;

/// What a layer says of itself.
pub const INFO: &str = "info.json";
/// The same without the mark, until it is on the disk.
const SETTLED: &str = "settled.json";

/// This boot of the machine; `None` where the kernel does not tell.
pub fn boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned());
    BOOT.get_or_init(read).as_deref()
}

/// Whether what the layer's files hold is what was written.
pub fn is_trusted(info: &Info) -> bool {
    info.boot.as_deref().is_none_or(|of| boot() == Some(of))
}

/// Writes what the new layer in `directory` says of itself. `true` when it must be settled later; where boots have no
/// names it is on the disk now.
pub fn write_info(directory: &Path, info: &Info) -> Result<bool, SnapshotError> {
    let write = |name: &str, info: &Info| {
        let path = directory.join(name);
        let bytes = serde_json::to_vec(info).expect("plain data serialises");
        fs::write(&path, bytes).context("write", path.as_os_str().as_encoded_bytes())
    };
    let Some(boot) = boot() else {
        write(INFO, info)?;
        let name = directory.as_os_str().as_encoded_bytes();
        rustix::fs::syncfs(open_directory(directory)?).context("sync", name)?;
        return Ok(false);
    };
    write(SETTLED, info)?;
    write(INFO, &Info { boot: Some(boot.to_owned()), ..info.clone() })?;
    Ok(true)
}

/// Takes the mark off the layer directories `names` once they are on the disk, and returns at once. What fails leaves
/// the mark, and with it the next one to try.
pub fn settle(store: &Store, names: &BTreeSet<String>) {
    let renames: Vec<(CString, CString)> =
        names.iter().filter_map(|name| Some((file(name, SETTLED)?, file(name, INFO)?))).collect();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(layers) = openat(rustix::fs::CWD, store.layers(), flags, Mode::empty()) else { return };
    // The first file number of the child; nothing else stays open in it.
    let directory = 0;
    let mut steps = vec![
        Step::NewSession,
        Step::Duplicate { from: layers.as_fd().as_raw_fd(), to: directory },
        Step::Release { from: directory + 1 },
        Step::Detach,
        Step::SyncFilesystem { file: directory },
    ];
    steps.extend(renames.iter().map(|(from, to)| Step::Rename { directory, from, to }));
    let Ok(child) = start(&Start { namespaces: 0, cgroup: None, steps: &steps }) else { return };
    // It ends when it is detached.
    let (process, _) = child.executed();
    let _ = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
}

fn file(layer: &str, name: &str) -> Option<CString> {
    CString::new(format!("{layer}/{name}")).ok()
}
