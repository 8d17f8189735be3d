//! Cgroups of a container: version 2, version 1, or both at once (hybrid: v1 controllers for limits where they are
//! mounted, v2 for starting into and killing).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat};

use crate::limits::{CGROUP_REMOVAL, CPU_PERIOD_MICROS};
use crate::{Error, Limits, is_ordinary};

/// The controllers we use, by their name in `/proc/self/cgroup`.
const MEMORY: &str = "memory";
const CPU: &str = "cpu";
const PIDS: &str = "pids";
const CPUSET: &str = "cpuset";

/// What to do where an ordinary user has no cgroups.
const NOT_DELEGATED: &str = "no cgroup with its controller was delegated to this user; root can give one away (systemd \
                             does with `Delegate=yes`: `systemd-run --user --scope -p Delegate=yes ctk …`)";

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where its root is mounted.
    pub mount: PathBuf,
    /// Its v1 controllers; empty for v2.
    pub controllers: Vec<String>,
    /// Our own cgroup in it, relative to the mount.
    pub own: PathBuf,
}

impl Hierarchy {
    /// What its mount point is called.
    pub fn name(&self) -> String {
        self.mount.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether it is the one of version 2.
    pub fn is_version_2(&self) -> bool {
        self.controllers.is_empty()
    }

    /// From now on our own cgroup is the one that was delegated to us; whether there is one.
    fn descend_to_delegated(&mut self) -> bool {
        let found = self.delegated(&Hierarchy::is_writable);
        let below = found.and_then(|path| path.strip_prefix(&self.mount).ok().map(Path::to_owned));
        self.own = below.clone().unwrap_or_default();
        below.is_some()
    }

    /// Whether an ordinary user may make cgroups in this one and move processes into it.
    pub fn is_writable(cgroup: &Path) -> bool {
        let writes = |path: &Path| accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
        writes(cgroup) && writes(&cgroup.join("cgroup.procs"))
    }

    /// The topmost cgroup, of our own and those above it, that `owns` says is the user's: what was delegated to him.
    /// Processes may be moved everywhere below it (version 2 wants rights on what both places have in common).
    pub fn delegated(&self, owns: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
        let own = self.mount.join(&self.own);
        own.ancestors().take_while(|path| path.starts_with(&self.mount) && owns(path)).last().map(Path::to_owned)
    }

    /// Those of this machine.
    pub fn read() -> io::Result<Vec<Hierarchy>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        Ok(Hierarchy::parse(&mounts, &own))
    }

    /// From `/proc/self/mountinfo` and `/proc/self/cgroup`.
    pub fn parse(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
        let mut found: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            let (Some(mount_root), Some(mount)) = (left.next(), left.next()) else { continue };
            let mut right = right.split(' ');
            let version = match right.next() {
                Some("cgroup") => 1,
                Some("cgroup2") => 2,
                _ => continue,
            };
            let options: Vec<&str> = right.nth(1).unwrap_or("").split(',').collect();
            let membership = own.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let (controllers, path) = (fields.next()?, fields.next()?);
                let controllers: Vec<&str> = controllers.split(',').filter(|c| !c.is_empty()).collect();
                let ours = match version {
                    2 => controllers.is_empty(),
                    _ => !controllers.is_empty() && controllers.iter().all(|c| options.contains(c)),
                };
                ours.then_some((controllers, path))
            });
            let Some((controllers, path)) = membership else { continue };
            let path = path.strip_prefix(mount_root.trim_end_matches('/')).unwrap_or(path);
            let controllers: Vec<String> = controllers.into_iter().map(String::from).collect();
            // Mounted twice: the first is as good.
            if found.iter().any(|h| h.controllers == controllers) {
                continue;
            }
            found.push(Hierarchy { mount: mount.into(), controllers, own: path.trim_start_matches('/').into() });
        }
        found
    }
}

/// The cgroups of one container.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    /// The v2 directory.
    unified: Option<PathBuf>,
    /// v1 directories.
    legacy: Vec<PathBuf>,
    /// Whether the v2 directory has limits that were asked for.
    limits_by_unified: bool,
    /// The file that counts kills for want of memory.
    oom: Option<PathBuf>,
}

