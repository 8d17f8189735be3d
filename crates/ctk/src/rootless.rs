//! Ordinary users: before anything else happens, `ctk` moves into a user namespace where it is root and its user's
//! subordinate ids are the other owners that files have. What was chosen is said.

use std::fmt::Write;
use std::path::Path;

use ctk_runtime::Hierarchy;
use ctk_runtime::rootless::{self, Mapped, Owner, Range};

use crate::commands::{Command, Trees};
use crate::env::Environment;
use crate::failure::Failure;

const SUBUID: &str = "/etc/subuid";
const SUBGID: &str = "/etc/subgid";

/// As what the command runs.
pub enum Standing {
    /// As it was started: it needs no more, or has it already.
    AsStarted,
    /// As root of a user namespace.
    Moved {
        /// Who was it.
        owner: Owner,
        /// What he is called, if `/etc/passwd` knows.
        name: Option<String>,
        /// Which ids there are.
        mapped: Mapped,
    },
}

/// Moves where the command can do its work. Needs a process of one thread.
pub fn enter(command: &Command, environment: &Environment) -> Result<Standing, Failure> {
    let uid = rustix::process::geteuid();
    if uid.is_root() || command.trees() == Trees::Untouched {
        return Ok(Standing::AsStarted);
    }
    let uid = uid.as_raw();
    let name = account(uid).or_else(|| environment.get("USER"));
    let ranges = |path: &str| rootless::subordinate(&rootless::read_subordinate(Path::new(path)), name.as_deref(), uid);
    let gid = rustix::process::getegid().as_raw();
    let owner = Owner { uid, gid, uids: ranges(SUBUID), gids: ranges(SUBGID) };
    match rootless::enter(&owner) {
        Ok(mapped) => Ok(Standing::Moved { owner, name, mapped }),
        // A store without trees needs no owners.
        Err(_) if command.trees() == Trees::Handled => Ok(Standing::AsStarted),
        Err(error) => {
            let hint = obstacle().unwrap_or_else(|| "root needs none; `unshare --user true` tells more".into());
            Err(Failure::Error { code: None, error: Box::new(error), hint: Some(hint) })
        }
    }
}

impl Standing {
    /// What the user should know of it in any case: that something is missing.
    pub fn note(&self) -> Option<String> {
        let Standing::Moved { owner, name, mapped: Mapped::One { reason } } = self else { return None };
        let who = name.clone().unwrap_or_else(|| owner.uid.to_string());
        let mut text = match reason.as_str() {
            "" => format!("note: `{who}` has no subordinate ids in {SUBUID} and {SUBGID}"),
            reason => format!("note: `{who}` cannot use his subordinate ids: {reason}"),
        };
        text += "; in images, only what belongs to root can be made\n";
        if reason.is_empty() {
            let range = |path: &str| {
                let Range { first, count } = rootless::free_range(&rootless::read_subordinate(Path::new(path)));
                format!("{first}-{}", u64::from(first) + u64::from(count) - 1)
            };
            let (users, groups) = (range(SUBUID), range(SUBGID));
            let _ = writeln!(text, "  hint: `usermod --add-subuids {users} --add-subgids {groups} {who}`, as root");
        } else if reason.starts_with("there is no") {
            text += "  hint: the package is called `uidmap`, or `shadow-utils`\n";
        }
        Some(text)
    }

    /// What was chosen, for who wants to know.
    pub fn story(&self) -> Option<String> {
        let Standing::Moved { owner, mapped, .. } = self else { return None };
        let ids = match mapped {
            Mapped::Many { users, groups } => format!("root is {}, {users} more users and {groups} groups", owner.uid),
            Mapped::One { .. } => format!("root is {}, nobody else", owner.uid),
        };
        let hierarchies = Hierarchy::read().unwrap_or_default();
        let delegated: Vec<String> = hierarchies
            .iter()
            .filter_map(|hierarchy| hierarchy.delegated(&Hierarchy::is_writable))
            .map(|path| path.display().to_string())
            .collect();
        let cgroups = match delegated.is_empty() {
            true => "none delegated, so no limits".to_owned(),
            false => delegated.join(", "),
        };
        Some(format!("user namespace: {ids}; file systems: overlay with userxattr; cgroups: {cgroups}\n"))
    }
}

/// What `/etc/passwd` calls a user.
fn account(uid: u32) -> Option<String> {
    let text = ctk_store::read_given_text(Path::new("/etc/passwd")).ok()?;
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let found = text.lines().map(fields).find(|fields| fields.get(2).is_some_and(|id| *id == uid.to_string()))?;
    found.into_iter().next().filter(|name| !name.is_empty())
}

/// The setting of the machine by which ordinary users make no user namespaces, with what to do about it.
fn obstacle() -> Option<String> {
    let is = |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let settings = [
        ("kernel.unprivileged_userns_clone", "/proc/sys/kernel/unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "/proc/sys/user/max_user_namespaces", "0", "15000"),
        (
            "kernel.apparmor_restrict_unprivileged_userns",
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "0",
        ),
    ];
    settings.into_iter().find(|(_, path, bad, _)| is(path, bad)).map(|(name, _, bad, good)| {
        format!("ordinary users may make none here ({name} is {bad}); root can allow it: `sysctl {name}={good}`")
    })
}
