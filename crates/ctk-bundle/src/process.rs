//! `process` as tasks: who the program is, what it may, where it stands. Shared by containers and `exec`.

use std::collections::BTreeSet;
use std::ffi::CString;

use ctk_runtime::Capabilities;

use crate::action::{Action, text};
use crate::plan::{Host, Tasks};
use crate::spec::{self, Linux, Process, Spec};
use crate::{Error, landlock};

/// Resource limits by name: the numbers of Linux (`asm-generic/resource.h`), whatever type a C library gives them.
pub const RLIMITS: [(&str, u32); 16] = [
    ("RLIMIT_AS", 9),
    ("RLIMIT_CORE", 4),
    ("RLIMIT_CPU", 0),
    ("RLIMIT_DATA", 2),
    ("RLIMIT_FSIZE", 1),
    ("RLIMIT_LOCKS", 10),
    ("RLIMIT_MEMLOCK", 8),
    ("RLIMIT_MSGQUEUE", 12),
    ("RLIMIT_NICE", 13),
    ("RLIMIT_NOFILE", 7),
    ("RLIMIT_NPROC", 6),
    ("RLIMIT_RSS", 5),
    ("RLIMIT_RTPRIO", 14),
    ("RLIMIT_RTTIME", 15),
    ("RLIMIT_SIGPENDING", 11),
    ("RLIMIT_STACK", 3),
];

/// The program, in C strings.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Where it may be, in order.
    pub candidates: Vec<CString>,
    /// Arguments with its name.
    pub args: Vec<CString>,
    /// Environment.
    pub env: Vec<CString>,
}

/// The `PATH` of a process that has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program of a process, with `HOME` if it is missing.
pub fn program(process: &Process, home: Option<&str>) -> Result<Program, Error> {
    let Some(name) = process.args.first() else {
        return Err(Error::config("process.args", "at least the program is needed"));
    };
    let all = |list: &[String], field: &str| {
        list.iter().enumerate().map(|(i, one)| text(one, &format!("{field}[{i}]"))).collect::<Result<Vec<_>, _>>()
    };
    let mut candidates = Vec::new();
    if name.contains('/') {
        candidates.push(text(name, "process.args[0]")?);
    } else if !name.is_empty() {
        let path = process.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
        for directory in path.unwrap_or(DEFAULT_PATH).split(':').filter(|directory| !directory.is_empty()) {
            candidates.push(text(&format!("{}/{name}", directory.trim_end_matches('/')), "process.args[0]")?);
        }
    }
    // An entry without `=` takes nothing from anybody else's environment: it stands as it is or not at all
    // (CVE-2026-57231 was a runtime that looked it up in its own).
    let mut env: Vec<CString> =
        all(&process.env, "process.env")?.into_iter().filter(|entry| entry.as_bytes().contains(&b'=')).collect();
    if let Some(home) = home.filter(|_| !process.env.iter().any(|entry| entry.starts_with("HOME="))) {
        env.push(text(&format!("HOME={home}"), "process.env")?);
    }
    Ok(Program { candidates, args: all(&process.args, "process.args")?, env })
}

/// The working directory.
pub(crate) fn directory(process: &Process) -> Result<CString, Error> {
    if !process.cwd.starts_with('/') {
        return Err(Error::config("process.cwd", format!("`{}` is not absolute", process.cwd)));
    }
    let clean: Vec<&str> = process.cwd.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
    text(&format!("/{}", clean.join("/")), "process.cwd")
}

/// Opens its terminal.
pub(crate) fn terminal(process: &Process, console: bool) -> Action {
    let size = process.console_size.as_ref().map_or((0, 0), |size| (size.height, size.width));
    // The group stays the one that the file system gives: usually `tty`.
    Action::Terminal { owner: (process.user.uid, u32::MAX), size, console }
}

