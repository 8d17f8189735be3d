//! Names of users and groups, as an image's own `/etc/passwd` and `/etc/group` know them.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::OFlags;

use crate::SnapshotError;
use crate::dir::open_in_root;
use crate::error::Context;
use crate::limits::USERS_MAX_BYTES;

/// The ids that `user[:group]` means in the tree `root`: names or numbers. Without a group, a named user's group is
/// the one of its `/etc/passwd` line, and a numeric user's group is the same number, as `COPY --chown` has it.
pub fn lookup_owner(root: BorrowedFd<'_>, owner: &str) -> Result<(u32, u32), SnapshotError> {
    let (user, group) = match owner.split_once(':') {
        Some((user, group)) if !group.is_empty() => (user, Some(group)),
        Some((user, _)) => (user, None),
        None => (owner, None),
    };
    let (uid, own_group) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) => {
            let passwd = database(root, "/etc/passwd")?;
            let line = find(&passwd, user);
            let ids = line.and_then(|fields| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)));
            let unknown = || SnapshotError::NoSuchUser { what: "user", name: user.to_owned(), file: "/etc/passwd" };
            ids.ok_or_else(unknown)?
        }
    };
    let Some(group) = group else { return Ok((uid, own_group)) };
    if let Ok(gid) = group.parse::<u32>() {
        return Ok((uid, gid));
    }
    let groups = database(root, "/etc/group")?;
    let gid = find(&groups, group).and_then(|fields| fields.get(2)?.parse().ok());
    let unknown = || SnapshotError::NoSuchUser { what: "group", name: group.to_owned(), file: "/etc/group" };
    Ok((uid, gid.ok_or_else(unknown)?))
}

fn find<'a>(database: &'a str, name: &str) -> Option<Vec<&'a str>> {
    database.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name)
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