/// What a child needs to be born in the cgroups.
pub(crate) struct Membership {
    /// The v2 directory.
    pub(crate) unified: Option<OwnedFd>,
    /// `tasks` of v1 directories, for the child to write `0` to: a thread that moves itself holds up nobody, while a
    /// process in `cgroup.procs` waits until each processor has passed a quiescent state, some 15 ms.
    pub(crate) legacy: Vec<OwnedFd>,
    /// Whether a process outside of the v2 directory would be without limits that were asked for.
    pub(crate) limits_by_unified: bool,
}

impl Cgroups {
    /// Makes the cgroups. Without limits it is content with none.
    pub(crate) fn create(id: &str, parent: Option<&str>, limits: &Limits) -> Result<Cgroups, Error> {
        let mut hierarchies = Hierarchy::read().unwrap_or_default();
        let ordinary = is_ordinary();
        if ordinary {
            hierarchies.retain_mut(|hierarchy| hierarchy.descend_to_delegated());
        }
        let mut cgroups = Cgroups::default();
        let result = cgroups.fill(&hierarchies, id, parent, limits).map_err(|error| match error {
            Error::Limit { what, .. } if ordinary => Error::Limit { what, reason: NOT_DELEGATED.into() },
            other => other,
        });
        if result.is_err() {
            cgroups.remove();
        }
        result.map(|()| cgroups)
    }

    fn fill(
        &mut self,
        hierarchies: &[Hierarchy],
        id: &str,
        parent: Option<&str>,
        limits: &Limits,
    ) -> Result<(), Error> {
        let v1 = |controller: &str| hierarchies.iter().find(|h| h.controllers.iter().any(|c| c == controller));
        let v2 = hierarchies.iter().find(|h| h.controllers.is_empty());
        let name = format!("ctk-{id}");
        let mut wanted_of_v2 = Vec::new();
        let memory = limits.memory_bytes.is_some() || limits.memory_swap_bytes.is_some();
        let cpuset = limits.cpuset_cpus.is_some() || limits.cpuset_mems.is_some();
        let cpu = limits.cpu_shares.is_some() || bandwidth(limits).is_some();
        for (controller, asked) in [(MEMORY, memory), (CPU, cpu), (CPUSET, cpuset), (PIDS, limits.pids.is_some())] {
            match (asked, v1(controller)) {
                (false, _) => {}
                (true, None) => wanted_of_v2.push(controller),
                (true, Some(hierarchy)) => {
                    let directory = base(hierarchy, parent).join(&name);
                    if !self.legacy.contains(&directory) {
                        make(&directory)?;
                        self.legacy.push(directory.clone());
                    }
                    limit_v1(&directory, controller, limits)?;
                    if controller == MEMORY {
                        self.oom = Some(directory.join("memory.oom_control"));
                    }
                }
            }
        }
        match (v2, wanted_of_v2.first()) {
            (None, None) => Ok(()),
            (None, Some(controller)) => Err(unavailable(controller, "no cgroup hierarchy with it is mounted")),
            // Only for killing: nice to have.
            (Some(hierarchy), None) => {
                let directory = base(hierarchy, parent).join(&name);
                if make(&directory).is_ok() {
                    self.unified = Some(directory);
                }
                Ok(())
            }
            (Some(hierarchy), Some(_)) => {
                let directory = enable(&base(hierarchy, parent), &hierarchy.mount, &wanted_of_v2)?.join(&name);
                make(&directory)?;
                self.limits_by_unified = true;
                self.unified = Some(directory.clone());
                for controller in wanted_of_v2 {
                    limit_v2(&directory, controller, limits)?;
                    if controller == MEMORY {
                        self.oom = Some(directory.join("memory.events"));
                    }
                }
                Ok(())
            }
        }
    }

    /// Cgroups of a container that was written down.
    pub(crate) fn adopt(paths: Vec<PathBuf>) -> Cgroups {
        let (unified, legacy): (Vec<_>, Vec<_>) = paths.into_iter().partition(|p| p.join("cgroup.kill").exists());
        let mut unified = unified.into_iter();
        let first = unified.next();
        Cgroups { unified: first, legacy: unified.chain(legacy).collect(), ..Cgroups::default() }
    }