/// What is asked for of capabilities and cannot be given, in words for a warning: names that this runtime does not know,
/// and what it does not have itself (`config.md#posix-process`).
pub(crate) fn left_out(process: &Process, own: u64) -> Vec<String> {
    let Some(given) = &process.capabilities else { return Vec::new() };
    let sets = [&given.bounding, &given.effective, &given.permitted, &given.inheritable, &given.ambient];
    let names: BTreeSet<&str> = sets.into_iter().flat_map(|set| set.iter().map(String::as_str)).collect();
    let why = |name: &str| match Capabilities::parse(name) {
        None => Some(format!("process.capabilities: `{name}` is not known here, and left out")),
        Some(one) if one.bits() & own == 0 => Some(format!(
            "process.capabilities: `{name}` is left out: this process does not have it, and nobody passes on more"
        )),
        Some(_) => None,
    };
    names.into_iter().filter_map(why).collect()
}

fn set(names: &[String], field: &str) -> Result<u64, Error> {
    let mut all = 0;
    for (index, name) in names.iter().enumerate() {
        match name.starts_with("CAP_").then(|| Capabilities::parse(name)).flatten() {
            Some(one) => all |= one.bits(),
            None => {
                // A newer kernel's: passed over with a word, as the specification allows.
                let known = name.strip_prefix("CAP_").is_some_and(|rest| {
                    !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit())
                });
                if !known {
                    return Err(Error::config(&format!("{field}[{index}]"), format!("`{name}` is no capability")));
                }
            }
        }
    }
    Ok(all)
}

/// Everything up to the moment of starting; of a `further` process where others are already.
pub(crate) fn tasks(
    process: &Process,
    spec: &Spec,
    host: &Host,
    further: bool,
    tasks: &mut Tasks,
) -> Result<(), Error> {
    let none = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&none);
    // Already at the terminal: its session is this one.
    tasks.add("", Action::Session);
    if process.terminal {
        tasks.add("process.terminal", Action::TakeTerminal);
    }
    let mut seen = Vec::new();
    for (index, limit) in process.rlimits.iter().enumerate() {
        let field = format!("process.rlimits[{index}]");
        let Some((_, resource)) = RLIMITS.iter().find(|(name, _)| *name == limit.kind) else {
            return Err(Error::config(&format!("{field}.type"), format!("unknown limit `{}`", limit.kind)));
        };
        if seen.contains(resource) {
            return Err(Error::config(&format!("{field}.type"), format!("a second `{}`", limit.kind)));
        }
        seen.push(*resource);
        if limit.soft > limit.hard {
            return Err(Error::config(&format!("{field}.soft"), "is more than the hard limit"));
        }
        let (name, resource) = (limit.kind.clone(), *resource);
        tasks.add(&field, Action::Rlimit { name, resource, soft: limit.soft, hard: limit.hard });
    }
    if let Some(personality) = &linux.personality {
        tasks.add("linux.personality", Action::Personality(persona(personality)?));
    }
    if let Some(priority) = &process.io_priority {
        tasks.add("process.ioPriority", Action::IoPriority(io_priority(priority)?));
    }
    if let Some(scheduler) = &process.scheduler {
        tasks.add("process.scheduler", Action::Scheduler(scheduler_attributes(scheduler)?));
    }
    if let Some(policy) = &linux.memory_policy {
        let (mode, nodes) = memory_policy(policy)?;
        tasks.add("linux.memoryPolicy", Action::MemoryPolicy { mode, nodes });
    }
    let no_capabilities = spec::Capabilities::default();
    let given = process.capabilities.as_ref().unwrap_or(&no_capabilities);
    let own = host.capabilities;
    let sets =
        |names: &[String], name: &str| Ok::<u64, Error>(set(names, &format!("process.capabilities.{name}"))? & own);
    let bounding = sets(&given.bounding, "bounding")?;
    let permitted = sets(&given.permitted, "permitted")?;
    let effective = sets(&given.effective, "effective")? & permitted;
    let inheritable = sets(&given.inheritable, "inheritable")?;
    let ambient = sets(&given.ambient, "ambient")? & permitted & inheritable;
    tasks.add("process.capabilities.bounding", Action::BoundingSet(bounding));
    tasks.add("process.user.umask", Action::Umask(process.user.umask.unwrap_or(0o022)));
    tasks.add("process.cwd", Action::WorkingDirectory(directory(process)?));
    tasks.add("", Action::ResetSignals);
    tasks.add("", Action::CloseFrom(3 + host.switches.preserve_fds));
    if let Some(action) = landlock::asked(spec, host.landlock, further)? {
        tasks.add(landlock::FIELD, action);
    }
    if linux.seccomp.is_some() && !process.no_new_privileges {
        // Needs CAP_SYS_ADMIN, so before capabilities go.
        tasks.add("linux.seccomp", Action::Seccomp);
    }
    tasks.add("", Action::KeepCapabilities);
    let groups = &process.user.additional_gids;
    // An ordinary user may not even drop groups where he has no other ids. Where he may, his own are not the container's.
    // His only group once more gives nothing, either.
    let optional = !host.makes_nodes && groups.iter().all(|group| *group == process.user.gid);
    tasks.add("process.user.additionalGids", Action::Groups { groups: groups.to_vec(), optional });
    tasks.add("process.user.gid", Action::Gid(process.user.gid));
    tasks.add("process.user.uid", Action::Uid(process.user.uid));
    tasks.add("process.capabilities", Action::Capabilities([effective, permitted, inheritable, ambient]));
    if process.no_new_privileges {
        tasks.add("process.noNewPrivileges", Action::NoNewPrivileges);
    }
    Ok(())
}

