//! Ordinary users: a user namespace of this process's own, in which it is root and its subordinate ids (`subuid(5)`) are
//! the other owners that files of images have.
//!
//! Only `newuidmap` and `newgidmap` may give somebody more ids than his own, and they do it from outside: two children
//! are made before the namespace, wait until it is there, and become the two programs. It is this process that moves, so
//! it can have no other threads yet; everything it starts later is inside.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use ctk_sys::{Child, Pointer, Start, Step};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::Error;
use crate::limits::{HELPER_BYTES, SUBORDINATE_BYTES, SUBORDINATE_RANGES};

/// A range of ids of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Who is to be root in a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// His user id.
    pub uid: u32,
    /// His group id.
    pub gid: u32,
    /// His subordinate user ids.
    pub uids: Vec<Range>,
    /// His subordinate group ids.
    pub gids: Vec<Range>,
}

/// Which ids a user namespace has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// Root, and from 1 on so many others of users, and of groups.
    Many {
        /// Of users.
        users: u64,
        /// Of groups.
        groups: u64,
    },
    /// Root alone.
    One {
        /// Why there are no more.
        reason: String,
    },
}

/// Whether we are in a user namespace that is not the machine's first: there overlays keep their notes elsewhere, and
/// nobody makes device nodes. Asked once.
pub fn in_user_namespace() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let text = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
    })
}

/// Whether we have no rights on the machine itself, but at most in a user namespace.
pub fn is_ordinary() -> bool {
    !rustix::process::geteuid().is_root() || in_user_namespace()
}

/// Whether root is the only one that there is in our user namespace.
pub fn is_alone() -> bool {
    let text = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    text.split_whitespace().nth(2) == Some("1") && text.lines().count() == 1
}

/// The ranges that a text like `/etc/subuid` gives to a user, who stands there by name or by number.
pub fn subordinate(text: &str, name: Option<&str>, uid: u32) -> Vec<Range> {
    let number = uid.to_string();
    let of_line = |line: &str| {
        let mut fields = line.trim().split(':');
        let who = fields.next().filter(|who| Some(*who) == name || *who == number)?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (!who.is_empty() && count > 0).then_some(Range { first, count })
    };
    text.lines().filter_map(of_line).take(SUBORDINATE_RANGES).collect()
}

/// A range of the usual size that the text gives to nobody, above all that it does.
pub fn free_range(text: &str) -> Range {
    const FIRST: u32 = 100_000;
    const COUNT: u32 = 65_536;
    let end_of = |line: &str| {
        let mut fields = line.trim().split(':').skip(1);
        let (first, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        first.checked_add(count)
    };
    let first = text.lines().filter_map(end_of).max().unwrap_or(FIRST).max(FIRST);
    Range { first, count: COUNT }
}

/// Reads `/etc/subuid` or `/etc/subgid`; one that is missing gives nobody anything.
pub fn read_subordinate(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(SUBORDINATE_BYTES).read_to_string(&mut text);
    }
    text
}

/// Moves this process into a new user namespace and a mount namespace of it: as root there, with the owner's subordinate
/// ids if there are any and the helpers give them. Needs a process of one thread. An error leaves it where it was, or
/// in a namespace without ids, where it had better end.
pub fn enter(owner: &Owner) -> Result<Mapped, Error> {
    let lists = [("newuidmap", owner.uid, &owner.uids), ("newgidmap", owner.gid, &owner.gids)];
    let (go_read, go_write) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::Clone(e.into()))?;
    let many = lists.iter().all(|(_, _, ranges)| !ranges.is_empty());
    let mut helpers = Vec::new();
    if many {
        for (program, own, ranges) in lists {
            helpers.push(Helper::start(program, own, ranges, &go_read, &go_write)?);
        }
    }
    drop(go_read);
    if let Err(errno) = ctk_sys::unshare((libc::CLONE_NEWUSER | libc::CLONE_NEWNS) as u32) {
        // Nobody lets them go on, so they end.
        drop(go_write);
        helpers.into_iter().for_each(|helper| drop(helper.end()));
        return Err(Error::UserNamespace(errno.into()));
    }
    // A byte each. That they are gone already shows below.
    let _ = rustix::io::write(&go_write, &[b'!'; 2][..helpers.len()]);
    drop(go_write);
    let answers: Vec<Result<(), String>> = helpers.into_iter().map(Helper::end).collect();
    let total = |ranges: &[Range]| ranges.iter().map(|range| u64::from(range.count)).sum();
    let reason = match answers.iter().find_map(|answer| answer.as_ref().err()) {
        None if many => return Ok(Mapped::Many { users: total(&owner.uids), groups: total(&owner.gids) }),
        None => String::new(),
        Some(said) => said.clone(),
    };
    let put = |path: &str, text: &str| fs::write(path, text).map_err(Error::UserNamespace);
    // What one of the two may have done is done.
    let is_empty = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim().is_empty());
    if is_empty("/proc/self/gid_map") {
        put("/proc/self/setgroups", "deny")?;
        put("/proc/self/gid_map", &format!("0 {} 1", owner.gid))?;
    }
    if is_empty("/proc/self/uid_map") {
        put("/proc/self/uid_map", &format!("0 {} 1", owner.uid))?;
    }
    Ok(Mapped::One { reason })
}

