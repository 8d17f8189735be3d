//! A root's processes by the `unshare` and `chroot` of util-linux and coreutils: enough for tests and measurements.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ctk_packages::{RunInRoot, ScriptCommand, ScriptOutput};

/// Runs in a directory, in its own mount and process namespaces.
pub struct Chroot {
    /// The new root.
    pub root: PathBuf,
}

const SETUP: &str = r#"set -e
mkdir -p "$0/proc" "$0/dev" "$0/tmp"
mount -t proc proc "$0/proc"
mount -t tmpfs -o mode=0755 dev "$0/dev"
for d in null zero full random urandom tty; do touch "$0/dev/$d"; mount --bind "/dev/$d" "$0/dev/$d"; done
ln -s /proc/self/fd "$0/dev/fd"
exec chroot "$0" "$@" 2>&1"#;

impl RunInRoot for Chroot {
    fn run(&self, command: &ScriptCommand) -> Result<ScriptOutput, Box<dyn std::error::Error + Send + Sync>> {
        let mut child = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "/bin/sh", "-c", SETUP])
            .arg(&self.root)
            .args(&command.argv)
            .env_clear()
            .envs(command.env.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let mut stdin = child.stdin.take().ok_or("no stdin")?;
        let input = command.stdin.clone();
        let feeder = std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output()?;
        feeder.join().map_err(|_| "the feeder died")?;
        Ok(ScriptOutput { code: output.status.code().unwrap_or(137), output: output.stdout })
    }
}