/// What comes after the start.
pub(crate) fn last(process: &Process, linux: &Linux, tasks: &mut Tasks) {
    if linux.seccomp.is_some() && process.no_new_privileges {
        tasks.add("linux.seccomp", Action::Seccomp);
    }
    tasks.add("process.args", Action::Execute);
}

/// Domains by name.
pub const DOMAINS: [(&str, u64); 2] = [("LINUX", 0), ("LINUX32", 8)];

fn persona(personality: &spec::Personality) -> Result<u64, Error> {
    let known = DOMAINS.iter().find(|(name, _)| *name == personality.domain);
    let (_, domain) = known.ok_or_else(|| {
        Error::config("linux.personality.domain", format!("`{}` is neither LINUX nor LINUX32", personality.domain))
    })?;
    match personality.flags.first() {
        None => Ok(*domain),
        Some(flag) => Err(Error::config("linux.personality.flags[0]", format!("`{flag}`: no flags are supported yet"))),
    }
}

/// Classes of input and output.
pub const IO_CLASSES: [(&str, u32); 3] = [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

fn io_priority(priority: &spec::IoPriority) -> Result<u32, Error> {
    let known = IO_CLASSES.iter().find(|(name, _)| *name == priority.class);
    let (_, class) = known
        .ok_or_else(|| Error::config("process.ioPriority.class", format!("unknown class `{}`", priority.class)))?;
    match u32::try_from(priority.priority) {
        Ok(level @ 0..=7) => Ok(class << 13 | level),
        _ => Err(Error::config("process.ioPriority.priority", format!("{} is not from 0 to 7", priority.priority))),
    }
}

/// Scheduling policies.
pub const POLICIES: [(&str, u32); 6] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

/// Flags of a policy.
pub const SCHEDULER_FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// `struct sched_attr` of the first version, 48 bytes.
fn scheduler_attributes(scheduler: &spec::Scheduler) -> Result<Vec<u8>, Error> {
    let known = POLICIES.iter().find(|(name, _)| *name == scheduler.policy);
    let (_, policy) = known
        .ok_or_else(|| Error::config("process.scheduler.policy", format!("unknown policy `{}`", scheduler.policy)))?;
    let mut flags = 0;
    for (index, flag) in scheduler.flags.iter().enumerate() {
        let known = SCHEDULER_FLAGS.iter().find(|(name, _)| name == flag);
        let field = format!("process.scheduler.flags[{index}]");
        flags |= known.ok_or_else(|| Error::config(&field, format!("unknown flag `{flag}`")))?.1;
    }
    let priority = u32::try_from(scheduler.priority.unwrap_or(0))
        .map_err(|_| Error::config("process.scheduler.priority", "is negative"))?;
    let mut bytes = Vec::with_capacity(48);
    bytes.extend(48_u32.to_ne_bytes());
    bytes.extend(policy.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(scheduler.nice.unwrap_or(0).to_ne_bytes());
    bytes.extend(priority.to_ne_bytes());
    for value in [scheduler.runtime, scheduler.deadline, scheduler.period] {
        bytes.extend(value.unwrap_or(0).to_ne_bytes());
    }
    Ok(bytes)
}

/// Modes of a memory policy.
pub const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

/// Flags of a memory policy.
pub const MEMORY_FLAGS: [(&str, u32); 3] =
    [("MPOL_F_NUMA_BALANCING", 1 << 13), ("MPOL_F_RELATIVE_NODES", 1 << 14), ("MPOL_F_STATIC_NODES", 1 << 15)];

fn memory_policy(policy: &spec::MemoryPolicy) -> Result<(u32, Vec<u64>), Error> {
    let known = MEMORY_MODES.iter().find(|(name, _)| *name == policy.mode);
    let mut mode =
        known.ok_or_else(|| Error::config("linux.memoryPolicy.mode", format!("unknown mode `{}`", policy.mode)))?.1;
    for (index, flag) in policy.flags.iter().enumerate() {
        let known = MEMORY_FLAGS.iter().find(|(name, _)| name == flag);
        let field = format!("linux.memoryPolicy.flags[{index}]");
        mode |= known.ok_or_else(|| Error::config(&field, format!("unknown flag `{flag}`")))?.1;
    }
    let nodes = policy.nodes.as_deref().unwrap_or_default();
    Ok((mode, if nodes.is_empty() { Vec::new() } else { bits(nodes, "linux.memoryPolicy.nodes")? }))
}

/// `0-3,7` as bits.
pub fn bits(list: &str, field: &str) -> Result<Vec<u64>, Error> {
    /// More processors than any kernel is built for.
    const LIMIT: usize = 8192;
    let wrong = || Error::config(field, format!("`{list}` is no list as 0-3,7"));
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|n| *n < LIMIT).ok_or_else(wrong);
    let mut all: Vec<u64> = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        for bit in first..=last {
            if all.len() <= bit / 64 {
                all.resize(bit / 64 + 1, 0);
            }
            if let Some(word) = all.get_mut(bit / 64) {
                *word |= 1 << (bit % 64);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_that_cannot_be_given_are_told() {
        let text = r#"{"args":["true"],"cwd":"/","capabilities":{"bounding":["CAP_CHOWN","CAP_NEWER"],
            "permitted":["CAP_SYS_TIME","CAP_NEWER"]}}"#;
        let process: Process = crate::spec::read(text).unwrap();
        let told = left_out(&process, 1).join("\n");
        assert!(
            told.contains("`CAP_NEWER` is not known here") && told.contains("`CAP_SYS_TIME` is left out"),
            "{told}"
        );
        assert_eq!(told.lines().count(), 2);
        assert_eq!(left_out(&process, u64::MAX).len(), 1);
    }

    #[test]
    fn lists_are_bits() {
        assert_eq!(bits("0-3,7", "x").unwrap(), [0x8f]);
        assert_eq!(bits("64", "x").unwrap(), [0, 1]);
        for bad in ["", "3-1", "a", "99999"] {
            assert!(bits(bad, "x").is_err(), "{bad}");
        }
    }
}
