//! Ordinary users, with accounts and subordinate ids that only their own processes see.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::{binary, has, has_programs, is_root, run};

/// A user of a case. His processes find `/etc/passwd`, `/etc/subuid` and the like of the case's own, in mounts of their
/// own: nothing of the machine changes.
pub struct User {
    /// What he is called.
    pub name: &'static str,
    /// His user id, and his group id.
    pub uid: u32,
    /// The first and the number of his subordinate ids, of users and of groups.
    pub subordinate: Option<(u32, u32)>,
    accounts: TempDir,
}

/// Who runs as somebody else: mounts the accounts, and becomes him. Devices that others may use on most machines are
/// made so.
const BECOME: &str = r#"
    set -e
    for name in passwd group subuid subgid; do
        test -e /etc/$name || continue
        mount --bind "$0/$name" /etc/$name
    done
    for device in fuse net/tun; do
        test -e "$0/${device##*/}" && test -e /dev/$device && mount --bind "$0/${device##*/}" /dev/$device
    done
    user=$1; shift
    exec setpriv --reuid "$user" --regid "$user" --clear-groups -- "$@"
"#;

impl User {
    /// A user with so many subordinate ids from the first on, of users and of groups.
    pub fn new(name: &'static str, uid: u32, subordinate: Option<(u32, u32)>) -> User {
        let accounts = tempfile::Builder::new().prefix("ctk-e2e-user-").tempdir_in("/var/tmp").expect("a folder");
        fs::set_permissions(accounts.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
        let ranges = subordinate.map_or(String::new(), |(first, count)| format!("{name}:{first}:{count}\n"));
        let passwd = format!("root:x:0:0::/root:/bin/sh\n{name}:x:{uid}:{uid}::/nonexistent:/bin/sh\n");
        let group = format!("root:x:0:\n{name}:x:{uid}:\n");
        for (file, text) in [("passwd", &passwd), ("group", &group), ("subuid", &ranges), ("subgid", &ranges)] {
            fs::write(accounts.path().join(file), text).expect("a file");
        }
        for (device, major, minor) in [("fuse", "10", "229"), ("tun", "10", "200")] {
            let mut command = Command::new("mknod");
            command.args(["-m", "666"]).arg(accounts.path().join(device)).args(["c", major, minor]);
            run(command).ok();
        }
        User { name, uid, subordinate, accounts }
    }

    /// Whether there can be such users here.
    pub fn can_be() -> bool {
        let enter = |folder: &Path| fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o1 != 0);
        let reach = binary().ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).all(enter);
        is_root()
            && has_programs(&["unshare", "setpriv", "mount", "newuidmap", "newgidmap", "chown", "mknod"])
            && has("a place of the program that others may enter (see CARGO_TARGET_DIR)", reach)
    }

    /// Words that run a program as this user, from within mounts of its own.
    pub fn words(&self) -> Vec<String> {
        let accounts = self.accounts.path().display().to_string();
        ["sh", "-c", BECOME, &accounts, &self.uid.to_string()].map(String::from).to_vec()
    }

    /// A program as this user, not yet started.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "--"])
            .args(self.words())
            .arg(program)
            .stdin(Stdio::null());
        for variable in ["XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
            command.env_remove(variable);
        }
        command.env("USER", self.name);
        command
    }

    /// Gives a path and all below to him.
    pub fn give(&self, path: &Path) {
        let mut command = Command::new("chown");
        command.args(["-hR", &format!("{0}:{0}", self.uid)]).arg(path);
        run(command).ok();
    }
}
