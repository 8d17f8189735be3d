//! Package files into a root: unpack all, write dpkg's database, configure, make it reproducible.

mod database;
mod deb;
mod normalise;
mod rootfs;
mod scripts;
mod unpack;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ctk_plan::{Cancel, Step, Stream};

use crate::apt::deb822::Stanza;
use crate::install::database::State;
use crate::install::deb::Deb;
use crate::install::rootfs::{Meta, Root};
use crate::install::unpack::{ALIASES, Unpacked, Unpacker};
use crate::{Locked, PackagesError, Scripts};

/// Rounds of triggers that scripts activate while triggers are processed, before it must be a circle.
const TRIGGER_ROUNDS: usize = 10;

/// There while scripts run, the last three before everything else in the path:
/// - no service starts (invoke-rc.d(8));
/// - there is no init to tell about a new libc, which libc6 would otherwise wait a second for (ischroot(1));
/// - the disk is waited for once, when the layer is committed, not by every script that says `sync`;
/// - dpkg-maintscript-helper(1) mends what older versions of a package left. Here every package is new, and each of its
///   commands ends without having done anything, after three processes. What it does not know, it passes on.
const HELPERS: [(&str, &[u8]); 4] = [
    ("usr/sbin/policy-rc.d", b"#!/bin/sh\nexit 101\n"),
    ("usr/lib/.ctk-scripts/ischroot", b"#!/bin/sh\nexit 0\n"),
    ("usr/lib/.ctk-scripts/sync", b"#!/bin/sh\nexit 0\n"),
    ("usr/lib/.ctk-scripts/dpkg-maintscript-helper", MAINTSCRIPT_HELPER),
];

const MAINTSCRIPT_HELPER: &[u8] = b"#!/bin/sh
command=$1
[ \"$command\" = supports ] && command=$2
case $command in
rm_conffile | mv_conffile | symlink_to_dir | dir_to_symlink) exit 0 ;;
*) exec /usr/bin/dpkg-maintscript-helper \"$@\" ;;
esac
";

/// What installing did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Files, directories and links unpacked.
    pub entries: u64,
    /// Content of the files, in bytes.
    pub bytes: u64,
}

pub(crate) fn install(
    locked: &Locked,
    files: &[PathBuf],
    root: &Path,
    how: Scripts<'_>,
    step: &Step,
    cancel: &Cancel,
) -> Result<Installed, PackagesError> {
    let root = Root::open(root).map_err(|source| PackagesError::Root { path: root.display().to_string(), source })?;
    let opened = locked.packages.iter().zip(files).map(|(package, path)| Deb::open(path, package));
    let debs: Vec<Deb<'_>> = opened.collect::<Result<_, _>>()?;
    let aliases = merged_usr(&root, locked)?;
    database::create(&root, &locked.architecture)?;

    let mut unpacker = Unpacker {
        root: &root,
        epoch_seconds: locked.epoch_seconds,
        cancel,
        step,
        aliases: &aliases,
        diversions: HashMap::new(),
        claims: Mutex::default(),
        directories: Mutex::default(),
        bytes: AtomicU64::new(0),
        entries: AtomicU64::new(0),
    };
    let all: Vec<usize> = (0..debs.len()).collect();
    // A package that diverts files of others must do so before it is unpacked; dpkg-divert itself must be there by then.
    let diverts = |n: &usize| {
        let preinst = debs[*n].file("preinst").unwrap_or_default();
        matches!(how, Scripts::Run(_))
            && !essential(&debs[*n])
            && memchr::memmem::find(preinst, b"dpkg-divert").is_some()
    };
    let (late, early): (Vec<usize>, Vec<usize>) = all.iter().partition(|n| diverts(n));
    let mut unpacked: BTreeMap<usize, Unpacked> = BTreeMap::new();
    unpack_into(&unpacker, &debs, &early, &mut unpacked)?;

    if let Scripts::Run(runner) = how {
        let mut log = |line: &str| step.log(Stream::Out, line);
        let mut call = |calls: &[scripts::Call]| {
            if cancel.is_cancelled() {
                return Err(PackagesError::Cancelled);
            }
            scripts::run(runner, &debs, calls, locked.epoch_seconds, &mut log)
        };
        write_database(&root, &debs, &unpacked, |_| State::Unpacked)?;
        for (path, text) in HELPERS {
            let written = root.write(path, text, 0o755);
            written.map_err(|source| PackagesError::Root { path: format!("/{path}"), source })?;
        }
        let mut calls = scripts::preinsts(&debs, early.iter().copied());
        if !late.is_empty() {
            for number in &late {
                database::add(&root, &debs[*number], &Unpacked::default())?;
            }
            calls.extend(scripts::preinsts(&debs, late.iter().copied()));
            call(&calls)?;
            calls.clear();
            unpacker.diversions = diversions(&root);
            unpack_into(&unpacker, &debs, &late, &mut unpacked)?;
            write_database(&root, &debs, &unpacked, |_| State::Unpacked)?;
        }
        unpacker.finish_directories()?;
        calls.extend(scripts::postinsts(&debs));
        call(&calls)?;
        for _ in 0..TRIGGER_ROUNDS {
            let pending = scripts::activated(&root, &debs)?;
            if pending.is_empty() {
                break;
            }
            call(&scripts::triggered(&debs, pending))?;
        }
        for (path, _) in HELPERS {
            root.remove(path).map_err(|source| PackagesError::Root { path: format!("/{path}"), source })?;
        }
        let directory = root.remove_directory(scripts::HELPER_DIRECTORY);
        directory.map_err(|source| PackagesError::Root { path: format!("/{}", scripts::HELPER_DIRECTORY), source })?;
        database::write_status(&root, &debs, &unpacked, |_| Some(State::Installed))?;
    } else {
        unpacker.finish_directories()?;
        let state = |n: usize| match debs[n].file("postinst").or(debs[n].file("preinst")) {
            Some(_) => State::Unpacked,
            None => State::Installed,
        };
        write_database(&root, &debs, &unpacked, state)?;
    }
    if cancel.is_cancelled() {
        return Err(PackagesError::Cancelled);
    }
    normalise::normalise(&root, locked.epoch_seconds).map_err(|(path, source)| PackagesError::Root { path, source })?;
    Ok(Installed { entries: unpacker.entries.load(Ordering::Relaxed), bytes: unpacker.bytes.load(Ordering::Relaxed) })
}

