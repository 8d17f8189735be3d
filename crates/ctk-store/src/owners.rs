//! Whose store it is: owners of files, and notes in trees, mean what they mean to who made them.
//!
//! The trees of an ordinary user's store have files of his subordinate ids. Which id inside stands for which outside is
//! written down, in `ids`: with other subordinate ids, files would seem to belong to others, and images made of them
//! would be wrong.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::StoreError;
use crate::error::Context;
use crate::fsutil::{read_if_there, replace};

const IDS: &str = "ids";
/// What every id is, outside of any user namespace.
const ALL: u64 = 4_294_967_295;

/// Refuses a store that somebody else made, of which `private` is a directory.
pub fn check_owner(root: &Path, private: &str) -> Result<(), StoreError> {
    let path = root.join(private);
    let owner = match fs::metadata(&path) {
        Ok(metadata) => metadata.uid(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context("stat", &path),
    };
    match owner == rustix::process::geteuid().as_raw() {
        true => Ok(()),
        false => Err(StoreError::NotOurs { path: root.to_owned() }),
    }
}

/// Refuses a store with files of ids that are other ones now, or none; writes down which there are. Outside of a user
/// namespace, ids are what they are.
pub fn check_ids(root: &Path, temporary: &Path) -> Result<(), StoreError> {
    let map = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let (users, groups) = (parse(&map("uid_map")), parse(&map("gid_map")));
    if users == [[0, 0, ALL]] || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let path = root.join(IDS);
    let known = read_if_there(&path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let text = print(&users, &groups);
    if known == text {
        return Ok(());
    }
    let part = |name: &str| {
        let lines = known.lines().filter_map(|line| line.strip_prefix(name));
        parse(&lines.collect::<Vec<_>>().join("\n"))
    };
    for (before, now) in [(part("user "), &users), (part("group "), &groups)] {
        if let Some([_, first, count]) = before.iter().find(|range| !covers(now, range)) {
            let ids = format!("{first}-{}", first + count - 1);
            return Err(StoreError::OtherIds { path: root.to_owned(), ids });
        }
    }
    replace(&path, temporary, text.as_bytes())
}

/// First id inside, first id outside, how many.
type Range = [u64; 3];

fn parse(text: &str) -> Vec<Range> {
    let numbers = |line: &str| {
        let mut words = line.split_whitespace().map(|word| word.parse().ok());
        Some([words.next()??, words.next()??, words.next()??])
    };
    text.lines().filter_map(numbers).collect()
}

fn print(users: &[Range], groups: &[Range]) -> String {
    let line = |kind: &str, [inside, outside, count]: &Range| format!("{kind} {inside} {outside} {count}\n");
    let users = users.iter().map(|range| line("user", range));
    users.chain(groups.iter().map(|range| line("group", range))).collect()
}

/// Whether every id of `old` is still the same one.
fn covers(now: &[Range], old: &Range) -> bool {
    let [inside, outside, count] = *old;
    now.iter().any(|[first, to, many]| {
        *first <= inside && *to + (inside - first) == outside && inside + count <= first + many
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_ids_are_as_good() {
        let now = parse("0 1000 1\n         1     100000      65536\n");
        let check = |old: Range, expected: bool| assert_eq!(covers(&now, &old), expected, "{old:?}");
        check([0, 1000, 1], true);
        check([1, 100_000, 65_536], true);
        check([1, 100_000, 10], true);
        check([5, 100_004, 10], true);
        check([1, 100_000, 65_537], false);
        check([1, 200_000, 10], false);
        check([0, 0, 1], false);
        assert_eq!(print(&now, &[]), "user 0 1000 1\nuser 1 100000 65536\n");
    }
}
