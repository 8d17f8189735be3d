//! Layers that are complete, but perhaps not on the disk yet.
//!
//! Waiting for the disk after each layer means waiting for everything else that anybody wrote to its filesystem. So a
//! new layer says which boot of the machine it belongs to: while that lasts, what was written is what is read, on disk
//! or not. When the last handle goes, a process of its own, which nobody waits for, syncs the filesystem once and takes
//! the mark off: beside `info.json` lies the same without the mark, under a name that no other layer has, and takes its
//! place. A layer that is still marked after the machine went down is not believed: it is removed, and made
//! again when it is wanted.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
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
    let settled = format!("settled-{:016x}.json", RandomState::new().build_hasher().finish());
    write(&settled, info)?;
    write(INFO, &Info { boot: Some(boot.to_owned()), settled: Some(settled), ..info.clone() })?;
    Ok(true)
}

/// Takes the mark off the layer directories `names` once they are on the disk, and returns at once. What fails leaves
/// the mark, and with it the next one to try.
pub fn settle(store: &Store, names: &BTreeSet<String>) {
    take_marks_off(store, &renames(store, names));
}

/// What takes the marks off these layers, below the folder of all. To be asked before anything is synced: a layer that
/// is removed and made again meanwhile, which this sync need not have seen, has another file to rename.
fn renames(store: &Store, names: &BTreeSet<String>) -> Vec<(CString, CString)> {
    let rename = |name: &String| {
        let info = fs::read(store.layers().join(name).join(INFO)).ok()?;
        let settled = serde_json::from_slice::<Info>(&info).ok()?.settled?;
        // It is a name in that directory and nothing else.
        let settled = Path::new(&settled).file_name()?.to_str()?;
        Some((file(name, settled)?, file(name, INFO)?))
    };
    names.iter().filter_map(rename).collect()
}

fn take_marks_off(store: &Store, renames: &[(CString, CString)]) {
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_layer_that_was_made_again_meanwhile_keeps_its_mark() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let layer = |name: &str| store.layers().join(name);
        let make = |name: &str| {
            fs::create_dir(layer(name)).unwrap();
            assert!(write_info(&layer(name), &Info::default()).unwrap());
        };
        let is_marked = |name: &str| fs::read_to_string(layer(name).join(INFO)).unwrap().contains("boot");
        let names: BTreeSet<String> = ["again", "other", "third"].map(str::to_owned).into();
        names.iter().for_each(|name| make(name));
        let renames = renames(&store, &names);
        assert_eq!(renames.len(), 3);
        fs::remove_dir_all(layer("again")).unwrap();
        make("again");
        take_marks_off(&store, &renames);
        let end = Instant::now() + Duration::from_secs(60);
        while is_marked("third") && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let marked: Vec<&String> = names.iter().filter(|name| is_marked(name)).collect();
        assert_eq!(marked, ["again"]);
    }
}
