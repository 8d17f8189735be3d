//! Cgroups of a container on hosts of version 1, version 2, or both at once: every hierarchy that is mounted has a
//! directory for it; limits go where the controller is, freezing and killing where it is best.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ctk_runtime::{Hierarchy, is_ordinary};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::limits::{CGROUP_REMOVAL, FREEZE};
use crate::plan::HostCgroups;
use crate::resources::{self, Instruction, Setting};
use crate::spec::{Resources, Spec};
use crate::{Error, options};

/// A container's directory in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// The name of the hierarchy's directory.
    pub name: String,
    /// Its version 1 controllers; empty for version 2.
    pub controllers: Vec<String>,
    /// The directory.
    pub path: PathBuf,
}

/// All of a container's cgroups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cgroups {
    /// One for each hierarchy.
    pub directories: Vec<Directory>,
}

/// What a process needs to be born in them.
pub struct Membership {
    /// The version 2 directory.
    pub unified: Option<OwnedFd>,
    /// `tasks` of the others. A thread that writes `0` there moves itself, and the kernel need not hold up every fork and
    /// exit of the machine for it, as it must for a whole process in `cgroup.procs`: that takes until each processor has
    /// passed a quiescent state, some 15 ms. The writer has one thread only, so it is the same.
    pub legacy: Vec<OwnedFd>,
}

/// The hierarchies of this machine.
pub fn hierarchies() -> Vec<Hierarchy> {
    Hierarchy::read().unwrap_or_default()
}

/// What a plan has to know of them.
pub fn describe(hierarchies: &[Hierarchy]) -> HostCgroups {
    if hierarchies.iter().all(|h| h.controllers.is_empty()) {
        return HostCgroups::Unified;
    }
    let names: Vec<String> = hierarchies.iter().map(Hierarchy::name).collect();
    let mut links = Vec::new();
    for hierarchy in hierarchies.iter().filter(|h| h.controllers.len() > 1) {
        let name = hierarchy.name();
        links.extend(hierarchy.controllers.iter().filter(|c| **c != name).map(|c| (c.clone(), name.clone())));
    }
    HostCgroups::Legacy { names, links }
}

fn failed(path: impl Into<PathBuf>, field: &str) -> impl FnOnce(io::Error) -> Error {
    let (path, field) = (path.into(), field.to_owned());
    move |source| Error::Cgroup { path, field, source }
}

impl Cgroups {
    /// Where the directories will be. `path` is `linux.cgroupsPath`: absolute below each hierarchy's root, relative below
    /// our own cgroup, with version 2 beside it. Who is not root has no right to those: his are below what was delegated to him, where anything
    /// was.
    pub fn place(hierarchies: &[Hierarchy], path: Option<&str>, id: &str) -> Result<Cgroups, Error> {
        let owns = |path: &Path| Hierarchy::is_writable(path);
        Cgroups::place_for(hierarchies, path, id, is_ordinary().then_some(&owns))
    }

    /// The directories of a path below every hierarchy's root, where systemd has made those that it knows of.
    pub fn at(hierarchies: &[Hierarchy], path: &Path) -> Cgroups {
        let of = |hierarchy: &Hierarchy| Directory {
            name: hierarchy.name(),
            controllers: hierarchy.controllers.clone(),
            path: hierarchy.mount.join(path),
        };
        Cgroups { directories: hierarchies.iter().map(of).collect() }
    }

