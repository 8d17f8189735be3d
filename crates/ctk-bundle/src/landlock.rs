//! Landlock on top of everything else: for containers that ask for it, and for the runtime's own processes that look on.
//!
//! A container's files are its mounts, so Landlock has nothing to add there. It closes what namespaces leave open: mounts
//! can be changed by who has CAP_SYS_ADMIN, abstract sockets are everybody's who shares the network, and signals reach
//! everybody who shares the process ids. A container may be meant to do any of it, so each is asked for.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::action::Action;
use crate::cgroup::Cgroups;
use crate::spec::Spec;
use crate::state::Record;

/// The annotation by which a container asks: words of [`WORDS`], with commas.
pub const ANNOTATION: &str = "org.ctk.runtime.landlock";

/// Where it stands, for errors.
pub(crate) const FIELD: &str = "annotations[\"org.ctk.runtime.landlock\"]";

/// What can be given up: its word, rights on files, scopes, and the version of Landlock that has it.
pub const WORDS: [(&str, u64, u64, u32); 3] = [
    // Any right on files makes mounts unchangeable; this one is had everywhere, and denied everywhere if it is not named.
    ("mounts", REFER, 0, 2),
    ("sockets", 0, ABSTRACT_SOCKETS, 6),
    ("signals", 0, SIGNALS, 6),
];

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const REMOVE_DIRECTORY: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
/// Making of directories, files, links, sockets, pipes and devices.
const MAKE: u64 = 0x7f << 6;
const MAKE_FILE: u64 = 1 << 8;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
/// Binding to and connecting to TCP ports.
const TCP: u64 = 3;
const ABSTRACT_SOCKETS: u64 = 1;
const SIGNALS: u64 = 2;

/// What a container gives up, if it asks. A further process (`exec`) can signal the container's: it comes from elsewhere.
pub(crate) fn asked(spec: &Spec, version: u32, further: bool) -> Result<Option<Action>, Error> {
    let Some(text) = spec.annotations.as_ref().and_then(|all| all.get(ANNOTATION)).filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    let (mut files, mut scoped) = (0, 0);
    for word in text.split(',') {
        let Some((_, rights, scopes, since)) = WORDS.iter().find(|(name, ..)| *name == word.trim()) else {
            return Err(Error::config(FIELD, format!("`{word}` is none of mounts, sockets, signals")));
        };
        if version < *since {
            let what = format!("{FIELD} `{word}`");
            let reason = match version {
                0 => "Landlock is not in use in this kernel; leave it out".to_owned(),
                version => format!("it needs Landlock {since}, and this kernel has {version}; leave it out"),
            };
            return Err(Error::Unsupported { what, reason });
        }
        files |= rights;
        scoped |= scopes;
    }
    if further {
        scoped &= !SIGNALS;
    }
    Ok(((files, scoped) != (0, 0)).then_some(Action::Landlock { files, scoped }))
}

/// What [`Action::Landlock`] stands for, for people.
pub(crate) fn words(files: u64, scoped: u64) -> String {
    let given = WORDS.iter().filter(|(_, rights, scopes, _)| files & rights != 0 || scoped & scopes != 0);
    given.map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")
}

/// From now on this thread changes nothing but locks below the state root, reaches nobody, and executes nothing: it has
/// come to look at containers. Whether the kernel could be told.
pub fn look_on(root: &Path) -> bool {
    confine(EXECUTE, SIGNALS, &[(root.to_owned(), WRITE_FILE)])
}

/// From now on this thread waits for a container: it may remove what is written down of it and its cgroups, as far as it
/// `removes` anything, and changes nothing else, executes nothing and speaks to nobody. Whether the kernel could be told;
/// not so where hooks are still to come, or classes of caches to go.
pub fn wait_for(root: &Path, record: &Record, spec: &Spec, removes: bool) -> bool {
    let hooks = spec.hooks.as_ref().is_some_and(|hooks| !hooks.poststop.is_empty());
    match removes {
        true if hooks || record.rdt_class.is_some() => false,
        true => remove(root, &record.cgroups),
        false => relay(),
    }
}

