//! Who a process is, by the image's own `/etc/passwd` and `/etc/group`.

use crate::Error;

/// A resolved user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// All its groups.
    pub groups: Vec<u32>,
    /// Its home directory.
    pub home: String,
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Resolves `user`, `uid`, `user:group`, `uid:gid`; an empty text is root. A name must exist; a number need not, and
/// then has group 0, as in docker. Numbers are strict: no sign, no overflow.
pub(crate) fn resolve(wanted: &str, passwd: &[u8], group: &[u8]) -> Result<User, Error> {
    let (user, explicit_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let passwd = String::from_utf8_lossy(passwd);
    let group = String::from_utf8_lossy(group);
    let number = id(user);
    // name:password:uid:gid:comment:home:shell
    let account = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        let named = fields.first() == Some(&user);
        named || (number.is_some() && fields.get(2).and_then(|uid| id(uid)) == number)
    });
    let field = |index: usize| account.as_ref().and_then(|fields| fields.get(index).copied());
    let uid = match (field(2).and_then(id), number) {
        (Some(uid), _) => uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(unknown("user", user, PASSWD, &passwd)),
    };
    let home = field(5).filter(|home| home.starts_with('/'));
    let home = home.unwrap_or("/").to_string();
    let lines = || group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    if let Some(wanted) = explicit_group.filter(|g| !g.is_empty()) {
        let gid = self::group(wanted, group.as_bytes())?;
        return Ok(User { uid, gid, groups: vec![gid], home });
    }
    let gid = field(3).and_then(id).unwrap_or(0);
    // Among the supplementary ones as well: setgroups forgets it otherwise (CVE-2023-25173).
    let mut groups = vec![gid];
    if let Some(name) = field(0) {
        for fields in lines() {
            let member = fields.get(3).is_some_and(|members| members.split(',').any(|m| m == name));
            if let (true, Some(gid)) = (member, fields.get(2).and_then(|gid| id(gid)))
                && !groups.contains(&gid)
            {
                groups.push(gid);
            }
        }
    }
    Ok(User { uid, gid, groups, home })
}

/// The number of a group, by its name or itself.
pub(crate) fn group(wanted: &str, group: &[u8]) -> Result<u32, Error> {
    let group = String::from_utf8_lossy(group);
    let mut lines = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let named = lines.find(|fields| fields.first() == Some(&wanted));
    let gid = named.and_then(|fields| id(fields.get(2)?)).or_else(|| id(wanted));
    gid.ok_or_else(|| unknown("group", wanted, GROUP, &group))
}

fn unknown(what: &'static str, name: &str, file: &'static str, text: &str) -> Error {
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Error::UserTooLarge { what, name: name.into() };
    }
    let names = text.lines().filter_map(|line| line.split(':').next()).filter(|known| !known.is_empty());
    let near = ctk_syntax::nearest(name, names).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    Error::UnknownUser { what, name: name.into(), file, near }
}

/// A user or group number.
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // The last number means "no change" to the kernel.
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wanted: &str, expected: Option<(u32, u32, &[u32], &str)>) {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/false\n";
        let group = b"root:x:0:\nweb:x:34:\naudio:x:29:root,web\nvideo:x:44:other\n";
        let found = resolve(wanted, passwd, group).ok();
        let expected =
            expected.map(|(uid, gid, groups, home)| User { uid, gid, groups: groups.into(), home: home.into() });
        assert_eq!(found, expected, "{wanted}");
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        check("", Some((0, 0, &[0, 29], "/root")));
        check("web", Some((33, 34, &[34, 29], "/var/www")));
        check("33", Some((33, 34, &[34, 29], "/var/www")));
        check("web:video", Some((33, 44, &[44], "/var/www")));
        check("1000", Some((1000, 0, &[0], "/")));
        check("1000:1001", Some((1000, 1001, &[1001], "/")));
        check("nobody", None);
        let without = resolve("0", b"", b"").unwrap();
        assert_eq!((without.uid, without.home.as_str()), (0, "/"));
        check("web:nogroup", None);
        check("-1", None);
        check("+1", None);
        check("4294967295", None);
        check("4294967296", None);
    }
}