    fn place_for(
        hierarchies: &[Hierarchy],
        path: Option<&str>,
        id: &str,
        owns: Option<&dyn Fn(&Path) -> bool>,
    ) -> Result<Cgroups, Error> {
        let field = "linux.cgroupsPath";
        let path = path.filter(|path| !path.is_empty()).unwrap_or(id);
        if path.split('/').any(|part| part == "..") {
            return Err(Error::config(field, "leads upwards"));
        }
        if path.contains(':') && !path.contains('/') {
            let reason = "is one for systemd: give --systemd-cgroup, or write a path; of callers, choose \
                          `--cgroup-manager cgroupfs` (podman), `native.cgroupdriver=cgroupfs` (docker)";
            return Err(Error::config(field, format!("`{path}` {reason}")));
        }
        let mut cgroups = Cgroups::default();
        for hierarchy in hierarchies {
            let own = hierarchy.mount.join(&hierarchy.own);
            let delegated = owns.and_then(|owns| hierarchy.delegated(owns));
            let below = path.trim_matches('/');
            let directory = match (path.starts_with('/'), delegated) {
                (true, Some(base)) => {
                    let there = hierarchy.mount.join(below);
                    if there.starts_with(&base) { there } else { base.join(below) }
                }
                (false, Some(base)) => base.join(below),
                (absolute, None) => {
                    // Where processes are, version 2 gives no controllers to cgroups below: so beside our own.
                    let base = match own.parent().filter(|_| hierarchy.is_version_2() && own != hierarchy.mount) {
                        Some(above) => above,
                        None => &own,
                    };
                    let there = if absolute { hierarchy.mount.join(below) } else { base.join(below) };
                    // With version 1, another place that is his does as well.
                    let his =
                        |owns: &dyn Fn(&Path) -> bool| !hierarchy.is_version_2() && existing(&there).is_some_and(owns);
                    if owns.is_some_and(|owns| !his(owns)) {
                        continue;
                    }
                    there
                }
            };
            let (name, controllers) = (hierarchy.name(), hierarchy.controllers.clone());
            cgroups.directories.push(Directory { name, controllers, path: directory });
        }
        Ok(cgroups)
    }

    /// Makes the directories. Who makes them has written down before where they are: if he is killed, others find them.
    pub fn make(&mut self, hierarchies: &[Hierarchy]) -> Result<(), Error> {
        let mut made = Vec::with_capacity(self.directories.len());
        for directory in self.directories.drain(..) {
            let Some(hierarchy) = hierarchies.iter().find(|h| h.controllers == directory.controllers) else { continue };
            if hierarchy.is_version_2() {
                offer_controllers(&hierarchy.mount, &directory.path);
            }
            let result = match fs::create_dir(&directory.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(&directory.path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            };
            if let Err(error) = result {
                // An ordinary user has the hierarchies that somebody gave him, and no others; a limit that needs one of
                // those is an error of its own.
                let denied =
                    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem);
                if denied && is_ordinary() {
                    continue;
                }
                Cgroups { directories: made }.remove();
                return Err(failed(directory.path, "linux.cgroupsPath")(error));
            }
            if directory.controllers.iter().any(|c| c == "cpuset") {
                inherit_cpuset(&hierarchy.mount, &directory.path);
            }
            made.push(directory);
        }
        self.directories = made;
        Ok(())
    }

    /// Its directory of version 2.
    pub fn unified(&self) -> Option<&Directory> {
        self.directories.iter().find(|directory| directory.controllers.is_empty())
    }

    /// The directory of a version 1 controller.
    pub fn legacy(&self, controller: &str) -> Option<&Path> {
        let has = |directory: &&Directory| directory.controllers.iter().any(|c| c == controller);
        self.directories.iter().find(has).map(|directory| directory.path.as_path())
    }

    /// The version 2 directory, if the controller is there.
    pub fn unified_with(&self, controller: &str) -> Option<&Path> {
        let directory = self.unified()?;
        let offered = fs::read_to_string(directory.path.join("cgroup.controllers")).unwrap_or_default();
        offered.split_whitespace().any(|word| word == controller).then_some(directory.path.as_path())
    }

