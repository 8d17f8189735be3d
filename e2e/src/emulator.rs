//! Programs of other processors: a handler in the kernel's binfmt_misc, for as long as a test wants it.
//!
//! The kernel forgets its handlers when the last mount of binfmt_misc goes, so one that is mounted in a mount namespace
//! of its own leaves nothing behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::has;

const FOLDER: &str = "/proc/sys/fs/binfmt_misc";
/// What Debian's `qemu-user-static` registers, with the flags OPF (binfmt.d(5)).
const LINE: &str = "/usr/lib/binfmt.d/qemu-aarch64.conf";

/// A mount namespace where binfmt_misc is mounted.
pub struct Emulator(Child);

impl Emulator {
    /// Whether the kernel, the emulator and we can do this, and nobody's handlers are in the way.
    pub fn possible() -> bool {
        let kernel = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        has("binfmt_misc in the kernel", kernel.contains("binfmt_misc"))
            && has("qemu-user-static", Path::new(LINE).exists())
            && has("a machine without handlers of its own", !Path::new(FOLDER).join("status").exists())
    }

    /// Mounts it, and registers programs of arm64 with `flags` (`Documentation/admin-guide/binfmt-misc.rst`), or none.
    pub fn start(flags: Option<&str>) -> Emulator {
        let line = fs::read_to_string(LINE).expect("a handler of arm64");
        let (start, own) = line.trim().rsplit_once(':').expect("a line of binfmt.d");
        assert_eq!(own, "OPF");
        let line = flags.map(|flags| format!("{start}:{flags}")).unwrap_or_default();
        let script = format!(
            "set -e; mount -t binfmt_misc none {FOLDER}; [ -z \"$0\" ] || printf %s \"$0\" > {FOLDER}/register; echo ready; exec cat"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, &line]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare");
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut ready).expect("a line");
        assert_eq!(ready, "ready\n");
        Emulator(child)
    }

    /// `command`, run where the handler is.
    pub fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["--mount", "--target", &self.0.id().to_string()]);
        if let Some(folder) = command.get_current_dir() {
            inside.arg(format!("--wdns={}", folder.display()));
        }
        inside.arg("--").arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// Switches the handler off.
    pub fn switch_off(&self) {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo 0 > {FOLDER}/qemu-aarch64")]);
        crate::run(self.inside(&command)).ok();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
