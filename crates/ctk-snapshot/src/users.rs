//! Names of users and groups, as an image's own `/etc/passwd` and `/etc/group` know them.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use ctk_syntax::nearest;
use rustix::fs::OFlags;

use crate::SnapshotError;
use crate::dir::open_in_root;
use crate::error::Context;
use crate::limits::USERS_MAX_BYTES;

/// The ids that `user[:group]` means in the tree `root`: names or numbers. Without a group, a named user's group is
/// the one of its `/etc/passwd` line, and a numeric user's group is the same number, as `COPY --chown` has it; a missing
/// word beside a colon is 0. `root` is 0 also where no file says so.
pub fn lookup_owner(root: BorrowedFd<'_>, owner: &str) -> Result<(u32, u32), SnapshotError> {
    let (user, group) = match owner.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (owner, None),
    };
    let (uid, own_group) = match number(user)? {
        Some(uid) => (uid, uid),
        None => {
            let fields = find(&database(root, "/etc/passwd")?, "user", user, "/etc/passwd", &[2, 3])?;
            (fields[0], fields[1])
        }
    };
    let Some(group) = group else { return Ok((uid, own_group)) };
    match number(group)? {
        Some(gid) => Ok((uid, gid)),
        None => Ok((uid, find(&database(root, "/etc/group")?, "group", group, "/etc/group", &[2])?[0])),
    }
}

/// A word as an id; none if it is a name.
fn number(word: &str) -> Result<Option<u32>, SnapshotError> {
    if word.is_empty() {
        return Ok(Some(0));
    }
    match word.parse() {
        // The kernel takes it for "leave as it is".
        Ok(u32::MAX) => {
            Err(SnapshotError::Refused { path: word.to_owned(), reason: "4294967295 is the id of nobody at all" })
        }
        id => Ok(id.ok()),
    }
}

/// The numbers in these `columns` of the line that begins with `name`.
fn find(
    database: &str,
    what: &'static str,
    name: &str,
    file: &'static str,
    columns: &[usize],
) -> Result<Vec<u32>, SnapshotError> {
    let lines = || database.lines().map(|line| line.split(':').collect::<Vec<_>>());
    if let Some(fields) = lines().find(|fields| fields[0] == name) {
        let ids: Option<Vec<u32>> = columns.iter().map(|column| fields.get(*column)?.parse().ok()).collect();
        if let Some(ids) = ids {
            return Ok(ids);
        }
    }
    if name == "root" {
        return Ok(vec![0; columns.len()]);
    }
    let names: Vec<&str> = lines().map(|fields| fields[0]).collect();
    let near = nearest(name, names).map(str::to_owned);
    Err(SnapshotError::NoSuchUser { what, name: name.to_owned(), file, near })
}

/// The file's text; empty if it isn't there.
fn database(root: BorrowedFd<'_>, path: &str) -> Result<String, SnapshotError> {
    let file = match open_in_root(root, path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        file => File::from(file.context("open", path.as_bytes())?),
    };
    let mut bytes = Vec::new();
    file.take(USERS_MAX_BYTES).read_to_end(&mut bytes).context("read", path.as_bytes())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