/// A child that becomes `newuidmap` or `newgidmap`.
struct Helper {
    program: &'static str,
    child: Child,
    said: OwnedFd,
}

impl Helper {
    fn start(
        program: &'static str,
        own: u32,
        ranges: &[Range],
        go: &OwnedFd,
        other: &OwnedFd,
    ) -> Result<Helper, Error> {
        let failed = |e: Errno| Error::Clone(e.into());
        let mut words = vec![program.to_owned(), std::process::id().to_string()];
        words.extend(["0".into(), own.to_string(), "1".into()]);
        let mut inside: u64 = 1;
        for range in ranges {
            words.extend([inside.to_string(), range.first.to_string(), range.count.to_string()]);
            inside += u64::from(range.count);
        }
        // Numbers and a constant: none has a NUL.
        let words: Vec<CString> = words.into_iter().filter_map(|word| CString::new(word).ok()).collect();
        let places: Vec<CString> = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"]
            .iter()
            .filter_map(|folder| CString::new(format!("{folder}/{program}")).ok())
            .collect();
        let candidates: Vec<&CStr> = places.iter().map(CString::as_c_str).collect();
        let arguments: Vec<Pointer<'_>> =
            words.iter().map(|word| Pointer::new(word)).chain(std::iter::once(Pointer::END)).collect();
        let (said, says) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let null = crate::null_file()?;
        let steps = [
            Step::ResetSignals,
            Step::Duplicate { from: null.as_raw_fd(), to: 0 },
            Step::Duplicate { from: says.as_raw_fd(), to: 1 },
            Step::Duplicate { from: says.as_raw_fd(), to: 2 },
            Step::Await { file: go.as_raw_fd(), other: other.as_raw_fd() },
            Step::Execute { candidates: &candidates, arguments: &arguments, environment: &[Pointer::END] },
        ];
        let child = ctk_sys::start(&Start { namespaces: 0, cgroup: None, steps: &steps }).map_err(failed)?;
        Ok(Helper { program, child, said })
    }

    /// Waits for its end; what it said, or why there is no such program, if that was not good.
    fn end(self) -> Result<(), String> {
        let Helper { program, child, said } = self;
        let (pidfd, executed) = child.executed();
        let mut text = String::new();
        let _ = fs::File::from(said).take(HELPER_BYTES).read_to_string(&mut text);
        let by = WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd));
        let status = loop {
            match waitid(by.clone(), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        if let Err(failure) = executed {
            return Err(match Errno::from_raw_os_error(failure.errno) {
                Errno::NOENT => format!("there is no `{program}`"),
                errno => format!("`{program}` cannot be run: {errno}"),
            });
        }
        match status {
            Ok(Some(status)) if status.exit_status() == Some(0) => Ok(()),
            _ => Err(match text.lines().find(|line| !line.trim().is_empty()) {
                Some(line) => line.trim().to_owned(),
                None => format!("`{program}` failed"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "root:1:2\nalice:100000:65536\n\n1001:165536:1000\nbob:broken\nalice:300000:10\nbob:5:0\n";

    #[test]
    fn users_have_ranges_by_name_and_number() {
        let check = |name, uid, expected: &[(u32, u32)]| {
            let found = subordinate(TEXT, name, uid);
            assert_eq!(found.iter().map(|range| (range.first, range.count)).collect::<Vec<_>>(), expected);
        };
        check(Some("alice"), 1000, &[(100_000, 65_536), (300_000, 10)]);
        check(None, 1001, &[(165_536, 1000)]);
        check(Some("bob"), 7, &[]);
        check(None, 7, &[]);
    }

    #[test]
    fn a_free_range_is_above_the_others() {
        assert_eq!(free_range(TEXT), Range { first: 300_010, count: 65_536 });
        assert_eq!(free_range(""), Range { first: 100_000, count: 65_536 });
    }
}