    /// Writes limits. What is refused is tried once more after the others: one may have been in the way of another.
    pub fn apply(&self, resources: &Resources) -> Result<(), Error> {
        self.check_memory(resources)?;
        let missing = resources::only_in_version_1(resources).into_iter().find(|(one, _)| self.legacy(one).is_none());
        if let Some((controller, field)) = missing {
            return Err(Error::Unsupported {
                what: format!("linux.resources.{field}"),
                reason: format!("only cgroup version 1 has it, and `{controller}` is not of that here; leave it out"),
            });
        }
        let mut wanted: Vec<(PathBuf, Setting)> = Vec::new();
        let mut only_legacy = None;
        for setting in resources::version_1(resources) {
            match self.legacy(setting.controller) {
                Some(directory) => wanted.push((directory.to_owned(), setting)),
                // Controllers that version 2 does not have.
                None if matches!(setting.controller, "net_cls" | "net_prio") => {
                    only_legacy.get_or_insert(setting);
                }
                None => {}
            }
        }
        let (unified, only) = match self.unified() {
            None => (None, false),
            Some(directory) => (Some(&directory.path), self.directories.len() == 1),
        };
        let second = match resources::version_2(resources) {
            Ok(settings) => settings,
            // What version 2 cannot express counts only where it is version 2 that is asked.
            Err(error) if only => return Err(error),
            Err(_) => Vec::new(),
        };
        let mut missing = None;
        for setting in second {
            if self.legacy(setting.controller).is_some() || setting.controller == "io" && self.legacy("blkio").is_some()
            {
                if setting.field.starts_with("linux.resources.unified") {
                    missing.get_or_insert(setting);
                }
                continue;
            }
            let there = setting.controller.is_empty() || self.unified_with(setting.controller).is_some();
            match unified.filter(|_| there) {
                Some(directory) => wanted.push((directory.clone(), setting)),
                None if setting.optional || setting.value == "max" => {}
                None => drop(missing.get_or_insert(setting)),
            }
        }
        if let Some(setting) = missing.or(only_legacy) {
            let reason = match (setting.field.contains("unified"), is_ordinary()) {
                (true, _) => "the controller is of cgroup version 1 on this machine",
                (false, false) => "no cgroup hierarchy of this machine has the controller here",
                (false, true) => {
                    "no cgroup with the controller was delegated to this user; root can give one away, which systemd does \
                     with `Delegate=yes`"
                }
            };
            return Err(Error::Unsupported {
                what: format!("{} ({})", setting.field, setting.controller),
                reason: reason.into(),
            });
        }
        let mut again = Vec::new();
        for (directory, setting) in wanted {
            if write(&directory, &setting).is_err() {
                again.push((directory, setting));
            }
        }
        for (directory, setting) in again {
            write(&directory, &setting).map_err(failed(directory.join(&setting.file), &setting.field))?;
        }
        Ok(())
    }

    /// Gives the version 2 cgroup to a user: the directory and the files that the kernel says are for whom it was delegated
    /// to. Who is not root himself gives what he may.
    pub fn give(&self, uid: u32) -> Result<(), Error> {
        let Some(directory) = self.unified() else { return Ok(()) };
        let known = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_default();
        let usual = "cgroup.procs cgroup.subtree_control cgroup.threads";
        let names = if known.is_empty() { usual } else { &known };
        let own = std::iter::once(directory.path.clone());
        for path in own.chain(names.split_whitespace().map(|name| directory.path.join(name))) {
            match std::os::unix::fs::chown(&path, Some(uid), None) {
                // Those of a controller that is not here.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_ordinary() => return Ok(()),
                result => result.map_err(failed(path, "linux.namespaces"))?,
            }
        }
        Ok(())
    }