    /// All directories, for writing down.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.unified.iter().chain(&self.legacy).cloned().collect()
    }

    /// Opens what a child needs to join.
    pub(crate) fn membership(&self) -> Result<Membership, Error> {
        let failed = |path: &Path, e: rustix::io::Errno| Error::SetUpCgroup { path: path.into(), source: e.into() };
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let unified = match &self.unified {
            Some(path) => Some(rustix::fs::open(path, directory, Mode::empty()).map_err(|e| failed(path, e))?),
            None => None,
        };
        let mut legacy = Vec::new();
        for path in &self.legacy {
            let tasks = path.join("tasks");
            let file = rustix::fs::open(&tasks, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            legacy.push(file.map_err(|e| failed(&tasks, e))?);
        }
        Ok(Membership { unified, legacy, limits_by_unified: self.limits_by_unified })
    }

    /// How many processes the kernel killed here for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let text = self.oom.as_ref().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// Kills all members.
    pub(crate) fn kill(&self) {
        if let Some(path) = &self.unified {
            let _ = fs::write(path.join("cgroup.kill"), "1");
        }
        for path in &self.legacy {
            let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            for pid in text.lines().filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?)) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Removes them, killing what is still there. Gives up after [`CGROUP_REMOVAL`]; the next cleanup tries again.
    pub(crate) fn remove(&mut self) -> bool {
        let deadline = Instant::now() + CGROUP_REMOVAL;
        let mut pause = Duration::from_micros(100);
        loop {
            let mut left = self.paths();
            left.retain(|path| matches!(fs::remove_dir(path), Err(e) if e.kind() != io::ErrorKind::NotFound));
            if left.is_empty() || Instant::now() > deadline {
                return left.is_empty();
            }
            self.kill();
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

fn base(hierarchy: &Hierarchy, parent: Option<&str>) -> PathBuf {
    match parent {
        Some(parent) => hierarchy.mount.join(parent.trim_start_matches('/')),
        None => hierarchy.mount.join(&hierarchy.own),
    }
}

fn make(directory: &Path) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(|source| Error::SetUpCgroup { path: directory.into(), source })
}

fn put(directory: &Path, file: &str, value: String) -> Result<(), Error> {
    let path = directory.join(file);
    fs::write(&path, value).map_err(|source| Error::SetUpCgroup { path, source })
}

fn limit_v1(directory: &Path, controller: &str, limits: &Limits) -> Result<(), Error> {
    match controller {
        MEMORY => {
            if let Some(bytes) = limits.memory_bytes {
                put(directory, "memory.limit_in_bytes", bytes.to_string())?;
            }
            let both = limits.memory_swap_bytes.map(|b| b.to_string()).or(limits.memory_bytes.map(|b| b.to_string()));
            // Absent without swap accounting.
            match both.filter(|_| directory.join("memory.memsw.limit_in_bytes").exists()) {
                Some(bytes) => put(directory, "memory.memsw.limit_in_bytes", bytes),
                None => Ok(()),
            }
        }
        CPU => {
            if let Some(shares) = limits.cpu_shares {
                put(directory, "cpu.shares", shares.to_string())?;
            }
            match bandwidth(limits) {
                None => Ok(()),
                Some((quota, period)) => {
                    put(directory, "cpu.cfs_period_us", period.to_string())?;
                    put(directory, "cpu.cfs_quota_us", quota.map_or("-1".into(), |quota| quota.to_string()))
                }
            }
        }
        CPUSET => {
            // Both must be there before a process may come; what is not said is as above.
            for (file, value) in [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)] {
                let above = || directory.parent().and_then(|parent| fs::read_to_string(parent.join(file)).ok());
                if let Some(value) = value.clone().or_else(above) {
                    put(directory, file, value.trim().to_owned())?;
                }
            }
            Ok(())
        }
        _ => put(directory, "pids.max", limits.pids.unwrap_or(0).to_string()),
    }
}

fn limit_v2(directory: &Path, controller: &str, limits: &Limits) -> Result<(), Error> {
    match controller {
        MEMORY => {
            let memory = limits.memory_bytes;
            if let Some(bytes) = memory {
                put(directory, "memory.max", bytes.to_string())?;
            }
            if directory.join("memory.swap.max").exists() {
                let swap = match limits.memory_swap_bytes {
                    Some(both) => u64::try_from(both).ok().map(|both| both.saturating_sub(memory.unwrap_or(0))),
                    None => Some(0),
                };
                put(directory, "memory.swap.max", swap.map_or("max".into(), |bytes| bytes.to_string()))?;
            }
            Ok(())
        }
        CPU => {
            if let Some(shares) = limits.cpu_shares {
                // The mapping that every runtime uses: 2..262144 to 1..10000.
                let weight = 1 + shares.clamp(2, 262_144).saturating_sub(2) * 9999 / 262_142;
                put(directory, "cpu.weight", weight.to_string())?;
            }
            match bandwidth(limits) {
                None => Ok(()),
                Some((quota, period)) => {
                    let quota = quota.map_or("max".into(), |quota| quota.to_string());
                    put(directory, "cpu.max", format!("{quota} {period}"))
                }
            }
        }
        CPUSET => {
            for (file, value) in [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)] {
                if let Some(value) = value {
                    put(directory, file, value.clone())?;
                }
            }
            Ok(())
        }
        _ => put(directory, "pids.max", limits.pids.unwrap_or(0).to_string()),
    }
}