fn unpack_into(
    unpacker: &Unpacker<'_>,
    debs: &[Deb<'_>],
    numbers: &[usize],
    unpacked: &mut BTreeMap<usize, Unpacked>,
) -> Result<(), PackagesError> {
    unpacked.extend(unpacker.unpack(debs, numbers)?);
    // A package whose file was taken over no longer lists it.
    let claims = unpacker.claims.lock().unwrap_or_else(|e| e.into_inner());
    for (number, one) in unpacked.iter_mut() {
        let package = &debs[*number].package;
        let taken = |path: &&String| {
            let owner = claims.get(&unpacker.place(path, &package.name));
            owner.is_some_and(|owner| owner != number && debs[*owner].package.name != package.name)
        };
        let lost: Vec<String> = one.list.iter().filter(taken).cloned().collect();
        one.lost.extend(lost);
    }
    Ok(())
}

fn write_database(
    root: &Root,
    debs: &[Deb<'_>],
    unpacked: &BTreeMap<usize, Unpacked>,
    state: impl Fn(usize) -> State,
) -> Result<(), PackagesError> {
    for (number, one) in unpacked {
        database::add(root, &debs[*number], one)?;
    }
    database::write_triggers(root, debs)?;
    database::write_status(root, debs, unpacked, |n| unpacked.contains_key(&n).then(|| state(n)))
}

fn essential(deb: &Deb<'_>) -> bool {
    Stanza(&deb.control).is_yes("Essential")
}

/// Makes the links of merged-/usr that every supported release of the family has, and gives their names.
fn merged_usr(root: &Root, locked: &Locked) -> Result<Vec<&'static str>, PackagesError> {
    let further: &[&str] = match locked.architecture.as_str() {
        "amd64" => &["lib32", "lib64", "libx32"],
        "i386" => &["lib64", "libx32"],
        "mips64el" | "mipsel" => &["lib32", "lib64", "libo32"],
        "s390x" => &["lib32"],
        "ppc64el" | "loong64" => &["lib64"],
        _ => &[],
    };
    let made: Vec<&'static str> =
        ALIASES.into_iter().filter(|a| ["bin", "sbin", "lib"].contains(a) || further.contains(a)).collect();
    let meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime_seconds: locked.epoch_seconds };
    for name in &made {
        let failed = |source| PackagesError::Root { path: format!("/{name}"), source };
        let target = format!("usr/{name}");
        root.directory(&target).map_err(failed)?;
        root.set_directory(&target, &meta).map_err(failed)?;
        match rustix::fs::symlinkat(target.as_str(), root.fd(), *name) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(failed(e.into())),
        }
    }
    Ok(made)
}

/// `diversions`: three lines each: the path, where it goes, and the package that keeps the path (`:` for none).
fn diversions(root: &Root) -> HashMap<String, (String, String)> {
    let text = root.read("var/lib/dpkg/diversions").unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let plain = |path: &str| path.trim_start_matches('/').to_string();
    lines.chunks_exact(3).map(|c| (plain(c[0]), (plain(c[1]), c[2].to_string()))).collect()
}