    /// Refuses a limit of memory below what is in use, for who asks that it be looked at first.
    fn check_memory(&self, resources: &Resources) -> Result<(), Error> {
        let memory = resources.memory.as_ref().filter(|memory| memory.check_before_update == Some(true));
        let Some(limit) = memory.and_then(|memory| memory.limit).and_then(|limit| u64::try_from(limit).ok()) else {
            return Ok(());
        };
        let file = match (self.legacy("memory"), self.unified_with("memory")) {
            (Some(directory), _) => directory.join("memory.usage_in_bytes"),
            (None, Some(directory)) => directory.join("memory.current"),
            (None, None) => return Ok(()),
        };
        let used = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u64>().ok());
        match used.filter(|used| limit > 0 && *used > limit) {
            Some(used) => {
                let reason =
                    format!("{limit} bytes are less than the {used} in use, and checkBeforeUpdate asks to look");
                Err(Error::config("linux.resources.memory.limit", reason))
            }
            None => Ok(()),
        }
    }

    /// Sets which devices may be used.
    pub fn allow_devices(&self, rules: &[resources::Rule]) -> Result<(), Error> {
        let field = "linux.resources.devices";
        if let Some(directory) = self.legacy("devices") {
            let mut values = resources::device_files(rules);
            values.dedup();
            // A value is a write of its own; who is opened once may be written to as often as one likes.
            for values in values.chunk_by(|one, next| one.0 == next.0) {
                let [(file, _), ..] = values else { continue };
                let path = directory.join(file);
                let mut file = fs::File::options().write(true).open(&path).map_err(failed(&path, field))?;
                for (_, value) in values {
                    file.write_all(value.as_bytes()).map_err(failed(&path, field))?;
                }
            }
            return Ok(());
        }
        let Some(directory) = self.unified() else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&directory.path, flags, Mode::empty())
            .map_err(|e| failed(&directory.path, field)(e.into()))?;
        let program: Vec<[u8; 8]> = resources::device_program(rules).iter().map(encode).collect();
        match ctk_sys::attach_device_program(file.as_fd(), &program) {
            Ok(()) => Ok(()),
            // In a user namespace nobody may; there nobody makes devices either.
            Err(rustix::io::Errno::PERM) if is_ordinary() => Ok(()),
            Err(errno) => Err(failed(&directory.path, field)(errno.into())),
        }
    }

    /// Goes down to cgroups that the container made below its own: `PATH` in every hierarchy, `CONTROLLER:PATH` in the one
    /// that has the controller (an empty name is version 2).
    pub fn descend(&mut self, below: &str) -> Result<(), Error> {
        let wrong = |reason: String| Err(Error::Unsupported { what: format!("--cgroup `{below}`"), reason });
        let (controller, path) = match below.split_once(':') {
            Some((controller, path)) => (Some(controller), path),
            None => (None, below),
        };
        if path.split('/').any(|part| part == "..") {
            return wrong("leads upwards; give a cgroup below the container's".into());
        }
        let mut found = false;
        for directory in &mut self.directories {
            let chosen = match controller {
                None => true,
                Some("") => directory.controllers.is_empty(),
                Some(name) => directory.name == name || directory.controllers.iter().any(|c| c == name),
            };
            if !chosen {
                continue;
            }
            found = true;
            let path = path.trim_matches('/');
            if !path.is_empty() {
                directory.path.push(path);
            }
            if !directory.path.is_dir() {
                let of = directory.path.display();
                return wrong(format!("`{of}` is not there; make it, or name the controller: CONTROLLER:PATH"));
            }
        }
        if found { Ok(()) } else { wrong("no cgroup hierarchy of the container has the controller".into()) }
    }

    /// Where the version 2 cgroup takes no processes, because the container has divided it: goes down to the one that
    /// its first process is in.
    pub fn follow(&mut self, pid: i32) {
        let Some(directory) = self.directories.iter_mut().find(|directory| directory.controllers.is_empty()) else {
            return;
        };
        let divided = fs::read_to_string(directory.path.join("cgroup.subtree_control")).unwrap_or_default();
        if divided.trim().is_empty() {
            return;
        }
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
        let hierarchies = hierarchies();
        let mount = hierarchies.iter().find(|hierarchy| hierarchy.is_version_2()).map(|hierarchy| &hierarchy.mount);
        if let (Some(own), Some(mount)) = (own, mount)
            && let path = mount.join(own)
            && path.starts_with(&directory.path)
        {
            directory.path = path;
        }
    }

    /// Opens what a process needs to join.
    pub fn membership(&self) -> Result<Membership, Error> {
        let mut membership = Membership { unified: None, legacy: Vec::new() };
        for directory in &self.directories {
            if directory.controllers.is_empty() {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let file = rustix::fs::open(&directory.path, flags, Mode::empty());
                membership.unified = Some(file.map_err(|e| failed(&directory.path, "")(e.into()))?);
                continue;
            }
            let path = directory.path.join("tasks");
            let file = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            membership.legacy.push(file.map_err(|e| failed(path, "")(e.into()))?);
        }
        Ok(membership)
    }

    /// Processes in it, and in cgroups below it.
    pub fn pids(&self) -> Vec<i32> {
        // The hierarchy in which a container makes the fewest cgroups of its own is as good as any: all have all.
        let Some(directory) = self.unified().or(self.directories.first()) else { return Vec::new() };
        let mut pids = Vec::new();
        each_below(&directory.path, &mut |path| {
            let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        });
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Sends a signal to every process in it.
    pub fn signal(&self, signal: i32) {
        if signal == libc::SIGKILL
            && let Some(directory) = self.unified()
            && fs::write(directory.path.join("cgroup.kill"), "1").is_ok()
            && self.directories.len() == 1
        {
            return;
        }
        let Some(signal) = Signal::from_named_raw(signal) else { return };
        for pid in self.pids().into_iter().filter_map(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Stops all processes where they are, or lets them go on.
    pub fn freeze(&self, frozen: bool) -> Result<(), Error> {
        let (file, value, state) = match (self.legacy("freezer"), self.unified()) {
            (Some(directory), _) => {
                let value = if frozen { "FROZEN" } else { "THAWED" };
                (directory.join("freezer.state"), value, value.to_owned())
            }
            (None, Some(directory)) => {
                let value = if frozen { "1" } else { "0" };
                (directory.path.join("cgroup.freeze"), value, format!("frozen {value}"))
            }
            (None, None) => {
                let reason = "no cgroup hierarchy with a freezer is mounted".into();
                return Err(Error::Unsupported { what: "pausing".into(), reason });
            }
        };
        let deadline = Instant::now() + FREEZE;
        loop {
            fs::write(&file, value).map_err(failed(&file, ""))?;
            let read = match self.legacy("freezer") {
                Some(_) => fs::read_to_string(&file).unwrap_or_default().trim() == state,
                None => {
                    let events = file.with_file_name("cgroup.events");
                    fs::read_to_string(events).unwrap_or_default().lines().any(|line| line == state)
                }
            };
            if read {
                return Ok(());
            }
            if Instant::now() > deadline {
                if frozen {
                    let _ = fs::write(&file, if state == "FROZEN" { "THAWED" } else { "0" });
                }
                return Err(failed(&file, "")(io::ErrorKind::TimedOut.into()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The directory that freezes.
    pub fn freezer(&self) -> Option<&Path> {
        self.legacy("freezer").or_else(|| Some(self.unified()?.path.as_path()))
    }

    /// Whether its processes are stopped.
    pub fn is_frozen(&self) -> bool {
        if let Some(directory) = self.legacy("freezer") {
            let state = fs::read_to_string(directory.join("freezer.state")).unwrap_or_default();
            return matches!(state.trim(), "FROZEN" | "FREEZING");
        }
        let Some(directory) = self.unified() else { return false };
        fs::read_to_string(directory.path.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
    }

    /// How many processes the kernel killed here for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let file = match (self.legacy("memory"), self.unified()) {
            (Some(directory), _) => directory.join("memory.oom_control"),
            (None, Some(directory)) => directory.path.join("memory.events"),
            (None, None) => return 0,
        };
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// Removes all of it, with what the container made below, killing what is still there. Gives up after
    /// [`CGROUP_REMOVAL`].
    pub fn remove(&self) -> bool {
        let deadline = Instant::now() + CGROUP_REMOVAL;
        let mut pause = Duration::from_micros(50);
        let mut killed = false;
        loop {
            let mut left = false;
            for directory in &self.directories {
                match fs::remove_dir(&directory.path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(_) => {
                        remove_below(&directory.path);
                        left |= directory.path.exists();
                    }
                }
            }
            if !left || Instant::now() > deadline {
                return !left;
            }
            if !killed || pause > Duration::from_millis(10) {
                self.signal(libc::SIGKILL);
                killed = true;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

/// Why an ordinary user's processes do not get from his version 2 cgroup into another one, and what helps: he needs
/// rights on the nearest cgroup that both are in (`cgroup-v2.rst`, delegation containment).
pub(crate) fn no_way_to(cgroup: &Path) -> String {
    let hierarchies = hierarchies();
    let Some(hierarchy) = hierarchies.iter().find(|hierarchy| hierarchy.is_version_2()) else { return String::new() };
    let own = hierarchy.mount.join(&hierarchy.own);
    let common = common(&own, cgroup);
    format!(
        ": this process is in `{}`, and `{}/cgroup.procs`, which is above both, is not this user's; start it from where the \
         container was started, or below what was delegated (`systemd-run --user --scope …`)",
        own.display(),
        common.display()
    )
}

/// Why a version 2 cgroup takes no processes (`cgroups(7)`, "no internal processes" and "threaded"), and what helps; as
/// it follows the cgroup's name.
pub(crate) fn takes_nobody(cgroup: &Path, errno: rustix::io::Errno) -> String {
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).unwrap_or_default().trim().to_owned();
    match errno {
        rustix::io::Errno::BUSY => format!(
            "which gives controllers ({}) to cgroups below it and takes no processes itself: name one that is not there \
             yet, or has none below",
            read("cgroup.subtree_control")
        ),
        _ => format!(
            "which takes no processes: it is `{}`, as everything is that is below a threaded cgroup: name one elsewhere",
            read("cgroup.type")
        ),
    }
}

fn common(one: &Path, other: &Path) -> PathBuf {
    let parts = one.components().zip(other.components());
    parts.take_while(|(one, other)| one == other).map(|(part, _)| part).collect()
}

/// The user of the machine who is the process's in the container and gets its version 2 cgroup, where he could use it: in
/// a cgroup namespace of its own, with its files mounted writable (`config-linux.md#cgroup-ownership`).
pub(crate) fn owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux.as_ref()?;
    let is_new = |kind: &str| {
        linux.namespaces.iter().any(|one| one.kind == kind && one.path.as_deref().unwrap_or_default().is_empty())
    };
    let mount = spec.mounts.iter().rev().find(|mount| mount.destination.trim_end_matches('/') == "/sys/fs/cgroup")?;
    let options = options::parse(&mount.options);
    let writable = matches!(mount.kind.as_deref(), Some("cgroup" | "cgroup2"))
        && (options.set | options.set_all) & options::READ_ONLY == 0;
    let inside = spec.process.as_ref().map_or(0, |process| process.user.uid);
    let host = match is_new("user") {
        false => Some(inside),
        true => linux.uid_mappings.iter().find_map(|mapping| {
            let offset = inside.checked_sub(mapping.container_id).filter(|offset| *offset < mapping.size)?;
            mapping.host_id.checked_add(offset)
        }),
    };
    // Root's it is already.
    host.filter(|host| writable && is_new("cgroup") && *host != 0)
}

/// The part of a path that is there.
fn existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|path| path.exists())
}

fn encode(instruction: &Instruction) -> [u8; 8] {
    let [o0, o1] = instruction.offset.to_ne_bytes();
    let [i0, i1, i2, i3] = instruction.immediate.to_ne_bytes();
    [instruction.code, instruction.registers, o0, o1, i0, i1, i2, i3]
}

/// Writes one setting; of several names of a file, the first that exists.
fn write(directory: &Path, setting: &Setting) -> io::Result<()> {
    let names: Vec<&str> = setting.file.split('|').collect();
    let values: Vec<&str> = setting.value.split('|').collect();
    let found = names.iter().position(|name| directory.join(name).exists());
    let index = match found {
        Some(index) => index,
        None if setting.optional => return Ok(()),
        None => 0,
    };
    let (Some(name), Some(value)) = (names.get(index), values.get(index).or(values.last())) else { return Ok(()) };
    fs::write(directory.join(name), value)
}

/// Offers every controller down to the parent of `directory`. What is refused shows when a limit is written.
fn offer_controllers(root: &Path, directory: &Path) {
    let Ok(below) = directory.strip_prefix(root) else { return };
    let mut path = root.to_owned();
    let parts: Vec<_> = below.components().collect();
    for (index, part) in parts.iter().enumerate() {
        // With processes in it, some could be offered, and what is below would take no processes.
        let has_processes = index > 0 && !fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().is_empty();
        let offered = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
        let given = fs::read_to_string(path.join("cgroup.subtree_control")).unwrap_or_default();
        for controller in
            offered.split_whitespace().filter(|c| !has_processes && !given.split_whitespace().any(|g| g == *c))
        {
            let _ = fs::write(path.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        path.push(part);
        if index + 1 < parts.len() {
            let _ = fs::create_dir(&path);
        }
    }
}

/// A cpuset of version 1 takes processes only when it has processors and memory: those of the one above.
fn inherit_cpuset(root: &Path, directory: &Path) {
    let Ok(below) = directory.strip_prefix(root) else { return };
    let mut path = root.to_owned();
    for part in below.components() {
        let above = path.clone();
        path.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = fs::read_to_string(path.join(file)).unwrap_or_default();
            if own.trim().is_empty()
                && let Ok(value) = fs::read_to_string(above.join(file))
            {
                let _ = fs::write(path.join(file), value.trim());
            }
        }
    }
}

fn each_below(path: &Path, visit: &mut dyn FnMut(&Path)) {
    visit(path);
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            each_below(&entry.path(), visit);
        }
    }
}

fn remove_below(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// A small file of the kernel's.
pub(crate) fn read_limited(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_given_to_whom_could_use_it() {
        let check = |namespaces: &str, options: &str, uid: u32, expected: Option<u32>| {
            let text = format!(
                r#"{{"ociVersion":"1.2.0","process":{{"user":{{"uid":{uid}}}}},
                "mounts":[{{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["{options}"]}}],
                "linux":{{"namespaces":[{namespaces}],"uidMappings":[{{"containerID":0,"hostID":1000,"size":1}},
                {{"containerID":1,"hostID":100000,"size":10}}]}}}}"#
            );
            assert_eq!(owner(&crate::spec::read(&text).unwrap()), expected, "{text}");
        };
        let (both, alone) = (r#"{"type":"cgroup"},{"type":"user"}"#, r#"{"type":"cgroup"}"#);
        check(both, "rw", 0, Some(1000));
        check(both, "rw", 5, Some(100_004));
        check(both, "rw", 11, None);
        check(both, "ro", 0, None);
        check(alone, "rw", 7, Some(7));
        check(alone, "rw", 0, None);
        check(r#"{"type":"user"}"#, "rw", 0, None);
        check(r#"{"type":"cgroup","path":"/proc/1/ns/cgroup"},{"type":"user"}"#, "rw", 0, None);
    }

    #[test]
    fn what_two_cgroups_have_in_common() {
        let check = |one: &str, other: &str, expected: &str| {
            assert_eq!(common(Path::new(one), Path::new(other)), Path::new(expected));
        };
        check("/c/user/shell", "/c/user/pod/box", "/c/user");
        check("/c/ab", "/c/a", "/c");
        check("/c", "/c/a", "/c");
    }

    #[test]
    fn an_ordinary_users_cgroups_are_below_what_is_his() {
        let of_mounts = "33 30 0:29 / /c rw - cgroup2 c rw\n";
        let found = Hierarchy::parse(of_mounts, "0::/user/me/shell\n");
        let mine = |path: &Path| path.starts_with("/c/user/me");
        let place = |path: Option<&str>, owns: Option<&dyn Fn(&Path) -> bool>| {
            let placed = Cgroups::place_for(&found, path, "box", owns).unwrap();
            placed.directories.first().map(|directory| directory.path.clone()).unwrap_or_default()
        };
        assert_eq!(place(None, Some(&mine)), Path::new("/c/user/me/box"));
        assert_eq!(place(Some("/pods/box"), Some(&mine)), Path::new("/c/user/me/pods/box"));
        assert_eq!(place(Some("/user/me/pods"), Some(&mine)), Path::new("/c/user/me/pods"));
        assert_eq!(place(Some("pods"), Some(&|_| false)), Path::new(""));
        assert_eq!(place(Some("/pods"), None), Path::new("/c/pods"));
        assert_eq!(place(Some("pods"), None), Path::new("/c/user/me/pods"));
    }

    #[test]
    fn hybrid_hosts_have_all() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      31 30 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n\
                      34 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                      33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let own = "5:name=systemd:/\n4:memory:/work/a\n3:cpu,cpuacct:/\n0::/me\n";
        let found = Hierarchy::parse(mounts, own);
        let seen: Vec<_> =
            found.iter().map(|h| (h.name(), h.own.display().to_string(), h.controllers.join(","))).collect();
        let expected = [
            ("memory", "work/a", "memory"),
            ("cpu,cpuacct", "", "cpu,cpuacct"),
            ("systemd", "", "name=systemd"),
            ("unified", "me", ""),
        ];
        assert_eq!(seen, expected.map(|(a, b, c)| (a.to_string(), b.to_string(), c.to_string())));
        let HostCgroups::Legacy { names, links } = describe(&found) else { panic!("version 1 is there") };
        assert_eq!(names, ["memory", "cpu,cpuacct", "systemd", "unified"]);
        assert_eq!(links, [("cpu".into(), "cpu,cpuacct".into()), ("cpuacct".into(), "cpu,cpuacct".to_string())]);
        let only = Hierarchy::parse("33 30 0:29 / /sys/fs/cgroup rw - cgroup2 c rw\n", "0::/\n");
        assert_eq!(describe(&only), HostCgroups::Unified);
    }
}