/// Microseconds of processor time (`None`: unlimited) per period of microseconds, if anybody said so. The kernel
/// refuses less than one millisecond.
fn bandwidth(limits: &Limits) -> Option<(Option<u64>, u64)> {
    let period = limits.cpu_period.filter(|period| *period > 0).unwrap_or(CPU_PERIOD_MICROS);
    let quota = match (limits.cpu_quota.filter(|quota| *quota != 0), limits.cpu_millis) {
        (Some(quota), _) => u64::try_from(quota).ok(),
        (None, Some(millis)) => Some((millis * period / 1000).max(1000)),
        (None, None) => {
            limits.cpu_period.filter(|period| *period > 0)?;
            None
        }
    };
    Some((quota, period))
}

fn unavailable(controller: &str, reason: &str) -> Error {
    let what = match controller {
        MEMORY => "memory",
        CPU => "cpu time",
        CPUSET => "the processors",
        _ => "the number of processes",
    };
    Error::Limit { what, reason: reason.into() }
}

/// Finds the nearest cgroup from `start` up that may give its children the controllers, and makes it do so. A cgroup
/// with processes in it may not, except the root (cgroups-v2: no internal processes).
fn enable(start: &Path, root: &Path, controllers: &[&str]) -> Result<PathBuf, Error> {
    let mut refused = None;
    for directory in start.ancestors().take_while(|path| path.starts_with(root)) {
        let _ = fs::create_dir_all(directory);
        let words = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
        let offered = words("cgroup.controllers");
        if let Some(missing) = controllers.iter().find(|c| !offered.split_whitespace().any(|word| word == **c)) {
            refused.get_or_insert_with(|| unavailable(missing, "the cgroup hierarchy does not offer it here"));
            continue;
        }
        let given = words("cgroup.subtree_control");
        let lacking = controllers.iter().filter(|c| !given.split_whitespace().any(|word| word == **c));
        let request = lacking.map(|c| format!("+{c}")).collect::<Vec<_>>().join(" ");
        if request.is_empty() {
            return Ok(directory.into());
        }
        match fs::write(directory.join("cgroup.subtree_control"), request) {
            Ok(()) => return Ok(directory.into()),
            Err(source) => {
                let path = directory.join("cgroup.subtree_control");
                refused.get_or_insert(Error::SetUpCgroup { path, source });
            }
        }
    }
    Err(refused.unwrap_or_else(|| unavailable(MEMORY, "the cgroup hierarchy has no usable parent")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_delegated_is_the_topmost_that_is_the_users() {
        let check = |owns: &dyn Fn(&Path) -> bool, expected: Option<&str>| {
            let hierarchy = Hierarchy { mount: "/c".into(), controllers: Vec::new(), own: "user/me/app/shell".into() };
            assert_eq!(hierarchy.delegated(owns), expected.map(PathBuf::from));
        };
        check(&|path| path.starts_with("/c/user/me"), Some("/c/user/me"));
        check(&|_| false, None);
        check(&|_| true, Some("/c"));
        // Somebody else's in between: what is above it is no use.
        check(&|path| path != Path::new("/c/user/me/app"), Some("/c/user/me/app/shell"));
    }

    #[test]
    fn hybrid_hosts_have_both() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      31 30 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      32 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                      33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/work/a\n3:cpu,cpuacct:/\n0::/me\n";
        let found = Hierarchy::parse(mounts, own);
        let seen: Vec<_> =
            found.iter().map(|h| (base(h, None).display().to_string(), h.controllers.join(","))).collect();
        assert_eq!(
            seen,
            [
                ("/sys/fs/cgroup/memory/work/a".into(), "memory".into()),
                ("/sys/fs/cgroup/cpu/".into(), "cpu,cpuacct".into()),
                ("/sys/fs/cgroup/unified/me".into(), String::new()),
            ]
        );
        assert_eq!(base(&found[0], Some("/x")), Path::new("/sys/fs/cgroup/memory/x"));
    }
}