fn remove(root: &Path, cgroups: &Cgroups) -> bool {
    let mut kept = vec![(root.to_owned(), WRITE_FILE | REMOVE_DIRECTORY | REMOVE_FILE | MAKE_FILE | TRUNCATE)];
    let parents = cgroups.directories.iter().filter_map(|directory| directory.path.parent());
    kept.extend(parents.map(|parent| (parent.to_owned(), WRITE_FILE | REMOVE_DIRECTORY | TRUNCATE)));
    confine(EXECUTE, 0, &kept)
}

/// From now on this thread passes on what a process reads and writes, and does nothing else.
pub fn relay() -> bool {
    confine(EXECUTE, 0, &[])
}

/// Gives up all writing but what is `kept`, TCP, abstract sockets, and more.
fn confine(files: u64, scoped: u64, kept: &[(PathBuf, u64)]) -> bool {
    let version = ctk_sys::landlock_version();
    let since = |first: u32, bits: u64| if version >= first { bits } else { 0 };
    let files = files | WRITE_FILE | REMOVE_DIRECTORY | REMOVE_FILE | MAKE | since(2, REFER) | since(3, TRUNCATE);
    // What is not there needs no rights.
    let opened: Vec<(File, u64)> =
        kept.iter().filter_map(|(path, rights)| Some((File::open(path).ok()?, rights & files))).collect();
    let kept: Vec<_> = opened.iter().map(|(file, rights)| (file.as_fd(), *rights)).collect();
    let restriction = ctk_sys::Restriction {
        files,
        network: since(4, TCP),
        scoped: since(6, scoped | ABSTRACT_SOCKETS),
        kept: &kept,
    };
    version > 0 && ctk_sys::landlock_restrict(&restriction).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    /// Landlock is a thread's: what happens in one of its own.
    fn in_a_thread(then: impl FnOnce() + Send) {
        std::thread::scope(|scope| scope.spawn(then).join().unwrap());
    }

    fn ready() -> bool {
        let there = ctk_sys::landlock_version() > 0;
        if !there {
            assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs Landlock, and CTK_TEST_REQUIRE is set");
            eprintln!("skipped: needs Landlock");
        }
        there
    }

    fn denied<T>(result: std::io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    #[test]
    fn who_looks_on_changes_nothing() {
        if !ready() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (root, other) = (folder.path().join("root"), folder.path().join("other"));
        std::fs::create_dir(&root).unwrap();
        for file in [root.join("lock"), other.clone()] {
            std::fs::write(file, "old").unwrap();
        }
        in_a_thread(|| {
            assert!(look_on(&root));
            File::options().write(true).open(root.join("lock")).unwrap();
            assert_eq!(std::fs::read_to_string(&other).unwrap(), "old");
            assert!(denied(File::options().write(true).open(&other)));
            assert!(denied(std::fs::write(root.join("new"), "x")));
            assert!(denied(std::fs::remove_file(root.join("lock"))));
            assert!(denied(std::fs::create_dir(folder.path().join("new"))));
            assert!(denied(std::process::Command::new("/bin/true").status()));
            if ctk_sys::landlock_version() >= 4 {
                let listener = std::net::TcpListener::bind("127.0.0.1:0");
                assert!(denied(listener));
            }
        });
    }

    #[test]
    fn who_waits_removes_what_is_his() {
        if !ready() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (root, cgroup) = (folder.path().join("root"), folder.path().join("cgroups/box"));
        std::fs::create_dir_all(root.join("box")).unwrap();
        std::fs::create_dir_all(&cgroup).unwrap();
        std::fs::write(root.join("box/state.json"), "{}").unwrap();
        let mut cgroups = Cgroups::default();
        cgroups.directories.push(crate::cgroup::Directory {
            name: "pids".into(),
            controllers: vec!["pids".into()],
            path: cgroup.clone(),
        });
        in_a_thread(|| {
            assert!(remove(&root, &cgroups));
            assert!(denied(std::fs::create_dir(folder.path().join("new"))));
            assert!(denied(std::fs::write(root.parent().unwrap().join("new"), "x")));
            assert!(denied(std::process::Command::new("/bin/true").status()));
            std::fs::remove_file(root.join("box/state.json")).unwrap();
            std::fs::remove_dir(root.join("box")).unwrap();
            std::fs::remove_dir(&cgroup).unwrap();
        });
        in_a_thread(|| {
            assert!(relay());
            assert!(denied(std::fs::write(root.join("new"), "x")));
        });
    }
}
